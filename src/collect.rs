//! Reports the results in worktrees of sessions: commits and changes, whether these have landed, and which conflict.
//!
//! Only reads. Git processes that would write objects (a merge in memory) write them to a temporary object directory.
//! Nothing is merged or fetched.

pub mod brought;
mod commits;
mod conflicts;
mod export;
mod landed;
mod scratch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use conflicts::{Conflict, MERGES_SINCE};
pub use export::{Exported, export};
pub use landed::Landed;

use self::commits::Compared;
use self::conflicts::Merges;
use self::landed::Candidate;
use self::scratch::Scratch;
use crate::host::Host;
use crate::host::git::Git;
use crate::host::git::bundle::BundleError;
use crate::host::{files, process};
use crate::name::SessionPath;
use crate::plan::Session;
use crate::provider;
use crate::provider::git_worktree::{self, Head, Worktree};

/// A worktree whose results are requested.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers name each field")]
pub struct Source<'a> {
    /// Path of the session.
    pub session: &'a SessionPath,
    /// Name of the worktree among the resources of the session.
    pub resource: &'a str,
    /// The worktree.
    pub worktree: Worktree,
}

impl<'a> Source<'a> {
    /// Returns the worktrees of a session.
    pub fn of_session(session: &'a Session) -> impl Iterator<Item = Self> {
        session.allocations_of(git_worktree::KIND).filter_map(|allocation| {
            let worktree = Worktree::from_allocation(allocation)?;
            Some(Self { session: &session.path, resource: allocation.name(), worktree })
        })
    }

    fn name(&self) -> WorktreeName {
        WorktreeName { session: self.session.clone(), resource: self.resource.to_owned() }
    }
}

/// Name of a worktree in a swarm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WorktreeName {
    /// Path of the session.
    pub session: SessionPath,
    /// Name of the worktree among the resources of the session.
    pub resource: String,
}

/// Results cannot be collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A ref names no commit.
    #[error("`{0}` names no commit")]
    NoCommit(String),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] process::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// A worktree cannot be read.
    #[error(transparent)]
    Worktree(#[from] provider::Error),
    /// A bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A glob is wrong.
    #[error(transparent)]
    Glob(#[from] globset::Error),
    /// The directory to write to has files.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
}

/// Results of worktrees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Collected {
    /// Results, in the order of the sources.
    pub results: Vec<Outcome>,
    /// Paths that were changed in several worktrees, in order, one repository after the other.
    pub overlaps: Vec<Overlap>,
    /// Pairs of worktrees of one repository that do not merge without conflict.
    pub conflicts: Vec<Conflict>,
    /// The reason why conflicts are unknown, one line; `null` if they are known.
    pub conflicts_unknown: Option<String>,
    /// Worktrees that have commits to merge, one repository after the other. In each, the order has few conflicts: those
    /// without a conflict among each other come first.
    pub merge_order: Vec<WorktreeName>,
}

/// Result of one worktree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Outcome {
    /// Path of the session.
    pub session: SessionPath,
    /// Name of the worktree among the resources of the session.
    pub resource: String,
    /// Name of the repository in the manifest; `null` for the workspace's own.
    pub repository: Option<String>,
    /// Branch that is checked out, without `refs/heads/`; `null` for a detached HEAD.
    pub branch: Option<String>,
    /// Ref that the worktree was made from.
    pub base_ref: String,
    /// `true` if the base ref names no commit any more. Without `--into`, the commits are then compared with the commit
    /// that the worktree was made from.
    pub is_base_gone: bool,
    /// Ref that the commits are compared with: `--into`, or the base ref.
    pub into: String,
    /// Commits and changes of the worktree; `null` if they are unknown.
    pub work: Option<Work>,
    /// The reason why they are unknown, one line.
    pub error: Option<String>,
}

/// Commits of a worktree beyond another ref.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Work {
    /// Commit that is checked out.
    pub head: String,
    /// Best common ancestor of `head` and the other ref. The changes begin here.
    pub merge_base: String,
    /// Commits that `head` has and the other ref does not, newest first.
    pub commits: Vec<Commit>,
    /// Files that differ between `merge_base` and `head`, by path. A renamed file is listed with both paths.
    pub files: Vec<File>,
    /// Way in which the other ref has these changes; `null` if it does not have them.
    pub landed: Option<Landed>,
    /// Paths in which a merge of `head` into the other ref conflicts.
    pub conflicts: Vec<String>,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Commit {
    /// Full id.
    pub id: String,
    /// First line of the message; bytes that are not UTF-8 are replaced.
    pub subject: String,
}

