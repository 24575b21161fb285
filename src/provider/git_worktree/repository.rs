//! Locks a repository for changes that only one process may make at a time, and finds its record.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::Worktree;
use super::paths::{WorktreePaths, io};
use crate::host::Host;
use crate::host::files::Root;
use crate::name::sha256_hex;
use crate::provider::{Error, Task};

/// Lock of one repository on this host, until this value is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Directory of the records of repositories.
    pub(super) records: Root,
    /// Name of this repository's record in `records`.
    pub(super) record: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits for the lock. It is kept for a few file operations, or for one `git worktree add`.
    pub(super) fn take(host: &Host, paths: &WorktreePaths) -> Result<Self, Error> {
        let records = Root::create(&records(host))?;
        let name = sha256_hex(paths.common.path().as_os_str().as_bytes());
        let lock = format!("{name}.lock");
        let file = records.open_or_create(Path::new(&lock))?;
        file.lock().map_err(io("lock", &records.path().join(&lock)))?;
        Ok(Self { records, record: Path::new(&name).with_extension("json"), _file: file })
    }
}

/// Returns the directory of the records of repositories.
pub(super) fn records(host: &Host) -> PathBuf {
    host.state.join("repositories")
}

/// Moves the record of the repository from `old`, a common git directory, to the site's.
pub(super) fn rebind(host: &Host, paths: &WorktreePaths, old: &Path) -> Result<(), Error> {
    if old == paths.common.path() {
        return Ok(());
    }
    let lock = Lock::take(host, paths)?;
    let name = sha256_hex(old.as_os_str().as_bytes());
    if lock.records.file_type(lock.record.as_os_str()).is_none() {
        lock.records.rename(&Path::new(&name).with_extension("json"), &lock.record)?;
    }
    lock.records.remove_file(&Path::new(&name).with_extension("lock"))?;
    Ok(())
}

/// Removes the record of the repository around a workspace that does not exist any more.
pub(super) fn forget(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let mut common = task.workspace.to_owned();
    for part in worktree.repo_root.components() {
        match part {
            Component::ParentDir => drop(common.pop()),
            Component::CurDir => {}
            part => common.push(part),
        }
    }
    common.push(".git");
    if Root::open(&common).is_ok() {
        return Ok(());
    }
    let Ok(records) = Root::open(&records(task.host)) else { return Ok(()) };
    let name = sha256_hex(common.as_os_str().as_bytes());
    for extension in ["json", "lock"] {
        records.remove_file(&Path::new(&name).with_extension(extension))?;
    }
    Ok(())
}
