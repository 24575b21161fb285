//! Provisions one session at a time, without a manifest: the exports of the reference implementation in the forms of
//! Rust.
//!
//! A standalone session uses the same planners and providers as the sessions of a swarm, with the same intent and the
//! same state: a plan of one session, whose swarm has no name. So every guarantee of a swarm is valid for it: all or
//! nothing, and no work is lost unrequested.
//!
//! After a kill, the next [`Orchestrator::provision`] or [`Orchestrator::active`] of the id restores the session, or
//! [`Orchestrator::recover`] of the workspace does.

mod child;
mod error;
mod relatives;
mod provisioned;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

pub use child::{ChildError, child_requests};
pub use error::Error;
pub use provisioned::{Provisioned, RescuedWork, RuntimeInjection};
use relatives::Relatives;

use crate::apply::{self, Context, Event, Recovered, Retries};
use crate::discovery::Snapshot;
use crate::host::process::Cancel;
use crate::host::{Host, clock};
use crate::manifest::{self, Manifest, Options, Program};
use crate::observe::{self, Observation};
use crate::plan::{self, AppliedPlan, Plan};
use crate::provider::Registry;
use crate::state::{self, ChildOf, ChildrenGuard, LockedSwarm, Record, RecordedSwarm, Swarm};

/// Time to wait for another run of the same session: none, because the second run has nothing to do beyond the first.
const LOCK_TIMEOUT: Duration = Duration::ZERO;

/// Provisions sessions one by one.
#[derive(Clone)]
pub struct Orchestrator {
    shared: Arc<Shared>,
    defaults: BTreeMap<String, Options>,
    programs: BTreeMap<String, Program>,
}

/// Values that an orchestrator shares with the sessions it has provisioned.
struct Shared {
    host: Host,
    registry: Registry,
    /// Cancels the runs in progress.
    under_way: Mutex<Cancel>,
    events: Arc<Listener>,
}

/// Listener to the events of runs, which may be called from any thread.
type Listener = dyn Fn(&Event) + Send + Sync;

/// One requested resource of a session.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ResourceRequest {
    /// Kind of the resource, which selects its provider, such as `git-worktree`.
    pub kind: String,
    /// Name of the resource, unique in its session; `None` for the name of its kind.
    #[serde(default)]
    pub name: Option<String>,
    /// Options as in a manifest, such as `base-ref`. The spelling of the reference implementation, `baseRef`, is
    /// accepted too.
    #[serde(default)]
    pub options: Map<String, Value>,
}

impl ResourceRequest {
    /// Returns a request for a resource of this kind, with the defaults of all its options.
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), name: None, options: Map::new() }
    }

    /// Returns the request with a name, which tells it apart from others of the same kind.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Returns the request with one more option.
    #[must_use]
    pub fn with(mut self, option: &str, value: impl Into<Value>) -> Self {
        self.options.insert(option.to_owned(), value.into());
        self
    }
}

/// A session whose run was interrupted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// Id of the session.
    pub session_id: String,
    /// Action of the recovery, or the reason for its failure.
    pub done: Result<Recovered, Error>,
}

impl Orchestrator {
    /// Returns an orchestrator with the kinds built into seedbed.
    pub fn new(host: Host) -> Self {
        Self::with_registry(host, Registry::built_in())
    }

    /// Returns an orchestrator with these kinds.
    pub fn with_registry(host: Host, registry: Registry) -> Self {
        let (defaults, programs) = (BTreeMap::new(), BTreeMap::new());
        Self { shared: Arc::new(Shared::new(host, registry, Arc::new(|_| {}))), defaults, programs }
    }

    /// Reports the events of this orchestrator's runs, and of the runs of the sessions that it provisions. The path in
    /// an event is the session's id.
    ///
    /// The result is a separate orchestrator: [`cancel`](Self::cancel) of the original does not end its runs.
    #[must_use]
    pub fn with_events(self, events: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let Shared { host, registry, .. } = &*self.shared;
        let shared = Shared::new(host.clone(), registry.clone(), Arc::new(events));
        Self { shared: Arc::new(shared), ..self }
    }

