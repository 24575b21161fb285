//! Document of `status --json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DiskUsage, SCHEMA_VERSION};
use crate::apply::{Failure, SessionFinding};
use crate::manifest::Lifetime;
use crate::name::SessionPath;
use crate::state::SessionRun;

/// Document of `status --json`, with or without `--repair`: a swarm as it is now.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:status:1"))]
pub struct SwarmStatus {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the swarm.
    pub swarm: String,
    /// The workspace root, absolute.
    pub workspace: PathBuf,
    /// Digest of the plan that was applied last.
    pub plan: String,
    /// `true` if a run is in progress or was interrupted.
    pub interrupted: bool,
    /// One line for each thing that a run has not finished.
    pub unfinished: Vec<String>,
    /// The run in progress; `null` if there is none.
    pub run: Option<ActiveRun>,
    /// The sessions, parents before children.
    pub sessions: Vec<SessionStatus>,
    /// Result of `--repair`; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repairs>,
}

/// A run in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRun {
    /// The process, the command and its start, as ``by pid 12 (`apply`) since 2026-11-28T02:00:00Z``.
    pub holder: String,
    /// Phase that the run is in, by its name in events; `null` before the first.
    pub phase: Option<String>,
    /// Start of the phase, in UTC as RFC 3339; `null` before the first.
    pub phase_since: Option<String>,
}

/// Result of `status --repair`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repairs {
    /// Damage that was repaired.
    pub repaired: Vec<SessionFinding>,
    /// Damage that only `seedbed apply` repairs.
    pub left: Vec<SessionFinding>,
    /// Repairs that failed.
    pub failures: Vec<Failure>,
}

/// One session of [`SwarmStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Id of the session, `SWARM/PATH`.
    pub id: String,
    /// Id of the parent, for a child that a program has provisioned; `null` for a session of the manifest.
    pub child_of: Option<String>,
    /// Number of the session in the swarm, from 0.
    pub index: u32,
    /// Number among the replicas of the session's table, from 0; `null` if the table has no `count`.
    pub replica: Option<u32>,
    /// `true` if `seedbed spawn` added the session beside the manifest; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spawned: bool,
    /// Directory that the session works in, absolute.
    pub working_directory: PathBuf,
    /// Discovery file of the session, absolute.
    pub discovery_file: PathBuf,
    /// Differences from the session as it was applied, one line each; empty if there is none.
    pub drift: Vec<String>,
    /// State of the work in the session.
    pub work: Work,
    /// Unsaved work, for which a release is refused, one line each.
    pub unsaved: Vec<String>,
    /// Number of files and directories that Git ignores.
    pub ignored: usize,
    /// Files that a release removes and that are no reason to refuse it, such as ignored ones, one line for each group.
    pub also_removed: Vec<String>,
    /// Copies of files of the workspace that have changed there since, one line each; `seedbed apply --refresh` copies them
    /// again.
    pub outdated: Vec<String>,
    /// Worktree of the session, the first of several; `null` if it has none.
    pub worktree: Option<WorktreeStatus>,
    /// Worktrees of the session after the first; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_worktrees: Vec<WorktreeStatus>,
    /// Named ports of the session, or the primary port if none has a name.
    pub ports: Vec<PortStatus>,
    /// Ports of the session's blocks on which a process listens, without the shares of its children.
    pub listening: Vec<u16>,
    /// Further resources of the session, such as a directory, as their kinds describe them, by name; absent if there are
    /// none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, String>,
    /// Variables of the session's environment and their values.
    pub environment: BTreeMap<String, String>,
    /// Expiry of the session; `null` if it never expires.
    #[serde(default)]
    pub expiry: Option<ExpiryStatus>,
    /// Disk space of the session, for `--sizes`; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<DiskUsage>,
    /// The last command that `start` or `exec` ran in the session; `null` if there was none.
    #[serde(default)]
    pub last_run: Option<SessionRun>,
}

/// Expiry of a session, which only marks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpiryStatus {
    /// Time from the creation of the session to its expiry, `expires` of the manifest.
    pub after: Lifetime,
    /// Time of the expiry, in UTC as RFC 3339; `null` if it is unknown when the session was created.
    pub at: Option<String>,
    /// `true` if the session has expired.
    pub expired: bool,
}

/// State of the work in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// It has none.
    Clean,
    /// It has some, or it is unknown whether it has.
    Unsaved,
    /// Its directory does not exist.
    Unknown,
}

/// Worktree of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorktreeStatus {
    /// Name of the resource.
    pub name: String,
    /// Name of the repository in the manifest; absent for the workspace's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The worktree, absolute; the session works in a directory below if it is sparse.
    pub path: PathBuf,
    /// Ref that the worktree was made from.
    pub base_ref: String,
    /// Commit that the worktree was made from.
    pub made_from: String,
    /// Commits of the worktree beside its base; `null` if they cannot be determined.
    pub progress: Option<Commits>,
    /// Reason why `progress` is `null`; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Commits of a worktree beside its base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Commits {
    /// Branch that is checked out; `null` for a detached HEAD.
    pub branch: Option<String>,
    /// Commit that is checked out.
    pub head: String,
    /// Commit that the base ref names now.
    pub base: String,
    /// Number of commits that `head` has and `base` has not.
    pub ahead: u64,
    /// Number of commits that `base` has and `head` has not.
    pub behind: u64,
    /// First line of the message of `head`.
    pub subject: String,
    /// Time of the commit `head`, in UTC as RFC 3339.
    pub committed: String,
}

/// A port that has a name, or is the primary one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// Name of the port; `primary` if no port of the block has a name.
    pub name: String,
    /// The port.
    pub port: u16,
    /// `true` if a process listens on the port.
    pub listens: bool,
}
