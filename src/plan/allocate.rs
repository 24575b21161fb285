//! First pass: the allocations of every session.
//!
//! Existing allocations that are still requested are kept first, so that a kept allocation never moves. Then everything
//! else is allocated in canonical order.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::contributions::resource_context;
use super::requests::{EffectiveRequest, SessionRequests};
use super::session_identity::{Identity, active, identities};
use super::{AppliedPlan, Damage, Session};
use crate::manifest::diagnostic::Step;
use crate::manifest::{Diagnostic, Diagnostics, Location, Manifest, rule};
use crate::name::{SessionPath, variable_part};
use crate::observe::Observation;
use crate::provider::external::request_key;
use crate::provider::{Allocation, Allocator, Kind, Parent, Planner, Registry, Request, Scope};

/// Identity and allocations of every session, in the manifest's order.
#[derive(Default)]
pub(super) struct Allocated {
    pub(super) identities: Vec<Identity>,
    pub(super) allocations: Vec<Vec<Allocation>>,
    /// Sessions that lack an allocation because of an earlier diagnostic, by position.
    pub(super) unresolved: Vec<bool>,
    /// `true` if no program was run, so that external kinds have no values yet.
    pub(super) is_undecided: bool,
    /// Diagnostics of requests that cannot be satisfied.
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Allocated {
    /// Adds the sessions of another part of the swarm behind these.
    pub(super) fn append(&mut self, part: Self) {
        self.identities.extend(part.identities);
        self.allocations.extend(part.allocations);
        self.unresolved.extend(part.unresolved);
        self.is_undecided |= part.is_undecided;
        self.diagnostics.extend(part.diagnostics);
    }
}

/// Allocates the requested resources; collects every diagnostic, not only the first.
pub(super) fn pass(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
    all_requests: &[Arc<SessionRequests<'_>>],
) -> Allocated {
    let active_sessions = active(manifest, applied);
    let broken = applied.map(|applied| &applied.broken);
    let identities = identities(manifest, &active_sessions, observation.relatives.values().copied());
    let takers = takers(manifest, all_requests);
    let mut allocators = allocators(manifest, registry, observation, all_requests, &identities);
    let active_with = |is_wanted: &dyn Fn(&dyn Allocator, &Allocation) -> bool| {
        let held = active_sessions.iter().flatten().flat_map(|session| &session.allocations);
        let wanted = held.filter(|held| {
            allocators.get(held.kind.as_str()).is_some_and(|allocator| is_wanted(&**allocator, held))
        });
        wanted.map(std::ptr::from_ref).collect()
    };
    let remaining = Remaining {
        manifest,
        registry,
        all_requests,
        active_sessions: &active_sessions,
        outdated: active_with(&|allocator, held| !allocator.can_keep(held)),
        changed: active_with(&|allocator, held| allocator.needs_update(held)),
    };
    let kept = remaining.kept(&mut |at, position, wanted, old| {
        let request = request(manifest, &identities, at, wanted, takers[at][position]);
        allocators.get_mut(wanted.kind)?.update(&request, old)
    });
    let mut pass = Pass {
        manifest,
        registry,
        all_requests,
        allocators,
        identities,
        takers,
        taken: all_requests.iter().map(|session_requests| vec![0; session_requests.requests.len()]).collect(),
        allocations: Vec::with_capacity(manifest.sessions.len()),
        broken,
        again: Vec::with_capacity(manifest.sessions.len()),
        unresolved: Vec::with_capacity(manifest.sessions.len()),
        diagnostics: Vec::new(),
    };
    pass.keep(&kept, applied);
    pass.keep_relatives(observation);
    for (at, kept) in kept.iter().enumerate() {
        pass.session(at, kept);
    }
    let Pass { identities, allocations, unresolved, diagnostics, .. } = pass;
    let is_undecided = observation.programs.is_none() && !manifest.providers.is_empty();
    Allocated { identities, allocations, unresolved, is_undecided, diagnostics }
}

/// Creates the allocator of every kind that can be planned.
fn allocators<'a>(
    manifest: &'a Manifest,
    registry: &'a Registry,
    observation: &'a Observation,
    all_requests: &[Arc<SessionRequests<'_>>],
    identities: &[Identity],
) -> BTreeMap<&'a str, Box<dyn Allocator + 'a>> {
    let kinds = registry.iter().map(Planner::kind).chain(manifest.providers.keys().map(String::as_str));
    let kinds: BTreeSet<&str> = kinds.collect();
    let allocator = |kind: &'a str| {
        let requesting = requesting(manifest, all_requests, kind)
            .map(|(at, wanted)| request_key(&identities[at].id, kind, wanted.name));
        let held = observation.relative_allocations.iter().filter(|held| held.kind == kind);
        let held = held.map(|held| request_key(&held.session, kind, held.name.as_deref().unwrap_or(kind)));
        let requests: Vec<_> = requesting.chain(held).collect();
        let scope = Scope { kind, program: manifest.providers.get(kind), requests: &requests };
        Some((kind, registry.planned_by(manifest, kind)?.allocator(observation, &scope)))
    };
    kinds.into_iter().filter_map(allocator).collect()
}

/// Returns the sessions that request a kind, by position, in canonical order.
pub(super) fn requesting<'d>(
    manifest: &Manifest,
    all_requests: &'d [Arc<SessionRequests<'d>>],
    kind: &'d str,
) -> impl Iterator<Item = (usize, &'d EffectiveRequest<'d>)> {
    (0..manifest.sessions.len()).flat_map(move |at| {
        let wanted = all_requests[at].requests.iter().filter(move |wanted| wanted.kind == kind);
        wanted.map(move |wanted| (at, wanted))
    })
}

