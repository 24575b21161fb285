//! Reads and writes the record of a directory. The record is a file beside the directory with the ownership marker, and
//! a list of the files with which the directory was created.
//!
//! The record is created before the directory and removed after it: a directory without a record is not seedbed's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::paths::DirectoryPaths;
use crate::host::files::{Root, copies};
use crate::provider::{Error, OwnershipMarker, Task, retry_while_missing};

/// Size limit of a record, in bytes: a million files with long names.
const MAX: usize = 256 << 20;

/// Size limit of the first two lines of a record, in bytes.
const HEAD_MAX: u64 = 4096;

/// Record of one directory, without the list of its files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Line that marks the directory as a session's.
    marker: String,
    /// Progress with which the directory was created.
    pub(super) stage: Stage,
}

/// Progress with which a directory was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The directory is not known to exist. Another program may have created the directory at its path.
    Planned,
    /// The directory was created by the run. Its files may be incomplete.
    Created,
    /// The directory is complete, and the record lists its files.
    Complete,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Planned, Self::Created, Self::Complete];

    /// Returns the second line of a record.
    fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Created => "created",
            Self::Complete => "complete",
        }
    }
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
    /// Parses the first two lines of a record, and returns what follows them.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (marker, rest) = line(bytes)?;
        let (word, rest) = line(rest)?;
        let stage = Stage::ALL.into_iter().find(|stage| stage.word().as_bytes() == word)?;
        Some((Self { marker: String::from_utf8(marker.to_vec()).ok()?, stage }, rest))
    }

    /// Returns whether the directory belongs to the swarm with this ownership marker.
    pub(super) fn is_of(&self, owner: &str) -> bool {
        self.marker().is_some_and(|marker| marker.owner == owner)
    }

    fn marker(&self) -> Option<OwnershipMarker> {
        OwnershipMarker::parse(self.marker.as_bytes())
    }
}

/// Writes the record before its directory exists. A record of the same owner is replaced.
pub(super) fn create(task: &Task<'_>, paths: &DirectoryPaths) -> Result<(), Error> {
    let name = PathBuf::from(paths.record_name());
    let bytes = head(task, Stage::Planned);
    let is_new = retry_while_missing(|| {
        // Between the two steps, the directory may be removed with the last record in it.
        Ok(paths.base.create_hidden(&paths.parent)?.create_new(&name, &bytes)?)
    })?;
    if is_new {
        return Ok(());
    }
    owned(task, paths)?;
    Ok(paths.base.replace(&paths.record(), &bytes)?)
}

/// Records that the run itself has created the directory.
pub(super) fn set_created(task: &Task<'_>, paths: &DirectoryPaths) -> Result<(), Error> {
    Ok(paths.base.replace(&paths.record(), &head(task, Stage::Created))?)
}

/// Records that the directory is complete, with its files.
pub(super) fn set_complete(
    task: &Task<'_>,
    paths: &DirectoryPaths,
    contents: &Contents,
) -> Result<(), Error> {
    let bytes = [head(task, Stage::Complete), listed(contents)].concat();
    Ok(paths.base.replace(&paths.record(), &bytes)?)
}

/// Replaces the ownership marker by the task's, and keeps the rest of the record.
pub(super) fn set_owner(task: &Task<'_>, paths: &DirectoryPaths) -> Result<(), Error> {
    let bytes = paths.base.read(&paths.record(), MAX)?;
    let Some((record, rest)) = bytes.as_deref().and_then(Record::parse) else { return Ok(()) };
    Ok(paths.base.replace(&paths.record(), &[&head(task, record.stage), rest].concat())?)
}

/// Returns the first two lines of a record of the task's swarm.
fn head(task: &Task<'_>, stage: Stage) -> Vec<u8> {
    format!("{}\n{}\n", OwnershipMarker::line(task), stage.word()).into_bytes()
}

/// Returns the lines of a record that list files.
fn listed(contents: &Contents) -> Vec<u8> {
    let mut files: Vec<_> = contents.iter().collect();
    files.sort_unstable_by_key(|(path, _)| *path);
    let mut bytes = Vec::new();
    for (path, Stamp { changed, size, inode }) in files {
        bytes.extend(format!("{changed} {size} {inode} ").bytes());
        bytes.extend([path.as_os_str().as_bytes(), b"\0"].concat());
    }
    bytes
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

/// Parses the lines of a record that list files; `None` if one of them is invalid.
fn parse_contents(bytes: &[u8]) -> Option<Contents> {
    bytes.split(|byte| *byte == 0).filter(|file| !file.is_empty()).map(file).collect()
}

/// Reads the record of a directory; `None` if it does not exist or cannot be read.
pub(super) fn read(paths: &DirectoryPaths) -> Result<Option<Record>, Error> {
    let bytes = paths.base.read_start(&paths.record(), HEAD_MAX)?;
    Ok(bytes.and_then(|bytes| Some(Record::parse(&bytes)?.0)))
}

/// Reads the files with which a directory was created; `None` if it is not complete.
pub(super) fn original_contents(paths: &DirectoryPaths) -> Result<Option<Contents>, Error> {
    let bytes = paths.base.read(&paths.record(), MAX)?;
    let Some((record, files)) = bytes.as_deref().and_then(Record::parse) else { return Ok(None) };
    Ok(parse_contents(files).filter(|_| record.stage == Stage::Complete))
}

/// Reads the record of a directory of the task's swarm; `None` if neither the record nor the directory exists.
///
/// A directory without a record, and one with the record of another swarm, is [`Error::Refused`].
pub(super) fn owned(task: &Task<'_>, paths: &DirectoryPaths) -> Result<Option<Record>, Error> {
    let found = read(paths)?;
    let marker = found.as_ref().and_then(Record::marker);
    match marker {
        Some(marker) if marker.owner == task.owner => Ok(found),
        None if !paths.exists()? => Ok(None),
        marker => {
            let why = if marker.is_some() { "of another swarm" } else { "no ownership marker is beside it" };
            let path = paths.home_path();
            Err(Error::Refused(format!(
                "{} is not this swarm's: {why}; move it away and apply, which creates it again",
                path.display()
            )))
        }
    }
}

/// Lists the files of a directory with their stamps, except for those of other resources in it.
pub(super) fn contents(top: &Root, of_others: &[String]) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    let is_of_other = |path: &Path| of_others.iter().any(|name| path == Path::new(name));
    each_file(top, &is_of_other, &mut |path, stat| {
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
        let contents: Contents = file_paths.map(|path| (path, stamp)).into();
        assert_eq!(parse_contents(&listed(&contents)), Some(contents));
        assert_eq!(parse_contents(b""), Some(Contents::new()));
        assert_eq!(parse_contents(b"1 2 x\0"), None);
    }

    #[test]
    fn the_first_lines_of_a_record_are_its_marker_and_its_stage() {
        let parse = |bytes: &'static [u8]| Record::parse(bytes).map(|(record, rest)| (record.stage, rest));
        assert_eq!(parse(b"seedbed a 01\nplanned\n"), Some((Stage::Planned, &b""[..])));
        assert_eq!(parse(b"seedbed a 01\ncreated\n"), Some((Stage::Created, &b""[..])));
        assert_eq!(parse(b"seedbed a 01\ncomplete\n1 2 3 x\0"), Some((Stage::Complete, &b"1 2 3 x\0"[..])));
        for torn in [&b""[..], b"seedbed a 01", b"seedbed a 01\n", b"seedbed a 01\ncomp"] {
            assert_eq!(parse(torn), None);
        }
    }
}
