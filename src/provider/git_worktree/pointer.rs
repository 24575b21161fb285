//! Content of the worktree's `.git` file, which names the admin directory by an absolute or a relative path.
//!
//! Every version of Git reads both. The way back, `gitdir` of the admin directory, is always absolute: versions before
//! 2.48 read no other path, and later ones write a relative path only with an extension of the repository that earlier
//! versions refuse.

use std::path::Path;

use super::Worktree;
use super::paths::{Content, WorktreePaths, read};
use crate::host::failpoint::failpoint;
use crate::host::files;
use crate::provider::{Error, Task};

const DOT_GIT: &str = ".git";

/// Returns the reason why the valid `.git` file of a worktree is not the planned one; `None` if it is. Git writes an
/// absolute path when it moves or repairs a worktree.
pub(super) fn damage(paths: &WorktreePaths) -> Result<Option<String>, Error> {
    Ok(is_other(paths)?.map(|is_relative| {
        let (found, planned) =
            if is_relative { ("a relative", "an absolute") } else { ("an absolute", "a relative") };
        let file = paths.home.join(DOT_GIT);
        format!("{} names the repository by {found} path instead of {planned} one", file.display())
    }))
}

/// Writes the planned path into the `.git` file of a worktree, in one step, if the file has the other path.
pub(super) fn write(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    if is_other(&paths)?.is_none() {
        return Ok(());
    }
    let path = paths.worktree.join(DOT_GIT);
    let failed = |source| files::Error::Io { action: "write", path, source };
    failpoint!("pointer.write").map_err(|error| failed(error.into()))?;
    Ok(paths.open()?.replace(Path::new(DOT_GIT), &paths.dot_git_line())?)
}

/// Returns whether the `.git` file has a relative path, if it names the admin directory, but not as planned.
fn is_other(paths: &WorktreePaths) -> Result<Option<bool>, Error> {
    let Some(directory) = paths.directory()? else { return Ok(None) };
    let Content::Bytes(bytes) = read(&directory, Path::new(DOT_GIT))? else { return Ok(None) };
    let is_other = paths.is_dot_git(&bytes) && bytes != paths.dot_git_line();
    Ok(is_other.then(|| !bytes.starts_with(b"gitdir: /")))
}
