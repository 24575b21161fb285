//! Checks branch names, finds conflicts between branches, and finds a swarm's own branches.

use std::collections::BTreeMap;
use std::path::Path;

use super::paths::{Content, WorktreePaths, read};
use super::{Worktree, reserved_names};
use crate::host::git::{Git, is_object_id};
use crate::provider::{Error, Task};

/// Refs of the repository that keep no commit: the next `pop` empties the stash. The other refs are the main worktree's
/// own, of operations that end.
pub(super) const FLEETING: [&str; 4] = ["refs/stash", "refs/bisect/*", "refs/worktree/*", "refs/rewritten/*"];

/// Returns a branch that Git cannot keep beside `branch`: the same, or one that would be a directory of the other. Only
/// branches for which `stays` is true count.
pub(super) fn in_the_way<'b, T>(
    branches: &'b BTreeMap<String, T>,
    branch: &str,
    stays: impl Fn(&str) -> bool,
) -> Option<&'b str> {
    let below = format!("{branch}/");
    let above = branch.match_indices('/').map(|(at, _)| &branch[..at]).chain([branch]);
    let mut above = above.filter_map(|other| branches.get_key_value(other)).map(|(other, _)| other.as_str());
    let under = branches.range(below.clone()..).map(|(other, _)| other.as_str());
    let mut under = under.take_while(|other| other.starts_with(&below));
    above.find(|other| stays(other)).or_else(|| under.find(|other| stays(other)))
}

/// Returns whether a name follows the rules of `git check-ref-format --branch`.
pub(super) fn is_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let bad_part = |part: &str| {
        part.is_empty()
            || part.starts_with('.')
            || part.to_ascii_lowercase().ends_with(".lock")
            || part.ends_with('.')
    };
    !name.starts_with('-')
        && name != "HEAD"
        && name != "@"
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(bad)
        && !name.split('/').any(bad_part)
}

/// Creates a branch of this swarm at this commit; an error if it exists.
pub(super) fn create(
    task: &Task<'_>,
    paths: &WorktreePaths,
    branch: &str,
    commit: &str,
) -> Result<(), Error> {
    let args = [
        "update-ref".to_owned(),
        "--create-reflog".to_owned(),
        "-m".to_owned(),
        reserved_names::branch_message(task),
        format!("refs/heads/{branch}"),
        commit.to_owned(),
        "0".repeat(commit.len()),
    ];
    Git::open(task.host, paths.common.path(), None).holding(task.lock).run_beside_others(&args)?;
    Ok(())
}

/// Deletes the branch of this full name; an error if it is not at `tip`. The last ref that reaches `tip` is kept, unless the
/// work is discarded.
///
/// Branches are deleted one after the other, of all swarms of the repository: otherwise two branches with the same commit
/// would each be deleted because of the other one.
pub(super) fn delete(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    name: &str,
    tip: &str,
) -> Result<(), Error> {
    let _deletions = paths.common.lock()?;
    let git = Git::open(task.host, paths.common.path(), None).holding(task.lock);
    if !task.is_discarded && !is_base(worktree, paths, name, tip) {
        let excluded = FLEETING.iter().chain([&name]).map(|name| format!("--exclude={name}"));
        let args = ["rev-list", "--max-count=1", tip, "--not"].map(str::to_owned);
        if !git.run(args.into_iter().chain(excluded).chain(["--glob=refs/*".to_owned()]))?.is_empty() {
            return Ok(());
        }
    }
    // A branch that has moved in between is kept.
    git.run_beside_others(&["update-ref", "-d", name, tip])?;
    Ok(())
}

/// Returns whether the base ref of the worktree is another branch at `tip`, as far as files show it. With reftables, no file
/// does.
fn is_base(worktree: &Worktree, paths: &WorktreePaths, name: &str, tip: &str) -> bool {
    let line = |path: &str| match read(&paths.common, Path::new(path)) {
        Ok(Content::Bytes(bytes)) => String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned(),
        _ => String::new(),
    };
    let base = match &*worktree.base_ref {
        "HEAD" => line("HEAD").strip_prefix("ref: ").unwrap_or_default().to_owned(),
        base => format!("refs/heads/{base}"),
    };
    base.starts_with("refs/heads/") && base != name && line(&base) == tip
}

