//! Applies a plan: a run makes all of the plan's changes, or none of them.
//!
//! A run moves its releases aside and provisions everything new. Only then is the run committed, and what is aside is
//! released (see `transaction`). A failure, Ctrl-C or crash before the commit is rolled back. Rolling back does not
//! replay a log. The record names everything that can exist, and each provider's `release` and `bring_back` work on the
//! part that does exist.

mod artifacts;
mod stop_processes;
mod take_up;
mod commands;
mod container;
mod destroy;
mod relocation;
mod moved_repositories;
mod error;
mod fetch;
mod event;
mod children;
mod populate;
mod give_up;
mod release_impact;
mod nested_swarms;
mod inspect;
mod kept_branches;
pub(crate) mod kept_commits;
mod occupants;
mod retry;
mod provision;
mod readiness;
mod recover;
mod refresh;
pub(crate) mod repositories;
mod release;
mod release_set;
mod repair;
mod rescue;
mod restore;
mod run_progress;
mod preconditions;
mod planning_input;
pub(crate) mod transaction;
mod traverse;
mod lease_traversal;
mod unsaved_work;
mod updates;
mod usage;

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub use self::destroy::prepare_destroy;
pub use artifacts::{artifact_glob, save_artifacts};
pub use children::{destroy, release_impact};
pub use container::container_needs;
pub use error::{Error, ErrorKind, Failure};
pub use event::{Event, Phase};
pub use fetch::{Fetched, fetch};
pub use give_up::{described, recover};
pub use inspect::{directory, inspect, unknown};
pub use kept_branches::{KeptBranch, kept_branches};
pub use occupants::{Occupancy, occupancy, occupancy_in};
pub use planning_input::{
    Error as PlanningInputError, PlanningInput, against, applied_plan, planning_input,
    planning_input_without_programs, spawning_input,
};
pub use preconditions::{queries, stale_reasons};
pub use readiness::{NotReady, Wait, conditions};
pub use recover::Recovered;
pub use refresh::{outdated, refreshable};
pub use release_impact::{
    Broken, FindingKind, ReleaseImpact, SessionFinding, examine, impact_of_plan, impact_of_recovery,
};
pub use release_set::{Destroy, Occupants, STOP_PATIENCE};
pub use relocation::{Relation, Stray, adopt, forget, rebind, strays};
pub use repair::{Repair, repair};
pub use repositories::{
    UnusableRepository, replaced_repository, require_repositories, require_same_repositories,
    unusable_repositories,
};
pub use restore::{RestoreError, restore};
pub(crate) use retry::is_conflict;
pub use retry::{Retries, apply_until_free};
pub use take_up::take_up;
pub use updates::left_by_updates;
pub use usage::{Usage, usage};

use self::event::PhaseReport;
use crate::discovery;
use crate::host::Host;
use crate::host::clock;
use crate::host::failpoint::crashpoint;
use crate::name::SessionPath;
pub use crate::plan::Occupant;
use crate::plan::{Change, Plan, Session};
use crate::provider::{self, Allocation, Location, OnPopulated, Provider, Registry, Task};
pub use crate::state::Unsaved;
use crate::state::{self, Artifacts, FleetPart, LockedSwarm, Record, Recovery, Release};

/// Swarm, providers and event handler of a run.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// Swarm of the run, locked.
    pub swarm: &'a LockedSwarm<'a>,
    /// Providers of the kinds.
    pub registry: &'a Registry,
    /// Handler of the run's events; called from any thread.
    pub events: &'a (dyn Fn(&Event) + Sync),
    /// Name of the swarm in the manifest, if [`apply`] creates an instance of it, which has another name.
    pub instance_of: Option<&'a str>,
    /// Files to save before the swarm is removed, if [`apply`] creates the swarm for one command.
    pub artifacts: Option<&'a Artifacts>,
}

