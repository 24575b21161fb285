//! Fleets: one manifest on several hosts. Each host observes itself, one pure function plans the parts of all hosts, and each
//! host applies its part like any saved plan.
//!
//! Hosts may disagree about the commit of a ref. The coordinator, which plans, decides: its commits are those of the plan.
//! [`PlannedShard::commits`] names them. A host that lacks some gets them in a bundle ([`PlannedShard::deliveries`]), and its
//! own refs stay as they are.

pub mod bundle;
pub mod clones;
pub mod commands;
mod config;
pub mod coordinator;
pub mod directory;
mod index;
pub mod launcher;
mod observed;
pub mod received;
pub mod report;
pub mod rescues;
pub mod review;
mod runs;
mod saved;
pub mod slurm;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bundle::{BundleError, Delivery, add_deliveries};
pub use config::{Config, LauncherConfig, SlurmJob};
pub use directory::FleetDirectory;
pub use observed::{Damaged, HostObservation, ObservedSwarm, ShardNumber, is_host_name};
pub use saved::{FLEET_FILE, SavedError, load, load_shard, save, shard_file};

use crate::manifest::{Diagnostics, Fleet, Manifest};
use crate::name::Sha256Hasher;
use crate::observe::{Observation, Query};
use crate::plan::{self, AppliedPlan, Plan, Shard};
use crate::provider::Registry;

/// Version of the formats of [`FleetPlan`] and [`HostObservation`].
pub const SCHEMA_VERSION: u32 = 1;

/// Plan of all shards of a fleet. Its digest covers the plan and the host of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:fleet:1"))]
#[non_exhaustive]
pub struct FleetPlan {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the swarm.
    pub swarm: String,
    /// `sha256:` and the hash of the JSON array of the format's version, the swarm, and of host, workspace and digest of each
    /// shard.
    pub digest: String,
    /// Shards by number, from 0.
    pub shards: Vec<PlannedShard>,
    /// Names of the observed hosts that have no shard.
    pub spares: Vec<String>,
}

/// Part of a fleet's plan that one host applies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct PlannedShard {
    /// Number of the shard, from 0.
    pub shard: u32,
    /// Name under which other hosts reach the host.
    pub host: String,
    /// Absolute path of the workspace root on the host.
    pub workspace: PathBuf,
    /// Digest that approves the plan of the shard, with what it releases: `seedbed apply FILE --expect DIGEST`.
    pub digest: String,
    /// Number of sessions.
    pub sessions: u32,
    /// Refs of the plan with their commits; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commits: Vec<PlannedCommit>,
    /// Commits that the host gets before it prepares its part; absent without any. A host that was not asked which commits
    /// it has may get fewer. The digest does not cover them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<Delivery>,
    /// Plan of the shard; absent in a saved plan of a fleet, where a file beside it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// Ref with its commit in the plan, and on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct PlannedCommit {
    /// Name of the repository; empty for the workspace's own.
    pub repository: String,
    /// The ref as written in the manifest.
    pub base_ref: String,
    /// Commit of the plan.
    pub commit: String,
    /// Commit that the ref names on the host; `null` if it names none there.
    pub on_host: Option<String>,
    /// `true` if the host has the commit of the plan, by the name of this ref or not. `false` if it was not asked, and the
    /// ref names another commit there.
    pub is_present: bool,
}

/// Reason for which observations cannot be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are fewer observations than shards and spares.
    #[error("the fleet needs {required} hosts, and {hosts} are observed")]
    TooFewHosts {
        /// Number of shards and spares, at least 1.
        required: usize,
        /// Number of observations.
        hosts: usize,
    },
    /// Two observations are of one host, or for one shard.
    #[error("two observations are {0}")]
    Twice(String),
    /// An observation belongs to another fleet, or lacks facts.
    #[error("the observation of host {host} {why}")]
    Unusable {
        /// Name of the host.
        host: String,
        /// Reason, after the name of the host.
        why: String,
    },
    /// The manifest cannot be planned on these hosts.
    #[error("the manifest has diagnostics")]
    Diagnostics(Diagnostics),
}

/// Returns the observations that a host requires. `applied` is the part of the swarm that is applied there.
pub fn queries(manifest: &Manifest, registry: &Registry, applied: Option<&AppliedPlan>) -> BTreeSet<Query> {
    plan::queries(&plan::with_spawned(manifest, applied), registry)
}

