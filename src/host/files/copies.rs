//! Copies files to many directories together. Each file is read only once.
//!
//! A file is identified by its metadata, if no other process is at work, or only by its content, if another process
//! may be.

use std::cell::{Cell, OnceCell};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::ops::Range;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::super::failpoint::failpoint;
use super::{Error, Root, io as failed};

/// Largest file, in bytes, that is read into memory and written from there.
///
/// Sharing blocks makes the file system write the source to the disk first. This costs more than it saves for
/// small files.
const SMALL_MAX: usize = 64 * 1024;

/// Largest file, in bytes, that is copied because of its content: all of it is read before any of it is
/// written.
const CONTENT_MAX: usize = 16 << 20;

/// Number of bytes that are read before they have to be written.
const HELD: usize = 1 << 20;

/// Files of one directory that are to be copied to other directories, in the order in which they were added.
pub(crate) struct Files<'a> {
    from: &'a Root,
    time: CopyTime,
    bytes: Vec<u8>,
    sources: Vec<CopySource<'a>>,
    /// Bytes of copies that share the blocks of their sources.
    shared: Cell<u64>,
}

/// Time of modification of copies, in seconds.
#[derive(Clone, Copy)]
enum CopyTime {
    /// This time.
    Fixed(i64),
    /// Time of the source, but at most this one.
    OfSource { latest: i64 },
}

struct CopySource<'a> {
    name: &'a OsStr,
    modified: Timestamps,
    what: SourceType,
}

enum SourceType {
    /// A regular file, already read, with the mode of its copies; and its first copy, if it is large.
    Read { bytes: Range<usize>, mode: Permissions, copy: OnceCell<File> },
    /// A regular file that is read for each of its copies.
    Large { file: File, size: u64, mode: Permissions },
    /// A symbolic link, and its target.
    Link(CString),
    /// An empty directory.
    Directory,
}

/// Permissions of a copy.
#[derive(Clone, Copy)]
enum Permissions {
    /// Exactly this mode.
    All(Mode),
    /// This mode less the umask.
    Masked(Mode),
}

impl<'a> Files<'a> {
    /// Starts a list of files of `from` to be copied to the same names, all with the time `modified`, in
    /// seconds.
    pub(crate) fn new(from: &'a Root, modified: i64) -> Self {
        Self::with_time(from, CopyTime::Fixed(modified))
    }

    /// Starts a list of files of `from` to be copied to the same names, each with the time of its source, but no time
    /// after `latest`, in seconds.
    pub(crate) fn with_own_times(from: &'a Root, latest: i64) -> Self {
        Self::with_time(from, CopyTime::OfSource { latest })
    }

    fn with_time(from: &'a Root, time: CopyTime) -> Self {
        Self { from, time, bytes: Vec::new(), sources: Vec::new(), shared: Cell::new(0) }
    }

    /// Returns the time of the copy of a file with this metadata.
    fn time(&self, source: &Stat) -> Timestamps {
        match self.time {
            CopyTime::Fixed(modified) => times(modified),
            CopyTime::OfSource { latest } => times_of(source, latest),
        }
    }

    /// Returns the number of bytes in copies that share the blocks of their sources.
    pub(crate) fn shared_bytes(&self) -> u64 {
        self.shared.get()
    }

    /// Adds a regular file with its permissions, if its metadata is `expected`.
    pub(crate) fn file(
        &mut self,
        name: &'a OsStr,
        expected: impl FnOnce(&Stat) -> bool,
    ) -> Result<(), Error> {
        let (file, found) = self.open(name).map_err(|error| self.source(name, error))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || !expected(&found) {
            return Err(self.changed(name));
        }
        let mode = Permissions::All(Mode::from_raw_mode(found.st_mode & 0o777));
        let what = match usize::try_from(found.st_size) {
            Ok(size) if size <= SMALL_MAX => {
                let read = self.read(file, size).map_err(|error| self.source(name, error))?;
                let bytes = read.ok_or_else(|| self.changed(name))?;
                SourceType::Read { bytes, mode, copy: OnceCell::new() }
            }
            _ => SourceType::Large { file, size: found.st_size.unsigned_abs(), mode },
        };
        self.sources.push(CopySource { name, modified: self.time(&found), what });
        Ok(())
    }

