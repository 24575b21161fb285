//! Steps of a release other than releasing leases: teardowns, and the discovery files.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use super::event::PhaseReport;
use super::release_set::{ResourcesBySession, is_torn_down};
use super::{Context, Event, Failure, Phase, Run, commands, traverse, with_task};
use crate::discovery;
use crate::host::Host;
use crate::host::files::Root;
use crate::plan::Session;
use crate::state::{self, Record};

/// Writes the discovery files of sessions that have lost children. A file that differs from what was written is left
/// for the next apply to find: its session's directory may be missing.
pub(super) fn write_to_parents(
    context: &Context<'_>,
    record: &Record,
    before: &Record,
    host: &Host,
) -> Vec<Failure> {
    let is_true = |session: &Session| {
        let expected = discovery::snapshot(
            before,
            session,
            context.registry,
            context.swarm.workspace(),
            &context.swarm.host().state,
        );
        discovery::inspect(context.swarm, session, &expected).is_none()
    };
    let run = Run { context, record, host };
    let before: HashMap<_, _> = before.plan.sessions.iter().map(|session| (&session.path, session)).collect();
    let has_lost = |session: &&Session| {
        let before = before.get(&session.path);
        before.is_some_and(|before| before.children != session.children && is_true(before))
    };
    record
        .plan
        .sessions
        .iter()
        .filter(has_lost)
        .filter_map(|session| run.write_discovery(session).err())
        .collect()
}

/// Removes the canonical discovery files of the sessions of `before` that `record` does not have.
pub(super) fn forget_discovery(
    context: &Context<'_>,
    record: &Record,
    before: &Record,
) -> Result<(), state::Error> {
    let stays: BTreeSet<_> = record.plan.sessions.iter().map(|session| &session.path).collect();
    let mut released = before.plan.sessions.iter().filter(|session| !stays.contains(&session.path));
    released.try_for_each(|session| context.swarm.remove_discovery(&session.scoped_name))
}

/// Syncs the directories of what was moved aside, so that the move survives a power failure: the next stage relies on
/// it. A file system that cannot sync is no reason to stop.
pub(super) fn sync(context: &Context<'_>, before: &Record, kinds: &ResourcesBySession) {
    let mut directories = BTreeSet::new();
    for session in before.plan.sessions.iter().filter(|session| kinds.contains_key(&session.path)) {
        for allocation in &session.allocations {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            let touched = with_task(context.swarm.host(), before, session, allocation, None, |task| {
                provider.temporary_file_directories(task)
            });
            directories.extend(touched.unwrap_or_default());
        }
    }
    for directory in directories {
        let _ = Root::open(&directory).and_then(|directory| directory.sync());
    }
}

/// Sessions whose teardown a run executes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teardowns {
    /// All sessions that are released completely.
    All,
    /// Sessions that are released completely and whose teardown an interrupted run has not begun.
    NotBegun,
}

/// Runs the `teardown` of sessions that are released completely and whose `setup` has begun. A failure stops nothing. A
/// session whose directory was removed by hand is released without a teardown: no run could ever do better. An
/// interruption ends the commands and skips the rest.
pub(super) fn tear_down(
    context: &Context<'_>,
    applied: &Record,
    released: &ResourcesBySession,
    teardowns: Teardowns,
) -> Vec<Failure> {
    let sessions = &applied.plan.sessions;
    let failures = Mutex::new(Vec::new());
    let host = context.swarm.host();
    let runs = |session: &Session| {
        let begun = teardowns == Teardowns::NotBegun && commands::was_run(context.swarm, session, "teardown");
        let is_set_up = applied.not_set_up.get(&session.path).is_none_or(|it| it.begun);
        is_torn_down(session, released) && is_set_up && !begun
    };
    let count = sessions.iter().filter(|session| runs(session)).count();
    let report = PhaseReport::begin(context, Phase::TearDown, count);
    traverse::children_first(sessions, host.jobs, |at| {
        let session = &sessions[at];
        if !runs(session) {
            return;
        }
        if let Err(why) = super::directory(context.swarm, context.registry, applied, session) {
            (context.events)(&Event::NotTornDown { session: session.path.clone(), why });
            report.passed(&session.path);
            return;
        }
        match commands::run(context.swarm, host, session, "teardown", &session.teardown) {
            Ok(()) => {
                (context.events)(&Event::TornDown { session: session.path.clone() });
                report.passed(&session.path);
            }
            Err(cause) => {
                let failure = Failure::new(session, "teardown", cause);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}
