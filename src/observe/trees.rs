//! Types of paths in commits.

use std::collections::{BTreeMap, BTreeSet};

use super::{Commit, Error, TreeEntry, UnknownRef};
use crate::host::git::Git;
use crate::name::similar;

/// Bytes of paths in the arguments of one Git process; systems permit at least 128 KiB of arguments.
const ARGUMENTS_MAX: usize = 64 * 1024;
/// Longest path that any system opens, in bytes.
const PATH_MAX: usize = 4096;

/// Entries at the top of a tree, by name.
pub(super) type Top = BTreeMap<Vec<u8>, TreeEntry>;

/// Parses a tree in Git's format: repeated `MODE NAME`, a zero, and the `id` bytes of an object id; `None` if it is
/// invalid.
pub(super) fn top(content: &[u8], id: usize) -> Option<Top> {
    let mut top = Top::new();
    let mut rest = content;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let space = rest[..end].iter().position(|byte| *byte == b' ')?;
        top.insert(rest[space + 1..end].to_vec(), kind(&rest[..space]));
        rest = rest.get(end + 1 + id..)?;
    }
    Some(top)
}

/// Returns the type of every path in the commit that its ref names.
///
/// Paths that `tops` leave open cost one Git process a distinct commit, and a second one if a required path is missing.
pub(super) fn observe(
    git: &Git<'_>,
    commits: &BTreeMap<String, Result<Commit, UnknownRef>>,
    tops: &BTreeMap<Commit, Top>,
    refs: &BTreeMap<&str, BTreeMap<&str, bool>>,
) -> Result<BTreeMap<(String, String), TreeEntry>, Error> {
    let mut requests: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    let resolved = |name: &str| commits.get(name)?.as_ref().ok().map(String::as_str);
    for (name, paths) in refs {
        if let Some(commit) = resolved(name) {
            let requests = requests.entry(commit).or_default();
            for (path, required) in paths {
                *requests.entry(path).or_default() |= required;
            }
        }
    }
    let mut found = BTreeMap::new();
    for (commit, paths) in requests {
        let (mut known, mut open) = (BTreeMap::new(), BTreeMap::new());
        for (path, required) in paths {
            match tops.get(commit).and_then(|top| at_the_top(top, path, required)) {
                Some(entry) => drop(known.insert(path, entry)),
                None => drop(open.insert(path, required)),
            }
        }
        if !open.is_empty() {
            known.extend(entries(git, commit, &open)?);
        }
        found.insert(commit, known);
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

/// Returns the object id of each of `paths` that is a file at a ref, by the commit and the path.
pub(super) fn blobs(
    git: &Git<'_>,
    commits: &BTreeMap<String, Result<Commit, UnknownRef>>,
    trees: &BTreeMap<(String, String), TreeEntry>,
    paths: &BTreeSet<&str>,
) -> Result<BTreeMap<(Commit, String), String>, Error> {
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for ((name, path), entry) in trees {
        if *entry == TreeEntry::File
            && paths.contains(path.as_str())
            && let Some(Ok(commit)) = commits.get(name)
        {
            files.entry(commit).or_default().insert(path);
        }
    }
    let mut blobs = BTreeMap::new();
    for (commit, paths) in files {
        for chunk in chunks(paths.into_iter()) {
            let mut arguments = vec!["--literal-pathspecs", "ls-tree", "-z", "--full-tree", commit, "--"];
            arguments.extend(&chunk);
            for line in git.run(arguments)?.split(|&byte| byte == 0) {
                let line = String::from_utf8_lossy(line);
                let Some((facts, path)) = line.split_once('\t') else { continue };
                let id = facts.rsplit(' ').next().unwrap_or_default();
                blobs.insert((commit.to_owned(), path.to_owned()), id.to_owned());
            }
        }
    }
    Ok(blobs)
}

/// Returns the type of a path by the top of its tree; `None` if deeper directories are needed.
fn at_the_top(top: &Top, path: &str, required: bool) -> Option<TreeEntry> {
    let (first, below) = path.split_once('/').map_or((path, None), |(first, below)| (first, Some(below)));
    match (top.get(first.as_bytes()), below) {
        (Some(entry), None) => Some(entry.clone()),
        (Some(TreeEntry::Directory), Some(_)) => None,
        _ if required => None,
        _ => Some(TreeEntry::Missing { near: Vec::new() }),
    }
}

/// Returns an entry for each path. `paths` gives whether each path is required.
fn entries<'a>(
    git: &Git<'_>,
    commit: &str,
    paths: &BTreeMap<&'a str, bool>,
) -> Result<BTreeMap<&'a str, TreeEntry>, Error> {
    let mut entries: BTreeMap<&str, TreeEntry> = BTreeMap::new();
    for chunk in chunks(paths.keys().copied().filter(|path| is_plain(path))) {
        // Without `-t`, `a` is left out if `a/b` is requested too. Without literal paths, `:x` is magic.
        let mut arguments = vec!["--literal-pathspecs", "ls-tree", "-z", "-t", "--full-tree", commit, "--"];
        arguments.extend(&chunk);
        let listed = git.run(arguments)?;
        for (kind, path) in listed.split(|&byte| byte == 0).filter_map(parse) {
            // Git also lists paths between and below.
            if let Some((path, _)) = std::str::from_utf8(path).ok().and_then(|path| paths.get_key_value(path))
            {
                entries.insert(path, kind);
            }
        }
    }
    let missing: Vec<(&str, bool)> = paths
        .iter()
        .map(|(path, required)| (*path, *required))
        .filter(|(path, _)| !entries.contains_key(path))
        .collect();
    let mut directories = String::new();
    if missing.iter().any(|(_, required)| *required) {
        // A tree that is too large to be listed has no similar paths.
        let listed =
            git.run(["ls-tree", "-z", "-r", "-d", "--name-only", "--full-tree", commit]).unwrap_or_default();
        directories = String::from_utf8_lossy(&listed).into_owned();
    }
    for (path, required) in missing {
        let near = if required { similar(path, directories.split_terminator('\0')) } else { Vec::new() };
        entries.insert(path, TreeEntry::Missing { near: near.into_iter().map(str::to_owned).collect() });
    }
    Ok(entries)
}

/// Returns whether a path can be in a tree. Any other path would make Git fail for all paths of the call.
fn is_plain(path: &str) -> bool {
    path.len() <= PATH_MAX
        && !path.contains('\0')
        && path.split('/').all(|component| !matches!(component, "" | "." | ".."))
}

/// Returns the paths in groups that fit into one command line.
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

/// Parses `MODE TYPE ID`, a tab, and the path.
fn parse(line: &[u8]) -> Option<(TreeEntry, &[u8])> {
    let tab = line.iter().position(|&byte| byte == b'\t')?;
    Some((kind(line.get(..6)?), &line[tab + 1..]))
}

/// Returns the type of a mode. In a tree object, the mode of a directory has no leading zero.
fn kind(mode: &[u8]) -> TreeEntry {
    match mode {
        b"040000" | b"40000" => TreeEntry::Directory,
        b"120000" => TreeEntry::Link,
        b"160000" => TreeEntry::Submodule,
        _ => TreeEntry::File,
    }
}

#[cfg(test)]
mod tests;
