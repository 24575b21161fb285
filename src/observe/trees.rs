//! What paths are in commits.

use std::collections::BTreeMap;

use super::near::near;
use super::{Commit, Error, TreeEntry, UnknownRef};
use crate::host::git::Git;

/// How many bytes of paths one git process is given; systems take no less than 128 KiB of arguments.
const ARGUMENTS_MAX: usize = 64 * 1024;
/// The longest path that any system opens.
const PATH_MAX: usize = 4096;

/// Looks every path up in the commit that its ref names: one git process a distinct commit, and a second one where
/// something is missing that is wanted.
pub(super) fn look(
    git: &Git<'_>,
    commits: &BTreeMap<String, Result<Commit, UnknownRef>>,
    refs: &BTreeMap<&str, BTreeMap<&str, bool>>,
) -> Result<BTreeMap<(String, String), TreeEntry>, Error> {
    let mut asked: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    let resolved = |name: &str| commits.get(name)?.as_ref().ok().map(String::as_str);
    for (name, paths) in refs {
        if let Some(commit) = resolved(name) {
            let asked = asked.entry(commit).or_default();
            for (path, wanted) in paths {
                *asked.entry(path).or_default() |= wanted;
            }
        }
    }
    let mut found = BTreeMap::new();
    for (commit, paths) in asked {
        found.insert(commit, entries(git, commit, &paths)?);
    }
    let mut trees = BTreeMap::new();
    for (name, paths) in refs {
        let Some(entries) = resolved(name).and_then(|commit| found.get(commit)) else { continue };
        for path in paths.keys() {
            trees.insert(((*name).to_owned(), (*path).to_owned()), entries[path].clone());
        }
    }
    Ok(trees)
}

/// An entry for each path, which is told with whether it is wanted.
fn entries<'a>(
    git: &Git<'_>,
    commit: &str,
    paths: &BTreeMap<&'a str, bool>,
) -> Result<BTreeMap<&'a str, TreeEntry>, Error> {
    let mut entries: BTreeMap<&str, TreeEntry> = BTreeMap::new();
    for chunk in chunks(paths.keys().copied().filter(|path| is_plain(path))) {
        // Without `-t`, `a` is left out where `a/b` is asked for too. Without literal paths, `:x` is magic.
        let mut arguments = vec!["--literal-pathspecs", "ls-tree", "-z", "-t", "--full-tree", commit, "--"];
        arguments.extend(&chunk);
        let listed = git.run(arguments)?;
        for (kind, path) in listed.split(|&byte| byte == 0).filter_map(parse) {
            // It also lists what lies between and below.
            if let Some((path, _)) = std::str::from_utf8(path).ok().and_then(|path| paths.get_key_value(path))
            {
                entries.insert(path, kind);
            }
        }
    }
    let missing: Vec<(&str, bool)> = paths
        .iter()
        .map(|(path, wanted)| (*path, *wanted))
        .filter(|(path, _)| !entries.contains_key(path))
        .collect();
    let mut directories = String::new();
    if missing.iter().any(|(_, wanted)| *wanted) {
        // A tree too large to be listed has no near misses.
        let listed =
            git.run(["ls-tree", "-z", "-r", "-d", "--name-only", "--full-tree", commit]).unwrap_or_default();
        directories = String::from_utf8_lossy(&listed).into_owned();
    }
    for (path, wanted) in missing {
        let near = if wanted { near(path, directories.split_terminator('\0')) } else { Vec::new() };
        entries.insert(path, TreeEntry::Missing { near });
    }
    Ok(entries)
}

/// Tells whether a path can be in a tree; any other would make git fail for all that are asked about with it.
fn is_plain(path: &str) -> bool {
    path.len() <= PATH_MAX
        && !path.contains('\0')
        && path.split('/').all(|component| !matches!(component, "" | "." | ".."))
}

/// The paths in runs that fit into one command line.
fn chunks<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let mut chunks: Vec<Vec<&str>> = Vec::new();
    let mut room = 0;
    for path in paths {
        match chunks.last_mut() {
            Some(chunk) if path.len() < room => {
                chunk.push(path);
                room -= path.len() + 1;
            }
            _ => {
                chunks.push(vec![path]);
                room = ARGUMENTS_MAX - path.len();
            }
        }
    }
    chunks
}

/// `MODE TYPE ID`, a tab, and the path.
fn parse(line: &[u8]) -> Option<(TreeEntry, &[u8])> {
    let tab = line.iter().position(|&byte| byte == b'\t')?;
    let kind = match line.get(..6)? {
        b"040000" => TreeEntry::Directory,
        b"120000" => TreeEntry::Link,
        b"160000" => TreeEntry::Submodule,
        _ => TreeEntry::File,
    };
    Some((kind, &line[tab + 1..]))
}

#[cfg(test)]
mod tests;
