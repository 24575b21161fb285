//! Saves Git's files in the worktree's admin directory, as a tree.

#![expect(clippy::disallowed_methods, reason = "reads a scratch file of its own")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Work, capture};
use crate::host::files::Root;
use crate::host::git::{config, is_object_id};
use crate::provider::Error;
use crate::provider::git_worktree::paths::io;
use crate::provider::git_worktree::reserved_names;

/// Files that belong to the location and not to the work, and differ in a new worktree. Configuration is one of them: a
/// restore must not bring settings that another user or program wrote.
const OF_THE_PLACE: [&str; 11] = [
    "HEAD",
    "commondir",
    "config.worktree",
    "gitdir",
    "index",
    "index.lock",
    "info",
    "locked",
    "logs",
    "modules",
    reserved_names::MARK,
];

/// Files that name the other side of an operation in progress.
const NEEDED: [&str; 3] = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"];

/// Size limit of a saved file of an admin directory, in bytes; patches of a rebase are smaller.
const FILE_MAX: usize = 16 << 20;

/// File with the patterns of a sparse checkout.
pub(super) const PATTERNS: &str = "info/sparse-checkout";

/// Name of the temporary index for the files of the admin directory.
const STATE: &str = "state";

/// Saved files of an admin directory.
pub(super) struct State {
    /// Tree of the files.
    pub(super) tree: String,
    /// Objects that the files name.
    pub(super) named: BTreeSet<String>,
    /// Named objects that an operation in progress cannot continue without.
    pub(super) needed: BTreeSet<String>,
    /// `true` if the worktree is a sparse checkout; if so, the tree also contains its patterns.
    pub(super) is_sparse: bool,
}

/// Returns whether a file of the admin directory belongs to the location of the worktree.
pub(super) fn is_of_the_place(name: &OsStr) -> bool {
    OF_THE_PLACE.iter().any(|known| name == *known) || name.to_string_lossy().starts_with("sharedindex.")
}

/// Saves the session's index and the files of the admin directory that an operation in progress needs.
pub(super) fn save(work: &Work<'_>) -> Result<State, Error> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let is_sparse = is_sparse(work)?;
    if work.tips.as_ref().is_some_and(|tips| tips.head.is_ok())
        && let Some(admin) = work.paths.common.directory(&work.paths.admin_directory)?
    {
        for name in admin.names()? {
            if !is_of_the_place(&name) {
                collect(&admin, Path::new(&name), &mut files)?;
            }
        }
        if is_sparse {
            collect(&admin, Path::new(PATTERNS), &mut files)?;
        }
    }
    let (mut named, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for (path, bytes) in &files {
        let text = String::from_utf8_lossy(bytes);
        let objects = text.split_whitespace().filter(|word| is_object_id(word)).map(str::to_owned);
        if NEEDED.iter().any(|name| path == Path::new(name)) {
            needed.extend(objects.clone());
        }
        named.extend(objects);
    }
    let index = work.scratch.join(capture::INDEX);
    files.push((capture::INDEX.into(), fs::read(&index).map_err(io("read", &index))?));

    let mut lines = Vec::new();
    for (path, bytes) in files {
        let object = work
            .git(STATE)
            .run_with_input(work.exact(["hash-object", "-w", "--no-filters", "--stdin"]), bytes)?;
        let object = String::from_utf8_lossy(&object).trim_end().to_owned();
        lines.extend(format!("100644 {object}\t{}\0", path.display()).bytes());
    }
    Ok(State { tree: capture::tree_of(work, STATE, lines)?, named, needed, is_sparse })
}

/// Adds the file, or the files below the directory. Things that Git never creates there (a link, a huge file) are left
/// out.
fn collect(admin: &Root, path: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<(), Error> {
    if path.to_str().is_none_or(|path| path.contains('\n')) {
        return Ok(());
    }
    match admin.directory(path) {
        Ok(Some(directory)) => {
            for name in directory.names()? {
                collect(admin, &path.join::<&OsStr>(name.as_ref()), files)?;
            }
        }
        Ok(None) => {}
        // The path is no directory.
        Err(_) => {
            if let Ok(Some(bytes)) = admin.read(path, FILE_MAX) {
                files.push((path.to_owned(), bytes));
            }
        }
    }
    Ok(())
}

fn is_sparse(work: &Work<'_>) -> Result<bool, Error> {
    let listed =
        work.git(capture::INDEX).output(["config", "--null", "--get-regexp", "^core\\.sparsecheckout$"])?;
    Ok(config::is_on(&config::parse(&listed.stdout), "core.sparsecheckout"))
}
