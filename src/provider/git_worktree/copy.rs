//! Copies files into worktrees that are registered and empty, and gives each an index of its own.
//!
//! Only files that an index lists are copied, and nothing untracked. Each file is read once for many worktrees, and the
//! threads of the run divide the work by directories. Then each worktree gets an index with the stat data of its own
//! files, so that the first `git status` opens none.

#![expect(clippy::disallowed_methods, reason = "writes the index of a worktree")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rustix::fs::Stat;

use super::Worktree;
use super::index::{self, CopyIndex, Entry, EntryType, Index};
use super::paths::{WorktreePaths, io};
use super::tree::{Batch, Tree};
use crate::host::clock;
use crate::host::failpoint::failpoint;
use crate::host::files::Root;
use crate::host::files::copies::{self, Files};
use crate::host::process::Cancel;
use crate::provider::{Error, Task};

/// Maximum number of worktrees that are populated at the same time: each has its index in memory.
pub(super) const AT_ONCE: usize = 32;

/// Maximum total length of names as arguments of a program, in bytes. The smallest limit of Linux is four times that.
const NAMES_MAX: usize = 32 * 1024;

/// Seconds by which the times of copied files are set back. The first `git status` reads a file that is as new as the
/// index. Such a file may have been changed within the same tick of the clock, and a tick may be two seconds long.
const BACK: i64 = 3;

/// Registered worktrees to copy to, in the order of their tasks.
pub(super) struct Destinations<'t>(Vec<Destination<'t>>);

struct Destination<'t> {
    task: &'t Task<'t>,
    paths: WorktreePaths,
    directory: Root,
}

/// Files that worktrees have got from a commit's tree. The first worktree has an index that lists them.
pub(super) struct PartialCopy<'p> {
    pub(super) tree: Tree,
    /// Positions of the entries that are still missing.
    pub(super) missing: BTreeSet<usize>,
    /// `true` if some of the missing entries go through a filter.
    pub(super) is_filtered: bool,
    pub(super) others: Vec<Target<'p>>,
    /// Mode that Git gives an index in this repository.
    pub(super) index_mode: u32,
}

/// A worktree that Git has populated, and in which no program has worked yet.
pub(super) struct Source {
    directory: Root,
    tree: Tree,
    /// Absolute path of the index.
    index: PathBuf,
    index_mode: u32,
}

/// A worktree that is being populated, and its index.
pub(super) struct Target<'d> {
    directory: &'d Root,
    index: Mutex<CopyIndex>,
}

/// Error, with the position of the target worktree; `None` if the source failed.
pub(super) type Failed = (Option<usize>, Error);

impl<'t> Destinations<'t> {
    pub(super) fn open(tasks: &'t [(&'t Task<'t>, Worktree)]) -> Result<Self, Failed> {
        let destination = |(task, worktree): &'t (&'t Task<'t>, Worktree)| {
            let paths = WorktreePaths::new(task, worktree)?;
            let directory = paths.open()?;
            Ok(Destination { task, paths, directory })
        };
        let destinations =
            tasks.iter().enumerate().map(|(at, task)| destination(task).map_err(|error| (Some(at), error)));
        Ok(Self(destinations.collect::<Result<_, _>>()?))
    }

    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Creates the directories that files are copied into.
    pub(super) fn make_directories(&self, tree: &Tree) -> Result<(), Failed> {
        self.0.par_iter().enumerate().try_for_each(|(at, destination)| {
            tree.make_directories(&destination.directory).map_err(|error| (Some(at), error))
        })
    }

    /// Returns targets that are to get everything that `tree` lists.
    pub(super) fn targets(&self, tree: &Tree) -> Vec<Target<'_>> {
        self.0.iter().map(|destination| Target::new(&destination.directory, tree)).collect()
    }

    /// Writes the indexes of targets of these worktrees that have all their files.
    pub(super) fn finish(&self, targets: Vec<Target<'_>>, index_mode: u32) -> Result<(), Failed> {
        self.finish_with(targets, index_mode, |_, _| Ok(()))
    }

    /// Writes the indexes like [`Self::finish`], for targets that have all their files only after `last`.
    pub(super) fn finish_with(
        &self,
        targets: Vec<Target<'_>>,
        index_mode: u32,
        last: impl Fn(&Task<'_>, &WorktreePaths) -> Result<(), Error> + Sync,
    ) -> Result<(), Failed> {
        let filled = self.0.par_iter().zip(targets).enumerate();
        filled.try_for_each(|(at, (Destination { task, paths, .. }, target))| {
            target
                .write_index(&paths.admin_directory_path().join("index"), index_mode)
                .and_then(|()| last(task, paths))
                .map_err(|error| (Some(at), error))?;
            task.on_populated.notify();
            Ok(())
        })
    }
}

