//! Plans the path, the commit and the checkout of each worktree. Pure.

mod branches;
mod check;
mod comparison;
mod files;
mod globs;
mod planned;
mod seeds;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use self::branches::RepositoryNames;
pub(super) use self::branches::{recreation_queries, survival_queries, surviving_branch};
use self::check::{check_age, check_discovery, check_glob, check_target, check_untracked, unknown_ref};
pub(super) use self::comparison::{is_named, is_of, is_update, is_way};
pub(super) use self::files::{fault as file_fault, queries as file_queries};
pub(super) use self::planned::{context, group_key, names, notices, stale, stale_update, working_directory};
use super::reserved_names::nested_root;
use super::{Checkout, KIND, Layout, Options, Registration, Worktree, overlay};
use crate::manifest::rule::{self, Rule};
use crate::manifest::{self, Diagnostic, Diagnostics, Location};
use crate::observe::{
    self, Commit, Observation, Query, Repository, RepositoryObservation, WORKSPACE_REPOSITORY,
    worktree_include,
};
use crate::provider::directory::session;
use crate::provider::{
    Allocation, Allocator, DISCOVERY_DIRECTORY, OptionsCache, Parent, Planned, Planner as _, Request,
    ResourceOptions, allocation_fields, check_root, way,
};
use crate::template::{self, Bounds};

pub(super) fn queries(options: &manifest::Options) -> Vec<Query> {
    let Ok(options) = Options::deserialize(options) else {
        return Vec::new();
    };
    let target = normalize_target_path(options.target_path.as_deref().unwrap_or_default()).ok().flatten();
    let discovery = match &target {
        Some(target) => format!("{target}/{DISCOVERY_DIRECTORY}"),
        None => DISCOVERY_DIRECTORY.to_owned(),
    };
    let repository = repository_of(&options).to_owned();
    let tree = |path, required| Query::Tree {
        repository: repository.clone(),
        base_ref: options.base_ref.clone(),
        path,
        required,
    };
    let mut queries = vec![Query::Directory { path: options.root_directory.clone() }, tree(discovery, false)];
    queries.extend(target.map(|target| tree(target, true)));
    if options.layout == Layout::Nested {
        queries.push(tree(top_of(&nested_root(Path::new(""), "")), false));
    }
    if let Some(source) = &options.branch {
        let names = observe::BranchNames::from_template(source);
        let (repository, base_ref) = (repository.clone(), options.base_ref.clone());
        queries.push(Query::Branch { repository, base_ref, names });
    }
    // Planning reports globs that lead out of the workspace.
    let link = options.link.iter().filter(|glob| *glob != worktree_include::ENTRY);
    let globs = options.copy.iter().chain(link);
    let globs = globs.filter(|glob| check_glob(glob, &Location::default()).is_ok());
    let untracked = |glob: &String| Query::Untracked { repository: repository.clone(), glob: glob.clone() };
    queries.extend(globs.map(untracked));
    queries.extend(seeds::queries(&options));
    let paths = seeds::path_queries(&options);
    queries.extend(paths.flat_map(|path| files::queries_of(&options, path)));
    if options.checkout == Checkout::Overlay {
        queries.push(Query::Overlays);
    }
    if options.max_base_age.is_some() {
        let (repository, base_ref) = (repository.clone(), options.base_ref.clone());
        queries.push(Query::BaseAge { repository, base_ref });
    }
    queries.push(Query::Commit { repository: repository.clone(), base_ref: options.base_ref });
    queries
}

/// Returns the name of the repository that the options request.
fn repository_of(options: &Options) -> &str {
    options.repository.as_deref().unwrap_or(WORKSPACE_REPOSITORY)
}

/// Returns the words for the work tree from which files of a repository are copied.
fn source(repository: &str) -> String {
    if repository == WORKSPACE_REPOSITORY {
        "the workspace".to_owned()
    } else {
        format!("the repository `{repository}`")
    }
}

/// Planner of the worktrees of one plan.
pub(super) struct Worktrees<'o> {
    observation: &'o Observation,
    options: OptionsCache<Options>,
    /// Site of the latest request.
    roots: Option<Rc<RepositoryRoots>>,
    /// Paths that exist now, but no longer when this plan's worktrees are created.
    freed: BTreeSet<PathBuf>,
    /// Common Git directory of each observed repository, by the `repo_root` of its worktrees.
    common_dirs: BTreeMap<PathBuf, PathBuf>,
    /// Names in each repository, by its common Git directory.
    names: BTreeMap<PathBuf, RepositoryNames>,
    /// Patterns of each observed `.worktreeinclude`, or the reason for which there are none, by repository.
    included: BTreeMap<&'o str, Result<Vec<String>, String>>,
    /// Root directories of the sessions with several worktrees, by id.
    own_roots: BTreeMap<String, PathBuf>,
    /// Counters of the work and text of the templates of branch names.
    bounds: Bounds,
}

