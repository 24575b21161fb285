//! What there is to explain with: every plan that stands on this host, and the one that the manifest comes to.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use seedbed::host::Host;
use seedbed::manifest::{Excerpt, Manifest, Place};
use seedbed::plan::{Plan, Session};
use seedbed::provider::port_range;
use seedbed::report::OwnerState;
use seedbed::state::{self, Found};

use super::super::exit::Failure;
use super::super::plan;
use super::super::setting::Setting;

/// What follows a session's id.
pub(super) fn said(state: OwnerState) -> &'static str {
    match state {
        OwnerState::Standing => "(standing)",
        OwnerState::Unfinished => "(unfinished: a run is making it or taking it away, or was interrupted)",
        OwnerState::Planned => "(planned, not there yet)",
    }
}

/// A plan, and where it is true.
pub(super) struct Side {
    pub(super) plan: Plan,
    /// The workspace root, absolute.
    pub(super) workspace: PathBuf,
    /// What the swarm's files in the state directory are called.
    pub(super) key: String,
    /// Where its records are, below the state directory.
    pub(super) directory: PathBuf,
    /// How many sessions are above a child that a program has provisioned.
    depth: usize,
    pub(super) state: OwnerState,
    /// Whether it is of the swarm of the manifest.
    pub(super) own: bool,
}

/// All that is known of this host's swarms.
pub(super) struct Known<'a> {
    pub(super) host: &'a Host,
    /// What relative paths are relative to.
    pub(super) directory: &'a Path,
    setting: Option<&'a Setting>,
    manifest: Option<Manifest>,
    sides: Vec<Side>,
    /// Why the manifest could not be planned.
    faults: Option<Failure>,
    has_planned: bool,
    notes: Vec<String>,
}

impl<'a> Known<'a> {
    /// Reads the records of every swarm; the manifest's own comes first.
    pub(super) fn look(
        host: &'a Host,
        directory: &'a Path,
        setting: Option<&'a Setting>,
    ) -> Result<Self, Failure> {
        let own = setting.and_then(|setting| setting.swarm().ok());
        let mut sides = Vec::new();
        let mut notes = Vec::new();
        let owner = own.as_ref().and_then(|own| own.standing().ok()?).map(|record| record.owner);
        for found in state::swarms(host)?.into_iter().chain(state::sessions(host)?) {
            notes.extend(found.unreadable.iter().map(ToString::to_string));
            let is_own = own.as_ref().is_some_and(|own| {
                !found.is_alone() && found.name() == own.name() && found.workspace() == Some(own.workspace())
            });
            // Its children are called by their ids, as its sessions are.
            let is_child = owner.is_some() && found.record().map(|record| &record.owner) == owner.as_ref();
            sides.extend(sides_of(found, is_own || is_child));
        }
        // What a child has lies inside of what its parent has.
        sides.sort_by_key(|side| (!side.own, side.state != OwnerState::Standing, Reverse(side.depth)));
        Ok(Self {
            host,
            directory,
            setting,
            manifest: setting.and_then(|setting| setting.manifest().ok()),
            sides,
            faults: None,
            has_planned: false,
            notes,
        })
    }

    /// Adds what the manifest would come to; of what stands already it says the same again. Once.
    pub(super) fn plan(&mut self) {
        let Some(setting) = self.setting.filter(|_| !std::mem::replace(&mut self.has_planned, true)) else {
            return;
        };
        if self.sides.iter().any(|side| side.own && side.state == OwnerState::Unfinished) {
            self.notes.push(
                "a run of this swarm is under way or was interrupted: what is only planned is not told"
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
                    "{} cannot be planned, so that what is only planned is not told: seedbed validate",
                    setting.name()
                ));
                self.faults = Some(failure);
            }
        }
    }

    /// The plans, what stands first, and of that what is the manifest's.
    pub(super) fn sides(&self) -> &[Side] {
        &self.sides
    }

    /// The first that `find` finds, in what stands or else in what is planned, with the position of its side.
    pub(super) fn find<T>(&mut self, find: impl Fn(&Side) -> Option<T>) -> Option<(usize, T)> {
        let first = |sides: &[Side]| sides.iter().enumerate().find_map(|(at, side)| Some((at, find(side)?)));
        first(&self.sides).or_else(|| {
            self.plan();
            first(&self.sides)
        })
    }

    /// Why the manifest could not be planned, where that was tried.
    pub(super) fn faults(&self) -> Option<Failure> {
        let setting = self.setting.filter(|_| self.faults.is_some())?;
        setting.manifest().err()
    }

    /// What is not known, and why.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The workspace of the manifest's swarm, where there is one.
    pub(super) fn workspace(&self) -> Option<PathBuf> {
        Some(self.setting?.swarm().ok()?.workspace().to_owned())
    }

    /// The manifest, where it has no fault of its own.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The line of the manifest that declares a session of `side`, if that is its manifest.
    pub(super) fn declared(&self, side: &Side, session: &Session) -> Option<Excerpt> {
        let declaration = &self.declaration(side, session)?.declaration;
        let message = format!("{} is declared here", session.path);
        self.excerpt(&declaration.place, message, "this session")
    }

    /// Tells whether the table of a session has `resources` of its own.
    pub(super) fn says_resources(&self, side: &Side, session: &Session) -> bool {
        self.declaration(side, session).is_some_and(|declared| declared.declaration.resources.is_some())
    }

    /// The line that asks for what a session holds of `kind`: its own entry of `resources`, or what it has a share of
    /// everything by. With `name`, the one that gives a port this name.
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
                format!("{} asks for its {kind} here", session.path),
                "asks for it",
            ),
            Some(None) => None,
            None => {
                let message = format!(
                    "{} says no `resources`: it has a share of all that its parent has",
                    session.path
                );
                self.excerpt(&declared.declaration.place, message, "a share of everything")
            }
        }
    }

    /// Where the names of ports are said that hold for a session: at itself, above it, or in the defaults.
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
    let standing = found.standing.map(|record| (record, OwnerState::Standing));
    let unfinished = found.run.map(|record| (record, OwnerState::Unfinished));
    let key = found.key;
    let records = [standing, unfinished].into_iter().flatten();
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
