//! Names of what seedbed keeps in a repository and beside worktrees.

use std::path::{Path, PathBuf};

use super::Worktree;
use crate::provider::Task;

/// A file of ours in the entry that repeats what `locked` says, for the day on which somebody unlocks the worktree or
/// a crash tears the file. git passes over names that it does not know, and removes them with the entry.
pub(super) const MARK: &str = "seedbed";

/// The directory in a worktree that the worktrees of nested children lie in.
pub(super) const NESTED: &str = ".ai_ops/child-worktrees";

/// Where the seed keeps the worktrees of a session's children.
pub(crate) fn nested_root(parent: &Path, scoped_parent: &str) -> PathBuf {
    parent.join(NESTED).join(scoped_parent)
}

/// The line that marks an entry as a session's: the reason of its lock. Three words, whatever the id: git folds white
/// space, and only the last one is what a thing is recognised by.
pub(super) fn mark(task: &Task<'_>) -> String {
    let session: String = task.session.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
    format!("seedbed {session} {}", task.owner)
}

/// The message that a branch's reflog begins with where the swarm made the branch, and without which it is never removed.
pub(super) fn branch_message(task: &Task<'_>) -> String {
    mark(task)
}

/// Where our things lie while git must not see them, relative to the common git directory: on the same file system, so
/// that a rename is enough.
pub(super) fn building(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(MARK).join(format!("{}-{}", task.owner, worktree.entry))
}

/// Path of the admin directory of a worktree that is aside, relative to the common git directory.
pub(super) fn aside_entry(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    Path::new(MARK).join(format!("{}-{}.aside", task.owner, worktree.entry))
}

/// Name of a worktree that is aside, in the directory that the worktree lies in.
pub(super) fn aside_name(task: &Task<'_>, worktree: &Worktree) -> String {
    format!(".aside-{}-{}", task.owner, worktree.entry)
}

/// Name of a worktree that is being removed, in the directory that the worktree lies in.
pub(super) fn trash(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    PathBuf::from(format!(".trash-{}-{}", task.owner, worktree.entry))
}

/// Name of the directory of a rescue, in the directory that the worktree lies in.
pub(super) fn scratch(task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    PathBuf::from(format!(".rescue-{}-{}", task.owner, worktree.entry))
}
