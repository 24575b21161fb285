//! Leases as other users of the host see them.
//!
//! The registry is in the state directory of a user, which other users cannot read. So each lease is also published in
//! a directory that all users share, such as `/var/tmp`. The sticky bit of the shared directory protects each user's
//! files from the others.
//!
//! A state directory publishes in `seedbed-leases-USER-HASH` there, with one empty file `KEY.MARK` per lease. The
//! owner of that directory is the owner of the leases.
//!
//! Only the names of other users' files are read; no such file is opened or followed. The worst that other users can do
//! is to block ports and items.
//!
//! A grant writes its lease, publishes it, and reads the leases of others, in this order. Of two conflicting grants, at
//! least one finds the other and gives up. With a lock on the shared directory, exactly one gives up. A user who keeps
//! the lock delays others by [`PATIENCE`].

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{ASIDE, DIRECTORY, Key, MARK_DIGITS, SUFFIX, key_of};
use crate::host::Host;
use crate::name::sha256_hex;

/// Directories to which all users of a host can usually write. The first one also survives a reboot, as leases do.
const CANDIDATES: [&str; 2] = ["/var/tmp", "/tmp"];

/// Prefix of the directories in which leases are published.
const PREFIX: &str = "seedbed-leases-";

/// Name of the link in such a directory to its state directory.
const STATE: &str = ".state";

/// Limits of the data that other users can make this user read.
const NAMES_MAX: usize = 1 << 20;
const DIRECTORIES_MAX: usize = 4096;
const ENTRIES_MAX: usize = 1 << 16;

/// Longest wait for the lock of the shared directory. Other runs need the lock for milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

/// Flags to open a directory: never through a link, and never waiting for a FIFO.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Flag that is `true` once all leases of a host's state directory are known to be published.
pub(crate) type Complete = AtomicBool;

/// A resource that another user, or another state directory of this user, has leased.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Leased ports or item.
    pub key: Key,
    /// Owner of the lease, for messages.
    pub holder: String,
}

/// Returns the directory of this host in which leases are published, unless the user names another one.
pub fn shared_directory() -> PathBuf {
    let usable = CANDIDATES.iter().find(|path| Shared::open(Path::new(path)).is_ok());
    PathBuf::from(usable.unwrap_or(&CANDIDATES[0]))
}

/// Returns the reason, as a clause, for which leases of this host's state directory cannot be published; `None` if they
/// can.
pub fn obstacle(host: &Host) -> Option<String> {
    let shared = match Shared::open(host.shared_ports.as_deref()?) {
        Ok(shared) => shared,
        Err(reason) => return Some(reason),
    };
    shared.own(host).err()
}

/// Returns the resources that other users and other state directories publish, as far as they can be read.
pub fn others(host: &Host) -> Vec<Published> {
    let shared = host.shared_ports.as_deref().and_then(|path| Shared::open(path).ok());
    shared.map_or_else(Vec::new, |shared| shared.others(&name_of(host)))
}

/// The shared directory, opened, and locked if it could be.
pub(super) struct Shared {
    fd: OwnedFd,
    path: PathBuf,
}

