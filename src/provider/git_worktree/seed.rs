//! Brings directories such as `node_modules` into new worktrees. One command populates each of them for all worktrees.
//!
//! The command runs in the first worktree whose key is new. The directory is then copied to the state directory, and from
//! there to the other worktrees of the run, and of later runs. Nothing is ever linked.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::index::{self, Index};
use super::paths::WorktreePaths;
use super::{PlannedSeed, Worktree, copy, files, worktree};
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::files::tree_copy::{Failure, Listing};
use crate::host::occupants::{MARK, RUN};
use crate::host::process::Process;
use crate::host::seeds::{CompleteSeed, LockedSeed, Origin};
use crate::host::text::printable;
use crate::provider::{Error, Seeded, Task};

/// Maximum number of worktrees to which a file is copied at the same time.
const AT_ONCE: usize = 32;

/// Receives each seeded directory, with the position of its task.
type OnSeeded<'t> = &'t (dyn Fn(usize, Seeded) + Sync);

/// Failure, with the position of its task.
type Failed = (usize, Error);

/// Worktree that gets a seeded directory.
struct Member<'t> {
    /// Position of the task.
    at: usize,
    task: &'t Task<'t>,
    worktree: &'t Worktree,
    seed: &'t PlannedSeed,
    on_seeded: OnSeeded<'t>,
}

