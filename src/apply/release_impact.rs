//! Finds the impact of a release: unsaved work, and obstacles. A dry run and the real run search with this code.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::release_set::{self, Destroy, ResourcesBySession, each};
use super::run_progress::RunProgress;
use super::{nested_swarms, with_task};
use crate::host::Host;
use crate::name::SessionPath;
use crate::plan::{Damage, Plan, Session};
pub use crate::plan::{FindingKind, SessionFinding};
use crate::provider::{self, Location, Registry, SharedResults, Task, UnsavedWork};
use crate::state::{self, Record, Stage, Swarm, Unsaved};

/// Impact of a release, in order of the sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseImpact {
    /// Standalone sessions that have a share of what is released or lie inside it, and resources of kinds that the
    /// registry does not know. No option of this run releases them.
    pub blocking: Vec<SessionFinding>,
    /// Files inside that do not belong to the sessions, and resources that cannot be removed. They are never released
    /// unrequested.
    pub obstacles: Vec<SessionFinding>,
    /// Work that is saved nowhere else, and that a rescue saves.
    pub work: Vec<SessionFinding>,
    /// Work that is saved nowhere else, and that no rescue saves.
    pub beyond_rescue: Vec<SessionFinding>,
    /// Resources whose work cannot be determined: a reason to refuse, unless the work is discarded.
    pub unknown: Vec<SessionFinding>,
    /// Files and commits that are removed and are no reason to refuse: files that Git ignores, commits that were
    /// rewritten.
    pub also_removed: Vec<SessionFinding>,
}

impl ReleaseImpact {
    /// Adds the impact of other sessions.
    pub fn add(&mut self, more: Self) {
        self.blocking.extend(more.blocking);
        self.obstacles.extend(more.obstacles);
        self.work.extend(more.work);
        self.beyond_rescue.extend(more.beyond_rescue);
        self.unknown.extend(more.unknown);
        self.also_removed.extend(more.also_removed);
    }

    /// Returns the reasons to refuse a release; empty if there are none.
    pub fn refused(&self, unsaved: Unsaved) -> Vec<SessionFinding> {
        let work: &[&Vec<SessionFinding>] = match unsaved {
            Unsaved::Keep => &[&self.work, &self.beyond_rescue, &self.unknown],
            Unsaved::Rescue => &[&self.beyond_rescue, &self.unknown],
            Unsaved::Discard => &[],
        };
        let obstacles = self.blocking.iter().chain(&self.obstacles).cloned();
        let mut refused: Vec<SessionFinding> =
            obstacles.map(|finding| SessionFinding { kind: FindingKind::Obstacle, ..finding }).collect();
        refused.extend(work.iter().copied().flatten().cloned());
        refused.sort_by(|one, other| one.session.cmp(&other.session));
        refused
    }
}

/// Finds the impact of applying `plan`, with the findings of the survey that the plan was made from. Changes nothing.
pub fn impact_of_plan(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
    plan: &Plan,
    shared_results: &SharedResults,
) -> Result<ReleaseImpact, state::Error> {
    let released = release_set::planned(plan);
    if released.is_empty() {
        return Ok(ReleaseImpact::default());
    }
    impact_of_kinds(swarm, registry, applied, &released, shared_results)
}

/// Finds work that was done since in what an interrupted run has provisioned, and that recovery would lose. Changes
/// nothing.
///
/// Empty if no run was interrupted while it provisioned.
pub fn impact_of_recovery(swarm: &Swarm<'_>, registry: &Registry) -> Result<ReleaseImpact, state::Error> {
    let Some((record, Stage::Provisioning)) = swarm.interrupted()? else {
        return Ok(ReleaseImpact::default());
    };
    Ok(impact_of_rollback(swarm, registry, &record, &release_set::provisioned(&record), Unsaved::Keep)?.0)
}

/// Damage of leases, by session and kind.
pub type Broken = BTreeMap<(SessionPath, String), Damage>;

/// Returns the damage of an applied swarm, as [`super::inspect`] finds it, and the impact of releasing the whole swarm.
/// A program of an external kind runs once for both. Changes nothing.
pub fn examine(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
) -> Result<(Broken, ReleaseImpact), state::Error> {
    let shared_results = SharedResults::default();
    let broken = super::inspect::inspect_sharing(swarm, registry, applied, &shared_results);
    let everything = Destroy::default().kinds(applied);
    Ok((broken, impact_of_kinds(swarm, registry, applied, &everything, &shared_results)?))
}