impl PartialCopy<'_> {
    /// Returns whether nothing is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Returns the names of the missing entries if Git writes them faster by name, and `None` otherwise. That is so for
    /// few files, which Git writes one after another. When Git writes a whole tree, it starts many filters at the same
    /// time.
    pub(super) fn few_missing(&self) -> Option<Vec<&OsStr>> {
        let entries = self.missing.iter().map(|at| &self.tree.index.entries()[*at]);
        let names: Vec<_> = entries.map(|entry| OsStr::from_bytes(self.tree.index.name(entry))).collect();
        let is_short = names.iter().map(|name| name.len() + 1).sum::<usize>() <= NAMES_MAX;
        (is_short && !self.is_filtered).then_some(names)
    }
}

impl Source {
    /// Returns the worktree of `task`, which Git has populated; `None` if its index is not supported.
    pub(super) fn open(task: &Task<'_>, worktree: &Worktree) -> Result<Option<Self>, Error> {
        let paths = WorktreePaths::new(task, worktree)?;
        let Some(directory) = paths.directory()? else { return Ok(None) };
        Self::at(directory, &paths.common, &paths.admin_directory.join("index"), worktree.commit.len() / 2)
    }

    /// Returns any directory as a source. Its index lies below `root` and has ids of `id` bytes.
    pub(super) fn at(directory: Root, root: &Root, index: &Path, id: usize) -> Result<Option<Self>, Error> {
        let Some(bytes) = root.read(index, index::MAX)? else { return Ok(None) };
        let Some(read) = Index::read(&bytes, id) else { return Ok(None) };
        let index = root.path().join(index);
        let index_mode = index_mode(&index)?;
        Ok(Some(Self { directory, tree: Tree::new(read), index, index_mode }))
    }

    /// Returns whether the stat data of the wanted files equals that of the index, by the positions of entries. If not,
    /// another process has changed a file since Git wrote it, or Git could not notice such a change.
    pub(super) fn is_unchanged(&self, is_wanted: impl Fn(usize) -> bool) -> bool {
        self.tree.batches(is_wanted).par_iter().all(|batch| {
            let Ok(from) = batch.open(&self.directory) else { return false };
            batch.entries().all(|(_, entry, name)| {
                let stat = copies::stat(&from, name);
                stat.is_ok_and(|stat| {
                    entry.what == EntryType::Submodule || self.tree.index.is_of(entry, &stat)
                })
            })
        })
    }

    /// Sets back the times of the wanted files, which Git has just written, like those of copies, and writes them into
    /// the index.
    pub(super) fn set_back(mut self, is_wanted: impl Fn(usize) -> bool) -> Result<Self, Error> {
        let own = Target::new(&self.directory, &self.tree);
        let modified = modified();
        self.tree.batches(is_wanted).par_iter().try_for_each(|batch| {
            let here = batch.open(&self.directory)?;
            let files = batch.entries().filter(|(_, entry, _)| entry.what != EntryType::Submodule);
            let stats =
                files.map(|(_, entry, name)| Ok((entry, copies::set_modified(&here, name, modified)?)));
            own.put(stats.collect::<Result<Vec<_>, Error>>()?);
            Ok::<_, Error>(())
        })?;
        let index = own.into_index();
        self.tree.index.take_stat_data(&index);
        write_index(&self.index, &index.finish(), Some(self.index_mode))?;
        Ok(self)
    }

    /// Copies the worktree to empty ones.
    pub(super) fn copy(&self, destinations: &Destinations<'_>) -> Result<(), Failed> {
        destinations.make_directories(&self.tree)?;
        let targets = destinations.targets(&self.tree);
        self.copy_to(&self.tree.batches(|_| true), destinations, &targets)?;
        destinations.finish(targets, self.index_mode)
    }

    /// Returns whether the index lists the same entries as a tree, at the same positions.
    pub(super) fn lists(&self, tree: &Tree) -> bool {
        self.tree.index.has_same_entries(&tree.index)
    }

    /// Copies the entries that are missing to worktrees.
    pub(super) fn complete(
        &self,
        destinations: &Destinations<'_>,
        partial: PartialCopy<'_>,
    ) -> Result<(), Failed> {
        self.copy_to(&self.tree.batches(|at| partial.missing.contains(&at)), destinations, &partial.others)?;
        destinations.finish(partial.others, self.index_mode)
    }