/// Valid root directory, target path and commit for worktrees with the same options.
struct RepositoryRoots {
    options: Rc<Options>,
    root: PathBuf,
    target: Option<String>,
    commit: Commit,
}

impl<'o> Worktrees<'o> {
    pub(super) fn new(observation: &'o Observation) -> Self {
        let observed = observation.repositories.values();
        let observed = observed.filter_map(|observed| observed.repository.as_ref()?.as_ref().ok());
        let common_dir = |repository: &Repository| {
            (way(&observation.workspace, &repository.root), repository.common_dir.clone())
        };
        let included = observation.repositories.iter().filter_map(|(name, observed)| {
            Some((name.as_str(), globs::patterns(name, observed.worktree_include.as_ref()?)))
        });
        Self {
            common_dirs: observed.map(common_dir).collect(),
            included: included.collect(),
            observation,
            options: OptionsCache::default(),
            roots: None,
            freed: BTreeSet::new(),
            names: BTreeMap::new(),
            own_roots: BTreeMap::new(),
            bounds: Bounds::default(),
        }
    }

    /// Returns the facts about the repository that the options request.
    fn observed(&self, options: &Options) -> &'o RepositoryObservation {
        self.observation.repository(repository_of(options))
    }

    /// Returns the key of a repository in [`Self::names`]. A repository may be reached by several paths.
    fn key(&self, repo_root: &Path) -> PathBuf {
        self.common_dirs.get(repo_root).map_or_else(|| repo_root.to_owned(), Clone::clone)
    }

    /// Returns the names in a repository.
    fn names_in(&self, common_dir: &Path) -> &RepositoryNames {
        static NOTHING: RepositoryNames = RepositoryNames::new();
        self.names.get(common_dir).unwrap_or(&NOTHING)
    }

    /// Plans a worktree in `root`. Returns every diagnostic of the request, not just the first.
    fn worktree(
        &mut self,
        request: &Request<'_>,
        options: &Rc<Options>,
        root: &Path,
    ) -> Result<Planned, Diagnostics> {
        let location = request.location;
        self.check_repository(options, root, location)?;
        let repository = match &self.observed(options).repository {
            Some(Ok(repository)) => repository,
            Some(Err(why)) => {
                return Err(vec![diagnostic(
                    rule::NO_REPOSITORY,
                    location,
                    why,
                    "needs a git repository",
                    None,
                )]
                .into());
            }
            None => {
                return Err(vec![diagnostic(
                    rule::NO_REPOSITORY,
                    location,
                    "the repository was not inspected",
                    "here",
                    None,
                )]
                .into());
            }
        };
        let mut diagnostics = Vec::new();
        let branch = self.branch(repository, request, options).unwrap_or_else(|found| {
            diagnostics.extend(found);
            None
        });
        let begins = branch.as_deref().map(|branch| self.begins(repository, request, options, branch));
        let begins = begins.transpose().unwrap_or_else(|found| {
            diagnostics.push(found);
            None
        });
        let roots = self.roots(options, root, location).map_err(|found| diagnostics.extend(found)).ok();
        let is_nested = root != options.root_directory;
        let path = worktree_path(root, request.scoped_name, request.resource, request.several && !is_nested);
        if request.several {
            diagnostics.extend(check_resource_name(request).err());
            if !is_nested {
                diagnostics.extend(self.check_own_root(request, root).err());
            }
        }
        // If a directory cannot be used, no further diagnostics for it are useful.
        if diagnostics.iter().all(|diagnostic| diagnostic.rule != rule::ROOT_DIRECTORY) {
            diagnostics.extend(self.check_path(repository, root, &path, request, options).err());
        }
        let Some(roots) = roots.filter(|_| diagnostics.is_empty()) else { return Err(diagnostics.into()) };
        let (commit, existing) = match begins.flatten() {
            Some(tip) => {
                let (commit, existing) = tip.begin(&roots.commit);
                (commit, Some(existing))
            }
            None => (roots.commit.clone(), None),
        };

        let mut worktree = Worktree {
            repository: options.repository.clone(),
            repo_root: way(&self.observation.workspace, &repository.root),
            worktree_root: root.to_owned(),
            worktree_path: path,
            base_ref: options.base_ref.clone(),
            target_path: roots.target.clone(),
            commit,
            branch,
            existing,
            admin_directory: admin_name(request.scoped_name, request.resource, request.several),
            common_directory: way(&self.observation.workspace, &repository.common_dir),
            checkout: options.checkout,
            registration: match repository.registration {
                Ok(()) => Registration::Rename,
                Err(_) => Registration::Git,
            },
            copy: options.copy.clone(),
            worktree_include: match self.included(options) {
                Some(Ok(patterns)) => patterns.clone(),
                _ => Vec::new(),
            },
            link: options.link.clone(),
            seeds: Vec::new(),
            git_hooks: options.git_hooks,
            relative: options.relative,
        };
        worktree.seeds = seeds::planned(&worktree, options, self.observation, location)?;
        Ok(Planned { allocation: allocation_fields(&worktree), ..Planned::default() })
    }

    /// Refuses worktrees of one session in several root directories.
    fn check_own_root(&mut self, request: &Request<'_>, root: &Path) -> Result<(), Diagnostic> {
        match self.own_roots.get(request.session) {
            Some(own) if own != root => {
                let message = format!(
                    "the worktrees of `{}` lie side by side, and would be in `{}` and in `{}`",
                    request.session,
                    own.display(),
                    root.display()
                );
                let help = "give the worktrees of a session the same `root-directory`".to_owned();
                let location = request.location.key("root-directory");
                Err(diagnostic(rule::ROOT_DIRECTORY, &location, &message, "another directory", Some(help)))
            }
            _ => {
                self.own_roots.insert(request.session.to_owned(), root.to_owned());
                Ok(())
            }
        }
    }

    /// Returns whether an active worktree has the commit, the target path and the branch that these options request.
    fn is_at(&self, request: &Request<'_>, options: &Options, worktree: &Worktree) -> bool {
        let commit = self.observed(options).commits.get(&options.base_ref);
        let is_at_base = options.base_ref == worktree.base_ref
            || commit.is_some_and(|commit| commit.as_ref().is_ok_and(|commit| commit == worktree.base()));
        let target = normalize_target_path(options.target_path.as_deref().unwrap_or_default());
        let rendered = |source: &String| template::render(source, &request.names(), &self.bounds);
        let branch = options.branch.as_ref().map(rendered).transpose();
        is_at_base
            && target.is_ok_and(|target| target == worktree.target_path)
            && branch.is_ok_and(|branch| branch == worktree.branch)
    }

    /// Returns the common values of worktrees in `root` with these options. They are checked once for consecutive
    /// requests, of which there are thousands. If something is wrong, each request gets the diagnostics.
    fn roots(
        &mut self,
        options: &Rc<Options>,
        root: &Path,
        location: &Location,
    ) -> Result<Rc<RepositoryRoots>, Diagnostics> {
        let is_known =
            |roots: &&Rc<RepositoryRoots>| Rc::ptr_eq(&roots.options, options) && roots.root == root;
        if let Some(roots) = self.roots.as_ref().filter(is_known) {
            return Ok(Rc::clone(roots));
        }
        let mut diagnostics = Vec::new();
        let mut check = |result: Result<(), Diagnostic>| diagnostics.extend(result.err());
        let target = normalize_target_path(options.target_path.as_deref().unwrap_or_default());
        let target = target.unwrap_or_else(|why| {
            let help = "write a directory of the repository: `services/api`".to_owned();
            check(Err(diagnostic(
                rule::TARGET_PATH,
                &location.key("target-path"),
                &why,
                "leads out of it",
                Some(help),
            )));
            None
        });
        let observed = self.observed(options);
        let commit = match observed.commits.get(&options.base_ref) {
            Some(Ok(commit)) => {
                check(check_target(observed, &options.base_ref, target.as_deref(), location));
                check(check_discovery(observed, &options.base_ref, target.as_deref(), location));
                commit.clone()
            }
            unknown => {
                let unknown = unknown.and_then(|unknown| unknown.as_ref().err());
                check(Err(unknown_ref(&options.base_ref, unknown, location)));
                String::new()
            }
        };
        check(check_age(observed, options, location));
        check(check_root(self.observation, root, location, ("worktrees", ".ai_ops/worktrees")));
        check(self.check_overlay(options, location));
        diagnostics.extend(self.glob_diagnostics(location, options, None));
        if !diagnostics.is_empty() {
            return Err(diagnostics.into());
        }
        let roots =
            Rc::new(RepositoryRoots { options: Rc::clone(options), root: root.to_owned(), target, commit });
        self.roots = Some(Rc::clone(&roots));
        Ok(roots)
    }

    fn options(&mut self, request: &Request<'_>) -> Result<Rc<Options>, Diagnostics> {
        self.options.read(request.options).map_err(|error| {
            let message = format!("the options of `{KIND}` cannot be read: {error}");
            diagnostic(rule::BROKEN_KIND, request.location, &message, "here", None).into()
        })
    }
}

