//! Describes the state of a lease, as providers report it.

use std::time::SystemTime;

/// Condition of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// The lease is as it was provisioned.
    Healthy,
    /// A part of the lease is missing, which [`Provider::repair`](super::Provider::repair) restores. The text names the
    /// part, in one line.
    Repairable(String),
    /// The lease is missing or broken. The text describes the damage, in one line.
    Broken(String),
    /// A part that another tool made is missing, and only that tool can create it again. The text has the remedy, in one
    /// line. A run leaves the lease as it is.
    Absent(String),
    /// The condition cannot be determined, for instance because a server does not run. The text has the reason and a
    /// remedy, in one line. The lease is neither repaired nor released.
    Unknown(String),
}

/// Impact of releasing a lease, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsavedWork {
    /// Work that exists nowhere else, and that [`Provider::rescue`](super::Provider::rescue) can save.
    pub work: Vec<String>,
    /// Work that exists nowhere else, and that no rescue saves.
    pub beyond_rescue: Vec<String>,
    /// Reasons why the impact cannot be determined, with remedies. If there are any, nothing is released unless the
    /// work is discarded.
    pub unknown: Vec<String>,
    /// Things that are also removed but are no reason to keep the lease: files that Git ignores, commits that were
    /// rewritten.
    pub ignored: Vec<String>,
    /// Things inside that are not the session's, and things that cannot be removed: a mount, a worktree that another
    /// program registered. They prevent the release of the lease even if its work is discarded.
    pub blockers: Vec<String>,
}

/// Work that [`Provider::refresh`](super::Provider::refresh) would find in a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshable {
    /// `true` if files would be updated or brought.
    pub is_due: bool,
    /// Files that would not be updated because the session has changed them, one line each.
    pub kept: Vec<String>,
}

/// An interrupted run, as far as it concerns the leases of one session. Times are file times of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterruptedRun {
    /// Time before the first change of the run, so that files with earlier times are not the run's; 1970 if the time is
    /// not known.
    pub begun: SystemTime,
    /// Progress that the run has made.
    pub made: LeaseProgress,
}

impl InterruptedRun {
    /// Creates a value from the time before the first change, and the progress.
    pub fn new(begun: SystemTime, made: LeaseProgress) -> Self {
        Self { begun, made }
    }
}

/// Progress that an interrupted run has made with the leases of a session. Times are file times of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseProgress {
    /// The leases were being populated.
    Populating,
    /// The leases were populated.
    Populated {
        /// Time when the leases were populated.
        at: SystemTime,
        /// Latest known time at which the run, which was finishing the leases, was alive.
        alive: SystemTime,
    },
    /// The commands of `setup` were running.
    SettingUp {
        /// Time when the commands began.
        at: SystemTime,
        /// Latest known time at which the commands were running.
        alive: SystemTime,
    },
    /// The leases were complete and set up at this time.
    Complete(SystemTime),
}

/// A branch that still exists after the release of its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SurvivingBranch {
    /// Name of the branch, without `refs/heads/`.
    pub branch: String,
    /// Commit that the branch names.
    pub commit: String,
    /// Number of commits of the branch that neither the commit at which the lease began nor the lease's base ref has.
    pub commits: usize,
    /// Base ref of the lease, if a run of seedbed created the branch and the ref now has all of its commits.
    pub landed_in: Option<String>,
}

impl SurvivingBranch {
    /// Creates a value from a branch without `refs/heads/`, its commit, and the number of commits that it has gained.
    pub fn new(branch: String, commit: String, commits: usize) -> Self {
        Self { branch, commit, commits, landed_in: None }
    }
}

/// Work that was saved before its lease was released.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rescue {
    /// Full name of the ref with the saved work.
    pub reference: String,
    /// Shell command that restores the work at a new path. It changes nothing that exists.
    pub command: String,
    /// Things that the command does not restore unchanged, one line each.
    pub missing: Vec<String>,
}

impl Rescue {
    /// Creates saved work that `command` restores completely from the ref `reference`.
    pub fn new(reference: String, command: String) -> Self {
        Self { reference, command, missing: Vec::new() }
    }
}
