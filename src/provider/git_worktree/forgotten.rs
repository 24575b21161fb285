//! Gives up a worktree whose repository does not exist any more or cannot be used. Only its directory and the layers of
//! its overlay are reached.
//!
//! A run that was interrupted may have moved the directory aside, so that both locations are searched.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::aside::both_exist;
use super::paths::{Content, DirectoryPaths, canonical, move_out, read, remove_out_of_sight};
use super::{Worktree, overlay, repository, reserved_names};
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::mounts;
use crate::provider::directory_scan::{DirectoryScan, mount_blocker, stuck};
use crate::provider::{Error, Location, Task, UnsavedWork};

const LOCATIONS: [Location; 2] = [Location::Aside, Location::Home];

/// Returns the unsaved work that [`release`] would discard. Without the repository, every file of the worktree may be
/// work.
pub(super) fn unsaved_work(task: &Task<'_>, worktree: &Worktree) -> Result<UnsavedWork, Error> {
    let mut unsaved_work = UnsavedWork { blockers: blockers(task, worktree)?, ..UnsavedWork::default() };
    for location in LOCATIONS {
        let task = &Task { location, ..*task };
        let paths = paths(task, worktree)?;
        let own = paths.as_ref().map(|paths| paths.worktree.as_path());
        unsaved_work.beyond_rescue.extend(overlay::unsaved_work_outside(task, worktree, own)?);
        let Some(paths) = paths else { continue };
        let Some(directory) = paths.directory()?.filter(|_| unsaved_work.blockers.is_empty()) else {
            continue;
        };
        // The files that the session wrote into a mount are in the layer.
        if !is_own_mount(worktree, &paths)? && !overlay::is_bare(directory.path(), worktree)? {
            unsaved_work.unknown.push(format!(
                "{} has files, and without its repository it is unknown which of them are saved: copy those that you need, \
                 then discard the rest with `--discard`, or move the directory away",
                paths.home.display()
            ));
        }
    }
    Ok(unsaved_work)
}

