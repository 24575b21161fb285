//! Repositories that queries are about: the workspace's own, and those that the manifest names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;

use super::{
    Branch, BranchNames, Error, RepositoryObservation, WORKSPACE_REPOSITORY, base_age, branch_ref, branches,
    commits, repository, trees, untracked, workspace_file, worktree_include,
};
use crate::host::Host;
use crate::host::git::{self, Git};

/// Requested facts about one repository.
#[derive(Debug, Default)]
pub(super) struct Requests<'q> {
    /// Top of the work tree, relative to the workspace root, or absolute; `None` for the workspace's own repository.
    pub(super) root: Option<&'q Path>,
    /// For each ref, the names of the branches that are to begin there.
    pub(super) branches: BTreeMap<&'q str, BTreeSet<&'q BranchNames>>,
    /// For each ref, the paths of its tree, and whether they are required there.
    pub(super) refs: BTreeMap<&'q str, BTreeMap<&'q str, bool>>,
    /// Paths whose object ids are requested.
    pub(super) blobs: BTreeSet<&'q str>,
    /// Refs whose age is requested.
    pub(super) ages: BTreeSet<&'q str>,
    /// Globs of untracked files.
    pub(super) globs: BTreeSet<&'q String>,
}

/// Observes the repositories, several at the same time. A repository whose root no query names is left out.
pub(super) fn observe(
    host: &Host,
    workspace: &Path,
    repositories: &BTreeMap<&str, Requests<'_>>,
) -> Result<BTreeMap<String, RepositoryObservation>, Error> {
    let is_located =
        |(name, requests): &(&&str, &Requests<'_>)| **name == WORKSPACE_REPOSITORY || requests.root.is_some();
    let repositories: Vec<_> = repositories.iter().filter(is_located).collect();
    let observe_one = |(name, requests): &(&&str, &Requests<'_>)| {
        let observed = match requests.root {
            None => observe_repository(host, workspace, false, requests)?,
            Some(root) => match repository::directory(workspace, root) {
                Ok(directory) => observe_repository(host, &directory, true, requests)?,
                Err(why) => RepositoryObservation { repository: Some(Err(why)), ..Default::default() },
            },
        };
        Ok(((**name).to_owned(), observed))
    };
    let observe_one = &observe_one;
    let observed: Vec<Result<_, Error>> = match &repositories[..] {
        [one] => vec![observe_one(one)],
        several => thread::scope(|scope| {
            let threads: Vec<_> = several.iter().map(|one| scope.spawn(move || observe_one(one))).collect();
            threads.into_iter().map(|thread| joined(thread.join())).collect()
        }),
    };
    observed.into_iter().collect()
}

/// Observes the repository around `directory`. The first queries run in parallel, even if no repository exists. With
/// `is_top`, the directory has to be the top of the repository.
///
/// No query needs another's result, and starting Git takes longer than its answer.
fn observe_repository(
    host: &Host,
    directory: &Path,
    is_top: bool,
    requests: &Requests<'_>,
) -> Result<RepositoryObservation, Error> {
    let git = &Git::discover(host, directory);
    let early = &git.clone().with_any_version();
    let (located, branches, resolved, is_shared) = thread::scope(|scope| {
        let version = scope.spawn(|| git::version::require(host));
        let branches = (!requests.branches.is_empty()).then(|| scope.spawn(|| branches::tips(early)));
        let resolved = scope.spawn(|| commits::resolve(early, requests.refs.keys().copied()));
        let is_shared = scope.spawn(|| repository::is_shared(early));
        let located = repository::locate(early, directory, || joined(version.join()));
        (located, branches.map(thread::ScopedJoinHandle::join), resolved.join(), is_shared.join())
    });
    let located = located?.and_then(|located| if is_top { located.at_top(directory) } else { Ok(located) });
    let mut observed = RepositoryObservation::default();
    let located = match located {
        Ok(located) => located,
        Err(why) => {
            observed.repository = Some(Err(why));
            return Ok(observed);
        }
    };
    let tips = branches.map(joined).transpose()?;
    let settings = repository::settings(git, &located)?;
    let commits::Resolved { commits, tops } = joined(resolved)?;
    observed.trees = trees::observe(git, &commits, &tops, &requests.refs)?;
    observed.blobs = trees::blobs(git, &commits, &observed.trees, &requests.blobs)?;
    if !requests.ages.is_empty() {
        let refs: Vec<&str> = requests.ages.iter().copied().collect();
        observed.ages = base_age::ages(host, directory, &refs)?;
    }
    if !requests.globs.is_empty() {
        if requests.globs.iter().any(|glob| *glob == worktree_include::ENTRY) {
            let (name, limit) = (Path::new(worktree_include::FILE), worktree_include::FILE_MAX);
            observed.worktree_include = Some(workspace_file::read(directory, name, limit));
        }
        let file = observed.worktree_include.as_ref();
        observed.untracked = untracked::observe(git, directory, &requests.globs, file)?;
    }
    let mut branches = BTreeMap::new();
    if let Some(tips) = tips {
        let found = branches::observe(git, &located, &commits, tips, &requests.branches)?;
        (branches, observed.distances) = (found.branches, found.distances);
        observe_branch_paths(git, requests, &branches, &mut observed)?;
    }
    observed.repository = Some(Ok(located.repository(&settings, joined(is_shared)?, branches)?));
    observed.commits = commits;
    Ok(observed)
}

/// Observes the paths requested at a ref also in the branches with which a session may continue there.
fn observe_branch_paths(
    git: &Git<'_>,
    requests: &Requests<'_>,
    branches: &BTreeMap<String, Branch>,
    observed: &mut RepositoryObservation,
) -> Result<(), Error> {
    let mut tips = BTreeMap::new();
    let mut paths: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    for ((base_ref, name), distance) in &observed.distances {
        let (Some(branch), Some(of_ref)) = (branches.get(name), requests.refs.get(base_ref.as_str())) else {
            continue;
        };
        // A branch at the same commit was observed already.
        if distance.contains && distance.ahead > 0 {
            let full = branch_ref(name);
            tips.insert(full.clone(), Ok(branch.tip.clone()));
            paths.entry(full).or_default().extend(of_ref);
        }
    }
    let paths = paths.iter().map(|(name, paths)| (name.as_str(), paths.clone())).collect();
    let trees = trees::observe(git, &tips, &BTreeMap::new(), &paths)?;
    observed.blobs.extend(trees::blobs(git, &tips, &trees, &requests.blobs)?);
    observed.trees.extend(trees);
    Ok(())
}

/// Returns the result of a thread; resumes its panic in this thread.
fn joined<T>(ended: thread::Result<T>) -> T {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests set the host up")]

    use super::super::sandbox::{Sandbox, commit};
    use super::super::{Query, RepositoryObservation};

    /// Observes the commit of `HEAD` in the workspace's repository and in one at `root`.
    fn observed(sandbox: &Sandbox, root: &str) -> RepositoryObservation {
        let name = "web".to_owned();
        let head = Query::Commit { repository: name.clone(), base_ref: "HEAD".to_owned() };
        let observation =
            sandbox.observe([commit("HEAD"), head, Query::Repository { name, root: root.into() }]);
        assert!(observation.repository("").commits["HEAD"].is_ok());
        observation.repository("web").clone()
    }

    #[test]
    fn each_repository_answers_for_itself() {
        let sandbox = Sandbox::with_files(&["a"]);
        let web = sandbox.workspace.with_file_name("web");
        sandbox.git(&["clone", "--quiet", ".", "../web"]);
        sandbox.git_in(&web, &["commit", "--quiet", "--allow-empty", "--message=y"]);
        let head = sandbox.git_in(&web, &["rev-parse", "HEAD"]);
        std::os::unix::fs::symlink("../web", sandbox.workspace.join("link")).unwrap();
        for root in ["../web", "link", "../workspace/../web/.", web.to_str().unwrap()] {
            let observed = observed(&sandbox, root);
            assert_eq!(observed.commits["HEAD"].as_ref(), Ok(&head));
            assert_eq!(observed.repository.unwrap().unwrap().root, web, "{root}");
        }
    }

    #[test]
    fn root_that_is_no_repository_is_reported() {
        let sandbox = Sandbox::with_files(&["a/b"]);
        std::fs::create_dir(sandbox.workspace.with_file_name("empty")).unwrap();
        sandbox.git(&["clone", "--quiet", "--bare", ".", "../bare.git"]);
        let check = |root: &str, expected: &str| {
            let found = observed(&sandbox, root).repository.unwrap();
            let why = found.err().unwrap_or_default();
            assert!(why.contains(expected) && why.is_empty() == expected.is_empty(), "{root}: {why}");
        };
        check(".", "");
        check("../bare.git", "");
        check("../bare.git/refs", "not a repository itself");
        check("a", "is a directory in the repository");
        check("a/b", "a/b is not a directory");
        check("../none", "/none does not exist");
        check("../empty", "is not in a git repository");
        check(".git", "inside a Git directory");
    }

    #[test]
    fn repository_without_a_root_is_left_out() {
        let sandbox = Sandbox::with_files(&["a"]);
        let head = Query::Commit { repository: "web".to_owned(), base_ref: "HEAD".to_owned() };
        assert_eq!(sandbox.observe([head]).repositories, [].into());
    }
}
