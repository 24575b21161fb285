//! Names the parts that may remain of a worktree, for a user who removes or restores them by hand.

#![expect(clippy::disallowed_methods, reason = "finds out what exists")]

use std::fs;
use std::path::Path;

use super::paths::WorktreePaths;
use super::{Worktree, overlay, reserved_names};
use crate::host;
use crate::host::git::Git;
use crate::provider::{Location, Task};

/// Returns one line for each existing part, or for all possible parts if the repository cannot be found.
pub(super) fn manual_cleanup(task: &Task<'_>, worktree: &Worktree) -> Vec<String> {
    let branch = worktree.branch.as_ref().filter(|_| task.location == Location::Home);
    let mut lines = Vec::new();
    if let Ok(paths) = WorktreePaths::new(task, worktree) {
        lines.extend(directories(task, &paths));
        let stand_in = paths.common.path().join(reserved_names::stand_in(task, worktree));
        if task.location == Location::Aside && exists(&stand_in) {
            lines.push(format!("{}, which keeps its objects from `git gc`", stand_in.display()));
        }
        lines.extend(branch.filter(|branch| may_exist(task, &paths, branch)).map(named));
    } else {
        let path = host::absolute(task.workspace, &worktree.worktree_path);
        lines.push(format!("worktree {}", path.display()));
        lines.extend(branch.map(named));
    }
    lines.extend(layers(task, worktree));
    lines
}

/// Returns one line for each existing part that another part of the same name cannot replace.
pub(super) fn in_the_way(task: &Task<'_>, worktree: &Worktree) -> Vec<String> {
    let paths = WorktreePaths::new(task, worktree);
    let mut lines = paths.map_or_else(|_| Vec::new(), |paths| directories(task, &paths));
    lines.extend(layers(task, worktree));
    lines
}

/// Names the directory and the admin directory that exist, and the paths where they belong.
fn directories(task: &Task<'_>, paths: &WorktreePaths) -> Vec<String> {
    let belongs = |path: &Path| match task.location {
        Location::Aside => format!(", which belongs at {}", path.display()),
        Location::Home => String::new(),
    };
    let parts = [
        ("worktree", paths.worktree.clone(), &paths.home),
        ("admin directory", paths.admin_directory_path(), &paths.home_admin_directory_path()),
    ];
    let existing = parts.into_iter().filter(|(_, path, _)| exists(path));
    existing.map(|(what, path, home)| format!("{what} {}{}", path.display(), belongs(home))).collect()
}

/// Names the layers of an overlay that exist.
fn layers(task: &Task<'_>, worktree: &Worktree) -> Option<String> {
    let layers = task.host.state.join(overlay::layers(task, worktree));
    let exist = overlay::is_wanted(worktree) && exists(&layers);
    exist.then(|| format!("layers of the overlay {}", layers.display()))
}

fn named(branch: &String) -> String {
    format!("branch {branch}")
}

/// Returns whether a path exists; `true` if that cannot be determined.
fn exists(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn may_exist(task: &Task<'_>, paths: &WorktreePaths, branch: &str) -> bool {
    let name = format!("refs/heads/{branch}");
    let git = Git::open(task.host, paths.common.path(), None);
    let found = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", &name]);
    // If Git cannot answer, the branch may exist.
    found.map_or(true, |output| output.status.code() != Some(1))
}
