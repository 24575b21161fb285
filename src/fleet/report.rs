//! Document of `fleet status --json`: what the hosts of a fleet report.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SCHEMA_VERSION;
use super::directory::{HostReport, Index, ReportedSession};
use super::launcher::Allocated;
use crate::name::SessionPath;

/// State of a fleet, as its hosts report it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:fleet-status:1"))]
#[non_exhaustive]
pub struct FleetStatus {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the swarm.
    pub swarm: String,
    /// Run that was committed last; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Digest of the plan that was committed; absent if nothing is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Allocation of the hosts; absent if seedbed was given them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocated>,
    /// Hosts of the fleet.
    pub hosts: Vec<FleetHost>,
}

/// Host in [`FleetStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FleetHost {
    /// Name of the host.
    pub host: String,
    /// State of the host.
    pub state: HostState,
    /// Number of sessions that the last committed run has on the host.
    pub sessions: usize,
    /// Last report of the host, of any age; absent if it never sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<HostReport>,
}

/// State of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum HostState {
    /// All sessions of the last committed run are active.
    Applied,
    /// Sessions differ from those of the last committed run.
    Differs,
    /// A run is prepared, and not decided.
    Prepared,
    /// A run was interrupted, or is in progress.
    Unfinished,
    /// The host gave no report now; the last one is older.
    NotHeard,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applied => "applied",
            Self::Differs => "differs",
            Self::Prepared => "prepared",
            Self::Unfinished => "unfinished",
            Self::NotHeard => "not heard of",
        })
    }
}

impl FleetStatus {
    /// Creates the status of a fleet without hosts.
    pub fn new(swarm: &str, index: Option<&Index>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            swarm: swarm.to_owned(),
            run: index.map(|index| index.run.clone()),
            plan: index.and_then(|index| index.plan.clone()),
            allocation: None,
            hosts: Vec::new(),
        }
    }
}

impl FleetHost {
    /// Creates the state of a host from its last report. The report is current if it answers `request`.
    ///
    /// `committed` are the sessions that the last committed run has on the host, in order.
    pub fn new(host: &str, report: Option<HostReport>, request: &str, committed: &[&SessionPath]) -> Self {
        let state = match report.as_ref().filter(|report| report.request == request) {
            None => HostState::NotHeard,
            Some(HostReport { prepared: Some(_), .. }) => HostState::Prepared,
            Some(HostReport { unfinished: true, .. }) => HostState::Unfinished,
            Some(HostReport { sessions, .. }) => {
                let mut active: Vec<_> = sessions.iter().map(|session| &session.session).collect();
                active.sort();
                if active == *committed { HostState::Applied } else { HostState::Differs }
            }
        };
        Self { host: host.to_owned(), state, sessions: committed.len(), report }
    }

    /// Returns the numbers of broken sessions and of those with unsaved work, `-` without a report.
    pub fn counts(&self) -> [String; 2] {
        let count = |has: fn(&&ReportedSession) -> bool| {
            let report = self.report.as_ref();
            report.map_or_else(
                || "-".to_owned(),
                |report| report.sessions.iter().filter(has).count().to_string(),
            )
        };
        [count(|session| !session.broken.is_empty()), count(|session| !session.unsaved.is_empty())]
    }
}
