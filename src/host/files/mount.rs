//! Boundaries of mounts.
//!
//! A bind mount within one file system has the device number of the directory around it. Only the id of the
//! mount distinguishes the two.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::{Error, Root, io};

/// Mount that contains a file: its id, or the device number if the system has no ids (Linux before 5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mount {
    #[cfg(target_os = "linux")]
    Id(u64),
    Device(u64),
}

/// The part of a file's status that a removal needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    pub(super) mount: Mount,
    pub(super) mode: Mode,
}

impl Root {
    /// Returns whether something is mounted at `name` in this directory; `false` if `name` does not exist.
    pub(crate) fn is_mount_point(&self, name: &OsStr) -> Result<bool, Error> {
        let own = self.status()?;
        match status_at(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(status.mount != own.mount),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(io("inspect", &self.path.join(name))(error)),
        }
    }

    pub(super) fn status(&self) -> Result<Status, Error> {
        status_of(&self.fd).map_err(io("inspect", &self.path))
    }
}

#[cfg(target_os = "linux")]
fn status_of(fd: impl AsFd) -> rustix::io::Result<Status> {
    status_at(fd, OsStr::new(""), AtFlags::EMPTY_PATH)
}

#[cfg(target_os = "linux")]
fn status_at(fd: impl AsFd, name: &OsStr, flags: AtFlags) -> rustix::io::Result<Status> {
    use rustix::fs::{StatxFlags, makedev, statx};

    let wanted = StatxFlags::MODE | StatxFlags::MNT_ID;
    // Inspecting a path must not trigger an automount.
    let found = statx(fd, name, flags | AtFlags::NO_AUTOMOUNT, wanted)?;
    let mount = if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        Mount::Device(makedev(found.stx_dev_major, found.stx_dev_minor))
    } else {
        Mount::Id(found.stx_mnt_id)
    };
    Ok(Status { mount, mode: Mode::from_raw_mode(found.stx_mode.into()) })
}

#[cfg(not(target_os = "linux"))]
fn status_of(fd: impl AsFd) -> rustix::io::Result<Status> {
    rustix::fs::fstat(fd).map(status)
}

#[cfg(not(target_os = "linux"))]
fn status_at(fd: impl AsFd, name: &OsStr, flags: AtFlags) -> rustix::io::Result<Status> {
    rustix::fs::statat(fd, name, flags).map(status)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_cast, reason = "the type differs between systems")]
fn status(found: rustix::fs::Stat) -> Status {
    Status { mount: Mount::Device(found.st_dev as u64), mode: Mode::from_raw_mode(found.st_mode) }
}
