//! Finds the processes that use what a run releases.
//!
//! A dry run, a plan's review and the release itself search with this code. A process counts only if several searches
//! in a row find it. Other programs, Git above all, briefly open files of a worktree or of its admin directory.

use std::collections::BTreeSet;
use std::time::Duration;

use super::commands::{self, ROLLBACK};
use super::release_set::{self, Destroy, Occupants, ResourcesBySession};
use super::{Error, with_task};
use crate::host::occupants::{Footprint, MARK, Process, RUN, Use, scan};
use crate::host::{self, Host};
use crate::name::SessionPath;
use crate::plan::{Occupant, Plan, Role, Session, SessionFinding};
use crate::provider::{Location, Registry, SharedResults, Task};
use crate::state::{self, Journal, Record, RecordedSwarm, Swarm};

/// Pauses before each repeated search for a process that was found.
const SETTLING: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(100)];

/// Processes that use what would be released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupancy {
    /// The processes, by session and process id.
    pub occupants: Vec<Occupant>,
    /// Number of processes of the host that this user may not inspect; what they use is unknown.
    pub uninspected: usize,
}

impl Occupancy {
    /// Returns the processes that are a reason to refuse the release under this policy.
    pub fn refusals(&self, policy: Occupants) -> Vec<Occupant> {
        let is_stopped = |occupant: &Occupant| policy != Occupants::Refuse && occupant.is_stoppable();
        let refuses = |occupant: &&Occupant| occupant.is_refusal() && !is_stopped(occupant);
        self.occupants.iter().filter(refuses).cloned().collect()
    }

    /// Returns whether the caller runs inside a session that would be released.
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
    let records = children.iter().filter_map(RecordedSwarm::record);
    let children = records.map(|record| (record, Destroy::default().kinds(record)));
    let released: Vec<_> = children.chain([(active, destroy.kinds(active))]).collect();
    Ok(Search::for_release(swarm.host(), registry, &released).settled().reported())
}

/// Finds the processes that [`super::apply`] would find in what `plan` releases. Changes nothing.
pub fn occupancy_in(swarm: &Swarm<'_>, registry: &Registry, active: &Record, plan: &Plan) -> Occupancy {
    Search::for_release(swarm.host(), registry, &[(active, release_set::planned(plan))]).settled().reported()
}

/// Refuses a release if there are processes or findings for which it is refused. One error names both, so that the user
/// decides once.
pub(super) fn refuse(
    occupants: Vec<Occupant>,
    uninspected: usize,
    findings: Vec<SessionFinding>,
) -> Result<(), Error> {
    if occupants.is_empty() && findings.is_empty() {
        return Ok(());
    }
    Err(refusal(occupants, uninspected, findings))
}

/// Returns the refusal because of these processes and findings, at least one.
pub(super) fn refusal(occupants: Vec<Occupant>, uninspected: usize, findings: Vec<SessionFinding>) -> Error {
    if occupants.is_empty() {
        return Error::Refused(findings);
    }
    Error::Occupied { occupants, uninspected, findings }
}

/// Returns the marks of processes that commands of the sessions have left running and that the session's pending
/// `teardown` is expected to end.
pub(super) fn left_for_teardown(record: &Record, released: &ResourcesBySession) -> Marks {
    Marks::new(record, &["setup", "teardown"], |session| release_set::is_torn_down(session, released))
}

/// Values of [`MARK`] in the environment of sessions' commands, which the processes that they leave running inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    marks: BTreeSet<String>,
    /// Value of [`RUN`] that the processes have as well; `None` for processes of any run.
    run: Option<String>,
}

impl Marks {
    /// Returns the marks of all processes that a run which provisions these sessions has started.
    pub(super) fn for_run(record: &Record, provisioned: &ResourcesBySession) -> Self {
        Self::new(record, &["setup", "teardown", ROLLBACK], |session| provisioned.contains_key(&session.path))
    }

    /// Returns the marks of the processes that `setup` in active sessions has started in the run of `journal`, but not
    /// in earlier runs; `None` if the run cannot be distinguished.
    pub(super) fn of_setup_in(
        record: &Record,
        active: &ResourcesBySession,
        journal: &Journal,
    ) -> Option<Self> {
        let run = Some(journal.run()?);
        Some(Self { run, ..Self::new(record, &["setup"], |session| active.contains_key(&session.path)) })
    }

    pub(super) fn extend(&mut self, more: &Self) {
        self.marks.extend(more.marks.iter().cloned());
    }

    /// Returns the marks of these steps of the sessions for which `has_own` is true.
    pub(super) fn new(record: &Record, steps: &[&str], has_own: impl Fn(&Session) -> bool) -> Self {
        let sessions = record.plan.sessions.iter().filter(|session| has_own(session));
        let marks = sessions.flat_map(|session| steps.iter().map(|step| commands::mark(step, session)));
        Self { marks: marks.collect(), run: None }
    }

    fn has(&self, process: Process) -> bool {
        let is_marked = || process.variable(MARK).is_some_and(|mark| self.marks.contains(&mark));
        let is_of_run = || self.run.is_none() || process.variable(RUN) == self.run;
        !self.marks.is_empty() && is_marked() && is_of_run()
    }
}

