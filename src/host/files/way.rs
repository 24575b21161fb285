//! The way from a root to what lies below it, name by name.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

#[cfg(target_os = "linux")]
use rustix::fs::ResolveFlags;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::failpoint::failpoint;
use super::{DIRECTORY, Error, FILE, Root, io};

impl Root {
    /// The same directory, opened once more.
    pub(super) fn again(&self) -> Result<Self, Error> {
        match self.fd.try_clone() {
            Ok(fd) => Ok(Self { fd, path: self.path.clone() }),
            Err(source) => Err(Error::Io { action: "open", path: self.path.clone(), source }),
        }
    }

    /// The plain names that a relative path is made of; none for `.`.
    pub(super) fn names_of<'p>(&self, relative: &'p Path) -> Result<Vec<&'p OsStr>, Error> {
        if relative == Path::new(".") {
            return Ok(Vec::new());
        }
        let plain = relative.components().map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        plain.collect::<Option<_>>().ok_or_else(|| Error::Outside { path: self.path.join(relative) })
    }

    /// The directory that `relative` lies in, and its name there; `None` where that directory does not exist.
    pub(super) fn parent<'p>(&self, relative: &'p Path) -> Result<Option<(Self, &'p OsStr)>, Error> {
        let names = self.names_of(relative)?;
        let Some((name, above)) = names.split_last() else {
            return Err(Error::Outside { path: self.path.join(relative) });
        };
        Ok(self.directory(&above.iter().collect::<PathBuf>())?.map(|parent| (parent, *name)))
    }

    pub(super) fn existing_parent<'p>(&self, relative: &'p Path) -> Result<(Self, &'p OsStr), Error> {
        self.parent(relative)?.ok_or_else(|| io("create", &self.path.join(relative))(Errno::NOENT))
    }

    pub(super) fn child(&self, name: &OsStr) -> Result<Option<Self>, Error> {
        match rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.not_a_directory(name, "open", error)),
        }
    }

    pub(super) fn create_child(&self, name: &OsStr) -> Result<Self, Error> {
        let made = failpoint!("files.make-directory")
            .and_then(|()| rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)));
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io("create", &self.path.join(name))(error)),
        }
        self.child(name)?.ok_or_else(|| io("open", &self.path.join(name))(Errno::NOENT))
    }

    /// Opens what lies below in one call; `None` where there is nothing. Where the system has no such call, or says no
    /// for whatever other reason, so does this.
    #[cfg(target_os = "linux")]
    pub(super) fn open_at_once(&self, relative: &Path, flags: OFlags) -> rustix::io::Result<Option<OwnedFd>> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.fd, relative, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn open_at_once(
        &self,
        _relative: &Path,
        _flags: OFlags,
    ) -> rustix::io::Result<Option<OwnedFd>> {
        Err(Errno::NOSYS)
    }

    /// Opens a file, which may not be anything but a regular one, and tells its size in bytes; `None` where there is
    /// nothing.
    pub(super) fn regular_file(&self, name: &OsStr, flags: OFlags) -> Result<Option<(File, u64)>, Error> {
        let path = self.path.join(name);
        let flags = flags | FILE;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            // A socket, and for writing a directory or a FIFO.
            Err(Errno::NXIO | Errno::ISDIR | Errno::OPNOTSUPP) => return Err(Error::Irregular { path }),
            Err(error) => return Err(self.not_a_directory(name, "open", error)),
        };
        regular(fd, &path).map(Some)
    }

    /// The error for something that could not be used as what it was expected to be; systems disagree on the number
    /// where it is because of a link.
    pub(super) fn not_a_directory(&self, name: &OsStr, action: &'static str, error: Errno) -> Error {
        let path = self.path.join(name);
        if self.file_type(name) == Some(FileType::Symlink) {
            Error::Link { path }
        } else {
            io(action, &path)(error)
        }
    }

    /// What is called `name` in this directory, links unfollowed; `None` where there is nothing that can be looked at.
    pub(crate) fn file_type(&self, name: &OsStr) -> Option<FileType> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// What is in this directory, each with its type as far as the directory tells.
    pub(super) fn entries(&self) -> Result<Vec<(OsString, FileType)>, Error> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(io("list", &self.path))? {
            let entry = entry.map_err(io("list", &self.path))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                entries.push((name.to_owned(), entry.file_type()));
            }
        }
        Ok(entries)
    }
}

/// The file with its size in bytes, if it is a regular one of this user's or of root's; root reads everybody's.
pub(super) fn regular(fd: OwnedFd, path: &Path) -> Result<(File, u64), Error> {
    let stat = rustix::fs::fstat(&fd).map_err(io("open", path))?;
    let user = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || !(user == 0 || stat.st_uid == 0 || stat.st_uid == user)
    {
        return Err(Error::Irregular { path: path.to_owned() });
    }
    Ok((fd.into(), u64::try_from(stat.st_size).unwrap_or_default()))
}
