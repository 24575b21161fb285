//! Records the effects of an update in the admin directory of the worktree, before the first one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::provider::Error;
use crate::provider::git_worktree::copy_record::Content;
use crate::provider::git_worktree::paths::WorktreePaths;

/// Name of the journal in the admin directory.
pub(in super::super) const JOURNAL: &str = "seedbed-update";

/// First line of the journal, which names the version of its format.
const HEAD: &[u8] = b"seedbed update 1\n";

/// Size limit of a journal, in bytes.
const JOURNAL_MAX: usize = 256 << 20;

/// Effect of an update on one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A link to the workspace is removed.
    Unlinked,
    /// A directory is created.
    Directory,
    /// A file or a link with this content is put in place.
    Placed(Content),
}

/// Effects of one update in their order, each with its path relative to the workspace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journal(pub(super) Vec<(Effect, PathBuf)>);

impl Journal {
    /// Reads the journal; `None` if there is none. A journal that cannot be parsed is an error, because its effects
    /// could not be undone.
    pub(super) fn read(paths: &WorktreePaths) -> Result<Option<Self>, Error> {
        let Some(bytes) = paths.common.read(&paths.admin_directory.join(JOURNAL), JOURNAL_MAX)? else {
            return Ok(None);
        };
        let unreadable = || {
            let path = paths.admin_directory_path().join(JOURNAL);
            Error::Refused(format!("{} is not a journal of an update", path.display()))
        };
        Self::parse(&bytes).map(Some).ok_or_else(unreadable)
    }

    /// Writes the journal in one step.
    pub(super) fn write(&self, paths: &WorktreePaths) -> Result<(), Error> {
        Ok(paths.common.replace(&paths.admin_directory.join(JOURNAL), &self.to_bytes())?)
    }

    /// Removes the journal. A missing journal is no error.
    pub(super) fn remove(paths: &WorktreePaths) -> Result<(), Error> {
        if paths.common.directory(&paths.admin_directory)?.is_some() {
            paths.common.remove_file(&paths.admin_directory.join(JOURNAL))?;
        }
        Ok(())
    }

    /// Returns the first line, then `EFFECT PATH` and a NUL for each effect.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        for (effect, path) in &self.0 {
            let effect = match effect {
                Effect::Unlinked => "unlinked",
                Effect::Directory => "directory",
                Effect::Placed(content) => content,
            };
            bytes.extend_from_slice(effect.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let effects = bytes.strip_prefix(HEAD)?.strip_suffix(b"\0")?;
        effects.split(|byte| *byte == 0).map(parse_effect).collect::<Option<_>>().map(Self)
    }
}

fn parse_effect(line: &[u8]) -> Option<(Effect, PathBuf)> {
    let end = line.iter().position(|byte| *byte == b' ')?;
    let effect = match std::str::from_utf8(&line[..end]).ok()? {
        "unlinked" => Effect::Unlinked,
        "directory" => Effect::Directory,
        content => Effect::Placed(content.to_owned()),
    };
    Some((effect, Path::new(OsStr::from_bytes(&line[end + 1..])).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_reads_as_it_was_written() {
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let journal = Journal(vec![
            (Effect::Unlinked, path(b"node_modules")),
            (Effect::Directory, path(b"config")),
            (Effect::Placed("file:00".to_owned()), path(b"config/with a blank\n and \xff")),
        ]);
        let bytes = journal.to_bytes();
        assert_eq!(Journal::parse(&bytes), Some(journal));
        for garbage in [&b""[..], HEAD, b"seedbed update 2\nunlinked a\0", b"seedbed update 1\nunlinked\0"] {
            assert_eq!(Journal::parse(garbage), None);
        }
    }
}
