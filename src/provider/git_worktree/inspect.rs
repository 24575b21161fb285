//! Checks whether a worktree is still as it was provisioned, by reading files alone: Git is not needed, even if the
//! files are torn.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::FileType;

use super::ownership::{self, Owner};
use super::site::{Content, Site, read};
use super::{Registration, Worktree, layout, overlay};
use crate::provider::{Condition, Error, Task};

/// Inspects the directory, its pointer and the admin directory. The files in the worktree belong to the session and are
/// not inspected.
pub(super) fn inspect(task: &Task<'_>, worktree: &Worktree) -> Result<Condition, Error> {
    let site = Site::of(task, worktree)?;
    if let Some(fault) = registration_fault(task, worktree, &site)? {
        return Ok(Condition::Broken(fault));
    }
    let index = site.common.directory(&site.entry)?.and_then(|entry| entry.file_type(OsStr::new("index")));
    match index {
        None => return Ok(Condition::Broken(format!("{} was never populated", site.home.display()))),
        Some(FileType::RegularFile) => {}
        Some(_) => {
            let index = site.entry_path().join("index");
            return Ok(Condition::Broken(format!("{} is not a file", index.display())));
        }
    }
    match overlay::fault(task, worktree, &site)? {
        None => {}
        Some(overlay::Fault::Unmounted(why)) => return Ok(Condition::Repairable(why)),
        Some(overlay::Fault::Gone(why)) => return Ok(Condition::Broken(why)),
    }
    if !is_locked(task, &site)? {
        return Ok(Condition::Repairable(format!("{} is not locked any more", site.home.display())));
    }
    Ok(Condition::Healthy)
}

/// Returns the reason why Git and programs would not work in this worktree, but elsewhere or nowhere; `None` if they
/// would.
pub(super) fn unusable(task: &Task<'_>, worktree: &Worktree) -> Result<Option<String>, Error> {
    let site = Site::of(task, worktree)?;
    if let Some(fault) = registration_fault(task, worktree, &site)? {
        return Ok(Some(fault));
    }
    Ok(overlay::fault(task, worktree, &site)?.map(|fault| match fault {
        overlay::Fault::Unmounted(why) | overlay::Fault::Gone(why) => why,
    }))
}

/// Mounts an overlay worktree again, and locks the worktree again with our ownership marker as the reason. Everything
/// else about the worktree is valid.
pub(super) fn repair(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let site = Site::of(task, worktree)?;
    overlay::repair(task, worktree, &site)?;
    let Some(entry) = site.common.directory(&site.entry)? else { return Ok(()) };
    Ok(entry.replace(Path::new("locked"), format!("{}\n", layout::mark(task)).as_bytes())?)
}

fn is_locked(task: &Task<'_>, site: &Site) -> Result<bool, Error> {
    let mark = layout::mark(task);
    let locked = site.read_entry("locked")?;
    Ok(matches!(locked, Content::Bytes(locked) if locked.trim_ascii_end() == mark.as_bytes()))
}

/// Returns the error of the registration, one line; `None` if it is valid.
pub(super) fn registration_fault(
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
) -> Result<Option<String>, Error> {
    let entry = site.entry_path();
    match ownership::of_entry(task, site)? {
        Owner::Missing => return Ok(Some(format!("{} does not exist", entry.display()))),
        Owner::Other(why) => return Ok(Some(why)),
        Owner::Us => {}
    }
    match ownership::of_directory(site, &Owner::Us)? {
        Owner::Missing => return Ok(Some(format!("{} does not exist", site.home.display()))),
        Owner::Other(why) => return Ok(Some(why)),
        Owner::Us => {}
    }
    let fault = |name: &str, what: &str| Ok(Some(format!("{} {what}", entry.join(name).display())));
    let Some(directory) = site.directory()? else {
        return Ok(Some(format!("{} does not exist", site.home.display())));
    };
    if read(&directory, Path::new(".git"))? != Content::Bytes(site.dot_git_line()) {
        return Ok(Some(format!("{} does not name its entry", site.worktree.join(".git").display())));
    }
    if site.read_entry("gitdir")? != Content::Bytes(site.gitdir_line()) {
        return fault("gitdir", "does not name the worktree");
    }
    if site.read_entry("commondir")? != Content::Bytes(b"../..\n".to_vec()) {
        return fault("commondir", "does not name the repository");
    }
    let is_head = |head: &[u8]| {
        let head = head.trim_ascii_end();
        head.starts_with(b"ref: refs/")
            || (head.len() == worktree.commit.len() && head.iter().all(u8::is_ascii_hexdigit))
    };
    if !matches!(site.read_entry("HEAD")?, Content::Bytes(head) if is_head(&head)) {
        return fault("HEAD", "names no commit");
    }
    if worktree.target_path.is_some() && worktree.registration == Registration::Rename {
        for name in ["config.worktree", "info/sparse-checkout"] {
            if !matches!(site.read_entry(name)?, Content::Bytes(_)) {
                return fault(name, "does not exist, so the checkout is not sparse");
            }
        }
    }
    Ok(None)
}
