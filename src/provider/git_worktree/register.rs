//! Registers a worktree with Git: the directory, its `.git` file, the admin directory, the branch.
//!
//! An admin directory is built aside and renamed into place, complete and locked, so that no other Git process ever
//! sees half of it. If an admin directory is more than files, `git worktree add` creates it under a lock.

#![expect(clippy::disallowed_methods, reason = "builds an entry in a directory of its own")]

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::ownership::{self, Owner};
use super::repository::Lock;
use super::site::{Content, Site, io, move_directory, read};
use super::{Registration, Worktree, branch, inspect, layout, sparse};
use crate::host::clock;
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::{Error, Task, retry_while_missing};

/// Registers the worktree, empty except for its `.git` file. A second registration is no error.
pub(super) fn register(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let site = Site::of(task, worktree)?;
    if ownership::of_entry_if_not_others(task, &site)? == Owner::Us {
        return match inspect::registration_fault(task, worktree, &site)? {
            None => Ok(()),
            Some(fault) => {
                Err(Error::Refused(format!("{fault}; release the session before making it again")))
            }
        };
    }
    match worktree.registration {
        Registration::Rename => by_rename(task, worktree, &site),
        Registration::Git => by_git(task, worktree, &site),
    }
}

fn by_rename(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<(), Error> {
    let aside = layout::building(task, worktree);
    site.common.remove_all(&aside)?;
    let building = retry_while_missing(|| Ok(site.common.create_directories(&aside)?))?;
    build(task, worktree, site, building.path())?;
    crashpoint!("register.built");
    if let Some(branch) = &worktree.branch {
        take_branch(task, worktree, site, branch)?;
    }
    crashpoint!("register.branched");
    create_directory(site)?;
    crashpoint!("register.placed");
    // The shared setting is on only while an admin directory needs it: both change under one lock.
    let _lock = match &worktree.target_path {
        Some(_) => {
            let lock = Lock::take(task.host, site)?;
            sparse::enable(task, site, &lock)?;
            Some(lock)
        }
        None => None,
    };
    crashpoint!("register.enabled");
    if !move_directory(&site.common, &aside, &site.entry)? {
        return Err(Error::Refused(format!("{} was removed while it was made", building.path().display())));
    }
    crashpoint!("register.renamed");
    site.common.remove_directory(Path::new(layout::MARK))?;
    Ok(())
}

fn by_git(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<(), Error> {
    retry_while_missing(|| Ok(site.base.create_hidden(&site.parent)?))?;
    let lock = Lock::take(task.host, site)?;
    let mut args: Vec<OsString> =
        ["worktree", "add", "--no-checkout", "--lock", "--reason"].map(Into::into).into();
    args.push(layout::mark(task).into());
    match &worktree.branch {
        // A tracking branch would write to the shared config, whose lock is a common reason to fail.
        Some(branch) => {
            take_branch(task, worktree, site, branch)?;
            args.extend([site.worktree.clone().into(), branch.into()]);
        }
        None => args.extend(["--detach".into(), site.worktree.clone().into(), (&worktree.commit).into()]),
    }
    Git::of(task.host, site.common.path(), None).holding(task.lock).run_beside_others(&args)?;
    crashpoint!("register.added");
    let dot_git = site.directory()?.map(|directory| read(&directory, Path::new(".git"))).transpose()?;
    if dot_git != Some(Content::Bytes(site.dot_git_line())) {
        return Err(Error::Refused(format!(
            "git did not register {} as {}",
            site.home.display(),
            worktree.entry
        )));
    }
    let mark = format!("{}\n", layout::mark(task));
    site.common.replace(&site.entry.join(layout::MARK), mark.as_bytes())?;
    if let Some(target) = &worktree.target_path {
        sparse::enable(task, site, &lock)?;
        let set = ["sparse-checkout", "set", "--cone", "--skip-checks", "--", target];
        Git::of(task.host, &site.entry_path(), Some(&site.worktree))
            .holding(task.lock)
            .run_beside_others(&set)?;
    }
    Ok(())
}

/// Writes the files that Git writes, and [`layout::MARK`] beside them. The first line of the log has no committer's
/// name.
fn build(task: &Task<'_>, worktree: &Worktree, site: &Site, at: &Path) -> Result<(), Error> {
    let mark = format!("{}\n", layout::mark(task));
    let head = match &worktree.branch {
        Some(branch) => format!("ref: refs/heads/{branch}\n"),
        None => format!("{}\n", worktree.commit),
    };
    write(at, "locked", mark.as_bytes())?;
    write(at, layout::MARK, mark.as_bytes())?;
    write(at, "commondir", b"../..\n")?;
    write(at, "gitdir", &site.gitdir_line())?;
    write(at, "HEAD", head.as_bytes())?;
    create(&at.join("refs"))?;
    // Git logs HEAD if the repository has logs, that is, if the repository has a log of its own HEAD.
    if is_file(&site.common, Path::new("logs/HEAD"))? {
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

/// Checks that the branch is at the worktree's commit, or creates the branch there. An existing branch is not written.
fn take_branch(task: &Task<'_>, worktree: &Worktree, site: &Site, branch: &str) -> Result<(), Error> {
    if worktree.existing.is_none() {
        return branch::create(task, site, branch, &worktree.commit);
    }
    let name = format!("refs/heads/{branch}");
    let git = Git::of(task.host, site.common.path(), None).holding(task.lock);
    let tip = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", &name])?.stdout;
    let tip = String::from_utf8_lossy(tip.trim_ascii_end()).into_owned();
    if tip == worktree.commit {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "branch `{branch}` has moved from {:.10} to {} since this was planned",
        worktree.commit,
        if tip.is_empty() { "nothing" } else { &tip[..tip.len().min(10)] }
    )))
}

fn create_directory(site: &Site) -> Result<(), Error> {
    let directory = retry_while_missing(|| {
        Ok(site.base.create_hidden(&site.parent)?.create_directories(Path::new(&site.name))?)
    })?;
    directory.remove_file(Path::new(".git"))?;
    // Not synced, like all files of an admin directory: after a crash the intent names what to remove.
    write(directory.path(), ".git", &site.dot_git_line())
}

fn is_file(root: &Root, relative: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(root.path().join(relative)) {
        Ok(found) => Ok(found.is_file()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("look at", &root.path().join(relative))(error)),
    }
}

fn write(at: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
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
