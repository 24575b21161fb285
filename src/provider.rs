//! Kinds of resources: the [`Planner`], [`Provider`] and [`Kind`] traits and the [`Registry`]; each kind has a module of
//! its own below.
//!
//! A kind has a pure half, [`Planner`], which planning and everything that shows a plan use, and an effectful half,
//! [`Provider`], which applying and releasing use with one [`Task`] at a time. A kind owns everything about itself: its
//! options, its plan, its words in a review, its leftovers. The rest of the crate asks the traits.
//!
//! # A kind of your own
//!
//! A kind is a type that implements [`Planner`] and [`Provider`], registered with [`Registry::register`];
//! `examples/provider.rs` has one in 60 lines. A program in another language is an external kind instead, see
//! [`external`]. Most methods have a default. What has none is the least that a kind has to say: its name, its allocator,
//! whether an allocation that was read from a file is one that planning would make, and how to provision, inspect, judge
//! and release one.
//!
//! **Planning is pure.** An [`Allocator`] sees every request of one plan, in canonical order, and an [`Observation`](crate::observe::Observation): it
//! returns a [`Question`](crate::observe::Question) for each fact about the host that it needs ([`Planner::questions`]), and reads nothing itself.
//! Equal arguments give equal bytes, on every host. Paths in allocations are relative to the workspace root; text has
//! [`WORKSPACE_ROOT`] for it. A name that must be unique is derived from [`Request::scoped_name`]. Everything that can be
//! wrong is a diagnostic now, because later it is a failed run.
//!
//! **What must be idempotent.** The process can be killed between any two system calls, and recovery then calls
//! [`Provider::release`], [`Provider::set_aside`], [`Provider::bring_back`] or [`Provider::rescue`], perhaps again: each
//! works on what exists, also half-made, and succeeds if there is nothing left to do. [`Provider::provision`] is not
//! called for a lease that exists; what it leaves behind when it fails, `release` removes.
//!
//! **What runs in parallel.** `provision`, `finish`, `inspect`, `losses` and `release` run for many sessions at once, on
//! the threads of the run, in one process: a kind is `Send + Sync`, and two tasks share files only under a lock of its
//! own. Parents come before their children, and on release after them. Other runs of seedbed, of other swarms, are at work
//! at the same time. Only kinds with [`Planner::is_claim`] are provisioned before all others.
//!
//! **What release may meet.** Nothing at all; half of a resource; a resource that the session has changed, replaced or
//! made unreadable; a resource of another swarm, or the user, at the same path. So a resource carries an ownership marker
//! ([`Task::owner`]) from the first moment, under a name that only this swarm uses, say, until it is renamed into place;
//! and `release` removes only what carries it. Without a marker it returns [`Error::Refused`], or leaves it alone.
//! Directories are renamed to such a name before they are removed, so that a killed release is recognised as one.
//!
//! **Unsaved work.** [`Provider::losses`] is asked before anything is released. What cannot be found out is
//! [`Losses::unknown`], never nothing: a lease is not released for lack of an answer.

mod allocation;
mod allocator;
pub mod directory;
mod error;
pub mod external;
pub mod git_worktree;
mod lease;
mod leftover;
pub mod markers;
mod options;
mod ownership;
mod paths;
mod planner;
pub mod port_range;
mod registry;
mod task;

use std::path::PathBuf;

pub(crate) use allocation::allocation_line;
pub use allocation::{Allocation, Context, DISCOVERY_DIRECTORY, DISCOVERY_FILE};
pub use allocator::{Allocator, Parent, Planned, Request, Scope};
pub use error::Error;
pub(crate) use error::{again_while_missing, caught};
pub use lease::{Condition, Losses, Made, Outlasts, Rescue};
pub use leftover::{Leftover, Vicinity};
pub use markers::WORKSPACE_ROOT;
pub(crate) use options::{Known, options_in_force};
pub(crate) use ownership::OwnershipMark;
pub(crate) use paths::{check_root, holds_the_workspace, in_git};
pub use planner::Planner;
pub use registry::{AlreadyRegistered, Registry};
pub use task::{Filled, Findings, Location, Task};

use crate::host::occupants::Area;

/// A kind of resource: its pure half and its effectful half.
pub trait Kind: Planner + Provider {}

impl<K: Planner + Provider> Kind for K {}

