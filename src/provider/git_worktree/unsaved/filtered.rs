//! Finds edits that Git does not notice.
//!
//! A filter or a conversion of line ends may remove an edit before Git compares, although a checkout would write other
//! bytes. Most builds of Git compare whole seconds. So they miss an edit in the second of the checkout that keeps the
//! length and sets the time back.
//!
//! Both are found by the times in the index. If Git refreshes its index after a filtered edit, no trace of the edit is
//! left.

#![expect(clippy::disallowed_methods, reason = "compares files with what a checkout would write")]

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::lstat;

use super::ListedFile;
use super::index_flags::{Filters, hash};
use crate::host::git::Git;
use crate::provider::Error;
use crate::provider::git_worktree::index::Index;
use crate::provider::git_worktree::paths::io;

/// Returns the files that were touched since `index` was written, and that have neither the bytes of their blob nor
/// those of a checkout. The files in `known` are left out.
pub(in super::super) fn changed(
    git: &Git<'_>,
    top: &Path,
    index: Option<Vec<u8>>,
    files: &[ListedFile<'_>],
    known: &BTreeSet<PathBuf>,
) -> Result<BTreeSet<PathBuf>, Error> {
    let listed = touched(git, top, index, files)?;
    // Files that Git skips because of a bit in the index are inspected in `hidden`.
    let seen = files.iter().filter(|file| !file.hidden);
    let objects: HashMap<&Path, &str> = seen.map(|file| (file.path, file.object)).collect();
    let is_file = |path: &Path| fs::symlink_metadata(top.join(path)).is_ok_and(|found| found.is_file());
    let touched: Vec<&Path> = listed
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| Path::new(OsStr::from_bytes(path)))
        .filter(|path| !known.contains(*path) && objects.contains_key(path) && is_file(path))
        .collect();
    let hashed = hash(git, &touched, Filters::Leave)?;
    let converted: Vec<_> = touched
        .into_iter()
        .zip(hashed)
        .filter_map(|(path, hashed)| {
            Some((path, *objects.get(path)?)).filter(|(_, object)| hashed != *object)
        })
        .collect();
    let mut changed = BTreeSet::new();
    for (path, object) in converted {
        let mut option = OsString::from("--path=");
        option.push(path);
        let written = git.run([OsString::from("cat-file"), "--filters".into(), option, object.into()])?;
        let here = top.join(path);
        if fs::read(&here).map_err(io("read", &here))? != written {
            changed.insert(path.to_owned());
        }
    }
    Ok(changed)
}

/// Lists the files whose stat data is not that of the index, each ended by NUL.
fn touched(
    git: &Git<'_>,
    top: &Path,
    index: Option<Vec<u8>>,
    files: &[ListedFile<'_>],
) -> Result<Vec<u8>, Error> {
    let id = files.first().map_or(0, |file| file.object.len() / 2);
    let Some(index) = index.and_then(|bytes| Index::read(&bytes, id)) else {
        // Git does not refresh the index here: it lists every file that was touched, except in the same second.
        return Ok(git.run([
            "diff-files",
            "--name-only",
            "-z",
            "--no-renames",
            "--ignore-submodules=all",
        ])?);
    };
    let is_touched = |name: &[u8], entry| {
        let found = lstat(top.join(OsStr::from_bytes(name)));
        found.is_ok_and(|found| !index.is_of(entry, &found))
    };
    let names = index.entries().iter().map(|entry| (index.name(entry), entry));
    let touched = names.filter(|(name, entry)| is_touched(name, entry));
    Ok(touched.flat_map(|(name, _)| [name, b"\0"].concat()).collect())
}