impl Shared {
    /// Opens and locks the shared directory of a host; `None` if no usable one exists.
    pub(super) fn locked(host: &Host) -> Option<Self> {
        let shared = Self::open(host.shared_ports.as_deref()?).ok()?;
        let begun = Instant::now();
        while let Err(Errno::WOULDBLOCK | Errno::INTR) =
            rustix::fs::flock(&shared.fd, FlockOperation::NonBlockingLockExclusive)
        {
            if begun.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Some(shared)
    }

    fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| format!("{shown} cannot be opened: {error}"))?;
        let found =
            rustix::fs::fstat(&fd).map_err(|error| format!("{shown} cannot be inspected: {error}"))?;
        let mode = Mode::from_raw_mode(found.st_mode);
        let user = geteuid().as_raw();
        if found.st_uid != 0 && found.st_uid != user {
            return Err(format!("{shown} belongs to user {}", found.st_uid));
        }
        if mode.intersects(Mode::WGRP | Mode::WOTH) && !mode.contains(Mode::SVTX) {
            return Err(format!("{shown} has no sticky bit, so that users can remove one another's files"));
        }
        if !mode.contains(Mode::WOTH) && found.st_uid != user {
            return Err(format!("{shown} cannot be written to by all users"));
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Publishes the lease `name` of `host`. The first call of a process also publishes all of `leases` that are not
    /// published.
    pub(super) fn publish(&self, host: &Host, name: &str, leases: &BTreeSet<String>) -> Result<(), String> {
        let directory = match self.own(host)? {
            Some(directory) => directory,
            None => self.create_own(host)?,
        };
        if !host.published.swap(true, Ordering::Relaxed) {
            self.forget_gone(&name_of(host));
            for entry in entries(directory.as_fd()) {
                if !leases.contains(&entry) && entry != name {
                    let _ = rustix::fs::unlinkat(&directory, &entry, AtFlags::empty());
                }
            }
            leases
                .iter()
                .try_for_each(|lease| create_entry(&directory, lease))
                .map_err(|error| self.failed(error))?;
        }
        create_entry(&directory, name).map_err(|error| self.failed(error))
    }

    /// Withdraws the lease `name`, and removes the directory with the last lease.
    pub(super) fn withdraw(&self, host: &Host, name: &str) {
        let Ok(Some(directory)) = self.own(host) else { return };
        let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
        self.remove_if_empty(&name_of(host), &directory);
    }

    /// Returns the directory in which this state directory publishes; `None` if it has published nothing.
    fn own(&self, host: &Host) -> Result<Option<OwnedFd>, String> {
        let name = name_of(host);
        let directory = match open_below(&self.fd, &name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => {
                return Err(format!("{} cannot be opened: {error}", self.path.join(name).display()));
            }
        };
        let found = rustix::fs::fstat(&directory).map_err(|error| self.failed(error))?;
        if found.st_uid != geteuid().as_raw() {
            let path = self.path.join(name);
            return Err(format!("{} belongs to user {}", path.display(), found.st_uid));
        }
        Ok(Some(directory))
    }

    /// Creates the directory. With any umask, every user may list it and only this user may write to it.
    fn create_own(&self, host: &Host) -> Result<OwnedFd, String> {
        let name = name_of(host);
        let create = || {
            match rustix::fs::mkdirat(&self.fd, &name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let directory = open_below(&self.fd, &name)?;
            match rustix::fs::symlinkat(&host.state, &directory, STATE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755))?;
            Ok(directory)
        };
        create().map_err(|error| self.failed(error))
    }

    fn others(&self, own: &str) -> Vec<Published> {
        let mut others = Vec::new();
        for (name, directory, found) in self.directories() {
            let is_of_user = found.st_uid == geteuid().as_raw();
            if name == own {
                continue;
            }
            // A published lease that this user's other state directory no longer has is left over from a killed run, or
            // from a deleted state directory.
            let state = if is_of_user { state_of(directory.as_fd()) } else { None };
            if is_of_user && state.is_none() {
                continue;
            }
            let holder = if is_of_user {
                format!("another state directory of user {}", found.st_uid)
            } else {
                format!("user {}", found.st_uid)
            };
            let entries = entries(directory.as_fd());
            others.extend(
                entries
                    .into_iter()
                    .filter(|entry| state.as_deref().is_none_or(|state| has_lease(state, entry)))
                    .filter_map(|entry| key_of(&format!("{entry}{SUFFIX}")))
                    .map(|key| Published { key, holder: holder.clone() }),
            );
        }
        others
    }

    /// Removes the published leases of this user's state directories that no longer exist.
    fn forget_gone(&self, own: &str) {
        for (name, directory, found) in self.directories() {
            if name == own || found.st_uid != geteuid().as_raw() {
                continue;
            }
            let is_gone =
                |state: PathBuf| matches!(rustix::fs::stat(state.join(DIRECTORY)), Err(Errno::NOENT));
            if !state_of(directory.as_fd()).is_some_and(is_gone) {
                continue;
            }
            for entry in entries(directory.as_fd()) {
                let _ = rustix::fs::unlinkat(&directory, &entry, AtFlags::empty());
            }
            self.remove_if_empty(&name, &directory);
        }
    }

    fn directories(&self) -> impl Iterator<Item = (String, OwnedFd, Stat)> {
        let published = names(self.fd.as_fd(), |name| name.starts_with(PREFIX), DIRECTORIES_MAX);
        published.into_iter().filter_map(|name| {
            let directory = open_below(&self.fd, &name).ok()?;
            let found = rustix::fs::fstat(&directory).ok()?;
            Some((name, directory, found))
        })
    }

    fn remove_if_empty(&self, name: &str, directory: &OwnedFd) {
        if names(directory.as_fd(), |name| name != STATE, 1).is_empty() {
            let _ = rustix::fs::unlinkat(directory, STATE, AtFlags::empty());
            let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
        }
    }

    fn failed(&self, error: Errno) -> String {
        format!("{} cannot be written to: {error}", self.path.display())
    }
}

/// Returns the name of the directory in which a state directory publishes.
fn name_of(host: &Host) -> String {
    let hash = sha256_hex(host.state.as_os_str().as_bytes());
    format!("{PREFIX}{}-{}", geteuid().as_raw(), &hash[..MARK_DIGITS])
}

/// Opens a directory that may belong to another user. A file system that another user has mounted there may never
/// answer.
#[cfg(target_os = "linux")]
fn open_below(above: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(above, name, OPEN, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(above, name, OPEN, Mode::empty()),
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_below(above: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(above, name, OPEN, Mode::empty())
}

/// Returns at most `limit` of the names in a directory.
fn names(directory: BorrowedFd<'_>, keep: impl Fn(&str) -> bool, limit: usize) -> BTreeSet<String> {
    let Ok(entries) = Dir::read_from(directory) else { return BTreeSet::new() };
    let names = entries.map_while(Result::ok).take(NAMES_MAX);
    let names = names.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "." && name != ".." && keep(name)).take(limit).collect()
}

fn entries(directory: BorrowedFd<'_>) -> BTreeSet<String> {
    names(directory, |name| key_of(&format!("{name}{SUFFIX}")).is_some(), ENTRIES_MAX)
}

/// Creates the file of a lease. The sticky bit prevents `systemd-tmpfiles` from removing the file because of its age.
fn create_entry(directory: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::RUSR) {
        Ok(file) => rustix::fs::fchmod(&file, Mode::from_raw_mode(0o1444)),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the state directory for which a directory of this user publishes.
fn state_of(directory: BorrowedFd<'_>) -> Option<PathBuf> {
    let target = rustix::fs::readlinkat(directory, STATE, Vec::new()).ok()?;
    Some(Path::new(OsStr::from_bytes(target.to_bytes())).to_owned())
}

/// Returns whether a state directory has a lease, set aside or not.
pub(super) fn has_lease(state: &Path, entry: &str) -> bool {
    let registry = state.join(DIRECTORY);
    [SUFFIX, ASIDE].iter().any(|end| {
        let path = registry.join(format!("{entry}{end}"));
        rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    })
}

#[cfg(test)]
mod tests;
