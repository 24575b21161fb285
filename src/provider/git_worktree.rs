//! Provides the `git-worktree` kind: a work tree of the repository, at a commit resolved at plan time.

mod allocation;
mod footprint;
mod forgotten;
mod aside;
mod branch;
mod child;
mod container;
mod copy_record;
mod copy;
mod display;
mod donor;
mod explanation;
mod gc_roots;
mod untracked;
mod index;
mod inspect;
mod landed;
mod reserved_names;
mod unsaved;
mod fetch;
mod files;
mod options;
mod overlay;
mod ownership;
mod plan;
mod pointer;
mod populate;
mod progress;
mod rebind;
mod scratch;
mod seed;
mod register;
mod release;
mod manual_cleanup;
mod repository;
pub mod rescue;
mod checkout_config;
mod paths;
mod space;
mod sparse;
#[cfg(test)]
mod tests;
mod tracked;
mod tree;
mod update;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::{Schema, SchemaGenerator, schema_for};
use serde::Deserialize as _;

use super::{
    Allocation, Allocator, ChildOptions, Condition, Container, ContainerNeeds, Context, Error, Examination,
    InterruptedRun, Leftover, Location, NeededSpace, OwnedPath, PathSet, PlannedAllocation, Planner,
    Provider, Refreshable, Rescue, ResourceOptions, RootDirectory, Scope, Seeded, SurvivingBranch, Task,
    Uncounted, UnsavedWork, effective_options, is_in_git_directory,
};
use crate::host::occupants::Footprint;
use crate::manifest;
use crate::name::SessionPath;
use crate::observe::{Observation, Query};

pub use allocation::{Existing, PlannedSeed, Registration, Worktree};
pub use fetch::{Error as FetchError, FetchedRef, fetch};
pub use options::{BranchExists, Checkout, Layout, Options, SeedOptions};
pub(crate) use ownership::Mark;
pub use plan::normalize_target_path;
pub(crate) use progress::by_repository;
pub use progress::{Head, Progress, admin_directory, progress, progress_of, repository_directory};
pub(crate) use reserved_names::without_stand_in;
pub(crate) use unsaved::is_discovery;

/// Name of the kind.
pub const KIND: &str = "git-worktree";

/// Provider of `git-worktree`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state")]
pub struct GitWorktree;

impl Planner for GitWorktree {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn options_schema(&self) -> Schema {
        schema_for!(Options)
    }

