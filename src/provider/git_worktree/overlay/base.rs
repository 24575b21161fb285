//! Makes the checkout, with its index, that overlays of one commit and target path share.

#![expect(clippy::disallowed_methods, reason = "links files, and looks at what links are of")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FileType;

use super::super::copy::Source;
use super::super::donor::Recipient;
use super::super::paths::{WorktreePaths, io};
use super::super::{Worktree, populate};
use super::{Overlay, guard};
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::git::Git;
use crate::name::sha256_hex;
use crate::provider::{Error, Task};

/// Returns the name of a worktree's base. All worktrees that would have equal checkouts have the same name.
pub(super) fn name(worktree: &Worktree) -> String {
    let target = worktree.target_path.as_deref().unwrap_or_default();
    let mut identity = format!("{}\0{target}", worktree.commit);
    if let Some(repository) = &worktree.repository {
        identity.push('\0');
        identity.push_str(repository);
    }
    sha256_hex(identity.as_bytes())[..16].to_owned()
}

/// Checks the base out through the worktree's admin directory, unless the base exists already.
pub(super) fn make(task: &Task<'_>, worktree: &Worktree, overlay: &Overlay) -> Result<(), Error> {
    let top = &overlay.top;
    let (tree, index) = (overlay.base.join("tree"), overlay.base.join("index"));
    if is_complete(overlay)? {
        return Ok(());
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let aside = overlay.base.join(format!("building-{}", worktree.admin_directory));
    top.remove_all(&aside)?;
    let building = top.create_directories(&aside)?;
    let files = building.create_directories(Path::new("tree"))?;
    let (own_tree, own_index) = (building.path().join("tree"), building.path().join("index"));
    let admin = paths.admin_directory_path();
    let git = Git::open(task.host, &admin, Some(&own_tree))
        .holding(task.lock)
        .with_variable("GIT_INDEX_FILE", &own_index)
        // The second part of a split index would exist only in this admin directory.
        .with_setting("core.splitIndex=false");
    let recipient = Recipient {
        git: &git,
        commit: &worktree.commit,
        top: &files,
        index: &own_index,
        cancel: &task.host.cancel,
    };
    let is_written = populate::check_out(&recipient, worktree, &paths)?;
    crashpoint!("base.checked-out");
    populate::check_target(worktree, &files)?;
    let id = worktree.commit.len() / 2;
    match Source::at(files, &building, Path::new("index"), id)?.filter(|base| base.is_unchanged(&is_written))
    {
        Some(base) => drop(base.set_back(&is_written)?),
        // A file that a filter does not convert back unchanged appears as changed, as in any worktree. This is no
        // failure.
        None => drop(git.output(["update-index", "-q", "--refresh"])?),
    }

    let _guard = guard(&overlay.overlays)?;
    if is_complete(overlay)? {
        return Ok(top.remove_all(&aside)?);
    }
    top.remove_file(&index)?;
    top.remove_all(&tree)?;
    top.rename(&aside.join("tree"), &tree)?;
    crashpoint!("base.placed-tree");
    top.rename(&aside.join("index"), &index)?;
    crashpoint!("base.placed");
    Ok(top.remove_all(&aside)?)
}

/// Returns whether the base has its files and, created last, its index.
pub(super) fn is_complete(overlay: &Overlay) -> Result<bool, Error> {
    let Some(base) = overlay.top.directory(&overlay.base)? else { return Ok(false) };
    Ok(base.file_type("index".as_ref()) == Some(FileType::RegularFile)
        && base.directory(Path::new("tree"))?.is_some())
}

/// Makes the index at `from` that of an admin directory, if possible by a link: Git writes a new file, never into this
/// one.
pub(super) fn link_index(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", to)(error)),
        _ => {}
    }
    let linked = failpoint!("base.link-index").map_err(std::io::Error::from);
    match linked.and_then(|()| fs::hard_link(from, to)) {
        Ok(()) => Ok(()),
        // The paths are on two file systems, or the file has the maximum number of links.
        Err(_) => fs::copy(from, to).map(drop).map_err(io("write", to)),
    }
}

/// Returns whether the index at `own` equals the one at `base`. When Git changes an index, it writes a new file.
pub(super) fn is_index(base: &Path, own: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (fs::symlink_metadata(own), fs::symlink_metadata(base)) else {
        return false;
    };
    ours.is_file()
        && ours.len() == theirs.len()
        && ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
            || fs::read(own).is_ok_and(|own| fs::read(base).is_ok_and(|base| own == base)))
}
