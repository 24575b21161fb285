//! Refuses or ends the processes that use what a run is about to release.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::occupants::{Marks, Search};
use super::release_set::{Occupants, ResourcesBySession, STOP_PATIENCE};
use super::{Context, Error, Event, Options, occupants, unsaved_work};
use crate::host::occupants::{Process, Processes, Termination};
use crate::name::SessionPath;
use crate::plan::{Role, SessionFinding};
use crate::provider::Location;
use crate::state::Record;

/// First and longest pause between two checks of processes that were asked to end.
const ENDING_PAUSE: Duration = Duration::from_millis(5);
const ENDING_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Number of the process that adopts all others. It is never ended.
const INIT: u32 = 1;

/// Time for the kernel to end killed processes. A process that waits for a disk takes longer.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Refuses or ends the processes that use what is about to be released, as `options` require.
///
/// Processes that carry one of the marks `own` are ignored: the caller or a teardown ends them.
pub(super) fn refuse_or_stop(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
    options: Options,
    own: &Marks,
) -> Result<(), Error> {
    let search = Search::home(context.swarm.host(), context.registry, [(record, released)], own.clone());
    let mut occupancy = search.settled().reported();
    if !occupancy.refusals(Occupants::Refuse).is_empty() {
        // No process is ended for a run that is refused anyway, and a refusal names the work as well.
        let findings = refusals(unsaved_work::check(context, record, released, options.unsaved))?;
        occupants::refuse(occupancy.refusals(options.occupants), occupancy.uninspected, findings)?;
        if let Occupants::Stop(patience) = options.occupants {
            search.stop(context, patience, Role::Refuses)?;
        }
        occupancy = search.settled().occupancy()?;
    }
    if occupancy.uninspected > 0 {
        (context.events)(&Event::Uninspected { processes: occupancy.uninspected });
    }
    for occupant in occupancy.occupants.into_iter().filter(|occupant| occupant.role == Role::Caller) {
        (context.events)(&Event::AlsoRemoved {
            session: occupant.session.clone(),
            description: occupant.described(),
        });
    }
    Ok(())
}

/// Returns the findings for which a run is refused; empty if it is not refused.
pub(super) fn refusals<T>(checked: Result<T, Error>) -> Result<Vec<SessionFinding>, Error> {
    match checked {
        Ok(_) => Ok(Vec::new()),
        Err(Error::Refused(findings)) => Ok(findings),
        Err(error) => Err(error),
    }
}

/// Adds the processes for which the release would be refused as well to a refusal because of unsaved work.
pub(super) fn with_occupants(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
    policy: Occupants,
    own: &Marks,
    error: Error,
) -> Error {
    let Error::Refused(findings) = error else { return error };
    let search = Search::home(context.swarm.host(), context.registry, [(record, released)], own.clone());
    let occupancy = search.settled().reported();
    occupants::refusal(occupancy.refusals(policy), occupancy.uninspected, findings)
}

/// Refuses or ends processes as [`refuse_or_stop`] does, after teardowns or after the resources were moved aside. Such
/// processes are new, or a teardown has not ended them.
pub(super) fn refuse_or_stop_again(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
    location: Location,
    occupants: Occupants,
) -> Result<(), Error> {
    let (host, registry) = (context.swarm.host(), context.registry);
    let search = Search::new(host, registry, [(record, released)], location, Marks::default());
    let mut found = search.settled();
    if let Occupants::Stop(patience) = occupants
        && found.targets(Role::Refuses).next().is_some()
    {
        search.stop(context, patience, Role::Refuses)?;
        found = search.settled();
    }
    found.occupancy().map(drop)
}

/// Ends the processes that carry one of the marks `own`, in what a run rolls back or finishes: an earlier step of the
/// same run has started them.
pub(super) fn end_own(context: &Context<'_>, record: &Record, released: &ResourcesBySession, own: &Marks) {
    let search = Search::home(context.swarm.host(), context.registry, [(record, released)], own.clone());
    // A process that cannot be ended prevents the release, which reports the process.
    let _ = search.stop(context, STOP_PATIENCE, Role::LeftByCommand);
}

impl Search<'_> {
    /// Ends the processes that have this role, and all their descendants.
    fn stop(&self, context: &Context<'_>, patience: Duration, role: Role) -> Result<(), Error> {
        let begun = Instant::now();
        let mut pause = ENDING_PAUSE;
        let mut ending = Termination::default();
        let mut stopped: BTreeMap<Process, (SessionPath, String)> = BTreeMap::new();
        let mut killed = BTreeSet::new();
        loop {
            let found = self.find();
            let processes = Processes::read();
            let callers = processes.callers();
            let targets: Vec<_> = found.targets(role).collect();
            if targets.is_empty() && !ending.is_any_running() {
                break;
            }
            let mut tops: Vec<_> = targets.into_iter().map(|(top, session)| (top, session.clone())).collect();
            tops.extend(stopped.iter().map(|(process, (session, _))| (*process, session.clone())));
            for (top, session) in tops {
                for process in processes.with_descendants(top) {
                    stopped.entry(process).or_insert_with(|| (session.clone(), process.command()));
                }
            }
            let meant =
                stopped.keys().filter(|process| process.pid != INIT && !callers.contains(&process.pid));
            meant.for_each(|process| ending.ask(*process));
            if begun.elapsed() >= patience {
                killed.extend(ending.kill());
            }
            if context.swarm.host().cancel.is_requested() {
                return Err(Error::Failed { failures: Vec::new(), leftovers: Vec::new(), interrupted: true });
            }
            if begun.elapsed() >= patience + KILLED_WITHIN {
                break;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(ENDING_PAUSE_MAX);
        }
        for process in ending.ended() {
            if let Some((session, command)) = stopped.remove(&process) {
                let (pid, killed) = (process.pid, killed.contains(&process));
                (context.events)(&Event::Stopped { session, pid, command, killed });
            }
        }
        Ok(())
    }
}
