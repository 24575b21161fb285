//! Defines the argument of each effectful step of a provider.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Allocation, Error};
use crate::host::Host;
use crate::manifest::SessionFile;

/// One allocation to act on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Task<'a> {
    /// Host on which the step runs.
    pub host: &'a Host,
    /// Workspace root, absolute.
    pub workspace: &'a Path,
    /// Ownership marker of the swarm: 32 hexadecimal digits, created once a swarm.
    pub owner: &'a str,
    /// Id of the session.
    pub session: &'a str,
    /// Ids of the sessions above it, nearest first: those from whose ports it has a share.
    pub ancestors: &'a [&'a str],
    /// Working directory of the session, relative to the workspace root.
    pub working_directory: &'a Path,
    /// All allocations of the session.
    pub allocations: &'a [Allocation],
    /// Allocation to provision, inspect or release.
    pub allocation: &'a Allocation,
    /// Files of the session, by path relative to its working directory.
    pub files: &'a BTreeMap<String, SessionFile>,
    /// Location of the lease.
    pub location: Location,
    /// `true` if what contains the lease, a repository, cannot be used, and everything in it is given up. Every step then
    /// acts only on what lies elsewhere. Default: `false`; always for kinds without
    /// [`Planner::repository`](super::Planner::repository).
    pub is_forgotten: bool,
    /// `true` if unsaved work in the lease is discarded, also commits that nothing else reaches. Default: `false`.
    pub is_discarded: bool,
    /// Lock of the swarm, which Git processes get as their standard input. So the lock outlives a killed seedbed as
    /// long as they run. `None` if nothing is changed, and in tests.
    pub lock: Option<&'a std::fs::File>,
    /// Callback to which [`Provider::populate`](super::Provider::populate) reports each allocation as soon as it is
    /// populated.
    pub on_populated: OnPopulated<'a>,
    /// Results for other allocations that are inspected together with this one; `None` for a single one.
    pub shared_results: Option<&'a SharedResults>,
}

impl Task<'_> {
    /// Returns the result of `find`, or the stored one of another allocation with the same `what`.
    pub(crate) fn shared_result(
        &self,
        what: &str,
        find: impl FnOnce() -> Result<String, Error>,
    ) -> Result<String, Error> {
        let Some(shared_results) = self.shared_results else { return find() };
        let finding = {
            let mut shared_results = shared_results.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(shared_results.entry(what.to_owned()).or_default())
        };
        // The second caller waits for the result of the first.
        let mut finding = finding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*finding {
            return Ok(found.clone());
        }
        let found = find()?;
        *finding = Some(found.clone());
        Ok(found)
    }
}

/// Location of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a lease is where its session uses it, or aside")]
pub enum Location {
    /// Location at which its session uses the lease.
    #[default]
    Home,
    /// Location to which [`Provider::set_aside`](super::Provider::set_aside) moves the lease, beside a new lease of the
    /// same session.
    Aside,
}

/// Results that many allocations share, determined once for all that are inspected together.
#[derive(Debug, Default)]
pub struct SharedResults(Mutex<BTreeMap<String, Arc<Mutex<Option<String>>>>>);

/// Callback for each populated allocation: a call that populates many takes long, and its progress is shown.
#[derive(Clone, Copy, Default)]
pub struct OnPopulated<'a>(Option<&'a (dyn Fn() + Sync)>);

impl<'a> OnPopulated<'a> {
    /// Creates a callback. `callback` may be called more than once.
    pub fn new(callback: &'a (dyn Fn() + Sync)) -> Self {
        Self(Some(callback))
    }

    /// Reports that the allocation is populated.
    pub fn notify(self) {
        if let Some(callback) = self.0 {
            callback();
        }
    }
}

/// Directory that [`Provider::seed`](super::Provider::seed) has brought into an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seeded {
    /// Path of the directory, relative to the working directory of the session.
    pub path: String,
    /// `true` if the directory is a copy; `false` if the command has populated it.
    pub is_copied: bool,
    /// Number of files and links in the directory.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes that share blocks on the disk with the seed; 0 if the file system cannot share blocks.
    pub shared_bytes: u64,
}

impl std::fmt::Debug for OnPopulated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnPopulated")
    }
}
