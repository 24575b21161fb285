//! What git would wait for without end: looked for before git is asked anything.
//!
//! git opens what it takes for its files. Opening a FIFO waits until somebody writes into it, and a device may never
//! end; whoever can write to the git directory, an agent in a linked worktree among them, can put one there. What is
//! swapped in after the look is left to the deadline.

#![expect(clippy::disallowed_methods, reason = "looks through what git is about to open")]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Error;
use crate::host::files::Root;

/// What git takes for a file in a git directory or an entry of one; a directory there makes it fail without saying
/// where.
const FILES: [&str; 12] = [
    "HEAD",
    "commondir",
    "config",
    "config.worktree",
    "gitdir",
    "index",
    "info/attributes",
    "info/exclude",
    "info/sparse-checkout",
    "objects/info/alternates",
    "packed-refs",
    "shallow",
];

/// Those of them that hold settings, and the last words of the names of those whose values are files that git reads:
/// `include.path`, `core.excludesFile`, `mailmap.file`. Others may lead to where even a look takes for ever.
const CONFIGS: [&str; 2] = ["config", "config.worktree"];
const SETTINGS: [&str; 4] = ["path", "excludesfile", "attributesfile", "file"];

/// The directories of a repository that git opens files of; the latter with all below them.
const FLAT: [&str; 4] = ["", "info", "objects/info", "objects/pack"];
const DEEP: [&str; 3] = ["logs", "objects", "refs"];

/// What is not looked through in an entry: the objects of submodules, which may be many.
const OBJECTS: &str = "objects";

/// What git reads in the directories of a work tree.
const IN_WORK_TREES: [&str; 4] = [".gitattributes", ".gitignore", ".gitmodules", ".mailmap"];

/// How long a repository's objects, refs and logs are not looked through again: there may be thousands, and one run asks
/// git many times.
const FRESH: Duration = Duration::from_secs(1);

/// When the repositories were looked through.
pub(super) type Looked = Mutex<HashMap<PathBuf, Instant>>;

/// The largest pointer to a git directory, in bytes, and the most of a configuration that is read.
const POINTER_MAX: usize = 64 * 1024;
const CONFIG_MAX: usize = 1 << 20;

/// Looks through what git opens where it finds the repository around `directory` by itself.
pub(super) fn around(looked: &Looked, directory: &Path) -> Result<(), Error> {
    for above in directory.ancestors() {
        let dot_git = above.join(".git");
        match fs::metadata(&dot_git).map(|found| found.file_type()) {
            Ok(found) if found.is_dir() => return of(looked, &dot_git),
            Ok(found) if found.is_file() => {
                return pointer(above, ".git", b"gitdir: ").map_or(Ok(()), |git_dir| of(looked, &git_dir));
            }
            Ok(found) => return Err(obstructed(dot_git, found)),
            Err(_) if above.join("HEAD").exists() && above.join(OBJECTS).is_dir() => {
                return of(looked, above);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Looks through a git directory, or the entry of a linked worktree and its repository.
pub(super) fn of(looked: &Looked, git_dir: &Path) -> Result<(), Error> {
    files(git_dir)?;
    let Some(common) = pointer(git_dir, "commondir", b"") else { return repository(looked, git_dir) };
    walk(git_dir, Depth::All)?;
    let common = fs::canonicalize(&common).unwrap_or(common);
    files(&common)?;
    repository(looked, &common)
}

/// Looks at a file of a work tree, before git is asked what has changed there.
pub(super) fn in_work_tree_at(path: &Path, found: FileType) -> Result<(), Error> {
    if path.file_name().is_some_and(|name| IN_WORK_TREES.iter().any(|read| name == *read)) {
        not_endless(path, found)?;
    }
    Ok(())
}

/// Looks through a work tree, before git is asked what has changed there.
pub(super) fn in_work_tree(top: &Path) -> Result<(), Error> {
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        // What cannot be listed, git says.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(found) = entry.file_type() else { continue };
            if found.is_dir() {
                left.push(entry.path());
            } else {
                in_work_tree_at(&entry.path(), found)?;
            }
        }
    }
    Ok(())
}

fn files(git_dir: &Path) -> Result<(), Error> {
    for name in FILES {
        let path = git_dir.join(name);
        if let Ok(found) = fs::metadata(&path)
            && !found.is_file()
            && !is_null(&path)
        {
            return Err(obstructed(path, found.file_type()));
        }
    }
    CONFIGS.iter().try_for_each(|name| settings(git_dir, name))
}

/// Looks for settings that lead to a FIFO.
fn settings(git_dir: &Path, name: &str) -> Result<(), Error> {
    let Ok(Ok(Some(bytes))) = Root::open(git_dir).map(|root| root.read(Path::new(name), CONFIG_MAX)) else {
        return Ok(());
    };
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
        let is_name = |name: &&str| line[..at].trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        if !SETTINGS.iter().any(is_name) {
            continue;
        }
        let value = line[at + 1..].trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        let path = git_dir.join(OsStr::from_bytes(value));
        if let Ok(found) = fs::metadata(&path)
            && found.file_type().is_fifo()
        {
            return Err(obstructed(path, found.file_type()));
        }
    }
    Ok(())
}

fn repository(looked: &Looked, common: &Path) -> Result<(), Error> {
    for directory in FLAT {
        walk(&common.join(directory), Depth::One)?;
    }
    let looked = || looked.lock().unwrap_or_else(PoisonError::into_inner);
    if looked().get(common).is_some_and(|at| at.elapsed() < FRESH) {
        return Ok(());
    }
    for directory in DEEP {
        walk(&common.join(directory), Depth::All)?;
    }
    looked().insert(common.to_owned(), Instant::now());
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    One,
    All,
}

fn walk(directory: &Path, depth: Depth) -> Result<(), Error> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(found) = entry.file_type() else { continue };
        if found.is_dir() {
            if depth == Depth::All && entry.file_name() != OBJECTS {
                walk(&entry.path(), depth)?;
            }
        } else if found.is_symlink() {
            if let Ok(leads_to) = fs::metadata(entry.path()) {
                not_endless(&entry.path(), leads_to.file_type())?;
            }
        } else {
            not_endless(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Makes sure that opening and reading it comes to an end. A socket cannot be opened: git says so, or has put it there
/// itself.
fn not_endless(path: &Path, found: FileType) -> Result<(), Error> {
    let endless = found.is_fifo() || found.is_char_device() || found.is_block_device();
    if endless && !is_null(path) { Err(obstructed(path.to_owned(), found)) } else { Ok(()) }
}

/// Whether it is what people put in the place of a file that is to have nothing in it.
fn is_null(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().filter(|found| found.file_type().is_char_device());
    let (Some(found), Some(null)) = (device(path), device(Path::new("/dev/null"))) else { return false };
    found.rdev() == null.rdev()
}

/// Where a small file of git's leads to, which may be relative to the directory that it lies in.
fn pointer(directory: &Path, name: &str, head: &[u8]) -> Option<PathBuf> {
    let bytes = Root::open(directory).ok()?.read(Path::new(name), POINTER_MAX).ok()??;
    let path = bytes.strip_prefix(head)?;
    let path = path.strip_suffix(b"\n").unwrap_or(path);
    Some(directory.join(OsString::from_vec(path.to_owned())))
}

fn obstructed(path: PathBuf, found: FileType) -> Error {
    let what = match found {
        found if found.is_fifo() => "a FIFO",
        found if found.is_socket() => "a socket",
        found if found.is_dir() => "a directory",
        _ => "a device",
    };
    Error::Obstructed { path, what }
}
