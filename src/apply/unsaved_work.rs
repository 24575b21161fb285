//! Protects unsaved work in what a run releases: refuses the release, or saves the work.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::release_impact::{self, ReleaseImpact, Search, SessionFinding, impact_of, standalone_children};
use super::release_set::{ResourcesBySession, each, restricted};
use super::{Context, Error, Event, Failure, nested_swarms, rescue, with_task};
use crate::provider::{self, Condition, Location, SharedResults};
use crate::state::{Record, Unsaved};

/// Refuses a run whose releases would lose unsaved work, unless the work is discarded or can be saved.
pub(super) fn secure(
    context: &Context<'_>,
    applied: &Record,
    released: &ResourcesBySession,
    unsaved: Unsaved,
) -> Result<(), Error> {
    let impact = check(context, applied, released, unsaved)?;
    for SessionFinding { session, description, .. } in impact.also_removed {
        (context.events)(&Event::AlsoRemoved { session, description });
    }
    Ok(())
}

/// Refuses to release a resource of a kind that the registry does not know: a session that is only partly released is
/// of no use.
pub(super) fn refuse_unknown_kinds(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
) -> Result<(), Error> {
    match release_impact::unknown_kinds(context.registry, record, released).next() {
        None => Ok(()),
        Some((session, kind)) => {
            Err(Error::UnknownKind { session: session.id.clone(), kind: kind.to_owned() })
        }
    }
}

/// Checks unsaved work again after it was moved aside, where nothing changes it any more, and saves it there. Work that
/// was done after [`secure`] is refused or saved as well.
pub(super) fn check_aside(
    context: &Context<'_>,
    before: &Record,
    kinds: &ResourcesBySession,
    unsaved: Unsaved,
) -> Result<(), Error> {
    // A resource that is not moved aside can change again at any time; it is only checked again to be rescued.
    let kinds = restricted(before, kinds, |session, name| {
        unsaved == Unsaved::Rescue || context.moves_aside(session, name)
    });
    let host = context.swarm.host();
    let search = searched(unsaved);
    let shared_results = SharedResults::default();
    let (impact, with_work) =
        impact_of(host, context.registry, before, &kinds, Location::Aside, &shared_results, search);
    if host.cancel.is_requested() && unsaved != Unsaved::Discard {
        return Ok(());
    }
    let refused = impact.refused(unsaved);
    if !refused.is_empty() {
        return Err(Error::Refused(refused));
    }
    if with_work.is_empty() {
        return Ok(());
    }
    rescue::save(context, before, &with_work, Location::Aside)
}

/// Refuses to roll back the interrupted run of `record` if work would be lost that was done since in what the run
/// `provisioned`. Work that is discarded or can be saved is no reason to refuse. Returns the kinds, by session, that
/// have work to save.
pub(super) fn check_interrupted(
    context: &Context<'_>,
    record: &Record,
    provisioned: &ResourcesBySession,
    unsaved: Unsaved,
) -> Result<ResourcesBySession, Error> {
    let host = context.swarm.host();
    let (mut impact, mut with_work) =
        release_impact::impact_of_rollback(context.swarm, context.registry, record, provisioned, unsaved)?;
    let mut not_repaired = Vec::new();
    if !impact.refused(unsaved).is_empty() {
        let (is_any_repaired, failures) = repair(context, record, provisioned);
        not_repaired = failures;
        if is_any_repaired {
            (impact, with_work) = release_impact::impact_of_rollback(
                context.swarm,
                context.registry,
                record,
                provisioned,
                unsaved,
            )?;
        }
    }
    if host.cancel.is_requested() {
        return Err(Error::Interrupted);
    }
    let mut refused = impact.refused(unsaved);
    if refused.is_empty() {
        return Ok(with_work);
    }
    not_repaired
        .retain(|failure: &SessionFinding| refused.iter().any(|finding| finding.session == failure.session));
    refused.extend(not_repaired);
    Err(Error::Refused(refused))
}

/// Repairs what an interrupted run has provisioned, as far as possible, so that its work can be checked: after a
/// reboot, overlays are not mounted. Returns whether anything was repaired, and the reasons why the rest was not.
fn repair(
    context: &Context<'_>,
    record: &Record,
    provisioned: &ResourcesBySession,
) -> (bool, Vec<SessionFinding>) {
    let host = context.swarm.host();
    let (repaired, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    each(&record.plan.sessions, provisioned, context.registry, host, |session, allocation, provider| {
        let lock = Some(context.swarm.file());
        let done =
            with_task(host, record, session, allocation, lock, |task| match provider.inspect(task)? {
                Condition::Repairable(_) => provider.repair(task).map(|()| true),
                Condition::Broken(why) => Err(provider::Error::Refused(why)),
                Condition::Healthy | Condition::Absent(_) | Condition::Unknown(_) => Ok(false),
            });
        match done {
            Ok(is_repaired) => drop(repaired.fetch_or(is_repaired, Ordering::Relaxed)),
            Err(error) => {
                let description = format!("its {} cannot be repaired: {error}", allocation.name());
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(SessionFinding::new(session.path.clone(), description));
            }
        }
    });
    (repaired.into_inner(), failures.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Refuses a release that would lose work. Otherwise returns the impact of the release.
pub(super) fn check(
    context: &Context<'_>,
    applied: &Record,
    released: &ResourcesBySession,
    unsaved: Unsaved,
) -> Result<ReleaseImpact, Error> {
    let host = context.swarm.host();
    refuse_unknown_kinds(context, applied, released)?;
    check_ready(context, applied, released)?;
    let (search, shared_results) = (searched(unsaved), SharedResults::default());
    let (mut impact, _) =
        impact_of(host, context.registry, applied, released, Location::Home, &shared_results, search);
    impact.blocking = standalone_children(host, applied, released)?;
    impact.obstacles.extend(nested_swarms::find(context.swarm, context.registry, applied, released)?);
    impact.obstacles.extend(release_impact::left_aside(context.swarm, context.registry, applied, released)?);
    if host.cancel.is_requested() && unsaved != Unsaved::Discard {
        return Err(Error::Failed { failures: Vec::new(), leftovers: Vec::new(), interrupted: true });
    }
    let refused = impact.refused(unsaved);
    if refused.is_empty() { Ok(impact) } else { Err(Error::Refused(refused)) }
}

/// Returns the extent of the search: work that is discarded is not searched for.
fn searched(unsaved: Unsaved) -> Search<'static> {
    if unsaved == Unsaved::Discard { Search::Obstacles } else { Search::Work }
}

/// Checks that the provider of each released kind is ready to release, in each repository.
pub(super) fn check_ready(
    context: &Context<'_>,
    record: &Record,
    released: &ResourcesBySession,
) -> Result<(), Error> {
    let host = context.swarm.host();
    let mut checked = BTreeSet::new();
    for session in &record.plan.sessions {
        let released = released.get(&session.path).into_iter().flatten();
        for allocation in released.filter_map(|name| session.allocation(name)) {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            if !checked.insert((&allocation.kind, provider.repository(allocation))) {
                continue;
            }
            with_task(host, record, session, allocation, None, |task| provider.check_ready(task)).map_err(
                |error| Error::Failed {
                    failures: vec![Failure::from_provider(session, "release", allocation.name(), error)],
                    leftovers: Vec::new(),
                    interrupted: host.cancel.is_requested(),
                },
            )?;
        }
    }
    Ok(())
}
