//! Manifest text to [`Manifest`]: parses, checks the schema and the semantics, and reports every diagnostic at its
//! location.
//!
//! Each stage removes the parts it rejects, and the next stage still reads the rest. The stages reject statements with
//! broken syntax, then schema violations, then semantic errors. A text with no syntax or schema error, the usual case,
//! takes the fast path in `rest`. The fast path never converts the whole text to JSON.

pub mod diagnostic;
pub mod rule;
mod text;
mod key_path;
mod syntax;
mod overrides;
mod positions;
mod report;
mod excerpt;
mod to_json;
mod lifetime;
mod located;
mod ready;
mod session_file;
mod session_files;
mod session_text;
mod inheritance;
mod document;
mod conditions;
mod schema;
mod validator;
mod schema_errors;
mod fast_path;
mod size_limits;
mod semantics;
mod expand;
mod spawned;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use diagnostic::{Diagnostic, Diagnostics, Location};
pub use excerpt::Excerpt;
pub(crate) use inheritance::Inherited;
pub use inheritance::{DefaultText, InheritedEntry};
pub use lifetime::{Lifetime, NoLifetime};
pub use located::{Located, locate};
pub use overrides::Override;
pub use ready::{After, NoWithin, Probe, Ready, Within};
pub use report::{Entry, Report, Validation};
pub use rule::Rule;
pub use schema::{Kinds, schema};
pub(crate) use schema_errors::options as check_options;
pub(crate) use semantics::denied_variable;
pub use semantics::is_variable;
pub use session_file::SessionFile;
pub(crate) use session_file::path_fault;
pub use session_text::SessionText;
pub(crate) use session_text::{FILES, Locate, READY, Replace, TextEntry, map_strings};
pub use spawned::Spawned;

use crate::name::SessionPath;
use document::Document;
pub(crate) use document::{AGE_PATTERN, written_command};

/// Version of the manifest format that this seedbed reads.
pub const VERSION: i64 = 1;

/// Reads a manifest that may request `kinds`. Pure.
///
/// The error contains every diagnostic that is known without inspecting the host.
pub fn parse(text: &str, kinds: &Kinds) -> Result<Manifest, Diagnostics> {
    let reading = read(text, kinds);
    match reading.manifest {
        Some(manifest) if reading.diagnostics.is_empty() => Ok(manifest),
        _ => Err(reading.diagnostics.into()),
    }
}

/// Returns the text of a manifest file, with a diagnostic to show in the text if the bytes are not UTF-8. Pure.
pub fn decode(bytes: Vec<u8>) -> (String, Option<Diagnostic>) {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return (text, None),
        Err(error) => error,
    };
    let (at, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let message = format!("byte 0x{:02x} is not UTF-8", bytes[at]);
    // Up to the first invalid byte, the lossy text equals the input.
    let text = String::from_utf8_lossy(bytes).into_owned();
    let shown = text[at..].chars().next().map_or(0, char::len_utf8);
    let diagnostic = Diagnostic::new(rule::NOT_UTF8, Location::bytes(at..at + shown), message, "not text");
    let help = if is_utf16 { "this is UTF-16: save it as UTF-8" } else { "save the file as UTF-8" };
    (text, Some(diagnostic.with_help(help)))
}

/// Readable part of a manifest, and everything that is wrong with the manifest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reading {
    /// Manifest without its wrong parts; `None` if nothing readable is left.
    pub manifest: Option<Manifest>,
    /// Every diagnostic that is known without inspecting the host, in no order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads as much of a manifest as possible. Pure.
///
/// Later stages can check the remaining parts, so that the user gets every diagnostic at once.
pub fn read(text: &str, kinds: &Kinds) -> Reading {
    read_with(text, &[], kinds)
}

