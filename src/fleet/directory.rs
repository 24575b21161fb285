//! Directory that all hosts of a fleet share: the only way in which they communicate.
//!
//! ```text
//! DIR/config.json              hosts, and how commands are run on them
//! DIR/index.json               sessions of all hosts, since the last commit
//! DIR/coordinator.lock         flock: one coordinator at a time
//! DIR/manifests/HASH/NAME      manifest of the coordinator, which the hosts read
//! DIR/observations/REQUEST/HOST.json observation of a host, for one plan
//! DIR/observations/REQUEST/missing/HOST.json repositories that a host lacks
//! DIR/observations/REQUEST/clones/clones.json clones for the hosts that lack repositories
//! DIR/reports/HOST.json        last report of a host
//! DIR/bundles/               commits for the hosts of the last run, see `bundle`
//! DIR/fleet.json               identity of the fleet, and number of its last run
//! DIR/steps/                   errors of a phase under Slurm, while it runs
//! DIR/commands/REQUEST/        command in sessions, see [`super::commands`]
//! DIR/collected/REQUEST/       results of hosts, see [`crate::collect::brought`]
//! DIR/rescues/HOST/            rescues of a host, see [`super::rescues`]
//! DIR/runs/RUN/plan/           plan of the fleet, see `fleet plan -o`
//! DIR/runs/RUN/prepare/HOST.json     vote of a host
//! DIR/runs/RUN/index.json      hosts of the run, and sessions of all hosts if it is committed
//! DIR/runs/RUN/decision.json   commit or abort; its creation is the commit of the run
//! DIR/runs/RUN/resolve/HOST.json     result on a host
//! ```
//!
//! Every file is replaced or created in one step. A host writes only files with its own name, and the decision.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::clones::{Clones, Missing};
use super::config::Config;
pub use super::index::{Index, IndexedHost, IndexedSession, manifest_digest};
use super::{BundleError, FleetPlan, HostObservation, SCHEMA_VERSION, bundle, is_host_name};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::waiting;
use crate::name::{SessionPath, sha256_hex};
use crate::observe::Observation;
use crate::state::{self, run_directory};

/// Largest file that is read, in bytes.
const FILE_MAX: usize = 1 << 30;

/// Number of files of hosts that are read or written at once: on a file system of the network, each takes some milliseconds.
pub(super) const AT_ONCE: usize = 32;

/// Directory of manifests.
const MANIFESTS: &str = "manifests";

/// Directory of a fleet.
#[derive(Debug)]
pub struct FleetDirectory {
    pub(crate) root: Root,
}

/// Answer of a host to a phase of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:fleet-answer:1"))]
#[non_exhaustive]
pub struct Answer {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the run.
    pub run: String,
    /// Name of the host.
    pub host: String,
    /// `true` if the host did all of the phase. In `prepare`, this is the vote to commit.
    pub done: bool,
    /// Digest of the plan that the host has prepared, or that is applied there; `None` if there is none.
    pub plan: Option<String>,
    /// Message of the error; `None` without one.
    pub error: Option<String>,
}

/// State of a host, as the host reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:fleet-report:1"))]
#[non_exhaustive]
pub struct HostReport {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Name of the host.
    pub host: String,
    /// Request that the report answers.
    pub request: String,
    /// Time of the report by the clock of the host, in UTC as RFC 3339.
    pub at: String,
    /// Digest of the plan that is applied; absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Run that is prepared and not decided yet; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<String>,
    /// `true` if a run was interrupted or is in progress.
    pub unfinished: bool,
    /// Active sessions, parents before children.
    pub sessions: Vec<ReportedSession>,
}

/// Session in [`HostReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ReportedSession {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Damage, one line each.
    pub broken: Vec<String>,
    /// Work that `destroy` refuses to lose, one line each.
    pub unsaved: Vec<String>,
}

/// Reason for which the directory of a fleet cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// A file could not be accessed.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A decision could not be read or made.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A file has other content than it should.
    #[error("{} cannot be read: {why}", path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// A file cannot be written.
    #[error("{} cannot be written: {why}", path.display())]
    Unwritten {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// Another process coordinates a run.
    #[error("another command coordinates a run of the fleet in {}", .0.display())]
    Busy(PathBuf),
}

impl Answer {
    /// Creates an answer: the digest of a plan, or the message of an error.
    pub fn new(run: &str, host: &str, result: Result<Option<String>, String>) -> Self {
        let (run, host) = (run.to_owned(), host.to_owned());
        let done = result.is_ok();
        let (plan, error) = match result {
            Ok(plan) => (plan, None),
            Err(error) => (None, Some(error)),
        };
        Self { schema_version: SCHEMA_VERSION, run, host, done, plan, error }
    }
}

