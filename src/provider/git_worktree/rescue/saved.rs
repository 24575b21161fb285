//! Lists and deletes the rescues of a repository. Neither a swarm nor a manifest has to exist.
//!
//! Every process that can write to the repository can create such refs too: names and messages are untrusted.

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
    /// Time when the work was saved, in UTC as RFC 3339; `null` if the ref names no commit.
    pub saved: Option<String>,
    /// Number of files that differ from the commit that was checked out; `null` if objects are missing.
    pub files: Option<u64>,
    /// Object that the ref names.
    pub object: String,
    /// Whether the ref has the form of a rescue and can be restored. Another program may create any ref.
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
    Ok(Git::around(host, directory).path(["rev-parse", "--path-format=absolute", "--git-common-dir"])?)
}

/// Lists the rescues of a repository, by name.
///
/// # Errors
///
/// Git fails.
pub fn list(host: &Host, common: &Path) -> Result<Vec<SavedWork>, Error> {
    let git = Git::of(host, common, None);
    let format = "--format=%(refname)%00%(objectname)%00%(objecttype)%00%(committerdate:unix)%00%(parent)%00%(contents:subject)";
    let printed = git.run(["for-each-ref", format, name::ROOT])?;
    let printed = String::from_utf8_lossy(&printed);
    let mut first_parents = Vec::new();
    let mut saved = Vec::new();
    for line in printed.lines() {
        let [reference, object, kind, time, parents, subject] = line.split('\0').collect::<Vec<_>>()[..]
        else {
            continue;
        };
        let parents: Vec<&str> = parents.split_whitespace().collect();
        let Some(name) = short_name(reference) else { continue };
        first_parents.push(parents.first().map(|parent| format!("{object} {parent}\n")));
        saved.push(SavedWork {
            name: name.to_owned(),
            reference: reference.to_owned(),
            session: session(reference, subject),
            saved: time.parse().ok().map(clock::rfc3339),
            files: None,
            object: object.to_owned(),
            valid: kind == "commit" && matches!(parents.len(), 3 | 4) && name.contains("/@"),
        });
    }
    for (saved, pair) in saved.iter_mut().zip(first_parents) {
        saved.files = pair.and_then(|pair| changed_files(&git, pair));
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
    Git::of(host, common, None)
        .run_with_input(["update-ref", "--no-deref", "-z", "--stdin"], input.into_bytes())?;
    Ok(())
}

/// Returns the session's id as the message has it, if that id makes this ref's name.
fn session(reference: &str, subject: &str) -> String {
    let (path, _) = reference.rsplit_once(name::TIME).unwrap_or((reference, ""));
    match subject.strip_suffix(name::SUBJECT) {
        Some(session) if name::prefix(session) == path => session.to_owned(),
        _ => short_name(path).unwrap_or(path).trim_end_matches('/').to_owned(),
    }
}

/// Counts the files in which a commit differs from its first parent. `pair` is a line with both commits.
fn changed_files(git: &Git<'_>, pair: String) -> Option<u64> {
    let args = ["diff-tree", "--stdin", "-r", "-z", "--raw", "--no-renames", "--ignore-submodules=none"];
    let printed = git.run_with_input(args, pair.into_bytes()).ok()?;
    // Each file is a record, which begins with a colon, and a path.
    let mut count = 0;
    let mut fields = printed.split(|byte| *byte == 0);
    while let Some(field) = fields.next() {
        if field.starts_with(b":") {
            fields.next();
            count += 1;
        }
    }
    Some(count)
}
