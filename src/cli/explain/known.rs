//! Data for explanations: every applied plan on this host, and the plan of the manifest.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use seedbed::host::Host;
use seedbed::manifest::{Excerpt, Manifest, Place};
use seedbed::plan::{Plan, Session};
use seedbed::provider::{Registry, port_range};
use seedbed::report::OwnerState;
use seedbed::state::{self, Found};

use super::super::exit::Failure;
use super::super::plan;
use super::super::setting::Setting;

/// Returns the words that follow a session's id.
pub(super) fn said(state: OwnerState) -> &'static str {
    match state {
        OwnerState::Applied => "(applied)",
        OwnerState::Unfinished => "(unfinished: a run is making it or taking it away, or was interrupted)",
        OwnerState::Planned => "(planned, not there yet)",
    }
}

/// Plan, with its workspace and the files of its swarm.
pub(super) struct Side {
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

/// All available data about this host's swarms.
pub(super) struct Known<'a> {
    pub(super) host: &'a Host,
    /// Every kind that a manifest can name.
    pub(super) registry: &'a Registry,
    /// Base of relative paths.
    pub(super) directory: &'a Path,
    setting: Option<&'a Setting>,
    manifest: Option<Manifest>,
    sides: Vec<Side>,
    /// Reason why the manifest could not be planned.
    faults: Option<Failure>,
    has_planned: bool,
    notes: Vec<String>,
}

impl<'a> Known<'a> {
    /// Reads the records of every swarm; the manifest's own swarm comes first.
    pub(super) fn look(
        host: &'a Host,
        registry: &'a Registry,
        directory: &'a Path,
        setting: Option<&'a Setting>,
    ) -> Result<Self, Failure> {
        let own = setting.and_then(|setting| setting.swarm().ok());
        let mut sides = Vec::new();
        let mut notes = Vec::new();
        let owner = own.as_ref().and_then(|own| own.applied().ok()?).map(|record| record.owner);
        for found in state::swarms(host)?.into_iter().chain(state::sessions(host)?) {
            notes.extend(found.unreadable.iter().map(ToString::to_string));
            let is_own = own.as_ref().is_some_and(|own| {
                !found.is_alone() && found.name() == own.name() && found.workspace() == Some(own.workspace())
            });
            // Children of the own swarm are named by their ids, as its sessions are.
            let is_child = owner.is_some() && found.record().map(|record| &record.owner) == owner.as_ref();
            sides.extend(sides_of(found, is_own || is_child));
        }
        // An allocation of a child lies inside of the parent's allocation.
        sides.sort_by_key(|side| (!side.own, side.state != OwnerState::Applied, Reverse(side.depth)));
        Ok(Self {
            host,
            registry,
            directory,
            setting,
            manifest: setting.and_then(|setting| setting.manifest().ok()),
            sides,
            faults: None,
            has_planned: false,
            notes,
        })
    }

    /// Adds the plan of the manifest, once. For active sessions, this plan repeats the applied one.
    pub(super) fn plan(&mut self) {
        let Some(setting) = self.setting.filter(|_| !std::mem::replace(&mut self.has_planned, true)) else {
            return;
        };
        if self.sides.iter().any(|side| side.own && side.state == OwnerState::Unfinished) {
            self.notes.push(
                "a run of this swarm is in progress or was interrupted: planned sessions are not shown"
                    .to_owned(),
            );
            return;
        }
        let planned = setting.manifest().and_then(|manifest| {
            let swarm = setting.swarm()?;
            let (plan, _) = plan::make_without_programs(setting, &swarm, &manifest)?;
            let directory = Path::new("swarms").join(swarm.key());
            Ok((plan, swarm.workspace().to_owned(), swarm.key().to_owned(), directory))
        });
        match planned {
            Ok((plan, workspace, key, directory)) => {
                self.sides.push(Side {
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
                    setting.name()
                ));
                self.faults = Some(failure);
            }
        }
    }

    /// Returns the plans: applied plans first, and among them those of the manifest's swarm.
    pub(super) fn sides(&self) -> &[Side] {
        &self.sides
    }

    /// Returns the first result of `find`, in applied plans or else in the plan of the manifest, with the position of
    /// its plan.
    pub(super) fn find<T>(&mut self, find: impl Fn(&Side) -> Option<T>) -> Option<(usize, T)> {
        let first = |sides: &[Side]| sides.iter().enumerate().find_map(|(at, side)| Some((at, find(side)?)));
        first(&self.sides).or_else(|| {
            self.plan();
            first(&self.sides)
        })
    }