impl<'a> Context<'a> {
    /// Creates the context of a run that discards its events.
    pub fn new(swarm: &'a LockedSwarm<'a>, registry: &'a Registry) -> Self {
        Self { swarm, registry, events: &|_| {}, instance_of: None, artifacts: None }
    }

    /// Sets the handler of the run's events.
    #[must_use]
    pub fn with_events(self, events: &'a (dyn Fn(&Event) + Sync)) -> Self {
        Self { events, ..self }
    }

    /// Sets the name of the swarm in the manifest of an instance.
    #[must_use]
    pub fn with_instance_of(self, declared: Option<&'a str>) -> Self {
        Self { instance_of: declared, ..self }
    }

    /// Sets the files to save before the swarm is removed.
    #[must_use]
    pub fn with_artifacts(self, artifacts: Option<&'a Artifacts>) -> Self {
        Self { artifacts, ..self }
    }
}

/// Options of [`apply`] and [`recover`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Policy for unsaved work in the sessions and kinds that the run releases.
    pub unsaved: Unsaved,
    /// `true` if the swarm is for one command of the caller, who keeps the lock until the command has ended. If the
    /// caller is killed, [`recover`] removes the swarm with everything in it. Default: `false`.
    pub temporary: bool,
    /// Policy for processes that use what the run releases.
    pub occupants: Occupants,
    /// `true` if new allocations remain after a failed `setup`. [`Record::not_set_up`] names the sessions, and the next
    /// run runs their `setup` again. The run's releases are then finished. Any other failure, and an interruption, is
    /// rolled back. Default: `false`.
    pub keep_failed: bool,
    /// `true` if [`recover`] abandons a run that it can neither roll back nor finish. Resources that can be released or
    /// brought back are; the rest remains, is named by [`Event::GivenUp`] and is recorded in the state directory. This
    /// option never discards unsaved work. Default: `false`.
    pub give_up: bool,
}

impl From<Unsaved> for Options {
    fn from(unsaved: Unsaved) -> Self {
        Self { unsaved, ..Self::default() }
    }
}

impl From<&Destroy> for Options {
    fn from(destroy: &Destroy) -> Self {
        Self { unsaved: destroy.unsaved, occupants: destroy.occupants, ..Self::default() }
    }
}

/// Applies a plan. `applied` is the record of the applied swarm that the plan was made against; `None` if there is
/// none.
///
/// An interrupted run is recovered first, by [`recover`]; until then the result is [`state::Error::Unrecovered`].
pub fn apply(
    context: &Context<'_>,
    plan: &Plan,
    applied: Option<&Record>,
    options: Options,
) -> Result<(), Error> {
    context.swarm.require_recovered()?;
    let is_applied = applied.is_some_and(|applied| applied.plan.digest == plan.digest);
    if is_applied && !plan.has_changes() {
        return Ok(());
    }
    let record = begun(context, plan, applied, options)?;
    let done = transaction::run(context, &record, applied, options);
    kept_branches::report(context, &record, &done);
    done
}

/// Does everything of [`apply`] except the commit, as the part of a run over several hosts. [`recover()`] then follows the
/// decision about that run. After an error, everything is rolled back.
pub fn prepare(
    context: &Context<'_>,
    plan: &Plan,
    applied: Option<&Record>,
    options: Options,
    part: FleetPart,
) -> Result<(), Error> {
    context.swarm.require_recovered()?;
    let record = begun(context, plan, applied, options)?;
    transaction::prepare(context, &Record { fleet: Some(part), ..record }, applied, options)
}