/// Reads as much of a manifest as possible, with values that the caller changes for one run. Pure.
///
/// A [`Report`] shows their diagnostics if it has the same `overrides`.
pub fn read_with(text: &str, overrides: &[Override], kinds: &Kinds) -> Reading {
    let mut reading = read_overridden(text, overrides, kinds);
    if let Some(manifest) = &mut reading.manifest {
        manifest.overrides = overrides.iter().map(|given| given.argument().to_owned()).collect();
    }
    reading
}

fn read_overridden(text: &str, overrides: &[Override], kinds: &Kinds) -> Reading {
    let mut diagnostics = Vec::new();
    let manifest = match syntax::parse(text) {
        Ok(mut table) => {
            overrides::set(table.get_mut(), overrides, &mut diagnostics);
            if let Some(document) = fast_path::document(table.get_ref(), kinds) {
                // The rest of the reading reuses the memory of the table.
                drop(table);
                let declared: Vec<_> = document.provider.keys().cloned().collect();
                let manifest = read_document(document, &declared, kinds, &mut diagnostics);
                return Reading { manifest, diagnostics };
            }
            to_json::from_toml(table.get_ref(), &mut diagnostics)
        }
        Err(mut rest) => {
            diagnostics.append(&mut rest.diagnostics);
            if !rest.is_readable {
                return Reading { manifest: None, diagnostics };
            }
            let mut table = rest.table();
            overrides::set(table.get_mut(), overrides, &mut diagnostics);
            to_json::from_toml(table.get_ref(), &mut diagnostics)
        }
    };
    let lost_keys = diagnostics.iter().any(|diagnostic| diagnostic.rule == rule::SYNTAX);
    let manifest = read_value(manifest, kinds, &mut diagnostics);
    if lost_keys {
        // An unreadable statement may have contained the missing key. An entry is part of a single statement, so its
        // keys are known.
        let is_entry = |diagnostic: &Diagnostic| {
            matches!(diagnostic.location.steps.last(), Some(diagnostic::Step::Index(_)))
        };
        diagnostics.retain(|diagnostic| diagnostic.rule != rule::MISSING_KEY || is_entry(diagnostic));
    }
    Reading { manifest, diagnostics }
}

/// Creates the manifest of one standalone session that requests `resources`, each a kind with its options. Pure.
///
/// `programs` are the programs of external kinds. The swarm has no name, and `id`, any text, is the session's path.
/// Options are checked as in any manifest.
pub(crate) fn for_session(
    id: &str,
    resources: &[ResourceOptions],
    defaults: &BTreeMap<String, Options>,
    programs: &BTreeMap<String, Program>,
    kinds: &Kinds,
) -> Result<Manifest, Diagnostics> {
    let resources: Vec<Value> = resources
        .iter()
        .map(|ResourceOptions { kind, name, options }| {
            let mut resource = options.clone();
            resource.insert("kind".to_owned(), kind.as_str().into());
            resource.extend(name.iter().map(|name| ("name".to_owned(), name.as_str().into())));
            resource.into()
        })
        .collect();
    let provider = |(kind, program): (&String, &Program)| {
        let Program { command, timeout, claim, schema } = program;
        let mut table = json!({ "command": command, "timeout": timeout, "claim": claim });
        if let Some(schema) = schema {
            table["schema"] = json!(schema);
        }
        (kind.clone(), table)
    };
    let providers: Map<String, Value> = programs.iter().map(provider).collect();
    // Placeholder names that the schema accepts; their values do not matter.
    let manifest = json!({
        "version": VERSION,
        "swarm": "swarm",
        "defaults": defaults,
        "provider": providers,
        "session": { "session": { "resources": resources } },
    });
    let mut diagnostics = Vec::new();
    let manifest = read_value(manifest, kinds, &mut diagnostics).filter(|_| diagnostics.is_empty());
    let Some(mut manifest) = manifest else { return Err(diagnostics.into()) };
    manifest.swarm.clear();
    for session in &mut manifest.sessions {
        session.path = SessionPath::from_id(id);
    }
    Ok(manifest)
}

