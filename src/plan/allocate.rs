//! The first pass: what every session holds.
//!
//! What stands and is still asked for is kept first, so that nothing kept ever moves; then everything else is
//! allocated in canonical order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::demand::{Demand, Wish, demands};
use super::identity::{Identity, identities};
use super::{Session, Standing, names};
use crate::manifest::{Fault, Manifest, rule};
use crate::observe::Observation;
use crate::provider::{Allocation, Parent, Planner, Registry, Request};

/// What every session is called and holds, in the manifest's order.
pub(super) struct Allocated {
    pub(super) identities: Vec<Identity>,
    pub(super) allocations: Vec<Vec<Allocation>>,
}

/// Allocates for every session; every fault, not only the first.
pub(super) fn allocate(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    standing: Option<&Standing>,
) -> Result<Allocated, Vec<Fault>> {
    let by_path: HashMap<&str, &Session> = standing
        .iter()
        .flat_map(|standing| &standing.plan.sessions)
        .map(|session| (session.path.as_str(), session))
        .collect();
    let stood: Vec<_> =
        manifest.sessions.iter().map(|session| by_path.get(session.path.as_str()).copied()).collect();
    let demands = demands(manifest, registry);
    let kept = kept(manifest, &demands, &stood);
    let mut pass = Pass {
        manifest,
        demands: &demands,
        identities: identities(manifest, &stood),
        planners: registry.iter().map(|provider| (provider.kind(), provider.planner(observation))).collect(),
        takers: takers(manifest, &demands),
        positions: HashMap::new(),
        allocations: Vec::with_capacity(manifest.sessions.len()),
        faults: Vec::new(),
    };
    pass.keep(&kept, standing);
    for (at, kept) in kept.iter().enumerate() {
        pass.session(at, kept);
    }
    if !pass.faults.is_empty() {
        return Err(pass.faults);
    }
    Ok(Allocated { identities: pass.identities, allocations: pass.allocations })
}

/// For each wish of each session, the standing allocation that answers it already.
fn kept<'s>(
    manifest: &Manifest,
    demands: &[Arc<Demand>],
    stood: &[Option<&'s Session>],
) -> Vec<Vec<Option<&'s Allocation>>> {
    let mut kept: Vec<Vec<Option<&Allocation>>> = Vec::with_capacity(demands.len());
    for (at, demand) in demands.iter().enumerate() {
        let parent_keeps = |kind: &str| {
            let parent = manifest.sessions[at].parent?;
            let position = demands[parent].wishes.iter().position(|wish| wish.kind == kind)?;
            kept[parent][position]
        };
        let answer = |wish: &Wish| {
            let allocation = stood[at]?.allocation(&wish.kind)?;
            let same = allocation.options == wish.options.said && allocation.shared == wish.shared;
            let stays = !allocation.within_parent || parent_keeps(&wish.kind).is_some();
            (same && stays).then_some(allocation)
        };
        kept.push(demand.wishes.iter().map(answer).collect());
    }
    kept
}

/// For each session and kind, how many children take a share.
fn takers<'d>(manifest: &Manifest, demands: &'d [Arc<Demand>]) -> HashMap<(usize, &'d str), u32> {
    let mut takers = HashMap::new();
    for (session, demand) in manifest.sessions.iter().zip(demands) {
        for wish in demand.wishes.iter().filter(|wish| wish.shared) {
            if let Some(parent) = session.parent {
                *takers.entry((parent, wish.kind.as_str())).or_default() += 1;
            }
        }
    }
    takers
}

