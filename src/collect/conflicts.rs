//! Finds pairs of worktrees that conflict, by merging them in memory, and an order with few conflicts.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::commits::each;
use super::{File, FileChange, Unmerged, WorktreeName, repository_of};
use crate::host::Host;
use crate::host::git::{Git, version};
use crate::host::process;

/// Oldest Git that merges in memory, several times in one process: `merge-tree --write-tree --stdin`.
pub const MERGES_SINCE: (u32, u32) = (2, 40);

/// Two worktrees of one repository that do not merge without conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Conflict {
    /// Name of the repository in the manifest; `null` for the workspace's own.
    pub repository: Option<String>,
    /// The two worktrees, in the order of the results.
    pub worktrees: [WorktreeName; 2],
    /// Paths in conflict.
    pub paths: Vec<String>,
}

/// Two positions in the list of unmerged worktrees, and the paths in conflict.
#[derive(Debug)]
pub(super) struct Pair {
    positions: [usize; 2],
    paths: Vec<String>,
}

impl Pair {
    pub(super) fn reported(self, unmerged: &[Unmerged<'_>]) -> Conflict {
        let worktrees = self.positions.map(|at| unmerged[at].source.name());
        Conflict { repository: repository_of(unmerged), worktrees, paths: self.paths }
    }
}

/// Result of a merge in memory.
#[derive(Debug)]
pub(super) enum Merge {
    /// Id of the merged tree.
    Clean(String),
    /// Paths in conflict.
    Conflict(Vec<String>),
}

/// Git that merges in memory.
#[derive(Debug)]
pub(super) struct Merges<'g> {
    pub(super) host: &'g Host,
    pub(super) git: Git<'g>,
}

impl Merges<'_> {
    /// Merges pairs of commits in memory, with one Git process. An error is one line.
    pub(super) fn of(&self, pairs: &[[&str; 2]]) -> Result<Vec<Result<Merge, String>>, String> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let text = version::text(self.host).map_err(|error| error.to_string())?;
        if version::number(&text).is_some_and(|version| version < MERGES_SINCE) {
            let (major, minor) = MERGES_SINCE;
            return Err(format!("{text} cannot merge in memory; git {major}.{minor} or later can"));
        }
        Ok(each(pairs, |pairs| merge_all(&self.git, pairs)))
    }
}

/// Returns the pairs of worktrees that conflict, and why this is unknown for some pairs, in one line.
///
/// Git merges only pairs that can conflict. Both worktrees changed one path, or one changed a path that is a directory of
/// the other. Or one deleted files of a directory to which the other added some: a renamed directory to Git.
pub(super) fn conflicts(merges: &Merges<'_>, unmerged: &[Unmerged<'_>]) -> (Vec<Pair>, Result<(), String>) {
    let candidates: Vec<(usize, usize)> = candidates(unmerged).into_iter().collect();
    let pairs =
        candidates.iter().map(|(one, other)| [*one, *other].map(|at| unmerged[at].work.head.as_str()));
    let results = match merges.of(&pairs.collect::<Vec<_>>()) {
        Ok(results) => results,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let (mut conflicts, mut unknown) = (Vec::new(), Ok(()));
    for ((one, other), result) in candidates.into_iter().zip(results) {
        match result {
            Ok(Merge::Clean(_)) => {}
            Ok(Merge::Conflict(paths)) => conflicts.push(Pair { positions: [one, other], paths }),
            Err(error) => unknown = Err(error),
        }
    }
    (conflicts, unknown)
}

fn merge_all(git: &Git<'_>, pairs: &[[&str; 2]]) -> Result<Vec<Merge>, process::Error> {
    let input = pairs.iter().fold(String::new(), |input, [one, other]| format!("{input}{one} {other}\n"));
    let command = ["merge-tree", "--write-tree", "--stdin", "--name-only", "--no-messages"];
    let printed =
        git.run_with_input(command.into_iter().chain(["--allow-unrelated-histories"]), input.into_bytes())?;
    // Each result is `STATUS NUL TREE NUL`, then the paths in conflict, each with a NUL, then one more NUL.
    let mut fields =
        printed.split(|byte| *byte == 0).map(|field| String::from_utf8_lossy(field).into_owned());
    let mut results = Vec::new();
    while let (Some(status), Some(tree)) = (fields.next(), fields.next()) {
        let paths: BTreeSet<String> = fields.by_ref().take_while(|path| !path.is_empty()).collect();
        results.push(match status.as_str() {
            "1" => Merge::Clean(tree),
            _ => Merge::Conflict(paths.into_iter().collect()),
        });
    }
    Ok(results)
}

/// Returns the pairs of worktrees that can conflict, as positions.
fn candidates(unmerged: &[Unmerged<'_>]) -> BTreeSet<(usize, usize)> {
    // Worktrees that changed each path, that added something below each directory, and that deleted files below it.
    let mut changed: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut gained: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut lost: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (at, Unmerged { work, .. }) in unmerged.iter().enumerate() {
        for File { path, change, .. } in &work.files {
            changed.entry(path).or_default().insert(at);
            let directories = path.rmatch_indices('/').map(|(end, _)| &path[..end]);
            match change {
                FileChange::Added => directories.for_each(|directory| {
                    gained.entry(directory).or_default().insert(at);
                }),
                FileChange::Deleted => directories.for_each(|directory| {
                    lost.entry(directory).or_default().insert(at);
                }),
                FileChange::Modified => {}
            }
        }
    }
    let mut pairs = BTreeSet::new();
    let mut add = |some: &BTreeSet<usize>, others: Option<&BTreeSet<usize>>| {
        for (one, other) in
            some.iter().flat_map(|one| others.into_iter().flatten().map(move |other| (one, other)))
        {
            if one != other {
                pairs.insert((*one.min(other), *one.max(other)));
            }
        }
    };
    for (path, sessions) in &changed {
        add(sessions, Some(sessions));
        add(sessions, gained.get(path));
    }
    for (directory, sessions) in &lost {
        add(sessions, gained.get(directory));
    }
    pairs
}

/// Returns an order in which worktrees without conflicts come first, as positions: again and again the worktree with the
/// fewest conflicts is next, and those that conflict with it are merged last. At the end are those that conflict with
/// their ref.
pub(super) fn merge_order(unmerged: &[Unmerged<'_>], conflicts: &[Pair]) -> Vec<usize> {
    let pairs: BTreeSet<[usize; 2]> = conflicts.iter().map(|pair| pair.positions).collect();
    let is_pair = |one: usize, other: usize| pairs.contains(&[one.min(other), one.max(other)]);
    let mut left: Vec<usize> = (0..unmerged.len()).collect();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    while let Some(next) = (0..left.len())
        .min_by_key(|at| left.iter().filter(|other| is_pair(left[*at], **other)).count())
        .map(|at| left.remove(at))
    {
        let (in_conflict, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|other| is_pair(next, *other));
        first.push(next);
        last.extend(in_conflict);
        left = others;
    }
    first.extend(last);
    first.sort_by_key(|at| !unmerged[*at].work.conflicts.is_empty());
    first
}
