//! Defines the facts by which a kind finds its problems on a host, and the space that it needs.

use std::path::{Path, PathBuf};

use super::Allocation;
use crate::host::Host;

/// Host, repository and plan that are examined for problems.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examination<'a> {
    /// The host.
    pub host: &'a Host,
    /// Workspace root, absolute.
    pub workspace: &'a Path,
    /// Common git directory of the repository; `None` if there is none.
    pub common_dir: Option<&'a Path>,
    /// Common git directories of the other repositories that the plan names.
    pub other_common_dirs: Vec<PathBuf>,
    /// Allocations of the plan, of every kind.
    pub allocations: Vec<&'a Allocation>,
    /// Allocations that applying the plan provisions, of every kind.
    pub new: Vec<&'a Allocation>,
    /// `true` if there is a plan; without one, the default directories are searched.
    pub is_planned: bool,
}

/// Space that new resources need.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NeededSpace {
    /// Directory, absolute, which need not exist yet.
    pub directory: PathBuf,
    /// Size, in bytes; at most this much is written.
    pub bytes: u64,
    /// Number of files and directories.
    pub inodes: u64,
    /// Option that reduces the space, such as `have less checked out with target-path`.
    pub remedy: &'static str,
}

impl NeededSpace {
    /// Creates the space of resources in `directory`. `remedy` names the option that reduces it.
    pub fn new(directory: PathBuf, bytes: u64, inodes: u64, remedy: &'static str) -> Self {
        Self { directory, bytes, inodes, remedy }
    }
}

/// New resources whose space takes too long to count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uncounted {
    /// Description of the problem, one line.
    pub description: String,
    /// Remedy, one line.
    pub remedy: &'static str,
}

impl Uncounted {
    /// Creates the description of resources whose space takes too long to count.
    pub fn new(description: String, remedy: &'static str) -> Self {
        Self { description, remedy }
    }
}
