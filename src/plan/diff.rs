//! Difference between the applied swarm and the plan, with reasons.

mod fields;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fields::{Field, WORKING_DIRECTORY};

use super::{AppliedPlan, Damage, DamageKind, Plan, Session, files};
use crate::name::SessionPath;
use crate::provider::{Allocation, Registry};

/// Change of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Change {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Action on the session.
    pub action: Action,
    /// Reasons, one line each; empty if the action needs none.
    pub reasons: Vec<String>,
    /// Names of the resources whose existing allocation is released first.
    pub release: Vec<String>,
    /// Names of the resources whose planned allocation is then provisioned.
    pub provision: Vec<String>,
    /// Source sessions by name of the resource: for a provisioned allocation with the same source as another session's, the session
    /// that is provisioned first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub from: BTreeMap<String, SessionPath>,
    /// Names of the resources whose allocation is repaired in place.
    pub repair: Vec<String>,
    /// Names of the resources whose allocation gets other options in place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub update: Vec<String>,
    /// `true` if `setup` runs, and is waited for, although nothing of the session is provisioned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub set_up: bool,
    /// `true` if the copies of files of the workspace are updated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
    /// Differences in the data and options of the session; empty if the session is created or removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
}

/// Steps that are repeated in active sessions. Sessions that are created, or do not exist, are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Again {
    /// Sessions whose `setup` runs again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub setup: BTreeSet<SessionPath>,
    /// Sessions whose copies of files of the workspace are updated.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub refresh: BTreeSet<SessionPath>,
}

impl Again {
    /// Returns whether nothing is repeated.
    pub fn is_empty(&self) -> bool {
        self.setup.is_empty() && self.refresh.is_empty()
    }
}

impl Change {
    /// Returns whether the commands of `setup` run, if there are any.
    pub fn runs_setup(&self) -> bool {
        self.set_up || !self.provision.is_empty()
    }

    /// Returns whether the conditions of `ready` differ from those of the applied swarm.
    pub(crate) fn changes_conditions(&self) -> bool {
        self.fields.iter().any(|field| field.name.starts_with(fields::CONDITION))
    }

    /// Returns whether the commands of `setup` differ from those of the applied swarm.
    pub(super) fn changes_setup(&self) -> bool {
        self.fields.iter().any(|field| field.name.starts_with(fields::SETUP_COMMAND))
    }
}

/// Action on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Action {
    /// The session is not active and will be created.
    Create,
    /// The session is active and remains unchanged.
    Keep,
    /// The session is active, and nothing of it is released: its data changes (environment, prompt, metadata,
    /// discovery file), an allocation gets other options in place, or an allocation is added.
    Update,
    /// The session is active; a lost or broken part is created again in place.
    Repair,
    /// The session is active; an allocation is released and another one provisioned.
    Replace,
    /// The session is active and will be removed.
    Destroy,
}

/// Returns one change for each session of the plan in its order, then one for each removed session, children first.
pub(super) fn changes(plan: &Plan, registry: &Registry, applied: Option<&AppliedPlan>) -> Vec<Change> {
    let mut changes = match applied {
        Some(applied) => changes_of_applied(plan, registry, applied),
        None => plan.sessions.par_iter().map(create).collect(),
    };
    add_sources(plan, registry, &mut changes);
    changes
}

/// Records which session is provisioned first within each group key: the first in canonical order.
///
/// An existing allocation is no source, because its session has already worked in the allocation.
fn add_sources(plan: &Plan, registry: &Registry, changes: &mut [Change]) {
    // The group keys are computed on all cores; the first session of each group is found sequentially.
    let sources = |(session, change): (&Session, &Change)| {
        let provisioned = session
            .allocations
            .iter()
            .filter(|allocation| change.provision.iter().any(|name| name == allocation.name()));
        provisioned
            .filter_map(|allocation| {
                Some((allocation.name().to_owned(), registry.get(&allocation.kind)?.group_key(allocation)?))
            })
            .collect()
    };
    let sources: Vec<Vec<(String, String)>> = plan.sessions.par_iter().zip(&*changes).map(sources).collect();
    let mut first: HashMap<&(String, String), &SessionPath> = HashMap::new();
    for ((session, change), sources) in plan.sessions.iter().zip(changes).zip(&sources) {
        for source in sources {
            let first = *first.entry(source).or_insert(&session.path);
            if *first != session.path {
                change.from.insert(source.0.clone(), first.clone());
            }
        }
    }
}

