//! Relation of a child that a program provisions to its parent.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::{ChildError, Error, Shared};
use crate::apply;
use crate::discovery::{self, Snapshot};
use crate::manifest::{
    self, Declaration, From, Inherited, Location, Manifest, Options, Program, Request, SessionText, Share,
};
use crate::name::SessionPath;
use crate::observe::{Observation, PortOwner};
use crate::plan::{AppliedPlan, Plan, SCHEMA_VERSION, Session};
use crate::provider::Registry;
use crate::state::{self, ChildOf, Record, Swarm};

/// Relatives of a child, with the ownership marker under which the child may use the parent's ports.
#[derive(PartialEq)]
pub(super) struct Relatives {
    pub(super) owner: String,
    /// Ids of the ancestors, nearest first.
    pub(super) ancestors: Vec<String>,
    /// Position of the child.
    pub(super) child: ChildOf,
    /// Root of each repository that the family has worktrees of, by name, relative to the workspace root.
    pub(super) repositories: BTreeMap<String, PathBuf>,
    /// Numbers of the active sessions with the same ownership marker.
    numbers: BTreeMap<String, u32>,
    /// Active sessions with the same ownership marker that have resources whose shares are [planned from the
    /// record](plans_by_record).
    ///
    /// The parent is among them, and parents are before their children. Empty if the parent has no such resource.
    members: Vec<Relative>,
}

/// An active session, with the facts that planning its relatives needs.
#[derive(PartialEq)]
struct Relative {
    /// The session, with only its allocations of the other kinds.
    session: Session,
    /// Id of the session above this session.
    parent: Option<String>,
    /// Position of the session, if a program provisioned it.
    child: Option<ChildOf>,
}

impl Shared {
    /// Finds the record of a parent, and the other members of its family.
    ///
    /// Returns `None` if the parent is not active as in its snapshot: then the child has no right to those ports. The
    /// child itself is the swarm `own`.
    pub(super) fn family(
        &self,
        parent: &Snapshot,
        child: ChildOf,
        own: &Swarm<'_>,
    ) -> Result<Option<Relatives>, Error> {
        let swarm = match &parent.swarm {
            Some(location) => Swarm::new(&self.host, own.workspace(), &location.name)?,
            None => Swarm::for_session(&self.host, own.workspace(), &parent.session_id)?,
        };
        let Some(record) = swarm.applied()? else { return Ok(None) };
        let session = record.plan.sessions.iter().find(|session| session.id == parent.session_id);
        let Some(session) = session else { return Ok(None) };
        let active =
            discovery::snapshot(&record, session, &self.registry, own.workspace(), &own.host().state);
        if active.hard_constraints != parent.hard_constraints {
            return Ok(None);
        }
        let releases = |record: &Record| {
            record.release.as_ref().is_some_and(|release| release.kinds.contains_key(&session.path))
        };
        if swarm.interrupted()?.is_some_and(|(run, _)| releases(&run)) {
            return Err(Error::Released(parent.session_id.clone()));
        }
        let mut ancestors = vec![session.id.clone()];
        ancestors.extend(apply::ancestors(&record, &session.path));
        let mut numbers = BTreeMap::new();
        let mut relatives = self.relatives_in_swarm(&record)?;
        if parent.swarm.is_some() {
            numbers.extend(record.plan.sessions.iter().map(|session| (session.id.clone(), session.index)));
        }
        let mut standalone = state::standalone_sessions(&self.host, &record.owner)?;
        standalone.sort_by_key(|other| other.ancestors.len());
        for other in standalone {
            let Some(first) = other.plan.sessions.first().filter(|first| first.id != own.name()) else {
                continue;
            };
            let is_brother = other.ancestors.first() == ancestors.first();
            if is_brother && other.child.is_some_and(|other| other.index == child.index) {
                let (index, session) = (child.index, first.id.clone());
                return Err(Error::Child(ChildError::Conflict { index, session }));
            }
            numbers.insert(first.id.clone(), first.index);
            relatives.push(Relative::new(first, &other, &self.registry));
        }
        if numbers.contains_key(own.name()) {
            return Err(Error::AlreadyActive(own.name().to_owned()));
        }
        relatives.retain(|relative| !relative.session.allocations.is_empty());
        if !relatives.iter().any(|relative| relative.session.id == session.id) {
            relatives.clear();
        }
        let repositories = record.plan.repositories.iter();
        let repositories =
            repositories.map(|repository| (repository.name.clone(), repository.root.clone())).collect();
        let (owner, members) = (record.owner, relatives);
        Ok(Some(Relatives { owner, ancestors, child, repositories, numbers, members }))
    }

