//! Unsaved work: what a release would lose, and how it is kept from that. A dry run and the real one decide here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::event::Telling;
use super::release::{self, Destroy, Kinds};
use super::since::Interrupted;
use super::{Context, Error, Event, Failure, Phase, family, inner, transaction, tree, with_task};
use crate::host::Host;
use crate::host::process::Cancel;
use crate::name::SessionPath;
pub use crate::plan::Loss;
use crate::plan::{Damage, Plan, Session};
use crate::provider::{Allocation, Condition, Findings, Location, Losses, Provider, Registry, Rescue, Task};
use crate::state::{self, Record, Stage, Swarm, Unsaved};

/// What goes with sessions that are released, in order of the sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AtStake {
    /// Nobody here may give these up: sessions on their own that hold a share of what is released, or stand inside it, and
    /// resources of a kind that only another program knows.
    pub held: Vec<Loss>,
    /// Things inside that are not the sessions', and things that cannot be removed. Nothing releases them unasked.
    pub obstacles: Vec<Loss>,
    /// Work that is saved nowhere else, and that a rescue saves.
    pub work: Vec<Loss>,
    /// Work that is saved nowhere else, and that no rescue saves.
    pub beyond_rescue: Vec<Loss>,
    /// What cannot be found out: it is refused, unless whatever it is is given up.
    pub unknown: Vec<Loss>,
    /// What goes along and is no reason to refuse: files that git ignores, commits that were rewritten.
    pub passing: Vec<Loss>,
}

impl AtStake {
    /// Adds what goes with others.
    pub fn add(&mut self, more: Self) {
        self.held.extend(more.held);
        self.obstacles.extend(more.obstacles);
        self.work.extend(more.work);
        self.beyond_rescue.extend(more.beyond_rescue);
        self.unknown.extend(more.unknown);
        self.passing.extend(more.passing);
    }

    /// What a release is refused for; empty where it is not.
    pub fn refused(&self, unsaved: Unsaved) -> Vec<Loss> {
        let kinds: &[&Vec<Loss>] = match unsaved {
            Unsaved::Keep => &[&self.held, &self.obstacles, &self.work, &self.beyond_rescue, &self.unknown],
            Unsaved::Rescue => &[&self.held, &self.obstacles, &self.beyond_rescue, &self.unknown],
            Unsaved::Discard => &[&self.held, &self.obstacles],
        };
        let mut refused: Vec<Loss> = kinds.iter().flat_map(|losses| losses.iter().cloned()).collect();
        refused.sort_by(|one, other| one.session.cmp(&other.session));
        refused
    }
}

/// What [`super::destroy`] would find at stake. Changes nothing.
pub fn at_stake(
    swarm: &Swarm<'_>,
    registry: &Registry,
    standing: &Record,
    destroy: &Destroy,
) -> Result<AtStake, state::Error> {
    if destroy.children {
        return family::at_stake(swarm, registry, standing, destroy);
    }
    stake_of(swarm, registry, standing, &destroy.kinds(standing), &Findings::default())
}

/// What [`super::apply`] would find at stake in what `plan` releases, with the findings of the survey that it was planned
/// from. Changes nothing.
pub fn at_stake_in(
    swarm: &Swarm<'_>,
    registry: &Registry,
    standing: &Record,
    plan: &Plan,
    findings: &Findings,
) -> Result<AtStake, state::Error> {
    let released = release::planned(plan);
    if released.is_empty() {
        return Ok(AtStake::default());
    }
    stake_of(swarm, registry, standing, &released, findings)
}

/// The damage of leases, by session and kind.
pub type Broken = BTreeMap<(SessionPath, String), Damage>;

/// What is broken of a standing swarm, as [`super::inspect`] finds it, and what would be at stake if all of it were
/// released. A program of an external kind is asked once for both. Changes nothing.
pub fn examine(
    swarm: &Swarm<'_>,
    registry: &Registry,
    standing: &Record,
) -> Result<(Broken, AtStake), state::Error> {
    let findings = Findings::default();
    let broken = super::inspect::inspect_sharing(swarm, registry, standing, &findings);
    let everything = Destroy::default().kinds(standing);
    Ok((broken, stake_of(swarm, registry, standing, &everything, &findings)?))
}

