//! Copies of one file in several directories at once: it is read once, however many there are.
//!
//! Which file is meant is told in one of two ways: by what the file system says of it, where nobody else is at work; or
//! by its content alone, where somebody may be.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::super::failpoint::failpoint;
use super::{Error, Root, io as failed};

/// The largest file, in bytes, that is read into memory and written from there. Sharing blocks makes the file system
/// write the source to the disk first, which costs more than it saves where there is little to share.
const SMALL_MAX: usize = 64 * 1024;

/// The largest file, in bytes, that is copied for its content: all of it is read before any of it is written.
const CONTENT_MAX: usize = 16 << 20;

/// Copies files out of one directory into others.
pub(crate) struct Copier<'a> {
    from: &'a Root,
    to: &'a [Root],
    modified: Timestamps,
    buffer: Vec<u8>,
}

/// What went wrong, and in which of the directories that are copied to; `None` where it was the source.
pub(crate) type Failed = (Option<usize>, Error);

impl<'a> Copier<'a> {
    /// Copies files of `from` to the same names in `to`, all with the time `modified`, in seconds.
    pub(crate) fn new(from: &'a Root, to: &'a [Root], modified: i64) -> Self {
        let modified = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: modified, tv_nsec: 0 },
        };
        Self { from, to, modified, buffer: vec![0; SMALL_MAX + 1] }
    }

    /// Copies a regular file with its permissions, if the file system says `expected` of it, and adds what it says of
    /// each copy to `stats`. Nothing that stands there already is written over.
    pub(crate) fn file(
        &mut self,
        name: &OsStr,
        expected: impl FnOnce(&Stat) -> bool,
        stats: &mut Vec<Stat>,
    ) -> Result<(), Failed> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(&self.from.fd, name, flags, Mode::empty())
            .map_err(|error| (None, failed("open", &self.from.path.join(name))(error)))?;
        let found = rustix::fs::fstat(&source).map_err(|error| self.source(name, error.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || !expected(&found) {
            return Err(self.changed(name));
        }
        let mut source = File::from(source);
        let mode = Mode::from_raw_mode(found.st_mode & 0o777);
        let size = usize::try_from(found.st_size).unwrap_or(usize::MAX);
        if size <= SMALL_MAX {
            let read = read(&mut source, &mut self.buffer).map_err(|error| self.source(name, error))?;
            if read != size {
                return Err(self.changed(name));
            }
        }
        for (at, to) in self.to.iter().enumerate() {
            let stat = create(to, name, mode)
                .and_then(|mut copy| {
                    if size <= SMALL_MAX {
                        if size > 0 {
                            copy.write_all(&self.buffer[..size])?;
                        }
                    } else {
                        copy_large(&mut source, &mut copy, size as u64, &mut self.buffer)?;
                    }
                    self.complete(&copy, mode)
                })
                .map_err(|error| (Some(at), target(to, name, error)))?;
            if stat.st_size != found.st_size {
                return Err(self.changed(name));
            }
            stats.push(stat);
        }
        Ok(())
    }

    /// Copies a symbolic link, under the same conditions; `false` where the source is none, and nothing was done.
    pub(crate) fn link(
        &mut self,
        name: &OsStr,
        expected: impl FnOnce(&Stat) -> bool,
        stats: &mut Vec<Stat>,
    ) -> Result<bool, Failed> {
        let found = stat(self.from, name).map_err(|error| self.source(name, error))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            return Ok(false);
        }
        if !expected(&found) {
            return Err(self.changed(name));
        }
        let leads_to = rustix::fs::readlinkat(&self.from.fd, name, Vec::new())
            .map_err(|error| self.source(name, error.into()))?;
        self.make_link(name, &leads_to, stats)?;
        Ok(true)
    }

    /// Copies a regular file if its bytes are `wanted`, whoever else writes to it, with the permissions that a file has
    /// which git makes; `false` where there is no such file that can be read, and nothing was done.
    pub(crate) fn file_of(
        &mut self,
        name: &OsStr,
        executable: bool,
        wanted: impl FnOnce(&[u8]) -> bool,
        stats: &mut Vec<Stat>,
    ) -> Result<bool, Failed> {
        let Some(size) = self.read_content(name).filter(|size| wanted(&self.buffer[..*size])) else {
            return Ok(false);
        };
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        for (at, to) in self.to.iter().enumerate() {
            let write = |mut copy: File| {
                copy.write_all(&self.buffer[..size])?;
                rustix::fs::futimens(&copy, &self.modified)?;
                Ok(rustix::fs::fstat(&copy)?)
            };
            let stat = create(to, name, mode).and_then(write);
            stats.push(stat.map_err(|error| (Some(at), target(to, name, error)))?);
        }
        Ok(true)
    }

    /// Copies a symbolic link that leads where it is `wanted`; `false` where there is none, and nothing was done.
    pub(crate) fn link_of(
        &mut self,
        name: &OsStr,
        wanted: impl FnOnce(&[u8]) -> bool,
        stats: &mut Vec<Stat>,
    ) -> Result<bool, Failed> {
        match rustix::fs::readlinkat(&self.from.fd, name, Vec::new()) {
            Ok(leads_to) if wanted(leads_to.as_bytes()) => {
                self.make_link(name, &leads_to, stats)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Reads a regular file into the buffer; `None` where there is none that can be read.
    fn read_content(&mut self, name: &OsStr) -> Option<usize> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = rustix::fs::openat(&self.from.fd, name, flags, Mode::empty()).ok()?;
        let found = rustix::fs::fstat(&source).ok()?;
        let size = usize::try_from(found.st_size).ok().filter(|size| *size <= CONTENT_MAX)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return None;
        }
        if self.buffer.len() <= size {
            self.buffer.resize(size + 1, 0);
        }
        let read = read(&mut File::from(source), &mut self.buffer[..=size]).ok()?;
        (read == size).then_some(size)
    }

    fn make_link(&self, name: &OsStr, leads_to: &CStr, stats: &mut Vec<Stat>) -> Result<(), Failed> {
        for (at, to) in self.to.iter().enumerate() {
            let made_there = failpoint!("copies.link")
                .and_then(|()| rustix::fs::symlinkat(leads_to, &to.fd, name))
                .and_then(|()| rustix::fs::utimensat(&to.fd, name, &self.modified, AtFlags::SYMLINK_NOFOLLOW))
                .map_err(io::Error::from)
                .and_then(|()| stat(to, name));
            stats.push(made_there.map_err(|error| (Some(at), target(to, name, error)))?);
        }
        Ok(())
    }

    /// Makes an empty directory in each place, and adds what the file system says of it to `stats`.
    pub(crate) fn directory(&mut self, name: &OsStr, stats: &mut Vec<Stat>) -> Result<(), Failed> {
        for (at, to) in self.to.iter().enumerate() {
            make_directory(to, name).map_err(|error| (Some(at), error))?;
            stats.push(stat(to, name).map_err(|error| (Some(at), target(to, name, error)))?);
        }
        Ok(())
    }

    /// Sets what a new file does not have by itself, last its time.
    fn complete(&self, copy: &File, mode: Mode) -> io::Result<Stat> {
        rustix::fs::futimens(copy, &self.modified)?;
        let stat = rustix::fs::fstat(copy)?;
        if Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o777) == mode {
            return Ok(stat);
        }
        // The umask took something that the source was given all the same.
        rustix::fs::fchmod(copy, mode)?;
        Ok(rustix::fs::fstat(copy)?)
    }

    fn source(&self, name: &OsStr, source: io::Error) -> Failed {
        (None, Error::Io { action: "copy", path: self.from.path.join(name), source })
    }

    fn changed(&self, name: &OsStr) -> Failed {
        self.source(name, io::Error::other("somebody changes it"))
    }
}

