//! Releases sessions, after the children that programs have provisioned from them.

use std::time::Duration;

use super::destroy::destroy as destroy_one;
use super::recover::undo_or_finish;
use super::release_impact::{self, ReleaseImpact};
use super::release_set::Destroy;
use super::{Context, Error, occupants, repositories, unsaved_work};
use crate::provider::{Registry, SharedResults};
use crate::state::{self, LockedSwarm, Record, Swarm};

/// Releases sessions of an applied swarm, children first. Returns the record of the sessions that remain.
///
/// An interrupted run is recovered first, by [`super::recover()`]; until then the result is
/// [`state::Error::Unrecovered`].
pub fn destroy(context: &Context<'_>, applied: &Record, destroy: &Destroy) -> Result<Option<Record>, Error> {
    context.swarm.require_recovered()?;
    if destroy.children {
        destroy_children(context, applied, destroy)?;
    }
    destroy_one(context, applied, destroy)
}

/// Finds the impact that [`destroy`] would have. Changes nothing.
pub fn release_impact(
    swarm: &Swarm<'_>,
    registry: &Registry,
    applied: &Record,
    destroy: &Destroy,
) -> Result<ReleaseImpact, state::Error> {
    let applied = &repositories::with_forgotten(swarm.host(), registry, applied, destroy);
    if !destroy.children {
        return release_impact::impact_of_kinds(
            swarm,
            registry,
            applied,
            &destroy.kinds(applied),
            &SharedResults::default(),
        );
    }
    let mut impact = release_impact::impact_without_children(
        swarm,
        registry,
        applied,
        &destroy.kinds(applied),
        &SharedResults::default(),
    )?;
    for found in destroy.children_of(swarm.host(), applied)? {
        if let (Some(child), Some(record)) = (found.swarm(swarm.host()), found.record()) {
            let whole = destroy.clone().with_all_sessions();
            let record = &repositories::with_forgotten(swarm.host(), registry, record, &whole);
            let released = whole.kinds(record);
            impact.add(release_impact::impact_without_children(
                &child,
                registry,
                record,
                &released,
                &SharedResults::default(),
            )?);
        }
    }
    Ok(impact)
}

/// Releases the children of the sessions to be released, the youngest first, each completely. All releases are checked
/// before the first one; interrupted runs of the children are recovered before that.
fn destroy_children(context: &Context<'_>, applied: &Record, destroy: &Destroy) -> Result<(), Error> {
    let host = context.swarm.host();
    let children = destroy.children_of(host, applied)?;
    if children.is_empty() {
        return Ok(());
    }
    let mut locked = Vec::with_capacity(children.len());
    for child in children.iter().filter_map(|found| found.swarm(host)) {
        locked.push(child.lock(Duration::ZERO, "destroy")?);
    }
    let done = destroy_locked(context, applied, destroy, &mut locked);
    // An error here does not undo the releases; at worst an empty file remains.
    for child in locked {
        let _ = child.unlock();
    }
    done
}

/// Releases each child, and removes it from `locked` once nothing of it remains.
fn destroy_locked(
    context: &Context<'_>,
    applied: &Record,
    destroy: &Destroy,
    locked: &mut Vec<LockedSwarm<'_>>,
) -> Result<(), Error> {
    for child in locked.iter().rev() {
        undo_or_finish(&of_child(context, child), destroy.into())?;
    }
    unsaved_work::refuse_unknown_kinds(context, applied, &destroy.kinds(applied))?;
    for child in locked.iter() {
        if let Some(record) = child.applied()? {
            unsaved_work::refuse_unknown_kinds(
                &of_child(context, child),
                &record,
                &Destroy::default().kinds(&record),
            )?;
        }
    }
    let findings =
        release_impact(context.swarm, context.registry, applied, destroy)?.refused(destroy.unsaved);
    let occupancy = occupants::occupancy(context.swarm, context.registry, applied, destroy)?;
    occupants::refuse(occupancy.refusals(destroy.occupants), occupancy.uninspected, findings)?;
    while let Some(child) = locked.last() {
        if let Some(record) = child.applied()? {
            let whole = Destroy { children: false, ..destroy.clone().with_all_sessions() };
            destroy_one(&of_child(context, child), &record, &whole)?;
        }
        // An error here does not undo the release; at worst an empty file remains.
        drop(locked.pop().map(LockedSwarm::unlock));
    }
    Ok(())
}

fn of_child<'c>(context: &Context<'c>, swarm: &'c LockedSwarm<'c>) -> Context<'c> {
    Context { swarm, ..*context }
}