/// The effectful half of a kind: it provisions, inspects and releases one allocation at a time.
pub trait Provider: Send + Sync {
    /// Makes one allocation real, all but what [`Provider::fill`] and [`Provider::finish`] do. What any of the three
    /// leaves half-made on an error, [`Provider::release`] takes away.
    fn provision(&self, task: &Task<'_>) -> Result<(), Error>;

    /// Does what allocations of the same basis have in common once for all of them, after all of the run were
    /// provisioned and before any is finished. `tasks` are at least one, parents before children, and the first is the one that the
    /// plan says the others are made from. Everything that failed is returned, with its position in `tasks`.
    ///
    /// Runs on the threads of the run: what it does in parallel, it does with rayon.
    fn fill(&self, _tasks: &[Task<'_>]) -> Vec<(usize, Error)> {
        Vec::new()
    }

    /// Completes one allocation once all of the run are filled; from here on it is its session's own.
    fn finish(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Puts back what [`Condition::Mendable`] says is gone, without touching what stands.
    fn mend(&self, task: &Task<'_>) -> Result<(), Error> {
        self.provision(task)
    }

    /// Returns what a lease has from the workspace that has changed there since, one line each, and that
    /// [`Provider::refresh`] brings up to date. What its session has changed itself is none. Changes nothing.
    fn outdated(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Brings what a lease has from the workspace up to date, and returns what is left as it is because its session has
    /// changed it, one line each.
    fn refresh(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Looks whether a lease still is what was provisioned.
    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error>;

    /// Why nothing can be run in the directory that a lease gives its session, one line; `None` where it is what was
    /// provisioned. Asked before anything is run there.
    fn unusable(&self, _task: &Task<'_>) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Tells whether what releasing works with is there and can be used: a program, say, that is not too old. Asked
    /// before the first release of a run, for one allocation of the kind, so that none is begun in vain.
    fn ready(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// What would be lost if the lease were released. Changes nothing.
    fn losses(&self, task: &Task<'_>) -> Result<Losses, Error>;

    /// Returns what [`Provider::losses`] would for a lease whose run was interrupted, except for what the run itself has put
    /// there, `setup` included. Changes nothing.
    ///
    /// Default: everything once the session was complete, nothing before.
    fn losses_since(&self, task: &Task<'_>, made: Made) -> Result<Losses, Error> {
        if matches!(made, Made::Completely(_)) { self.losses(task) } else { Ok(Losses::default()) }
    }

    /// Returns what [`Losses::obstacles`] would name, for a release that gives up all work. Changes nothing.
    fn obstacles(&self, _task: &Task<'_>) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Saves what [`Losses::work`] names, where it outlasts the lease, and says how to bring it back. Leaves the lease
    /// as it is. Idempotent: what has been saved already, and has not changed since, is not saved again.
    fn rescue(&self, task: &Task<'_>) -> Result<Rescue, Error> {
        Err(Error::Refused(format!(
            "what {} of {} holds cannot be saved elsewhere",
            task.allocation.kind, task.session
        )))
    }

    /// Takes away what a rescue that was killed has left beside the lease. Idempotent.
    fn sweep(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Returns whether [`Provider::set_aside`] and [`Provider::give_way`] move leases of this kind aside, so that a run
    /// can bring them back exactly. Leases of other kinds stay where they are until the run is committed; one whose
    /// planned successor is the very same resource is released before that is provisioned, and provisioned again where
    /// the run is undone.
    fn moves_aside(&self) -> bool {
        false
    }

    /// Moves the lease from [`Location::Home`] to [`Location::Aside`], where only processes that use it already reach it.
    /// Idempotent, also after a kill half-way. Unsaved work is judged again after it.
    fn set_aside(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Gives up, for a lease that was set aside, the names that a new one may need: a branch, ports. Idempotent.
    fn give_way(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Undoes [`Provider::give_way`] and [`Provider::set_aside`], as far as they came: everything is as it was.
    /// Idempotent.
    fn bring_back(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Takes away whatever of the allocation exists at the task's location and is this swarm's. Idempotent: what is gone
    /// already is no error.
    fn release(&self, task: &Task<'_>) -> Result<(), Error>;

    /// Returns whether what lies at the allocation's place in the task's workspace carries the task's ownership marker,
    /// wherever it was made: so a workspace that was moved or copied is recognised. `false` where that cannot be found out.
    fn bears_mark(&self, _task: &Task<'_>) -> bool {
        false
    }

    /// Makes what [`Provider::bears_mark`] point to where it is now, after its workspace was moved. Idempotent; what does
    /// not bear the marker is left alone.
    fn rebind(&self, _task: &Task<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Gives what lies in a copy of a workspace to the task's swarm, whose ownership marker is another than `from`, that of
    /// the swarm it was copied of. Nothing outside the copy is touched. Returns the allocation that the copy has from here
    /// on; `None` where it has none, as of ports. Idempotent.
    fn adopt(&self, _task: &Task<'_>, _from: &str) -> Result<Option<Allocation>, Error> {
        Ok(None)
    }

    /// Returns what [`Provider::forget`] would lose. Changes nothing.
    fn kept(&self, _task: &Task<'_>) -> Result<Losses, Error> {
        Ok(Losses::default())
    }

    /// Removes what is kept of an allocation outside its workspace, which is gone. Idempotent. Default: releases it.
    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        self.release(task)
    }

    /// Returns what may exist of the allocation at the task's location, one line each, for a user who removes it by hand;
    /// empty where nothing does. Changes nothing.
    fn remains(&self, task: &Task<'_>) -> Vec<String> {
        vec![allocation_line(task.allocation)]
    }

    /// Directories and ports of the allocation that processes may use: none may, where it is released. What cannot be found
    /// is left out.
    fn area(&self, _task: &Task<'_>) -> Area {
        Area::default()
    }

    /// The directories, absolute, where a killed run may have left a file half-written beside the allocation.
    fn debris(&self, _task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        Ok(Vec::new())
    }

    /// Returns temporary files and directories that killed runs may have left of this kind, of whichever swarm. Changes
    /// nothing.
    fn leftovers(&self, _vicinity: &Vicinity<'_>) -> Vec<Leftover> {
        Vec::new()
    }
}
