//! Explains the location and the commit of a worktree.

use super::{Existing, Worktree};
use crate::name::{HashDigits, scoped_name};
use crate::provider::{OwnedPath, PlannedAllocation};

/// Returns the rules that decide the location and the commit of a worktree.
pub(super) fn rules(planned: &PlannedAllocation<'_>, worktree: &Worktree) -> Vec<String> {
    let path = worktree.worktree_path.display();
    let root = worktree.worktree_root.display();
    let digits = [(HashDigits::Eight, 8), (HashDigits::Sixteen, 16)]
        .into_iter()
        .find(|(digits, _)| scoped_name(planned.session, *digits) == planned.scoped_name)
        .map_or(8, |(_, digits)| digits);
    let by = if worktree.worktree_root.components().any(|part| part.as_os_str() == "child-worktrees") {
        "inside the parent's, by `layout = \"nested\"`"
    } else {
        "by `root-directory`"
    };
    let name = match worktree.session_directory() {
        Some(_) => format!(", and the name of the resource, {}", planned.allocation.name()),
        None => String::new(),
    };
    let mut rules = vec![
        format!("{path} is {root}, {by}, and the session's scoped name, {}{name}", planned.scoped_name),
        format!(
            "the scoped name is {}, with other characters than letters, digits, `_` and `-` replaced by one `-`, cut at 32 characters, and the first {digits} digits of its SHA-256",
            planned.session
        ),
        format!("{} named commit {} when this was planned", worktree.base_ref, worktree.base()),
    ];
    if let Some(repository) = &worktree.repository {
        rules.push(format!("it is of {}, by `repository = \"{repository}\"`", worktree.repo_root.display()));
    }
    if let Some(branch) = &worktree.branch {
        rules.push(match &worktree.existing {
            None => format!("branch {branch} begins there"),
            Some(Existing { moved_from: Some(from), .. }) => {
                format!(
                    "branch {branch} had landed: it is moved forward from commit {from} to {}",
                    worktree.commit
                )
            }
            Some(existing) => format!(
                "branch {branch} existed, {} ahead of it, and continues from commit {}",
                existing.ahead, worktree.commit
            ),
        });
    }
    for seed in &worktree.seeds {
        rules.push(match &seed.digest {
            Some(digest) => format!(
                "{} is a copy of seed {digest:.12}, which `{}` populates, and depends on {}",
                seed.path,
                seed.shown(),
                seed.key.join(", ")
            ),
            None => format!("{} is seeded only in sessions that are created from now on", seed.path),
        });
    }
    if let Some(target) = &worktree.target_path {
        rules.push(format!("only {target} is checked out, by `target-path`, and the session works in it"));
    }
    rules
}

/// Returns the worktree, its admin directory, and the working directory if that is another one.
pub(super) fn owned_paths(planned: &PlannedAllocation<'_>, worktree: &Worktree) -> Vec<OwnedPath> {
    let rules = rules(planned, worktree);
    let admin = worktree.repo_root.join(".git/worktrees").join(&worktree.admin_directory);
    let rule = "what git knows of the worktree, called after the session's scoped name".to_owned();
    let mut owned = vec![
        OwnedPath::new(worktree.worktree_path.clone(), "worktree", rules.clone()),
        OwnedPath::new(admin, "admin directory", vec![rule]),
    ];
    let is_inside = planned.working_directory.starts_with(&worktree.worktree_path);
    if is_inside && planned.working_directory != worktree.worktree_path {
        owned.push(OwnedPath::new(planned.working_directory.to_owned(), "working directory", rules));
    }
    owned
}
