//! Decides for each worktree whether its branch is created, or continues at its commit.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{BranchExists, Existing, Options, Worktree, branch, ownership::Mark};
use super::check::{check_discovery, check_target};
use super::{Worktrees, diagnostic, seeds};
use crate::host::git::checkouts::Checkout;
use crate::host::text::shell_quoted;
use crate::manifest::{Diagnostic, Diagnostics, rule};
use crate::observe::{Branch, BranchNames, Commit, Distance, Observation, Query, Repository, branch_ref};
use crate::provider::{Allocation, Request, SurvivingBranch, allocation_fields};
use crate::template;

/// Names in one repository that this plan frees and uses.
#[derive(Default)]
pub(super) struct RepositoryNames {
    /// Admin directories that exist now, but no longer when this plan's worktrees are created.
    pub(super) freed_admin_directories: BTreeSet<String>,
    /// Worktrees to be released, by their branches.
    pub(super) freed_branches: BTreeMap<String, Worktree>,
    /// Branches of this plan, each with the id of its session.
    pub(super) branches: BTreeMap<String, String>,
}

impl RepositoryNames {
    pub(super) const fn new() -> Self {
        Self {
            freed_admin_directories: BTreeSet::new(),
            freed_branches: BTreeMap::new(),
            branches: BTreeMap::new(),
        }
    }
}

/// Commit of an existing branch, and the number of its commits that the requested commit does not contain.
pub(in super::super) struct Tip {
    pub(super) commit: Commit,
    pub(super) ahead: usize,
    /// `true` if the requested commit contains the branch, which is moved forward to it.
    pub(super) has_landed: bool,
}

impl Tip {
    /// Returns the commit of a worktree on the branch, and the state of the branch relative to `base`.
    pub(super) fn begin(self, base: &Commit) -> (Commit, Existing) {
        let Self { commit, ahead, has_landed } = self;
        let base = base.clone();
        if has_landed {
            (base.clone(), Existing { base, ahead, moved_from: Some(commit) })
        } else {
            (commit, Existing { base, ahead, moved_from: None })
        }
    }
}

/// Returns the queries for the branch of a worktree that is created again. The branch has to contain the commit that it
/// began at, even if its base ref has moved.
pub(in super::super) fn recreation_queries(allocation: &Allocation) -> Vec<Query> {
    let Some(worktree) = Worktree::from_allocation(allocation) else { return Vec::new() };
    own_branch(&worktree, worktree.base()).into_iter().collect()
}

/// Returns the queries for the branch of a worktree that is released: its commits since its base, and whether its base ref
/// has them.
pub(in super::super) fn survival_queries(allocation: &Allocation) -> Vec<Query> {
    let Some(worktree) = Worktree::from_allocation(allocation) else { return Vec::new() };
    [worktree.base(), &worktree.base_ref].iter().filter_map(|base| own_branch(&worktree, base)).collect()
}

/// Returns the query for the branch of a worktree, with its distance from `base`.
fn own_branch(worktree: &Worktree, base: &str) -> Option<Query> {
    let names = BranchNames { prefix: worktree.branch.clone()?, suffix: String::new() };
    let (repository, base_ref) = (worktree.repository_name().to_owned(), base.to_owned());
    Some(Query::Branch { repository, base_ref, names })
}

/// Returns whether the release of a worktree removes its branch. That is so if the swarm created the branch, it has no
/// new commit, and no other worktree has it checked out. The release itself decides by the same rule.
pub(in super::super) fn is_released_with(worktree: &Worktree, branch: &Branch, owner: Option<&str>) -> bool {
    let is_own = |checkout: &Checkout| checkout.admin_directory.as_deref() == Some(&worktree.admin_directory);
    let has_own_log = branch.first_log_entry.as_ref().is_some_and(|entry| {
        entry.commit == branch.tip
            && Mark::parse(entry.message.as_bytes()).is_some_and(|mark| Some(mark.owner.as_str()) == owner)
    });
    // A branch that existed before the worktree is not removed.
    let has_changed = worktree.existing.is_some() == (branch.tip == worktree.commit);
    has_own_log && !has_changed && branch.checkouts.iter().all(is_own)
}

