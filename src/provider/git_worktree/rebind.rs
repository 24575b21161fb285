//! Makes worktrees of a repository that was moved or copied point to where they are now.
//!
//! The admin directory names the worktree by an absolute path. The worktree's `.git` file names the admin directory by an
//! absolute or a relative path. Every write is one rename, and correct pointers are left alone. So a killed run is simply
//! repeated.

#![expect(clippy::disallowed_methods, reason = "compares directories, and links to the workspace again")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use super::ownership::Mark;
use super::paths::{Content, WorktreePaths, canonical, common_of, io, read};
use super::{Checkout, Worktree, aside, files, gc_roots, overlay, repository, reserved_names, untracked};
use crate::host::absolute;
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::Root;
use crate::provider::{Container, Error, Location, Task};

/// Returns whether a worktree with the task's ownership marker lies at its planned path in the task's workspace, even
/// if it was made elsewhere.
///
/// A path or a repository that other workspaces share is no evidence.
pub(super) fn has_ownership_marker(task: &Task<'_>, worktree: &Worktree) -> Result<bool, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let [is_worktree_here, is_repository_here] =
        [&paths.worktree, paths.common.path()].map(|path| path.starts_with(&paths.workspace));
    if !(is_worktree_here || is_repository_here) || !is_marked(&paths, task.owner)? {
        return Ok(false);
    }
    // If a release was interrupted, a worktree that is aside has lost its directory.
    Ok(task.location == Location::Aside && is_repository_here || dot_git(&paths)?.is_some())
}

/// Returns the common git directory of the worktree's repository.
pub(super) fn repository(task: &Task<'_>, worktree: &Worktree) -> Result<Container, Error> {
    let common = common_of(task.workspace, worktree)?;
    Container::read(common.path()).map_err(io("inspect", common.path()))
}

/// Returns whether the repository has an admin directory of the worktree with the task's ownership marker.
pub(super) fn is_in_repository(task: &Task<'_>, worktree: &Worktree) -> Result<bool, Error> {
    is_marked(&WorktreePaths::new(task, worktree)?, task.owner)
}

/// Rewrites the pointers of an admin directory with the task's ownership marker and of its worktree, and the worktree's
/// links to the workspace. If a release was interrupted, only the admin directory may exist. If a move aside was
/// interrupted, the two lie at different locations.
pub(super) fn rebind(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let elsewhere = match task.location {
        Location::Home => WorktreePaths::at(Location::Aside, task, worktree)?,
        Location::Aside => WorktreePaths::at(Location::Home, task, worktree)?,
    };
    let admin = if is_marked(&paths, task.owner)? {
        &paths
    } else if paths.directory()?.is_some() && is_marked(&elsewhere, task.owner)? {
        &elsewhere
    } else {
        return Ok(());
    };
    let dot_git_before = dot_git(&paths)?;
    let was = dot_git_before.as_deref().map(|named| absolute(&paths.home, named));
    let gitdir = admin.read_admin_file("gitdir")?;
    let old = recorded(&gitdir);
    if let Some(old) = old.as_deref().filter(|old| !is_same(old, &paths.home)) {
        // Another worktree of this admin directory exists: the user has moved or copied it there.
        if old.join(".git").symlink_metadata().is_ok() {
            return Err(Error::Refused(format!(
                "{} records the worktree {}, which exists: move it to {}, or move one of the two away",
                admin.admin_directory_path().display(),
                old.display(),
                paths.home.display()
            )));
        }
    }
    let points_elsewhere = was.as_ref().is_some_and(|was| *was != paths.home_admin_directory_path());
    if points_elsewhere || gitdir != Content::Bytes(paths.gitdir_line()) {
        overlay::unmount(worktree, &paths)?;
        crashpoint!("rebind.unmounted");
        overlay::rebind(task, worktree, &paths)?;
        let from = old.as_deref().and_then(|old| workspace_of(old, &paths));
        if was.is_some() {
            paths.open()?.replace(Path::new(".git"), &paths.dot_git_line())?;
            crashpoint!("rebind.worktree");
            if let Some(from) = &from {
                relink(worktree, &paths, from)?;
            }
        }
        // A relative path begins where the worktree was.
        let was = dot_git_before.zip(old.as_deref()).map(|(named, old)| absolute(old, &named)).or(was);
        let common = was.as_deref().and_then(|was| Some(was.parent()?.parent()?.to_owned()));
        let within = paths.common.path().strip_prefix(&paths.workspace).ok();
        if let Some(common) = common.or_else(|| Some(from?.join(within?))) {
            repository::rebind(task.host, &paths, &common)?;
        }
        // Last: until then the old location is known.
        admin.common.replace(&admin.admin_directory.join("gitdir"), &admin.gitdir_line())?;
        crashpoint!("rebind.admin");
    }
    let is_home = task.location == Location::Home && paths.directory()?.is_some();
    match overlay::fault(task, worktree, &paths)? {
        // Recovery mounts a worktree that is aside, because its unsaved work has to be inspected.
        Some(overlay::MountDamage::Unmounted(_)) if is_home => overlay::repair(task, worktree, &paths)?,
        Some(_) => return Ok(()),
        None => {}
    }
    // Files of the session may name the old path.
    if is_home { files::reconcile(task, worktree).map(drop) } else { Ok(()) }
}

