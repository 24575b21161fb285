//! Overlay mounts: a directory that shows one tree and stores changes in another.
//!
//! Only Linux has overlays, and permits them to root, and to root of a user namespace. On other systems every function
//! here fails with the same message.

#![expect(clippy::disallowed_methods, reason = "mounts, and finds out who is in the way")]

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files::{self, Root};
use super::text::printable;

mod table;

pub(crate) use table::{Mount, at_or_below, table};

/// Source of seedbed's overlays in the table of mounts.
pub(crate) const SOURCE: &str = "seedbed";

/// Type of the file system of overlays in that table.
pub(crate) const OVERLAY: &str = "overlay";

/// Name that the temporary directory of a trial is based on.
const TRIAL: &str = "trial";

/// Directories of which an overlay consists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'a> {
    /// Directory that is shown and never written to.
    pub(crate) lower: &'a Path,
    /// Directory of all changes, on a file system with extended attributes.
    pub(crate) upper: &'a Path,
    /// An empty directory beside `upper`, for the kernel's own use.
    pub(crate) work: &'a Path,
}

/// Reason for which a mount or unmount failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused the mount.
    #[error("cannot mount an overlay at {}: {source}", printable(&path.to_string_lossy()))]
    Refused {
        /// Path of the overlay.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A process uses the mount.
    #[error("cannot unmount {}: {}", printable(&path.to_string_lossy()), used_by(by))]
    Busy {
        /// Path of the mount.
        path: PathBuf,
        /// Processes that use the mount and can be inspected, as `NAME (pid NUMBER)`.
        by: Vec<String>,
    },
    /// Another mount covers the overlay.
    #[error("{} is a mount of another program: `umount` it first", printable(&path.to_string_lossy()))]
    Foreign {
        /// Path of both mounts.
        path: PathBuf,
    },
    /// The overlay could not be unmounted for another reason.
    #[error("cannot unmount {}: {source}", printable(&path.to_string_lossy()))]
    Stuck {
        /// Path of the mount.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A file could not be accessed.
    #[error(transparent)]
    File(#[from] files::Error),
}

fn used_by(by: &[String]) -> String {
    match by {
        [] => "it is in use, or something is mounted inside it".to_owned(),
        by => format!("{} is at work in it; end that first", by.join(", ")),
    }
}

/// Tests that overlays with their layers in `directory`, which must exist, can be mounted and work.
///
/// The test mounts an overlay in its own directory, writes through it, and removes it. Returns the reason for a failure
/// as one line.
pub(crate) fn trial(directory: &Root) -> Result<(), String> {
    sweep(directory).map_err(|error| error.to_string())?;
    let trial = directory.make_temporary_directory(OsStr::new(TRIAL)).map_err(|error| error.to_string())?;
    let name = Path::new(&trial.name);
    let tried = try_in(directory, name);
    let removed = take_away(directory, name);
    tried?;
    removed.map_err(|error| error.to_string())
}

/// Removes the directories of killed trials in `directory`, with their mounts.
pub(crate) fn sweep(directory: &Root) -> Result<(), files::Error> {
    for abandoned in directory.abandoned(OsStr::new(TRIAL))? {
        take_away(directory, Path::new(&abandoned.name))?;
    }
    Ok(())
}

fn take_away(directory: &Root, trial: &Path) -> Result<(), files::Error> {
    if let Some(top) = directory.directory(trial)? {
        unmount(&top, OsStr::new("mount")).map_err(|error| match error {
            Error::File(error) => error,
            Error::Busy { path, .. } => {
                files::Error::Io { action: "unmount", path, source: ErrorKind::ResourceBusy.into() }
            }
            Error::Foreign { path } => files::Error::Mounted { path },
            Error::Refused { path, source } | Error::Stuck { path, source } => {
                files::Error::Io { action: "unmount", path, source }
            }
        })?;
    }
    directory.remove_all(trial)
}

fn try_in(directory: &Root, name: &Path) -> Result<(), String> {
    let text = |error: files::Error| error.to_string();
    let top = directory.create_directories(name).map_err(text)?;
    for part in ["lower", "upper", "work", "mount"] {
        top.create_directories(Path::new(part)).map_err(text)?;
    }
    let (old, new) = (Path::new("lower/old"), Path::new("mount/new"));
    top.replace(old, b"old").map_err(text)?;
    let at = |part: &str| top.path().join(part);
    let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
    let mounted = top.create_directories(Path::new("mount")).map_err(text)?;
    mount(Layers { lower: &lower, upper: &upper, work: &work }, &mounted).map_err(|error| match error {
        Error::Refused { source, .. } if source.kind() == ErrorKind::InvalidInput => {
            "the file system there cannot store the changes of an overlay".to_owned()
        }
        Error::Refused { source, .. } => source.to_string(),
        other => other.to_string(),
    })?;
    drop(mounted);
    let used = (|| {
        let shown = top.read(Path::new("mount/old"), 16)?;
        // Leaves a whiteout in the upper layer, which not every file system can store.
        top.remove_file(Path::new("mount/old"))?;
        top.replace(new, b"new")?;
        Ok::<_, files::Error>(shown.as_deref() == Some(b"old".as_slice()))
    })();
    unmount(&top, OsStr::new("mount")).map_err(|error| error.to_string())?;
    let is_complete = used.map_err(text)? && top.read(old, 16).map_err(text)?.is_some();
    if is_complete { Ok(()) } else { Err("an overlay there does not show what it should".to_owned()) }
}

/// Returns the mount point of the overlay that stores its changes in `upper`, as far as this process sees mounts.
pub(crate) fn shown_at(upper: &Path) -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let option = format!("upperdir={}", upper.display());
    let line = table.lines().find(|line| {
        let options = line.rsplit(' ').next().unwrap_or_default();
        options.split(',').any(|found| found == option)
    })?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{mount, unmount};

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{CString, OsStr};
    use std::os::fd::{AsFd as _, AsRawFd as _};
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    use rustix::mount::{MountFlags, UnmountFlags};

    use super::{Error, Layers, OVERLAY, Root, SOURCE};
    use crate::host::failpoint::{crashpoint, failpoint};
    use crate::host::text::printable;

    /// Attempts for a busy mount, and pause between them.
    ///
    /// A thread that has just started a program keeps every directory open that another thread has open, until the
    /// program runs.
    const BUSY_TRIES: u32 = 40;
    const BUSY_PAUSE: Duration = Duration::from_millis(5);

    /// Magic number of overlays (`OVERLAYFS_SUPER_MAGIC` in `linux/magic.h`).
    const OVERLAY_MAGIC: rustix::fs::FsWord = 0x794c_7630;

    /// Number of blocking processes that a message names.
    const NAMED: usize = 3;

    /// Mounts an overlay over `target`.
    pub(crate) fn mount(layers: Layers<'_>, target: &Root) -> Result<(), Error> {
        let mut options = Vec::new();
        let parts = [("lowerdir", layers.lower), ("upperdir", layers.upper), ("workdir", layers.work)];
        for (name, path) in parts {
            options.extend_from_slice(name.as_bytes());
            options.push(b'=');
            options.extend(escaped(path));
            options.push(b',');
        }
        // No file handles, no files whose data is elsewhere: the layers stay plain directories. If root's own
        // attributes can be stored, a directory of the lower layer can be renamed like any other (`git mv`).
        options.extend_from_slice(b"index=off,metacopy=off,");
        options.extend_from_slice(if is_of_the_whole_host() {
            b"redirect_dir=on".as_slice()
        } else {
            b"userxattr"
        });
        let refused = |source| Error::Refused { path: target.path().to_owned(), source };
        let options = CString::new(options).map_err(|error| refused(error.into()))?;
        // By the open directory: the overlay is mounted over this directory, even if its path now leads elsewhere.
        let place = format!("/proc/self/fd/{}", target.as_fd().as_raw_fd());
        failpoint!("mounts.mount")
            .and_then(|()| rustix::mount::mount(SOURCE, place, OVERLAY, MountFlags::empty(), Some(&*options)))
            .map_err(|errno| refused(errno.into()))?;
        crashpoint!("mounts.mounted");
        Ok(())
    }

    /// Unmounts the overlays at `name` in `parent`; `false` if nothing is mounted. A mount of any other type is not
    /// seedbed's, and an error.
    ///
    /// Never unmounts lazily: processes would still write to a tree that is no longer visible.
    pub(crate) fn unmount(parent: &Root, name: &OsStr) -> Result<bool, Error> {
        let mut any = false;
        let path = parent.path().join(name);
        let place = PathBuf::from(format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd())).join(name);
        while parent.is_mount_point(name)? {
            if !is_overlay(parent, name) {
                return Err(Error::Foreign { path });
            }
            let mut tries = 0;
            let once = || {
                failpoint!("mounts.unmount")
                    .and_then(|()| rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW))
            };
            while let Err(errno) = once() {
                tries += 1;
                match errno {
                    Errno::BUSY if tries < BUSY_TRIES => std::thread::sleep(BUSY_PAUSE),
                    Errno::BUSY => return Err(Error::Busy { by: users(&path), path }),
                    errno => return Err(Error::Stuck { path, source: errno.into() }),
                }
            }
            crashpoint!("mounts.unmounted");
            any = true;
        }
        Ok(any)
    }

    /// Returns whether the topmost mount at `name` is an overlay.
    fn is_overlay(parent: &Root, name: &OsStr) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(parent, name, flags, Mode::empty()).and_then(rustix::fs::fstatfs);
        found.is_ok_and(|found| found.f_type == OVERLAY_MAGIC)
    }

    /// Escapes a path in mount options: the kernel separates options by commas and lower layers by colons.
    fn escaped(path: &Path) -> Vec<u8> {
        let mut escaped = Vec::new();
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b'\\' | b',' | b':') {
                escaped.push(b'\\');
            }
            escaped.push(*byte);
        }
        escaped
    }

    /// Returns whether this process is in the initial user namespace. Root of another namespace may not write
    /// attributes that are reserved to root.
    fn is_of_the_whole_host() -> bool {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().eq(["0", "0", "4294967295"])
    }

    /// Returns processes that have something at or below `path` open, or work there, as far as this user may inspect
    /// them.
    fn users(path: &Path) -> Vec<String> {
        let mut users = Vec::new();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let at = process.path();
            let open = std::fs::read_dir(at.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
            let mut links = ["cwd", "root", "exe"].map(|name| at.join(name)).into_iter().chain(open);
            if links.any(|link| std::fs::read_link(link).is_ok_and(|target| target.starts_with(path))) {
                let name = std::fs::read_to_string(at.join("comm")).unwrap_or_default();
                users.push(format!("{} (pid {pid})", printable(name.trim_end())));
                if users.len() == NAMED {
                    break;
                }
            }
        }
        users
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{mount, unmount};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::ffi::OsStr;
    use std::io::ErrorKind;

    use super::{Error, Layers, Root};

    pub(crate) fn mount(_layers: Layers<'_>, target: &Root) -> Result<(), Error> {
        let source = std::io::Error::new(ErrorKind::Unsupported, "only Linux has overlays");
        Err(Error::Refused { path: target.path().to_owned(), source })
    }

    pub(crate) fn unmount(_parent: &Root, _name: &OsStr) -> Result<bool, Error> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
