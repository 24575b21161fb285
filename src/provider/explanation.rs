//! Defines the facts from which a kind explains one of its allocations, and its answers.

use std::path::{Path, PathBuf};

use super::Allocation;
use crate::name::SessionPath;

/// An allocation, and the facts of its session that decide it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PlannedAllocation<'a> {
    /// The allocation itself.
    pub allocation: &'a Allocation,
    /// Id of the session.
    pub session: &'a str,
    /// Scoped name of the session.
    pub scoped_name: &'a str,
    /// Directory in which the session works, relative to the workspace root.
    pub working_directory: &'a Path,
    /// `true` if the session has children.
    pub has_children: bool,
    /// Parent of the session, with its allocation of the same kind; `None` if there is none.
    pub parent: Option<(&'a SessionPath, &'a Allocation)>,
}

impl<'a> PlannedAllocation<'a> {
    /// Creates the facts about an allocation of a session without children and without a parent.
    pub fn new(
        allocation: &'a Allocation,
        session: &'a str,
        scoped_name: &'a str,
        working_directory: &'a Path,
    ) -> Self {
        Self { allocation, session, scoped_name, working_directory, has_children: false, parent: None }
    }
}

/// A file or directory that belongs to an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedPath {
    /// Path, relative to the workspace root.
    pub path: PathBuf,
    /// Role of the path in the session, such as `worktree`.
    pub role: &'static str,
    /// Reasons for the path, one line each.
    pub rules: Vec<String>,
}

impl OwnedPath {
    /// Creates a path with its role and the reasons for it.
    pub fn new(path: PathBuf, role: &'static str, rules: Vec<String>) -> Self {
        Self { path, role, rules }
    }
}

/// Range of ports from which blocks of equal size are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockRange {
    /// First port of the range.
    pub base: u32,
    /// Number of ports in a block.
    pub size: u32,
    /// Number of blocks.
    pub count: u32,
}

impl BlockRange {
    /// Creates a range of `count` blocks of `size` ports, from the port `base` on.
    pub fn new(base: u32, size: u32, count: u32) -> Self {
        Self { base, size, count }
    }
}

/// Directory in which a kind creates the resources of many sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct RootDirectory {
    /// Role of the directory, such as `the directory of worktrees`.
    pub role: &'static str,
    /// Path, relative to the workspace root.
    pub path: PathBuf,
}

impl RootDirectory {
    /// Creates a root directory with its role.
    pub fn new(role: &'static str, path: PathBuf) -> Self {
        Self { role, path }
    }
}
