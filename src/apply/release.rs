//! Takes leases away: what a plan releases or replaces, or a whole swarm. Never work that would be lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::event::Telling;
use super::{Context, Error, Event, Failure, Phase, Run, commands, failure, failure_of, family, tree, work};
use crate::discovery;
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::process::Cancel;
use crate::name::SessionPath;
use crate::plan::{Action, Change, Plan, Session};
use crate::provider::{Allocation, Registry};
use crate::state::{self, Record, Releasing, Unsaved};

/// What to destroy, and how.
#[derive(Clone, Debug, Default)]
pub struct Destroy {
    /// The sessions, each with everything below it; empty for the whole swarm.
    pub sessions: BTreeSet<SessionPath>,
    /// What becomes of unsaved work.
    pub unsaved: Unsaved,
    /// Whether the children go too that programs have provisioned from these sessions, first of all; else they are
    /// refused. Default: `false`.
    pub children: bool,
}

/// Releases sessions of a standing swarm, children first. What stands of it afterwards is returned.
///
/// An interrupted run is recovered first, by [`super::recover()`]; until then this is [`state::Error::Unrecovered`].
pub fn destroy(context: &Context<'_>, standing: &Record, destroy: &Destroy) -> Result<Option<Record>, Error> {
    context.swarm.settled()?;
    if destroy.children {
        family::destroy_children(context, standing, destroy)?;
    }
    release(context, standing, &destroy.released(standing), destroy.unsaved)
}

impl Destroy {
    /// The sessions that go.
    pub fn sessions_of<'r>(&self, standing: &'r Record) -> impl Iterator<Item = &'r Session> {
        let goes = |path: &SessionPath| {
            self.sessions.is_empty() || self.sessions.iter().any(|top| path.is_at_or_below(top))
        };
        standing.plan.sessions.iter().filter(move |session| goes(&session.path))
    }

    /// The kinds of the sessions that go, in the order in which they are released.
    pub(super) fn released(&self, standing: &Record) -> Released {
        self.sessions_of(standing)
            .map(|session| {
                let kinds = session.allocations.iter().rev().map(|allocation| allocation.kind.clone());
                (session.path.clone(), kinds.collect())
            })
            .collect()
    }
}

/// Releases what `plan`'s changes say; what stands afterwards is returned.
pub(super) fn release_changed(
    context: &Context<'_>,
    plan: &Plan,
    standing: Option<&Record>,
    unsaved: Unsaved,
) -> Result<Option<Record>, Error> {
    let Some(standing) = standing else { return Ok(None) };
    let released = goes(plan);
    if released.is_empty() {
        return Ok(Some(standing.clone()));
    }
    release(context, standing, &released, unsaved)
}

/// What applying `plan` releases.
pub(super) fn goes(plan: &Plan) -> Released {
    plan.changes
        .iter()
        .filter(|change| change.action == Action::Destroy || !change.release.is_empty())
        .map(|change| (change.session.clone(), change.release.clone()))
        .collect()
}

/// Which kinds of which sessions are released, in order.
pub(super) type Released = BTreeMap<SessionPath, Vec<String>>;

/// What a release under way releases.
pub(super) fn released_by(releasing: &Releasing) -> Released {
    let changes = &releasing.before.plan.changes;
    changes.iter().map(|change| (change.session.clone(), change.release.clone())).collect()
}

fn release(
    context: &Context<'_>,
    standing: &Record,
    released: &Released,
    unsaved: Unsaved,
) -> Result<Option<Record>, Error> {
    work::secure(context, standing, released, unsaved)?;
    let after = without(context.registry, standing, released);
    let mut before = standing.clone();
    before.plan.changes = released
        .iter()
        .map(|(session, kinds)| Change {
            session: session.clone(),
            action: Action::Destroy,
            reasons: Vec::new(),
            release: kinds.clone(),
            provision: Vec::new(),
            from: BTreeMap::new(),
            mend: Vec::new(),
            fields: Vec::new(),
        })
        .collect();
    let releasing =
        Releasing { schema_version: state::SCHEMA_VERSION, before, after: after.clone(), unsaved };
    work::begin(context, &releasing, released)?;
    crashpoint!("destroy.intended");
    let torn_down = tear_down(context, standing, released);
    crashpoint!("destroy.torn-down");
    if !torn_down.is_empty() && context.swarm.host().cancel.is_requested() {
        // Nothing has gone yet, and what was not torn down still can be.
        context.swarm.take_back_release().map_err(Error::Unfinished)?;
        return Err(Error::Failed { failures: Vec::new(), leftovers: Vec::new(), interrupted: true });
    }
    finish(context, &releasing, torn_down)?;
    Ok(after)
}

