//! Finds unsaved work in a worktree whose run was interrupted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::baseline::Baseline;
use super::nested::Nested;
use super::status;
use super::{OPERATIONS, commits, overlay, ownership};
use crate::host::files::Root;
use crate::provider::directory_scan::{DirectoryScan, stuck, unknown};
use crate::provider::git_worktree::Worktree;
use crate::provider::git_worktree::paths::WorktreePaths;
use crate::provider::{Error, InterruptedRun, Task, UnsavedWork};

/// Returns the unsaved work that the interrupted run has not made itself. A worktree of another owner is not inspected:
/// its release is refused.
pub(in super::super) fn unsaved_work_since(
    task: &Task<'_>,
    worktree: &Worktree,
    run: InterruptedRun,
) -> Result<UnsavedWork, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let mut unsaved_work = UnsavedWork::default();
    match ownership::of_admin_directory_if_not_others(task, &paths) {
        Ok(_) => {}
        Err(Error::Refused(_)) => return Ok(unsaved_work),
        Err(error) => return Err(error),
    }
    // The admin directory of a worktree is created before its first file.
    let Some(admin) = paths.common.directory(&paths.admin_directory)? else { return Ok(unsaved_work) };
    let baseline = Baseline::new(task, worktree, &paths, run)?;
    if baseline.has_moved(worktree, &paths, &admin)?
        && let Err(error) = commits::add(task, worktree, &paths, None, &mut unsaved_work)
    {
        unsaved_work.work.push(format!("HEAD of {} cannot be read: {error}", paths.home.display()));
    }
    if paths.directory()?.is_some() {
        let nested = Nested::find(task, worktree, &paths)?;
        unsaved_work.blockers.extend(nested.blockers);
        if baseline.has_index {
            add_changes(&baseline, task, worktree, &paths, &admin, &nested.places, &mut unsaved_work)?;
        } else {
            baseline.add_untracked(worktree, &paths, &nested.places, &mut unsaved_work)?;
        }
    } else if baseline.has_index {
        // A run stages nothing and begins no operation.
        super::add_operations(&paths, &admin, &mut unsaved_work)?;
        super::add_staged(task, &paths, &mut unsaved_work)?;
    }
    unsaved_work.ignored.clear();
    Ok(unsaved_work)
}

/// Adds the later changes, both those that Git reports and those that it does not report.
fn add_changes(
    baseline: &Baseline,
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    admin: &Root,
    places: &BTreeSet<PathBuf>,
    unsaved_work: &mut UnsavedWork,
) -> Result<(), Error> {
    let path = paths.home.display();
    for (name, operation) in OPERATIONS {
        if baseline.is_tree_later(&paths.admin_directory_path().join(name)) {
            unsaved_work.work.push(format!("{path} is in the middle of {operation}"));
        }
    }
    if baseline.is_tree_later(&paths.admin_directory_path().join("modules"))
        && admin.directory(Path::new("modules"))?.is_some()
    {
        unsaved_work.beyond_rescue.push(format!(
            "{path} has submodules whose commits may be nowhere else; push those, then remove {}",
            paths.admin_directory_path().join("modules").display()
        ));
    }
    if !baseline.finds_later(worktree, paths, places)? {
        return Ok(());
    }
    if overlay::hides_work(task, worktree, paths)? {
        unsaved_work.beyond_rescue.push(format!(
            "{path} is not mounted, and what was written in it is unknown until `seedbed recover` can mount it"
        ));
    }
    unsaved_work.beyond_rescue.extend(overlay::covered(worktree, paths)?);
    if overlay::is_unmounted(worktree, paths)? {
        return Ok(());
    }
    let scan = DirectoryScan::read(&paths.worktree, places);
    unsaved_work.blockers.extend(stuck(&paths.home, &scan));
    unsaved_work.beyond_rescue.extend(unknown(&paths.home, &scan));
    if let Err(error) = status::add(task, worktree, paths, &scan, Some(baseline), unsaved_work) {
        unsaved_work.work.push(format!("the changes in {path} cannot be counted: {error}"));
    }
    Ok(())
}
