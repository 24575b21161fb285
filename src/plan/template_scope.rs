//! Names that templates can use: every session's id, paths and ports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ValueKind};

use super::contributions;
use super::session_identity::Identity;
use super::template_variables::{Missing, RenderedVariable, RenderedVariables};
use crate::manifest::{Declaration, Manifest};
use crate::name::{SessionPath, Slug};
use crate::provider::{Allocation, Registry, WORKSPACE_ROOT, placeholders};
use crate::template::{self, ENV, KINDS, RESOURCES, UNPLANNED};

/// Names of all sessions of a plan. Values are created when a template uses them.
#[derive(Debug)]
pub(super) struct TemplateScopes {
    all: Arc<ScopeData>,
}

#[derive(Clone, Debug)]
struct ScopeData {
    swarm: String,
    /// `true` if all sessions of the manifest are present.
    complete: bool,
    registry: Registry,
    sessions: Vec<SessionNames>,
    external_values: ExternalValues,
    /// Host of each shard; empty for a swarm on one host.
    hosts: Vec<ShardHost>,
    rendered_variables: Arc<RenderedVariables>,
    /// Positions in `sessions`, computed when a template first names a session by its path. Sessions that are spawned on
    /// several hosts may have one path.
    by_path: OnceLock<HashMap<String, Vec<usize>>>,
}

/// Host of one shard of a fleet.
#[derive(Clone, Debug)]
pub(super) struct ShardHost {
    /// Name under which other hosts reach this one.
    pub(super) name: String,
    /// Workspace root of the host.
    pub(super) workspace: PathBuf,
    /// Position behind the last session of the shard.
    pub(super) end: usize,
}

/// Name of the host of a swarm that is planned for one host only.
const ONE_HOST: &str = "localhost";

#[derive(Clone, Debug)]
struct SessionNames {
    path: SessionPath,
    id: String,
    index: u32,
    replica: Option<u32>,
    slug: Slug,
    parent: Option<usize>,
    /// `true` if the session's allocations are incomplete because of an earlier diagnostic.
    unresolved: bool,
    /// Shard of a fleet that has the session; 0 for a swarm on one host.
    shard: usize,
    allocations: Vec<Allocation>,
    declaration: Arc<Declaration>,
    /// Variables that the session has without its manifest, computed when a template first uses one.
    contributed_env: OnceLock<BTreeMap<String, String>>,
}

/// Values of external kinds in templates.
#[derive(Clone, Debug)]
pub(super) enum ExternalValues {
    /// Programs have planned them.
    Planned,
    /// No program was run: any value may exist.
    Any,
    /// Programs plan later, as do environments. The field has the names of the resources of external kinds, by session.
    Later(Vec<Vec<String>>),
}

/// Names for the templates of one session, and the variables that rendering lacked.
pub(super) struct SessionScope {
    pub(super) names: Value,
    pub(super) missing: Arc<Missing>,
}

impl TemplateScopes {
    /// Creates the names of all sessions.
    ///
    /// `unresolved` marks the sessions whose allocations are incomplete. Any name exists in such a session, so that a
    /// diagnostic is not followed by others that it causes.
    pub(super) fn new(
        manifest: &Manifest,
        registry: &Registry,
        identities: &[Identity],
        allocations: Vec<Vec<Allocation>>,
        unresolved: &[bool],
        external_values: ExternalValues,
        hosts: Vec<ShardHost>,
    ) -> Self {
        let shard = |at: usize| hosts.partition_point(|host| host.end <= at);
        let sessions = manifest.sessions.iter().zip(identities).zip(allocations).zip(unresolved);
        let sessions = sessions.enumerate();
        let sessions = sessions.map(|(at, (((session, identity), allocations), unresolved))| SessionNames {
            path: session.path.clone(),
            id: identity.id.clone(),
            index: identity.index,
            replica: identity.replica,
            slug: identity.slug.clone(),
            parent: session.parent,
            unresolved: *unresolved,
            shard: shard(at),
            allocations,
            declaration: Arc::clone(&session.declaration),
            contributed_env: OnceLock::new(),
        });
        Self {
            all: Arc::new(ScopeData {
                swarm: manifest.swarm.clone(),
                complete: manifest.complete,
                registry: registry.clone(),
                sessions: sessions.collect(),
                external_values,
                hosts,
                rendered_variables: Arc::default(),
                by_path: OnceLock::new(),
            }),
        }
    }

