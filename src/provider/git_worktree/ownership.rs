//! Whose an entry and a directory are. Nothing is removed, and nothing is written over, but what is ours by this.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::FileType;

use super::layout::MARK;
use super::site::{Content, Site, read};
use crate::host::files::Root;
pub(crate) use crate::provider::OwnershipMark as Mark;
use crate::provider::{Error, Task};

impl Mark {
    /// The one that an entry carries, whole.
    pub(crate) fn of_entry(entry: &Root) -> Option<Self> {
        let Ok(Content::Bytes(bytes)) = read(entry, Path::new(MARK)) else { return None };
        Self::parse(&bytes)
    }
}

/// What to do about a directory whose `.git` is another than was made.
const PUT_BACK: &str = "move the directory away and apply, which makes it anew";

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nothing is there.
    Nobody,
    /// This swarm.
    Us,
    /// Somebody else, with why that is thought.
    Other(String),
}

/// Whose the entry is.
///
/// Ours is what carries our mark and records no other worktree. An entry that records no worktree at all and carries
/// nobody's mark is ours too: it was torn while it was made, and no plan takes a name that is somebody's.
pub(super) fn of_entry(task: &Task<'_>, site: &Site) -> Result<Owner, Error> {
    if site.common.directory(&site.entry)?.is_none() {
        return Ok(Owner::Nobody);
    }
    let path = site.entry_path();
    let other = |why: &str| Ok(Owner::Other(format!("{} is not this swarm's: {why}", path.display())));
    let locked = signature(task, &site.read_entry("locked")?);
    let second = signature(task, &site.read_entry(MARK)?);
    if locked == Signature::Theirs || second == Signature::Theirs {
        return other("it carries the mark of another swarm");
    }
    let claimed = locked == Signature::Ours || matches!(second, Signature::Ours | Signature::Torn);
    match site.read_entry("gitdir")? {
        Content::Missing | Content::Empty => Ok(Owner::Us),
        Content::Bytes(bytes) if bytes == site.gitdir_line() => {
            if claimed {
                Ok(Owner::Us)
            } else {
                other("it does not carry its mark")
            }
        }
        Content::Bytes(bytes) if bytes.starts_with(b"/") && bytes.trim_ascii_end().ends_with(b"/.git") => {
            let text = String::from_utf8_lossy(&bytes);
            let there = text.trim_end().trim_end_matches("/.git").escape_debug();
            let here = site.home.display();
            other(&format!(
                "it records the worktree {there}; `git worktree move` of that to {here} brings it back, `git worktree \
                 remove` gives it up"
            ))
        }
        Content::Bytes(_) | Content::Irregular => {
            if claimed {
                Ok(Owner::Us)
            } else {
                other("it does not carry its mark")
            }
        }
    }
}

/// Whose the directory at the worktree's path is, given whose the entry is.
///
/// Ours is what points to our entry; what has lost its pointer is ours as long as the entry stands, or when it is
/// empty: files that nothing says anything of may be somebody's.
pub(super) fn of_directory(site: &Site, entry: &Owner) -> Result<Owner, Error> {
    let Some(directory) = site.directory()? else { return Ok(Owner::Nobody) };
    let other = |why: &str| Ok(Owner::Other(format!("{} is not this swarm's: {why}", site.home.display())));
    match read(&directory, Path::new(".git"))? {
        Content::Bytes(bytes) if bytes == site.dot_git_line() => Ok(Owner::Us),
        Content::Bytes(bytes) if bytes.starts_with(b"gitdir: ") => {
            let says = String::from_utf8_lossy(&bytes);
            other(&format!("its .git says {}; {PUT_BACK}", says.trim_end().escape_debug()))
        }
        // What can hold nothing can be nobody's repository; it was put where the pointer was.
        Content::Irregular if !can_hold_nothing(&directory) => {
            other(&format!("its .git is not a file; {PUT_BACK}"))
        }
        Content::Irregular | Content::Missing | Content::Empty | Content::Bytes(_) => {
            let bare = directory.names()?.iter().all(|name| name == ".git");
            if *entry == Owner::Us || bare { Ok(Owner::Us) } else { other("no entry of ours belongs to it") }
        }
    }
}

fn can_hold_nothing(directory: &Root) -> bool {
    let found = directory.file_type(OsStr::new(".git"));
    !matches!(found, None | Some(FileType::RegularFile | FileType::Directory | FileType::Symlink))
}

/// Whose the entry is, where neither it nor the directory is somebody else's; else [`Error::Refused`].
pub(super) fn of_entry_if_not_others(task: &Task<'_>, site: &Site) -> Result<Owner, Error> {
    let entry = of_entry(task, site)?;
    let directory = of_directory(site, &entry)?;
    match (entry, directory) {
        (Owner::Other(why), _) | (_, Owner::Other(why)) => Err(Error::Refused(why)),
        (entry, _) => Ok(entry),
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
