//! Records the files that `copy` brought into a worktree, in its admin directory.
//!
//! A copy that no process has written since it was made is untouched. A copy with the recorded content is untouched
//! too, even if the file in the workspace was changed or removed. A file of the workspace that does not have the copied
//! content has changed since it was copied. A large copy is not read when it is made, so that it costs no more than
//! sharing its blocks. Its content is known while its [`State`] is the recorded one.

#![expect(clippy::disallowed_methods, reason = "reads files of the workspace and of worktrees")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

use super::paths::WorktreePaths;
use crate::name::{Sha256Hasher, sha256_hex};
use crate::provider::Error;

/// Name of the record in the admin directory.
pub(super) const RECORD: &str = "seedbed-copies";

/// First line of the record, which names the version of its format.
const HEAD: &[u8] = b"seedbed copies 2\n";

/// Size limit of a record, in bytes.
const RECORD_MAX: usize = 256 << 20;

/// Size of one read, in bytes.
const BLOCK: usize = 64 * 1024;

/// Content of a file, or target of a link: `file:` or `link:` and the SHA-256.
pub(super) type Content = String;

/// Longest time to wait until a later write is seen in the times of a file: some ticks of the slowest kernel clock.
const TICKS_MAX: Duration = Duration::from_millis(50);

/// One file that was copied. At least one of content and state is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Content at the time of the copy; `None` for a large file, which was not read for the copy.
    pub(super) content: Option<Content>,
    /// State of the copy when it was made; `None` if a later write could leave the state unchanged.
    pub(super) made: Option<State>,
    /// Size and time of change of the file in the workspace. While both stay the same, so does the content.
    pub(super) source: Stamp,
}

/// Size in bytes, and time of change in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64, i64, i64);

/// Size in bytes, times of change in seconds and nanoseconds, and inode of a copy. No program can set the time of the
/// last change of status (`st_ctime`) to another than the current one: each write, and each reset of `st_mtime`,
/// changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    stamp: Stamp,
    changed: (i64, i64),
    inode: u64,
}

impl State {
    /// Returns the state of a file, or `None` where the file system counts in whole seconds.
    pub(super) fn new(found: &Metadata) -> Option<Self> {
        let changed = (found.ctime(), found.ctime_nsec());
        (changed.1 != 0).then(|| Self { stamp: Stamp::from(found), changed, inode: found.ino() })
    }
}

impl Copy {
    /// Returns whether no process has written the file at this path since the copy was made.
    pub(super) fn is_pristine(&self, path: &Path) -> bool {
        let state = || State::new(&fs::symlink_metadata(path).ok()?);
        self.made.is_some() && self.made == state()
    }

    /// Returns the content at the time of the copy, which is at this path; `None` where it is not recorded and the file
    /// may have been written since.
    pub(super) fn content_at(&self, path: &Path) -> io::Result<Option<Content>> {
        if self.content.is_some() || !self.is_pristine(path) {
            return Ok(self.content.clone());
        }
        let content = content(path)?;
        // A write while the file was read.
        Ok(content.filter(|_| self.is_pristine(path)))
    }
}

