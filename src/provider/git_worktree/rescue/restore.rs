//! Restores a rescue in a new worktree: does what the command in its message does, and more carefully.
//!
//! The message itself is never run: every process that can write to the repository can create such a ref.

#![expect(clippy::disallowed_methods, reason = "writes files of the worktree that it has just created")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

use super::saved::SavedWork;
use super::{admin_directory, command, name};
use crate::host::Host;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::host::process::Cancel;
use crate::host::text::shell_quoted;
use crate::provider::Error;
use crate::provider::git_worktree::paths::io;

/// File in the admin directory of a worktree into which a rescue is restored, until it is complete.
const INCOMPLETE: &str = "seedbed-restoring";

/// Restores the work in a new worktree, and returns the worktree's directory: `into`, or a directory beside the
/// repository.
///
/// If any step fails, the worktree is removed again. A killed restore leaves an incomplete worktree, which the next one
/// names.
///
/// # Errors
///
/// The directory exists, the ref is no rescue, or Git fails.
pub fn restore(host: &Host, common: &Path, saved: &SavedWork, into: Option<&Path>) -> Result<PathBuf, Error> {
    let is_bare = common.file_name().is_none_or(|name| name != ".git");
    let root = if is_bare { common } else { common.parent().unwrap_or(common) };
    let directory =
        into.map_or_else(|| command::place(root, &saved.session, &saved.reference), Path::to_owned);
    if fs::symlink_metadata(&directory).is_ok() {
        return Err(Error::Refused(exists(common, root, &directory)));
    }
    if !saved.valid {
        return Err(Error::Refused(format!("{} does not have the form of a rescue", saved.reference)));
    }
    let repository = Git::open(host, common, None);
    let path = directory.to_string_lossy();
    if path.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Error::Refused(format!("{path} is not UTF-8")));
    }
    let head = format!("{}^", saved.object);
    let add = ["worktree", "add", "--no-checkout", "--detach", "--", &*path, &head];
    repository.run_beside_others(&add)?;
    populate(host, &repository, saved, &directory).map_err(|error| {
        // The worktree of a cancelled restore is removed too.
        let host = Host { cancel: Cancel::default(), ..host.clone() };
        let remove = ["worktree", "remove", "--force", "--force", "--", &*path];
        match Git::open(&host, common, None).run_beside_others(&remove) {
            Ok(_) => error,
            Err(left) => Error::Refused(format!("{error}; {path} is left behind: {left}")),
        }
    })?;
    Ok(directory)
}

/// Writes files, index and state of the rescue into an empty worktree.
fn populate(host: &Host, repository: &Git<'_>, saved: &SavedWork, directory: &Path) -> Result<(), Error> {
    let commit = saved.object.as_str();
    let admin = Git::discover(host, directory).path(["rev-parse", "--absolute-git-dir"])?;
    let git = Git::open(host, &admin, Some(directory));
    let admin_directory = Root::open(&admin)?;
    admin_directory.replace(Path::new(INCOMPLETE), b"")?;
    let patterns =
        repository.output(["cat-file", "blob", &format!("{commit}^3:{}", admin_directory::PATTERNS)])?;
    let is_sparse = patterns.status.success();
    if is_sparse {
        git.run_with_input(["sparse-checkout", "set", "--no-cone", "--stdin"], patterns.stdout)?;
    }
    git.run(["-c", "core.symlinks=true", "read-tree", "-m", "-u", commit])?;
    if is_sparse {
        // Files outside of the sparse checkout may be changed too.
        let head = format!("{commit}^");
        let list = ["diff-tree", "-r", "-z", "--no-renames", "--diff-filter=d", "--name-only", &head, commit];
        let changed = git.run(list)?;
        git.run_with_input(
            ["checkout-index", "-f", "-z", "--stdin", "--ignore-skip-worktree-bits"],
            changed,
        )?;
    }
    let message = repository.run(["cat-file", "commit", commit])?;
    for path in String::from_utf8_lossy(&message).lines().filter_map(name::exact_path) {
        write_exactly(repository, commit, directory, &path)?;
    }
    restore_state(repository, commit, &admin_directory)?;
    admin_directory.remove_file(Path::new(INCOMPLETE))?;
    Ok(())
}

/// Describes a directory in the place of a new worktree.
fn exists(common: &Path, root: &Path, directory: &Path) -> String {
    let is_incomplete = |admin: PathBuf| admin.join(INCOMPLETE).exists() || !admin.join("index").exists();
    let shown = directory.display();
    if !own_admin_directory(common, directory).is_some_and(is_incomplete) {
        return format!("{shown} exists, and nothing is overwritten");
    }
    let [root, path] = [root, directory].map(|path| shell_quoted(&path.to_string_lossy()));
    let command = format!("git -C {root} worktree remove --force {path}");
    format!(
        "{shown} is an incomplete restore, which was killed\nhelp: remove it with `{command}`, and restore again"
    )
}

/// Returns the admin directory of a linked worktree of this repository; `None` if the directory is none.
fn own_admin_directory(common: &Path, directory: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(directory.join(".git")).ok()?;
    let admin = fs::canonicalize(directory.join(text.strip_prefix("gitdir: ")?.trim_end())).ok()?;
    let worktrees = fs::canonicalize(common.join("worktrees")).ok()?;
    (admin.parent() == Some(&worktrees)).then_some(admin)
}

/// Writes the bytes of a file that Git has checked out converted.
fn write_exactly(repository: &Git<'_>, commit: &str, directory: &Path, path: &Path) -> Result<(), Error> {
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let Some(name) = path.to_str().filter(|_| inside) else { return Ok(()) };
    let bytes = repository.run(["cat-file", "blob", &format!("{commit}:{name}")])?;
    let path = directory.join(path);
    let mut options = OpenOptions::new();
    options.write(true).truncate(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(&path).and_then(|mut file| file.write_all(&bytes)).map_err(io("write", &path))
}

/// Writes the index, and the files of an operation in progress, into the worktree's admin directory.
fn restore_state(repository: &Git<'_>, commit: &str, admin: &Root) -> Result<(), Error> {
    let listed = repository.run(["ls-tree", "-r", "-z", "--full-tree", &format!("{commit}^3")])?;
    for line in String::from_utf8_lossy(&listed).split('\0') {
        let Some((header, path)) = line.split_once('\t') else { continue };
        let [_, "blob", object] = header.split(' ').collect::<Vec<_>>()[..] else { continue };
        let path = Path::new(path);
        let first = path.components().next().map(Component::as_os_str).unwrap_or_default();
        // Files written by another program could point the worktree at another repository.
        if admin_directory::is_of_the_place(first) && path != Path::new(super::capture::INDEX) {
            continue;
        }
        if let Some(parent) = path.parent() {
            admin.create_directories(parent)?;
        }
        admin.replace(path, &repository.run(["cat-file", "blob", object])?)?;
    }
    Ok(())
}
