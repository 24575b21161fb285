//! Keeps objects of an admin directory that is aside from Git's garbage collection.
//!
//! Git keeps the objects that `HEAD`, the index and the reflogs of an admin directory name, if the admin directory is in
//! `worktrees`. While one is aside, a stand-in there has the same `HEAD`, index and reflogs. The stand-in names no
//! directory, so that `git worktree repair` changes no worktree. It has no branch checked out, so that the branch can be
//! used. It is locked, so that `git worktree prune` keeps it. Its name is part of a ref's name, so it begins with no dot.

#![expect(clippy::disallowed_methods, reason = "links files of an admin directory into another one")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;

use super::paths::{Content, WorktreePaths, io, move_directory, read, remove_out_of_sight};
use super::register::write;
use super::{Worktree, reserved_names};
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::Root;
use crate::host::git::{Git, is_object_id};
use crate::provider::{Error, Task, retry_while_missing};

/// Directory of a repository's refs in the reftable format, which also contains `HEAD` and the reflogs.
const REFTABLE: &str = "reftable";

/// Creates the stand-in of an admin directory that will be moved aside, if the admin directory exists.
pub(super) fn create(task: &Task<'_>, worktree: &Worktree, home: &WorktreePaths) -> Result<(), Error> {
    let Some(admin) = home.common.directory(&home.admin_directory)? else { return Ok(()) };
    let building = reserved_names::stand_in_building(task, worktree);
    home.common.remove_all(&building)?;
    let stand_in = retry_while_missing(|| Ok(home.common.create_directories(&building)?))?;
    link_roots(&admin, &stand_in, Path::new(""))?;
    build(task, worktree, home, &admin, &stand_in)?;
    crashpoint!("aside.stand-in-built");
    let to = reserved_names::stand_in(task, worktree);
    // An earlier run may have left a stand-in.
    if home.common.directory(&to)?.is_some() {
        remove_out_of_sight(&home.common, &to, &reserved_names::stand_in_trash(task, worktree))?;
    }
    move_directory(&home.common, &building, &to)?;
    crashpoint!("aside.stand-in-placed");
    Ok(())
}

/// Keeps a commit whose branch is about to be deleted.
pub(super) fn keep_commit(
    task: &Task<'_>,
    worktree: &Worktree,
    common: &Root,
    commit: &str,
) -> Result<(), Error> {
    let Some(stand_in) = common.directory(&reserved_names::stand_in(task, worktree))? else { return Ok(()) };
    Ok(stand_in.replace(Path::new("HEAD"), format!("{commit}\n").as_bytes())?)
}

/// Removes the stand-in, if it exists. The admin directory is back, or was removed.
pub(super) fn remove(task: &Task<'_>, worktree: &Worktree, common: &Root) -> Result<(), Error> {
    common.remove_all(&reserved_names::stand_in_building(task, worktree))?;
    let trash = reserved_names::stand_in_trash(task, worktree);
    remove_out_of_sight(common, &reserved_names::stand_in(task, worktree), &trash)
}

/// Links the files whose objects Git keeps.
fn link_roots(admin: &Root, stand_in: &Root, below: &Path) -> Result<(), Error> {
    let here = if below == Path::new("") { Path::new(".") } else { below };
    let Some(directory) = admin.directory(here)? else { return Ok(()) };
    for name in directory.names()? {
        let path = below.join(&name);
        match directory.file_type(&name) {
            Some(FileType::RegularFile) if names_objects(&path) => {
                link(&admin.path().join(&path), &stand_in.path().join(&path))?;
            }
            Some(FileType::Directory) if names_objects(&path) => {
                stand_in.create_directories(&path)?;
                link_roots(admin, stand_in, &path)?;
            }
            _ => {}
        }
    }
    // In a repository that users share, each of them may collect garbage.
    copy_mode(&admin.path().join(below), &stand_in.path().join(below))
}

/// Returns whether Git keeps the objects that a file of an admin directory names, or that files of a directory in it
/// may name.
fn names_objects(path: &Path) -> bool {
    let text = path.as_os_str().as_bytes();
    let is_lock = text.ends_with(b".lock");
    let starts_with = |start: &&str| text.starts_with(start.as_bytes());
    let is_of_rebase = |start: &&str| path.strip_prefix(start).is_ok_and(is_of_rebase);
    !is_lock
        && (text == b"index"
            || ["sharedindex."].iter().any(starts_with)
            || ["logs", REFTABLE].iter().any(|start| path.starts_with(start))
            || ["rebase-apply", "rebase-merge"].iter().any(is_of_rebase))
}

/// Returns whether Git keeps the commit that a file of a rebase names. The empty path is the rebase's directory.
fn is_of_rebase(path: &Path) -> bool {
    [Path::new(""), Path::new("autostash"), Path::new("orig-head")].contains(&path)
}

/// Links a file, or copies the file if it cannot be linked: some file systems have no links, and no user can link an
/// unwritable file of another one. A file that another process has removed is left out.
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    let linked = failpoint!("aside.link").map_err(std::io::Error::from);
    match linked.and_then(|()| fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        linked => linked.map_err(io("link", to)),
    }
}

/// Writes the files that make a directory an admin directory.
fn build(
    task: &Task<'_>,
    worktree: &Worktree,
    home: &WorktreePaths,
    admin: &Root,
    stand_in: &Root,
) -> Result<(), Error> {
    let path = home.common.path().join(reserved_names::stand_in(task, worktree));
    let mark = format!("{}\n", reserved_names::mark(task));
    let gitdir = [path.join("no-worktree/.git").as_os_str().as_bytes(), b"\n"].concat();
    let is_reftable = stand_in.directory(Path::new(REFTABLE))?.is_some();
    let head = match read(admin, Path::new("HEAD"))? {
        Content::Bytes(head)
            if is_reftable || is_object_id(&String::from_utf8_lossy(head.trim_ascii_end())) =>
        {
            head
        }
        // A branch that does not exist. The branch that is checked out keeps its commits itself.
        _ => format!("ref: refs/heads/{}\n", reserved_names::stand_in_name(task, worktree)).into_bytes(),
    };
    let files =
        [("HEAD", &head[..]), ("commondir", b"../..\n"), ("gitdir", &gitdir), ("locked", mark.as_bytes())];
    for (name, bytes) in files.into_iter().chain([(reserved_names::MARK, mark.as_bytes())]) {
        write(stand_in.path(), name, bytes)?;
        copy_mode(&admin.path().join("HEAD"), &stand_in.path().join(name))?;
    }
    if is_reftable { detach(task, stand_in) } else { Ok(()) }
}

/// Detaches the `HEAD` of a stand-in that has the refs of its admin directory.
fn detach(task: &Task<'_>, stand_in: &Root) -> Result<(), Error> {
    let git = Git::open(task.host, stand_in.path(), None).holding(task.lock);
    let head = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", "HEAD^{commit}"])?;
    let commit = String::from_utf8_lossy(head.stdout.trim_ascii_end());
    if !commit.is_empty() {
        git.run(["update-ref", "--no-deref", "HEAD", &commit])?;
    }
    Ok(())
}

fn copy_mode(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::metadata(from).and_then(|found| fs::set_permissions(to, found.permissions())) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        copied => copied.map_err(io("set the mode of", to)),
    }
}
