//! Reader of plan documents from files. Such files are untrusted: all rules of a manifest apply to them.
//!
//! The digest reveals an edited plan, except if the editor has also updated the digest. So the reader converts a plan
//! back into a manifest, which must pass the checks of every manifest. Derived values (ids, names, directories, the
//! variables of allocations) are computed again, and must be equal.

use std::collections::{HashMap, HashSet};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{
    Again, Behind, Change, Occupant, Plan, PlannedRepository, SCHEMA_VERSION, Session, SessionFinding,
    contributions, files, requests,
};
use crate::host::text::printable;
use crate::manifest;
use crate::name::{SessionPath, Slug, is_name};
use crate::provider::{Planner, Registry, ResourceOptions};

/// Maximum depth of a tree of sessions: deeper than TOML nests the tables that declare one.
pub(super) const DEPTH_MAX: usize = 64;

/// Reason why a document is not a plan that can be applied; each message continues after the name of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// The document is not JSON, or does not match the schema.
    #[error("is not a plan{}{}", if .0.is_empty() { "" } else { ": " }, printable(.0))]
    NoPlan(String),
    /// Another version of seedbed wrote the document.
    #[error(
        "has format {version}, and this seedbed reads format {SCHEMA_VERSION}; {} seedbed wrote it: use that one, or make \
         a new plan: seedbed plan -o FILE",
        if *version > u64::from(SCHEMA_VERSION) { "a newer" } else { "an older" }
    )]
    Version {
        /// Version of the document's format.
        version: u64,
    },
    /// Planning cannot have produced the document.
    #[error("was edited: {}", printable(.0))]
    Edited(String),
}

/// Plan with unchecked sessions.
#[derive(Deserialize)]
#[serde(rename = "Plan", rename_all = "camelCase", deny_unknown_fields)]
struct Unchecked {
    schema_version: u32,
    swarm: String,
    digest: String,
    applied: Option<String>,
    #[serde(default)]
    repositories: Vec<PlannedRepository>,
    #[serde(default)]
    overrides: Vec<String>,
    sessions: Vec<Session>,
    changes: Vec<Change>,
    #[serde(default)]
    again: Again,
    #[serde(default)]
    unsaved_work: Vec<SessionFinding>,
    #[serde(default)]
    occupants: Vec<Occupant>,
    #[serde(default)]
    behind: Vec<Behind>,
}

impl From<Unchecked> for Plan {
    fn from(plan: Unchecked) -> Self {
        Self {
            schema_version: plan.schema_version,
            swarm: plan.swarm,
            digest: plan.digest,
            applied: plan.applied,
            repositories: plan.repositories,
            overrides: plan.overrides,
            sessions: plan.sessions,
            changes: plan.changes,
            again: plan.again,
            unsaved_work: plan.unsaved_work,
            occupants: plan.occupants,
            behind: plan.behind,
        }
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let plan = Self::from(Unchecked::deserialize(deserializer)?);
        plan.check_shape().map_err(D::Error::custom)?;
        Ok(plan)
    }
}

impl Plan {
    /// Reads a saved document, which any program may have written. The returned plan is one that planning could have
    /// made from a manifest.
    ///
    /// Deserialising a [`Plan`] checks only the rules that are independent of kinds. They require one tree of sessions,
    /// with unique names and numbers.
    pub fn read(document: &[u8], registry: &Registry) -> Result<Self, Unreadable> {
        let no_plan = |error: serde_json::Error| Unreadable::NoPlan(error.to_string());
        let document: Value = serde_json::from_slice(document).map_err(no_plan)?;
        match document.get("schemaVersion").and_then(Value::as_u64) {
            Some(version) if version == u64::from(SCHEMA_VERSION) => {}
            Some(version) => return Err(Unreadable::Version { version }),
            None => return Err(Unreadable::NoPlan(String::new())),
        }
        let plan: Self = serde_json::from_value::<Unchecked>(document).map_err(no_plan)?.into();
        plan.check(registry).map_err(Unreadable::Edited)?;
        Ok(plan)
    }

    /// Checks all properties of a planned swarm; the error describes the first violation.
    fn check(&self, registry: &Registry) -> Result<(), String> {
        if self.computed_digest() != self.digest {
            return Err("its digest does not match its content".to_owned());
        }
        if !is_name(&self.swarm) {
            return Err(format!("`{}` is not a name for a swarm", self.swarm));
        }
        self.check_tree()?;
        for session in &self.sessions {
            check_session(session, registry).map_err(|why| format!("session {}: {why}", session.path))?;
        }
        self.check_repositories(registry)?;
        self.check_as_manifest(registry)?;
        if let Some(session) = self.misplaced(registry) {
            return Err(format!("no manifest gives {} these places", session.path));
        }
        if self.applied.is_none() && self.changes != self.changes_from(registry, None) {
            return Err("its changes do not create its sessions".to_owned());
        }
        Ok(())
    }

