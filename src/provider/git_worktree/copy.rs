//! Copies a worktree that git has filled, and nobody has been at work in yet.
//!
//! What is copied is what the index lists: nothing untracked comes along. Several copies are made at once, so that each
//! file is read once for all of them, and the work is divided by directories among the threads of the run. Then each
//! copy gets the index with what the file system says of its own files, so that the first `git status` opens none.

#![expect(clippy::disallowed_methods, reason = "writes the index of an entry")]

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::Worktree;
use super::index::{Entry, Index, OfACopy, What};
use super::site::{Site, io};
use crate::host::clock;
use crate::host::failpoint::failpoint;
use crate::host::files::Root;
use crate::host::files::copies::{self, Copier};
use crate::host::process::Cancel;
use crate::provider::{Error, Task};

/// How many copies are made at once: each has its index in memory, and in each thread one directory open.
const AT_ONCE: usize = 8;

/// How many files one thread copies before another may go on with the same directory.
const FILES: usize = 256;

/// The largest index that is copied, in bytes: that of some ten million files.
const INDEX_MAX: usize = 1 << 30;

/// How far back the times of copied files are set, in seconds. A file as new as the index is read by the first `git
/// status`: it may have been changed within the same tick of the clock, which may be two seconds long.
const BACK: i64 = 3;

/// A worktree to copy.
pub(super) struct Source {
    directory: Root,
    index: Index,
    index_mode: u32,
    tree: Vec<Directory>,
}

/// A directory of the worktree.
struct Directory {
    /// An entry that lies in it or below, and the length of the directory's path in the entry's name; 0 for the top.
    entry: usize,
    length: usize,
    /// The directories that lie right in it.
    directories: Vec<usize>,
    /// The entries that do.
    entries: Vec<usize>,
}

/// A registered worktree to copy to.
struct Target<'t> {
    position: usize,
    task: &'t Task<'t>,
    site: Site,
    directory: Root,
    index: Mutex<OfACopy>,
}

/// What went wrong, with the position of the task; `None` where it was the source.
type Failed = (Option<usize>, Error);

impl Source {
    /// The worktree of `task`, which git has filled; `None` where its index is not understood, or does not say of every
    /// file what the file system says: git is to fill the others then.
    pub(super) fn of(task: &Task<'_>, worktree: &Worktree) -> Result<Option<Self>, Error> {
        let site = Site::of(task, worktree)?;
        let path = site.entry.join("index");
        let (Some(directory), Some(bytes)) = (site.directory()?, site.common.read(&path, INDEX_MAX)?) else {
            return Ok(None);
        };
        let path = site.common.path().join(path);
        let index_mode = fs::symlink_metadata(&path).map_err(io("look at", &path))?.permissions().mode();
        let Some(index) = Index::read(&bytes, worktree.commit.len() / 2) else { return Ok(None) };
        let tree = tree(&index);
        let source = Self { directory, index, index_mode: index_mode & 0o777, tree };
        let sound = source.pieces().par_iter().all(|piece| source.is_sound(piece));
        Ok(sound.then_some(source))
    }

