//! Chooses items. Pure.
//!
//! The hash of the session's id chooses the position in the list from which the first free items are taken. So sessions
//! of different swarms rarely want the same item first, and a session gets the same items again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::{FILE_MAX, ITEM_MAX, Items, KIND, Options};
use crate::host::text::printable;
use crate::manifest::rule::Rule;
use crate::manifest::{Diagnostic, Diagnostics, Location, rule};
use crate::name::{ItemKey, hash_u32};
use crate::observe::Observation;
use crate::provider::{Allocation, Allocator, OptionsCache, Parent, Planned, Request, allocation_fields};

/// Maximum number of items of a pool.
const ITEMS_MAX: usize = 4096;

/// Maximum number of passed-over items in an allocation's notes, and in a diagnostic.
const NOTED: usize = 4;

/// Planner of the items of one plan.
pub(super) struct Pools<'o> {
    observation: &'o Observation,
    options: OptionsCache<Options>,
    /// Lists of items that were read, by the options that name them.
    lists: Vec<(Rc<Options>, Rc<[String]>)>,
    /// Items that other swarms, or children that programs have provisioned, have leased, with the session.
    in_use: BTreeMap<ItemKey, &'o str>,
    /// Items of this plan, with the session.
    planned: BTreeMap<ItemKey, String>,
    /// Resources of active sessions that are kept.
    kept: BTreeSet<Owner>,
    /// Items that children have as shares.
    shared: BTreeSet<ItemKey>,
}

/// Id of a session, and name of the resource in the session.
type Owner = (String, String);

impl<'o> Pools<'o> {
    pub(super) fn new(observation: &'o Observation) -> Self {
        let own = observation.owner.as_deref();
        let conflicts = observation.items_in_use.iter().filter(|used| {
            own != Some(used.owner.as_str()) || observation.relatives.contains_key(&used.session)
        });
        Self {
            observation,
            options: OptionsCache::default(),
            lists: Vec::new(),
            in_use: conflicts.map(|used| (used.key, used.session.as_str())).collect(),
            planned: BTreeMap::new(),
            kept: BTreeSet::new(),
            shared: BTreeSet::new(),
        }
    }

    /// Returns the options of a request, and the items that they name.
    fn options(&mut self, request: &Request<'_>) -> Result<(Rc<Options>, Rc<[String]>), Diagnostics> {
        let options = self.options.read(request.options).map_err(|error| {
            let message = format!("the options of `{KIND}` cannot be read: {error}");
            vec![diagnostic(rule::BROKEN_KIND, request.location, message, "here", "")]
        })?;
        if let Some((_, list)) = self.lists.iter().find(|(known, _)| Rc::ptr_eq(known, &options)) {
            return Ok((options, Rc::clone(list)));
        }
        let list: Rc<[String]> = self.list(&options, request.location)?.into();
        self.lists.push((Rc::clone(&options), Rc::clone(&list)));
        Ok((options, list))
    }