fn stake_of(
    swarm: &Swarm<'_>,
    registry: &Registry,
    standing: &Record,
    released: &Kinds,
    findings: &Findings,
) -> Result<AtStake, state::Error> {
    let mut stake = stake_without_children(swarm, registry, standing, released, findings)?;
    stake.held.extend(children_on_their_own(swarm.host(), standing, released)?);
    Ok(stake)
}

/// The same where the children go too.
pub(super) fn stake_without_children(
    swarm: &Swarm<'_>,
    registry: &Registry,
    standing: &Record,
    released: &Kinds,
    findings: &Findings,
) -> Result<AtStake, state::Error> {
    let mut stake = look(swarm.host(), registry, standing, released, Location::Home, findings, None).0;
    stake.held.extend(unknown(registry, standing, released).map(|(session, kind)| Loss {
        session: session.path.clone(),
        what: format!("only the program that provisioned its `{kind}` can release it"),
        unknown: false,
    }));
    stake.obstacles.extend(inner::swarms(swarm, registry, standing, released)?);
    Ok(stake)
}

/// Lets a run begin only if nothing would be lost by what it releases: unsaved work is refused, unless it is given up or
/// can be saved.
pub(super) fn secure(
    context: &Context<'_>,
    standing: &Record,
    released: &Kinds,
    unsaved: Unsaved,
) -> Result<(), Error> {
    let stake = judge(context, standing, released, unsaved)?;
    for Loss { session, what, .. } in stake.passing {
        (context.events)(&Event::GoesAlong { session, what });
    }
    Ok(())
}

/// Refuses to release a resource of a kind that only another program knows: half a session is of no use to anybody.
pub(super) fn known(context: &Context<'_>, record: &Record, released: &Kinds) -> Result<(), Error> {
    match unknown(context.registry, record, released).next() {
        None => Ok(()),
        Some((session, kind)) => {
            Err(Error::UnknownKind { session: session.id.clone(), kind: kind.to_owned() })
        }
    }
}

/// The resources to be released whose kinds the registry does not know, with their sessions.
fn unknown<'r>(
    registry: &Registry,
    record: &'r Record,
    released: &Kinds,
) -> impl Iterator<Item = (&'r Session, &'r str)> {
    let held = record
        .plan
        .sessions
        .iter()
        .flat_map(|session| session.allocations.iter().map(move |allocation| (session, allocation)));
    held.filter(|(session, allocation)| {
        let kinds = released.get(&session.path);
        kinds.is_some_and(|kinds| kinds.contains(&allocation.kind)) && registry.provider(allocation).is_none()
    })
    .map(|(session, allocation)| (session, allocation.kind.as_str()))
}

/// Judges unsaved work again once it was moved aside, where nothing changes it any more, and saves it there: work that came
/// after [`secure`] is refused or saved like the rest.
pub(super) fn judge_aside(
    context: &Context<'_>,
    before: &Record,
    kinds: &Kinds,
    unsaved: Unsaved,
) -> Result<(), Error> {
    if unsaved == Unsaved::Discard {
        return Ok(());
    }
    // What stays where it is can change again at any time; it is only judged again to be rescued.
    let is_judged = |kind: &&String| unsaved == Unsaved::Rescue || context.moves_aside(kind);
    let judged = |kinds: &Vec<String>| kinds.iter().filter(is_judged).cloned().collect();
    let kinds = kinds.iter().map(|(path, kinds)| (path.clone(), judged(kinds))).collect();
    let host = context.swarm.host();
    let (stake, with_work) =
        look(host, context.registry, before, &kinds, Location::Aside, &Findings::default(), None);
    if host.cancel.is_requested() {
        return Ok(());
    }
    let refused = stake.refused(unsaved);
    if !refused.is_empty() {
        return Err(Error::Refused(refused));
    }
    if with_work.is_empty() {
        return Ok(());
    }
    save(context, before, &with_work, Location::Aside)
}

