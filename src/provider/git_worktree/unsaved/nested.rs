//! Finds things inside a worktree that are not its session's: mounts, and worktrees that are registered below it.
//!
//! Git reports neither: it skips the admin directories of other worktrees, and lists a mount like any directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::host::absolute;
use crate::host::mounts;
use crate::host::text::shell_quoted;
use crate::provider::directory_scan::mount_blocker;
use crate::provider::git_worktree::ownership::Mark;
use crate::provider::git_worktree::paths::{Content, WorktreePaths, read};
use crate::provider::git_worktree::{Worktree, overlay};
use crate::provider::{Error, Task};

/// Owner of a registered worktree that has no ownership marker.
const UNMARKED: &str = "-";

/// Paths below one worktree that have another owner.
#[derive(Debug, Default)]
pub(super) struct Nested {
    /// Reasons why the worktree cannot be released, one line each.
    pub(super) blockers: Vec<String>,
    /// Absolute paths that are not part of the worktree: mounts and registered worktrees, including the swarm's own
    /// child worktrees.
    pub(super) places: BTreeSet<PathBuf>,
}

impl Nested {
    /// Finds the mounts and the registered worktrees below a worktree.
    pub(super) fn find(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<Self, Error> {
        let mut nested = Self::default();
        let mut own = BTreeSet::new();
        let layer = overlay::hidden_layer(task, worktree, paths)?;
        for registered in registered(task, paths, layer.as_deref())? {
            if registered.owner == task.owner {
                own.insert(registered.path.clone());
            } else {
                nested.blockers.push(registered.described());
            }
            nested.places.insert(registered.path);
        }
        let table = task.shared_result("mounts", || Ok(mounts::table()?))?;
        for mount in mounts::at_or_below(&table, &paths.worktree) {
            let place = PathBuf::from(&mount.place);
            let is_overlay = mount.file_system == mounts::OVERLAY && mount.source == mounts::SOURCE;
            let is_own = own.contains(&place) || place == paths.worktree && overlay::is_wanted(worktree);
            if !(is_overlay && is_own) {
                nested.blockers.push(mount_blocker(&mount, &mount.place));
            }
            if place != paths.worktree {
                nested.places.insert(place);
            }
        }
        Ok(nested)
    }
}

/// A worktree of the repository.
struct Registered {
    path: PathBuf,
    /// Ownership marker of the swarm, or [`UNMARKED`].
    owner: String,
    /// Session that the ownership marker names.
    session: String,
    /// `true` if the path is reachable only after the worktree around it is mounted.
    hidden: bool,
}

impl Registered {
    fn described(&self) -> String {
        let Self { path, owner, session, hidden } = self;
        let mounts =
            if *hidden { "`seedbed status --repair` mounts the worktree around it, then " } else { "" };
        let (shown, path) = (shell_quoted(&path.to_string_lossy()), path.display());
        if owner == UNMARKED {
            format!(
                "{path} is a worktree of the same repository: {mounts}`git worktree remove {shown}` ends it"
            )
        } else {
            format!(
                "{path} is the worktree of session {session} of another swarm: {mounts}`seedbed destroy` of that swarm \
                 ends it"
            )
        }
    }
}

/// Returns the existing worktrees that are registered below this one. `layer` is searched too: a mount would show its
/// worktrees.
fn registered(
    task: &Task<'_>,
    paths: &WorktreePaths,
    layer: Option<&Path>,
) -> Result<Vec<Registered>, Error> {
    let what = format!("registered {}", paths.common.path().display());
    let listed = task.shared_result(&what, || list(paths))?;
    // The admin directories of other worktrees name the home of this one, even if it has been moved.
    let prefix = format!("{}/", escaped(&paths.home));
    let found = listed.lines().filter_map(|line| {
        let (path, rest) = line.split_once('\t')?;
        let below = unescaped(path.strip_prefix(&prefix)?);
        let path = paths.worktree.join(&below);
        let (owner, session) = rest.split_once('\t')?;
        let exists = |path: &Path| rustix::fs::lstat(path).is_ok();
        let hidden = !exists(&path);
        if hidden && !layer.is_some_and(|layer| exists(&layer.join(below))) {
            return None;
        }
        Some(Registered { path, owner: owner.to_owned(), session: session.to_owned(), hidden })
    });
    Ok(found.collect())
}

/// Lists every linked worktree of the repository, one a line: path, owner and session, separated by tabs. An admin
/// directory that names no path is left out.
fn list(paths: &WorktreePaths) -> Result<String, Error> {
    let mut text = String::new();
    let Some(entries) = paths.common.directory(Path::new("worktrees"))? else { return Ok(text) };
    for name in entries.names()? {
        // Git creates neither links nor files there.
        let Ok(Some(admin)) = entries.directory(Path::new(&name)) else { continue };
        let Ok(Content::Bytes(gitdir)) = read(&admin, Path::new("gitdir")) else { continue };
        let Some(path) = gitdir.trim_ascii_end().strip_suffix(b"/.git") else { continue };
        // With `worktree.useRelativePaths` the path is relative to the admin directory.
        let path = absolute(admin.path(), Path::new(OsStr::from_bytes(path)));
        let (owner, session) = match Mark::read(&admin) {
            Some(mark) => (mark.owner, mark.session),
            None => (UNMARKED.to_owned(), String::new()),
        };
        let _ = writeln!(text, "{}\t{owner}\t{session}", escaped(&path));
    }
    Ok(text)
}

/// Returns a path as text without tabs, line feeds and bytes that are not UTF-8.
fn escaped(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (*first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let number =
                    std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                (number.unwrap_or(b'?'), after)
            }
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [other, after @ ..]) => (*other, after),
            (other, after) => (other, after),
        };
        bytes.push(byte);
        rest = after;
    }
    PathBuf::from(OsStr::from_bytes(&bytes).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_survives_being_escaped() {
        let path = Path::new(OsStr::from_bytes(b"/a b/\t\n\r'\"\\x41\xff\xc3\xa4"));
        assert_eq!(unescaped(&escaped(path)), path);
    }
}
