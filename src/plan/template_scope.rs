//! Names that templates can use: every session's id, paths and ports.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use minijinja::Value;
use minijinja::value::{Enumerator, Object};

use super::session_identity::Identity;
use crate::manifest::Manifest;
use crate::name::{SessionPath, Slug};
use crate::provider::{Allocation, Registry, WORKSPACE_ROOT, placeholders};
use crate::template::{self, KINDS, RESOURCES};

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
    sessions: Vec<Named>,
    /// Positions in `sessions`, computed when a template first names a session by its path.
    by_path: OnceLock<HashMap<String, usize>>,
}

#[derive(Clone, Debug)]
struct Named {
    path: SessionPath,
    id: String,
    index: u32,
    replica: Option<u32>,
    slug: Slug,
    parent: Option<usize>,
    /// `true` if the session's allocations are incomplete because of an earlier diagnostic.
    unresolved: bool,
    held: Vec<Allocation>,
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
    ) -> Self {
        let sessions = manifest.sessions.iter().zip(identities).zip(allocations).zip(unresolved);
        let sessions = sessions.map(|(((session, identity), held), unresolved)| Named {
            path: session.path.clone(),
            id: identity.id.clone(),
            index: identity.index,
            replica: identity.replica,
            slug: identity.slug.clone(),
            parent: session.parent,
            unresolved: *unresolved,
            held,
        });
        Self {
            all: Arc::new(ScopeData {
                swarm: manifest.swarm.clone(),
                complete: manifest.complete,
                registry: registry.clone(),
                sessions: sessions.collect(),
                by_path: OnceLock::new(),
            }),
        }
    }

    /// Returns the names that the templates of the session at this position can use.
    pub(super) fn scope(&self, at: usize) -> Value {
        Value::from_object(Scope { all: Arc::clone(&self.all), at, complete: true, prompt: None })
    }

    /// Returns the names that the command of the session at this position can use: also `prompt`.
    pub(super) fn scope_with_prompt(&self, at: usize, prompt: &str) -> Value {
        let prompt = Some(Value::from(prompt));
        Value::from_object(Scope { all: Arc::clone(&self.all), at, complete: true, prompt })
    }

    /// Returns the allocations of the session at this position.
    pub(super) fn allocations(&self, at: usize) -> &[Allocation] {
        &self.all.sessions[at].held
    }

    /// Returns the allocations of all sessions, after rendering.
    pub(super) fn into_allocations(self) -> Vec<Vec<Allocation>> {
        Arc::unwrap_or_clone(self.all).sessions.into_iter().map(|named| named.held).collect()
    }
}

impl ScopeData {
    fn by_path(&self, path: &str) -> Option<usize> {
        let positions = self.by_path.get_or_init(|| {
            let paths = self.sessions.iter().map(|named| named.path.to_string());
            paths.enumerate().map(|(at, path)| (path, at)).collect()
        });
        positions.get(path).copied()
    }
}

impl Named {
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
        self.held.iter().filter_map(move |held| {
            let kind = registry.get(&held.kind)?;
            let name = kind.template_name().filter(|name| wanted(name))?;
            Some((name, kind.template_value(held)?))
        })
    }
}

/// Returns the names by which templates see resources, each with its kind.
fn names_of_kinds(registry: &Registry) -> impl Iterator<Item = (&'static str, &str)> {
    registry.iter().filter_map(|kind| Some((kind.template_name()?, kind.kind())))
}

/// Unknown value: it has every name.
#[derive(Debug)]
struct AnyValue;

impl Object for AnyValue {
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_dyn_object(Arc::clone(self)))
    }
}

/// Names of one session; `complete` adds the names of the swarm, which exist only at the top.
#[derive(Debug)]
struct Scope {
    all: Arc<ScopeData>,
    at: usize,
    complete: bool,
    /// The composed prompt, in the templates of the session's command.
    prompt: Option<Value>,
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let named = &self.all.sessions[self.at];
        match key.as_str()? {
            "session" => {
                let Named { path, id, index, replica, slug, .. } = named;
                let hash = ("hash", Value::from(placeholders::session_hash_placeholder(id)));
                Some(template::session_value(path, id, *index, *replica, slug, Some(hash)))
            }
            "parent" => named.parent.map(|at| {
                Value::from_object(Self { all: Arc::clone(&self.all), at, complete: false, prompt: None })
            }),
            "swarm" if self.complete => Some(Value::from(self.all.swarm.as_str())),
            "workspace" if self.complete => Some(Value::from_pairs([("root", WORKSPACE_ROOT)])),
            "prompt" if self.prompt.is_some() => self.prompt.clone(),
            "sessions" if self.complete => Some(Value::from_object(Sessions(Arc::clone(&self.all)))),
            RESOURCES => Some(Value::from_object(Resources { all: Arc::clone(&self.all), at: self.at })),
            KINDS => Some(Value::from_pairs(names_of_kinds(&self.all.registry))),
            key => named.resource(&self.all.registry, key),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let named = &self.all.sessions[self.at];
        let mut keys = vec![Value::from("session"), Value::from(RESOURCES)];
        keys.extend(named.parent.map(|_| Value::from("parent")));
        if named.unresolved {
            keys.extend(names_of_kinds(&self.all.registry).map(|(name, _)| Value::from(name)));
        } else {
            let mut seen = BTreeSet::new();
            let named = named.resources(&self.all.registry, |_| true).map(|(name, _)| name);
            keys.extend(named.filter(|name| seen.insert(*name)).map(Value::from));
        }
        keys.extend(self.prompt.iter().map(|_| Value::from("prompt")));
        if self.complete {
            keys.extend(["swarm", "workspace", "sessions"].map(Value::from));
        }
        Enumerator::Values(keys)
    }
}

/// Resources of one session by name.
#[derive(Debug)]
struct Resources {
    all: Arc<ScopeData>,
    at: usize,
}

impl Object for Resources {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let named = &self.all.sessions[self.at];
        let held = named.held.iter().find(|held| Some(held.name()) == key.as_str());
        match held {
            Some(held) => Some(resource_value(&self.all.registry, held)),
            None => named.unresolved.then(|| Value::from_object(AnyValue)),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let held = &self.all.sessions[self.at].held;
        Enumerator::Values(held.iter().map(|held| Value::from(held.name())).collect())
    }
}

/// Returns the value of a resource in templates: that of its kind, or else the fields of the allocation. For an
/// external kind, `env` has its environment variables.
fn resource_value(registry: &Registry, held: &Allocation) -> Value {
    let of_kind = registry.get(&held.kind).and_then(|kind| kind.template_value(held));
    of_kind.unwrap_or_else(|| {
        let fields = held.allocation.iter().map(|(key, value)| (key.clone(), template::from_json(value)));
        let variables = held.external.as_ref().map(|external| external.env.iter());
        let env = variables.map(|env| env.map(|(name, value)| (name.clone(), Value::from(value.as_str()))));
        let env = env.map(|env| ("env".to_owned(), Value::from_pairs(env)));
        Value::from_pairs(fields.chain(env))
    })
}

/// All sessions by path.
#[derive(Debug)]
struct Sessions(Arc<ScopeData>);

impl Object for Sessions {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let Some(at) = self.0.by_path(key.as_str()?) else {
            return (!self.0.complete).then(|| Value::from_object(AnyValue));
        };
        Some(Value::from_object(Scope { all: Arc::clone(&self.0), at, complete: false, prompt: None }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.sessions.iter().map(|named| Value::from(named.path.as_str())).collect())
    }
}
