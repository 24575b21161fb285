//! Moves a worktree aside while its session gets another one, and back if that fails.
//!
//! Aside, the directory lies beside its old location under a hidden name, and the admin directory at a path that Git
//! does not list, with a stand-in that Git lists (`gc_roots`). Both keep every byte. Only `HEAD` changes: it is detached when the branch gives way, and attached
//! again on the way back.

use std::path::{Path, PathBuf};

use super::paths::{Content, WorktreePaths, move_directory, move_worktree, read};
use super::repository::Lock;
use super::{Worktree, branch, gc_roots, overlay, ownership, reserved_names, sparse};
use crate::host::failpoint::crashpoint;
use crate::host::git::Git;
use crate::provider::{Error, Location, Task};

/// Suffix of the file beside the admin directory that holds the tip and the reflog of a branch that gave way.
const BRANCH: &str = ".branch";

/// Suffix of the file beside the admin directory that records that `HEAD` named that branch.
const HEAD: &str = ".head";

/// Largest reflog of a branch that is kept, in bytes; a line takes some 200.
const LOG_MAX: usize = 64 << 20;

/// Moves the worktree and its admin directory aside.
pub(super) fn set_aside(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let (home, aside) = sites(task, worktree)?;
    ownership::of_admin_directory_if_not_others(task, &home)?;
    overlay::keep_mountable(task, worktree, &home)?;
    overlay::unmount(worktree, &home)?;
    gc_roots::create(task, worktree, &home)?;
    move_worktree(&home, &aside)?;
    crashpoint!("aside.directory-moved");
    move_directory(&home.common, &home.admin_directory, &aside.admin_directory)?;
    crashpoint!("aside.admin-moved");
    overlay::set_aside(task, worktree, &aside)
}

/// Removes the branch of the worktree, but keeps its reflog.
pub(super) fn give_way(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let Some(own) = &worktree.branch else { return Ok(()) };
    let paths = WorktreePaths::at(Location::Aside, task, worktree)?;
    let name = full_name(own);
    let Some(tip) = branch::tip_as_made(task, worktree, &paths, &name)? else { return Ok(()) };
    if branch::is_checked_out(&paths, &name)? {
        return Ok(());
    }
    let log = paths.common.read(&log_of(&name), LOG_MAX)?.unwrap_or_default();
    paths.common.create_directories(Path::new(reserved_names::MARK))?;
    paths.common.replace(&kept(&paths, BRANCH), &[tip.as_bytes(), b"\n", &log].concat())?;
    if paths.read_admin_file("HEAD")? == Content::Bytes(attached(&name)) {
        paths.common.replace(&kept(&paths, HEAD), b"")?;
        gc_roots::keep_commit(task, worktree, &paths.common, &tip)?;
        paths.common.replace(&paths.admin_directory.join("HEAD"), format!("{tip}\n").as_bytes())?;
    }
    crashpoint!("aside.detached");
    branch::delete(task, worktree, &paths, &name, &tip)?;
    crashpoint!("aside.branch-gone");
    Ok(())
}

/// Moves everything back to its home location.
pub(super) fn bring_back(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let (home, aside) = sites(task, worktree)?;
    if aside.directory()?.is_some() && home.directory()?.is_some() {
        return Err(Error::Refused(both_exist(&home.worktree, &aside.worktree)));
    }
    restore_branch(task, worktree, &aside)?;
    overlay::bring_back(task, worktree, &aside)?;
    if aside.common.directory(&aside.admin_directory)?.is_some() {
        // The release of another session may have removed the setting meanwhile.
        let lock = sparse::is_wanted(task, worktree).then(|| Lock::take(task.host, &home)).transpose()?;
        if let Some(lock) = &lock {
            sparse::enable(task, &home, lock)?;
        }
        move_directory(&home.common, &aside.admin_directory, &home.admin_directory)?;
    }
    // While the directory is aside, an interrupted removal is repeated.
    gc_roots::remove(task, worktree, &home.common)?;
    crashpoint!("aside.admin-back");
    move_worktree(&aside, &home)?;
    crashpoint!("aside.directory-back");
    overlay::mount_again(task, worktree, &home)?;
    home.common.remove_directory(Path::new(reserved_names::MARK))?;
    Ok(aside.base.remove_hidden(&aside.parent)?)
}

/// Describes a worktree that cannot be brought back from `aside`, because another directory is at `home`.
pub(super) fn both_exist(home: &Path, aside: &Path) -> String {
    let (home, aside) = (home.display(), aside.display());
    format!("{home} exists again, and the worktree that belongs there is kept as {aside}: move {home} away")
}

/// Creates the branch that gave way again, at the same commit and with the same reflog.
fn restore_branch(task: &Task<'_>, worktree: &Worktree, aside: &WorktreePaths) -> Result<(), Error> {
    let kept_branch = aside.common.read(&kept(aside, BRANCH), LOG_MAX)?;
    let (Some(own), Some(kept_branch)) = (&worktree.branch, kept_branch) else { return Ok(()) };
    let line = kept_branch.iter().position(|byte| *byte == b'\n').unwrap_or(kept_branch.len());
    let (tip, log) = (String::from_utf8_lossy(&kept_branch[..line]), kept_branch.get(line + 1..));
    let name = full_name(own);
    let git = Git::open(task.host, aside.common.path(), None).holding(task.lock);
    if !git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", &name])?.status.success() {
        branch::create(task, aside, own, &tip)?;
    }
    let log = log.filter(|log| !log.is_empty());
    if let Some(log) = log.filter(|_| !matches!(read(&aside.common, &log_of(&name)), Ok(Content::Missing))) {
        aside.common.replace(&log_of(&name), log)?;
    }
    crashpoint!("aside.branch-back");
    if aside.common.read(&kept(aside, HEAD), 0)?.is_some() {
        aside.common.replace(&aside.admin_directory.join("HEAD"), &attached(&name))?;
    }
    forget(aside)
}

/// Removes what was kept of a branch that gave way.
pub(super) fn forget(aside: &WorktreePaths) -> Result<(), Error> {
    for suffix in [HEAD, BRANCH] {
        aside.common.remove_file(&kept(aside, suffix))?;
    }
    Ok(())
}

fn kept(aside: &WorktreePaths, suffix: &str) -> PathBuf {
    let mut path = aside.admin_directory.clone().into_os_string();
    path.push(suffix);
    path.into()
}

/// Replaces the paths of a worktree that is aside by its home paths, in an error's text.
pub(super) fn named_at_home(task: &Task<'_>, worktree: &Worktree, error: Error) -> Error {
    let (Location::Aside, Ok((home, aside))) = (task.location, sites(task, worktree)) else { return error };
    let shown = |path: PathBuf| path.display().to_string();
    let text =
        error.to_string().replace(&shown(aside.admin_directory_path()), &shown(home.admin_directory_path()));
    Error::Refused(text.replace(&shown(aside.worktree), &shown(home.worktree)))
}

fn sites(task: &Task<'_>, worktree: &Worktree) -> Result<(WorktreePaths, WorktreePaths), Error> {
    Ok((
        WorktreePaths::at(Location::Home, task, worktree)?,
        WorktreePaths::at(Location::Aside, task, worktree)?,
    ))
}

fn full_name(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

/// Returns the `HEAD` of a worktree that has a branch checked out.
fn attached(name: &str) -> Vec<u8> {
    format!("ref: {name}\n").into_bytes()
}

/// Returns the path of a ref's reflog, relative to the common git directory.
fn log_of(name: &str) -> PathBuf {
    Path::new("logs").join(name)
}
