//! Finds Git's files that are not regular files, before Git runs.
//!
//! Everyone who can write to the Git directory, such as an agent in a linked worktree, can put something else there. If
//! Git finds a directory or a socket, it fails without naming the path. A FIFO or device for which Git waits is also
//! detected while Git waits (`process/blocked_read.rs`), on any path. A FIFO or device in place of one of these files
//! is reported before Git runs.

#![expect(clippy::disallowed_methods, reason = "looks through what git is about to open")]

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Error;
use crate::host::files::Root;

/// Names that Git expects to be files in a Git directory or an admin directory. If one is a directory, Git fails
/// without naming its path.
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

/// Largest pointer to a Git directory, in bytes.
const POINTER_MAX: usize = 64 * 1024;

/// Checks the files that Git opens when it finds the repository around `directory` by itself.
pub(super) fn check_discovered(directory: &Path) -> Result<(), Error> {
    for above in directory.ancestors() {
        let dot_git = above.join(".git");
        match fs::metadata(&dot_git).map(|found| found.file_type()) {
            Ok(found) if found.is_dir() => return check_git_directory(&dot_git),
            Ok(found) if found.is_file() => {
                return pointer(above, ".git", b"gitdir: ")
                    .map_or(Ok(()), |git_dir| check_git_directory(&git_dir));
            }
            Ok(found) => return Err(obstructed(dot_git, found)),
            Err(_) if above.join("HEAD").exists() && above.join("objects").is_dir() => {
                return check_git_directory(above);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Checks a Git directory, or the admin directory of a linked worktree and its repository.
pub(super) fn check_git_directory(git_dir: &Path) -> Result<(), Error> {
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

/// Returns whether a path leads to `/dev/null`, which users link instead of an empty file.
fn is_null(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().filter(|found| found.file_type().is_char_device());
    let (Some(found), Some(null)) = (device(path), device(Path::new("/dev/null"))) else { return false };
    found.rdev() == null.rdev()
}

/// Returns the target of one of Git's pointer files, which may be relative to the directory of the file.
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