    /// Adds a symbolic link if its metadata is `expected`; `false` if the file is no link.
    pub(crate) fn link(
        &mut self,
        name: &'a OsStr,
        expected: impl FnOnce(&Stat) -> bool,
    ) -> Result<bool, Error> {
        let found = stat(self.from, name).map_err(|error| self.source(name, error))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            return Ok(false);
        }
        if !expected(&found) {
            return Err(self.changed(name));
        }
        let leads_to = rustix::fs::readlinkat(&self.from.fd, name, Vec::new())
            .map_err(|error| self.source(name, error.into()))?;
        let modified = self.time(&found);
        self.sources.push(CopySource { name, modified, what: SourceType::Link(leads_to) });
        Ok(true)
    }

    /// Adds an empty directory, which need not exist in the source.
    pub(crate) fn directory(&mut self, name: &'a OsStr) {
        // The time of a directory changes with each file in it, and is not set.
        self.sources.push(CopySource { name, modified: times(0), what: SourceType::Directory });
    }

    /// Adds a regular file if its bytes are `wanted`, even if another process writes to it; `false` if no
    /// such file can be read.
    ///
    /// The copy has the permissions of a file that Git creates.
    pub(crate) fn file_of(
        &mut self,
        name: &'a OsStr,
        executable: bool,
        wanted: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        let Ok((file, found)) = self.open(name) else { return false };
        let size = usize::try_from(found.st_size).ok().filter(|size| *size <= CONTENT_MAX);
        let Some(size) = size.filter(|_| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
        else {
            return false;
        };
        let Ok(Some(bytes)) = self.read(file, size) else { return false };
        if !wanted(&self.bytes[bytes.clone()]) {
            self.bytes.truncate(bytes.start);
            return false;
        }
        let mode = Permissions::Masked(Mode::from_raw_mode(if executable { 0o777 } else { 0o666 }));
        let what = SourceType::Read { bytes, mode, copy: OnceCell::new() };
        self.sources.push(CopySource { name, modified: self.time(&found), what });
        true
    }

    /// Adds a symbolic link whose target is `wanted`; `false` if there is none.
    pub(crate) fn link_of(&mut self, name: &'a OsStr, wanted: impl FnOnce(&[u8]) -> bool) -> bool {
        let Ok(found) = stat(self.from, name) else { return false };
        match rustix::fs::readlinkat(&self.from.fd, name, Vec::new()) {
            Ok(leads_to) if wanted(leads_to.as_bytes()) => {
                let modified = self.time(&found);
                self.sources.push(CopySource { name, modified, what: SourceType::Link(leads_to) });
                true
            }
            _ => false,
        }
    }

    /// Returns whether the added files must be written before more are added.
    pub(crate) fn are_many(&self) -> bool {
        self.bytes.len() >= HELD
            || matches!(self.sources.last(), Some(CopySource { what: SourceType::Large { .. }, .. }))
    }

    /// Writes the added files into `to`, and returns the metadata of each copy. Existing files are never
    /// overwritten.
    pub(crate) fn write(&self, to: &Root) -> Result<Vec<Stat>, Error> {
        self.sources.iter().map(|sources| self.write_one(sources, to)).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sources.clear();
    }

    fn write_one(&self, sources: &CopySource<'_>, to: &Root) -> Result<Stat, Error> {
        let name = sources.name;
        let written = match &sources.what {
            SourceType::Read { bytes, mode, copy: first } => create(to, name, *mode).and_then(|mut copy| {
                let bytes = &self.bytes[bytes.clone()];
                let is_shared = first.get().is_some_and(|first| shares(first, &copy));
                if !bytes.is_empty() && !is_shared {
                    copy.write_all(bytes)?;
                }
                let stat = complete(&copy, *mode, &sources.modified)?;
                if bytes.len() > SMALL_MAX {
                    let _ = first.set(copy);
                }
                Ok(stat)
            }),
            SourceType::Large { file, size, mode } => {
                let copied = create(to, name, *mode).and_then(|mut copy| {
                    if copy_large(file, &mut copy, *size)? {
                        self.shared.set(self.shared.get() + *size);
                    }
                    complete(&copy, *mode, &sources.modified)
                });
                if copied.as_ref().is_ok_and(|stat| stat.st_size.unsigned_abs() != *size) {
                    return Err(self.changed(name));
                }
                copied
            }
            SourceType::Link(leads_to) => failpoint!("copies.link")
                .and_then(|()| rustix::fs::symlinkat(leads_to.as_c_str(), &to.fd, name))
                .map_err(io::Error::from)
                .and_then(|()| set_times(to, name, &sources.modified)),
            SourceType::Directory => {
                make_directory(to, name)?;
                stat(to, name).and_then(|stat| match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Ok(stat),
                    _ => Err(ErrorKind::AlreadyExists.into()),
                })
            }
        };
        written.map_err(|source| Error::Io { action: "write", path: to.path.join(name), source })
    }

    fn open(&self, name: &OsStr) -> io::Result<(File, Stat)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.from.fd, name, flags, Mode::empty())?);
        let found = rustix::fs::fstat(&file)?;
        Ok((file, found))
    }

    /// Reads a file of `size` bytes; `None` if its size has changed.
    fn read(&mut self, mut file: File, size: usize) -> io::Result<Option<Range<usize>>> {
        let start = self.bytes.len();
        self.bytes.resize(start + size + 1, 0);
        let read = read(&mut file, &mut self.bytes[start..]);
        let whole = matches!(read, Ok(read) if read == size);
        self.bytes.truncate(if whole { start + size } else { start });
        read.map(|_| whole.then_some(start..start + size))
    }

    fn source(&self, name: &OsStr, source: io::Error) -> Error {
        Error::Io { action: "copy", path: self.from.path.join(name), source }
    }

    fn changed(&self, name: &OsStr) -> Error {
        self.source(name, io::Error::other("another program changes it"))
    }
}

