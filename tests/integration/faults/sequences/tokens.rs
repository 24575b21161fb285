//! Tokens that a sequence writes, and the search for them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sandbox::Sandbox;

/// The commands that a token outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Safety {
    /// All commands: the token is on a branch, or outside of every session.
    Always,
    /// All commands: the token is in a repository or swarm inside of a session.
    Nested,
    /// All commands without `--discard`.
    Unsaved,
    /// Commands that leave the session's worktree alone, because Git ignores the file.
    Ignored,
}

/// A token that was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) token: String,
    pub(super) safety: Safety,
    /// [`Place::name`](super::sequence::Place::name); empty outside of sessions.
    pub(super) session: String,
}

/// Returns every token that is in a file of the sandbox or in an object that a ref, or a stash, reaches.
pub(super) fn tokens(sandbox: &Sandbox) -> BTreeSet<String> {
    let mut tokens = BTreeSet::new();
    scan(&sandbox.top, &mut tokens);
    for repository in repositories(sandbox) {
        of_objects(sandbox, &repository, &mut tokens);
    }
    tokens
}

/// Returns the repositories that exist: the workspace's, and the other one at each of its paths.
pub(super) fn repositories(sandbox: &Sandbox) -> Vec<PathBuf> {
    let mut repositories = vec![sandbox.repository.clone()];
    repositories.extend(["web", "docs", "web-away"].map(|name| sandbox.top.join(name)));
    repositories.retain(|path| path.exists());
    repositories
}

/// Adds the tokens in objects that a ref, or a stash, of a repository reaches.
fn of_objects(sandbox: &Sandbox, repository: &Path, tokens: &mut BTreeSet<String>) {
    // Of stashes only the last one has a ref.
    let mut stashes = sandbox.program("git", repository);
    let stashes = stashes.args(["reflog", "show", "--format=%H", "refs/stash", "--"]).output().unwrap();
    let stashes = String::from_utf8(stashes.stdout).unwrap();
    let mut args = vec!["rev-list", "--objects", "--all"];
    args.extend(stashes.lines());
    let listed = sandbox.git_in(repository, &args);
    let ids: String = listed.lines().flat_map(|line| [line.split(' ').next().unwrap(), "\n"]).collect();
    let path = sandbox.top.join("ids");
    fs::write(&path, ids).unwrap();
    let mut git = sandbox.program("git", repository);
    git.args(["cat-file", "--batch", "--buffer"]).stdin(fs::File::open(&path).unwrap());
    find(&git.output().unwrap().stdout, tokens);
    fs::remove_file(path).unwrap();
}

/// Adds the tokens in all files below, except in Git's objects and in copies that a step has made.
pub(super) fn scan(directory: &Path, tokens: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy().into_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            if name != "objects" && !name.starts_with("copy-") {
                scan(&path, tokens);
            }
        } else if kind.is_file() && name != "trace" {
            find(&fs::read(&path).unwrap_or_default(), tokens);
        }
    }
}

fn find(bytes: &[u8], tokens: &mut BTreeSet<String>) {
    for (at, _) in bytes.windows(2).enumerate().filter(|(_, pair)| pair == b"<<") {
        let rest = &bytes[at + 2..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && rest[digits..].starts_with(b">>") {
            tokens.insert(format!("<<{}>>", String::from_utf8_lossy(&rest[..digits])));
        }
    }
}
