//! Finds problems of a host, a repository and a plan, each with its remedy.
//!
//! The examination changes nothing. Only [`reap`] removes something, and only leases that provably have no owner, and
//! seeds that no session needs.

mod leftovers;
mod host;
mod repository;
mod seeds;
mod disk_space;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use leftovers::{Error, Reaped, reap};

use crate::host::{Host, absolute};
use crate::plan::Plan;
use crate::provider::Examination;

/// Limit of time for listing all files of one commit: a million files take two seconds. A few trees that contain each
/// other have any number of files.
const PATIENCE: Duration = Duration::from_secs(10);

/// Host, directory and plan to be examined.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Case<'a> {
    /// The host.
    pub host: &'a Host,
    /// Absolute path of the directory, without links; it need not be in a repository.
    pub workspace: &'a Path,
    /// Plan of the manifest, or the reason, one line, for which it cannot be planned; `None` if there is no manifest.
    pub plan: Option<Result<&'a Plan, &'a str>>,
}

impl<'a> Case<'a> {
    /// Returns the case of a directory without a manifest.
    pub fn new(host: &'a Host, workspace: &'a Path) -> Self {
        Self { host, workspace, plan: None }
    }

    /// Returns the facts by which a kind finds its own problems.
    fn examination(&self, common_dir: Option<&'a Path>) -> Examination<'a> {
        let plan = self.plan.and_then(Result::ok);
        let sessions = plan.iter().flat_map(|plan| plan.sessions.iter().zip(&plan.changes));
        let new = sessions.clone().flat_map(|(session, change)| {
            session
                .allocations
                .iter()
                .filter(|allocation| change.provision.iter().any(|name| name == allocation.name()))
        });
        Examination {
            host: self.host,
            workspace: self.workspace,
            common_dir,
            other_common_dirs: plan
                .iter()
                .flat_map(|plan| plan.repositories())
                .map(|repository| absolute(self.workspace, &repository.common_directory))
                .collect(),
            new: new.collect(),
            allocations: sessions.flat_map(|(session, _)| &session.allocations).collect(),
            is_planned: plan.is_some(),
        }
    }

    /// Adds the plan of the manifest, or the reason for which it cannot be planned.
    #[must_use]
    pub fn with_plan(self, plan: Result<&'a Plan, &'a str>) -> Self {
        Self { plan: Some(plan), ..self }
    }
}

/// A problem that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Finding {
    /// Severity of the problem.
    pub severity: Severity,
    /// Type of the problem; stays the same in all versions.
    pub id: Id,
    /// Description, one line.
    pub description: String,
    /// Remedy, one line.
    pub remedy: String,
}

/// Severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Severity {
    /// A step will fail.
    Fails,
    /// A step may fail, or cost work, time or space.
    Warns,
    /// There is no problem, only useful information.
    Notes,
}

impl Severity {
    /// Returns the name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fails => "fails",
            Self::Warns => "warns",
            Self::Notes => "notes",
        }
    }
}

/// Type of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Id {
    /// Git is not installed.
    GitMissing,
    /// Git is older than required.
    GitOld,
    /// There is no usable repository.
    NoRepository,
    /// The manifest cannot be planned.
    ManifestInvalid,
    /// Blocks of ports are in the range that the kernel uses for outgoing connections.
    PortsEphemeral,
    /// Leases of ports cannot be published to other users of the host.
    PortsUnshared,
    /// The new resources do not fit on the disk, or only just.
    DiskSpace,
    /// The file system has too few inodes for the new resources, or only just enough.
    Inodes,
    /// A directory is on a network file system.
    NetworkFileSystem,
    /// The state directory cannot be used, or other users can write to it.
    StateDirectory,
    /// The limit of open files is low for the number of parallel steps.
    OpenFiles,
    /// A filter of the repository cannot run.
    FilterMissing,
    /// A filter that the repository's attributes name is not configured.
    FilterUnconfigured,
    /// The repository has submodules.
    Submodules,
    /// `core.hooksPath` names a directory that does not exist.
    HooksPath,
    /// Git has to register the worktrees, one after another.
    RegistrationByGit,
    /// The commit has files at paths that seedbed uses.
    CommittedDiscovery,
    /// An admin directory under `worktrees` is torn.
    TornAdminDirectory,
    /// A file in the Git directory leads Git to the settings and hooks of another directory.
    RedirectedRepository,
    /// A run was interrupted.
    InterruptedRun,
    /// A resource may remain of a run that was given up.
    GivenUp,
    /// A record of the state directory cannot be read.
    UnreadableRecord,
    /// The workspace of a swarm no longer exists.
    WorkspaceMissing,
    /// The workspace was moved with a swarm.
    MovedWorkspace,
    /// The workspace is a copy of another with its swarm.
    CopiedWorkspace,
    /// A lease of ports has no owner.
    LeakedLease,
    /// A lock file of ports has no owner, or does not name one.
    LockFile,
    /// An ended run left a temporary file or directory.
    Leftover,
    /// A worktree belongs to no session that has a record here.
    UnknownWorktree,
    /// A repository of an applied swarm cannot be used.
    UnusableRepository,
    /// A seed of this host: its size and age.
    Seed,
}

/// Returns all problems, the most severe first.
pub fn inspect(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Findings::default();
    host::inspect(case, &mut findings);
    let common_dir = repository::inspect(case, &mut findings);
    let examination = case.examination(common_dir.as_deref());
    repository::inspect_others(case, &mut findings);
    disk_space::inspect(&examination, &mut findings);
    leftovers::inspect(case, &examination, &mut findings);
    seeds::inspect(case, &mut findings);
    let mut findings = findings.0;
    findings.sort();
    findings.dedup();
    findings
}

/// Problems found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, id: Id, description: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { severity, id, description: description.into(), remedy: remedy.into() });
    }
}
