//! Allocations of several similar sessions, folded into one line.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use super::allocated;
use super::outline::{Entry, range, thousands};
use crate::name::PortBlock;
use crate::provider::Allocation;
use crate::provider::git_worktree::{self, Checkout, Worktree};
use crate::provider::port_range::Block;

/// Maximum number of notes of folded sessions.
const NOTES: usize = 3;
/// Maximum number of runs of ports that are listed one by one.
const RUNS: usize = 3;

/// Returns the allocations at position `at` of all sessions of an entry, in summary.
pub(super) fn all(entry: &Entry<'_>, at: usize) -> String {
    // For a hundred thousand sessions, all cores read the allocations.
    let held: Vec<&Allocation> =
        entry.members.iter().filter_map(|member| member.allocations().get(at)).collect();
    let count = thousands(held.len());
    if let Some(worktrees) = held.par_iter().map(|held| Worktree::of(held)).collect::<Option<Vec<_>>>() {
        return self::worktrees(&worktrees, held.first().is_some_and(|first| entry.makes(first)));
    }
    if let Some(blocks) = held.par_iter().map(|held| Block::of(held)).collect::<Option<Vec<_>>>() {
        return self::blocks(&blocks);
    }
    format!("{count} allocations")
}

/// Returns the allocations at position `at` of the sessions of an entry, and for created worktrees the checkout method.
///
/// `first` is the allocation of the first session.
pub(super) fn held(entry: &Entry<'_>, at: usize, first: &Allocation) -> String {
    let what = if entry.is_folded() { all(entry, at) } else { allocated(first, entry.makes(first)) };
    match way(entry, first) {
        Some(way) => format!("{what}  {way}"),
        None => what,
    }
}

fn way(entry: &Entry<'_>, first: &Allocation) -> Option<String> {
    let kind = first.kind.as_str();
    let changes = entry.members.iter().map(|member| member.change);
    let made: Vec<_> = changes.filter(|change| change.provision.iter().any(|made| made == kind)).collect();
    if kind != git_worktree::KIND || made.is_empty() {
        return None;
    }
    match Worktree::of(first).map(|worktree| worktree.checkout) {
        Some(Checkout::Overlay) => return Some("overlay".to_owned()),
        Some(Checkout::Git) => return Some("by git".to_owned()),
        Some(Checkout::Auto) | None => {}
    }
    let sources: BTreeSet<_> = made.iter().map(|change| change.from.get(kind)).collect();
    Some(match sources.into_iter().collect::<Vec<_>>()[..] {
        [None] => "checked out".to_owned(),
        [Some(first)] => format!("copied from {first}"),
        _ => {
            let copied = made.iter().filter(|change| change.from.contains_key(kind)).count();
            format!("{} checked out, {} copied", thousands(made.len() - copied), thousands(copied))
        }
    })
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

fn worktrees(worktrees: &[Worktree], is_made: bool) -> String {
    let Some(first) = worktrees.first() else { return String::new() };
    let paths: Vec<&Path> =
        worktrees.iter().map(|worktree| worktree.worktree_path.parent().unwrap_or(Path::new("."))).collect();
    let roots: BTreeSet<_> = paths.iter().collect();
    let place = if roots.len() == 1 {
        paths[0].display().to_string()
    } else {
        format!("{} directories", thousands(roots.len()))
    };
    let branches: Vec<&str> = worktrees.iter().filter_map(|worktree| worktree.branch.as_deref()).collect();
    let from = if branches.is_empty() {
        first.base_ref.clone()
    } else {
        format!("{} {}", range(branches.into_iter()), state(worktrees, &first.base_ref, is_made))
    };
    let only = first.target_path.as_ref().map_or(String::new(), |target| format!("  only {target}"));
    let brought = super::brought(first);
    format!("{} in {place}  {from} @ {:.10}{only}{brought}", thousands(worktrees.len()), first.base())
}

/// Returns the state of the branches of folded worktrees: new, or the number of commits that they are ahead.
fn state(worktrees: &[Worktree], base_ref: &str, is_made: bool) -> String {
    let ahead =
        worktrees.iter().filter_map(|worktree| worktree.existing.as_ref()).map(|existing| existing.ahead);
    match (ahead.clone().min(), ahead.max()) {
        (Some(least), Some(most)) if least < most => {
            format!("(exist, {least} to {most} ahead, 0 behind {base_ref})")
        }
        (Some(ahead), _) => format!("(exist, {ahead} ahead, 0 behind {base_ref})"),
        _ if is_made => format!("(new) from {base_ref}"),
        _ => format!("from {base_ref}"),
    }
}

fn blocks(blocks: &[Block]) -> String {
    let Some(first) = blocks.first() else { return String::new() };
    let ports: Vec<PortBlock> = blocks.iter().filter_map(Block::ports).collect();
    let runs = runs(ports);
    let shown: Vec<String> = runs.iter().take(RUNS).map(PortBlock::to_string).collect();
    let sizes: BTreeSet<u32> = blocks.iter().map(|block| block.block_size).collect();
    let size = match (sizes.first(), sizes.last()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        _ => first.block_size.to_string(),
    };
    let places = match (runs.len() > RUNS, runs.first(), runs.last()) {
        (true, Some(lowest), Some(highest)) => format!("between {} and {}", lowest.start(), highest.end()),
        _ => shown.join(", "),
    };
    let names: Vec<&str> = first.named_ports().into_iter().map(|(name, _)| name).collect();
    let names = if names.is_empty() { String::new() } else { format!("  {} in each", names.join(", ")) };
    format!("{} blocks of {size}, {places}{names}", thousands(blocks.len()))
}

/// Merges blocks that touch one another; returns the lowest first.
pub(super) fn runs(mut blocks: Vec<PortBlock>) -> Vec<PortBlock> {
    blocks.sort_unstable();
    let mut runs: Vec<PortBlock> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(last) if u32::from(block.start()) <= u32::from(last.end()) + 1 => {
                let end = last.end().max(block.end());
                *last = PortBlock::new(last.start().into(), end.into()).unwrap_or(block);
            }
            _ => runs.push(block),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_touch_are_one() {
        let block = |start, end| PortBlock::new(start, end).unwrap();
        let given = vec![block(20, 29), block(1, 9), block(10, 19), block(40, 65535), block(41, 42)];
        assert_eq!(runs(given), [block(1, 29), block(40, 65535)]);
    }
}
