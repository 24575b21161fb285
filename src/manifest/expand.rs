//! Expansion of a document's session tables into sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::diagnostic::{Diagnostic, Step};
use super::document::{Resource, SESSION, SessionTable};
use super::key_path::KeyPath;
use super::lifetime::Lifetime;
use super::rule;
use super::session_text::SessionText;
use super::{Declaration, DefaultText, From, Inherited, Request, Session};
use crate::name::SessionPath;

/// Returns all sessions in canonical order: parents before their children, names bytewise, replicas by number.
///
/// Sessions without `expires` have the one of their parent, or else `expires`. Sessions have the text of `defaults`, and
/// that of their parent if they inherit it. Declarations of `tainted` tables are marked as incomplete.
pub(super) fn sessions(
    tables: BTreeMap<String, SessionTable>,
    expires: Option<&str>,
    defaults: Option<&DefaultText>,
    tainted: &TaintedTables,
) -> Vec<Session> {
    let at = KeyPath::ROOT.key("session");
    let tables: Vec<_> = tables.into_iter().collect();
    let top = |(name, table)| Node::new(name, table, &at, Above { expires, parent: None, defaults }, tainted);
    let nodes: Vec<_> = tables.into_par_iter().map(top).collect();
    let mut sessions = Vec::new();
    for node in nodes {
        node.count_out(None, &mut sessions);
    }
    sessions
}

/// Tainted session tables: a diagnostic affects their requests.
pub(super) struct TaintedTables {
    /// `true` if a diagnostic may affect any table: in the defaults, or in a statement that cannot be read.
    all: bool,
    tables: BTreeSet<Vec<Step>>,
    /// `true` if every diagnostic is about a text of a session, such as `env`: the requests are all known.
    pub(super) has_every_request: bool,
}

impl TaintedTables {
    /// Finds the tables that these diagnostics are in.
    pub(super) fn by<'d>(diagnostics: &'d [Diagnostic]) -> Self {
        let text = SessionText::default().entries().map(|(key, _)| key);
        let is_text = |key: &str| key == "expires" || text.contains(&key);
        // A path is `session.NAME`, then any number of `child.NAME`, then the wrong part.
        let defaults = [Step::key("defaults"), Step::key(SESSION)];
        let split = |diagnostic: &'d Diagnostic| {
            let steps = &diagnostic.location.steps;
            if let Some([Step::Key(key), ..]) = steps.strip_prefix(&defaults[..]) {
                return (&steps[..0], Some(key.as_str()));
            }
            let is_way = |pair: &[Step], at: usize| {
                let way = if at == 0 { "session" } else { "child" };
                matches!(pair, [Step::Key(key), Step::Key(_)] if key == way)
            };
            let depth = steps.chunks(2).enumerate().take_while(|(at, pair)| is_way(pair, *at)).count();
            let (table, rest) = steps.split_at(depth * 2);
            let key = match rest.first() {
                Some(Step::Key(key)) => Some(key.as_str()),
                _ => None,
            };
            (table, key.filter(|_| depth > 0))
        };
        let tables = diagnostics.iter().map(split).filter_map(|(table, key)| {
            let taints = !table.is_empty() && !key.is_some_and(|key| key == "count" || is_text(key));
            taints.then(|| table.to_vec())
        });
        let has_every_request = diagnostics.iter().map(split).all(|(_, key)| key.is_some_and(is_text));
        let all = diagnostics.iter().any(|diagnostic| {
            diagnostic.rule == rule::SYNTAX
                || diagnostic.location.steps.first() == Some(&defaults[0])
                    && !split(diagnostic).1.is_some_and(is_text)
        });
        Self { all, tables: tables.collect(), has_every_request }
    }
}

/// Tables that a session has something from.
#[derive(Clone, Copy)]
struct Above<'a> {
    /// `expires` of the parent, or of the manifest.
    expires: Option<&'a str>,
    parent: Option<&'a Declaration>,
    defaults: Option<&'a DefaultText>,
}

impl<'a> Above<'a> {
    /// Returns the table whose text a session completes.
    fn base(&self, table: &SessionTable) -> Option<&'a Declaration> {
        let inherits = table.inherit.unwrap_or_else(|| self.defaults.is_some_and(|table| table.inherit));
        let defaults = || self.defaults.filter(|_| table.defaults != Some(false));
        self.parent.filter(|_| inherits).or_else(|| Some(&*defaults()?.declaration))
    }
}

/// One table, created once for all its replicas.
struct Node {
    name: String,
    count: Option<u32>,
    shard: Option<u32>,
    declaration: Arc<Declaration>,
    children: Vec<Node>,
}

impl Node {
    fn new(
        name: String,
        mut table: SessionTable,
        at: &KeyPath<'_>,
        above: Above<'_>,
        tainted: &TaintedTables,
    ) -> Self {
        let way = at.key(&name);
        let below = way.key("child");
        let children = std::mem::take(&mut table.child).into_iter();
        table.expires = table.expires.or_else(|| above.expires.map(str::to_owned));
        let (count, shard) = (table.count, table.shard);
        let (expires, base) = (table.expires.clone(), above.base(&table));
        let mut declaration = declaration(table, &way, above.parent.is_some(), tainted);
        if let Some(base) = base {
            declaration.inherit(base);
        }
        let declaration = Arc::new(declaration);
        let above = Above { expires: expires.as_deref(), parent: Some(&declaration), ..above };
        let children = children.map(|(name, table)| Self::new(name, table, &below, above, tainted)).collect();
        Self { name, count, shard, declaration, children }
    }

    fn count_out(&self, parent: Option<usize>, sessions: &mut Vec<Session>) {
        match self.count {
            None => self.add(&self.name, None, parent, sessions),
            Some(count) => {
                for replica in 0..count {
                    self.add(&format!("{}-{replica}", self.name), Some(replica), parent, sessions);
                }
            }
        }
    }

    fn add(&self, name: &str, replica: Option<u32>, parent: Option<usize>, sessions: &mut Vec<Session>) {
        let path = match parent {
            None => SessionPath::top(name),
            Some(parent) => sessions[parent].path.child(name),
        };
        let position = sessions.len();
        sessions.push(Session {
            path,
            parent,
            replica,
            share: None,
            shard: self.shard,
            declaration: Arc::clone(&self.declaration),
            spawned: None,
        });
        self.children.iter().for_each(|child| child.count_out(Some(position), sessions));
    }
}

/// Returns the content of one table at the location `at`.
pub(super) fn declaration(
    table: SessionTable,
    at: &KeyPath<'_>,
    in_child: bool,
    tainted: &TaintedTables,
) -> Declaration {
    let location = at.location();
    let text = table.text().into_static();
    let entries = at.key("resources");
    let from = if in_child { From::Parent } else { From::Pool };
    let request = |(index, Resource { kind, name, from: explicit, options })| Request {
        name: name.filter(|name| *name != kind),
        kind,
        from: explicit.unwrap_or(from),
        options,
        location: entries.index(index).location(),
    };
    let resources =
        table.resources.map(|resources| resources.into_iter().flatten().enumerate().map(request).collect());
    Declaration {
        complete: !tainted.all && !tainted.tables.contains(&location.steps),
        // A session at the top has no parent to share with.
        resources: resources.or_else(|| (!in_child).then(Vec::new)),
        directory: table.directory,
        expires: table.expires.and_then(|expires| Lifetime::try_from(expires).ok()),
        text,
        location,
        inherited: Inherited::default(),
    }
}
