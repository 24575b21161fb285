//! What releasing a worktree would lose.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::site::Site;
use super::{Worktree, files};
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// The files of an entry that say that git stopped in the middle of something, and of what.
const OPERATIONS: [(&str, &str); 6] = [
    ("MERGE_HEAD", "a merge"),
    ("rebase-merge", "a rebase"),
    ("rebase-apply", "a rebase or `git am`"),
    ("CHERRY_PICK_HEAD", "a cherry-pick"),
    ("REVERT_HEAD", "a revert"),
    ("BISECT_LOG", "a bisection"),
];

/// What would be lost, one line each; empty where nothing, and where there is neither directory nor entry.
///
/// What cannot be found out counts as lost. Ignored files do not count, nor do files that `copy` and `link` brought and
/// that still are what the workspace has.
pub(super) fn losses(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<String>, Error> {
    let site = Site::of(task, worktree)?;
    let path = site.worktree.display();
    let Some(directory) = site.directory()? else {
        // The files are lost already; commits may still be there, if the entry can be read at all.
        let commits = unreachable_commits(task, &site).unwrap_or(0);
        return Ok(unreachable(&site, commits).into_iter().collect());
    };
    let Some(entry) = site.common.directory(&site.entry)? else {
        let names = directory.names()?;
        let files = names.iter().filter(|name| *name != ".git").count();
        return Ok(if files == 0 {
            Vec::new()
        } else {
            vec![format!(
                "{path} holds {files} files or directories, and its entry in the repository is gone"
            )]
        });
    };
    let mut losses = Vec::new();
    match changes(task, worktree, &site) {
        Ok(None) => {}
        Ok(Some(counted)) => losses.push(format!("{path} has uncommitted changes: {counted}")),
        Err(error) => losses.push(format!("the changes in {path} cannot be counted: {error}")),
    }
    let names = entry.names()?;
    for (name, operation) in OPERATIONS {
        if names.contains(OsStr::new(name)) {
            losses.push(format!("{path} is in the middle of {operation}"));
        }
    }
    if names.contains(OsStr::new("modules")) {
        losses.push(format!("{path} has submodules checked out, whose commits may be nowhere else"));
    }
    match unreachable_commits(task, &site) {
        Ok(commits) => losses.extend(unreachable(&site, commits)),
        Err(error) => losses.push(format!("HEAD of {path} cannot be read: {error}")),
    }
    Ok(losses)
}

fn unreachable(site: &Site, commits: u64) -> Option<String> {
    let path = site.worktree.display();
    match commits {
        0 => None,
        1 => Some(format!("HEAD of {path} has 1 commit that no ref reaches")),
        _ => Some(format!("HEAD of {path} has {commits} commits that no ref reaches")),
    }
}

fn changes(task: &Task<'_>, worktree: &Worktree, site: &Site) -> Result<Option<String>, Error> {
    let entry = site.entry_path();
    let git = Git::of(task.host, &entry, Some(&site.worktree)).holding(task.lock);
    let status = git.run([
        "status",
        "--porcelain=v1",
        "-z",
        "--untracked-files=all",
        "--ignore-submodules=none",
        "--no-renames",
    ])?;
    let (mut modified, mut staged, mut untracked) = (0_usize, 0_usize, 0_usize);
    for change in status.split(|byte| *byte == 0) {
        match *change {
            [b'?', b'?', b' ', ref path @ ..] => {
                let path = Path::new(OsStr::from_bytes(path));
                untracked += usize::from(!files::is_the_workspaces(worktree, site, path));
            }
            [index, tree, b' ', ..] => {
                staged += usize::from(index != b' ');
                modified += usize::from(tree != b' ');
            }
            _ => {}
        }
    }
    let counts: Vec<String> = [(modified, "modified"), (staged, "staged"), (untracked, "untracked")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    Ok((!counts.is_empty()).then(|| counts.join(", ")))
}

/// How many commits HEAD has that no ref of the repository reaches. HEADs of other worktrees do not count, as `--all`
/// would have it: they move on.
fn unreachable_commits(task: &Task<'_>, site: &Site) -> Result<u64, Error> {
    let head = Git::of(task.host, &site.entry_path(), None).holding(task.lock).run([
        "rev-parse",
        "--verify",
        "--end-of-options",
        "HEAD^{commit}",
    ])?;
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    let count = Git::of(task.host, site.common.path(), None).holding(task.lock).run([
        "rev-list",
        "--count",
        &head,
        "--not",
        "--glob=refs/*",
    ])?;
    let count = String::from_utf8_lossy(&count);
    count.trim_end().parse().map_err(|_| Error::Refused(format!("git counts {:?} commits", count.trim_end())))
}
