//! Directory that all hosts of a fleet share: the only way in which they communicate.
//!
//! ```text
//! DIR/config.json              hosts, and how commands are run on them
//! DIR/index.json               sessions of all hosts, since the last commit
//! DIR/coordinator.lock         flock: one coordinator at a time
//! DIR/observations/REQUEST/HOST.json observation of a host, for one plan
//! DIR/reports/HOST.json        last report of a host
//! DIR/runs/RUN/plan/           plan of the fleet, see `fleet plan -o`
//! DIR/runs/RUN/prepare/HOST.json     vote of a host
//! DIR/runs/RUN/index.json      sessions of all hosts if the run is committed
//! DIR/runs/RUN/decision.json   commit or abort; its creation is the commit of the run
//! DIR/runs/RUN/resolve/HOST.json     result on a host
//! ```
//!
//! Every file is replaced or created in one step. A host writes only files with its own name, and the decision.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{FleetPlan, HostObservation, SCHEMA_VERSION, is_host_name};
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::name::{PortBlock, SessionPath, sha256_hex};
use crate::plan::Plan;
use crate::provider::Registry;
use crate::state::{self, Decision, Verdict, run_directory};

/// Largest file that is read, in bytes.
const FILE_MAX: usize = 1 << 30;

/// Directory of a fleet.
#[derive(Debug)]
pub struct FleetDirectory {
    root: Root,
}

/// Hosts of a fleet, and the way in which commands are run on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Name of the swarm.
    pub swarm: String,
    /// Names of the hosts.
    pub hosts: Vec<String>,
    /// Command of a shell that runs a command on a host; `{host}` and `{command}` stand for both.
    pub launcher: String,
    /// Directory of the manifest on each host; `{host}` stands for its name.
    pub directory: String,
}

/// Answer of a host to a phase of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Answer {
    /// Version of the format of this file.
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
    /// Sessions by shard, parents before children.
    pub sessions: Vec<IndexedSession>,
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

/// State of a host, as the host reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
    /// Another process coordinates a run.
    #[error("another command coordinates a run of the fleet in {}", .0.display())]
    Busy(PathBuf),
}

