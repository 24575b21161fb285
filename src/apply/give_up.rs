//! Abandons an interrupted run that can be neither rolled back nor finished. Resources that can be released or brought
//! back are; the rest remains and is recorded.
//!
//! A resource remains if its program or its repository does not respond, if it has work that cannot be rescued, or if
//! releasing it fails. Nothing is removed that an ordinary recovery would keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::artifacts::save_artifacts;
use super::occupants::Marks;
use super::recover::{Recovered, undo_or_finish, unsaved_of};
use super::release_impact::{Search, SessionFinding};
use super::release_set::{self, Destroy, ResourcesBySession};
use super::run_progress::RunProgress;
use super::{
    Context, Error, Event, Failure, Options, Phase, Run, children, kept_commits, nested_swarms, release,
    release_impact, rescue, stop_processes, transaction, updates, with_task,
};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::process::Cancel;
use crate::name::SessionPath;
use crate::provider::{Location, Registry, SharedResults, Task, UnsavedWork, allocation_line};
use crate::state::{self, Record, Release, Remain, Stage, Unsaved};

/// Reasons why resources remain, by session and kind.
pub(super) type RemainReasons = BTreeMap<(SessionPath, String), String>;

/// Finishes or rolls back an interrupted run of this swarm. Idempotent: the recovery can itself be interrupted at any
/// point.
///
/// For a release that is finished, `options.unsaved` decides on work in what is still to be released. With
/// [`Unsaved::Keep`], the policy of the interrupted run applies. Work that has changed since its rescue is rescued
/// again.
///
/// For a run that is rolled back, `options.unsaved` decides on work that was done since in what the run had
/// provisioned. With [`Unsaved::Keep`], such work leads to [`Error::Refused`]; in the swarm of a `run` it is discarded.
///
/// Processes that use what is released are refused or ended, as `options` require.
///
/// With [`Options::give_up`], a run that cannot be recovered in this way is abandoned.
pub fn recover(context: &Context<'_>, options: Options) -> Result<Recovered, Error> {
    let done = match undo_finish_or_remove(context, options) {
        Err(error) if options.give_up && is_for(&error) && context.swarm.is_unfinished()? => {
            give_up(context, options)
        }
        done => done,
    }?;
    kept_commits::release(context.swarm)?;
    Ok(done)
}

/// Finishes or rolls back an interrupted run. Without one, removes the swarm of a `run` that was killed while its
/// command ran.
fn undo_finish_or_remove(context: &Context<'_>, options: Options) -> Result<Recovered, Error> {
    match undo_or_finish(context, options)? {
        Recovered::Nothing if remove_temporary(context, options)? => Ok(Recovered::Removed),
        recovered => Ok(recovered),
    }
}

/// Removes a swarm that was created for one command. The process that created the swarm no longer exists, because this
/// run holds the lock. Returns whether there was one.
///
/// The swarm's work is lost, as `run` documents, unless a rescue is requested.
fn remove_temporary(context: &Context<'_>, options: Options) -> Result<bool, Error> {
    let Some(record) = context.swarm.applied()?.filter(|record| record.temporary) else { return Ok(false) };
    // The event names what is not saved.
    let _ = save_artifacts(context, &record);
    let unsaved = unsaved_of(&record, options.unsaved);
    let everything = Destroy { unsaved, occupants: options.occupants, children: true, ..Destroy::default() };
    children::destroy(context, &record, &everything)?;
    Ok(true)
}

/// Returns whether abandoning the run helps against an error of its recovery. Other errors require another option or
/// another command.
fn is_for(error: &Error) -> bool {
    match error {
        // A finding that another option covers is checked again later.
        Error::Refused(_)
        | Error::UnknownKind { .. }
        | Error::Unusable(_)
        | Error::State(state::Error::File(_) | state::Error::FleetUnreachable { .. })
        | Error::Unfinished(state::Error::File(_)) => true,
        Error::Failed { interrupted, .. } | Error::NotRescued { interrupted, .. } => !interrupted,
        Error::Stale(_)
        | Error::Occupied { .. }
        | Error::NotTornDown(_)
        | Error::NotSetUp(_)
        | Error::Interrupted
        | Error::State(_)
        | Error::Unfinished(_) => false,
    }
}