/// Gives a worktree of a copied repository, and its admin directory, to the task's swarm instead of the swarm of
/// `original`, the same task in the original workspace. A worktree that a run had moved aside is first moved home. Returns
/// whether the worktree exists, with its repository, in the copy.
pub(super) fn adopt(task: &Task<'_>, worktree: &Worktree, original: &Task<'_>) -> Result<bool, Error> {
    if !is_repository_copied(task, worktree, original)? {
        return Ok(false);
    }
    let from = original.owner;
    let original = Task { owner: from, ..*task };
    bring_home(&original, worktree)?;
    let paths = WorktreePaths::new(task, worktree)?;
    let is_ours = is_marked(&paths, task.owner)?;
    if !(is_ours || is_marked(&paths, from)?) || dot_git(&paths)?.is_none() || is_originals(&paths, &paths)? {
        return Ok(false);
    }
    // The copy may have been made after the stand-in was created, and before the worktree was moved aside.
    gc_roots::remove(&original, worktree, &paths.common)?;
    let mark = format!("{}\n", reserved_names::mark(task));
    if let Some(from) = recorded(&paths.read_admin_file("gitdir")?).and_then(|old| workspace_of(&old, &paths))
    {
        relink(worktree, &paths, &from)?;
    }
    paths.open()?.replace(Path::new(".git"), &paths.dot_git_line())?;
    crashpoint!("adopt.worktree");
    paths.common.replace(&paths.admin_directory.join("gitdir"), &paths.gitdir_line())?;
    crashpoint!("adopt.admin");
    paths.common.replace(&paths.admin_directory.join("locked"), mark.as_bytes())?;
    // Files of the session may name the original, as does the setting that hides them.
    if overlay::fault(task, worktree, &paths)?.is_none() {
        files::reconcile(task, worktree)?;
    }
    // Last: from the old marker a repeated run finds that there is work left.
    paths.common.replace(&paths.admin_directory.join(reserved_names::MARK), mark.as_bytes())?;
    Ok(true)
}

/// Returns whether the worktree's repository was copied along with the workspace. If it was not, the path of another
/// repository leads to nothing, or to the repository that the original's worktree has too.
fn is_repository_copied(task: &Task<'_>, worktree: &Worktree, original: &Task<'_>) -> Result<bool, Error> {
    let root = absolute(&canonical(task.workspace)?, &worktree.repo_root);
    if !root.try_exists().map_err(io("inspect", &root))? {
        return Ok(false);
    }
    let own = common_of(task.workspace, worktree)?;
    Ok(!common_of(original.workspace, worktree).is_ok_and(|theirs| is_same(own.path(), theirs.path())))
}

/// Moves a worktree of a copied repository home that a run of the original had moved aside when the copy was made. The
/// task's owner is that of the original.
fn bring_home(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let [home, aside] =
        [Location::Home, Location::Aside].map(|location| WorktreePaths::at(location, task, worktree));
    let (home, aside) = (home?, aside?);
    let is_marked_aside = is_marked(&aside, task.owner)?;
    if aside.directory()?.is_none() || !(is_marked_aside || is_marked(&home, task.owner)?) {
        return Ok(());
    }
    if is_originals(&aside, if is_marked_aside { &aside } else { &home })? {
        return Ok(());
    }
    if is_marked_aside
        && (home.directory()?.is_some() || home.common.directory(&home.admin_directory)?.is_some())
    {
        let both = |paths: &WorktreePaths| {
            format!("{} and {}", paths.worktree.display(), paths.admin_directory_path().display())
        };
        return Err(Error::Refused(format!(
            "a run was interrupted before the copy was made, and both the worktree that it replaced and the new one are \
             here: move {} out of the repository to keep the old one, or {} to keep the new one",
            both(&home),
            both(&aside)
        )));
    }
    // A mount is copied as the files that it shows; its layers are the original's.
    aside::bring_back(task, &Worktree { checkout: Checkout::Git, ..worktree.clone() })
}

