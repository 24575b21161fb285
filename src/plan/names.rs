//! What templates can name: every session's id, paths and ports.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object};

use super::identity::Identity;
use crate::manifest::{Manifest, Session};
use crate::name::SessionPath;
use crate::provider::{Context, WORKSPACE_ROOT};
use crate::template::OF_KINDS;

/// The names of all sessions of a plan.
#[derive(Debug)]
pub(super) struct Names {
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    swarm: String,
    /// Whether all sessions are there that the manifest means.
    whole: bool,
    sessions: Vec<Named>,
    by_path: HashMap<String, usize>,
}

#[derive(Debug)]
struct Named {
    path: String,
    parent: Option<usize>,
    session: Value,
    /// `port`, `worktree` and what else providers offer.
    resources: Vec<(&'static str, Value)>,
}

impl Names {
    /// Of the sessions that are `open`, what they hold is not known: it has every name, so that nothing is called a
    /// fault that follows from another.
    pub(super) fn new(
        manifest: &Manifest,
        identities: &[Identity],
        contexts: &[Vec<Context>],
        open: &[bool],
    ) -> Self {
        let named = |at: usize, session: &Session| Named {
            path: session.path.to_string(),
            parent: session.parent,
            session: identities[at].session.clone(),
            resources: if open[at] {
                OF_KINDS.iter().map(|(name, _)| (*name, Value::from_object(Anything))).collect()
            } else {
                contexts[at].iter().flat_map(|context| context.names.clone()).collect()
            },
        };
        let sessions: Vec<_> =
            manifest.sessions.iter().enumerate().map(|(at, session)| named(at, session)).collect();
        let by_path = sessions.iter().enumerate().map(|(at, named)| (named.path.clone(), at)).collect();
        Self {
            all: Arc::new(All { swarm: manifest.swarm.clone(), whole: manifest.whole, sessions, by_path }),
        }
    }

    /// What the templates of the session at this position see.
    pub(super) fn scope(&self, at: usize) -> Value {
        Value::from_object(Scope { all: Arc::clone(&self.all), at, whole: true })
    }
}

/// What templates see before anything is allocated: the swarm and the session itself.
pub(super) fn before(swarm: &str, session: &Value) -> Value {
    Value::from_pairs([("swarm", Value::from(swarm)), ("session", session.clone())])
}

/// `session.*`.
pub(super) fn of_session(path: &SessionPath, id: &str, index: u32) -> Value {
    Value::from_pairs([
        ("id", Value::from(id)),
        ("path", Value::from(path.as_str())),
        ("name", Value::from(path.name())),
        ("index", Value::from(index)),
    ])
}

/// What is not known: it has every name.
#[derive(Debug)]
struct Anything;

impl Object for Anything {
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_dyn_object(Arc::clone(self)))
    }
}

/// One session's names; `whole` adds those of the swarm, which only stand at the top.
#[derive(Debug)]
struct Scope {
    all: Arc<All>,
    at: usize,
    whole: bool,
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let named = &self.all.sessions[self.at];
        match key.as_str()? {
            "session" => Some(named.session.clone()),
            "parent" => named
                .parent
                .map(|at| Value::from_object(Self { all: Arc::clone(&self.all), at, whole: false })),
            "swarm" if self.whole => Some(Value::from(self.all.swarm.as_str())),
            "workspace" if self.whole => Some(Value::from_pairs([("root", WORKSPACE_ROOT)])),
            "sessions" if self.whole => Some(Value::from_object(Sessions(Arc::clone(&self.all)))),
            key => named.resources.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let named = &self.all.sessions[self.at];
        let mut keys = vec![Value::from("session")];
        keys.extend(named.parent.map(|_| Value::from("parent")));
        keys.extend(named.resources.iter().map(|(name, _)| Value::from(*name)));
        if self.whole {
            keys.extend(["swarm", "workspace", "sessions"].map(Value::from));
        }
        Enumerator::Values(keys)
    }
}

/// All sessions by path.
#[derive(Debug)]
struct Sessions(Arc<All>);

impl Object for Sessions {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let Some(at) = self.0.by_path.get(key.as_str()?).copied() else {
            return (!self.0.whole).then(|| Value::from_object(Anything));
        };
        Some(Value::from_object(Scope { all: Arc::clone(&self.0), at, whole: false }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.sessions.iter().map(|named| Value::from(named.path.as_str())).collect())
    }
}
