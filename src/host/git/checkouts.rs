//! Finds the worktrees that have each branch checked out, by reading files: Git itself fails at a torn admin directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::files::{Error, Root};

/// Largest file of an admin directory that is read, in bytes; Git's own files contain one line.
const LINE_MAX: usize = 64 * 1024;

/// Files that name the branch to which a rebase or a bisection will return.
const RETURNS: [&str; 3] = ["rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"];

/// A worktree that has a branch checked out, or will return to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Checkout {
    /// Name of the admin directory under `worktrees`; `None` for the repository's own work tree.
    pub admin_directory: Option<String>,
    /// Path of the work tree, or of the Git directory if the admin directory does not name the work tree.
    pub path: PathBuf,
}

/// Returns the worktrees of each branch (without `refs/heads/`) of the repository whose common Git directory is
/// `common`.
///
/// An unreadable admin directory has no branch here: only Git's own commands could find it, and they would fail.
pub(crate) fn checkouts(common: &Root) -> Result<BTreeMap<String, Vec<Checkout>>, Error> {
    let mut found: BTreeMap<String, Vec<Checkout>> = BTreeMap::new();
    let top = common.path().parent().unwrap_or(common.path()).to_owned();
    for branch in branches(common) {
        found.entry(branch).or_default().push(Checkout { admin_directory: None, path: top.clone() });
    }
    let Some(admin_directories) = common.directory(Path::new("worktrees"))? else { return Ok(found) };
    for name in admin_directories.names()? {
        let Ok(Some(admin)) = admin_directories.directory(Path::new(&name)) else { continue };
        for branch in branches(&admin) {
            let path =
                line(&admin, "gitdir").and_then(|path| path.strip_suffix(b"/.git").map(<[u8]>::to_vec));
            let path =
                path.map_or_else(|| admin.path().to_owned(), |path| PathBuf::from(OsStr::from_bytes(&path)));
            let admin_directory = Some(name.to_string_lossy().into_owned());
            found.entry(branch).or_default().push(Checkout { admin_directory, path });
        }
    }
    Ok(found)
}

/// Returns the branches that one worktree has checked out or will return to.
fn branches(admin: &Root) -> Vec<String> {
    let head = line(admin, "HEAD").and_then(|head| head.strip_prefix(b"ref: ").map(<[u8]>::to_vec));
    let returns = RETURNS.into_iter().filter_map(|name| line(admin, name));
    let mut branches: Vec<String> = head
        .into_iter()
        .chain(returns)
        .map(|name| String::from_utf8_lossy(&name).into_owned())
        .map(|name| name.strip_prefix("refs/heads/").map(str::to_owned).unwrap_or(name))
        .collect();
    branches.dedup();
    branches
}

fn line(admin: &Root, name: &str) -> Option<Vec<u8>> {
    let bytes = admin.read(Path::new(name), LINE_MAX).ok()??;
    Some(bytes.trim_ascii_end().to_vec())
}