/// Sets the attributes that a new file does not have by default, its time last.
fn complete(copy: &File, mode: Permissions, modified: &Timestamps) -> io::Result<Stat> {
    rustix::fs::futimens(copy, modified)?;
    let stat = rustix::fs::fstat(copy)?;
    match mode {
        Permissions::All(mode) if Mode::from_raw_mode(stat.st_mode & 0o777) != mode => {
            // The umask removed permissions that the source nevertheless has.
            rustix::fs::fchmod(copy, mode)?;
            Ok(rustix::fs::fstat(copy)?)
        }
        _ => Ok(stat),
    }
}

/// Returns the time of modification of a file, but at most `latest`, in seconds; and an unchanged time of access.
pub(crate) fn times_of(source: &Stat, latest: i64) -> Timestamps {
    if source.st_mtime >= latest {
        return times(latest);
    }
    let mut modified = times(source.st_mtime);
    modified.last_modification.tv_nsec = source.st_mtime_nsec.try_into().unwrap_or_default();
    modified
}

/// Creates a directory. Returns `false`, and does nothing, if something of its name already exists.
pub(crate) fn make_directory(root: &Root, name: &OsStr) -> Result<bool, Error> {
    let made = failpoint!("copies.make-directory")
        .and_then(|()| rustix::fs::mkdirat(&root.fd, name, Mode::from_raw_mode(0o777)));
    match made {
        Err(Errno::EXIST) => Ok(false),
        made => made.map(|()| true).map_err(failed("create", &root.path.join(name))),
    }
}

