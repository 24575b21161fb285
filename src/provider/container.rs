//! Identity of what contains resources, such as a repository.

#![expect(clippy::disallowed_methods, reason = "reads the identity of a directory")]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Directory that contains a resource beside others, such as the common git directory of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Absolute path of the directory.
    pub path: PathBuf,
    /// Identity of the directory.
    pub identity: Identity,
}

/// Identity of a directory. A directory keeps it when it is renamed; a copy, a clone and a directory that was created
/// later at the path have another one.
///
/// The number of the device is no part of it, because it may change when the system boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Identity {
    /// Number of the inode. A file system may use the number again once the directory is removed.
    pub inode: u64,
    /// Time of creation, in nanoseconds since 1970; `None` if the file system does not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
}

impl Container {
    /// Reads the identity of a directory.
    pub fn read(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        let created = found.created().ok().and_then(|created| created.duration_since(UNIX_EPOCH).ok());
        let created = created.and_then(|created| u64::try_from(created.as_nanos()).ok());
        Ok(Self { path: path.to_owned(), identity: Identity { inode: found.ino(), created } })
    }
}
