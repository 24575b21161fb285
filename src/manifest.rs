//! Text to [`Manifest`]: parse, schema, meaning, with every fault at its place.
//!
//! Syntax comes first and alone, because what is recovered from broken syntax misleads. Then the schema and the
//! meaning are checked in one run: what the schema finds wrong is taken out, and the rest is read all the same.

pub mod fault;
pub mod rule;
mod words;
mod way;
mod syntax;
mod source;
mod report;
mod excerpt;
mod value;
mod document;
mod schema;
mod check;
mod meaning;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

pub use excerpt::Excerpt;
pub use fault::{Fault, Place};
pub use report::{Entry, Report, Validation};
pub use rule::Rule;
pub use schema::{Kinds, schema};

use crate::name::{SessionPath, is_name};
use document::Document;

/// The version of the manifest format that this seedbed reads.
pub const VERSION: i64 = 1;

/// Reads a manifest that may ask for `kinds`. Pure.
///
/// The error holds every fault that is known without looking at the host, in no order; a [`Report`] finds their
/// lines. Of a manifest whose syntax is broken only the faults of syntax are told.
pub fn parse(text: &str, kinds: &Kinds) -> Result<Manifest, Vec<Fault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(syntax::faults(&errors, text));
    }
    let mut faults = Vec::new();
    let manifest = value::from_toml(table.into_inner(), &mut faults);
    read(manifest, kinds, faults)
}

/// The manifest of one session on its own, which asks for `resources`, each a kind with its options. Pure.
///
/// Its swarm has no name, and `id`, any text, is the session's path. What can be wrong with options is checked as in
/// any manifest.
pub fn of_session(
    id: &str,
    resources: &[(String, Options)],
    defaults: &BTreeMap<String, Options>,
    kinds: &Kinds,
) -> Result<Manifest, Vec<Fault>> {
    let resources: Vec<Value> = resources
        .iter()
        .map(|(kind, options)| {
            let mut resource = options.clone();
            resource.insert("kind".to_owned(), kind.as_str().into());
            resource.into()
        })
        .collect();
    // Names that the schema takes; which they are does not matter.
    let manifest = json!({
        "version": VERSION,
        "swarm": "swarm",
        "defaults": defaults,
        "session": { "session": { "resources": resources } },
    });
    let mut manifest = read(manifest, kinds, Vec::new())?;
    manifest.swarm.clear();
    for session in &mut manifest.sessions {
        session.path = SessionPath::alone(id);
    }
    Ok(manifest)
}

/// What is needed to find a standing swarm, even where the rest of its manifest is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The swarm's name.
    pub swarm: String,
    /// The repository, relative to the manifest's directory; `.` by default.
    pub workspace_root: PathBuf,
}

/// Reads only what finds a standing swarm; `None` where the text does not say a valid name for it. Pure.
pub fn locate(text: &str) -> Option<Located> {
    let (table, _) = DeTable::parse_recoverable(text);
    let swarm = table.get_ref().get("swarm")?.get_ref().as_str().filter(|swarm| is_name(swarm))?.to_owned();
    let workspace = table.get_ref().get("workspace").and_then(|workspace| workspace.get_ref().as_table());
    let workspace_root =
        match workspace.and_then(|workspace| workspace.get("root")).map(toml::Spanned::get_ref) {
            None => PathBuf::from("."),
            Some(DeValue::String(root)) => PathBuf::from(&**root),
            Some(_) => return None,
        };
    Some(Located { swarm, workspace_root })
}

/// The options of one kind as JSON, keys in kebab-case as the manifest writes them.
pub type Options = Map<String, Value>;

/// A manifest that has passed every check that can be made without looking at the host.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The swarm's name, which scopes every session id; empty for one session on its own.
    pub swarm: String,
    /// The repository as the manifest writes it, relative to the manifest's directory; `.` by default.
    pub workspace_root: PathBuf,
    /// `[defaults.KIND]`.
    pub defaults: BTreeMap<String, Options>,
    /// `[provider.KIND]`: the program of each external kind and its arguments, at least one string.
    pub providers: BTreeMap<String, Vec<String>>,
    /// Every session, replicas counted out, in canonical order: parents before their children, depth first.
    pub sessions: Vec<Session>,
}

