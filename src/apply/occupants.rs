//! Processes at work in what a run releases: refused, or ended first where the caller says so.
//!
//! A dry run, a plan's review and the release itself search here. A process counts once it is found several times in a
//! row: other programs, Git above all, have files of a worktree or of its admin directory open for moments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::release::{self, Destroy, Kinds};
use super::transaction::UNDO;
use super::{Context, Error, Event, Options, commands, with_task, work};
use crate::host::occupants::{Area, Ending, Process, Processes, Use, scan};
use crate::host::{self, Host};
use crate::name::SessionPath;
use crate::plan::{Occupant, Plan, Role, Session};
use crate::provider::{Findings, Location, Registry, Task};
use crate::state::{self, Found, Record, Swarm};

/// Default for [`Occupants::Stop`]: time for a process to end by itself after TERM.
pub const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Pauses before a process that was found is searched for again.
const SETTLING: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(100)];

/// First and longest pause between two looks at processes that were asked to end.
const ENDING_PAUSE: Duration = Duration::from_millis(5);
const ENDING_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Number of the process that adopts all others. It is never ended.
const INIT: u32 = 1;

/// Time for the kernel to end what was killed. A process that waits for a disk takes longer.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// What becomes of processes that use what a run releases.
///
/// A process uses a session if its working directory, root directory, executable, an open or a mapped file lies in a
/// directory of the session, or if it listens on one of its ports. The calling process and those that it descends from
/// are named ([`Role::Caller`]), but neither refused nor ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupants {
    /// The run is refused with [`Error::Occupied`], before it changes anything.
    #[default]
    Refuse,
    /// They and all that descend from them are sent TERM, and KILL after this time. Nothing is sent where the run would be
    /// refused for unsaved work. What still runs then is [`Error::Occupied`].
    Stop(Duration),
}

/// Processes that use what would be released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupancy {
    /// The processes, by session and number.
    pub occupants: Vec<Occupant>,
    /// Number of processes of the host that this user may not inspect: what they use is unknown.
    pub uninspected: usize,
}

impl Occupancy {
    /// The processes because of which the release is refused where they are not ended first.
    pub fn refusals(&self) -> Vec<Occupant> {
        self.occupants.iter().filter(|occupant| occupant.is_refusal()).cloned().collect()
    }

    /// Returns whether the release is asked for from inside a session that would be released.
    pub fn has_caller(&self) -> bool {
        self.occupants.iter().any(|occupant| matches!(occupant.role, Role::Caller | Role::PinningCaller))
    }
}

/// Finds the processes that [`super::destroy`] would find. Changes nothing.
pub fn occupancy(
    swarm: &Swarm<'_>,
    registry: &Registry,
    active: &Record,
    destroy: &Destroy,
) -> Result<Occupancy, state::Error> {
    let children = if destroy.children { destroy.children_of(swarm.host(), active)? } else { Vec::new() };
    let records = children.iter().filter_map(Found::record);
    let children = records.map(|record| (record, Destroy::default().kinds(record)));
    let released: Vec<_> = children.chain([(active, destroy.kinds(active))]).collect();
    Ok(Search::of(swarm.host(), registry, &released).settled().reported())
}

/// Finds the processes that [`super::apply`] would find in what `plan` releases. Changes nothing.
pub fn occupancy_in(swarm: &Swarm<'_>, registry: &Registry, active: &Record, plan: &Plan) -> Occupancy {
    Search::of(swarm.host(), registry, &[(active, release::planned(plan))]).settled().reported()
}

/// Refuses a release because of the processes that were found.
pub(super) fn refuse(occupancy: &Occupancy) -> Result<(), Error> {
    let occupants = occupancy.refusals();
    if occupants.is_empty() {
        return Ok(());
    }
    Err(Error::Occupied { occupants, uninspected: occupancy.uninspected })
}

/// Marks of what commands of sessions have left running that the teardown of the session, which is still to run, is there to
/// end.
pub(super) fn left_for_teardown(record: &Record, released: &Kinds) -> Marks {
    Marks::new(record, &["setup", "teardown"], |session| release::is_torn_down(session, released))
}

/// What commands of sessions carry in their environment, and what they leave running inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(BTreeSet<String>);

