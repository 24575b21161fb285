//! Derives values from a planned worktree: its group key, the notices for reviewers, the context of its session, and
//! whether it can still be created.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::{Worktree, branch, overlay};
use super::branches::is_released_with;
use super::seeds;
use crate::host::git::checkouts::Checkout;
use crate::host::text::size;
use crate::observe::{
    Directory, Observation, Repository, RepositoryObservation, Untracked, WORKSPACE_REPOSITORY,
    WorkspaceFile, worktree_include,
};
use crate::provider::placeholders::absolute_path;
use crate::provider::{Allocation, Context, PathSet, way};

/// Returns the repository, checkout mode, commit and target path. Files may be copied between worktrees with the same key. Returns
/// `None` if Git checks the files out. All other settings of a checkout belong to the repository.
pub(in super::super) fn group_key(allocation: &Allocation) -> Option<String> {
    let way = field(allocation, "checkout").filter(|way| *way != "git")?;
    let target = field(allocation, "targetPath").unwrap_or_default();
    Some(format!("{way} {} {} {target}", field(allocation, "repoRoot")?, field(allocation, "commit")?))
}

/// Returns a text of an allocation without parsing the rest, for code that runs once a session.
fn field<'a>(allocation: &'a Allocation, name: &str) -> Option<&'a str> {
    allocation.allocation.get(name).and_then(Value::as_str)
}

/// Returns the name of the repository of an allocation.
fn repository_name(allocation: &Allocation) -> &str {
    field(allocation, "repository").unwrap_or(WORKSPACE_REPOSITORY)
}

/// Returns the notices for reviewers about a worktree in this repository.
pub(in super::super) fn notices(allocation: &Allocation, observation: &Observation) -> Vec<String> {
    let observed = observation.repository(repository_name(allocation));
    let mut notices: Vec<String> = brought(allocation, observed).collect();
    if allocation.allocation.contains_key("seeds")
        && let Some(worktree) = Worktree::from_allocation(allocation)
    {
        notices.extend(seeds::notices(&worktree, observation));
    }
    if let Some(Ok(repository)) = &observed.repository {
        if field(allocation, "targetPath").is_some() && !repository.worktree_config {
            notices.push(
                "`extensions.worktreeConfig` will be set in the repository's shared config, which sparse worktrees \
                 need; it is removed with the last of them"
                    .to_owned(),
            );
        }
        if field(allocation, "checkout") == Some("overlay") {
            notices.push(
                "worktrees with `checkout = \"overlay\"` are mounts: after a reboot, `seedbed apply` mounts them again, \
                 with what was written in them"
                    .to_owned(),
            );
        }
        if let Err(why) = &repository.registration {
            notices.push(format!("`git worktree add` registers the worktrees, one after another: {why}"));
        }
    }
    notices
}

/// Returns the files that `copy` and `link` bring into a worktree, with sizes.
fn brought(allocation: &Allocation, observed: &RepositoryObservation) -> impl Iterator<Item = String> {
    let copy_and_link = |field: &str, verb: &str| {
        let globs = allocation.allocation.get(field).and_then(Value::as_array).into_iter().flatten();
        let globs = globs.filter_map(|glob| sized(glob.as_str()?, observed));
        let globs: Vec<String> = globs.collect();
        (!globs.is_empty()).then(|| format!("{verb} into worktrees: {}", globs.join(", ")))
    };
    [copy_and_link("copy", "copied"), copy_and_link("link", "linked")].into_iter().flatten()
}

/// Returns a glob with the number and size of its files; `None` if they were not observed.
fn sized(glob: &str, observed: &RepositoryObservation) -> Option<String> {
    let Some(Ok(Untracked::Files { files, bytes })) = observed.untracked.get(glob) else { return None };
    let count = if *files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    Some(format!("`{glob}` ({count}, {})", size(*bytes)))
}

