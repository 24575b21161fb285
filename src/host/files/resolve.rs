//! Paths from a root to files below it, opened name by name.

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
    /// Opens this directory once more.
    pub(super) fn again(&self) -> Result<Self, Error> {
        match self.fd.try_clone() {
            Ok(fd) => Ok(Self { fd, path: self.path.clone() }),
            Err(source) => Err(Error::Io { action: "open", path: self.path.clone(), source }),
        }
    }

    /// Returns the plain names of a relative path; none for `.`.
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

    /// Returns the directory that contains `relative`, and the name in it; `None` if that directory does not
    /// exist.
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

    /// Opens a path below this root in one call; `None` if it does not exist.
    ///
    /// Fails if the system has no such call, or refuses it for any other reason.
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

    /// Opens a regular file and returns it with its size in bytes; `None` if it does not exist.
    pub(super) fn regular_file(&self, name: &OsStr, flags: OFlags) -> Result<Option<(File, u64)>, Error> {
        let path = self.path.join(name);
        let flags = flags | FILE;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            // The name is a socket; or, for writing, a directory or a FIFO.
            Err(Errno::NXIO | Errno::ISDIR | Errno::OPNOTSUPP) => return Err(Error::Irregular { path }),
            Err(error) => return Err(self.not_a_directory(name, "open", error)),
        };
        regular(fd, &path).map(Some)
    }

    /// Returns the error for a name that is not of the expected type. Systems differ in the error number for
    /// a link.
    pub(super) fn not_a_directory(&self, name: &OsStr, action: &'static str, error: Errno) -> Error {
        let path = self.path.join(name);
        if self.file_type(name) == Some(FileType::Symlink) {
            Error::Link { path }
        } else {
            io(action, &path)(error)
        }
    }

    /// Returns the type of `name` in this directory, without following links; `None` if it cannot be
    /// inspected.
    pub(crate) fn file_type(&self, name: &OsStr) -> Option<FileType> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// Returns the names in this directory, each with its type as far as the directory reports types.
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

/// Returns the file with its size in bytes, if it is a regular file of this user or of root. Root reads the
/// files of all users.
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