/// Returns whether the worktree was not copied along, so that a path out of the workspace leads to the original's
/// worktree. `admin` is the location of its admin directory.
fn is_originals(worktree: &WorktreePaths, admin: &WorktreePaths) -> Result<bool, Error> {
    let named = dot_git(worktree)?.map(|named| absolute(&worktree.home, &named));
    let is_rebound = named.is_some_and(|entry| entry == worktree.home_admin_directory_path());
    let recorded = recorded(&admin.read_admin_file("gitdir")?);
    Ok(!is_rebound && recorded.is_some_and(|recorded| is_same(&recorded, &worktree.home)))
}

/// Returns whether the admin directory carries the ownership marker of `owner`. A marker that cannot be read is an
/// error: else the worktree would have no owner.
fn is_marked(paths: &WorktreePaths, owner: &str) -> Result<bool, Error> {
    if paths.common.directory(&paths.admin_directory)?.is_none() {
        return Ok(false);
    }
    let Content::Bytes(mark) = paths.read_admin_file(reserved_names::MARK)? else { return Ok(false) };
    Ok(Mark::parse(&mark).is_some_and(|mark| mark.owner == owner))
}

/// Returns the path in the worktree's `.git` file, absolute or relative to the worktree, if it ends like that of the
/// planned admin directory. The repository may be any.
fn dot_git(paths: &WorktreePaths) -> Result<Option<PathBuf>, Error> {
    let Some(directory) = paths.directory()? else { return Ok(None) };
    let Content::Bytes(bytes) = read(&directory, Path::new(".git"))? else { return Ok(None) };
    let Some(path) = bytes.strip_prefix(b"gitdir: ") else { return Ok(None) };
    let path = PathBuf::from(OsStr::from_bytes(path.trim_ascii_end()));
    Ok(path.ends_with(paths.home_admin_directory()).then_some(path))
}

/// Returns the worktree that an admin directory's `gitdir` names.
fn recorded(gitdir: &Content) -> Option<PathBuf> {
    let Content::Bytes(bytes) = gitdir else { return None };
    Path::new(OsStr::from_bytes(bytes.trim_ascii_end())).parent().map(Path::to_owned)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    one == other || matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

/// Returns the old workspace, given the old path of the worktree.
fn workspace_of(old: &Path, paths: &WorktreePaths) -> Option<PathBuf> {
    let below = paths.home.strip_prefix(&paths.workspace).ok()?;
    old.ends_with(below).then(|| old.ancestors().nth(below.components().count()).map(Path::to_owned))?
}

/// Replaces links that `link` made to the old workspace by links to this one.
fn relink(worktree: &Worktree, paths: &WorktreePaths, from: &Path) -> Result<(), Error> {
    if worktree.link.is_empty() {
        return Ok(());
    }
    let from = match &worktree.repository {
        Some(_) => absolute(from, &worktree.repo_root),
        None => from.to_owned(),
    };
    let directory = paths.open()?;
    let mut links = BTreeSet::new();
    find_links(&directory, Path::new(""), &mut links)?;
    for path in links {
        let full = paths.worktree.join(&path);
        let Ok(target) = fs::read_link(&full) else { continue };
        let Some(to) = target.strip_prefix(&from).ok().map(|below| paths.source.join(below)) else {
            continue;
        };
        if !untracked::is_linked(worktree, paths, &path, &to) {
            continue;
        }
        let aside = path.with_file_name(format!(".seedbed-link-{}", worktree.admin_directory));
        let full_aside = paths.worktree.join(&aside);
        match fs::remove_file(&full_aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io("remove", &full_aside)(error));
            }
            _ => {}
        }
        let linked = failpoint!("rebind.link").map_err(std::io::Error::from);
        linked.and_then(|()| symlink(&to, &full_aside)).map_err(io("link", &full))?;
        directory.rename(&aside, &path)?;
        crashpoint!("rebind.linked");
    }
    Ok(())
}

/// Finds the links in a directory, without following any. `.git` and worktrees below are skipped.
fn find_links(top: &Root, below: &Path, links: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let at = if below == Path::new("") { Path::new(".") } else { below };
    let Some(directory) = top.directory(at)? else { return Ok(()) };
    for name in directory.names()? {
        let path = below.join(&name);
        match directory.file_type(&name) {
            Some(rustix::fs::FileType::Symlink) => drop(links.insert(path)),
            Some(rustix::fs::FileType::Directory) if name != ".git" && name != untracked::HIDDEN => {
                find_links(top, &path, links)?;
            }
            _ => {}
        }
    }
    Ok(())
}
