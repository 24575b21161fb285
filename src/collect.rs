//! Reports the results of sessions: their commits and changes, whether these have landed, and which sessions conflict.
//!
//! Only reads. Git processes that would write objects (a merge in memory) write them to a temporary object directory.
//! Nothing is merged or fetched.

mod commits;
mod conflicts;
mod export;
mod landed;
mod scratch;

use std::collections::BTreeMap;
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
use crate::host::{files, process};
use crate::name::SessionPath;
use crate::provider;
use crate::provider::git_worktree::{self, Worktree};

/// A session whose results are requested, and its worktree.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers name each field")]
pub struct Source<'a> {
    /// Path of the session.
    pub session: &'a SessionPath,
    /// Worktree of the session.
    pub worktree: Worktree,
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
    /// A glob is wrong.
    #[error(transparent)]
    Glob(#[from] globset::Error),
    /// The directory to write to has files.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
}

/// Results of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Collected {
    /// Results, in the order of the sources.
    pub results: Vec<Outcome>,
    /// Paths that several sessions changed, in order.
    pub overlaps: Vec<Overlap>,
    /// Pairs of sessions that do not merge without conflict.
    pub conflicts: Vec<Conflict>,
    /// The reason why conflicts are unknown, one line; `null` if they are known.
    pub conflicts_unknown: Option<String>,
    /// Sessions that have commits to merge, in an order with few conflicts: those without a conflict among each other
    /// first.
    pub merge_order: Vec<SessionPath>,
}

/// Result of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Outcome {
    /// Path of the session.
    pub session: SessionPath,
    /// Branch that is checked out, without `refs/heads/`; `null` for a detached HEAD.
    pub branch: Option<String>,
    /// Ref that the session began at.
    pub base_ref: String,
    /// `true` if the base ref names no commit any more. Without `--into`, the commits are then compared with the commit
    /// that the session was created at.
    pub is_base_gone: bool,
    /// Ref that the commits are compared with: `--into`, or the base ref.
    pub into: String,
    /// The session's commits and changes; `null` if they are unknown.
    pub work: Option<Work>,
    /// The reason why they are unknown, one line.
    pub error: Option<String>,
}

/// Commits of a session beyond another ref.
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
    /// Way in which the other ref has the session's changes; `null` if it does not have them.
    pub landed: Option<Landed>,
    /// Paths in which a merge of the session into the other ref conflicts.
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

/// A path that several sessions changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Overlap {
    /// Path in the repository.
    pub path: String,
    /// Sessions that changed it.
    pub sessions: Vec<SessionPath>,
}

impl Outcome {
    /// Returns the work that is left to merge: commits beyond the other ref that have not landed in it.
    pub fn unmerged(&self) -> Option<&Work> {
        self.work.as_ref().filter(|work| work.landed.is_none() && !work.commits.is_empty())
    }
}

/// Collects the results of sessions. `workspace` is an absolute path. Sessions conflict only with others of the same
/// repository.
///
/// `into` names the ref in which commits may have landed, in each repository; without it, this is each session's base ref. Worktrees that
/// cannot be read have an [`Outcome::error`].
///
/// # Errors
///
/// `into` names no commit, Git cannot be run, or the state directory cannot be written to.
pub fn collect(
    host: &Host,
    workspace: &Path,
    sources: &[Source<'_>],
    into: Option<&str>,
) -> Result<Collected, Error> {
    let worktrees: Vec<&Worktree> = sources.iter().map(|source| &source.worktree).collect();
    let mut all = Collected::default();
    let mut results: Vec<(usize, Outcome)> = Vec::with_capacity(sources.len());
    for (directory, positions) in git_worktree::by_repository(workspace, &worktrees) {
        let of_repository: Vec<&Source<'_>> = positions.iter().map(|at| &sources[*at]).collect();
        let git = Git::discover(host, &directory);
        let collected = collect_in(host, workspace, &git, &of_repository, into)?;
        results.extend(positions.into_iter().zip(collected.results));
        all.overlaps.extend(collected.overlaps);
        all.conflicts.extend(collected.conflicts);
        all.conflicts_unknown = all.conflicts_unknown.or(collected.conflicts_unknown);
        all.merge_order.extend(collected.merge_order);
    }
    results.sort_by_key(|(at, _)| *at);
    all.results = results.into_iter().map(|(_, outcome)| outcome).collect();
    Ok(all)
}

/// Collects the results of sessions whose worktrees belong to one repository.
fn collect_in(
    host: &Host,
    workspace: &Path,
    git: &Git<'_>,
    sources: &[&Source<'_>],
    into: Option<&str>,
) -> Result<Collected, Error> {
    let target = into.map(|into| commits::resolve(git, into)).transpose()?;
    let worktrees: Vec<&Worktree> = sources.iter().map(|source| &source.worktree).collect();
    let progress = git_worktree::progress(host, workspace, &worktrees);
    let scratch = Scratch::new(host, git)?;
    let merges = Merges { host, git: scratch.git(git) };
    let mut compared = Vec::new();
    for progress in progress.iter().flatten() {
        let (head, target) = (progress.head.clone(), target.as_ref().unwrap_or(&progress.base).clone());
        compared.push(Compared { head, target });
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
        let Worktree { base_ref, .. } = &source.worktree;
        let (branch, is_base_gone, work) = match progress {
            Ok(progress) => (progress.branch, progress.is_base_gone, works.next()),
            Err(error) => (None, false, Some(Err(error))),
        };
        let (work, error) = match work {
            Some(Err(error)) => (None, Some(error)),
            work => (work.and_then(Result::ok), None),
        };
        Outcome {
            session: source.session.clone(),
            branch,
            base_ref: base_ref.clone(),
            is_base_gone,
            into: into.unwrap_or(base_ref).to_owned(),
            work,
            error,
        }
    });
    let results: Vec<Outcome> = results.collect();
    let unmerged: Vec<(&SessionPath, &Work)> =
        results.iter().filter_map(|result| Some((&result.session, result.unmerged()?))).collect();
    let (conflicts, known) = conflicts::conflicts(&merges, &unmerged);
    scratch.remove()?;
    let conflicts_unknown = landed.and(known).err();
    let merge_order = conflicts::merge_order(&unmerged, &conflicts);
    let overlaps = overlaps(&unmerged);
    Ok(Collected { results, overlaps, conflicts, conflicts_unknown, merge_order })
}

/// Returns the paths that several sessions changed.
fn overlaps(unmerged: &[(&SessionPath, &Work)]) -> Vec<Overlap> {
    let mut sessions: BTreeMap<&str, Vec<SessionPath>> = BTreeMap::new();
    for (session, work) in unmerged {
        for file in &work.files {
            let sessions = sessions.entry(&file.path).or_default();
            // Two names that are not UTF-8 may look alike.
            if sessions.last() != Some(session) {
                sessions.push((*session).clone());
            }
        }
    }
    let shared = sessions.into_iter().filter(|(_, sessions)| sessions.len() > 1);
    shared.map(|(path, sessions)| Overlap { path: path.to_owned(), sessions }).collect()
}
