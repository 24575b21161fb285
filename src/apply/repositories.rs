//! Finds repositories of an applied swarm that cannot be used, and selects what is given up with them.
//!
//! A repository is the one of the record if it has the identity that the record names. A repository with another identity
//! was moved from another file system or restored from a backup if it has at least one resource with the ownership
//! marker of the swarm; if it has none, it is another repository. No command changes anything there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::release_set::{Destroy, ResourcesBySession, planned};
use super::{Context, Error, with_task};
use crate::host::Host;
use crate::name::SessionPath;
use crate::observe::{Observation, WORKSPACE_REPOSITORY};
use crate::plan::{Plan, PlannedRepository, Session};
use crate::provider::{Allocation, Container, Kind, Location, Registry, Task, way};
use crate::state::{Record, RecordedSwarm, Swarm};

/// Repository that sessions have worktrees of, and that cannot be used: another repository is at its path, or it was
/// moved or deleted, its file system is not mounted, or this user may not write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnusableRepository {
    /// Name of the repository in the manifest; that of the workspace's own is empty.
    pub name: String,
    /// Top of the repository's work tree, relative to the workspace root, or absolute.
    pub root: PathBuf,
    /// Workspace of the swarm, absolute.
    pub workspace: PathBuf,
    /// Reason for which the repository cannot be used, one line.
    pub why: String,
    /// Sessions that have resources of the repository, each once.
    pub sessions: Vec<SessionPath>,
}

impl UnusableRepository {
    /// Returns whether the repository is the workspace's own.
    pub fn is_own(&self) -> bool {
        self.name == WORKSPACE_REPOSITORY
    }
}

impl std::fmt::Display for UnusableRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_own() {
            return write!(f, "the repository of {} cannot be used: {}", self.workspace.display(), self.why);
        }
        write!(f, "the repository `{}` ({}) cannot be used: {}", self.name, self.root.display(), self.why)
    }
}

/// Name and root of a repository.
type Repository = (String, PathBuf);

/// Finds the repositories of an applied swarm that cannot be used, by name. Changes nothing.
pub fn unusable_repositories(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
) -> Vec<UnusableRepository> {
    unusable(swarm.host(), registry, record)
}

/// Returns the error with which [`apply`](super::apply) refuses `plan` because of repositories: one that the plan changes
/// cannot be used, or another one is at its path. Changes nothing.
pub fn require_repositories(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
    plan: &Plan,
) -> Result<(), Error> {
    let mut changed = repositories_of(registry, applied, &planned(plan));
    for (session, change) in plan.sessions.iter().zip(&plan.changes) {
        let provisioned = change.provision.iter().chain(&change.update);
        let provisioned = provisioned.filter_map(|name| session.allocation(name));
        changed.extend(provisioned.filter_map(|held| Some(repository(registry.get(&held.kind)?, held))));
    }
    refuse(unusable(swarm.host(), registry, applied), &changed)
}

/// Refuses an applied swarm if another repository is at the path of one of its repositories: planning in that repository
/// would lead to wrong diagnostics. Changes nothing.
pub fn require_same_repositories(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
) -> Result<(), Error> {
    let inspected = inspect(swarm.host(), registry, applied, Thoroughness::Identity).into_iter();
    let replaced = inspected.filter(|(_, inspected)| matches!(inspected.state, State::Replaced));
    let replaced: BTreeSet<_> = replaced.map(|(repository, _)| repository).collect();
    if replaced.is_empty() { Ok(()) } else { refuse(unusable(swarm.host(), registry, applied), &replaced) }
}

/// Returns the repository at the path of the workspace's own if it is not the one in which the swarm is applied. `None`
/// if it is, or if the swarm has no worktree of it.
pub fn replaced_repository(host: &Host, registry: &Registry, found: &RecordedSwarm) -> Option<PathBuf> {
    let mut replaced = None;
    for record in found.records() {
        let own = inspect(host, registry, record, Thoroughness::Identity).remove(&own())?;
        match own.state {
            State::Replaced => replaced = own.container.map(|container| container.path),
            State::Usable | State::Unusable(_) => return None,
        }
    }
    replaced
}

