//! Untracked files of the workspace that globs match, for `copy` and `link`.
#![expect(clippy::disallowed_methods, reason = "reads the sizes of files")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::Untracked;
use crate::host::git::Git;
use crate::host::process;

/// Directory of worktrees and locks, whose files are never untracked files of the workspace.
pub(crate) const HIDDEN: &str = ".ai_ops";

/// Number of paths to which one call of Git is limited; for more paths, the whole workspace is listed.
const PATHS_MAX: usize = 500;

/// Compiles a glob. `*` matches no slash; `./` at the beginning and a slash at the end are ignored.
pub(crate) fn matcher(glob: &str) -> Result<GlobMatcher, globset::Error> {
    let glob = glob.trim_start_matches("./").trim_end_matches('/');
    let glob = GlobBuilder::new(glob).literal_separator(true).build()?;
    Ok(glob.compile_matcher())
}

/// Returns whether a glob can match more than the path with its own text.
pub(crate) fn has_wildcard(glob: &str) -> bool {
    glob.contains(['*', '?', '[', '{', '\\'])
}

/// Lists the untracked files that may match any of the globs, also ignored files, relative to the directory of `git`.
///
/// Git does not list files in other repositories and worktrees.
pub(crate) fn list<'g>(
    git: &Git<'_>,
    globs: impl Iterator<Item = &'g String>,
) -> Result<Vec<PathBuf>, process::Error> {
    let listed =
        git.run(["ls-files", "-z", "--others", "--"].map(String::from).into_iter().chain(paths(globs)))?;
    let is_below = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    let paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty() && !path.ends_with(b"/"));
    let paths = paths.map(|path| PathBuf::from(OsStr::from_bytes(path)));
    Ok(paths.filter(|path| !path.starts_with(HIDDEN) && is_below(path)).collect())
}

/// Limits a listing to the parts of the globs before their first wildcards, which saves Git a walk through the rest.
fn paths<'g>(globs: impl Iterator<Item = &'g String>) -> BTreeSet<String> {
    let everything = || BTreeSet::from([".".to_owned()]);
    let mut paths = BTreeSet::new();
    for glob in globs {
        let literal: Vec<&str> = glob.split('/').take_while(|name| !has_wildcard(name)).collect();
        if literal.is_empty() {
            return everything();
        }
        paths.insert(format!(":(literal){}", literal.join("/")));
    }
    if paths.len() > PATHS_MAX { everything() } else { paths }
}

/// Finds the files that each of the globs matches. If Git cannot list files, as in a bare repository, this is an error
/// for all globs.
pub(super) fn observe(
    git: &Git<'_>,
    workspace: &Path,
    globs: &BTreeSet<&String>,
) -> Result<BTreeMap<String, Result<Untracked, String>>, process::Error> {
    let listed = match list(git, globs.iter().copied()) {
        Ok(listed) => listed,
        Err(error @ process::Error::Failed { .. }) => {
            let why = error.to_string();
            return Ok(globs.iter().map(|glob| ((*glob).clone(), Err(why.clone()))).collect());
        }
        Err(error) => return Err(error),
    };
    let mut found = BTreeMap::new();
    for glob in globs {
        // Planning reports invalid globs.
        let Ok(pattern) = matcher(glob) else { continue };
        let is_matched = |path: &&PathBuf| path.ancestors().any(|part| pattern.is_match(part));
        let (mut files, mut bytes) = (0, 0);
        for path in listed.iter().filter(is_matched) {
            files += 1;
            bytes += fs::symlink_metadata(workspace.join(path)).map_or(0, |found| found.len());
        }
        let matched = match files {
            0 if !has_wildcard(glob) => Untracked::Missing,
            _ => Untracked::Files { files, bytes },
        };
        found.insert((*glob).clone(), Ok(matched));
    }
    let missing = found.iter().filter(|(_, matched)| **matched == Ok(Untracked::Missing));
    let missing: Vec<String> = missing.map(|(glob, _)| glob.clone()).collect();
    for glob in tracked(git, &missing)? {
        found.insert(glob, Ok(Untracked::Tracked));
    }
    Ok(found)
}

/// Returns the paths that Git tracks, or below which it tracks anything.
fn tracked(git: &Git<'_>, paths: &[String]) -> Result<Vec<String>, process::Error> {
    let mut tracked = Vec::new();
    for paths in paths.chunks(PATHS_MAX) {
        let args = ["ls-files", "-z", "--cached", "--"].map(String::from).into_iter();
        let listed = git.run(args.chain(paths.iter().map(|path| format!(":(literal){path}"))))?;
        let listed: Vec<&Path> =
            listed.split(|byte| *byte == 0).map(|path| Path::new(OsStr::from_bytes(path))).collect();
        let is_tracked = |path: &&String| {
            let path = Path::new(path.as_str());
            listed.iter().any(|listed| listed.starts_with(path.strip_prefix(".").unwrap_or(path)))
        };
        tracked.extend(paths.iter().filter(is_tracked).cloned());
    }
    Ok(tracked)
}