/// Returns the metadata of `name`, without following links.
pub(crate) fn stat(root: &Root, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(&root.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the time of `name` to `modified`, in seconds, without following links, and returns the metadata after
/// that.
pub(crate) fn set_modified(root: &Root, name: &OsStr, modified: i64) -> Result<Stat, Error> {
    failpoint!("copies.set-time")
        .map_err(io::Error::from)
        .and_then(|()| set_times(root, name, &times(modified)))
        .map_err(|source| Error::Io { action: "set the time of", path: root.path.join(name), source })
}

fn set_times(root: &Root, name: &OsStr, times: &Timestamps) -> io::Result<Stat> {
    rustix::fs::utimensat(&root.fd, name, times, AtFlags::SYMLINK_NOFOLLOW)?;
    stat(root, name)
}

/// Returns the time of modification `modified`, in seconds, and an unchanged time of access.
fn times(modified: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified, tv_nsec: 0 },
    }
}

/// Creates a file for writing.
fn create(root: &Root, name: &OsStr, mode: Permissions) -> io::Result<File> {
    let (Permissions::All(mode) | Permissions::Masked(mode)) = mode;
    // Later copies share blocks with the first copy of a large file, so it must be readable too.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
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

/// Copies a file of `size` bytes into an empty one: by sharing its blocks if the file system can, else inside
/// the kernel, else through memory. Returns whether the blocks are shared.
pub(crate) fn copy_large(mut from: &File, to: &mut File, size: u64) -> io::Result<bool> {
    if shares(from, to) {
        return Ok(true);
    }
    #[cfg(target_os = "linux")]
    if copied_by_the_kernel(from, to, size)? {
        return Ok(false);
    }
    // Bytes that the copy already has are identical.
    from.rewind()?;
    let mut buffer = vec![0; SMALL_MAX];
    let mut left = size;
    while left > 0 {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..length])?;
        left = left.saturating_sub(length as u64);
    }
    Ok(false)
}

/// Copies a regular file to another directory in one step, with its permissions, and replaces a file of this name there.
/// `false` if there is no such file. A link is an error.
pub(crate) fn copy_over(from: &Root, name: &OsStr, to: &Root) -> Result<bool, Error> {
    let Some((file, size)) = from.regular_file(name, OFlags::RDONLY)? else { return Ok(false) };
    let temporary = to.copy_temporary(name, &file, size)?;
    let renamed =
        failpoint!("copies.place").and_then(|()| rustix::fs::renameat(&to.fd, &temporary.name, &to.fd, name));
    if renamed.is_err() {
        to.forget(&temporary.name);
    }
    renamed.map(|()| true).map_err(failed("replace", &to.path.join(name)))
}

/// Makes an empty file share the blocks of another; `false`, with the file still empty, if the file system
/// cannot.
fn shares(from: &File, to: &File) -> bool {
    #[cfg(target_os = "linux")]
    let is_shared = rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    let is_shared = false;
    is_shared
}

/// Copies the content of a file into an empty one inside the kernel, with holes left as holes.
///
/// Returns `false` if the kernel does not copy between these two files; a part may be copied then. The position in the
/// written file stays at its start. For a hole, the kernel itself would read zeros and write these.
#[cfg(target_os = "linux")]
fn copied_by_the_kernel(from: &File, to: &File, size: u64) -> io::Result<bool> {
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, size)? {
        if !range_copied(from, to, start, end)? {
            return Ok(false);
        }
        at = end;
    }
    if at < size {
        // The hole at the end of the file.
        to.set_len(size)?;
    }
    Ok(true)
}

/// Finds the next range of a file that has data; `None` if only a hole follows.
#[cfg(target_os = "linux")]
fn next_data(file: &File, from: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system does not report holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((from, size))),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

/// Copies one range to the same offset; `false` if the kernel does not copy between these two files.
#[cfg(target_os = "linux")]
fn range_copied(from: &File, to: &File, start: u64, end: u64) -> io::Result<bool> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let most = usize::try_from(end - read).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), most) {
            Ok(0) if read == start => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                if read == start =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