/// Rescues the work of these kinds of these sessions.
fn save(context: &Context<'_>, record: &Record, with_work: &Kinds, location: Location) -> Result<(), Error> {
    context.swarm.begin_rescue()?;
    let rescued = rescue(context, record, with_work, location);
    // What could not be swept now is swept by the next recovery.
    if sweep(context, record).is_ok() {
        context.swarm.end_rescue()?;
    }
    rescued
}

/// Refuses to undo the interrupted run of `record` where work would be lost that was done since in what it `provisioned`,
/// unless the work is given up or can be saved. Returns the kinds, by session, that have work to save.
///
/// What is given up need not be looked for: releasing reports what is in its way.
pub(super) fn judge_interrupted(
    context: &Context<'_>,
    record: &Record,
    provisioned: &Kinds,
    unsaved: Unsaved,
) -> Result<Kinds, Error> {
    if unsaved == Unsaved::Discard {
        return Ok(Kinds::new());
    }
    let host = context.swarm.host();
    let (mut stake, mut with_work) = stake_since(context.swarm, context.registry, record, provisioned)?;
    if !stake.refused(unsaved).is_empty() && mend(context, record, provisioned) {
        (stake, with_work) = stake_since(context.swarm, context.registry, record, provisioned)?;
    }
    if host.cancel.is_requested() {
        return Err(Error::Interrupted);
    }
    let refused = stake.refused(unsaved);
    if refused.is_empty() { Ok(with_work) } else { Err(Error::Refused(refused)) }
}

/// Saves work that was done in what an interrupted run provisioned.
pub(super) fn save_interrupted(
    context: &Context<'_>,
    record: &Record,
    with_work: &Kinds,
) -> Result<(), Error> {
    if with_work.is_empty() { Ok(()) } else { save(context, record, with_work, Location::Home) }
}

/// Finds what recovery would lose of what was done since in what an interrupted run has provisioned. Changes nothing.
///
/// Empty where no run was interrupted while it provisioned.
pub fn at_stake_since(swarm: &Swarm<'_>, registry: &Registry) -> Result<AtStake, state::Error> {
    let Some((record, Stage::Provisioning)) = swarm.interrupted()? else { return Ok(AtStake::default()) };
    Ok(stake_since(swarm, registry, &record, &transaction::provisioned(&record))?.0)
}

fn stake_since(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    provisioned: &Kinds,
) -> Result<(AtStake, Kinds), state::Error> {
    let interrupted = Interrupted::read(swarm, registry, record, provisioned)?;
    let (host, findings) = (swarm.host(), Findings::default());
    let (mut stake, with_work) =
        look(host, registry, record, provisioned, Location::Home, &findings, Some(&interrupted));
    stake.held = children_on_their_own(host, record, provisioned)?;
    stake.obstacles.extend(inner::swarms(swarm, registry, record, provisioned)?);
    Ok((stake, with_work))
}

/// Mends what can be mended of what an interrupted run has provisioned, so that it can be judged: after a reboot, overlays
/// are not mounted. Returns whether anything was.
fn mend(context: &Context<'_>, record: &Record, provisioned: &Kinds) -> bool {
    let host = context.swarm.host();
    let mended = AtomicBool::new(false);
    each(&record.plan.sessions, provisioned, context.registry, host, |session, allocation, provider| {
        let lock = Some(context.swarm.file());
        let done =
            with_task(host, record, session, allocation, lock, |task| match provider.inspect(task)? {
                Condition::Mendable(_) => provider.mend(task).map(|()| true),
                Condition::Sound | Condition::Broken(_) | Condition::Unknown(_) => Ok(false),
            });
        // What cannot be mended stays refused, with the reason that was found.
        if done.unwrap_or(false) {
            mended.store(true, Ordering::Relaxed);
        }
    });
    mended.into_inner()
}