/// Refuses a run or a recovery that releases resources of a repository that cannot be used, unless they are given up.
/// `record` has the sessions that are released.
pub(super) fn require(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
) -> Result<(), Error> {
    let released = repositories_of(context.registry, record, released);
    refuse(unusable(context.swarm.host(), context.registry, record), &released)
}

/// Refuses to rebind a record of which any repository cannot be used.
pub(super) fn require_all(host: &Host, registry: &Registry, record: &Record) -> Result<(), Error> {
    let found = unusable(host, registry, record);
    if found.is_empty() { Ok(()) } else { Err(Error::Unusable(found)) }
}

/// Finds the repositories of an applied swarm that cannot be used, and that the manifest declares at another path now.
pub(super) fn unusable_before_their_change(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    observation: &Observation,
) -> Vec<UnusableRepository> {
    let is_changed = |planned: &PlannedRepository| {
        let observed = &observation.repository(&planned.name).repository;
        matches!(observed, Some(Ok(now)) if way(&observation.workspace, &now.root) != planned.root)
    };
    if !record.plan.repositories.iter().any(is_changed) {
        return Vec::new();
    }
    let mut unusable = unusable_repositories(swarm, registry, record);
    unusable.retain(|found| {
        record.plan.repositories.iter().any(|planned| planned.name == found.name && is_changed(planned))
    });
    unusable
}

fn refuse(mut unusable: Vec<UnusableRepository>, concerned: &BTreeSet<Repository>) -> Result<(), Error> {
    unusable.retain(|found| concerned.contains(&(found.name.clone(), found.root.clone())));
    if unusable.is_empty() { Ok(()) } else { Err(Error::Unusable(unusable)) }
}

/// Returns the record with the present identities of the repositories that its sessions have worktrees of. Of a
/// repository that cannot be read, or in whose place is another one, the recorded identity is kept.
pub(crate) fn with_identities(host: &Host, registry: &Registry, record: Record) -> Record {
    let mut repositories = BTreeMap::new();
    for ((_, root), Inspected { state, container, .. }) in
        inspect(host, registry, &record, Thoroughness::Identity)
    {
        let present =
            container.filter(|_| matches!(state, State::Usable)).map(|container| container.identity);
        if let Some(identity) = present.or_else(|| record.repositories.get(&root).cloned()) {
            repositories.insert(root, identity);
        }
    }
    Record { repositories, ..record }
}

/// Returns the record with the resources that a destroy gives up: those of repositories that [`Destroy::forget`] names
/// and that cannot be used.
pub(super) fn with_forgotten(
    host: &Host,
    registry: &Registry,
    applied: &Record,
    destroy: &Destroy,
) -> Record {
    let mut record = Record { forgotten: BTreeMap::new(), ..applied.clone() };
    if destroy.forget.is_empty() {
        return record;
    }
    let found = unusable(host, registry, applied);
    let is_given_up = |(name, root): (String, PathBuf)| {
        destroy.forget.contains(&name)
            && found.iter().any(|found| (&found.name, &found.root) == (&name, &root))
    };
    for session in destroy.sessions_of(applied) {
        let of_session = session.allocations.iter().filter(|held| {
            let repository = registry.get(&held.kind).and_then(|provider| provider.repository(held));
            repository.is_some_and(is_given_up)
        });
        let names: Vec<_> = of_session.map(|held| held.name().to_owned()).collect();
        if !names.is_empty() {
            record.forgotten.insert(session.path.clone(), names);
        }
    }
    record
}

/// Result of the inspection of one repository.
struct Inspected {
    state: State,
    /// The directory at the path of the repository; `None` if it cannot be read.
    container: Option<Container>,
    /// Sessions that have resources of the repository, unless it can be used.
    sessions: Vec<SessionPath>,
}

enum State {
    /// The repository is that of the record, and can be used.
    Usable,
    /// The repository cannot be used for this reason.
    Unusable(String),
    /// Another repository is at the path, and has nothing of the swarm.
    Replaced,
}

/// Extent of an inspection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thoroughness {
    /// Only identities are compared.
    Identity,
    /// It is also checked that Git can use the repositories beside the workspace's own.
    Use,
}

