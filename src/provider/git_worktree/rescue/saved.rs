//! Lists and deletes the rescues of a repository. Neither a swarm nor a manifest has to exist.
//!
//! Every process that can write to the repository can create such refs too: names and messages are untrusted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name;
use crate::host::Host;
use crate::host::clock;
use crate::host::git::Git;
use crate::provider::Error;

/// A rescue as its repository has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SavedWork {
    /// Name that `seedbed rescue` takes: the ref without `refs/seedbed/rescue/`.
    pub name: String,
    /// Full name of the ref.
    pub reference: String,
    /// Id of the session that the work belongs to, `SWARM/PATH`. If seedbed did not write the name, this is the part
    /// before the time.
    pub session: String,
    /// Name of the worktree that the work was saved from; absent if its session had only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Time when the work was saved, in UTC as RFC 3339; `null` if the ref names no commit.
    pub saved: Option<String>,
    /// Number of files that differ from the commit that was checked out; `null` if objects are missing.
    pub files: Option<u64>,
    /// Object that the ref names.
    pub object: String,
    /// `true` if the ref has the form of a rescue and can be restored. Another program may create any ref.
    pub valid: bool,
}

/// Returns the name of a rescue as `seedbed rescue` takes it; `None` if the ref is no rescue.
pub fn short_name(reference: &str) -> Option<&str> {
    reference.strip_prefix(name::ROOT)
}

/// Returns the git directory that all worktrees of the repository around `directory` share.
///
/// # Errors
///
/// There is no repository, or Git fails.
pub fn common_directory(host: &Host, directory: &Path) -> Result<PathBuf, Error> {
    Ok(Git::discover(host, directory).path(["rev-parse", "--path-format=absolute", "--git-common-dir"])?)
}

/// Lists the rescues of a repository, by name.
///
/// # Errors
///
/// Git fails.
pub fn list(host: &Host, common: &Path) -> Result<Vec<SavedWork>, Error> {
    let git = Git::open(host, common, None);
    let format = "--format=%(refname)%00%(objectname)%00%(objecttype)%00%(committerdate:unix)%00%(parent)%00%(contents:subject)";
    let printed = git.run(["for-each-ref", format, name::ROOT])?;
    let printed = String::from_utf8_lossy(&printed);
    let mut pairs = Vec::new();
    let mut saved = Vec::new();
    for line in printed.lines() {
        let [reference, object, kind, time, parents, subject] = line.split('\0').collect::<Vec<_>>()[..]
        else {
            continue;
        };
        let parents: Vec<&str> = parents.split_whitespace().collect();
        let Some(name) = short_name(reference) else { continue };
        pairs.extend(parents.first().map(|parent| format!("{object} {parent}\n")));
        saved.push(SavedWork {
            name: name.to_owned(),
            reference: reference.to_owned(),
            session: session(reference, subject),
            resource: name::parse(reference).and_then(|(_, resource)| resource.map(str::to_owned)),
            saved: time.parse().ok().map(clock::rfc3339),
            files: None,
            object: object.to_owned(),
            valid: kind == "commit" && matches!(parents.len(), 3 | 4) && name.contains("/@"),
        });
    }
    let files = changed_files(&git, &pairs);
    for saved in &mut saved {
        saved.files = files.get(&saved.object).copied();
    }
    Ok(saved)
}

/// Deletes rescues, all of them or none. A rescue whose ref now names another object is not deleted.
///
/// # Errors
///
/// Git fails, or another process has changed one of the refs.
pub fn delete(host: &Host, common: &Path, rescues: &[&SavedWork]) -> Result<(), Error> {
    let delete = |saved: &&SavedWork| format!("delete {}\0{}\0", saved.reference, saved.object);
    let input: String = rescues.iter().map(delete).collect();
    Git::open(host, common, None)
        .run_with_input(["update-ref", "--no-deref", "-z", "--stdin"], input.into_bytes())?;
    Ok(())
}

/// Returns the session's id as the message has it, if that id makes this ref's name.
fn session(reference: &str, subject: &str) -> String {
    let path = name::parse(reference).map_or(reference, |(path, _)| path);
    match subject.strip_suffix(name::SUBJECT) {
        Some(session) if name::prefix(session) == path => session.to_owned(),
        _ => short_name(path).unwrap_or(path).trim_end_matches('/').to_owned(),
    }
}

/// Counts, by commit, the files in which commits differ from their first parents. `pairs` are lines with both commits.
///
/// One process counts the files of all commits. If it fails, because objects of one commit are missing, each commit
/// gets a process of its own.
fn changed_files(git: &Git<'_>, pairs: &[String]) -> HashMap<String, u64> {
    let args =
        ["diff-tree", "--stdin", "--always", "-r", "-z", "--raw", "--no-renames", "--ignore-submodules=none"];
    match git.run_with_input(args, pairs.concat().into_bytes()) {
        Ok(printed) => counted(&printed),
        Err(_) if pairs.len() > 1 => {
            pairs.iter().flat_map(|pair| changed_files(git, std::slice::from_ref(pair))).collect()
        }
        Err(_) => HashMap::new(),
    }
}

/// Counts the files of each commit in the output of `git diff-tree`: the id of the commit, and for each file a record,
/// which begins with a colon, and a path.
fn counted(printed: &[u8]) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    let mut count = None;
    let mut fields = printed.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    while let Some(field) = fields.next() {
        if !field.starts_with(b":") {
            // Two rescue refs can name the same commit, which is then printed twice.
            let files = counts.entry(String::from_utf8_lossy(field).into_owned()).or_insert(0);
            *files = 0;
            count = Some(files);
        } else if let Some(count) = &mut count {
            fields.next();
            **count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_commit() {
        let printed = b"c1\0:100644 A\0:a\0:100644 D\0c2\0c2\0c3\0:100644 A\0b\0c3\0:100644 A\0b\0";
        let expected = [("c1", 2), ("c2", 0), ("c3", 1)].map(|(commit, files)| (commit.to_owned(), files));
        assert_eq!(counted(printed), HashMap::from(expected));
        assert_eq!(counted(b""), HashMap::new());
    }
}
