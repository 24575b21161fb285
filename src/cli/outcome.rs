//! Last line of a command with `--json`: the outcome of a change, after its events, or the failure of any command.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use seedbed::apply::{Event, Failure, KeptBranch, Loss, Occupant, Recovered};
use seedbed::host::process;
use seedbed::manifest::Entry;
use seedbed::name::SessionPath;
use seedbed::plan::Plan;
use serde::Serialize;
use serde_json::Value;

/// Version of these documents' format.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// Last line of a run. Each command sets the fields that apply to it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event", deny_unknown_fields)]
pub(super) enum Outcome {
    /// The command has done its task.
    #[serde(rename_all = "camelCase")]
    Done {
        /// Version of this line's format, 1.
        #[schemars(extend("const" = SCHEMA_VERSION))]
        schema_version: u32,
        /// Digest of the applied plan, for `apply` and `run`.
        #[serde(skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
        /// Active sessions whose changed `setup` was not run, for `apply`; absent if there are none.
        #[serde(skip_serializing_if = "Option::is_none")]
        setup_not_run: Option<Vec<SessionPath>>,
        /// Number of released sessions, for `destroy`.
        #[serde(skip_serializing_if = "Option::is_none")]
        released: Option<usize>,
        /// Number of sessions that are still active, for `destroy`.
        #[serde(skip_serializing_if = "Option::is_none")]
        left: Option<usize>,
        /// Result of the recovery, for `recover`.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<Recovered>,
        /// Results of recovering standalone sessions, by their ids; absent if there was nothing to recover.
        #[serde(skip_serializing_if = "Option::is_none")]
        alone: Option<BTreeMap<String, Recovered>>,
        /// Exit code of the command, for `run` and `exec`: the largest of several.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<u8>,
    },
    /// The command has not done its task, or only a part of it.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// Version of this line's format, 1.
        #[schemars(extend("const" = SCHEMA_VERSION))]
        schema_version: u32,
        /// Exit code of the process.
        exit_code: u8,
        /// Error and remedies, as printed without `--json`.
        message: String,
        /// Diagnostics of the manifest.
        #[serde(skip_serializing_if = "Option::is_none")]
        faults: Option<Vec<Entry>>,
        /// Steps that failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        failures: Option<Vec<Failure>>,
        /// Steps that could not be rolled back.
        #[serde(skip_serializing_if = "Option::is_none")]
        leftovers: Option<Vec<Failure>>,
        /// Unsaved work that would have been lost.
        #[serde(skip_serializing_if = "Option::is_none")]
        losses: Option<Vec<Loss>>,
        /// Processes that use allocations that would have been released.
        #[serde(skip_serializing_if = "Option::is_none")]
        occupants: Option<Vec<Occupant>>,
        /// Number of processes of the host that this user may not inspect, if other processes use the sessions.
        #[serde(skip_serializing_if = "Option::is_none")]
        uninspected: Option<usize>,
        /// Reasons why the plan is stale.
        #[serde(skip_serializing_if = "Option::is_none")]
        reasons: Option<Vec<String>>,
    },
}

/// Only line of `destroy --dry-run`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event", deny_unknown_fields)]
pub(super) enum DryRun {
    /// Effects of the same command without `--dry-run`.
    #[serde(rename_all = "camelCase")]
    DryRun {
        /// Version of this line's format, 1.
        #[schemars(extend("const" = SCHEMA_VERSION))]
        schema_version: u32,
        /// `true` if the command would be refused, with exit code 69.
        refused: bool,
        /// Paths of the sessions that the command would release.
        sessions: Vec<SessionPath>,
        /// Branches that would remain, because they have commits or existed before.
        branches: Vec<KeptBranch>,
        /// Processes that use these sessions.
        occupants: Vec<Occupant>,
        /// Number of processes of the host that this user may not inspect.
        uninspected: usize,
        /// Unsaved work that the command would lose, rescue or refuse to lose.
        losses: Vec<Loss>,
        /// Unsaved work that `--rescue` would save.
        rescued: Vec<Loss>,
        /// Other data that the command would delete without being refused, such as ignored files.
        goes_along: Vec<Loss>,
    },
}

/// Line of `run` and `exec` while their command runs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event", deny_unknown_fields)]
pub(super) enum Line {
    /// The command has printed a line.
    Output {
        /// The session's path.
        session: SessionPath,
        /// Stream of the line.
        stream: Stream,
        /// Text of the line, without its end; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// The command has ended.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// The session's path.
        session: SessionPath,
        /// Exit code of the command; 128 plus the number of a signal that ended it; 125, 126 or 127 if it was not run.
        exit_code: u8,
        /// Number of the signal that ended the command.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Reason why the command was not run.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Duration of the command, in milliseconds.
        milliseconds: u64,
    },
}

/// Stream that a command prints on.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stream {
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

impl Outcome {
    /// Returns the outcome of a completed apply, with the digest of its plan.
    pub(super) fn applied(plan: &Plan) -> Self {
        let mut outcome = Self::done(Some(plan.digest.clone()), None, None);
        if let Self::Done { setup_not_run, .. } = &mut outcome {
            let sessions: Vec<SessionPath> = plan.setup_not_run().cloned().collect();
            *setup_not_run = (!sessions.is_empty()).then_some(sessions);
        }
        outcome
    }

    /// Returns the outcome of a completed destroy, with the number of released and of remaining sessions.
    pub(super) fn destroyed(released: usize, left: usize) -> Self {
        Self::done(None, Some(released), Some(left))
    }

    /// Returns the outcome of a completed recovery, with the recoveries of standalone sessions.
    pub(super) fn recovered(recovered: Recovered, alone: BTreeMap<String, Recovered>) -> Self {
        Self::Done {
            schema_version: SCHEMA_VERSION,
            plan: None,
            setup_not_run: None,
            released: None,
            left: None,
            recovered: Some(recovered),
            alone: (!alone.is_empty()).then_some(alone),
            exit_code: None,
        }
    }

    /// Returns the outcome of a command in sessions, with its exit code, and for `run` the digest of the plan.
    pub(super) fn commanded(plan: Option<String>, exit_code: u8) -> Self {
        let mut outcome = Self::done(plan, None, None);
        if let Self::Done { exit_code: code, .. } = &mut outcome {
            *code = Some(exit_code);
        }
        outcome
    }

    fn done(plan: Option<String>, released: Option<usize>, left: Option<usize>) -> Self {
        Self::Done {
            schema_version: SCHEMA_VERSION,
            plan,
            setup_not_run: None,
            released,
            left,
            recovered: None,
            alone: None,
            exit_code: None,
        }
    }
}

/// Returns the schema of every line that `apply`, `destroy`, `recover`, `run` and `exec` print with `--json`.
pub(super) fn schema() -> Schema {
    let mut events = schema_for!(Event);
    for mut others in [schema_for!(Line), schema_for!(DryRun), schema_for!(Outcome)] {
        if let (Some(Value::Array(lines)), Some(Value::Array(more))) =
            (events.get_mut("oneOf"), others.remove("oneOf"))
        {
            lines.extend(more);
        }
        if let (Some(Value::Object(types)), Some(Value::Object(more))) =
            (events.get_mut("$defs"), others.remove("$defs"))
        {
            types.extend(more);
        }
    }
    events.insert("$id".to_owned(), "urn:seedbed:events:1".into());
    events.insert("title".to_owned(), "Line".into());
    let description = "One line of what `apply`, `destroy`, `recover`, `run` and `exec` print with `--json`: events, and at the end `done` or `failed`; `destroy --dry-run` prints `dryRun` alone.";
    events.insert("description".to_owned(), description.into());
    events
}