fn changes_of_applied(plan: &Plan, registry: &Registry, applied: &AppliedPlan) -> Vec<Change> {
    let active: HashMap<&SessionPath, &Session> =
        applied.plan.sessions.iter().map(|session| (&session.path, session)).collect();
    let planned: HashSet<&SessionPath> = plan.sessions.iter().map(|session| &session.path).collect();
    // Released kinds by session: allocations inside of them are released too.
    let mut released: HashMap<&SessionPath, Vec<String>> = HashMap::new();
    let mut changes = Vec::with_capacity(plan.sessions.len());
    for session in &plan.sessions {
        let above = session.parent.as_ref().and_then(|parent| released.get(parent));
        let change = match active.get(&session.path) {
            None => create(session),
            Some(active) => {
                let above = above.map_or(&[][..], Vec::as_slice);
                let mut change = diff(registry, active, session, &applied.broken, above);
                add_again(&mut change, session, &applied.broken, &plan.again);
                change
            }
        };
        released.insert(&session.path, change.release.clone());
        changes.push(change);
    }
    let released = applied.plan.sessions.iter().rev().filter(|session| !planned.contains(&session.path));
    changes.extend(released.map(destroy));
    changes
}

/// Adds the steps that are repeated in an active session: a `setup` that has not succeeded yet, and the steps that the
/// caller requests.
fn add_again(
    change: &mut Change,
    session: &Session,
    broken: &BTreeMap<(SessionPath, String), Damage>,
    again: &Again,
) {
    let add = |change: &mut Change, action, reason: String| {
        change.action = change.action.max(action);
        change.reasons.push(reason);
    };
    let has_setup = session.has_setup() && change.provision.is_empty();
    if let Some(damage) = broken.get(&(session.path.clone(), SETUP.to_owned())) {
        add(change, Action::Repair, format!("its setup {}", damage.why));
        change.set_up = has_setup;
    } else if has_setup && again.setup.contains(&session.path) {
        add(change, Action::Update, "its setup is to run again".to_owned());
        change.set_up = true;
    }
    if again.refresh.contains(&session.path) {
        add(change, Action::Update, "its copies are to be refreshed".to_owned());
        change.refresh = true;
    }
}

/// Returns the change of a session that stays as it is.
fn keep(session: &Session) -> Change {
    Change {
        session: session.path.clone(),
        action: Action::Keep,
        reasons: Vec::new(),
        release: Vec::new(),
        provision: Vec::new(),
        from: BTreeMap::new(),
        repair: Vec::new(),
        update: Vec::new(),
        set_up: false,
        refresh: false,
        fields: Vec::new(),
    }
}

fn create(session: &Session) -> Change {
    let provision = session.allocations.iter().map(|allocation| allocation.name().to_owned()).collect();
    Change { action: Action::Create, provision, ..keep(session) }
}

fn destroy(session: &Session) -> Change {
    let release = session.allocations.iter().rev().map(|allocation| allocation.name().to_owned()).collect();
    let reasons = vec!["it is no longer in the manifest".to_owned()];
    Change { action: Action::Destroy, reasons, release, ..keep(session) }
}

fn diff(
    registry: &Registry,
    active: &Session,
    session: &Session,
    broken: &BTreeMap<(SessionPath, String), Damage>,
    released_above: &[String],
) -> Change {
    let mut change = keep(session);
    for old in active.allocations.iter().rev() {
        let damage = broken.get(&(session.path.clone(), old.name().to_owned()));
        let follows_parent = old.within_parent && released_above.iter().any(|name| name == old.name());
        // An allocation that is created again may begin elsewhere: a branch at its present commit.
        let is_created_again = follows_parent || damage.is_some_and(Damage::is_lost);
        let is_same = |new: &Allocation| {
            new == old
                || (is_created_again
                    && (&new.kind, &new.options, new.shared) == (&old.kind, &old.options, old.shared))
        };
        let provider = registry.get(&old.kind);
        let is_update = |new: &Allocation| {
            !is_created_again
                && new.kind == old.kind
                && provider.is_some_and(|provider| provider.is_update(old, new))
        };
        match session.allocation(old.name()) {
            Some(new) if is_same(new) => add_repair(&mut change, old, damage, follows_parent),
            Some(new) if is_update(new) => {
                add_update(&mut change, old, new);
                add_repair(&mut change, old, damage, follows_parent);
            }
            new => add_replacement(registry, &mut change, old, new),
        }
    }
    add_provisioned(&mut change, active, session);
    let is_absent = |of: &Allocation| {
        broken
            .get(&(session.path.clone(), of.name().to_owned()))
            .is_some_and(|damage| damage.kind == DamageKind::Absent)
    };
    if change.action == Action::Keep && active.allocations.iter().any(is_absent) {
        return change;
    }
    add_files(registry, &mut change, active, session);
    let changed_data = fields::changed_data(active, session);
    if matches!(change.action, Action::Keep | Action::Update) {
        change.reasons.extend(changed_data.iter().map(Field::line));
        if let Some(damage) = broken.get(&(session.path.clone(), DISCOVERY.to_owned())) {
            change.reasons.push(damage.why.clone());
        }
        if !change.reasons.is_empty() {
            change.action = Action::Update;
        }
    }
    change.fields.extend(changed_data);
    change
}

