//! Takes up runs of a swarm that were given up: once a repository or a program is back, what remained of these runs is
//! released or brought back.
//!
//! Later runs may have begun since. So all work counts as unsaved, also that of the run itself.

use super::give_up::{self, RemainReasons};
use super::occupants::Marks;
use super::recover::{Recovered, unsaved_of};
use super::release_impact::Search;
use super::release_set::ResourcesBySession;
use super::{Context, Error, Event, Options, Phase, Run, repositories, stop_processes};
use crate::host::Host;
use crate::host::process::Cancel;
use crate::provider::{Location, Provider};
use crate::state::{GivenUp, Record, Remain, Unsaved};

/// Releases or brings back what remains of runs of this swarm that were given up, as far as possible. The rest is named
/// by [`Event::GivenUp`] again. Idempotent.
///
/// [`Recovered::Nothing`] if no such run is left, or nothing of them could be released.
pub fn take_up(context: &Context<'_>, options: Options) -> Result<Recovered, Error> {
    let mut done = Recovered::Nothing;
    for (name, run) in context.swarm.given_up()? {
        let remains = recover_remains(context, &run, options)?;
        if remains.len() < run.remains.len() {
            done = Recovered::TakenUp;
        }
        for remain in &remains {
            let what = give_up::described(context.swarm.host(), context.registry, &run.record, remain);
            let Remain { session, resource, why, .. } = remain.clone();
            (context.events)(&Event::GivenUp { session, resource, remains: what, why });
        }
        context.swarm.replace_remains(&name, &GivenUp { remains, ..run })?;
    }
    Ok(done)
}

/// Releases or brings back what remains of one run; returns the rest.
fn recover_remains(context: &Context<'_>, run: &GivenUp, options: Options) -> Result<Vec<Remain>, Error> {
    let (before, provisioned): (Vec<_>, Vec<_>) =
        run.remains.iter().cloned().partition(|remain| remain.before);
    let mut remains = release(context, &run.record, &provisioned, options)?;
    let is_claim = |remain: &Remain| {
        let record = remain.record_in(&run.record);
        let session = record.plan.session(&remain.session);
        session.is_some_and(|session| {
            Run { context, record, host: context.swarm.host() }.is_claim(session, &remain.resource)
        })
    };
    // Claims are last: they are kept for as long as anything of their session remains.
    let (claims, others): (Vec<_>, Vec<_>) = before.into_iter().partition(is_claim);
    for remain in others.into_iter().rev() {
        if let Some(why) = recover_aside(context, run, &remain, options)? {
            remains.push(Remain { why, ..remain });
        }
    }
    for remain in claims.into_iter().rev() {
        let is_needed = remains.iter().any(|other| other.session.is_at_or_below(&remain.session));
        let why =
            if is_needed { Some(remain.why.clone()) } else { recover_aside(context, run, &remain, options)? };
        remains.extend(why.map(|why| Remain { why, ..remain }));
    }
    Ok(remains)
}

/// Releases what the run has provisioned; returns the rest.
fn release(
    context: &Context<'_>,
    record: &Record,
    remains: &[Remain],
    options: Options,
) -> Result<Vec<Remain>, Error> {
    let kinds = kinds_of(record, remains);
    let unsaved = unsaved_of(record, options.unsaved);
    let mut kept = unusable(context, record, &kinds)?;
    let released = give_up::without(context, record, &kinds, &kept);
    let with_work = give_up::check(context, record, &released, Search::Work, unsaved, &mut kept)?;
    let released = give_up::without(context, record, &kinds, &kept);
    // Work was checked above.
    let discarding = Options { unsaved: Unsaved::Discard, ..options };
    stop_processes::refuse_or_stop(context, record, &released, discarding, &Marks::default())?;
    give_up::save(context, record, &with_work, &mut kept)?;
    let released = give_up::without(context, record, &kinds, &kept);
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    let (released, failures) = give_up::listening(context, |context| {
        Ok(Run { context, record, host: &host }.release(Phase::RollBack, Location::Home, &released))
    })?;
    Ok(give_up::left(&kinds, &released, &kept, &failures, false))
}

/// Brings back a resource that the run has moved aside, or releases it there if its session is no longer active. Returns
/// the reason for which it remains; `None` if nothing remains.
fn recover_aside(
    context: &Context<'_>,
    run: &GivenUp,
    remain: &Remain,
    options: Options,
) -> Result<Option<String>, Error> {
    let record = remain.record_in(&run.record);
    let kinds = kinds_of(record, std::slice::from_ref(remain));
    let why = unusable(context, record, &kinds)?.into_values().next();
    let session = record.plan.sessions.iter().find(|session| session.path == remain.session);
    let held = session.and_then(|session| session.allocation(&remain.resource));
    let Some((session, held)) = session.zip(held).filter(|_| why.is_none()) else {
        return Ok(Some(why.unwrap_or_else(|| remain.why.clone())));
    };
    if give_up::described(context.swarm.host(), context.registry, &run.record, remain).is_empty() {
        return Ok(None);
    }
    if !context.moves_aside(session, held.name()) {
        return Ok(Some(remain.why.clone()));
    }
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    let active = context.swarm.applied()?.filter(|applied| applied.owner == record.owner);
    let active =
        active.and_then(|applied| applied.plan.session(&session.path)?.allocation(held.name()).cloned());
    let run = Run { context, record, host: &host };
    let failures = if active.is_some_and(|active| active.allocation == held.allocation) {
        run.bring_back(&kinds, &|provider: &dyn Provider, task| provider.bring_back(task))
    } else {
        stop_processes::refuse_or_stop_again(context, record, &kinds, Location::Aside, options.occupants)?;
        run.release(Phase::Release, Location::Aside, &kinds)
    };
    Ok(failures.into_iter().next().map(|failure| failure.cause))
}

/// Returns the resources that cannot be released now, each with the reason.
fn unusable(
    context: &Context<'_>,
    record: &Record,
    kinds: &ResourcesBySession,
) -> Result<RemainReasons, Error> {
    let mut kept = give_up::unknown(context, record, kinds);
    let Err(error) = repositories::require(context, record, kinds) else { return Ok(kept) };
    let Error::Unusable(unusable) = error else { return Err(error) };
    for repository in &unusable {
        for session in record.plan.sessions.iter().filter(|session| kinds.contains_key(&session.path)) {
            let of_repository = session.allocations.iter().filter(|held| {
                let found = context.registry.get(&held.kind).and_then(|provider| provider.repository(held));
                found.is_some_and(|found| found == (repository.name.clone(), repository.root.clone()))
            });
            for held in of_repository {
                kept.insert((session.path.clone(), held.name().to_owned()), repository.to_string());
            }
        }
    }
    Ok(kept)
}

/// Returns the resources of `remains`, those that were created last first.
fn kinds_of(record: &Record, remains: &[Remain]) -> ResourcesBySession {
    let of_session = record.plan.sessions.iter().filter_map(|session| {
        let is_left = |name: &str| {
            remains.iter().any(|remain| remain.session == session.path && remain.resource == name)
        };
        let names = session.allocations.iter().rev().map(|held| held.name().to_owned());
        let names: Vec<_> = names.filter(|name| is_left(name)).collect();
        (!names.is_empty()).then(|| (session.path.clone(), names))
    });
    of_session.collect()
}
