//! Makes sure that a worktree and everything that came with it is gone.
//!
//! Works on files, not through git, which dies of a torn entry. What git could trip over is renamed out of its sight
//! before it is deleted, so that no reader ever sees half of it, and a killed release is simply done again.

use std::path::{Path, PathBuf};

use super::ownership;
use super::repository::Lock;
use super::site::{Content, Site, move_directory, read};
use super::{Worktree, aside, overlay, register, repository, rescue, sparse};
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::{Error, Location, Task};

/// Makes sure that git can be asked about the repository, which branches take.
pub(super) fn ready(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let site = Site::of(task, worktree)?;
    Ok(Git::of(task.host, site.common.path(), None).check()?)
}

/// Removes whatever exists of the worktree. What is gone already is no error; what is somebody else's is
/// [`Error::Refused`], and then nothing is touched.
pub(super) fn release(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let site = Site::of(task, worktree)?;
    ownership::of_entry_if_not_others(task, &site)?;
    overlay::unmount(worktree, &site)?;
    remove_directory(task, worktree, &site)?;
    crashpoint!("release.directory-gone");
    remove_entry(task, worktree, &site)?;
    overlay::remove(task, worktree)?;
    crashpoint!("release.entry-gone");
    // A branch that went with a worktree that is aside has given way; another one of the name is the new worktree's.
    if let Some(branch) = worktree.branch.as_ref().filter(|_| task.location == Location::Home) {
        remove_branch(task, worktree, &site, branch)?;
    }
    crashpoint!("release.branch-gone");
    if sparse::is_wanted(worktree) {
        sparse::disable(task, &site, &Lock::take(task.host, &site)?)?;
    }
    crashpoint!("release.sparse-gone");
    site.base.remove_hidden(&site.parent)?;
    if task.location == Location::Aside {
        aside::forget(&site)?;
        // The worktree of a nested child lay in a directory of its own, in its parent's.
        let home = Site::at(Location::Home, task, worktree)?;
        home.base.remove_hidden(&home.parent)?;
    }
    crashpoint!("release.unhidden");
    site.common.remove_directory(Path::new(ownership::MARK))?;
    // git removes it with the last worktree too.
    site.common.remove_directory(Path::new("worktrees"))?;
    Ok(())
}

/// The directories down to the worktree, its entry, the repository, and what is kept of it on this host.
pub(super) fn debris(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<PathBuf>, Error> {
    let site = Site::of(task, worktree)?;
    let mut debris: Vec<_> = site.parent.ancestors().map(|above| site.base.path().join(above)).collect();
    let entries = ["worktrees", ownership::MARK].map(|name| site.common.path().join(name));
    debris.extend(entries);
    debris.push(Site::at(Location::Aside, task, worktree)?.entry_path());
    // The reflog of a branch that gave way is written back.
    let log = worktree.branch.as_ref().map(|branch| site.common.path().join("logs/refs/heads").join(branch));
    debris.extend(log.and_then(|log| log.parent().map(Path::to_path_buf)));
    debris.extend([site.entry_path(), site.common.path().to_owned(), repository::records(task.host)]);
    Ok(debris)
}

fn remove_directory(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<(), Error> {
    let Some(parent) = site.base.directory(&site.parent)? else { return Ok(()) };
    parent.remove_all(&rescue::scratch(task, worktree))?;
    let trash = PathBuf::from(format!(".trash-{}-{}", task.owner, worktree.entry));
    remove_aside(&parent, Path::new(&site.name), &trash)
}

fn remove_entry(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<(), Error> {
    remove_aside(&site.common, &site.entry, &register::aside(task, worktree))
}

/// Renames `from` to `trash`, where an earlier release may have left something, and removes it there.
fn remove_aside(root: &Root, from: &Path, trash: &Path) -> Result<(), Error> {
    root.remove_all_in_parallel(trash)?;
    move_directory(root, from, trash)?;
    crashpoint!("release.aside");
    Ok(root.remove_all_in_parallel(trash)?)
}

/// Removes the branch if we made it, it still is where we made it, and nobody has it checked out. Kept otherwise.
fn remove_branch(task: &Task<'_>, worktree: &Worktree, site: &Site, branch: &str) -> Result<(), Error> {
    let name = format!("refs/heads/{branch}");
    let Some(tip) = tip_as_made(task, worktree, site, &name)? else { return Ok(()) };
    if is_checked_out(site, &name)? {
        return Ok(());
    }
    delete_branch(task, site, &name, &tip)
}

/// Deletes the branch of this full name; an error where it is not at `tip`.
pub(super) fn delete_branch(task: &Task<'_>, site: &Site, name: &str, tip: &str) -> Result<(), Error> {
    let git = Git::of(task.host, site.common.path(), None).holding(task.lock);
    // What has moved in between stays.
    git.run_beside_others(&["update-ref", "-d", name, tip])?;
    Ok(())
}

/// Returns whether the swarm made the branch of this full name, and no commit has come to it since.
pub(super) fn is_as_made(
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
    name: &str,
) -> Result<bool, Error> {
    Ok(tip_as_made(task, worktree, site, name)?.is_some())
}

/// The tip of the branch of this full name, where the swarm made the branch and no commit has come to it since. Planning
/// decides by the same rule (`plan::branches::goes_with`).
pub(super) fn tip_as_made(
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
    name: &str,
) -> Result<Option<String>, Error> {
    let git = Git::of(task.host, site.common.path(), None).holding(task.lock);
    let at = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", name])?;
    let at = String::from_utf8_lossy(at.stdout.trim_ascii_end()).into_owned();
    // One that was found there when the worktree was made is not the worktree's to remove.
    if at.is_empty() || worktree.existing.is_some() == (at == worktree.commit) {
        return Ok(None);
    }
    let log = git.run(["reflog", "show", "--format=%H %gs", name, "--"])?;
    let made = format!("{at} {}", register::branch_message(task));
    Ok((String::from_utf8_lossy(&log).lines().last() == Some(&made)).then_some(at))
}

/// Returns whether any worktree, the main one too, has the branch of this full name checked out.
pub(super) fn is_checked_out(site: &Site, name: &str) -> Result<bool, Error> {
    let wanted = Content::Bytes(format!("ref: {name}\n").into_bytes());
    if read(&site.common, Path::new("HEAD"))? == wanted {
        return Ok(true);
    }
    let Some(entries) = site.common.directory(Path::new("worktrees"))? else { return Ok(false) };
    for entry in entries.names()? {
        // What cannot be read may have it.
        if read(&entries, &Path::new(&entry).join("HEAD")).map_or(true, |head| head == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}