/// Releases everything that `releasing` says, then makes what is left what stands.
pub(super) fn finish(
    context: &Context<'_>,
    releasing: &Releasing,
    mut failures: Vec<Failure>,
) -> Result<(), Error> {
    let released = released_by(releasing);
    // A release that has begun is finished: half a session is of no use to anybody.
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    let run = Run { context, record: &releasing.before, host: &host };
    let mut leftovers = run.release(Phase::Release, &released);
    crashpoint!("destroy.released");
    if leftovers.is_empty() {
        leftovers = tell_parents(context, releasing, &host);
    }
    if !leftovers.is_empty() {
        failures.extend(leftovers.iter().cloned());
        return Err(Error::Failed { failures, leftovers, interrupted: false });
    }
    let stays: BTreeSet<_> =
        releasing.after.iter().flat_map(|after| &after.plan.sessions).map(|session| &session.path).collect();
    for session in releasing.before.plan.sessions.iter().filter(|session| !stays.contains(&session.path)) {
        context.swarm.remove_discovery(&session.scoped_name).map_err(Error::Unfinished)?;
    }
    crashpoint!("destroy.told");
    context.swarm.end_release(releasing.after.as_ref()).map_err(Error::Unfinished)?;
    crashpoint!("destroy.ended");
    if failures.is_empty() { Ok(()) } else { Err(Error::NotTornDown(failures)) }
}

/// Tells sessions that have lost children so. A discovery file that is not what was written is left for the next
/// apply to find: its session's directory may be gone.
fn tell_parents(context: &Context<'_>, releasing: &Releasing, host: &Host) -> Vec<Failure> {
    let Some(after) = &releasing.after else { return Vec::new() };
    let is_true = |session: &Session| {
        let plan = &releasing.before.plan;
        let expected = discovery::snapshot(plan, session, context.registry, context.swarm.workspace());
        discovery::inspect(context.swarm, session, &expected).is_none()
    };
    let run = Run { context, record: after, host };
    let before = &releasing.before.plan.sessions;
    let before: HashMap<_, _> = before.iter().map(|session| (&session.path, session)).collect();
    after
        .plan
        .sessions
        .iter()
        .filter(|session| {
            let before = before.get(&session.path);
            before.is_some_and(|before| before.children != session.children && is_true(before))
        })
        .filter_map(|session| run.tell(session).err())
        .collect()
}

