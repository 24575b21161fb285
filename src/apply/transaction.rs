//! Runs a transaction: all changes of a plan are made, or none.
//!
//! | stage | on disk | action | rollback |
//! |---|---|---|---|
//! | leave | `releasing.json` | teardowns run; released resources are moved aside, checked again there, and free their names | the resources are brought back, and set up again if they were torn down |
//! | provision | `intent.json` | everything new is provisioned and set up | everything new is released, then as above |
//! | commit | `applied.json` | resources that are aside are released | none: `recover` finishes the release |
//!
//! Each stage begins with one rename of the run's record, so that recovery knows from its name what may exist.

use std::collections::{BTreeMap, HashMap};

use super::commands::{self, ROLLBACK};
use super::occupants::{self, Marks};
use super::provision::{self, SetUp};
use super::release;
pub(crate) use super::release::Teardowns;
use super::release_set::{Occupants, ResourcesBySession, provisioned, restricted};
use super::{
    Context, Error, Event, Failure, Options, Phase, Run, kept_commits, release_impact, stop_processes,
    unsaved_work, updates,
};
use crate::discovery;
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::process::Cancel;
use crate::plan::{Action, Session, WORKING_DIRECTORY};
use crate::provider::{Location, Task};
use crate::state::{self, ChildrenGuard, Record, Release, Stage, Unsaved};

/// Carries out the run of `record`. `applied` is the record of the swarm before the run. Processes that use what the
/// run releases, after its teardown or once it is aside, are refused or ended as `options` require.
pub(super) fn run(
    context: &Context<'_>,
    record: &Record,
    applied: Option<&Record>,
    options: Options,
) -> Result<(), Error> {
    begin(context, record)?;
    run_begun(context, record, applied, Teardowns::All, options)
}

/// Carries out the run of `record` except its commit, and records that it is prepared. [`recover`](super::recover) then
/// follows the decision of the fleet. A failed teardown is a failure of this run, because the run can still be rolled back.
pub(super) fn prepare(
    context: &Context<'_>,
    record: &Record,
    applied: Option<&Record>,
    options: Options,
) -> Result<(), Error> {
    begin(context, record)?;
    let attempted = match attempt(context, record, Teardowns::All, options) {
        Ok(Attempt { stage, not_torn_down, .. }) if not_torn_down.is_empty() => {
            crashpoint!("fleet.made");
            match context.swarm.amend(&Record { prepared: true, ..record.clone() }, stage) {
                Ok(()) => {
                    crashpoint!("fleet.prepared");
                    return Ok(());
                }
                Err(error) => Err(error.into()),
            }
        }
        Ok(Attempt { not_torn_down: failures, .. }) => {
            Err(Error::Failed { failures, leftovers: Vec::new(), interrupted: false })
        }
        Err(error) => Err(error),
    };
    conclude(context, record, applied, attempted)
}

/// Commits a prepared run.
pub(super) fn commit_prepared(context: &Context<'_>, record: &Record, stage: Stage) -> Result<(), Error> {
    context.swarm.commit(stage)?;
    crashpoint!("fleet.committed");
    finish(context, record, Vec::new())
}

/// Writes the record of a run, unless a child was provisioned meanwhile from a session that the run releases.
pub(crate) fn begin(context: &Context<'_>, record: &Record) -> Result<(), Error> {
    forget_logs(context, record)?;
    updates::forget(context, record)?;
    let _family = match &record.release {
        Some(release) => {
            let guard = ChildrenGuard::acquire(context.swarm.host())?;
            let children =
                release_impact::standalone_children(context.swarm.host(), &release.before, &release.kinds)?;
            if !children.is_empty() {
                return Err(Error::Refused(children));
            }
            Some(guard)
        }
        None => None,
    };
    context.swarm.begin(record)?;
    crashpoint!("run.intended");
    Ok(())
}

/// Continues a run whose record is written, as [`run`] does; also for a `destroy` that was interrupted before its
/// commit.
pub(crate) fn run_begun(
    context: &Context<'_>,
    record: &Record,
    applied: Option<&Record>,
    teardowns: Teardowns,
    options: Options,
) -> Result<(), Error> {
    let attempted = attempt(context, record, teardowns, options);
    conclude(context, record, applied, attempted)
}

