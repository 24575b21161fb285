//! What is done to a repository by one process at a time: the lock for it, and where its record is kept.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::site::{Site, io};
use crate::host::Host;
use crate::host::files::Root;
use crate::name::sha256_hex;
use crate::provider::Error;

/// The lock of one repository on this host, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Where the records of repositories are kept.
    pub(super) records: Root,
    /// The name of this repository's record there.
    pub(super) record: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits for the lock. It is held for a few file operations, or for one `git worktree add`.
    pub(super) fn take(host: &Host, site: &Site) -> Result<Self, Error> {
        let records = Root::create(&records(host))?;
        let name = sha256_hex(site.common.path().as_os_str().as_bytes());
        let lock = format!("{name}.lock");
        let file = records.open_or_create(Path::new(&lock))?;
        file.lock().map_err(io("lock", &records.path().join(&lock)))?;
        Ok(Self { records, record: Path::new(&name).with_extension("json"), _file: file })
    }
}

/// Where the records of repositories are kept.
pub(super) fn records(host: &Host) -> PathBuf {
    host.state.join("repositories")
}
