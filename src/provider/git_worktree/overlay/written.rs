//! What a session has written, by its upper layer alone.

#![expect(clippy::disallowed_methods, reason = "looks at a layer that is mounted elsewhere")]

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Worktree;
use super::super::site::{Content, Site, io, read};
use crate::provider::{DISCOVERY_DIRECTORY, DISCOVERY_FILE, Error};

/// What Linux notes at a directory that does not show all of the one below it, or shows another.
#[cfg(target_os = "linux")]
const ATTRIBUTES: [&str; 4] =
    ["trusted.overlay.opaque", "user.overlay.opaque", "trusted.overlay.redirect", "user.overlay.redirect"];

/// Tells whether an upper layer holds nothing but what seedbed put there. Whatever stands for a file that was removed
/// or renamed is something.
pub(super) fn is_nothing(upper: &Path, worktree: &Worktree) -> Result<bool, Error> {
    let discovery = Path::new(worktree.target_path.as_deref().unwrap_or_default()).join(DISCOVERY_DIRECTORY);
    let own = [".git".into(), discovery.join(".gitignore"), discovery.join(DISCOVERY_FILE)];
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        let at = upper.join(&relative);
        for entry in fs::read_dir(&at).map_err(io("list", &at))? {
            let entry = entry.map_err(io("list", &at))?;
            let path = relative.join(entry.file_name());
            let is_directory = entry.file_type().map_err(io("look at", &at))?.is_dir();
            // The base has no such directory, so that it hides nothing there.
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

/// Tells whether a directory of an upper layer shows all of the one below it.
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

/// Tells whether HEAD is where the worktree was made, by its files alone; what cannot be told that way is not.
pub(super) fn is_at(site: &Site, worktree: &Worktree) -> Result<bool, Error> {
    let Content::Bytes(head) = site.read_entry("HEAD")? else { return Ok(false) };
    let head = String::from_utf8_lossy(&head);
    let object = match head.trim_end().strip_prefix("ref: ") {
        None => head.trim_end().to_owned(),
        Some(name) if name.starts_with("refs/heads/") => match read(&site.common, Path::new(name))? {
            Content::Bytes(object) => String::from_utf8_lossy(&object).trim_end().to_owned(),
            _ => return Ok(false),
        },
        Some(_) => return Ok(false),
    };
    Ok(object == worktree.commit)
}