pub(super) fn impact_of_kinds(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
    released: &ResourcesBySession,
    shared_results: &SharedResults,
) -> Result<ReleaseImpact, state::Error> {
    let mut impact = impact_without_children(swarm, registry, applied, released, shared_results)?;
    impact.blocking.extend(standalone_children(swarm.host(), applied, released)?);
    Ok(impact)
}

/// Finds the impact as [`impact_of_kinds`] does, for a release that includes the children.
pub(super) fn impact_without_children(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
    released: &ResourcesBySession,
    shared_results: &SharedResults,
) -> Result<ReleaseImpact, state::Error> {
    let mut impact =
        impact_of(swarm.host(), registry, applied, released, Location::Home, shared_results, Search::Work).0;
    impact.blocking.extend(unknown_kinds(registry, applied, released).map(|(session, kind)| {
        let description = format!("only the program that provisioned its `{kind}` can release it");
        SessionFinding::new(session.path.clone(), description)
    }));
    impact.obstacles.extend(nested_swarms::find(swarm, registry, applied, released)?);
    impact.obstacles.extend(left_aside(swarm, registry, applied, released)?);
    Ok(impact)
}

/// Finds what runs that were given up have left in the locations to which a new run would move its releases. While a run
/// is unfinished, these locations are its own.
pub(super) fn left_aside(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
    released: &ResourcesBySession,
) -> Result<Vec<SessionFinding>, state::Error> {
    if swarm.is_unfinished()? {
        return Ok(Vec::new());
    }
    let found = Mutex::new(Vec::new());
    let host = swarm.host();
    each(&applied.plan.sessions, released, registry, host, |session, allocation, provider| {
        let left = with_task(host, applied, session, allocation, None, |task| Ok(provider.left_aside(task)));
        let describe = |what: String| {
            let what = format!("an abandoned run left {what}: bring it back by hand, or remove it");
            SessionFinding::new(session.path.clone(), what)
        };
        let left = left.unwrap_or_default().into_iter().map(describe);
        found.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
    });
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Finds the impact of rolling back an interrupted run, and the kinds that have work to rescue. Work that is discarded is
/// not searched for.
pub(super) fn impact_of_rollback(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    provisioned: &ResourcesBySession,
    unsaved: Unsaved,
) -> Result<(ReleaseImpact, ResourcesBySession), state::Error> {
    let progress = RunProgress::read(swarm, registry, record, provisioned)?;
    let (host, shared_results) = (swarm.host(), SharedResults::default());
    let search = match unsaved {
        Unsaved::Discard => Search::Obstacles,
        Unsaved::Keep | Unsaved::Rescue => Search::WorkSince(&progress),
    };
    let (mut impact, with_work) =
        impact_of(host, registry, record, provisioned, Location::Home, &shared_results, search);
    impact.blocking = standalone_children(host, record, provisioned)?;
    impact.obstacles.extend(nested_swarms::find(swarm, registry, record, provisioned)?);
    Ok((impact, with_work))
}

/// Returns the impact of releasing these kinds of these sessions, and the kinds that have work to rescue.
pub(super) fn impact_of(
    host: &Host,
    registry: &Registry,
    record: &Record,
    released: &ResourcesBySession,
    location: Location,
    shared_results: &SharedResults,
    search: Search<'_>,
) -> (ReleaseImpact, ResourcesBySession) {
    let (mut impact, mut with_work) = (ReleaseImpact::default(), ResourcesBySession::new());
    for (session, resource, found) in search.each(host, registry, record, released, location, shared_results)
    {
        let name = &resource;
        let of_resource = |lines: Vec<String>| {
            let finding = |line| SessionFinding {
                resource: Some(name.clone()),
                ..SessionFinding::new(session.clone(), line)
            };
            lines.into_iter().map(finding)
        };
        let found = match (found, search) {
            (Ok(found), _) => found,
            (Err(error), Search::Obstacles) => {
                UnsavedWork { blockers: vec![error.to_string()], ..UnsavedWork::default() }
            }
            // Work that cannot be inspected cannot be called saved.
            (Err(error), _) => {
                UnsavedWork { beyond_rescue: vec![error.to_string()], ..UnsavedWork::default() }
            }
        };
        let has_work = !found.work.is_empty();
        impact.work.extend(of_resource(found.work));
        impact.beyond_rescue.extend(of_resource(found.beyond_rescue));
        let unknown = of_resource(found.unknown);
        impact
            .unknown
            .extend(unknown.map(|finding| SessionFinding { kind: FindingKind::Unknown, ..finding }));
        impact.also_removed.extend(of_resource(found.ignored));
        impact.obstacles.extend(of_resource(found.blockers));
        if has_work {
            with_work.entry(session).or_default().push(resource);
        }
    }
    (impact, with_work)
}

/// Extent of a search for what a release would lose.
#[derive(Clone, Copy)]
pub(super) enum Search<'p> {
    /// Obstacles only, because the work is discarded. Discarded work often cannot be inspected.
    Obstacles,
    /// Obstacles and work.
    Work,
    /// Obstacles, and work that was done since an interrupted run.
    WorkSince(&'p RunProgress),
}

impl Search<'_> {
    /// Searches each of these kinds of these sessions. Returns what was found with the session and the name of the
    /// resource, in order of the sessions.
    pub(super) fn each(
        self,
        host: &Host,
        registry: &Registry,
        record: &Record,
        released: &ResourcesBySession,
        location: Location,
        shared_results: &SharedResults,
    ) -> Vec<(SessionPath, String, Result<UnsavedWork, provider::Error>)> {
        let all = Mutex::new(Vec::new());
        each(&record.plan.sessions, released, registry, host, |session, allocation, provider| {
            let found = with_task(host, record, session, allocation, None, |task| {
                let task = &Task { shared_results: Some(shared_results), location, ..*task };
                let mut found = match self {
                    Self::Obstacles => {
                        UnsavedWork { blockers: provider.blockers(task)?, ..UnsavedWork::default() }
                    }
                    Self::Work => provider.unsaved_work(task)?,
                    Self::WorkSince(progress) => {
                        provider.unsaved_work_since(task, progress.in_session(session))?
                    }
                };
                if task.is_forgotten {
                    found.ignored.extend(provider.manual_cleanup(task));
                }
                Ok(found)
            });
            let found = (session.path.clone(), allocation.name().to_owned(), found);
            all.lock().unwrap_or_else(PoisonError::into_inner).push(found);
        });
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        all
    }
}