/// Adds the repair of an allocation that stays the same, if it is damaged or goes along with its parent's.
fn add_repair(change: &mut Change, old: &Allocation, damage: Option<&Damage>, follows_parent: bool) {
    let why = match damage {
        _ if follows_parent => format!("{} is inside its parent's, which is replaced", old.name()),
        Some(damage) if !matches!(damage.kind, DamageKind::Absent | DamageKind::Unknown) => {
            damage.why.clone()
        }
        // An allocation that cannot be inspected, or that only another tool can repair, is left unchanged.
        _ => return,
    };
    change.action = change.action.max(Action::Repair);
    change.reasons.push(why);
    if !follows_parent && damage.is_some_and(Damage::is_repairable) {
        change.repair.push(old.name().to_owned());
    } else {
        change.release.push(old.name().to_owned());
    }
}

/// Adds the update of an allocation that gets other options in place.
fn add_update(change: &mut Change, old: &Allocation, new: &Allocation) {
    change.action = change.action.max(Action::Update);
    change.update.push(old.name().to_owned());
    let known = change.fields.len();
    fields::options(&mut change.fields, old, new);
    change.reasons.extend(change.fields[known..].iter().map(Field::line));
}

/// Adds the release of an allocation that is replaced by another one, or by none.
fn add_replacement(registry: &Registry, change: &mut Change, old: &Allocation, new: Option<&Allocation>) {
    change.action = Action::Replace;
    change.release.push(old.name().to_owned());
    let Some(new) = new else {
        change.reasons.push(format!("{} is no longer requested", old.name()));
        return;
    };
    let known = change.fields.len();
    fields::options(&mut change.fields, old, new);
    let root = |allocation: &Allocation| {
        registry.get(&allocation.kind)?.repository(allocation).map(|(_, root)| root)
    };
    match &change.fields[known..] {
        [] if root(old) != root(new) => {
            change.reasons.push(format!("{} is of another repository now", old.name()));
        }
        [] => change.reasons.push(match moved(registry, old, new) {
            Some(path) => format!("{} lies in {} instead", old.name(), path.display()),
            None if !old.shared => format!("{} would be planned differently now", old.name()),
            None => format!("{}: the parent's, of which it is a share, is replaced", old.name()),
        }),
        options => change.reasons.extend(options.iter().map(Field::line)),
    }
}

/// Returns the directory of an allocation if it differs from that of the replaced one.
fn moved(registry: &Registry, old: &Allocation, new: &Allocation) -> Option<PathBuf> {
    let directory = |of: &Allocation| registry.get(&of.kind)?.directory(of);
    directory(new).filter(|path| Some(path) != directory(old).as_ref())
}

/// Adds the kinds that are provisioned: those that are new, others than before, or released.
fn add_provisioned(change: &mut Change, active: &Session, session: &Session) {
    for new in &session.allocations {
        let current = active.allocation(new.name());
        if current.is_none() {
            change.action = change.action.max(Action::Update);
            change.reasons.push(format!("{} is requested in addition", new.name()));
        }
        let has = |names: &[String]| names.iter().any(|name| name == new.name());
        if (current != Some(new) && !has(&change.update)) || has(&change.release) {
            change.provision.push(new.name().to_owned());
        }
    }
}

/// Adds the update of each allocation that stays and in which files of the session change.
fn add_files(registry: &Registry, change: &mut Change, active: &Session, session: &Session) {
    if active.files.is_empty() && session.files.is_empty() {
        return;
    }
    for new in &session.allocations {
        let stays = ![&change.provision, &change.release, &change.update]
            .iter()
            .any(|names| names.iter().any(|name| name == new.name()));
        let Some(old) = active.allocation(new.name()).filter(|_| stays) else { continue };
        if files::of_allocation(registry, active, old) != files::of_allocation(registry, session, new) {
            change.action = change.action.max(Action::Update);
            change.update.push(new.name().to_owned());
        }
    }
}

/// Stands in for `setup` among the kinds that can be broken; `setup` is broken until it succeeds.
pub const SETUP: &str = "setup";

/// Stands in for the discovery file among the kinds that can be broken.
pub const DISCOVERY: &str = "discovery";
