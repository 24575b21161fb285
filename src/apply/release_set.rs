//! Selects the kinds that a run releases, their order and the conditions of the release.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::traverse;
use crate::host::Host;
use crate::name::SessionPath;
use crate::plan::{Action, Plan, Session};
use crate::provider::{Allocation, Provider, Registry};
use crate::state::{self, Record, RecordedSwarm, Unsaved};

/// Kinds that are released, by session and in the order of release.
pub(super) type ResourcesBySession = BTreeMap<SessionPath, Vec<String>>;

/// Sessions to destroy, and the policies for unsaved work, processes and children.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Destroy {
    /// Paths of the sessions, each with everything below it; empty for the whole swarm.
    pub sessions: BTreeSet<SessionPath>,
    /// Policy for unsaved work.
    pub unsaved: Unsaved,
    /// Policy for processes that use the sessions.
    pub occupants: Occupants,
    /// Names of repositories that cannot be used and are given up: of their worktrees, only what lies outside of the
    /// repositories is released. A repository that can be used is not given up. Default: none.
    pub forget: BTreeSet<String>,
    /// `true` if children that programs have provisioned from these sessions are released as well, before the sessions.
    /// If `false`, they are a reason to refuse. Default: `false`.
    pub children: bool,
}

impl Destroy {
    /// Selects all sessions and keeps the policies.
    #[must_use]
    pub fn with_all_sessions(self) -> Self {
        Self { sessions: BTreeSet::new(), ..self }
    }

    /// Returns the sessions that are released.
    pub fn sessions_of<'r>(&self, applied: &'r Record) -> impl Iterator<Item = &'r Session> {
        let is_released = |path: &SessionPath| {
            self.sessions.is_empty() || self.sessions.iter().any(|top| path.is_at_or_below(top))
        };
        applied.plan.sessions.iter().filter(move |session| is_released(&session.path))
    }

    /// Returns the kinds of the sessions that are released, in the order of their release.
    pub(super) fn kinds(&self, applied: &Record) -> ResourcesBySession {
        self.sessions_of(applied)
            .map(|session| {
                let kinds = session.allocations.iter().rev().map(|allocation| allocation.name().to_owned());
                (session.path.clone(), kinds.collect())
            })
            .collect()
    }

    /// Finds the children that programs have provisioned from the released sessions, and the children of those
    /// children, parents before children.
    pub fn children_of(&self, host: &Host, applied: &Record) -> Result<Vec<RecordedSwarm>, state::Error> {
        let mut released = applied.clone();
        let paths: Vec<_> = self.sessions_of(applied).map(|session| session.path.clone()).collect();
        released.plan.sessions.retain(|session| paths.contains(&session.path));
        state::children(host, &released)
    }
}

/// Default for [`Occupants::Stop`]: time for a process to end by itself after `SIGTERM`.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Policy for processes that use what a run releases.
///
/// A process uses a session if its working directory, root directory, executable, or an open or mapped file lies in a
/// directory of the session. A process that listens on a port of the session uses the session as well. The calling
/// process and its ancestors are named ([`Role::Caller`](crate::plan::Role::Caller)), but neither refused nor ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupants {
    /// The run is refused with [`Error::Occupied`](super::Error::Occupied), before it changes anything.
    #[default]
    Refuse,
    /// The processes and all their descendants are sent `SIGTERM`, and `SIGKILL` after this time. No signal is sent if
    /// the run would be refused for unsaved work. If a process still runs afterwards, the run fails with
    /// [`Error::Occupied`](super::Error::Occupied).
    Stop(Duration),
}

/// Returns the kinds that applying `plan` releases.
pub(super) fn planned(plan: &Plan) -> ResourcesBySession {
    plan.changes
        .iter()
        .filter(|change| change.action == Action::Destroy || !change.release.is_empty())
        .map(|change| (change.session.clone(), change.release.clone()))
        .collect()
}

/// Returns the kinds that the run of a record provisions, in the order in which a rollback releases them.
pub(super) fn provisioned(record: &Record) -> ResourcesBySession {
    let pairs = record.plan.sessions.iter().zip(&record.plan.changes);
    pairs
        .filter(|(_, change)| !change.provision.is_empty())
        .map(|(session, change)| (session.path.clone(), change.provision.iter().rev().cloned().collect()))
        .collect()
}

/// Returns the kinds of the record's sessions for which `applies` is true.
pub(super) fn restricted(
    record: &Record,
    kinds: &ResourcesBySession,
    applies: impl Fn(&Session, &str) -> bool,
) -> ResourcesBySession {
    let of_session = |session: &Session| {
        let kinds = kinds.get(&session.path)?.iter().filter(|kind| applies(session, kind)).cloned();
        Some((session.path.clone(), kinds.collect()))
    };
    record.plan.sessions.iter().filter_map(of_session).collect()
}

/// Returns whether the session is released completely and has a `teardown`, which runs before the release.
pub(super) fn is_torn_down(session: &Session, released: &ResourcesBySession) -> bool {
    let whole = released.get(&session.path).is_some_and(|kinds| kinds.len() == session.allocations.len());
    whole && !session.teardown.is_empty()
}

/// Calls `act` for each of these kinds of these sessions, in parallel.
pub(super) fn each(
    sessions: &[Session],
    kinds: &ResourcesBySession,
    registry: &Registry,
    host: &Host,
    act: impl Fn(&Session, &Allocation, &dyn Provider) + Sync,
) {
    traverse::parents_first(sessions, host.jobs, |at| {
        let session = &sessions[at];
        for kind in kinds.get(&session.path).into_iter().flatten() {
            // A kind that the registry does not know was refused before.
            if let Some(allocation) = session.allocation(kind)
                && let Some(provider) = registry.provider(allocation)
            {
                act(session, allocation, provider);
            }
        }
    });
}