/// Returns the reasons why a planned worktree can no longer be created.
pub(in super::super) fn stale(
    allocation: &Allocation,
    replaced: Option<&Allocation>,
    released: &PathSet,
    observation: &Observation,
) -> Vec<String> {
    let Some(worktree) = Worktree::from_allocation(allocation) else {
        return vec!["the allocation cannot be read".to_owned()];
    };
    let replaced = replaced.and_then(Worktree::from_allocation);
    let replaced = replaced.as_ref();
    let mut stale = Vec::new();
    let base = worktree.base();
    let observed = observation.repository(worktree.repository_name());
    match observed.commits.get(&worktree.base_ref) {
        // A worktree that is created again begins at its earlier commit, even if its ref has moved.
        _ if replaced.is_some_and(|replaced| replaced.base() == base) => {}
        Some(Ok(commit)) if commit == base => {}
        Some(Ok(commit)) => {
            stale.push(format!("`{}` has moved from {base:.10} to {commit:.10}", worktree.base_ref));
        }
        _ => stale.push(format!("`{}` names no commit any more", worktree.base_ref)),
    }
    let name = worktree.worktree_path.file_name().map(|name| name.to_string_lossy().into_owned());
    // The session's own directory is another resource, which is checked like this one.
    let is_free = worktree.session_directory().is_some() || released.contains(&worktree.worktree_path);
    match observation.directories.get(&worktree.worktree_root) {
        Some(Directory::Listed(names)) if !is_free && name.is_some_and(|name| names.contains(&name)) => {
            stale.push(format!("`{}` exists", worktree.worktree_path.display()));
        }
        Some(Directory::Link(component) | Directory::NotADirectory(component)) => {
            stale.push(format!("`{}` is not a directory", component.display()));
        }
        _ => {}
    }
    if let (true, Some(Err(why))) = (overlay::is_wanted(&worktree), &observation.overlays) {
        stale.push(format!("overlays cannot be mounted any more: {why}"));
    }
    stale.extend(globs_stale(&worktree, observed, true));
    match &observed.repository {
        Some(Ok(repository)) => {
            let is_own = replaced.is_some_and(|old| old.admin_directory == worktree.admin_directory);
            if !is_own && repository.worktrees.contains(&worktree.admin_directory) {
                stale.push(format!("its repository has a worktree called `{}`", worktree.admin_directory));
            }
            let common_directory = way(&observation.workspace, &repository.common_dir);
            if common_directory != worktree.common_directory {
                stale.push(format!(
                    "the Git directory of its repository is now {}",
                    common_directory.display()
                ));
            }
            stale.extend(branch_stale(&worktree, replaced, repository, observation.owner.as_deref()));
        }
        Some(Err(why)) => stale.push(why.clone()),
        None => {}
    }
    stale
}

/// Returns the reasons why the copies and links of a worktree can no longer be brought.
fn globs_stale(worktree: &Worktree, observed: &RepositoryObservation, is_new: bool) -> Vec<String> {
    let mut stale = Vec::new();
    let file = observed.worktree_include.as_ref();
    match file.filter(|_| worktree.copy.iter().any(|glob| glob == worktree_include::ENTRY)) {
        Some(WorkspaceFile::Text(text))
            if worktree_include::patterns(text).as_ref() != Ok(&worktree.worktree_include) =>
        {
            stale.push(format!("`{}` has changed", worktree_include::FILE));
        }
        Some(WorkspaceFile::Missing) if is_new => {
            stale.push(format!("the workspace has no file `{}` any more", worktree_include::FILE));
        }
        Some(WorkspaceFile::Unusable(why)) => stale.push(format!("`{}` {why}", worktree_include::FILE)),
        _ => {}
    }
    for glob in worktree.copy.iter().chain(&worktree.link) {
        match observed.untracked.get(glob) {
            Some(Ok(Untracked::Missing)) => {
                stale.push(format!("the workspace has no file `{glob}` any more"));
            }
            Some(Ok(Untracked::Tracked)) => stale.push(format!("Git now tracks `{glob}`")),
            _ => {}
        }
    }
    stale
}

/// Returns the reasons why a worktree can no longer be updated in place.
pub(in super::super) fn stale_update(allocation: &Allocation, observation: &Observation) -> Vec<String> {
    let observed = observation.repository(repository_name(allocation));
    Worktree::from_allocation(allocation)
        .map(|worktree| globs_stale(&worktree, observed, false))
        .unwrap_or_default()
}

