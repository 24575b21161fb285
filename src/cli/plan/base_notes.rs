//! Notes about the age of the base refs of a plan.
//!
//! The notes depend on the clone and on the time of its last fetch, so they are printed beside the plan and are no part of
//! the plan or its digest.

use std::collections::{BTreeMap, BTreeSet};

use seedbed::apply::Fetched;
use seedbed::host::clock::rfc3339;
use seedbed::observe::{self, BaseAge};
use seedbed::plan::Plan;
use seedbed::provider::Allocation;
use seedbed::provider::git_worktree::{self, FetchedRef};
use seedbed::state::Swarm;

use super::super::output::count;

/// Returns a note for each base ref that lacks commits of its upstream branch, or is a remote-tracking branch, or was
/// fetched; with `is_verbose`, for every base ref that is a branch.
pub(super) fn base_notes(swarm: &Swarm<'_>, plan: &Plan, fetched: &Fetched, is_verbose: bool) -> Vec<String> {
    let worktrees = plan.sessions().iter().flat_map(|session| session.allocations_of(git_worktree::KIND));
    let text = |worktree: &Allocation, field| Some(worktree.allocation.get(field)?.as_str()?.to_owned());
    // By repository, its directory and the base refs.
    let mut refs: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for worktree in worktrees {
        let repository = text(worktree, "repository").unwrap_or_default();
        if let (Some(root), Some(base_ref)) = (text(worktree, "repoRoot"), text(worktree, "baseRef")) {
            refs.entry((repository, root)).or_default().insert(base_ref);
        }
    }
    let mut notes = Vec::new();
    for ((repository, root), refs) in &refs {
        let refs: Vec<&str> = refs.iter().map(String::as_str).collect();
        let directory = swarm.workspace().join(root);
        // A repository that Git cannot read has no plan.
        let ages = observe::base_ages(swarm.host(), &directory, &refs).unwrap_or_default();
        let in_repository = if repository.is_empty() { String::new() } else { format!("in {repository}, ") };
        for age in &ages {
            let is_of =
                |(name, found): &(&str, &FetchedRef)| *name == repository && found.base_ref == age.base_ref;
            let note = match fetched.refs().find(is_of) {
                Some((_, found)) => Some(fetch_note(age, found)),
                None => note(age, is_verbose),
            };
            notes.extend(note.map(|note| format!("{in_repository}{note}")));
        }
    }
    notes
}

/// Returns the note of a base ref that was fetched for this plan.
fn fetch_note(
    BaseAge { base_ref, committed, .. }: &BaseAge,
    FetchedRef { before, now, .. }: &FetchedRef,
) -> String {
    let committed = rfc3339(*committed);
    let moved = match before {
        Some(before) if before == now => "has not moved".to_owned(),
        Some(before) => format!("moved from {before:.10} to {now:.10}"),
        None => "is new".to_owned(),
    };
    format!("{base_ref} is of {committed}, fetched now: {moved}")
}

fn note(BaseAge { base_ref, committed, remote, .. }: &BaseAge, is_verbose: bool) -> Option<String> {
    let committed = rfc3339(*committed);
    let Some(remote) = remote else {
        return is_verbose.then(|| format!("{base_ref} is of {committed}"));
    };
    let name = &remote.name;
    let fetched = match remote.fetched {
        Some(time) => format!("last fetched at {}", rfc3339(time)),
        None => "whose last fetch is unknown".to_owned(),
    };
    if base_ref.strip_prefix("refs/").unwrap_or(base_ref).trim_start_matches("remotes/") == name {
        return Some(format!("{base_ref} is of {committed}, {fetched}"));
    }
    match remote.behind {
        0 => is_verbose
            .then(|| format!("{base_ref} is of {committed}, and has all commits of {name}, {fetched}")),
        behind => {
            let commits = count(behind, "commit");
            Some(format!("{base_ref} is of {committed}, {commits} behind {name}, {fetched}"))
        }
    }
}
