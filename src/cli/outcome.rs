//! What a command that changes something says last with `--json`, after its events; and how any command fails.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use seedbed::apply::{Event, Failure, KeptBranch, Loss, Occupant, Recovered};
use seedbed::host::process;
use seedbed::manifest::Entry;
use seedbed::name::SessionPath;
use seedbed::plan::Plan;
use serde::Serialize;
use serde_json::Value;

/// The version of these documents' format.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// The last line of a run. Each command fills in what it has to say.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event", deny_unknown_fields)]
pub(super) enum Outcome {
    /// What was asked for is done.
    #[serde(rename_all = "camelCase")]
    Done {
        /// Version of this line's format, 1.
        #[schemars(extend("const" = SCHEMA_VERSION))]
        schema_version: u32,
        /// What has come of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
        /// The sessions that stand and whose changed `setup` was not run, for `apply`; absent where there is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        setup_not_run: Option<Vec<SessionPath>>,
        /// How many sessions were released, for `destroy`.
        #[serde(skip_serializing_if = "Option::is_none")]
        released: Option<usize>,
        /// How many sessions still stand, for `destroy`.
        #[serde(skip_serializing_if = "Option::is_none")]
        left: Option<usize>,
        /// What there was to recover, for `recover`.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<Recovered>,
        /// The same of sessions on their own, by their ids, where there was any to recover.
        #[serde(skip_serializing_if = "Option::is_none")]
        alone: Option<BTreeMap<String, Recovered>>,
        /// The exit code, that of the command, for `run` and `exec`: of several the largest.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<u8>,
    },
    /// It is not, or not all of it.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// Version of this line's format, 1.
        #[schemars(extend("const" = SCHEMA_VERSION))]
        schema_version: u32,
        /// The exit code.
        exit_code: u8,
        /// What happened and what to do, as it is told without `--json`.
        message: String,
        /// The faults of the manifest.
        #[serde(skip_serializing_if = "Option::is_none")]
        faults: Option<Vec<Entry>>,
        /// The steps that failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        failures: Option<Vec<Failure>>,
        /// What could not be put back.
        #[serde(skip_serializing_if = "Option::is_none")]
        leftovers: Option<Vec<Failure>>,
        /// The work that would have been lost.
        #[serde(skip_serializing_if = "Option::is_none")]
        losses: Option<Vec<Loss>>,
        /// The processes at work in what would have been released.
        #[serde(skip_serializing_if = "Option::is_none")]
        occupants: Option<Vec<Occupant>>,
        /// Number of processes of the host that this user may not inspect, where others are at work.
        #[serde(skip_serializing_if = "Option::is_none")]
        uninspected: Option<usize>,
        /// Why the plan is stale.
        #[serde(skip_serializing_if = "Option::is_none")]
        reasons: Option<Vec<String>>,
    },
}

/// The one line of `destroy --dry-run`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event", deny_unknown_fields)]
pub(super) enum DryRun {
    /// What the same command without `--dry-run` would do.
    #[serde(rename_all = "camelCase")]
    DryRun {
        /// Version of this line's format, 1.
        #[schemars(extend("const" = SCHEMA_VERSION))]
        schema_version: u32,
        /// Whether it would be refused, with exit code 69.
        refused: bool,
        /// The paths of the sessions that it would release.
        sessions: Vec<SessionPath>,
        /// The branches that would stay, because they have commits or were there before.
        branches: Vec<KeptBranch>,
        /// The processes at work in these sessions.
        occupants: Vec<Occupant>,
        /// Number of processes of the host that this user may not inspect.
        uninspected: usize,
        /// The work that would be lost, rescued or not.
        losses: Vec<Loss>,
        /// The work among it that `--rescue` would save.
        rescued: Vec<Loss>,
        /// What would go along and is no reason to refuse, such as ignored files.
        goes_along: Vec<Loss>,
    },
}

/// A line of `run` and `exec` while their command runs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event", deny_unknown_fields)]
pub(super) enum Line {
    /// The command has printed a line.
    Output {
        /// The session's path.
        session: SessionPath,
        /// On which stream.
        stream: Stream,
        /// The line, without its end; what is not UTF-8 in it is replaced.
        text: String,
    },
    /// The command has ended.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// The session's path.
        session: SessionPath,
        /// Its exit code; 128 and the number of a signal that ended it; 125, 126 or 127 where it was not run.
        exit_code: u8,
        /// The number of the signal that ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Why it was not run.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// How long it took.
        milliseconds: u64,
    },
}

/// One of the streams that a command prints on.
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
    /// An apply that is done, with the digest of its plan.
    pub(super) fn applied(plan: &Plan) -> Self {
        let mut outcome = Self::done(Some(plan.digest.clone()), None, None);
        if let Self::Done { setup_not_run, .. } = &mut outcome {
            let sessions: Vec<SessionPath> = plan.setup_not_run().cloned().collect();
            *setup_not_run = (!sessions.is_empty()).then_some(sessions);
        }
        outcome
    }

    /// A destroy that is done, with how many sessions it released and how many still stand.
    pub(super) fn destroyed(released: usize, left: usize) -> Self {
        Self::done(None, Some(released), Some(left))
    }

    /// A recovery that is done, with what it did for sessions on their own.
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

    /// A command that has run in sessions, with its exit code, and with the digest of the plan that made them for `run`.
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

/// The schema of every line that `apply`, `destroy`, `recover`, `run` and `exec` print with `--json`.
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
