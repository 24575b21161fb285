//! What overlays of one commit and part have in common: one checkout and its index.

#![expect(
    clippy::disallowed_methods,
    reason = "sets times, links files, and walks through what git has made"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, lstat};

use super::super::donor::Recipient;
use super::super::index::{Entry, Index, What};
use super::super::site::{Site, io};
use super::super::{Worktree, populate};
use super::{Overlay, guard};
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::git::Git;
use crate::name::sha256_hex;
use crate::provider::{Error, Task};

/// How far back the times of a base's files are set, in seconds. What changed in the second in which an index was
/// written, git has to read to see whether it changed again.
const BACK: i64 = 10;

/// What the base of a worktree is called: all worktrees that would be checked out alike have the same.
pub(super) fn name(worktree: &Worktree) -> String {
    let target = worktree.target_path.as_deref().unwrap_or_default();
    sha256_hex(format!("{}\0{target}", worktree.commit).as_bytes())[..16].to_owned()
}

/// Checks the base out through the worktree's entry, unless it stands already.
pub(super) fn make(task: &Task<'_>, worktree: &Worktree, overlay: &Overlay) -> Result<(), Error> {
    let top = &overlay.top;
    let (tree, index) = (overlay.base.join("tree"), overlay.base.join("index"));
    if top.read(&index, usize::MAX)?.is_some() {
        return Ok(());
    }
    let site = Site::of(task, worktree)?;
    let aside = overlay.base.join(format!("building-{}", worktree.entry));
    top.remove_all(&aside)?;
    let building = top.create_directories(&aside)?;
    let files = building.create_directories(Path::new("tree"))?;
    let own_index = building.path().join("index");
    let entry = site.entry_path();
    let git = Git::of(task.host, &entry, Some(files.path()))
        .holding(task.lock)
        .with_variable("GIT_INDEX_FILE", &own_index)
        // An index in two parts would have the other one in this entry, and in no other.
        .with_setting("core.splitIndex=false");
    let recipient = Recipient {
        git: &git,
        commit: &worktree.commit,
        top: &files,
        index: &own_index,
        cancel: &task.host.cancel,
    };
    populate::check_out(&recipient, worktree, &site)?;
    crashpoint!("base.checked-out");
    populate::check_target(worktree, &files)?;
    if !set_back(files.path(), &own_index, worktree.commit.len() / 2)? {
        // What a filter does not give back as it was is found changed, as it is in any worktree; that is no failure.
        git.output(["update-index", "-q", "--refresh"])?;
    }

    let _guard = guard(&overlay.overlays)?;
    if top
        .directory(&overlay.base)?
        .is_some_and(|base| base.read(Path::new("index"), usize::MAX).ok().flatten().is_some())
    {
        return Ok(top.remove_all(&aside)?);
    }
    top.remove_all(&tree)?;
    top.rename(&aside.join("tree"), &tree)?;
    crashpoint!("base.placed-tree");
    top.rename(&aside.join("index"), &index)?;
    crashpoint!("base.placed");
    Ok(top.remove_all(&aside)?)
}

/// Makes the index at `from` that of an entry, by a link where that can be: git writes a new file, never into this one.
pub(super) fn link_index(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", to)(error)),
        _ => {}
    }
    let linked = failpoint!("base.link-index").map_err(std::io::Error::from);
    match linked.and_then(|()| fs::hard_link(from, to)) {
        Ok(()) => Ok(()),
        // On another file system, or one link more than a file may have.
        Err(_) => fs::copy(from, to).map(drop).map_err(io("write", to)),
    }
}

/// Tells whether the index at `own` is the one at `base`; git writes a new file where it changes anything.
pub(super) fn is_index(base: &Path, own: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (fs::symlink_metadata(own), fs::symlink_metadata(base)) else {
        return false;
    };
    ours.is_file()
        && ours.len() == theirs.len()
        && ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
            || fs::read(own).is_ok_and(|own| fs::read(base).is_ok_and(|base| own == base)))
}

/// Every file below `directory`, and whatever else is no directory, relative to it.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        let at = directory.join(&relative);
        for entry in fs::read_dir(&at).map_err(io("list", &at))? {
            let entry = entry.map_err(io("list", &at))?;
            let path = relative.join(entry.file_name());
            if entry.file_type().map_err(io("look at", &at))?.is_dir() {
                left.push(path);
            } else {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// Sets the times of every file back, and in the index what git compares them with; `false` where the index is not
/// understood, or does not say of every file what the file system does, and git has to look itself.
///
/// `id` is the length of the repository's object ids, in bytes.
fn set_back(tree: &Path, index: &Path, id: usize) -> Result<bool, Error> {
    let bytes = fs::read(index).map_err(io("read", index))?;
    let read = Index::read(&bytes, id);
    let path = |read: &Index, entry: &Entry| tree.join(OsStr::from_bytes(read.name(entry)));
    let is_sound = |read: &Index| {
        let is_of = |entry: &Entry| {
            entry.what == What::Submodule
                || lstat(path(read, entry)).is_ok_and(|stat| read.is_of(entry, &stat))
        };
        read.entries().par_iter().all(is_of)
    };
    let sound = read.filter(is_sound);
    files(tree)?.par_iter().try_for_each(|file| {
        let path = tree.join(file);
        let found = fs::symlink_metadata(&path).map_err(io("look at", &path))?;
        let time = Timespec { tv_sec: found.mtime() - BACK, tv_nsec: found.mtime_nsec() };
        let times = Timestamps { last_access: time, last_modification: time };
        failpoint!("base.set-time")
            .and_then(|()| rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| io("set the time of", &path)(errno.into()))
    })?;
    let Some(read) = sound else { return Ok(false) };
    let mut with_times = read.of_a_copy();
    for entry in read.entries() {
        let path = path(&read, entry);
        let stat = lstat(&path).map_err(|errno| io("look at", &path)(errno.into()))?;
        with_times.put(entry, &stat);
    }
    // Nobody else has this one yet.
    failpoint!("base.write-index")
        .map_err(std::io::Error::from)
        .and_then(|()| fs::write(index, with_times.finish()))
        .map_err(io("write", index))?;
    Ok(true)
}
