//! What a run releases, in which order, and on which terms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::tree;
use crate::host::Host;
use crate::name::SessionPath;
use crate::plan::{Action, Plan, Session};
use crate::provider::{Allocation, Provider, Registry};
use crate::state::{self, Found, Record, Unsaved};

/// Kinds that are released, by session, in the order of release.
pub(super) type Kinds = BTreeMap<SessionPath, Vec<String>>;

/// What to destroy, and how.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Destroy {
    /// The sessions, each with everything below it; empty for the whole swarm.
    pub sessions: BTreeSet<SessionPath>,
    /// What becomes of unsaved work.
    pub unsaved: Unsaved,
    /// What becomes of processes at work in the sessions.
    pub occupants: Occupants,
    /// Whether the children that programs have provisioned from these sessions are released too, first of all; else they
    /// are refused. Default: `false`.
    pub children: bool,
}

impl Destroy {
    /// Destroys all sessions, in the same way.
    #[must_use]
    pub fn of_all(self) -> Self {
        Self { sessions: BTreeSet::new(), ..self }
    }

    /// Returns the sessions that are released.
    pub fn sessions_of<'r>(&self, standing: &'r Record) -> impl Iterator<Item = &'r Session> {
        let is_released = |path: &SessionPath| {
            self.sessions.is_empty() || self.sessions.iter().any(|top| path.is_at_or_below(top))
        };
        standing.plan.sessions.iter().filter(move |session| is_released(&session.path))
    }

    /// Returns the kinds of the sessions that are released, in the order of their release.
    pub(super) fn kinds(&self, standing: &Record) -> Kinds {
        self.sessions_of(standing)
            .map(|session| {
                let kinds = session.allocations.iter().rev().map(|allocation| allocation.kind.clone());
                (session.path.clone(), kinds.collect())
            })
            .collect()
    }

    /// Finds the children that programs have provisioned from the sessions that are released, and the children of these,
    /// parents before their children.
    pub fn children_of(&self, host: &Host, standing: &Record) -> Result<Vec<Found>, state::Error> {
        let mut released = standing.clone();
        let paths: Vec<_> = self.sessions_of(standing).map(|session| session.path.clone()).collect();
        released.plan.sessions.retain(|session| paths.contains(&session.path));
        state::children(host, &released)
    }
}

/// Default for [`Occupants::Stop`]: time for a process to end by itself after TERM.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of processes that use what a run releases.
///
/// A process uses a session if its working directory, root directory, executable, an open or a mapped file lies in a
/// directory of the session, or if it listens on one of its ports. The calling process and those that it descends from
/// are named ([`Role::Caller`](crate::plan::Role::Caller)), but neither refused nor ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupants {
    /// The run is refused with [`Error::Occupied`](super::Error::Occupied), before it changes anything.
    #[default]
    Refuse,
    /// They and all that descend from them are sent TERM, and KILL after this time. Nothing is sent where the run would be
    /// refused for unsaved work. What still runs then is that error.
    Stop(Duration),
}

/// Returns the kinds that applying `plan` releases.
pub(super) fn planned(plan: &Plan) -> Kinds {
    plan.changes
        .iter()
        .filter(|change| change.action == Action::Destroy || !change.release.is_empty())
        .map(|change| (change.session.clone(), change.release.clone()))
        .collect()
}

/// Returns the kinds that the run of a record provisions, in the order in which undoing releases it.
pub(super) fn provisioned(record: &Record) -> Kinds {
    let pairs = record.plan.sessions.iter().zip(&record.plan.changes);
    pairs
        .filter(|(_, change)| !change.provision.is_empty())
        .map(|(session, change)| (session.path.clone(), change.provision.iter().rev().cloned().collect()))
        .collect()
}

/// Returns the kinds for which `applies` is true.
pub(super) fn restricted(record: &Record, kinds: &Kinds, applies: impl Fn(&Session, &str) -> bool) -> Kinds {
    let of_session = |session: &Session| {
        let kinds = kinds.get(&session.path)?.iter().filter(|kind| applies(session, kind)).cloned();
        Some((session.path.clone(), kinds.collect()))
    };
    record.plan.sessions.iter().filter_map(of_session).collect()
}

/// Returns whether the session is released as a whole and has a `teardown`, which runs before.
pub(super) fn is_torn_down(session: &Session, released: &Kinds) -> bool {
    let whole = released.get(&session.path).is_some_and(|kinds| kinds.len() == session.allocations.len());
    whole && !session.teardown.is_empty()
}

/// Calls `act` for each of these kinds of these sessions, in parallel.
pub(super) fn each(
    sessions: &[Session],
    kinds: &Kinds,
    registry: &Registry,
    host: &Host,
    act: impl Fn(&Session, &Allocation, &dyn Provider) + Sync,
) {
    tree::parents_first(sessions, host.jobs, |at| {
        let session = &sessions[at];
        for kind in kinds.get(&session.path).into_iter().flatten() {
            // What nobody here knows is refused before.
            if let Some(allocation) = session.allocation(kind)
                && let Some(provider) = registry.provider(allocation)
            {
                act(session, allocation, provider);
            }
        }
    });
}
