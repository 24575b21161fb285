//! Lines of commands that change something, and the line of any command that fails.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::SCHEMA_VERSION;
use crate::apply::{Event, Failure, KeptBranch, Occupant, Recovered, SessionFinding};
use crate::host::process;
use crate::manifest::Entry;
use crate::name::SessionPath;
use crate::plan::Plan;
use crate::state::Exited;

/// One line of `apply`, `destroy`, `recover`, `run`, `start`, `exec`, `fleet exec` and `logs` with `--json`, or of any
/// command that fails.
///
/// `done` or `failed` is the last line. `destroy --dry-run` prints only `dryRun`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:events:1"))]
pub struct Line {
    /// Version of this line's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Host of the session, for `fleet exec`; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Content of the line.
    #[serde(flatten)]
    pub content: Content,
}

/// Content of a [`Line`], by its `event`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Content {
    /// An event of a run.
    Run(Event),
    /// An event of a command in a session.
    Command(CommandEvent),
    /// Result of a command.
    Outcome(Outcome),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let content = Value::deserialize(deserializer)?;
        let content = match content["event"].as_str() {
            Some("output" | "exited" | "logged" | "commandReady") => {
                serde_json::from_value(content).map(Self::Command)
            }
            Some("done" | "failed" | "dryRun") => serde_json::from_value(content).map(Self::Outcome),
            _ => serde_json::from_value(content).map(Self::Run),
        };
        content.map_err(D::Error::custom)
    }
}

impl Line {
    /// Creates a line of this version.
    pub fn new(content: impl Into<Content>) -> Self {
        Self { schema_version: SCHEMA_VERSION, host: None, content: content.into() }
    }
}

impl From<Event> for Content {
    fn from(event: Event) -> Self {
        Self::Run(event)
    }
}

impl From<CommandEvent> for Content {
    fn from(event: CommandEvent) -> Self {
        Self::Command(event)
    }
}

impl From<DryRun> for Content {
    fn from(result: DryRun) -> Self {
        Self::Outcome(Outcome::DryRun(result))
    }
}

impl From<Done> for Content {
    fn from(done: Done) -> Self {
        Self::Outcome(Outcome::Done(done))
    }
}

impl From<Failed> for Content {
    fn from(failed: Failed) -> Self {
        Self::Outcome(Outcome::Failed(failed))
    }
}

/// An event of `run`, `start` and `exec` while their commands run, or of `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum CommandEvent {
    /// The command has printed a line.
    Output {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Stream that the line was printed on.
        stream: Stream,
        /// The line, without its end; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// The log of a command has a line, for `logs`. A log does not record the stream of a line.
    Logged {
        /// Path of the session in the tree.
        session: SessionPath,
        /// The line, without its end; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// The conditions that the command has to meet hold.
    CommandReady {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Time since the start of the command, in milliseconds.
        milliseconds: u64,
    },
    /// The command has ended.
    Exited(Exited),
}

/// A stream that a command prints on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl From<process::Stream> for Stream {
    fn from(stream: process::Stream) -> Self {
        match stream {
            process::Stream::Stdout => Self::Stdout,
            process::Stream::Stderr => Self::Stderr,
        }
    }
}

/// Last line of a command.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Outcome {
    /// The command has done what it was asked to do.
    Done(Done),
    /// The command has failed.
    Failed(Failed),
    /// Effects of the same command without `--dry-run`.
    DryRun(DryRun),
}

/// Result of a command; each command sets the fields that it has a value for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Digest of the plan that was applied, for `apply` and `run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Name of the swarm, for `run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swarm: Option<String>,
    /// Active sessions whose changed `setup` was not run, for `apply`; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_not_run: Option<Vec<SessionPath>>,
    /// Number of sessions that were released, for `destroy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<usize>,
    /// Number of sessions that are still active, for `destroy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<usize>,
    /// Sessions that do not meet the conditions, with the reasons, for `destroy --where`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<Vec<SessionFinding>>,
    /// Result for the swarm, for `recover`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// Results for standalone sessions, by their ids, for `recover`; absent if there was nothing to recover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone_sessions: Option<BTreeMap<String, Recovered>>,
    /// Results for instances whose `run` was killed, by their names, for `recover`; absent if there was nothing to recover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<BTreeMap<String, Recovered>>,
    /// Exit code of the command, for `run` and `exec`; the largest of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

impl Done {
    /// Returns the result of an apply.
    pub fn applied(plan: &Plan) -> Self {
        let sessions: Vec<SessionPath> = plan.setup_not_run().cloned().collect();
        let setup_not_run = (!sessions.is_empty()).then_some(sessions);
        Self { plan: Some(plan.digest.clone()), setup_not_run, ..Self::default() }
    }
}

/// Result of a command that has failed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Id of the error, such as `plan-stale`; `report::error::ALL` lists every id.
    pub id: String,
    /// Exit code of seedbed.
    pub exit_code: u8,
    /// Cause and remedy, as they are printed without `--json`.
    pub message: String,
    /// Diagnostics of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Vec<Entry>>,
    /// Steps that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Vec<Failure>>,
    /// Steps of the rollback that failed: what they would have removed or restored remains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<Vec<Failure>>,
    /// Work that would have been lost, and what else prevents a release; absent if the command was refused for another
    /// reason only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved_work: Option<Vec<SessionFinding>>,
    /// Processes that use what would have been released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occupants: Option<Vec<Occupant>>,
    /// Number of processes of the host that this user may not inspect; absent if no other process uses the sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uninspected: Option<usize>,
    /// Reasons why the plan is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Vec<String>>,
}

/// Result of `destroy --dry-run`: effects of the same command without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// `true` if the command would be refused, with exit code 69.
    pub refused: bool,
    /// Paths of the sessions that it would release.
    pub sessions: Vec<SessionPath>,
    /// Branches that would remain, because they have commits or existed before.
    pub branches: Vec<KeptBranch>,
    /// Processes that use these sessions.
    pub occupants: Vec<Occupant>,
    /// Number of processes of the host that this user may not inspect.
    pub uninspected: usize,
    /// Work that would be lost, rescued or not.
    pub unsaved_work: Vec<SessionFinding>,
    /// Work among `unsavedWork` that `--rescue` would save.
    pub rescued: Vec<SessionFinding>,
    /// Files that would be removed and are no reason to refuse, such as ignored ones.
    pub also_removed: Vec<SessionFinding>,
    /// Sessions that do not meet the conditions of `--where`, with the reasons; absent if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<SessionFinding>,
}
