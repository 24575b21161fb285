//! Saves unsaved work in what a run releases.

use std::sync::{Mutex, PoisonError};

use super::event::PhaseReport;
use super::release_set::{ResourcesBySession, each};
use super::{Context, Error, Event, Failure, Phase, with_task};
use crate::host::Host;
use crate::host::process::Cancel;
use crate::provider::{Location, Rescue, Task};
use crate::state::Record;

/// Rescues the work of these kinds of these sessions, and removes temporary files.
pub(super) fn save(
    context: &Context<'_>,
    record: &Record,
    with_work: &ResourcesBySession,
    location: Location,
) -> Result<(), Error> {
    context.swarm.begin_rescue()?;
    let rescued = rescue(context, record, with_work, location);
    // Leftovers that could not be removed now are removed by the next recovery.
    if sweep(context, record).is_ok() {
        context.swarm.end_rescue()?;
    }
    rescued
}

/// Saves work that was done in what an interrupted run provisioned.
pub(super) fn save_interrupted(
    context: &Context<'_>,
    record: &Record,
    with_work: &ResourcesBySession,
) -> Result<(), Error> {
    if with_work.is_empty() { Ok(()) } else { save(context, record, with_work, Location::Home) }
}

/// Removes the leftovers of a killed rescue of this swarm.
pub(super) fn sweep_after_a_kill(context: &Context<'_>) -> Result<(), Error> {
    if !context.swarm.is_rescuing()? {
        return Ok(());
    }
    let interrupted = context.swarm.interrupted()?.map(|(record, _)| record);
    let before =
        interrupted.iter().filter_map(|record| record.release.as_ref()).map(|release| &release.before);
    for record in before.chain(&interrupted).chain(context.swarm.applied()?.iter()) {
        sweep(context, record).map_err(|failure| Error::Failed {
            failures: Vec::new(),
            leftovers: vec![failure],
            interrupted: false,
        })?;
    }
    Ok(context.swarm.end_rescue()?)
}

fn sweep(context: &Context<'_>, record: &Record) -> Result<(), Failure> {
    // The Ctrl-C that caused the removal does not interrupt it.
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    for session in &record.plan.sessions {
        for allocation in &session.allocations {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            let lock = Some(context.swarm.file());
            with_task(&host, record, session, allocation, lock, |task| provider.sweep(task))
                .map_err(|error| Failure::from_provider(session, "sweep", allocation.name(), error))?;
        }
    }
    Ok(())
}

/// Saves the work of these kinds of these sessions. If one fails, the work that was saved of the others remains.
fn rescue(
    context: &Context<'_>,
    record: &Record,
    with_work: &ResourcesBySession,
    location: Location,
) -> Result<(), Error> {
    let host = context.swarm.host();
    let failures = Mutex::new(Vec::new());
    let report = PhaseReport::begin(context, Phase::Rescue, with_work.len());
    each(&record.plan.sessions, with_work, context.registry, host, |session, allocation, provider| {
        let lock = Some(context.swarm.file());
        let rescued = with_task(host, record, session, allocation, lock, |task| {
            provider.rescue(&Task { location, ..*task })
        });
        match rescued {
            Ok(Rescue { reference, command, missing }) => {
                (context.events)(&Event::Rescued {
                    session: session.path.clone(),
                    reference,
                    command,
                    missing,
                });
                let kinds = with_work.get(&session.path);
                if kinds.and_then(|kinds| kinds.last()).is_some_and(|name| name == allocation.name()) {
                    report.passed(&session.path);
                }
            }
            Err(error) => {
                let failure = Failure::from_provider(session, "rescue", allocation.name(), error);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::NotRescued { failures, interrupted: host.cancel.is_requested() })
}
