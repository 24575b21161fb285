//! Checks the rescued files out into a scratch directory, and compares them with those of the worktree.

#![expect(clippy::disallowed_methods, reason = "compares files of the worktree with files of its own")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Work, capture};
use crate::provider::Error;
use crate::provider::git_worktree::checkout_config::EXACT;
use crate::provider::git_worktree::{paths, unsaved};

/// Name of the scratch subdirectory for the checkout.
const CHECK: &str = "check";

/// Checks that every file that differs from HEAD can be restored unchanged. If a filter or a conversion of line ends
/// changes a file, its own bytes are saved. Returns the paths of files that a checkout changes even then.
pub(super) fn verify(work: &Work<'_>) -> Result<BTreeSet<PathBuf>, Error> {
    let args = ["diff-index", "--cached", "-z", "--no-renames", "--diff-filter=d", "--name-only"];
    let listed = work.git(capture::FILES).run(args.into_iter().chain([work.head.as_str(), "--"]))?;
    let mut changed: BTreeSet<PathBuf> = listed
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|bytes| capture::path(bytes).to_owned())
        // Files that a sparse checkout leaves out cannot be compared.
        .filter(|path| fs::symlink_metadata(work.paths.worktree.join(path)).is_ok())
        .collect();
    changed.extend(hidden_edits(work)?);
    let filtered = different(work, &changed)?;
    let mut lines = Vec::new();
    for path in &filtered {
        let found = fs::symlink_metadata(work.paths.worktree.join(path));
        if !found.is_ok_and(|found| found.is_file()) {
            return Err(changes(work, path));
        }
        let mode = if is_executable(&work.paths.worktree.join(path)) { "100755" } else { "100644" };
        let line = format!("{mode} {}\t", hash(work, path, true)?);
        lines.extend([line.as_bytes(), path.as_os_str().as_bytes(), b"\0"].concat());
    }
    if lines.is_empty() {
        return Ok(BTreeSet::new());
    }
    let as_it_is = work.exact(["update-index", "-z", "--index-info"]);
    work.git(capture::FILES).run_with_input(as_it_is, lines.clone())?;
    let converted = different(work, &filtered)?;
    for path in &converted {
        // The bytes on the disk must equal the saved ones: then the conversion changes the file, and not another
        // program.
        let line = [hash(work, path, false)?.as_bytes(), b"\t", path.as_os_str().as_bytes(), b"\0"].concat();
        if !lines.windows(line.len()).any(|saved| saved == line) {
            return Err(changes(work, path));
        }
    }
    Ok(converted)
}

/// Returns the files whose edits Git does not notice, so that their blobs are those of the index.
fn hidden_edits(work: &Work<'_>) -> Result<BTreeSet<PathBuf>, Error> {
    let git = EXACT.iter().fold(work.git(capture::INDEX), |git, setting| git.with_setting(setting));
    let listed = git.run(["ls-files", "-v", "--stage", "-z"])?;
    let files: Vec<_> = listed.split(|byte| *byte == 0).filter_map(unsaved::ListedFile::parse).collect();
    let index = work.scratch.join(capture::INDEX);
    let index = fs::read(&index).map_err(paths::io("read", &index))?;
    unsaved::filtered(&git, &work.paths.worktree, Some(index), &files, &BTreeSet::new())
}

/// Returns the paths whose checkout from [`capture::FILES`] differs from the worktree.
fn different(work: &Work<'_>, file_paths: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>, Error> {
    if file_paths.is_empty() {
        return Ok(BTreeSet::new());
    }
    let check = work.scratch.join(CHECK);
    let mut prefix = OsString::from("--prefix=");
    prefix.push(&check);
    prefix.push("/");
    let args = work.exact(["checkout-index", "--force", "-z", "--stdin"]);
    let args = args.into_iter().map(OsString::from).chain([prefix]);
    let input = file_paths.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
    work.git(capture::FILES).run_with_input(args, input)?;
    let mut different = BTreeSet::new();
    for path in file_paths {
        let (here, there) = (work.paths.worktree.join(path), check.join(path));
        if !is_same(&here, &there).map_err(paths::io("compare", &here))? {
            different.insert(path.clone());
        }
    }
    fs::remove_dir_all(&check).map_err(paths::io("remove", &check))?;
    Ok(different)
}

/// Returns the object id of a file's bytes without filters. Writes the object if `write` is set.
fn hash(work: &Work<'_>, path: &Path, write: bool) -> Result<String, Error> {
    let write = write.then_some("-w");
    let args = work.exact(["hash-object", "--no-filters"].into_iter().chain(write).chain(["--"]));
    let args = args.into_iter().map(OsString::from).chain([path.as_os_str().to_owned()]);
    Ok(work.git(capture::FILES).line(args)?)
}

fn changes(work: &Work<'_>, path: &Path) -> Error {
    let path = work.paths.worktree.join(path);
    Error::Refused(format!(
        "{} changes while it is being saved; stop who writes there, and try again",
        path.display()
    ))
}

fn is_executable(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.permissions().mode() & 0o100 != 0)
}

/// Compares files as Git does: kind, executable bit and content.
pub(super) fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (Ok(a), Ok(b)) = (fs::symlink_metadata(one), fs::symlink_metadata(other)) else { return Ok(false) };
    if a.is_symlink() && b.is_symlink() {
        return Ok(fs::read_link(one)? == fs::read_link(other)?);
    }
    if !a.is_file() || !b.is_file() {
        return Ok(a.is_dir() && b.is_dir());
    }
    if a.len() != b.len() || is_executable(one) != is_executable(other) {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(open(one)?), BufReader::new(open(other)?));
    loop {
        let (a, b) = (one.fill_buf()?, other.fill_buf()?);
        let length = a.len().min(b.len());
        if length == 0 {
            return Ok(a.is_empty() && b.is_empty());
        }
        if a[..length] != b[..length] {
            return Ok(false);
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Opens neither a link nor a FIFO that replaced the file since.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
