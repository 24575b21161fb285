//! Removes a tree, however deep and large it is, and whatever its permissions are; never what is mounted in it.

use std::ffi::OsStr;
use std::io::ErrorKind;

#[cfg(target_os = "linux")]
use rustix::fs::OFlags;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::super::failpoint::failpoint;
use super::temporary::temporary_name;
use super::{Error, Root, io};

/// How many levels are open at once; what lies deeper is moved up first. Each level holds a file descriptor, of which
/// a process may have no more than 256 on some systems, and several trees are removed at once.
const LEVELS: u32 = 12;

/// How often a directory is gone through again because somebody still adds to it.
const ROUNDS: u32 = 16;

/// Removes `name` in `parent` with everything below it; nothing there is no error.
pub(super) fn remove(parent: &Root, name: &OsStr) -> Result<(), Error> {
    if parent.file_type(name) != Some(FileType::Directory) {
        return match rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io("remove", &parent.path.join(name))(error)),
        };
    }
    let Some(top) = open(parent, name)? else { return Ok(()) };
    let mut tree = Tree { top: &top, moved: false };
    let mut rounds = 0;
    while !tree.remove_once(parent, name, &top, 0)? {
        // Each round that moved something up has removed what lay above it, and comes to an end.
        rounds = if tree.moved { 0 } else { rounds + 1 };
        top.allow_another(rounds)?;
        tree.moved = false;
    }
    Ok(())
}

/// A tree that is being removed.
struct Tree<'t> {
    top: &'t Root,
    /// Whether something from deep below was moved to the top, where it is still to be removed.
    moved: bool,
}

impl Tree<'_> {
    /// Empties `directory`, which is `name` in `parent`, and removes it; `false` where something is in it again.
    fn remove_once(
        &mut self,
        parent: &Root,
        name: &OsStr,
        directory: &Root,
        level: u32,
    ) -> Result<bool, Error> {
        for (name, file_type) in directory.entries()? {
            if file_type == FileType::Directory {
                self.remove_directory(directory, &name, level + 1)?;
            } else {
                self.remove_other(directory, &name, level + 1)?;
            }
        }
        let removed = failpoint!("removal.directory")
            .and_then(|()| rustix::fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(io("remove", &directory.path)(error)),
        }
    }

    fn remove_directory(&mut self, parent: &Root, name: &OsStr, level: u32) -> Result<(), Error> {
        let Some(directory) = open(parent, name)? else { return Ok(()) };
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

    fn move_up(&mut self, parent: &Root, name: &OsStr) -> Result<(), Error> {
        self.moved = true;
        match rustix::fs::renameat(&parent.fd, name, &self.top.fd, temporary_name(OsStr::new(""))) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io("remove", &parent.path.join(name))(error)),
        }
    }

    /// Removes what was no directory when it was listed, as far as the listing told.
    fn remove_other(&mut self, parent: &Root, name: &OsStr, level: u32) -> Result<(), Error> {
        let removed = failpoint!("removal.file")
            .and_then(|()| rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // What Linux says of a directory, and what the others say.
            Err(Errno::ISDIR | Errno::PERM) if parent.file_type(name) == Some(FileType::Directory) => {
                self.remove_directory(parent, name, level)
            }
            Err(error) => Err(io("remove", &parent.path.join(name))(error)),
        }
    }
}

impl Root {
    /// Gives up after [`ROUNDS`].
    fn allow_another(&self, rounds: u32) -> Result<(), Error> {
        if rounds < ROUNDS { Ok(()) } else { Err(io("remove", &self.path)(Errno::NOTEMPTY)) }
    }
}

/// Opens a directory so that it can be emptied, whatever its permissions; `None` where there is none.
fn open(parent: &Root, name: &OsStr) -> Result<Option<Root>, Error> {
    let mut opened = parent.child(name);
    if matches!(&opened, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied)
        && permit(parent, name).is_ok()
    {
        opened = parent.child(name);
    }
    let Some(directory) = opened? else { return Ok(None) };
    // What is mounted there is somebody's, and not part of the tree.
    if parent.is_on_another_device(name)? {
        return Err(io("remove", &directory.path)(Errno::XDEV));
    }
    if let Ok(stat) = rustix::fs::fstat(&directory.fd)
        && Mode::from_raw_mode(stat.st_mode) & Mode::RWXU != Mode::RWXU
    {
        // Where this is refused, so will be what needed it, which says more.
        let _ = rustix::fs::fchmod(&directory.fd, Mode::RWXU);
    }
    Ok(Some(directory))
}

/// Makes a directory that cannot be opened for reading one that can, without following a link.
fn permit(parent: &Root, name: &OsStr) -> rustix::io::Result<()> {
    // Linux before 6.6 has no call for this, but it opens the directory without asking for permission to read it.
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
