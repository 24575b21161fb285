//! Which commits refs name.

use std::collections::BTreeMap;

use super::near::near;
use super::{Commit, Error, UnknownRef};
use crate::host::git::Git;

/// Looks every ref up, one git process each.
pub(super) fn resolve<'a>(
    git: &Git<'_>,
    refs: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, Result<Commit, UnknownRef>>, Error> {
    let mut names = None;
    let mut commits = BTreeMap::new();
    for name in refs {
        let commit = match lookup(git, name)? {
            Ok(commit) => Ok(commit),
            Err(reason) => {
                let names = match &mut names {
                    Some(names) => names,
                    empty => empty.insert(short_names(git)?),
                };
                Err(unknown(name, reason, names))
            }
        };
        commits.insert(name.to_owned(), commit);
    }
    Ok(commits)
}

/// The commit, or why there is none.
fn lookup(git: &Git<'_>, name: &str) -> Result<Result<Commit, &'static str>, Error> {
    // Neither can begin or stand in the name of a ref, and git would read the one as an option.
    if name.is_empty() {
        return Ok(Err("an empty name names no commit"));
    }
    if name.starts_with('-') {
        return Ok(Err("a name that begins with `-` names no commit"));
    }
    if name.chars().any(char::is_control) {
        return Ok(Err("a name with control characters names no commit"));
    }
    let revision = format!("{name}^{{commit}}");
    let output = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", &revision])?;
    let id = String::from_utf8_lossy(&output.stdout);
    let id = id.strip_suffix('\n').unwrap_or(&id);
    // `^main` comes back as `^` and an id.
    let is_id = matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit());
    Ok(if output.status.success() && is_id { Ok(id.to_owned()) } else { Err("it names no commit") })
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
