//! Replaces and removes files that other processes may write meanwhile, without losing what they write.
//!
//! A rename takes the old file away from its path. Then it is compared, when no process can write it by its name any
//! more. A file that is not the expected one is renamed back. If another process has written the path once more since,
//! both versions stay: one at the path, the other beside it, as `NAME.seedbed-N`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::super::failpoint::{crashpoint, failpoint};
use super::{Error, Root, io as failed};

/// Result of replacing or removing a file that another process may write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// The file was replaced or removed.
    Done,
    /// Another process has changed the file, which stays.
    Changed {
        /// Name of a second version, if the process has written the file twice meanwhile.
        beside: Option<OsString>,
    },
}

impl Root {
    /// Renames the file `new` of `scratch` to `name`; `false` if anything exists there.
    pub(crate) fn place(&self, name: &OsStr, scratch: &Self, new: &OsStr) -> Result<bool, Error> {
        match renameat_with(scratch, new, self, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(failed("create", &self.path.join(name))(error)),
        }
    }

    /// Replaces the file `name` by the file `new` of `scratch`, if `is_old` confirms the replaced file at its path in
    /// `scratch`.
    pub(crate) fn exchange(
        &self,
        name: &OsStr,
        scratch: &Self,
        new: &OsStr,
        is_old: impl FnOnce(&Path) -> io::Result<bool>,
    ) -> Result<Exchange, Error> {
        let path = self.path.join(name);
        let written = scratch.identity(new);
        let exchange = || renameat_with(scratch, new, self, name, RenameFlags::EXCHANGE);
        if !is_renamed(failpoint!("files.exchange").and_then(|()| exchange()), "replace", &path)? {
            return Ok(Exchange::Changed { beside: None });
        }
        crashpoint!("files.exchanged");
        let is_old = is_old(&scratch.path.join(new));
        if matches!(is_old, Ok(true)) {
            return Ok(Exchange::Done);
        }
        let is_back = exchange().is_ok() && scratch.identity(new) == written;
        let beside = if is_back { None } else { scratch.give_back(new, self, name)? };
        changed(is_old, beside, path)
    }

    /// Moves the file `name` to `aside` in `scratch`, if `is_old` confirms the file there.
    pub(crate) fn take(
        &self,
        name: &OsStr,
        scratch: &Self,
        aside: &OsStr,
        is_old: impl FnOnce(&Path) -> io::Result<bool>,
    ) -> Result<Exchange, Error> {
        let path = self.path.join(name);
        let renamed = || renameat_with(self, name, scratch, aside, RenameFlags::NOREPLACE);
        if !is_renamed(failpoint!("files.take").and_then(|()| renamed()), "remove", &path)? {
            return Ok(Exchange::Changed { beside: None });
        }
        crashpoint!("files.taken");
        let is_old = is_old(&scratch.path.join(aside));
        if matches!(is_old, Ok(true)) {
            return Ok(Exchange::Done);
        }
        let beside = scratch.give_back(aside, self, name)?;
        changed(is_old, beside, path)
    }

    /// Renames the file `aside` of this directory to `name` in `to`. If anything exists there, the file gets a free
    /// name beside it, which is returned.
    fn give_back(&self, aside: &OsStr, to: &Self, name: &OsStr) -> Result<Option<OsString>, Error> {
        let (mut free, mut number) = (OsString::from(name), 0);
        while !to.place(&free, self, aside)? {
            number += 1;
            name.clone_into(&mut free);
            free.push(format!(".seedbed-{number}"));
        }
        Ok((number > 0).then_some(free))
    }

    /// Returns what a write or a replacement of a file changes: inode, size, and time of the last write.
    fn identity(&self, name: &OsStr) -> Option<(u64, i64, i64, i64)> {
        let found = rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((found.st_ino, found.st_size, found.st_mtime, i64::try_from(found.st_mtime_nsec).ok()?))
    }
}

/// Returns whether a file was renamed; `false` if it does not exist any more.
fn is_renamed(renamed: Result<(), Errno>, action: &'static str, path: &Path) -> Result<bool, Error> {
    match renamed {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(failed(action, path)(error)),
    }
}

/// Returns the result for a file that is not the expected one, or the error of its comparison.
fn changed(is_old: io::Result<bool>, beside: Option<OsString>, path: PathBuf) -> Result<Exchange, Error> {
    match is_old {
        Ok(_) => Ok(Exchange::Changed { beside }),
        Err(source) => Err(Error::Io { action: "compare", path, source }),
    }
}
