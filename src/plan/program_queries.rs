//! Queries for the programs of external kinds.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};

use super::AppliedPlan;
use super::allocate::{requesting, takers};
use super::external_options::{Resolved, planned_ports, resolve};
use super::requests::all_requests;
use super::session_identity::{active, identities};
use crate::manifest::{Manifest, Options};
use crate::observe::{Observation, Query};
use crate::provider::external::protocol::SessionRequest;
use crate::provider::external::request_key;
use crate::provider::{Registry, external, placeholders};

/// Returns the queries that the programs of external kinds must answer before the manifest can be planned.
pub(super) fn programs(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Vec<Query> {
    if manifest.providers.is_empty() || !registry.has_external_kinds() {
        return Vec::new();
    }
    let all_requests = all_requests(manifest, registry).each;
    let Resolved { each: all_requests, ports, .. } =
        &resolve(manifest, registry, observation, applied, all_requests);
    let takers = takers(manifest, all_requests);
    let active = active(manifest, applied);
    let identities = identities(manifest, &active, observation.relatives.values().copied());
    let workspace = &observation.workspace;
    let ports = LazyCell::new(|| match ports {
        Some(ports) => Cow::Borrowed(ports),
        None => Cow::Owned(planned_ports(manifest, registry, observation, applied, all_requests)),
    });
    manifest
        .providers
        .iter()
        .filter_map(|(kind, program)| {
            let id = |at: usize| manifest.sessions[at].path.id(&manifest.swarm);
            let shares_outside = shares_outside_plan(observation, kind);
            let shares_outside = |session: &str| shares_outside.get(session).copied().unwrap_or_default();
            let mut given_out: HashMap<(usize, &str), u32> = HashMap::new();
            let queries = requesting(manifest, all_requests, kind).map(|(at, wanted)| {
                let parent = manifest.sessions[at].parent.filter(|_| wanted.shared);
                let share = parent.map(|parent| {
                    let given_out = given_out.entry((parent, wanted.name)).or_default();
                    *given_out += 1;
                    manifest.sessions[at].share.map_or(*given_out - 1, |share| share.index)
                });
                let held = active[at]
                    .and_then(|session| session.allocation(wanted.name).filter(|held| held.kind == *kind));
                let shares = takers[at][all_requests[at].position(wanted.name).unwrap_or_default()];
                let key = |at: usize| request_key(&id(at), kind, wanted.name);
                SessionRequest {
                    request: key(at),
                    resource: Some(wanted.name).filter(|name| name != kind).map(str::to_owned),
                    session: id(at),
                    path: manifest.sessions[at].path.to_string(),
                    index: identities[at].index,
                    name: placeholders::unique_name(&key(at), workspace),
                    share_of: parent.map(key),
                    share,
                    shares: shares.max(shares_outside(&key(at))),
                    applied: held.map(|held| placeholders::resolve_fields(&held.allocation, workspace)),
                    ports: ports[at].clone(),
                    options: Options::clone(&wanted.options.all),
                }
            });
            let mut queries: Vec<_> = queries.collect();
            if !queries.is_empty() {
                queries.extend(
                    observation.relative_allocations.iter().filter(|held| held.kind == *kind).map(|held| {
                        let key = |id: &str| request_key(id, kind, held.name.as_deref().unwrap_or(kind));
                        SessionRequest {
                            request: key(&held.session),
                            resource: held.name.clone(),
                            session: held.session.clone(),
                            path: held.session.clone(),
                            index: held.index,
                            name: placeholders::unique_name(&key(&held.session), workspace),
                            share_of: held.share.as_ref().map(|(parent, ..)| key(parent)),
                            share: held.share.as_ref().map(|(_, index, _)| *index),
                            shares: shares_outside(&key(&held.session)),
                            applied: Some(placeholders::resolve_fields(&held.allocation, workspace)),
                            ports: BTreeMap::new(),
                            options: held.options.clone(),
                        }
                    }),
                );
            }
            (!queries.is_empty()).then(|| Query::Program {
                kind: kind.clone(),
                command: program.command.clone(),
                timeout: program.timeout,
                request: external::request(kind, &manifest.swarm, queries),
            })
        })
        .collect()
}

/// Returns the number of shares of each allocation of a kind that belong to sessions outside of this plan, by the key of
/// the request for the allocation.
fn shares_outside_plan(observation: &Observation, kind: &str) -> HashMap<String, u32> {
    let mut given_out = HashMap::new();
    let held = observation.relative_allocations.iter().filter(|held| held.kind == kind);
    for (held, (session, _, count)) in held.filter_map(|held| Some((held, held.share.as_ref()?))) {
        let key = request_key(session, kind, held.name.as_deref().unwrap_or(kind));
        let most = given_out.entry(key).or_default();
        *most = (*count).max(*most);
    }
    given_out
}