    /// Adds an external kind, which `program` plans and provisions; see
    /// [`protocol`](crate::provider::external::protocol).
    ///
    /// The result is a separate orchestrator: [`cancel`](Self::cancel) of the original does not end its runs.
    #[must_use]
    pub fn with_program(mut self, kind: &str, program: Program) -> Self {
        let Shared { host, registry, events, .. } = &*self.shared;
        let registry = registry.clone().with_external_kinds();
        self.shared = Arc::new(Shared::new(host.clone(), registry, Arc::clone(events)));
        self.programs.insert(kind.to_owned(), program);
        self
    }

    /// Ends all runs in progress, on any thread, of this orchestrator, its clones and the sessions that they have
    /// provisioned.
    ///
    /// Each run rolls back what it has created, and returns [`Error::Interrupted`]. Later runs are not affected.
    pub fn cancel(&self) {
        let next = self.shared.host.cancel.below();
        let mut under_way = self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *under_way, next).request();
    }

    /// Returns an orchestrator that applies these options to every request of their kind. The options of a request take
    /// precedence.
    #[must_use]
    pub fn with_defaults(mut self, defaults: &ResourceRequest) -> Self {
        let manifest::ResourceOptions { kind, options, .. } = in_kebab_case(defaults);
        self.defaults.insert(kind, options);
        self
    }

    /// Provisions a session: all requested resources, or nothing.
    ///
    /// `session_id` is any text without control characters. The id names the session in this workspace, for all
    /// processes, until the session is released. If a session of this id is already active, this is [`Error::AlreadyActive`].
    /// Resources of one kind have different [names](ResourceRequest::named). When this returns, the discovery file is
    /// written.
    pub fn provision(
        &self,
        session_id: &str,
        resources: &[ResourceRequest],
        workspace_root: &Path,
    ) -> Result<Provisioned, Error> {
        self.provision_in(session_id, resources, &canonical(workspace_root)?, None)
    }

    /// Provisions the child at `child_index` (from 0) of `child_count` from its parent's snapshot, with the result of
    /// [`child_requests`].
    ///
    /// The child also gets a share of each resource of another kind that the parent has and the registry knows:
    /// `child_index` of `child_count`, planned with the parent's options as for a child in a manifest.
    ///
    /// - A kind that refuses to divide is [`Error::Diagnostics`], as in a manifest. If the registry does not know a kind,
    ///   the child is provisioned without it.
    /// - Programs of external kinds are run if the registry [has external kinds](Registry::with_external_kinds). Their
    ///   request lists all sessions of the family that have the kind.
    /// - Such shares require that the parent is active as in its snapshot. Otherwise this is [`Error::Released`].
    ///
    /// The ports of the child are inside its parent's, which it may use while the parent is active as in the snapshot.
    /// A parent is not released before its children.
    pub fn provision_child(
        &self,
        parent: &Snapshot,
        child_id: &str,
        child_index: u32,
        child_count: u32,
    ) -> Result<Provisioned, Error> {
        let mut resources = child_requests(&self.shared.registry, parent, child_index, child_count)?;
        for request in &mut resources {
            make_relative(request, &parent.workspace_root);
        }
        let workspace = canonical(&parent.workspace_root)?;
        let child = ChildOf { index: child_index, count: child_count };
        self.provision_in(child_id, &resources, &workspace, Some((parent, child)))
    }

    /// Returns the session of this id, if it is active. This or another process, which may have ended, provisioned it.
    ///
    /// First restores what an interrupted run of the session left.
    pub fn active(&self, session_id: &str, workspace_root: &Path) -> Result<Option<Provisioned>, Error> {
        let workspace = canonical(workspace_root)?;
        self.shared.locked(&workspace, session_id, "find", |context| {
            apply::recover(context, apply::Options::default()).map_err(Error::from_release_error)?;
            Ok(context.swarm.applied()?.and_then(|record| self.provisioned(context.swarm, &record)))
        })
    }

    /// Finishes or rolls back interrupted runs of this workspace's standalone sessions, children before their parents.
    ///
    /// Returns for each of them the action, or the reason for its failure. Runs in progress are not affected. `options`
    /// are as for [`apply::recover`], and `timeout` is the wait for processes that a killed run left. If a session has
    /// a resource of a kind that the registry does not know, which is [`Error::UnknownKind`], nothing of the session is
    /// removed.
    pub fn recover(
        &self,
        workspace_root: &Path,
        options: apply::Options,
        timeout: Duration,
    ) -> Result<Vec<Recovery>, Error> {
        let workspace = canonical(workspace_root)?;
        let mut found = state::sessions(&self.shared.host)?;
        found.retain(|found| found.workspace() == Some(&workspace) && found.is_unfinished());
        found.sort_by_key(|found| found.record().map(|record| Reverse(record.ancestors.len())));
        let of_session = |found: &RecordedSwarm| {
            let done = self.recover_one(found, &workspace, options, timeout);
            let is_under_way = matches!(done, Err(Error::State(state::Error::Locked { .. })));
            (!is_under_way).then(|| Recovery { session_id: found.name().to_owned(), done })
        };
        Ok(found.iter().filter_map(of_session).collect())
    }

    fn recover_one(
        &self,
        found: &RecordedSwarm,
        workspace: &Path,
        options: apply::Options,
        timeout: Duration,
    ) -> Result<Recovered, Error> {
        let recover = |timeout| {
            self.shared.locked_within(timeout, workspace, found.name(), "recover", |context| {
                apply::recover(context, options).map_err(Error::from_release_error)
            })
        };
        match recover(LOCK_TIMEOUT) {
            Err(Error::State(state::Error::Orphaned { .. })) if !timeout.is_zero() => recover(timeout),
            done => done,
        }
    }

    fn provision_in(
        &self,
        id: &str,
        resources: &[ResourceRequest],
        workspace: &Path,
        above: Option<(&Snapshot, ChildOf)>,
    ) -> Result<Provisioned, Error> {
        let registry = &self.shared.registry;
        if id.is_empty() || id.contains(char::is_control) {
            return Err(Error::SessionId(id.to_owned()));
        }
        let kinds = registry.kinds();
        let is_known = |kind| kinds.contains_key(kind) || self.programs.contains_key(kind);
        if let Some(unknown) = resources.iter().find(|resource| !is_known(&resource.kind)) {
            return Err(Error::UnknownKind(unknown.kind.clone()));
        }
        let resources: Vec<_> = resources.iter().map(in_kebab_case).collect();
        let manifest = manifest::for_session(id, &resources, &self.defaults, &self.programs, &kinds)
            .map_err(Error::Diagnostics)?;
        self.shared.locked(workspace, id, "provision", |context| {
            apply::recover(context, apply::Options::default()).map_err(Error::from_provisioning_error)?;
            if context.swarm.applied()?.is_some() {
                return Err(Error::AlreadyActive(id.to_owned()));
            }
            let record = self.provision_one(context, &manifest, above)?;
            self.provisioned(context.swarm, &record).ok_or_else(|| Error::Released(id.to_owned()))
        })
    }

    /// Plans and provisions. If another session takes a planned resource first, plans again.
    fn provision_one(
        &self,
        context: &Context<'_>,
        manifest: &Manifest,
        above: Option<(&Snapshot, ChildOf)>,
    ) -> Result<Record, Error> {
        let registry = &self.shared.registry;
        let mut owner = None;
        let mut input = self.read_planning_input(context.swarm, manifest, above)?;
        let mut retries = Retries::default();
        loop {
            // Until the intent is on disk, no sibling with the same number is begun, and no parent is released.
            let guard = above.map(|_| ChildrenGuard::acquire(context.swarm.host())).transpose()?;
            let family = self.family(above, context.swarm)?;
            if !input.is_valid_for(family.as_ref()) {
                drop(guard);
                input = self.read_planning_input(context.swarm, manifest, above)?;
                continue;
            }
            let record = Record {
                schema_version: state::SCHEMA_VERSION,
                owner: match (&family, &owner) {
                    (Some(family), _) => family.owner.clone(),
                    (None, Some(owner)) => String::clone(owner),
                    (None, None) => owner.insert(state::new_owner()?).clone(),
                },
                workspace: context.swarm.workspace().to_owned(),
                since: Some(clock::now()),
                ancestors: family.as_ref().map(|family| family.ancestors.clone()).unwrap_or_default(),
                child: family.as_ref().map(|family| family.child),
                temporary: false,
                instance_of: None,
                artifacts: None,
                fleet: None,
                prepared: false,
                not_set_up: BTreeMap::new(),
                forgotten: BTreeMap::new(),
                repositories: BTreeMap::new(),
                manifest: None,
                created: BTreeMap::new(),
                plan: input.plan(family.as_ref(), registry)?,
                release: None,
            };
            let record = apply::repositories::with_identities(context.swarm.host(), registry, record);
            apply::transaction::begin(context, &record).map_err(Error::from_provisioning_error)?;
            drop(guard);
            let (all, options) = (apply::transaction::Teardowns::All, apply::Options::default());
            let mut error = match apply::transaction::run_begun(context, &record, None, all, options) {
                Ok(()) => return Ok(record),
                Err(error) if Retries::may_help(&error) => error,
                Err(error) => return Err(Error::from_provisioning_error(error)),
            };
            input = match self.read_planning_input(context.swarm, manifest, above) {
                Err(_) if !apply::is_conflict(&error) => return Err(Error::from_provisioning_error(error)),
                input => input?,
            };
            if retries.conflict(&mut error, &record.plan, registry, &input.observation, None).is_none() {
                return Err(Error::from_provisioning_error(error));
            }
        }
    }

    /// Observes all facts that planning needs, also from programs of external kinds.
    fn read_planning_input(
        &self,
        swarm: &Swarm<'_>,
        manifest: &Manifest,
        above: Option<(&Snapshot, ChildOf)>,
    ) -> Result<PlanningInput, Error> {
        let registry = &self.shared.registry;
        let family = self.family(above, swarm)?;
        let mut manifest = manifest.clone();
        let applied = family.as_ref().and_then(|family| family.join(&mut manifest, registry));
        if let Some(family) = &family {
            manifest.repositories.clone_from(&family.repositories);
        }
        let mut observation = apply::planning_input_without_programs(swarm, registry, &manifest)?.observation;
        if let Some(family) = &family {
            family.add_to_observation(&mut observation);
        }
        let queries = plan::programs(&manifest, registry, &observation, applied.as_ref());
        if !queries.is_empty() {
            observation.programs = observe::observe(swarm.host(), swarm.workspace(), &queries)?.programs;
        }
        Ok(PlanningInput { family, manifest, applied, observation })
    }

    /// Returns the family of a child; `None` for a session that is no child, or if the parent is not active as in its
    /// snapshot.
    fn family(
        &self,
        above: Option<(&Snapshot, ChildOf)>,
        own: &Swarm<'_>,
    ) -> Result<Option<Relatives>, Error> {
        let Some((parent, child)) = above else { return Ok(None) };
        let family = self.shared.family(parent, child, own)?;
        if family.is_none() && self.shared.hands_down_by_record(parent) {
            return Err(Error::Released(parent.session_id.clone()));
        }
        Ok(family)
    }

    fn provisioned(&self, swarm: &Swarm<'_>, record: &Record) -> Option<Provisioned> {
        let session = record.plan.sessions.first()?;
        Some(Provisioned::new(Arc::clone(&self.shared), swarm, record, session))
    }
}

