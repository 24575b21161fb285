//! The state of a lease, as providers report it.

use std::time::SystemTime;

/// How a lease was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// As it was provisioned.
    Sound,
    /// Still there, but something of ours about it is gone, which [`Provider::mend`](super::Provider::mend) puts back; with what, one line.
    Mendable(String),
    /// Gone or broken, with what is wrong, one line.
    Broken(String),
    /// Not to be found out, with why and what to do, one line: a server does not run. It is neither repaired nor released.
    Unknown(String),
}

/// What releasing a lease would lose, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Losses {
    /// Work that is saved nowhere else, and that [`Provider::rescue`](super::Provider::rescue) can save.
    pub work: Vec<String>,
    /// Work that is saved nowhere else, and that no rescue saves.
    pub beyond_rescue: Vec<String>,
    /// Why it cannot be found out what would be lost, and what to do. Nothing is released then, unless its work is given up.
    pub unknown: Vec<String>,
    /// What goes along and is no reason to keep the lease: files that git ignores, commits that were rewritten.
    pub passing: Vec<String>,
    /// Things inside that are not the session's, and things that cannot be removed: a mount, a worktree that another
    /// program registered. They keep the lease from being released even where its work is given up.
    pub obstacles: Vec<String>,
}

/// Progress that an interrupted run has made with the leases of a session. Times are those that the kernel gives to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Made {
    /// They were being filled.
    Partly,
    /// They were filled.
    Filled {
        /// When that had been done.
        at: SystemTime,
        /// When the run, which was finishing them, was alive at the latest.
        alive: SystemTime,
    },
    /// The commands of `setup` were at work.
    SettingUp {
        /// When they began.
        at: SystemTime,
        /// When they were at work at the latest, as far as that is known.
        alive: SystemTime,
    },
    /// They were complete at this time, and set up.
    Completely(SystemTime),
}

/// A branch that outlasts a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outlasts {
    /// Its name, without `refs/heads/`.
    pub branch: String,
    /// The commit that it names.
    pub commit: String,
    /// The number of commits that it has beyond the one that the lease began at.
    pub commits: usize,
}

impl Outlasts {
    /// Returns a branch without `refs/heads/`, the commit that it names, and the number of commits that it has gained.
    pub fn new(branch: String, commit: String, commits: usize) -> Self {
        Self { branch, commit, commits }
    }
}

/// Work that was saved before its lease was released.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rescue {
    /// Where: the full name of a ref.
    pub reference: String,
    /// The shell command that brings it back, in a new place; nothing that stands is touched by it.
    pub command: String,
    /// What the command does not bring back as it was, one line each.
    pub missing: Vec<String>,
}

impl Rescue {
    /// Returns saved work that `command` restores completely from the ref `reference`.
    pub fn new(reference: String, command: String) -> Self {
        Self { reference, command, missing: Vec::new() }
    }
}
