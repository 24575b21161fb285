//! Defines kinds of resources: the [`Planner`], [`Provider`] and [`Kind`] traits and the [`Registry`]. Each kind has a
//! module of its own below.
//!
//! A kind has a pure half, [`Planner`], which planning uses and everything that shows a plan. It also has an effectful
//! half, [`Provider`], which applying and releasing use with one [`Task`] at a time. A kind owns everything about
//! itself: its options, its plan, its words in a review, its leftovers. The rest of the crate uses the traits.
//!
//! # A kind of your own
//!
//! A kind is a type that implements [`Planner`] and [`Provider`], registered with [`Registry::register`].
//! `examples/provider.rs` has one in 60 lines. A program in another language is an external kind instead, see
//! [`external`]. Most methods have a default. The methods without one are the minimum of a kind: its name, its
//! allocator, and a check of allocations that were read from a file. A kind also has to provision, inspect and release
//! an allocation, and to find its unsaved work.
//!
//! **Planning is pure.** An [`Allocator`] gets every request of one plan, in canonical order, and an
//! [`Observation`](crate::observe::Observation). It reads nothing itself: the kind returns a
//! [`Query`](crate::observe::Query) for each fact about the host that it needs ([`Planner::queries`]). Equal
//! arguments give equal bytes, on every host. Paths in allocations are relative to the workspace root; text uses
//! [`WORKSPACE_ROOT`] for it. A name that must be unique is derived from [`Request::scoped_name`]. Planning reports
//! every possible error as a diagnostic, because a later error is a failed run.
//!
//! **Idempotent methods.** The process can be killed between any two system calls. Recovery then calls
//! [`Provider::release`], [`Provider::set_aside`], [`Provider::bring_back`] or [`Provider::rescue`], perhaps again.
//! Each works on what exists, complete or not, and succeeds if there is nothing left to do. [`Provider::provision`] is
//! not called for a lease that exists. If it fails, `release` removes its leftovers.
//!
//! **Parallel methods.** `provision`, `finish`, `inspect`, `unsaved_work` and `release` run for many sessions at the
//! same time, on the threads of the run, in one process. So a kind is `Send + Sync`, and two tasks share files only
//! under a lock of the kind. Parents come before their children, and on release after them. Other runs of seedbed, of
//! other swarms, are active at the same time. Only kinds with [`Planner::is_claim`] are provisioned before all others.
//!
//! **States that release may meet.** Nothing at all; half of a resource; a resource that the session has changed,
//! replaced or made unreadable; a resource of another swarm, or of the user, at the same path. So a resource carries an
//! ownership marker ([`Task::owner`]) from the first moment. Until it is renamed into place, it can carry the marker in
//! a name that only this swarm uses. `release` removes only resources with the marker. Without a marker it returns
//! [`Error::Refused`], or leaves the resource alone. Directories are renamed to a name with the marker before they are
//! removed, so that a killed release is recognised.
//!
//! **Unsaved work.** [`Provider::unsaved_work`] is called before anything is released. Work that cannot be determined
//! is [`UnsavedWork::unknown`], never nothing: a lease is not released without an answer.

mod allocation;
mod allocator;
mod child_share;
mod container;
mod container_needs;
pub mod directory;
mod error;
mod examination;
mod explanation;
pub mod external;
pub mod git_worktree;
mod lease;
mod leftover;
pub mod placeholders;
mod name_list;
mod options;
mod ownership;
mod path_rules;
mod planner;
pub mod existing_directory;
pub mod pool;
pub mod port_range;
mod registry;
mod directory_scan;
mod task;

use std::path::PathBuf;

pub use allocation::{Allocation, Context, DISCOVERY_DIRECTORY, DISCOVERY_FILE};
pub(crate) use allocation::{
    IGNORE, IGNORE_HEAD, IGNORE_MAX, allocation_fields, allocation_line, hidden_names,
};
pub use allocator::{Allocator, Parent, Planned, Request, Scope};
pub use child_share::{ChildOptions, ChildShare};
pub use container::{Container, Identity};
pub use container_needs::{ContainerNeeds, MountAccess};
pub use error::Error;
pub(crate) use error::{catch_panics, retry_while_missing};
pub use examination::{Examination, NeededSpace, Uncounted};
pub use explanation::{BlockRange, OwnedPath, PlannedAllocation, RootDirectory};
pub use lease::{
    Condition, InterruptedRun, LeaseProgress, Refreshable, Rescue, SurvivingBranch, UnsavedWork,
};
pub use leftover::Leftover;
pub(crate) use options::{OptionsCache, effective_options};
pub(crate) use ownership::OwnershipMarker;
pub use path_rules::way;
pub(crate) use path_rules::{check_root, contains_workspace, is_in_git_directory, is_way};
pub use placeholders::WORKSPACE_ROOT;
pub use planner::{PathSet, Planner, ResourceOptions};
pub use registry::{AlreadyRegistered, Registry};
pub use task::{Location, OnPopulated, Seeded, SharedResults, Task};