/// Input of planning one session.
struct PlanningInput {
    family: Option<Relatives>,
    /// The manifest of the session, joined to its family.
    manifest: Manifest,
    /// Active sessions of the family.
    applied: Option<AppliedPlan>,
    observation: Observation,
}

impl PlanningInput {
    /// Returns whether this is still the valid input of planning. Takes over new facts if no program has to be run
    /// again.
    fn is_valid_for(&mut self, family: Option<&Relatives>) -> bool {
        if let (Some(old), Some(new)) = (&self.family, family)
            && old != new
        {
            if old.has_shares_by_record() || new.has_shares_by_record() {
                return false;
            }
            new.add_to_observation(&mut self.observation);
        }
        self.family.is_some() == family.is_some()
    }

    fn plan(&self, family: Option<&Relatives>, registry: &Registry) -> Result<Plan, Error> {
        let plan = plan::plan(&self.manifest, registry, &self.observation, self.applied.as_ref());
        let plan = plan.map_err(Error::Diagnostics)?;
        match (family, &self.applied) {
            (Some(family), Some(_)) => family.leave(plan, registry),
            _ => Ok(plan),
        }
    }
}

impl Shared {
    fn new(host: Host, registry: Registry, events: Arc<Listener>) -> Self {
        let under_way = Mutex::new(host.cancel.below());
        Self { host, registry, under_way, events }
    }

