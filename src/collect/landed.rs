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
    /// The ref contains the session's last commit: by a merge, or by a fast-forward.
    Ancestor,
    /// The ref has, for each of the session's commits, one with the same patch: after a rebase, or by `cherry-pick`.
    Patches,
    /// The ref has one commit with the patch of all commits of the session together: after a squash.
    Squash,
    /// A merge of the session would change nothing in the ref.
    Tree,
}

/// Returns how `target` has the changes of a session; `None` if it does not, or if the session has made no commit.
///
/// A target that has reverted the changes has landed them, too: by ancestry and by patches, as Git would say.
pub(super) fn landed(
    git: &Git<'_>,
    merges: &Git<'_>,
    worktree: &Worktree,
    work: &Work,
    target: &str,
) -> Result<Option<Landed>, process::Error> {
    let Work { head, merge_base, commits, .. } = work;
    if merge_base == head {
        return Ok((*head != worktree.commit).then_some(Landed::Ancestor));
    }
    if merge_base == target {
        // The target has gained nothing since.
        return Ok(None);
    }
    let range = format!("{target}...{head}");
    let missing = git.line([
        "rev-list",
        "--count",
        "--cherry-pick",
        "--right-only",
        "--no-merges",
        range.as_str(),
        "--",
    ])?;
    // A merge commit has no patch, and may have changes of its own.
    let with_parents = git.line(["rev-list", "--count", "--merges", &format!("{target}..{head}"), "--"])?;
    if missing == "0" && with_parents == "0" && !commits.is_empty() {
        return Ok(Some(Landed::Patches));
    }
    if is_squashed(git, work, target)? {
        return Ok(Some(Landed::Squash));
    }
    let tree = git.line(["rev-parse", "--verify", "--end-of-options", &format!("{target}^{{tree}}")])?;
    let is_contained = matches!(merge(merges, target, head), Ok(Merge::Clean(result)) if result == tree);
    Ok(is_contained.then_some(Landed::Tree))
}

/// Returns whether one commit of the target has the patch of all of the session's commits together.
fn is_squashed(git: &Git<'_>, work: &Work, target: &str) -> Result<bool, process::Error> {
    let Work { head, merge_base, files, .. } = work;
    if files.is_empty() {
        return Ok(false);
    }
    let patch = |printed| patch_ids(git, printed);
    let whole = git.run(["diff-tree", "-p", "--no-ext-diff", "--no-textconv", merge_base, head, "--"])?;
    let Some((wanted, _)) = patch(whole)?.pop() else { return Ok(false) };
    // Only commits that change the session's first file can have its patch.
    let range = format!("{merge_base}..{target}");
    let first = format!(":(top,literal){}", files[0].path);
    let candidates = git.run(["rev-list", "--no-merges", range.as_str(), "--", first.as_str()])?;
    if candidates.is_empty() {
        return Ok(false);
    }
    let patches =
        git.run_with_input(["diff-tree", "--stdin", "-p", "--no-ext-diff", "--no-textconv"], candidates)?;
    Ok(patch(patches)?.iter().any(|(id, _)| *id == wanted))
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