impl Config {
    /// Creates the configuration of a fleet.
    pub fn new(swarm: String, hosts: Vec<String>, launcher: String, directory: String) -> Self {
        Self { schema_version: SCHEMA_VERSION, swarm, hosts, launcher, directory }
    }
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

impl Index {
    /// Creates the index of a committed run; without a plan, of one that releases everything.
    pub fn new(swarm: &str, run: &str, plan: Option<&FleetPlan>, registry: &Registry) -> Self {
        let shards = plan.into_iter().flat_map(|plan| &plan.shards);
        let sessions = shards.flat_map(|shard| {
            let sessions = shard.plan.iter().flat_map(Plan::sessions);
            sessions.map(move |session| {
                let blocks = session.allocations.iter();
                IndexedSession {
                    session: session.path.clone(),
                    id: session.id.clone(),
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
        Self {
            schema_version: SCHEMA_VERSION,
            swarm: swarm.to_owned(),
            run: run.to_owned(),
            plan: plan.map(|plan| plan.digest.clone()),
            sessions: sessions.collect(),
        }
    }

    /// Creates the index of a fleet of which nothing is committed.
    pub fn empty(swarm: &str) -> Self {
        let (swarm, run) = (swarm.to_owned(), String::new());
        Self { schema_version: SCHEMA_VERSION, swarm, run, plan: None, sessions: Vec::new() }
    }

    /// Returns the names of the hosts that have sessions, each once, in order.
    pub fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<_> = self.sessions.iter().map(|session| session.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
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

    /// Returns the sessions of all hosts; `None` before the first commit.
    pub fn index(&self) -> Result<Option<Index>, DirectoryError> {
        self.read(Path::new("index.json"))
    }

    /// Returns the names of all runs, the oldest first.
    pub fn runs(&self) -> Result<Vec<String>, DirectoryError> {
        let Some(runs) = self.root.directory(Path::new("runs"))? else { return Ok(Vec::new()) };
        Ok(runs.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Creates the directory of the next run, and returns its name.
    pub fn new_run(&self) -> Result<String, DirectoryError> {
        let last = self.runs()?.iter().filter_map(|run| run.parse::<u32>().ok()).max().unwrap_or(0);
        let run = format!("{:06}", last + 1);
        self.root.create_directories(&run_directory(&run))?;
        Ok(run)
    }

    /// Returns the directory of the plan of a run.
    pub fn plan_directory(&self, run: &str) -> Result<Root, DirectoryError> {
        Ok(self.root.create_directories(&run_directory(run).join("plan"))?)
    }

    /// Writes the observation of a host.
    pub fn write_observation(
        &self,
        request: &str,
        observation: &HostObservation,
    ) -> Result<(), DirectoryError> {
        self.write(&observation_file(request, &observation.host), observation)
    }

    /// Reads the observation of a host; the error is a reason, and no observation is one too.
    pub fn observation(&self, request: &str, host: &str) -> Result<HostObservation, String> {
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

    /// Returns the last report of a host; `None` if it never sent one.
    pub fn report(&self, host: &str) -> Result<Option<HostReport>, DirectoryError> {
        self.read(&Path::new("reports").join(format!("{host}.json")))
    }

    /// Returns the decision about a run; `None` if there is none.
    pub fn decision(&self, run: &str) -> Result<Option<Decision>, DirectoryError> {
        Ok(state::decision(&self.root, run)?)
    }

    /// Decides to abort a run, unless it is decided; returns the decision that counts.
    pub fn abort(&self, run: &str, reasons: Vec<String>) -> Result<Decision, DirectoryError> {
        Ok(state::decide(&self.root, &Decision::abort(run, reasons))?)
    }

    /// Decides to commit a run with this index, unless it is decided; returns the decision that counts.
    pub fn commit(&self, index: &Index) -> Result<Decision, DirectoryError> {
        self.write(&run_directory(&index.run).join("index.json"), index)?;
        Ok(state::decide(&self.root, &Decision::commit(&index.run, digest(index)))?)
    }

    /// Publishes the index of the last run that was committed, if that is not done.
    pub fn publish(&self) -> Result<(), DirectoryError> {
        for run in self.runs()?.iter().rev() {
            let Some(decision) = self.decision(run)? else { continue };
            if decision.verdict != Verdict::Commit {
                continue;
            }
            let name = run_directory(run).join("index.json");
            let index: Option<Index> = self.read(&name)?;
            let index = index.filter(|index| decision.index.as_ref() == Some(&digest(index)));
            let index =
                index.ok_or_else(|| self.invalid(&name, &"it is not the index that was committed"))?;
            if self.index()?.as_ref() != Some(&index) {
                self.write(Path::new("index.json"), &index)?;
            }
            return Ok(());
        }
        Ok(())
    }

    fn invalid(&self, name: &Path, why: &dyn Display) -> DirectoryError {
        DirectoryError::Invalid { path: self.path().join(name), why: why.to_string() }
    }

    fn read<T: DeserializeOwned>(&self, name: &Path) -> Result<Option<T>, DirectoryError> {
        let Some(bytes) = self.root.read(name, FILE_MAX)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.invalid(name, &error))
    }

    fn write<T: Serialize>(&self, name: &Path, document: &T) -> Result<(), DirectoryError> {
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

/// Returns the path of a host's observation.
fn observation_file(request: &str, host: &str) -> PathBuf {
    Path::new("observations").join(request).join(format!("{host}.json"))
}

/// Returns the digest of an index.
fn digest(index: &Index) -> String {
    format!("sha256:{}", sha256_hex(&serde_json::to_vec(index).unwrap_or_default()))
}
