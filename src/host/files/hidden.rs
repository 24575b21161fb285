//! Directories for files of seedbed in a user's repository: Git does not see them, and they leave no trace.
//!
//! The file that hides a directory also records its creator: a `.gitignore` with exactly one of two texts. A
//! file that was changed belongs to the user.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::failpoint::{crashpoint, failpoint};
use super::removal::Threads;
use super::{DIRECTORY, Error, Root, io, removal, temporary};

/// Content of the marker in a directory that seedbed created. The marker also covers everything below the directory.
const MADE: &[u8] = b"# seedbed made this directory and removes it with the last session\n*\n";

/// Content of the marker in a directory that existed before.
const ADDED: &[u8] = b"# seedbed added this file and removes it with the last session\n*\n";

const FILE: &str = ".gitignore";

/// Limit of attempts to create a directory that another seedbed, which [`alone`] does not exclude, removes at
/// the same moment.
///
/// Attempts without the lock would not suffice: directories that are created and removed in turns are
/// sometimes left behind.
const TRIES: u32 = 100;

/// Limit of the wait for the lock of a root, and interval of the attempts.
///
/// Other seedbeds finish within milliseconds. A process that owns the lock for longer is no seedbed, and is
/// not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// Ownership marker of a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Made,
    Added,
}

/// Creates a directory as [`Root::create_hidden`] describes.
pub(super) fn create(root: &Root, relative: &Path) -> Result<Root, Error> {
    let _alone = alone(root);
    let mut tries = 1;
    loop {
        match create_once(root, relative) {
            Err(error) if error.is_not_found() && tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

/// Locks `root` against other seedbeds that create or remove directories below it, until the lock is dropped.
///
/// Each of these operations depends on several directories, which do not change in one step. Returns `None`
/// if the file system has no locks or another process owns this lock. A process that reaches the same
/// directories from another root, as with two workspaces that share a `root-directory`, uses another lock.
/// Operations that then interfere are tried again, or leave a directory behind; nothing is lost.
fn alone(root: &Root) -> Option<OwnedFd> {
    // Opened again: a lock is shared by all descriptors that were cloned from one opening.
    let root = rustix::fs::openat(&root.fd, ".", DIRECTORY, Mode::empty()).ok()?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(root),
            Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < PATIENCE => thread::sleep(PAUSE),
            Err(_) => return None,
        }
    }
}

fn create_once(root: &Root, relative: &Path) -> Result<Root, Error> {
    let mut directory = root.again()?;
    let mut hidden = false;
    for name in root.names_of(relative)? {
        let child = match directory.child(name)? {
            Some(child) => child,
            None if hidden => directory.create_child(name)?,
            None => create_marked(&directory, name)?,
        };
        // A marker hides nothing from the Git of a repository below it, such as a worktree.
        hidden &= child.file_type(OsStr::new(".git")).is_none();
        hidden |= mark(&child)?.is_some();
        directory = child;
    }
    // If the directory already contains other files, a marker would hide those too.
    if !hidden && directory.names()?.is_empty() {
        directory.create_new(Path::new(FILE), ADDED)?;
    }
    Ok(directory)
}

/// Creates a directory that has its marker from the first moment, so that no run regards it as one that
/// existed before.
///
/// If something exists at the path meanwhile, opens that instead.
fn create_marked(parent: &Root, name: &OsStr) -> Result<Root, Error> {
    let temporary = parent.make_temporary_directory(name)?;
    let renamed = mark_and_rename(parent, &temporary.name, name);
    removal::remove(parent, &temporary.name, Threads::One)?;
    renamed?;
    parent.child(name)?.ok_or_else(|| io("open", &parent.path.join(name))(Errno::NOENT))
}

/// Does nothing if the name exists: a rename would replace an empty directory.
fn mark_and_rename(parent: &Root, temporary: &OsStr, name: &OsStr) -> Result<(), Error> {
    parent.create_child(temporary)?.create_new(Path::new(FILE), MADE)?;
    if parent.file_type(name).is_some() {
        return Ok(());
    }
    crashpoint!("hidden.marked");
    let renamed = failpoint!("hidden.rename")
        .and_then(|()| rustix::fs::renameat(&parent.fd, temporary, &parent.fd, name));
    match renamed {
        // The obstacle may no longer exist: the caller that opens the directory detects this, and tries
        // again.
        Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(()),
        Err(error) if parent.file_type(name).is_none() => Err(io("create", &parent.path.join(name))(error)),
        Err(_) => Ok(()),
    }
}

/// Removes a directory as [`Root::remove_hidden`] describes.
pub(super) fn remove(root: &Root, relative: &Path) -> Result<(), Error> {
    let _alone = alone(root);
    let names = root.names_of(relative)?;
    // Every existing directory from the root down, each with its marker; the marker of the root itself is
    // ignored.
    let mut chain = vec![(root.again()?, None)];
    for name in &names {
        let Some(child) = chain[chain.len() - 1].0.child(name)? else { break };
        let mark = mark(&child)?;
        chain.push((child, mark));
    }
    while let Some((directory, mark)) = chain.pop() {
        let Some(((parent, _), name)) =
            chain.last().zip(chain.len().checked_sub(1).and_then(|above| names.get(above)))
        else {
            break;
        };
        let is_removed = match mark {
            Some(mark) => remove_mark(parent, name, &directory, mark)?,
            None if chain.iter().all(|(_, mark)| mark.is_none()) => false,
            None => parent.remove_directory(Path::new(name))? || parent.file_type(name).is_none(),
        };
        if !is_removed {
            break;
        }
    }
    Ok(())
}

/// Removes a marker that is the only file in its directory, and the directory if seedbed created it.
///
/// Returns whether the directory no longer exists.
fn remove_mark(parent: &Root, name: &OsStr, directory: &Root, mark: Mark) -> Result<bool, Error> {
    if !directory.names()?.iter().eq([FILE]) {
        return Ok(false);
    }
    if mark == Mark::Added {
        directory.remove_file(Path::new(FILE))?;
        return Ok(false);
    }
    // The marker is moved, not removed: after a kill, the moved file still records which directory it marked.
    let file = OsStr::new(FILE);
    let Some((marker, _)) = directory.regular_file(file, OFlags::RDONLY)? else { return Ok(false) };
    temporary::hold(&marker);
    let hidden_name = temporary::temporary_name(name);
    let unmarked = failpoint!("hidden.unmark")
        .and_then(|()| rustix::fs::renameat(&directory.fd, file, &parent.fd, &hidden_name));
    match unmarked {
        // Another seedbed is removing the same directory.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(io("remove", &directory.path.join(FILE))(error)),
    }
    crashpoint!("hidden.unmarked");
    let removed = remove_unmarked(parent, name, directory, &hidden_name);
    parent.forget(&hidden_name);
    removed
}

/// Removes a directory whose marker was moved away, or restores the marker.
fn remove_unmarked(
    parent: &Root,
    name: &OsStr,
    directory: &Root,
    hidden_name: &OsStr,
) -> Result<bool, Error> {
    let removed = parent.remove_directory(Path::new(name));
    if matches!(removed, Ok(true)) || parent.file_type(name).is_none() {
        return Ok(true);
    }
    // A link, because it writes nothing: the disk may be full.
    match rustix::fs::linkat(&parent.fd, hidden_name, &directory.fd, FILE, AtFlags::empty()) {
        Ok(()) => return removed,
        Err(Errno::EXIST | Errno::NOENT) => {}
        Err(error) => return Err(io("create", &directory.path.join(FILE))(error)),
    }
    match restore_mark(directory) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => removed,
    }
}