/// Returns the record of a run that applies a plan, once the work that the run would release is secured.
fn begun(
    context: &Context<'_>,
    plan: &Plan,
    applied: Option<&Record>,
    options: Options,
) -> Result<Record, Error> {
    let kinds = release_set::planned(plan);
    let owner = match applied {
        Some(applied) => applied.owner.clone(),
        None => state::new_owner()?,
    };
    let mut record = Record {
        schema_version: state::SCHEMA_VERSION,
        owner,
        workspace: context.swarm.workspace().to_owned(),
        manifest: context.swarm.manifest().map(ToOwned::to_owned),
        since: applied.map_or_else(|| Some(clock::now()), |applied| applied.since.clone()),
        created: applied.map(|applied| applied.created_with(plan, &clock::now())).unwrap_or_default(),
        ancestors: Vec::new(),
        child: None,
        temporary: options.temporary,
        instance_of: match applied {
            Some(applied) => applied.instance_of.clone(),
            None => context.instance_of.map(ToOwned::to_owned),
        },
        artifacts: context.artifacts.cloned(),
        fleet: applied.and_then(|applied| applied.fleet.clone()),
        prepared: false,
        not_set_up: applied.map(|applied| provision::still_not_set_up(applied, plan)).unwrap_or_default(),
        forgotten: BTreeMap::new(),
        repositories: applied.map(|applied| applied.repositories.clone()).unwrap_or_default(),
        plan: plan.clone(),
        release: None,
    };
    if let Some(applied) = applied {
        require_repositories(context.swarm, context.registry, applied, plan)?;
    }
    record = repositories::with_identities(context.swarm.host(), context.registry, record);
    if let Some(before) = applied.filter(|_| !kinds.is_empty()) {
        let left = occupants::left_for_teardown(before, &kinds);
        stop_processes::refuse_or_stop(context, before, &kinds, options, &left)?;
        unsaved_work::secure(context, before, &kinds, options.unsaved)?;
        let (before, unsaved) = (before.clone(), options.unsaved);
        record.release = Some(Box::new(Release { before, kinds, unsaved, recovery: Recovery::RollBack }));
    }
    Ok(record)
}

/// Returns the error with which [`apply`] would refuse `plan` because of unsaved work or processes. Unknown unsaved work
/// that the plan names counts as well. Changes nothing.
pub fn check_releases(
    context: &Context<'_>,
    plan: &Plan,
    applied: Option<&Record>,
    options: Options,
) -> Result<(), Error> {
    let unknown = plan
        .unsaved_work
        .iter()
        .filter(|finding| finding.is_unknown() && options.unsaved != Unsaved::Discard);
    let mut findings: Vec<_> = unknown.cloned().collect();
    let kinds = release_set::planned(plan);
    if let Some(applied) = applied {
        require_repositories(context.swarm, context.registry, applied, plan)?;
    }
    let Some(before) = applied.filter(|_| !kinds.is_empty()) else {
        return occupants::refuse(Vec::new(), 0, findings);
    };
    for finding in stop_processes::refusals(unsaved_work::check(context, before, &kinds, options.unsaved))? {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    let occupancy = occupants::occupancy_in(context.swarm, context.registry, before, plan);
    occupants::refuse(occupancy.refusals(options.occupants), occupancy.uninspected, findings)
}

impl Context<'_> {
    /// Returns whether the lease of this resource is moved aside before it is released.
    fn moves_aside(&self, session: &Session, name: &str) -> bool {
        let kind = session.allocation(name).and_then(|allocation| self.registry.get(&allocation.kind));
        kind.is_some_and(Provider::moves_aside)
    }
}

/// Action of a phase on each session and its change.
type Step<'a> = dyn Fn(&Session, &Change) -> Result<(), Failure> + Sync + 'a;

/// Predicate that is true for the sessions on which a step acts.
type SessionFilter<'a> = dyn Fn(&Session, &Change) -> bool + Sync + 'a;

/// One run over the sessions of one record.
struct Run<'a> {
    context: &'a Context<'a>,
    record: &'a Record,
    /// Host that steps run on: the caller's host, or, for rolling back, one that Ctrl-C does not cancel.
    host: &'a Host,
}

