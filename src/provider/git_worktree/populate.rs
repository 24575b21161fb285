//! Fills a registered worktree with the files of its commit, and runs the repository's hook if that was asked for.

use std::path::Path;

use rayon::prelude::*;

use super::copy::Source;
use super::donor::{Left, Recipient};
use super::site::Site;
use super::{Checkout, Worktree, worktree};
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// Fills worktrees of one basis: the first by git, the others as copies of it, or by git too where a copy might differ
/// from what git would make.
pub(super) fn fill(tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
    let Some((first, others)) = tasks.split_first() else { return Vec::new() };
    let mut copies = Vec::with_capacity(others.len());
    for (at, task) in others.iter().enumerate() {
        match worktree(task) {
            Ok(worktree) => copies.push((task, worktree)),
            Err(error) => return vec![(at + 1, error)],
        }
    }
    let failed = match source(first, &copies) {
        Ok(Some(source)) => source.copy(&copies),
        Ok(None) => by_git(&copies),
        Err(error) => return vec![(0, error)],
    };
    failed.into_iter().map(|(at, error)| (at + 1, error)).collect()
}

/// Has git fill the first worktree; `None` where the others are not to be copied from it.
fn source(first: &Task<'_>, others: &[(&Task<'_>, Worktree)]) -> Result<Option<Source>, Error> {
    let worktree = worktree(first)?;
    let (populated, alike) = rayon::join(
        || populate(first, &worktree),
        || !others.is_empty() && are_alike(first, &worktree, others),
    );
    populated?;
    if alike { Source::of(first, &worktree) } else { Ok(None) }
}

fn by_git(copies: &[(&Task<'_>, Worktree)]) -> Vec<(usize, Error)> {
    let populated =
        copies.par_iter().enumerate().map(|(at, (task, worktree))| (at, populate(task, worktree)));
    populated.filter_map(|(at, populated)| Some((at, populated.err()?))).collect()
}

/// Tells whether git certainly writes the same into all of these.
///
/// Configuration can depend on a worktree's entry or branch (`includeIf`), and with it line ends and filters.
fn are_alike(first: &Task<'_>, worktree: &Worktree, others: &[(&Task<'_>, Worktree)]) -> bool {
    let same = |other: &Worktree| {
        (&other.commit, &other.target_path, other.checkout)
            == (&worktree.commit, &worktree.target_path, worktree.checkout)
    };
    if !others.iter().all(|(_, other)| same(other)) {
        return false;
    }
    let Ok(site) = Site::of(first, worktree) else { return false };
    let listed = Git::of(first.host, &site.entry_path(), Some(&site.worktree)).output([
        "config",
        "--null",
        "--name-only",
        "--get-regexp",
        r"^includeif\.",
    ]);
    let Ok(listed) = listed else { return false };
    // With 1 it says that there are none.
    if !matches!(listed.status.code(), Some(0 | 1)) {
        return false;
    }
    let on_branches = others.iter().any(|(_, other)| other.branch.is_some()) || worktree.branch.is_some();
    let listed = listed.stdout.split(|byte| *byte == 0).filter(|key| !key.is_empty());
    listed.map(|key| String::from_utf8_lossy(key)).all(|key| holds_of_all(&key, on_branches))
}

/// Tells whether the condition in the key of an `includeIf` holds of all worktrees of a repository, or of none.
fn holds_of_all(key: &str, on_branches: bool) -> bool {
    let condition = key.get("includeif.".len()..).and_then(|condition| condition.split_once(':'));
    match condition {
        Some(("onbranch", _)) => !on_branches,
        Some(("hasconfig", _)) => true,
        // A directory above all entries, by its path.
        Some(("gitdir" | "gitdir/i", pattern)) => {
            (pattern.starts_with('/') || pattern.starts_with("~/"))
                && !pattern.contains(['*', '?', '[', '\\'])
                && !pattern.to_ascii_lowercase().contains("worktrees")
        }
        _ => false,
    }
}

/// Checks the commit out.
pub(super) fn populate(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let site = Site::of(task, worktree)?;
    let gone = || Error::Refused(format!("{} is gone", site.worktree.display()));
    let directory = site.directory()?.ok_or_else(gone)?;
    let entry = site.entry_path();
    let git = Git::of(task.host, &entry, Some(&site.worktree)).holding(task.lock);
    check_out(task, worktree, &site, &git, &directory, &entry.join("index"))?;
    let directory = site.directory()?.ok_or_else(gone)?;
    check_target(worktree, &directory)?;
    task.filled.tell();
    Ok(())
}

/// Fills an empty directory with the files of the commit, and writes its index: what the repository's own work tree has
/// of them is copied, the rest is written by git.
///
/// Takes no lock that worktrees share; `reset --hard` and `checkout` take that of packed refs.
pub(super) fn check_out(
    task: &Task<'_>,
    worktree: &Worktree,
    site: &Site,
    git: &Git<'_>,
    directory: &Root,
    index: &Path,
) -> Result<(), Error> {
    let commit = worktree.commit.as_str();
    // A bare repository has no work tree.
    let has_donor = site.common.path() != site.repo_root;
    let left = if has_donor && worktree.checkout != Checkout::Git {
        let recipient = Recipient { git, commit, top: directory, index, cancel: &task.host.cancel };
        recipient.take(&Root::open(&site.repo_root)?)?
    } else {
        Left::All
    };
    match left {
        Left::Nothing => {}
        Left::Part => drop(git.run(["read-tree", "--reset", "-u", commit])?),
        Left::All => drop(git.run(["read-tree", "-m", "-u", commit])?),
    }
    Ok(())
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
    let entry = site.entry_path();
    let git = Git::of(task.host, &entry, Some(&site.worktree));
    git.holding(task.lock).with_hooks(true).run([
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
