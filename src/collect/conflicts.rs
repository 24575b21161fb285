//! Finds pairs of sessions that conflict, by merging them in memory, and an order with few conflicts.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::commits::each;
use super::{File, FileChange, Work};
use crate::host::Host;
use crate::host::git::{Git, version};
use crate::host::process;
use crate::name::SessionPath;

/// Oldest Git that merges in memory, several times in one process: `merge-tree --write-tree --stdin`.
pub const MERGES_SINCE: (u32, u32) = (2, 40);

/// Two sessions that do not merge without conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Conflict {
    /// The two sessions, in the order of the results.
    pub sessions: [SessionPath; 2],
    /// Paths in conflict.
    pub paths: Vec<String>,
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
        let said = version::text(self.host).map_err(|error| error.to_string())?;
        if version::number(&said).is_some_and(|version| version < MERGES_SINCE) {
            let (major, minor) = MERGES_SINCE;
            return Err(format!("{said} cannot merge in memory; git {major}.{minor} or later can"));
        }
        Ok(each(pairs, |pairs| merge_all(&self.git, pairs)))
    }
}

/// Returns the pairs of sessions that conflict, and why this is unknown for some pairs, in one line.
///
/// Git merges only pairs that can conflict. Both sessions changed one path, or one changed a path that is a directory of
/// the other. Or one deleted files of a directory to which the other added some: a renamed directory to Git.
pub(super) fn conflicts(
    merges: &Merges<'_>,
    unmerged: &[(&SessionPath, &Work)],
) -> (Vec<Conflict>, Result<(), String>) {
    let candidates: Vec<(usize, usize)> = candidates(unmerged).into_iter().collect();
    let pairs = candidates.iter().map(|(one, other)| [*one, *other].map(|at| unmerged[at].1.head.as_str()));
    let results = match merges.of(&pairs.collect::<Vec<_>>()) {
        Ok(results) => results,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let (mut conflicts, mut unknown) = (Vec::new(), Ok(()));
    for ((one, other), result) in candidates.into_iter().zip(results) {
        match result {
            Ok(Merge::Clean(_)) => {}
            Ok(Merge::Conflict(paths)) => {
                let sessions = [one, other].map(|at| unmerged[at].0.clone());
                conflicts.push(Conflict { sessions, paths });
            }
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

/// Returns the pairs of sessions that can conflict, as positions.
fn candidates(unmerged: &[(&SessionPath, &Work)]) -> BTreeSet<(usize, usize)> {
    // Sessions that changed each path, that added something below each directory, and that deleted files below it.
    let mut changed: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut gained: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut lost: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (at, (_, work)) in unmerged.iter().enumerate() {
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

/// Returns an order in which sessions without conflicts come first: again and again the session with the fewest conflicts
/// is next, and the sessions that conflict with it are merged last. At the end are those that conflict with their ref.
pub(super) fn merge_order(unmerged: &[(&SessionPath, &Work)], conflicts: &[Conflict]) -> Vec<SessionPath> {
    let mut left: Vec<&SessionPath> = unmerged.iter().map(|(session, _)| *session).collect();
    let is_pair = |one: &SessionPath, other: &SessionPath| {
        conflicts.iter().any(|Conflict { sessions: [first, second], .. }| {
            (first == one && second == other) || (first == other && second == one)
        })
    };
    let (mut first, mut last) = (Vec::new(), Vec::new());
    while let Some(next) = (0..left.len())
        .min_by_key(|at| left.iter().filter(|other| is_pair(left[*at], other)).count())
        .map(|at| left.remove(at))
    {
        let (in_conflict, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|other| is_pair(next, other));
        first.push(next.clone());
        last.extend(in_conflict.into_iter().cloned());
        left = others;
    }
    first.extend(last);
    let has_conflict = |path: &SessionPath| {
        unmerged.iter().any(|(session, work)| *session == path && !work.conflicts.is_empty())
    };
    first.sort_by_key(has_conflict);
    first
}