    /// Copies it to the worktrees of `tasks`, which are registered and empty. What failed is returned, with its
    /// position there.
    pub(super) fn copy(&self, tasks: &[(&Task<'_>, Worktree)]) -> Vec<(usize, Error)> {
        let pieces = self.pieces();
        let mut failed = Vec::new();
        for (batch, tasks) in tasks.chunks(AT_ONCE).enumerate() {
            let first = batch * AT_ONCE;
            let copied = self.copy_to(&pieces, first, tasks);
            failed.extend(copied.err().map(|(at, error)| (at.unwrap_or(first), error)));
            if !failed.is_empty() {
                break;
            }
        }
        failed
    }

    fn copy_to(&self, pieces: &[Piece], first: usize, tasks: &[(&Task<'_>, Worktree)]) -> Result<(), Failed> {
        let targets = tasks
            .iter()
            .enumerate()
            .map(|(at, (task, worktree))| {
                self.target(first + at, task, worktree).map_err(|error| (Some(first + at), error))
            })
            .collect::<Result<Vec<_>, _>>()?;
        targets.par_iter().try_for_each(|target| self.make_directories(target))?;
        let modified = i64::try_from(clock::seconds()).unwrap_or(i64::MAX).saturating_sub(BACK);
        pieces.par_iter().with_max_len(1).try_for_each(|piece| self.copy_piece(piece, &targets, modified))?;
        targets.into_par_iter().try_for_each(|target| self.write_index(target))
    }

    fn target<'t>(
        &self,
        position: usize,
        task: &'t Task<'t>,
        worktree: &Worktree,
    ) -> Result<Target<'t>, Error> {
        let site = Site::of(task, worktree)?;
        let directory = site
            .directory()?
            .ok_or_else(|| Error::Refused(format!("{} is gone", site.worktree.display())))?;
        Ok(Target { position, task, site, directory, index: Mutex::new(self.index.of_a_copy()) })
    }

    fn make_directories(&self, target: &Target<'_>) -> Result<(), Failed> {
        let make = || {
            for directory in self.tree.iter().filter(|directory| !directory.directories.is_empty()) {
                let here = open(&target.directory, self.path(directory))?;
                for below in &directory.directories {
                    let name = self.path(&self.tree[*below]).file_name().unwrap_or_default();
                    copies::make_directory(&here, name)?;
                }
            }
            Ok(())
        };
        make().map_err(|error| (Some(target.position), error))
    }

    fn copy_piece(&self, piece: &Piece, targets: &[Target<'_>], modified: i64) -> Result<(), Failed> {
        let directory = &self.tree[piece.directory];
        let path = self.path(directory);
        let from = open(&self.directory, path).map_err(|error| (None, error))?;
        let to = targets
            .iter()
            .map(|target| open(&target.directory, path).map_err(|error| (Some(target.position), error)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut copier = Copier::new(&from, &to, modified);
        let cancel = targets.first().map(|target| &target.task.host.cancel);
        let mut made = Vec::with_capacity(piece.entries.len() * targets.len());
        let entries = &directory.entries[piece.entries.clone()];
        for at in entries {
            if cancel.is_some_and(Cancel::is_requested) {
                return Err((None, Error::Refused("interrupted".to_owned())));
            }
            let entry = &self.index.entries()[*at];
            let name = self.file_name(directory, entry);
            let expected = |stat: &_| self.index.is_of(entry, stat);
            let done = match entry.what {
                What::File => copier.file(name, expected, &mut made),
                What::Link => match copier.link(name, expected, &mut made) {
                    Ok(false) => copier.file(name, expected, &mut made),
                    other => other.map(drop),
                },
                What::Submodule => copier.directory(name, &mut made),
            };
            done.map_err(|(at, error)| (at.map(|at| targets[at].position), error.into()))?;
        }
        for (at, target) in targets.iter().enumerate() {
            let mut index = target.index.lock().unwrap_or_else(PoisonError::into_inner);
            let made = made.iter().skip(at).step_by(targets.len());
            for (entry, stat) in entries.iter().zip(made) {
                index.put(&self.index.entries()[*entry], stat);
            }
        }
        Ok(())
    }

    /// Writes the index by git's own protocol, after all the files that it is of.
    fn write_index(&self, target: Target<'_>) -> Result<(), Failed> {
        let (position, filled) = (target.position, target.task.filled);
        let bytes = target.index.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        let entry = target.site.entry_path();
        let (lock, index) = (entry.join("index.lock"), entry.join("index"));
        let write = || {
            let mut file = failpoint!("copy.create-index")
                .map_err(std::io::Error::from)
                .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(&lock))
                .map_err(io("create", &lock))?;
            failpoint!("copy.write-index")
                .map_err(std::io::Error::from)
                .and_then(|()| file.write_all(&bytes))
                .map_err(io("write", &lock))?;
            let mode = file.metadata().map_err(io("look at", &lock))?.permissions().mode();
            if mode & 0o777 != self.index_mode {
                let mode = fs::Permissions::from_mode(self.index_mode);
                file.set_permissions(mode).map_err(io("set the mode of", &lock))?;
            }
            failpoint!("copy.replace-index")
                .map_err(std::io::Error::from)
                .and_then(|()| fs::rename(&lock, &index))
                .map_err(io("replace", &index))
        };
        write().map_err(|error| (Some(position), error))?;
        filled.tell();
        Ok(())
    }

    /// Tells whether what stands there is what git put there last.
    fn is_sound(&self, piece: &Piece) -> bool {
        let directory = &self.tree[piece.directory];
        let Ok(from) = open(&self.directory, self.path(directory)) else { return false };
        directory.entries[piece.entries.clone()].iter().all(|at| {
            let entry = &self.index.entries()[*at];
            let stat = copies::stat(&from, self.file_name(directory, entry));
            stat.is_ok_and(|stat| entry.what == What::Submodule || self.index.is_of(entry, &stat))
        })
    }

    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (at, directory) in self.tree.iter().enumerate() {
            for start in (0..directory.entries.len()).step_by(FILES) {
                let end = directory.entries.len().min(start + FILES);
                pieces.push(Piece { directory: at, entries: start..end });
            }
        }
        pieces
    }

    fn path(&self, directory: &Directory) -> &Path {
        match self.index.entries().get(directory.entry) {
            Some(entry) => as_path(&self.index.name(entry)[..directory.length]),
            None => Path::new(""),
        }
    }

    fn file_name(&self, directory: &Directory, entry: &Entry) -> &OsStr {
        let slash = usize::from(directory.length > 0);
        OsStr::from_bytes(&self.index.name(entry)[directory.length + slash..])
    }
}

/// What one thread copies in one go.
struct Piece {
    directory: usize,
    entries: Range<usize>,
}

/// The directories of an index, each after the one that it lies in.
fn tree(index: &Index) -> Vec<Directory> {
    let directory = |entry, length| Directory { entry, length, directories: Vec::new(), entries: Vec::new() };
    let mut tree = vec![directory(0, 0)];
    // The directories that the entry before lies in, from the top down: entries are sorted.
    let mut open = vec![0];
    for (at, entry) in index.entries().iter().enumerate() {
        let name = index.name(entry);
        let is_in = |directory: &Directory| {
            let before = index.name(&index.entries()[directory.entry]);
            directory.length == 0
                || (name.get(directory.length) == Some(&b'/')
                    && name[..directory.length] == before[..directory.length])
        };
        while open.len() > 1 && !is_in(&tree[open[open.len() - 1]]) {
            open.pop();
        }
        let mut inner = open[open.len() - 1];
        let known = tree[inner].length;
        let below = known + usize::from(known > 0);
        let slashes = name[below..].iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (slash, _) in slashes {
            let new = tree.len();
            tree.push(directory(at, below + slash));
            tree[inner].directories.push(new);
            inner = new;
            open.push(inner);
        }
        tree[inner].entries.push(at);
    }
    tree
}

fn open(root: &Root, path: &Path) -> Result<Root, Error> {
    root.directory(path)?
        .ok_or_else(|| Error::Refused(format!("{} is gone", root.path().join(path).display())))
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
