//! First pass: the allocations of every session.
//!
//! Existing allocations that are still requested are kept first, so that a kept allocation never moves. Then everything
//! else is allocated in canonical order.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::demand::{Demand, Wish};
use super::identity::{Identity, identities, stood};
use super::{AppliedPlan, Damage, Session};
use crate::manifest::diagnostic::Step;
use crate::manifest::{Diagnostic, Diagnostics, Location, Manifest, rule};
use crate::name::SessionPath;
use crate::observe::Observation;
use crate::provider::{Allocation, Allocator, Kind, Parent, Planner, Registry, Request, Scope};

/// Identity and allocations of every session, in the manifest's order.
pub(super) struct Allocated {
    pub(super) identities: Vec<Identity>,
    pub(super) allocations: Vec<Vec<Allocation>>,
    /// Sessions that lack an allocation because of an earlier diagnostic, by position.
    pub(super) open: Vec<bool>,
    /// Diagnostics of requests that cannot be satisfied.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Allocates the requested resources; collects every diagnostic, not only the first.
pub(super) fn pass(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
    demands: &[Arc<Demand<'_>>],
) -> Allocated {
    let stood = stood(manifest, applied);
    let kept = kept(manifest, registry, demands, &stood);
    let broken = applied.map(|applied| &applied.broken);
    let identities = identities(manifest, &stood, observation.family.values().copied());
    let mut pass = Pass {
        manifest,
        demands,
        allocators: allocators(manifest, registry, observation, demands, &identities),
        identities,
        takers: takers(manifest, demands),
        taken: demands.iter().map(|demand| vec![0; demand.wishes.len()]).collect(),
        allocations: Vec::with_capacity(manifest.sessions.len()),
        broken,
        again: Vec::with_capacity(manifest.sessions.len()),
        open: Vec::with_capacity(manifest.sessions.len()),
        diagnostics: Vec::new(),
    };
    pass.keep(&kept, applied);
    pass.keep_held(observation);
    for (at, kept) in kept.iter().enumerate() {
        pass.session(at, kept);
    }
    let Pass { identities, allocations, open, diagnostics, .. } = pass;
    Allocated { identities, allocations, open, diagnostics }
}

/// Creates the allocator of every kind that can be planned.
fn allocators<'a>(
    manifest: &'a Manifest,
    registry: &'a Registry,
    observation: &'a Observation,
    demands: &[Arc<Demand<'_>>],
    identities: &[Identity],
) -> BTreeMap<&'a str, Box<dyn Allocator + 'a>> {
    let kinds = registry.iter().map(Planner::kind).chain(manifest.providers.keys().map(String::as_str));
    let kinds: BTreeSet<&str> = kinds.collect();
    let allocator = |kind: &'a str| {
        let requesting = asking(manifest, demands, kind).map(|(at, _)| identities[at].id.as_str());
        let held = observation.held.iter().filter(|held| held.kind == kind);
        let sessions: Vec<_> = requesting.chain(held.map(|held| held.session.as_str())).collect();
        let scope = Scope { kind, program: manifest.providers.get(kind), sessions: &sessions };
        Some((kind, registry.planned_by(manifest, kind)?.allocator(observation, &scope)))
    };
    kinds.into_iter().filter_map(allocator).collect()
}

/// Returns the sessions that request a kind, by position, in canonical order.
pub(super) fn asking<'d>(
    manifest: &Manifest,
    demands: &'d [Arc<Demand<'d>>],
    kind: &str,
) -> impl Iterator<Item = (usize, &'d Wish<'d>)> {
    (0..manifest.sessions.len())
        .filter_map(move |at| Some((at, &demands[at].wishes[demands[at].position(kind)?])))
}

