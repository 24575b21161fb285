//! Temporary object directory for merges in memory, so that they add no object to the repository.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::Error;
use crate::host::Host;
use crate::host::files::Root;
use crate::host::files::temporary::Temporary;
use crate::host::git::Git;

/// Name that the temporary directory repeats.
const NAME: &str = "objects";

/// Temporary object directory. It is removed with [`Scratch::remove`]; the next one also removes those of killed
/// processes.
pub(super) struct Scratch {
    state: Root,
    directory: Temporary,
    /// Object directory of the repository.
    objects: PathBuf,
    /// Settings that name merge drivers.
    drivers: Vec<OsString>,
}

impl Scratch {
    /// Creates the directory below the state directory.
    pub(super) fn new(host: &Host, git: &Git<'_>) -> Result<Self, Error> {
        let state = Root::create_private(&host.state)?;
        for abandoned in state.abandoned(OsStr::new(NAME))? {
            state.remove_all(abandoned.name.as_ref())?;
        }
        let objects = git.path(["rev-parse", "--path-format=absolute", "--git-path", "objects"])?;
        let found =
            git.output(["config", "--null", "--name-only", "--get-regexp", r"^merge\..*\.driver$"])?;
        let drivers = found.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let drivers = drivers.map(|name| OsStr::from_bytes(name).to_owned()).collect();
        let directory = state.make_temporary_directory(OsStr::new(NAME))?;
        Ok(Self { state, directory, objects, drivers })
    }

    /// Returns a Git that writes objects to this directory, and runs no merge driver: the configuration names these
    /// programs. A path with such a driver is in conflict if both sides changed it.
    pub(super) fn git<'g>(&self, git: &Git<'g>) -> Git<'g> {
        let mut git = git
            .clone()
            .with_variable("GIT_OBJECT_DIRECTORY", self.state.path().join(&self.directory.name))
            .with_variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", quoted(self.objects.as_os_str()))
            .with_variable("GIT_CONFIG_COUNT", self.drivers.len().to_string());
        for (at, driver) in self.drivers.iter().enumerate() {
            git = git
                .with_variable(&format!("GIT_CONFIG_KEY_{at}"), driver)
                .with_variable(&format!("GIT_CONFIG_VALUE_{at}"), "false");
        }
        git
    }

    /// Removes the directory.
    pub(super) fn remove(self) -> Result<(), Error> {
        Ok(self.state.remove_all(self.directory.name.as_ref())?)
    }
}

/// Quotes a path of a list whose separator is `:`, as Git reads it (`git help git`, `GIT_ALTERNATE_OBJECT_DIRECTORIES`).
fn quoted(path: &OsStr) -> OsString {
    let mut quoted = vec![b'"'];
    for byte in path.as_bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            b'\n' => quoted.extend(b"\\n"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}