/// The pass over all sessions.
struct Pass<'a> {
    manifest: &'a Manifest,
    demands: &'a [Arc<Demand>],
    identities: Vec<Identity>,
    planners: BTreeMap<&'a str, Box<dyn Planner + 'a>>,
    takers: HashMap<(usize, &'a str), u32>,
    /// For each parent and kind, how many children have taken their share so far.
    positions: HashMap<(usize, &'a str), u32>,
    allocations: Vec<Vec<Allocation>>,
    faults: Vec<Fault>,
}

impl<'a> Pass<'a> {
    /// Tells the planners what stays and what goes of that which stands.
    fn keep(&mut self, kept: &[Vec<Option<&Allocation>>], standing: Option<&Standing>) {
        for (at, kept) in kept.iter().enumerate() {
            let parent = self.manifest.sessions[at].parent.map(|parent| self.identities[parent].id.as_str());
            for allocation in kept.iter().flatten() {
                if let Some(planner) = self.planners.get_mut(allocation.kind.as_str()) {
                    planner.keep(&self.identities[at].id, parent, allocation);
                }
            }
        }
        let stays: HashSet<_> =
            kept.iter().flatten().flatten().map(|allocation| std::ptr::from_ref(*allocation)).collect();
        let stood = standing.iter().flat_map(|standing| &standing.plan.sessions);
        for allocation in stood.flat_map(|session| &session.allocations) {
            if !stays.contains(&std::ptr::from_ref(allocation))
                && let Some(planner) = self.planners.get_mut(allocation.kind.as_str())
            {
                planner.free(allocation);
            }
        }
    }

    /// Allocates what the session at this position wishes for and `kept` does not answer.
    fn session(&mut self, at: usize, kept: &[Option<&Allocation>]) {
        let mut held = Vec::with_capacity(kept.len());
        let demands = self.demands;
        for (wish, kept) in demands[at].wishes.iter().zip(kept) {
            let position = self.position(at, wish);
            let allocation = match kept {
                Some(kept) => Some((*kept).clone()),
                None => self.wish(at, wish, position).unwrap_or_else(|found| {
                    self.faults.extend(found);
                    None
                }),
            };
            held.extend(allocation);
        }
        self.allocations.push(held);
    }

    /// Among the children that take a share of the same parent, this one's position.
    fn position(&mut self, at: usize, wish: &'a Wish) -> u32 {
        let Some(parent) = self.manifest.sessions[at].parent.filter(|_| wish.shared) else { return 0 };
        let next = self.positions.entry((parent, &wish.kind)).or_default();
        *next += 1;
        *next - 1
    }

    /// `None` where the parent's allocation failed: that is the fault to report.
    fn wish(&mut self, at: usize, wish: &'a Wish, position: u32) -> Result<Option<Allocation>, Vec<Fault>> {
        let identity = &self.identities[at];
        let session = &self.manifest.sessions[at];
        let names = names::of_session(&self.manifest.swarm, session, identity);
        let takers = |at| self.takers.get(&(at, wish.kind.as_str())).copied().unwrap_or_default();
        let request = Request {
            session: &identity.id,
            scoped_name: &identity.scoped_name,
            names: &names,
            options: &wish.options.all,
            own: &wish.own,
            place: &wish.place,
            shares: takers(at),
        };
        let Some(planner) = self.planners.get_mut(wish.kind.as_str()) else {
            return Err(vec![unknown_kind(wish)]);
        };
        let decided = match session.parent.filter(|_| wish.shared) {
            None => planner.allocate(&request)?,
            Some(parent) => {
                let of_parent = self.allocations[parent].iter().find(|held| held.kind == wish.kind);
                let Some(allocation) = of_parent else { return Ok(None) };
                let parent = Parent {
                    session: &self.identities[parent].id,
                    scoped_name: &self.identities[parent].scoped_name,
                    allocation,
                    index: position,
                    count: takers(parent),
                };
                planner.sub_allocate(&request, &parent)?
            }
        };
        Ok(Some(Allocation {
            kind: wish.kind.clone(),
            options: wish.options.said.clone(),
            allocation: decided.allocation,
            shared: wish.shared,
            within_parent: decided.within_parent,
            notes: decided.notes,
        }))
    }
}

fn unknown_kind(wish: &Wish) -> Fault {
    Fault {
        rule: rule::KIND_NOT_RUN,
        place: wish.place.clone(),
        message: format!("no provider runs the kind `{}`", wish.kind.escape_debug()),
        label: "asked for here".to_owned(),
        help: Some("external kinds are read, but this seedbed runs none yet".into()),
    }
}
