//! Finds changes that were made in a worktree after the interrupted run had done its part.
//!
//! The time of a change is that of the inode (`ctime`), which no program sets. If a run was still populating a
//! worktree, the commit shows which files are the run's.
//!
//! `mv` of a directory keeps the times of the files in it. So a file that is older than the run is work, and so is a file
//! in a directory that was changed after the run.

#![expect(clippy::disallowed_methods, reason = "looks at the times of files")]

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::listed_file::is_discovery;
use super::{overlay, pristine};
use crate::host::files::hidden::is_mark;
use crate::host::files::{Root, temporary};
use crate::host::git::{Git, is_object_id};
use crate::provider::git_worktree::paths::{Content, WorktreePaths};
use crate::provider::git_worktree::{Worktree, untracked};
use crate::provider::name_list::list;
use crate::provider::{DISCOVERY_DIRECTORY, Error, InterruptedRun, LeaseProgress, Task, UnsavedWork};

/// End of the interrupted run's changes in a worktree.
pub(super) struct Baseline {
    made: LeaseProgress,
    /// Time before the first change of the run.
    begun: SystemTime,
    /// Time from which on a change of a file is work.
    changes: SystemTime,
    /// Time from which on a commit is work.
    commits: SystemTime,
    pub(super) has_index: bool,
    /// Files of the commit, if the run may have been writing them.
    commit: Option<HashSet<PathBuf>>,
    /// Layer of an overlay in which the run and the session write. Files of the base are older than the run.
    upper: Option<PathBuf>,
    /// Directory of the discovery file, relative to the worktree.
    discovery: PathBuf,
}

impl Baseline {
    pub(super) fn new(
        task: &Task<'_>,
        worktree: &Worktree,
        paths: &WorktreePaths,
        run: InterruptedRun,
    ) -> Result<Self, Error> {
        let InterruptedRun { begun, made } = run;
        let has_index = fs::symlink_metadata(paths.admin_directory_path().join("index")).is_ok();
        let (changes, commits) = match made {
            // The run writes only files of its commit, and their index.
            LeaseProgress::Populating => (UNIX_EPOCH, UNIX_EPOCH),
            LeaseProgress::Populated { at, alive } => {
                (if worktree.git_hooks || !worktree.seeds.is_empty() { alive.max(at) } else { at }, at)
            }
            LeaseProgress::SettingUp { at, alive } => (alive.max(at), at),
            LeaseProgress::Complete(at) => (at, at),
        };
        let commit =
            (made == LeaseProgress::Populating).then(|| files_of(task, worktree, paths)).transpose()?;
        let upper = overlay::upper(task, worktree);
        let discovery =
            Path::new(worktree.target_path.as_deref().unwrap_or_default()).join(DISCOVERY_DIRECTORY);
        Ok(Self { made, begun, changes, commits, has_index, commit, upper, discovery })
    }

    /// Returns whether a Git command has moved `HEAD` since, or has created refs or other files in the admin directory.
    pub(super) fn has_moved(
        &self,
        worktree: &Worktree,
        paths: &WorktreePaths,
        admin: &Root,
    ) -> Result<bool, Error> {
        if pristine::is_admin_directory_pristine(worktree, paths, admin)? {
            return Ok(false);
        }
        let head = paths.read_admin_file("HEAD")?;
        let is_head = |head: &[u8]| head.starts_with(b"ref: refs/") || is_object_id(&text(head));
        // Git was killed while it created the admin directory.
        if self.made == LeaseProgress::Populating && !matches!(head, Content::Bytes(head) if is_head(&head)) {
            return Ok(false);
        }
        let is_later = |path: &Path, found: &Metadata| {
            path != Path::new("index") && !found.is_dir() && changed(found) >= self.commits
        };
        Ok(any(&paths.admin_directory_path(), &BTreeSet::new(), &is_later))
    }

