//! Data for explanations: every applied plan on this host, and the plan of the manifest.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use seedbed::host::Host;
use seedbed::manifest::{Excerpt, Location, Manifest};
use seedbed::name::PortBlock;
use seedbed::plan::{Plan, Session};
use seedbed::provider::{Allocation, Kind, PlannedAllocation, Registry};
use seedbed::report::OwnerState;
use seedbed::state::{self, RecordedSwarm};

use super::super::exit::Failure;
use super::super::plan;
use super::super::project::Project;

/// Returns the words that follow a session's id.
pub(super) fn state_words(state: OwnerState) -> &'static str {
    match state {
        OwnerState::Applied => "(applied)",
        OwnerState::Unfinished => {
            "(unfinished: a run that creates or removes it is in progress or was interrupted)"
        }
        OwnerState::Planned => "(planned, not applied yet)",
    }
}

/// Plan, with its workspace and the files of its swarm.
pub(super) struct LocatedPlan {
    pub(super) plan: Plan,
    /// Workspace root, absolute.
    pub(super) workspace: PathBuf,
    /// Name of the swarm's files in the state directory.
    pub(super) key: String,
    /// Directory of the swarm's records, below the state directory.
    pub(super) directory: PathBuf,
    /// Number of ancestors of a child that a program has provisioned.
    depth: usize,
    pub(super) state: OwnerState,
    /// `true` if the plan belongs to the swarm of the manifest.
    pub(super) own: bool,
}

impl LocatedPlan {
    /// Returns the kind of an allocation, and the facts from which the kind explains it.
    pub(super) fn planned<'p>(
        &'p self,
        registry: &'p Registry,
        session: &'p Session,
        allocation: &'p Allocation,
    ) -> Option<(&'p dyn Kind, PlannedAllocation<'p>)> {
        let kind = registry.get(&allocation.kind)?;
        let mut planned =
            PlannedAllocation::new(allocation, &session.id, &session.scoped_name, &session.working_directory);
        planned.has_children = !session.children.is_empty();
        let parent = session.parent.as_ref().and_then(|parent| self.plan.session(parent));
        planned.parent =
            parent.and_then(|parent| Some((&parent.path, parent.allocation(allocation.name())?)));
        Some((kind, planned))
    }
}

/// Returns the allocation of a session that has a port, and its ports.
pub(super) fn allocation_with_port<'p>(
    registry: &Registry,
    session: &'p Session,
    port: u16,
) -> Option<(&'p Allocation, PortBlock)> {
    session.allocations.iter().find_map(|allocation| {
        let ports = registry.get(&allocation.kind)?.ports(allocation)?;
        ports.contains(PortBlock::single(port)?).then_some((allocation, ports))
    })
}

/// All available data about this host's swarms.
pub(super) struct Sources<'a> {
    pub(super) host: &'a Host,
    /// Every kind that a manifest can name.
    pub(super) registry: &'a Registry,
    /// Base of relative paths.
    pub(super) directory: &'a Path,
    project: Option<&'a Project>,
    manifest: Option<Manifest>,
    plans: Vec<LocatedPlan>,
    /// Reason why the manifest could not be planned.
    diagnostics: Option<Failure>,
    has_planned: bool,
    notes: Vec<String>,
}

