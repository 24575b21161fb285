//! Files of Git's that are no files, named before Git runs.
//!
//! Whoever can write to the Git directory can put something else there, such as an agent in a linked worktree. Where Git
//! finds a directory or a socket, it fails without the path. A FIFO or device that Git waits for is found while Git waits
//! (`process/waiting.rs`), whatever led there; in the place of these files it is named at once.

#![expect(clippy::disallowed_methods, reason = "looks through what git is about to open")]

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

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

/// The largest pointer to a git directory, in bytes.
const POINTER_MAX: usize = 64 * 1024;

/// Looks through what git opens where it finds the repository around `directory` by itself.
pub(super) fn around(directory: &Path) -> Result<(), Error> {
    for above in directory.ancestors() {
        let dot_git = above.join(".git");
        match fs::metadata(&dot_git).map(|found| found.file_type()) {
            Ok(found) if found.is_dir() => return of(&dot_git),
            Ok(found) if found.is_file() => {
                return pointer(above, ".git", b"gitdir: ").map_or(Ok(()), |git_dir| of(&git_dir));
            }
            Ok(found) => return Err(obstructed(dot_git, found)),
            Err(_) if above.join("HEAD").exists() && above.join("objects").is_dir() => {
                return of(above);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Looks through a git directory, or the entry of a linked worktree and its repository.
pub(super) fn of(git_dir: &Path) -> Result<(), Error> {
    files(git_dir)?;
    let Some(common) = pointer(git_dir, "commondir", b"") else { return Ok(()) };
    files(&fs::canonicalize(&common).unwrap_or(common))
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
    Ok(())
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