/// Returns whether the requested commit contains a branch that a run of seedbed has created, and does not name it. Such a
/// branch is moved forward: no commit is lost. A branch of the user is never moved.
fn is_landed(branch: &Branch, distance: Option<&Distance>) -> bool {
    is_made(branch) && matches!(distance, Some(Distance { ahead: 0, contains: false }))
}

/// Returns whether a run of seedbed has created the branch.
fn is_made(branch: &Branch) -> bool {
    branch.first_log_entry.as_ref().is_some_and(|entry| Mark::parse(entry.message.as_bytes()).is_some())
}

/// Returns the branch of a worktree that still exists after the worktree's release.
pub(in super::super) fn surviving_branch(
    allocation: &Allocation,
    observation: &Observation,
) -> Option<SurvivingBranch> {
    let worktree = Worktree::from_allocation(allocation)?;
    let observed = observation.repository(worktree.repository_name());
    let Some(Ok(repository)) = &observed.repository else { return None };
    let name = worktree.branch.clone()?;
    let branch = repository.branches.get(&name)?;
    if is_released_with(&worktree, branch, observation.owner.as_deref()) {
        return None;
    }
    let ahead = |base: &str| Some(observed.distances.get(&(base.to_owned(), name.clone()))?.ahead);
    let (gained, beyond_ref) = (ahead(worktree.base()).unwrap_or(0), ahead(&worktree.base_ref));
    // After a rebase, commits of the base ref are not the branch's own.
    let commits = beyond_ref.map_or(gained, |beyond| beyond.min(gained));
    let has_landed = gained > 0 && beyond_ref == Some(0) && is_made(branch);
    let (commit, landed_in) = (branch.tip.clone(), has_landed.then(|| worktree.base_ref.clone()));
    Some(SurvivingBranch { branch: name, commit, commits, landed_in })
}