/// Abandons the interrupted run of this swarm. Idempotent: it can itself be interrupted at any point.
fn give_up(context: &Context<'_>, options: Options) -> Result<Recovered, Error> {
    let (remains, record) = if let Some((record, stage)) = context.swarm.interrupted()? {
        (roll_back(context, &record, stage, options)?, record)
    } else if let Some(record) = context.swarm.committed()? {
        (finish(context, &record, options)?, record)
    } else {
        return Ok(Recovered::GivenUp);
    };
    for remain in remains {
        let remains = described(context.swarm.host(), context.registry, &record, &remain);
        let Remain { session, resource, why, .. } = remain;
        (context.events)(&Event::GivenUp { session, resource, remains, why });
    }
    Ok(Recovered::GivenUp)
}

/// Rolls back a run that is not committed, as far as possible.
fn roll_back(
    context: &Context<'_>,
    record: &Record,
    mut stage: Stage,
    options: Options,
) -> Result<Vec<Remain>, Error> {
    // A Ctrl-C does not interrupt abandoning a run; its commands may be interrupted.
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    let applied = context.swarm.applied()?;
    let mut remains = Vec::new();
    if stage == Stage::Provisioning {
        remains = unprovision(context, record, options)?;
        let left = updates::revert(context, record, applied.as_ref(), &host);
        remains.extend(left.iter().filter_map(|failure| remain(true, failure)));
        // Remains are recorded before the stage that marks nothing as provisioned.
        remains = context.swarm.record_remains(record, remains)?;
        crashpoint!("give-up.recorded");
        if record.release.is_some() {
            context.swarm.begin_bringing_back().map_err(Error::Unfinished)?;
            stage = Stage::SettingAside;
        }
    }
    let mut failures = Vec::new();
    if let Some(release) = &record.release {
        let left = transaction::bring_back(context, record, release, &host);
        remains.extend(left.iter().filter_map(|failure| remain(true, failure)));
        remains = context.swarm.record_remains(record, remains)?;
        crashpoint!("give-up.brought-back");
        failures = transaction::set_up_again(context, release, context.swarm.host());
        failures.retain(|failure| !left.iter().any(|left| left.session == failure.session));
    }
    failures.extend(transaction::write_again(context, record, applied.as_ref(), &host)?);
    failures.retain(|failure| !remains.iter().any(|remain| remain.session == failure.session));
    context.swarm.abandon(stage).map_err(Error::Unfinished)?;
    crashpoint!("give-up.abandoned");
    if !failures.is_empty() {
        return Err(Error::Failed { failures: Vec::new(), leftovers: failures, interrupted: false });
    }
    Ok(remains)
}

/// Releases what an interrupted run has provisioned, as far as possible; returns the rest.
fn unprovision(context: &Context<'_>, record: &Record, options: Options) -> Result<Vec<Remain>, Error> {
    let provisioned = release_set::provisioned(record);
    let unsaved = unsaved_of(record, options.unsaved);
    let mut kept = unknown(context, record, &provisioned);
    let released = without(context, record, &provisioned, &kept);
    let own = Marks::for_run(record, &provisioned);
    let progress = RunProgress::read(context.swarm, context.registry, record, &released)?;
    let search = Search::WorkSince(&progress);
    let with_work = check(context, record, &released, search, unsaved, &mut kept).map_err(|error| {
        stop_processes::with_occupants(context, record, &released, options.occupants, &own, error)
    })?;
    let released = without(context, record, &provisioned, &kept);
    // Work was checked above, by the time at which it was done.
    let discarding = Options { unsaved: Unsaved::Discard, ..options };
    stop_processes::refuse_or_stop(context, record, &released, discarding, &own)?;
    save(context, record, &with_work, &mut kept)?;
    let released = without(context, record, &provisioned, &kept);
    let (released, failures) = listening(context, |context| {
        transaction::unprovision(context, record, &released, context.swarm.host(), Some(options.occupants))
    })?;
    Ok(left(&provisioned, &released, &kept, &failures, false))
}

