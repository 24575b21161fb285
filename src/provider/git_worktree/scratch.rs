//! Temporary directory in a worktree, on the file system of the files that it is for.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::Worktree;
use super::copy_record;
use super::paths::WorktreePaths;
use crate::host::files::Root;
use crate::host::files::exchange::Exchange;
use crate::host::files::temporary::Temporary;
use crate::provider::{DISCOVERY_DIRECTORY, Error};

/// Temporary directory in a worktree, from which files are renamed into place.
pub(super) struct Scratch {
    own: Root,
    temporary: Temporary,
    pub(super) directory: Root,
}

impl Scratch {
    pub(super) fn create(paths: &WorktreePaths, worktree: &Worktree) -> Result<Self, Error> {
        let own = Path::new(worktree.target_path.as_deref().unwrap_or_default()).join(DISCOVERY_DIRECTORY);
        let own = paths.open()?.create_directories(&own)?;
        let temporary = own.make_temporary_directory(OsStr::new("copy"))?;
        let directory = own.directory(Path::new(&temporary.name))?;
        let directory =
            directory.ok_or_else(|| Error::Refused(format!("{} is gone", own.path().display())))?;
        Ok(Self { own, temporary, directory })
    }

    /// Removes the file at a name of `parent`, if it has this content. Returns the names of the session's files at the
    /// name or beside it.
    pub(super) fn take_back(
        &self,
        parent: &Root,
        name: &OsStr,
        content: &str,
    ) -> Result<Vec<OsString>, Error> {
        let is_placed = |path: &Path| Ok(copy_record::content(path)?.as_deref() == Some(content));
        let kept = || parent.file_type(name).map(|_| name.to_owned());
        if !is_placed(&parent.path().join(name)).unwrap_or(false) {
            return Ok(kept().into_iter().collect());
        }
        let aside = OsStr::new("back");
        match parent.take(name, &self.directory, aside, is_placed)? {
            Exchange::Changed { beside } => Ok(kept().into_iter().chain(beside).collect()),
            Exchange::Done => {
                self.directory.remove_file(Path::new(aside))?;
                Ok(Vec::new())
            }
        }
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        Ok(self.own.remove_all(Path::new(&self.temporary.name))?)
    }
}