/// A resource that a program requests.
pub(crate) struct ResourceOptions {
    /// Kind of the resource.
    pub(crate) kind: String,
    /// Name of the resource; `None` for the name of its kind.
    pub(crate) name: Option<String>,
    /// Options as in a manifest.
    pub(crate) options: Options,
}

/// Options of one kind as JSON, with keys in kebab-case as in the manifest.
pub type Options = Map<String, Value>;

/// Manifest that has passed every check that is possible without inspecting the host.
///
/// In a [`Reading`] with diagnostics, only the valid parts of the manifest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Manifest {
    /// `true` if nothing was rejected and removed.
    pub complete: bool,
    /// `true` if nothing was removed that could change the number or the options of the requests.
    pub has_every_request: bool,
    /// Name of the swarm, the prefix of every session id; empty for a standalone session.
    pub swarm: String,
    /// Name of the swarm in the manifest, if this is an instance of that swarm, for one `run`. The caller sets it by
    /// [`Manifest::become_instance`]; `None`, as it is read.
    pub instance_of: Option<String>,
    /// Path of the repository as written in the manifest, relative to the manifest's directory; `.` by default.
    pub workspace_root: PathBuf,
    /// Root of each repository beside the workspace's own, `[repository.NAME]`, as written in the manifest: relative to
    /// the manifest's directory.
    pub repositories: BTreeMap<String, PathBuf>,
    /// Hosts that the sessions are distributed over, `[fleet]`; `None` without that table.
    pub fleet: Option<Fleet>,
    /// Directory of the manifest, absolute or relative to the workspace root. The caller sets it; empty, as it is read,
    /// for the workspace root.
    pub directory: PathBuf,
    /// Values that the caller has changed for this run, each as `PATH=VALUE`; empty without any.
    pub overrides: Vec<String>,
    /// Default options of each kind, `[defaults.KIND]`.
    pub defaults: BTreeMap<String, Options>,
    /// Text for every session, `[defaults.session]`; `None` without that table.
    pub default_text: Option<DefaultText>,
    /// Program of each external kind, `[provider.KIND]`.
    pub providers: BTreeMap<String, Program>,
    /// All sessions with replicas expanded, in canonical order: parents before their children, depth first.
    pub sessions: Vec<Session>,
}

impl Manifest {
    /// Renames the swarm to an instance of the one that the manifest declares. All ids, paths, branches and ports follow from
    /// the name.
    pub fn become_instance(&mut self, name: &str) {
        let declared = std::mem::replace(&mut self.swarm, name.to_owned());
        self.instance_of.get_or_insert(declared);
    }

    /// Returns a copy without sessions.
    pub(crate) fn without_sessions(&self) -> Self {
        let Self { complete, has_every_request, fleet, .. } = *self;
        Self {
            complete,
            has_every_request,
            swarm: self.swarm.clone(),
            instance_of: self.instance_of.clone(),
            workspace_root: self.workspace_root.clone(),
            repositories: self.repositories.clone(),
            fleet,
            directory: self.directory.clone(),
            overrides: self.overrides.clone(),
            defaults: self.defaults.clone(),
            default_text: self.default_text.clone(),
            providers: self.providers.clone(),
            sessions: Vec::new(),
        }
    }
}

/// Hosts that sessions are distributed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fleet {
    /// Number of shards, at least 1; `None` for one on each host that is no spare.
    pub shards: Option<u32>,
    /// Number of hosts beside those of the shards; 0 by default.
    pub spares: u32,
}

/// Program of an external kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// Program and its arguments, at least one string.
    pub command: Vec<String>,
    /// Time limit of one operation, in seconds, at least 1.
    pub timeout: u32,
    /// `true` if the kind is provisioned for all sessions, one after another, before anything that is not a claim.
    pub claim: bool,
    /// File with the JSON schema of the kind's options, relative to the workspace root; `None` if there is none.
    pub schema: Option<PathBuf>,
}

