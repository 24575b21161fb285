//! Finds repositories of an applied swarm that cannot be used, and selects what is given up with them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::release_set::{Destroy, ResourcesBySession};
use super::{Context, Error, with_task};
use crate::host::Host;
use crate::name::SessionPath;
use crate::observe::Observation;
use crate::plan::PlannedRepository;
use crate::provider::{Registry, way};
use crate::state::{Record, Swarm};

/// Repository beside the workspace's own that sessions have worktrees of, and that cannot be used: it was moved or
/// deleted, its file system is not mounted, or this user may not write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnusableRepository {
    /// Name of the repository in the manifest.
    pub name: String,
    /// Top of the repository's work tree, relative to the workspace root, or absolute.
    pub root: PathBuf,
    /// Reason for which the repository cannot be used, one line.
    pub why: String,
    /// Sessions that have resources of the repository, each once.
    pub sessions: Vec<SessionPath>,
}

impl std::fmt::Display for UnusableRepository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the repository `{}` ({}) cannot be used: {}", self.name, self.root.display(), self.why)
    }
}

/// Finds the repositories of an applied swarm that cannot be used, by name. Changes nothing.
pub fn unusable_repositories(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
) -> Vec<UnusableRepository> {
    all_unusable(swarm.host(), registry, record)
}

/// Finds the repositories of any record that cannot be used.
pub(super) fn all_unusable(host: &Host, registry: &Registry, record: &Record) -> Vec<UnusableRepository> {
    find(host, registry, record, &Destroy::default().kinds(record), created_before(record))
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

/// Refuses a run that releases resources of a repository that cannot be used, unless they are given up. `record` is the
/// applied one.
pub(super) fn require(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
) -> Result<(), Error> {
    refuse(find(context.swarm.host(), context.registry, record, released, created_before(record)))
}

/// Refuses the recovery of a run as [`require`] refuses a run. A repository that was replaced is not recognised: the run
/// may have released everything that would distinguish the two.
pub(super) fn require_to_recover(
    context: &Context<'_>,
    record: &Record,
    kinds: &ResourcesBySession,
) -> Result<(), Error> {
    refuse(find(context.swarm.host(), context.registry, record, kinds, None))
}

/// Refuses to rebind a record of which any repository cannot be used. A repository that was replaced is not recognised, as
/// in [`require_to_recover`].
pub(super) fn require_all(host: &Host, registry: &Registry, record: &Record) -> Result<(), Error> {
    refuse(find(host, registry, record, &Destroy::default().kinds(record), None))
}

fn refuse(unusable: Vec<UnusableRepository>) -> Result<(), Error> {
    if unusable.is_empty() { Ok(()) } else { Err(Error::Unusable(unusable)) }
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
    let unusable = find(host, registry, applied, &destroy.kinds(applied), created_before(applied));
    let is_given_up = |(name, root): (String, PathBuf)| {
        destroy.forget.contains(&name)
            && unusable.iter().any(|found| (&found.name, &found.root) == (&name, &root))
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

/// State of one repository during the search.
struct Inspected {
    /// Reason for which the repository cannot be used; `None` if it can.
    why: Option<String>,
    /// Repository that was created in place of the one of the resources seen so far; `None` if it has one of them.
    replaced: Option<PathBuf>,
    sessions: Vec<SessionPath>,
}

/// Finds the repositories of `released` that cannot be used. If all resources of a repository that was created after
/// `since` are missing, it is another one.
fn find(
    host: &Host,
    registry: &Registry,
    record: &Record,
    released: &ResourcesBySession,
    since: Option<SystemTime>,
) -> Vec<UnusableRepository> {
    let mut found: BTreeMap<(String, PathBuf), Inspected> = BTreeMap::new();
    for session in &record.plan.sessions {
        let names = released.get(&session.path).into_iter().flatten();
        for held in names.filter_map(|name| session.allocation(name)) {
            let Some(provider) = registry.get(&held.kind) else { continue };
            let Some(repository) = provider.repository(held) else { continue };
            if record.is_forgotten(&session.path, held.name()) {
                continue;
            }
            let replaced = || {
                let since = since?;
                with_task(host, record, session, held, None, |task| provider.replaced_container(task, since))
                    .ok()
                    .flatten()
            };
            let inspected = found.entry(repository).or_insert_with(|| {
                let ready = with_task(host, record, session, held, None, |task| provider.check_ready(task));
                let why = ready.err().map(|error| error.to_string());
                Inspected {
                    replaced: if why.is_none() { replaced() } else { None },
                    why,
                    sessions: Vec::new(),
                }
            });
            if inspected.replaced.is_some() {
                inspected.replaced = replaced();
            }
            if inspected.sessions.last() != Some(&session.path) {
                inspected.sessions.push(session.path.clone());
            }
        }
    }
    let unusable = found.into_iter().filter_map(|((name, root), Inspected { why, replaced, sessions })| {
        let why = why.or_else(|| {
            let path = replaced?.display().to_string();
            Some(format!("{path} was created after the swarm, and has nothing of it"))
        })?;
        Some(UnusableRepository { name, root, why, sessions })
    });
    unusable.collect()
}

/// Returns the time before which every repository of the record was created; `None` if it is unknown.
fn created_before(record: &Record) -> Option<SystemTime> {
    /// Unit of [`Record::since`].
    const SECOND: Duration = Duration::from_secs(1);
    Some(humantime::parse_rfc3339(record.since.as_deref()?).ok()? + SECOND)
}