    /// Returns the names that the templates of the session at this position can use.
    pub(super) fn scope(&self, at: usize) -> SessionScope {
        let missing = Arc::default();
        let (all, viewer) = (Arc::clone(&self.all), self.all.sessions[at].shard);
        let scope = Scope { all, at, viewer, complete: true, prompt: None, missing: Arc::clone(&missing) };
        SessionScope { names: Value::from_object(scope), missing }
    }

    /// Returns the names that the command of the session at this position can use: also `prompt`.
    pub(super) fn scope_with_prompt(&self, at: usize, prompt: &str, missing: &Arc<Missing>) -> Value {
        let (all, prompt) = (Arc::clone(&self.all), Some(Value::from(prompt)));
        let viewer = all.sessions[at].shard;
        Value::from_object(Scope { all, at, viewer, complete: true, prompt, missing: Arc::clone(missing) })
    }

    /// Returns the variables that templates of other sessions use.
    pub(super) fn rendered_variables(&self) -> &RenderedVariables {
        &self.all.rendered_variables
    }

    /// Returns the allocations of the session at this position.
    pub(super) fn allocations(&self, at: usize) -> &[Allocation] {
        &self.all.sessions[at].allocations
    }

    /// Returns the allocations of all sessions, after rendering.
    pub(super) fn into_allocations(self) -> Vec<Vec<Allocation>> {
        Arc::unwrap_or_clone(self.all).sessions.into_iter().map(|session| session.allocations).collect()
    }
}

impl ScopeData {
    /// Returns the session at a path, of several that of the shard which names it.
    fn by_path(&self, path: &str, viewer: usize) -> Option<usize> {
        let positions = self.by_path.get_or_init(|| {
            let mut positions: HashMap<String, Vec<usize>> = HashMap::with_capacity(self.sessions.len());
            for (at, session) in self.sessions.iter().enumerate() {
                positions.entry(session.path.to_string()).or_default().push(at);
            }
            positions
        });
        let found = positions.get(path)?;
        found.iter().find(|at| self.sessions[**at].shard == viewer).or_else(|| found.first()).copied()
    }

    /// Returns the name of the host of a session.
    fn host(&self, at: usize) -> &str {
        self.hosts.get(self.sessions[at].shard).map_or(ONE_HOST, |host| &host.name)
    }

    /// Returns a value of the session at this position for the templates of a shard: markers of another host have their
    /// values there.
    fn shown(&self, at: usize, viewer: usize, value: Value) -> Value {
        let shard = self.sessions[at].shard;
        match self.hosts.get(shard).filter(|_| shard != viewer) {
            Some(host) => resolved(&value, &host.workspace),
            None => value,
        }
    }
}

impl SessionNames {
    /// Returns the variables that the session has without its manifest.
    fn contributed_env(&self, registry: &Registry) -> &BTreeMap<String, String> {
        self.contributed_env.get_or_init(|| {
            let mut env = contributions::contributed(&self.allocations, registry).env;
            env.extend(contributions::name_variables(&self.id, self.index, self.replica, &self.slug));
            env
        })
    }

    /// Returns `port`, `worktree` or another name that a provider contributes.
    fn resource(&self, registry: &Registry, name: &str) -> Option<Value> {
        if self.unresolved {
            return names_of_kinds(registry).any(|(of, _)| of == name).then(|| Value::from_object(AnyValue));
        }
        self.resources(registry, |of| of == name).next().map(|(_, value)| value)
    }

    /// Returns the contributed names that are `wanted`, of a session whose allocations are complete. Other names get no
    /// value.
    fn resources(
        &self,
        registry: &Registry,
        wanted: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (&'static str, Value)> {
        self.allocations.iter().filter_map(move |allocation| {
            let kind = registry.get(&allocation.kind)?;
            let name = kind.template_name().filter(|name| wanted(name))?;
            Some((name, kind.template_value(allocation)?))
        })
    }
}

/// Returns the names by which templates see resources, each with its kind.
fn names_of_kinds(registry: &Registry) -> impl Iterator<Item = (&'static str, &str)> {
    registry.iter().filter_map(|kind| Some((kind.template_name()?, kind.kind())))
}

/// Returns the value with the markers in all of its strings replaced. A value without known fields stays as it is.
fn resolved(value: &Value, workspace: &Path) -> Value {
    if let Some(text) = value.as_str() {
        return Value::from(placeholders::resolve(text, workspace));
    }
    let Ok(items) = value.try_iter() else { return value.clone() };
    match value.kind() {
        ValueKind::Seq => items.map(|item| resolved(&item, workspace)).collect(),
        ValueKind::Map => {
            let fields = items.filter_map(|key| {
                let field = resolved(&value.get_item(&key).ok()?, workspace);
                Some((key.as_str()?.to_owned(), field))
            });
            Value::from_pairs(fields.collect::<Vec<_>>())
        }
        _ => value.clone(),
    }
}

/// Unknown value: it has every name.
#[derive(Debug)]
struct AnyValue;

impl Object for AnyValue {
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_dyn_object(Arc::clone(self)))
    }
}