/// Returns, for each request of each session, the existing allocation that already satisfies the request.
fn kept<'s>(
    manifest: &Manifest,
    registry: &Registry,
    demands: &[Arc<Demand<'_>>],
    stood: &[Option<&'s Session>],
) -> Vec<Vec<Option<&'s Allocation>>> {
    let mut kept: Vec<Vec<Option<&Allocation>>> = Vec::with_capacity(demands.len());
    for (at, demand) in demands.iter().enumerate() {
        let parent_keeps = |kind: &str| {
            let parent = manifest.sessions[at].parent?;
            kept[parent][demands[parent].position(kind)?]
        };
        let answer = |wish: &Wish<'_>| {
            let allocation = stood[at]?.allocation(wish.kind)?;
            let (applied, asked) = (&allocation.options, &wish.options.said);
            let answers = |of: &dyn Kind| of.is_answered_by(applied, asked);
            let same = registry.get(wish.kind).map_or(applied == asked, answers);
            let same = same && allocation.shared == wish.shared;
            let stays = !allocation.within_parent || parent_keeps(wish.kind).is_some();
            (same && stays).then_some(allocation)
        };
        kept.push(demand.wishes.iter().map(answer).collect());
    }
    kept
}

/// Returns, for each request of each session, the number of shares that the session's children receive.
pub(super) fn takers(manifest: &Manifest, demands: &[Arc<Demand<'_>>]) -> Vec<Vec<u32>> {
    let mut takers: Vec<_> = demands.iter().map(|demand| vec![0; demand.wishes.len()]).collect();
    for (session, demand) in manifest.sessions.iter().zip(demands) {
        for wish in demand.wishes.iter().filter(|wish| wish.shared) {
            if let Some(parent) = session.parent
                && let Some(position) = demands[parent].position(wish.kind)
            {
                let takers = &mut takers[parent][position];
                *takers = session.share.map_or(*takers + 1, |share| share.of.max(*takers));
            }
        }
    }
    takers
}

/// State of the pass over all sessions.
struct Pass<'a> {
    manifest: &'a Manifest,
    demands: &'a [Arc<Demand<'a>>],
    identities: Vec<Identity>,
    allocators: BTreeMap<&'a str, Box<dyn Allocator + 'a>>,
    /// Number of children that receive a share, for each request of each session.
    takers: Vec<Vec<u32>>,
    /// Number of children that have received their share so far, for each request of each session.
    taken: Vec<Vec<u32>>,
    allocations: Vec<Vec<Allocation>>,
    /// Lost or broken allocations of the applied swarm.
    broken: Option<&'a BTreeMap<(SessionPath, String), Damage>>,
    /// Kinds of the existing allocations that are created again in place, for each session so far.
    again: Vec<Vec<&'a str>>,
    open: Vec<bool>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Pass<'a> {
    /// Informs the allocators of the existing allocations that are kept or freed.
    fn keep(&mut self, kept: &[Vec<Option<&Allocation>>], applied: Option<&AppliedPlan>) {
        for (at, kept) in kept.iter().enumerate() {
            let parent = self.manifest.sessions[at].parent.map(|parent| self.identities[parent].id.as_str());
            for allocation in kept.iter().flatten() {
                if let Some(allocator) = self.allocators.get_mut(allocation.kind.as_str()) {
                    allocator.keep(&self.identities[at].id, parent, allocation);
                }
            }
        }
        let stays: HashSet<_> =
            kept.iter().flatten().flatten().map(|allocation| std::ptr::from_ref(*allocation)).collect();
        let stood = applied.iter().flat_map(|applied| &applied.plan.sessions);
        for allocation in stood.flat_map(|session| &session.allocations) {
            if !stays.contains(&std::ptr::from_ref(allocation))
                && let Some(allocator) = self.allocators.get_mut(allocation.kind.as_str())
            {
                allocator.free(allocation);
            }
        }
    }

    /// Reserves the allocations of sessions that this plan does not contain.
    fn keep_held(&mut self, observation: &Observation) {
        for held in &observation.held {
            let Some(allocator) = self.allocators.get_mut(held.kind.as_str()) else { continue };
            let allocation = Allocation {
                kind: held.kind.clone(),
                options: held.options.clone(),
                allocation: held.allocation.clone(),
                shared: held.share.is_some(),
                within_parent: held.share.is_some(),
                notes: Vec::new(),
                external: None,
            };
            allocator.keep(
                &held.session,
                held.share.as_ref().map(|(parent, ..)| parent.as_str()),
                &allocation,
            );
        }
    }

    /// Allocates the requests of the session at this position that `kept` does not satisfy.
    fn session(&mut self, at: usize, kept: &[Option<&Allocation>]) {
        let mut held = Vec::with_capacity(kept.len());
        let mut again = Vec::new();
        let demands = self.demands;
        for ((wish, kept), position) in demands[at].wishes.iter().zip(kept).zip(0..) {
            let share = self.share(at, wish);
            let shares = self.takers[at][position];
            let decided = match kept {
                Some(kept) if self.is_made_again(at, kept) => {
                    again.push(wish.kind);
                    self.again(at, wish, shares, kept).map(Some)
                }
                Some(kept) => Ok(Some((*kept).clone())),
                None => self.wish(at, wish, shares, share),
            };
            held.extend(decided.unwrap_or_else(|found| {
                let found = found
                    .into_iter()
                    .map(|diagnostic| where_it_is_said(self.manifest, self.demands, at, wish, &diagnostic));
                let found: Vec<_> = found.collect();
                self.diagnostics.extend(found);
                None
            }));
        }
        self.again.push(again);
        let session = &self.manifest.sessions[at];
        let above = session.parent.is_some_and(|parent| self.open[parent]);
        let is_less = held.len() < demands[at].wishes.len();
        self.open.push(is_less || above || !session.declaration.whole);
        self.allocations.push(held);
    }

    /// Returns the index of the next share of the parent's allocation, and the number of shares.
    ///
    /// `None` if the request is not a share, or the parent has no such allocation.
    fn share(&mut self, at: usize, wish: &Wish<'a>) -> Option<(u32, u32)> {
        let session = &self.manifest.sessions[at];
        let parent = session.parent.filter(|_| wish.shared)?;
        let position = self.demands[parent].position(wish.kind)?;
        if let Some(share) = session.share {
            return Some((share.index, share.of));
        }
        let taken = &mut self.taken[parent][position];
        *taken += 1;
        Some((*taken - 1, self.takers[parent][position]))
    }

    /// Returns whether an existing allocation is released and created again: the allocation or an enclosing one is
    /// broken.
    fn is_made_again(&self, at: usize, kept: &Allocation) -> bool {
        let session = &self.manifest.sessions[at];
        let Some(broken) = self.broken.filter(|broken| !broken.is_empty()) else { return false };
        let above = session.parent.filter(|_| kept.within_parent);
        above.is_some_and(|parent| self.again[parent].contains(&kept.kind.as_str()))
            || broken.get(&(session.path.clone(), kept.kind.clone())).is_some_and(Damage::is_lost)
    }

    /// Returns the existing allocation in the form in which it is created again.
    fn again(
        &mut self,
        at: usize,
        wish: &Wish<'a>,
        shares: u32,
        kept: &Allocation,
    ) -> Result<Allocation, Diagnostics> {
        let request = request(self.manifest, &self.identities, at, wish, shares);
        match self.allocators.get_mut(wish.kind) {
            Some(allocator) => allocator.again(&request, kept),
            None => Ok(kept.clone()),
        }
    }

    /// Allocates one request. `None` if the parent's allocation failed: only that diagnostic is reported.
    fn wish(
        &mut self,
        at: usize,
        wish: &Wish<'a>,
        shares: u32,
        share: Option<(u32, u32)>,
    ) -> Result<Option<Allocation>, Diagnostics> {
        let session = &self.manifest.sessions[at];
        let request = request(self.manifest, &self.identities, at, wish, shares);
        let Some(allocator) = self.allocators.get_mut(wish.kind) else {
            // An undeclared kind has already been reported.
            let declared = self.manifest.providers.contains_key(wish.kind) || self.manifest.whole;
            return if declared { Err(vec![unknown_kind(wish)].into()) } else { Ok(None) };
        };
        let decided = match session.parent.filter(|_| wish.shared) {
            None => allocator.allocate(&request)?,
            Some(parent) => {
                let of_parent = self.allocations[parent].iter().find(|held| held.kind == wish.kind);
                let (Some(allocation), Some((index, count))) = (of_parent, share) else { return Ok(None) };
                let parent = Parent {
                    session: &self.identities[parent].id,
                    scoped_name: &self.identities[parent].scoped_name,
                    allocation,
                    index,
                    count,
                };
                allocator.sub_allocate(&request, &parent)?
            }
        };
        Ok(Some(Allocation {
            kind: wish.kind.to_owned(),
            options: wish.options.said.clone(),
            allocation: decided.allocation,
            shared: wish.shared,
            within_parent: decided.within_parent,
            notes: decided.notes,
            external: decided.external,
        }))
    }
}

