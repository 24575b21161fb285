//! Directories for things of seedbed's in somebody's repository: git does not see them, and they leave no trace.
//!
//! What hides a directory also says who made it: a `.gitignore` with exactly one of two texts. A file that somebody
//! has changed is theirs.

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

/// Stands in a directory that seedbed made, for itself and everything below it.
const MADE: &[u8] = b"# seedbed made this directory and removes it with the last session\n*\n";

/// Stands in a directory that was there before.
const ADDED: &[u8] = b"# seedbed added this file and removes it with the last session\n*\n";

const FILE: &str = ".gitignore";

/// How often making is begun again because another seedbed removes the same at the same moment: one that [`alone`] does
/// not keep off. Trying again would not do without it: what is made and removed in turns is left standing now and then.
const TRIES: u32 = 100;

/// How long one waits to be alone below a root, and how often one looks. Others are done within milliseconds; whoever
/// holds the lock for longer is no seedbed, and not to be waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// A directory's mark.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Made,
    Added,
}

/// See [`Root::create_hidden`].
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

/// Keeps every other seedbed from making and removing directories below `root` until it is dropped: what one of them
/// does is decided by several directories, which do not change in one step.
///
/// `None` where there are no locks, or somebody else holds this one; and who reaches the same directories from another
/// root, as of two workspaces with one `root-directory`, has another lock. What then comes in between is tried again or
/// left standing, and nothing is lost.
fn alone(root: &Root) -> Option<OwnedFd> {
    // Opened anew: a lock is shared by all that were cloned from one opening.
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
        // A mark hides nothing from the git of a repository below it, such as a worktree.
        hidden &= child.file_type(OsStr::new(".git")).is_none();
        hidden |= mark(&child)?.is_some();
        directory = child;
    }
    // Where somebody else's things are already, a mark would hide those too.
    if !hidden && directory.names()?.is_empty() {
        directory.create_new(Path::new(FILE), ADDED)?;
    }
    Ok(directory)
}

/// Makes a directory that has its mark from the first moment, so that nobody takes it for one that was there before;
/// where something stands there by now, opens that.
fn create_marked(parent: &Root, name: &OsStr) -> Result<Root, Error> {
    let temporary = parent.make_temporary_directory(name)?;
    let renamed = mark_and_rename(parent, &temporary.name, name);
    removal::remove(parent, &temporary.name, Threads::One)?;
    renamed?;
    parent.child(name)?.ok_or_else(|| io("open", &parent.path.join(name))(Errno::NOENT))
}

/// Does nothing where something has that name: a rename would replace a directory that is empty.
fn mark_and_rename(parent: &Root, temporary: &OsStr, name: &OsStr) -> Result<(), Error> {
    parent.create_child(temporary)?.create_new(Path::new(FILE), MADE)?;
    if parent.file_type(name).is_some() {
        return Ok(());
    }
    crashpoint!("hidden.marked");
    let renamed = failpoint!("hidden.rename")
        .and_then(|()| rustix::fs::renameat(&parent.fd, temporary, &parent.fd, name));
    match renamed {
        // What stood in the way may be gone by now: whoever opens it finds out, and tries again.
        Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(()),
        Err(error) if parent.file_type(name).is_none() => Err(io("create", &parent.path.join(name))(error)),
        Err(_) => Ok(()),
    }
}

/// See [`Root::remove_hidden`].
pub(super) fn remove(root: &Root, relative: &Path) -> Result<(), Error> {
    let _alone = alone(root);
    let names = root.names_of(relative)?;
    // Every directory from the root down, as far as they exist, each with its mark; the root's own counts for nothing.
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
        let gone = match mark {
            Some(mark) => remove_mark(parent, name, &directory, mark)?,
            None if chain.iter().all(|(_, mark)| mark.is_none()) => false,
            None => parent.remove_directory(Path::new(name))? || parent.file_type(name).is_none(),
        };
        if !gone {
            break;
        }
    }
    Ok(())
}

/// Removes a mark that is the only thing in its directory, and the directory where seedbed made it; tells whether the
/// directory is gone.
fn remove_mark(parent: &Root, name: &OsStr, directory: &Root, mark: Mark) -> Result<bool, Error> {
    if !directory.names()?.iter().eq([FILE]) {
        return Ok(false);
    }
    if mark == Mark::Added {
        directory.remove_file(Path::new(FILE))?;
        return Ok(false);
    }
    // The mark is taken along, not removed: whoever is killed with it in hand leaves word of what it was the mark of.
    let file = OsStr::new(FILE);
    let Some((held, _)) = directory.regular_file(file, OFlags::RDONLY)? else { return Ok(false) };
    temporary::hold(&held);
    let taken = temporary::temporary_name(name);
    let unmarked = failpoint!("hidden.unmark")
        .and_then(|()| rustix::fs::renameat(&directory.fd, file, &parent.fd, &taken));
    match unmarked {
        // Another seedbed is removing the same.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(io("remove", &directory.path.join(FILE))(error)),
    }
    crashpoint!("hidden.unmarked");
    let removed = remove_unmarked(parent, name, directory, &taken);
    parent.forget(&taken);
    removed
}

/// Removes a directory whose mark was taken, or gives it back.
fn remove_unmarked(parent: &Root, name: &OsStr, directory: &Root, taken: &OsStr) -> Result<bool, Error> {
    let removed = parent.remove_directory(Path::new(name));
    if matches!(removed, Ok(true)) || parent.file_type(name).is_none() {
        return Ok(true);
    }
    // Without writing anything: the disk may be full.
    match rustix::fs::linkat(&parent.fd, taken, &directory.fd, FILE, AtFlags::empty()) {
        Ok(()) => return removed,
        Err(Errno::EXIST | Errno::NOENT) => {}
        Err(error) => return Err(io("create", &directory.path.join(FILE))(error)),
    }
    match restore_mark(directory) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => removed,
    }
}

/// Returns whether a file is the mark of a directory that seedbed made or hides.
pub(crate) fn is_mark(path: &Path) -> bool {
    let marked = |directory: &Path| mark(&Root::open(directory).ok()?).ok()?;
    path.file_name() == Some(OsStr::new(FILE)) && path.parent().and_then(marked).is_some()
}

/// Finishes what a killed [`remove`] had begun, where `taken` is the mark of `name` that it had in hand.
pub(super) fn finish(parent: &Root, taken: &OsStr, name: &OsStr) -> Result<(), Error> {
    let marked = parent.read(Path::new(taken), MADE.len()).ok().flatten();
    if marked.as_deref() != Some(MADE) || parent.file_type(name) != Some(FileType::Directory) {
        return Ok(());
    }
    let Some(directory) = parent.child(name)? else { return Ok(()) };
    if directory.file_type(OsStr::new(FILE)).is_none() {
        remove_unmarked(parent, name, &directory, taken)?;
    }
    Ok(())
}

/// Puts the mark back: another seedbed that was not kept off began to use the directory in between, and may have taken it
/// for one that was there before.
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
