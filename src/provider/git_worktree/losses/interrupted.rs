//! Finds unsaved work in a worktree whose run was interrupted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::changes;
use super::inside::Inside;
use super::since::Since;
use super::{OPERATIONS, commits, overlay, ownership};
use crate::host::files::Root;
use crate::provider::git_worktree::Worktree;
use crate::provider::git_worktree::site::Site;
use crate::provider::survey::{Survey, stuck, unknown};
use crate::provider::{Error, Losses, Made, Task};

/// Returns the unsaved work that the interrupted run has not made itself. A worktree of another owner is not inspected:
/// its release is refused.
pub(in super::super) fn losses_since(
    task: &Task<'_>,
    worktree: &Worktree,
    made: Made,
) -> Result<Losses, Error> {
    let site = Site::of(task, worktree)?;
    let mut losses = Losses::default();
    match ownership::of_entry_if_not_others(task, &site) {
        Ok(_) => {}
        Err(Error::Refused(_)) => return Ok(losses),
        Err(error) => return Err(error),
    }
    // The admin directory of a worktree is created before its first file.
    let Some(entry) = site.common.directory(&site.entry)? else { return Ok(losses) };
    let since = Since::new(task, worktree, &site, made)?;
    if since.has_moved(worktree, &site, &entry)?
        && let Err(error) = commits::add(task, worktree, &site, &mut losses)
    {
        losses.work.push(format!("HEAD of {} cannot be read: {error}", site.home.display()));
    }
    if site.directory()?.is_some() {
        let inside = Inside::find(task, worktree, &site)?;
        losses.obstacles.extend(inside.obstacles);
        if since.has_index {
            add_changes(&since, task, worktree, &site, &entry, &inside.places, &mut losses)?;
        } else {
            since.add_untracked(task, worktree, &site, &inside.places, &mut losses)?;
        }
    }
    losses.passing.clear();
    Ok(losses)
}

/// Adds the later changes, both those that Git reports and those that it does not report.
fn add_changes(
    since: &Since,
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
    entry: &Root,
    places: &BTreeSet<PathBuf>,
    losses: &mut Losses,
) -> Result<(), Error> {
    let path = site.home.display();
    for (name, operation) in OPERATIONS {
        if since.is_tree_later(&site.entry_path().join(name)) {
            losses.work.push(format!("{path} is in the middle of {operation}"));
        }
    }
    if since.is_tree_later(&site.entry_path().join("modules"))
        && entry.directory(Path::new("modules"))?.is_some()
    {
        losses.beyond_rescue.push(format!(
            "{path} has submodules whose commits may be nowhere else; push those, then remove {}",
            site.entry_path().join("modules").display()
        ));
    }
    if !since.finds_later(task, worktree, site, places)? {
        return Ok(());
    }
    if overlay::hides_work(task, worktree, site)? {
        losses.beyond_rescue.push(format!(
            "{path} is not mounted, and what was written in it is unknown; `seedbed recover` mounts it"
        ));
    }
    losses.beyond_rescue.extend(overlay::covered(worktree, site)?);
    if overlay::is_unmounted(worktree, site)? {
        return Ok(());
    }
    let survey = Survey::take(&site.worktree, places);
    losses.obstacles.extend(stuck(&site.home, &survey));
    losses.beyond_rescue.extend(unknown(&site.home, &survey));
    if let Err(error) = changes::add(task, worktree, site, &survey, Some(since), losses) {
        losses.work.push(format!("the changes in {path} cannot be counted: {error}"));
    }
    Ok(())
}
