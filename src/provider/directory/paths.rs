//! Finds a directory and the files beside it on this host.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Directory, Options};
use crate::host::absolute;
use crate::host::files::Root;
use crate::provider::leftover::{ASIDE, TRASH};
use crate::provider::{Error, Examination, Leftover, Location, Task};

/// Beginning of the name of the file beside a directory that records its owner, before the name of the directory.
const RECORD: &str = ".record-";

/// Beginning of the name of the record of a directory that is aside, before the ownership marker.
const RECORD_ASIDE: &str = ".record-.aside-";

/// Location of one directory.
pub(super) struct DirectoryPaths {
    /// Directory from which the session's directory is reached without following links.
    pub(super) base: Root,
    /// Path of the directory around the session's directory, relative to `base`.
    pub(super) parent: PathBuf,
    /// Name of the session's directory at this location.
    pub(super) name: String,
    /// Name of the session's directory at [`Location::Home`].
    pub(super) home_name: String,
    trash: String,
}

impl DirectoryPaths {
    /// Finds the location of a task's directory. The workspace has to exist, the directory need not.
    pub(super) fn new(task: &Task<'_>, directory: &Directory) -> Result<Self, Error> {
        Self::at(task.location, task, directory)
    }

    /// Finds another location than the task's.
    pub(super) fn at(location: Location, task: &Task<'_>, directory: &Directory) -> Result<Self, Error> {
        let (base, below) = Root::toward(task.workspace, &directory.directory_path)?;
        let name = below.file_name().and_then(OsStr::to_str);
        let (Some(parent), Some(name)) = (below.parent(), name) else {
            let path = directory.directory_path.display();
            return Err(Error::Refused(format!("{path} cannot be a session's directory")));
        };
        Ok(Self {
            parent: parent.to_owned(),
            name: match location {
                Location::Home => name.to_owned(),
                Location::Aside => format!("{ASIDE}{}-{name}", task.owner),
            },
            home_name: name.to_owned(),
            trash: format!("{TRASH}{}-{name}", task.owner),
            base,
        })
    }

    /// Returns the path of the directory, absolute.
    pub(super) fn path(&self) -> PathBuf {
        self.base.path().join(self.below())
    }

    /// Returns the absolute path of the directory at [`Location::Home`], which messages use.
    pub(super) fn home_path(&self) -> PathBuf {
        self.base.path().join(self.parent.join(&self.home_name))
    }

    /// Returns the path of the directory, relative to `base`.
    pub(super) fn below(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Returns the path of the directory's record, relative to `base`.
    pub(super) fn record(&self) -> PathBuf {
        self.parent.join(self.record_name())
    }

    /// Returns the name of the directory's record.
    pub(super) fn record_name(&self) -> String {
        format!("{RECORD}{}", self.name)
    }

    /// Returns the path at which the directory is removed, relative to `base`.
    pub(super) fn trash(&self) -> PathBuf {
        self.parent.join(&self.trash)
    }

    /// Opens the directory; `None` if it does not exist.
    pub(super) fn directory(&self) -> Result<Option<Root>, Error> {
        Ok(self.base.directory(&self.below())?)
    }

    /// Refuses to move or remove the directory while other resources are in it.
    pub(super) fn refuse_others(&self, directory: &Directory) -> Result<(), Error> {
        let Some(top) = self.directory()? else { return Ok(()) };
        let exists = |name: &&String| top.file_type(OsStr::new(name)).is_some();
        match directory.contains.iter().find(exists) {
            None => Ok(()),
            Some(name) => Err(Error::Refused(format!(
                "{} is not removed while {name} is in it: move {name} away",
                self.home_path().display()
            ))),
        }
    }

    /// Returns whether anything exists at the path, of any type.
    pub(super) fn exists(&self) -> Result<bool, Error> {
        let parent = self.base.directory(&self.parent)?;
        Ok(parent.is_some_and(|parent| parent.file_type(OsStr::new(&self.name)).is_some()))
    }
}

/// Returns whether a directory lies in the task's workspace.
pub(super) fn is_within(task: &Task<'_>, directory: &Directory) -> bool {
    absolute(task.workspace, &directory.directory_path).starts_with(task.workspace)
}

/// Returns the leftovers of killed runs in the planned root directories, or in the default one.
pub(super) fn leftovers(scope: &Examination<'_>, planned: impl Iterator<Item = PathBuf>) -> Vec<Leftover> {
    Leftover::in_roots(scope, planned, Options::default().root_directory, &[ASIDE, TRASH, RECORD_ASIDE])
}

/// Returns the path below a session's directory as messages name it, independent of the directory's present location.
pub(super) fn named(paths: &DirectoryPaths, below: &Path) -> String {
    paths.home_path().join(below).display().to_string()
}
