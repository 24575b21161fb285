//! Documents that commands print with `--json`, for programs. Pure.
//!
//! Each has a version, and a schema that `seedbed schema WHAT` prints. Within a version fields, events and values may be
//! added, and programs ignore those that they do not know; none is removed, renamed, or given another meaning.

pub mod collected;
pub mod error;
pub mod event;
pub mod schema;
pub mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::apply::Usage;
use crate::doctor::Finding;
use crate::host::clock;
use crate::host::listeners::Listener;
use crate::host::seeds::Seed;
use crate::name::SessionPath;
use crate::provider::git_worktree::rescue::SavedWork;

/// Version of the format of these documents.
pub const SCHEMA_VERSION: u32 = 1;

/// Document of `init --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:init:1"))]
pub struct Initialized {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// The manifest that was written, absolute.
    pub manifest: PathBuf,
    /// `true` if the repository has a commit, which sessions begin at.
    pub has_commit: bool,
}

/// Output of `list --json`: every swarm on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:list:1"))]
pub struct List {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Swarms, by workspace and name.
    pub swarms: Vec<ListedSwarm>,
}

/// A swarm in [`List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedSwarm {
    /// Name of the swarm.
    pub swarm: String,
    /// Paths of the swarm's sessions.
    pub sessions: Vec<SessionPath>,
    /// Repositories beside the workspace's own that the sessions have worktrees of, by name.
    #[serde(default)]
    pub repositories: Vec<ListedRepository>,
    /// Paths of the sessions whose setup failed or was not run.
    pub not_set_up: Vec<SessionPath>,
    /// Paths of the sessions that have expired.
    #[serde(default)]
    pub expired: Vec<SessionPath>,
    /// Records of the swarm.
    #[serde(flatten)]
    pub recorded: Recorded,
    /// Descendants that programs have provisioned from the swarm's sessions.
    pub children: Vec<ListedChild>,
}

/// Repository beside the workspace's own in [`List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedRepository {
    /// Name in the manifest.
    pub name: String,
    /// Absolute path of the repository's root.
    pub root: PathBuf,
    /// `true` if the root exists.
    pub exists: bool,
    /// Paths of the sessions that have worktrees of the repository.
    pub sessions: Vec<SessionPath>,
}

/// A child of a session, provisioned by a program, in [`List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedChild {
    /// Id of the child.
    pub id: String,
    /// Id of the parent session.
    pub child_of: Option<String>,
    /// Number of the child among the children of its parent, from 0.
    pub child_index: Option<u32>,
    /// Records of the child.
    #[serde(flatten)]
    pub recorded: Recorded,
}

/// Records of a swarm, or of a standalone session, in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Name of the swarm's or session's files in the state directory.
    pub key: String,
    /// Absolute path of the workspace root; `null` if no record can be read.
    pub workspace: Option<PathBuf>,
    /// `true` if the workspace root exists; `null` if unknown.
    pub workspace_exists: Option<bool>,
    /// `true` if the swarm is applied, or the session is active.
    pub applied: bool,
    /// Time since which the swarm is applied or the session is active, in UTC as RFC 3339.
    pub since: Option<String>,
    /// Digest of the applied plan.
    pub plan: Option<String>,
    /// `true` if a run is in progress or was interrupted.
    pub interrupted: bool,
    /// `true` if a run is in progress.
    pub running: bool,
    /// Unfinished work of runs, one line each.
    pub unfinished: Vec<String>,
    /// Command that owns or last owned the lock.
    pub holder: Option<String>,
    /// Records that cannot be read, one line each.
    pub unreadable: Vec<String>,
    /// Blocks of ports that are no shares of others.
    pub ports: Vec<Ports>,
    /// Disk space of all sessions, for `--sizes`; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<DiskUsage>,
}

/// Disk space of the directories of sessions, and the time of their last change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskUsage {
    /// Bytes on disk, without the directories of other sessions inside. Blocks that a file shares with another one count in
    /// full.
    pub bytes: u64,
    /// Time of the last change of a file or directory, in UTC as RFC 3339; `null` if unknown, also because something cannot be
    /// read.
    pub changed: Option<String>,
}