/// Refuses a release that would lose work. Otherwise returns what goes along with it.
pub(super) fn judge(
    context: &Context<'_>,
    standing: &Record,
    released: &Kinds,
    unsaved: Unsaved,
) -> Result<AtStake, Error> {
    let host = context.swarm.host();
    known(context, standing, released)?;
    ready(context, standing, released)?;
    let mut stake = match unsaved {
        // Work that is given up need not be looked for, and often cannot be.
        Unsaved::Discard => {
            let obstacles = obstacles(host, context.registry, standing, released);
            AtStake { obstacles, ..AtStake::default() }
        }
        Unsaved::Keep | Unsaved::Rescue => {
            look(host, context.registry, standing, released, Location::Home, &Findings::default(), None).0
        }
    };
    stake.held = children_on_their_own(host, standing, released)?;
    stake.obstacles.extend(inner::swarms(context.swarm, context.registry, standing, released)?);
    if host.cancel.is_requested() && unsaved != Unsaved::Discard {
        return Err(Error::Failed { failures: Vec::new(), leftovers: Vec::new(), interrupted: true });
    }
    let refused = stake.refused(unsaved);
    if refused.is_empty() { Ok(stake) } else { Err(Error::Refused(refused)) }
}

/// Makes sure that what is to be released can be.
pub(super) fn ready(context: &Context<'_>, record: &Record, released: &Kinds) -> Result<(), Error> {
    let host = context.swarm.host();
    let mut asked = BTreeSet::new();
    for session in &record.plan.sessions {
        for kind in released.get(&session.path).into_iter().flatten().filter(|kind| asked.insert(*kind)) {
            let (Some(allocation), Some(provider)) = (session.allocation(kind), context.registry.get(kind))
            else {
                continue;
            };
            with_task(host, record, session, allocation, None, |task| provider.ready(task)).map_err(
                |error| Error::Failed {
                    failures: vec![Failure::from_provider(session, "release", kind, error)],
                    leftovers: Vec::new(),
                    interrupted: host.cancel.is_requested(),
                },
            )?;
        }
    }
    Ok(())
}

/// Takes away what rescues of this swarm have left, after one that was killed.
pub(super) fn sweep_after_a_kill(context: &Context<'_>) -> Result<(), Error> {
    if !context.swarm.is_rescuing()? {
        return Ok(());
    }
    let interrupted = context.swarm.interrupted()?.map(|(record, _)| record);
    let before =
        interrupted.iter().filter_map(|record| record.release.as_ref()).map(|release| &release.before);
    for record in before.chain(&interrupted).chain(context.swarm.standing()?.iter()) {
        sweep(context, record).map_err(|failure| Error::Failed {
            failures: Vec::new(),
            leftovers: vec![failure],
            interrupted: false,
        })?;
    }
    Ok(context.swarm.end_rescue()?)
}

fn sweep(context: &Context<'_>, record: &Record) -> Result<(), Failure> {
    // Taking away is not interrupted by the Ctrl-C that caused it.
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    for session in &record.plan.sessions {
        for allocation in &session.allocations {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            let lock = Some(context.swarm.file());
            with_task(&host, record, session, allocation, lock, |task| provider.sweep(task))
                .map_err(|error| Failure::from_provider(session, "sweep", &allocation.kind, error))?;
        }
    }
    Ok(())
}

/// What would be lost if these kinds of these sessions were released, and which of them have work to rescue.
fn look(
    host: &Host,
    registry: &Registry,
    record: &Record,
    released: &Kinds,
    location: Location,
    findings: &Findings,
    interrupted: Option<&Interrupted>,
) -> (AtStake, Kinds) {
    let found = Mutex::new((AtStake::default(), Kinds::new()));
    each(&record.plan.sessions, released, registry, host, |session, allocation, provider| {
        let losses = with_task(host, record, session, allocation, None, |task| {
            let task = &Task { findings: Some(findings), location, ..*task };
            match interrupted {
                None => provider.losses(task),
                Some(interrupted) => provider.losses_since(task, interrupted.made(session)),
            }
        });
        // What cannot be looked at cannot be called saved.
        let losses = losses
            .unwrap_or_else(|error| Losses { beyond_rescue: vec![error.to_string()], ..Losses::default() });
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        let (stake, with_work) = &mut *found;
        if !losses.work.is_empty() {
            with_work.entry(session.path.clone()).or_default().push(allocation.kind.clone());
        }
        let of_session = |lines: Vec<String>| {
            lines.into_iter().map(|what| Loss { session: session.path.clone(), what, unknown: false })
        };
        stake.work.extend(of_session(losses.work));
        stake.beyond_rescue.extend(of_session(losses.beyond_rescue));
        stake.unknown.extend(of_session(losses.unknown).map(|loss| Loss { unknown: true, ..loss }));
        stake.passing.extend(of_session(losses.passing));
        stake.obstacles.extend(of_session(losses.obstacles));
    });
    let (mut stake, with_work) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let AtStake { held: _, obstacles, work, beyond_rescue, unknown, passing } = &mut stake;
    for losses in [obstacles, work, beyond_rescue, unknown, passing] {
        losses.sort_by(|one, other| one.session.cmp(&other.session));
    }
    (stake, with_work)
}