impl Marks {
    /// The marks of everything that a run which provisions these sessions has started.
    pub(super) fn of_run(record: &Record, provisioned: &Kinds) -> Self {
        Self::new(record, &["setup", "teardown", UNDO], |session| provisioned.contains_key(&session.path))
    }

    /// Adds other marks.
    pub(super) fn extend(&mut self, more: &Self) {
        self.0.extend(more.0.iter().cloned());
    }

    /// The marks of these steps of the sessions for which `has_own` is true.
    pub(super) fn new(record: &Record, steps: &[&str], has_own: impl Fn(&Session) -> bool) -> Self {
        let sessions = record.plan.sessions.iter().filter(|session| has_own(session));
        Self(sessions.flat_map(|session| steps.iter().map(|step| commands::mark(step, session))).collect())
    }
}

/// Makes sure that no process uses what is about to be released: refuses, or ends them, as `options` say.
///
/// What carries one of the marks `own` is passed over: the caller ends it, or has a teardown end it.
pub(super) fn clear(
    context: &Context<'_>,
    record: &Record,
    released: &Kinds,
    options: Options,
    own: &Marks,
) -> Result<(), Error> {
    let search = Search::home(context.swarm.host(), context.registry, [(record, released)], own.clone());
    let mut found = search.settled();
    if let Occupants::Stop(patience) = options.occupants
        && found.targets(Role::Refuses).next().is_some()
        && found.targets(Role::PinningCaller).next().is_none()
    {
        // No process is ended for a run that is refused anyway.
        work::judge(context, record, released, options.unsaved)?;
        search.stop(context, patience, Role::Refuses)?;
        found = search.settled();
    }
    let occupancy = found.occupancy()?;
    if occupancy.uninspected > 0 {
        (context.events)(&Event::Uninspected { processes: occupancy.uninspected });
    }
    for occupant in occupancy.occupants.into_iter().filter(|occupant| occupant.role == Role::Caller) {
        (context.events)(&Event::GoesAlong { session: occupant.session.clone(), what: occupant.described() });
    }
    Ok(())
}

/// Does the same once teardowns have run, or once what is released is aside: processes that were not there before, or that a
/// teardown has not ended, are refused or ended.
pub(super) fn clear_torn_down(
    context: &Context<'_>,
    record: &Record,
    released: &Kinds,
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

/// Returns the sessions in which commands of `setup` that outlived their run are still at work.
pub(super) fn left_by_setup(
    host: &Host,
    registry: &Registry,
    record: &Record,
    released: &Kinds,
) -> BTreeSet<SessionPath> {
    let own = Marks::new(record, &["setup"], |session| released.contains_key(&session.path));
    let search = Search::home(host, registry, [(record, released)], own);
    search.find().targets(Role::LeftByCommand).map(|(_, session)| session.clone()).collect()
}

/// Ends what carries one of the marks `own`, in what a run takes back or finishes: an earlier step of the same run has started
/// it.
pub(super) fn end_own(context: &Context<'_>, record: &Record, released: &Kinds, own: &Marks) {
    let search = Search::home(context.swarm.host(), context.registry, [(record, released)], own.clone());
    // What cannot be ended is in the way of the release, which reports that.
    let _ = search.stop(context, STOP_PATIENCE, Role::LeftByCommand);
}

/// The sessions that are searched for processes.
struct Search<'a> {
    sessions: Vec<&'a SessionPath>,
    /// One for each of `sessions`.
    areas: Vec<Area>,
    own: Marks,
}

/// Processes that were found in one search, or in several in a row.
struct Searched {
    occupants: Vec<(Option<Process>, Occupant)>,
    uninspected: usize,
}

impl<'a> Search<'a> {
    /// Searches what is about to be released, for what the teardowns are not there to end.
    fn of(host: &Host, registry: &Registry, released: &[(&'a Record, Kinds)]) -> Self {
        let own =
            released.iter().flat_map(|(record, released)| left_for_teardown(record, released).0).collect();
        let parts = released.iter().map(|(record, released)| (*record, released));
        Self::home(host, registry, parts, Marks(own))
    }

    fn home<'r>(
        host: &Host,
        registry: &Registry,
        parts: impl IntoIterator<Item = (&'a Record, &'r Kinds)>,
        own: Marks,
    ) -> Self {
        Self::new(host, registry, parts, Location::Home, own)
    }

    fn new<'r>(
        host: &Host,
        registry: &Registry,
        parts: impl IntoIterator<Item = (&'a Record, &'r Kinds)>,
        location: Location,
        own: Marks,
    ) -> Self {
        let findings = Findings::default();
        let (mut sessions, mut areas) = (Vec::new(), Vec::new());
        for (record, released) in parts {
            for session in &record.plan.sessions {
                let kinds = released.get(&session.path).map_or(&[][..], Vec::as_slice);
                let area = area(host, registry, record, session, kinds, location, &findings);
                if area != Area::default() {
                    sessions.push(&session.path);
                    areas.push(area);
                }
            }
        }
        Self { sessions, areas, own }
    }