    /// Adds files that the commit does not have, for a worktree that has no index yet.
    pub(super) fn add_untracked(
        &self,
        worktree: &Worktree,
        paths: &WorktreePaths,
        places: &BTreeSet<PathBuf>,
        unsaved_work: &mut UnsavedWork,
    ) -> Result<(), Error> {
        let mut found = BTreeSet::new();
        let note = |path: &Path, metadata: &Metadata| {
            let is_work = !metadata.is_dir()
                && !is_own(worktree, paths, path)
                && match &self.commit {
                    Some(commit) => changed(metadata) < self.begun || !commit.contains(path),
                    None => self.is_outside(metadata),
                };
            is_work.then(|| path.as_os_str().to_owned())
        };
        for top in self.tops(worktree, paths)? {
            each(&top, places, &mut |path, metadata| {
                found.extend(note(path, metadata));
                true
            });
        }
        if !found.is_empty() {
            unsaved_work.work.push(format!(
                "{} was never populated, and has {} of another program: {}",
                paths.home.display(),
                if found.len() == 1 { "1 file".to_owned() } else { format!("{} files", found.len()) },
                list(&found)
            ));
        }
        Ok(())
    }

    /// Returns whether any file of the worktree, or its index, was changed outside of the time of the run.
    pub(super) fn finds_later(
        &self,
        worktree: &Worktree,
        paths: &WorktreePaths,
        places: &BTreeSet<PathBuf>,
    ) -> Result<bool, Error> {
        if self.is_index_later(paths) {
            return Ok(true);
        }
        let is_later = |path: &Path, found: &Metadata| {
            !is_own(worktree, paths, path) && path != self.discovery && self.is_outside(found)
        };
        Ok(self.tops(worktree, paths)?.iter().any(|top| any(top, places, &is_later)))
    }

    /// Returns whether a path that `git status` reports is work. `state` has the two letters for the index and the
    /// file.
    pub(super) fn counts(
        &self,
        worktree: &Worktree,
        paths: &WorktreePaths,
        state: &[u8],
        path: &Path,
    ) -> bool {
        let is_brought = || self.is_being_brought(worktree, paths, path) && !self.is_older(paths, path);
        if is_own(worktree, paths, path) || is_brought() {
            return false;
        }
        match *state {
            [b'?', b'?'] if path.as_os_str().as_bytes().ends_with(b"/") => self.is_part_later(paths, path),
            [b'!', b'!'] => true,
            [index, b' '] => self.is_staged(paths, index),
            [b'?' | b' ', _] => self.is_later(paths, path),
            [index, ..] => self.is_staged(paths, index) || self.is_later(paths, path),
            [] => false,
        }
    }

    /// Returns whether a file may be work: it was changed since, is older than the run, or is in a directory that was
    /// changed since. For a deleted file, returns whether its directory was changed since.
    pub(super) fn is_later(&self, paths: &WorktreePaths, path: &Path) -> bool {
        if self.is_older(paths, path) {
            return true;
        }
        if self.is_of_commit(path) {
            return false;
        }
        let found = path.ancestors().find_map(|path| fs::symlink_metadata(paths.worktree.join(path)).ok());
        found.is_some_and(|found| changed(&found) >= self.changes) || self.is_below_later(paths, path)
    }

    /// Returns whether a directory of the worktree, or anything in it, may be work, as [`Self::is_later`] does.
    pub(super) fn is_part_later(&self, paths: &WorktreePaths, path: &Path) -> bool {
        self.is_tree_later(&paths.worktree.join(path)) || self.is_below_later(paths, path)
    }

    /// Returns whether a file, or anything in a directory, was changed since, or is older than the run.
    pub(super) fn is_tree_later(&self, path: &Path) -> bool {
        let is_later = |_: &Path, found: &Metadata| {
            changed(found) >= self.changes || self.upper.is_none() && changed(found) < self.begun
        };
        fs::symlink_metadata(path).is_ok_and(|found| {
            is_later(path, &found) || found.is_dir() && any(path, &BTreeSet::new(), &is_later)
        })
    }

    /// Returns whether the run has not certainly written a file or directory: its time is not that of the run.
    fn is_outside(&self, found: &Metadata) -> bool {
        changed(found) >= self.changes || changed(found) < self.begun
    }

    /// Returns whether a file of the session is older than the run. The files of an overlay's base are not the
    /// session's.
    fn is_older(&self, paths: &WorktreePaths, path: &Path) -> bool {
        let top = self.upper.as_deref().unwrap_or(&paths.worktree);
        fs::symlink_metadata(top.join(path)).is_ok_and(|found| changed(&found) < self.begun)
    }