impl Program {
    /// Default time limit of one operation, in seconds.
    ///
    /// Creating a database takes seconds, and a program that hangs is noticed within the limit.
    pub const TIMEOUT: u32 = 60;

    /// Creates a program that is not a claim, with its arguments and [`Program::TIMEOUT`].
    pub fn new(command: Vec<String>) -> Self {
        Self { command, timeout: Self::TIMEOUT, claim: false, schema: None }
    }
}

/// One session of the tree.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Session {
    /// Path of the session in the tree, e.g. `lead/coder-0`.
    pub path: SessionPath,
    /// Position of the parent in [`Manifest::sessions`]; `None` at the top.
    pub parent: Option<usize>,
    /// Number of this session among the replicas of its table, from 0; `None` if the table has no `count`.
    pub replica: Option<u32>,
    /// Explicit share of the parent's allocations that this session receives.
    ///
    /// `None` if all children that receive a share are among the sessions: the shares then follow from the sessions.
    pub share: Option<Share>,
    /// Shard that the session chooses, from 0; `None` if it chooses none, and for each child.
    pub shard: Option<u32>,
    /// Content of the session's table, shared by all replicas.
    pub declaration: Arc<Declaration>,
    /// Table of a session that was spawned beside the manifest; `None` for a session that the manifest declares.
    pub spawned: Option<Arc<Spawned>>,
}

/// Share of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// Position among the shares, from 0.
    pub index: u32,
    /// Number of shares, at least 1.
    pub of: u32,
}

/// Content of one session table of the manifest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Declaration {
    /// `true` if the requests of the table are complete, with nothing rejected and removed.
    pub complete: bool,
    /// Location of the table, e.g. `session.lead.child.coder`.
    pub location: Location,
    /// Requested resources.
    ///
    /// `None`, only in a child, if `resources` is absent: the child receives a share of everything that its parent has.
    pub resources: Option<Vec<Request>>,
    /// Name of the resource in whose directory the session works; `None` for the default.
    pub directory: Option<String>,
    /// Time after which the session has expired; `None` if it never expires.
    pub expires: Option<Lifetime>,
    /// Templates of everything else that the table gives its sessions, with those that other tables give them.
    pub text: SessionText<'static>,
    /// Locations of entries of `text` in other tables.
    pub(crate) inherited: Inherited,
}

/// One entry of `resources`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Kind of the provider that the request is for.
    pub kind: String,
    /// Name of the resource; `None` if the resource has the name of its kind.
    pub name: Option<String>,
    /// Source of a child's allocation: a share of the parent's allocation, or the pool.
    pub from: From,
    /// Options of the entry itself, without defaults.
    pub options: Options,
    /// Location of the entry.
    pub location: Location,
}

impl Request {
    /// Returns the name of the requested resource.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.kind)
    }
}

/// Source of a child's allocation; at the top of the tree, the source is always the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum From {
    /// Share of the parent's allocation of the same kind.
    Parent,
    /// Fresh allocation.
    Pool,
}

/// A command of `setup` or `teardown`; its strings are templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum CommandLine {
    /// A program and its arguments, run without a shell.
    Arguments(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

/// Returns every diagnostic of a manifest given as JSON, in no order. Pure.
pub(crate) fn diagnostics_of(manifest: Value, kinds: &Kinds) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    read_value(manifest, kinds, &mut diagnostics);
    diagnostics
}

