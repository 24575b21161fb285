//! Allocations of several similar sessions, folded into one line.

use super::outline::Entry;
use crate::host::text::thousands;
use crate::provider::Allocation;

/// Maximum number of notes of folded sessions.
const NOTES: usize = 3;

/// Returns the allocations at position `at` of all sessions of an entry, in summary.
pub(super) fn summary_of_all(entry: &Entry<'_>, at: usize) -> String {
    let allocations: Vec<&Allocation> =
        entry.members.iter().filter_map(|member| member.allocations().get(at)).collect();
    let first = allocations.first();
    let kind = first.and_then(|first| entry.registry.get(&first.kind));
    let are_new = first.is_some_and(|first| entry.provisions(first));
    kind.and_then(|kind| kind.summary_of_many(&allocations, are_new))
        .unwrap_or_else(|| format!("{} allocations", thousands(allocations.len())))
}

/// Returns the allocations at position `at` of the sessions of an entry, and for created worktrees the checkout method.
///
/// `first` is the allocation of the first session.
pub(super) fn description(entry: &Entry<'_>, at: usize, first: &Allocation) -> String {
    let description = if entry.is_folded() { summary_of_all(entry, at) } else { entry.summary(first) };
    match origin(entry, first) {
        Some(origin) => format!("{description}  {origin}"),
        None => description,
    }
}

fn origin(entry: &Entry<'_>, first: &Allocation) -> Option<String> {
    let name = first.name();
    let changes = entry.members.iter().map(|member| member.change);
    let new = changes.filter(|change| change.provision.iter().any(|new| new == name));
    let sources: Vec<_> = new.map(|change| change.from.get(name)).collect();
    if sources.is_empty() { None } else { entry.registry.get(&first.kind)?.origin(first, &sources) }
}

/// Returns the notes on the allocations at position `at`; for folded sessions only the first few, each with its
/// session.
pub(super) fn notes(entry: &Entry<'_>, at: usize) -> Vec<String> {
    let allocations =
        entry.members.iter().filter_map(|member| Some((member.path(), member.allocations().get(at)?)));
    let notes: Vec<_> = allocations
        .flat_map(|(path, allocation)| allocation.notes.iter().map(move |note| (path, note)))
        .collect();
    if !entry.is_folded() {
        return notes.iter().map(|(_, note)| (*note).clone()).collect();
    }
    let shown = notes.iter().take(NOTES).map(|(path, note)| format!("{path}: {note}"));
    let more = notes.len().saturating_sub(NOTES);
    shown.chain((more > 0).then(|| format!("… and {} more notes", thousands(more)))).collect()
}