/// Commits the attempt, or rolls it back.
fn conclude(
    context: &Context<'_>,
    record: &Record,
    applied: Option<&Record>,
    attempted: Result<Attempt, Error>,
) -> Result<(), Error> {
    let error = match attempted {
        Ok(Attempt { stage, mut not_torn_down, kept }) => match context.swarm.commit(stage) {
            Ok(()) => {
                crashpoint!("run.committed");
                let Some((record, failures)) = kept else { return finish(context, record, not_torn_down) };
                not_torn_down.extend(failures);
                return finish(context, &record, not_torn_down).map_err(|error| match error {
                    Error::NotTornDown(failures) => Error::NotSetUp(failures),
                    error => error,
                });
            }
            Err(error) => {
                context.swarm.take_back(record, stage, applied).map_err(Error::Unfinished)?;
                error.into()
            }
        },
        Err(error) => error,
    };
    (context.events)(&Event::RollingBack);
    // The Ctrl-C that caused the rollback does not interrupt it.
    let leftovers = roll_back(context, record, applied, &Cancel::default(), None)?;
    if leftovers.is_empty() {
        return Err(error);
    }
    let (failures, interrupted) = match error {
        Error::Failed { failures, interrupted, .. } | Error::NotRescued { failures, interrupted } => {
            (failures, interrupted)
        }
        Error::Occupied { occupants, findings, .. } => {
            let occupants = occupants.into_iter().map(Failure::from_occupant);
            (occupants.chain(findings.into_iter().map(Failure::from_finding)).collect(), false)
        }
        Error::Refused(findings) => (findings.into_iter().map(Failure::from_finding).collect(), false),
        _ => (Vec::new(), false),
    };
    Err(Error::Failed { failures, leftovers, interrupted })
}

/// Run that is ready to be committed.
struct Attempt {
    /// Stage that the run has reached.
    stage: Stage,
    /// Teardowns that failed; a failed teardown does not stop the run.
    not_torn_down: Vec<Failure>,
    /// Record that names the sessions whose `setup` failed but which are kept, and the failures; `None` if there are
    /// none.
    kept: Option<(Record, Vec<Failure>)>,
}

fn attempt(
    context: &Context<'_>,
    record: &Record,
    teardowns: Teardowns,
    options: Options,
) -> Result<Attempt, Error> {
    let occupants = options.occupants;
    let mut attempt = Attempt { stage: Stage::SettingAside, not_torn_down: Vec::new(), kept: None };
    if let Some(release) = &record.release {
        attempt.not_torn_down = release::tear_down(context, &release.before, &release.kinds, teardowns);
        crashpoint!("run.torn-down");
        if occupants::left_for_teardown(&release.before, &release.kinds) != Marks::default() {
            stop_processes::refuse_or_stop_again(
                context,
                &release.before,
                &release.kinds,
                Location::Home,
                occupants,
            )?;
        }
        // Discarded work is released even if the caller was interrupted before, unless a teardown was interrupted.
        let goes_on = release.unsaved == Unsaved::Discard && attempt.not_torn_down.is_empty();
        let cancel = if goes_on { Cancel::default() } else { context.swarm.host().cancel.clone() };
        let host = Host { cancel, ..context.swarm.host().clone() };
        move_aside(context, record, release, &host, occupants)?;
        if record.plan.changes.is_empty() {
            return Ok(attempt);
        }
        context.swarm.begin_provisioning()?;
    }
    crashpoint!("run.left");
    attempt.stage = Stage::Provisioning;
    let host = context.swarm.host();
    context.swarm.begin_journal()?;
    attempt.kept = context.swarm.while_alive(|| make(context, record, host, options.keep_failed))?;
    Ok(attempt)
}

/// Provisions the sessions of a run's plan. If `setup` failed and the sessions are kept, returns the record that names
/// them, and the failures.
fn make(
    context: &Context<'_>,
    record: &Record,
    host: &Host,
    keep_failed: bool,
) -> Result<Option<(Record, Vec<Failure>)>, Error> {
    let run = Run { context, record, host };
    check(host, run.provision())?;
    let SetUp { mut failures, mut not_set_up } = run.set_up_sessions();
    if (keep_failed || failures.is_empty()) && !host.cancel.is_requested() {
        let late = run.wait_until_ready(&not_set_up);
        not_set_up.extend(late.iter().map(|late| (late.session.clone(), provision::failed(&late.cause))));
        failures.extend(late);
    }
    if !keep_failed || failures.is_empty() || host.cancel.is_requested() {
        check(host, failures)?;
        check(host, run.write_discovery_files())?;
        return Ok(None);
    }
    let mut kept = record.clone();
    kept.not_set_up.extend(not_set_up);
    check(host, Run { context, record: &kept, host }.write_discovery_files())?;
    context.swarm.amend(&kept, Stage::Provisioning)?;
    crashpoint!("apply.kept");
    Ok(Some((kept, failures)))
}

