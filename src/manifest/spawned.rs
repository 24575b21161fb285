//! Tables of spawned sessions: sessions that a program or a person added to an applied swarm, beside the manifest.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::document::SessionTable;
use super::expand::{self, TaintedTables};
use super::key_path::KeyPath;
use super::{Declaration, From, Inherited, Location, Request};
use crate::name::SessionPath;

/// Session table of a spawned session. The plan and the record of a swarm keep it, so that a later plan of the manifest
/// keeps the session.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Spawned {
    /// Path of the session table that the session was made from, without the number of a replica; absent if it was made
    /// from none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SessionPath>,
    /// Session table in the form of a manifest, without `count` and `child`. It does not change with the manifest.
    pub table: Map<String, Value>,
    /// Content of `table`, with locations relative to the table.
    #[serde(skip)]
    declaration: Arc<Declaration>,
}

impl PartialEq for Spawned {
    fn eq(&self, other: &Self) -> bool {
        (&self.template, &self.table) == (&other.template, &other.table)
    }
}

impl<'de> Deserialize<'de> for Spawned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Document {
            #[serde(default)]
            template: Option<SessionPath>,
            table: Map<String, Value>,
        }
        let Document { template, table } = Document::deserialize(deserializer)?;
        let read: SessionTable =
            serde_json::from_value(Value::Object(table.clone())).map_err(D::Error::custom)?;
        if read.count.is_some() || !read.child.is_empty() {
            return Err(D::Error::custom("a spawned session has no `count` and no `child`"));
        }
        let declaration = expand::declaration(read, &KeyPath::ROOT, true, &TaintedTables::by(&[]));
        Ok(Self { template, table, declaration: Arc::new(declaration) })
    }
}

impl Spawned {
    /// Creates the table of a session with the content of `declaration`, which was made from the table `template`.
    pub(crate) fn new(template: Option<SessionPath>, declaration: &Declaration) -> Self {
        let mut table = declaration.text.to_table();
        if let Some(resources) = &declaration.resources {
            table.insert("resources".to_owned(), resources.iter().map(entry).collect());
        }
        if let Some(directory) = &declaration.directory {
            table.insert("directory".to_owned(), directory.as_str().into());
        }
        Self { template, table, declaration: Arc::new(at(declaration, &Location::default())) }
    }

    /// Returns the content of the table for the session at `path`. Diagnostics are located where the manifest would
    /// declare the session.
    pub(crate) fn declaration(&self, path: &SessionPath) -> Declaration {
        at(&self.declaration, &location(path))
    }

    /// Returns the table without the keys that depend on its position in the tree, as a table at the top.
    pub(crate) fn table_at_the_top(&self) -> Map<String, Value> {
        let mut table = self.table.clone();
        if let Some(Value::Array(resources)) = table.get_mut("resources") {
            for resource in resources.iter_mut().filter_map(Value::as_object_mut) {
                resource.remove("from");
            }
        }
        table
    }
}

/// Returns the location at which a manifest declares the session at `path`.
fn location(path: &SessionPath) -> Location {
    let names = path.as_str().split('/').enumerate();
    names.fold(Location::default(), |location, (at, name)| {
        location.key(if at == 0 { "session" } else { "child" }).key(name)
    })
}

/// Returns a declaration at another location.
fn at(declaration: &Declaration, location: &Location) -> Declaration {
    let mut declaration = declaration.clone();
    for (index, request) in declaration.resources.iter_mut().flatten().enumerate() {
        request.location = location.key("resources").index(index);
    }
    Declaration { location: location.clone(), complete: true, inherited: Inherited::default(), ..declaration }
}

/// Returns a request as an entry of `resources`.
fn entry(request: &Request) -> Value {
    let mut entry = request.options.clone();
    entry.insert("kind".to_owned(), request.kind.as_str().into());
    if let Some(name) = &request.name {
        entry.insert("name".to_owned(), name.as_str().into());
    }
    let from = match request.from {
        From::Parent => "parent",
        From::Pool => "pool",
    };
    entry.insert("from".to_owned(), from.into());
    entry.into()
}