/// Makes a directory where nothing stands yet.
pub(crate) fn make_directory(root: &Root, name: &OsStr) -> Result<(), Error> {
    failpoint!("copies.make-directory")
        .and_then(|()| rustix::fs::mkdirat(&root.fd, name, Mode::from_raw_mode(0o777)))
        .map_err(failed("create", &root.path.join(name)))
}

/// What the file system says of what is at `name`, links unfollowed.
pub(crate) fn stat(root: &Root, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(&root.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn target(root: &Root, name: &OsStr, source: io::Error) -> Error {
    Error::Io { action: "write", path: root.path.join(name), source }
}

/// Creates a file, to be written to.
fn create(root: &Root, name: &OsStr, mode: Mode) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    failpoint!("copies.create")?;
    let file = File::from(rustix::fs::openat(&root.fd, name, flags, mode)?);
    failpoint!("copies.write")?;
    Ok(file)
}

/// Reads to the end of a file, or until the buffer is full.
fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Copies a file of `size` bytes into an empty one: by sharing its blocks where the file system can, else inside the
/// kernel, else through `buffer`.
fn copy_large(from: &mut File, to: &mut File, size: u64, buffer: &mut [u8]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
            return Ok(());
        }
        if copied_by_the_kernel(from, to, size)? {
            return Ok(());
        }
    }
    from.rewind()?;
    let mut left = size;
    while left > 0 {
        let length = from.read(buffer)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..length])?;
        left = left.saturating_sub(length as u64);
    }
    Ok(())
}

/// `false` where the kernel does not copy between these two; nothing is written then.
#[cfg(target_os = "linux")]
fn copied_by_the_kernel(from: &File, to: &File, size: u64) -> io::Result<bool> {
    let mut offset = 0;
    while offset < size {
        let most = usize::try_from(size - offset).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut offset), to, None, most) {
            Ok(0) if offset == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                if offset == 0 =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
