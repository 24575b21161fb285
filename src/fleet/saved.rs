//! Plan of a fleet on disk: one directory with a small file about the fleet, and a plan for each host.
//!
//! ```text
//! DIR/fleet.json     the fleet: digest, hosts and the digest of each shard
//! DIR/shard-K.json   plan of shard K, as `seedbed apply` reads it
//! ```

use std::path::Path;

use super::directory::AT_ONCE;
use super::{FleetPlan, PlannedShard, SCHEMA_VERSION};
use crate::host::files::{self, Root};
use crate::host::waiting;
use crate::plan::Plan;
use crate::provider::Registry;

/// File of the fleet.
pub const FLEET_FILE: &str = "fleet.json";

/// Largest file that is read, in bytes: a plan of 100,000 sessions has about 300 MB.
const FILE_MAX: usize = 2 << 30;

/// Reason for which the saved plan of a fleet cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// A file could not be accessed.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A file is missing or has other content than it should.
    #[error("{name} {why}")]
    Invalid {
        /// Name of the file.
        name: String,
        /// Reason, after the name.
        why: String,
    },
}

/// Writes the plan into a directory: the plans of the shards first, so that the file of the fleet names complete ones.
pub fn save(directory: &Root, fleet: &FleetPlan) -> Result<(), files::Error> {
    let save = |shard: &PlannedShard| {
        let Some(plan) = &shard.plan else { return Ok(()) };
        let mut bytes = Vec::new();
        plan.write(&mut bytes).map_err(|source| files::Error::Io {
            action: "write",
            path: directory.path().join(shard_file(shard.shard)),
            source,
        })?;
        directory.replace(Path::new(&shard_file(shard.shard)), &bytes)
    };
    waiting::map(&fleet.shards, AT_ONCE, save).into_iter().collect::<Result<(), _>>()?;
    // Every path of a plan is UTF-8, so it can be written as JSON.
    let bytes = serde_json::to_vec_pretty(&fleet.without_plans()).unwrap_or_default();
    directory.replace(Path::new(FLEET_FILE), &bytes)
}

/// Reads the file of the fleet, without the plans of the shards.
pub fn load(directory: &Root) -> Result<FleetPlan, SavedError> {
    let bytes = read(directory, FLEET_FILE)?;
    let invalid = |why: String| SavedError::Invalid { name: FLEET_FILE.to_owned(), why };
    let fleet: FleetPlan = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("is no plan of a fleet of this version of seedbed: {error}")))?;
    if fleet.schema_version != SCHEMA_VERSION {
        return Err(invalid(format!(
            "has format {}, and this seedbed reads {SCHEMA_VERSION}",
            fleet.schema_version
        )));
    }
    if fleet.computed_digest() != fleet.digest {
        return Err(invalid("was changed after it was planned".to_owned()));
    }
    Ok(fleet)
}

/// Reads the plan of a shard, which has to be the one that the fleet names.
pub fn load_shard(directory: &Root, planned: &PlannedShard, registry: &Registry) -> Result<Plan, SavedError> {
    let name = shard_file(planned.shard);
    let invalid = |why: String| SavedError::Invalid { name: name.clone(), why };
    let plan = Plan::read(&read(directory, &name)?, registry).map_err(|error| invalid(error.to_string()))?;
    if plan.approval() != planned.digest {
        return Err(invalid("is another plan than the one of the fleet".to_owned()));
    }
    Ok(plan)
}

/// Returns the name of the file with the plan of a shard.
pub fn shard_file(shard: u32) -> String {
    format!("shard-{shard}.json")
}

fn read(directory: &Root, name: &str) -> Result<Vec<u8>, SavedError> {
    let missing = || SavedError::Invalid { name: name.to_owned(), why: "does not exist".to_owned() };
    directory.read(Path::new(name), FILE_MAX)?.ok_or_else(missing)
}