/// Returns an error if a step failed or the run was interrupted.
fn check(host: &Host, failures: Vec<Failure>) -> Result<(), Error> {
    let interrupted = host.cancel.is_requested();
    if failures.is_empty() && !interrupted {
        return Ok(());
    }
    Err(Error::Failed { failures, leftovers: Vec::new(), interrupted })
}

/// Moves what is released aside, checks its unsaved work there, and frees the names that new resources may need.
fn move_aside(
    context: &Context<'_>,
    record: &Record,
    release: &Release,
    host: &Host,
    occupants: Occupants,
) -> Result<(), Error> {
    let (before, kinds) = (&release.before, &release.kinds);
    check(host, Vec::new())?;
    let run = Run { context, record: before, host };
    check(
        host,
        run.move_aside_step(Phase::SetAside, "set aside", kinds, &|provider, task| provider.set_aside(task)),
    )?;
    crashpoint!("run.set-aside");
    stop_processes::refuse_or_stop_again(context, before, kinds, Location::Aside, occupants)?;
    unsaved_work::check_aside(context, before, kinds, release.unsaved)?;
    check(host, Vec::new())?;
    let kinds = &restricted(before, kinds, |session, kind| {
        is_same_resource(context, record, session, kind) || context.moves_aside(session, kind)
    });
    let failures = run.move_aside_step(Phase::GiveWay, "free names of", kinds, &|provider, task| {
        let task = &Task { is_discarded: release.unsaved == Unsaved::Discard, ..*task };
        if provider.moves_aside() { provider.give_way(task) } else { provider.release(task) }
    });
    check(host, failures)?;
    release::sync(context, before, &release.kinds);
    crashpoint!("run.given-way");
    Ok(())
}

/// Returns whether a session releases the very resource that the run provisions, for this session or for another one.
/// Only kinds that cannot be moved aside are compared.
///
/// An allocation without a field does not describe its resource; its session identifies the resource.
fn is_same_resource(context: &Context<'_>, record: &Record, session: &Session, name: &str) -> bool {
    if context.moves_aside(session, name) {
        return false;
    }
    let Some(released) = session.allocation(name) else { return false };
    let changes = record.plan.sessions.iter().zip(&record.plan.changes);
    let mut provisioned = changes.flat_map(|(planned, change)| {
        let allocations = change.provision.iter().filter_map(|name| planned.allocation(name));
        allocations.map(move |allocation| (planned, allocation))
    });
    provisioned.any(|(planned, allocation)| {
        let is_own = planned.path == session.path && allocation.name() == name;
        let is_equal = allocation.kind == released.kind && allocation.allocation == released.allocation;
        is_equal && (is_own || !released.allocation.is_empty())
    })
}

/// Releases what a committed run has moved aside, then deletes the run's record.
pub(super) fn finish(
    context: &Context<'_>,
    record: &Record,
    mut failures: Vec<Failure>,
) -> Result<(), Error> {
    if let Some(release) = &record.release {
        let before = &release.before;
        // A committed release is finished despite an interruption: a session that is only partly released is of no use.
        let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
        let run = Run { context, record: before, host: &host };
        let kinds = left_to_release(context, record, release);
        let mut leftovers = run.release(Phase::Release, Location::Aside, &kinds);
        crashpoint!("run.released");
        if leftovers.is_empty() {
            leftovers = release::write_to_parents(context, record, before, &host);
        }
        if !leftovers.is_empty() {
            failures.extend(leftovers.iter().cloned());
            return Err(Error::Failed { failures, leftovers, interrupted: false });
        }
        release::forget_discovery(context, record, before).map_err(Error::Unfinished)?;
        crashpoint!("run.forgotten");
        context.swarm.end_release(record).map_err(Error::Unfinished)?;
        crashpoint!("run.ended");
        kept_commits::release(context.swarm)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::NotTornDown(failures)) }
}

