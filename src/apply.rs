//! Plan to leases: all of it, or none of it.
//!
//! What a run releases is moved aside, what it provisions is made, and only then is the run committed and what is aside
//! released (see `transaction`). A failure, Ctrl-C or crash before that is undone. Undoing is not replaying a log: the
//! record names everything that can exist, and each provider's `release` and `bring_back` work on what of it does.

mod commands;
mod elsewhere;
mod event;
mod family;
mod fill;
mod give_up;
mod inner;
mod inspect;
mod kept;
mod occupants;
mod overtaken;
mod provision;
mod recover;
mod refresh;
mod release;
mod repair;
mod since;
mod stale;
mod survey;
pub(crate) mod transaction;
mod tree;
mod walk;
mod work;

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

pub use elsewhere::{Relation, Stray, adopt, forget, rebind, strays};
pub use event::{Event, Phase};
pub use give_up::{described, recover};
pub use inspect::{directory, inspect, unknown};
pub use kept::{KeptBranch, kept};
pub use occupants::{Occupancy, Occupants, STOP_PATIENCE, occupancy, occupancy_in};
pub use overtaken::Overtaken;
pub use recover::Recovered;
pub use refresh::outdated;
pub use release::{Destroy, destroy};
pub use repair::{Repair, repair};
pub use stale::{questions, stale};
pub use survey::{Error as SurveyError, Survey, against, standing, survey, survey_without_programs};
pub use work::{AtStake, Broken, Loss, at_stake, at_stake_in, at_stake_since, examine};

use self::event::Telling;
use crate::discovery;
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::name::SessionPath;
pub use crate::plan::Occupant;
use crate::plan::{Change, Plan, Session};
use crate::provider::{self, Allocation, Filled, Location, Provider, Registry, Task};
pub use crate::state::Unsaved;
use crate::state::{self, Locked, Record, Recovery, Release};

/// What a run works with.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The swarm, locked.
    pub swarm: &'a Locked<'a>,
    /// The providers.
    pub registry: &'a Registry,
    /// Hears of everything that the run tells, from any thread.
    pub events: &'a (dyn Fn(&Event) + Sync),
}

impl<'a> Context<'a> {
    /// Returns the context of a run that reports to nobody.
    pub fn new(swarm: &'a Locked<'a>, registry: &'a Registry) -> Self {
        Self { swarm, registry, events: &|_| {} }
    }

    /// Has the run report to `events`.
    #[must_use]
    pub fn with_events(self, events: &'a (dyn Fn(&Event) + Sync)) -> Self {
        Self { events, ..self }
    }
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Failure {
    /// The session's path.
    pub session: SessionPath,
    /// What was being done: `provision git-worktree`, `setup`, …
    pub step: String,
    /// The kind of the resource; `None` where it was nothing that is done to one resource.
    #[serde(skip)]
    pub kind: Option<String>,
    /// Why it failed.
    pub cause: String,
    /// Whether that is because somebody else has taken what planning found free.
    #[serde(skip)]
    pub taken: bool,
    /// Whether it is a bug: the provider panicked.
    #[serde(skip)]
    pub panicked: bool,
}

impl Failure {
    /// The failure of a release that a process is in the way of.
    fn from_occupant(occupant: Occupant) -> Self {
        Self {
            cause: occupant.described(),
            session: occupant.session,
            step: "release".to_owned(),
            kind: None,
            taken: false,
            panicked: false,
        }
    }

