//! Checks whether a saved plan is still valid.

use std::collections::{BTreeSet, HashMap};

use crate::name::SessionPath;
use crate::observe::{Observation, Query};
use crate::plan::{AppliedPlan, Plan, PlannedRepository, Session};
use crate::provider::{Allocation, PathSet, Registry};

/// Returns the queries that [`stale_reasons`] needs.
pub fn queries(plan: &Plan, registry: &Registry) -> BTreeSet<Query> {
    let changed = provisioned(plan).chain(updated(plan));
    changed
        .filter_map(|(_, allocation)| Some((registry.get(&allocation.kind)?, allocation)))
        .flat_map(|(provider, allocation)| provider.queries(&allocation.options))
        .chain(plan.repositories.iter().map(PlannedRepository::query))
        .collect()
}

/// Returns the reasons why a saved plan cannot be applied any more, one line each; empty if it can be applied.
pub fn stale_reasons(
    plan: &Plan,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Vec<String> {
    let digest = applied.map(|applied| applied.plan.digest.as_str());
    if digest != plan.applied.as_deref() {
        let what = match (digest, &plan.applied) {
            (None, _) => "the swarm that it changes is no longer applied",
            (_, None) => "the swarm is applied already",
            _ => "the swarm has been changed since",
        };
        return vec![what.to_owned()];
    }
    let spawned =
        |of: &'_ Plan, path: &SessionPath| of.session(path).and_then(|session| session.spawned.clone());
    let is_other = |session: &&Session| {
        let active = applied.and_then(|applied| spawned(&applied.plan, &session.path));
        session.spawned.is_some() && session.spawned != active
    };
    if let Some(session) = plan.sessions.iter().find(is_other) {
        return vec![format!("{}: only `seedbed spawn` adds a session beside the manifest", session.path)];
    }
    let changes = plan.changes_from(registry, applied);
    let planned: HashMap<_, _> = plan.changes.iter().map(|change| (&change.session, change)).collect();
    let differs: Vec<_> = changes
        .iter()
        .filter(|change| planned.get(&change.session) != Some(change))
        .map(|change| match &change.reasons[..] {
            [] => format!("{}: another action is needed now", change.session),
            reasons => format!("{}: {}", change.session, reasons.join("; ")),
        })
        .collect();
    let mut stale = differs;
    if stale.is_empty() && changes != plan.changes {
        stale.push("fewer actions are needed now".to_owned());
    }
    let released = released_directories(plan, registry, applied);
    let in_the_way = provisioned(plan)
        .filter_map(|(session, allocation)| Some((session, registry.get(&allocation.kind)?, allocation)))
        .flat_map(|(session, provider, allocation)| {
            let replaced = applied.and_then(|applied| applied.plan.session(&session.path));
            let replaced = replaced.and_then(|active| replaced_by(active, session, allocation));
            let reasons = provider.stale(allocation, replaced, &released, observation);
            reasons.into_iter().map(move |reason| format!("{}: {reason}", session.path))
        });
    stale.extend(in_the_way);
    stale.extend(plan.repositories.iter().filter_map(|repository| repository.stale(observation)));
    let not_updatable = updated(plan).flat_map(|(session, allocation)| {
        let provider = registry.get(&allocation.kind);
        let reasons = provider.map(|provider| provider.stale_update(allocation, observation));
        reasons.into_iter().flatten().map(move |reason| format!("{}: {reason}", session.path))
    });
    stale.extend(not_updatable);
    stale
}

/// Returns the allocation of an active session in whose place `planned` of `session` comes: that of its name, or another
/// one of its kind if the resource was renamed.
fn replaced_by<'s>(active: &'s Session, session: &Session, planned: &Allocation) -> Option<&'s Allocation> {
    let mut of_kind = active.allocations.iter().filter(|allocation| allocation.kind == planned.kind);
    let named = active.allocation(planned.name()).filter(|allocation| allocation.kind == planned.kind);
    named.or_else(|| of_kind.find(|allocation| session.allocation(allocation.name()).is_none()))
}

/// Returns the directories that applying `plan` would release.
fn released_directories(plan: &Plan, registry: &Registry, applied: Option<&AppliedPlan>) -> PathSet {
    let Some(applied) = applied else { return PathSet::new() };
    let released = plan.changes.iter().flat_map(|change| {
        let session = applied.plan.session(&change.session).filter(|_| !change.release.is_empty());
        let released = change.release.iter().filter_map(move |name| session?.allocation(name));
        released.filter_map(|allocation| registry.get(&allocation.kind)?.directory(allocation))
    });
    released.collect()
}

/// Returns the allocations that applying `plan` would update in place.
fn updated(plan: &Plan) -> impl Iterator<Item = (&Session, &Allocation)> {
    plan.sessions.iter().zip(&plan.changes).flat_map(|(session, change)| {
        change.update.iter().filter_map(move |name| Some((session, session.allocation(name)?)))
    })
}

/// Returns the allocations that applying `plan` would provision.
fn provisioned(plan: &Plan) -> impl Iterator<Item = (&Session, &Allocation)> {
    plan.sessions.iter().zip(&plan.changes).flat_map(|(session, change)| {
        change.provision.iter().filter_map(move |kind| Some((session, session.allocation(kind)?)))
    })
}