    fn locked<T>(
        &self,
        workspace: &Path,
        id: &str,
        what: &str,
        act: impl FnOnce(&Context<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.locked_within(LOCK_TIMEOUT, workspace, id, what, act)
    }

    /// Runs `act` under the session's lock, for which it waits at most `timeout`.
    fn locked_within<T>(
        &self,
        timeout: Duration,
        workspace: &Path,
        id: &str,
        what: &str,
        act: impl FnOnce(&Context<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let host = self.host_of_a_run();
        let locked: LockedSwarm<'_> =
            Swarm::for_session(&host, workspace, id)?.lock(timeout, &format!("{what} {id}"))?;
        let done = act(&Context::new(&locked, &self.registry).with_events(&*self.events));
        // The result of the run counts; at worst an empty file stays behind.
        let _ = locked.unlock();
        match done {
            // The cancellation makes observing the host fail.
            Err(Error::Observe(_)) if host.cancel.is_requested() => Err(Error::Interrupted),
            done => done,
        }
    }

    /// Returns the host for one run, which [`Orchestrator::cancel`] ends.
    fn host_of_a_run(&self) -> Host {
        self.host.with_cancel(self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Makes paths in the options of a request that are in the workspace relative to the workspace.
///
/// The records of the session then move with the workspace, and a copy has its own.
fn make_relative(request: &mut ResourceRequest, workspace: &Path) {
    for option in request.options.values_mut() {
        let below = option.as_str().and_then(|path| Path::new(path).strip_prefix(workspace).ok()?.to_str());
        if let Some(below) = below.filter(|below| !below.is_empty()) {
            *option = below.into();
        }
    }
}

/// Returns a request with `baseRef` as `base-ref`. Keys in kebab-case stay unchanged.
fn in_kebab_case(request: &ResourceRequest) -> manifest::ResourceOptions {
    let kebab = |key: &String| {
        let mut kebab = String::with_capacity(key.len() + 4);
        for c in key.chars() {
            if c.is_ascii_uppercase() {
                kebab.push('-');
            }
            kebab.push(c.to_ascii_lowercase());
        }
        kebab
    };
    let options = request.options.iter().map(|(key, value)| (kebab(key), value.clone()));
    let (kind, name) = (request.kind.clone(), request.name.clone());
    manifest::ResourceOptions { kind, name, options: options.collect() }
}

#[expect(clippy::disallowed_methods, reason = "state and plans know a workspace by its path without links")]
fn canonical(workspace: &Path) -> Result<PathBuf, Error> {
    std::fs::canonicalize(workspace).map_err(|source| Error::Workspace { path: workspace.to_owned(), source })
}
