//! Determines whether the changes of a session are in another ref already.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Work;
use super::conflicts::{Merge, merge};
use crate::host::git::Git;
use crate::host::process;
use crate::provider::git_worktree::Worktree;

/// Way in which a ref has the changes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Landed {
    /// The ref contains the session's last commit: by a merge, or by a fast-forward. Also if the session only moved to
    /// a commit of the ref.
    Ancestor,
    /// The ref had, after a commit with the patch of one of the session's commits, the session's changes: after a
    /// rebase, or by `cherry-pick`.
    Patches,
    /// The ref had them after a commit with the patch of all commits of the session together: after a squash.
    Squash,
    /// A merge of the session would change nothing in the ref.
    Tree,
}

/// Returns how `target` has the changes of a session; `None` if it does not have them, or if the session is at the
/// commit that it was created at.
///
/// Equal patches are only a hint, because their ids ignore white space and positions: a merge of the session has to
/// change nothing in the commit that has the patch. Later commits of the target may revert the changes.
pub(super) fn landed(
    git: &Git<'_>,
    merges: &Git<'_>,
    worktree: &Worktree,
    work: &Work,
    target: &str,
) -> Result<Option<Landed>, process::Error> {
    let Work { head, merge_base, .. } = work;
    if merge_base == head {
        return Ok((*head != worktree.commit).then_some(Landed::Ancestor));
    }
    if merge_base == target {
        // The target has gained nothing since.
        return Ok(None);
    }
    for (commits, landed) in [
        (equal_commits(git, head, target)?, Landed::Patches),
        (squash_commits(git, work, target)?, Landed::Squash),
    ] {
        for commit in commits {
            if is_contained(git, merges, &commit, head)? {
                return Ok(Some(landed));
            }
        }
    }
    Ok(is_contained(git, merges, target, head)?.then_some(Landed::Tree))
}

/// Returns whether a merge of `head` would change nothing in `commit`.
fn is_contained(git: &Git<'_>, merges: &Git<'_>, commit: &str, head: &str) -> Result<bool, process::Error> {
    let tree = git.line(["rev-parse", "--verify", "--end-of-options", &format!("{commit}^{{tree}}")])?;
    Ok(matches!(merge(merges, commit, head), Ok(Merge::Clean(result)) if result == tree))
}

/// Returns the commits of the target that have the patch of one of the session's commits, the newest first.
fn equal_commits(git: &Git<'_>, head: &str, target: &str) -> Result<Vec<String>, process::Error> {
    let range = format!("{target}...{head}");
    let printed =
        git.line(["rev-list", "--cherry-mark", "--left-only", "--no-merges", range.as_str(), "--"])?;
    Ok(printed.lines().filter_map(|line| line.strip_prefix('=')).map(str::to_owned).collect())
}

/// Returns the commits of the target that have the patch of all of the session's commits together.
fn squash_commits(git: &Git<'_>, work: &Work, target: &str) -> Result<Vec<String>, process::Error> {
    let Work { head, merge_base, files, .. } = work;
    let Some(first) = files.first() else { return Ok(Vec::new()) };
    let whole = git.run(["diff-tree", "-p", "--no-ext-diff", "--no-textconv", merge_base, head, "--"])?;
    let Some((wanted, _)) = patch_ids(git, whole)?.pop() else { return Ok(Vec::new()) };
    // Only commits that change the session's first file can have its patch.
    let range = format!("{merge_base}..{target}");
    let first = format!(":(top,literal){}", first.path);
    let candidates = git.run(["rev-list", "--no-merges", range.as_str(), "--", first.as_str()])?;
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let patches =
        git.run_with_input(["diff-tree", "--stdin", "-p", "--no-ext-diff", "--no-textconv"], candidates)?;
    let ids = patch_ids(git, patches)?.into_iter();
    Ok(ids.filter(|(id, _)| *id == wanted).map(|(_, commit)| commit).collect())
}

/// Returns the patch id and the commit of each patch that is printed.
fn patch_ids(git: &Git<'_>, patches: Vec<u8>) -> Result<Vec<(String, String)>, process::Error> {
    let printed = git.run_with_input(["patch-id", "--stable"], patches)?;
    let printed = String::from_utf8_lossy(&printed);
    Ok(printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(id, of)| (id.into(), of.into()))
        .collect())
}
