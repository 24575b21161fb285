//! Decides for each worktree whether its branch is created, or goes on from where it is.

use super::super::{BranchExists, Existing, Options, Worktree, branch, ownership::Mark};
use super::{Worktrees, fault, fields};
use crate::host::git::checkouts::Checkout;
use crate::manifest::{Diagnostics, Fault, rule};
use crate::observe::{Apart, Branch, Commit, Names, Observation, Question, Repository, branch_ref};
use crate::provider::{Allocation, Outlasts, Request};
use crate::template;

/// Where a branch that exists is, and what it has beyond the commit that its session asks for.
pub(in super::super) struct Tip {
    pub(super) commit: Commit,
    pub(super) ahead: usize,
}

/// What has to be known of the branch of a worktree that is to be made again: it has to contain the commit that it began
/// at, wherever its base ref is now.
pub(in super::super) fn questions_again(allocation: &Allocation) -> Vec<Question> {
    let Some(worktree) = Worktree::of(allocation) else { return Vec::new() };
    let base_ref = worktree.base().to_owned();
    let names = |branch| Names { prefix: branch, suffix: String::new() };
    worktree
        .branch
        .into_iter()
        .map(|branch| Question::Branch { base_ref: base_ref.clone(), names: names(branch) })
        .collect()
}

/// Returns whether the release of a worktree removes its branch: the swarm made it, no commit has come to it, and no other
/// worktree has it checked out. The release itself decides by the same rule.
pub(in super::super) fn goes_with(worktree: &Worktree, branch: &Branch, owner: Option<&str>) -> bool {
    let is_own = |checkout: &Checkout| checkout.entry.as_deref() == Some(&worktree.entry);
    let is_made = branch.made.as_ref().is_some_and(|made| {
        made.commit == branch.tip
            && Mark::parse(made.message.as_bytes()).is_some_and(|mark| Some(mark.owner.as_str()) == owner)
    });
    // One that was found there is not the worktree's to remove.
    let has_changed = worktree.existing.is_some() == (branch.tip == worktree.commit);
    is_made && !has_changed && branch.checkouts.iter().all(is_own)
}

/// The branch of a worktree that is there after its release.
pub(in super::super) fn outlasts(allocation: &Allocation, observation: &Observation) -> Option<Outlasts> {
    let worktree = Worktree::of(allocation)?;
    let Some(Ok(repository)) = &observation.repository else { return None };
    let name = worktree.branch.clone()?;
    let branch = repository.branches.get(&name)?;
    if goes_with(&worktree, branch, observation.owner.as_deref()) {
        return None;
    }
    let apart = observation.apart.get(&(worktree.base().to_owned(), name.clone()));
    let commits = apart.map_or(0, |apart| apart.ahead);
    Some(Outlasts { branch: name, commit: branch.tip.clone(), commits })
}