    /// Returns the sessions of the swarm that has the ownership marker of this record, if it exists.
    fn relatives_in_swarm(&self, record: &Record) -> Result<Vec<Relative>, Error> {
        let mut swarms = state::swarms(&self.host)?.into_iter().filter_map(|found| found.applied);
        let Some(swarm) = swarms.find(|swarm| swarm.owner == record.owner) else { return Ok(Vec::new()) };
        let sessions = swarm.plan.sessions.iter();
        Ok(sessions.map(|session| Relative::new(session, &swarm, &self.registry)).collect())
    }

    /// Returns whether the parent's snapshot names a resource whose share can only be planned from the parent's record.
    pub(super) fn hands_down_by_record(&self, parent: &Snapshot) -> bool {
        parent.hard_constraints.iter().any(|allocation| plans_by_record(&self.registry, &allocation.kind))
    }
}

/// Returns whether a child's share of a kind can only be planned from its parent's record.
fn plans_by_record(registry: &Registry, kind: &str) -> bool {
    registry.get(kind).is_some_and(|kind| kind.child_options().is_none())
}

impl Relatives {
    /// Removes the ports that the ancestors own or serve from an observation, because a share is inside these ports.
    /// Adds the numbers of the family.
    pub(super) fn add_to_observation(&self, observation: &mut Observation) {
        observation.relatives.clone_from(&self.numbers);
        let of_family = |session: &str, owner: &str| {
            owner == self.owner && self.ancestors.iter().any(|ancestor| ancestor == session)
        };
        let own: Vec<_> = observation
            .ports_in_use
            .iter()
            .filter(|used| match &used.owner {
                PortOwner::Lease { session, owner } => of_family(session, owner),
                PortOwner::LockFile { session: Some(session), owner: Some(owner), .. } => {
                    of_family(session, owner)
                }
                PortOwner::LockFile { .. } | PortOwner::Socket { .. } => false,
            })
            .cloned()
            .collect();
        observation.ports_in_use.retain(|used| match &used.owner {
            // The ancestor may use its ports; whether the process is the ancestor's cannot be determined.
            PortOwner::Socket { .. } => !own.iter().any(|own| own.block.contains(used.block)),
            PortOwner::Lease { .. } | PortOwner::LockFile { .. } => !own.contains(used),
        });
    }

    /// Adds the manifest of a child to its family, and returns the active sessions.
    ///
    /// The child takes a share of each resource of its parent, as a session without `resources` does, except for kinds
    /// that it requests already. The options are the effective options of the parent's lease. A kind that the registry
    /// does not know is not shared.
    pub(super) fn join(&self, manifest: &mut Manifest, registry: &Registry) -> Option<AppliedPlan> {
        if self.members.is_empty() {
            return None;
        }
        let mut own = manifest.sessions.pop()?;
        manifest.defaults.retain(|kind, _| !plans_by_record(registry, kind));
        let mut positions: HashMap<&str, usize> = HashMap::new();
        for relative in &self.members {
            positions.insert(&relative.session.id, manifest.sessions.len());
            let parent = relative.parent.as_deref().and_then(|parent| positions.get(parent).copied());
            manifest.sessions.push(relative.declared(parent));
            for allocation in &relative.session.allocations {
                if let Some(program) = &allocation.external {
                    let (timeout, claim) = (program.timeout, program.claim);
                    let program = Program { timeout, claim, ..Program::new(program.command.clone()) };
                    manifest.providers.insert(allocation.kind.clone(), program);
                }
            }
        }
        let parent = positions.get(self.ancestors.first()?.as_str()).copied()?;
        let declaration = Arc::make_mut(&mut own.declaration);
        let location = declaration.location.clone();
        let handed_down = self.members[parent].session.allocations.iter().map(|allocation| Request {
            kind: allocation.kind.clone(),
            name: allocation.name.clone(),
            from: From::Parent,
            options: Options::new(),
            location: location.clone(),
        });
        declaration.resources.get_or_insert_default().extend(handed_down);
        own.parent = Some(parent);
        own.share = Some(Share { index: self.child.index, of: self.child.count });
        manifest.sessions.push(own);
        let sessions = self.members.iter().map(|relative| relative.session.clone()).collect();
        Some(AppliedPlan { plan: plan_of(sessions), broken: BTreeMap::new() })
    }