    /// Checks the sessions of a swarm, or the one session without a swarm.
    fn check_shape(&self) -> Result<(), String> {
        if !self.swarm.is_empty() {
            return self.check_tree();
        }
        let is_standalone = |session: &Session| {
            session.id == session.path.as_str() && session.parent.is_none() && session.children.is_empty()
        };
        match &self.sessions[..] {
            [] => Ok(()),
            [session] if is_standalone(session) => Ok(()),
            _ => Err("a session without a swarm is not alone".to_owned()),
        }
    }

    /// Checks that parents come before children, and that no two sessions share a name or number.
    fn check_tree(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        let mut children: HashMap<&SessionPath, Vec<&SessionPath>> = HashMap::new();
        for session in &self.sessions {
            let path = &session.path;
            let wrong = |why: &str| Err(format!("session {path} {why}"));
            if path.as_str().split('/').count() > DEPTH_MAX || !path.as_str().split('/').all(is_name) {
                return wrong("has a path that no session has");
            }
            let above = path.as_str().rsplit_once('/').map(|(above, _)| above);
            if session.parent.as_ref().map(SessionPath::as_str) != above {
                return wrong("is not below its parent");
            }
            if above.is_some_and(|above| !seen.contains(&Unique::Path(above.to_ascii_lowercase()))) {
                return wrong("is listed before its parent, or its parent is missing");
            }
            if let Some(parent) = &session.parent {
                children.entry(parent).or_default().push(path);
            }
            let unique = [
                Unique::Path(path.as_str().to_ascii_lowercase()),
                Unique::Name(&session.scoped_name),
                Unique::Slug(session.slug.as_str()),
                Unique::Index(session.index),
            ];
            if !unique.into_iter().all(|unique| seen.insert(unique)) {
                return wrong("has a name or a number of another session");
            }
            let replica = path.name().rsplit_once('-').and_then(|(_, number)| number.parse().ok());
            // A spawned session has a name of its own, and the number of a free replica.
            if session.replica.is_some() && session.replica != replica && session.spawned.is_none() {
                return wrong("has a number that is not the one in its name");
            }
            if ![Slug::short(path), Slug::with_hash(path)].contains(&session.slug) {
                return wrong("has a slug that does not follow from its path");
            }
        }
        let none = Vec::new();
        let is_wrong = |session: &&Session| {
            !session.children.iter().eq(children.get(&session.path).unwrap_or(&none).iter().copied())
        };
        match self.sessions.iter().find(is_wrong) {
            Some(session) => Err(format!("session {} names other children than it has", session.path)),
            None => Ok(()),
        }
    }

    /// Checks the sessions as a manifest, each session as one table.
    fn check_as_manifest(&self, registry: &Registry) -> Result<(), String> {
        let mut providers = Map::new();
        let mut tables = Map::new();
        for (at, session) in self.sessions.iter().enumerate() {
            let requested =
                session.allocations.iter().filter(|allocation| !registry.is_implied(&allocation.kind));
            let resources = requested.map(|allocation| {
                let mut resource = allocation.options.clone();
                resource.insert("kind".to_owned(), allocation.kind.as_str().into());
                if let Some(name) = &allocation.name {
                    resource.insert("name".to_owned(), name.as_str().into());
                }
                if let Some(external) = &allocation.external {
                    let program = json!({ "command": external.command, "timeout": external.timeout });
                    providers.insert(allocation.kind.clone(), program);
                }
                resource.into()
            });
            let resources: Vec<Value> = resources.collect();
            let mut table = session.text().to_table();
            if let Some(Value::Object(env)) = table.get_mut("env") {
                env.retain(|name, _| !name.starts_with("AGENT_"));
            }
            table.insert("resources".to_owned(), resources.into());
            if let Some(directory) = &session.directory {
                table.insert("directory".to_owned(), directory.as_str().into());
            }
            tables.insert(format!("s{at}"), table.into());
            // A later plan reads this table.
            tables.extend(
                session
                    .spawned
                    .iter()
                    .map(|spawned| (format!("s{at}-spawned"), spawned.table_at_the_top().into())),
            );
        }
        let repositories = self.repositories.iter();
        let repositories: Map<String, Value> = repositories
            .map(|repository| (repository.name.clone(), json!({ "root": repository.root })))
            .collect();
        let manifest = json!({
            "version": manifest::VERSION,
            "swarm": self.swarm,
            "repository": repositories,
            "provider": providers,
            "session": tables,
        });
        let diagnostics = manifest::diagnostics_of(manifest, &registry.kinds());
        let Some(diagnostic) = diagnostics.first() else { return Ok(()) };
        let session = diagnostic.location.steps.iter().find_map(|step| match step {
            manifest::diagnostic::Step::Key(key) => {
                let key = key.strip_prefix('s')?;
                self.sessions.get(key.strip_suffix("-spawned").unwrap_or(key).parse::<usize>().ok()?)
            }
            manifest::diagnostic::Step::Index(_) => None,
        });
        Err(match session {
            Some(session) => format!("session {}: {}", session.path, diagnostic.message),
            None => diagnostic.message.clone(),
        })
    }
}

