//! Records the files that `copy` brought into a worktree, in its admin directory.
//!
//! A copy that has the recorded content is untouched, even if the file in the workspace was changed or removed. A file
//! of the workspace that does not have the recorded content has changed since it was copied.

#![expect(clippy::disallowed_methods, reason = "reads files of the workspace and of worktrees")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::site::Site;
use crate::name::{Sha256Hasher, sha256_hex};
use crate::provider::Error;

/// Name of the record in the admin directory.
pub(super) const RECORD: &str = "seedbed-copies";

/// First line of the record, which names the version of its format.
const HEAD: &[u8] = b"seedbed copies 1\n";

/// Size limit of a record, in bytes.
const RECORD_MAX: usize = 256 << 20;

/// Size of one read, in bytes.
const BLOCK: usize = 64 * 1024;

/// Content of a file, or target of a link: `file:` or `link:` and the SHA-256.
pub(super) type Content = String;

/// One file that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Content at the time of the copy.
    pub(super) content: Content,
    /// Size and time of change of the file in the workspace. While both stay the same, so does the content.
    pub(super) source: Stamp,
}

/// Size in bytes, and time of change in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64, i64, i64);

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
    pub(super) fn read(site: &Site) -> Self {
        let bytes = site.common.read(&site.entry.join(RECORD), RECORD_MAX).ok().flatten();
        bytes.and_then(|bytes| Self::parse(&bytes)).unwrap_or_default()
    }

    /// Writes the record in one step. If there are no copies, no record is written.
    pub(super) fn write(&self, site: &Site) -> Result<(), Error> {
        if !self.0.is_empty() {
            site.common.replace(&site.entry.join(RECORD), &self.to_bytes())?;
        }
        Ok(())
    }

    /// Returns the first line, then `CONTENT SIZE SECONDS NANOSECONDS PATH` and a NUL for each copy.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        for (path, Copy { content, source: Stamp(size, seconds, nanoseconds) }) in &self.0 {
            bytes.extend_from_slice(format!("{content} {size} {seconds} {nanoseconds} ").as_bytes());
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let copies = bytes.strip_prefix(HEAD)?.strip_suffix(b"\0")?;
        let copy = |line: &[u8]| {
            let mut words = line.splitn(5, |byte| *byte == b' ');
            let mut word = || std::str::from_utf8(words.next()?).ok();
            let (content, size, seconds, nanoseconds) = (word()?.to_owned(), word()?, word()?, word()?);
            let source = Stamp(size.parse().ok()?, seconds.parse().ok()?, nanoseconds.parse().ok()?);
            Some((PathBuf::from(OsStr::from_bytes(words.next()?)), Copy { content, source }))
        };
        copies.split(|byte| *byte == 0).map(copy).collect::<Option<_>>().map(Self)
    }
}

/// Returns the content of a path; `None` if it is neither a file nor a link, or does not exist.
pub(super) fn content(path: &Path) -> io::Result<Option<Content>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if found.is_symlink() {
        let target = fs::read_link(path)?;
        return Ok(Some(format!("link:{}", sha256_hex(target.as_os_str().as_bytes()))));
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
    fn a_record_reads_as_it_was_written() {
        let copy = |content: &str| Copy { content: content.to_owned(), source: Stamp(3, -1, 999) };
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let copies = Copies(BTreeMap::from([
            (path(b".env"), copy("file:00")),
            (path(b"with a blank\nand \xff"), copy("link:ff")),
        ]));
        let bytes = copies.to_bytes();
        assert_eq!(Copies::parse(&bytes), Some(copies));
        for cut in 0..bytes.len() {
            assert_eq!(Copies::parse(&bytes[..cut]).filter(|read| read.0.len() > 1), None, "{cut}");
        }
        for garbage in [&b""[..], HEAD, b"seedbed copies 2\n\0", b"seedbed copies 1\nfile:00 x 1 2 a\0"] {
            assert_eq!(Copies::parse(garbage), None);
        }
    }
}
