//! Checks the paths of a session's files against the commit of its worktree, and against other files that it is given.

use std::path::Path;

use serde::Deserialize as _;

use super::super::untracked::Patterns;
use super::super::{Options, PlannedSeed, Worktree};
use super::{normalize_target_path, repository_of};
use crate::manifest;
use crate::observe::untracked::Pattern;
use crate::observe::{Observation, Query, TreeEntry, branch_ref};

/// Returns the queries for a file at this path, relative to the working directory of a worktree with these options: about
/// the path and the directories above it.
pub(in super::super) fn queries(options: &manifest::Options, path: &str) -> Vec<Query> {
    Options::deserialize(options).map(|options| queries_of(&options, path)).unwrap_or_default()
}

/// Returns the queries for a path as [`queries`] does.
pub(super) fn queries_of(options: &Options, path: &str) -> Vec<Query> {
    let target = normalize_target_path(options.target_path.as_deref().unwrap_or_default()).ok().flatten();
    let path = target.map_or_else(|| path.to_owned(), |target| format!("{target}/{path}"));
    let query = |path: &str| Query::Tree {
        repository: repository_of(options).to_owned(),
        base_ref: options.base_ref.clone(),
        path: path.to_owned(),
        required: false,
    };
    parts(&path).map(query).collect()
}

/// Returns the path of each directory above a path, and the path.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end]).chain([path])
}

/// Returns the reason, one line, for which a worktree cannot have a generated file at this path, and the remedy.
pub(in super::super) fn fault(
    worktree: &Worktree,
    observation: &Observation,
    path: &str,
    is_section: bool,
) -> Option<(String, String)> {
    let observed = observation.repository(worktree.repository_name());
    let at = match (&worktree.branch, &worktree.existing) {
        (Some(branch), Some(_)) => branch_ref(branch),
        _ => worktree.base_ref.clone(),
    };
    for part in parts(path) {
        let entry = observed.trees.get(&(at.clone(), part.to_owned()));
        let what = match entry {
            None | Some(TreeEntry::Missing { .. }) => break,
            Some(TreeEntry::Directory) if part != path => continue,
            Some(TreeEntry::Directory) => "as a directory",
            Some(TreeEntry::File) => "as a file",
            Some(TreeEntry::Link) => "as a symbolic link",
            Some(TreeEntry::Submodule) => "as a submodule",
        };
        let message = format!("`{}` tracks `{part}` {what}, which is never overwritten", worktree.base_ref);
        return Some((message, "choose a path that the commit does not have".to_owned()));
    }
    let overlaps = |seed: &&PlannedSeed| {
        Path::new(path).starts_with(&seed.path) || Path::new(&seed.path).starts_with(path)
    };
    if let Some(seed) = worktree.seeds.iter().find(overlaps) {
        let message = format!("`seed` populates `{}`", seed.path);
        return Some((message, "choose a path outside that directory".to_owned()));
    }
    let brought = |patterns: &[Pattern]| Patterns::new(patterns).matches(Path::new(path));
    if brought(&worktree.linked()) {
        let message = format!("`link` brings `{path}`, a link to the workspace");
        return Some((message, "remove the path from `link`, or choose another one".to_owned()));
    }
    (brought(&worktree.copied()) && !is_section).then(|| {
        let message = format!("`copy` brings `{path}` from the workspace");
        (message, "write `mode = \"section\"` to add a section to the copy".to_owned())
    })
}
