//! Queries for the programs of external kinds.

use std::collections::HashMap;

use super::AppliedPlan;
use super::allocate::{asking, takers};
use super::demand::demands;
use super::identity::{identities, stood};
use super::resolve::resolve;
use crate::manifest::{Manifest, Options};
use crate::observe::{Observation, Question};
use crate::provider::external::protocol::Asked;
use crate::provider::{Registry, external, markers};

/// Returns the queries that the programs of external kinds must answer before the manifest can be planned.
pub(super) fn programs(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Vec<Question> {
    if manifest.providers.is_empty() || !registry.has_external_kinds() {
        return Vec::new();
    }
    let demands = demands(manifest, registry).each;
    let demands = &resolve(manifest, registry, observation, applied, demands).each;
    let takers = takers(manifest, demands);
    let stood = stood(manifest, applied);
    let identities = identities(manifest, &stood, observation.family.values().copied());
    let workspace = &observation.workspace;
    manifest
        .providers
        .iter()
        .filter_map(|(kind, program)| {
            let id = |at: usize| manifest.sessions[at].path.id(&manifest.swarm);
            let taken_outside = shares_taken(observation, kind);
            let taken_outside = |session: &str| taken_outside.get(session).copied().unwrap_or_default();
            let mut taken: HashMap<usize, u32> = HashMap::new();
            let asked = asking(manifest, demands, kind).map(|(at, wish)| {
                let parent = manifest.sessions[at].parent.filter(|_| wish.shared);
                let share = parent.map(|parent| {
                    let taken = taken.entry(parent).or_default();
                    *taken += 1;
                    manifest.sessions[at].share.map_or(*taken - 1, |share| share.index)
                });
                let held = stood[at].and_then(|session| session.allocation(kind));
                let shares = takers[at][demands[at].position(kind).unwrap_or_default()];
                Asked {
                    session: id(at),
                    path: manifest.sessions[at].path.to_string(),
                    index: identities[at].index,
                    name: markers::unique_name(&identities[at].id, workspace),
                    share_of: parent.map(id),
                    share,
                    shares: shares.max(taken_outside(&id(at))),
                    applied: held.map(|held| markers::filled_fields(&held.allocation, workspace)),
                    options: Options::clone(&wish.options.all),
                }
            });
            let mut asked: Vec<_> = asked.collect();
            if !asked.is_empty() {
                asked.extend(observation.held.iter().filter(|held| held.kind == *kind).map(|held| Asked {
                    session: held.session.clone(),
                    path: held.session.clone(),
                    index: held.index,
                    name: markers::unique_name(&held.session, workspace),
                    share_of: held.share.as_ref().map(|(parent, ..)| parent.clone()),
                    share: held.share.as_ref().map(|(_, index, _)| *index),
                    shares: taken_outside(&held.session),
                    applied: Some(markers::filled_fields(&held.allocation, workspace)),
                    options: held.options.clone(),
                }));
            }
            (!asked.is_empty()).then(|| Question::Program {
                kind: kind.clone(),
                command: program.command.clone(),
                timeout: program.timeout,
                request: external::request(kind, &manifest.swarm, asked),
            })
        })
        .collect()
}

/// Returns the number of shares of each allocation of a kind that belong to sessions outside of this plan, by the id of
/// the allocation's session.
fn shares_taken<'o>(observation: &'o Observation, kind: &str) -> HashMap<&'o str, u32> {
    let mut taken = HashMap::new();
    let held = observation.held.iter().filter(|held| held.kind == kind);
    for (session, _, count) in held.filter_map(|held| held.share.as_ref()) {
        let most = taken.entry(session.as_str()).or_default();
        *most = (*count).max(*most);
    }
    taken
}
