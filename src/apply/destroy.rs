//! Releases sessions of an applied swarm that have no children left.

use std::collections::BTreeSet;

use super::release_set::{Destroy, ResourcesBySession};
use super::{
    Context, Error, kept_branches, occupants, repositories, stop_processes, transaction, unsaved_work,
};
use crate::state::{FleetPart, Record, Recovery, Release};

/// Releases sessions of an applied swarm, those below others first. Returns the record of the sessions that remain.
///
/// Children that programs have provisioned from the sessions are a reason to refuse.
pub(super) fn destroy(
    context: &Context<'_>,
    applied: &Record,
    destroy: &Destroy,
) -> Result<Option<Record>, Error> {
    context.swarm.require_recovered()?;
    let mut record = begun(context, applied, destroy, Recovery::Finish)?;
    let done = transaction::run(context, &record, Some(applied), destroy.into());
    kept_branches::report(context, &record, &done);
    done?;
    record.release = None;
    Ok((!record.plan.sessions.is_empty()).then_some(record))
}

/// Does everything of [`super::destroy`] except the commit, as the part of a run over several hosts. [`super::recover()`]
/// then follows the decision about that run.
///
/// Children that programs have provisioned from the sessions are a reason to refuse: their release cannot be rolled back.
pub fn prepare_destroy(
    context: &Context<'_>,
    applied: &Record,
    destroy: &Destroy,
    part: FleetPart,
) -> Result<(), Error> {
    context.swarm.require_recovered()?;
    let record = begun(context, applied, destroy, Recovery::RollBack)?;
    transaction::prepare(context, &Record { fleet: Some(part), ..record }, Some(applied), destroy.into())
}

/// Returns the record of a run that releases sessions, once their work is secured.
fn begun(
    context: &Context<'_>,
    applied: &Record,
    destroy: &Destroy,
    recovery: Recovery,
) -> Result<Record, Error> {
    let kinds = destroy.kinds(applied);
    let before = &repositories::with_forgotten(context.swarm.host(), context.registry, applied, destroy);
    repositories::require(context, before, &kinds)?;
    stop_processes::refuse_or_stop(
        context,
        before,
        &kinds,
        destroy.into(),
        &occupants::left_for_teardown(before, &kinds),
    )?;
    unsaved_work::secure(context, before, &kinds, destroy.unsaved)?;
    let release = Release { before: before.clone(), kinds, unsaved: destroy.unsaved, recovery };
    let mut record = without(applied, &release.kinds);
    record.release = Some(Box::new(release));
    Ok(record)
}

/// Returns the record without the released sessions and without their allocations.
fn without(applied: &Record, released: &ResourcesBySession) -> Record {
    let mut after = applied.clone();
    after.plan.changes.clear();
    after.plan.sessions.retain(|session| !released.contains_key(&session.path));
    let stays: BTreeSet<_> = after.plan.sessions.iter().map(|session| session.path.clone()).collect();
    for session in &mut after.plan.sessions {
        session.children.retain(|child| stays.contains(child));
    }
    after.not_set_up.retain(|path, _| stays.contains(path));
    after.created.retain(|path, _| stays.contains(path));
    after.plan.digest = after.plan.computed_digest();
    after
}
