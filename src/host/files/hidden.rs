//! Directories for things of seedbed's in somebody's repository: git does not see them, and they leave no trace.
//!
//! What hides a directory also says who made it: a `.gitignore` with exactly one of two texts. A file that somebody
//! has changed is theirs.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::{Error, Root, io, removal};

/// Stands in a directory that seedbed made, for itself and everything below it.
const MADE: &[u8] = b"# seedbed made this directory and removes it with the last session\n*\n";

/// Stands in a directory that was there before.
const ADDED: &[u8] = b"# seedbed added this file and removes it with the last session\n*\n";

const FILE: &str = ".gitignore";

/// How often making or removing is begun again because another seedbed does the opposite at the same moment.
const TRIES: u32 = 100;

/// A directory's mark.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Made,
    Added,
}

/// See [`Root::create_hidden`].
pub(super) fn create(root: &Root, relative: &Path) -> Result<Root, Error> {
    let mut tries = 1;
    loop {
        match create_once(root, relative) {
            Err(error) if error.is_not_found() && tries < TRIES => tries += 1,
            result => return result,
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
    let mode = Mode::from_raw_mode(0o777);
    let (temporary, ()) =
        parent.with_temporary(name, |temporary| rustix::fs::mkdirat(&parent.fd, temporary, mode))?;
    let renamed = mark_and_rename(parent, &temporary, name);
    removal::remove(parent, &temporary)?;
    renamed?;
    parent.child(name)?.ok_or_else(|| io("open", &parent.path.join(name))(Errno::NOENT))
}

/// Does nothing where something has that name: a rename would replace a directory that is empty.
fn mark_and_rename(parent: &Root, temporary: &OsStr, name: &OsStr) -> Result<(), Error> {
    parent.create_child(temporary)?.create_new(Path::new(FILE), MADE)?;
    if parent.file_type(name).is_some() {
        return Ok(());
    }
    match rustix::fs::renameat(&parent.fd, temporary, &parent.fd, name) {
        Err(error) if parent.file_type(name).is_none() => Err(io("create", &parent.path.join(name))(error)),
        _ => Ok(()),
    }
}

/// See [`Root::remove_hidden`].
pub(super) fn remove(root: &Root, relative: &Path) -> Result<(), Error> {
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
    directory.remove_file(Path::new(FILE))?;
    if mark == Mark::Added {
        return Ok(false);
    }
    if parent.remove_directory(Path::new(name))? || parent.file_type(name).is_none() {
        return Ok(true);
    }
    match restore_mark(directory) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(false),
    }
}

/// Puts the mark back: another seedbed began to use the directory in between, and may have taken it for one that was
/// there before.
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