/// Returns the resources to be released whose kinds the registry does not know, with their sessions.
pub(super) fn unknown_kinds<'r>(
    registry: &Registry,
    record: &'r Record,
    released: &ResourcesBySession,
) -> impl Iterator<Item = (&'r Session, &'r str)> {
    let allocations = record
        .plan
        .sessions
        .iter()
        .flat_map(|session| session.allocations.iter().map(move |allocation| (session, allocation)));
    allocations
        .filter(|(session, allocation)| {
            let kinds = released.get(&session.path);
            kinds.is_some_and(|kinds| kinds.iter().any(|name| name == allocation.name()))
                && registry.provider(allocation).is_none()
        })
        .map(|(session, allocation)| (session, allocation.kind.as_str()))
}

/// Finds standalone sessions that would lose their share of what is released, or their worktree inside it.
pub(super) fn standalone_children(
    host: &Host,
    record: &Record,
    released: &ResourcesBySession,
) -> Result<Vec<SessionFinding>, state::Error> {
    let standalone = state::standalone_sessions(host, &record.owner)?;
    let above = |session: &&Session| released.contains_key(&session.path);
    let found = record.plan.sessions.iter().filter(above).flat_map(|session| {
        let below = standalone.iter().filter(|child| child.ancestors.contains(&session.id));
        let ids = below.flat_map(|child| &child.plan.sessions).map(|child| &child.id);
        ids.map(|id| {
            let description = format!(
                "its child `{id}` is active: release that first, with the program that provisioned it or with `seedbed \
                 destroy`"
            );
            SessionFinding::new(session.path.clone(), description)
        })
    });
    Ok(found.collect())
}
