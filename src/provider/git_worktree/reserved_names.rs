//! Names seedbed's files in a repository and beside worktrees.

use std::path::{Path, PathBuf};

use super::{Options, Worktree};
use crate::provider::leftover::{ASIDE, TRASH};
use crate::provider::{Examination, Leftover, OwnershipMarker, Task};

/// Beginning of the name of the directory of a rescue, before the ownership marker.
const RESCUE: &str = ".rescue-";

/// File of seedbed in the admin directory that repeats the content of `locked`. It is needed when a user unlocks the
/// worktree, or a crash tears `locked`. Git ignores names that it does not know, and removes them with the admin
/// directory.
pub(super) const MARK: &str = "seedbed";

/// Directory in a worktree that contains the worktrees of nested children.
pub(super) const NESTED: &str = ".ai_ops/child-worktrees";

/// Returns the directory in which the reference implementation keeps the worktrees of a session's children.
pub(super) fn nested_root(parent: &Path, scoped_parent: &str) -> PathBuf {
    parent.join(NESTED).join(scoped_parent)
}

/// Returns the line that marks an admin directory as a session's: the reason of its lock.
pub(super) fn mark(task: &Task<'_>) -> String {
    OwnershipMarker::line(task)
}

/// Returns the first message of the reflog of a branch that the swarm made. A branch without this message is never
/// removed.
pub(super) fn branch_message(task: &Task<'_>) -> String {
    mark(task)
}

/// Returns the message of the entry in the reflog of a branch that has landed and is moved forward. It is no ownership
/// marker: another run may have made the branch.
pub(super) fn moved_branch_message(task: &Task<'_>) -> String {
    format!("{} moved forward", mark(task))
}

/// Returns the path of files that Git must not see yet, relative to the common git directory. They are on the same file
/// system, so that a rename is enough.
pub(super) fn building(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(MARK).join(format!("{}-{}", task.owner, worktree.admin_directory))
}

/// Returns the path of the admin directory of a worktree that is aside, relative to the common git directory.
pub(super) fn aside_admin_directory(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(MARK).join(format!("{}-{}.aside", task.owner, worktree.admin_directory))
}

/// Returns the name of the admin directory that stands in for one that is aside. Git accepts it as a part of a ref's name.
pub(super) fn stand_in_name(task: &Task<'_>, worktree: &Worktree) -> String {
    format!("{}{}", stand_in_head(task.owner), worktree.admin_directory)
}

fn stand_in_head(owner: &str) -> String {
    format!("seedbed-aside-{owner}-")
}

/// Returns the name of the admin directory for which one of this name stands in, or the name itself.
pub(crate) fn without_stand_in<'n>(owner: &str, name: &'n str) -> &'n str {
    name.strip_prefix(&stand_in_head(owner)).unwrap_or(name)
}

/// Returns the path of that admin directory, relative to the common git directory.
pub(super) fn stand_in(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new("worktrees").join(stand_in_name(task, worktree))
}

/// Returns the path of that admin directory while it is built.
pub(super) fn stand_in_building(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(MARK).join(format!("{}-{}.stand-in", task.owner, worktree.admin_directory))
}

/// Returns the path of that admin directory while it is removed.
pub(super) fn stand_in_trash(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(MARK).join(format!("{}-{}.stand-in-trash", task.owner, worktree.admin_directory))
}

/// Returns the name of a worktree that is aside, in the directory around the worktree.
pub(super) fn aside_name(task: &Task<'_>, worktree: &Worktree) -> String {
    format!("{ASIDE}{}-{}", task.owner, worktree.admin_directory)
}

/// Returns the name of a worktree that is being removed, in the directory around the worktree.
pub(super) fn trash(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    PathBuf::from(format!("{TRASH}{}-{}", task.owner, worktree.admin_directory))
}

/// Returns the name of the directory of a rescue, in the directory around the worktree.
pub(super) fn scratch(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    PathBuf::from(format!("{RESCUE}{}-{}", task.owner, worktree.admin_directory))
}

/// Returns the leftovers of killed runs beside the planned worktrees, or in the default root directory, and in the
/// repository.
pub(super) fn leftovers(scope: &Examination<'_>) -> Vec<Leftover> {
    let planned = scope
        .allocations
        .iter()
        .filter_map(|allocation| Some(Worktree::from_allocation(allocation)?.worktree_root));
    let default = Options::default().root_directory;
    let mut leftovers = Leftover::in_roots(scope, planned, default, &[TRASH, RESCUE, ASIDE]);
    let others = scope.other_common_dirs.iter().map(PathBuf::as_path);
    let building = scope.common_dir.into_iter().chain(others).map(|common| common.join(MARK));
    let building: Vec<PathBuf> = building.collect();
    leftovers.extend(building.iter().flat_map(|building| Leftover::beside(building, &[""])));
    leftovers
}
