//! Commands in sessions of a fleet: the request of the coordinator, and the results of each host.
//!
//! ```text
//! DIR/commands/REQUEST/request.json       command, and the sessions of each host
//! DIR/commands/REQUEST/coordinator.json   sign of life of the coordinator, or its request to stop
//! DIR/commands/REQUEST/results/HOST.json  results of a host
//! ```
//!
//! A host cannot rely on a signal: the launcher may end without passing it on. So it ends the commands when the coordinator
//! requests it, when the sign of life does not change for a while, or when its output has no reader.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SCHEMA_VERSION;
use super::directory::{DirectoryError, FleetDirectory};
use crate::host::failpoint::crashpoint;
use crate::name::SessionPath;
use crate::state::Exited;

/// Time between two signs of life of the coordinator.
pub const BEAT: Duration = Duration::from_secs(10);

/// Time without a new sign of life after which a host ends its commands. Clients of NFS may see a file that is 60 s old.
const SILENCE: Duration = Duration::from_mins(3);

/// Command that the coordinator requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct CommandRequest {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Name of the request.
    pub request: String,
    /// Words of the command; `None` for the `command` that the manifest has for each session.
    pub words: Option<Vec<String>>,
    /// `true` if the user has named the sessions, so that each needs a command.
    pub is_named: bool,
    /// Sessions of each host.
    pub sessions: BTreeMap<String, Vec<SessionPath>>,
    /// Limits of the commands.
    pub limits: CommandLimits,
    /// Time without a new sign of life after which a host ends its commands, in seconds.
    pub silence: u64,
}

/// Limits of commands in sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers name each field")]
pub struct CommandLimits {
    /// Longest time of a command.
    pub timeout: Option<Duration>,
    /// Longest time in which a command prints nothing.
    pub stall: Option<Duration>,
    /// `true` if a command that fails ends all others.
    pub fail_fast: bool,
    /// `true` if nothing that the commands print is sent.
    pub is_silent: bool,
}

/// Sign of life of the coordinator of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Beat {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Number of signs of life before this one.
    pub beat: u64,
    /// `true` if the hosts have to end the commands.
    pub stop: bool,
}

/// Results of a command on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct CommandResults {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Name of the request.
    pub request: String,
    /// Name of the host.
    pub host: String,
    /// End of the command in each session that was requested.
    pub results: Vec<Exited>,
    /// Reason for which no command was run; `None` if there is none.
    pub error: Option<String>,
}

impl CommandRequest {
    /// Creates a request.
    pub fn new(
        request: String,
        words: Option<Vec<String>>,
        is_named: bool,
        sessions: BTreeMap<String, Vec<SessionPath>>,
        limits: CommandLimits,
    ) -> Self {
        let silence = SILENCE.as_secs();
        Self { schema_version: SCHEMA_VERSION, request, words, is_named, sessions, limits, silence }
    }
}

impl CommandResults {
    /// Creates the results of a host, or the reason for which it ran nothing.
    pub fn new(request: &str, host: &str, results: Result<Vec<Exited>, String>) -> Self {
        let (request, host) = (request.to_owned(), host.to_owned());
        let (results, error) = match results {
            Ok(results) => (results, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Self { schema_version: SCHEMA_VERSION, request, host, results, error }
    }
}

impl FleetDirectory {
    /// Writes a request.
    pub fn write_command(&self, request: &CommandRequest) -> Result<(), DirectoryError> {
        self.beat(&request.request, 0, false)?;
        self.write(&directory(&request.request).join("request.json"), request)?;
        crashpoint!("fleet.commanded");
        Ok(())
    }

    /// Returns a request; an error if there is none.
    pub fn command(&self, request: &str) -> Result<CommandRequest, DirectoryError> {
        let name = directory(request).join("request.json");
        let found: Option<CommandRequest> = self.read(&name)?;
        let found = found.filter(|found| found.schema_version == SCHEMA_VERSION && found.request == request);
        found.ok_or_else(|| self.invalid(&name, &"it is no request of this version of seedbed"))
    }

    /// Writes a sign of life of the coordinator of a command, or its request to stop.
    pub fn beat(&self, request: &str, beat: u64, stop: bool) -> Result<(), DirectoryError> {
        self.write(&coordinator(request), &Beat { schema_version: SCHEMA_VERSION, beat, stop })
    }

    /// Returns the last sign of life of the coordinator of a command; `None` without a request.
    pub fn last_beat(&self, request: &str) -> Result<Option<Beat>, DirectoryError> {
        self.read(&coordinator(request))
    }

    /// Writes the results of a host.
    pub fn write_results(&self, results: &CommandResults) -> Result<(), DirectoryError> {
        crashpoint!("fleet.answering");
        self.write(&results_file(&results.request, &results.host), results)
    }

    /// Returns the results of a host; `None` if it has written none.
    pub fn results(&self, request: &str, host: &str) -> Result<Option<CommandResults>, DirectoryError> {
        let results: Option<CommandResults> = self.read(&results_file(request, host))?;
        Ok(results.filter(|results| results.request == request && results.host == host))
    }

    /// Removes a request to which all hosts have answered.
    pub fn remove_command(&self, request: &str) -> Result<(), DirectoryError> {
        Ok(self.root.remove_all(&directory(request))?)
    }
}

fn directory(request: &str) -> PathBuf {
    Path::new("commands").join(request)
}

fn coordinator(request: &str) -> PathBuf {
    directory(request).join("coordinator.json")
}

fn results_file(request: &str, host: &str) -> PathBuf {
    directory(request).join("results").join(format!("{host}.json"))
}
