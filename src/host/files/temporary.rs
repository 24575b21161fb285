//! Temporaries beside what they become, and the sweeping up of those that a killed process left.
//!
//! Who makes one holds its flock until it has its name, so that a temporary whose lock can be taken is nobody's.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::failpoint::{crashpoint, failpoint};
use super::{DIRECTORY, Error, Root, io};

/// The longest name, in bytes, that a temporary repeats; names end at 255 on most file systems, and the rest of a
/// temporary's takes at most 50.
const REPEATED_NAME_MAX: usize = 200;

/// How many temporaries of a killed process with the same id may lie in the way.
const TRIES: u32 = 1000;

/// A temporary, and what holds it as its maker's.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) name: OsString,
    _held: OwnedFd,
}

impl Root {
    /// Writes a file that nobody looks for, whole and synced.
    pub(super) fn write_temporary(&self, name: &OsStr, bytes: &[u8]) -> Result<Temporary, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (temporary, fd) = self.make_temporary(name, |temporary| {
            failpoint!("files.create")?;
            rustix::fs::openat(&self.fd, temporary, flags, Mode::from_raw_mode(0o666))
        })?;
        let mut file = File::from(fd);
        let written = failpoint!("files.write")
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(bytes))
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

    /// Makes a directory that nobody looks for.
    pub(crate) fn make_temporary_directory(&self, name: &OsStr) -> Result<Temporary, Error> {
        let (temporary, held) = self.make_temporary(name, |temporary| {
            failpoint!("files.create-temporary-directory")?;
            rustix::fs::mkdirat(&self.fd, temporary, Mode::from_raw_mode(0o777))?;
            crashpoint!("files.created-temporary-directory");
            rustix::fs::openat(&self.fd, temporary, DIRECTORY, Mode::empty())
        })?;
        Ok(Temporary { name: temporary, _held: held })
    }

    /// Removes a temporary whose use has ended; what went wrong before is what is reported.
    pub(super) fn forget(&self, temporary: &OsStr) {
        let _ = rustix::fs::unlinkat(&self.fd, temporary, AtFlags::empty());
    }

    /// The temporaries of `name` whose makers are gone, held.
    pub(crate) fn abandoned(&self, name: &OsStr) -> Result<Vec<Temporary>, Error> {
        let names = self.names()?.into_iter().filter(|temporary| name_of(temporary) == Some(name));
        let held = |name: OsString| self.take_abandoned(&name).map(|held| Temporary { name, _held: held });
        Ok(names.filter_map(held).collect())
    }

    /// Calls `create` with names for a temporary beside `name` until one is free, and holds what it made.
    fn make_temporary(
        &self,
        name: &OsStr,
        create: impl Fn(&OsStr) -> rustix::io::Result<OwnedFd>,
    ) -> Result<(OsString, OwnedFd), Error> {
        let mut tries = 0;
        loop {
            let temporary = temporary_name(name);
            match create(&temporary) {
                // Somebody who sweeps may have come between the two.
                Ok(fd) if !hold(&fd) || !self.is_called(&temporary, &fd) => {}
                Ok(fd) => return Ok((temporary, fd)),
                Err(Errno::EXIST | Errno::NOENT) if tries < TRIES => tries += 1,
                Err(error) => return Err(io("create", &self.path.join(name))(error)),
            }
        }
    }

    /// Holds a temporary whose maker is gone.
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

/// Takes the lock of a temporary; `false` where somebody who sweeps has it.
pub(super) fn hold(fd: &impl AsFd) -> bool {
    // Where the file system has no locks, nothing is swept either.
    !matches!(rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK))
}

/// A name that no other temporary of this process has.
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

/// Returns whether a file is called as temporaries are.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name_of(name).is_some()
}

/// The name that a temporary is beside, which is empty where it is long; `None` where it is not called as
/// [`temporary_name`] calls them: `.NAME.seedbed-PID-COUNT`.
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
