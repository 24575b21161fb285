//! Describes worktrees for a review.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::{Checkout, Existing, Worktree};
use crate::host::text::thousands;
use crate::name::{SessionPath, range};

/// Describes a worktree.
pub(super) fn summary(worktree: &Worktree, is_new: bool) -> String {
    let mut text = format!(
        "{}{}  {} @ {:.10}",
        worktree.worktree_path.display(),
        of_repository(worktree),
        worktree
            .branch
            .as_ref()
            .map_or_else(|| worktree.base_ref.clone(), |branch| branch_of(branch, worktree, is_new)),
        worktree.commit
    );
    if let Some(target) = &worktree.target_path {
        let _ = write!(text, "  only {target}");
    }
    text.push_str(&brought(worktree));
    text
}

/// Returns the repository of a worktree that is not the workspace's own, with blanks before it.
fn of_repository(worktree: &Worktree) -> String {
    worktree.repository.as_ref().map_or(String::new(), |name| format!("  of {name}"))
}

/// Describes worktrees of sessions that are alike; `None` if there are none.
pub(super) fn summary_of_many(worktrees: &[Worktree], are_new: bool) -> Option<String> {
    let first = worktrees.first()?;
    let paths: Vec<&Path> =
        worktrees.iter().map(|worktree| worktree.worktree_path.parent().unwrap_or(Path::new("."))).collect();
    let roots: BTreeSet<_> = paths.iter().collect();
    let place = if roots.len() == 1 {
        paths[0].display().to_string()
    } else {
        format!("{} directories", thousands(roots.len()))
    };
    let branches: Vec<&str> = worktrees.iter().filter_map(|worktree| worktree.branch.as_deref()).collect();
    let from = if branches.is_empty() {
        first.base_ref.clone()
    } else {
        format!("{} {}", range(branches.into_iter()), state(worktrees, &first.base_ref, are_new))
    };
    let only = first.target_path.as_ref().map_or(String::new(), |target| format!("  only {target}"));
    let brought = brought(first);
    let count = thousands(worktrees.len());
    let of_repository = of_repository(first);
    Some(format!("{count} in {place}{of_repository}  {from} @ {:.10}{only}{brought}", first.base()))
}

/// Describes the method by which new worktrees get their files.
pub(super) fn origin(first: &Worktree, sources: &[Option<&SessionPath>]) -> String {
    match first.checkout {
        Checkout::Overlay => return "overlay".to_owned(),
        Checkout::Git => return "by git".to_owned(),
        Checkout::Auto => {}
    }
    let distinct: BTreeSet<_> = sources.iter().collect();
    match distinct.into_iter().collect::<Vec<_>>()[..] {
        [None] => "checked out".to_owned(),
        [Some(first)] => format!("copied from {first}"),
        _ => {
            let copied = sources.iter().flatten().count();
            format!("{} checked out, {} copied", thousands(sources.len() - copied), thousands(copied))
        }
    }
}

/// Returns the state of the branches of folded worktrees: new, or the number of commits that they are ahead.
fn state(worktrees: &[Worktree], base_ref: &str, are_new: bool) -> String {
    let existing = || worktrees.iter().filter_map(|worktree| worktree.existing.as_ref());
    let landed = existing().filter(|existing| existing.moved_from.is_some()).count();
    let ahead = existing().map(|existing| existing.ahead);
    let (least, most) = match (ahead.clone().min(), ahead.max()) {
        (Some(least), Some(most)) => (least, most),
        _ if are_new => return format!("(new) from {base_ref}"),
        _ => return format!("from {base_ref}"),
    };
    if landed == existing().count() && are_new {
        return format!("(landed, moved forward to {base_ref})");
    }
    let ahead = if least < most { format!("{least} to {most}") } else { least.to_string() };
    let moved = match landed {
        0 => String::new(),
        _ if !are_new => String::new(),
        landed => format!("; {} landed and moved forward", thousands(landed)),
    };
    format!("(exist, {ahead} ahead, 0 behind {base_ref}{moved})")
}

/// Returns the branch of a worktree, and whether the branch is created, moved forward, or already exists.
fn branch_of(branch: &str, worktree: &Worktree, is_new: bool) -> String {
    let base_ref = &worktree.base_ref;
    match &worktree.existing {
        None if is_new => format!("{branch} (new) from {base_ref}"),
        None => format!("{branch} from {base_ref}"),
        Some(Existing { moved_from: Some(from), .. }) if is_new => {
            format!("{branch} (landed at {from:.10}, moved forward to {base_ref})")
        }
        // A branch that did not contain the commit would be refused, so it is never behind.
        Some(Existing { ahead, .. }) => format!("{branch} (exists, {ahead} ahead, 0 behind {base_ref})"),
    }
}

/// Returns the globs of the files that are copied or linked into a worktree.
fn brought(worktree: &Worktree) -> String {
    let copy_and_link = |verb: &str, globs: &[String]| {
        if globs.is_empty() { String::new() } else { format!("  {verb} {}", globs.join(", ")) }
    };
    let seeds: Vec<String> =
        worktree.seeds.iter().map(|seed| format!("{} by `{}`", seed.path, seed.shown())).collect();
    copy_and_link("copies", &worktree.copy)
        + &copy_and_link("links", &worktree.link)
        + &copy_and_link("seeds", &seeds)
}
