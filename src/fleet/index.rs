//! Index of the sessions of a fleet: what a committed run leaves on all hosts.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FleetPlan, HostObservation, SCHEMA_VERSION, ShardNumber};
use crate::name::{PortBlock, SessionPath, sha256_hex};
use crate::plan::Plan;
use crate::provider::Registry;

/// Sessions of all hosts of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:fleet-index:1"))]
#[non_exhaustive]
pub struct Index {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the swarm.
    pub swarm: String,
    /// Name of the run that was committed last.
    pub run: String,
    /// Digest of the plan of the fleet; absent if the run released everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// `sha256:` and the hash of the manifest that was applied; absent if the run released everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Hosts that took part in the run.
    pub hosts: Vec<IndexedHost>,
    /// Names of the hosts whose sessions were given up, and that have not taken part in a run since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<String>,
    /// Sessions by shard, parents before children.
    pub sessions: Vec<IndexedSession>,
}

/// Host in [`Index`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct IndexedHost {
    /// Name of the host.
    pub host: String,
    /// Number of its shard; absent if the run released everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
    /// Digest of the plan that is applied on the host; absent if it has no sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// Session in [`Index`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct IndexedSession {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Id of the session.
    pub id: String,
    /// Number of the replica, from 0; absent for a session of a table without `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<u32>,
    /// Number of the shard.
    pub shard: u32,
    /// Name under which other hosts reach the host.
    pub host: String,
    /// Absolute path of the working directory on the host.
    pub working_directory: PathBuf,
    /// Absolute path of the discovery file on the host; absent if it is in the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery_file: Option<PathBuf>,
    /// Ports of the session on the host, each block with its first and its last port.
    pub ports: Vec<PortBlock>,
}

impl Index {
    /// Creates the index of a run that commits `plan`, which was made from this text of a manifest.
    pub fn new(run: &str, plan: &FleetPlan, manifest: &str, registry: &Registry) -> Self {
        let sessions = plan.shards.iter().flat_map(|shard| {
            let sessions = shard.plan.iter().flat_map(Plan::sessions);
            sessions.map(move |session| {
                let blocks = session.allocations.iter();
                IndexedSession {
                    session: session.path.clone(),
                    id: session.id.clone(),
                    replica: session.replica,
                    shard: shard.shard,
                    host: shard.host.clone(),
                    working_directory: crate::host::absolute(&shard.workspace, &session.working_directory),
                    discovery_file: session
                        .discovery_file
                        .as_ref()
                        .map(|file| crate::host::absolute(&shard.workspace, file)),
                    ports: blocks.filter_map(|held| registry.get(&held.kind)?.ports(held)).collect(),
                }
            })
        });
        let hosts = plan.shards.iter().map(|shard| {
            let plan = shard.plan.as_ref().filter(|plan| !plan.sessions().is_empty());
            let (host, plan) = (shard.host.clone(), plan.map(|plan| plan.digest().to_owned()));
            IndexedHost { host, shard: Some(shard.shard), plan }
        });
        Self {
            plan: Some(plan.digest.clone()),
            manifest: Some(manifest_digest(manifest)),
            hosts: hosts.collect(),
            sessions: sessions.collect(),
            ..Self::empty(&plan.swarm, run)
        }
    }

    /// Creates the index of a run that releases everything on these hosts.
    pub fn released(swarm: &str, run: &str, hosts: &[String]) -> Self {
        let host = |host: &String| IndexedHost { host: host.clone(), shard: None, plan: None };
        Self { hosts: hosts.iter().map(host).collect(), ..Self::empty(swarm, run) }
    }

    /// Creates the index of a run without hosts.
    pub fn empty(swarm: &str, run: &str) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            swarm: swarm.to_owned(),
            run: run.to_owned(),
            plan: None,
            manifest: None,
            hosts: Vec::new(),
            forgotten: Vec::new(),
            sessions: Vec::new(),
        }
    }

    /// Returns the index with the hosts whose sessions this run gives up, or an earlier one has given up.
    #[must_use]
    pub fn with_forgotten(mut self, before: Option<&Self>, forgotten: &[String]) -> Self {
        let mut names: BTreeSet<_> =
            before.iter().flat_map(|before| &before.forgotten).chain(forgotten).collect();
        for host in &self.hosts {
            names.remove(&host.host);
        }
        self.forgotten = names.into_iter().cloned().collect();
        self
    }

    /// Returns the names of the hosts that have sessions, each once, in order.
    pub fn hosts_with_sessions(&self) -> BTreeSet<&str> {
        let with_sessions = self.hosts.iter().filter(|host| host.plan.is_some());
        with_sessions.map(|host| host.host.as_str()).collect()
    }

    /// Returns the paths of the sessions of each host, in order.
    pub fn sessions_by_host(&self) -> HashMap<&str, Vec<&SessionPath>> {
        let mut by_host: HashMap<&str, Vec<&SessionPath>> = HashMap::new();
        for session in &self.sessions {
            by_host.entry(&session.host).or_default().push(&session.session);
        }
        for paths in by_host.values_mut() {
            paths.sort();
        }
        by_host
    }

    /// Returns whether the sessions of a host were given up.
    pub fn is_forgotten(&self, host: &str) -> bool {
        self.forgotten.iter().any(|forgotten| forgotten == host)
    }

    /// Returns the number of shards; `None` if the run released everything.
    pub fn shards(&self) -> Option<usize> {
        Some(self.hosts.iter().filter(|host| host.shard.is_some()).count()).filter(|shards| *shards > 0)
    }

    /// Returns the digest of this document.
    pub fn digest(&self) -> String {
        format!("sha256:{}", sha256_hex(&serde_json::to_vec(self).unwrap_or_default()))
    }

    /// Gives every host with sessions the shard that it has. A pinned session would otherwise move with the names of hosts.
    pub fn keep_shards(&self, observations: &mut [HostObservation], shards: usize) {
        let Ok(of) = u32::try_from(shards) else { return };
        for observed in observations.iter_mut().filter(|observed| observed.applied.is_some()) {
            let indexed = self.hosts.iter().find(|host| host.host == observed.host);
            let shard = indexed.and_then(|host| host.shard).filter(|shard| *shard < of);
            observed.shard = shard.map(|shard| ShardNumber { shard, of });
        }
    }
}

/// Returns the digest of the text of a manifest.
pub fn manifest_digest(text: &str) -> String {
    format!("sha256:{}", sha256_hex(text.as_bytes()))
}