/// Value that is not known yet.
#[derive(Debug)]
struct Unplanned(&'static str);

impl Object for Unplanned {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some(UNPLANNED)).then(|| Value::from(self.0))
    }
}

/// Names of one session; `complete` adds the names of the swarm, which exist only at the top.
#[derive(Debug)]
struct Scope {
    all: Arc<ScopeData>,
    at: usize,
    /// Shard of the session whose templates use the names.
    viewer: usize,
    complete: bool,
    /// The composed prompt, in the templates of the session's command.
    prompt: Option<Value>,
    missing: Arc<Missing>,
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let session = &self.all.sessions[self.at];
        match key.as_str()? {
            "session" => {
                let SessionNames { path, id, index, replica, slug, .. } = session;
                let hash = Value::from(placeholders::session_hash_placeholder(id));
                let hash = ("hash", self.all.shown(self.at, self.viewer, hash));
                Some(template::session_value(path, id, *index, *replica, slug, Some(hash)))
            }
            "parent" => session.parent.map(|at| {
                let (all, missing) = (Arc::clone(&self.all), Arc::clone(&self.missing));
                let viewer = self.viewer;
                Value::from_object(Self { all, at, viewer, complete: false, prompt: None, missing })
            }),
            "host" => Some(Value::from(self.all.host(self.at))),
            "swarm" if self.complete => Some(Value::from(self.all.swarm.as_str())),
            "workspace" if self.complete => Some(Value::from_pairs([("root", WORKSPACE_ROOT)])),
            "prompt" if self.prompt.is_some() => self.prompt.clone(),
            "sessions" if self.complete => {
                let (all, missing) = (Arc::clone(&self.all), Arc::clone(&self.missing));
                Some(Value::from_object(Sessions { all, viewer: self.viewer, missing }))
            }
            ENV if !self.complete => Some(self.environment()),
            RESOURCES => {
                let all = Arc::clone(&self.all);
                Some(Value::from_object(Resources { all, at: self.at, viewer: self.viewer }))
            }
            KINDS => Some(Value::from_pairs(names_of_kinds(&self.all.registry))),
            key => {
                let value = session.resource(&self.all.registry, key)?;
                Some(self.all.shown(self.at, self.viewer, value))
            }
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let session = &self.all.sessions[self.at];
        let mut keys = vec![Value::from("session"), Value::from(RESOURCES), Value::from("host")];
        keys.extend(session.parent.map(|_| Value::from("parent")));
        if session.unresolved {
            keys.extend(names_of_kinds(&self.all.registry).map(|(name, _)| Value::from(name)));
        } else {
            let mut seen = BTreeSet::new();
            let session = session.resources(&self.all.registry, |_| true).map(|(name, _)| name);
            keys.extend(session.filter(|name| seen.insert(*name)).map(Value::from));
        }
        keys.extend(self.prompt.iter().map(|_| Value::from("prompt")));
        if self.complete {
            keys.extend(["swarm", "workspace", "sessions"].map(Value::from));
        } else {
            keys.push(Value::from(ENV));
        }
        Enumerator::Values(keys)
    }
}

impl Scope {
    /// Returns the environment of the session.
    fn environment(&self) -> Value {
        if matches!(self.all.external_values, ExternalValues::Later(_)) {
            return Value::from_object(Unplanned(
                "environments are rendered after the options of external kinds",
            ));
        }
        let (all, missing) = (Arc::clone(&self.all), Arc::clone(&self.missing));
        Value::from_object(SessionEnvironment { all, at: self.at, viewer: self.viewer, missing })
    }
}

/// Environment of one session by name of the variable.
#[derive(Debug)]
struct SessionEnvironment {
    all: Arc<ScopeData>,
    at: usize,
    viewer: usize,
    missing: Arc<Missing>,
}

