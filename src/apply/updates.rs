//! Prepares, describes and rolls back updates of active allocations.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{Context, Error, Event, Failure, Run, with_task};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::plan::{Change, Plan, Session, SessionFinding};
use crate::provider::{self, Provider, Registry, Task};
use crate::state::{Record, Swarm};

/// Forgets earlier updates of the allocations that a run updates, before its record is written.
pub(super) fn forget(context: &Context<'_>, record: &Record) -> Result<(), Error> {
    let run = Run { context, record, host: context.swarm.host() };
    let failures = run.each_updated(record, "prepare the update of", &|provider, task| {
        provider.begin_update(task)?;
        Ok(Vec::new())
    });
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::Failed { failures, leftovers: Vec::new(), interrupted: false })
}

/// Returns the parts of active allocations that applying `plan` would leave as they are, although it updates the
/// allocations; one line each. Parts that cannot be inspected are left out. Changes nothing.
pub fn left_by_updates(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    plan: &Plan,
) -> Vec<SessionFinding> {
    let before: HashMap<_, _> = record.plan.sessions.iter().map(|session| (&session.path, session)).collect();
    let of_session = |(session, change): (&Session, &Change)| {
        let path = session.path.clone();
        let left = change.update.iter().filter_map(|kind| {
            let (to, from) = (session.allocation(kind)?, before.get(&session.path)?.allocation(kind)?);
            let provider = registry.get(&to.kind)?;
            with_task(swarm.host(), record, session, to, None, |task| provider.left_by_update(task, from))
                .ok()
        });
        let left: Vec<_> = left.flatten().collect();
        left.into_iter().map(move |line| SessionFinding::new(path.clone(), line))
    };
    plan.sessions.par_iter().zip(&plan.changes).flat_map_iter(of_session).collect()
}

/// Undoes the updates of a run that is not committed. `applied` is the record of the swarm before the run. Returns
/// what could not be undone.
pub(super) fn revert(
    context: &Context<'_>,
    record: &Record,
    applied: Option<&Record>,
    host: &Host,
) -> Vec<Failure> {
    let Some(applied) = applied else { return Vec::new() };
    let run = Run { context, record, host };
    run.each_updated(applied, "roll back the update of", &|provider, task| provider.revert(task))
}

/// Step on one updated allocation. Returns the files that it leaves to the session, one line each.
type Act<'a> = dyn Fn(&dyn Provider, &Task<'_>) -> Result<Vec<String>, provider::Error> + Sync + 'a;

impl Run<'_> {
    /// Performs a step on each allocation that the run updates, as `of` records it. Continues after a failure.
    fn each_updated(&self, of: &Record, step: &str, act: &Act<'_>) -> Vec<Failure> {
        let changes = self.record.plan.changes.iter().filter(|change| !change.update.is_empty());
        let updated: HashMap<_, _> = changes.map(|change| (&change.session, &change.update)).collect();
        let of_session = |session: &Session| {
            let kinds = updated.get(&session.path).into_iter().copied().flatten();
            let failures = kinds.filter_map(|kind| {
                crashpoint!("update.allocation");
                self.on_updated(of, session, kind, step, act).err()
            });
            failures.collect::<Vec<_>>()
        };
        of.plan.sessions.par_iter().flat_map_iter(of_session).collect()
    }

    fn on_updated(
        &self,
        of: &Record,
        session: &Session,
        kind: &str,
        step: &str,
        act: &Act<'_>,
    ) -> Result<(), Failure> {
        let allocation = session.allocation(kind);
        let provider = allocation.and_then(|allocation| self.context.registry.get(&allocation.kind));
        let Some((allocation, provider)) = allocation.zip(provider) else { return Ok(()) };
        let run = Run { record: of, ..*self };
        let left = run
            .with_task(session, allocation, |task| act(provider, task))
            .map_err(|error| Failure::from_provider(session, step, kind, error))?;
        for description in left {
            (self.context.events)(&Event::NotReverted { session: session.path.clone(), description });
        }
        Ok(())
    }
}