/// Finds the repositories of a record that cannot be used.
pub(super) fn unusable(host: &Host, registry: &Registry, record: &Record) -> Vec<UnusableRepository> {
    let inspected = inspect(host, registry, record, Thoroughness::Use).into_iter();
    let found = inspected.filter_map(|((name, root), Inspected { state, container, sessions })| {
        let why = match state {
            State::Usable => return None,
            State::Unusable(why) => why,
            State::Replaced => format!(
                "{} is another repository than that of the swarm, and has nothing of it",
                container?.path.display()
            ),
        };
        Some(UnusableRepository { name, root, workspace: record.workspace.clone(), why, sessions })
    });
    found.collect()
}

/// Inspects the repositories of a record. Resources that are given up are left out.
fn inspect(
    host: &Host,
    registry: &Registry,
    record: &Record,
    thoroughness: Thoroughness,
) -> BTreeMap<Repository, Inspected> {
    let mut found: BTreeMap<Repository, Inspected> = BTreeMap::new();
    for (session, held, provider) in allocations(registry, record) {
        let repository = repository(provider, held);
        let is_usable = |inspected: &Inspected| matches!(inspected.state, State::Usable);
        if found.get(&repository).is_some_and(is_usable) || record.is_forgotten(&session.path, held.name()) {
            continue;
        }
        let container = with_task(host, record, session, held, None, |task| provider.container(task));
        if matches!(container, Ok(None)) {
            continue;
        }
        let inspected = found.entry(repository).or_insert_with_key(|(name, root)| {
            let container = container.ok().flatten();
            let first = record.repositories.get(root);
            let is_other =
                container.as_ref().zip(first).is_some_and(|(found, first)| found.identity != *first);
            // A step of the run reports why the workspace's own cannot be used.
            let state = if is_other {
                State::Replaced
            } else if thoroughness == Thoroughness::Identity || name == WORKSPACE_REPOSITORY {
                State::Usable
            } else {
                let ready = with_task(host, record, session, held, None, |task| provider.check_ready(task));
                ready.map_or_else(|error| State::Unusable(error.to_string()), |()| State::Usable)
            };
            Inspected { state, container, sessions: Vec::new() }
        });
        // One resource proves that the repository is that of the record.
        if matches!(inspected.state, State::Replaced)
            && is_in_container(host, record, session, held, provider)
        {
            inspected.state = State::Usable;
        }
        if inspected.sessions.last() != Some(&session.path) {
            inspected.sessions.push(session.path.clone());
        }
    }
    found
}

/// Returns whether the repository has something of a resource, also if that cannot be determined.
fn is_in_container(
    host: &Host,
    record: &Record,
    session: &Session,
    held: &Allocation,
    provider: &dyn Kind,
) -> bool {
    let is_at = |location| {
        with_task(host, record, session, held, None, |task| {
            provider.is_in_container(&Task { location, ..*task })
        })
    };
    [Location::Home, Location::Aside].into_iter().any(|location| is_at(location).unwrap_or(true))
}

/// Returns all allocations of a record whose kind is known.
fn allocations<'r>(
    registry: &'r Registry,
    record: &'r Record,
) -> impl Iterator<Item = (&'r Session, &'r Allocation, &'r dyn Kind)> {
    record.plan.sessions.iter().flat_map(move |session| {
        let known = session.allocations.iter();
        known.filter_map(move |held| Some((session, held, registry.get(&held.kind)?)))
    })
}

/// Returns the repositories of the resources of `kinds` that are not given up.
fn repositories_of(registry: &Registry, record: &Record, kinds: &ResourcesBySession) -> BTreeSet<Repository> {
    let concerned = allocations(registry, record).filter(|(session, held, _)| {
        kinds.get(&session.path).is_some_and(|names| names.iter().any(|name| name == held.name()))
            && !record.is_forgotten(&session.path, held.name())
    });
    concerned.map(|(_, held, provider)| repository(provider, held)).collect()
}

/// Returns the repository of a resource. A resource without a repository counts as one of the workspace.
fn repository(provider: &dyn Kind, held: &Allocation) -> Repository {
    provider.repository(held).unwrap_or_else(own)
}

/// Returns the workspace's own repository.
fn own() -> Repository {
    (WORKSPACE_REPOSITORY.to_owned(), PathBuf::from("."))
}
