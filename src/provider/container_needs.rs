//! Parts of the host that a session needs in a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Parts of the host that a session needs in a container, or in another sandbox that has only mounted parts of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerNeeds {
    /// Files and directories to mount, by the absolute path that they have on the host and in the container. A mount
    /// over a part of another follows it, as in the order of this map.
    pub mounts: BTreeMap<PathBuf, MountAccess>,
    /// Variables beside those of the session, by name.
    pub environment: BTreeMap<String, String>,
}

/// Access of a container to a mounted file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a mount has no other access")]
pub enum MountAccess {
    /// The container can read it.
    ReadOnly,
    /// The container can read and change it.
    Writable,
}