    fn allocation_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<Worktree>())
    }

    fn options(
        &self,
        own: &manifest::Options,
        parent: Option<&manifest::Options>,
        defaults: &manifest::Options,
    ) -> manifest::Options {
        effective_options::<Options>(own, parent, defaults, &[])
    }

    fn allows_several(&self) -> bool {
        true
    }

    fn enclosure(&self, resources: &[ResourceOptions<'_>]) -> Option<(&'static str, manifest::Options)> {
        plan::enclosure(resources)
    }

    fn is_located(&self, allocation: &Allocation, several: bool) -> bool {
        Worktree::from_allocation(allocation).is_some_and(|worktree| worktree.is_one_of_several() == several)
    }

    fn queries(&self, options: &manifest::Options) -> Vec<Query> {
        plan::queries(options)
    }

    fn recreation_queries(&self, allocation: &Allocation) -> Vec<Query> {
        plan::recreation_queries(allocation)
    }

    fn survival_queries(&self, allocation: &Allocation) -> Vec<Query> {
        plan::survival_queries(allocation)
    }

    fn takes_files(&self) -> bool {
        true
    }

    fn file_queries(&self, options: &manifest::Options, path: &str) -> Vec<Query> {
        plan::file_queries(options, path)
    }

    fn file_fault(
        &self,
        allocation: &Allocation,
        observation: &Observation,
        path: &str,
        is_section: bool,
    ) -> Option<(String, String)> {
        plan::file_fault(&Worktree::from_allocation(allocation)?, observation, path, is_section)
    }

    fn seeded_directories(&self, allocation: &Allocation) -> usize {
        let worktree =
            allocation.allocation.contains_key("seeds").then(|| Worktree::from_allocation(allocation));
        let seeds = worktree.flatten().map(|worktree| worktree.seeds).unwrap_or_default();
        seeds.iter().filter(|seed| seed.digest.is_some()).count()
    }

    fn branch(&self, allocation: &Allocation) -> Option<String> {
        Worktree::from_allocation(allocation)?.branch
    }

    fn repository(&self, allocation: &Allocation) -> Option<(String, PathBuf)> {
        let worktree = Worktree::from_allocation(allocation)?;
        Some((worktree.repository?, worktree.repo_root))
    }

    fn in_moved_repository(&self, allocation: &Allocation, root: &Path) -> Allocation {
        let mut moved = allocation.clone();
        if let Some(worktree) = Worktree::from_allocation(allocation) {
            // A common directory outside the repository, that of a linked worktree, has not moved along.
            let below = worktree.common_directory.strip_prefix(&worktree.repo_root);
            let common = below.map_or(worktree.common_directory.clone(), |below| {
                root.components().chain(below.components()).collect()
            });
            moved.allocation.insert("commonDirectory".to_owned(), common.to_string_lossy().into());
        }
        moved.allocation.insert("repoRoot".to_owned(), root.to_string_lossy().into());
        moved
    }

    fn surviving_branch(
        &self,
        allocation: &Allocation,
        observation: &Observation,
    ) -> Option<SurvivingBranch> {
        plan::surviving_branch(allocation, observation)
    }

    /// Compares all options except `branch-exists` and `max-base-age`: they are decided when a worktree is created, and do
    /// not change later.
    fn is_compatible(&self, applied: &manifest::Options, requested: &manifest::Options) -> bool {
        let others = |options: &manifest::Options| {
            let mut others = options.clone();
            others.remove("branch-exists");
            others.remove("max-base-age");
            others
        };
        applied == requested || others(applied) == others(requested)
    }

    /// Updates `copy` and `link` in place, and options that matter only when a worktree is created.
    fn is_update(&self, from: &Allocation, to: &Allocation) -> bool {
        // A child's worktree would be created elsewhere.
        let layout = |of: &Allocation| of.options.get("layout").filter(|_| of.shared).cloned();
        let (Some(old), Some(new)) = (Worktree::from_allocation(from), Worktree::from_allocation(to)) else {
            return false;
        };
        layout(from) == layout(to) && plan::is_update(&old, &new)
    }

    fn allocator<'o>(&'o self, observation: &'o Observation, _scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(plan::Worktrees::new(observation))
    }

    fn child_options(&self) -> Option<ChildOptions> {
        Some(child::options)
    }

    fn context(&self, allocation: &Allocation) -> Context {
        plan::context(allocation).unwrap_or_default()
    }

    fn template_name(&self) -> Option<&'static str> {
        Some("worktree")
    }

    fn template_value(&self, allocation: &Allocation) -> Option<minijinja::Value> {
        plan::names(allocation)
    }

    fn summary(&self, allocation: &Allocation, is_new: bool) -> Option<String> {
        Some(display::summary(&Worktree::from_allocation(allocation)?, is_new))
    }

    fn summary_of_many(&self, allocations: &[&Allocation], are_new: bool) -> Option<String> {
        // For a hundred thousand sessions, all cores read the allocations.
        let worktrees = allocations.par_iter().map(|allocation| Worktree::from_allocation(allocation));
        display::summary_of_many(&worktrees.collect::<Option<Vec<_>>>()?, are_new)
    }

    fn origin(&self, first: &Allocation, sources: &[Option<&SessionPath>]) -> Option<String> {
        Some(display::origin(&Worktree::from_allocation(first)?, sources))
    }

    fn explanation(&self, planned: &PlannedAllocation<'_>) -> Vec<String> {
        Worktree::from_allocation(planned.allocation)
            .map(|worktree| explanation::rules(planned, &worktree))
            .unwrap_or_default()
    }

    fn owned_paths(&self, planned: &PlannedAllocation<'_>) -> Vec<OwnedPath> {
        let worktree = Worktree::from_allocation(planned.allocation);
        worktree.map(|worktree| explanation::owned_paths(planned, &worktree)).unwrap_or_default()
    }

    fn root_directory(&self, allocation: Option<&Allocation>) -> Option<RootDirectory> {
        let path = match allocation {
            Some(allocation) => Worktree::from_allocation(allocation)?.worktree_root,
            None => Options::default().root_directory,
        };
        Some(RootDirectory::new("the directory of worktrees", path))
    }

    fn directory(&self, allocation: &Allocation) -> Option<PathBuf> {
        Worktree::from_allocation(allocation).map(|worktree| worktree.worktree_path)
    }

    fn working_directory(&self, allocation: &Allocation) -> Option<PathBuf> {
        plan::working_directory(allocation)
    }

    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool {
        let options = self.options(&allocation.options, None, &manifest::Options::new());
        let Ok(options) = Options::deserialize(&options) else { return false };
        Worktree::from_allocation(allocation).is_some_and(|worktree| {
            plan::is_of(&worktree, &options, allocation.within_parent)
                && plan::is_named(&worktree, scoped_name, allocation)
                && !is_in_git_directory(&worktree.worktree_path)
                && plan::is_way(&worktree)
                && super::is_way(&worktree.common_directory)
        })
    }

    fn notices(&self, allocation: &Allocation, observation: &Observation) -> Vec<String> {
        plan::notices(allocation, observation)
    }

    fn stale(
        &self,
        allocation: &Allocation,
        replaced: Option<&Allocation>,
        released: &PathSet,
        observation: &Observation,
    ) -> Vec<String> {
        plan::stale(allocation, replaced, released, observation)
    }

    fn stale_update(&self, allocation: &Allocation, observation: &Observation) -> Vec<String> {
        plan::stale_update(allocation, observation)
    }

    fn path_fields(&self) -> &'static [&'static str] {
        &["repoRoot", "worktreeRoot", "worktreePath", "commonDirectory"]
    }

    fn group_key(&self, allocation: &Allocation) -> Option<String> {
        plan::group_key(allocation)
    }
}

