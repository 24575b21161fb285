//! Fills a registered worktree with the files of its commit, and runs the repository's hook if that was asked for.

use std::path::Path;

use rayon::prelude::*;

use super::copy::{Failed, Places, Source};
use super::donor::{Left, Recipient};
use super::site::Site;
use super::{Checkout, Worktree, worktree};
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// Fills worktrees of one basis: the first by what there is of it and by git, the others as copies of it, or like the
/// first where a copy might differ from what git would make.
pub(super) fn fill(tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
    let Some((first, others)) = tasks.split_first() else { return Vec::new() };
    let mut copies = Vec::with_capacity(others.len());
    for (at, task) in others.iter().enumerate() {
        match worktree(task) {
            Ok(worktree) => copies.push((task, worktree)),
            Err(error) => return vec![(at + 1, error)],
        }
    }
    match worktree(first)
        .map_err(|error| (None, error))
        .and_then(|worktree| fill_together(first, &worktree, &copies))
    {
        Ok(true) => Vec::new(),
        Ok(false) => by_themselves(&copies).into_iter().map(|(at, error)| (at + 1, error)).collect(),
        Err((at, error)) => vec![(at.map_or(0, |at| at + 1), error)],
    }
}

/// Fills a worktree, and copies it to others; `false` where the others are empty still, since a copy might differ from
/// what git would make.
fn fill_together(
    task: &Task<'_>,
    worktree: &Worktree,
    others: &[(&Task<'_>, Worktree)],
) -> Result<bool, Failed> {
    let own = |error| (None, error);
    let site = Site::of(task, worktree).map_err(own)?;
    let top = site.standing().map_err(own)?;
    let entry = site.entry_path();
    let recipient = Recipient {
        git: &Git::of(task.host, &entry, Some(&site.worktree)).holding(task.lock),
        commit: &worktree.commit,
        top: &top,
        index: &entry.join("index"),
        cancel: &task.host.cancel,
    };
    let (left, alike) = rayon::join(
        || give(&recipient, worktree, &site),
        || !others.is_empty() && are_alike(recipient.git, worktree, others),
    );
    let left = left.map_err(own)?;
    let places = if alike { Places::of(others)? } else { Places::none() };
    // git writes on one core, if it has anything to write.
    let (written, made) =
        rayon::join(|| write(&recipient, &left), || left.tree().map(|tree| places.make_directories(tree)));
    written.map_err(own)?;
    made.transpose()?;
    check_target(worktree, &site.standing().map_err(own)?).map_err(own)?;
    task.filled.tell();
    let source = if alike { Source::of(task, worktree).map_err(own)? } else { None };
    let Some(source) = source else { return Ok(false) };
    if left.tree().is_none() {
        places.make_directories(source.tree())?;
    }
    source.copy(&places)?;
    Ok(true)
}

fn by_themselves(tasks: &[(&Task<'_>, Worktree)]) -> Vec<(usize, Error)> {
    let populated = tasks.par_iter().enumerate().map(|(at, (task, worktree))| (at, populate(task, worktree)));
    populated.filter_map(|(at, populated)| Some((at, populated.err()?))).collect()
}

/// Tells whether git certainly writes the same into all of these; `git` is that of the first.
///
/// Configuration can depend on a worktree's entry or branch (`includeIf`), and with it line ends and filters.
fn are_alike(git: &Git<'_>, worktree: &Worktree, others: &[(&Task<'_>, Worktree)]) -> bool {
    let same = |other: &Worktree| {
        (&other.commit, &other.target_path, other.checkout)
            == (&worktree.commit, &worktree.target_path, worktree.checkout)
    };
    if !others.iter().all(|(_, other)| same(other)) {
        return false;
    }
    let listed = git.output(["config", "--null", "--name-only", "--get-regexp", r"^includeif\."]);
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

/// Fills one worktree.
pub(super) fn populate(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    fill_together(task, worktree, &[]).map(drop).map_err(|(_, error)| error)
}

/// Fills an empty directory with the files of the commit, and writes its index: what the repository's own work tree has
/// of them is copied, the rest is written by git.
pub(super) fn check_out(recipient: &Recipient<'_>, worktree: &Worktree, site: &Site) -> Result<(), Error> {
    write(recipient, &give(recipient, worktree, site)?)
}

/// Copies what there is of the commit; nothing where there is no work tree, and of a part only git knows what is in it.
fn give(recipient: &Recipient<'_>, worktree: &Worktree, site: &Site) -> Result<Left, Error> {
    let is_bare = site.common.path() == site.repo_root;
    if is_bare || worktree.checkout == Checkout::Git || worktree.target_path.is_some() {
        return Ok(Left::All);
    }
    recipient.take(&Root::open(&site.repo_root)?)
}

/// Has git write what is left. Takes no lock that worktrees share; `reset --hard` and `checkout` take that of packed
/// refs.
fn write(recipient: &Recipient<'_>, left: &Left) -> Result<(), Error> {
    let how = match left {
        Left::Nothing(_) => return Ok(()),
        Left::Part(_) => "--reset",
        Left::All => "-m",
    };
    recipient.git.run(["read-tree", how, "-u", recipient.commit])?;
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