    /// Returns whether the child takes shares that follow from the records of its family.
    pub(super) fn has_shares_by_record(&self) -> bool {
        !self.members.is_empty()
    }

    /// Returns the plan of only the child, from the plan of its family.
    pub(super) fn leave(&self, mut plan: Plan, registry: &Registry) -> Result<Plan, Error> {
        let is_kept =
            |(relative, planned): (&Relative, &Session)| relative.session.allocations == planned.allocations;
        if !self.members.iter().zip(&plan.sessions).all(is_kept) {
            // If a kind does not plan the same allocation from the same options, the child would share an allocation
            // that does not exist.
            let parent = self.ancestors.first().cloned().unwrap_or_default();
            return Err(Error::Child(ChildError::Changed(parent)));
        }
        plan.sessions.drain(..self.members.len());
        for session in &mut plan.sessions {
            session.parent = None;
        }
        plan.applied = None;
        plan.digest = plan.computed_digest();
        plan.changes = plan.changes_from(registry, None);
        Ok(plan)
    }
}

impl Relative {
    fn new(session: &Session, record: &Record, registry: &Registry) -> Self {
        let above = session.parent.as_ref().and_then(|parent| record.plan.session(parent));
        let parent = above.map(|above| above.id.clone()).or_else(|| record.ancestors.first().cloned());
        let mut session = session.clone();
        let is_requested = |kind: &str| plans_by_record(registry, kind) && !registry.is_implied(kind);
        session
            .allocations
            .retain(|allocation| is_requested(&allocation.kind) && registry.provider(allocation).is_some());
        // Among sessions without a swarm, the path is the id.
        session.path = SessionPath::from_id(&session.id);
        Self { session, parent, child: record.child }
    }

    /// Returns the session of a manifest that requests the allocations of this one.
    fn declared(&self, parent: Option<usize>) -> manifest::Session {
        let location = Location::default();
        let requests = self.session.allocations.iter().map(|allocation| Request {
            kind: allocation.kind.clone(),
            name: allocation.name.clone(),
            from: if allocation.shared { From::Parent } else { From::Pool },
            options: allocation.options.clone(),
            location: location.clone(),
        });
        let declaration = Declaration {
            complete: true,
            resources: Some(requests.collect()),
            directory: None,
            expires: None,
            text: SessionText::default(),
            inherited: Inherited::default(),
            location,
        };
        manifest::Session {
            path: self.session.path.clone(),
            parent,
            replica: self.session.replica,
            share: self.child.map(|child| Share { index: child.index, of: child.count }),
            shard: None,
            declaration: Arc::new(declaration),
            spawned: None,
        }
    }
}

/// Returns the plan of the active sessions of a family.
fn plan_of(sessions: Vec<Session>) -> Plan {
    Plan {
        schema_version: SCHEMA_VERSION,
        swarm: String::new(),
        digest: String::new(),
        applied: None,
        repositories: Vec::new(),
        overrides: Vec::new(),
        sessions,
        changes: Vec::new(),
        behind: Vec::new(),
        again: crate::plan::Again::default(),
        unsaved_work: Vec::new(),
        occupants: Vec::new(),
    }
}