impl<'a> Sources<'a> {
    /// Reads the records of every swarm; the manifest's own swarm comes first.
    pub(super) fn read(
        host: &'a Host,
        registry: &'a Registry,
        directory: &'a Path,
        project: Option<&'a Project>,
    ) -> Result<Self, Failure> {
        let own = project.and_then(|project| project.swarm().ok());
        let mut plans = Vec::new();
        let mut notes = Vec::new();
        let owner = own.as_ref().and_then(|own| own.applied().ok()?).map(|record| record.owner);
        for found in state::swarms(host)?.into_iter().chain(state::sessions(host)?) {
            notes.extend(found.unreadable.iter().map(ToString::to_string));
            let is_own = own.as_ref().is_some_and(|own| {
                !found.is_standalone()
                    && found.name() == own.name()
                    && found.workspace() == Some(own.workspace())
            });
            // Children of the own swarm are named by their ids, as its sessions are.
            let is_child = owner.is_some() && found.record().map(|record| &record.owner) == owner.as_ref();
            plans.extend(located_plans(found, is_own || is_child));
        }
        // An allocation of a child lies inside of the parent's allocation.
        plans.sort_by_key(|located| {
            (!located.own, located.state != OwnerState::Applied, Reverse(located.depth))
        });
        Ok(Self {
            host,
            registry,
            directory,
            project,
            manifest: project.and_then(|project| project.manifest().ok()),
            plans,
            diagnostics: None,
            has_planned: false,
            notes,
        })
    }

    /// Adds the plan of the manifest, once. For active sessions, this plan repeats the applied one.
    pub(super) fn plan(&mut self) {
        let manifest = self.project.filter(|project| project.has_manifest());
        let Some(project) = manifest.filter(|_| !std::mem::replace(&mut self.has_planned, true)) else {
            return;
        };
        if self.plans.iter().any(|located| located.own && located.state == OwnerState::Unfinished) {
            self.notes.push(
                "a run of this swarm is in progress or was interrupted: planned sessions are not shown"
                    .to_owned(),
            );
            return;
        }
        let planned = project.manifest().and_then(|manifest| {
            let swarm = project.swarm()?;
            let (plan, _) = plan::make_without_programs(project, &swarm, &manifest)?;
            let directory = Path::new("swarms").join(swarm.key());
            Ok((plan, swarm.workspace().to_owned(), swarm.key().to_owned(), directory))
        });
        match planned {
            Ok((plan, workspace, key, directory)) => {
                self.plans.push(LocatedPlan {
                    plan,
                    workspace,
                    key,
                    directory,
                    depth: 0,
                    state: OwnerState::Planned,
                    own: true,
                });
            }
            Err(failure) => {
                self.notes.push(format!(
                    "{} cannot be planned, so planned sessions are not shown: run `seedbed validate`",
                    project.name()
                ));
                self.diagnostics = Some(failure);
            }
        }
    }

    /// Returns the plans: applied plans first, and among them those of the manifest's swarm.
    pub(super) fn plans(&self) -> &[LocatedPlan] {
        &self.plans
    }

    /// Returns the first result of `find`, in applied plans or else in the plan of the manifest, with the position of
    /// its plan.
    pub(super) fn find<T>(&mut self, find: impl Fn(&LocatedPlan) -> Option<T>) -> Option<(usize, T)> {
        let first = |plans: &[LocatedPlan]| {
            plans.iter().enumerate().find_map(|(at, located)| Some((at, find(located)?)))
        };
        first(&self.plans).or_else(|| {
            self.plan();
            first(&self.plans)
        })
    }

    /// Returns the reason why the manifest could not be planned, if planning was tried.
    pub(super) fn manifest_failure(&self) -> Option<Failure> {
        let project = self.project.filter(|_| self.diagnostics.is_some())?;
        project.manifest().err()
    }

    /// Returns notes about missing information, with reasons.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the workspace of the manifest's swarm, if there is one.
    pub(super) fn workspace(&self) -> Option<PathBuf> {
        Some(self.project?.swarm().ok()?.workspace().to_owned())
    }

    /// Returns the manifest, if it has no diagnostic of its own.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Returns the line of the manifest that declares a session of `located`, if the manifest belongs to `located`.
    pub(super) fn declaration_excerpt(&self, located: &LocatedPlan, session: &Session) -> Option<Excerpt> {
        let declaration = &self.declaration(located, session)?.declaration;
        let message = format!("{} is declared here", session.path);
        self.excerpt(&declaration.location, message, "this session")
    }

