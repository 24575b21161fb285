//! Checks whether a worktree is still as it was provisioned, only by reading files: Git is not needed, even if the
//! files are torn.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::FileType;

use super::ownership::{self, Owner};
use super::paths::{Content, WorktreePaths, read};
use super::{Registration, Worktree, files, overlay, pointer, reserved_names};
use crate::provider::{Condition, Error, Task};

/// Inspects the directory, its pointer and the admin directory. The files in the worktree belong to the session and are
/// not inspected.
pub(super) fn inspect(task: &Task<'_>, worktree: &Worktree) -> Result<Condition, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    if let Some(fault) = registration_fault(task, worktree, &paths)? {
        return Ok(Condition::Broken(fault));
    }
    let index = paths
        .common
        .directory(&paths.admin_directory)?
        .and_then(|admin| admin.file_type(OsStr::new("index")));
    match index {
        None => return Ok(Condition::Broken(format!("{} was never populated", paths.home.display()))),
        Some(FileType::RegularFile) => {}
        Some(_) => {
            let index = paths.admin_directory_path().join("index");
            return Ok(Condition::Broken(format!("{} is not a file", index.display())));
        }
    }
    match overlay::fault(task, worktree, &paths)? {
        None => {}
        Some(overlay::MountDamage::Unmounted(why)) => return Ok(Condition::Repairable(why)),
        Some(overlay::MountDamage::Lost(why)) => return Ok(Condition::Broken(why)),
    }
    if let Some(why) = files::damage(task, worktree)? {
        return Ok(Condition::Repairable(why));
    }
    if let Some(why) = pointer::damage(&paths)? {
        return Ok(Condition::Repairable(why));
    }
    if !is_locked(task, &paths)? {
        return Ok(Condition::Repairable(format!("{} is not locked any more", paths.home.display())));
    }
    Ok(Condition::Healthy)
}

/// Returns the reason why Git and programs would not work in this worktree, but elsewhere or nowhere; `None` if they
/// would.
pub(super) fn unusable(task: &Task<'_>, worktree: &Worktree) -> Result<Option<String>, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    if let Some(fault) = registration_fault(task, worktree, &paths)? {
        return Ok(Some(fault));
    }
    Ok(overlay::fault(task, worktree, &paths)?.map(|fault| match fault {
        overlay::MountDamage::Unmounted(why) | overlay::MountDamage::Lost(why) => why,
    }))
}

/// Mounts an overlay worktree again, writes its `.git` file as planned, and locks the worktree again with our ownership
/// marker as the reason. Everything else about the worktree is valid.
pub(super) fn repair(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    overlay::repair(task, worktree, &paths)?;
    pointer::write(task, worktree)?;
    let Some(admin) = paths.common.directory(&paths.admin_directory)? else { return Ok(()) };
    Ok(admin.replace(Path::new("locked"), format!("{}\n", reserved_names::mark(task)).as_bytes())?)
}

fn is_locked(task: &Task<'_>, paths: &WorktreePaths) -> Result<bool, Error> {
    let mark = reserved_names::mark(task);
    let locked = paths.read_admin_file("locked")?;
    Ok(matches!(locked, Content::Bytes(locked) if locked.trim_ascii_end() == mark.as_bytes()))
}

/// Returns the error of the registration, one line; `None` if it is valid.
pub(super) fn registration_fault(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
) -> Result<Option<String>, Error> {
    let admin = paths.admin_directory_path();
    match ownership::of_admin_directory(task, paths)? {
        Owner::Missing => return Ok(Some(format!("{} does not exist", admin.display()))),
        Owner::Other(why) => return Ok(Some(why)),
        Owner::ThisSwarm => {}
    }
    match ownership::of_worktree(paths, &Owner::ThisSwarm)? {
        Owner::Missing => return Ok(Some(format!("{} does not exist", paths.home.display()))),
        Owner::Other(why) => return Ok(Some(why)),
        Owner::ThisSwarm => {}
    }
    let fault = |name: &str, what: &str| Ok(Some(format!("{} {what}", admin.join(name).display())));
    let Some(directory) = paths.directory()? else {
        return Ok(Some(format!("{} does not exist", paths.home.display())));
    };
    if !matches!(read(&directory, Path::new(".git"))?, Content::Bytes(bytes) if paths.is_dot_git(&bytes)) {
        return Ok(Some(format!(
            "{} does not name its admin directory",
            paths.worktree.join(".git").display()
        )));
    }
    if paths.read_admin_file("gitdir")? != Content::Bytes(paths.gitdir_line()) {
        return fault("gitdir", "does not name the worktree");
    }
    if paths.read_admin_file("commondir")? != Content::Bytes(b"../..\n".to_vec()) {
        return fault("commondir", "does not name the repository");
    }
    let is_head = |head: &[u8]| {
        let head = head.trim_ascii_end();
        head.starts_with(b"ref: refs/")
            || (head.len() == worktree.commit.len() && head.iter().all(u8::is_ascii_hexdigit))
    };
    if !matches!(paths.read_admin_file("HEAD")?, Content::Bytes(head) if is_head(&head)) {
        return fault("HEAD", "names no commit");
    }
    if worktree.target_path.is_some() && worktree.registration == Registration::Rename {
        for name in ["config.worktree", "info/sparse-checkout"] {
            if !matches!(paths.read_admin_file(name)?, Content::Bytes(_)) {
                return fault(name, "does not exist, so the checkout is not sparse");
            }
        }
    }
    Ok(None)
}
