//! Walks through a session's directory and finds what Git does not report.
//!
//! Git skips a directory that it cannot list, and files of a directory that it cannot enter, with a warning at most. It
//! never inspects anything that is called `.git`.
#![expect(clippy::disallowed_methods, reason = "lists a session's directory")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, accessat};

use super::name_list::list;
use crate::host::mounts::Mount;
use crate::host::text::shell_quoted;

/// Results of one walk. Paths are relative to the directory.
#[derive(Debug, Default)]
pub(super) struct DirectoryScan {
    /// Directories that cannot be listed or entered.
    pub(super) unknown: BTreeSet<PathBuf>,
    /// Directories of other users that this user cannot empty.
    pub(super) stuck: BTreeSet<PathBuf>,
    /// Directories below the top that contain something called `.git`.
    pub(super) with_git: BTreeSet<PathBuf>,
}

impl DirectoryScan {
    /// Walks through a directory, except for `places` in it, which are absolute.
    pub(super) fn read(top: &Path, places: &BTreeSet<PathBuf>) -> Self {
        let mut scan = Self::default();
        let mut left = vec![PathBuf::new()];
        while let Some(relative) = left.pop() {
            let directory = top.join(&relative);
            let listed = fs::read_dir(&directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let Ok(entries) = listed.and_then(|entries| may(&directory, Access::EXEC_OK).map(|()| entries))
            else {
                let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
                match fs::symlink_metadata(&directory) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    // The owner of the directory can change its permissions and then empty it.
                    Ok(found) if found.uid() == user() => drop(scan.unknown.insert(relative)),
                    _ => drop(scan.stuck.insert(relative)),
                }
                continue;
            };
            if !can_be_emptied(&directory, &entries) {
                scan.stuck.insert(relative.clone());
            }
            let is_in_git_directory = relative.components().any(|part| part.as_os_str() == ".git");
            for entry in entries {
                let (path, name) = (relative.join(entry.file_name()), entry.file_name());
                let Ok(kind) = entry.file_type() else { continue };
                if name == ".git" && !relative.as_os_str().is_empty() && !is_in_git_directory {
                    scan.with_git.insert(relative.clone());
                }
                if kind.is_dir() && !places.contains(&entry.path()) {
                    left.push(path);
                }
            }
        }
        scan
    }
}

/// Describes the directories at `home` that this user cannot empty, in one line.
pub(super) fn stuck(home: &Path, scan: &DirectoryScan) -> Option<String> {
    let path = home.display();
    let stuck: BTreeSet<_> = scan.stuck.iter().map(|path| path.as_os_str().to_owned()).collect();
    (!stuck.is_empty()).then(|| {
        format!(
            "{path} has directories of other users whose content cannot be removed ({}); remove them as those users or as \
             root, or `chown` them",
            list(&stuck)
        )
    })
}

/// Describes the directories at `home` that cannot be listed, in one line.
pub(super) fn unknown(home: &Path, scan: &DirectoryScan) -> Option<String> {
    let path = home.display();
    let unknown: BTreeSet<_> = scan.unknown.iter().map(|path| path.as_os_str().to_owned()).collect();
    (!unknown.is_empty()).then(|| {
        format!(
            "{path} has directories that cannot be listed ({}), and what is in them is not known; `chmod u+rwx` them",
            list(&unknown)
        )
    })
}

/// Describes a mount in a session's directory, which keeps the directory from being removed. `shown` is the path of the
/// mount in the message.
pub(super) fn mount_blocker(mount: &Mount, shown: &str) -> String {
    let Mount { place, file_system, source, .. } = mount;
    format!(
        "{shown} is a mount ({file_system}, {source}), whose files are not the session's: `umount {}`",
        shell_quoted(place)
    )
}

/// Returns whether this user can remove the entries of a directory, after giving itself the permission if it owns the
/// directory.
fn can_be_emptied(directory: &Path, entries: &[DirEntry]) -> bool {
    let Ok(found) = fs::symlink_metadata(directory) else { return true };
    if entries.is_empty() || found.uid() == user() {
        return true;
    }
    if may(directory, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return false;
    }
    // In a directory such as /tmp each user removes only its own files, and root removes those of all users.
    let is_sticky = Mode::from_raw_mode(found.mode()).contains(Mode::SVTX);
    let is_own = |entry: &DirEntry| entry.metadata().is_ok_and(|found| found.uid() == user());
    !is_sticky || user() == 0 || entries.iter().all(is_own)
}

/// Returns whether this user owns a directory and has all permissions on it, so that a walk needs no further checks.
pub(super) fn is_own(directory: &Path) -> bool {
    let all = Mode::RWXU;
    fs::symlink_metadata(directory)
        .is_ok_and(|found| found.uid() == user() && Mode::from_raw_mode(found.mode()).contains(all))
}

/// Asks the kernel, which considers more than the mode: access lists and capabilities.
pub(super) fn may(path: &Path, access: Access) -> std::io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns whether a `.git` is no repository, so that Git does not see it; an empty directory contains nothing.
pub(super) fn is_no_repository(dot_git: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(dot_git) else { return false };
    if !found.is_dir() {
        return found.is_file();
    }
    let has = |name: &str| fs::symlink_metadata(dot_git.join(OsStr::new(name))).is_ok();
    !(has("HEAD") || has("objects") || has("refs"))
}
