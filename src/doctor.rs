//! What of a host, a repository and a plan will bite, each with what to do about it. Looks, and touches nothing; only
//! [`reap`] takes something away, and only what provably belongs to nobody.

mod claims;
mod machine;
mod repository;
mod space;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use claims::{Error, Reaped, reap};

use crate::host::Host;
use crate::plan::Plan;

/// The time for looking through all files of one commit: a million files take two seconds. A few trees that name each other
/// hold any number.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is examined.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Case<'a> {
    /// The host.
    pub host: &'a Host,
    /// The directory in question, absolute and without links; it need not be in a repository.
    pub workspace: &'a Path,
    /// What the manifest comes to, or why it cannot be planned, one line; `None` where there is none.
    pub plan: Option<Result<&'a Plan, &'a str>>,
}

impl<'a> Case<'a> {
    /// Returns the case of a directory without a manifest.
    pub fn new(host: &'a Host, workspace: &'a Path) -> Self {
        Self { host, workspace, plan: None }
    }

    /// Adds the plan of the manifest, or why it cannot be planned.
    #[must_use]
    pub fn with_plan(self, plan: Result<&'a Plan, &'a str>) -> Self {
        Self { plan: Some(plan), ..self }
    }
}

/// Something that will bite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// How badly.
    pub severity: Severity,
    /// Which kind of thing it is; stays the same from version to version.
    pub id: Id,
    /// What was found, one line.
    pub what: String,
    /// What to do about it, one line.
    pub remedy: String,
}

/// How badly something bites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Severity {
    /// Something will fail.
    Fails,
    /// Something may fail, or cost work, time or space.
    Warns,
    /// Nothing is wrong, and it is as well to know.
    Notes,
}

impl Severity {
    /// Returns its name, as documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fails => "fails",
            Self::Warns => "warns",
            Self::Notes => "notes",
        }
    }
}

/// The kinds of things that are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Id {
    /// There is no git.
    GitMissing,
    /// git is older than what is used of it.
    GitOld,
    /// There is no repository that can be used.
    NoRepository,
    /// The manifest cannot be planned.
    ManifestFaulty,
    /// Blocks lie where the kernel takes ports for outgoing connections.
    PortsEphemeral,
    /// Leases of ports cannot be published to other users of the host.
    PortsUnshared,
    /// The worktrees do not fit on the disk, or hardly.
    DiskSpace,
    /// The file system has not enough inodes for the worktrees, or hardly.
    Inodes,
    /// Something lies on a network file system.
    NetworkFileSystem,
    /// The state directory cannot be used, or others can write to it.
    StateDirectory,
    /// The limit on open files is low for what is done at once.
    OpenFiles,
    /// A filter of the repository cannot run.
    FilterMissing,
    /// A filter that the repository's attributes name is not configured.
    FilterUnconfigured,
    /// The repository has submodules.
    Submodules,
    /// `core.hooksPath` leads nowhere.
    HooksPath,
    /// Worktrees have to be registered by git, one after another.
    RegistrationByGit,
    /// The commit has files where seedbed puts its own.
    CommittedDiscovery,
    /// An entry under `worktrees` is torn.
    TornEntry,
    /// A run was interrupted.
    InterruptedRun,
    /// A resource may remain of a run that was given up.
    GivenUp,
    /// A record of the state directory cannot be read.
    UnreadableRecord,
    /// A swarm's workspace is gone.
    WorkspaceGone,
    /// The workspace was moved with a swarm.
    MovedWorkspace,
    /// The workspace is a copy of another with its swarm.
    CopiedWorkspace,
    /// A lease of ports belongs to nobody.
    LeakedLease,
    /// A lock file of ports belongs to nobody, or does not say whose it is.
    LockFile,
    /// Something temporary was left by a run that is gone.
    Leftover,
    /// A worktree is of a swarm that has no record here.
    UnknownWorktree,
}

/// Everything that is found, the worst first.
pub fn examine(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Findings::default();
    machine::look(case, &mut findings);
    let common_dir = repository::look(case, &mut findings);
    if let Some(common_dir) = &common_dir {
        space::look(case, common_dir, &mut findings);
    }
    claims::look(case, common_dir.as_deref(), &mut findings);
    let mut findings = findings.0;
    findings.sort();
    findings.dedup();
    findings
}

/// The findings so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, id: Id, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { severity, id, what: what.into(), remedy: remedy.into() });
    }
}
