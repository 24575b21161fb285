//! Files below a root, without ever following a link out of the root.
//!
//! Every component of a relative path is opened separately with `O_NOFOLLOW`, relative to the previous one. A
//! link that a repository commits, or that an agent swaps in during a run, is an error, not a way out.
//!
//! Linux does all of this in one call, `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`. If that call fails
//! for any reason, the path is opened step by step, which determines the reason.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use self::removal::Threads;
use self::resolve::regular;
use super::failpoint::{crashpoint, failpoint};
use super::text::printable;

pub(crate) mod copies;
pub(crate) mod exchange;
pub(crate) mod hidden;
mod mount;
mod removal;
mod sweep;
pub(crate) mod temporary;
pub(crate) mod tree_copy;
mod resolve;

/// Flags to open a directory: for reading, and only if it is a directory.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Flags to open a file: no link, and without waiting for another process.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Bytes reserved beyond the size of a file when it is read.
///
/// With less than 32 bytes left, the standard library makes an extra call that probes for the end.
const READ_SLACK: usize = 64;

/// An open directory, below which everything is opened without following links.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reason for which a file could not be accessed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A component of the path is a symbolic link.
    #[error("{} is a symbolic link, which is not followed", shown(path))]
    Link {
        /// Path of the link.
        path: PathBuf,
    },
    /// The path leads out of its root, or does not consist of plain names.
    #[error("{} is not a plain relative path", shown(path))]
    Outside {
        /// Path that was requested.
        path: PathBuf,
    },
    /// The path is not a regular file, or the file belongs to another user.
    #[error("{} is not a regular file of this user's", shown(path))]
    Irregular {
        /// Path of the object that exists instead.
        path: PathBuf,
    },
    /// A directory that must belong only to this user belongs to others too.
    #[error("{} belongs to another user, or others can write to it: chown it, or chmod go-w", shown(path))]
    Shared {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The path is a mount, which is not part of the tree around it.
    #[error("{} is a mount: `umount` it first", shown(path))]
    Mounted {
        /// Path of the mount point.
        path: PathBuf,
    },
    /// The file is larger than any valid file at this path.
    #[error("{} is larger than {limit} bytes", shown(path))]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Largest permitted size, in bytes.
        limit: usize,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// Attempted action: `open`, `create`, `remove`, …
        action: &'static str,
        /// Path on which the action was attempted.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
}

impl Root {
    /// Opens a directory by its absolute path. Links above it and the directory itself may be links; links
    /// below are never followed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(io("open", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens an existing directory as [`Root::open`] does; `None` if there is none.
    pub(crate) fn open_if_any(path: &Path) -> Result<Option<Self>, Error> {
        match Self::open(path) {
            Err(error) if error.is_not_found() => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens the root from which a path of a manifest is reached, and returns it with the path below it.
    ///
    /// For a path in the workspace, the root is the workspace. For `../worktrees` it is the deepest directory
    /// that contains both, so that directories created on the way can be removed again. For a path that
    /// shares only `/` with the workspace, it is the deepest existing directory above the path.
    pub fn toward(workspace: &Path, path: &Path) -> Result<(Self, PathBuf), Error> {
        let path = super::absolute(workspace, path);
        let shared: PathBuf = workspace
            .components()
            .zip(path.components())
            .take_while(|(one, other)| one == other)
            .map(|(one, _)| one)
            .collect();
        let above = if shared.parent().is_some() {
            shared
        } else {
            let existing = path.ancestors().skip(1).find(|above| Self::open(above).is_ok());
            existing.unwrap_or(Path::new("/")).to_owned()
        };
        let below = path.strip_prefix(&above).map_err(|_| Error::Outside { path: path.clone() })?.to_owned();
        Ok((Self::open(&above)?, below))
    }

    /// Creates the directory and all directories above it, and opens it. New directories are private to the
    /// user (0700).
    ///
    /// New directories survive a power failure.
    pub fn create(path: &Path) -> Result<Self, Error> {
        match Self::open(path) {
            Err(error) if error.is_not_found() => {}
            opened => return opened,
        }
        let above = match path.parent() {
            Some(above) if above != Path::new("") => Self::create(above)?,
            _ => return Self::open(path),
        };
        failpoint!("files.create-directory").map_err(io("create", path))?;
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::Io { action: "create", path: path.to_owned(), source }),
        }
        above.sync()?;
        Self::open(path)
    }