/// Returns the queries about commits, which the coordinator answers for all hosts.
pub fn commit_queries(manifest: &Manifest, registry: &Registry) -> BTreeSet<Query> {
    let of_commits = |query: &Query| {
        matches!(
            query,
            Query::Repository { .. } | Query::Commit { .. } | Query::Tree { .. } | Query::Blob { .. }
        )
    };
    plan::queries(manifest, registry).into_iter().filter(of_commits).collect()
}

/// Plans all shards of a fleet, from one observation of each host, as [`plan_shards`] does. Pure.
///
/// A manifest without a number of shards has one for each host that is no spare.
pub fn plan(
    manifest: &Manifest,
    registry: &Registry,
    coordinator: &Observation,
    observations: Vec<HostObservation>,
) -> Result<FleetPlan, Error> {
    let shards = shards(manifest, observations.len(), None)?;
    plan_shards(manifest, registry, coordinator, observations, shards)
}

/// Plans this number of shards of a fleet, from one observation of each host that is reached. Pure.
///
/// `coordinator` has the answers to [`commit_queries`]. An observation with a shard number is of that shard's host. The other
/// hosts get the remaining shards in the order of their names, those on which the swarm is applied first; hosts that are left
/// are spares.
pub fn plan_shards(
    manifest: &Manifest,
    registry: &Registry,
    coordinator: &Observation,
    observations: Vec<HostObservation>,
    shards: usize,
) -> Result<FleetPlan, Error> {
    let common = queries(manifest, registry, None);
    for host in &observations {
        host.check(manifest, registry, &common)?;
    }
    let (hosts, spares) = assign(shards, observations)?;
    let applied: Vec<Option<AppliedPlan>> = hosts.iter().map(HostObservation::applied).collect();
    let decided: Vec<_> = hosts.par_iter().map(|host| with_commits(host, coordinator, &hosts[0])).collect();
    let shards: Vec<Shard<'_>> = hosts
        .iter()
        .zip(&decided)
        .zip(&applied)
        .map(|((host, (observation, _)), applied)| Shard::new(&host.host, observation, applied.as_ref()))
        .collect();
    let plans = plan::plan_shards(manifest, registry, &shards).map_err(Error::Diagnostics)?;
    let workspaces: Vec<_> = hosts.iter().map(|host| host.observation.workspace.clone()).collect();
    let planned = plans.into_iter().zip(decided).zip(&hosts).zip(workspaces).zip(0..);
    let shards = planned.map(|((((plan, (_, commits)), host), workspace), shard)| PlannedShard {
        shard,
        host: host.host.clone(),
        workspace,
        digest: plan.approval(),
        sessions: u32::try_from(plan.sessions().len()).unwrap_or(u32::MAX),
        commits,
        deliveries: Vec::new(),
        plan: Some(plan),
    });
    let mut fleet = FleetPlan {
        schema_version: SCHEMA_VERSION,
        swarm: manifest.swarm.clone(),
        digest: String::new(),
        shards: shards.collect(),
        spares,
    };
    fleet.digest = fleet.computed_digest();
    Ok(fleet)
}

impl FleetPlan {
    /// Returns the digest of this document's content.
    pub fn computed_digest(&self) -> String {
        let shards: Vec<_> =
            self.shards.iter().map(|shard| (&shard.host, &shard.workspace, &shard.digest)).collect();
        let mut hash = Sha256Hasher::default();
        // Workspaces are UTF-8, so the array can be written as JSON.
        let json = serde_json::to_vec(&(SCHEMA_VERSION, &self.swarm, shards)).unwrap_or_default();
        hash.update(&json);
        format!("sha256:{}", hash.finish())
    }

    /// Returns the number of sessions of all shards.
    pub fn sessions(&self) -> usize {
        self.shards.iter().map(|shard| shard.sessions as usize).sum()
    }

    /// Returns the document as it is saved: without the plans of the shards, which other files have.
    #[must_use]
    pub fn without_plans(&self) -> Self {
        let shards = self.shards.iter().map(|shard| PlannedShard {
            shard: shard.shard,
            host: shard.host.clone(),
            workspace: shard.workspace.clone(),
            digest: shard.digest.clone(),
            sessions: shard.sessions,
            commits: shard.commits.clone(),
            deliveries: shard.deliveries.clone(),
            plan: None,
        });
        let (swarm, digest, spares) = (self.swarm.clone(), self.digest.clone(), self.spares.clone());
        Self { schema_version: self.schema_version, swarm, digest, shards: shards.collect(), spares }
    }
}

