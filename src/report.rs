//! Documents that commands print with `--json`: what programs read. Pure.
//!
//! Each has a version, and a schema that `seedbed schema WHAT` prints. Within a version fields may be added; none is
//! removed, renamed, or given another meaning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::doctor::Finding;
use crate::host::listeners::Listener;
use crate::name::SessionPath;
use crate::provider::git_worktree::rescue::SavedWork;

/// Version of these documents' format.
pub const SCHEMA_VERSION: u32 = 1;

/// What `list --json` prints: every swarm on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:list:1"))]
pub struct List {
    /// Version of this document's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// The swarms, by workspace and name.
    pub swarms: Vec<ListedSwarm>,
}

/// A swarm in [`List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedSwarm {
    /// Name of the swarm.
    pub swarm: String,
    /// Paths of its sessions.
    pub sessions: Vec<SessionPath>,
    /// Paths of the sessions whose setup failed or was not run.
    pub not_set_up: Vec<SessionPath>,
    /// What is recorded of it.
    #[serde(flatten)]
    pub recorded: Recorded,
    /// Children that programs have provisioned from its sessions, and theirs.
    pub children: Vec<ListedChild>,
}

/// A child of a session, provisioned by a program, in [`List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedChild {
    /// Id of the child.
    pub id: String,
    /// Id of the session that it is a child of.
    pub child_of: Option<String>,
    /// Its number among the children of that session, from 0.
    pub child_index: Option<u32>,
    /// What is recorded of it.
    #[serde(flatten)]
    pub recorded: Recorded,
}

/// What the state directory holds of a swarm, or of a session on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Name of its files in the state directory.
    pub key: String,
    /// The workspace root, absolute; `null` where no record can be read.
    pub workspace: Option<PathBuf>,
    /// Whether the workspace root exists; `null` where it is not known.
    pub workspace_exists: Option<bool>,
    /// Whether it stands.
    pub standing: bool,
    /// Time since which it stands, in UTC, as in RFC 3339.
    pub since: Option<String>,
    /// Digest of the plan that stands.
    pub plan: Option<String>,
    /// Whether a run of it is under way or was interrupted.
    pub interrupted: bool,
    /// Whether a run of it is under way.
    pub running: bool,
    /// One line for each thing that a run has not finished.
    pub unfinished: Vec<String>,
    /// The command that holds or last held its lock.
    pub holder: Option<String>,
    /// One line for each record that cannot be read.
    pub unreadable: Vec<String>,
    /// Blocks of ports that are no shares of others.
    pub ports: Vec<Ports>,
}

/// A block of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// First port.
    pub start_port: u16,
    /// Last port.
    pub end_port: u16,
}

/// What `doctor --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:doctor:1"))]
pub struct Diagnosis {
    /// Version of this document's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// The workspace root, absolute.
    pub workspace: PathBuf,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// What `--reap` removed.
    pub reaped: Reaped,
}

/// What `doctor --reap` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reaped {
    /// Leases of ports.
    pub leases: Vec<ReapedLease>,
    /// Lock files of the workspace, absolute.
    pub lock_files: Vec<PathBuf>,
}

/// A lease of ports that `doctor --reap` removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReapedLease {
    /// Id of the session that held it.
    pub session: String,
    /// The ports.
    #[serde(flatten)]
    pub ports: Ports,
}

/// What `explain --json` prints of a port, a path or a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:explain:1"))]
pub struct Explanation {
    /// Version of this document's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// One sentence that answers the question.
    pub summary: String,
    /// The port asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path asked about, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The session that owns it; `null` where none does.
    pub owner: Option<Owner>,
    /// The rules by which it is so, one line each.
    pub rules: Vec<String>,
    /// What else holds it, one line each: leases, lock files.
    pub held: Vec<String>,
    /// The lines of the manifest that say so.
    pub manifest: Vec<Position>,
    /// Whether the kernel gives the port to outgoing connections; `null` for what is no port, and where the kernel does
    /// not say.
    pub ephemeral: Option<bool>,
    /// What listens there now.
    pub listeners: Vec<Listener>,
}

/// A session that owns what [`Explanation`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Name of the swarm.
    pub swarm: String,
    /// The workspace root, absolute.
    pub workspace: PathBuf,
    /// Path of the session.
    pub session: String,
    /// Id of the session.
    pub id: String,
    /// Number of the session in the tree.
    pub index: u32,
    /// Whether it stands.
    pub state: OwnerState,
    /// Whether it is of the swarm of the manifest around the current directory.
    pub own: bool,
}

/// Whether an [`Owner`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OwnerState {
    /// It stands.
    Standing,
    /// A run creates or removes it, or did when it was interrupted.
    Unfinished,
    /// The manifest asks for it, and nothing of it exists yet.
    Planned,
}

/// A place in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Path of the manifest, as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// Length in characters.
    pub length: usize,
    /// What the place says.
    pub message: String,
}

/// What `env --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:env:1"))]
pub struct Environment {
    /// Version of this document's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Id of the session.
    pub session: String,
    /// Directory that the session works in, absolute.
    pub working_directory: PathBuf,
    /// Variables of its environment and their values.
    pub environment: BTreeMap<String, String>,
}

/// What `prompt --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:prompt:1"))]
pub struct Prompt {
    /// Version of this document's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// The sections of the session, and the prompt after them.
    pub prompt: String,
}

/// What `rescue list`, `rescue restore` and `rescue drop` print with `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:rescues:1"))]
pub struct Rescues {
    /// Version of this document's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Git directory that all worktrees of the repository share, absolute.
    pub repository: PathBuf,
    /// What was done with the rescues.
    pub action: RescueAction,
    /// The rescues that were listed, restored or deleted.
    pub rescues: Vec<SavedWork>,
    /// The new worktree, absolute; absent except for `restored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}

/// What was done with [`Rescues`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RescueAction {
    /// Nothing was changed.
    Listed,
    /// The work is in a new worktree; the rescue still exists.
    Restored,
    /// The refs were deleted.
    Dropped,
}