    fn copy_to(
        &self,
        batches: &[Batch<'_>],
        destinations: &Destinations<'_>,
        targets: &[Target<'_>],
    ) -> Result<(), Failed> {
        let Some(first) = destinations.0.first() else { return Ok(()) };
        let cancel = &first.task.host.cancel;
        let modified = modified();
        batches.par_iter().with_max_len(1).try_for_each(|batch| {
            let from = batch.open(&self.directory).map_err(|error| (None, error))?;
            let files = Files::new(&from, modified);
            copy_batch(batch, files, targets, cancel, |files, entry, name| self.take(files, entry, name))
                .map(drop)
        })
    }

    fn take<'t>(&self, files: &mut Files<'t>, entry: &Entry, name: &'t OsStr) -> Result<bool, Error> {
        let expected = |stat: &_| self.tree.index.is_of(entry, stat);
        match entry.what {
            EntryType::Submodule => files.directory(name),
            EntryType::Link if files.link(name, expected)? => {}
            EntryType::Link | EntryType::File => files.file(name, expected)?,
        }
        Ok(true)
    }
}

impl<'d> Target<'d> {
    /// Returns an empty directory as a target for the entries of `tree`.
    pub(super) fn new(directory: &'d Root, tree: &Tree) -> Self {
        Self { directory, index: Mutex::new(tree.index.for_copy()) }
    }

    /// Writes the index. All its files have to exist before.
    pub(super) fn write_index(self, index: &Path, mode: u32) -> Result<(), Error> {
        write_index(index, &self.into_index().finish(), Some(mode))
    }

    fn into_index(self) -> CopyIndex {
        self.index.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, batch: &Batch<'_>, files: &Files<'_>, entries: &[&Entry]) -> Result<(), Error> {
        let stats = files.write(&batch.open(self.directory)?)?;
        self.put(entries.iter().copied().zip(stats));
        Ok(())
    }

    /// Writes the stat data of the file system into entries of the index.
    fn put<'e>(&self, stats: impl IntoIterator<Item = (&'e Entry, Stat)>) {
        let mut own = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for (entry, stat) in stats {
            own.put(entry, &stat);
        }
    }
}

/// Takes the files of a piece one by one with `take`, writes the taken files to every target, and returns their
/// positions.
pub(super) fn copy_batch<'t>(
    batch: &Batch<'t>,
    mut files: Files<'t>,
    targets: &[Target<'_>],
    cancel: &Cancel,
    take: impl Fn(&mut Files<'t>, &Entry, &'t OsStr) -> Result<bool, Error>,
) -> Result<Vec<usize>, Failed> {
    let mut entries = Vec::new();
    let mut positions = Vec::new();
    let write = |files: &mut Files<'_>, entries: &mut Vec<&Entry>| {
        for (at, target) in targets.iter().enumerate().filter(|_| !entries.is_empty()) {
            if cancel.is_requested() {
                return Err((None, Error::Interrupted));
            }
            target.write(batch, files, entries).map_err(|error| (Some(at), error))?;
        }
        files.clear();
        entries.clear();
        Ok(())
    };
    for (at, entry, name) in batch.entries() {
        if take(&mut files, entry, name).map_err(|error| (None, error))? {
            entries.push(entry);
            positions.push(at);
        }
        if files.are_many() {
            write(&mut files, &mut entries)?;
        }
    }
    write(&mut files, &mut entries)?;
    Ok(positions)
}

/// Returns the mode that Git gave an index.
pub(super) fn index_mode(index: &Path) -> Result<u32, Error> {
    Ok(fs::symlink_metadata(index).map_err(io("inspect", index))?.permissions().mode() & 0o777)
}

/// Returns the time that copied files get, in seconds.
pub(super) fn modified() -> i64 {
    i64::try_from(clock::seconds()).unwrap_or(i64::MAX).saturating_sub(BACK)
}

/// Writes an index by Git's own protocol: no other process reads half of it, and two do not write it at the same time.
/// With `None` the index gets the mode of any new file.
pub(super) fn write_index(index: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), Error> {
    let lock = index.with_extension("lock");
    let mut file = failpoint!("copy.create-index")
        .map_err(std::io::Error::from)
        .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(&lock))
        .map_err(io("create", &lock))?;
    failpoint!("copy.write-index")
        .map_err(std::io::Error::from)
        .and_then(|()| file.write_all(bytes))
        .map_err(io("write", &lock))?;
    let own = file.metadata().map_err(io("inspect", &lock))?.permissions().mode();
    if let Some(mode) = mode.filter(|mode| own & 0o777 != *mode) {
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io("set the mode of", &lock))?;
    }
    failpoint!("copy.replace-index")
        .map_err(std::io::Error::from)
        .and_then(|()| fs::rename(&lock, index))
        .map_err(io("replace", index))
}
