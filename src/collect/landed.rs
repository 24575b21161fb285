//! Determines whether the changes of sessions are in another ref already.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Work;
use super::commits::trees;
use super::conflicts::{Merge, Merges};
use crate::host::git::Git;
use crate::host::process;

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

/// Work of a session, the commit that the session was created at, and the commit of the ref.
#[derive(Debug)]
pub(super) struct Candidate<'w> {
    pub(super) work: &'w mut Work,
    pub(super) made_from: &'w str,
    pub(super) target: &'w str,
}

/// A merge of a session's head that would prove that the changes have landed.
#[derive(Debug)]
struct Proof {
    /// Position of the session.
    session: usize,
    /// Commit of the target that may have the changes.
    commit: String,
    landed: Landed,
}

impl Proof {
    fn new(session: usize, landed: Landed, commit: &str) -> Self {
        Self { session, commit: commit.to_owned(), landed }
    }
}

/// Sets how the target has the changes of each session, and the paths in which a session conflicts with the target.
/// Returns why this is unknown for some of them, in one line.
///
/// Equal patches are only a hint, because their ids ignore white space and positions: a merge of the session has to
/// change nothing in the commit that has the patch. Later commits of the target may revert the changes.
pub(super) fn find(
    git: &Git<'_>,
    merges: &Merges<'_>,
    mut candidates: Vec<Candidate<'_>>,
) -> Result<(), String> {
    for Candidate { work, made_from, .. } in &mut candidates {
        if work.merge_base == work.head && work.head != *made_from {
            work.landed = Some(Landed::Ancestor);
        }
    }
    // The target of the others has gained commits, and so have the sessions.
    candidates.retain(|one| one.work.merge_base != one.work.head && one.work.merge_base != one.target);
    if candidates.is_empty() {
        return Ok(());
    }
    let error = |error: process::Error| error.to_string();
    let proofs = proofs(git, &candidates).map_err(error)?;
    let trees = trees(git, proofs.iter().map(|proof| proof.commit.as_str())).map_err(error)?;
    let pairs: Vec<[&str; 2]> = proofs
        .iter()
        .map(|Proof { session, commit, .. }| [commit.as_str(), &candidates[*session].work.head])
        .collect();
    let results = merges.of(&pairs)?;
    let mut unknown = Ok(());
    for (Proof { session, commit, landed }, result) in proofs.iter().zip(results) {
        let Candidate { work, target, .. } = &mut candidates[*session];
        match result {
            _ if work.landed.is_some() => {}
            Ok(Merge::Clean(tree)) if trees.get(commit) == Some(&tree) => work.landed = Some(*landed),
            Ok(Merge::Conflict(paths)) if commit == target => work.conflicts = paths,
            Ok(_) => {}
            Err(error) => unknown = Err(error),
        }
    }
    unknown
}

/// Returns the merges that may prove that a session has landed, by session: those of equal patches, of squashes, and at
/// last that into the target itself.
fn proofs(git: &Git<'_>, candidates: &[Candidate<'_>]) -> Result<Vec<Proof>, process::Error> {
    let (gained, paths) = Gained::read(git, candidates)?;
    let mut pairs = Vec::new();
    for (session, one) in candidates.iter().enumerate() {
        for commit in &one.work.commits {
            let Some(paths) = paths.get(commit.id.as_str()) else { continue };
            pairs.extend(gained.of(one, paths).iter().map(|other| (session, &commit.id, other)));
        }
    }
    let ids = patch_ids_of(git, pairs.iter().flat_map(|(_, one, other)| [one.as_str(), other]).collect())?;
    let equal = pairs
        .into_iter()
        .filter(|(_, one, other)| ids.contains_key(*one) && ids.get(*one) == ids.get(*other));
    let equal = equal.map(|(session, _, commit)| Proof::new(session, Landed::Patches, commit));
    let squashes: Result<Vec<Vec<Proof>>, process::Error> = candidates
        .par_iter()
        .enumerate()
        .filter(|(_, one)| one.work.commits.len() > 1)
        .map(|(session, one)| {
            let squashes = squashes(git, one.work, gained.of(one, &joined(one.work)))?;
            Ok(squashes.iter().map(|commit| Proof::new(session, Landed::Squash, commit)).collect())
        })
        .collect();
    let targets = candidates.iter().enumerate();
    let targets = targets.map(|(session, one)| Proof::new(session, Landed::Tree, one.target));
    let mut proofs: Vec<Proof> = equal.chain(squashes?.into_iter().flatten()).chain(targets).collect();
    // Stable: the order within a session stays.
    proofs.sort_by_key(|proof| proof.session);
    Ok(proofs)
}

/// Commits that targets have beyond merge bases, the newest first, by merge base, target and changed paths.
struct Gained(BTreeMap<[String; 2], HashMap<String, Vec<String>>>);