    /// The failure of a release that would have lost work.
    fn from_loss(loss: Loss) -> Self {
        Self {
            session: loss.session,
            step: "release".to_owned(),
            kind: None,
            cause: loss.what,
            taken: false,
            panicked: false,
        }
    }
}

/// Why a run did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plan does not hold any more; nothing was touched.
    #[error("the plan is stale")]
    Stale(Vec<String>),
    /// Work would be lost; nothing was released.
    #[error("work would be lost")]
    Refused(Vec<Loss>),
    /// Processes are at work in what would be released. Nothing was touched; where they were only found once teardowns had
    /// run, what was torn down was set up again.
    #[error("{} process(es) are at work in what would be released", occupants.len())]
    Occupied {
        /// The processes.
        occupants: Vec<Occupant>,
        /// Number of processes of the host that this user may not inspect.
        uninspected: usize,
    },
    /// Work could not be rescued, and nothing was released; what was rescued of other sessions stays.
    #[error("{} rescue(s) failed", failures.len())]
    NotRescued {
        /// What failed.
        failures: Vec<Failure>,
        /// Whether it was an interruption, not a failure.
        interrupted: bool,
    },
    /// Steps failed; what this run made was taken away again, but for `leftovers`.
    #[error("{} step(s) failed", failures.len())]
    Failed {
        /// What failed.
        failures: Vec<Failure>,
        /// What could not be taken away.
        leftovers: Vec<Failure>,
        /// Whether it was an interruption, not a failure.
        interrupted: bool,
    },
    /// Commands of `teardown` failed; everything else of the run is done.
    #[error("{} teardown(s) failed", .0.len())]
    NotTornDown(Vec<Failure>),
    /// Commands of `setup` failed, and what was made stands, as [`Options::keep_failed`] asks; so may teardowns have.
    #[error("{} setup(s) failed", .0.len())]
    NotSetUp(Vec<Failure>),
    /// A resource of a kind that the registry does not know would have to be released; nothing was touched.
    #[error(
        "session `{session}` has a resource of kind `{kind}`, which only the program that provisioned it can release; \
         nothing was touched"
    )]
    UnknownKind {
        /// The session's id.
        session: String,
        /// The kind.
        kind: String,
    },
    /// Recovery was interrupted; another one goes on from there.
    #[error("interrupted")]
    Interrupted,
    /// The state directory could not be used; nothing of the run is left.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The state directory could not be used in the middle of releasing or undoing; `recover` does the rest.
    #[error("{0}")]
    Unfinished(state::Error),
}

impl Error {
    /// Returns what the error means.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed { leftovers, .. } if !leftovers.is_empty() => ErrorKind::NotRolledBack,
            Self::Failed { failures, .. } if failures.iter().any(|failure| failure.panicked) => {
                ErrorKind::Bug
            }
            Self::State(error) if error.is_in_progress() => ErrorKind::InProgress,
            Self::Stale(_)
            | Self::Refused(_)
            | Self::Occupied { .. }
            | Self::UnknownKind { .. }
            | Self::NotRescued { interrupted: false, .. } => ErrorKind::Refused,
            Self::NotRescued { interrupted: true, .. }
            | Self::Failed { interrupted: true, .. }
            | Self::Interrupted => ErrorKind::Interrupted,
            Self::Failed { interrupted: false, .. } | Self::NotSetUp(_) | Self::State(_) => ErrorKind::Failed,
            Self::NotTornDown(_) => ErrorKind::NotTornDown,
            Self::Unfinished(_) => ErrorKind::NotRolledBack,
        }
    }

    /// Tells whether everything the run made was taken away again, and nobody asked it to stop: it may be tried again.
    pub fn is_undone(&self) -> bool {
        matches!(self, Self::Failed { leftovers, interrupted: false, .. } if leftovers.is_empty())
    }
}

/// What an error means for what was asked for. The command line has an exit code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers decide for each: one more is a new major version")]
pub enum ErrorKind {
    /// It failed and was rolled back, or kept as [`Options::keep_failed`] asks.
    Failed,
    /// Nothing was done: work would be lost, processes are at work, or the plan is stale.
    Refused,
    /// A provider panicked; what was made was rolled back.
    Bug,
    /// It is done except for teardowns that failed.
    NotTornDown,
    /// Something could not be rolled back or released; [`recover`] tries again.
    NotRolledBack,
    /// Another run of the swarm is in progress or unfinished; nothing was done.
    InProgress,
    /// It was interrupted, and rolled back or left to [`recover`].
    Interrupted,
}

/// How to apply, and to recover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// What becomes of unsaved work in what the run releases.
    pub unsaved: Unsaved,
    /// Whether the swarm is for one command of the caller, who keeps the lock until it has ended. Where the caller is
    /// killed, [`recover`] removes the swarm with everything in it.
    pub temporary: bool,
    /// What becomes of processes at work in what the run releases.
    pub occupants: Occupants,
    /// Whether what was made stands where a `setup` fails: [`Record::not_set_up`] says of which sessions, and the next run
    /// runs their `setup` again. What the run releases is then released. Any other failure, and an interruption, is rolled
    /// back. Default: `false`.
    pub keep_failed: bool,
    /// Whether [`recover`] gives up a run that it can neither undo nor finish: what can be released or brought back is, and
    /// the rest remains, named by [`Event::GivenUp`] and recorded in the state directory. Unsaved work is never given up by
    /// it. Default: `false`.
    pub give_up: bool,
}