/// Returns the request of the session at this position to one provider.
fn request<'r>(
    manifest: &'r Manifest,
    identities: &'r [Identity],
    at: usize,
    wish: &'r Wish<'_>,
    shares: u32,
) -> Request<'r> {
    let identity = &identities[at];
    Request {
        session: &identity.id,
        scoped_name: &identity.scoped_name,
        swarm: &manifest.swarm,
        path: &manifest.sessions[at].path,
        index: identity.index,
        replica: identity.replica,
        slug: &identity.slug,
        options: &wish.options.all,
        own: wish.own,
        location: wish.location,
        shares,
    }
}

/// Moves a diagnostic about an inherited option to the table that sets the option: a session above, or the defaults.
pub(super) fn where_it_is_said(
    manifest: &Manifest,
    demands: &[Arc<Demand<'_>>],
    at: usize,
    wish: &Wish<'_>,
    diagnostic: &Diagnostic,
) -> Diagnostic {
    let depth = wish.location.steps.len();
    let (Some(Step::Key(option)), true) =
        (diagnostic.location.steps.get(depth), diagnostic.location.steps.starts_with(&wish.location.steps))
    else {
        return diagnostic.clone();
    };
    let in_force = wish.options.all.get(option);
    let moved = |to: Location| {
        let mut location = to;
        location.steps.extend_from_slice(&diagnostic.location.steps[depth..]);
        location.part = diagnostic.location.part.clone();
        Diagnostic { location, ..diagnostic.clone() }
    };
    let mut said = Some((at, wish));
    while let Some((at, wish)) = said {
        if wish.own.contains_key(option) && wish.own.get(option) == in_force {
            return moved(wish.location.clone());
        }
        let parent = manifest.sessions[at].parent.filter(|_| wish.shared);
        said = parent.and_then(|parent| {
            let of_parent = demands[parent].wishes.iter().find(|above| above.kind == wish.kind);
            Some((parent, of_parent?))
        });
    }
    let default = manifest.defaults.get(wish.kind).and_then(|defaults| defaults.get(option));
    if default.is_some() && default == in_force {
        return moved(Location::default().key("defaults").key(wish.kind));
    }
    diagnostic.clone()
}

/// Returns the kinds that a session requests.
pub(super) fn kinds<'m>(demand: &Demand<'m>) -> Vec<&'m str> {
    demand.wishes.iter().map(|wish| wish.kind).collect()
}

fn unknown_kind(wish: &Wish<'_>) -> Diagnostic {
    Diagnostic {
        rule: rule::KIND_NOT_RUN,
        location: wish.location.clone(),
        message: format!("no provider runs the kind `{}`", wish.kind.escape_debug()),
        label: "requested here".to_owned(),
        help: Some("the caller has to register a provider, or take a registry with external kinds".into()),
    }
}
