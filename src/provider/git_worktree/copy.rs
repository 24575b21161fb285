//! Copies a worktree that git has filled, and nobody has been at work in yet.
//!
//! What is copied is what the index lists: nothing untracked comes along. Several copies are made at once, so that each
//! file is read once for all of them, and the work is divided by directories among the threads of the run. Then each
//! copy gets the index with what the file system says of its own files, so that the first `git status` opens none.

#![expect(clippy::disallowed_methods, reason = "writes the index of an entry")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::Worktree;
use super::index::{Index, OfACopy, What};
use super::site::{Site, io};
use super::tree::{Piece, Tree};
use crate::host::clock;
use crate::host::failpoint::failpoint;
use crate::host::files::Root;
use crate::host::files::copies::{self, Copier};
use crate::host::process::Cancel;
use crate::provider::{Error, Task};

/// How many copies are made at once: each has its index in memory, and in each thread one directory open.
const AT_ONCE: usize = 8;

/// The largest index that is copied, in bytes: that of some ten million files.
const INDEX_MAX: usize = 1 << 30;

/// How far back the times of copied files are set, in seconds. A file as new as the index is read by the first `git
/// status`: it may have been changed within the same tick of the clock, which may be two seconds long.
const BACK: i64 = 3;

/// A worktree to copy.
pub(super) struct Source {
    directory: Root,
    tree: Tree,
    index_mode: u32,
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
        let source = Self { directory, tree: Tree::of(index), index_mode: index_mode & 0o777 };
        let sound = source.tree.pieces().par_iter().all(|piece| source.is_sound(piece));
        Ok(sound.then_some(source))
    }

    /// Copies it to the worktrees of `tasks`, which are registered and empty. What failed is returned, with its
    /// position there.
    pub(super) fn copy(&self, tasks: &[(&Task<'_>, Worktree)]) -> Vec<(usize, Error)> {
        let pieces = self.tree.pieces();
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

    fn copy_to(
        &self,
        pieces: &[Piece<'_>],
        first: usize,
        tasks: &[(&Task<'_>, Worktree)],
    ) -> Result<(), Failed> {
        let targets = tasks
            .iter()
            .enumerate()
            .map(|(at, (task, worktree))| {
                self.target(first + at, task, worktree).map_err(|error| (Some(first + at), error))
            })
            .collect::<Result<Vec<_>, _>>()?;
        targets.par_iter().try_for_each(|target| {
            self.tree.make_directories(&target.directory).map_err(|error| (Some(target.position), error))
        })?;
        let modified = modified();
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
        Ok(Target { position, task, site, directory, index: Mutex::new(self.tree.index.of_a_copy()) })
    }

    fn copy_piece(&self, piece: &Piece<'_>, targets: &[Target<'_>], modified: i64) -> Result<(), Failed> {
        let index = &self.tree.index;
        let from = piece.open(&self.directory).map_err(|error| (None, error))?;
        let to = targets
            .iter()
            .map(|target| piece.open(&target.directory).map_err(|error| (Some(target.position), error)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut copier = Copier::new(&from, &to, modified);
        let cancel = targets.first().map(|target| &target.task.host.cancel);
        let mut made = Vec::with_capacity(piece.len() * targets.len());
        for (entry, name) in piece.entries() {
            if cancel.is_some_and(Cancel::is_requested) {
                return Err((None, Error::Refused("interrupted".to_owned())));
            }
            let expected = |stat: &_| index.is_of(entry, stat);
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
            let mut own = target.index.lock().unwrap_or_else(PoisonError::into_inner);
            let made = made.iter().skip(at).step_by(targets.len());
            for ((entry, _), stat) in piece.entries().zip(made) {
                own.put(entry, stat);
            }
        }
        Ok(())
    }

    /// Writes the index, after all the files that it is of.
    fn write_index(&self, target: Target<'_>) -> Result<(), Failed> {
        let (position, filled) = (target.position, target.task.filled);
        let bytes = target.index.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        let index = target.site.entry_path().join("index");
        write_index(&index, &bytes, self.index_mode).map_err(|error| (Some(position), error))?;
        filled.tell();
        Ok(())
    }

    /// Tells whether what stands there is what git put there last.
    fn is_sound(&self, piece: &Piece<'_>) -> bool {
        let Ok(from) = piece.open(&self.directory) else { return false };
        piece.entries().all(|(entry, name)| {
            let stat = copies::stat(&from, name);
            stat.is_ok_and(|stat| entry.what == What::Submodule || self.tree.index.is_of(entry, &stat))
        })
    }
}

/// The time that copied files are given, in seconds.
pub(super) fn modified() -> i64 {
    i64::try_from(clock::seconds()).unwrap_or(i64::MAX).saturating_sub(BACK)
}

/// Writes an index with this mode by git's own protocol: nobody reads half of it, and two do not write it at once.
pub(super) fn write_index(index: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let lock = index.with_extension("lock");
    let mut file = failpoint!("copy.create-index")
        .map_err(std::io::Error::from)
        .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(&lock))
        .map_err(io("create", &lock))?;
    failpoint!("copy.write-index")
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(bytes))
        .map_err(io("write", &lock))?;
    let own = file.metadata().map_err(io("look at", &lock))?.permissions().mode();
    if own & 0o777 != mode {
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io("set the mode of", &lock))?;
    }
    failpoint!("copy.replace-index")
        .map_err(std::io::Error::from)
        .and_then(|()| fs::rename(&lock, index))
        .map_err(io("replace", index))
}