impl From<Unsaved> for Options {
    fn from(unsaved: Unsaved) -> Self {
        Self { unsaved, ..Self::default() }
    }
}

/// Makes a plan real. `standing` is what stands, as the plan was made against it.
///
/// An interrupted run is recovered first, by [`recover`]; until then this is [`state::Error::Unrecovered`].
pub fn apply(
    context: &Context<'_>,
    plan: &Plan,
    standing: Option<&Record>,
    options: Options,
) -> Result<(), Error> {
    context.swarm.settled()?;
    let stands = standing.is_some_and(|standing| standing.plan.digest == plan.digest);
    if stands && !plan.has_changes() {
        return Ok(());
    }
    let kinds = release::planned(plan);
    let owner = match standing {
        Some(standing) => standing.owner.clone(),
        None => state::new_owner()?,
    };
    let mut record = Record {
        schema_version: state::SCHEMA_VERSION,
        owner,
        workspace: context.swarm.workspace().to_owned(),
        ancestors: Vec::new(),
        child: None,
        temporary: options.temporary,
        not_set_up: standing.map(|standing| provision::still_not_set_up(standing, plan)).unwrap_or_default(),
        plan: plan.clone(),
        release: None,
    };
    if let Some(before) = standing.filter(|_| !kinds.is_empty()) {
        let left = occupants::left_for_teardown(before, &kinds);
        occupants::clear(context, before, &kinds, options, &left)?;
        work::secure(context, before, &kinds, options.unsaved)?;
        let (before, unsaved) = (before.clone(), options.unsaved);
        record.release = Some(Box::new(Release { before, kinds, unsaved, recovery: Recovery::Undo }));
    }
    let done = transaction::run(context, &record, standing, options);
    kept::report(context, &record, &done);
    done
}

impl Context<'_> {
    /// Returns whether leases of this kind are moved aside before they are released.
    fn moves_aside(&self, kind: &str) -> bool {
        self.registry.get(kind).is_some_and(Provider::moves_aside)
    }
}

/// What is done for each session with its change.
type Step<'a> = dyn Fn(&Session, &Change) -> Result<(), Failure> + Sync + 'a;

/// Tells whether a step has anything to do for a session.
type Concerned<'a> = dyn Fn(&Session, &Change) -> bool + Sync + 'a;

/// One run over the sessions of one record.
struct Run<'a> {
    context: &'a Context<'a>,
    record: &'a Record,
    /// The host that steps are run on: the caller's, or one that no Ctrl-C reaches any more, for undoing.
    host: &'a Host,
}

