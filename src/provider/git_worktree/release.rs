//! Removes a worktree and everything that was created with it.
//!
//! Works on files and not through Git, which fails on a torn admin directory. Files on which Git could fail are renamed
//! out of its sight before they are deleted. So no reader ever sees half of them, and a killed release is simply
//! repeated.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::ownership;
use super::paths::{Content, WorktreePaths, common_of, io, read, remove_out_of_sight};
use super::repository::Lock;
use super::{Worktree, aside, branch, gc_roots, landed, overlay, repository, reserved_names, sparse};
use crate::host::failpoint::crashpoint;
use crate::host::git::Git;
use crate::provider::{Error, Location, Task};

/// Checks that Git can read the repository, which is needed to remove branches, and that this user can write to it.
pub(super) fn check_ready(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let common = common_of(task.workspace, worktree)?;
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, common.path(), access, AtFlags::EACCESS)
        .map_err(|error| io("write to", common.path())(error.into()))?;
    Ok(Git::open(task.host, common.path(), None).check()?)
}

/// Removes every existing part of the worktree. A missing part is no error. A part that belongs to another owner is
/// [`Error::Refused`], and then nothing is changed.
pub(super) fn release(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    ownership::of_admin_directory_if_not_others(task, &paths)?;
    overlay::unmount(worktree, &paths)?;
    remove_directory(task, worktree, &paths)?;
    crashpoint!("release.directory-gone");
    remove_entry(task, worktree, &paths)?;
    overlay::remove(task, worktree)?;
    crashpoint!("release.admin-gone");
    // The branch of a worktree that is aside has given way. A branch of that name belongs to the new worktree. Only a
    // rollback releases a worktree at home.
    if let Some(branch) = worktree.branch.as_ref().filter(|_| task.location == Location::Home) {
        remove_branch(task, worktree, &paths, branch)?;
    }
    crashpoint!("release.branch-gone");
    if sparse::is_wanted(task, worktree) {
        sparse::disable(task, &paths, &Lock::take(task.host, &paths)?)?;
    }
    crashpoint!("release.sparse-gone");
    paths.base.remove_hidden(&paths.around)?;
    if task.location == Location::Aside {
        aside::forget(&paths)?;
        gc_roots::remove(task, worktree, &paths.common)?;
        // The worktree of a nested child was in a directory of its own, in its parent's worktree.
        let home = WorktreePaths::at(Location::Home, task, worktree)?;
        home.base.remove_hidden(&home.around)?;
    }
    crashpoint!("release.unhidden");
    paths.common.remove_directory(Path::new(reserved_names::MARK))?;
    // Git also removes the directory with the last worktree.
    paths.common.remove_directory(Path::new("worktrees"))?;
    Ok(())
}

/// Returns the directories that may contain leftovers: those above the worktree, its admin directory, the repository,
/// and its records on this host.
pub(super) fn temporary_file_directories(
    task: &Task<'_>,
    worktree: &Worktree,
) -> Result<Vec<PathBuf>, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let mut temporary_file_directories: Vec<_> =
        paths.parent.ancestors().map(|above| paths.base.path().join(above)).collect();
    let entries = ["worktrees", reserved_names::MARK].map(|name| paths.common.path().join(name));
    temporary_file_directories.extend(entries);
    temporary_file_directories
        .push(WorktreePaths::at(Location::Aside, task, worktree)?.admin_directory_path());
    // The reflog of a branch that gave way is written back.
    let log = worktree.branch.as_ref().map(|branch| paths.common.path().join("logs/refs/heads").join(branch));
    temporary_file_directories.extend(log.and_then(|log| log.parent().map(Path::to_path_buf)));
    // A rebinding writes the `.git` file of a worktree again, and that in the layer of an overlay.
    temporary_file_directories.push(paths.worktree.clone());
    temporary_file_directories.extend(overlay::upper(task, worktree));
    temporary_file_directories.extend([
        paths.admin_directory_path(),
        paths.admin_directory_path().join("info"),
        paths.common.path().to_owned(),
        repository::records(task.host),
    ]);
    Ok(temporary_file_directories)
}

fn remove_directory(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    let Some(around) = paths.base.directory(&paths.around)? else { return Ok(()) };
    around.remove_all(&reserved_names::scratch(task, worktree))?;
    let below = paths.parent.strip_prefix(&paths.around).unwrap_or(Path::new("")).join(&paths.name);
    let trash = reserved_names::trash(task, worktree);
    remove_out_of_sight(&around, &below, &trash)?;
    // `git worktree add` may have been killed.
    match paths.staging() {
        Some(staging) if task.location == Location::Home && is_staged(paths, &staging)? => {
            remove_out_of_sight(&around, Path::new(staging.file_name().unwrap_or_default()), &trash)
        }
        _ => Ok(()),
    }
}

/// Returns whether a directory is a worktree of this admin directory, or empty, as `git worktree add` creates it.
fn is_staged(paths: &WorktreePaths, staging: &Path) -> Result<bool, Error> {
    let Some(directory) = paths.base.directory(staging)? else { return Ok(false) };
    Ok(match read(&directory, Path::new(".git"))? {
        Content::Bytes(bytes) => paths.is_dot_git(&bytes),
        Content::Missing | Content::Empty => directory.names()?.iter().all(|name| name == ".git"),
        Content::Irregular => false,
    })
}

fn remove_entry(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    remove_out_of_sight(&paths.common, &paths.admin_directory, &reserved_names::building(task, worktree))
}

/// Removes the branch if we made it, it is still at the same commit, no worktree has it checked out, and it is not the last
/// ref that reaches the commit. A branch that
/// had landed before is moved back. Any other is kept.
fn remove_branch(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    name: &str,
) -> Result<(), Error> {
    let name = format!("refs/heads/{name}");
    if let Some(from) = worktree.moved_from() {
        landed::move_back(task, worktree, paths, &name, from)?;
    }
    let Some(tip) = branch::tip_as_made(task, worktree, paths, &name)? else { return Ok(()) };
    if branch::is_checked_out(paths, &name)? {
        return Ok(());
    }
    branch::delete(task, worktree, paths, &name, &tip)
}
