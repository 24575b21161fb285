//! Reads and writes the record of a directory. The record is a file beside the directory with the ownership marker, and
//! a list of the files with which the directory was created.
//!
//! The record is created before the directory and removed after it: a directory without a record is not seedbed's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::paths::DirectoryPaths;
use crate::host::files::{Root, copies};
use crate::provider::{Error, OwnershipMarker, Task, retry_while_missing};

/// Size limit of a record, in bytes: a million files with long names.
const MAX: usize = 256 << 20;

/// Word on the second line of a record whose directory is complete.
const COMPLETE: &str = "complete";

/// Record of one directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Line that marks the directory as a session's.
    pub(super) mark: String,
    /// Files with which the directory was created; `None` until it is complete.
    pub(super) contents: Option<Contents>,
}

/// Files of a directory by path, relative to it.
pub(super) type Contents = HashMap<PathBuf, Stamp>;

/// Stat data of a file that no program can set: files with equal stamps are the same file, unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Time of the last change of content or status (`ctime`), in nanoseconds.
    pub(super) changed: i128,
    size: i64,
    inode: u64,
}

impl Stamp {
    pub(super) fn new(stat: &Stat) -> Self {
        let (seconds, nanoseconds) = (i128::from(stat.st_ctime), i128::from(stat.st_ctime_nsec));
        Self { changed: seconds * 1_000_000_000 + nanoseconds, size: stat.st_size, inode: stat.st_ino }
    }
}

impl Record {
    /// Creates the record of a directory that is not complete.
    pub(super) fn new(task: &Task<'_>) -> Self {
        Self { mark: OwnershipMarker::line(task), contents: None }
    }

    /// Writes the record before its directory exists. A record of the same owner is replaced.
    pub(super) fn create(&self, task: &Task<'_>, paths: &DirectoryPaths) -> Result<(), Error> {
        let name = PathBuf::from(paths.record_name());
        let bytes = self.to_bytes();
        let is_new = retry_while_missing(|| {
            // Between the two steps, the directory may be removed with the last record in it.
            Ok(paths.base.create_hidden(&paths.parent)?.create_new(&name, &bytes)?)
        })?;
        if is_new {
            return Ok(());
        }
        owned(task, paths)?;
        self.replace(paths)
    }

    /// Replaces the record.
    pub(super) fn replace(&self, paths: &DirectoryPaths) -> Result<(), Error> {
        Ok(paths.base.replace(&paths.record(), &self.to_bytes())?)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\n", self.mark).into_bytes();
        let Some(contents) = &self.contents else { return bytes };
        bytes.extend([COMPLETE.as_bytes(), b"\n"].concat());
        let mut files: Vec<_> = contents.iter().collect();
        files.sort_unstable_by_key(|(path, _)| *path);
        for (path, Stamp { changed, size, inode }) in files {
            let mut line = String::new();
            let _ = write!(line, "{changed} {size} {inode} ");
            bytes.extend([line.as_bytes(), path.as_os_str().as_bytes(), b"\0"].concat());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mark, rest) = line(bytes)?;
        let mark = String::from_utf8(mark.to_vec()).ok()?;
        let contents = match line(rest) {
            Some((word, files)) if word == COMPLETE.as_bytes() => {
                let files = files.split(|byte| *byte == 0).filter(|file| !file.is_empty());
                Some(files.map(file).collect::<Option<_>>()?)
            }
            _ => None,
        };
        Some(Self { mark, contents })
    }
}

/// Splits text at its first line feed.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Parses a file of a record: `CHANGED SIZE INODE PATH`.
fn file(bytes: &[u8]) -> Option<(PathBuf, Stamp)> {
    let mut words = bytes.splitn(4, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok();
    let stamp = Stamp {
        changed: number()?.parse().ok()?,
        size: number()?.parse().ok()?,
        inode: number()?.parse().ok()?,
    };
    Some((PathBuf::from(OsStr::from_bytes(words.next()?)), stamp))
}

/// Reads the record of a directory; `None` if it does not exist or cannot be read.
pub(super) fn read(paths: &DirectoryPaths) -> Result<Option<Record>, Error> {
    Ok(paths.base.read(&paths.record(), MAX)?.and_then(|bytes| Record::parse(&bytes)))
}

/// Reads the record of a directory of the task's swarm; `None` if neither the record nor the directory exists.
///
/// A directory without a record, and one with the record of another swarm, is [`Error::Refused`].
pub(super) fn owned(task: &Task<'_>, paths: &DirectoryPaths) -> Result<Option<Record>, Error> {
    let found = read(paths)?;
    let owner = found.as_ref().and_then(|record| OwnershipMarker::parse(record.mark.as_bytes()));
    match owner {
        Some(mark) if mark.owner == task.owner => Ok(found),
        None if !paths.exists()? => Ok(None),
        mark => {
            let why = if mark.is_some() { "of another swarm" } else { "no ownership marker is beside it" };
            let path = paths.home_path();
            Err(Error::Refused(format!(
                "{} is not this swarm's: {why}; move it away and apply, which creates it again",
                path.display()
            )))
        }
    }
}

/// Lists the files of a directory with their stamps.
pub(super) fn contents(top: &Root) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    each_file(top, &|_| false, &mut |path, stat| {
        contents.insert(path.to_owned(), Stamp::new(stat));
    })?;
    Ok(contents)
}

/// Calls `see` for everything below a directory except subdirectories. Directories for which `is_foreign` is true are
/// left out. Paths are relative to `top`. After a directory that cannot be listed the others follow; its error is
/// returned at the end.
pub(super) fn each_file(
    top: &Root,
    is_foreign: &dyn Fn(&Path) -> bool,
    see: &mut dyn FnMut(&Path, &Stat),
) -> Result<(), Error> {
    let mut left = vec![PathBuf::new()];
    let mut listed = Ok(());
    while let Some(path) = left.pop() {
        let found = top
            .directory(&path)
            .and_then(|found| found.map(|directory| Ok((directory.names()?, directory))).transpose());
        let (names, directory) = match found {
            Ok(Some(found)) => found,
            // Other processes may remove a listed file.
            Ok(None) => continue,
            Err(error) => {
                listed = listed.and(Err(error.into()));
                continue;
            }
        };
        for name in names {
            let below = path.join(&name);
            let Ok(stat) = copies::stat(&directory, &name) else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if is_foreign(&below) => {}
                FileType::Directory => left.push(below),
                _ => see(&below, &stat),
            }
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written_with_any_path() {
        let stamp = Stamp { changed: 1_700_000_000_123_456_789, size: 5, inode: 42 };
        let file_paths =
            [&b"a b/c\nd"[..], b"\xff", b"plain"].map(|path| PathBuf::from(OsStr::from_bytes(path)));
        let contents = Some(file_paths.map(|path| (path, stamp)).into());
        for contents in [None, Some(Contents::new()), contents] {
            let record = Record { mark: "seedbed a/b 0123".to_owned(), contents };
            assert_eq!(Record::parse(&record.to_bytes()), Some(record));
        }
        assert_eq!(Record::parse(b""), None);
        assert_eq!(Record::parse(b"seedbed a 01\ncomplete\n1 2 x\0"), None);
    }
}
