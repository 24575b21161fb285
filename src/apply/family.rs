//! The children that programs have provisioned from sessions of a swarm: whoever ends those ends the children first.

use std::time::Duration;

use super::release::{Destroy, destroy as destroy_one};
use super::work::{self, AtStake};
use super::{Context, Error, Occupants, Options, occupants, recover};
use crate::host::Host;
use crate::provider::{Findings, Registry};
use crate::state::{self, Found, Locked, Record, Swarm};

impl Destroy {
    /// The children that programs have provisioned from the sessions that go, and theirs, parents before their children.
    pub fn children_of(&self, host: &Host, standing: &Record) -> Result<Vec<Found>, state::Error> {
        let mut going = standing.clone();
        let goes: Vec<_> = self.sessions_of(standing).map(|session| session.path.clone()).collect();
        going.plan.sessions.retain(|session| goes.contains(&session.path));
        state::children(host, &going)
    }
}

/// What [`destroy_children`] and the release of the sessions themselves would find at stake. Changes nothing.
pub(super) fn at_stake(
    swarm: &Swarm<'_>,
    registry: &Registry,
    standing: &Record,
    destroy: &Destroy,
) -> Result<AtStake, state::Error> {
    let mut stake = work::stake_without_children(
        swarm,
        registry,
        standing,
        &destroy.kinds(standing),
        &Findings::default(),
    )?;
    for found in destroy.children_of(swarm.host(), standing)? {
        if let (Some(child), Some(record)) = (found.swarm(swarm.host()), found.record()) {
            let released = Destroy::default().kinds(record);
            stake.add(work::stake_without_children(
                &child,
                registry,
                record,
                &released,
                &Findings::default(),
            )?);
        }
    }
    Ok(stake)
}

/// Releases the children of the sessions that go, the youngest first, each whole. Everything that goes is judged before
/// anything does; interrupted runs of the children are recovered before that.
pub(super) fn destroy_children(
    context: &Context<'_>,
    standing: &Record,
    destroy: &Destroy,
) -> Result<(), Error> {
    let host = context.swarm.host();
    let children = destroy.children_of(host, standing)?;
    if children.is_empty() {
        return Ok(());
    }
    let mut locked = Vec::with_capacity(children.len());
    for child in children.iter().filter_map(|found| found.swarm(host)) {
        locked.push(child.lock(Duration::ZERO, "destroy")?);
    }
    let done = destroy_locked(context, standing, destroy, &mut locked);
    // What was done counts; at worst an empty file stays behind.
    for child in locked {
        let _ = child.unlock();
    }
    done
}

/// Takes each child out of `locked` once nothing of it is left.
fn destroy_locked(
    context: &Context<'_>,
    standing: &Record,
    destroy: &Destroy,
    locked: &mut Vec<Locked<'_>>,
) -> Result<(), Error> {
    for child in locked.iter().rev() {
        let options =
            Options { unsaved: destroy.unsaved, occupants: destroy.occupants, ..Options::default() };
        recover(&of_child(context, child), options)?;
    }
    work::known(context, standing, &destroy.kinds(standing))?;
    for child in locked.iter() {
        if let Some(record) = child.standing()? {
            work::known(&of_child(context, child), &record, &Destroy::default().kinds(&record))?;
        }
    }
    let refused = at_stake(context.swarm, context.registry, standing, destroy)?.refused(destroy.unsaved);
    if !refused.is_empty() {
        return Err(Error::Refused(refused));
    }
    if destroy.occupants == Occupants::Refuse {
        occupants::refuse(&occupants::occupancy(context.swarm, context.registry, standing, destroy)?)?;
    }
    while let Some(child) = locked.last() {
        if let Some(record) = child.standing()? {
            let Destroy { unsaved, occupants, .. } = *destroy;
            let whole = Destroy { unsaved, occupants, ..Destroy::default() };
            destroy_one(&of_child(context, child), &record, &whole)?;
        }
        // What was done counts; at worst an empty file stays behind.
        drop(locked.pop().map(Locked::unlock));
    }
    Ok(())
}

fn of_child<'c>(context: &Context<'c>, swarm: &'c Locked<'c>) -> Context<'c> {
    Context { swarm, ..*context }
}
