//! Paths that no allocation may have.

use std::path::Path;

/// Tells whether `path` of a plan is the workspace itself or a directory above it.
pub(crate) fn holds_the_workspace(workspace: &Path, path: &Path) -> bool {
    workspace.starts_with(crate::host::absolute(workspace, path))
}

/// Tells whether a path of a plan leads into a git directory.
pub(crate) fn in_git(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git"))
}
