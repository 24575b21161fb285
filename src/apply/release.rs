//! Takes leases away: what a plan releases or replaces, or a whole swarm. Never work that would be lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use super::event::Telling;
use super::transaction::{self, Teardowns};
use super::{
    Context, Error, Event, Failure, Occupants, Options, Phase, Run, commands, family, kept, occupants, tree,
    with_task, work,
};
use crate::discovery;
use crate::host::Host;
use crate::host::files::Root;
use crate::name::SessionPath;
use crate::plan::{Action, Plan, Session};
use crate::state::{self, Record, Recovery, Release, Unsaved};

/// What to destroy, and how.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Destroy {
    /// The sessions, each with everything below it; empty for the whole swarm.
    pub sessions: BTreeSet<SessionPath>,
    /// What becomes of unsaved work.
    pub unsaved: Unsaved,
    /// What becomes of processes at work in the sessions.
    pub occupants: Occupants,
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
    let kinds = destroy.kinds(standing);
    let options = Options { unsaved: destroy.unsaved, occupants: destroy.occupants, ..Options::default() };
    occupants::clear(context, standing, &kinds, options, &occupants::left_for_teardown(standing, &kinds))?;
    work::secure(context, standing, &kinds, destroy.unsaved)?;
    let release =
        Release { before: standing.clone(), kinds, unsaved: destroy.unsaved, recovery: Recovery::Finish };
    let mut record = without(standing, &release.kinds);
    record.release = Some(Box::new(release));
    let done = transaction::run(context, &record, Some(standing), options);
    kept::report(context, &record, &done);
    done?;
    record.release = None;
    Ok((!record.plan.sessions.is_empty()).then_some(record))
}

impl Destroy {
    /// Destroys all sessions, in the same way.
    #[must_use]
    pub fn of_all(self) -> Self {
        Self { sessions: BTreeSet::new(), ..self }
    }

    /// The sessions that go.
    pub fn sessions_of<'r>(&self, standing: &'r Record) -> impl Iterator<Item = &'r Session> {
        let goes = |path: &SessionPath| {
            self.sessions.is_empty() || self.sessions.iter().any(|top| path.is_at_or_below(top))
        };
        standing.plan.sessions.iter().filter(move |session| goes(&session.path))
    }

    /// The kinds of the sessions that go, in the order in which they are released.
    pub(super) fn kinds(&self, standing: &Record) -> Kinds {
        self.sessions_of(standing)
            .map(|session| {
                let kinds = session.allocations.iter().rev().map(|allocation| allocation.kind.clone());
                (session.path.clone(), kinds.collect())
            })
            .collect()
    }
}

/// What applying `plan` releases.
pub(super) fn planned(plan: &Plan) -> Kinds {
    plan.changes
        .iter()
        .filter(|change| change.action == Action::Destroy || !change.release.is_empty())
        .map(|change| (change.session.clone(), change.release.clone()))
        .collect()
}

/// Kinds that are released, by session, in the order of release.
pub(super) type Kinds = BTreeMap<SessionPath, Vec<String>>;

/// Writes the discovery files of sessions that have lost children. One that is not what was written is left for the next
/// apply to find: its session's directory may be gone.
pub(super) fn write_to_parents(
    context: &Context<'_>,
    record: &Record,
    before: &Record,
    host: &Host,
) -> Vec<Failure> {
    let is_true = |session: &Session| {
        let expected = discovery::snapshot(before, session, context.registry, context.swarm.workspace());
        discovery::inspect(context.swarm, session, &expected).is_none()
    };
    let run = Run { context, record, host };
    let before: HashMap<_, _> = before.plan.sessions.iter().map(|session| (&session.path, session)).collect();
    let has_lost = |session: &&Session| {
        let before = before.get(&session.path);
        before.is_some_and(|before| before.children != session.children && is_true(before))
    };
    record.plan.sessions.iter().filter(has_lost).filter_map(|session| run.tell(session).err()).collect()
}

/// Removes the canonical discovery files of the sessions of `before` that `record` does not have.
pub(super) fn forget_discovery(
    context: &Context<'_>,
    record: &Record,
    before: &Record,
) -> Result<(), state::Error> {
    let stays: BTreeSet<_> = record.plan.sessions.iter().map(|session| &session.path).collect();
    let mut released = before.plan.sessions.iter().filter(|session| !stays.contains(&session.path));
    released.try_for_each(|session| context.swarm.remove_discovery(&session.scoped_name))
}

/// Makes what was moved aside stay there after a power failure: the next stage relies on it. A file system that cannot
/// is no reason to stop.
pub(super) fn sync(context: &Context<'_>, before: &Record, kinds: &Kinds) {
    let mut directories = BTreeSet::new();
    for session in before.plan.sessions.iter().filter(|session| kinds.contains_key(&session.path)) {
        for allocation in &session.allocations {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            let touched = with_task(context.swarm.host(), before, session, allocation, None, |task| {
                provider.debris(task)
            });
            directories.extend(touched.unwrap_or_default());
        }
    }
    for directory in directories {
        let _ = Root::open(&directory).and_then(|directory| directory.sync());
    }
}

/// Returns whether the session goes as a whole and has commands that run before.
pub(super) fn is_torn_down(session: &Session, released: &Kinds) -> bool {
    let whole = released.get(&session.path).is_some_and(|kinds| kinds.len() == session.allocations.len());
    whole && !session.teardown.is_empty()
}

/// Runs the `teardown` of sessions that go as a whole and whose `setup` has begun; a failure stops nothing. A session whose
/// directory was taken away by hand goes without: no run could ever do better. An interruption ends the commands, and leaves
/// out the rest.
pub(super) fn tear_down(
    context: &Context<'_>,
    standing: &Record,
    released: &Kinds,
    teardowns: Teardowns,
) -> Vec<Failure> {
    let sessions = &standing.plan.sessions;
    let failures = Mutex::new(Vec::new());
    let host = context.swarm.host();
    let runs = |session: &Session| {
        let begun = teardowns == Teardowns::NotBegun && commands::was_run(context.swarm, session, "teardown");
        let is_set_up = standing.not_set_up.get(&session.path).is_none_or(|it| it.begun);
        is_torn_down(session, released) && is_set_up && !begun
    };
    let count = sessions.iter().filter(|session| runs(session)).count();
    let telling = Telling::begin(context, Phase::TearDown, count);
    tree::children_first(sessions, host.jobs, |at| {
        let session = &sessions[at];
        if !runs(session) {
            return;
        }
        if let Err(why) = super::directory(context.swarm, context.registry, standing, session) {
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
                let failure = Failure::new(session, "teardown", cause);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The record without the sessions that are released, all of them with all that they own.
fn without(standing: &Record, released: &Kinds) -> Record {
    let mut after = standing.clone();
    after.plan.changes.clear();
    after.plan.sessions.retain(|session| !released.contains_key(&session.path));
    let stays: BTreeSet<_> = after.plan.sessions.iter().map(|session| session.path.clone()).collect();
    for session in &mut after.plan.sessions {
        session.children.retain(|child| stays.contains(child));
    }
    after.not_set_up.retain(|path, _| stays.contains(path));
    after.plan.digest = after.plan.computed_digest();
    after
}
