//! Document of `collect --json`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SCHEMA_VERSION;
use crate::collect::brought::Received;
use crate::collect::{Conflict, Exported, Outcome, Overlap};
use crate::state::SessionRun;

/// Document of `collect --json` and `fleet collect --json`: the results of a swarm's worktrees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:collected:1"))]
pub struct CollectedSwarm {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the swarm.
    pub swarm: String,
    /// The workspace root, absolute.
    pub workspace: PathBuf,
    /// Worktrees of the sessions, parents before children.
    pub worktrees: Vec<CollectedWorktree>,
    /// Paths that were changed in several worktrees, in order, one repository after the other.
    pub overlaps: Vec<Overlap>,
    /// Pairs of worktrees of one repository that do not merge without conflict.
    pub conflicts: Vec<Conflict>,
    /// The reason why conflicts are unknown, one line; `null` if they are known.
    pub conflicts_unknown: Option<String>,
    /// Commands for a shell in the workspace that merge the work, in an order with few conflicts, one repository after the
    /// other.
    pub merge_commands: Vec<String>,
    /// Hosts whose results are missing, for `fleet collect`; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_hosts: Vec<MissingHost>,
}

/// Host of a fleet whose results are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingHost {
    /// Name of the host.
    pub host: String,
    /// Reason.
    pub error: String,
}

/// One worktree of [`CollectedSwarm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectedWorktree {
    /// Id of the session, `SWARM/PATH`.
    pub id: String,
    /// Commits and changes.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Work that no commit has, one line each. Work of the session outside its worktrees is listed with its first
    /// worktree.
    pub unsaved: Vec<String>,
    /// Reasons for which it is unknown whether there is such work, one line each.
    #[serde(default)]
    pub unsaved_unknown: Vec<String>,
    /// The last command that `start` or `exec` ran in the session; `null` if there was none.
    #[serde(default)]
    pub last_run: Option<SessionRun>,
    /// Files that `-o` wrote; absent without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported: Option<Exported>,
    /// Host and ref of the commit, for `fleet collect`; absent otherwise, and if the commit is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Received>,
}