/// Returns whether a file is the marker of a directory that seedbed created or hides.
pub(crate) fn is_mark(path: &Path) -> bool {
    let marked = |directory: &Path| mark(&Root::open(directory).ok()?).ok()?;
    path.file_name() == Some(OsStr::new(FILE)) && path.parent().and_then(marked).is_some()
}

/// Finishes a [`remove`] that was killed, if `taken` is the marker of `name` that it had moved.
pub(super) fn finish(parent: &Root, hidden_name: &OsStr, name: &OsStr) -> Result<(), Error> {
    let marked = parent.read(Path::new(hidden_name), MADE.len()).ok().flatten();
    if marked.as_deref() != Some(MADE) || parent.file_type(name) != Some(FileType::Directory) {
        return Ok(());
    }
    let Some(directory) = parent.child(name)? else { return Ok(()) };
    if directory.file_type(OsStr::new(FILE)).is_none() {
        remove_unmarked(parent, name, &directory, hidden_name)?;
    }
    Ok(())
}

/// Restores the marker, because another seedbed, despite the lock, began to use the directory meanwhile.
///
/// That seedbed may have regarded the directory as one that existed before.
fn restore_mark(directory: &Root) -> Result<(), Error> {
    let file = Path::new(FILE);
    if !directory.create_new(file, MADE)? && mark(directory)? == Some(Mark::Added) {
        directory.replace(file, MADE)?;
    }
    Ok(())
}

fn mark(directory: &Root) -> Result<Option<Mark>, Error> {
    match directory.read(Path::new(FILE), MADE.len().max(ADDED.len())) {
        Ok(Some(bytes)) if bytes == MADE => Ok(Some(Mark::Made)),
        Ok(Some(bytes)) if bytes == ADDED => Ok(Some(Mark::Added)),
        Ok(_) | Err(Error::TooLarge { .. } | Error::Irregular { .. } | Error::Link { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