use crate::host::occupants::Footprint;

/// A kind of resource: its pure half and its effectful half.
pub trait Kind: Planner + Provider {}

impl<K: Planner + Provider> Kind for K {}

/// The effectful half of a kind: it provisions, inspects and releases one allocation at a time.
pub trait Provider: Send + Sync {
    /// Provisions one allocation, except for the work of [`Provider::populate`] and [`Provider::finish`]. If any of the
    /// three fails, [`Provider::release`] removes the incomplete parts.
    fn provision(&self, task: &Task<'_>) -> Result<(), Error>;

    /// Does the common work of allocations with the same group key, once for all of them. It runs after all allocations
    /// of the run were provisioned, and before any is finished. `tasks` has at least one element, parents before
    /// children. The first is the one that the plan names as the source of the others. Returns every failure, with its
    /// position in `tasks`.
    ///
    /// Runs on the threads of the run: parallel work has to use rayon.
    fn populate(&self, _tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
        Vec::new()
    }

    /// Completes one allocation after all of the run are populated. From then on it belongs to its session.
    fn finish(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Brings seeded directories into finished allocations, before `setup` runs: a command populates a directory in one
    /// allocation, and the others get copies. Called once with all allocations of this kind that the run provisions and
    /// that have [`Planner::seeded_directories`]. Calls `on_seeded` for each directory, with the position of its
    /// allocation in `tasks`. Returns every failure, with its position too.
    fn seed(&self, _tasks: &[Task<'_>], _on_seeded: &(dyn Fn(usize, Seeded) + Sync)) -> Vec<(usize, Error)> {
        Vec::new()
    }

    /// Restores the parts that [`Condition::Repairable`] reports as missing, without changing the others.
    fn repair(&self, task: &Task<'_>) -> Result<(), Error> {
        self.provision(task)
    }

    /// Forgets earlier updates of a lease, so that [`Provider::revert`] undoes only the update that follows. Called
    /// before a run begins that updates the lease. Idempotent.
    fn begin_update(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Turns a lease with the allocation `from` into one with the task's allocation, while its session works in it.
    /// [`Planner::is_update`] is true for the two. Work of the session is never overwritten. Returns the parts that are
    /// left as they are, one line each.
    ///
    /// Default: nothing, for allocations that differ only in what the discovery file and the environment list.
    fn update(&self, _task: &Task<'_>, _from: &Allocation) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Returns the parts that [`Provider::update`] would leave as they are, one line each. Changes nothing.
    fn left_by_update(&self, _task: &Task<'_>, _from: &Allocation) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Undoes [`Provider::update`], even if that was interrupted or did not begin. The task has the earlier allocation.
    /// Files that the session has changed since remain; they are returned, one line each. Idempotent.
    fn revert(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Returns files of a lease that came from the workspace and have changed there since, one line each.
    /// [`Provider::refresh`] updates them. Files that the session itself has changed are left out. Changes nothing.
    fn outdated(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Returns the work that [`Provider::refresh`] would find. Changes nothing. Default: none.
    fn refreshable(&self, _task: &Task<'_>) -> Result<Refreshable, Error> {
        Ok(Refreshable::default())
    }

    /// Updates the files of a lease that came from the workspace. Returns those that are not updated because the
    /// session has changed them, one line each.
    fn refresh(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Checks whether a lease is still as it was provisioned.
    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error>;

    /// Returns the reason why no program can run in the working directory of a lease, one line; `None` if the directory
    /// is as it was provisioned. Called before anything is run there.
    fn unusable(&self, _task: &Task<'_>) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Checks whether everything that a release needs exists and can be used, for example a program that is not too
    /// old. Called before the first release of a run, for one allocation of the kind in each repository, so that no release begins in
    /// vain.
    fn check_ready(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Returns the unsaved work that a release of the lease would discard. Changes nothing.
    fn unsaved_work(&self, task: &Task<'_>) -> Result<UnsavedWork, Error>;

    /// Returns the unsaved work like [`Provider::unsaved_work`], for a lease whose run was interrupted. Files that the
    /// run itself has written are left out, including those of `setup`. Files of which this is not certain are work.
    /// Changes nothing.
    ///
    /// Default: everything once the session was complete, nothing before.
    fn unsaved_work_since(&self, task: &Task<'_>, run: InterruptedRun) -> Result<UnsavedWork, Error> {
        if matches!(run.made, LeaseProgress::Complete(_)) {
            self.unsaved_work(task)
        } else {
            Ok(UnsavedWork::default())
        }
    }

    /// Returns the obstacles like [`UnsavedWork::blockers`], for a release that discards all work. Changes nothing.
    fn blockers(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Saves the work in [`UnsavedWork::work`] where it outlasts the lease, and returns how to restore it. Does not
    /// change the lease. Idempotent: work that is already saved and has not changed since is not saved again.
    fn rescue(&self, task: &Task<'_>) -> Result<Rescue, Error> {
        Err(Error::Refused(format!(
            "the content of {} of {} cannot be saved elsewhere",
            task.allocation.kind, task.session
        )))
    }

    /// Removes the files that a killed rescue has left beside the lease. Idempotent.
    fn sweep(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Returns whether [`Provider::set_aside`] and [`Provider::give_way`] move leases of this kind aside, so that a run
    /// can restore them exactly. Leases of other kinds are kept in place until the run is committed. If the planned
    /// successor is the same resource, the old lease is released before the successor is provisioned. It is provisioned
    /// again if the run is rolled back.
    fn moves_aside(&self) -> bool {
        false
    }

    /// Returns the parts of the lease that exist at [`Location::Aside`], one line each, as [`Provider::manual_cleanup`]
    /// names them. Called before a new run, which moves nothing aside itself yet: an earlier run that was given up has
    /// left them, and [`Provider::set_aside`] would run into them. Changes nothing.
    fn left_aside(&self, _task: &Task<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Moves the lease from [`Location::Home`] to [`Location::Aside`], where only processes that already use it can
    /// reach it. Idempotent, also after a kill half-way. Unsaved work is checked again afterwards.
    fn set_aside(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Frees the names of a lease that is aside for a new one: a branch, ports. Idempotent.
    fn give_way(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Undoes [`Provider::give_way`] and [`Provider::set_aside`], even if these were interrupted: everything is as
    /// before. Idempotent.
    fn bring_back(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Removes everything of the allocation that exists at the task's location and belongs to this swarm. Idempotent: a
    /// missing resource is no error.
    fn release(&self, task: &Task<'_>) -> Result<(), Error>;

    /// Returns whether the resource at the allocation's location in the task's workspace carries the task's ownership
    /// marker, even if it was made elsewhere. So a workspace that was moved or copied is recognised. `false` if that
    /// cannot be determined.
    fn has_ownership_marker(&self, _task: &Task<'_>) -> bool {
        false
    }

    /// Returns the directory at the allocation's location that contains the resource beside those of others, such as a
    /// repository. `None` if resources of this kind have none.
    fn container(&self, _task: &Task<'_>) -> Result<Option<Container>, Error> {
        Ok(None)
    }

    /// Returns whether the container has something with the task's ownership marker that was made for the resource, at
    /// the task's location. A container of another swarm, or a clone of the container, has nothing.
    fn is_in_container(&self, _task: &Task<'_>) -> Result<bool, Error> {
        Ok(false)
    }

    /// Rewrites a resource with the marker (see [`Provider::has_ownership_marker`]) for its present location, after its
    /// workspace was moved. Idempotent. A resource without the marker is left alone.
    fn rebind(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Gives a resource in a copy of a workspace to the task's swarm. `original` is the same task in the original
    /// workspace, with the ownership marker of its swarm, which differs from the task's. Nothing outside the copy is
    /// changed. Returns the allocation that the copy has from now on; `None` if it has none, as for ports. Idempotent.
    fn adopt(&self, _task: &Task<'_>, _original: &Task<'_>) -> Result<Option<Allocation>, Error> {
        Ok(None)
    }

    /// Returns the unsaved work that [`Provider::forget`] would discard, and obstacles. Changes nothing.
    fn unsaved_work_outside(&self, _task: &Task<'_>) -> Result<UnsavedWork, Error> {
        Ok(UnsavedWork::default())
    }

    /// Removes the parts of an allocation that can be reached although its workspace does not exist any more. Idempotent.
    /// Default: releases the allocation.
    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        self.release(task)
    }

    /// Returns the parts of the allocation that may exist at the task's location, one line each, for a user who removes
    /// them by hand; empty if there are none. Changes nothing.
    fn manual_cleanup(&self, task: &Task<'_>) -> Vec<String> {
        vec![allocation_line(task.allocation)]
    }

    /// Returns the directories and ports of the allocation that processes may use. On a release no process may use
    /// them. A part that cannot be found is left out.
    fn footprint(&self, _task: &Task<'_>) -> Footprint {
        Footprint::default()
    }

    /// Returns the parts of the host that an active lease needs in a container, beside its directory. A file that is to
    /// be mounted and does not exist is created. Idempotent. Default: nothing.
    fn container_needs(&self, _task: &Task<'_>) -> Result<ContainerNeeds, Error> {
        Ok(ContainerNeeds::default())
    }

    /// Returns the directories, absolute, in which a killed run may have left temporary files beside the allocation.
    fn temporary_file_directories(&self, _task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        Ok(Vec::new())
    }

    /// Returns the space that provisioning the allocations of this kind among `examination.new` needs. Changes nothing.
    /// Default: hardly any.
    fn needed_space(&self, _examination: &Examination<'_>) -> Vec<Result<NeededSpace, Uncounted>> {
        Vec::new()
    }

    /// Returns the temporary files and directories that killed runs of any swarm may have left for this kind. Changes
    /// nothing.
    fn leftovers(&self, _examination: &Examination<'_>) -> Vec<Leftover> {
        Vec::new()
    }
}
