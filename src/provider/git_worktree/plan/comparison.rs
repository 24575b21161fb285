//! Compares a worktree with what planning returns for its options. Pure.

use std::path::{Component, Path};

use super::check::check_glob;
use super::{admin_name, normalize_target_path, seeds, worktree_path};
use crate::manifest::Location;
use crate::observe::worktree_include;
use crate::provider::Allocation;
use crate::provider::git_worktree::{Checkout, Options, Worktree, branch, overlay};

/// Returns whether a worktree has the paths that planning gives to this resource of a session of this scoped name.
pub(in crate::provider::git_worktree) fn is_named(
    worktree: &Worktree,
    scoped_name: &str,
    allocation: &Allocation,
) -> bool {
    let several = worktree.is_one_of_several();
    let is_in_own = several && !allocation.within_parent;
    let (root, resource) = (&worktree.worktree_root, allocation.name());
    worktree.admin_directory == admin_name(scoped_name, resource, several)
        && worktree.worktree_path == worktree_path(root, scoped_name, resource, is_in_own)
        && (!several || branch::is_name(resource))
}

/// Returns whether an active worktree becomes another one in location: only its copies and links differ, or options that
/// matter when a worktree is created.
pub(in crate::provider::git_worktree) fn is_update(from: &Worktree, to: &Worktree) -> bool {
    let updated = Worktree {
        base_ref: to.base_ref.clone(),
        checkout: to.checkout,
        copy: to.copy.clone(),
        worktree_include: to.worktree_include.clone(),
        link: to.link.clone(),
        seeds: to.seeds.clone(),
        git_hooks: to.git_hooks,
        relative: to.relative,
        ..from.clone()
    };
    updated == *to && overlay::is_wanted(from) == overlay::is_wanted(to)
}

/// Returns whether planning could have returned this worktree for these options.
pub(in crate::provider::git_worktree) fn is_of(
    worktree: &Worktree,
    options: &Options,
    within_parent: bool,
) -> bool {
    let target = normalize_target_path(options.target_path.as_deref().unwrap_or_default());
    let is_object_id =
        |id: &str| matches!(id.len(), 40 | 64) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_glob = |glob: &String| check_glob(glob, &Location::default()).is_ok();
    let (included, patterns) = (&worktree.worktree_include, worktree.worktree_include.join("\n"));
    let is_included = included.is_empty()
        || worktree.copy.iter().any(|glob| glob == worktree_include::ENTRY)
            && worktree_include::patterns(&patterns).as_ref() == Ok(included);
    worktree.base_ref == options.base_ref
        && worktree.repository == options.repository
        && is_object_id(&worktree.commit)
        && target.is_ok_and(|target| target == worktree.target_path)
        && worktree.branch.is_some() == options.branch.is_some()
        && (worktree.branch.is_some() || worktree.existing.is_none())
        && worktree.moved_from().is_none_or(|from| is_object_id(from) && worktree.commit == worktree.base())
        && worktree.branch.as_deref().is_none_or(branch::is_name)
        && is_checkout_of(worktree.checkout, options.checkout)
        && (worktree.git_hooks, worktree.relative) == (options.git_hooks, options.relative)
        && (&worktree.copy, &worktree.link) == (&options.copy, &options.link)
        && worktree.copy.iter().chain(&worktree.link).all(is_glob)
        && is_included
        && seeds::are_of(worktree, options)
        && (within_parent || worktree.worktree_root == options.root_directory)
}

/// Returns whether a worktree has the requested checkout method. In a copied workspace, a worktree that was an overlay
/// has its files.
fn is_checkout_of(checkout: Checkout, requested: Checkout) -> bool {
    checkout == requested || (checkout, requested) == (Checkout::Git, Checkout::Overlay)
}

/// Returns whether planning could have returned this way from the workspace to the repository: up to the workspace's own
/// repository, or up and then down to another one.
pub(in crate::provider::git_worktree) fn is_way(worktree: &Worktree) -> bool {
    let mut down = worktree.repo_root.components().skip_while(|part| matches!(part, Component::ParentDir));
    match worktree.repository {
        _ if worktree.repo_root == Path::new(".") => true,
        None => down.next().is_none(),
        Some(_) => down.all(|part| matches!(part, Component::Normal(_))),
    }
}
