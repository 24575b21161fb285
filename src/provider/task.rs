//! The argument of each effectful step of a provider.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Allocation, Error};
use crate::host::Host;

/// One allocation to act on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Task<'a> {
    /// What may be used.
    pub host: &'a Host,
    /// The workspace root, absolute.
    pub workspace: &'a Path,
    /// The ownership mark of the swarm: 32 hexadecimal digits, made once a swarm.
    pub owner: &'a str,
    /// The session's id.
    pub session: &'a str,
    /// Ids of the sessions above it, nearest first: those whose ports it has a share of.
    pub ancestors: &'a [&'a str],
    /// What to make real, look at, or take away.
    pub allocation: &'a Allocation,
    /// Location of the lease.
    pub location: Location,
    /// Handed to git children as their standard input, so that the swarm's lock outlives a killed seedbed for as
    /// long as they run; `None` where nothing is changed, and in tests.
    pub lock: Option<&'a std::fs::File>,
    /// Told by [`Provider::fill`](super::Provider::fill) of each allocation as soon as it is filled.
    pub filled: Filled<'a>,
    /// What was found out for other allocations that are looked at in the same breath; `None` for one on its own.
    pub findings: Option<&'a Findings>,
}

impl Task<'_> {
    /// What `find` finds, or has found for another allocation that asked for `what`.
    pub(crate) fn found(
        &self,
        what: &str,
        find: impl FnOnce() -> Result<String, Error>,
    ) -> Result<String, Error> {
        let Some(findings) = self.findings else { return find() };
        let finding = {
            let mut findings = findings.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(findings.entry(what.to_owned()).or_default())
        };
        // Who comes second waits for what the first one finds.
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
    /// Where its session finds it.
    #[default]
    Home,
    /// Where [`Provider::set_aside`](super::Provider::set_aside) moves it, beside a new lease of the same session.
    Aside,
}

/// What holds for many allocations and is found out once for all that are looked at together.
#[derive(Debug, Default)]
pub struct Findings(Mutex<BTreeMap<String, Arc<Mutex<Option<String>>>>>);

/// Hears that one allocation is filled: a call that fills many takes long, and somebody watches.
#[derive(Clone, Copy, Default)]
pub struct Filled<'a>(Option<&'a (dyn Fn() + Sync)>);

impl<'a> Filled<'a> {
    /// `hears` may be called more than once.
    pub fn new(hears: &'a (dyn Fn() + Sync)) -> Self {
        Self(Some(hears))
    }

    /// The allocation is filled.
    pub fn tell(self) {
        if let Some(hears) = self.0 {
            hears();
        }
    }
}

impl std::fmt::Debug for Filled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Filled")
    }
}