/// Returns the kinds that a committed run still has to release, by session.
pub(super) fn left_to_release(
    context: &Context<'_>,
    record: &Record,
    release: &Release,
) -> ResourcesBySession {
    let is_left = |session: &Session, kind: &str| !is_same_resource(context, record, session, kind);
    restricted(&release.before, &release.kinds, is_left)
}

/// Rolls back a run that is not committed, in any stage: releases what the run provisioned, brings back what the run
/// moved aside, and rewrites the discovery files of the sessions of `applied`. Returns what could not be rolled back
/// and keeps the record for the next attempt; the record is also kept if `cancel` ends commands.
///
/// Processes that the run's own commands have left running are ended. `occupants` decides about other processes in the
/// provisioned sessions. A run that rolls back its own failure passes `None` and ignores them.
pub(super) fn roll_back(
    context: &Context<'_>,
    record: &Record,
    applied: Option<&Record>,
    cancel: &Cancel,
    occupants: Option<Occupants>,
) -> Result<Vec<Failure>, Error> {
    let Some((_, mut stage)) = context.swarm.interrupted()? else { return Ok(Vec::new()) };
    // The Ctrl-C that caused the rollback does not interrupt it; its commands may be interrupted.
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    let interruptible = Host { cancel: cancel.clone(), ..host.clone() };
    if stage == Stage::Provisioning {
        let provisioned = provisioned(record);
        let leftovers = unprovision(context, record, &provisioned, &interruptible, occupants)?;
        if !leftovers.is_empty() {
            return Ok(leftovers);
        }
        end_setup_in_active(context, record)?;
        let leftovers = updates::revert(context, record, applied, &host);
        if !leftovers.is_empty() {
            return Ok(leftovers);
        }
        if record.release.is_some() {
            context.swarm.begin_bringing_back().map_err(Error::Unfinished)?;
            stage = Stage::SettingAside;
        }
    }
    crashpoint!("rollback.unprovisioned");
    let mut failures = Vec::new();
    if let Some(release) = &record.release {
        let leftovers = bring_back(context, record, release, &host);
        if !leftovers.is_empty() {
            return Ok(leftovers);
        }
        crashpoint!("rollback.brought-back");
        failures = set_up_again(context, release, &interruptible);
        if cancel.is_requested() && !failures.is_empty() {
            return Err(Error::Interrupted);
        }
    }
    failures.extend(write_again(context, record, applied, &host)?);
    crashpoint!("rollback.written");
    context.swarm.abandon(stage).map_err(Error::Unfinished)?;
    crashpoint!("rollback.abandoned");
    Ok(failures)
}

/// Ends the programs that `setup` in active sessions has left running, if this run has started them.
fn end_setup_in_active(context: &Context<'_>, record: &Record) -> Result<(), Error> {
    let sessions = record.plan.sessions.iter().zip(&record.plan.changes);
    let active = sessions.filter(|(_, change)| change.runs_setup() && change.provision.is_empty());
    let active: ResourcesBySession = active
        .map(|(session, _)| {
            let names = session.allocations.iter().map(|allocation| allocation.name().to_owned());
            (session.path.clone(), names.collect())
        })
        .collect();
    let journal = context.swarm.journal().map_err(Error::Unfinished)?;
    if let Some(own) = Marks::of_setup_in(record, &active, &journal).filter(|_| !active.is_empty()) {
        stop_processes::end_own(context, record, &active, &own);
    }
    Ok(())
}

/// Releases what the run has `provisioned`, after a teardown if it was set up. Only teardowns can be interrupted.
pub(super) fn unprovision(
    context: &Context<'_>,
    record: &Record,
    provisioned: &ResourcesBySession,
    interruptible: &Host,
    occupants: Option<Occupants>,
) -> Result<Vec<Failure>, Error> {
    let host = &Host { cancel: Cancel::default(), ..interruptible.clone() };
    let pairs = || record.plan.sessions.iter().zip(&record.plan.changes);
    for (session, change) in pairs().rev() {
        let was_set_up = !session.setup.is_empty() && commands::was_run(context.swarm, session, "setup");
        if !change.provision.is_empty() && !session.teardown.is_empty() && was_set_up {
            // The run has failed already; the log has the output of the teardown.
            let torn_down = commands::run(context.swarm, interruptible, session, ROLLBACK, &session.teardown);
            if torn_down.is_err() && interruptible.cancel.is_requested() {
                return Err(Error::Interrupted);
            }
        }
    }
    stop_processes::end_own(context, record, provisioned, &Marks::for_run(record, provisioned));
    if let Some(occupants) = occupants {
        stop_processes::refuse_or_stop_again(context, record, provisioned, Location::Home, occupants)?;
    }
    crashpoint!("rollback.torn-down");
    Ok(Run { context, record, host }.release(Phase::RollBack, Location::Home, provisioned))
}

