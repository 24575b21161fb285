//! What a command that changes something says last with `--json`, after its events; and how any command fails.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use seedbed::apply::{self, Event, Failure, Loss};
use seedbed::manifest::Entry;
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
        /// The version of this line's format, 1.
        schema_version: u32,
        /// What has come of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
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
    },
    /// It is not, or not all of it.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// The version of this line's format, 1.
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
        /// Why the plan is stale.
        #[serde(skip_serializing_if = "Option::is_none")]
        reasons: Option<Vec<String>>,
    },
}

/// What there was to recover.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Recovered {
    /// Nothing.
    Nothing,
    /// An interrupted apply was undone.
    Undone,
    /// An interrupted destroy was finished.
    Finished,
    /// The swarm of a killed `run` was removed.
    Removed,
}

impl Outcome {
    /// An apply that is done, with the digest of its plan.
    pub(super) fn applied(plan: &str) -> Self {
        Self::done(Some(plan.to_owned()), None, None)
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
            released: None,
            left: None,
            recovered: Some(recovered),
            alone: (!alone.is_empty()).then_some(alone),
        }
    }

    fn done(plan: Option<String>, released: Option<usize>, left: Option<usize>) -> Self {
        Self::Done { schema_version: SCHEMA_VERSION, plan, released, left, recovered: None, alone: None }
    }
}

impl From<apply::Recovered> for Recovered {
    fn from(recovered: apply::Recovered) -> Self {
        match recovered {
            apply::Recovered::Nothing => Self::Nothing,
            apply::Recovered::Undone => Self::Undone,
            apply::Recovered::Finished => Self::Finished,
            apply::Recovered::Removed => Self::Removed,
        }
    }
}

/// The schema of every line that `apply`, `destroy`, `recover` and `run` print with `--json`.
pub(super) fn schema() -> Schema {
    let mut events = schema_for!(Event);
    let mut outcomes = schema_for!(Outcome);
    if let (Some(Value::Array(lines)), Some(Value::Array(more))) =
        (events.get_mut("oneOf"), outcomes.remove("oneOf"))
    {
        lines.extend(more);
    }
    if let (Some(Value::Object(types)), Some(Value::Object(more))) =
        (events.get_mut("$defs"), outcomes.remove("$defs"))
    {
        types.extend(more);
    }
    events.insert("title".to_owned(), "Line".into());
    let description = "One line of what `apply`, `destroy`, `recover` and `run` print with `--json`: events, and at the end `done` or `failed`.";
    events.insert("description".to_owned(), description.into());
    events
}