impl Worktrees<'_> {
    /// Returns the name of the branch that a session requests. No other branch of the plan has this name.
    pub(super) fn branch(
        &mut self,
        repository: &Repository,
        request: &Request<'_>,
        options: &Options,
    ) -> Result<Option<String>, Diagnostics> {
        let Some(source) = &options.branch else { return Ok(None) };
        let location = request.location.key("branch");
        let branch = template::render(source, &request.names(), &self.bounds).map_err(|problems| {
            problems.into_iter().map(|problem| problem.at(&location)).collect::<Vec<_>>()
        })?;
        let branch = request.distinct(branch);
        let refused = |message: String, label: &str, help: String| {
            Err(vec![diagnostic(rule::BRANCH, &location, &message, label, Some(help))].into())
        };
        if !branch::is_name(&branch) {
            return refused(
                format!("`{}` is not a valid branch name", branch.escape_debug()),
                "Git would refuse it",
                "Git accepts no blanks, no `~^:?*[\\`, no `..`, no part that begins with `.` or ends with `.lock`"
                    .to_owned(),
            );
        }
        let names = self.names.entry(repository.common_dir.clone()).or_default();
        if let Some(other) = branch::in_the_way(&names.branches, &branch, |_| true) {
            return refused(
                format!(
                    "branch `{branch}` of `{}` meets `{other}` of `{}`",
                    request.session, names.branches[other]
                ),
                "not one branch a session",
                if names.branches[other] == request.session {
                    "distinguish them by `{{ resource.name }}`".to_owned()
                } else {
                    "distinguish them by `{{ session.name }}` or `{{ session.index }}`".to_owned()
                },
            );
        }
        names.branches.insert(branch.clone(), request.session.to_owned());
        Ok(Some(branch))
    }

    /// Returns the tip of a new worktree's branch, if the branch exists and the session continues on it; `None` if the
    /// branch is created.
    pub(super) fn begins(
        &self,
        repository: &Repository,
        request: &Request<'_>,
        options: &Options,
        name: &str,
    ) -> Result<Option<Tip>, Diagnostic> {
        let git = &self.observation.git_command(super::repository_of(options));
        let stays = |other: &str| !self.is_released(repository, other);
        let Some(other) = branch::in_the_way(&repository.branches, name, stays) else { return Ok(None) };
        if other != name {
            return Err(refused(
                request,
                &format!("branch `{name}` of `{}` cannot be created: `{other}` exists", request.session),
                "exists already",
                format!(
                    "choose another name, or `{git} branch -d {}` if it is no longer needed",
                    shell_quoted(other)
                ),
            ));
        }
        let branch = &repository.branches[name];
        let names = self.names_in(&repository.common_dir);
        names.refuse(request, git, options.branch_exists, name, branch, None)?;
        let observed = self.observed(options);
        let distance = observed.distances.get(&(options.base_ref.clone(), name.to_owned()));
        if is_landed(branch, distance) {
            return Ok(Some(Tip { commit: branch.tip.clone(), ahead: 0, has_landed: true }));
        }
        let Some(tip) = names.reused(request, git, &options.base_ref, name, branch, distance)? else {
            return Ok(None);
        };
        if tip.ahead > 0 {
            let at = branch_ref(name);
            let target = super::normalize_target_path(options.target_path.as_deref().unwrap_or_default());
            let target = target.ok().flatten();
            check_target(observed, &at, target.as_deref(), request.location)?;
            check_discovery(observed, &at, target.as_deref(), request.location)?;
        }
        Ok(Some(tip))
    }

    /// Returns the allocation with which a missing or broken worktree is created again, on its branch at its present
    /// commit.
    pub(super) fn made_again(
        &self,
        request: &Request<'_>,
        allocation: &Allocation,
    ) -> Result<Allocation, Diagnostics> {
        let unchanged = || Ok(allocation.clone());
        let Some(worktree) = Worktree::from_allocation(allocation) else { return unchanged() };
        let observed = self.observation.repository(worktree.repository_name());
        let Some(Ok(repository)) = &observed.repository else { return unchanged() };
        let Some(name) = worktree.branch.clone() else { return unchanged() };
        let owner = self.observation.owner.as_deref();
        let branch =
            repository.branches.get(&name).filter(|branch| !is_released_with(&worktree, branch, owner));
        let existing = match branch {
            None => None,
            Some(branch) => {
                let base = worktree.base().to_owned();
                let git = &self.observation.git_command(worktree.repository_name());
                let names = self.names_in(&repository.common_dir);
                names
                    .refuse(request, git, policy(request), &name, branch, Some(&worktree))
                    .map_err(|diagnostic| vec![diagnostic])?;
                let distance = observed.distances.get(&(base.clone(), name.clone()));
                let tip = names
                    .reused(request, git, &base, &name, branch, distance)
                    .map_err(|diagnostic| vec![diagnostic])?;
                tip.map(|tip| tip.begin(&base))
            }
        };
        let earlier = worktree.commit.clone();
        let (commit, existing) = match existing {
            Some((commit, existing)) => (commit, Some(existing)),
            None => (worktree.commit.clone(), None),
        };
        let mut worktree = Worktree { commit, existing, ..worktree };
        if worktree.commit != earlier {
            seeds::renew(&mut worktree, self.observation);
        }
        Ok(Allocation { allocation: allocation_fields(&worktree), ..allocation.clone() })
    }

    /// Returns whether the branch is removed before anything new is created.
    fn is_released(&self, repository: &Repository, name: &str) -> bool {
        let names = self.names_in(&repository.common_dir);
        let (Some(worktree), Some(branch)) = (names.freed_branches.get(name), repository.branches.get(name))
        else {
            return false;
        };
        is_released_with(worktree, branch, self.observation.owner.as_deref())
    }
}

