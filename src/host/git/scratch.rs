//! Temporary repository that works on the objects of another one, whose configuration does not count.
//!
//! Everyone who can write to a repository controls its configuration, and Git runs programs that it names. In the temporary
//! repository, only the configuration of the user and the system counts.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Git;
use crate::host::Host;
use crate::host::files::temporary::Temporary;
use crate::host::files::{Error, Root};

/// Temporary repository, bare and without objects of its own. It is removed with [`Scratch::remove`]; the next one of its
/// name also removes those of killed processes.
#[derive(Debug)]
pub(crate) struct Scratch {
    state: Root,
    directory: Temporary,
}

/// Files of the repository whose objects a [`Scratch`] uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// Absolute path of the common Git directory.
    pub(crate) common_directory: PathBuf,
    /// Absolute path of the directory of objects.
    pub(crate) objects: PathBuf,
    /// Absolute path of the file that names the commits at which a shallow clone ends.
    pub(crate) shallow: PathBuf,
    /// Format of object ids: `sha1` or `sha256`.
    pub(crate) format: String,
}

impl Located {
    /// Locates the files of the repository around a directory; `None` if there is none.
    pub(crate) fn new(git: &Git<'_>) -> Result<Option<Self>, crate::host::process::Error> {
        let located = git.output([
            "rev-parse",
            "--path-format=absolute",
            "--git-common-dir",
            "--git-path",
            "objects",
            "--git-path",
            "shallow",
            "--show-object-format",
        ])?;
        let located = String::from_utf8_lossy(&located.stdout).into_owned();
        let [common_directory, objects, shallow, format] = located.lines().collect::<Vec<_>>()[..] else {
            return Ok(None);
        };
        Ok(Some(Self {
            common_directory: common_directory.into(),
            objects: objects.into(),
            shallow: shallow.into(),
            format: format.to_owned(),
        }))
    }
}

impl Scratch {
    /// Creates a repository with these refs, each with its object. `name` is part of the name of its directory.
    pub(crate) fn new<'r>(
        host: &Host,
        name: &str,
        located: &Located,
        refs: impl IntoIterator<Item = (&'r str, &'r str)>,
    ) -> Result<Self, Error> {
        Self::sweep(host, name)?;
        let state = Root::create_private(&host.state)?;
        let directory = state.make_temporary_directory(OsStr::new(name))?;
        let scratch = Self { state, directory };
        let (version, extension) = match located.format.as_str() {
            "sha1" => (0, String::new()),
            other => (1, format!("[extensions]\n\tobjectformat = {other}\n")),
        };
        let config = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}");
        let mut packed = String::new();
        for (name, object) in refs {
            let _ = writeln!(packed, "{object} {name}");
        }
        let path = |name: &str| Path::new(&scratch.directory.name).join(name);
        for (name, text) in
            [("HEAD", "ref: refs/heads/none\n"), ("config", &config), ("packed-refs", &packed)]
        {
            scratch.state.replace(&path(name), text.as_bytes())?;
        }
        for name in ["objects", "refs"] {
            scratch.state.create_directories(&path(name))?;
        }
        // A shallow clone lacks the commits before those that this file names.
        let _ = fs::copy(&located.shallow, scratch.path().join("shallow"));
        Ok(scratch)
    }

    /// Removes the repositories of this name that killed processes left.
    pub(crate) fn sweep(host: &Host, name: &str) -> Result<(), Error> {
        let state = Root::create_private(&host.state)?;
        for abandoned in state.abandoned(OsStr::new(name))? {
            state.remove_all(abandoned.name.as_ref())?;
        }
        Ok(())
    }

    /// Returns the absolute path.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.path().join(&self.directory.name)
    }

    /// Removes the repository.
    pub(crate) fn remove(self) -> Result<(), Error> {
        self.state.remove_all(self.directory.name.as_ref())
    }
}