/// Releases what a committed run has moved aside, as far as possible; returns the rest.
fn finish(context: &Context<'_>, record: &Record, options: Options) -> Result<Vec<Remain>, Error> {
    let Some(release) = &record.release else { return Ok(Vec::new()) };
    let Release { before, .. } = &**release;
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    let kinds = transaction::left_to_release(context, record, release);
    let kept = unknown(context, before, &kinds);
    let released = without(context, before, &kinds, &kept);
    stop_processes::refuse_or_stop_again(context, before, &released, Location::Aside, options.occupants)?;
    let (released, failures) = listening(context, |context| {
        let run = Run { context, record: before, host: &host };
        Ok(run.release(Phase::Release, Location::Aside, &released))
    })?;
    let remains = left(&kinds, &released, &kept, &failures, true);
    let remains = context.swarm.record_remains(record, remains)?;
    crashpoint!("give-up.released");
    let not_written = release::write_to_parents(context, record, before, &host);
    release::forget_discovery(context, record, before).map_err(Error::Unfinished)?;
    context.swarm.end_release(record).map_err(Error::Unfinished)?;
    if !not_written.is_empty() {
        return Err(Error::Failed { failures: Vec::new(), leftovers: not_written, interrupted: false });
    }
    Ok(remains)
}

/// Finds resources that this program cannot release.
pub(super) fn unknown(context: &Context<'_>, record: &Record, kinds: &ResourcesBySession) -> RemainReasons {
    let why = "only the program that provisioned it can release it";
    release_impact::unknown_kinds(context.registry, record, kinds)
        .map(|(session, kind)| ((session.path.clone(), kind.to_owned()), why.to_owned()))
        .collect()
}

/// Checks what releasing would lose, one resource after another. A resource is kept if it cannot be checked, or if it
/// has work that `unsaved` does not cover. Rescuable work that `unsaved` does not mention is refused, because an option
/// covers it. Returns the kinds that have work to save.
pub(super) fn check(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
    search: Search<'_>,
    unsaved: Unsaved,
    kept: &mut RemainReasons,
) -> Result<ResourcesBySession, Error> {
    let (host, registry) = (context.swarm.host(), context.registry);
    let search = if unsaved == Unsaved::Discard { Search::Obstacles } else { search };
    let (mut refused, mut with_work) = (Vec::new(), ResourcesBySession::new());
    let shared_results = SharedResults::default();
    for (session, resource, found) in
        search.each(host, registry, record, released, Location::Home, &shared_results)
    {
        let found = found.unwrap_or_else(|error| UnsavedWork {
            unknown: vec![error.to_string()],
            ..UnsavedWork::default()
        });
        let keep: Vec<_> =
            [found.unknown, found.blockers, found.beyond_rescue].into_iter().flatten().collect();
        if !keep.is_empty() {
            kept.insert((session, resource), keep.join("; "));
        } else if !found.work.is_empty() {
            refused.extend(found.work.into_iter().map(|line| SessionFinding::new(session.clone(), line)));
            with_work.entry(session).or_default().push(resource);
        }
    }
    if unsaved == Unsaved::Rescue {
        refused.clear();
    }
    refused.extend(release_impact::standalone_children(host, record, released)?);
    refused.extend(nested_swarms::find(context.swarm, registry, record, released)?);
    if host.cancel.is_requested() {
        return Err(Error::Interrupted);
    }
    if refused.is_empty() { Ok(with_work) } else { Err(Error::Refused(refused)) }
}