/// Returns the reason why the branch of a planned worktree no longer fits the plan.
fn branch_stale(
    worktree: &Worktree,
    replaced: Option<&Worktree>,
    repository: &Repository,
    owner: Option<&str>,
) -> Option<String> {
    let name = worktree.branch.as_ref()?;
    let Some(existing) = &worktree.existing else {
        let goes = |other: &str| {
            let old = replaced.filter(|old| old.branch.as_deref() == Some(other));
            old.is_some_and(|old| is_released_with(old, &repository.branches[other], owner))
        };
        let other = branch::in_the_way(&repository.branches, name, |other| !goes(other))?;
        return Some(format!("branch `{other}` exists"));
    };
    let Some(branch) = repository.branches.get(name) else {
        return Some(format!("branch `{name}` does not exist any more"));
    };
    let is_own = |checkout: &Checkout| {
        replaced.is_some_and(|old| checkout.admin_directory.as_deref() == Some(&old.admin_directory))
    };
    let tip = existing.moved_from.as_ref().unwrap_or(&worktree.commit);
    match branch.checkouts.iter().find(|checkout| !is_own(checkout)) {
        _ if branch.tip != *tip => {
            Some(format!("branch `{name}` has moved from {tip:.10} to {:.10}", branch.tip))
        }
        Some(checkout) => Some(format!("branch `{name}` is checked out at {}", checkout.path.display())),
        // The release of the replaced worktree would remove the branch.
        None if replaced.is_some_and(|old| is_released_with(old, branch, owner)) => {
            Some(format!("branch `{name}` has lost its commits"))
        }
        None => None,
    }
}

/// Returns the soft context of the reference implementation; `None` if planning did not make the allocation.
pub(in super::super) fn context(allocation: &Allocation) -> Option<Context> {
    let worktree_path = field(allocation, "worktreePath")?;
    let path = absolute_path(Path::new(worktree_path));
    let base_ref = field(allocation, "baseRef")?.to_owned();
    let mut prompt_sections = vec![format!("Git worktree: {path}"), format!("Worktree base ref: {base_ref}")];
    let mut metadata = Map::from_iter([
        ("git_worktree_path".to_owned(), Value::from(path.clone())),
        ("git_worktree_base_ref".to_owned(), Value::from(base_ref.clone())),
    ]);
    if let Some(target) = field(allocation, "targetPath") {
        prompt_sections.push(format!("Worktree target path: {target} (sparse-checkout enabled)"));
        metadata.insert("git_worktree_target_path".to_owned(), Value::from(target));
    }
    Some(Context {
        env: BTreeMap::from([
            (
                "AGENT_GIT_COMMON_DIR".to_owned(),
                absolute_path(Path::new(field(allocation, "commonDirectory")?)),
            ),
            ("AGENT_REPO_ROOT".to_owned(), absolute_path(Path::new(field(allocation, "repoRoot")?))),
            ("AGENT_WORKTREE_PATH".to_owned(), path),
            ("AGENT_WORKTREE_BASE_REF".to_owned(), base_ref),
        ]),
        prompt_sections,
        metadata,
        working_directory: working_directory(allocation).filter(|_| !is_one_of_several(allocation)),
        ..Context::default()
    })
}

/// Returns the directory in which a session works that chooses this worktree.
pub(in super::super) fn working_directory(allocation: &Allocation) -> Option<PathBuf> {
    let path = Path::new(field(allocation, "worktreePath")?);
    Some(field(allocation, "targetPath").map_or_else(|| path.to_owned(), |target| path.join(target)))
}

/// Returns whether the worktree is one of several, as [`Worktree::is_one_of_several`] does.
fn is_one_of_several(allocation: &Allocation) -> bool {
    field(allocation, "adminDirectory").is_some_and(|name| name.contains('.'))
}

/// Returns `worktree.*` for templates; `None` if planning did not make the allocation.
pub(in super::super) fn names(allocation: &Allocation) -> Option<minijinja::Value> {
    let path = absolute_path(Path::new(field(allocation, "worktreePath")?));
    Some(minijinja::Value::from_pairs([
        ("path", Some(path.as_str())),
        ("commit", Some(field(allocation, "commit")?)),
        ("branch", field(allocation, "branch")),
    ]))
}
