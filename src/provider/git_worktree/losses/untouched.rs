//! Whether nothing was ever done in a worktree, told by its files alone.
//!
//! Most worktrees of a large swarm are as they were made, and git takes longer to start, six times for each, than to look.
//! Here only what is certain is said: whatever is not exactly as seedbed left it, git is asked about.
#![expect(clippy::disallowed_methods, reason = "lists a worktree")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Stat, lstat};

use super::commits::lost;
use super::file::is_discovery;
use super::survey;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::git_worktree::brought::RECORD;
use crate::provider::git_worktree::files::Brought;
use crate::provider::git_worktree::index::{self, Index, What};
use crate::provider::git_worktree::layout::MARK;
use crate::provider::git_worktree::site::{Content, Site};
use crate::provider::git_worktree::{Worktree, overlay, tree};
use crate::provider::{DISCOVERY_DIRECTORY, Error, Task};

/// What an entry has in it when it is made. Whatever git does there adds something else.
const MADE: [&str; 11] = [
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
];

/// Tells whether the worktree is its commit and nothing else: HEAD never moved, the index holds the commit's tree, each of
/// its files is the one that git saw when the index was written, and no other is there but what seedbed put there.
///
/// `false` says nothing.
pub(super) fn is_as_made(
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
    entry: &Root,
) -> Result<bool, Error> {
    // A branch goes with its worktree, and git has to say what else reaches its commits.
    if worktree.branch.is_some() || !is_entry_as_made(worktree, site, entry)? {
        return Ok(false);
    }
    // The layers of an overlay hold all that was ever written in it.
    if overlay::is_wanted(worktree) {
        return Ok(overlay::is_untouched(task, worktree, site)? && is_reached(task, worktree, site)?);
    }
    let written = lstat(site.entry_path().join("index"));
    let (Ok(Some(bytes)), Ok(written)) = (entry.read(Path::new("index"), index::MAX), written) else {
        return Ok(false);
    };
    let Some(index) = Index::read(&bytes, worktree.commit.len() / 2) else { return Ok(false) };
    let Some(tree) = index.root_tree() else { return Ok(false) };
    let brought = Brought::new(worktree, site);
    let walk = Walk { worktree, site, brought: &brought, index: &index, written: &written };
    if !walk.finds_nothing_else().unwrap_or(false) {
        return Ok(false);
    }
    Ok(tree_of(task, worktree, site)? == tree && is_reached(task, worktree, site)?)
}

/// Returns whether the entry is what seedbed made: `HEAD` is where it was, and no command of git has left anything else.
pub(super) fn is_entry_as_made(worktree: &Worktree, site: &Site, entry: &Root) -> Result<bool, Error> {
    let is_empty = |name: &str| match entry.directory(Path::new(name))? {
        Some(directory) => Ok::<_, Error>(directory.names()?.is_empty()),
        None => Ok(true),
    };
    let is_logged_once = || match entry.directory(Path::new("logs"))? {
        Some(logs) => {
            let names = logs.names()?;
            let log = site.read_entry("logs/HEAD")?;
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
    let is_head =
        matches!(site.read_entry("HEAD")?, Content::Bytes(head) if head.trim_ascii_end() == made.as_bytes());
    let names = entry.names()?;
    let is_made = names.iter().all(|name| MADE.iter().any(|made| name == made));
    Ok(is_head && is_made && is_empty("refs")? && is_logged_once()?)
}

/// The tree of the worktree's commit, which is the same for all worktrees of it.
fn tree_of(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<String, Error> {
    task.found(&format!("tree {}", worktree.commit), || {
        tree::id_of(&Git::of(task.host, site.common.path(), None), &worktree.commit)
    })
}

/// Tells whether a ref that outlasts the worktree reaches its commit.
fn is_reached(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<bool, Error> {
    let commit = worktree.commit.as_str();
    let what = format!("lost {commit} {}", site.common.path().display());
    let lost = task.found(&what, || {
        let lost = lost(task, worktree, site, &BTreeSet::from([commit]), None, &[])?;
        Ok(lost.len().to_string())
    })?;
    Ok(lost == "0")
}

/// A walk through a worktree.
struct Walk<'a> {
    worktree: &'a Worktree,
    site: &'a Site,
    brought: &'a Brought<'a>,
    index: &'a Index,
    /// The index itself.
    written: &'a Stat,
}

impl Walk<'_> {
    /// Tells whether every file of the index is there as the index says, and nothing else is.
    fn finds_nothing_else(&self) -> std::io::Result<bool> {
        let names = self.index.entries().iter().map(|entry| (self.index.name(entry), entry));
        let entries: HashMap<&[u8], _> = names.collect();
        let directories: HashSet<&[u8]> = entries.keys().flat_map(|name| above(name)).collect();
        let discovery = Path::new(self.worktree.target_path.as_deref().unwrap_or_default());
        let discovery = discovery.join(DISCOVERY_DIRECTORY);
        let mut seen = 0;
        let mut left = vec![PathBuf::new()];
        while let Some(relative) = left.pop() {
            let directory = self.site.worktree.join(&relative);
            if !survey::is_own(&directory) {
                return Ok(false);
            }
            for found in fs::read_dir(directory)? {
                let found = found?;
                let path = relative.join(found.file_name());
                let name = path.as_os_str().as_bytes();
                let is_directory = found.file_type()?.is_dir();
                if let Some(entry) = entries.get(name) {
                    let is_the_same = match entry.what {
                        // One that is cloned has work of its own.
                        What::Submodule => is_directory && fs::read_dir(found.path())?.next().is_none(),
                        What::File | What::Link => {
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

    /// Tells whether a file was last written before the index was: of one that was written in the same moment, git itself
    /// reads the content.
    fn is_older(&self, file: &Stat) -> bool {
        (file.st_mtime, file.st_mtime_nsec) < (self.written.st_mtime, self.written.st_mtime_nsec)
    }

    /// Tells whether seedbed put a file there.
    fn is_own(&self, path: &Path) -> bool {
        is_discovery(self.worktree, path) || self.brought.is_untouched(path)
    }
}

/// The directories that a path lies in.
fn above(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(slash, _)| &name[..slash])
}