/// Brings back what the run has moved aside, and the released resources of the other kinds.
pub(super) fn bring_back(
    context: &Context<'_>,
    record: &Record,
    release: &Release,
    host: &Host,
) -> Vec<Failure> {
    let before = &release.before;
    let run = Run { context, record: before, host };
    let aside = restricted(before, &release.kinds, |session, name| context.moves_aside(session, name));
    let mut failures = run.bring_back(&aside, &|provider, task| provider.bring_back(task));
    // A resource that was broken before the run stays released.
    let same = restricted(before, &release.kinds, |session, kind| {
        let planned = record.plan.sessions.iter().find(|planned| planned.path == session.path);
        is_same_resource(context, record, session, kind)
            && planned.is_none_or(|planned| planned.allocation(kind) != session.allocation(kind))
    });
    failures.extend(run.bring_back(&same, &|provider, task| provider.provision(task)));
    failures
}

/// Runs the setup of sessions that were torn down and have been brought back.
pub(super) fn set_up_again(context: &Context<'_>, release: &Release, host: &Host) -> Vec<Failure> {
    let mut failures = Vec::new();
    for session in &release.before.plan.sessions {
        let was_torn_down = release.kinds.contains_key(&session.path)
            && !session.teardown.is_empty()
            && commands::was_run(context.swarm, session, "teardown");
        let was_set_up = !release.before.not_set_up.contains_key(&session.path);
        if !was_torn_down || !was_set_up || session.setup.is_empty() {
            continue;
        }
        match commands::run(context.swarm, host, session, "setup", &session.setup) {
            Ok(()) => (context.events)(&Event::SetUpAgain { session: session.path.clone() }),
            Err(cause) => failures.push(Failure::new(session, "set up again", cause)),
        }
    }
    failures
}

/// Rewrites the discovery files that the run may have changed.
pub(super) fn write_again(
    context: &Context<'_>,
    record: &Record,
    applied: Option<&Record>,
    host: &Host,
) -> Result<Vec<Failure>, Error> {
    let stood: HashMap<_, _> = applied
        .iter()
        .flat_map(|applied| &applied.plan.sessions)
        .map(|session| (&session.path, session))
        .collect();
    let mut failures = Vec::new();
    let changed = record.plan.sessions.iter().zip(&record.plan.changes);
    for (session, change) in changed.filter(|(_, change)| change.action != Action::Keep) {
        match (applied, stood.get(&session.path)) {
            // Nothing is written if the session's directory was missing before the run.
            (Some(applied), Some(stood)) if discovery::directory(context.swarm, stood).is_ok() => {
                let run = Run { context, record: applied, host };
                let moved = change.fields.iter().any(|field| field.name == WORKING_DIRECTORY);
                if let Some(path) = session.discovery_file.as_ref().filter(|_| moved)
                    && Some(path) != stood.discovery_file.as_ref()
                {
                    failures.extend(run.remove_discovery(stood, path).err());
                }
                failures.extend(run.write_discovery(stood).err());
            }
            (Some(_), Some(_)) => {}
            _ => context.swarm.remove_discovery(&session.scoped_name).map_err(Error::Unfinished)?,
        }
    }
    Ok(failures)
}

/// Deletes the logs of earlier setups and teardowns: a log then proves that this run ran the step.
fn forget_logs(context: &Context<'_>, record: &Record) -> Result<(), state::Error> {
    for (session, change) in record.plan.sessions.iter().zip(&record.plan.changes) {
        if change.runs_setup() && !session.setup.is_empty() {
            commands::forget(context.swarm, session, "setup")?;
        }
    }
    let Some(release) = &record.release else { return Ok(()) };
    let before: BTreeMap<_, _> =
        release.before.plan.sessions.iter().map(|session| (&session.path, session)).collect();
    for session in release.kinds.keys().filter_map(|path| before.get(path)) {
        if !session.teardown.is_empty() {
            commands::forget(context.swarm, session, "teardown")?;
        }
    }
    Ok(())
}
