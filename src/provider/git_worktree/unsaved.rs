//! Finds the unsaved work that the release of a worktree would discard. `status`, a dry run and the release itself use
//! this module.

mod status;
mod commits;
mod listed_file;
mod filtered;
mod index_flags;
mod nested;
mod interrupted;
mod repositories;
mod baseline;
mod pristine;

use std::ffi::OsStr;

use self::nested::Nested;
use super::paths::{Content, WorktreePaths, read};
use super::{Worktree, overlay, ownership};
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::directory_scan::{DirectoryScan, stuck, unknown};
use crate::provider::{Error, Task, UnsavedWork};

pub(super) use commits::{Tips, lost};
pub(super) use filtered::changed as filtered;
pub(super) use interrupted::unsaved_work_since;
pub(super) use listed_file::ListedFile;
pub(crate) use listed_file::is_discovery;

/// Files of an admin directory that exist while a Git operation is in progress, each with the operation.
pub(super) const OPERATIONS: [(&str, &str); 8] = [
    ("MERGE_HEAD", "a merge"),
    ("rebase-merge", "a rebase"),
    ("rebase-apply", "a rebase or `git am`"),
    ("CHERRY_PICK_HEAD", "a cherry-pick"),
    ("REVERT_HEAD", "a revert"),
    ("sequencer", "a series of cherry-picks or reverts"),
    ("BISECT_LOG", "a bisection"),
    ("NOTES_MERGE_REF", "a merge of notes"),
];

/// Returns the unsaved work in a worktree: nothing if neither the directory nor the admin directory exists. A worktree
/// that another owner has, or that was changed so that another seems to have it, contains no work that a rescue could
/// save.
///
/// Work that cannot be inspected counts as unsaved. Ignored files are counted and named, but are no reason to refuse.
/// Commits that were rewritten or reset away, which only the reflog in the admin directory has, are no reason either.
/// Files that `copy` and `link` brought do not count while they still equal those of the workspace.
///
/// Stashes do not count: `refs/stash` and its log belong to the repository, and outlast every worktree. But a `pop`
/// removes its stash, so a commit that only a stash reaches does count.
pub(super) fn unsaved_work(task: &Task<'_>, worktree: &Worktree) -> Result<UnsavedWork, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let mut unsaved_work = UnsavedWork::default();
    // The release would be refused half-way through the release of the other worktrees.
    if let Err(Error::Refused(why)) = ownership::of_admin_directory_if_not_others(task, &paths) {
        unsaved_work.beyond_rescue.push(why);
        return Ok(unsaved_work);
    }
    let admin = paths.common.directory(&paths.admin_directory)?;
    let Some(directory) = paths.directory()? else {
        // The files are lost already. What was staged and commits may still exist, unless Git answers that the admin
        // directory is torn.
        if let Some(admin) = &admin {
            add_operations(&paths, admin, &mut unsaved_work)?;
            add_staged(task, &paths, &mut unsaved_work)?;
        }
        match commits::add(task, worktree, &paths, None, &mut unsaved_work) {
            Err(Error::Process(error)) if !error.is_answer() => {
                unsaved_work.work.push(format!("HEAD of {} cannot be read: {error}", paths.home.display()));
            }
            _ => {}
        }
        return Ok(unsaved_work);
    };
    let path = paths.home.display();
    let Some(admin) = admin else {
        let names = directory.names()?;
        let files = names.iter().filter(|name| *name != ".git").count();
        if files > 0 {
            unsaved_work.work.push(format!(
                "{path} has {files} files or directories, and its admin directory does not exist"
            ));
        }
        return Ok(unsaved_work);
    };
    let mut nested = Nested::find(task, worktree, &paths)?;
    unsaved_work.blockers = std::mem::take(&mut nested.blockers);
    // If this check fails, Git reports the reason.
    if pristine::is_pristine(task, worktree, &paths, &admin).unwrap_or(false) {
        return Ok(unsaved_work);
    }
    // If this fails, the error is reported with the commits.
    let head = commits::Head::read(task, &paths).ok();
    let is_unchanged = |head: &commits::Head| pristine::has_files_of(worktree, &paths, &admin, &head.tree);
    if !head.as_ref().is_some_and(is_unchanged) {
        add_changes(task, worktree, &paths, &nested, &mut unsaved_work)?;
    }
    add_operations(&paths, &admin, &mut unsaved_work)?;
    if let Err(error) = commits::add(task, worktree, &paths, head, &mut unsaved_work) {
        unsaved_work.work.push(format!("HEAD of {path} cannot be read: {error}"));
    }
    Ok(unsaved_work)
}

