//! Registers a worktree with Git: the directory, its `.git` file, the admin directory, the branch.
//!
//! An admin directory is built aside and renamed into place, complete and locked, so that no other Git process ever
//! sees half of it. If an admin directory is more than files, `git worktree add` creates it under a lock.

#![expect(clippy::disallowed_methods, reason = "builds an admin directory in a directory of its own")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::ownership::{self, Owner};
use super::paths::{Content, WorktreePaths, io, move_directory, read};
use super::repository::Lock;
use super::{Registration, Worktree, branch, inspect, landed, pointer, reserved_names, sparse};
use crate::host::clock;
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::{Error, Task, retry_while_missing};

/// Registers the worktree, empty except for its `.git` file. A second registration is no error.
pub(super) fn register(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    if ownership::of_admin_directory_if_not_others(task, &paths)? == Owner::ThisSwarm {
        return match inspect::registration_fault(task, worktree, &paths)? {
            None => Ok(()),
            Some(fault) => {
                Err(Error::Refused(format!("{fault}; release the session before it is created again")))
            }
        };
    }
    match worktree.registration {
        Registration::Rename => by_rename(task, worktree, &paths),
        Registration::Git => by_git(task, worktree, &paths),
    }
}

fn by_rename(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    let aside = reserved_names::building(task, worktree);
    paths.common.remove_all(&aside)?;
    let building = retry_while_missing(|| Ok(paths.common.create_directories(&aside)?))?;
    build(task, worktree, paths, building.path())?;
    crashpoint!("register.built");
    if let Some(branch) = &worktree.branch {
        take_branch(task, worktree, paths, branch)?;
    }
    crashpoint!("register.branched");
    create_directory(paths)?;
    crashpoint!("register.placed");
    // The shared setting is on only while an admin directory needs it: both change under one lock.
    let _lock = match &worktree.target_path {
        Some(_) => {
            let lock = Lock::take(task.host, paths)?;
            sparse::enable(task, paths, &lock)?;
            Some(lock)
        }
        None => None,
    };
    crashpoint!("register.enabled");
    if !move_directory(&paths.common, &aside, &paths.admin_directory)? {
        return Err(Error::Refused(format!(
            "{} was removed while it was created",
            building.path().display()
        )));
    }
    crashpoint!("register.renamed");
    paths.common.remove_directory(Path::new(reserved_names::MARK))?;
    Ok(())
}

fn by_git(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    retry_while_missing(|| Ok(paths.base.create_hidden(&paths.parent)?))?;
    let lock = Lock::take(task.host, paths)?;
    let mut args: Vec<OsString> =
        ["worktree", "add", "--no-checkout", "--lock", "--reason"].map(Into::into).into();
    args.push(reserved_names::mark(task).into());
    let staging = paths.staging().map(|staging| paths.base.path().join(staging));
    let at = staging.as_ref().unwrap_or(&paths.worktree);
    match &worktree.branch {
        // A tracking branch would write to the shared config, whose lock is a common reason to fail.
        Some(branch) => {
            take_branch(task, worktree, paths, branch)?;
            args.extend([at.into(), branch.into()]);
        }
        None => args.extend(["--detach".into(), at.into(), (&worktree.commit).into()]),
    }
    let git = || {
        let git = Git::open(task.host, paths.common.path(), None).holding(task.lock);
        // Git would set an extension of the repository that older versions of Git refuse.
        git.with_setting("worktree.useRelativePaths=false")
    };
    git().run_beside_others(&args)?;
    crashpoint!("register.added");
    if let Some(staging) = &staging {
        paths.base.remove_directory(&paths.parent.join(&paths.name))?;
        let args: [&OsStr; 6] = [
            "worktree".as_ref(),
            "move".as_ref(),
            "--force".as_ref(),
            "--force".as_ref(),
            staging.as_ref(),
            paths.worktree.as_ref(),
        ];
        git().run_beside_others(&args)?;
    }
    let dot_git = paths.directory()?.map(|directory| read(&directory, Path::new(".git"))).transpose()?;
    if !matches!(dot_git, Some(Content::Bytes(bytes)) if paths.is_dot_git(&bytes)) {
        return Err(Error::Refused(format!(
            "git did not register {} as {}",
            paths.home.display(),
            worktree.admin_directory
        )));
    }
    pointer::write(task, worktree)?;
    let mark = format!("{}\n", reserved_names::mark(task));
    paths.common.replace(&paths.admin_directory.join(reserved_names::MARK), mark.as_bytes())?;
    if let Some(target) = &worktree.target_path {
        sparse::enable(task, paths, &lock)?;
        let set = ["sparse-checkout", "set", "--cone", "--skip-checks", "--", target];
        Git::open(task.host, &paths.admin_directory_path(), Some(&paths.worktree))
            .holding(task.lock)
            .run_beside_others(&set)?;
    }
    Ok(())
}