    /// Returns the items of a pool, or all diagnostics of its list.
    fn list(&self, options: &Options, location: &Location) -> Result<Vec<String>, Diagnostics> {
        let refused = |location: &Location, message: String, label: &str, help: &str| {
            Err(vec![diagnostic(rule::POOL_ITEMS, location, message, label, help)].into())
        };
        let (lines, key) = match (&options.file, options.items.is_empty()) {
            (None, false) => (options.items.clone(), "items"),
            (Some(_), false) => {
                let message = "a pool has `items` or a `file` with them, not both".to_owned();
                return refused(
                    &location.key("file"),
                    message,
                    "is the second list",
                    "remove one of the two",
                );
            }
            (None, true) => {
                let help =
                    "name its items, `items = [\"gpu0\", \"gpu1\"]`, or a file, `file = \"devices.txt\"`";
                return refused(location, "the pool has no items".to_owned(), "names none", help);
            }
            (Some(file), true) => {
                let location = location.key("file");
                if !file.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                    let shown = printable(&file.to_string_lossy());
                    let message = format!("`{shown}` is not a path inside the workspace");
                    return refused(&location, message, "leads out", "name a file of the workspace");
                }
                let lines = match self.observation.file(file, FILE_MAX) {
                    Some(Ok(text)) => text.lines().map(|line| line.trim().to_owned()),
                    Some(Err(why)) => {
                        return refused(&location, why, "cannot be read", "name a file with one item a line");
                    }
                    None => return Ok(Vec::new()),
                };
                (lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect(), "file")
            }
        };
        let location = location.key(key);
        let at = |index: usize| if key == "items" { location.index(index) } else { location.clone() };
        let mut diagnostics = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, item) in lines.iter().enumerate() {
            let (message, label) = if !is_item(item) {
                (format!("`{}` cannot be an item", printable(item)), "not an item")
            } else if !seen.insert(item) {
                (format!("`{item}` is in the pool twice"), "again")
            } else {
                continue;
            };
            let help =
                "an item is one line of at most 256 bytes, without commas and without spaces at its ends";
            diagnostics.push(diagnostic(rule::POOL_ITEMS, &at(index), message, label, help));
        }
        if lines.is_empty() || lines.len() > ITEMS_MAX {
            let message = format!("the pool has {} items, not 1 to {ITEMS_MAX}", lines.len());
            diagnostics.push(diagnostic(rule::POOL_ITEMS, &location, message, "here", ""));
        }
        if diagnostics.is_empty() { Ok(lines) } else { Err(diagnostics.into()) }
    }

    /// Returns the use of an item; `None` if it is free.
    fn user(&self, key: ItemKey) -> Option<String> {
        let planned = self.planned.get(&key).map(|session| format!("planned for {session}"));
        planned.or_else(|| self.in_use.get(&key).map(|session| format!("leased to {session}")))
    }

    /// Plans items of its own for a child whose parent has no free one: an active session is never changed for another.
    fn instead_of_a_share(
        &mut self,
        request: &Request<'_>,
        parent: &Parent<'_>,
        needed: usize,
        items: &Items,
    ) -> Result<Planned, Diagnostics> {
        let (is_kept, has_slots) = (self.kept.contains(&owner_of(parent)), slots(parent).is_some());
        if is_kept && !(request.spawned && has_slots) {
            let mut planned = self.allocate(request)?;
            planned
                .notes
                .insert(0, format!("{} has no free item for a share: one of its own", parent.session));
            return Ok(planned);
        }
        let message = format!(
            "`{}` has {} for its children, of which too few are free for the {needed} of this one",
            parent.session,
            count(items.for_children.len()),
        );
        let help = "raise the parent's `slots`, or ask with `from = \"pool\"`";
        Err(vec![diagnostic(rule::SLOTS, request.location, message, "finds no share left", help)].into())
    }
}

impl Allocator for Pools<'_> {
    fn keep(&mut self, session: &str, _parent: Option<&str>, allocation: &Allocation) {
        let Some(items) = Items::from_allocation(allocation) else { return };
        self.kept.insert((session.to_owned(), allocation.name().to_owned()));
        for item in items.all() {
            let key = ItemKey::new(&items.pool, item);
            if allocation.within_parent {
                self.shared.insert(key);
            } else {
                self.planned.insert(key, session.to_owned());
            }
        }
    }

    /// Items that were removed from the list do not exist any more.
    fn can_keep(&self, allocation: &Allocation) -> bool {
        let file = allocation.options.get("file").and_then(Value::as_str);
        let text = file.and_then(|file| self.observation.file(Path::new(file), FILE_MAX));
        let (Some(Ok(text)), Some(items)) = (text, Items::from_allocation(allocation)) else { return true };
        let listed: BTreeSet<&str> = text.lines().map(str::trim).collect();
        items.all().all(|item| listed.contains(item.as_str()))
    }

    fn update(
        &mut self,
        request: &Request<'_>,
        allocation: &Allocation,
    ) -> Option<Result<Map<String, Value>, Diagnostics>> {
        let items = Items::from_allocation(allocation)?;
        let (options, list) = match self.options(request) {
            Ok(found) => found,
            Err(diagnostics) => return Some(Err(diagnostics)),
        };
        let stays = |number: u32, items: &[String]| usize::try_from(number) == Ok(items.len());
        let is_same = items.is_of(
            &Options { file: Some("".into()), ..(*options).clone() },
            request.resource,
            allocation.within_parent,
        ) && stays(options.count, &items.items)
            && items.all().all(|item| list.contains(item));
        is_same.then(|| Ok(allocation.allocation.clone()))
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        let (options, list) = self.options(request)?;
        let pool = options.pool.as_deref().unwrap_or(request.resource).to_owned();
        let needed = needed(&options, request);
        let start = position(request.session, list.len());
        let (mut found, mut passed) = (Vec::new(), Vec::new());
        for item in list[start..].iter().chain(&list[..start]) {
            if found.len() == needed {
                break;
            }
            match self.user(ItemKey::new(&pool, item)) {
                Some(by) => passed.push(format!("{item} is {by}")),
                None => found.push(item.clone()),
            }
        }
        let more = passed.len().saturating_sub(NOTED);
        passed.truncate(NOTED);
        if more > 0 {
            passed.push(format!("so are {more} more"));
        }
        if found.len() < needed {
            return Err(too_few(request, &options, &pool, (list.len(), needed, found.len()), &passed));
        }
        for item in &found {
            self.planned.insert(ItemKey::new(&pool, item), request.session.to_owned());
        }
        let notes = passed.iter().map(|passed| format!("passed over: {passed}")).collect();
        Ok(Planned { notes, ..divided(pool, found, &options, false) })
    }

    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        let Some(items) = Items::from_allocation(parent.allocation) else {
            let message = "the parent's items cannot be read from its allocation".to_owned();
            return Err(vec![diagnostic(rule::BROKEN_KIND, request.location, message, "here", "")].into());
        };
        let (options, _) = self.options(request)?;
        let needed = needed(&options, request);
        let is_free = |item: &&String| {
            let key = ItemKey::new(&items.pool, item);
            !self.shared.contains(&key) && !self.in_use.contains_key(&key)
        };
        let found: Vec<String> = items.for_children.iter().filter(is_free).take(needed).cloned().collect();
        if found.len() < needed {
            return self.instead_of_a_share(request, parent, needed, &items);
        }
        self.shared.extend(found.iter().map(|item| ItemKey::new(&items.pool, item)));
        Ok(divided(items.pool, found, &options, true))
    }
}