/// Active allocation that remains for a request.
struct Kept<'s> {
    active: &'s Allocation,
    /// The allocation with the requested options, if they differ and it is updated in place; `None` if it is unchanged.
    updated: Option<Result<Allocation, Diagnostics>>,
}

/// Updates an active allocation for the request at two positions, that of the session and that of the request.
type Update<'u> = dyn FnMut(usize, usize, &EffectiveRequest<'_>, &Allocation) -> Option<Result<Map<String, Value>, Diagnostics>>
    + 'u;

/// Requests of a manifest, and the active sessions.
struct Remaining<'a, 's> {
    manifest: &'a Manifest,
    registry: &'a Registry,
    all_requests: &'a [Arc<SessionRequests<'a>>],
    active_sessions: &'a [Option<&'s Session>],
    /// Active allocations that [`Allocator::can_keep`] rejects.
    outdated: HashSet<*const Allocation>,
    /// Active allocations for which [`Allocator::needs_update`].
    changed: HashSet<*const Allocation>,
}

impl<'s> Remaining<'_, 's> {
    /// Returns, for each request of each session, the active allocation that remains: it satisfies the request already,
    /// or it is updated in place.
    fn kept(&self, update: &mut Update<'_>) -> Vec<Vec<Option<Kept<'s>>>> {
        let mut kept: Vec<Vec<Option<Kept<'s>>>> = Vec::with_capacity(self.all_requests.len());
        for (at, session_requests) in self.all_requests.iter().enumerate() {
            let parent_keeps = |name: &str| {
                let parent = self.manifest.sessions[at].parent?;
                kept[parent][self.all_requests[parent].position(name)?].as_ref()
            };
            let mut of_session = Vec::with_capacity(session_requests.requests.len());
            for (position, wanted) in session_requests.requests.iter().enumerate() {
                let active = self.active_sessions[at].and_then(|session| session.allocation(wanted.name));
                let active = active.filter(|active| {
                    let stays = !active.within_parent || parent_keeps(wanted.name).is_some();
                    let stays = stays && !self.outdated.contains(&std::ptr::from_ref(*active));
                    let provider = self.registry.get(wanted.kind);
                    let is_located = provider.is_none_or(|kind| kind.is_located(active, wanted.several));
                    stays && is_located && active.shared == wanted.shared && active.kind == wanted.kind
                });
                of_session.push(active.and_then(|active| {
                    self.kept_by(wanted, active, &mut || update(at, position, wanted, active))
                }));
            }
            kept.push(of_session);
        }
        kept
    }

    /// Returns an active allocation, unless the request requires another one.
    fn kept_by(
        &self,
        wanted: &EffectiveRequest<'_>,
        active: &'s Allocation,
        update: &mut dyn FnMut() -> Option<Result<Map<String, Value>, Diagnostics>>,
    ) -> Option<Kept<'s>> {
        let (options, asked) = (&active.options, &wanted.options.explicit);
        let answers = |of: &dyn Kind| of.is_compatible(options, asked);
        let provider = self.registry.get(wanted.kind);
        let is_compatible = provider.map_or(options == asked, answers);
        if is_compatible && !self.changed.contains(&std::ptr::from_ref(active)) {
            return Some(Kept { active, updated: None });
        }
        let Some(updated) = update() else {
            return is_compatible.then_some(Kept { active, updated: None });
        };
        let updated =
            updated.map(|allocation| Allocation { options: asked.clone(), allocation, ..active.clone() });
        let is_update = |of: &dyn Kind| updated.as_ref().is_ok_and(|updated| of.is_update(active, updated));
        if updated.is_err() || provider.is_some_and(is_update) {
            return Some(Kept { active, updated: Some(updated) });
        }
        is_compatible.then_some(Kept { active, updated: None })
    }
}

