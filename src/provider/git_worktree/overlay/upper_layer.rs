//! Finds the files that a session has written, only by its upper layer.

#![expect(clippy::disallowed_methods, reason = "looks at a layer that is mounted elsewhere")]

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Worktree;
use super::super::paths::{Content, WorktreePaths, io, read};
use crate::provider::{DISCOVERY_DIRECTORY, DISCOVERY_FILE, Error};

/// Attributes that Linux sets on a directory that hides or redirects the one below it.
#[cfg(target_os = "linux")]
const ATTRIBUTES: [&str; 4] =
    ["trusted.overlay.opaque", "user.overlay.opaque", "trusted.overlay.redirect", "user.overlay.redirect"];

/// Returns whether an upper layer contains only files that seedbed wrote. An entry for a removed or renamed file is a
/// change.
pub(super) fn is_nothing(upper: &Path, worktree: &Worktree) -> Result<bool, Error> {
    let discovery = Path::new(worktree.target_path.as_deref().unwrap_or_default()).join(DISCOVERY_DIRECTORY);
    let own = [".git".into(), discovery.join(".gitignore"), discovery.join(DISCOVERY_FILE)];
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        let at = upper.join(&relative);
        for entry in fs::read_dir(&at).map_err(io("list", &at))? {
            let entry = entry.map_err(io("list", &at))?;
            let path = relative.join(entry.file_name());
            let is_directory = entry.file_type().map_err(io("inspect", &at))?.is_dir();
            // The base has no such directory, so that it hides nothing in the base.
            let is_own = path == discovery || discovery.starts_with(&path) && is_plain(&entry.path());
            if is_directory && is_own {
                left.push(path);
            } else if is_directory || !own.contains(&path) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Returns whether a directory of an upper layer shows everything in the directory below it.
#[cfg(target_os = "linux")]
fn is_plain(directory: &Path) -> bool {
    use rustix::io::Errno;
    let has = |name: &str| rustix::fs::lgetxattr(directory, name, &mut [0_u8; 0][..]);
    ATTRIBUTES.iter().all(|name| matches!(has(name), Err(Errno::NODATA | Errno::NOTSUP)))
}

#[cfg(not(target_os = "linux"))]
fn is_plain(_directory: &Path) -> bool {
    false
}

/// Returns whether HEAD is still at the worktree's commit, by its files; `false` if the files cannot show
/// that.
pub(super) fn is_at(paths: &WorktreePaths, worktree: &Worktree) -> Result<bool, Error> {
    let Content::Bytes(head) = paths.read_admin_file("HEAD")? else { return Ok(false) };
    let head = String::from_utf8_lossy(&head);
    let object = match head.trim_end().strip_prefix("ref: ") {
        None => head.trim_end().to_owned(),
        Some(name) if name.starts_with("refs/heads/") => match read(&paths.common, Path::new(name))? {
            Content::Bytes(object) => String::from_utf8_lossy(&object).trim_end().to_owned(),
            _ => return Ok(false),
        },
        Some(_) => return Ok(false),
    };
    Ok(object == worktree.commit)
}