/// Returns the number of items that a session needs for itself and for its children.
fn needed(options: &Options, request: &Request<'_>) -> usize {
    usize::try_from(options.count + options.slots.unwrap_or(request.shares)).unwrap_or(usize::MAX)
}

/// Returns the position in a list of this length from which a session takes its items.
fn position(session: &str, length: usize) -> usize {
    usize::try_from(hash_u32(session)).unwrap_or_default().checked_rem(length).unwrap_or_default()
}

/// Returns the allocation of `found` items: those of the session itself come first.
fn divided(pool: String, mut found: Vec<String>, options: &Options, within_parent: bool) -> Planned {
    let for_children = found.split_off(found.len().min(usize::try_from(options.count).unwrap_or(usize::MAX)));
    let items = Items { pool, items: found, for_children };
    Planned { allocation: allocation_fields(&items), within_parent, ..Planned::default() }
}

fn too_few(
    request: &Request<'_>,
    options: &Options,
    pool: &str,
    (all, needed, free): (usize, usize, usize),
    passed: &[String],
) -> Diagnostics {
    let key = if options.file.is_some() { "file" } else { "items" };
    let why = if passed.is_empty() { String::new() } else { format!(": {}", passed.join("; ")) };
    let message = format!(
        "session `{}` needs {} of the pool `{pool}`, and {free} of {all} {} free{why}",
        request.session,
        count(needed),
        if free == 1 { "is" } else { "are" },
    );
    let help = "add items, request fewer, or destroy swarms that are no longer needed";
    vec![diagnostic(rule::NO_FREE_ITEM, &request.location.key(key), message, "too few items", help)].into()
}

/// Returns the reasons why planned items can no longer be leased.
pub(super) fn stale(allocation: &Allocation, observation: &Observation) -> Vec<String> {
    let Some(items) = Items::from_allocation(allocation).filter(|_| !allocation.within_parent) else {
        return Vec::new();
    };
    let pools = Pools::new(observation);
    let mut reasons = Vec::new();
    for item in items.all() {
        if let Some(by) = pools.user(ItemKey::new(&items.pool, item)) {
            reasons.push(format!("`{item}` of the pool `{}` is not free any more: {by}", items.pool));
        }
    }
    if !pools.can_keep(allocation) {
        reasons.push(format!("the pool `{}` does not have all planned items any more", items.pool));
    }
    reasons
}

/// Returns whether a text can be an item: it fits into a list with commas, and into one line.
pub(super) fn is_item(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ITEM_MAX
        && text.trim() == text
        && !text.contains(|c: char| c == ',' || c.is_control())
        && printable(text) == text
}

/// Returns the number of items that the parent declares for its children; `None` without `slots`.
fn slots(parent: &Parent<'_>) -> Option<u64> {
    parent.allocation.options.get("slots").and_then(Value::as_u64)
}

fn owner_of(parent: &Parent<'_>) -> Owner {
    (parent.session.to_owned(), parent.allocation.name().to_owned())
}

fn count(items: usize) -> String {
    if items == 1 { "1 item".to_owned() } else { format!("{items} items") }
}

fn diagnostic(
    rule: &'static Rule,
    location: &Location,
    message: String,
    label: &str,
    help: &str,
) -> Diagnostic {
    let diagnostic = Diagnostic::new(rule, location.clone(), message, label);
    if help.is_empty() { diagnostic } else { diagnostic.with_help(help.to_owned()) }
}
