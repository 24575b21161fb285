//! Temporary files beside their targets, and the sweep of temporary files that a killed process left.
//!
//! A process locks (flock) its temporary file until the file has its final name. A temporary file with a free lock
//! therefore has no owner.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::failpoint::{crashpoint, failpoint};
use super::copies::copy_large;
use super::{DIRECTORY, Error, Root, io};

/// Longest name, in bytes, that a temporary file repeats.
///
/// Names have at most 255 bytes on most file systems, and the rest of a temporary name uses at most 50.
const REPEATED_NAME_MAX: usize = 200;

/// Limit of temporary files of a killed process with the same id that may be in the way.
const TRIES: u32 = 1000;

/// A temporary file or directory, and the lock that marks it as in use.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) name: OsString,
    _held: OwnedFd,
}

impl Root {
    /// Writes a complete and synced file under a temporary name.
    pub(super) fn write_temporary(
        &self,
        name: &OsStr,
        bytes: &[u8],
        mode: Option<Mode>,
    ) -> Result<Temporary, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (temporary, fd) = self.make_temporary(name, |temporary| {
            failpoint!("files.create")?;
            rustix::fs::openat(&self.fd, temporary, flags, Mode::from_raw_mode(0o666))
        })?;
        let mut file = File::from(fd);
        let written = failpoint!("files.write")
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| Ok(mode.map_or(Ok(()), |mode| rustix::fs::fchmod(&file, mode))?))
            .and_then(|()| Ok(failpoint!("files.sync")?))
            .and_then(|()| file.sync_all());
        match written {
            Ok(()) => Ok(Temporary { name: temporary, _held: file.into() }),
            Err(source) => {
                self.forget(&temporary);
                Err(Error::Io { action: "write", path: self.path.join(name), source })
            }
        }
    }

    /// Copies an open file of `size` bytes, with its permissions, under a temporary name.
    pub(super) fn copy_temporary(&self, name: &OsStr, from: &File, size: u64) -> Result<Temporary, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = rustix::fs::fstat(from).map_err(io("inspect", &self.path.join(name)))?.st_mode & 0o777;
        let (temporary, fd) = self.make_temporary(name, |temporary| {
            rustix::fs::openat(&self.fd, temporary, flags, Mode::from_raw_mode(mode | 0o600))
        })?;
        let mut file = File::from(fd);
        match copy_large(from, &mut file, size) {
            Ok(_) => Ok(Temporary { name: temporary, _held: file.into() }),
            Err(source) => {
                self.forget(&temporary);
                Err(Error::Io { action: "copy", path: self.path.join(name), source })
            }
        }
    }

    /// Creates a directory under a temporary name.
    pub(crate) fn make_temporary_directory(&self, name: &OsStr) -> Result<Temporary, Error> {
        let (temporary, held) = self.make_temporary(name, |temporary| {
            failpoint!("files.create-temporary-directory")?;
            rustix::fs::mkdirat(&self.fd, temporary, Mode::from_raw_mode(0o777))?;
            crashpoint!("files.created-temporary-directory");
            rustix::fs::openat(&self.fd, temporary, DIRECTORY, Mode::empty())
        })?;
        Ok(Temporary { name: temporary, _held: held })
    }

    /// Removes a temporary file that is no longer used. Errors are ignored: only the earlier error is
    /// reported.
    pub(super) fn forget(&self, temporary: &OsStr) {
        let _ = rustix::fs::unlinkat(&self.fd, temporary, AtFlags::empty());
    }

    /// Returns the temporary files of `name` whose processes have ended, locked.
    pub(crate) fn abandoned(&self, name: &OsStr) -> Result<Vec<Temporary>, Error> {
        let names = self.names()?.into_iter().filter(|temporary| name_of(temporary) == Some(name));
        let held = |name: OsString| self.take_abandoned(&name).map(|held| Temporary { name, _held: held });
        Ok(names.filter_map(held).collect())
    }

    /// Calls `create` with names for a temporary file beside `name` until one is free, and locks the result.
    fn make_temporary(
        &self,
        name: &OsStr,
        create: impl Fn(&OsStr) -> rustix::io::Result<OwnedFd>,
    ) -> Result<(OsString, OwnedFd), Error> {
        let mut tries = 0;
        loop {
            let temporary = temporary_name(name);
            match create(&temporary) {
                // A sweep may have removed the file before it was locked.
                Ok(fd) if !hold(&fd) || !self.is_called(&temporary, &fd) => {}
                Ok(fd) => return Ok((temporary, fd)),
                Err(Errno::EXIST | Errno::NOENT) if tries < TRIES => tries += 1,
                Err(error) => return Err(io("create", &self.path.join(name))(error)),
            }
        }
    }

    /// Locks a temporary file whose process has ended.
    pub(super) fn take_abandoned(&self, name: &OsStr) -> Option<OwnedFd> {
        let held = match self.file_type(name) {
            Some(FileType::RegularFile) => {
                self.regular_file(name, OFlags::RDONLY).ok().flatten().map(|(file, _)| file.into())
            }
            Some(FileType::Directory) => self.child(name).ok().flatten().map(|directory| directory.fd),
            _ => None,
        };
        held.filter(|held| rustix::fs::flock(held, FlockOperation::NonBlockingLockExclusive).is_ok())
    }

    fn is_called(&self, name: &OsStr, fd: &OwnedFd) -> bool {
        let there = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let own = rustix::fs::fstat(fd);
        matches!((there, own), (Ok(there), Ok(own)) if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino))
    }
}

/// Locks a temporary file; `false` if a sweep has locked it.
pub(super) fn hold(fd: &impl AsFd) -> bool {
    // If the file system has no locks, nothing is swept either.
    !matches!(rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK))
}

/// Returns a name that no other temporary file of this process has.
pub(super) fn temporary_name(name: &OsStr) -> OsString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut temporary = OsString::from(".");
    if name.len() <= REPEATED_NAME_MAX {
        temporary.push(name);
    }
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".seedbed-{}-{count}", std::process::id()));
    temporary
}

/// Returns whether a name has the form of temporary names.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name_of(name).is_some()
}

/// Returns the name that a temporary file is for, which is empty if that name is long.
///
/// Returns `None` if `temporary` does not have the form of [`temporary_name`]: `.NAME.seedbed-PID-COUNT`.
pub(super) fn name_of(temporary: &OsStr) -> Option<&OsStr> {
    const MARK: &[u8] = b".seedbed-";
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let name = temporary.as_bytes().strip_prefix(b".")?;
    let at = name.windows(MARK.len()).rposition(|window| window == MARK)?;
    let (name, numbers) = (&name[..at], &name[at + MARK.len()..]);
    let mut numbers = numbers.splitn(2, |byte| *byte == b'-');
    let both = numbers.next().is_some_and(is_number) && numbers.next().is_some_and(is_number);
    both.then(|| OsStr::from_bytes(name))
}
