//! Session tree of the page: nested lists whose entries open and close without a script.

use minijinja::{Value, context};

use super::{sign, verb};
use crate::host::text::thousands;
use crate::manifest::TextEntry;
use crate::plan::{Action, Session};
use crate::provider::Allocation;
use crate::review::outline::{Entry, Member};
use crate::review::{commands_and_others, folded, ports};

/// Maximum number of entries with which all entries that have children are open at first.
const OPEN: usize = 60;
/// Maximum number of bytes for the data of sessions; after this limit only allocations are shown.
const TEXTS: usize = 4 * 1024 * 1024;
/// Number of bytes of markup around one entry of a session's data.
const ROW: usize = 64;

/// Values of the tree.
pub(super) struct Shown {
    pub(super) entries: Vec<Value>,
    /// `true` if some sessions are shown without their data.
    pub(super) is_cut: bool,
}

/// Returns the tree.
pub(super) fn tree(entries: &[Entry<'_>]) -> Shown {
    let open = entries.iter().map(count).sum::<usize>() <= OPEN;
    let mut tree = Tree { open, next: 0, texts: 0 };
    let entries = entries.iter().map(|entry| tree.entry(entry)).collect();
    Shown { entries, is_cut: tree.texts > TEXTS }
}

fn count(entry: &Entry<'_>) -> usize {
    1 + entry.children.iter().map(count).sum::<usize>()
}

/// Returns the path of an entry from the top of the tree.
pub(super) fn path(entry: &Entry<'_>) -> String {
    let first = entry.first().path().as_str();
    if !entry.is_folded() {
        return first.to_owned();
    }
    match first.rsplit_once('/') {
        Some((above, _)) if entry.each == entry.members.len() => format!("{above}/{}", entry.label()),
        Some((above, _)) => format!("{above} …: {}", entry.label()),
        None => entry.label(),
    }
}

struct Tree {
    open: bool,
    /// Number of the next entry, from the top of the page.
    next: usize,
    /// Number of bytes of the data of sessions so far.
    texts: usize,
}

impl Tree {
    fn entry(&mut self, entry: &Entry<'_>) -> Value {
        let Member { session, change } = entry.first();
        let number = self.next;
        self.next += 1;
        let own_ports = session.filter(|_| !entry.is_folded()).map(|session| ports(entry.registry, session));
        let texts = session.filter(|_| self.texts <= TEXTS).map(|session| self.texts(entry, session));
        let children: Vec<_> = entry.children.iter().map(|entry| self.entry(entry)).collect();
        context! {
            number,
            action => verb(change.action),
            sign => sign(change.action),
            ports => own_ports.unwrap_or_default(),
            sessions => entry.members.len(),
            open => self.open && !children.is_empty(),
            label => entry.label(),
            spawned => entry.is_spawned(),
            gist => gist(entry),
            reasons => change.reasons.clone(),
            resources => session.map(|session| resources(entry, session)),
            texts,
            members => entry.is_folded().then(|| members(entry)),
            children,
        }
    }

    fn texts(&mut self, entry: &Entry<'_>, session: &Session) -> Value {
        let text = session.text();
        let entries = commands_and_others(&text).1.into_iter();
        let entries = entries.flat_map(|(key, entries)| entries.into_iter().map(move |entry| (key, entry)));
        let row = |(key, entry): (&str, TextEntry<'_>)| {
            let (text, name) = (entry.shown(), entry.name());
            self.texts += ROW + name.map_or(key.len(), str::len) + text.len();
            // The name of a variable says that it is one.
            let key = if matches!(entry, TextEntry::Variable(..)) { "" } else { key };
            context! { key, name, text }
        };
        let rows: Vec<_> = entries.map(row).collect();
        context! { first => entry.is_folded().then(|| session.path.as_str()), rows }
    }
}

/// Returns the allocations of a session and the commands that run in it.
fn resources(entry: &Entry<'_>, session: &Session) -> Value {
    let allocation = |(at, allocation): (usize, &Allocation)| {
        let what = folded::description(entry, at, allocation);
        context! { kind => allocation.name(), what, notes => folded::notes(entry, at) }
    };
    let allocations: Vec<_> = session.allocations.iter().enumerate().map(allocation).collect();
    let text = session.text();
    let commands = commands_and_others(&text).0.into_iter();
    let commands = commands.flat_map(|(key, commands)| {
        commands.into_iter().map(move |command| context! { key, text => command.shown() })
    });
    context! { allocations, commands => commands.collect::<Vec<_>>() }
}

/// Returns the sessions of a folded entry, one row each.
fn members(entry: &Entry<'_>) -> Value {
    let branch = |allocation: &Allocation| entry.registry.get(&allocation.kind)?.branch(allocation);
    let row = |member: &Member<'_>| {
        let directory = member.session.map(|session| session.working_directory.to_string_lossy());
        context! {
            session => member.path().as_str(),
            ports => member.session.map_or("-".to_owned(), |session| ports(entry.registry, session)),
            directory => directory.unwrap_or_default(),
            branch => member.allocations().iter().find_map(branch).unwrap_or_default(),
        }
    };
    let rows: Vec<_> = entry.members.iter().map(row).collect();
    context! { count => thousands(rows.len()), rows }
}

/// Returns the summary of a closed entry.
fn gist(entry: &Entry<'_>) -> String {
    let member = entry.first();
    let mut parts: Vec<String> = entry.count().into_iter().collect();
    if let Some(session) = member.session {
        if entry.is_folded() {
            let has_ports = |(_, allocation): &(usize, &Allocation)| {
                entry.registry.get(&allocation.kind).is_some_and(|kind| kind.ports(allocation).is_some())
            };
            let blocks = session.allocations.iter().enumerate().find(has_ports);
            parts.extend(blocks.map(|(at, _)| folded::summary_of_all(entry, at)));
        } else {
            parts.extend(Some(ports(entry.registry, session)).filter(|ports| ports != "-"));
            parts.push(session.working_directory.to_string_lossy().into_owned());
        }
    }
    if !matches!(member.change.action, Action::Create | Action::Keep) {
        parts.extend(member.change.reasons.first().cloned());
    }
    parts.join("  ")
}
