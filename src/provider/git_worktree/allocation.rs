//! Allocation of a `git-worktree`: the worktree that a plan has.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Checkout, SeedOptions};
use crate::manifest::CommandLine;
use crate::observe::WORKSPACE_REPOSITORY;
use crate::observe::untracked::Pattern;
use crate::provider::Allocation;

/// A planned worktree. Paths are relative to the workspace root. The first five fields are those of the reference
/// implementation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Worktree {
    /// Name of the repository in the manifest; `None` for the workspace's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Top of the repository's work tree; `.` if that is the workspace.
    pub repo_root: PathBuf,
    /// Directory that contains the worktree.
    pub worktree_root: PathBuf,
    /// Path of the worktree.
    pub worktree_path: PathBuf,
    /// Ref as the manifest names it.
    pub base_ref: String,
    /// The one directory that is checked out (sparse, cone mode); `None` for the whole tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_path: Option<String>,
    /// Commit to check out: the one that `base_ref` named at plan time, or the tip of an existing branch.
    pub commit: String,
    /// Branch to create at `commit`, or to continue on, without `refs/heads/`; `None` for a detached HEAD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// State of an existing branch relative to its base; `None` if the branch is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<Existing>,
    /// Name of the admin directory under `worktrees` in the common git directory.
    pub admin_directory: String,
    /// Common Git directory of the repository.
    pub common_directory: PathBuf,
    /// Method of checking out the files.
    pub checkout: Checkout,
    /// Method of registration.
    pub registration: Registration,
    /// Globs of untracked files that are copied from the workspace; `@worktreeinclude` stands for `worktree_include`.
    pub copy: Vec<String>,
    /// Patterns of ignored files that are copied, those of `.worktreeinclude` at plan time; empty if `copy` has no
    /// `@worktreeinclude`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worktree_include: Vec<String>,
    /// Globs of untracked files that are linked to those of the workspace.
    pub link: Vec<String>,
    /// Seeded directories, in the order in which their commands run; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<PlannedSeed>,
    /// `true` if the repository's hooks run.
    pub git_hooks: bool,
    /// `true` if the worktree's `.git` file names the admin directory by a relative path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relative: bool,
}

/// Planned directory of a worktree that is seeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct PlannedSeed {
    /// Path of the directory, relative to the working directory.
    pub path: String,
    /// Files of the commit that decide the content.
    pub key: Vec<String>,
    /// Command that populates the directory.
    pub command: CommandLine,
    /// Directory in which the command runs; `None` for the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Digest of everything that decides the content, as hexadecimal SHA-256: worktrees with equal digests get equal
    /// directories. `None` if the worktree existed before the seed was planned, and so has no copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A branch that exists and is reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Existing {
    /// Commit that `base_ref` named at plan time, and that the branch contains, or is moved to.
    pub base: String,
    /// Number of commits that the branch has beyond `base`.
    pub ahead: usize,
    /// Commit that the branch named at plan time, if `base` contains it and the branch is moved forward to `base`; `None`
    /// if the branch contains `base`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
}

/// Method of registering a worktree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Registration {
    /// The admin directory is built aside and renamed into place: atomic, without a lock.
    Rename,
    /// `git worktree add` under the repository's lock, with bounded retries, if an admin directory is more than files.
    Git,
}

impl Worktree {
    /// Returns whether the worktree is one of several of its session. The name of its admin directory then has the name
    /// of the resource, after a dot; a scoped name has none.
    pub(crate) fn is_one_of_several(&self) -> bool {
        self.admin_directory.contains('.')
    }

    /// Returns the directory of the session that contains the worktree beside others of the session; `None` if the
    /// worktree lies in its root directory, or in the worktree of a parent.
    pub fn session_directory(&self) -> Option<&Path> {
        self.worktree_path.parent().filter(|parent| *parent != self.worktree_root)
    }

    /// Returns whether a path, relative to the top of the worktree, is a seeded directory or in one.
    pub(super) fn is_seeded(&self, path: &Path) -> bool {
        self.seeded().any(|directory| path.starts_with(directory))
    }

    /// Returns the seeded directories, relative to the top of the worktree.
    pub(super) fn seeded(&self) -> impl Iterator<Item = PathBuf> {
        let brought = self.seeds.iter().filter(|seed| seed.digest.is_some());
        brought.map(|seed| self.in_working_directory(&seed.path))
    }

    /// Returns a path in the working directory of the session relative to the top of the worktree.
    pub(super) fn in_working_directory(&self, path: &str) -> PathBuf {
        Path::new(self.target_path.as_deref().unwrap_or_default()).join(path)
    }

    /// Returns the commit that the base ref named at plan time.
    pub fn base(&self) -> &str {
        self.existing.as_ref().map_or(&self.commit, |existing| &existing.base)
    }

    /// Returns the name of the repository in observations; that of the workspace's own is empty.
    pub fn repository_name(&self) -> &str {
        self.repository.as_deref().unwrap_or(WORKSPACE_REPOSITORY)
    }

    /// Returns the patterns of the files to copy.
    pub(super) fn copied(&self) -> Vec<Pattern> {
        Pattern::list(&self.copy, &self.worktree_include)
    }

    /// Returns the patterns of the files to link.
    pub(super) fn linked(&self) -> Vec<Pattern> {
        self.link.iter().cloned().map(Pattern::Glob).collect()
    }

    /// Returns the commit from which an existing branch is moved forward; `None` if no branch is moved.
    pub(crate) fn moved_from(&self) -> Option<&str> {
        self.existing.as_ref()?.moved_from.as_deref()
    }

    /// Reads an allocation of this kind; `None` if planning did not make the allocation.
    pub fn from_allocation(allocation: &Allocation) -> Option<Self> {
        Self::deserialize(&allocation.allocation).ok()
    }
}

impl PlannedSeed {
    pub(super) fn new(options: &SeedOptions, digest: Option<String>) -> Self {
        let SeedOptions { path, key, command, directory } = options.clone();
        Self { path, key, command, directory, digest }
    }

    /// Returns whether these options request the seed.
    pub(super) fn is_requested(&self, options: &SeedOptions) -> bool {
        *self == Self::new(options, self.digest.clone())
    }

    /// Returns the program and its arguments.
    pub(super) fn words(&self) -> Vec<String> {
        match &self.command {
            CommandLine::Arguments(words) => words.clone(),
            CommandLine::Shell(line) => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
        }
    }

    /// Returns the command as the manifest has it.
    pub(super) fn shown(&self) -> String {
        match &self.command {
            CommandLine::Arguments(words) => words.join(" "),
            CommandLine::Shell(line) => line.clone(),
        }
    }
}