/// Returns the sessions in which commands of `setup` that outlived their run still run.
pub(super) fn left_by_setup(
    host: &Host,
    registry: &Registry,
    record: &Record,
    released: &ResourcesBySession,
) -> BTreeSet<SessionPath> {
    let own = Marks::new(record, &["setup"], |session| released.contains_key(&session.path));
    let search = Search::home(host, registry, [(record, released)], own);
    search.find().targets(Role::LeftByCommand).map(|(_, session)| session.clone()).collect()
}

/// Sessions that are searched for processes, with their directories and ports.
pub(super) struct Search<'a> {
    sessions: Vec<&'a SessionPath>,
    /// Areas, one for each of `sessions`.
    footprints: Vec<Footprint>,
    own: Marks,
}

/// Processes that were found in one search, or in each of several searches.
pub(super) struct Searched {
    occupants: Vec<(Option<Process>, Occupant)>,
    uninspected: usize,
}

impl<'a> Search<'a> {
    /// Creates a search of the sessions to be released; processes that a teardown is expected to end are marked as own.
    fn for_release(host: &Host, registry: &Registry, released: &[(&'a Record, ResourcesBySession)]) -> Self {
        let mut own = Marks::default();
        for (record, released) in released {
            own.extend(&left_for_teardown(record, released));
        }
        let parts = released.iter().map(|(record, released)| (*record, released));
        Self::home(host, registry, parts, own)
    }

    pub(super) fn home<'r>(
        host: &Host,
        registry: &Registry,
        parts: impl IntoIterator<Item = (&'a Record, &'r ResourcesBySession)>,
        own: Marks,
    ) -> Self {
        Self::new(host, registry, parts, Location::Home, own)
    }

    pub(super) fn new<'r>(
        host: &Host,
        registry: &Registry,
        parts: impl IntoIterator<Item = (&'a Record, &'r ResourcesBySession)>,
        location: Location,
        own: Marks,
    ) -> Self {
        let shared_results = SharedResults::default();
        let (mut sessions, mut footprints) = (Vec::new(), Vec::new());
        for (record, released) in parts {
            for session in &record.plan.sessions {
                let kinds = released.get(&session.path).map_or(&[][..], Vec::as_slice);
                let footprint = footprint(host, registry, record, session, kinds, location, &shared_results);
                if footprint != Footprint::default() {
                    sessions.push(&session.path);
                    footprints.push(footprint);
                }
            }
        }
        Self { sessions, footprints, own }
    }

    pub(super) fn find(&self) -> Searched {
        if self.footprints.is_empty() {
            return Searched { occupants: Vec::new(), uninspected: 0 };
        }
        let found = scan(&self.footprints);
        let of_occupant = |found: host::occupants::Occupant| {
            let role = self.role(&found);
            let pid = found.process.map(|process| process.pid);
            let session = self.sessions[found.footprint].clone();
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
            return if self.footprints[found.footprint].is_mounted && is_inside {
                Role::PinningCaller
            } else {
                Role::Caller
            };
        }
        let is_own = found.process.is_some_and(|process| self.own.has(process));
        if is_own { Role::LeftByCommand } else { Role::Refuses }
    }

    /// Returns the processes that every one of several searches finds.
    pub(super) fn settled(&self) -> Searched {
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
}

/// Returns the directories and ports of these kinds of a session.
pub(super) fn footprint(
    host: &Host,
    registry: &Registry,
    record: &Record,
    session: &Session,
    kinds: &[String],
    location: Location,
    shared_results: &SharedResults,
) -> Footprint {
    let mut all = Footprint::default();
    for allocation in kinds.iter().filter_map(|kind| session.allocation(kind)) {
        let Some(provider) = registry.provider(allocation) else { continue };
        let footprint = with_task(host, record, session, allocation, None, |task| {
            Ok(provider.footprint(&Task { shared_results: Some(shared_results), location, ..*task }))
        });
        let Ok(footprint) = footprint else { continue };
        all.directories.extend(footprint.directories);
        all.ports.extend(footprint.ports);
        all.served.extend(footprint.served);
        all.is_mounted |= footprint.is_mounted;
    }
    all
}

impl Searched {
    /// Returns the processes that have this role, with the session that each uses.
    pub(super) fn targets(&self, role: Role) -> impl Iterator<Item = (Process, &SessionPath)> {
        let has_role = self.occupants.iter().filter(move |(_, occupant)| occupant.role == role);
        has_role.filter_map(|(process, occupant)| Some(((*process)?, &occupant.session)))
    }

    /// Returns the occupants without their process handles.
    pub(super) fn reported(self) -> Occupancy {
        let occupants = self.occupants.into_iter().map(|(_, occupant)| occupant).collect();
        Occupancy { occupants, uninspected: self.uninspected }
    }

    /// Returns the occupancy, or [`Error::Occupied`] if a process is a reason to refuse.
    pub(super) fn occupancy(self) -> Result<Occupancy, Error> {
        let occupancy = self.reported();
        refuse(occupancy.refusals(Occupants::Refuse), occupancy.uninspected, Vec::new())?;
        Ok(occupancy)
    }
}
