//! Finds unsaved work in a worktree whose run was interrupted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::changes;
use super::inside::Inside;
use super::since::Since;
use super::{OPERATIONS, commits, overlay, ownership};
use crate::host::files::Root;
use crate::provider::directory_scan::{DirectoryScan, stuck, unknown};
use crate::provider::git_worktree::Worktree;
use crate::provider::git_worktree::site::Site;
use crate::provider::{Error, LeaseProgress, Task, UnsavedWork};

/// Returns the unsaved work that the interrupted run has not made itself. A worktree of another owner is not inspected:
/// its release is refused.
pub(in super::super) fn unsaved_work_since(
    task: &Task<'_>,
    worktree: &Worktree,
    made: LeaseProgress,
) -> Result<UnsavedWork, Error> {
    let site = Site::of(task, worktree)?;
    let mut unsaved_work = UnsavedWork::default();
    match ownership::of_entry_if_not_others(task, &site) {
        Ok(_) => {}
        Err(Error::Refused(_)) => return Ok(unsaved_work),
        Err(error) => return Err(error),
    }
    // The admin directory of a worktree is created before its first file.
    let Some(entry) = site.common.directory(&site.entry)? else { return Ok(unsaved_work) };
    let since = Since::new(task, worktree, &site, made)?;
    if since.has_moved(worktree, &site, &entry)?
        && let Err(error) = commits::add(task, worktree, &site, &mut unsaved_work)
    {
        unsaved_work.work.push(format!("HEAD of {} cannot be read: {error}", site.home.display()));
    }
    if site.directory()?.is_some() {
        let inside = Inside::find(task, worktree, &site)?;
        unsaved_work.blockers.extend(inside.blockers);
        if since.has_index {
            add_changes(&since, task, worktree, &site, &entry, &inside.places, &mut unsaved_work)?;
        } else {
            since.add_untracked(task, worktree, &site, &inside.places, &mut unsaved_work)?;
        }
    }
    unsaved_work.ignored.clear();
    Ok(unsaved_work)
}

/// Adds the later changes, both those that Git reports and those that it does not report.
fn add_changes(
    since: &Since,
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
    entry: &Root,
    places: &BTreeSet<PathBuf>,
    unsaved_work: &mut UnsavedWork,
) -> Result<(), Error> {
    let path = site.home.display();
    for (name, operation) in OPERATIONS {
        if since.is_tree_later(&site.entry_path().join(name)) {
            unsaved_work.work.push(format!("{path} is in the middle of {operation}"));
        }
    }
    if since.is_tree_later(&site.entry_path().join("modules"))
        && entry.directory(Path::new("modules"))?.is_some()
    {
        unsaved_work.beyond_rescue.push(format!(
            "{path} has submodules whose commits may be nowhere else; push those, then remove {}",
            site.entry_path().join("modules").display()
        ));
    }
    if !since.finds_later(task, worktree, site, places)? {
        return Ok(());
    }
    if overlay::hides_work(task, worktree, site)? {
        unsaved_work.beyond_rescue.push(format!(
            "{path} is not mounted, and what was written in it is unknown; `seedbed recover` mounts it"
        ));
    }
    unsaved_work.beyond_rescue.extend(overlay::covered(worktree, site)?);
    if overlay::is_unmounted(worktree, site)? {
        return Ok(());
    }
    let scan = DirectoryScan::read(&site.worktree, places);
    unsaved_work.blockers.extend(stuck(&site.home, &scan));
    unsaved_work.beyond_rescue.extend(unknown(&site.home, &scan));
    if let Err(error) = changes::add(task, worktree, site, &scan, Some(since), unsaved_work) {
        unsaved_work.work.push(format!("the changes in {path} cannot be counted: {error}"));
    }
    Ok(())
}
