//! Provisions the sessions of a run's plan: leases, then the effects of `setup`, then discovery files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Event, Failure, Phase, Run, commands};
use crate::discovery;
use crate::host::clock;
use crate::host::failpoint::crashpoint;
use crate::host::text::printable;
use crate::name::SessionPath;
use crate::plan::{Action, Change, Plan, Session, WORKING_DIRECTORY};
use crate::provider::Allocation;
use crate::state::{self, Milestone, NotSetUp, Record};

/// Name of the step in failures of any step of provisioning.
pub(super) const PROVISION: &str = "provision";

/// Name of the step in failures of `setup`.
pub(super) const SET_UP: &str = "setup";

/// Name of the step in failures of an update in place.
const UPDATE: &str = "update";

/// Result of running `setup`.
pub(super) struct SetUp {
    /// Failures, one for each session that failed.
    pub(super) failures: Vec<Failure>,
    /// Sessions whose `setup` failed, or was not reached because of a failure.
    pub(super) not_set_up: BTreeMap<SessionPath, NotSetUp>,
}

/// Returns the sessions whose `setup` had not succeeded before a run and is not executed by the run either.
pub(super) fn still_not_set_up(applied: &Record, plan: &Plan) -> BTreeMap<SessionPath, NotSetUp> {
    let changes = plan.sessions.iter().zip(&plan.changes);
    let left = changes.filter(|(session, change)| session.has_setup() && !change.runs_setup());
    left.filter_map(|(session, _)| {
        Some((session.path.clone(), applied.not_set_up.get(&session.path)?.clone()))
    })
    .collect()
}