    /// Creates and opens a directory as [`Root::create`] does, and requires that it belongs to this user
    /// alone.
    ///
    /// A link at `path`, a directory of another user, and a directory that others can write to are errors.
    pub fn create_private(path: &Path) -> Result<Self, Error> {
        Self::create(path)?;
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|error| {
            if rustix::fs::readlink(path, Vec::new()).is_ok() {
                Error::Link { path: path.to_owned() }
            } else {
                io("open", path)(error)
            }
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(io("inspect", path))?;
        let user = rustix::process::geteuid().as_raw();
        let others = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
        if stat.st_uid != user || others {
            return Err(Error::Shared { path: path.to_owned() });
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Returns the path with which this directory was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below this root; `None` if it does not exist.
    pub fn directory(&self, relative: &Path) -> Result<Option<Self>, Error> {
        let names = self.names_of(relative)?;
        if names.is_empty() {
            return self.again().map(Some);
        }
        if let Ok(found) = self.open_at_once(relative, DIRECTORY) {
            return Ok(found.map(|fd| Self { fd, path: self.path.join(relative) }));
        }
        let mut directory = self.again()?;
        for name in names {
            match directory.child(name)? {
                Some(child) => directory = child,
                None => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// Creates a directory below this root with all directories between (0777 less the umask), and opens it.
    pub fn create_directories(&self, relative: &Path) -> Result<Self, Error> {
        let mut directory = self.again()?;
        for name in self.names_of(relative)? {
            directory = match directory.child(name)? {
                Some(child) => child,
                None => directory.create_child(name)?,
            };
        }
        Ok(directory)
    }

    /// Returns the names in this directory.
    pub fn names(&self) -> Result<BTreeSet<OsString>, Error> {
        Ok(self.entries()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Reads a regular file of at most `limit` bytes; `None` if it does not exist. Never blocks on a FIFO.
    ///
    /// The file must belong to this user or to root. Root reads the files of all users.
    pub fn read(&self, relative: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(relative);
        let Some((file, size)) = self.open_to_read(relative)? else { return Ok(None) };
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        // With room for the whole file and some more, the second call finds its end.
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(most)).unwrap_or(limit) + READ_SLACK);
        match file.take(most).read_to_end(&mut bytes) {
            Ok(length) if length > limit => Err(Error::TooLarge { path, limit }),
            Ok(_) => Ok(Some(bytes)),
            Err(source) => Err(Error::Io { action: "read", path, source }),
        }
    }

    /// Reads the first bytes of a file like [`Self::read`], at most `count`, however large the file is.
    pub(crate) fn read_start(&self, relative: &Path, count: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((file, _)) = self.open_to_read(relative)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(count).read_to_end(&mut bytes).map_err(|source| Error::Io {
            action: "read",
            path: self.path.join(relative),
            source,
        })?;
        Ok(Some(bytes))
    }

    /// Opens a regular file and returns it with its size in bytes; `None` if it does not exist.
    pub(crate) fn open_to_read(&self, relative: &Path) -> Result<Option<(File, u64)>, Error> {
        if self.names_of(relative)?.is_empty() {
            return Err(Error::Outside { path: self.path.join(relative) });
        }
        let path = self.path.join(relative);
        failpoint!("files.read").map_err(io("read", &path))?;
        match self.open_at_once(relative, FILE) {
            Ok(found) => found.map(|fd| regular(fd, &path)).transpose(),
            Err(_) => match self.parent(relative)? {
                Some((parent, name)) => parent.regular_file(name, OFlags::RDONLY),
                None => Ok(None),
            },
        }
    }

    /// Opens a regular file to append to it or to lock it. A new file is created empty and private (0600).
    ///
    /// The file must belong to this user or to root. Root opens the files of all users.
    pub fn open_or_create(&self, relative: &Path) -> Result<File, Error> {
        let (parent, name) = self.existing_parent(relative)?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
        failpoint!("files.open").map_err(io("open", &parent.path.join(name)))?;
        match parent.regular_file(name, flags)? {
            Some((file, _)) => Ok(file),
            None => Err(io("create", &parent.path.join(name))(Errno::NOENT)),
        }
    }

    /// Replaces the file with `bytes` in one step: a temporary file beside it, fsync, rename, fsync of the
    /// directory.
    ///
    /// A reader sees the complete old file or the complete new one. The new one has the permissions of the old one.
    pub fn replace(&self, relative: &Path, bytes: &[u8]) -> Result<(), Error> {
        let (parent, name) = self.existing_parent(relative)?;
        let old = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let old = old.ok().filter(|old| FileType::from_raw_mode(old.st_mode).is_file());
        let mode = old.map(|old| Mode::from_raw_mode(old.st_mode & 0o777));
        let temporary = parent.write_temporary(name, bytes, mode)?;
        let renamed = failpoint!("files.replace")
            .and_then(|()| rustix::fs::renameat(&parent.fd, &temporary.name, &parent.fd, name));
        if renamed.is_err() {
            parent.forget(&temporary.name);
        }
        renamed.map_err(io("replace", &parent.path.join(name)))?;
        parent.sync()
    }

    /// Creates the file with `bytes`, complete from the first moment; `false` if something already exists
    /// there.
    pub fn create_new(&self, relative: &Path, bytes: &[u8]) -> Result<bool, Error> {
        let (parent, name) = self.existing_parent(relative)?;
        let temporary = parent.write_temporary(name, bytes, None)?;
        let linked = failpoint!("files.link").and_then(|()| {
            rustix::fs::linkat(&parent.fd, &temporary.name, &parent.fd, name, AtFlags::empty())
        });
        crashpoint!("files.linked");
        parent.forget(&temporary.name);
        match linked {
            Ok(()) => parent.sync().map(|()| true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(io("create", &parent.path.join(name))(error)),
        }
    }

    /// Removes a file or link; `false` if it did not exist.
    pub fn remove_file(&self, relative: &Path) -> Result<bool, Error> {
        let Some((parent, name)) = self.parent(relative)? else { return Ok(false) };
        let removed = failpoint!("files.remove").and_then(|()| parent.unlink(name, AtFlags::empty()));
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(io("remove", &parent.path.join(name))(error)),
        }
    }

    /// Calls unlinkat(2), and maps its errors on a read-only file system.
    ///
    /// A read-only file system refuses before it checks whether there is anything to remove.
    fn unlink(&self, name: &OsStr, flags: AtFlags) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Err(Errno::ROFS) if self.file_type(name).is_none() => Err(Errno::NOENT),
            Err(Errno::ROFS) if flags == AtFlags::REMOVEDIR && self.has_entries(name) => Err(Errno::NOTEMPTY),
            done => done,
        }
    }

    fn has_entries(&self, name: &OsStr) -> bool {
        let names = |directory: Self| directory.names().is_ok_and(|names| !names.is_empty());
        self.child(name).ok().flatten().is_some_and(names)
    }

    /// Removes a directory if it is empty; `false` if it is not empty or does not exist.
    pub fn remove_directory(&self, relative: &Path) -> Result<bool, Error> {
        let Some((parent, name)) = self.parent(relative)? else { return Ok(false) };
        let removed =
            failpoint!("files.remove-directory").and_then(|()| parent.unlink(name, AtFlags::REMOVEDIR));
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(parent.not_a_directory(name, "remove", error)),
        }
    }

    /// Removes anything at the path with everything below it, without following links. A missing path is no error.
    ///
    /// A mount below is an error ([`Error::Mounted`]) and stays, also a bind mount of the same file system. Directories
    /// whose permissions prevent the removal get 0700. Files that another process adds meanwhile are removed too. If
    /// the process does not stop adding files, this is an error.
    pub fn remove_all(&self, relative: &Path) -> Result<(), Error> {
        self.remove_tree(relative, Threads::One)
    }

    /// Removes a tree as [`Root::remove_all`] does, on all threads that the caller shares work with (rayon).
    ///
    /// Meanwhile a thread may run any of that other work. So the caller must not have locked anything that this work
    /// waits for.
    pub fn remove_all_in_parallel(&self, relative: &Path) -> Result<(), Error> {
        self.remove_tree(relative, Threads::All)
    }

    fn remove_tree(&self, relative: &Path, threads: Threads) -> Result<(), Error> {
        match self.parent(relative)? {
            Some((parent, name)) => removal::remove(&parent, name, threads),
            None => Ok(()),
        }
    }

    /// Renames below this root; `false` if `from` does not exist.
    ///
    /// As with rename(2), a file at `to` is replaced, and an empty directory is replaced by a directory.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<bool, Error> {
        self.rename_into(from, self, to)
    }

    /// Renames from below this root to below another one, as [`Root::rename`] does.
    pub fn rename_into(&self, from: &Path, root: &Self, to: &Path) -> Result<bool, Error> {
        let Some((source, from)) = self.parent(from)? else { return Ok(false) };
        let (target, to) = root.existing_parent(to)?;
        let renamed =
            failpoint!("files.rename").and_then(|()| rustix::fs::renameat(&source.fd, from, &target.fd, to));
        match renamed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::ROFS) if source.file_type(from).is_none() => Ok(false),
            Err(error) => Err(io("rename", &source.path.join(from))(error)),
        }
    }

