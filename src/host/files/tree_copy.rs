//! Copies a directory with everything below it to several empty directories, with all cores.
//!
//! Links are copied as they are. Hard links become files of their own. Sockets, FIFOs and devices are left out.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use rustix::fs::{FileType, Mode};

use super::super::process::Cancel;
use super::copies::{self, Files};
use super::{Error, Root, io};

/// Maximum number of files of a directory that one thread copies in a piece.
const FILES: usize = 256;

/// Names, types and sizes of everything below a directory.
pub(crate) struct Listing {
    /// Directories, each after the one that contains it; the first is the top.
    directories: Vec<(PathBuf, Mode)>,
    /// Files and links, as many as one thread copies in a piece.
    batches: Vec<Batch>,
    /// Number of files and links.
    pub(crate) files: u64,
    /// Bytes of the files.
    pub(crate) bytes: u64,
}

/// Files and links of one directory.
struct Batch {
    /// Position of the directory.
    directory: usize,
    files: Vec<Listed>,
}

/// A file or link.
#[derive(Clone)]
struct Listed {
    name: OsString,
    what: FileType,
    bytes: u64,
}

/// Reason for which a tree was not copied.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The run was cancelled.
    Cancelled,
    /// A file could not be copied.
    File(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

impl Listing {
    /// Lists everything below a directory.
    pub(crate) fn read(top: &Root) -> Result<Self, Error> {
        let found = rustix::fs::fstat(top).map_err(io("inspect", top.path()))?;
        let directories = vec![(PathBuf::new(), Mode::from_raw_mode(found.st_mode & 0o777))];
        let mut listing = Self { directories, batches: Vec::new(), files: 0, bytes: 0 };
        let mut at = 0;
        while at < listing.directories.len() {
            listing.read_directory(top, at)?;
            at += 1;
        }
        Ok(listing)
    }

    fn read_directory(&mut self, top: &Root, directory: usize) -> Result<(), Error> {
        let path = self.directories[directory].0.clone();
        let here = open(top, &path)?;
        let mut files = Vec::new();
        for name in here.names()? {
            let found = copies::stat(&here, &name).map_err(|source| Error::Io {
                action: "inspect",
                path: here.path().join(&name),
                source,
            })?;
            let bytes = found.st_size.unsigned_abs();
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => {
                    self.directories.push((path.join(name), Mode::from_raw_mode(found.st_mode & 0o777)));
                }
                what @ FileType::RegularFile => {
                    self.bytes += bytes;
                    files.push(Listed { name, what, bytes });
                }
                what @ FileType::Symlink => files.push(Listed { name, what, bytes }),
                _ => {}
            }
        }
        self.files += files.len() as u64;
        self.batches.extend(files.chunks(FILES).map(|files| Batch { directory, files: files.to_vec() }));
        Ok(())
    }

    /// Returns the symbolic links, relative to the top, with their targets.
    pub(crate) fn links(&self, top: &Root) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
        let mut links = Vec::new();
        for path in self.paths(|listed| listed.what == FileType::Symlink) {
            let (directory, name) = split(top, &path)?;
            let target = rustix::fs::readlinkat(&directory, name, Vec::new())
                .map_err(io("read", &top.path().join(&path)))?;
            links.push((path, PathBuf::from(OsStr::from_bytes(target.as_bytes()))));
        }
        Ok(links)
    }

    /// Returns the regular files of at most `max` bytes, relative to the top.
    pub(crate) fn small_files(&self, max: u64) -> Vec<PathBuf> {
        self.paths(|listed| listed.what == FileType::RegularFile && listed.bytes <= max).collect()
    }

    fn paths(&self, is_wanted: impl Fn(&Listed) -> bool) -> impl Iterator<Item = PathBuf> {
        let all = self.batches.iter().flat_map(|batch| batch.files.iter().map(move |listed| (batch, listed)));
        all.filter(move |(_, listed)| is_wanted(listed))
            .map(|(batch, listed)| self.directories[batch.directory].0.join(&listed.name))
    }

    /// Copies everything to empty directories. Copies have the times of their sources, but none after `latest`, in
    /// seconds. Returns the bytes of one copy that share blocks with their sources.
    ///
    /// The error names the position of the directory that could not be written; `None` if a source could not be read.
    pub(crate) fn copy(
        &self,
        top: &Root,
        to: &[Root],
        latest: i64,
        cancel: &Cancel,
    ) -> Result<u64, (Option<usize>, Failure)> {
        let shared = AtomicU64::new(0);
        to.par_iter().enumerate().try_for_each(|(at, to)| {
            let created = self.directories.iter().skip(1).try_for_each(|(path, _)| {
                let (above, name) = split(to, path)?;
                copies::make_directory(&above, name).map(drop)
            });
            created.map_err(|error| (Some(at), error.into()))
        })?;
        self.batches.par_iter().with_max_len(1).try_for_each(|batch| {
            shared.fetch_add(self.copy_batch(batch, top, to, latest, cancel)?, Ordering::Relaxed);
            Ok(())
        })?;
        to.par_iter().enumerate().try_for_each(|(at, to)| {
            self.complete_directories(top, to, latest).map_err(|error| (Some(at), error.into()))
        })?;
        Ok(shared.into_inner() / to.len().max(1) as u64)
    }

    fn copy_batch(
        &self,
        batch: &Batch,
        top: &Root,
        to: &[Root],
        latest: i64,
        cancel: &Cancel,
    ) -> Result<u64, (Option<usize>, Failure)> {
        let path = &self.directories[batch.directory].0;
        let from = open(top, path).map_err(|error| (None, error.into()))?;
        let mut files = Files::with_own_times(&from, latest);
        let mut left = batch.files.iter().peekable();
        while let Some(Listed { name, what, .. }) = left.next() {
            let added = match *what {
                FileType::Symlink => files.link(name, |_| true).map(drop),
                _ => files.file(name, |_| true),
            };
            added.map_err(|error| (None, error.into()))?;
            if !files.are_many() && left.peek().is_some() {
                continue;
            }
            for (at, to) in to.iter().enumerate() {
                if cancel.is_requested() {
                    return Err((None, Failure::Cancelled));
                }
                let written = open(to, path).and_then(|to| files.write(&to).map(drop));
                written.map_err(|error| (Some(at), error.into()))?;
            }
            files.clear();
        }
        Ok(files.shared_bytes())
    }

    /// Gives the directories the permissions and times of their sources, inner ones first.
    fn complete_directories(&self, top: &Root, to: &Root, latest: i64) -> Result<(), Error> {
        for (path, mode) in self.directories.iter().rev() {
            let (from, to) = (open(top, path)?, open(to, path)?);
            let found = rustix::fs::fstat(&from).map_err(io("inspect", from.path()))?;
            rustix::fs::futimens(&to, &copies::times_of(&found, latest))
                .map_err(io("set the time of", to.path()))?;
            rustix::fs::fchmod(&to, *mode).map_err(io("set the mode of", to.path()))?;
        }
        Ok(())
    }
}

/// Opens the directory of a path below `top`, and returns it with the last name of the path.
pub(crate) fn split<'p>(top: &Root, path: &'p Path) -> Result<(Root, &'p OsStr), Error> {
    let directory = open(top, path.parent().unwrap_or(Path::new("")))?;
    Ok((directory, path.file_name().unwrap_or_default()))
}

fn open(top: &Root, path: &Path) -> Result<Root, Error> {
    top.directory(path)?.ok_or_else(|| io("open", &top.path().join(path))(rustix::io::Errno::NOENT))
}

#[cfg(test)]
mod tests;
