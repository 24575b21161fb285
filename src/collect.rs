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

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use conflicts::{Conflict, MERGES_SINCE};
pub use export::{Exported, export};
pub use landed::Landed;

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

/// Collects the results of sessions whose worktrees belong to the repository of `workspace`, an absolute path.
///
/// `into` names the ref in which commits may have landed; without it, this is each session's base ref. Worktrees that
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
    let git = Git::discover(host, workspace);
    let target = into.map(|into| commits::resolve(&git, into)).transpose()?;
    let worktrees: Vec<&Worktree> = sources.iter().map(|source| &source.worktree).collect();
    let progress = git_worktree::progress(host, workspace, &worktrees);
    let scratch = Scratch::new(host, &git)?;
    let merges = scratch.git(&git);
    let results: Vec<Outcome> = sources
        .par_iter()
        .zip(progress)
        .map(|(source, progress)| {
            let Worktree { base_ref, .. } = &source.worktree;
            let (branch, work) = match progress {
                Ok(progress) => {
                    let target = target.as_ref().unwrap_or(&progress.base);
                    let work = commits::work(&git, &merges, &source.worktree, &progress.head, target);
                    (progress.branch, work)
                }
                Err(error) => (None, Err(error)),
            };
            let (work, error) = work.map_or_else(|error| (None, Some(error)), |work| (Some(work), None));
            Outcome {
                session: source.session.clone(),
                branch,
                base_ref: base_ref.clone(),
                into: into.unwrap_or(base_ref).to_owned(),
                work,
                error,
            }
        })
        .collect();
    let unmerged: Vec<(&SessionPath, &Work)> =
        results.iter().filter_map(|result| Some((&result.session, result.unmerged()?))).collect();
    let found = conflicts::conflicts(host, &merges, &unmerged);
    scratch.remove()?;
    let (conflicts, conflicts_unknown) = match found {
        Ok(conflicts) => (conflicts, None),
        Err(error) => (Vec::new(), Some(error)),
    };
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