/// Waits until a write to one of these copies, by their paths, would change its state. States for which that takes too
/// long are dropped. A file system counts times in ticks of a clock, so that two writes can have the same time.
pub(super) fn settle(copies: &mut BTreeMap<PathBuf, (PathBuf, Copy)>) -> io::Result<()> {
    let now = || {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        (now.tv_sec, now.tv_nsec)
    };
    let unread = copies.values().filter(|(_, copy)| copy.content.is_none());
    if let Some(last) = unread.filter_map(|(_, copy)| copy.made.map(|made| made.changed)).max() {
        let (begun, last) = (Instant::now(), last.max(now()));
        while now() <= last && begun.elapsed() < TICKS_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let now = now();
    for (path, copy) in copies.values_mut() {
        copy.made = copy.made.filter(|made| made.changed < now);
        if copy.made.is_none() && copy.content.is_none() {
            copy.content = content(path)?;
        }
    }
    Ok(())
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Self {
        Self(found.len(), found.mtime(), found.mtime_nsec())
    }
}

/// Copies of one worktree, by their paths relative to the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copies(pub(super) BTreeMap<PathBuf, Copy>);

impl Copies {
    /// Reads the record. If the record does not exist or cannot be read, it names no copies. Then a copy is untouched
    /// while it equals the file in the workspace.
    pub(super) fn read(paths: &WorktreePaths) -> Self {
        let bytes = paths.common.read(&paths.admin_directory.join(RECORD), RECORD_MAX).ok().flatten();
        bytes.and_then(|bytes| Self::parse(&bytes)).unwrap_or_default()
    }

    /// Writes the record in one step. If there are no copies, no record is written.
    pub(super) fn write(&self, paths: &WorktreePaths) -> Result<(), Error> {
        if !self.0.is_empty() {
            paths.common.replace(&paths.admin_directory.join(RECORD), &self.to_bytes())?;
        }
        Ok(())
    }

    /// Writes the record in one step, or removes it if there are no copies.
    pub(super) fn replace(&self, paths: &WorktreePaths) -> Result<(), Error> {
        if self.0.is_empty() {
            paths.common.remove_file(&paths.admin_directory.join(RECORD))?;
        }
        self.write(paths)
    }

    /// Returns the first line, then `CONTENT STATE SIZE SECONDS NANOSECONDS PATH` and a NUL for each copy. `STATE` is
    /// six numbers. An unknown state or content is `-`.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        let stamp = |Stamp(size, seconds, nanoseconds)| format!("{size} {seconds} {nanoseconds}");
        for (path, copy) in &self.0 {
            let content = copy.content.as_deref().unwrap_or("-");
            let made = copy.made.map_or("-".to_owned(), |State { stamp: own, changed, inode }| {
                format!("{inode} {} {} {}", changed.0, changed.1, stamp(own))
            });
            bytes.extend_from_slice(format!("{content} {made} {} ", stamp(copy.source)).as_bytes());
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let copies = bytes.strip_prefix(HEAD)?.strip_suffix(b"\0")?;
        copies.split(|byte| *byte == 0).map(parse_copy).collect::<Option<_>>().map(Self)
    }
}

/// Parses one line of a record.
fn parse_copy(mut line: &[u8]) -> Option<(PathBuf, Copy)> {
    let content = word(&mut line)?;
    let content = (content != "-").then(|| content.to_owned());
    let made = match word(&mut line)? {
        "-" => None,
        inode => {
            let changed = (number(&mut line)?, number(&mut line)?);
            Some(State { inode: inode.parse().ok()?, changed, stamp: parse_stamp(&mut line)? })
        }
    };
    let source = parse_stamp(&mut line)?;
    let is_known = content.is_some() || made.is_some();
    is_known.then(|| (PathBuf::from(OsStr::from_bytes(line)), Copy { content, made, source }))
}

fn parse_stamp(line: &mut &[u8]) -> Option<Stamp> {
    Some(Stamp(number(line)?, number(line)?, number(line)?))
}

/// Takes a number from the start of a line.
fn number<N: FromStr>(line: &mut &[u8]) -> Option<N> {
    word(line)?.parse().ok()
}

/// Takes a word, and the blank behind it, from the start of a line.
fn word<'l>(line: &mut &'l [u8]) -> Option<&'l str> {
    let end = line.iter().position(|byte| *byte == b' ')?;
    let (word, rest) = line.split_at(end);
    *line = &rest[1..];
    std::str::from_utf8(word).ok()
}

/// Returns the recorded form of the target of a link.
pub(super) fn content_of_link(target: &Path) -> Content {
    format!("link:{}", sha256_hex(target.as_os_str().as_bytes()))
}

/// Returns the recorded form of the bytes of a file.
pub(super) fn content_of_file(bytes: &[u8]) -> Content {
    format!("file:{}", sha256_hex(bytes))
}

/// Returns the content of a path; `None` if it is neither a file nor a link, or does not exist.
pub(super) fn content(path: &Path) -> io::Result<Option<Content>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if found.is_symlink() {
        return Ok(Some(content_of_link(&fs::read_link(path)?)));
    }
    if !found.is_file() {
        return Ok(None);
    }
    // Opens neither a link nor a FIFO that replaced the file since.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut hasher = Sha256Hasher::default();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(Some(format!("file:{}", hasher.finish()))),
            read => hasher.update(&block[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_recorded_once_a_later_write_would_change_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        fs::write(&path, "a").unwrap();
        let found = fs::metadata(&path).unwrap();
        let made = State::new(&found).unwrap();
        let settled = |made: State| {
            let copy = Copy { content: None, made: Some(made), source: Stamp::from(&found) };
            let mut copies = BTreeMap::from([(PathBuf::from("copy"), (path.clone(), copy))]);
            settle(&mut copies).unwrap();
            copies.into_values().next().unwrap().1
        };
        let copy = settled(made);
        assert_eq!((copy.made, &copy.content), (Some(made), &None));
        assert!(copy.is_pristine(&path));
        // The time of a clock that is an hour behind proves nothing: the file is read instead.
        let copy = settled(State { changed: (made.changed.0 + 3600, made.changed.1), ..made });
        assert_eq!((copy.made, copy.content), (None, Some(content_of_file(b"a"))));
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let source = Stamp(3, -1, 999);
        let content = |content: &str| Some(content.to_owned());
        let made = Some(State { stamp: Stamp(3, 5, 7), changed: (-2, 4), inode: u64::MAX });
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let copies = Copies(BTreeMap::from([
            (path(b".env"), Copy { content: content("file:00"), made, source }),
            (path(b"large"), Copy { content: None, made, source }),
            (path(b"with a blank\nand \xff"), Copy { content: content("link:ff"), made: None, source }),
        ]));
        let bytes = copies.to_bytes();
        assert_eq!(Copies::parse(&bytes), Some(copies));
        for cut in 0..bytes.len() {
            assert_eq!(Copies::parse(&bytes[..cut]).filter(|read| read.0.len() > 2), None, "{cut}");
        }
        for garbage in [
            &b""[..],
            HEAD,
            b"seedbed copies 1\n\0",
            b"seedbed copies 2\nfile:00 - x 1 2 a\0",
            b"seedbed copies 2\n- - 1 1 2 a\0",
        ] {
            assert_eq!(Copies::parse(garbage), None);
        }
    }
}