    /// Returns the reason why the manifest could not be planned, if planning was tried.
    pub(super) fn faults(&self) -> Option<Failure> {
        let setting = self.setting.filter(|_| self.faults.is_some())?;
        setting.manifest().err()
    }

    /// Returns notes about missing information, with reasons.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the workspace of the manifest's swarm, if there is one.
    pub(super) fn workspace(&self) -> Option<PathBuf> {
        Some(self.setting?.swarm().ok()?.workspace().to_owned())
    }

    /// Returns the manifest, if it has no diagnostic of its own.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Returns the line of the manifest that declares a session of `side`, if the manifest belongs to `side`.
    pub(super) fn declared(&self, side: &Side, session: &Session) -> Option<Excerpt> {
        let declaration = &self.declaration(side, session)?.declaration;
        let message = format!("{} is declared here", session.path);
        self.excerpt(&declaration.place, message, "this session")
    }

    /// Returns whether the table of a session has `resources` of its own.
    pub(super) fn says_resources(&self, side: &Side, session: &Session) -> bool {
        self.declaration(side, session).is_some_and(|declared| declared.declaration.resources.is_some())
    }

    /// Returns the line that requests a session's allocation of `kind`.
    ///
    /// The line is the session's own entry of `resources`, or the table that makes it share everything. With `name`, it
    /// is the line that gives a port this name.
    pub(super) fn asked(
        &self,
        side: &Side,
        session: &Session,
        kind: &str,
        name: Option<&str>,
    ) -> Option<Excerpt> {
        let manifest = self.manifest.as_ref()?;
        let declared = self.declaration(side, session)?;
        let entry = declared
            .declaration
            .resources
            .as_ref()
            .map(|requests| requests.iter().find(|request| request.kind == kind));
        if let Some(name) = name
            && let Some(place) = Self::named(manifest, declared, name)
        {
            return self.excerpt(&place, format!("the port is named `{name}` here"), "gives it its name");
        }
        match entry {
            Some(Some(request)) => self.excerpt(
                &request.place,
                format!("{} requests its {kind} here", session.path),
                "requested here",
            ),
            Some(None) => None,
            None => {
                let message =
                    format!("{} has no `resources`: it shares all resources of its parent", session.path);
                self.excerpt(&declared.declaration.place, message, "a share of everything")
            }
        }
    }

    /// Returns the location of the port names that apply to a session: in the session, above it, or in the defaults.
    fn named(manifest: &Manifest, session: &seedbed::manifest::Session, name: &str) -> Option<Place> {
        let at = |options: &seedbed::manifest::Options| {
            options.get("names")?.as_array()?.iter().position(|other| other == name)
        };
        let mut session = Some(session);
        while let Some(here) = session {
            let requests = here.declaration.resources.iter().flatten();
            for request in requests.filter(|request| request.kind == port_range::KIND) {
                if request.options.contains_key("names") {
                    return Some(request.place.key("names").index(at(&request.options)?));
                }
            }
            session = here.parent.map(|parent| &manifest.sessions[parent]);
        }
        let index = at(manifest.defaults.get(port_range::KIND)?)?;
        Some(Place::default().key("defaults").key(port_range::KIND).key("names").index(index))
    }

    fn declaration(&self, side: &Side, session: &Session) -> Option<&seedbed::manifest::Session> {
        let manifest = self.manifest.as_ref().filter(|_| side.own)?;
        manifest.sessions.iter().find(|declared| declared.path == session.path)
    }

    fn excerpt(&self, place: &Place, message: String, label: &str) -> Option<Excerpt> {
        let setting = self.setting?;
        Some(Excerpt::new(setting.name(), setting.text(), place, message, label))
    }
}

fn sides_of(found: Found, own: bool) -> Vec<Side> {
    let directory = found.directory();
    let applied = found.applied.map(|record| (record, OwnerState::Applied));
    let unfinished = found.run.map(|record| (record, OwnerState::Unfinished));
    let key = found.key;
    let records = [applied, unfinished].into_iter().flatten();
    let side = |(record, state): (state::Record, OwnerState)| Side {
        depth: record.ancestors.len(),
        plan: record.plan,
        workspace: record.workspace,
        key: key.clone(),
        directory: directory.clone(),
        state,
        own,
    };
    records.map(side).collect()
}
