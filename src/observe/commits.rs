//! Commits that refs name.

use std::collections::BTreeMap;

use super::trees::{self, Top};
use super::{Commit, Error, UnknownRef};
use crate::host::git::{Git, is_object_id};
use crate::name::similar;

/// Commits of refs, and the top of their trees.
pub(super) struct Resolved {
    /// Commit of each ref.
    pub(super) commits: BTreeMap<String, Result<Commit, UnknownRef>>,
    /// Top of the tree of each commit, as far as it is known.
    pub(super) tops: BTreeMap<Commit, Top>,
}

/// Resolves every ref in one Git process, and searches for similar names in a second one if a ref is unknown.
pub(super) fn resolve<'a>(git: &Git<'_>, refs: impl Iterator<Item = &'a str>) -> Result<Resolved, Error> {
    let (plain, odd): (Vec<(&str, _)>, Vec<_>) =
        refs.map(|name| (name, oddity(name))).partition(|(_, oddity)| oddity.is_none());
    let mut commits = BTreeMap::new();
    let mut tops = BTreeMap::new();
    if !plain.is_empty() {
        let requests = plain.iter().flat_map(|(name, _)| [name, "^{commit}\n", name, "^{tree}\n"]);
        let requests: String = requests.collect();
        let print = ["cat-file", "--batch=%(objectname) %(objecttype) %(objectsize)"];
        let answers = git.run_with_input(print, requests.into_bytes())?;
        let mut answers = Answers(&answers);
        for (name, _) in plain {
            let (commit, tree) = (answers.next().flatten(), answers.next().flatten());
            let commit = commit.filter(|commit| commit.kind == "commit");
            if let (Some(commit), Some(tree)) = (&commit, tree)
                // A ref that moves meanwhile has another tree.
                && commit.content.strip_prefix(b"tree ").is_some_and(|rest| rest.starts_with(tree.id.as_bytes()))
                && let Some(top) = trees::top(tree.content, tree.id.len() / 2)
            {
                tops.insert(commit.id.to_owned(), top);
            }
            commits.insert(name, commit.map(|commit| commit.id.to_owned()).ok_or("it names no commit"));
        }
    }
    commits.extend(odd.into_iter().filter_map(|(name, oddity)| Some((name, Err(oddity?)))));
    let names = if commits.values().any(Result::is_err) { short_names(git)? } else { Vec::new() };
    let commit = |(name, commit): (&str, Result<Commit, _>)| {
        (name.to_owned(), commit.map_err(|reason| unknown(name, reason, &names)))
    };
    Ok(Resolved { commits: commits.into_iter().map(commit).collect(), tops })
}

/// Returns the reason for which Git is not queried about a name: it would interpret the name as something else.
fn oddity(name: &str) -> Option<&'static str> {
    // Neither can occur in the name of a ref, and Git may interpret the first as an option.
    if name.is_empty() {
        return Some("an empty name names no commit");
    }
    if name.starts_with('-') {
        return Some("a name that begins with `-` names no commit");
    }
    if name.chars().any(char::is_control) {
        return Some("a name with control characters names no commit");
    }
    None
}

/// An object that Git printed.
struct Object<'a> {
    id: &'a str,
    kind: &'a str,
    content: &'a [u8],
}

/// Output of Git, an answer for each name.
///
/// The answer for a known object is `ID TYPE SIZE`, a line feed, the bytes, and another line feed. Any other answer is
/// a line with the name and the problem.
struct Answers<'a>(&'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = Option<Object<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = (&self.0[..end], &self.0[end + 1..]);
        let object = object(line, rest);
        self.0 = match &object {
            Some(object) => rest.get(object.content.len() + 1..).unwrap_or_default(),
            None => rest,
        };
        Some(object)
    }
}

fn object<'a>(line: &'a [u8], rest: &'a [u8]) -> Option<Object<'a>> {
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let [id, kind, size] = words[..] else { return None };
    let content = rest.get(..size.parse().ok()?)?;
    is_object_id(id).then_some(Object { id, kind, content })
}

fn unknown(name: &str, reason: &str, names: &[String]) -> UnknownRef {
    let reason =
        if names.is_empty() { "the repository has no commits yet: make a first one" } else { reason };
    let mut near = similar(name, names.iter().map(String::as_str));
    if near.is_empty() && MAIN_BRANCHES.contains(&name) {
        near = MAIN_BRANCHES.into_iter().filter(|main| names.iter().any(|name| name == main)).collect();
    }
    UnknownRef { reason: reason.to_owned(), near: near.into_iter().map(str::to_owned).collect() }
}

/// Usual names of a repository's main branch: if one is missing, another was probably meant.
const MAIN_BRANCHES: [&str; 4] = ["main", "master", "trunk", "develop"];

/// Returns branches, tags and remote branches in their short form. Names that begin with `-` cannot be written so.
fn short_names(git: &Git<'_>) -> Result<Vec<String>, Error> {
    let listed =
        git.run(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads", "refs/tags", "refs/remotes"])?;
    let listed = String::from_utf8_lossy(&listed);
    Ok(listed.lines().filter(|name| !name.starts_with('-')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
