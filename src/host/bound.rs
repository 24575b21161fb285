//! Ports that a claim found bound, for the plan that follows.
//!
//! The kernel lists sockets that listen and connections, but not a socket that is only bound. Binding the port is what finds
//! it, and that is done when a block is claimed, not when it is planned.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Ports found bound, by port, each with `tcp` or `udp`. They count as in use for as long as the [`Host`](super::Host) is
/// used: a run that planned one of them a second time would fail a second time.
#[derive(Debug, Default)]
pub(crate) struct Bound(Mutex<BTreeSet<(u16, &'static str)>>);

impl Bound {
    /// Notes a port that could not be bound.
    pub(crate) fn note(&self, port: u16, protocol: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((port, protocol));
    }

    /// Returns all ports that could not be bound.
    pub(crate) fn all(&self) -> BTreeSet<(u16, &'static str)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