impl Object for SessionEnvironment {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let session = &self.all.sessions[self.at];
        let unknown = || Some(Value::from_object(AnyValue));
        let Some(source) = session.declaration.text.env.get(name) else {
            let contributed = session.contributed_env(&self.all.registry).get(name);
            let contributed =
                contributed.map(|value| self.all.shown(self.at, self.viewer, Value::from(value.as_str())));
            let is_known = !session.unresolved
                && !session
                    .allocations
                    .iter()
                    .any(|allocation| is_undecided(&self.all.external_values, allocation));
            return contributed.or_else(|| if is_known { None } else { unknown() });
        };
        if template::is_plain(source) {
            return Some(Value::from(source.as_str()));
        }
        let variable = (self.at, name.to_owned());
        match self.all.rendered_variables.get(&variable) {
            Some(RenderedVariable::Value(value)) => {
                Some(self.all.shown(self.at, self.viewer, Value::from(value)))
            }
            Some(RenderedVariable::Failed) => {
                self.missing.fail();
                unknown()
            }
            None => {
                self.missing.add(variable);
                unknown()
            }
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let session = &self.all.sessions[self.at];
        let contributed = session.contributed_env(&self.all.registry).keys();
        let names: BTreeSet<&String> = contributed.chain(session.declaration.text.env.keys()).collect();
        Enumerator::Values(names.into_iter().map(|name| Value::from(name.as_str())).collect())
    }
}

/// Resources of one session by name.
#[derive(Debug)]
struct Resources {
    all: Arc<ScopeData>,
    at: usize,
    viewer: usize,
}

impl Object for Resources {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let session = &self.all.sessions[self.at];
        let allocation =
            session.allocations.iter().find(|allocation| Some(allocation.name()) == key.as_str());
        match allocation {
            Some(allocation) if is_undecided(&self.all.external_values, allocation) => {
                Some(Value::from_object(AnyValue))
            }
            Some(allocation) => {
                let value = resource_value(&self.all.registry, allocation);
                Some(self.all.shown(self.at, self.viewer, value))
            }
            None if session.unresolved => Some(Value::from_object(AnyValue)),
            None => match &self.all.external_values {
                ExternalValues::Later(names)
                    if names[self.at].iter().any(|name| Some(name.as_str()) == key.as_str()) =>
                {
                    Some(Value::from_object(Unplanned(
                        "its program plans after the options of external kinds",
                    )))
                }
                _ => None,
            },
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let allocations = &self.all.sessions[self.at].allocations;
        Enumerator::Values(allocations.iter().map(|allocation| Value::from(allocation.name())).collect())
    }
}

/// Returns whether a resource has no fields because no program was run.
fn is_undecided(external_values: &ExternalValues, allocation: &Allocation) -> bool {
    matches!(external_values, ExternalValues::Any)
        && allocation.external.is_some()
        && allocation.allocation.is_empty()
}

/// Returns the value of a resource in templates: that of its kind, or else the fields of the allocation. For an
/// external kind, `env` has its environment variables.
fn resource_value(registry: &Registry, allocation: &Allocation) -> Value {
    let of_kind = registry.get(&allocation.kind).and_then(|kind| kind.template_value(allocation));
    of_kind.unwrap_or_else(|| {
        let fields =
            allocation.allocation.iter().map(|(key, value)| (key.clone(), template::from_json(value)));
        let variables = allocation.external.as_ref().map(|external| external.env.iter());
        let env = variables.map(|env| env.map(|(name, value)| (name.clone(), Value::from(value.as_str()))));
        let env = env.map(|env| ("env".to_owned(), Value::from_pairs(env)));
        Value::from_pairs(fields.chain(env))
    })
}

/// All sessions by path.
#[derive(Debug)]
struct Sessions {
    all: Arc<ScopeData>,
    viewer: usize,
    missing: Arc<Missing>,
}

impl Object for Sessions {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let Some(at) = self.all.by_path(key.as_str()?, self.viewer) else {
            return (!self.all.complete).then(|| Value::from_object(AnyValue));
        };
        let (all, missing) = (Arc::clone(&self.all), Arc::clone(&self.missing));
        let viewer = self.viewer;
        Some(Value::from_object(Scope { all, at, viewer, complete: false, prompt: None, missing }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(
            self.all.sessions.iter().map(|session| Value::from(session.path.as_str())).collect(),
        )
    }
}