/// Reads a manifest whose syntax is valid; `None` if too little of the manifest is left.
fn read_value(mut manifest: Value, kinds: &Kinds, diagnostics: &mut Vec<Diagnostic>) -> Option<Manifest> {
    if let Some(other) = manifest["version"].as_i64().filter(|version| *version != VERSION) {
        *diagnostics = vec![wrong_version(other)];
        return None;
    }
    let declared: Vec<String> =
        manifest["provider"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
    diagnostics
        .extend(declared.iter().filter(|name| is_reserved(name, kinds)).map(|name| kind_conflict(name)));
    if let Err(error) = schema_errors::check(&mut manifest, &schema(kinds), diagnostics) {
        let message = format!("the schema of a kind's options is broken: {}", text::escaped(&error));
        diagnostics.push(Diagnostic::new(
            rule::BROKEN_KIND,
            Location::default(),
            message,
            "not caused by this file",
        ));
    }
    let complete = diagnostics.is_empty();
    if let (false, Some(root)) = (complete, manifest.as_object_mut()) {
        root.entry("version").or_insert(VERSION.into());
        root.entry("swarm").or_insert("swarm".into());
    }
    let document = match serde_json::from_value::<Document>(manifest) {
        Ok(document) => document,
        Err(error) => {
            if complete {
                let message = format!("the manifest cannot be read: {}", text::escaped(&error.to_string()));
                let diagnostic = Diagnostic::new(
                    rule::BROKEN_KIND,
                    Location::default(),
                    message,
                    "not caused by this file",
                );
                diagnostics.push(diagnostic.with_help("a bug in seedbed: the schema let it through"));
            }
            return None;
        }
    };
    read_document(document, &declared, kinds, diagnostics)
}

/// Reads a manifest that meets the schema, without the parts that `diagnostics` already reports; `declared` are the external
/// kinds that the manifest names.
fn read_document(
    document: Document,
    declared: &[String],
    kinds: &Kinds,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Manifest> {
    let complete = diagnostics.is_empty();
    let known: BTreeSet<&str> = kinds.keys().chain(declared).map(String::as_str).collect();
    semantics::check(&document, &known, complete, diagnostics);
    if diagnostics
        .iter()
        .any(|diagnostic| [rule::TOO_MANY_SESSIONS, rule::TOO_LARGE].contains(&diagnostic.rule))
    {
        return None;
    }
    let tainted = expand::TaintedTables::by(diagnostics);
    let default_text = document.defaults.session.as_ref().map(DefaultText::new);
    let fleet = document.fleet.map(|table| Fleet { shards: table.shards, spares: table.spares.unwrap_or(0) });
    let sessions =
        expand::sessions(document.session, document.expires.as_deref(), default_text.as_ref(), &tainted);
    Some(Manifest {
        complete: diagnostics.is_empty(),
        has_every_request: tainted.has_every_request,
        swarm: document.swarm,
        instance_of: None,
        workspace_root: document.workspace.root.map_or_else(|| ".".into(), PathBuf::from),
        repositories: document
            .repository
            .into_iter()
            .map(|(name, repository)| (name, repository.root.into()))
            .collect(),
        fleet,
        directory: PathBuf::new(),
        overrides: Vec::new(),
        defaults: document.defaults.kinds,
        default_text,
        providers: document.provider.into_iter().map(|(name, provider)| (name, provider.program())).collect(),
        sessions,
    })
}

fn wrong_version(version: i64) -> Diagnostic {
    let message =
        format!("this seedbed reads version {VERSION} of the manifest, and this is version {version}");
    let help =
        if version > VERSION { "use a newer seedbed, or write `version = 1`" } else { "write `version = 1`" };
    Diagnostic::new(rule::VERSION, Location::default().key("version"), message, format!("expected {VERSION}"))
        .with_help(help)
}

/// Returns whether no external kind can have this name.
fn is_reserved(name: &str, kinds: &Kinds) -> bool {
    kinds.contains_key(name) || name == document::SESSION
}

fn kind_conflict(name: &str) -> Diagnostic {
    let message = match name {
        document::SESSION => {
            "`session` is no kind, because `[defaults.session]` is about sessions".to_owned()
        }
        _ => format!("{} is a kind that seedbed has itself", text::quoted(name)),
    };
    let location = Location::default().key("provider").key(name).the_key();
    Diagnostic::new(rule::KIND_CONFLICT, location, message, "taken")
        .with_help("choose another name for the external kind")
}