/// Returns the kinds without those that are kept, and without claims of sessions that keep a resource or have a session
/// below that does.
pub(super) fn without(
    context: &Context<'_>,
    record: &Record,
    kinds: &ResourcesBySession,
    kept: &RemainReasons,
) -> ResourcesBySession {
    let host = context.swarm.host();
    let run = Run { context, record, host };
    release_set::restricted(record, kinds, |session, kind| {
        let is_kept = kept.contains_key(&(session.path.clone(), kind.to_owned()));
        let is_pinned =
            || run.is_claim(session, kind) && kept.keys().any(|(path, _)| path.is_at_or_below(&session.path));
        !is_kept && !is_pinned()
    })
}

/// Rescues work. Resources whose work cannot be rescued are kept.
pub(super) fn save(
    context: &Context<'_>,
    record: &Record,
    with_work: &ResourcesBySession,
    kept: &mut RemainReasons,
) -> Result<(), Error> {
    match rescue::save_interrupted(context, record, with_work) {
        Err(Error::NotRescued { failures, interrupted: false }) => {
            for Remain { session, resource: kind, why, .. } in
                failures.iter().filter_map(|one| remain(false, one))
            {
                kept.insert((session, kind), why);
            }
            Ok(())
        }
        done => done,
    }
}

/// Calls `act`; returns its result, and the resources that were released meanwhile.
pub(super) fn listening<T>(
    context: &Context<'_>,
    act: impl FnOnce(&Context<'_>) -> Result<T, Error>,
) -> Result<(BTreeSet<(SessionPath, String)>, T), Error> {
    let released = Mutex::new(BTreeSet::new());
    let events = |event: &Event| {
        if let Event::Released { session, resource } = event {
            let mut released = released.lock().unwrap_or_else(PoisonError::into_inner);
            released.insert((session.clone(), resource.clone()));
        }
        (context.events)(event);
    };
    let done = act(&Context { events: &events, ..*context })?;
    Ok((released.into_inner().unwrap_or_else(PoisonError::into_inner), done))
}

/// Returns the resources of `kinds` that are not in `gone`, each with its reason.
pub(super) fn left(
    kinds: &ResourcesBySession,
    released: &BTreeSet<(SessionPath, String)>,
    kept: &RemainReasons,
    failures: &[Failure],
    before: bool,
) -> Vec<Remain> {
    let failed: Vec<Remain> = failures.iter().filter_map(|failure| remain(before, failure)).collect();
    let mut left = Vec::new();
    for (session, kinds) in kinds {
        for kind in kinds.iter().filter(|kind| !released.contains(&(session.clone(), (*kind).clone()))) {
            let of_failure =
                failed.iter().find(|failed| failed.session == *session && failed.resource == *kind);
            let why = of_failure.map(|failed| &failed.why).or(kept.get(&(session.clone(), kind.clone())));
            let why = why.map_or("resources that were created after it remain", String::as_str).to_owned();
            left.push(Remain { session: session.clone(), resource: kind.clone(), before, why });
        }
    }
    left
}

/// Returns the resource for which a step failed.
pub(super) fn remain(before: bool, failure: &Failure) -> Option<Remain> {
    let (session, kind, why) = (failure.session.clone(), failure.kind.clone()?, failure.cause.clone());
    Some(Remain { session, resource: kind, before, why })
}

/// Returns a description of what may now remain of a resource of `run`, which was abandoned, one line each; empty if
/// nothing remains.
pub fn described(host: &Host, registry: &Registry, run: &Record, remain: &Remain) -> Vec<String> {
    let record = remain.record_in(run);
    let session = record.plan.sessions.iter().find(|session| session.path == remain.session);
    let Some(session) = session else { return Vec::new() };
    let Some(allocation) = session.allocation(&remain.resource) else { return Vec::new() };
    let Some(provider) = registry.provider(allocation) else {
        return vec![allocation_line(allocation)];
    };
    let location = if remain.before && provider.moves_aside() { Location::Aside } else { Location::Home };
    let found = with_task(host, record, session, allocation, None, |task| {
        Ok(provider.manual_cleanup(&Task { location, ..*task }))
    });
    found.unwrap_or_else(|_| vec![allocation_line(allocation)])
}
