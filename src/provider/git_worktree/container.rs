//! Mounts with which Git works in a container, and with which the container changes no file from which Git on the host
//! takes programs.
//!
//! Git creates lock files beside `packed-refs`, so the container can write the common Git directory. Mounts over its
//! parts prevent other changes. A part that does not exist could be created, and is created first.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::FileType;

use super::Worktree;
use super::paths::WorktreePaths;
use super::reserved_names::MARK;
use crate::host::files::Root;
use crate::provider::{ContainerNeeds, Error, MountAccess, Task};

/// Directories of the common Git directory with programs, settings, and the admin directories of other worktrees.
const DIRECTORIES: [&str; 5] = ["hooks", "info", "modules", "objects/info", "worktrees"];

/// Settings of the main worktree, if the repository has such settings.
const WORKTREE_CONFIG: &str = "config.worktree";

/// Settings of Git in a container. Git refuses a repository of another user, as whom it may run there. The mounts would
/// make its maintenance fail.
const SETTINGS: [(&str, &str); 3] =
    [("safe.directory", "*"), ("gc.auto", "0"), ("maintenance.auto", "false")];

/// Returns the mounts and variables for a worktree, after it has created the parts that do not exist.
pub(super) fn needs(task: &Task<'_>, worktree: &Worktree) -> Result<ContainerNeeds, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let common = &paths.common;
    if paths.home.starts_with(common.path()) {
        return Err(Error::Refused(format!(
            "{} lies in the Git directory of its repository, which a container can write",
            paths.home.display()
        )));
    }
    let Some(admin) = common.directory(&paths.admin_directory)? else {
        return Err(Error::Refused(format!("{} does not exist", paths.admin_directory_path().display())));
    };
    let mut needs = ContainerNeeds::default();
    let mut mount = |path: &Path, access| needs.mounts.insert(path.to_owned(), access);
    mount(common.path(), MountAccess::Writable);
    for name in DIRECTORIES {
        mount(common.create_directories(Path::new(name))?.path(), MountAccess::ReadOnly);
    }
    mount(admin.path(), MountAccess::Writable);
    admin.create_new(Path::new(WORKTREE_CONFIG), b"")?;
    let worktree = paths.open()?;
    let own = ["commondir", WORKTREE_CONFIG, "locked", MARK].map(|name| (&admin, name));
    let mut files = vec![(common, "config"), (&worktree, ".git")];
    files.extend(own);
    files.extend(common.file_type(OsStr::new(WORKTREE_CONFIG)).map(|_| (common, WORKTREE_CONFIG)));
    for (directory, name) in files {
        check(directory, name)?;
        mount(&directory.path().join(name), MountAccess::ReadOnly);
    }
    needs.environment.insert("GIT_CONFIG_COUNT".to_owned(), SETTINGS.len().to_string());
    for (at, (key, value)) in SETTINGS.into_iter().enumerate() {
        needs.environment.insert(format!("GIT_CONFIG_KEY_{at}"), key.to_owned());
        needs.environment.insert(format!("GIT_CONFIG_VALUE_{at}"), value.to_owned());
    }
    Ok(needs)
}

/// Checks that a file exists that can be mounted. A container could replace a link.
fn check(directory: &Root, name: &str) -> Result<(), Error> {
    if directory.file_type(OsStr::new(name)) == Some(FileType::RegularFile) {
        return Ok(());
    }
    let path = directory.path().join(name);
    Err(Error::Refused(format!("{} is not a file, and cannot be mounted over itself", path.display())))
}