/// Property that only one session of a plan may have.
#[derive(PartialEq, Eq, Hash)]
enum Unique<'p> {
    Path(String),
    Name(&'p str),
    Slug(&'p str),
    Index(u32),
}

/// Checks that a session has exactly the implied resources that follow from its other resources, and that all lie where
/// planning puts them.
fn check_implied(session: &Session, registry: &Registry) -> Result<(), String> {
    let (implied, requested): (Vec<_>, Vec<_>) =
        session.allocations.iter().partition(|allocation| registry.is_implied(&allocation.kind));
    let resources = requested.iter().map(|allocation| {
        let resource = ResourceOptions {
            name: allocation.name(),
            options: &allocation.options,
            shared: allocation.shared,
        };
        (allocation.kind.as_str(), resource)
    });
    let expected = requests::implied(registry, resources);
    let expected = expected.iter().map(|(kind, options)| (*kind, *kind, options));
    let found =
        implied.iter().map(|allocation| (allocation.kind.as_str(), allocation.name(), &allocation.options));
    if !found.eq(expected) || !session.allocations.iter().take(implied.len()).eq(implied) {
        return Err("it has other directories than follow from its resources".to_owned());
    }
    for allocation in &requested {
        let several = requested.iter().filter(|other| other.kind == allocation.kind).count() > 1;
        if registry.get(&allocation.kind).is_some_and(|kind| !kind.is_located(allocation, several)) {
            return Err(format!("its {} lies where no manifest puts it", allocation.name()));
        }
    }
    Ok(())
}

/// Checks that the kinds of a session's allocations exist, and that the data from allocations and names is complete.
fn check_session(session: &Session, registry: &Registry) -> Result<(), String> {
    for (at, allocation) in session.allocations.iter().enumerate() {
        let (kind, name) = (&allocation.kind, allocation.name());
        let earlier = &session.allocations[..at];
        if earlier.iter().any(|other| other.name() == name) {
            return Err(format!("it has a resource called `{name}` twice"));
        }
        let allows_several = registry.get(kind).is_some_and(Planner::allows_several);
        if !allows_several && earlier.iter().any(|other| other.kind == *kind) {
            return Err(format!("it has two of `{kind}`"));
        }
        if allocation.name.as_ref() == Some(kind) {
            return Err(format!("it names a `{kind}` after its kind"));
        }
        if registry.is_registered(kind) == allocation.external.is_some() {
            return Err(format!("`{kind}` is not a kind, or not one of a program"));
        }
        if let Some(external) = &allocation.external {
            let texts = external.env.values().chain(&external.prompt_sections).chain(&external.command);
            if texts.into_iter().any(|text| text.contains('\0')) {
                return Err(format!("a text of its `{kind}` contains NUL"));
            }
        }
    }
    check_implied(session, registry)?;
    if let Some(path) = files::unplanned(session, registry) {
        return Err(format!("its file `{path}` lies in no worktree of it"));
    }
    let received = contributions::session_context(session, registry);
    for (name, value) in &received.env {
        match session.env.get(name) {
            Some(own) if own == value || !name.starts_with("AGENT_") => {}
            _ => return Err(format!("`{name}` differs from its allocations")),
        }
    }
    let is_foreign = |name: &&String| name.starts_with("AGENT_") && !received.env.contains_key(*name);
    if let Some(name) = session.env.keys().find(is_foreign) {
        return Err(format!("`{name}` is not a variable of its allocations"));
    }
    if !session.prompt_sections.starts_with(&received.prompt_sections) {
        return Err("its prompt differs from its allocations".to_owned());
    }
    Ok(())
}
