//! Configuration of a fleet, `config.json` in its directory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SCHEMA_VERSION;

/// Hosts of a fleet, and the way in which commands are run on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:fleet-config:1"))]
#[non_exhaustive]
pub struct Config {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the swarm.
    pub swarm: String,
    /// Names of the hosts.
    pub hosts: Vec<String>,
    /// Way in which commands are run on the hosts.
    pub launcher: LauncherConfig,
    /// Directory of the manifest on each host; `{host}` stands for its name.
    pub directory: String,
    /// File of the manifest below `manifests`; absent if hosts read their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

/// Launcher of a fleet, as its configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::exhaustive_enums, reason = "the command line creates the launcher of each")]
pub enum LauncherConfig {
    /// Command of the user for each host.
    Command {
        /// Command of a shell that runs a command on a host; `{host}` and `{command}` stand for both.
        command: String,
    },
    /// Steps of a job of Slurm.
    Slurm(SlurmJob),
}

/// Job that holds the hosts of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SlurmJob {
    /// Number of the job.
    pub job: u32,
    /// `true` if seedbed has allocated the job, so that it also releases it.
    pub is_own: bool,
    /// Partition of the job, for a job of its own on a host that the job has lost.
    pub partition: String,
    /// Account of the job; absent on a cluster without accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl Config {
    /// Creates the configuration of a fleet.
    pub fn new(swarm: String, hosts: Vec<String>, launcher: LauncherConfig, directory: String) -> Self {
        Self { schema_version: SCHEMA_VERSION, swarm, hosts, launcher, directory, manifest: None }
    }
}
