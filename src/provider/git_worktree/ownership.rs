//! Determines the owner of an admin directory and of a worktree. Only what this module finds to be ours is removed or
//! overwritten.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;

use super::paths::{Content, WorktreePaths, canonical, read};
use super::reserved_names::MARK;
use crate::host::absolute;
use crate::host::files::Root;
use crate::host::text::shell_quoted;
pub(crate) use crate::provider::OwnershipMarker as Mark;
use crate::provider::{Error, Task};

impl Mark {
    /// Reads the complete marker of an admin directory.
    pub(crate) fn read(admin: &Root) -> Option<Self> {
        let Ok(Content::Bytes(bytes)) = read(admin, Path::new(MARK)) else { return None };
        Self::parse(&bytes)
    }
}

/// Remedy for a directory whose `.git` is not the one that was made.
const PUT_BACK: &str = "move the directory away and run `seedbed apply`, which creates it again";

/// Owner of an admin directory or a worktree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nothing exists.
    Missing,
    /// This swarm.
    ThisSwarm,
    /// Another owner, with the reason for this conclusion.
    Other(String),
}

/// Determines the owner of the admin directory.
///
/// An admin directory is ours if it carries our marker and records no other worktree. It is also ours if it records no
/// worktree at all and carries no marker: then it was torn while it was made. No plan uses the name of an admin
/// directory that exists.
pub(super) fn of_admin_directory(task: &Task<'_>, paths: &WorktreePaths) -> Result<Owner, Error> {
    if paths.common.directory(&paths.admin_directory)?.is_none() {
        return Ok(Owner::Missing);
    }
    let path = paths.admin_directory_path();
    let other = |why: &str| Ok(Owner::Other(format!("{} is not this swarm's: {why}", path.display())));
    let locked = signature(task, &paths.read_admin_file("locked")?);
    let second = signature(task, &paths.read_admin_file(MARK)?);
    if locked == Signature::Theirs || second == Signature::Theirs {
        return other("it carries the mark of another swarm");
    }
    let claimed = locked == Signature::Ours || matches!(second, Signature::Ours | Signature::Torn);
    match paths.read_admin_file("gitdir")? {
        Content::Missing | Content::Empty => Ok(Owner::ThisSwarm),
        Content::Bytes(bytes) if paths.is_gitdir(&bytes) => {
            if claimed {
                Ok(Owner::ThisSwarm)
            } else {
                other("it does not carry its mark")
            }
        }
        Content::Bytes(bytes) if bytes.starts_with(b"/") && bytes.trim_ascii_end().ends_with(b"/.git") => {
            let text = String::from_utf8_lossy(&bytes);
            let there = Path::new(text.trim_end().trim_end_matches("/.git"));
            let (quoted, here) =
                (shell_quoted(&there.display().to_string()), paths.home.display().to_string());
            // Twice, because the worktree is locked.
            other(&format!(
                "it records the worktree {}; to bring that back: `git worktree move -f -f {quoted} {}`; to give it up: \
                 `git worktree remove -f -f {quoted}`",
                there.display(),
                shell_quoted(&here)
            ))
        }
        Content::Bytes(_) | Content::Irregular => {
            if claimed {
                Ok(Owner::ThisSwarm)
            } else {
                other("it does not carry its mark")
            }
        }
    }
}

/// Determines the owner of the directory at the worktree's path, given the owner of the admin directory.
///
/// A directory is ours if it points to our admin directory. A directory that has lost its pointer is ours if it is
/// empty, or while the admin directory exists. Other files without a pointer may belong to another owner.
pub(super) fn of_worktree(paths: &WorktreePaths, admin: &Owner) -> Result<Owner, Error> {
    let Some(directory) = paths.directory()? else { return Ok(Owner::Missing) };
    let other = |why: &str| Ok(Owner::Other(format!("{} is not this swarm's: {why}", paths.home.display())));
    match read(&directory, Path::new(".git"))? {
        Content::Bytes(bytes) if paths.is_dot_git(&bytes) => Ok(Owner::ThisSwarm),
        Content::Bytes(bytes) if bytes.starts_with(b"gitdir: ") => {
            let says = String::from_utf8_lossy(&bytes);
            if is_same_admin_directory(paths, &bytes)? {
                return other("its .git names the repository by another path; run `seedbed recover --moved`");
            }
            other(&format!("its .git contains {}; {PUT_BACK}", says.trim_end().escape_debug()))
        }
        // An object that cannot contain anything is no repository. Such an object replaced the pointer.
        Content::Irregular if !can_hold_nothing(&directory) => {
            other(&format!("its .git is not a file; {PUT_BACK}"))
        }
        Content::Irregular | Content::Missing | Content::Empty | Content::Bytes(_) => {
            let bare = directory.names()?.iter().all(|name| name == ".git");
            if *admin == Owner::ThisSwarm || bare {
                Ok(Owner::ThisSwarm)
            } else {
                other("no admin directory of this swarm belongs to it")
            }
        }
    }
}

/// Returns whether a `.git` file names the admin directory by another path, as after the repository was replaced by a
/// symbolic link to it.
fn is_same_admin_directory(paths: &WorktreePaths, dot_git: &[u8]) -> Result<bool, Error> {
    let Some(named) = dot_git.strip_prefix(b"gitdir: ") else { return Ok(false) };
    let named = canonical(&absolute(&paths.home, Path::new(OsStr::from_bytes(named.trim_ascii_end()))));
    let own = paths.common.directory(&paths.admin_directory)?;
    Ok(named.ok().zip(own).is_some_and(|(named, own)| named == own.path()))
}

fn can_hold_nothing(directory: &Root) -> bool {
    let found = directory.file_type(OsStr::new(".git"));
    !matches!(found, None | Some(FileType::RegularFile | FileType::Directory | FileType::Symlink))
}

/// Returns the owner of the admin directory, if neither it nor the directory belongs to another; else
/// [`Error::Refused`].
pub(super) fn of_admin_directory_if_not_others(
    task: &Task<'_>,
    paths: &WorktreePaths,
) -> Result<Owner, Error> {
    let admin = of_admin_directory(task, paths)?;
    let directory = of_worktree(paths, &admin)?;
    match (admin, directory) {
        (Owner::Other(why), _) | (_, Owner::Other(why)) => Err(Error::Refused(why)),
        (admin, _) => Ok(admin),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    Missing,
    Torn,
    Ours,
    Theirs,
}

fn signature(task: &Task<'_>, content: &Content) -> Signature {
    match content {
        Content::Missing => Signature::Missing,
        Content::Bytes(bytes) => match Mark::parse(bytes) {
            Some(mark) if mark.owner == task.owner => Signature::Ours,
            Some(_) => Signature::Theirs,
            None => Signature::Torn,
        },
        Content::Empty | Content::Irregular => Signature::Torn,
    }
}
