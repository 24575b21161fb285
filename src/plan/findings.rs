//! Facts about sessions in a plan, beside their allocations: unsaved work, processes at work, newer commits of the base.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::occupants::Use;
use crate::host::text::printable_command;
use crate::name::SessionPath;

/// Worktree whose base has commits that it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Behind {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Name of the worktree among the resources of the session.
    pub resource: String,
    /// Base ref of the worktree.
    pub base_ref: String,
    /// Commit that the base ref names.
    pub base: String,
    /// Number of commits that `base` has and the worktree's HEAD does not.
    pub commits: u64,
}

impl Behind {
    /// Creates the entry of a worktree that lacks `commits` commits of `base`, which `base_ref` names.
    pub fn new(session: SessionPath, resource: String, base_ref: String, base: String, commits: u64) -> Self {
        Self { session, resource, base_ref, base, commits }
    }
}

/// Process that uses allocations that a release would remove: a directory that it works in, a port that it listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Occupant {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Number of the process; `null` for a socket whose process cannot be found, such as another user's.
    pub pid: Option<u32>,
    /// Program and arguments, with blanks between them; empty if `pid` is `null`.
    pub command: String,
    /// Uses of the session, at least one; of many files, only the first few are listed.
    pub uses: Vec<Use>,
    /// Part that the process plays in the release.
    pub role: Role,
}

/// Part that a process plays in the release of a session that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// The release is refused while the process uses the session.
    Refuses,
    /// The process requests the release, or is an ancestor of the process that does. It is never ended; the command
    /// line requires `--yes`.
    Caller,
    /// The process is a caller in a directory that is a mount, which cannot be unmounted in use: the release is
    /// refused.
    PinningCaller,
    /// The session's `setup` left the process running, and its `teardown` is expected to end it. If the process still
    /// runs after the teardown, the release is refused.
    LeftByCommand,
}

impl Occupant {
    /// Returns whether the release of the session is refused because of this process.
    pub fn is_refusal(&self) -> bool {
        matches!(self.role, Role::Refuses | Role::PinningCaller)
    }

    /// Returns whether the process can be ended: it is no caller, and its number is known.
    pub fn is_stoppable(&self) -> bool {
        self.role == Role::Refuses && self.pid.is_some()
    }

    /// Returns the process and its uses on one line; paths are not escaped.
    pub fn described(&self) -> String {
        let uses: Vec<_> = self.uses.iter().map(Use::described).collect();
        let uses = uses.join(", ");
        let Some(pid) = self.pid else { return format!("a process that cannot be inspected {uses}") };
        let note = match self.role {
            Role::Refuses => "",
            Role::Caller => " (seedbed was called from it)",
            Role::PinningCaller => {
                " (seedbed was called from it; an overlay is not unmounted under it: leave it first)"
            }
            Role::LeftByCommand => " (left running by setup, for teardown to end)",
        };
        format!("pid {pid} (`{}`) {uses}{note}", printable_command(&self.command))
    }
}

/// One fact about a session, such as unsaved work that a release would lose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionFinding {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Name of the resource that the fact is about; absent if it is about no single resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Description of the fact, one line.
    pub description: String,
    /// Kind of the finding; absent for a known fact.
    #[serde(default, skip_serializing_if = "FindingKind::is_known")]
    pub kind: FindingKind,
}

/// Kind of a [`SessionFinding`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum FindingKind {
    /// The fact is known.
    #[default]
    Known,
    /// It is unknown whether there is unsaved work, because a dependency of the inspection does not respond.
    Unknown,
    /// The resource cannot be released for this reason, even if work is discarded.
    Obstacle,
}

impl FindingKind {
    /// Returns whether the fact is known.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_known(&self) -> bool {
        *self == Self::Known
    }
}

impl SessionFinding {
    /// Creates the finding of a known fact, described in one line.
    pub fn new(session: SessionPath, description: String) -> Self {
        Self { session, resource: None, description, kind: FindingKind::Known }
    }

    /// Returns whether the session's unsaved work is unknown.
    pub fn is_unknown(&self) -> bool {
        self.kind == FindingKind::Unknown
    }
}
