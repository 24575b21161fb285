//! Visits the leases that a run releases, moves aside or brings back.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::event::PhaseReport;
use super::release_set::ResourcesBySession;
use super::{Event, Failure, Phase, Run, traverse};
use crate::host::failpoint::crashpoint;
use crate::name::SessionPath;
use crate::plan::Session;
use crate::provider::{self, Location, Provider, Task};

/// Action of a walk on one lease.
type Act<'a> = dyn Fn(&dyn Provider, &Task<'_>) -> Result<(), provider::Error> + Sync + 'a;

/// Order of a walk, and its reaction to a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traversal {
    /// Children before their parents, kinds in the order given; halts at a failure and when the run is cancelled.
    Leave,
    /// Children before their parents, kinds in the order given; continues after a failure.
    Release,
    /// Parents before their children, kinds in reverse order; continues after a failure.
    Return,
}

impl Run<'_> {
    /// Releases leases at `location`. Claims are released last, one session after another: no port becomes free while a
    /// resource exists that was created after the claim. Claims of a session are kept if a resource of the session, or
    /// of one below, remains.
    pub(super) fn release(
        &self,
        phase: Phase,
        location: Location,
        kinds: &ResourcesBySession,
    ) -> Vec<Failure> {
        let report = self.report(phase, kinds);
        let release = |session: &Session, kind: &str| {
            crashpoint!("release.allocation");
            self.act(session, kind, "release", location, &|provider, task| provider.release(task))?;
            let (session, resource) = (session.path.clone(), kind.to_owned());
            (self.context.events)(&Event::Released { session, resource });
            Ok(())
        };
        let part = |claims: bool| -> ResourcesBySession {
            let of_session = |session: &Session| {
                let kinds = kinds.get(&session.path)?.iter();
                let kinds: Vec<_> =
                    kinds.filter(|kind| self.is_claim(session, kind) == claims).cloned().collect();
                (!kinds.is_empty()).then(|| (session.path.clone(), kinds))
            };
            self.record.plan.sessions.iter().filter_map(of_session).collect()
        };
        let mut claims = part(true);
        let passed = |path: &SessionPath| {
            if !claims.contains_key(path) {
                report.passed(path);
            }
        };
        let mut failures = self.traverse(&part(false), Traversal::Release, &passed, &release);
        claims.retain(|path, _| !failures.iter().any(|failure| failure.session.is_at_or_below(path)));
        failures.extend(self.traverse(&claims, Traversal::Release, &|path| report.passed(path), &release));
        failures
    }

    /// Performs one step of moving leases aside, up to the first failure.
    pub(super) fn move_aside_step(
        &self,
        phase: Phase,
        step: &str,
        kinds: &ResourcesBySession,
        act: &Act<'_>,
    ) -> Vec<Failure> {
        let report = self.report(phase, kinds);
        self.traverse(kinds, Traversal::Leave, &|path| report.passed(path), &|session, kind| {
            crashpoint!("leave.allocation");
            self.act(session, kind, step, Location::Home, act)
        })
    }

    /// Brings leases back.
    pub(super) fn bring_back(&self, kinds: &ResourcesBySession, act: &Act<'_>) -> Vec<Failure> {
        let report = self.report(Phase::BringBack, kinds);
        self.traverse(kinds, Traversal::Return, &|path| report.passed(path), &|session, kind| {
            crashpoint!("bring-back.allocation");
            self.act(session, kind, "bring back", Location::Home, act)
        })
    }

    fn report(&self, phase: Phase, kinds: &ResourcesBySession) -> PhaseReport<'_> {
        PhaseReport::begin(self.context, phase, kinds.values().filter(|kinds| !kinds.is_empty()).count())
    }

    fn act(
        &self,
        session: &Session,
        name: &str,
        step: &str,
        location: Location,
        act: &Act<'_>,
    ) -> Result<(), Failure> {
        let Some(allocation) = session.allocation(name) else { return Ok(()) };
        let Some(provider) = self.context.registry.get(&allocation.kind) else { return Ok(()) };
        self.with_task(session, allocation, |task| act(provider, &Task { location, ..*task }))
            .map_err(|error| Failure::from_provider(session, step, name, error))
    }

    /// Visits the sessions of `kinds`; calls `passed` for each in which nothing failed.
    fn traverse(
        &self,
        kinds: &ResourcesBySession,
        walk: Traversal,
        passed: &(dyn Fn(&SessionPath) + Sync),
        act: &(dyn Fn(&Session, &str) -> Result<(), Failure> + Sync),
    ) -> Vec<Failure> {
        let sessions = &self.record.plan.sessions;
        let of = |session: &Session| kinds.get(&session.path).map_or(&[][..], Vec::as_slice);
        let is_claim = |session: &Session| of(session).iter().all(|kind| self.is_claim(session, kind));
        // Claims are acquired and released one session after another.
        let jobs = if sessions.iter().all(is_claim) { NonZeroUsize::MIN } else { self.host.jobs };
        let failures = Mutex::new(Vec::new());
        let halted = AtomicBool::new(false);
        let visit = |at: usize| {
            let session = &sessions[at];
            let mut kinds: Vec<&String> = of(session).iter().collect();
            if kinds.is_empty() {
                return;
            }
            if walk == Traversal::Return {
                kinds.reverse();
            }
            let mut is_through = true;
            for kind in kinds {
                let stops = walk == Traversal::Leave
                    && (halted.load(Ordering::Relaxed) || self.host.cancel.is_requested());
                if stops {
                    return;
                }
                if let Err(failure) = act(session, kind) {
                    is_through = false;
                    halted.store(true, Ordering::Relaxed);
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                }
            }
            if is_through {
                passed(&session.path);
            }
        };
        if walk == Traversal::Return {
            traverse::parents_first(sessions, jobs, visit);
        } else {
            traverse::children_first(sessions, jobs, visit);
        }
        failures.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
