//! Moves branches that have landed forward to the base of a new worktree, and back if the run is rolled back.
//!
//! Such a branch was created by an earlier run, and the base contains all its commits. So moving it loses nothing.

use std::path::Path;

use super::ownership::Mark;
use super::paths::WorktreePaths;
use super::{Worktree, branch, reserved_names};
use crate::host::failpoint::crashpoint;
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// Largest reflog of a branch that is restored, in bytes; a line takes some 200.
const LOG_MAX: usize = 64 << 20;

/// Moves the branch of this full name from `from` to the worktree's commit. An error if a commit would be lost, if no run
/// of seedbed has created the branch, or if a worktree has it checked out.
pub(super) fn move_forward(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    name: &str,
    from: &str,
) -> Result<(), Error> {
    let to = worktree.commit.as_str();
    let short = name.trim_start_matches("refs/heads/");
    let refused = |why: &str| {
        Err(Error::Refused(format!("branch `{short}` cannot be moved from {from:.10} to {to:.10}: {why}")))
    };
    let git = Git::open(task.host, paths.common.path(), None).holding(task.lock);
    // A saved plan may have been written by hand.
    if !git.output(["merge-base", "--is-ancestor", "--end-of-options", from, to])?.status.success() {
        return refused("it has commits that would be lost");
    }
    let log = git.run(["reflog", "show", "--format=%gs", name, "--"])?;
    if String::from_utf8_lossy(&log).lines().last().is_none_or(|line| Mark::parse(line.as_bytes()).is_none())
    {
        return refused("no run of seedbed has created it");
    }
    if branch::is_checked_out(paths, name)? {
        return refused("a worktree has it checked out");
    }
    let message = reserved_names::moved_branch_message(task);
    git.run_beside_others(&["update-ref", "--create-reflog", "-m", &message, name, to, from])?;
    crashpoint!("register.branch-moved");
    Ok(())
}

/// Moves the branch of this full name back to `from`, with its earlier reflog, if the run has moved it and it has had no
/// commit since. A second call is no error.
pub(super) fn move_back(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    name: &str,
    from: &str,
) -> Result<(), Error> {
    let Some(tip) = branch::tip(task, paths, name)? else { return Ok(()) };
    let message = reserved_names::moved_branch_message(task);
    if tip == worktree.commit {
        let git = Git::open(task.host, paths.common.path(), None).holding(task.lock);
        // Another process may have moved the branch to the same commit.
        let is_of_run = git.line(["reflog", "show", "-1", "--format=%gs", name, "--"])? == message;
        if !is_of_run || branch::is_checked_out(paths, name)? {
            return Ok(());
        }
        git.run_beside_others(&["update-ref", "-m", &message, name, from, &tip])?;
        crashpoint!("release.branch-moved");
    } else if tip != from {
        return Ok(());
    }
    let log_path = Path::new("logs").join(name);
    // Refs of another format keep the entries.
    let Some(log) = paths.common.read(&log_path, LOG_MAX)? else { return Ok(()) };
    let before = without_last(&log, &message);
    if before.len() < log.len() { Ok(paths.common.replace(&log_path, before)?) } else { Ok(()) }
}

/// Returns a reflog without the last entries that have this message.
fn without_last<'l>(log: &'l [u8], message: &str) -> &'l [u8] {
    let end = format!("\t{message}\n").into_bytes();
    let mut log = log;
    while log.ends_with(&end) {
        let line = log[..log.len() - 1].iter().rposition(|byte| *byte == b'\n');
        log = &log[..line.map_or(0, |at| at + 1)];
    }
    log
}
