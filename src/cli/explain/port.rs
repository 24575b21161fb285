//! Owner of a port.

use std::collections::BTreeSet;

use seedbed::host::{leases, listeners};
use seedbed::manifest;
use seedbed::name::PortBlock;
use seedbed::observe::{self, Observation, PortOwner, Query};
use seedbed::plan::Session;
use seedbed::provider::{Allocation, BlockRange, Kind, Registry};

use super::super::exit::Failure;
use super::answer::{Answer, owner_of};
use super::sources::{LocatedPlan, Sources, allocation_with_port, state_words};

pub(super) fn explain(sources: &mut Sources<'_>, port: u16) -> Result<Answer, Failure> {
    let observation = observe(sources)?;
    let registry = sources.registry;
    let mut explanation = match sources.find(|located| owner(registry, located, port)) {
        Some((at, session)) => {
            let located = &sources.plans()[at];
            owned(sources, located, &located.plan.sessions()[session], port)
        }
        None => unowned(sources, port, &observation)?,
    };
    let single = PortBlock::single(port);
    explanation.document.port = Some(port);
    explanation.document.ephemeral =
        observation.ephemeral.zip(single).map(|(range, port)| range.contains(port));
    explanation.document.listeners = single.map(listeners::on).unwrap_or_default();
    explanation.has_ports = true;
    Ok(explanation)
}

/// Returns the session with the smallest block that contains the port: a share comes before the block it is cut from.
fn owner(registry: &Registry, located: &LocatedPlan, port: u16) -> Option<usize> {
    let blocks = located
        .plan
        .sessions()
        .iter()
        .enumerate()
        .filter_map(|(at, session)| Some((allocation_with_port(registry, session, port)?.1.size(), at)));
    blocks.min_by_key(|(size, at)| (*size, std::cmp::Reverse(*at))).map(|(_, at)| at)
}

fn owned(sources: &Sources<'_>, located: &LocatedPlan, session: &Session, port: u16) -> Answer {
    let allocation = allocation_with_port(sources.registry, session, port);
    let planned =
        allocation.and_then(|(allocation, _)| located.planned(sources.registry, session, allocation));
    let Some((kind, planned)) = planned else {
        return Answer::new(format!("port {port} belongs to {}", session.id));
    };
    let role =
        kind.port_role(&planned, port).unwrap_or_else(|| format!("of its {}", planned.allocation.name()));
    let mut explanation =
        Answer::new(format!("port {port} belongs to {} {}: {role}", session.id, state_words(located.state)));
    explanation.document.owner = Some(owner_of(located, session));
    explanation.document.rules = kind.explanation(&planned);
    let named = kind.named_ports(planned.allocation);
    let name = named.iter().find(|(_, named)| *named == port).map(|(name, _)| name.as_str());
    let resource = planned.allocation.name();
    explanation.add_excerpt(sources.request_excerpt(located, session, resource, name));
    explanation
}

fn unowned(sources: &Sources<'_>, port: u16, observation: &Observation) -> Result<Answer, Failure> {
    let mut explanation = Answer::new(format!("no session on this host has port {port}"));
    explanation.document.rules = geometries(sources).iter().map(|geometry| geometry.place_of(port)).collect();
    let single = PortBlock::single(port);
    let holds = |block: PortBlock| single.is_some_and(|port| block.contains(port));
    for lease in leases::all(sources.host)? {
        if let Some(ports) = lease.ports().filter(|ports| holds(*ports)) {
            let workspace = lease.workspace.display();
            explanation
                .document
                .other_owners
                .push(format!("the lease of {ports} to {} of {workspace}", lease.session));
        }
    }
    for used in observation.ports_in_use.iter().filter(|used| holds(used.block)) {
        match &used.owner {
            PortOwner::LockFile { name, session, .. } => {
                let of =
                    session.as_ref().map_or_else(String::new, |session| format!(", of session {session}"));
                explanation.document.other_owners.push(format!("the lock file {name}{of}"));
            }
            PortOwner::Lease { session, owner } if owner.is_empty() => {
                explanation.document.other_owners.push(format!("the lease of {} to {session}", used.block));
            }
            _ => {}
        }
    }
    Ok(explanation)
}

/// Observes the leases, lock files and sockets of this host, and its ephemeral range.
fn observe(sources: &Sources<'_>) -> Result<Observation, Failure> {
    let mut queries = BTreeSet::from([Query::Ports]);
    let workspace = sources.workspace();
    if workspace.is_some() {
        queries.extend(lock_queries(sources));
    }
    let workspace = workspace.unwrap_or_else(|| sources.directory.to_owned());
    observe::observe(sources.host, &workspace, &queries).map_err(Failure::Observe)
}

/// A range of blocks, and whose blocks are cut from it.
struct Geometry {
    range: BlockRange,
    whose: String,
}

impl Geometry {
    fn place_of(&self, port: u16) -> String {
        let BlockRange { base, size, count, .. } = self.range;
        let last = base + size * count - 1;
        let range = format!("{base}-{last}, from which {} cuts {count} blocks of {size} ports", self.whose);
        match u32::from(port).checked_sub(base).map(|offset| offset / size) {
            Some(index) if index < count => {
                let start = base + index * size;
                format!("it is in block {index}, {start}-{}, of {range}", start + size - 1)
            }
            _ => format!("it is outside {range}"),
        }
    }
}

/// Returns the distinct ranges: of the defaults, then of blocks in the plans of this swarm with other ranges.
fn geometries(sources: &Sources<'_>) -> Vec<Geometry> {
    let defaults = default_options(sources);
    let default = defaults.iter().filter_map(|(kind, options)| {
        let range = kind.default_block_range(options)?;
        Some(Geometry { range, whose: "the manifest by default".to_owned() })
    });
    let cut = own_allocations(sources).filter_map(|(session, allocation)| {
        let range = sources.registry.get(&allocation.kind)?.block_range(allocation)?;
        Some(Geometry { range, whose: session.id.clone() })
    });
    let mut distinct: Vec<Geometry> = Vec::new();
    for one in default.chain(cut).filter(|one| one.range.size > 0 && one.range.count > 0) {
        if !distinct.iter().any(|other| other.range == one.range) {
            distinct.push(one);
        }
    }
    distinct
}

/// Returns each kind with its default options in the manifest; none without a manifest.
fn default_options<'a>(sources: &Sources<'a>) -> Vec<(&'a dyn Kind, manifest::Options)> {
    let Some(manifest) = sources.manifest() else { return Vec::new() };
    let options = |kind: &dyn Kind| manifest.defaults.get(kind.kind()).cloned().unwrap_or_default();
    sources.registry.iter().map(|kind| (kind, options(kind))).collect()
}

/// Returns the allocations in the plans of this swarm.
fn own_allocations<'s>(sources: &'s Sources<'_>) -> impl Iterator<Item = (&'s Session, &'s Allocation)> {
    let own =
        sources.plans().iter().filter(|located| located.own).flat_map(|located| located.plan.sessions());
    own.flat_map(|session| session.allocations.iter().map(move |allocation| (session, allocation)))
}

/// Returns the queries about lock files with which the ports of this swarm were planned.
fn lock_queries(sources: &Sources<'_>) -> BTreeSet<Query> {
    let defaults = default_options(sources);
    let default = defaults.iter().flat_map(|(kind, options)| kind.queries(options));
    let used = own_allocations(sources).flat_map(|(_, allocation)| {
        let kind = sources.registry.get(&allocation.kind);
        kind.map(|kind| kind.queries(&allocation.options)).unwrap_or_default()
    });
    used.chain(default).filter(|query| matches!(query, Query::Locks { .. })).collect()
}