    /// Returns whether a directory around a path was changed since. It may have been moved there with its files.
    fn is_below_later(&self, paths: &WorktreePaths, path: &Path) -> bool {
        // Seedbed changes the directories around the discovery file when it writes the file.
        let is_of_session = |above: &&Path| !self.discovery.starts_with(above);
        path.ancestors().skip(1).filter(is_of_session).any(|above| {
            let found = fs::symlink_metadata(paths.worktree.join(above));
            found.is_ok_and(|found| changed(&found) >= self.changes)
        })
    }

    /// Returns the directories that contain everything written in a worktree. For an overlay these are the session's
    /// own layer and, if it is not mounted, also the directory below the mount.
    fn tops(&self, worktree: &Worktree, paths: &WorktreePaths) -> Result<Vec<PathBuf>, Error> {
        let is_shown = self.upper.is_none() || overlay::is_unmounted(worktree, paths)?;
        Ok(self.upper.iter().chain(is_shown.then_some(&paths.worktree)).cloned().collect())
    }

    fn is_index_later(&self, paths: &WorktreePaths) -> bool {
        let index = fs::symlink_metadata(paths.admin_directory_path().join("index"));
        index.is_ok_and(|index| changed(&index) >= self.changes)
    }

    /// Returns whether a change of the index, `index` in `git status`, is work. If something is added before the files
    /// of the commit are written, Git reports those files as deleted.
    fn is_staged(&self, paths: &WorktreePaths, index: u8) -> bool {
        if self.made == LeaseProgress::Populating { index != b'D' } else { self.is_index_later(paths) }
    }

    /// Returns whether the run may have been writing this file of the commit.
    fn is_of_commit(&self, path: &Path) -> bool {
        self.commit.as_ref().is_some_and(|files| files.contains(path))
    }

    /// Returns whether the run may have been bringing this file from the workspace.
    fn is_being_brought(&self, worktree: &Worktree, paths: &WorktreePaths, path: &Path) -> bool {
        matches!(self.made, LeaseProgress::Populated { .. }) && untracked::is_brought(worktree, paths, path)
    }
}

/// Returns the files of a worktree's commit.
fn files_of(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<HashSet<PathBuf>, Error> {
    let git = Git::open(task.host, paths.common.path(), None);
    let listed = git.run(["ls-tree", "-r", "-z", "--name-only", "--full-tree", &worktree.commit])?;
    let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
}

/// Returns whether `is_wanted` is true of `top` or anything below it, or whether a directory there cannot be listed.
fn any(top: &Path, places: &BTreeSet<PathBuf>, is_wanted: &dyn Fn(&Path, &Metadata) -> bool) -> bool {
    let mut found = false;
    let listed = each(top, places, &mut |path, metadata| {
        found = found || is_wanted(path, metadata);
        !found
    });
    found || !listed
}

/// Calls `act` for `top` and everything below it, except for `places`, until `act` returns `false`. Paths are relative.
/// Returns whether every directory could be listed.
fn each(top: &Path, places: &BTreeSet<PathBuf>, act: &mut dyn FnMut(&Path, &Metadata) -> bool) -> bool {
    let mut is_listed = true;
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        let path = top.join(&relative);
        // The pointer file `.git` is checked separately.
        if places.contains(&path) || relative == Path::new(".git") {
            continue;
        }
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if !act(&relative, &found) {
            return true;
        }
        if found.is_dir() {
            match fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                Ok(entries) => left.extend(entries.iter().map(|entry| relative.join(entry.file_name()))),
                Err(_) => is_listed = false,
            }
        }
    }
    is_listed
}

/// Returns whether seedbed writes the file at a path: a discovery file, the marker of a directory of nested worktrees, a
/// temporary file, or a file in a temporary or seeded directory.
fn is_own(worktree: &Worktree, paths: &WorktreePaths, path: &Path) -> bool {
    let is_temporary = || path.iter().any(temporary::is_temporary);
    is_discovery(worktree, path)
        || worktree.is_seeded(path)
        || is_temporary()
        || is_mark(&paths.worktree.join(path))
}

fn changed(found: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(found.ctime().try_into().unwrap_or_default());
    UNIX_EPOCH + seconds + Duration::from_nanos(found.ctime_nsec().try_into().unwrap_or_default())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()
}
