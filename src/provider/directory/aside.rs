//! Moves a directory aside, back, and to another swarm.
//!
//! Aside, the directory lies beside its home under a hidden name, and so does its record. The record is moved aside
//! after the directory, and back before it.

use super::Directory;
use super::paths::{self, DirectoryPaths};
use super::record;
use crate::host::failpoint::crashpoint;
use crate::provider::{Error, Location, Task};

/// Moves the directory aside.
pub(super) fn set_aside(task: &Task<'_>, directory: &Directory) -> Result<(), Error> {
    let (home, aside) = both_paths(task, directory)?;
    record::owned(task, &home)?;
    home.refuse_others(directory)?;
    if home.base.directory(&home.parent)?.is_none() {
        return Ok(());
    }
    if !aside.exists()? {
        home.base.rename(&home.below(), &aside.below())?;
        crashpoint!("directory.aside");
    }
    if !home.exists()? {
        home.base.rename(&home.record(), &aside.record())?;
        crashpoint!("directory.record-aside");
    }
    Ok(())
}

/// Moves the directory back.
pub(super) fn bring_back(task: &Task<'_>, directory: &Directory) -> Result<(), Error> {
    let (home, aside) = both_paths(task, directory)?;
    if home.base.directory(&home.parent)?.is_none() {
        return Ok(());
    }
    if aside.exists()? && home.exists()? {
        let (there, kept) = (home.path(), aside.path());
        let (there, kept) = (there.display(), kept.display());
        return Err(Error::Refused(format!(
            "{there} exists again, and the directory that belongs there is kept as {kept}: move {there} away"
        )));
    }
    home.base.rename(&aside.record(), &home.record())?;
    crashpoint!("directory.record-back");
    home.base.rename(&aside.below(), &home.below())?;
    crashpoint!("directory.back");
    Ok(())
}

/// Returns whether the directory at the task's location carries the task's ownership marker. A path outside of the
/// workspace, which other workspaces share, is no evidence.
pub(super) fn has_ownership_marker(task: &Task<'_>, directory: &Directory) -> Result<bool, Error> {
    if !paths::is_within(task, directory) {
        return Ok(false);
    }
    let paths = DirectoryPaths::new(task, directory)?;
    // If a release was interrupted, a directory that is aside may not exist any more.
    let is_marked =
        is_of(&paths, task.owner)? && (task.location == Location::Aside || paths.directory()?.is_some());
    Ok(is_marked || is_between(task, directory)?)
}

/// Gives the directory of a copied workspace to the task's swarm instead of the swarm `from`. Returns whether the
/// directory exists. Its files differ from the recorded ones, and are unsaved work.
pub(super) fn adopt(task: &Task<'_>, directory: &Directory, from: &str) -> Result<bool, Error> {
    if !paths::is_within(task, directory) {
        return Ok(false);
    }
    let original = Task { owner: from, ..*task };
    if is_of(&DirectoryPaths::at(Location::Aside, &original, directory)?, from)?
        || is_between(&original, directory)?
    {
        bring_back(&original, directory)?;
    }
    let paths = DirectoryPaths::new(task, directory)?;
    if paths.directory()?.is_none() || !(is_of(&paths, from)? || is_of(&paths, task.owner)?) {
        return Ok(false);
    }
    record::set_owner(task, &paths)?;
    crashpoint!("directory.adopted");
    Ok(true)
}

/// Returns whether a move of the task's directory was interrupted: the directory is aside, and its record is at home.
fn is_between(task: &Task<'_>, directory: &Directory) -> Result<bool, Error> {
    let (home, aside) = both_paths(task, directory)?;
    Ok(aside.exists()? && is_of(&home, task.owner)?)
}

fn is_of(paths: &DirectoryPaths, owner: &str) -> Result<bool, Error> {
    Ok(record::read(paths)?.is_some_and(|record| record.is_of(owner)))
}

fn both_paths(task: &Task<'_>, directory: &Directory) -> Result<(DirectoryPaths, DirectoryPaths), Error> {
    Ok((
        DirectoryPaths::at(Location::Home, task, directory)?,
        DirectoryPaths::at(Location::Aside, task, directory)?,
    ))
}
