//! Fills a registered worktree with the files of its commit, and runs the repository's hook if that was asked for.

use std::path::Path;

use rayon::prelude::*;

use super::site::Site;
use super::{Worktree, worktree};
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// Fills worktrees of one basis.
pub(super) fn fill(tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
    tasks
        .par_iter()
        .enumerate()
        .filter_map(|(at, task)| {
            let populated = worktree(task).and_then(|worktree| populate(task, &worktree));
            populated.err().map(|error| (at, error))
        })
        .collect()
}

/// Checks the commit out. Takes no lock that worktrees share; `reset --hard` and `checkout` take that of packed refs.
pub(super) fn populate(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let site = Site::of(task, worktree)?;
    Git::of(task.host, &site.entry_path(), Some(&site.worktree)).holding(task.lock).run([
        "read-tree",
        "-m",
        "-u",
        &worktree.commit,
    ])?;
    match site.directory()? {
        Some(directory) => check_target(worktree, &directory),
        None => Err(Error::Refused(format!("{} is gone", site.worktree.display()))),
    }
}

/// Makes sure that a checkout has the directory that its session is to work in.
pub(super) fn check_target(worktree: &Worktree, checkout: &Root) -> Result<(), Error> {
    let Some(target) = &worktree.target_path else { return Ok(()) };
    if checkout.directory(Path::new(target))?.is_some() {
        return Ok(());
    }
    let path = checkout.path().display();
    Err(Error::Refused(format!("target-path {target:?} is not a directory of {path} after its checkout")))
}

/// Runs the repository's post-checkout hook in the worktree, as `git worktree add` does; a hook that fails is an error.
///
/// It runs under the same deadline as any other call of git.
pub(super) fn run_hook(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    if !worktree.git_hooks {
        return Ok(());
    }
    let site = Site::of(task, worktree)?;
    let zero = "0".repeat(worktree.commit.len());
    Git::around(task.host, &site.worktree).holding(task.lock).with_hooks(true).run([
        "hook",
        "run",
        "--ignore-missing",
        "post-checkout",
        "--",
        &zero,
        &worktree.commit,
        "1",
    ])?;
    Ok(())
}