/// Returns the number of shards: that of the manifest, or one for each host that is no spare.
///
/// `before` is the number of shards that are applied. Then hosts that are lost may have used up the spares: shards are fewer
/// only if there are not enough hosts.
pub fn shards(manifest: &Manifest, hosts: usize, before: Option<usize>) -> Result<usize, Error> {
    let fleet = manifest.fleet.unwrap_or(Fleet { shards: None, spares: 0 });
    let spares = fleet.spares as usize;
    let required = fleet.shards.unwrap_or(1) as usize + if before.is_some() { 0 } else { spares };
    if hosts < required {
        return Err(Error::TooFewHosts { required, hosts });
    }
    let without_spares = hosts.saturating_sub(spares).max(before.unwrap_or(0).min(hosts));
    Ok(fleet.shards.map_or(without_spares, |shards| shards as usize))
}

/// Returns the hosts of the shards, by number, and the names of the other hosts.
fn assign(
    shards: usize,
    mut observations: Vec<HostObservation>,
) -> Result<(Vec<HostObservation>, Vec<String>), Error> {
    let hosts = observations.len();
    let required = shards;
    observations.sort_by(|one, other| {
        (one.applied.is_none(), &one.host).cmp(&(other.applied.is_none(), &other.host))
    });
    let mut names = BTreeSet::new();
    if let Some(twice) = observations.iter().find(|host| !names.insert(host.host.clone())) {
        return Err(Error::Twice(format!("of host {}", twice.host)));
    }
    let mut assigned: Vec<Option<HostObservation>> = (0..shards).map(|_| None).collect();
    let mut others = Vec::new();
    for host in observations {
        let Some(number) = host.shard else {
            others.push(host);
            continue;
        };
        let slot = assigned.get_mut(number.shard as usize).filter(|_| number.of as usize == shards);
        let Some(slot) = slot else {
            let why = format!("is for shard {}/{}, and the fleet has {shards}", number.shard, number.of);
            return Err(Error::Unusable { host: host.host, why });
        };
        if slot.replace(host).is_some() {
            return Err(Error::Twice(format!("for shard {}", number.shard)));
        }
    }
    let mut others = others.into_iter();
    for slot in assigned.iter_mut().filter(|slot| slot.is_none()) {
        *slot = Some(others.next().ok_or(Error::TooFewHosts { required, hosts })?);
    }
    let spares: Vec<_> = others.collect();
    if let Some(applied) = spares.iter().find(|host| host.applied.is_some()) {
        let why = "has sessions of the swarm, and there are fewer shards than such hosts: destroy the swarm \
                   there first, or plan more shards"
            .to_owned();
        return Err(Error::Unusable { host: applied.host.clone(), why });
    }
    Ok((assigned.into_iter().flatten().collect(), spares.into_iter().map(|host| host.host).collect()))
}

/// Returns the observation of a host with the commits of the coordinator, and these commits. A coordinator without the
/// repository leaves the decision to the first host.
fn with_commits<'o>(
    host: &'o HostObservation,
    coordinator: &Observation,
    first: &HostObservation,
) -> (Cow<'o, Observation>, Vec<PlannedCommit>) {
    let mut decided = Cow::Borrowed(&host.observation);
    let mut commits = Vec::new();
    for (name, observed) in &host.observation.repositories {
        for (base_ref, on_host) in &observed.commits {
            let mut deciding = [coordinator, &first.observation].into_iter().map(|of| of.repository(name));
            let Some(deciding) = deciding.find(|of| of.commits.contains_key(base_ref)) else { continue };
            let commit = &deciding.commits[base_ref];
            if let Ok(commit) = commit {
                let present = host.present.as_ref().and_then(|present| present.get(name));
                let is_listed = || present.is_some_and(|present| present.contains(commit));
                commits.push(PlannedCommit {
                    repository: name.clone(),
                    base_ref: base_ref.clone(),
                    commit: commit.clone(),
                    on_host: on_host.as_ref().ok().cloned(),
                    is_present: on_host.as_ref() == Ok(commit) || is_listed(),
                });
            }
            if commit == on_host {
                continue;
            }
            let changed = decided.to_mut().repository_mut(name);
            changed.commits.insert(base_ref.clone(), commit.clone());
            // Facts about the commit of the host say nothing about this one.
            changed.trees.retain(|(of, _), _| of != base_ref);
            let trees = deciding.trees.iter().filter(|((of, _), _)| of == base_ref);
            changed.trees.extend(trees.map(|(path, entry)| (path.clone(), entry.clone())));
            changed.blobs.extend(deciding.blobs.iter().map(|(file, id)| (file.clone(), id.clone())));
            changed.distances.retain(|(of, _), _| of != base_ref);
            changed.ages.remove(base_ref);
        }
    }
    (decided, commits)
}
