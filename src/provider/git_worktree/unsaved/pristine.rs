//! Checks only by its files whether a worktree is pristine, or has all its changes in commits.
//!
//! Most worktrees of a large swarm are, and this check is faster than starting Git six times for each. Only a
//! certain result is returned: unless everything is exactly as seedbed left it, Git decides.
#![expect(clippy::disallowed_methods, reason = "lists a worktree")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Stat, lstat};

use super::commits::lost;
use super::listed_file::is_discovery;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::directory_scan;
use crate::provider::git_worktree::copy_record::RECORD;
use crate::provider::git_worktree::index::{self, EntryType, Index};
use crate::provider::git_worktree::paths::{Content, WorktreePaths};
use crate::provider::git_worktree::reserved_names::MARK;
use crate::provider::git_worktree::untracked::CopiedFiles;
use crate::provider::git_worktree::update::JOURNAL;
use crate::provider::git_worktree::{Worktree, files, overlay, tree};
use crate::provider::{DISCOVERY_DIRECTORY, Error, Task};

/// Names in a new admin directory. Git commands that change something there add other names.
const MADE: [&str; 13] = [
    "HEAD",
    "commondir",
    "config.worktree",
    "gitdir",
    "index",
    "info",
    "locked",
    "logs",
    "refs",
    MARK,
    RECORD,
    JOURNAL,
    files::RECORD,
];

/// Returns whether the worktree equals its commit: HEAD never moved, and the index contains the commit's tree. Each of
/// its files must be the one that Git saw when it wrote the index. No other file may exist except those that seedbed
/// wrote.
///
/// `false` means unknown.
pub(super) fn is_pristine(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    admin: &Root,
) -> Result<bool, Error> {
    // A branch is deleted with its worktree, and only Git can find other refs that reach its commits.
    if worktree.branch.is_some() || !is_admin_directory_pristine(worktree, paths, admin)? {
        return Ok(false);
    }
    // The layers of an overlay contain everything that was ever written in it.
    if overlay::is_wanted(worktree) {
        return Ok(overlay::is_untouched(task, worktree, paths)? && is_reached(task, worktree, paths)?);
    }
    let tree = tree_of(task, worktree, paths)?;
    Ok(has_files_of(worktree, paths, admin, &tree) && is_reached(task, worktree, paths)?)
}

/// Returns whether the worktree has the files of this tree and no other: the index has the tree, each file is the one that
/// Git saw when it wrote the index, and no other file exists except those that seedbed wrote.
///
/// `false` means unknown.
pub(super) fn has_files_of(worktree: &Worktree, paths: &WorktreePaths, admin: &Root, tree: &str) -> bool {
    // The layers of an overlay are inspected instead.
    if overlay::is_wanted(worktree) {
        return false;
    }
    let written = lstat(paths.admin_directory_path().join("index"));
    let (Ok(Some(bytes)), Ok(written)) = (admin.read(Path::new("index"), index::MAX), written) else {
        return false;
    };
    let Some(index) = Index::read(&bytes, worktree.commit.len() / 2) else { return false };
    if index.root_tree().as_deref() != Some(tree) {
        return false;
    }
    let copied_files = CopiedFiles::new(worktree, paths);
    let walk = Walk { worktree, paths, copied_files: &copied_files, index: &index, written: &written };
    walk.finds_nothing_else().unwrap_or(false)
}

/// Returns whether the admin directory is as seedbed made it: `HEAD` has not moved, and no Git command has added
/// anything.
pub(super) fn is_admin_directory_pristine(
    worktree: &Worktree,
    paths: &WorktreePaths,
    admin: &Root,
) -> Result<bool, Error> {
    let is_empty = |name: &str| match admin.directory(Path::new(name))? {
        Some(directory) => Ok::<_, Error>(directory.names()?.is_empty()),
        None => Ok(true),
    };
    let is_logged_once = || match admin.directory(Path::new("logs"))? {
        Some(logs) => {
            let names = logs.names()?;
            let log = paths.read_admin_file("logs/HEAD")?;
            let made = |log: &[u8]| log.split_inclusive(|byte| *byte == b'\n').count() == 1;
            Ok::<_, Error>(
                names.iter().all(|name| name == "HEAD") && matches!(log, Content::Bytes(log) if made(&log)),
            )
        }
        None => Ok(true),
    };
    let made = match &worktree.branch {
        Some(branch) => format!("ref: refs/heads/{branch}"),
        None => worktree.commit.clone(),
    };
    let is_head = matches!(paths.read_admin_file("HEAD")?, Content::Bytes(head) if head.trim_ascii_end() == made.as_bytes());
    let names = admin.names()?;
    let is_made = names.iter().all(|name| MADE.iter().any(|made| name == made));
    Ok(is_head && is_made && is_empty("refs")? && is_logged_once()?)
}