/// A changed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct File {
    /// Path in the repository; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Type of the change.
    pub change: FileChange,
    /// Number of added lines; `null` for a binary file.
    pub added: Option<u64>,
    /// Number of deleted lines; `null` for a binary file.
    pub deleted: Option<u64>,
}

/// Type of the change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FileChange {
    /// The file is new.
    Added,
    /// The file has other contents, another mode or another type.
    Modified,
    /// The file no longer exists.
    Deleted,
}

/// A path that was changed in several worktrees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Overlap {
    /// Name of the repository in the manifest; `null` for the workspace's own.
    pub repository: Option<String>,
    /// Path in the repository.
    pub path: String,
    /// Worktrees in which it was changed.
    pub worktrees: Vec<WorktreeName>,
}

impl Outcome {
    /// Returns the name of the worktree.
    pub fn name(&self) -> WorktreeName {
        WorktreeName { session: self.session.clone(), resource: self.resource.clone() }
    }

    /// Returns the work that is left to merge: commits beyond the other ref that have not landed in it.
    pub fn unmerged(&self) -> Option<&Work> {
        self.work.as_ref().filter(|work| work.landed.is_none() && !work.commits.is_empty())
    }
}

/// Collects the results of worktrees. `workspace` is an absolute path. Worktrees conflict only with others of the same
/// repository.
///
/// `into` names the ref in which commits may have landed, in each repository; without it, this is each worktree's base
/// ref. Worktrees that cannot be read have an [`Outcome::error`], and so have those of a repository that cannot be read or
/// lacks that ref.
///
/// # Errors
///
/// None of the repositories can be read and has `into`, or the state directory cannot be written to.
pub fn collect(
    host: &Host,
    workspace: &Path,
    sources: &[Source<'_>],
    into: Option<&str>,
) -> Result<Collected, Error> {
    collect_all(host, workspace, sources, None, into)
}

/// Collects the results of worktrees of other hosts, whose commits are in the repositories of this host. `heads` has the
/// HEAD of each worktree.
///
/// # Errors
///
/// Those of [`collect`].
pub fn collect_brought(
    host: &Host,
    workspace: &Path,
    sources: &[Source<'_>],
    heads: &[Result<Head, String>],
    into: Option<&str>,
) -> Result<Collected, Error> {
    collect_all(host, workspace, sources, Some(heads), into)
}

fn collect_all(
    host: &Host,
    workspace: &Path,
    sources: &[Source<'_>],
    heads: Option<&[Result<Head, String>]>,
    into: Option<&str>,
) -> Result<Collected, Error> {
    let worktrees: Vec<&Worktree> = sources.iter().map(|source| &source.worktree).collect();
    let mut all = Collected::default();
    let mut results: Vec<(usize, Outcome)> = Vec::with_capacity(sources.len());
    let (mut failed, mut is_any_read) = (None, false);
    for (directory, positions) in git_worktree::by_repository(workspace, &worktrees) {
        let of_repository: Vec<&Source<'_>> = positions.iter().map(|at| &sources[*at]).collect();
        let heads = heads.map(|heads| positions.iter().map(|at| heads[*at].clone()).collect::<Vec<_>>());
        match collect_in(host, workspace, &directory, &of_repository, heads.as_deref(), into) {
            Ok(collected) => {
                is_any_read = true;
                results.extend(positions.into_iter().zip(collected.results));
                all.overlaps.extend(collected.overlaps);
                all.conflicts.extend(collected.conflicts);
                all.conflicts_unknown = all.conflicts_unknown.or(collected.conflicts_unknown);
                all.merge_order.extend(collected.merge_order);
            }
            // The other repositories have results.
            Err(error @ (Error::NoCommit(_) | Error::Git(_))) => {
                let why = Some(format!("{error} in {}", directory.display()));
                let unread = of_repository.iter().map(|source| {
                    let outcome = Outcome::unknown(source, into);
                    Outcome { error: why.clone(), ..outcome }
                });
                results.extend(positions.into_iter().zip(unread));
                failed = failed.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = failed.filter(|_| !is_any_read) {
        return Err(error);
    }
    results.sort_by_key(|(at, _)| *at);
    all.results = results.into_iter().map(|(_, outcome)| outcome).collect();
    Ok(all)
}

impl Outcome {
    /// Returns a result without work.
    fn unknown(source: &Source<'_>, into: Option<&str>) -> Self {
        let Worktree { base_ref, repository, .. } = &source.worktree;
        Self {
            session: source.session.clone(),
            resource: source.resource.to_owned(),
            repository: repository.clone(),
            branch: None,
            base_ref: base_ref.clone(),
            is_base_gone: false,
            into: into.unwrap_or(base_ref).to_owned(),
            work: None,
            error: None,
        }
    }
}

/// Collects the results of worktrees of the repository that Git finds in `directory`.
fn collect_in(
    host: &Host,
    workspace: &Path,
    directory: &Path,
    sources: &[&Source<'_>],
    heads: Option<&[Result<Head, String>]>,
    into: Option<&str>,
) -> Result<Collected, Error> {
    let git = &Git::discover(host, directory);
    let target = into.map(|into| commits::resolve(git, into)).transpose()?;
    let worktrees: Vec<&Worktree> = sources.iter().map(|source| &source.worktree).collect();
    let progress = match heads {
        Some(heads) => git_worktree::progress_of(host, workspace, &worktrees, heads),
        None => git_worktree::progress(host, workspace, &worktrees),
    };
    let scratch = Scratch::new(host, git)?;
    let merges = Merges { host, git: scratch.git(git) };
    let mut compared = Vec::new();
    for progress in progress.iter().flatten() {
        let target = target.as_ref().unwrap_or(&progress.base).clone();
        compared.push(Compared { head: progress.head.clone(), target });
    }
    let mut works = commits::works(git, &compared);
    let made_from = sources.iter().zip(&progress).filter(|(_, progress)| progress.is_ok());
    let made_from = made_from.map(|(source, _)| source.worktree.commit.as_str());
    let candidates = works.iter_mut().zip(&compared).zip(made_from);
    let candidates = candidates.filter_map(|((work, Compared { target, .. }), made_from)| {
        Some(Candidate { work: work.as_mut().ok()?, made_from, target })
    });
    let landed = landed::find(git, &merges, candidates.collect());
    let mut works = works.into_iter();
    let results = sources.iter().zip(progress).map(|(source, progress)| {
        let mut outcome = Outcome::unknown(source, into);
        let work = match progress {
            Ok(progress) => {
                (outcome.branch, outcome.is_base_gone) = (progress.branch, progress.is_base_gone);
                works.next()
            }
            Err(error) => Some(Err(error)),
        };
        match work {
            Some(Ok(work)) => outcome.work = Some(work),
            Some(Err(error)) => outcome.error = Some(error),
            None => {}
        }
        outcome
    });
    let results: Vec<Outcome> = results.collect();
    let unmerged: Vec<Unmerged<'_>> = sources
        .iter()
        .zip(&results)
        .filter_map(|(source, result)| Some(Unmerged { source, work: result.unmerged()? }))
        .collect();
    let (conflicts, known) = conflicts::conflicts(&merges, &unmerged);
    scratch.remove()?;
    let conflicts_unknown = landed.and(known).err();
    let merge_order = conflicts::merge_order(&unmerged, &conflicts);
    let conflicts = conflicts.into_iter().map(|conflict| conflict.reported(&unmerged)).collect();
    let merge_order = merge_order.into_iter().map(|at| unmerged[at].source.name()).collect();
    let overlaps = overlaps(&unmerged);
    Ok(Collected { results, overlaps, conflicts, conflicts_unknown, merge_order })
}

/// A worktree that has work to merge.
#[derive(Clone, Copy, Debug)]
struct Unmerged<'r> {
    source: &'r Source<'r>,
    work: &'r Work,
}

/// Returns the paths that were changed in several worktrees of a repository.
fn overlaps(unmerged: &[Unmerged<'_>]) -> Vec<Overlap> {
    let mut by_path: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (at, Unmerged { work, .. }) in unmerged.iter().enumerate() {
        for file in &work.files {
            // Two names that are not UTF-8 may look alike.
            by_path.entry(&file.path).or_default().insert(at);
        }
    }
    let shared = by_path.into_iter().filter(|(_, positions)| positions.len() > 1);
    shared
        .map(|(path, positions)| Overlap {
            repository: repository_of(unmerged),
            path: path.to_owned(),
            worktrees: positions.into_iter().map(|at| unmerged[at].source.name()).collect(),
        })
        .collect()
}

/// Returns the name of the repository of these worktrees, which is the same for all of them.
fn repository_of(unmerged: &[Unmerged<'_>]) -> Option<String> {
    unmerged.first()?.source.worktree.repository.clone()
}
