//! Populates registered worktrees with the files of their commit, and runs the repository's hook if that is requested.

use std::ffi::OsStr;
use std::mem;
use std::path::Path;

use rayon::prelude::*;

use super::copy::{AT_ONCE, Destinations, Failed, PartialCopy, Source};
use super::donor::{CheckoutSource, Recipient};
use super::paths::WorktreePaths;
use super::{Worktree, worktree};
use crate::host::files::Root;
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// Populates worktrees of one group key: together if Git certainly makes all of them alike, else each separately.
pub(super) fn populate(tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
    let mut worktrees = Vec::with_capacity(tasks.len());
    for (at, task) in tasks.iter().enumerate() {
        match worktree(task) {
            Ok(worktree) => worktrees.push((task, worktree)),
            Err(error) => return vec![(at, error)],
        }
    }
    let Some(((task, worktree), others)) = worktrees.split_first() else { return Vec::new() };
    match fill_together(task, worktree, others) {
        Ok(filled) => {
            by_themselves(&others[filled..]).into_iter().map(|(at, error)| (1 + filled + at, error)).collect()
        }
        Err((at, error)) => vec![(at.map_or(0, |at| at + 1), error)],
    }
}

/// Populates a worktree, and others as far as Git certainly makes them alike. Returns the number of populated others.
///
/// The files of the repository's own work tree are read once, and written into all worktrees. Git writes the missing
/// files into the first worktree, from which the others get them.
fn fill_together(
    task: &Task<'_>,
    worktree: &Worktree,
    others: &[(&Task<'_>, Worktree)],
) -> Result<usize, Failed> {
    let own = |error| (None, error);
    let paths = WorktreePaths::new(task, worktree).map_err(own)?;
    let top = paths.open().map_err(own)?;
    let admin = paths.admin_directory_path();
    let recipient = Recipient {
        git: &Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock),
        commit: &worktree.commit,
        top: &top,
        index: &admin.join("index"),
        cancel: &task.host.cancel,
    };
    let source = CheckoutSource::find(&recipient, worktree, &paths, others.is_empty()).map_err(own)?;
    let alike = if source.settings.are_same_for(worktree, others) { others } else { &[] };
    let together = &alike[..alike.len().min(AT_ONCE)];
    let destinations = Destinations::open(together)?;
    let partial = source.give(&recipient, &destinations)?;
    write(recipient.git, recipient.commit, partial.as_ref()).map_err(own)?;
    check_target(worktree, &paths.open().map_err(own)?).map_err(own)?;
    task.on_populated.notify();

    let mut filled = 0;
    if let Some(partial) = partial {
        complete(task, worktree, &destinations, partial)?;
        filled = together.len();
    }
    if filled < alike.len() {
        filled += copy_to(task, worktree, &alike[filled..])
            .map_err(|(at, error)| (at.map(|at| filled + at), error))?;
    }
    Ok(filled)
}

/// Completes worktrees that have the files of the donor: the first worktree gives the rest.
fn complete(
    task: &Task<'_>,
    worktree: &Worktree,
    destinations: &Destinations<'_>,
    mut partial: PartialCopy<'_>,
) -> Result<(), Failed> {
    if partial.is_complete() {
        return destinations.finish(partial.others, partial.index_mode);
    }
    let own = |error| (None, error);
    let is_written = |at| partial.missing.contains(&at);
    let is_unchanged = |source: &Source| source.lists(&partial.tree) && source.is_unchanged(is_written);
    if let Some(source) = Source::open(task, worktree).map_err(own)?.filter(is_unchanged) {
        return source.set_back(is_written).map_err(own)?.complete(destinations, partial);
    }
    // The files of the first worktree are not certainly as Git wrote them.
    let targets = mem::take(&mut partial.others);
    destinations.finish_with(targets, partial.index_mode, |task, paths| {
        let admin = paths.admin_directory_path();
        let git = Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock);
        write(&git, &worktree.commit, Some(&partial))
    })
}

/// Copies a worktree to `others` and returns the number of populated ones: 0 if the files of the worktree are not
/// certainly as Git wrote them.
fn copy_to(task: &Task<'_>, worktree: &Worktree, others: &[(&Task<'_>, Worktree)]) -> Result<usize, Failed> {
    let source = Source::open(task, worktree).map_err(|error| (None, error))?;
    let Some(source) = source.filter(|source| source.is_unchanged(|_| true)) else { return Ok(0) };
    let mut filled = 0;
    for batch in others.chunks(AT_ONCE) {
        let copied = Destinations::open(batch).and_then(|destinations| source.copy(&destinations));
        copied.map_err(|(at, error)| (at.map(|at| filled + at), error))?;
        filled += batch.len();
    }
    Ok(filled)
}

fn by_themselves(worktrees: &[(&Task<'_>, Worktree)]) -> Vec<(usize, Error)> {
    let filled =
        worktrees.par_iter().enumerate().map(|(at, (task, worktree))| (at, populate_one(task, worktree)));
    filled.filter_map(|(at, filled)| Some((at, filled.err()?))).collect()
}

/// Populates one worktree.
pub(super) fn populate_one(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    fill_together(task, worktree, &[]).map(drop).map_err(|(_, error)| error)
}

/// Populates an empty directory with the files of the commit, and writes its index. Files that the repository's own
/// work tree has are copied, and Git writes the rest. Returns whether Git has written a position, as a function.
pub(super) fn check_out(
    recipient: &Recipient<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
) -> Result<impl Fn(usize) -> bool + use<>, Error> {
    let source = CheckoutSource::find(recipient, worktree, paths, true)?;
    let others = Destinations::none();
    let partial = source.give(recipient, &others).map_err(|(_, error)| error)?;
    write(recipient.git, recipient.commit, partial.as_ref())?;
    let missing = partial.map(|partial| partial.missing);
    Ok(move |at| missing.as_ref().is_none_or(|missing| missing.contains(&at)))
}

/// Makes Git write the missing files of a commit, unless none are missing.
///
/// Takes no lock that worktrees share; `reset --hard` and `checkout` take the lock of packed refs.
fn write(git: &Git<'_>, commit: &str, partial: Option<&PartialCopy<'_>>) -> Result<(), Error> {
    match partial {
        Some(partial) if partial.is_complete() => return Ok(()),
        Some(partial) => match partial.few_missing() {
            Some(names) => {
                let how = ["checkout-index", "--index", "--force", "--"].map(OsStr::new);
                git.run(how.into_iter().chain(names))?
            }
            None => git.run(["read-tree", "--reset", "-u", commit])?,
        },
        None => git.run(["read-tree", "-m", "-u", commit])?,
    };
    Ok(())
}

/// Checks that a checkout has the directory in which its session is to work.
pub(super) fn check_target(worktree: &Worktree, checkout: &Root) -> Result<(), Error> {
    let Some(target) = &worktree.target_path else { return Ok(()) };
    if checkout.directory(Path::new(target))?.is_some() {
        return Ok(());
    }
    let path = checkout.path().display();
    Err(Error::Refused(format!("target-path {target:?} is not a directory of {path} after its checkout")))
}

/// Runs the repository's post-checkout hook in the worktree, as `git worktree add` does. A hook that fails is an error.
///
/// The hook has the same deadline as any other call of Git.
pub(super) fn run_hook(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    if !worktree.git_hooks {
        return Ok(());
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let zero = "0".repeat(worktree.commit.len());
    let admin = paths.admin_directory_path();
    let git = Git::open(task.host, &admin, Some(&paths.worktree));
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
