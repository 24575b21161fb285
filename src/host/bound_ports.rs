//! Ports that a claim found bound, for the next plan.
//!
//! The kernel lists listening sockets and connections, but no socket that is only bound. Only binding a port
//! detects such a socket, and a port is bound when its block is claimed, not when it is planned.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Ports that were found bound, each with `tcp` or `udp`.
///
/// Bound ports count as in use as long as the [`Host`](super::Host) exists: a run that planned such a port again would
/// fail again.
#[derive(Debug, Default)]
pub(crate) struct BoundPorts(Mutex<BTreeSet<(u16, &'static str)>>);

impl BoundPorts {
    /// Records a port that could not be bound.
    pub(crate) fn note(&self, port: u16, protocol: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((port, protocol));
    }

    pub(crate) fn all(&self) -> BTreeSet<(u16, &'static str)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