impl Worktrees<'_> {
    /// The name of the branch that a session asks for, which no other one of the plan has.
    pub(super) fn branch(
        &mut self,
        request: &Request<'_>,
        options: &Options,
    ) -> Result<Option<String>, Diagnostics> {
        let Some(source) = &options.branch else { return Ok(None) };
        let place = request.place.key("branch");
        let branch = template::render(source, &request.names(), &self.bounds)
            .map_err(|problems| problems.into_iter().map(|problem| problem.at(&place)).collect::<Vec<_>>())?;
        let refused = |message: String, label: &str, help: String| {
            Err(vec![fault(rule::BRANCH, &place, &message, label, Some(help))].into())
        };
        if !branch::is_name(&branch) {
            return refused(
                format!("`{}` is no name for a branch", branch.escape_debug()),
                "git would refuse it",
                "git takes no blanks, no `~^:?*[\\`, no `..`, no part that begins with `.` or ends with `.lock`"
                    .to_owned(),
            );
        }
        if let Some(other) = branch::in_the_way(&self.branches, &branch, |_| true) {
            return refused(
                format!(
                    "branch `{branch}` of `{}` meets `{other}` of `{}`",
                    request.session, self.branches[other]
                ),
                "not one branch a session",
                "tell them apart by `{{ session.name }}` or `{{ session.index }}`".to_owned(),
            );
        }
        self.branches.insert(branch.clone(), request.session.to_owned());
        Ok(Some(branch))
    }

    /// Where the branch of a new worktree is, if it exists and the session goes on there; `None` where it is created.
    pub(super) fn begins(
        &self,
        repository: &Repository,
        request: &Request<'_>,
        options: &Options,
        name: &str,
    ) -> Result<Option<Tip>, Fault> {
        let stays = |other: &str| !self.goes(repository, other);
        let Some(other) = branch::in_the_way(&repository.branches, name, stays) else { return Ok(None) };
        if other != name {
            return Err(refused(
                request,
                &format!("branch `{name}` of `{}` cannot be created: `{other}` exists", request.session),
                "exists already",
                format!("choose another name, or `git branch -d {other}` if it is no longer needed"),
            ));
        }
        let branch = &repository.branches[name];
        self.refuse(request, options.branch_exists, name, branch, None)?;
        let apart = self.observation.apart.get(&(options.base_ref.clone(), name.to_owned()));
        let Some(tip) = self.reused(request, &options.base_ref, name, branch, apart)? else {
            return Ok(None);
        };
        if tip.ahead > 0 {
            let at = branch_ref(name);
            let target = super::normalize_target_path(options.target_path.as_deref().unwrap_or_default());
            let target = target.ok().flatten();
            self.check_target(&at, target.as_deref(), request.place)?;
            self.check_discovery(&at, target.as_deref(), request.place)?;
        }
        Ok(Some(tip))
    }

    /// The allocation of a worktree that is gone or broken, as it is made again: on its branch, wherever that is now.
    pub(super) fn made_again(
        &self,
        request: &Request<'_>,
        allocation: &Allocation,
    ) -> Result<Allocation, Diagnostics> {
        let unchanged = || Ok(allocation.clone());
        let (Some(Ok(repository)), Some(worktree)) = (&self.observation.repository, Worktree::of(allocation))
        else {
            return unchanged();
        };
        let Some(name) = worktree.branch.clone() else { return unchanged() };
        let owner = self.observation.owner.as_deref();
        let branch = repository.branches.get(&name).filter(|branch| !goes_with(&worktree, branch, owner));
        let existing = match branch {
            None => None,
            Some(branch) => {
                let base = worktree.base().to_owned();
                self.refuse(request, policy(request), &name, branch, Some(&worktree))
                    .map_err(|fault| vec![fault])?;
                let apart = self.observation.apart.get(&(base.clone(), name.clone()));
                let tip = self.reused(request, &base, &name, branch, apart).map_err(|fault| vec![fault])?;
                tip.map(|Tip { commit, ahead }| (commit, Existing { base, ahead }))
            }
        };
        let (commit, existing) = match existing {
            Some((commit, existing)) => (commit, Some(existing)),
            None => (worktree.commit.clone(), None),
        };
        let worktree = Worktree { commit, existing, ..worktree };
        Ok(Allocation { allocation: fields(&worktree), ..allocation.clone() })
    }

    /// Returns whether the branch is removed before anything new is made.
    fn goes(&self, repository: &Repository, name: &str) -> bool {
        let (Some(worktree), Some(branch)) = (self.freed_branches.get(name), repository.branches.get(name))
        else {
            return false;
        };
        goes_with(worktree, branch, self.observation.owner.as_deref())
    }

    /// Refuses a branch that the manifest says is not to be reused, and one that another worktree has.
    fn refuse(
        &self,
        request: &Request<'_>,
        policy: BranchExists,
        name: &str,
        branch: &Branch,
        own: Option<&Worktree>,
    ) -> Result<(), Fault> {
        let is_freed = |checkout: &&Checkout| {
            let entry = checkout.entry.as_deref();
            entry.is_some_and(|entry| {
                self.freed_entries.contains(entry) || own.is_some_and(|own| own.entry == entry)
            })
        };
        if let Some(checkout) = branch.checkouts.iter().find(|checkout| !is_freed(checkout)) {
            let path = checkout.path.display();
            return Err(refused(
                request,
                &format!("branch `{name}` of `{}` is checked out at {path}", request.session),
                "in use there",
                format!(
                    "switch that worktree to another branch (`git -C {path} switch --detach`), or choose another name"
                ),
            ));
        }
        if policy == BranchExists::Refuse {
            return Err(refused(
                request,
                &format!("branch `{name}` of `{}` exists{}", request.session, self.kept(name, own)),
                "exists already",
                format!(
                    "go on with it (`branch-exists = \"reuse\"`), rename it (`git branch -m {name} NEW`), or delete it if \
                     it is no longer needed (`git branch -D {name}`)"
                ),
            ));
        }
        Ok(())
    }

    /// The tip of a branch that exists; a fault where it does not contain the commit that the session asks for.
    fn reused(
        &self,
        request: &Request<'_>,
        base_ref: &str,
        name: &str,
        branch: &Branch,
        apart: Option<&Apart>,
    ) -> Result<Option<Tip>, Fault> {
        match apart {
            Some(Apart { ahead, contains: true }) => {
                Ok(Some(Tip { commit: branch.tip.clone(), ahead: *ahead }))
            }
            Some(Apart { ahead, contains: false }) => Err(refused(
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
                        "rebase it (`seedbed exec {} -- git rebase {base_ref}`), rename it (`git branch -m {name} NEW`), or \
                         choose another `branch` or `base-ref`",
                        request.path
                    )
                } else {
                    format!(
                        "rebase it (`git rebase {base_ref} {name}`), rename it (`git branch -m {name} NEW`), delete it if it \
                         is no longer needed (`git branch -D {name}`), or choose another `branch` or `base-ref`"
                    )
                },
            )),
            // The ref itself names no commit, which is reported.
            None => Ok(None),
        }
    }

    /// Says of a branch that it stays because of its commits, where its worktree is released by this very plan.
    fn kept(&self, name: &str, own: Option<&Worktree>) -> &'static str {
        let is_released = own.is_some() || self.freed_branches.contains_key(name);
        if is_released { ": it holds the session's commits, and its release keeps it" } else { "" }
    }
}

fn policy(request: &Request<'_>) -> BranchExists {
    let said = request.options.get("branch-exists").and_then(serde_json::Value::as_str);
    if said == Some("refuse") { BranchExists::Refuse } else { BranchExists::Reuse }
}

fn refused(request: &Request<'_>, message: &str, label: &str, help: String) -> Fault {
    fault(rule::BRANCH, &request.place.key("branch"), message, label, Some(help))
}

/// So many commits, in words, that the other side does not have.
fn commits(count: usize) -> String {
    match count {
        0 => "no commit of its own".to_owned(),
        1 => "1 commit of its own".to_owned(),
        _ => format!("{count} commits of its own"),
    }
}
