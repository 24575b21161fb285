//! Untracked files of the workspace that globs match, for `copy` and `link`.
#![expect(clippy::disallowed_methods, reason = "reads the sizes of files")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::worktree_include::{self, ENTRY, Included};
use super::{Untracked, WorkspaceFile};
use crate::host::git::Git;
use crate::host::process;

/// Directory of worktrees and locks, whose files are never untracked files of the workspace.
pub(crate) const HIDDEN: &str = ".ai_ops";

/// Number of paths to which one call of Git is limited; for more paths, the whole workspace is listed.
const PATHS_MAX: usize = 500;

/// Pattern of files to copy or to link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Glob of untracked files, and of directories above them.
    Glob(String),
    /// Patterns of ignored files, from a `.worktreeinclude`.
    Included(Vec<String>),
}

impl Pattern {
    /// Returns the globs of a list; [`ENTRY`] in it stands for these patterns.
    pub(crate) fn list(globs: &[String], included: &[String]) -> Vec<Self> {
        let pattern = |glob: &String| match glob.as_str() {
            ENTRY => Self::Included(included.to_owned()),
            _ => Self::Glob(glob.clone()),
        };
        globs.iter().map(pattern).collect()
    }

    /// Returns the text of the pattern in a list.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Glob(glob) => glob,
            Self::Included(_) => ENTRY,
        }
    }

    fn glob(&self) -> Option<&str> {
        match self {
            Self::Glob(glob) => Some(glob),
            Self::Included(_) => None,
        }
    }

    /// Returns whether the pattern can match more than the path with its own text.
    pub(crate) fn has_wildcard(&self) -> bool {
        self.glob().is_none_or(has_wildcard)
    }

    /// Compiles the pattern. `*` in a glob matches no slash; `./` at its beginning and a slash at its end are ignored.
    pub(crate) fn matcher(&self) -> Result<Matcher, globset::Error> {
        let glob = match self {
            Self::Glob(glob) => glob.trim_start_matches("./").trim_end_matches('/'),
            Self::Included(patterns) => return Ok(Matcher::Included(Included::new(patterns))),
        };
        let glob = GlobBuilder::new(glob).literal_separator(true).build()?;
        Ok(Matcher::Glob(glob.compile_matcher()))
    }
}

/// Compiled [`Pattern`].
pub(crate) enum Matcher {
    Glob(GlobMatcher),
    Included(Included),
}

impl Matcher {
    /// Returns the path that the pattern matches: the path of a file, or the highest matching directory above the file;
    /// `None` if it matches none.
    pub(crate) fn top<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        match self {
            Self::Glob(glob) => {
                path.ancestors().filter(|part| *part != Path::new("") && glob.is_match(part)).last()
            }
            Self::Included(included) => included.matches(path).then_some(path),
        }
    }

    /// Returns the path that the pattern matches, like [`Self::top`], if it may be copied because of this pattern.
    pub(crate) fn top_of_listed<'p>(&self, path: &'p Path, listed: &Listed) -> Option<&'p Path> {
        let is_candidate = matches!(self, Self::Glob(_)) || listed.ignored.contains(path);
        if is_candidate { self.top(path) } else { None }
    }
}

/// Returns whether a glob can match more than the path with its own text.
fn has_wildcard(glob: &str) -> bool {
    glob.contains(['*', '?', '[', '{', '\\'])
}

/// Files that may match patterns, relative to one directory.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Untracked files, also ignored ones.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// Files that Git ignores, if [`Pattern::Included`] is among the patterns.
    ignored: HashSet<PathBuf>,
}

/// Lists the untracked files that may match any of the patterns, also ignored files, relative to the directory of `git`.
///
/// Git does not list files in other repositories and worktrees.
pub(crate) fn list(git: &Git<'_>, patterns: &[Pattern]) -> Result<Listed, process::Error> {
    let mut listed = Listed::default();
    let globs: Vec<&str> = patterns.iter().filter_map(Pattern::glob).collect();
    if !globs.is_empty() {
        let others = ["ls-files", "-z", "--others", "--"].map(String::from);
        listed.paths.extend(files(&git.run(others.into_iter().chain(paths(&globs)))?));
    }
    if globs.len() < patterns.len() {
        let ignored = git.run(["ls-files", "-z", "--others", "--ignored", "--exclude-standard"])?;
        listed.ignored = files(&ignored).collect();
        listed.paths.extend(listed.ignored.iter().cloned());
    }
    Ok(listed)
}

/// Returns the files in a list of Git that are below its directory.
fn files(listed: &[u8]) -> impl Iterator<Item = PathBuf> {
    let is_below = |path: &PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
    let paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty() && !path.ends_with(b"/"));
    let paths = paths.map(|path| PathBuf::from(OsStr::from_bytes(path)));
    paths.filter(move |path| !path.starts_with(HIDDEN) && is_below(path))
}

/// Limits a listing to the parts of the globs before their first wildcards, which saves Git a walk through the rest.
fn paths(globs: &[&str]) -> BTreeSet<String> {
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
/// for all globs. `file` is the `.worktreeinclude` for which [`ENTRY`] stands.
pub(super) fn observe(
    git: &Git<'_>,
    workspace: &Path,
    globs: &BTreeSet<&String>,
    file: Option<&WorkspaceFile>,
) -> Result<BTreeMap<String, Result<Untracked, String>>, process::Error> {
    // Planning reports a file that cannot be read.
    let included = match file {
        Some(WorkspaceFile::Text(text)) => worktree_include::patterns(text).unwrap_or_default(),
        _ => Vec::new(),
    };
    let globs: Vec<String> = globs.iter().map(|glob| (*glob).clone()).collect();
    let patterns = Pattern::list(&globs, &included);
    let listed = match list(git, &patterns) {
        Ok(listed) => listed,
        Err(error @ process::Error::Failed { .. }) => {
            let why = error.to_string();
            return Ok(globs.into_iter().map(|glob| (glob, Err(why.clone()))).collect());
        }
        Err(error) => return Err(error),
    };
    let mut found = BTreeMap::new();
    for pattern in &patterns {
        // Planning reports invalid globs.
        let Ok(compiled) = pattern.matcher() else { continue };
        let (mut files, mut bytes) = (0, 0);
        for path in listed.paths.iter().filter(|path| compiled.top_of_listed(path, &listed).is_some()) {
            files += 1;
            bytes += fs::symlink_metadata(workspace.join(path)).map_or(0, |found| found.len());
        }
        let matched = match files {
            0 if !pattern.has_wildcard() => Untracked::Missing,
            _ => Untracked::Files { files, bytes },
        };
        found.insert(pattern.name().to_owned(), Ok(matched));
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