/// Returns the commit of the branch of this full name; `None` if it does not exist. Git only runs if the branch has no file
/// of its own.
pub(super) fn tip(task: &Task<'_>, paths: &WorktreePaths, name: &str) -> Result<Option<String>, Error> {
    // With reftables, `refs/heads` is no directory.
    if let Ok(Content::Bytes(bytes)) = read(&paths.common, Path::new(name)) {
        let tip = String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned();
        if is_object_id(&tip) {
            return Ok(Some(tip));
        }
    }
    let git = Git::open(task.host, paths.common.path(), None).holding(task.lock);
    let tip = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", name])?.stdout;
    let tip = String::from_utf8_lossy(tip.trim_ascii_end()).into_owned();
    Ok(Some(tip).filter(|tip| !tip.is_empty()))
}

/// Returns whether the swarm made the branch of this full name, and it has had no new commit since.
pub(super) fn is_pristine(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    name: &str,
) -> Result<bool, Error> {
    Ok(tip_as_made(task, worktree, paths, name)?.is_some())
}

/// Returns the tip of the branch of this full name, if the swarm made the branch and it has had no new commit since.
/// Planning decides by the same rule (`plan::branches::is_released_with`).
pub(super) fn tip_as_made(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    name: &str,
) -> Result<Option<String>, Error> {
    let Some(at) = tip(task, paths, name)? else { return Ok(None) };
    // A branch that existed before the worktree is not removed.
    if worktree.existing.is_some() == (at == worktree.commit) {
        return Ok(None);
    }
    let git = Git::open(task.host, paths.common.path(), None).holding(task.lock);
    let log = git.run(["reflog", "show", "--format=%H %gs", name, "--"])?;
    let made = format!("{at} {}", reserved_names::branch_message(task));
    Ok((String::from_utf8_lossy(&log).lines().last() == Some(&made)).then_some(at))
}

/// Returns whether any worktree, including the main one, has the branch of this full name checked out.
pub(super) fn is_checked_out(paths: &WorktreePaths, name: &str) -> Result<bool, Error> {
    let wanted = Content::Bytes(format!("ref: {name}\n").into_bytes());
    if read(&paths.common, Path::new("HEAD"))? == wanted {
        return Ok(true);
    }
    let Some(entries) = paths.common.directory(Path::new("worktrees"))? else { return Ok(false) };
    for entry in entries.names()? {
        // A worktree whose HEAD cannot be read may have the branch checked out.
        if read(&entries, &Path::new(&entry).join("HEAD")).map_or(true, |head| head == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use gix_validate::reference;
    use proptest::prelude::*;

    use super::is_name;

    /// Texts of what the rules for names are about.
    fn texts() -> impl Strategy<Value = String> {
        const WORDS: [&str; 28] = [
            "a", "Z", "-", "/", ".", "..", "@", "@{", "HEAD", ".lock", ".LOCK", "~", "^", ":", "?", "*", "[",
            "\\", " ", "\u{7f}", "\u{85}", "\u{a0}", "\u{2028}", "\t", "\0", "é", "{", "}",
        ];
        proptest::collection::vec(prop::sample::select(&WORDS[..]), 0..6).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_name_of_a_branch_is_one_that_git_takes(text in texts()) {
            let full = format!("refs/heads/{text}");
            let is_taken = reference::branch_name(full.as_str().into()).is_ok() && !text.starts_with('-');
            // On purpose there are fewer: `x.LOCK` is a lock file where case does not count, and blanks and control
            // characters of Unicode cannot be seen.
            let is_stricter = text == "@"
                || text.split('/').any(|part| part.ends_with('.') || part.to_ascii_lowercase().ends_with(".lock"))
                || text.contains(|c: char| !c.is_ascii() && (c.is_control() || c.is_whitespace()));
            prop_assert_eq!(is_name(&text), is_taken && !is_stricter, "{:?}", text);
        }
    }
}
