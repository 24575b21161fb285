//! Reads the commits and changed files of one session.

use std::str;

use super::landed::landed;
use super::{Commit, Error, File, FileChange, Work};
use crate::host::git::Git;
use crate::host::process;
use crate::provider::git_worktree::Worktree;

/// Returns the commit that a ref names.
pub(super) fn resolve(git: &Git<'_>, name: &str) -> Result<String, Error> {
    let commit = format!("{name}^{{commit}}");
    let found = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", commit.as_str()])?;
    let commit = str::from_utf8(found.stdout.trim_ascii()).unwrap_or_default();
    if commit.is_empty() { Err(Error::NoCommit(name.to_owned())) } else { Ok(commit.to_owned()) }
}

/// Returns the commits of `head` that `target` does not have, and the changed files. An error is one line.
pub(super) fn work(
    git: &Git<'_>,
    merges: &Git<'_>,
    worktree: &Worktree,
    head: &str,
    target: &str,
) -> Result<Work, String> {
    let error = |error: process::Error| error.to_string();
    let found = git.output(["merge-base", head, target]).map_err(error)?;
    let merge_base = str::from_utf8(found.stdout.trim_ascii()).unwrap_or_default().to_owned();
    if merge_base.is_empty() {
        return Err(format!("{head} and {target} have no common commit"));
    }
    let (commits, files) = if merge_base == head {
        (Vec::new(), Vec::new())
    } else {
        (commits(git, head, target).map_err(error)?, files(git, &merge_base, head).map_err(error)?)
    };
    let mut work = Work { head: head.to_owned(), merge_base, commits, files, landed: None };
    work.landed = landed(git, merges, worktree, &work, target).map_err(error)?;
    Ok(work)
}

fn commits(git: &Git<'_>, head: &str, target: &str) -> Result<Vec<Commit>, process::Error> {
    let range = format!("{target}..{head}");
    let printed = git.run(["log", "-z", "--encoding=UTF-8", "--format=%H %s", range.as_str(), "--"])?;
    let lines = printed.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    let commit = |line| {
        let line = String::from_utf8_lossy(line);
        let (id, subject) = line.split_once(' ').unwrap_or((&line, ""));
        Commit { id: id.to_owned(), subject: subject.to_owned() }
    };
    Ok(lines.map(commit).collect())
}

/// Returns the files that differ between two commits.
fn files(git: &Git<'_>, from: &str, to: &str) -> Result<Vec<File>, process::Error> {
    let printed = git.run([
        "diff-tree",
        "-r",
        "-z",
        "--raw",
        "--numstat",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        from,
        to,
        "--",
    ])?;
    // First `:MODE MODE ID ID STATUS` and the path of each file, then `ADDED DELETED PATH`.
    let mut fields = printed.split(|byte| *byte == 0).filter(|field| !field.is_empty()).peekable();
    let mut changes = Vec::new();
    while let Some(raw) = fields.next_if(|field| field.starts_with(b":")) {
        fields.next();
        changes.push(match raw.last() {
            Some(b'A') => FileChange::Added,
            Some(b'D') => FileChange::Deleted,
            _ => FileChange::Modified,
        });
    }
    let file = |(line, change): (&[u8], FileChange)| {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.splitn(3, '\t');
        // `-` for a binary file.
        let mut lines = || fields.next().and_then(|number| number.parse().ok());
        let (added, deleted) = (lines(), lines());
        File { path: fields.next().unwrap_or_default().to_owned(), change, added, deleted }
    };
    Ok(fields.zip(changes).map(file).collect())
}