impl RepositoryNames {
    /// Refuses a branch that the manifest does not allow to be reused, and a branch that another worktree has checked
    /// out.
    fn refuse(
        &self,
        request: &Request<'_>,
        git: &str,
        policy: BranchExists,
        name: &str,
        branch: &Branch,
        own: Option<&Worktree>,
    ) -> Result<(), Diagnostic> {
        let is_freed = |checkout: &&Checkout| {
            let admin_directory = checkout.admin_directory.as_deref();
            admin_directory.is_some_and(|name| {
                self.freed_admin_directories.contains(name)
                    || own.is_some_and(|own| own.admin_directory == name)
            })
        };
        if let Some(checkout) = branch.checkouts.iter().find(|checkout| !is_freed(checkout)) {
            let path = checkout.path.display();
            return Err(refused(
                request,
                &format!("branch `{name}` of `{}` is checked out at {path}", request.session),
                "in use there",
                format!(
                    "choose another name, release the session if one works there (`seedbed list`), or switch that worktree to \
                     another branch (`git -C {} switch --detach`)",
                    shell_quoted(&checkout.path.to_string_lossy())
                ),
            ));
        }
        if policy == BranchExists::Refuse {
            let quoted = shell_quoted(name);
            return Err(refused(
                request,
                &format!("branch `{name}` of `{}` exists{}", request.session, self.kept(name, own)),
                "exists already",
                format!(
                    "go on with it (`branch-exists = \"reuse\"`), rename it (`{git} branch -m {quoted} NEW`), or delete it \
                     if it is no longer needed (`{git} branch -D {quoted}`)"
                ),
            ));
        }
        Ok(())
    }

    /// Returns the tip of an existing branch; a diagnostic if the branch does not contain the requested commit.
    fn reused(
        &self,
        request: &Request<'_>,
        git: &str,
        base_ref: &str,
        name: &str,
        branch: &Branch,
        apart: Option<&Distance>,
    ) -> Result<Option<Tip>, Diagnostic> {
        let (base, quoted) = (shell_quoted(base_ref), shell_quoted(name));
        match apart {
            Some(Distance { ahead, contains: true }) => {
                Ok(Some(Tip { commit: branch.tip.clone(), ahead: *ahead, has_landed: false }))
            }
            Some(Distance { ahead, contains: false }) => Err(refused(
                request,
                &format!(
                    "branch `{name}` of `{}` exists with {} and does not contain `{base_ref}`{}",
                    request.session,
                    commits(*ahead),
                    self.kept(name, None)
                ),
                "cannot begin there",
                if self.freed_branches.contains_key(name) {
                    format!(
                        "rebase it (`seedbed exec {} -- git rebase {base}`), rename it (`{git} branch -m {quoted} NEW`), \
                         or choose another `branch` or `base-ref`",
                        request.path
                    )
                } else {
                    format!(
                        "rename it (`{git} branch -m {quoted} NEW`), delete it if its work has landed, as after a squash, or is \
                         no longer needed (`{git} branch -D {quoted}`), rebase it onto `{base_ref}` in a checkout of its \
                         own, or choose another `branch` or `base-ref`"
                    )
                },
            )),
            // The base ref itself names no commit, which is reported elsewhere.
            None => Ok(None),
        }
    }

    /// Returns a remark for a branch that is kept because of its commits while this plan releases its worktree.
    fn kept(&self, name: &str, own: Option<&Worktree>) -> &'static str {
        let is_released = own.is_some() || self.freed_branches.contains_key(name);
        if is_released { ": it has the session's commits, and its release keeps it" } else { "" }
    }
}

fn policy(request: &Request<'_>) -> BranchExists {
    let option = request.options.get("branch-exists").and_then(serde_json::Value::as_str);
    if option == Some("refuse") { BranchExists::Refuse } else { BranchExists::Reuse }
}

fn refused(request: &Request<'_>, message: &str, label: &str, help: String) -> Diagnostic {
    diagnostic(rule::BRANCH, &request.location.key("branch"), message, label, Some(help))
}

/// Returns the number of commits that the other side does not have, in words.
fn commits(count: usize) -> String {
    match count {
        0 => "no commit of its own".to_owned(),
        1 => "1 commit of its own".to_owned(),
        _ => format!("{count} commits of its own"),
    }
}