impl HostReport {
    /// Creates the report of a host without sessions.
    pub fn new(host: &str, request: &str, at: String) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            host: host.to_owned(),
            request: request.to_owned(),
            at,
            plan: None,
            prepared: None,
            unfinished: false,
            sessions: Vec::new(),
        }
    }
}

impl ReportedSession {
    /// Creates the report of a session.
    pub fn new(session: SessionPath, broken: Vec<String>, unsaved: Vec<String>) -> Self {
        Self { session, broken, unsaved }
    }
}

impl FleetDirectory {
    /// Opens the directory of a fleet, an absolute path.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        Ok(Self { root: Root::open(path)? })
    }

    /// Creates the directory of a fleet, or opens it.
    pub fn create(path: &Path) -> Result<Self, DirectoryError> {
        Ok(Self { root: Root::create(path)? })
    }

    /// Returns the absolute path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Creates an empty directory for the errors of a phase, and returns its name and the directory.
    pub(super) fn new_step(&self) -> Result<(PathBuf, Root), DirectoryError> {
        let name = Path::new("steps").join(state::new_owner()?);
        let root = self.root.create_directories(&name)?;
        Ok((name, root))
    }

    /// Removes the errors of a phase, as far as that is possible.
    pub(super) fn remove_step(&self, name: &Path) {
        // Nothing depends on these files.
        let _ = self.root.remove_all(name);
    }

    /// Takes the lock of the coordinator, which the returned file owns.
    pub fn lock(&self) -> Result<File, DirectoryError> {
        state::lock_coordinator(&self.root)?.ok_or_else(|| DirectoryError::Busy(self.path().to_owned()))
    }

    /// Returns the configuration; `None` for a new fleet.
    pub fn config(&self) -> Result<Option<Config>, DirectoryError> {
        let config: Option<Config> = self.read(Path::new("config.json"))?;
        let invalid = |why: &str| self.invalid(Path::new("config.json"), &why);
        match &config {
            Some(config) if config.schema_version != SCHEMA_VERSION => {
                Err(invalid("it is of another version of seedbed"))
            }
            Some(config) if !config.hosts.iter().all(|host| is_host_name(host)) => {
                Err(invalid("it names no host"))
            }
            _ => Ok(config),
        }
    }

    /// Writes the configuration.
    pub fn set_config(&self, config: &Config) -> Result<(), DirectoryError> {
        self.write(Path::new("config.json"), config)
    }

    /// Writes a manifest, and returns its file below `manifests`.
    pub fn write_manifest(&self, name: &str, text: &str) -> Result<String, DirectoryError> {
        let file = Path::new(&sha256_hex(text.as_bytes())).join(name);
        let path = Path::new(MANIFESTS).join(&file);
        if self.root.read(&path, FILE_MAX)?.as_deref() != Some(text.as_bytes()) {
            if let Some(parent) = path.parent() {
                self.root.create_directories(parent)?;
            }
            self.root.replace(&path, text.as_bytes())?;
        }
        Ok(file.to_string_lossy().into_owned())
    }

    /// Reads a manifest by its file below `manifests`, and returns its name and its bytes.
    pub fn manifest(&self, file: &str) -> Result<(String, Vec<u8>), DirectoryError> {
        let path = Path::new(MANIFESTS).join(file);
        let bytes = self.root.read(&path, FILE_MAX)?;
        let bytes = bytes.ok_or_else(|| self.invalid(&path, &"it does not exist"))?;
        match file.split_once('/') {
            Some((hash, name)) if hash == sha256_hex(&bytes) && !name.contains('/') => {
                Ok((name.to_owned(), bytes))
            }
            _ => Err(self.invalid(&path, &"it is not the manifest of the coordinator")),
        }
    }

    /// Writes the repositories that a host lacks.
    pub fn write_missing(&self, request: &str, missing: &Missing) -> Result<(), DirectoryError> {
        let name = missing_file(request, &missing.host);
        if self.root.directory(&Path::new("observations").join(request))?.is_none() {
            return Err(self.invalid(&name, &"the command that requested it has ended"));
        }
        self.write(&name, missing)
    }

    /// Returns the repositories that a host lacks; `None` if it has given no such answer.
    pub fn missing(&self, request: &str, host: &str) -> Result<Option<Missing>, DirectoryError> {
        let missing: Option<Missing> = self.read(&missing_file(request, host))?;
        Ok(missing.filter(|missing| missing.host == host))
    }

    /// Makes the bundles of clones. The coordinator has the lock.
    pub fn make_clones(
        &self,
        host: &Host,
        clones: &Clones,
        directories: &BTreeMap<String, PathBuf>,
    ) -> Result<(), BundleError> {
        let deliveries = clones.repositories.iter().map(|clone| &clone.delivery);
        bundle::make_for_clones(host, &self.root, deliveries, directories)
    }

    /// Writes the clones for the hosts that lack repositories.
    pub fn write_clones(&self, request: &str, clones: &Clones) -> Result<(), DirectoryError> {
        self.write(&clones_file(request), clones)
    }

    /// Returns the clones for the hosts that lack repositories; `None` if there are none.
    pub fn clones(&self, request: &str) -> Result<Option<Clones>, DirectoryError> {
        self.read(&clones_file(request))
    }

    /// Writes the observation of a host, if the command that requested it still waits.
    pub fn write_observation(
        &self,
        request: &str,
        observation: &HostObservation,
    ) -> Result<(), DirectoryError> {
        let name = observation_file(request, &observation.host);
        let bytes = serde_json::to_vec(observation).map_err(|error| self.invalid(&name, &error))?;
        match self.root.directory(&Path::new("observations").join(request))? {
            Some(_) => Ok(self.root.replace(&name, &bytes)?),
            None => Err(self.invalid(&name, &"the command that requested it has ended")),
        }
    }

    /// Reads the observations of hosts, in the order of the hosts. An error is a reason, and no observation is one too.
    pub fn observations(&self, request: &str, hosts: &[String]) -> Vec<Result<HostObservation, String>> {
        waiting::map(hosts, AT_ONCE, |host| self.observation(request, host))
    }

    fn observation(&self, request: &str, host: &str) -> Result<HostObservation, String> {
        let name = observation_file(request, host);
        let bytes = self.root.read(&name, FILE_MAX).map_err(|error| error.to_string())?;
        let observation = HostObservation::read(&bytes.ok_or("it wrote no observation")?)
            .map_err(|why| format!("its observation {why}"))?;
        if observation.host == host {
            Ok(observation)
        } else {
            Err("its observation names another host".to_owned())
        }
    }

    /// Writes the answer of a host to a phase.
    pub fn write_answer(&self, phase: &str, answer: &Answer) -> Result<(), DirectoryError> {
        crashpoint!("fleet.voting");
        self.write(&file(&answer.run, phase, &answer.host), answer)
    }

    /// Returns the answer of a host to a phase; `None` if there is none for this run.
    pub fn answer(&self, run: &str, phase: &str, host: &str) -> Result<Option<Answer>, DirectoryError> {
        let answer: Option<Answer> = self.read(&file(run, phase, host))?;
        Ok(answer.filter(|answer| answer.run == run && answer.host == host))
    }

    /// Writes the report of a host.
    pub fn write_report(&self, report: &HostReport) -> Result<(), DirectoryError> {
        self.write(&Path::new("reports").join(format!("{}.json", report.host)), report)
    }

    /// Returns the last reports of hosts, in the order of the hosts; `None` if a host never sent one that can be read.
    pub fn reports(&self, hosts: &[String]) -> Vec<Option<HostReport>> {
        waiting::map(hosts, AT_ONCE, |host| self.report(host).unwrap_or_default())
    }

    fn report(&self, host: &str) -> Result<Option<HostReport>, DirectoryError> {
        self.read(&Path::new("reports").join(format!("{host}.json")))
    }

    /// Makes the bundles that the hosts of a plan need, and removes all others. `own` is the observation of the coordinator,
    /// which has the lock.
    pub fn make_bundles(&self, host: &Host, own: &Observation, plan: &FleetPlan) -> Result<(), BundleError> {
        bundle::make(host, own, &self.root, &plan.shards)
    }

    pub(crate) fn invalid(&self, name: &Path, why: &dyn Display) -> DirectoryError {
        DirectoryError::Invalid { path: self.path().join(name), why: why.to_string() }
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, name: &Path) -> Result<Option<T>, DirectoryError> {
        let Some(bytes) = self.root.read(name, FILE_MAX)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.invalid(name, &error))
    }

    pub(crate) fn write<T: Serialize>(&self, name: &Path, document: &T) -> Result<(), DirectoryError> {
        let bytes = serde_json::to_vec_pretty(document).map_err(|error| self.invalid(name, &error))?;
        if let Some(parent) = name.parent() {
            self.root.create_directories(parent)?;
        }
        Ok(self.root.replace(name, &bytes)?)
    }
}

/// Returns the path of a host's file in a run.
fn file(run: &str, phase: &str, host: &str) -> PathBuf {
    run_directory(run).join(phase).join(format!("{host}.json"))
}

/// Returns the path of the repositories that a host lacks.
fn missing_file(request: &str, host: &str) -> PathBuf {
    Path::new("observations").join(request).join("missing").join(format!("{host}.json"))
}

/// Returns the path of the clones of a request.
fn clones_file(request: &str) -> PathBuf {
    Path::new("observations").join(request).join("clones/clones.json")
}

/// Returns the path of a host's observation.
fn observation_file(request: &str, host: &str) -> PathBuf {
    Path::new("observations").join(request).join(format!("{host}.json"))
}
