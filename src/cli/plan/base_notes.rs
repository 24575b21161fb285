//! Notes about the age of the base refs of a plan.
//!
//! The notes depend on the clone and on the time of its last fetch, so they are printed beside the plan and are no part of
//! the plan or its digest.

use std::collections::BTreeSet;

use seedbed::host::clock::rfc3339;
use seedbed::plan::Plan;
use seedbed::provider::git_worktree::{self, BaseAge};
use seedbed::state::Swarm;

use super::super::output::count;

/// Returns a note for each base ref that lacks commits of its upstream branch, or is a remote-tracking branch; with
/// `is_verbose`, for every base ref that is a branch.
pub(super) fn base_notes(swarm: &Swarm<'_>, plan: &Plan, is_verbose: bool) -> Vec<String> {
    let worktrees = plan.sessions().iter().flat_map(|session| session.allocations_of(git_worktree::KIND));
    let refs: BTreeSet<&str> =
        worktrees.filter_map(|worktree| worktree.allocation.get("baseRef")?.as_str()).collect();
    let refs: Vec<&str> = refs.into_iter().collect();
    // A repository that Git cannot read has no plan.
    let ages = git_worktree::base_ages(swarm.host(), swarm.workspace(), &refs).unwrap_or_default();
    ages.iter().filter_map(|age| note(age, is_verbose)).collect()
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