/// Returns the tree of the worktree's commit, which all worktrees of that commit share.
fn tree_of(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<String, Error> {
    task.shared_result(&format!("tree {}", worktree.commit), || {
        tree::id_of(&Git::open(task.host, paths.common.path(), None), &worktree.commit)
    })
}

/// Returns whether a ref that outlasts the worktree reaches its commit.
fn is_reached(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<bool, Error> {
    let commit = worktree.commit.as_str();
    let what = format!("lost {commit} {}", paths.common.path().display());
    let lost = task.shared_result(&what, || {
        let lost = lost(task, worktree, paths, &BTreeSet::from([commit]), None, &[])?;
        Ok(lost.len().to_string())
    })?;
    Ok(lost == "0")
}

/// A walk through a worktree.
struct Walk<'a> {
    worktree: &'a Worktree,
    paths: &'a WorktreePaths,
    copied_files: &'a CopiedFiles<'a>,
    index: &'a Index,
    /// Stat data of the index file.
    written: &'a Stat,
}

impl Walk<'_> {
    /// Returns whether every file of the index exists unchanged, and no other file exists.
    fn finds_nothing_else(&self) -> std::io::Result<bool> {
        let names = self.index.entries().iter().map(|entry| (self.index.name(entry), entry));
        let entries: HashMap<&[u8], _> = names.collect();
        let directories: HashSet<&[u8]> = entries.keys().flat_map(|name| above(name)).collect();
        let discovery = Path::new(self.worktree.target_path.as_deref().unwrap_or_default());
        let discovery = discovery.join(DISCOVERY_DIRECTORY);
        let mut seen = 0;
        let mut left = vec![PathBuf::new()];
        while let Some(relative) = left.pop() {
            let directory = self.paths.worktree.join(&relative);
            if !directory_scan::is_own(&directory) {
                return Ok(false);
            }
            for found in fs::read_dir(directory)? {
                let found = found?;
                let path = relative.join(found.file_name());
                let name = path.as_os_str().as_bytes();
                let is_directory = found.file_type()?.is_dir();
                if let Some(entry) = entries.get(name) {
                    let is_the_same = match entry.what {
                        // A cloned submodule has work of its own.
                        EntryType::Submodule => is_directory && fs::read_dir(found.path())?.next().is_none(),
                        EntryType::File | EntryType::Link => {
                            let stat = lstat(found.path())?;
                            !is_directory && self.index.is_of(entry, &stat) && self.is_older(&stat)
                        }
                    };
                    if !is_the_same {
                        return Ok(false);
                    }
                    seen += 1;
                } else if is_directory && (directories.contains(name) || path == discovery) {
                    left.push(path);
                } else if is_directory || !(path == Path::new(".git") || self.is_own(&path)) {
                    return Ok(false);
                }
            }
        }
        Ok(seen == entries.len())
    }

    /// Returns whether a file was last written before the index was. If both were written at the same moment, Git
    /// itself compares the content.
    fn is_older(&self, file: &Stat) -> bool {
        (file.st_mtime, file.st_mtime_nsec) < (self.written.st_mtime, self.written.st_mtime_nsec)
    }

    /// Returns whether seedbed put a file there.
    fn is_own(&self, path: &Path) -> bool {
        is_discovery(self.worktree, path) || self.copied_files.is_untouched(path)
    }
}

/// Returns the directories above a path.
fn above(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(slash, _)| &name[..slash])
}