/// One session of the tree.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where it stands, e.g. `lead/coder-0`.
    pub path: SessionPath,
    /// The position of its parent in [`Manifest::sessions`]; `None` at the top.
    pub parent: Option<usize>,
    /// Its number among the replicas of its table; `None` where the table has no `count`.
    pub replica: Option<u32>,
    /// What its table says, shared by all replicas.
    pub declaration: Arc<Declaration>,
}

/// What one session table of the manifest says.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Where the table stands, e.g. `session.lead.child.coder`.
    pub place: Place,
    /// What it asks for. `None`, only in a child, where `resources` is absent: a share of everything the parent has.
    pub resources: Option<Vec<Request>>,
    /// Templates.
    pub env: BTreeMap<String, String>,
    /// Templates, one a section.
    pub prompt: Vec<String>,
    /// Values whose strings are templates.
    pub metadata: Map<String, Value>,
    /// Commands run after provisioning.
    pub setup: Vec<CommandLine>,
    /// Commands run before release.
    pub teardown: Vec<CommandLine>,
}

/// One entry of `resources`.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which provider it is for.
    pub kind: String,
    /// Whether a child takes a share of its parent's or a fresh allocation.
    pub from: From,
    /// What the entry itself says, without defaults.
    pub options: Options,
    /// Where the entry stands.
    pub place: Place,
}

/// Where a child's allocation comes from; at the top of the tree everything comes from the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A share of the parent's allocation of the same kind.
    Parent,
    /// A fresh allocation.
    Pool,
}

/// A command of `setup` or `teardown`; its strings are templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CommandLine {
    /// A program and its arguments, run without a shell.
    Arguments(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

/// Reads a manifest whose syntax is sound, but for the `faults` of values that JSON does not have.
fn read(mut manifest: Value, kinds: &Kinds, mut faults: Vec<Fault>) -> Result<Manifest, Vec<Fault>> {
    if let Some(other) = manifest["version"].as_i64().filter(|version| *version != VERSION) {
        return Err(vec![wrong_version(other)]);
    }
    let declared: Vec<String> =
        manifest["provider"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
    faults.extend(declared.iter().filter(|name| kinds.contains_key(*name)).map(|name| taken_kind(name)));
    if let Err(error) = check::check(&mut manifest, &schema(kinds), &mut faults) {
        let message = format!("the schema of a kind's options is broken: {}", words::escaped(&error));
        faults.push(Fault::new(rule::BROKEN_KIND, Place::default(), message, "not a fault of this file"));
    }
    let whole = faults.is_empty();
    if let (false, Some(root)) = (whole, manifest.as_object_mut()) {
        root.entry("version").or_insert(VERSION.into());
        root.entry("swarm").or_insert("swarm".into());
    }
    let document = match serde_json::from_value::<Document>(manifest) {
        Ok(document) => document,
        Err(error) if whole => {
            let message = format!("the manifest cannot be read: {}", words::escaped(&error.to_string()));
            return Err(vec![Fault::new(
                rule::BROKEN_KIND,
                Place::default(),
                message,
                "a bug in seedbed: the schema let it through",
            )]);
        }
        Err(_) => return Err(faults),
    };
    let known: BTreeSet<&str> = kinds.keys().chain(&declared).map(String::as_str).collect();
    meaning::check(&document, &known, whole, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Manifest {
        swarm: document.swarm,
        workspace_root: document.workspace.root.map_or_else(|| ".".into(), PathBuf::from),
        defaults: document.defaults,
        providers: document.provider.into_iter().map(|(name, provider)| (name, provider.command)).collect(),
        sessions: tree::sessions(document.session),
    })
}

fn wrong_version(version: i64) -> Fault {
    let message =
        format!("this seedbed reads version {VERSION} of the manifest, and this is version {version}");
    let help =
        if version > VERSION { "use a newer seedbed, or write `version = 1`" } else { "write `version = 1`" };
    Fault::new(rule::VERSION, Place::default().key("version"), message, format!("expected {VERSION}"))
        .with_help(help)
}

fn taken_kind(name: &str) -> Fault {
    let message = format!("{} is a kind that seedbed has itself", words::quoted(name));
    let place = Place::default().key("provider").key(name).the_key();
    Fault::new(rule::TAKEN_KIND, place, message, "taken")
        .with_help("choose another name for the external kind")
}
