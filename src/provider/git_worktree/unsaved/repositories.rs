//! Finds repositories inside a worktree that Git does not report: in directories that Git ignores or tracks.
//!
//! Builds clone their dependencies (`_deps` of `CMake`), which are no work of the session. So a repository counts only
//! if it has something of its own: an uncommitted change, or a commit that is on no remote.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use crate::host::git::Git;
use crate::provider::directory_scan::{self, DirectoryScan};
use crate::provider::git_worktree::checkout_config::EXACT;
use crate::provider::git_worktree::paths::WorktreePaths;
use crate::provider::name_list::NAMED;
use crate::provider::{Error, Task};

/// Prefixes of the messages that commands write into the log of HEAD when they make a commit.
const COMMITS: [&str; 6] = ["commit", "merge", "rebase", "cherry-pick", "revert", "am"];

/// Repositories inside a worktree, as paths relative to it.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Repositories with something of their own. The search ends when more are found than messages name.
    pub(super) with_work: BTreeSet<OsString>,
    /// Repositories with nothing of their own.
    pub(super) copies: BTreeSet<OsString>,
    /// Directories, not ignored, with a `.git` that is no repository.
    pub(super) without_stat_data: BTreeSet<OsString>,
}

impl Inner {
    /// Inspects the repositories of a survey. `is_ignored` returns whether Git ignores a directory, and `None` for a
    /// directory that is reported in another way.
    pub(super) fn ask(
        task: &Task<'_>,
        paths: &WorktreePaths,
        scan: &DirectoryScan,
        is_ignored: impl Fn(&Path) -> Option<bool>,
    ) -> Self {
        let mut inner = Self::default();
        for path in &scan.with_git {
            let Some(is_ignored) = is_ignored(path) else { continue };
            if inner.with_work.len() > NAMED {
                break;
            }
            let kind = match Repository::at(task, &paths.worktree.join(path)) {
                Repository::Work => &mut inner.with_work,
                Repository::Copy => &mut inner.copies,
                Repository::None if is_ignored => continue,
                Repository::None => &mut inner.without_stat_data,
            };
            kind.insert(path.as_os_str().to_owned());
        }
        inner
    }
}

/// Result of inspecting a directory that has something called `.git` in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repository {
    /// The directory is no repository, although Git skips its `.git`.
    None,
    /// Everything in the repository also exists elsewhere.
    Copy,
    /// The repository has changes or commits that exist nowhere else, or cannot be inspected.
    Work,
}

impl Repository {
    /// Inspects the repository at `top`.
    fn at(task: &Task<'_>, top: &Path) -> Self {
        let dot_git = top.join(".git");
        if directory_scan::is_no_repository(&dot_git) && !is_pointer(task, &dot_git, top) {
            return Self::None;
        }
        match is_copy(task, &dot_git, top) {
            Ok(true) => Self::Copy,
            Ok(false) | Err(_) => Self::Work,
        }
    }
}

fn git<'a>(task: &Task<'a>, dot_git: &'a Path, top: &'a Path) -> Git<'a> {
    EXACT.iter().fold(Git::open(task.host, dot_git, Some(top)), |git, setting| git.with_setting(setting))
}

/// Returns whether a `.git` that is a file leads to a repository. Published packages contain such files that lead to no
/// repository.
fn is_pointer(task: &Task<'_>, dot_git: &Path, top: &Path) -> bool {
    let found = git(task, dot_git, top).output(["rev-parse", "--git-dir"]);
    found.map_or(true, |found| found.status.success())
}

fn is_copy(task: &Task<'_>, dot_git: &Path, top: &Path) -> Result<bool, Error> {
    let git = git(task, dot_git, top);
    let changed = git.run([
        "status",
        "--porcelain=v1",
        "-z",
        "--untracked-files=all",
        "--ignore-submodules=none",
        "--no-renames",
    ])?;
    if !changed.is_empty() {
        return Ok(false);
    }
    let head = git.output(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
    let head = String::from_utf8_lossy(head.stdout.trim_ascii_end()).into_owned();
    if is_linked(&git, top)? {
        // The branches are in another repository.
        return Ok(head.is_empty() || !exceeds(&git, &[head], &["--glob=refs/*"])?);
    }
    let branches = git.line(["for-each-ref", "--format=%(objectname)", "refs/heads", "refs/stash"])?;
    let mut tips: Vec<String> = branches.lines().map(str::to_owned).collect();
    tips.extend((!head.is_empty()).then_some(head));
    if tips.is_empty() {
        return Ok(true);
    }
    // A clone of one tag has no branch of its remote.
    if exceeds(&git, &tips, &["--remotes", "--tags"])? {
        return Ok(false);
    }
    // A tag may also have been made in this repository.
    let unpushed =
        git.run_with_input(["rev-list", "--stdin", "--not", "--remotes"], tips.join("\n").into_bytes())?;
    let unpushed = String::from_utf8_lossy(&unpushed).into_owned();
    let unpushed: BTreeSet<&str> = unpushed.lines().collect();
    if unpushed.is_empty() {
        return Ok(true);
    }
    let log = git.run(["reflog", "show", "--format=%H %gs", "HEAD", "--"])?;
    let log = String::from_utf8_lossy(&log);
    let is_made_here = |line: &str| {
        let (commit, message) = line.split_once(' ').unwrap_or((line, ""));
        unpushed.contains(commit) && COMMITS.iter().any(|begins| message.starts_with(begins))
    };
    Ok(!log.lines().any(is_made_here))
}

/// Returns whether the refs of the repository lie outside of its top directory, as those of a linked worktree do.
fn is_linked(git: &Git<'_>, top: &Path) -> Result<bool, Error> {
    let common = git.path(["rev-parse", "--path-format=absolute", "--git-common-dir"])?;
    Ok(!common.starts_with(top))
}

/// Returns whether `tips` reach a commit that `known` does not reach.
fn exceeds(git: &Git<'_>, tips: &[String], known: &[&str]) -> Result<bool, Error> {
    let args = ["rev-list", "--max-count=1", "--stdin", "--not"].into_iter().chain(known.iter().copied());
    Ok(!git.run_with_input(args, tips.join("\n").into_bytes())?.is_empty())
}
