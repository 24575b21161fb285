//! Brings untracked files of the workspace, such as `.env`, into a worktree: copied, or as links to them.

#![expect(clippy::disallowed_methods, reason = "copies files with their modes")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher};
use rustix::fs::OFlags;

use super::Worktree;
use super::site::{Site, io as failed};
use crate::host::failpoint::failpoint;
use crate::host::files::copies::copy_large;
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// Where swarms keep their worktrees and locks, which are nobody's untracked files.
pub(super) const HIDDEN: &str = ".ai_ops";

/// Copies and links what the globs match among the untracked files of the workspace, ignored ones included.
///
/// A glob matches a file or a directory above it; a directory that the commit does not have is linked as a whole. What
/// the commit has is never written over. A glob without a wildcard that matches nothing is an error.
pub(super) fn bring(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    if worktree.copy.is_empty() && worktree.link.is_empty() {
        return Ok(());
    }
    let site = Site::of(task, worktree)?;
    let untracked = untracked(task, worktree, &site)?;
    for path in matched(&worktree.copy, &untracked)?.into_values().flatten() {
        copy(&site, path)?;
    }
    for (top, paths) in matched(&worktree.link, &untracked)? {
        if !link(&site, top)? {
            for path in paths {
                link(&site, path)?;
            }
        }
    }
    Ok(())
}

/// Tells whether an untracked file of the worktree, relative to it, is one that was brought and still is what the
/// workspace has.
pub(super) fn is_the_workspaces(worktree: &Worktree, site: &Site, path: &Path) -> bool {
    let Ok(own) = path.strip_prefix(within(site)) else { return false };
    let matches = |globs: &[String]| {
        globs
            .iter()
            .filter_map(|glob| matcher(glob).ok())
            .any(|glob| own.ancestors().any(|path| glob.is_match(path)))
    };
    let (here, there) = (site.worktree.join(path), site.workspace.join(own));
    if fs::read_link(&here).is_ok_and(|target| target == there || Some(target) == fs::read_link(&there).ok())
    {
        return matches(&worktree.link) || matches(&worktree.copy);
    }
    matches(&worktree.copy) && is_same(&here, &there).unwrap_or(false)
}

/// Returns whether a path of the worktree is one where a link to `target` in the workspace belongs.
pub(super) fn is_linked(worktree: &Worktree, site: &Site, path: &Path, target: &Path) -> bool {
    let Ok(own) = path.strip_prefix(within(site)) else { return false };
    let globs = worktree.link.iter().filter_map(|glob| matcher(glob).ok());
    let mut globs = globs.filter(|glob| own.ancestors().any(|path| glob.is_match(path)));
    target == site.workspace.join(own) && globs.next().is_some()
}

/// Paths relative to the workspace. What lies in other repositories and worktrees is not listed by git.
fn untracked(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<Vec<PathBuf>, Error> {
    let mut args = ["ls-files", "-z", "--others", "--"].map(String::from).to_vec();
    for glob in worktree.copy.iter().chain(&worktree.link) {
        matcher(glob)?;
        // What stands before the first wildcard saves git the walk through everything else.
        let literal: Vec<&str> = glob.split('/').take_while(|name| !has_wildcard(name)).collect();
        args.push(if literal.is_empty() {
            ".".to_owned()
        } else {
            format!(":(literal){}", literal.join("/"))
        });
    }
    let listed = Git::around(task.host, &site.workspace).holding(task.lock).run(args)?;
    Ok(listed
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty() && !path.ends_with(b"/"))
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .filter(|path| {
            !path.starts_with(HIDDEN) && path.components().all(|part| matches!(part, Component::Normal(_)))
        })
        .collect())
}

/// The paths that the globs match, under what of them was matched: the path itself, or the highest directory above.
fn matched<'p>(
    globs: &[String],
    paths: &'p [PathBuf],
) -> Result<BTreeMap<&'p Path, BTreeSet<&'p Path>>, Error> {
    let mut matched: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for glob in globs {
        let pattern = matcher(glob)?;
        let mut any = false;
        for path in paths {
            let highest =
                path.ancestors().filter(|part| *part != Path::new("") && pattern.is_match(part)).last();
            if let Some(top) = highest {
                matched.entry(top).or_default().insert(path);
                any = true;
            }
        }
        if !any && !has_wildcard(glob) {
            return Err(Error::Refused(format!("{glob:?} is no untracked file of the workspace")));
        }
    }
    Ok(matched)
}

fn matcher(glob: &str) -> Result<GlobMatcher, Error> {
    let literal = glob.trim_end_matches('/');
    GlobBuilder::new(literal)
        .literal_separator(true)
        .build()
        .map(|glob: Glob| glob.compile_matcher())
        .map_err(|error| Error::Refused(format!("{glob:?} is not a glob: {error}")))
}

fn has_wildcard(glob: &str) -> bool {
    glob.contains(['*', '?', '[', '{', '\\'])
}

/// Where the workspace lies in the repository, and so in every worktree; empty where it is the repository's top.
fn within(site: &Site) -> &Path {
    site.workspace.strip_prefix(&site.repo_root).unwrap_or(Path::new(""))
}

/// Makes the directory above a file of the worktree, following no link that the commit has, and says where the file
/// goes. Nobody else is at work in the worktree yet, so that the path stays what it was found to be.
fn destination(site: &Site, path: &Path) -> Result<PathBuf, Error> {
    let path = within(site).join(path);
    let directory = site.standing()?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        directory.create_directories(parent)?;
    }
    Ok(site.worktree.join(path))
}

fn copy(site: &Site, path: &Path) -> Result<(), Error> {
    let (from, to) = (site.workspace.join(path), destination(site, path)?);
    if fs::symlink_metadata(&from).map_err(failed("look at", &from))?.is_symlink() {
        let target = fs::read_link(&from).map_err(failed("read", &from))?;
        return unless_there(symlink(target, &to)).map(drop).map_err(failed("create", &to));
    }
    // Neither a link nor a FIFO that took the file's place since is opened.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let source =
        OpenOptions::new().read(true).custom_flags(flags).open(&from).map_err(failed("open", &from))?;
    let found = source.metadata().map_err(failed("look at", &from))?;
    if !found.is_file() {
        return Ok(());
    }
    let mode = found.permissions().mode() & 0o777;
    let created = failpoint!("bring.copy")
        .map_err(io::Error::from)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(mode).open(&to));
    let Some(mut file) = unless_there(created).map_err(failed("create", &to))? else { return Ok(()) };
    failpoint!("bring.write")
        .map_err(io::Error::from)
        .and_then(|()| copy_large(&source, &mut file, found.len()))
        .map_err(failed("write", &to))?;
    // The mode at creation is less the umask.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", &to))
}

/// `false` where something stands there already.
fn link(site: &Site, path: &Path) -> Result<bool, Error> {
    let to = destination(site, path)?;
    let linked = failpoint!("bring.link").map_err(io::Error::from);
    let linked = linked.and_then(|()| symlink(site.workspace.join(path), &to));
    let made = unless_there(linked).map_err(failed("link", &to))?;
    Ok(made.is_some())
}

fn unless_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (a, b) = (fs::symlink_metadata(one)?, fs::symlink_metadata(other)?);
    Ok(a.is_file() && b.is_file() && a.len() == b.len() && fs::read(one)? == fs::read(other)?)
}