/// Runs the `teardown` of sessions that go as a whole; a failure stops nothing. A session whose directory was taken away
/// by hand goes without: no run could ever do better. An interruption ends the commands, and leaves out the rest.
fn tear_down(context: &Context<'_>, standing: &Record, released: &Released) -> Vec<Failure> {
    let sessions = &standing.plan.sessions;
    let failures = Mutex::new(Vec::new());
    let host = context.swarm.host();
    let is_torn_down = |session: &Session| {
        let whole = released.get(&session.path).is_some_and(|kinds| kinds.len() == session.allocations.len());
        whole && !session.teardown.is_empty()
    };
    let count = sessions.iter().filter(|session| is_torn_down(session)).count();
    let telling = Telling::begin(context, Phase::TearDown, count);
    tree::children_first(sessions, host.jobs, |at| {
        let session = &sessions[at];
        if !is_torn_down(session) {
            return;
        }
        if let Err(why) = discovery::directory(context.swarm, session) {
            (context.events)(&Event::NotTornDown { session: session.path.clone(), why });
            telling.passed(&session.path);
            return;
        }
        match commands::run(context.swarm, host, session, "teardown", &session.teardown) {
            Ok(()) => {
                (context.events)(&Event::TornDown { session: session.path.clone() });
                telling.passed(&session.path);
            }
            Err(cause) => {
                let failure = failure(session, "teardown", cause);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    /// Releases kinds of sessions in the reverse of the order in which they are provisioned, and returns what fails: first
    /// everything that is not a claim, children first and in the order given, then the claims of all sessions, one after
    /// another. So no port is free while what was made after it exists.
    ///
    /// Goes on past a failure, but keeps the claims of a session in which, or below which, something is left.
    pub(super) fn release(&self, phase: Phase, released: &Released) -> Vec<Failure> {
        let sessions = &self.record.plan.sessions;
        let kinds_of = |session: &Session| released.get(&session.path).map_or(&[][..], Vec::as_slice);
        let (has_kinds, has_claims) = (
            |session: &Session| !kinds_of(session).is_empty(),
            |session: &Session| kinds_of(session).iter().any(|kind| self.is_claim(kind)),
        );
        let telling =
            Telling::begin(self.context, phase, sessions.iter().filter(|session| has_kinds(session)).count());
        let failures = Mutex::new(Vec::new());
        let failed = |found: Vec<Failure>| {
            failures.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        };
        tree::children_first(sessions, self.host.jobs, |at| {
            let session = &sessions[at];
            let found = self.release_kinds(session, kinds_of(session), false);
            if found.is_empty() && has_kinds(session) && !has_claims(session) {
                telling.passed(&session.path);
            }
            failed(found);
        });
        let is_left = |session: &Session| {
            let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.iter().any(|failure| failure.session.is_at_or_below(&session.path))
        };
        tree::children_first(sessions, NonZeroUsize::MIN, |at| {
            let session = &sessions[at];
            if !has_claims(session) || is_left(session) {
                return;
            }
            let found = self.release_kinds(session, kinds_of(session), true);
            if found.is_empty() {
                telling.passed(&session.path);
            }
            failed(found);
        });
        failures.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases those of the kinds that are claims, or those that are not.
    fn release_kinds(&self, session: &Session, kinds: &[String], claims: bool) -> Vec<Failure> {
        let mut failures = Vec::new();
        for kind in kinds.iter().filter(|kind| self.is_claim(kind) == claims) {
            let (Some(allocation), Some(provider)) =
                (session.allocation(kind), self.context.registry.get(kind))
            else {
                continue;
            };
            crashpoint!("release.allocation");
            match self.with_task(session, allocation, |task| provider.release(task)) {
                Ok(()) => (self.context.events)(&Event::Released {
                    session: session.path.clone(),
                    kind: kind.clone(),
                }),
                Err(error) => failures.push(failure_of(session, "release", kind, &error)),
            }
        }
        failures
    }
}

/// The record without what is released; `None` where no session is left.
fn without(registry: &Registry, standing: &Record, released: &Released) -> Option<Record> {
    let mut after = standing.clone();
    after.plan.changes.clear();
    after.plan.sessions.retain(|session| {
        released.get(&session.path).is_none_or(|kinds| kinds.len() < session.allocations.len())
    });
    for session in &mut after.plan.sessions {
        if let Some(kinds) = released.get(&session.path) {
            let gives_directory = |held: &&Allocation| {
                kinds.contains(&held.kind)
                    && registry.get(&held.kind).is_some_and(|of| of.context(held).working_directory.is_some())
            };
            if session.allocations.iter().find(gives_directory).is_some() {
                // Nothing must be written, let alone run, where its directory was.
                session.working_directory = PathBuf::from(".");
                session.discovery_file = None;
            }
            session.allocations.retain(|allocation| !kinds.contains(&allocation.kind));
        }
    }
    let stays: BTreeSet<_> = after.plan.sessions.iter().map(|session| session.path.clone()).collect();
    for session in &mut after.plan.sessions {
        session.children.retain(|child| stays.contains(child));
    }
    after.plan.digest = after.plan.computed_digest();
    (!after.plan.sessions.is_empty()).then_some(after)
}
