//! Inspects everything that planning a manifest needs: the host and the applied swarm.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::repositories::{UnusableRepository, unusable_before_their_change};
use crate::host::Host;
use crate::manifest::Manifest;
use crate::observe::{self, Observation, Query, RelativeAllocation};
use crate::plan::{self, AppliedPlan, Session};
use crate::provider::{Allocation, Registry, SharedResults};
use crate::state::{self, Record, Swarm};

/// State of the host and of the swarm that a manifest is planned against.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanningInput {
    /// Observation of the host.
    pub observation: Observation,
    /// Record of the swarm; `None` if the swarm is not applied.
    pub record: Option<Record>,
    /// Applied plan and its damage, as input for planning; `None` if the swarm is not applied.
    pub applied: Option<AppliedPlan>,
    /// Answers that [`impact_of_plan`](super::impact_of_plan) uses again, so that the program of an external kind runs
    /// once for both.
    pub shared_results: Arc<SharedResults>,
}

/// Error of inspecting the host or the swarm.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host could not be observed.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// The state directory could not be read.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Repositories of the applied swarm cannot be used, and the manifest declares them at other paths: they may have been
    /// moved there.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unusable(Vec<UnusableRepository>),
}

/// Inspects the host and the swarm, for planning `manifest`.
pub fn planning_input(
    swarm: &Swarm<'_>,
    registry: &Registry,
    manifest: &Manifest,
) -> Result<PlanningInput, Error> {
    let mut input = planning_input_without_programs(swarm, registry, manifest)?;
    run_programs(&mut input, swarm, registry, manifest)?;
    Ok(input)
}

/// Inspects the host and the swarm without running any program that the manifest names; allocations of external kinds
/// stay undecided.
pub fn planning_input_without_programs(
    swarm: &Swarm<'_>,
    registry: &Registry,
    manifest: &Manifest,
) -> Result<PlanningInput, Error> {
    let record = swarm.applied()?;
    let shared_results = Arc::new(SharedResults::default());
    let applied = record.as_ref().map(|record| applied_plan(swarm, registry, record, &shared_results));
    observed(swarm, registry, manifest, record, applied, shared_results)
}

/// Inspects the host and the swarm, for planning a manifest that [`plan::spawn`] returned. Damage of the applied swarm is
/// not inspected, because nothing of it is repaired.
pub fn spawning_input(
    swarm: &Swarm<'_>,
    registry: &Registry,
    manifest: &Manifest,
) -> Result<PlanningInput, Error> {
    let record = swarm.applied()?;
    let applied = record.as_ref().map(|record| AppliedPlan::new(record.plan.clone()));
    let mut input = observed(swarm, registry, manifest, record, applied, Arc::default())?;
    run_programs(&mut input, swarm, registry, manifest)?;
    Ok(input)
}

/// Runs the programs of external kinds that planning needs.
fn run_programs(
    input: &mut PlanningInput,
    swarm: &Swarm<'_>,
    registry: &Registry,
    manifest: &Manifest,
) -> Result<(), Error> {
    let queries = plan::programs(manifest, registry, &input.observation, input.applied.as_ref());
    if !queries.is_empty() {
        input.observation.programs = observe::observe(swarm.host(), swarm.workspace(), &queries)?.programs;
    }
    Ok(())
}

/// Observes the host for planning `manifest` against an applied swarm.
fn observed(
    swarm: &Swarm<'_>,
    registry: &Registry,
    manifest: &Manifest,
    record: Option<Record>,
    applied: Option<AppliedPlan>,
    shared_results: Arc<SharedResults>,
) -> Result<PlanningInput, Error> {
    let workspace: &Path = swarm.workspace();
    let mut queries = plan::queries(&plan::with_spawned(manifest, applied.as_ref()), registry);
    queries.extend(applied.iter().flat_map(|applied| recreation_queries(applied, registry)));
    let mut observation = observe::observe(swarm.host(), workspace, &queries)?;
    if let Some(record) = &record {
        against(&mut observation, swarm.host(), record)?;
        let unusable = unusable_before_their_change(swarm, registry, record, &observation);
        if !unusable.is_empty() {
            return Err(Error::Unusable(unusable));
        }
    }
    Ok(PlanningInput { observation, record, applied, shared_results })
}

/// Returns the queries that are needed before damaged allocations, or allocations inside them, can be provisioned
/// again.
pub(super) fn recreation_queries(applied: &AppliedPlan, registry: &Registry) -> BTreeSet<Query> {
    if applied.broken.values().all(|damage| !damage.is_lost()) {
        return BTreeSet::new();
    }
    let allocations = applied.plan.sessions.iter().flat_map(|session| {
        let is_broken = |name: &str| {
            let damage = applied.broken.get(&(session.path.clone(), name.to_owned()));
            damage.is_some_and(plan::Damage::is_lost)
        };
        session.allocations.iter().filter(move |held| held.within_parent || is_broken(held.name()))
    });
    allocations
        .filter_map(|held| Some(registry.get(&held.kind)?.recreation_queries(held)))
        .flatten()
        .collect()
}

/// Adds to an observation what the applied swarm owns, and what the children that programs have provisioned from its
/// sessions own.
pub fn against(observation: &mut Observation, host: &Host, record: &Record) -> Result<(), state::Error> {
    observation.owner = Some(record.owner.clone());
    let children = state::children(host, record)?;
    let records = || children.iter().filter_map(state::RecordedSwarm::record);
    let sessions = records().flat_map(|child| &child.plan.sessions);
    observation.relatives = sessions.map(|session| (session.id.clone(), session.index)).collect();
    observation.relative_allocations = records().flat_map(relative_allocations).collect();
    Ok(())
}

/// Returns the allocations of external kinds that a program's session owns.
fn relative_allocations(child: &Record) -> impl Iterator<Item = RelativeAllocation> {
    let of_external = |session: &Session, allocation: &Allocation| {
        let Allocation { kind, name, options, allocation, shared, .. } = allocation;
        let mut held =
            RelativeAllocation::new(session.id.clone(), session.index, kind.clone(), allocation.clone());
        held.name.clone_from(name);
        held.options.clone_from(options);
        let parent = child.ancestors.first().cloned().filter(|_| *shared);
        held.share = parent.zip(child.child).map(|(parent, child)| (parent, child.index, child.count));
        held
    };
    child.plan.sessions.iter().flat_map(move |session| {
        let external = session.allocations.iter().filter(|held| held.external.is_some());
        external.map(move |allocation| of_external(session, allocation))
    })
}

/// Inspects an applied swarm for damage. Answers are cached in `shared_results`.
pub fn applied_plan(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    shared_results: &SharedResults,
) -> AppliedPlan {
    let broken = super::inspect::inspect_sharing(swarm, registry, record, shared_results);
    AppliedPlan { plan: record.plan.clone(), broken }
}