/// Adds the changes of files that no commit has.
fn add_changes(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    nested: &Nested,
    unsaved_work: &mut UnsavedWork,
) -> Result<(), Error> {
    let path = paths.home.display();
    let scan = DirectoryScan::read(&paths.worktree, &nested.places);
    unsaved_work.blockers.extend(stuck(&paths.home, &scan));
    unsaved_work.beyond_rescue.extend(unknown(&paths.home, &scan));
    unsaved_work.blockers.extend(overlay::stuck(task, worktree, paths)?);
    if let Some(why) = overlay::uninspected(task, worktree, paths)? {
        unsaved_work.beyond_rescue.push(why);
    } else if overlay::is_untouched(task, worktree, paths)? {
        // Nothing was ever written in the mount.
    } else if let Err(error) = status::add(task, worktree, paths, &scan, None, unsaved_work) {
        unsaved_work.work.push(format!("the changes in {path} cannot be counted: {error}"));
    }
    Ok(())
}

/// Adds the operations in progress and the repositories of submodules, which only the admin directory contains.
fn add_operations(paths: &WorktreePaths, admin: &Root, unsaved_work: &mut UnsavedWork) -> Result<(), Error> {
    let path = paths.home.display();
    let names = admin.names()?;
    for (name, operation) in OPERATIONS {
        if names.contains(OsStr::new(name)) {
            unsaved_work.work.push(format!("{path} is in the middle of {operation}"));
        }
    }
    if names.contains(OsStr::new("modules"))
        && !unsaved_work.beyond_rescue.iter().any(|line| line.contains("submodules"))
    {
        unsaved_work.beyond_rescue.push(format!(
            "{path} has submodules whose commits may be nowhere else; push those, then remove {}",
            paths.admin_directory_path().join("modules").display()
        ));
    }
    Ok(())
}

/// Adds the staged changes of a worktree whose directory does not exist.
///
/// A HEAD that names no commit is reported with the commits. An index that does not exist has nothing staged.
fn add_staged(task: &Task<'_>, paths: &WorktreePaths, unsaved_work: &mut UnsavedWork) -> Result<(), Error> {
    let path = paths.home.display();
    if read(&paths.common, &paths.admin_directory.join("index"))? == Content::Missing {
        return Ok(());
    }
    let admin = paths.admin_directory_path();
    let git = Git::open(task.host, &admin, None).holding(task.lock);
    if git.run(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).is_err() {
        return Ok(());
    }
    match git.run(["diff-index", "--cached", "--name-only", "--no-renames", "-z", "HEAD"]) {
        Ok(listed) => {
            let staged = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).count();
            if staged > 0 {
                unsaved_work.work.push(format!("{path} does not exist, and its index has {staged} staged"));
            }
        }
        Err(error) => unsaved_work.work.push(format!("the index of {path} cannot be read: {error}")),
    }
    Ok(())
}

/// Returns the reasons why a worktree cannot be released even if its work is discarded. Such reasons are things inside
/// that are not the session's, and directories that this user cannot remove.
pub(super) fn blockers(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<String>, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let Nested { mut blockers, places } = Nested::find(task, worktree, &paths)?;
    if paths.directory()?.is_some() {
        blockers.extend(stuck(&paths.home, &DirectoryScan::read(&paths.worktree, &places)));
        blockers.extend(overlay::stuck(task, worktree, &paths)?);
    }
    Ok(blockers)
}
