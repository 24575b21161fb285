//! Allocations of several similar sessions, folded into one line.

use super::outline::Entry;
use crate::host::text::thousands;
use crate::provider::Allocation;

/// Maximum number of notes of folded sessions.
const NOTES: usize = 3;

/// Returns the allocations at position `at` of all sessions of an entry, in summary.
pub(super) fn all(entry: &Entry<'_>, at: usize) -> String {
    let held: Vec<&Allocation> =
        entry.members.iter().filter_map(|member| member.allocations().get(at)).collect();
    let first = held.first();
    let kind = first.and_then(|first| entry.registry.get(&first.kind));
    let are_new = first.is_some_and(|first| entry.makes(first));
    kind.and_then(|kind| kind.summary_of_many(&held, are_new))
        .unwrap_or_else(|| format!("{} allocations", thousands(held.len())))
}

/// Returns the allocations at position `at` of the sessions of an entry, and for created worktrees the checkout method.
///
/// `first` is the allocation of the first session.
pub(super) fn held(entry: &Entry<'_>, at: usize, first: &Allocation) -> String {
    let what = if entry.is_folded() { all(entry, at) } else { entry.summary(first) };
    match way(entry, first) {
        Some(way) => format!("{what}  {way}"),
        None => what,
    }
}

fn way(entry: &Entry<'_>, first: &Allocation) -> Option<String> {
    let name = first.name();
    let changes = entry.members.iter().map(|member| member.change);
    let new = changes.filter(|change| change.provision.iter().any(|new| new == name));
    let sources: Vec<_> = new.map(|change| change.from.get(name)).collect();
    if sources.is_empty() { None } else { entry.registry.get(&first.kind)?.origin(first, &sources) }
}

/// Returns the notes on the allocations at position `at`; for folded sessions only the first few, each with its
/// session.
pub(super) fn notes(entry: &Entry<'_>, at: usize) -> Vec<String> {
    let held = entry.members.iter().filter_map(|member| Some((member.path(), member.allocations().get(at)?)));
    let notes: Vec<_> =
        held.flat_map(|(path, held)| held.notes.iter().map(move |note| (path, note))).collect();
    if !entry.is_folded() {
        return notes.iter().map(|(_, note)| (*note).clone()).collect();
    }
    let shown = notes.iter().take(NOTES).map(|(path, note)| format!("{path}: {note}"));
    let more = notes.len().saturating_sub(NOTES);
    shown.chain((more > 0).then(|| format!("… and {} more notes", thousands(more)))).collect()
}