/// Returns what keeps these kinds of these sessions from being released, even where their work is given up.
fn obstacles(host: &Host, registry: &Registry, record: &Record, released: &Kinds) -> Vec<Loss> {
    let findings = Findings::default();
    let found = Mutex::new(Vec::new());
    each(&record.plan.sessions, released, registry, host, |session, allocation, provider| {
        let obstacles = with_task(host, record, session, allocation, None, |task| {
            provider.obstacles(&Task { findings: Some(&findings), ..*task })
        });
        let obstacles = obstacles.unwrap_or_else(|error| vec![error.to_string()]);
        let losses =
            obstacles.into_iter().map(|what| Loss { session: session.path.clone(), what, unknown: false });
        found.lock().unwrap_or_else(PoisonError::into_inner).extend(losses);
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|one, other| one.session.cmp(&other.session));
    found
}

/// Saves the work of these kinds of these sessions. Where one fails, what was saved of the others stays.
fn rescue(
    context: &Context<'_>,
    record: &Record,
    with_work: &Kinds,
    location: Location,
) -> Result<(), Error> {
    let host = context.swarm.host();
    let failures = Mutex::new(Vec::new());
    let telling = Telling::begin(context, Phase::Rescue, with_work.len());
    each(&record.plan.sessions, with_work, context.registry, host, |session, allocation, provider| {
        let lock = Some(context.swarm.file());
        let rescued = with_task(host, record, session, allocation, lock, |task| {
            provider.rescue(&Task { location, ..*task })
        });
        match rescued {
            Ok(Rescue { reference, command, missing }) => {
                (context.events)(&Event::Rescued {
                    session: session.path.clone(),
                    reference,
                    command,
                    missing,
                });
                let kinds = with_work.get(&session.path);
                if kinds.and_then(|kinds| kinds.last()) == Some(&allocation.kind) {
                    telling.passed(&session.path);
                }
            }
            Err(error) => {
                let failure = Failure::from_provider(session, "rescue", &allocation.kind, error);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::NotRescued { failures, interrupted: host.cancel.is_requested() })
}

/// Calls `act` for each of these kinds of these sessions, in parallel.
pub(super) fn each(
    sessions: &[Session],
    kinds: &Kinds,
    registry: &Registry,
    host: &Host,
    act: impl Fn(&Session, &Allocation, &dyn Provider) + Sync,
) {
    tree::parents_first(sessions, host.jobs, |at| {
        let session = &sessions[at];
        for kind in kinds.get(&session.path).into_iter().flatten() {
            // What nobody here knows is refused before.
            if let Some(allocation) = session.allocation(kind)
                && let Some(provider) = registry.provider(allocation)
            {
                act(session, allocation, provider);
            }
        }
    });
}

/// Sessions on their own that have a share of what is released, or a worktree inside it: they would lose it.
pub(super) fn children_on_their_own(
    host: &Host,
    record: &Record,
    released: &Kinds,
) -> Result<Vec<Loss>, state::Error> {
    let alone = state::alone(host, &record.owner)?;
    let above = |session: &&Session| released.contains_key(&session.path);
    let found = record.plan.sessions.iter().filter(above).flat_map(|session| {
        let below = alone.iter().filter(|child| child.ancestors.contains(&session.id));
        let ids = below.flat_map(|child| &child.plan.sessions).map(|child| &child.id);
        ids.map(|id| Loss {
            session: session.path.clone(),
            what: format!(
                "its child `{id}` stands: release that first, with the program that provisioned it or with `seedbed \
                 destroy`"
            ),
            unknown: false,
        })
    });
    Ok(found.collect())
}