/// Returns the reasons why the directory cannot be removed even if its files are discarded.
pub(super) fn blockers(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<String>, Error> {
    let mut blockers = Vec::new();
    let table = task.shared_result("mounts", || Ok(mounts::table()?))?;
    for location in LOCATIONS {
        let Some(paths) = paths(&Task { location, ..*task }, worktree)? else { continue };
        let Some(directory) = paths.directory()? else { continue };
        blockers.extend(foreign(&paths, &directory, worktree)?);
        let mut places = BTreeSet::new();
        for mount in mounts::at_or_below(&table, &paths.worktree) {
            let is_overlay = mount.file_system == mounts::OVERLAY && mount.source == mounts::SOURCE;
            if Path::new(&mount.place) == paths.worktree {
                if !(is_overlay && overlay::is_wanted(worktree)) {
                    blockers.push(mount_blocker(&mount, &mount.place));
                }
            } else {
                // A child's overlay is released before.
                if !is_overlay {
                    blockers.push(mount_blocker(&mount, &mount.place));
                }
                places.insert(mount.place.into());
            }
        }
        blockers.extend(stuck(&paths.home, &DirectoryScan::read(&paths.worktree, &places)));
    }
    Ok(blockers)
}

/// Moves the directory aside. The layers of an overlay remain, and the overlay is unmounted.
pub(super) fn set_aside(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let Some((home, aside)) = sites(task, worktree)? else { return Ok(()) };
    require_own(&home, worktree)?;
    unmount(worktree, &home)?;
    move_site(&home, &aside).map(drop)
}

/// Moves the directory back. An overlay remains unmounted, because a mount needs the repository.
pub(super) fn bring_back(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let Some((home, aside)) = sites(task, worktree)? else { return Ok(()) };
    if aside.directory()?.is_some() && home.directory()?.is_some() {
        return Err(Error::Refused(both_exist(&home.worktree, &aside.worktree)));
    }
    move_site(&aside, &home)?;
    Ok(aside.base.remove_hidden(&aside.parent)?)
}

/// Removes the directory of the worktree, its layers, and the record of its repository. Idempotent.
pub(super) fn release(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    for location in LOCATIONS {
        let task = &Task { location, ..*task };
        if let Some(paths) = paths(task, worktree)? {
            remove_directory(task, worktree, &paths)?;
        }
        crashpoint!("forget.directory-gone");
        overlay::remove(task, worktree)?;
    }
    crashpoint!("forget.layers-gone");
    repository::forget(task, worktree)
}

/// Returns the parts of the repository that are given up, one line each.
pub(super) fn given_up(worktree: &Worktree) -> Vec<String> {
    let (entry, root) = (&worktree.admin_directory, worktree.repo_root.display());
    let branch = worktree.branch.as_ref().map(|branch| format!("branch {branch} of {root} is given up"));
    let admin = format!(
        "worktrees/{entry} of {root} is given up, with its HEAD, index and reflogs; should the repository come back, \
         `seedbed doctor` names it"
    );
    std::iter::once(admin).chain(branch).collect()
}

/// Finds the directory of the worktree; `None` if the directory that contains its root directory does not exist.
fn paths(task: &Task<'_>, worktree: &Worktree) -> Result<Option<DirectoryPaths>, Error> {
    // A deleted workspace may have worktrees outside.
    let workspace = canonical(task.workspace).unwrap_or_else(|_| task.workspace.to_owned());
    match DirectoryPaths::at(task.location, task, worktree, &workspace) {
        Err(Error::File(files::Error::Io { source, .. })) if source.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn sites(task: &Task<'_>, worktree: &Worktree) -> Result<Option<(DirectoryPaths, DirectoryPaths)>, Error> {
    let [home, aside] =
        [Location::Home, Location::Aside].map(|location| paths(&Task { location, ..*task }, worktree));
    Ok(home?.zip(aside?))
}

fn move_site(from: &DirectoryPaths, to: &DirectoryPaths) -> Result<bool, Error> {
    let from = (&from.base, from.parent.join(&from.name));
    move_out(from, &to.base, &to.parent, &to.name)
}

fn remove_directory(task: &Task<'_>, worktree: &Worktree, paths: &DirectoryPaths) -> Result<(), Error> {
    require_own(paths, worktree)?;
    unmount(worktree, paths)?;
    let Some(around) = paths.base.directory(&paths.around)? else { return Ok(()) };
    around.remove_all(&reserved_names::scratch(task, worktree))?;
    let below = paths.parent.strip_prefix(&paths.around).unwrap_or(Path::new("")).join(&paths.name);
    remove_out_of_sight(&around, &below, &reserved_names::trash(task, worktree))?;
    Ok(paths.base.remove_hidden(&paths.around)?)
}

/// Refuses a directory that is not the worktree's. Does not keep it open, because it may be a mount.
fn require_own(paths: &DirectoryPaths, worktree: &Worktree) -> Result<(), Error> {
    match paths.directory()?.map(|directory| foreign(paths, &directory, worktree)).transpose()?.flatten() {
        Some(why) => Err(Error::Refused(why)),
        None => Ok(()),
    }
}

fn unmount(worktree: &Worktree, paths: &DirectoryPaths) -> Result<(), Error> {
    if is_own_mount(worktree, paths)?
        && let Some(parent) = paths.base.directory(&paths.parent)?
    {
        mounts::unmount(&parent, &paths.name).map_err(|error| Error::Refused(error.to_string()))?;
    }
    Ok(())
}

/// Returns whether the overlay of the worktree is mounted at its directory.
fn is_own_mount(worktree: &Worktree, paths: &DirectoryPaths) -> Result<bool, Error> {
    if !overlay::is_wanted(worktree) {
        return Ok(false);
    }
    let parent = paths.base.directory(&paths.parent)?;
    Ok(parent.map(|parent| parent.is_mount_point(&paths.name)).transpose()?.unwrap_or(false))
}

/// Returns the reason why the directory is not the worktree's; `None` if it is. A directory is the worktree's if its
/// `.git` names the planned admin directory, or if it has no file.
fn foreign(paths: &DirectoryPaths, directory: &Root, worktree: &Worktree) -> Result<Option<String>, Error> {
    let entry = Path::new("worktrees").join(&worktree.admin_directory);
    let is_own = match read(directory, Path::new(".git"))? {
        Content::Bytes(bytes) => bytes.strip_prefix(b"gitdir: ").is_some_and(|path| {
            Path::new(&*String::from_utf8_lossy(path.trim_ascii_end())).ends_with(&entry)
        }),
        Content::Missing | Content::Empty => overlay::is_bare(directory.path(), worktree)?,
        Content::Irregular => false,
    };
    Ok((!is_own).then(|| {
        let path = paths.home.display();
        format!("{path} is not this swarm's: its .git does not name {}; move it away", entry.display())
    }))
}