impl Run<'_> {
    /// Provisions the allocations of the plan's changes: claims first, then the other resources. Then groups of
    /// allocations are populated, and all are finished. Each step begins after the previous one has ended, so that fast
    /// failures occur before slow steps.
    pub(super) fn provision(&self) -> Vec<Failure> {
        for step in [Self::claim, Self::provision_others, Self::populate_and_note, Self::finish_sessions] {
            crashpoint!("apply.step");
            let failures = step(self);
            if !failures.is_empty() || self.host.cancel.is_requested() {
                return failures;
            }
        }
        Vec::new()
    }

    /// Claims resources, one session after another: of runs that request the same ones, the run that is first at the first
    /// session gets all.
    fn claim(&self) -> Vec<Failure> {
        self.provision_leases(Phase::Claim, NonZeroUsize::MIN, true)
    }

    fn provision_others(&self) -> Vec<Failure> {
        self.provision_leases(Phase::Create, self.host.jobs, false)
    }

    /// Provisions either the claims or everything else.
    fn provision_leases(&self, phase: Phase, jobs: NonZeroUsize, claims: bool) -> Vec<Failure> {
        let is_meant = |session: &Session, kind: &str| self.is_claim(session, kind) == claims;
        let concerned =
            |session: &Session, change: &Change| change.provision.iter().any(|kind| is_meant(session, kind));
        self.each(phase, jobs, &concerned, &|session, change| {
            let mut kinds = change.provision.iter().filter(|kind| is_meant(session, kind));
            kinds.try_for_each(|kind| {
                self.make(session, kind, PROVISION, |provider, task| provider.provision(task))
            })
        })
    }

    fn populate_and_note(&self) -> Vec<Failure> {
        self.noted(Milestone::Filled, self.populate())
    }

    fn finish_sessions(&self) -> Vec<Failure> {
        let concerned = |_: &Session, change: &Change| {
            !change.provision.is_empty()
                || !change.repair.is_empty()
                || !change.update.is_empty()
                || change.refresh
        };
        let applied = match self.applied_to_update() {
            Ok(applied) => applied,
            Err(failures) => return failures,
        };
        let sessions = applied.iter().flat_map(|applied| &applied.plan.sessions);
        let before = sessions.map(|session| (&session.path, session)).collect();
        let finish = |session: &Session, change: &Change| self.finish(session, change, &before);
        let mut failures = self.each(Phase::Finish, self.host.jobs, &concerned, &finish);
        if failures.is_empty() && !self.host.cancel.is_requested() {
            failures = self.seed();
        }
        self.noted(Milestone::Finished, failures)
    }

    /// Records in the journal that a step has ended, unless it failed.
    fn noted(&self, step: Milestone, failures: Vec<Failure>) -> Vec<Failure> {
        if failures.is_empty() {
            self.context.swarm.note(step, clock::file_time(), None);
        }
        failures
    }

    /// Returns the record of the applied swarm if the run updates sessions.
    fn applied_to_update(&self) -> Result<Option<Record>, Vec<Failure>> {
        let changes = self.record.plan.sessions.iter().zip(&self.record.plan.changes);
        let updated = changes.clone().find(|(_, change)| !change.update.is_empty());
        let Some((session, _)) = updated else { return Ok(None) };
        let failed = |error: state::Error| vec![Failure::new(session, UPDATE, error.to_string())];
        self.context.swarm.applied().map_err(failed)
    }

    fn finish(
        &self,
        session: &Session,
        change: &Change,
        before: &HashMap<&SessionPath, &Session>,
    ) -> Result<(), Failure> {
        for kind in &change.provision {
            self.make(session, kind, PROVISION, |provider, task| provider.finish(task))?;
            let (session, resource) = (session.path.clone(), kind.clone());
            (self.context.events)(&Event::Provisioned { session, resource });
        }
        for kind in &change.repair {
            self.repair(session, kind)?;
            let (session, resource) = (session.path.clone(), kind.clone());
            (self.context.events)(&Event::Repaired { session, resource });
        }
        for kind in &change.update {
            let from = before.get(&session.path).and_then(|before| before.allocation(kind));
            self.update(session, kind, from)?;
        }
        if change.refresh { self.refresh(session) } else { Ok(()) }
    }

    fn update(&self, session: &Session, kind: &str, from: Option<&Allocation>) -> Result<(), Failure> {
        let Some(from) = from else {
            let cause = format!("the applied swarm has no {kind} of it");
            return Err(Failure::new(session, UPDATE, cause));
        };
        self.make(session, kind, UPDATE, |provider, task| {
            for description in provider.update(task, from)? {
                (self.context.events)(&Event::NotUpdated { session: session.path.clone(), description });
            }
            Ok(())
        })?;
        let (session, resource) = (session.path.clone(), kind.to_owned());
        (self.context.events)(&Event::Updated { session, resource });
        Ok(())
    }

    fn refresh(&self, session: &Session) -> Result<(), Failure> {
        for allocation in &session.allocations {
            self.make(session, allocation.name(), "refresh", |provider, task| {
                for description in provider.refresh(task)? {
                    (self.context.events)(&Event::NotRefreshed {
                        session: session.path.clone(),
                        description,
                    });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Runs `setup` in the provisioned sessions, and in others for which the plan requires it.
    pub(super) fn set_up_sessions(&self) -> SetUp {
        crashpoint!("apply.setting-up");
        let done = Mutex::new(BTreeSet::new());
        let concerned = |session: &Session, change: &Change| change.runs_setup() && !session.setup.is_empty();
        let failures = self.each(Phase::SetUp, self.host.jobs, &concerned, &|session, _| {
            self.set_up(session)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(session.path.clone());
            Ok(())
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let causes: BTreeMap<_, _> =
            failures.iter().map(|failure| (&failure.session, &failure.cause)).collect();
        let changes = self.record.plan.sessions.iter().zip(&self.record.plan.changes);
        let left = changes.filter(|(session, change)| {
            !failures.is_empty() && concerned(session, change) && !done.contains(&session.path)
        });
        let not_set_up = left
            .map(|(session, _)| {
                let why = match causes.get(&session.path) {
                    Some(cause) => failed(cause),
                    None => {
                        NotSetUp { begun: false, why: "was not run: another one failed before".to_owned() }
                    }
                };
                (session.path.clone(), why)
            })
            .collect();
        SetUp { failures, not_set_up }
    }

    fn set_up(&self, session: &Session) -> Result<(), Failure> {
        crashpoint!("apply.set-up");
        let swarm = self.context.swarm;
        swarm.note(Milestone::SettingUp, clock::file_time(), Some(&session.path));
        commands::run(swarm, self.host, session, SET_UP, &session.setup)
            .map_err(|cause| Failure::new(session, SET_UP, cause))?;
        swarm.note(Milestone::SetUp, clock::file_time_after(), Some(&session.path));
        (self.context.events)(&Event::SetUp { session: session.path.clone() });
        Ok(())
    }

    /// Writes the discovery files of all sessions that change.
    pub(super) fn write_discovery_files(&self) -> Vec<Failure> {
        crashpoint!("apply.report");
        let concerned = |_: &Session, change: &Change| change.action != Action::Keep;
        let before = match self.earlier_discovery_files() {
            Ok(before) => before,
            Err(failures) => return failures,
        };
        let failures = self.each(Phase::WriteDiscovery, self.host.jobs, &concerned, &|session, _| {
            self.write_discovery(session)?;
            before.get(&session.path).map_or(Ok(()), |path| self.remove_discovery(session, path))
        });
        if failures.is_empty() && !self.host.cancel.is_requested() {
            crashpoint!("apply.told");
        }
        failures
    }
}

impl Run<'_> {
    /// Returns the discovery files of active sessions that stay, and work in another directory from now on.
    fn earlier_discovery_files(&self) -> Result<BTreeMap<SessionPath, PathBuf>, Vec<Failure>> {
        let changes = self.record.plan.sessions.iter().zip(&self.record.plan.changes);
        let moved: BTreeMap<_, _> = changes
            .filter(|(_, change)| change.fields.iter().any(|field| field.name == WORKING_DIRECTORY))
            .map(|(session, _)| (&session.path, session))
            .collect();
        let Some(first) = moved.values().next() else { return Ok(BTreeMap::new()) };
        let failed = |error: state::Error| vec![Failure::new(first, "discovery file", error.to_string())];
        let applied = self.context.swarm.applied().map_err(failed)?;
        let before = applied.into_iter().flat_map(|applied| applied.plan.sessions);
        let before = before.filter_map(|before| {
            let path = before.discovery_file?;
            let after = moved.get(&before.path)?.discovery_file.as_ref();
            (after != Some(&path)).then_some((before.path, path))
        });
        Ok(before.collect())
    }

    /// Removes a discovery file from a directory in which the session no longer works.
    pub(super) fn remove_discovery(&self, session: &Session, path: &Path) -> Result<(), Failure> {
        discovery::remove(self.context.swarm.workspace(), path)
            .map_err(|error| Failure::new(session, "discovery file", error.to_string()))
    }
}

/// Returns the record of a `setup` that has failed.
pub(super) fn failed(cause: &str) -> NotSetUp {
    NotSetUp { begun: true, why: format!("failed: {}", on_one_line(cause)) }
}

/// Returns the cause of a failure on one line.
fn on_one_line(cause: &str) -> String {
    printable(&cause.lines().map(str::trim).collect::<Vec<_>>().join("; "))
}
