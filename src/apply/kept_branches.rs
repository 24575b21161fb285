//! Branches that outlast the sessions that worked on them.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Error, Event, PlanningInputError};
use crate::name::SessionPath;
use crate::observe;
use crate::plan::{Plan, PlannedRepository, Session};
use crate::provider::{Allocation, Registry, SurvivingBranch};
use crate::state::{Record, Swarm};

/// Branch that outlasts its session, because it has commits or existed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct KeptBranch {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Name of the branch, without `refs/heads/`.
    pub branch: String,
    /// Full id of the commit that the branch names.
    pub commit: String,
    /// Number of commits on the branch that neither its base ref nor the commit at which its session began has.
    pub commits: usize,
    /// Name of the branch's repository in the manifest; absent if it is the workspace's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Base ref of the worktree, if it now has all commits of the branch, which a run of seedbed has created; absent if
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landed_in: Option<String>,
}

/// Returns the branches that would outlast a release of these sessions.
pub fn kept_branches<'s>(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    sessions: impl Iterator<Item = &'s Session>,
) -> Result<Vec<KeptBranch>, PlanningInputError> {
    find(swarm, registry, Some(&record.owner), &record.plan, sessions.flat_map(allocations_by_path))
}

/// Reports the branches that have outlasted what a run released and that no session uses now. An error of this search
/// does not change the result of the run.
pub(super) fn report(context: &Context<'_>, record: &Record, done: &Result<(), Error>) {
    let (Some(release), Ok(()) | Err(Error::NotTornDown(_) | Error::NotSetUp(_))) = (&record.release, done)
    else {
        return;
    };
    let sessions = release.before.plan.sessions.iter();
    let released = sessions.flat_map(allocations_by_path).filter(|(session, allocation)| {
        release.kinds.get(*session).is_some_and(|kinds| kinds.iter().any(|name| name == allocation.name()))
    });
    // Branches that were deleted with their sessions no longer exist here.
    let Ok(mut kept) = find(context.swarm, context.registry, None, &release.before.plan, released) else {
        return;
    };
    let applied = record.plan.sessions.iter().flat_map(|session| &session.allocations);
    let used: BTreeSet<String> =
        applied.filter_map(|allocation| context.registry.get(&allocation.kind)?.branch(allocation)).collect();
    kept.retain(|kept| !used.contains(&kept.branch));
    for kept in kept {
        (context.events)(&Event::BranchKept(kept));
    }
}

fn allocations_by_path(session: &Session) -> impl Iterator<Item = (&SessionPath, &Allocation)> {
    session.allocations.iter().map(|allocation| (&session.path, allocation))
}

fn find<'s>(
    swarm: &Swarm<'_>,
    registry: &Registry,
    owner: Option<&String>,
    plan: &Plan,
    allocations: impl Iterator<Item = (&'s SessionPath, &'s Allocation)>,
) -> Result<Vec<KeptBranch>, PlanningInputError> {
    let allocations: Vec<_> = allocations.collect();
    let mut queries: BTreeSet<_> = allocations
        .iter()
        .filter_map(|(_, allocation)| Some(registry.get(&allocation.kind)?.survival_queries(allocation)))
        .flatten()
        .collect();
    if queries.is_empty() {
        return Ok(Vec::new());
    }
    queries.extend(plan.repositories.iter().map(PlannedRepository::query));
    let mut observation = observe::observe(swarm.host(), swarm.workspace(), &queries)?;
    observation.owner = owner.cloned();
    let kept = allocations.iter().filter_map(|(session, allocation)| {
        let kind = registry.get(&allocation.kind)?;
        let SurvivingBranch { branch, commit, commits, landed_in } =
            kind.surviving_branch(allocation, &observation)?;
        let (session, repository) = ((*session).clone(), kind.repository(allocation).map(|(name, _)| name));
        Some(KeptBranch { session, branch, commit, commits, repository, landed_in })
    });
    Ok(kept.collect())
}