/// Brings all seeded directories into new worktrees, in the order of each worktree's seeds.
pub(super) fn bring(tasks: &[Task<'_>], on_seeded: OnSeeded<'_>) -> Vec<Failed> {
    let worktrees: Result<Vec<Worktree>, Failed> =
        tasks.iter().enumerate().map(|(at, task)| worktree(task).map_err(|error| (at, error))).collect();
    let worktrees = match worktrees {
        Ok(worktrees) => worktrees,
        Err(failed) => return vec![failed],
    };
    let seeds = worktrees.iter().map(|worktree| worktree.seeds.len()).max().unwrap_or(0);
    for number in 0..seeds {
        let mut groups: BTreeMap<(&Path, &str), Vec<Member<'_>>> = BTreeMap::new();
        for (at, (task, worktree)) in tasks.iter().zip(&worktrees).enumerate() {
            let Some(seed) = worktree.seeds.get(number) else { continue };
            // Without a digest, the worktree is older than its seed.
            let Some(digest) = seed.digest.as_deref() else { continue };
            let member = Member { at, task, worktree, seed, on_seeded };
            groups.entry((&worktree.repo_root, digest)).or_default().push(member);
        }
        let failed = side_by_side(&groups.into_values().collect::<Vec<_>>());
        if !failed.is_empty() {
            return failed;
        }
    }
    Vec::new()
}

/// Brings a directory to each group, until one fails.
///
/// Each thread has one lock and waits for none, or waits for one lock. A thread of rayon could begin to wait for a second
/// seed while it copies the first, and another run could wait the other way round.
fn side_by_side(groups: &[Vec<Member<'_>>]) -> Vec<Failed> {
    let jobs = groups.iter().flatten().map(|member| member.task.host.jobs.get()).next().unwrap_or(1);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = bring_to(group) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                next.store(groups.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..jobs.min(groups.len())).map(|_| scope.spawn(work)).collect();
        work();
        drop(others);
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Brings one directory to a group, whose first member runs the command unless the seed exists.
fn bring_to(group: &[Member<'_>]) -> Result<(), Failed> {
    let Some(first) = group.first() else { return Ok(()) };
    let Some(digest) = &first.seed.digest else { return Ok(()) };
    let of_first = |error| (first.at, error);
    let paths = first.paths().map_err(of_first)?;
    crashpoint!("seed.lock");
    let cancel = &first.task.host.cancel;
    let locked = LockedSeed::lock(first.task.host, paths.common.path(), digest, cancel);
    let locked = locked.map_err(|error| of_first(error.into()))?.ok_or(of_first(Error::Interrupted))?;
    let complete = || locked.complete().map_err(|error| of_first(error.into()));
    let (seed, others) = if let Some(seed) = complete()? {
        (seed, group)
    } else {
        first.make(&paths, &locked, digest).map_err(of_first)?;
        let made = complete()?.ok_or_else(|| {
            let why = format!("another process changed the seed of `{}` while it was made", first.seed.path);
            of_first(Error::Refused(why))
        })?;
        first.report(&made, false, made.seed.shared_bytes);
        (made, &group[1..])
    };
    for batch in others.chunks(AT_ONCE) {
        copy_to(batch, &seed)?;
    }
    locked.note_use(&seed).map_err(|error| of_first(error.into()))
}

/// Copies a seed to worktrees.
fn copy_to(members: &[Member<'_>], seed: &CompleteSeed) -> Result<(), Failed> {
    let mut all_paths = Vec::new();
    let mut roots = Vec::new();
    let mut latest = i64::MAX;
    for member in members {
        let opened = member.paths().and_then(|paths| {
            member.hide(&paths)?;
            latest = latest.min(member.oldest(&paths)?);
            Ok((member.create(&paths)?, paths))
        });
        let (root, paths) = opened.map_err(|error| (member.at, error))?;
        roots.push(root);
        all_paths.push(paths);
    }
    crashpoint!("seed.copy");
    let worktrees: Vec<&Path> = all_paths.iter().map(|paths| paths.worktree.as_path()).collect();
    // A build tool takes a result that is newer than a source for the result of this source.
    let shared = seed.copy(&roots, &worktrees, latest.saturating_sub(1), &members[0].task.host.cancel);
    let shared = shared.map_err(|(at, failure)| (members[at.unwrap_or(0)].at, Error::from(failure)))?;
    crashpoint!("seed.copied");
    for member in members {
        member.report(seed, true, shared);
    }
    Ok(())
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Cancelled => Self::Interrupted,
            Failure::File(error) => error.into(),
        }
    }
}

impl Member<'_> {
    fn paths(&self) -> Result<WorktreePaths, Error> {
        WorktreePaths::new(self.task, self.worktree)
    }

    /// Returns the path of the seeded directory, relative to the worktree.
    fn below(&self) -> PathBuf {
        self.worktree.in_working_directory(&self.seed.path)
    }

    fn hide(&self, paths: &WorktreePaths) -> Result<(), Error> {
        files::hide(self.task, self.worktree, paths)
    }

    fn report(&self, complete: &CompleteSeed, is_copied: bool, shared_bytes: u64) {
        let (path, seed) = (self.seed.path.clone(), &complete.seed);
        let seeded = Seeded { path, is_copied, files: seed.files, bytes: seed.bytes, shared_bytes };
        (self.on_seeded)(self.at, seeded);
    }

    /// Creates the empty directory in a worktree.
    fn create(&self, paths: &WorktreePaths) -> Result<Root, Error> {
        let (top, below) = (paths.open()?, self.below());
        let root = top.create_directories(&below)?;
        if !root.names()?.is_empty() {
            return Err(Error::Refused(format!(
                "`{}` is not empty: seed another directory, or do not create it with `git-hooks`",
                self.seed.path
            )));
        }
        Ok(root)
    }

    /// Returns the earliest time of a tracked file in the worktree, in seconds.
    fn oldest(&self, paths: &WorktreePaths) -> Result<i64, Error> {
        let bytes = paths.common.read(&paths.admin_directory.join("index"), index::MAX)?.unwrap_or_default();
        let oldest = Index::read(&bytes, self.worktree.commit.len() / 2).and_then(|index| index.oldest());
        // The files of an index that cannot be read are not older than the start of this run, in which they were written.
        Ok(oldest.unwrap_or_else(copy::modified))
    }

    /// Runs the command in this worktree, and makes the seed of its directory.
    fn make(&self, paths: &WorktreePaths, locked: &LockedSeed, digest: &str) -> Result<(), Error> {
        self.hide(paths)?;
        let directory = self.run(paths, locked)?;
        self.check_links(paths, &directory)?;
        let (path, worktree) = (self.seed.path.as_str(), paths.worktree.as_path());
        let origin = Origin { path, command: self.seed.words(), worktree };
        Ok(locked.make(paths.common.path(), digest, origin, &directory, &self.task.host.cancel)?)
    }

    /// Refuses links that would lead from another worktree into this one, or out of the other one.
    fn check_links(&self, paths: &WorktreePaths, directory: &Root) -> Result<(), Error> {
        let below = self.below();
        for (link, target) in Listing::read(directory)?.links(directory)? {
            let path = below.join(&link);
            let fault = if target.starts_with(&paths.worktree) {
                "into the worktree of this session"
            } else if target.is_relative() && leaves(&path, &target) {
                "relative to its own path, out of the worktree"
            } else {
                continue;
            };
            return Err(Error::Refused(format!(
                "`{}` is a link to {}, {fault}, so that a copy of `{}` in another session would not work; make the \
                 command create links that are relative and stay in the worktree",
                printable(&path.to_string_lossy()),
                printable(&target.to_string_lossy()),
                self.seed.path
            )));
        }
        Ok(())
    }

    /// Runs the command, and returns the directory that it has populated.
    fn run(&self, paths: &WorktreePaths, locked: &LockedSeed) -> Result<Root, Error> {
        let below = self.worktree.in_working_directory(self.seed.directory.as_deref().unwrap_or_default());
        let missing = || Error::Refused(format!("the session has no directory `{}`", below.display()));
        let top = paths.open()?;
        let directory = top.directory(&below)?.ok_or_else(missing)?;
        let words = self.seed.words();
        let Some((program, arguments)) = words.split_first() else { return Err(missing()) };
        let (log, log_path) = locked.create_log()?;
        crashpoint!("seed.run");
        // The mark is that of `setup`: a process that the command leaves running ends with a rolled back run.
        let mark = (MARK.into(), format!("setup:{}", self.task.session).into());
        let inherited = self.task.host.environment_in(directory.path()).filter(|(name, _)| name != RUN);
        Process::new(program)
            .args(arguments)
            .current_dir(directory.path())
            .envs(inherited.chain([mark]))
            .cancel(&self.task.host.cancel)
            .log(log)
            .run()
            .map_err(|error| {
                let log = printable(&log_path.to_string_lossy());
                Error::Refused(format!("{error}\n  complete log: {log}"))
            })?;
        crashpoint!("seed.ran");
        top.directory(&self.below())?.ok_or_else(|| {
            Error::Refused(format!(
                "`{}` has succeeded, but has not created the directory `{}`",
                printable(&self.seed.shown()),
                self.seed.path
            ))
        })
    }
}

/// Returns whether a relative link at a path in the worktree leads out of the worktree, by its names only.
fn leaves(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_leaves_the_worktree_when_it_climbs_above_its_top() {
        for (link, target, expected) in [
            ("node_modules/a", "../packages/a", false),
            ("node_modules/.bin/a", "../a/cli.js", false),
            ("node_modules/a", "../../other", true),
            ("node_modules/@s/a", "../../../b/../..", true),
            ("node_modules/a", "b/../../..", true),
        ] {
            assert_eq!(leaves(Path::new(link), Path::new(target)), expected, "{link} -> {target}");
        }
    }
}