    /// Returns whether the table of a session has `resources` of its own.
    pub(super) fn has_own_resources(&self, located: &LocatedPlan, session: &Session) -> bool {
        self.declaration(located, session).is_some_and(|declared| declared.declaration.resources.is_some())
    }

    /// Returns one line for each entry of a session's text that another table of the manifest has.
    pub(super) fn inherited(&self, located: &LocatedPlan, session: &Session) -> Vec<String> {
        let declared = self.declaration(located, session);
        let entries = declared.map(|declared| declared.declaration.inherited()).unwrap_or_default();
        entries
            .iter()
            .map(|found| format!("`{}` is `{}` of the manifest", found.entry, found.location))
            .collect()
    }

    /// Returns the line that requests a session's resource.
    ///
    /// The line is the session's own entry of `resources`, or the table that makes it share everything. With `name`, it
    /// is the line that gives a port this name.
    pub(super) fn request_excerpt(
        &self,
        located: &LocatedPlan,
        session: &Session,
        resource: &str,
        name: Option<&str>,
    ) -> Option<Excerpt> {
        let manifest = self.manifest.as_ref()?;
        let declared = self.declaration(located, session)?;
        let entry = declared
            .declaration
            .resources
            .as_ref()
            .map(|requests| requests.iter().find(|request| request.name() == resource));
        if let Some(name) = name
            && let Some(location) = Self::named(
                manifest,
                declared,
                session.allocation(resource).map(|allocation| allocation.kind.as_str()),
                resource,
                name,
            )
        {
            return self.excerpt(&location, format!("the port is named `{name}` here"), "gives it its name");
        }
        match entry {
            Some(Some(request)) => self.excerpt(
                &request.location,
                format!("{} requests its {resource} here", session.path),
                "requested here",
            ),
            Some(None) => None,
            None => {
                let message =
                    format!("{} has no `resources`: it shares all resources of its parent", session.path);
                self.excerpt(&declared.declaration.location, message, "a share of everything")
            }
        }
    }

    /// Returns the location of the port names that apply to a session: in the session, above it, or in the defaults.
    fn named(
        manifest: &Manifest,
        session: &seedbed::manifest::Session,
        kind: Option<&str>,
        resource: &str,
        name: &str,
    ) -> Option<Location> {
        let at = |options: &seedbed::manifest::Options| {
            options.get("names")?.as_array()?.iter().position(|other| other == name)
        };
        let mut session = Some(session);
        while let Some(here) = session {
            let requests = here.declaration.resources.iter().flatten();
            for request in requests.filter(|request| request.name() == resource) {
                if request.options.contains_key("names") {
                    return Some(request.location.key("names").index(at(&request.options)?));
                }
            }
            session = here.parent.map(|parent| &manifest.sessions[parent]);
        }
        let index = at(manifest.defaults.get(kind?)?)?;
        Some(Location::default().key("defaults").key(kind?).key("names").index(index))
    }

    fn declaration(&self, located: &LocatedPlan, session: &Session) -> Option<&seedbed::manifest::Session> {
        let manifest = self.manifest.as_ref().filter(|_| located.own)?;
        manifest.sessions.iter().find(|declared| declared.path == session.path)
    }

    fn excerpt(&self, location: &Location, message: String, label: &str) -> Option<Excerpt> {
        let project = self.project?;
        Some(Excerpt::new(project.name(), project.text(), location, message, label))
    }
}

fn located_plans(found: RecordedSwarm, own: bool) -> Vec<LocatedPlan> {
    let directory = found.directory();
    let applied = found.applied.map(|record| (record, OwnerState::Applied));
    let unfinished = found.run.map(|record| (record, OwnerState::Unfinished));
    let key = found.key;
    let records = [applied, unfinished].into_iter().flatten();
    let located = |(record, state): (state::Record, OwnerState)| LocatedPlan {
        depth: record.ancestors.len(),
        plan: record.plan,
        workspace: record.workspace,
        key: key.clone(),
        directory: directory.clone(),
        state,
        own,
    };
    records.map(located).collect()
}