impl Provider for GitWorktree {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        register::register(task, &worktree(task)?)
    }

    fn populate(&self, tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
        match tasks.first().map(worktree) {
            Some(Ok(first)) if overlay::is_wanted(&first) => overlay::populate(tasks),
            _ => populate::populate(tasks),
        }
    }

    fn finish(&self, task: &Task<'_>) -> Result<(), Error> {
        let worktree = worktree(task)?;
        untracked::copy_and_link(task, &worktree)?;
        files::create(task, &worktree)?;
        populate::run_hook(task, &worktree)
    }

    fn seed(&self, tasks: &[Task<'_>], on_seeded: &(dyn Fn(usize, Seeded) + Sync)) -> Vec<(usize, Error)> {
        seed::bring(tasks, on_seeded)
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        inspect::inspect(task, &worktree(task)?)
    }

    fn unusable(&self, task: &Task<'_>) -> Result<Option<String>, Error> {
        inspect::unusable(task, &worktree(task)?)
    }

    fn begin_update(&self, task: &Task<'_>) -> Result<(), Error> {
        update::begin(task, &worktree(task)?)
    }

    fn update(&self, task: &Task<'_>, from: &Allocation) -> Result<Vec<String>, Error> {
        let (from, to) = (worktree(&Task { allocation: from, ..*task })?, worktree(task)?);
        let mut left = update::update(task, &from, &to)?;
        pointer::write(task, &to)?;
        left.extend(files::reconcile(task, &to)?);
        Ok(left)
    }

    fn left_by_update(&self, task: &Task<'_>, from: &Allocation) -> Result<Vec<String>, Error> {
        update::left(task, &worktree(&Task { allocation: from, ..*task })?, &worktree(task)?)
    }

    fn revert(&self, task: &Task<'_>) -> Result<Vec<String>, Error> {
        let worktree = worktree(task)?;
        let mut left = update::revert(task, &worktree)?;
        pointer::write(task, &worktree)?;
        left.extend(files::reconcile(task, &worktree)?);
        Ok(left)
    }

    fn outdated(&self, task: &Task<'_>) -> Result<Vec<String>, Error> {
        untracked::outdated(task, &worktree(task)?)
    }

    fn refreshable(&self, task: &Task<'_>) -> Result<Refreshable, Error> {
        untracked::refreshable(task, &worktree(task)?)
    }

    fn refresh(&self, task: &Task<'_>) -> Result<Vec<String>, Error> {
        untracked::refresh(task, &worktree(task)?)
    }

    fn repair(&self, task: &Task<'_>) -> Result<(), Error> {
        let worktree = worktree(task)?;
        inspect::repair(task, &worktree)?;
        files::reconcile(task, &worktree).map(drop)
    }

    fn check_ready(&self, task: &Task<'_>) -> Result<(), Error> {
        if task.is_forgotten { Ok(()) } else { release::check_ready(task, &worktree(task)?) }
    }

    fn unsaved_work(&self, task: &Task<'_>) -> Result<UnsavedWork, Error> {
        let worktree = worktree(task)?;
        if task.is_forgotten {
            return forgotten::unsaved_work(task, &worktree);
        }
        unsaved::unsaved_work(task, &worktree).map_err(|error| aside::named_at_home(task, &worktree, error))
    }

    fn unsaved_work_since(&self, task: &Task<'_>, run: InterruptedRun) -> Result<UnsavedWork, Error> {
        let worktree = worktree(task)?;
        if task.is_forgotten {
            return forgotten::unsaved_work(task, &worktree);
        }
        unsaved::unsaved_work_since(task, &worktree, run)
    }

    fn blockers(&self, task: &Task<'_>) -> Result<Vec<String>, Error> {
        let blockers = if task.is_forgotten { forgotten::blockers } else { unsaved::blockers };
        blockers(task, &worktree(task)?)
    }

    fn rescue(&self, task: &Task<'_>) -> Result<Rescue, Error> {
        let worktree = worktree(task)?;
        rescue::rescue(task, &worktree).map_err(|error| aside::named_at_home(task, &worktree, error))
    }

    fn sweep(&self, task: &Task<'_>) -> Result<(), Error> {
        rescue::sweep(task, &worktree(task)?)
    }

    fn moves_aside(&self) -> bool {
        true
    }

    fn left_aside(&self, task: &Task<'_>) -> Vec<String> {
        Worktree::from_allocation(task.allocation)
            .map(|worktree| {
                manual_cleanup::in_the_way(&Task { location: Location::Aside, ..*task }, &worktree)
            })
            .unwrap_or_default()
    }

    fn set_aside(&self, task: &Task<'_>) -> Result<(), Error> {
        let set_aside = if task.is_forgotten { forgotten::set_aside } else { aside::set_aside };
        set_aside(task, &worktree(task)?)
    }

    fn give_way(&self, task: &Task<'_>) -> Result<(), Error> {
        if task.is_forgotten { Ok(()) } else { aside::give_way(task, &worktree(task)?) }
    }

    fn bring_back(&self, task: &Task<'_>) -> Result<(), Error> {
        let bring_back = if task.is_forgotten { forgotten::bring_back } else { aside::bring_back };
        bring_back(task, &worktree(task)?)
    }

    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        let release = if task.is_forgotten { forgotten::release } else { release::release };
        release(task, &worktree(task)?)
    }

    fn has_ownership_marker(&self, task: &Task<'_>) -> bool {
        worktree(task).and_then(|worktree| rebind::has_ownership_marker(task, &worktree)).unwrap_or(false)
    }

    fn container(&self, task: &Task<'_>) -> Result<Option<Container>, Error> {
        rebind::repository(task, &worktree(task)?).map(Some)
    }

    fn is_in_container(&self, task: &Task<'_>) -> Result<bool, Error> {
        rebind::is_in_repository(task, &worktree(task)?)
    }

    fn rebind(&self, task: &Task<'_>) -> Result<(), Error> {
        rebind::rebind(task, &worktree(task)?)
    }

    fn adopt(&self, task: &Task<'_>, original: &Task<'_>) -> Result<Option<Allocation>, Error> {
        if !rebind::adopt(task, &worktree(task)?, original)? {
            return Ok(None);
        }
        // A mount is copied as the files that it shows.
        let mut allocation = task.allocation.clone();
        if allocation.allocation.get("checkout") == Some(&"overlay".into()) {
            allocation.allocation.insert("checkout".to_owned(), "git".into());
        }
        Ok(Some(allocation))
    }

    fn unsaved_work_outside(&self, task: &Task<'_>) -> Result<UnsavedWork, Error> {
        forgotten::unsaved_work(task, &worktree(task)?)
    }

    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        forgotten::release(task, &worktree(task)?)
    }

    fn manual_cleanup(&self, task: &Task<'_>) -> Vec<String> {
        Worktree::from_allocation(task.allocation)
            .map(|worktree| {
                if task.is_forgotten {
                    forgotten::given_up(&worktree)
                } else {
                    manual_cleanup::manual_cleanup(task, &worktree)
                }
            })
            .unwrap_or_default()
    }

    fn footprint(&self, task: &Task<'_>) -> Footprint {
        Worktree::from_allocation(task.allocation)
            .map(|worktree| footprint::footprint(task, &worktree))
            .unwrap_or_default()
    }

    fn container_needs(&self, task: &Task<'_>) -> Result<ContainerNeeds, Error> {
        container::needs(task, &worktree(task)?)
    }

    fn temporary_file_directories(&self, task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        release::temporary_file_directories(task, &worktree(task)?)
    }

    fn needed_space(&self, examination: &Examination<'_>) -> Vec<Result<NeededSpace, Uncounted>> {
        space::needed(examination)
    }

    fn leftovers(&self, scope: &Examination<'_>) -> Vec<Leftover> {
        reserved_names::leftovers(scope)
    }
}

fn worktree(task: &Task<'_>) -> Result<Worktree, Error> {
    Worktree::from_allocation(task.allocation)
        .ok_or_else(|| Error::Refused(format!("the worktree allocation of {} cannot be read", task.session)))
}