/// Returns, for each request of each session, the number of shares that the session's children receive.
pub(super) fn takers(manifest: &Manifest, all_requests: &[Arc<SessionRequests<'_>>]) -> Vec<Vec<u32>> {
    let mut takers: Vec<_> =
        all_requests.iter().map(|session_requests| vec![0; session_requests.requests.len()]).collect();
    for (session, session_requests) in manifest.sessions.iter().zip(all_requests) {
        for wanted in session_requests.requests.iter().filter(|wanted| wanted.shared) {
            if let Some(parent) = session.parent
                && let Some(position) = all_requests[parent].position(wanted.name)
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
    registry: &'a Registry,
    all_requests: &'a [Arc<SessionRequests<'a>>],
    identities: Vec<Identity>,
    allocators: BTreeMap<&'a str, Box<dyn Allocator + 'a>>,
    /// Number of children that receive a share, for each request of each session.
    takers: Vec<Vec<u32>>,
    /// Number of children that have received their share so far, for each request of each session.
    taken: Vec<Vec<u32>>,
    allocations: Vec<Vec<Allocation>>,
    /// Lost or broken allocations of the applied swarm.
    broken: Option<&'a BTreeMap<(SessionPath, String), Damage>>,
    /// Names of the resources that are created again in place, for each session so far.
    again: Vec<Vec<&'a str>>,
    unresolved: Vec<bool>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Pass<'a> {
    /// Informs the allocators of the existing allocations that are kept or freed.
    fn keep(&mut self, kept: &[Vec<Option<Kept<'_>>>], applied: Option<&AppliedPlan>) {
        for (at, kept) in kept.iter().enumerate() {
            let parent = self.manifest.sessions[at].parent.map(|parent| self.identities[parent].id.as_str());
            for Kept { active, updated } in kept.iter().flatten() {
                let allocation = updated.as_ref().and_then(|updated| updated.as_ref().ok()).unwrap_or(active);
                if let Some(allocator) = self.allocators.get_mut(allocation.kind.as_str()) {
                    allocator.keep(&self.identities[at].id, parent, allocation);
                }
            }
        }
        let stays: HashSet<_> =
            kept.iter().flatten().flatten().map(|kept| std::ptr::from_ref(kept.active)).collect();
        let active_sessions = applied.iter().flat_map(|applied| &applied.plan.sessions);
        for allocation in active_sessions.flat_map(|session| &session.allocations) {
            if stays.contains(&std::ptr::from_ref(allocation)) {
                continue;
            }
            if let Some(allocator) = self.allocators.get_mut(allocation.kind.as_str()) {
                allocator.free(allocation);
            }
            let kind = self.registry.get(&allocation.kind);
            if let Some(directory) = kind.and_then(|kind| kind.directory(allocation)) {
                self.allocators.values_mut().for_each(|allocator| allocator.vacate(&directory));
            }
        }
    }

    /// Reserves the allocations of sessions that this plan does not contain.
    fn keep_relatives(&mut self, observation: &Observation) {
        for held in &observation.relative_allocations {
            let Some(allocator) = self.allocators.get_mut(held.kind.as_str()) else { continue };
            let allocation = Allocation {
                kind: held.kind.clone(),
                name: held.name.clone(),
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
    fn session(&mut self, at: usize, kept: &[Option<Kept<'_>>]) {
        let mut held = Vec::with_capacity(kept.len());
        let mut again = Vec::new();
        let all_requests = self.all_requests;
        for ((wanted, kept), position) in all_requests[at].requests.iter().zip(kept).zip(0..) {
            let share = self.share(at, wanted);
            let shares = self.takers[at][position];
            let kept = kept.as_ref().map(|kept| match &kept.updated {
                Some(updated) => updated.clone(),
                None => Ok(kept.active.clone()),
            });
            let decided = match kept {
                Some(Ok(kept)) if self.is_made_again(at, &kept) => {
                    again.push(wanted.name);
                    self.again(at, wanted, shares, &kept).map(Some)
                }
                Some(kept) => kept.map(Some),
                None => self.decide(at, wanted, shares, share),
            };
            held.extend(decided.unwrap_or_else(|found| {
                let found = found.into_iter().map(|diagnostic| {
                    at_the_setting_table(self.manifest, self.all_requests, at, wanted, &diagnostic)
                });
                let found: Vec<_> = found.collect();
                self.diagnostics.extend(found);
                None
            }));
        }
        self.again.push(again);
        self.check_several(at, &held);
        self.check_directory(at, &held);
        let session = &self.manifest.sessions[at];
        let above = session.parent.is_some_and(|parent| self.unresolved[parent]);
        let is_less = held.len() < all_requests[at].requests.len();
        self.unresolved.push(is_less || above || !session.declaration.complete);
        self.allocations.push(held);
    }

    /// Checks that the resource in whose directory a session works has one.
    fn check_directory(&mut self, at: usize, held: &[Allocation]) {
        let declaration = &self.manifest.sessions[at].declaration;
        let Some(name) = &declaration.directory else { return };
        // A resource that does not exist, or was not planned, is reported elsewhere.
        let Some(chosen) = held.iter().find(|held| held.name() == name) else { return };
        let kind = self.registry.get(&chosen.kind);
        if kind.is_some_and(|kind| kind.working_directory(chosen).is_none()) {
            let message = format!("`{name}` is a `{}`, which has no directory", chosen.kind.escape_debug());
            let location = declaration.location.key("directory");
            let diagnostic = Diagnostic::new(rule::WORKING_DIRECTORY, location, message, "would work there");
            self.diagnostics.push(diagnostic.with_help("name a worktree or a directory of the session"));
        }
    }

    /// Checks the resources of a session that has several of one kind.
    fn check_several(&mut self, at: usize, held: &[Allocation]) {
        let requests = &self.all_requests[at].requests;
        let mut variables: BTreeMap<String, &str> = BTreeMap::new();
        for (position, wanted) in requests.iter().enumerate() {
            let of_kind = requests.iter().filter(|other| other.kind == wanted.kind).count();
            let Some(kind) = self.registry.get(wanted.kind).filter(|_| of_kind > 1) else { continue };
            let mut earlier = requests[..position].iter().filter(|other| other.kind == wanted.kind);
            // Two resources of one name were reported before.
            if !kind.allows_several() && earlier.any(|other| other.name != wanted.name) {
                self.diagnostics.push(kind_twice(wanted));
            }
            let Some(at) = held.iter().position(|held| held.name() == wanted.name) else { continue };
            let context = resource_context(held, at, kind);
            for variable in context.env.into_keys() {
                match variables.get(&variable) {
                    // Reported with the names.
                    Some(other) if variable_part(other) == variable_part(wanted.name) => {}
                    Some(other) => self.diagnostics.push(variable_twice(wanted, &variable, other)),
                    None => _ = variables.insert(variable, wanted.name),
                }
            }
        }
    }

    /// Returns the index of the next share of the parent's allocation, and the number of shares.
    ///
    /// `None` if the request is not a share, or the parent has no such allocation.
    fn share(&mut self, at: usize, wanted: &EffectiveRequest<'a>) -> Option<(u32, u32)> {
        let session = &self.manifest.sessions[at];
        let parent = session.parent.filter(|_| wanted.shared)?;
        let position = self.all_requests[parent].position(wanted.name)?;
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
        above.is_some_and(|parent| self.again[parent].contains(&kept.name()))
            || broken.get(&(session.path.clone(), kept.name().to_owned())).is_some_and(Damage::is_lost)
    }

    /// Returns the existing allocation in the form in which it is created again.
    fn again(
        &mut self,
        at: usize,
        wanted: &EffectiveRequest<'a>,
        shares: u32,
        kept: &Allocation,
    ) -> Result<Allocation, Diagnostics> {
        let request = request(self.manifest, &self.identities, at, wanted, shares);
        match self.allocators.get_mut(wanted.kind) {
            Some(allocator) => allocator.recreate(&request, kept),
            None => Ok(kept.clone()),
        }
    }

    /// Allocates one request. `None` if the parent's allocation failed: only that diagnostic is reported.
    fn decide(
        &mut self,
        at: usize,
        wanted: &EffectiveRequest<'a>,
        shares: u32,
        share: Option<(u32, u32)>,
    ) -> Result<Option<Allocation>, Diagnostics> {
        let session = &self.manifest.sessions[at];
        let request = request(self.manifest, &self.identities, at, wanted, shares);
        let Some(allocator) = self.allocators.get_mut(wanted.kind) else {
            // An undeclared kind has already been reported.
            let declared = self.manifest.providers.contains_key(wanted.kind) || self.manifest.complete;
            return if declared { Err(vec![unknown_kind(wanted)].into()) } else { Ok(None) };
        };
        let decided = match session.parent.filter(|_| wanted.shared) {
            None => allocator.allocate(&request)?,
            Some(parent) => {
                let of_parent = self.allocations[parent].iter().find(|held| held.name() == wanted.name);
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
            kind: wanted.kind.to_owned(),
            name: Some(wanted.name).filter(|name| *name != wanted.kind).map(str::to_owned),
            options: wanted.options.explicit.clone(),
            allocation: decided.allocation,
            shared: wanted.shared,
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
    wanted: &'r EffectiveRequest<'_>,
    shares: u32,
) -> Request<'r> {
    let identity = &identities[at];
    Request {
        session: &identity.id,
        resource: wanted.name,
        scoped_name: &identity.scoped_name,
        swarm: &manifest.swarm,
        path: &manifest.sessions[at].path,
        index: identity.index,
        replica: identity.replica,
        slug: &identity.slug,
        options: &wanted.options.all,
        own: wanted.own,
        location: wanted.location,
        several: wanted.several,
        shares,
        spawned: manifest.sessions[at].spawned.is_some(),
        is_instance: manifest.instance_of.is_some(),
    }
}

/// Moves a diagnostic about an inherited option to the table that sets the option: a session above, or the defaults.
pub(super) fn at_the_setting_table(
    manifest: &Manifest,
    all_requests: &[Arc<SessionRequests<'_>>],
    at: usize,
    wanted: &EffectiveRequest<'_>,
    diagnostic: &Diagnostic,
) -> Diagnostic {
    let depth = wanted.location.steps.len();
    let (Some(Step::Key(option)), true) =
        (diagnostic.location.steps.get(depth), diagnostic.location.steps.starts_with(&wanted.location.steps))
    else {
        return diagnostic.clone();
    };
    let effective = wanted.options.all.get(option);
    let moved = |to: Location| {
        let mut location = to;
        location.steps.extend_from_slice(&diagnostic.location.steps[depth..]);
        location.part = diagnostic.location.part.clone();
        Diagnostic { location, ..diagnostic.clone() }
    };
    let mut explicit = Some((at, wanted));
    while let Some((at, wanted)) = explicit {
        if wanted.own.contains_key(option) && wanted.own.get(option) == effective {
            return moved(wanted.location.clone());
        }
        let parent = manifest.sessions[at].parent.filter(|_| wanted.shared);
        explicit = parent.and_then(|parent| {
            let of_parent = all_requests[parent].find(wanted.name, wanted.kind);
            Some((parent, of_parent?))
        });
    }
    let default = manifest.defaults.get(wanted.kind).and_then(|defaults| defaults.get(option));
    if default.is_some() && default == effective {
        return moved(Location::default().key("defaults").key(wanted.kind));
    }
    diagnostic.clone()
}

/// Returns the kinds that a session requests.
pub(super) fn kinds<'m>(session_requests: &SessionRequests<'m>) -> Vec<&'m str> {
    session_requests.requests.iter().map(|wanted| wanted.kind).collect()
}

fn kind_twice(wanted: &EffectiveRequest<'_>) -> Diagnostic {
    let message = format!("`{}` is requested twice", wanted.kind.escape_debug());
    Diagnostic::new(rule::KIND_TWICE, wanted.location.clone(), message, "the second one").with_help(
        "a session has one resource of this kind: remove this entry, or put its options into the first one",
    )
}

fn variable_twice(wanted: &EffectiveRequest<'_>, variable: &str, other: &str) -> Diagnostic {
    let message = format!("`{}` and `{other}` both set the variable `{variable}`", wanted.name);
    Diagnostic::new(rule::VARIABLE_TWICE, wanted.location.clone(), message, "sets it again").with_help(
        if variable.starts_with("AGENT_PORT_") {
            "give each port of the session another name: `names = [\"…\"]`"
        } else {
            "a program of an external kind gets the `resource` of each request: name the variable by it"
        },
    )
}

fn unknown_kind(wanted: &EffectiveRequest<'_>) -> Diagnostic {
    Diagnostic {
        rule: rule::KIND_NOT_RUN,
        location: wanted.location.clone(),
        message: format!("no provider runs the kind `{}`", wanted.kind.escape_debug()),
        label: "requested here".to_owned(),
        help: Some("the caller has to register a provider, or take a registry with external kinds".into()),
    }
}