impl Allocator for Worktrees<'_> {
    fn can_keep(&self, allocation: &Allocation) -> bool {
        let Some((name, root)) = super::GitWorktree.repository(allocation) else { return true };
        match &self.observation.repository(&name).repository {
            Some(Ok(repository)) => way(&self.observation.workspace, &repository.root) == root,
            _ => true,
        }
    }

    /// Updates the patterns of a `.worktreeinclude` that has changed.
    fn needs_update(&self, allocation: &Allocation) -> bool {
        if self.included.is_empty() {
            return false;
        }
        let Ok(options) = Options::deserialize(&allocation.options) else { return false };
        match (self.included(&options), Worktree::from_allocation(allocation)) {
            (Some(Ok(patterns)), Some(worktree)) => *patterns != worktree.worktree_include,
            (included, _) => included.is_some() && !self.is_included_missing(&options),
        }
    }

    fn keep(&mut self, session: &str, _parent: Option<&str>, allocation: &Allocation) {
        let Some(worktree) = Worktree::from_allocation(allocation) else { return };
        if worktree.session_directory().is_some() {
            self.own_roots.insert(session.to_owned(), worktree.worktree_root.clone());
        }
        let names = self.names.entry(self.key(&worktree.repo_root)).or_default();
        names.branches.extend(worktree.branch.map(|branch| (branch, session.to_owned())));
    }

    fn recreate(
        &mut self,
        request: &Request<'_>,
        allocation: &Allocation,
    ) -> Result<Allocation, Diagnostics> {
        let options = self.options(request)?;
        let mut diagnostics = self.glob_diagnostics(request.location, &options, None);
        diagnostics.extend(self.check_overlay(&options, request.location).err());
        if diagnostics.is_empty() { self.made_again(request, allocation) } else { Err(diagnostics.into()) }
    }

    fn update(
        &mut self,
        request: &Request<'_>,
        allocation: &Allocation,
    ) -> Option<Result<Map<String, Value>, Diagnostics>> {
        let options = match self.options(request) {
            Ok(options) => options,
            Err(found) => return Some(Err(found)),
        };
        let worktree = Worktree::from_allocation(allocation)?;
        let is_in_root = allocation.within_parent || options.root_directory == worktree.worktree_root;
        let is_in_root = is_in_root && options.repository == worktree.repository;
        if !is_in_root || !self.is_at(request, &options, &worktree) {
            return None;
        }
        let mut diagnostics = self.glob_diagnostics(request.location, &options, Some(&worktree));
        diagnostics.extend(seeds::diagnostics(&options, request.location));
        let worktree = Worktree {
            base_ref: options.base_ref.clone(),
            checkout: checkout_of_update(allocation, &options, worktree.checkout),
            copy: options.copy.clone(),
            worktree_include: match self.included(&options) {
                Some(Ok(patterns)) => patterns.clone(),
                Some(Err(_)) => worktree.worktree_include.clone(),
                None => Vec::new(),
            },
            link: options.link.clone(),
            seeds: seeds::updated(&worktree, &options),
            git_hooks: options.git_hooks,
            relative: options.relative,
            ..worktree
        };
        Some(if diagnostics.is_empty() { Ok(allocation_fields(&worktree)) } else { Err(diagnostics.into()) })
    }

    fn vacate(&mut self, directory: &Path) {
        self.freed.insert(directory.to_owned());
    }

    fn free(&mut self, allocation: &Allocation) {
        if let Some(worktree) = Worktree::from_allocation(allocation) {
            let names = self.names.entry(self.key(&worktree.repo_root)).or_default();
            names.freed_admin_directories.insert(worktree.admin_directory.clone());
            names.freed_branches.extend(worktree.branch.clone().map(|branch| (branch, worktree)));
        }
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        let options = self.options(request)?;
        self.worktree(request, &options, &options.root_directory)
    }

    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        let options = self.options(request)?;
        if options.layout == Layout::Flat {
            return self.allocate(request);
        }
        let of_parent = Worktree::from_allocation(parent.allocation);
        let is_mount = of_parent.as_ref().is_some_and(overlay::is_wanted);
        if is_mount || options.checkout == Checkout::Overlay {
            let message = "a worktree that is a mount cannot contain another, or be inside one";
            let help = "use `layout = \"flat\"`, or another `checkout`".to_owned();
            return Err(vec![diagnostic(
                rule::OVERLAY,
                &request.location.key("layout"),
                message,
                "would be inside",
                Some(help),
            )]
            .into());
        }
        let of_parent = of_parent.ok_or_else(|| {
            vec![diagnostic(
                rule::BROKEN_KIND,
                request.location,
                "the parent's worktree cannot be read from its allocation",
                "here",
                None,
            )]
        })?;
        let root = nested_root(&of_parent.worktree_path, parent.scoped_name);
        let top = top_of(&nested_root(Path::new(""), ""));
        check_untracked(
            self.observed(&options),
            &options.base_ref,
            &top,
            "which contains the worktrees of children",
            request.location,
        )
        .map_err(|diagnostic| vec![diagnostic])?;
        let planned = self.worktree(request, &options, &root)?;
        Ok(Planned { within_parent: true, ..planned })
    }
}

