//! Record, in the admin directory, of the files that seedbed has written for a session.
//!
//! It is written before the files, with their old and new contents, and again after them. So what a killed run has
//! written is known, and nothing that the session writes is taken for it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::section;
use crate::provider::Error;
use crate::provider::git_worktree::copy_record::{Content, content_of_file};
use crate::provider::git_worktree::paths::WorktreePaths;

/// Name of the record in the admin directory.
pub(in super::super) const RECORD: &str = "seedbed-files";

/// First line of the record, which names the version of its format.
const HEAD: &[u8] = b"seedbed files 1\n";

/// Size limit of a record, in bytes.
const RECORD_MAX: usize = 64 << 20;

/// File that seedbed has written, or was writing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Written {
    /// Comment marker of a section; empty for a whole file.
    pub(super) comment: String,
    /// Contents of the file or of the section, of which it has one.
    pub(super) contents: Vec<Content>,
}

impl Written {
    /// Returns whether bytes are a file as seedbed wrote it, apart from what surrounds a section.
    pub(super) fn is_untouched(&self, bytes: &[u8]) -> bool {
        match self.section(bytes) {
            Some(parts) => self.has(parts.section),
            None => self.comment.is_empty() && self.has(bytes),
        }
    }

    /// Returns the section of a file; `None` for a whole file, and if there is none.
    pub(super) fn section<'b>(&self, bytes: &'b [u8]) -> Option<section::Parts<'b>> {
        if self.comment.is_empty() { None } else { section::find(bytes, &self.comment) }
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.contents.contains(&content_of_file(bytes))
    }
}

/// Files of one worktree, by path relative to its top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Record(pub(in super::super) BTreeMap<PathBuf, Written>);

impl Record {
    /// Reads the record. One that does not exist or cannot be read names no files, which then are the session's.
    pub(in super::super) fn read(paths: &WorktreePaths) -> Self {
        let bytes = paths.common.read(&paths.admin_directory.join(RECORD), RECORD_MAX).ok().flatten();
        bytes.and_then(|bytes| Self::parse(&bytes)).unwrap_or_default()
    }

    /// Writes the record in one step, or removes it if there are no files.
    pub(super) fn write(&self, paths: &WorktreePaths) -> Result<(), Error> {
        let path = paths.admin_directory.join(RECORD);
        if self.0.is_empty() {
            paths.common.remove_file(&path)?;
            return Ok(());
        }
        Ok(paths.common.replace(&path, &self.to_bytes())?)
    }

    /// Returns the first line, then `CONTENT,CONTENT COMMENT`, a NUL, the path and a NUL for each file.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        for (path, Written { comment, contents }) in &self.0 {
            bytes.extend_from_slice(format!("{} {comment}\0", contents.join(",")).as_bytes());
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> =
            bytes.strip_prefix(HEAD)?.strip_suffix(b"\0")?.split(|byte| *byte == 0).collect();
        let file = |fields: &[&[u8]]| {
            let [written, path] = fields else { return None };
            let (contents, comment) = std::str::from_utf8(written).ok()?.split_once(' ')?;
            let contents = contents.split(',').map(str::to_owned).collect();
            let written = Written { comment: comment.to_owned(), contents };
            Some((Path::new(OsStr::from_bytes(path)).to_owned(), written))
        };
        fields.chunks(2).map(file).collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let written = |comment: &str, contents: &[&str]| Written {
            comment: comment.to_owned(),
            contents: contents.iter().map(|content| (*content).to_owned()).collect(),
        };
        let record = Record(BTreeMap::from([
            (".env".into(), written("#", &["file:00", "file:11"])),
            ("a/with a blank\n.html".into(), written("<!-- -->", &["file:22"])),
            ("whole".into(), written("", &["file:33"])),
        ]));
        let bytes = record.to_bytes();
        assert_eq!(Record::parse(&bytes), Some(record));
        for garbage in [&b""[..], HEAD, b"seedbed files 2\na \0b\0", b"seedbed files 1\na b\0"] {
            assert_eq!(Record::parse(garbage), None);
        }
    }
}