    fn find(&self) -> Searched {
        if self.areas.is_empty() {
            return Searched { occupants: Vec::new(), uninspected: 0 };
        }
        let found = scan(&self.areas);
        let of_occupant = |found: host::occupants::Occupant| {
            let role = self.role(&found);
            let pid = found.process.map(|process| process.pid);
            let session = self.sessions[found.area].clone();
            let occupant = Occupant { session, pid, command: found.command, uses: found.uses, role };
            (found.process, occupant)
        };
        Searched {
            occupants: found.occupants.into_iter().map(of_occupant).collect(),
            uninspected: found.uninspected,
        }
    }

    fn role(&self, found: &host::occupants::Occupant) -> Role {
        if found.is_caller {
            let is_inside = found.uses.iter().any(|used| !matches!(used, Use::Port { .. }));
            return if self.areas[found.area].is_mounted && is_inside {
                Role::PinningCaller
            } else {
                Role::Caller
            };
        }
        let mark = || found.process.and_then(|process| process.variable(commands::MARK));
        let is_own = !self.own.0.is_empty() && mark().is_some_and(|mark| self.own.0.contains(&mark));
        if is_own { Role::LeftByCommand } else { Role::Refuses }
    }

    /// Finds the processes that are found again and again.
    fn settled(&self) -> Searched {
        let mut found = self.find();
        for pause in SETTLING {
            if !found.occupants.iter().any(|(_, occupant)| occupant.is_refusal()) {
                break;
            }
            std::thread::sleep(pause);
            let mut again = self.find();
            again.occupants.retain(|(process, occupant)| {
                found.occupants.iter().any(|(before, earlier)| {
                    let is_same = before == process && earlier.session == occupant.session;
                    is_same && (process.is_some() || earlier.uses == occupant.uses)
                })
            });
            found = again;
        }
        found
    }

    /// Ends the processes that have this role, and all that descend from them.
    fn stop(&self, context: &Context<'_>, patience: Duration, role: Role) -> Result<(), Error> {
        let begun = Instant::now();
        let mut pause = ENDING_PAUSE;
        let mut ending = Ending::default();
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

/// The directories and ports of these kinds of a session.
fn area(
    host: &Host,
    registry: &Registry,
    record: &Record,
    session: &Session,
    kinds: &[String],
    location: Location,
    findings: &Findings,
) -> Area {
    let mut all = Area::default();
    for allocation in kinds.iter().filter_map(|kind| session.allocation(kind)) {
        let Some(provider) = registry.provider(allocation) else { continue };
        let area = with_task(host, record, session, allocation, None, |task| {
            Ok(provider.area(&Task { findings: Some(findings), location, ..*task }))
        });
        let Ok(area) = area else { continue };
        all.directories.extend(area.directories);
        all.ports.extend(area.ports);
        all.is_mounted |= area.is_mounted;
    }
    all
}

impl Searched {
    /// The processes that have this role, with the session that each uses.
    fn targets(&self, role: Role) -> impl Iterator<Item = (Process, &SessionPath)> {
        let has_role = self.occupants.iter().filter(move |(_, occupant)| occupant.role == role);
        has_role.filter_map(|(process, occupant)| Some(((*process)?, &occupant.session)))
    }

    /// What was found, without the processes.
    fn reported(self) -> Occupancy {
        let occupants = self.occupants.into_iter().map(|(_, occupant)| occupant).collect();
        Occupancy { occupants, uninspected: self.uninspected }
    }

    /// The same, if nothing of it is a reason to refuse.
    fn occupancy(self) -> Result<Occupancy, Error> {
        let occupancy = self.reported();
        refuse(&occupancy)?;
        Ok(occupancy)
    }
}
