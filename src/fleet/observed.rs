//! Observation of a host as a document, for planning elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, SCHEMA_VERSION, queries};
use crate::apply::PlanningInput;
use crate::manifest::Manifest;
use crate::name::SessionPath;
use crate::observe::{Observation, Query};
use crate::plan::{AppliedPlan, Damage, DamageKind, Plan};
use crate::provider::Registry;

/// Every fact about a host that planning its part of a fleet needs. It has nothing of the host's environment.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:observation:1"))]
#[non_exhaustive]
pub struct HostObservation {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the swarm that the host was observed for.
    pub swarm: String,
    /// Name under which other hosts reach this one.
    pub host: String,
    /// Shard of the host; absent if the plan chooses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardNumber>,
    /// Queries that `observation` answers.
    pub queries: BTreeSet<Query>,
    /// Answers.
    pub observation: Observation,
    /// Commits of which the host has the complete history, by repository, among those that the coordinator has asked about;
    /// absent if it has not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<BTreeMap<String, BTreeSet<String>>>,
    /// Part of the swarm that is applied on the host; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<ObservedSwarm>,
}

/// Number of a shard, and number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ShardNumber {
    /// Number of the shard, from 0.
    pub shard: u32,
    /// Number of shards, more than `shard`.
    pub of: u32,
}

impl ShardNumber {
    /// Parses `K/N`; the error is the reason, on one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let numbers = parts.and_then(|(shard, of)| Some((shard.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((shard, of)) if shard < of => Ok(Self { shard, of }),
            _ => Err("write `K/N`: a number from 0, and the larger number of shards".to_owned()),
        }
    }
}

/// Part of a swarm that is applied on a host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ObservedSwarm {
    /// Plan of the last completed run.
    pub plan: Plan,
    /// Lost or broken allocations.
    pub damage: Vec<Damaged>,
}

/// Lost or broken allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Damaged {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Name of the resource.
    pub resource: String,
    /// Description of the damage, one line.
    pub why: String,
    /// Way in which the damage is repaired.
    pub kind: DamageKind,
}

/// Largest length of the name of a host, in bytes: the name is also that of a file.
const HOST_MAX: usize = 200;

/// Returns whether a text can be the name of a host: a name or address, perhaps with a user before it. It is safe as the
/// name of a file, and as a word of a shell.
pub fn is_host_name(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_:@".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= HOST_MAX
        && text.chars().all(is_name)
}

impl HostObservation {
    /// Creates the document of a host from what was inspected for planning `manifest`.
    pub fn new(
        manifest: &Manifest,
        registry: &Registry,
        host: String,
        shard: Option<ShardNumber>,
        input: PlanningInput,
    ) -> Self {
        let queries = queries(manifest, registry, input.applied.as_ref());
        let applied = input.applied.map(|applied| ObservedSwarm {
            damage: applied
                .broken
                .into_iter()
                .map(|((session, resource), Damage { why, kind })| Damaged { session, resource, why, kind })
                .collect(),
            plan: applied.plan,
        });
        let (swarm, observation) = (manifest.swarm.clone(), input.observation);
        let present = None;
        Self { schema_version: SCHEMA_VERSION, swarm, host, shard, queries, observation, present, applied }
    }

    /// Reads a document, which any program may have written; the error is the reason, after the name of the file.
    pub fn read(document: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(document)
            .map_err(|error| format!("is no observation of this version of seedbed: {error}"))?;
        if read.schema_version != SCHEMA_VERSION {
            return Err(format!(
                "has format {}, and this seedbed reads format {SCHEMA_VERSION}",
                read.schema_version
            ));
        }
        if !is_host_name(&read.host) {
            return Err("names no host".to_owned());
        }
        Ok(read)
    }

    /// Returns the applied part as input for planning.
    pub(super) fn applied(&self) -> Option<AppliedPlan> {
        let ObservedSwarm { plan, damage } = self.applied.as_ref()?;
        let broken = damage
            .iter()
            .cloned()
            .map(|Damaged { session, resource, why, kind }| ((session, resource), Damage::new(kind, why)));
        let mut applied = AppliedPlan::new(plan.clone());
        applied.broken = broken.collect();
        Some(applied)
    }

    /// Checks that the observation was made for this manifest. `common` are the queries of a host without spawned sessions.
    pub(super) fn check(
        &self,
        manifest: &Manifest,
        registry: &Registry,
        common: &BTreeSet<Query>,
    ) -> Result<(), Error> {
        let unusable = |why: String| Err(Error::Unusable { host: self.host.clone(), why });
        if self.swarm != manifest.swarm {
            return unusable(format!("is for swarm `{}`", self.swarm));
        }
        let mut sessions = self.applied.iter().flat_map(|applied| applied.plan.sessions());
        let with_spawned = sessions
            .any(|session| session.spawned.is_some())
            .then(|| queries(manifest, registry, self.applied().as_ref()));
        let required = with_spawned.as_ref().unwrap_or(common);
        // A repository has another path on each host.
        let is_same = |query: &Query, other: &Query| match (query, other) {
            (Query::Repository { name, .. }, Query::Repository { name: other, .. }) => name == other,
            _ => false,
        };
        let is_answered = |query: &Query| {
            self.queries.contains(query) || self.queries.iter().any(|other| is_same(query, other))
        };
        if !required.iter().all(is_answered) {
            return unusable(
                "lacks facts: the manifest was another one there; observe the host again".to_owned(),
            );
        }
        Ok(())
    }
}
