//! Which commits refs name.

use std::collections::BTreeMap;

use super::near::near;
use super::{Commit, Error, UnknownRef};
use crate::host::git::Git;

/// Looks every ref up in one git process, and in a second one for near misses where one is unknown.
pub(super) fn resolve<'a>(
    git: &Git<'_>,
    refs: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, Result<Commit, UnknownRef>>, Error> {
    let (plain, odd): (Vec<(&str, _)>, Vec<_>) =
        refs.map(|name| (name, oddity(name))).partition(|(_, oddity)| oddity.is_none());
    let mut commits = BTreeMap::new();
    if !plain.is_empty() {
        let asked: Vec<String> = plain.iter().map(|(name, _)| format!("{name}^{{commit}}\n")).collect();
        let check = ["cat-file", "--batch-check=%(objectname) %(objecttype)"];
        let answers = git.run_with_input(check, asked.concat().into_bytes())?;
        let answers = String::from_utf8_lossy(&answers);
        let mut answers = answers.lines();
        for (name, _) in plain {
            commits.insert(name, commit_of(answers.next().unwrap_or_default()).ok_or("it names no commit"));
        }
    }
    commits.extend(odd.into_iter().filter_map(|(name, oddity)| Some((name, Err(oddity?)))));
    let names = if commits.values().any(Result::is_err) { short_names(git)? } else { Vec::new() };
    let commit = |(name, commit): (&str, Result<Commit, _>)| {
        (name.to_owned(), commit.map_err(|reason| unknown(name, reason, &names)))
    };
    Ok(commits.into_iter().map(commit).collect())
}

/// Why git is not asked about a name: it would be told something else.
fn oddity(name: &str) -> Option<&'static str> {
    // Neither can begin or stand in the name of a ref, and git may read the one as an option.
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

/// The commit that git answers with: `ID commit`, where it knows one; else the name again, and what is wrong with it.
fn commit_of(answer: &str) -> Option<Commit> {
    let id = answer.strip_suffix(" commit")?;
    let is_id = matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

fn unknown(name: &str, reason: &str, names: &[String]) -> UnknownRef {
    let reason =
        if names.is_empty() { "the repository has no commits yet: make a first one" } else { reason };
    UnknownRef { reason: reason.to_owned(), near: near(name, names.iter().map(String::as_str)) }
}

/// Branches, tags and remote branches, as one writes them; one that begins with `-` cannot be written so.
fn short_names(git: &Git<'_>) -> Result<Vec<String>, Error> {
    let listed =
        git.run(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads", "refs/tags", "refs/remotes"])?;
    let listed = String::from_utf8_lossy(&listed);
    Ok(listed.lines().filter(|name| !name.starts_with('-')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