/// Normalizes a target path as `normalizeWorktreeTargetPath` of the reference implementation does: slashes forward,
/// parts trimmed, empty parts and `.` dropped; `None` if nothing is left. Absolute paths, drive letters and `..` are
/// errors, in words for the user.
pub fn normalize_target_path(value: &str) -> Result<Option<String>, String> {
    let value = value.trim().replace('\\', "/");
    let mut head = value.bytes();
    let drive = head.next().is_some_and(|b| b.is_ascii_alphabetic())
        && head.next() == Some(b':')
        && head.next() == Some(b'/');
    if value.starts_with('/') || drive {
        return Err("`target-path` must be a relative path within the repository".to_owned());
    }
    let parts: Vec<_> =
        value.split('/').map(str::trim).filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("`target-path` must not contain `..`".to_owned());
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

/// Returns the path of a worktree in `root`. The worktrees of a session with several lie in a directory of the session.
fn worktree_path(root: &Path, scoped_name: &str, resource: &str, is_in_own: bool) -> PathBuf {
    if is_in_own { root.join(scoped_name).join(resource) } else { root.join(scoped_name) }
}

/// Returns the name of a worktree's admin directory, unique in the plan.
fn admin_name(scoped_name: &str, resource: &str, several: bool) -> String {
    if several { format!("{scoped_name}.{resource}") } else { scoped_name.to_owned() }
}

/// Returns the directory that contains the worktrees of a session with several, except for those inside a parent's.
pub(super) fn enclosure(resources: &[ResourceOptions<'_>]) -> Option<(&'static str, manifest::Options)> {
    let read = |resource: &ResourceOptions<'_>| Options::deserialize(resource.options).ok();
    let beside = |resource: &&ResourceOptions<'_>| {
        let layout = read(resource).map(|options| options.layout);
        !resource.shared || layout != Some(Layout::Nested)
    };
    let names: Vec<_> = resources.iter().filter(beside).map(|resource| resource.name).collect();
    let first = resources.iter().find(beside).or(resources.first())?;
    Some((session::KIND, session::options(&read(first)?.root_directory, &names)))
}

/// Refuses a name that cannot be part of the name of an admin directory, which Git uses in names of refs.
fn check_resource_name(request: &Request<'_>) -> Result<(), Diagnostic> {
    if super::branch::is_name(request.resource) {
        return Ok(());
    }
    let message = format!("`{}` cannot be the name of a directory that Git knows", request.resource);
    let help = "Git accepts no `..`, no `.lock` and no `.` at the end".to_owned();
    let location = request.location.key("name");
    Err(diagnostic(rule::RESOURCE_NAME, &location, &message, "Git would refuse it", Some(help)))
}

/// Returns the checkout method of an updated worktree: the requested one, or the present one if the request has not
/// changed. The two differ in a copied workspace, where the worktree of an overlay has its files.
fn checkout_of_update(allocation: &Allocation, options: &Options, present: Checkout) -> Checkout {
    let requested = Options::deserialize(&allocation.options).ok().map(|options| options.checkout);
    if requested == Some(options.checkout) { present } else { options.checkout }
}

fn top_of(path: &Path) -> String {
    path.components().next().map(|top| top.as_os_str().to_string_lossy().into_owned()).unwrap_or_default()
}

fn diagnostic(
    rule: &'static Rule,
    location: &Location,
    message: &str,
    label: &str,
    help: Option<String>,
) -> Diagnostic {
    Diagnostic {
        rule,
        location: location.clone(),
        message: message.to_owned(),
        label: label.to_owned(),
        help: help.map(String::into_boxed_str),
    }
}
