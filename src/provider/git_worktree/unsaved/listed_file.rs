//! Parses files as `git ls-files --stage -v` lists them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::provider::git_worktree::Worktree;
use crate::provider::{DISCOVERY_DIRECTORY, DISCOVERY_FILE};

/// One file of the index.
pub(in super::super) struct ListedFile<'l> {
    /// `true` if a bit makes Git skip the file. A tag in lower case means `assume-unchanged`, and `S` means
    /// `skip-worktree`.
    pub(in super::super) hidden: bool,
    pub(in super::super) mode: &'l str,
    pub(in super::super) object: &'l str,
    pub(in super::super) path: &'l Path,
}

impl<'l> ListedFile<'l> {
    /// Parses `TAG MODE OBJECT STAGE`, a tab, and the path.
    pub(in super::super) fn parse(line: &'l [u8]) -> Option<Self> {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let mut words = std::str::from_utf8(&line[..tab]).ok()?.split(' ');
        let (tag, mode, object) = (words.next()?, words.next()?, words.next()?);
        let hidden = tag == "S" || tag.chars().all(|c| c.is_ascii_lowercase());
        Some(Self { hidden, mode, object, path: Path::new(OsStr::from_bytes(&line[tab + 1..])) })
    }
}

/// Returns whether a path is one of the discovery files, which describe to the session what it owns.
pub(crate) fn is_discovery(worktree: &Worktree, path: &Path) -> bool {
    let top = worktree.target_path.as_deref().map_or(Path::new(""), Path::new);
    let Ok(path) = path.strip_prefix(top.join(DISCOVERY_DIRECTORY)) else { return false };
    [".gitignore", DISCOVERY_FILE].iter().any(|name| path == Path::new(name))
}