impl Run<'_> {
    /// Returns whether the session's allocation of a kind is claimed first, one session after another.
    fn is_claim(&self, session: &Session, kind: &str) -> bool {
        let provider = self.context.registry.get(kind).zip(session.allocation(kind));
        provider.is_some_and(|(provider, allocation)| provider.is_claim(allocation))
    }

    fn mend(&self, session: &Session, kind: &str) -> Result<(), Failure> {
        self.make(session, kind, "mend", |provider, task| provider.mend(task))
    }

    fn make(
        &self,
        session: &Session,
        kind: &str,
        step: &str,
        act: impl FnOnce(&dyn Provider, &Task<'_>) -> Result<(), provider::Error>,
    ) -> Result<(), Failure> {
        let allocation = session.allocation(kind);
        let provider = self.context.registry.get(kind);
        let (Some(allocation), Some(provider)) = (allocation, provider) else {
            let cause = format!("no provider of kind `{kind}` plans for it");
            return Err(failure(session, &format!("{step} {kind}"), cause));
        };
        crashpoint!("apply.allocation");
        self.with_task(session, allocation, |task| act(provider, task))
            .map_err(|error| failure_of(session, step, kind, &error))
    }

    fn tell(&self, session: &Session) -> Result<(), Failure> {
        let swarm = self.context.swarm;
        let snapshot = discovery::snapshot(self.record, session, self.context.registry, swarm.workspace());
        discovery::write(swarm, session, &snapshot)
            .map_err(|error| failure(session, "discovery file", error.to_string()))?;
        (self.context.events)(&Event::Ready { session: session.path.clone() });
        Ok(())
    }

    /// One phase: runs `step` for every planned session that there is something to do for, parents before children.
    fn each(
        &self,
        phase: Phase,
        jobs: NonZeroUsize,
        concerned: &Concerned<'_>,
        step: &Step<'_>,
    ) -> Vec<Failure> {
        let plan = &self.record.plan;
        let is_concerned = |at: usize| concerned(&plan.sessions[at], &plan.changes[at]);
        let sessions = (0..plan.sessions.len()).filter(|at| is_concerned(*at)).count();
        if sessions == 0 {
            return Vec::new();
        }
        let telling = Telling::begin(self.context, phase, sessions);
        self.until_one_fails(
            |act| tree::parents_first(&plan.sessions, jobs, act),
            |at| {
                if !is_concerned(at) {
                    return Vec::new();
                }
                match step(&plan.sessions[at], &plan.changes[at]) {
                    Ok(()) => {
                        telling.passed(&plan.sessions[at].path);
                        Vec::new()
                    }
                    Err(failure) => vec![failure],
                }
            },
        )
    }

    /// Runs `act` for the positions that `walk` comes to, until one fails or the run is interrupted; every failure of
    /// those under way by then is kept.
    fn until_one_fails(
        &self,
        walk: impl FnOnce(&(dyn Fn(usize) + Sync)),
        act: impl Fn(usize) -> Vec<Failure> + Sync,
    ) -> Vec<Failure> {
        let halted = AtomicBool::new(false);
        let failures = Mutex::new(Vec::new());
        walk(&|at| {
            if halted.load(Ordering::Relaxed) || self.host.cancel.is_requested() {
                return;
            }
            let failed = act(at);
            if !failed.is_empty() {
                halted.store(true, Ordering::Relaxed);
                failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
            }
        });
        failures.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_task<T>(
        &self,
        session: &Session,
        allocation: &Allocation,
        act: impl FnOnce(&Task<'_>) -> Result<T, provider::Error>,
    ) -> Result<T, provider::Error> {
        with_task(self.host, self.record, session, allocation, Some(self.context.swarm.file()), act)
    }
}

/// Calls `act`, a step of a provider, with the task of one allocation of a record. A panic in it is that step's failure.
fn with_task<T>(
    host: &Host,
    record: &Record,
    session: &Session,
    allocation: &Allocation,
    lock: Option<&File>,
    act: impl FnOnce(&Task<'_>) -> Result<T, provider::Error>,
) -> Result<T, provider::Error> {
    let ancestors = ancestors(record, &session.path);
    let ancestors: Vec<&str> = ancestors.iter().map(String::as_str).collect();
    provider::caught(|| act(&task(host, record, session, &ancestors, allocation, lock)))
}

fn task<'a>(
    host: &'a Host,
    record: &'a Record,
    session: &'a Session,
    ancestors: &'a [&'a str],
    allocation: &'a Allocation,
    lock: Option<&'a File>,
) -> Task<'a> {
    Task {
        host,
        workspace: &record.workspace,
        owner: &record.owner,
        session: &session.id,
        ancestors,
        allocation,
        location: Location::Home,
        lock,
        filled: Filled::default(),
        findings: None,
    }
}

/// The ids of the sessions above `path`, nearest first.
pub(crate) fn ancestors(record: &Record, path: &SessionPath) -> Vec<String> {
    let swarm = &record.plan.swarm;
    if swarm.is_empty() {
        return record.ancestors.clone();
    }
    let path = path.as_str();
    path.rmatch_indices('/').map(|(at, _)| format!("{swarm}/{}", &path[..at])).collect()
}

fn failure(session: &Session, step: &str, cause: String) -> Failure {
    Failure {
        session: session.path.clone(),
        step: step.to_owned(),
        kind: None,
        cause,
        taken: false,
        panicked: false,
    }
}

/// A failure of a provider.
fn failure_of(session: &Session, step: &str, kind: &str, error: &provider::Error) -> Failure {
    Failure {
        kind: Some(kind.to_owned()),
        taken: matches!(error, provider::Error::Taken(_)),
        panicked: matches!(error, provider::Error::Panicked(_)),
        ..failure(session, &format!("{step} {kind}"), error.to_string())
    }
}