impl From<Usage> for DiskUsage {
    fn from(usage: Usage) -> Self {
        Self { bytes: usage.bytes, changed: usage.changed.map(clock::rfc3339) }
    }
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

/// Output of `doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:doctor:1"))]
pub struct Diagnosis {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Absolute path of the workspace root.
    pub workspace: PathBuf,
    /// Problems, the most severe first.
    pub findings: Vec<Finding>,
    /// Resources that `--reap` removed.
    pub reaped: Reaped,
}

/// Resources that `doctor --reap` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reaped {
    /// Leases of ports and of items of pools.
    pub leases: Vec<ReapedLease>,
    /// Lock files of the workspace, absolute.
    pub lock_files: Vec<PathBuf>,
    /// Seeds that no session needs.
    pub seeds: Vec<Seed>,
}

/// A lease that `doctor --reap` removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReapedLease {
    /// Id of the session that owned the lease.
    pub session: String,
    /// Ports of the lease; absent for an item.
    #[serde(flatten)]
    pub ports: Option<Ports>,
    /// Name of the item's pool; absent for ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Leased item; absent for ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

/// Output of `explain --json` for a port, a path or a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:explain:1"))]
pub struct Explanation {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Answer to the question, one sentence.
    pub summary: String,
    /// The port in question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path in question, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Session that owns the port or path; `null` if none does.
    pub owner: Option<Owner>,
    /// Rules that explain the answer, one line each.
    pub rules: Vec<String>,
    /// Other owners, one line each: leases, lock files.
    pub other_owners: Vec<String>,
    /// Lines of the manifest that explain the answer.
    pub manifest: Vec<Position>,
    /// `true` if the kernel gives the port to outgoing connections; `null` if the question is not about a port, or the
    /// kernel does not report it.
    pub ephemeral: Option<bool>,
    /// Sockets that listen on the port now.
    pub listeners: Vec<Listener>,
}

/// A session that owns what [`Explanation`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Name of the swarm.
    pub swarm: String,
    /// Absolute path of the workspace root.
    pub workspace: PathBuf,
    /// Path of the session.
    pub session: String,
    /// Id of the session.
    pub id: String,
    /// Number of the session in the tree.
    pub index: u32,
    /// State of the session.
    pub state: OwnerState,
    /// `true` if the session belongs to the swarm of the manifest around the current directory.
    pub own: bool,
}

/// State of an [`Owner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OwnerState {
    /// The session is active.
    Applied,
    /// A run creates or removes the session, or did when it was interrupted.
    Unfinished,
    /// The manifest requests the session, which does not exist yet.
    Planned,
}

/// A location in the manifest.
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
    /// Text of the manifest at the location.
    pub message: String,
}

/// Output of `env --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:env:1"))]
pub struct Environment {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Id of the session.
    pub session: String,
    /// Directory in which the session works, absolute.
    pub working_directory: PathBuf,
    /// Variables of its environment and their values.
    pub environment: BTreeMap<String, String>,
}

/// Output of `prompt --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:prompt:1"))]
pub struct Prompt {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// The sections of the session, and the prompt after them.
    pub prompt: String,
}

/// Output of `rescue list`, `rescue restore` and `rescue drop` with `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:rescues:1"))]
pub struct Rescues {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Git directory that all worktrees of the repository share, absolute.
    pub repository: PathBuf,
    /// Action on the rescues.
    pub action: RescueAction,
    /// Rescues that were listed, restored or deleted.
    pub rescues: Vec<SavedWork>,
    /// The worktree in which the work is restored, absolute; absent except for `restored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Path of the session in whose worktree the work is restored; absent if the worktree is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPath>,
}

/// Action on [`Rescues`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RescueAction {
    /// Nothing was changed.
    Listed,
    /// The work is in a worktree; the rescue still exists.
    Restored,
    /// The refs were deleted.
    Dropped,
}