/// Writes the files that Git writes, and [`reserved_names::MARK`] beside them. The first line of the log has no
/// committer's name.
fn build(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths, at: &Path) -> Result<(), Error> {
    let mark = format!("{}\n", reserved_names::mark(task));
    let head = match &worktree.branch {
        Some(branch) => format!("ref: refs/heads/{branch}\n"),
        None => format!("{}\n", worktree.commit),
    };
    write(at, "locked", mark.as_bytes())?;
    write(at, reserved_names::MARK, mark.as_bytes())?;
    write(at, "commondir", b"../..\n")?;
    write(at, "gitdir", &paths.gitdir_line())?;
    write(at, "HEAD", head.as_bytes())?;
    create(&at.join("refs"))?;
    // Git logs HEAD if the repository has logs, that is, if the repository has a log of its own HEAD.
    if is_file(&paths.common, Path::new("logs/HEAD"))? {
        create(&at.join("logs"))?;
        let zero = "0".repeat(worktree.commit.len());
        let line = format!("{zero} {} seedbed <seedbed> {} +0000\n", worktree.commit, clock::seconds());
        write(at, "logs/HEAD", line.as_bytes())?;
    }
    if let Some(target) = &worktree.target_path {
        create(&at.join("info"))?;
        write(at, "info/sparse-checkout", sparse::patterns(target)?.as_bytes())?;
        write(at, "config.worktree", sparse::CONFIG.as_bytes())?;
    }
    Ok(())
}

/// Checks that the branch is at the worktree's commit, or creates the branch there. An existing branch is only written if
/// it has landed and is moved forward.
fn take_branch(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    branch: &str,
) -> Result<(), Error> {
    if worktree.existing.is_none() {
        return branch::create(task, paths, branch, &worktree.commit);
    }
    let name = format!("refs/heads/{branch}");
    let tip = branch::tip(task, paths, &name)?;
    let planned = worktree.moved_from().unwrap_or(&worktree.commit);
    if tip.as_deref() != Some(planned) {
        return Err(Error::Refused(format!(
            "branch `{branch}` has moved from {planned:.10} to {:.10} since this was planned",
            tip.as_deref().unwrap_or("nothing")
        )));
    }
    match worktree.moved_from() {
        Some(from) => landed::move_forward(task, worktree, paths, &name, from),
        None => Ok(()),
    }
}

fn create_directory(paths: &WorktreePaths) -> Result<(), Error> {
    let directory = retry_while_missing(|| {
        Ok(paths.base.create_hidden(&paths.parent)?.create_directories(Path::new(&paths.name))?)
    })?;
    directory.remove_file(Path::new(".git"))?;
    // Not synced, like all files of an admin directory: after a crash the intent names what to remove.
    write(directory.path(), ".git", &paths.dot_git_line())
}

fn is_file(root: &Root, relative: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(root.path().join(relative)) {
        Ok(found) => Ok(found.is_file()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("inspect", &root.path().join(relative))(error)),
    }
}

pub(super) fn write(at: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = at.join(name);
    let created = failpoint!("register.write")
        .map_err(std::io::Error::from)
        .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(&path));
    created.and_then(|mut file| file.write_all(bytes)).map_err(io("write", &path))
}

fn create(path: &Path) -> Result<(), Error> {
    let created = failpoint!("register.make-directory").map_err(std::io::Error::from);
    created.and_then(|()| fs::create_dir(path)).map_err(io("create", path))
}