    /// Ensures that a directory for files of seedbed exists, and that Git does not see it.
    ///
    /// The topmost created directory gets a `.gitignore` of `*` with seedbed's ownership marker, unless a
    /// directory above it in the same repository has a marker. If no directory had to be created and the
    /// directory has no `.gitignore`, it gets one that records this.
    pub fn create_hidden(&self, relative: &Path) -> Result<Self, Error> {
        hidden::create(self, relative)
    }

    /// Removes what [`Root::create_hidden`] created, if it is empty again.
    ///
    /// A directory without a marker in it or above it existed before, and stays.
    pub fn remove_hidden(&self, relative: &Path) -> Result<(), Error> {
        hidden::remove(self, relative)
    }

    /// Waits for the lock of this directory, which the returned file owns until it is closed. Only processes that take this
    /// lock wait for it. A file system without locks lets them run beside each other.
    pub fn lock(&self) -> Result<File, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = File::from(
            rustix::fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(io("open", &self.path))?,
        );
        let _ = directory.lock();
        Ok(directory)
    }

    /// Makes everything of this directory's file system survive a power failure, if the file system can.
    pub(crate) fn sync_file_system(&self) -> Result<(), Error> {
        match rustix::fs::syncfs(&self.fd) {
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(io("sync", &self.path)(error)),
        }
    }

    /// Makes changes of the names in this directory survive a power failure, if the file system can.
    pub fn sync(&self) -> Result<(), Error> {
        match failpoint!("files.sync-directory").and_then(|()| rustix::fs::fsync(&self.fd)) {
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(io("sync", &self.path)(error)),
        }
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    move |error| Error::Io { action, path: path.to_owned(), source: error.into() }
}

impl Error {
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

#[cfg(test)]
mod tests;
