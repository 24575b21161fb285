//! Removes a tree of any depth, size and permissions, except mounts inside it.
//!
//! On request, directories beside one another are emptied in parallel, on the threads of the caller. Several
//! trees that are removed at once share these threads.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

#[cfg(target_os = "linux")]
use rustix::fs::OFlags;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::super::failpoint::failpoint;
use super::mount::Mount;
use super::temporary::temporary_name;
use super::{Error, Root, io};

/// Number of levels that are open at once; deeper directories are first moved up.
///
/// Each level uses a file descriptor. A process may have no more than 256 on some systems, and several trees
/// are removed at once.
const LEVELS: u32 = 12;

/// Limit of passes over one directory to which another process still adds files.
const ROUNDS: u32 = 16;

/// Number of trees under removal that all threads may work on.
///
/// While there is at least one tree for each thread, no tree is shared. A thread that waits for its share
/// would start on another tree, and open more and more directories.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// One count in [`UNDER_WAY`], until it is dropped.
struct UnderWay;

impl UnderWay {
    fn begin() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Removes `name` in `parent` with everything below it. A missing `name` is no error.
pub(super) fn remove(parent: &Root, name: &OsStr, threads: Threads) -> Result<(), Error> {
    if parent.file_type(name) != Some(FileType::Directory) {
        return match parent.unlink(name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io("remove", &parent.path.join(name))(error)),
        };
    }
    let mount = parent.status()?.mount;
    let Some(top) = open(parent, name, mount)? else { return Ok(()) };
    let _under_way = (threads == Threads::All).then(UnderWay::begin);
    let tree = Tree { top: &top, mount, moved: AtomicBool::new(false), threads };
    let mut rounds = 0;
    while !tree.remove_once(parent, name, &top, 0)? {
        // A round that moved a directory up has removed everything above it, so such rounds come to an end.
        rounds = if tree.moved.swap(false, Ordering::Relaxed) { 0 } else { rounds + 1 };
        top.allow_another(rounds)?;
    }
    Ok(())
}

/// Threads that remove a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// Only the thread of the caller.
    One,
    /// All threads with which the caller shares work.
    All,
}

struct Tree<'t> {
    top: &'t Root,
    /// Mount that contains the whole tree.
    mount: Mount,
    /// `true` once a deep directory was moved to the top, from which it still has to be removed.
    moved: AtomicBool,
    threads: Threads,
}

impl Tree<'_> {
    /// Empties `directory`, which is `name` in `parent`, and removes it; `false` if it is no longer empty.
    fn remove_once(&self, parent: &Root, name: &OsStr, directory: &Root, level: u32) -> Result<bool, Error> {
        let (directories, others): (Vec<_>, Vec<_>) =
            directory.entries()?.into_iter().partition(|(_, file_type)| *file_type == FileType::Directory);
        // The system removes names in one directory one after another, also for several threads.
        for (name, _) in others {
            self.remove_other(directory, &name, level + 1)?;
        }
        self.remove_directories(directory, &directories, level + 1)?;
        let removed = failpoint!("removal.directory")
            .and_then(|()| rustix::fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(io("remove", &directory.path)(error)),
        }
    }

    fn remove_directories(
        &self,
        parent: &Root,
        names: &[(OsString, FileType)],
        level: u32,
    ) -> Result<(), Error> {
        let remove = |(name, _): &(OsString, FileType)| self.remove_directory(parent, name, level);
        let shared = self.threads == Threads::All
            && names.len() > 1
            && UNDER_WAY.load(Ordering::Relaxed) < rayon::current_num_threads();
        if shared { names.par_iter().try_for_each(remove) } else { names.iter().try_for_each(remove) }
    }

    fn remove_directory(&self, parent: &Root, name: &OsStr, level: u32) -> Result<(), Error> {
        let Some(directory) = open(parent, name, self.mount)? else { return Ok(()) };
        if level >= LEVELS {
            return self.move_up(parent, name);
        }
        let mut rounds = 0;
        while !self.remove_once(parent, name, &directory, level)? {
            rounds += 1;
            directory.allow_another(rounds)?;
        }
        Ok(())
    }

    fn move_up(&self, parent: &Root, name: &OsStr) -> Result<(), Error> {
        self.moved.store(true, Ordering::Relaxed);
        match rustix::fs::renameat(&parent.fd, name, &self.top.fd, temporary_name(OsStr::new(""))) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io("remove", &parent.path.join(name))(error)),
        }
    }

    /// Removes a name that was listed as something else than a directory, as far as the listing reports
    /// types.
    fn remove_other(&self, parent: &Root, name: &OsStr, level: u32) -> Result<(), Error> {
        let removed = failpoint!("removal.file")
            .and_then(|()| rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Errors for a directory: `EISDIR` on Linux, `EPERM` on other systems.
            Err(Errno::ISDIR | Errno::PERM) if parent.file_type(name) == Some(FileType::Directory) => {
                self.remove_directory(parent, name, level)
            }
            Err(error) => Err(io("remove", &parent.path.join(name))(error)),
        }
    }
}

impl Root {
    /// Fails after [`ROUNDS`].
    fn allow_another(&self, rounds: u32) -> Result<(), Error> {
        if rounds < ROUNDS { Ok(()) } else { Err(io("remove", &self.path)(Errno::NOTEMPTY)) }
    }
}

/// Opens a directory so that it can be emptied, with any permissions; `None` if it does not exist.
///
/// A directory in another mount is an error, and keeps its permissions.
fn open(parent: &Root, name: &OsStr, mount: Mount) -> Result<Option<Root>, Error> {
    let mounted = || Error::Mounted { path: parent.path.join(name) };
    let mut opened = parent.child(name);
    if matches!(&opened, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied) {
        if parent.is_mount_point(name)? {
            return Err(mounted());
        }
        if permit(parent, name).is_ok() {
            opened = parent.child(name);
        }
    }
    let Some(directory) = opened? else { return Ok(None) };
    let status = directory.status()?;
    if status.mount != mount {
        return Err(mounted());
    }
    if status.mode & Mode::RWXU != Mode::RWXU {
        // If this is refused, the operation that needs it fails too, with a better message.
        let _ = rustix::fs::fchmod(&directory.fd, Mode::RWXU);
    }
    Ok(Some(directory))
}

/// Makes a directory readable that cannot be opened for reading, without following a link.
fn permit(parent: &Root, name: &OsStr) -> rustix::io::Result<()> {
    // Linux before 6.6 has no call for this, but it opens the directory without checking the permission to
    // read it.
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&parent.fd, name, flags, Mode::empty())?;
        rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)
    }
    #[cfg(not(target_os = "linux"))]
    rustix::fs::chmodat(&parent.fd, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)
}