impl Run<'_> {
    /// Returns whether a resource of the session is claimed first, one session after another.
    fn is_claim(&self, session: &Session, name: &str) -> bool {
        let allocation = session.allocation(name);
        allocation.is_some_and(|allocation| {
            self.context.registry.get(&allocation.kind).is_some_and(|provider| provider.is_claim(allocation))
        })
    }

    fn repair(&self, session: &Session, name: &str) -> Result<(), Failure> {
        self.make(session, name, "repair", |provider, task| provider.repair(task))
    }

    fn make(
        &self,
        session: &Session,
        name: &str,
        step: &str,
        act: impl FnOnce(&dyn Provider, &Task<'_>) -> Result<(), provider::Error>,
    ) -> Result<(), Failure> {
        let allocation = session.allocation(name);
        let provider = allocation.and_then(|allocation| self.context.registry.get(&allocation.kind));
        let (Some(allocation), Some(provider)) = (allocation, provider) else {
            let kind = allocation.map_or(name, |allocation| &allocation.kind);
            let cause = format!("no provider of kind `{kind}` plans for it");
            return Err(Failure::new(session, &format!("{step} {name}"), cause));
        };
        crashpoint!("apply.allocation");
        self.with_task(session, allocation, |task| act(provider, task))
            .map_err(|error| Failure::from_provider(session, step, name, error))
    }

    fn write_discovery(&self, session: &Session) -> Result<(), Failure> {
        let swarm = self.context.swarm;
        let snapshot = discovery::snapshot(
            self.record,
            session,
            self.context.registry,
            swarm.workspace(),
            &swarm.host().state,
        );
        discovery::write(swarm, session, &snapshot)
            .map_err(|error| Failure::new(session, "discovery file", error.to_string()))?;
        (self.context.events)(&Event::Ready { session: session.path.clone() });
        Ok(())
    }

    /// Runs `step` for every planned session that `concerned` accepts, parents before children, and reports the phase.
    fn each(
        &self,
        phase: Phase,
        jobs: NonZeroUsize,
        concerned: &SessionFilter<'_>,
        step: &Step<'_>,
    ) -> Vec<Failure> {
        let plan = &self.record.plan;
        let is_concerned = |at: usize| concerned(&plan.sessions[at], &plan.changes[at]);
        let sessions = (0..plan.sessions.len()).filter(|at| is_concerned(*at)).count();
        if sessions == 0 {
            return Vec::new();
        }
        let report = PhaseReport::begin(self.context, phase, sessions);
        self.until_one_fails(
            |act| traverse::parents_first(&plan.sessions, jobs, act),
            |at| {
                if !is_concerned(at) {
                    return Vec::new();
                }
                match step(&plan.sessions[at], &plan.changes[at]) {
                    Ok(()) => {
                        report.passed(&plan.sessions[at].path);
                        Vec::new()
                    }
                    Err(failure) => vec![failure],
                }
            },
        )
    }

    /// Runs `act` for the positions that `walk` visits, until one fails or the run is interrupted. Steps that are
    /// already running at that moment end, and their failures are kept too.
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

/// Calls `act`, a step of a provider, with the task of one allocation of a record. A panic in `act` is a failure of
/// that step.
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
    provider::catch_panics(|| act(&task(host, record, session, &ancestors, allocation, lock)))
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
        working_directory: &session.working_directory,
        allocations: &session.allocations,
        allocation,
        files: &session.files,
        location: Location::Home,
        is_forgotten: record.is_forgotten(&session.path, allocation.name()),
        is_discarded: false,
        lock,
        on_populated: OnPopulated::default(),
        shared_results: None,
    }
}

/// Returns the ids of the sessions above `path`, nearest first.
pub(crate) fn ancestors(record: &Record, path: &SessionPath) -> Vec<String> {
    let swarm = &record.plan.swarm;
    if swarm.is_empty() {
        return record.ancestors.clone();
    }
    let path = path.as_str();
    path.rmatch_indices('/').map(|(at, _)| format!("{swarm}/{}", &path[..at])).collect()
}