impl Gained {
    /// Returns also the paths of the sessions' commits, by commit.
    fn read<'c>(
        git: &Git<'_>,
        candidates: &'c [Candidate<'_>],
    ) -> Result<(Self, HashMap<&'c str, String>), process::Error> {
        let groups: BTreeSet<[String; 2]> = candidates.iter().map(key).collect();
        let groups: Vec<([String; 2], Vec<String>)> = groups
            .into_par_iter()
            .map(|group| gained(git, &group).map(|commits| (group, commits)))
            .collect::<Result<_, process::Error>>()?;
        let own = candidates.iter().flat_map(|one| one.work.commits.iter().map(|commit| commit.id.as_str()));
        let own: BTreeSet<&str> = own.collect();
        let of_targets = groups.iter().flat_map(|(_, commits)| commits.iter().map(String::as_str));
        let mut paths = paths(git, own.iter().copied().chain(of_targets).collect())?;
        let mut by_paths: BTreeMap<[String; 2], HashMap<String, Vec<String>>> = BTreeMap::new();
        for (group, commits) in &groups {
            let by_paths = by_paths.entry(group.clone()).or_default();
            for commit in commits {
                if let Some(paths) = paths.get(commit.as_str()) {
                    by_paths.entry(paths.clone()).or_default().push(commit.clone());
                }
            }
        }
        let own = own.into_iter().filter_map(|commit| Some((commit, paths.remove(commit)?))).collect();
        Ok((Self(by_paths), own))
    }

    /// Returns the commits of a session's target that change these paths.
    fn of(&self, one: &Candidate<'_>, paths: &str) -> &[String] {
        self.0.get(&key(one)).and_then(|by_paths| by_paths.get(paths)).map_or(&[], Vec::as_slice)
    }
}

fn key(one: &Candidate<'_>) -> [String; 2] {
    [one.work.merge_base.clone(), one.target.to_owned()]
}

/// Returns the commits that the target has beyond the merge base, without merges, the newest first.
fn gained(git: &Git<'_>, [merge_base, target]: &[String; 2]) -> Result<Vec<String>, process::Error> {
    let range = format!("{merge_base}..{target}");
    let printed = git.line(["rev-list", "--no-merges", range.as_str(), "--"])?;
    Ok(printed.lines().map(str::to_owned).collect())
}

/// Returns the paths that a session has changed, in the form of [`paths`].
fn joined(work: &Work) -> String {
    work.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>().join("\0")
}

/// Returns the paths that each commit changes, each path but the last with a NUL behind it. Merges change nothing.
fn paths<'c>(git: &Git<'_>, commits: BTreeSet<&'c str>) -> Result<HashMap<&'c str, String>, process::Error> {
    let commits: Vec<&str> = commits.into_iter().collect();
    let input = commits.join("\n") + "\n";
    let command = ["diff-tree", "--stdin", "--root", "--always", "-r", "-z", "--name-only", "--no-renames"];
    let printed = git.run_with_input(command, input.into_bytes())?;
    let mut fields = printed.split(|byte| *byte == 0).map(String::from_utf8_lossy).peekable();
    let mut paths = HashMap::new();
    let mut next = commits.iter().copied().peekable();
    while let Some(commit) = next.next() {
        fields.next_if(|field| field == commit);
        let mut changed = Vec::new();
        while let Some(path) = fields.next_if(|field| next.peek().is_none_or(|next| field != next)) {
            changed.push(path);
        }
        changed.retain(|path| !path.is_empty());
        if !changed.is_empty() {
            paths.insert(commit, changed.join("\0"));
        }
    }
    Ok(paths)
}

/// Returns the commits among these that have the patch of all of the session's commits together.
fn squashes(git: &Git<'_>, work: &Work, commits: &[String]) -> Result<Vec<String>, process::Error> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
    let Work { head, merge_base, .. } = work;
    let whole = git.run(["diff-tree", "-p", "--no-ext-diff", "--no-textconv", merge_base, head, "--"])?;
    let Some((wanted, _)) = patch_ids(git, whole)?.pop() else { return Ok(Vec::new()) };
    let ids = patch_ids_of(git, commits.iter().map(String::as_str).collect())?;
    Ok(commits.iter().filter(|commit| ids.get(*commit) == Some(&wanted)).cloned().collect())
}

/// Returns the patch id of each commit.
fn patch_ids_of(git: &Git<'_>, commits: BTreeSet<&str>) -> Result<HashMap<String, String>, process::Error> {
    if commits.is_empty() {
        return Ok(HashMap::new());
    }
    let input = commits.into_iter().collect::<Vec<_>>().join("\n") + "\n";
    let command = ["diff-tree", "--stdin", "--root", "-p", "--no-renames", "--no-ext-diff", "--no-textconv"];
    let patches = git.run_with_input(command, input.into_bytes())?;
    Ok(patch_ids(git, patches)?.into_iter().map(|(id, commit)| (commit, id)).collect())
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
