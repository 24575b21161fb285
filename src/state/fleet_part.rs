//! Part of a run over the hosts of a fleet, and the decision that all parts follow.
//!
//! The hosts share a directory. A run over them has a directory of its own there:
//!
//! ```text
//! FLEET/fleet.json              identity of the fleet
//! FLEET/coordinator.lock        flock: one coordinator at a time
//! FLEET/runs/RUN/decision.json  commit or abort; created once, complete, by whoever is first
//! ```
//!
//! A prepared part waits for the decision. If there is none and no coordinator has the lock, the first host that asks creates
//! the decision to abort. So at most one decision exists, and a host never decides against another one.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;

/// Version of the format of [`Decision`].
const DECISION_VERSION: u32 = 1;

/// Largest decision that is read, in bytes.
const DECISION_MAX: usize = 1 << 20;

/// File of the decision.
const DECISION: &str = "decision.json";

/// File that the coordinator has locked.
const COORDINATOR: &str = "coordinator.lock";

/// File of the identity of a fleet, in its directory.
pub const FLEET_IDENTITY: &str = "fleet.json";

/// Identity of a fleet, and number of its last run.
///
/// A directory that was emptied and used again is another fleet: its decisions are not those of the runs before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct FleetIdentity {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Random id.
    pub id: String,
    /// Number of the last run; 0 before the first.
    pub last_run: u32,
}

impl FleetIdentity {
    /// Creates the identity of a fleet without runs.
    pub fn new(id: String) -> Self {
        Self { schema_version: DECISION_VERSION, id, last_run: 0 }
    }
}

/// Run over the hosts of a fleet that a record is the part of one host of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct FleetPart {
    /// Absolute path of the directory of the fleet.
    pub directory: PathBuf,
    /// Id of the fleet.
    pub fleet: String,
    /// Name of the run.
    pub run: String,
    /// Name of this host in the fleet.
    pub host: String,
}

/// Decision about a run over the hosts of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:fleet-decision:1"))]
#[non_exhaustive]
pub struct Decision {
    /// Version of the format of this document.
    pub schema_version: u32,
    /// Name of the run.
    pub run: String,
    /// The decision.
    pub verdict: Verdict,
    /// Reasons for an abort, one line each.
    pub reasons: Vec<String>,
    /// Digest of the index of sessions that becomes valid with a commit, `sha256:` and the hash; absent for an abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
}

/// Result of a run over the hosts of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_enums, reason = "a run is committed or not")]
pub enum Verdict {
    /// Every prepared part is committed.
    Commit,
    /// Every prepared part is rolled back.
    Abort,
}

impl Decision {
    /// Creates the decision to commit, with the digest of the index.
    pub fn commit(run: &str, index: String) -> Self {
        let (verdict, reasons) = (Verdict::Commit, Vec::new());
        Self { schema_version: DECISION_VERSION, run: run.to_owned(), verdict, reasons, index: Some(index) }
    }

    /// Creates the decision to abort.
    pub fn abort(run: &str, reasons: Vec<String>) -> Self {
        let verdict = Verdict::Abort;
        Self { schema_version: DECISION_VERSION, run: run.to_owned(), verdict, reasons, index: None }
    }
}

impl FleetPart {
    /// Creates the part of a host.
    pub fn new(directory: PathBuf, fleet: String, run: String, host: String) -> Self {
        Self { directory, fleet, run, host }
    }

    /// Returns the decision about the run; `None` while its coordinator may still decide.
    ///
    /// Without a coordinator, this decides to abort.
    pub fn resolve(&self) -> Result<Option<Decision>, Error> {
        let unreachable = |why: String| Error::FleetUnreachable { directory: self.directory.clone(), why };
        let fleet = Root::open(&self.directory).map_err(|error| unreachable(error.to_string()))?;
        if fleet_identity(&fleet)?.is_none_or(|identity| identity.id != self.fleet) {
            return Err(unreachable("it is that of another fleet now".to_owned()));
        }
        if let Some(decision) = decision(&fleet, &self.run)? {
            return Ok(Some(decision));
        }
        // A run stays until all its hosts have followed.
        if fleet.directory(&run_directory(&self.run))?.is_none() {
            return Err(unreachable(format!("its run {} was removed by hand", self.run)));
        }
        let Some(_lock) = lock_coordinator(&fleet)? else { return Ok(None) };
        let reasons = vec![format!("host {} found no coordinator", self.host)];
        decide(&fleet, &Decision::abort(&self.run, reasons)).map(Some)
    }

    /// Returns whether this is a part of another fleet than that of `directory`, and that one still exists.
    pub fn is_of_another(&self, directory: &Path) -> bool {
        let id = |path: &Path| Some(fleet_identity(&Root::open(path).ok()?).ok()??.id);
        id(directory).as_deref() != Some(&self.fleet) && id(&self.directory).as_deref() == Some(&self.fleet)
    }
}

/// Returns the directory of a run, relative to that of the fleet.
pub fn run_directory(run: &str) -> PathBuf {
    Path::new("runs").join(run)
}

/// Reads the identity of a fleet; `None` before its first run.
pub fn fleet_identity(fleet: &Root) -> Result<Option<FleetIdentity>, Error> {
    let name = Path::new(FLEET_IDENTITY);
    let Some(bytes) = fleet.read(name, DECISION_MAX)? else { return Ok(None) };
    let unreadable = |why: String| Error::Unreadable { path: fleet.path().join(name), why };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(error.to_string()))
}

/// Reads the decision about a run; `None` if there is none.
pub fn decision(fleet: &Root, run: &str) -> Result<Option<Decision>, Error> {
    let name = run_directory(run).join(DECISION);
    let Some(bytes) = fleet.read(&name, DECISION_MAX)? else { return Ok(None) };
    let unreadable = |why: String| Error::Unreadable { path: fleet.path().join(&name), why };
    let decision: Decision = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if decision.schema_version != DECISION_VERSION || decision.run != run {
        return Err(unreadable("it is of another version of seedbed, or of another run".to_owned()));
    }
    Ok(Some(decision))
}

/// Decides about a run, unless it is decided; returns the decision that counts.
pub fn decide(fleet: &Root, made: &Decision) -> Result<Decision, Error> {
    let name = run_directory(&made.run).join(DECISION);
    // A decision can always be written as JSON.
    let bytes = serde_json::to_vec(made).unwrap_or_default();
    crashpoint!("fleet.deciding");
    let _ = fleet.create_new(&name, &bytes)?;
    crashpoint!("fleet.decided");
    let missing = || Error::Unreadable { path: fleet.path().join(&name), why: "it was removed".to_owned() };
    decision(fleet, &made.run)?.ok_or_else(missing)
}

/// Takes the lock of the coordinator of a fleet; `None` if another process has it.
///
/// On a file system whose locks do not reach other hosts, a host may decide to abort although the coordinator lives. The
/// coordinator then follows this decision.
pub fn lock_coordinator(fleet: &Root) -> Result<Option<File>, Error> {
    let lock = fleet.open_or_create(Path::new(COORDINATOR))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(Error::Lock { path: fleet.path().join(COORDINATOR), source }),
    }
}
