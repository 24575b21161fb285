//! What seedbed and the program of an external kind say to one another: one JSON object each way.
//!
//! The types are the protocol; `schemas/provider.schema.json` is derived from them. Both sides can use them: a program reads
//! a [`Request`] and writes the answer to its operation, as `examples/external_kind.rs` does.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the protocol. It stands in every request and every answer.
pub const PROTOCOL: u32 = 1;

/// What seedbed and the program of an external kind say to one another: a `request` on the program's standard input,
/// the answer to its operation on its standard output. An exit code other than 0 means that it failed, and its standard
/// error says why.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:provider:1"))]
#[non_exhaustive]
pub struct Protocol {
    /// What is asked.
    pub request: Request,
    /// The answer to `plan`.
    pub plan: PlanAnswer,
    /// The answer to `provision`.
    pub provision: ProvisionAnswer,
    /// The answer to `inspect`.
    pub inspect: InspectAnswer,
    /// The answer to `release`.
    pub release: DoneAnswer,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "operation")]
#[non_exhaustive]
pub enum Request {
    /// Decides what every session of a swarm would get. Changes nothing, and answers the same to the same question.
    Plan(PlanRequest),
    /// Makes one allocation real. What is there already, and is its owner's, is no error; what another owner has is
    /// `taken`.
    Provision(LeaseRequest),
    /// Looks whether a lease still is what was provisioned. Changes nothing.
    Inspect(LeaseRequest),
    /// Takes away whatever of the allocation exists and is its owner's, half-made or whole. What is gone already is no
    /// error.
    Release(LeaseRequest),
}

/// Which sessions are planned. The program runs in the workspace root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlanRequest {
    /// The version of the protocol, 1.
    pub protocol: u32,
    /// The kind that is asked for.
    pub kind: String,
    /// The swarm's name.
    pub swarm: String,
    /// The sessions that ask for it, parents before their children; those that have it already too, whose answers are
    /// not used.
    pub sessions: Vec<Asked>,
}

/// A session that asks for the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Asked {
    /// Its id, `SWARM/PATH`.
    pub session: String,
    /// Its path in the tree.
    pub path: String,
    /// Its number in the swarm, from 0.
    pub index: u32,
    /// A name of 1 to 63 of `a-z`, `0-9` and `-` that no other session and no other clone has. An answer may hold it: the
    /// plan has a marker in the place of what only this clone has.
    pub name: String,
    /// The id of the session whose allocation it takes a share of; `null` for one of its own.
    pub share_of: Option<String>,
    /// The position of its share among those that are taken of the same allocation, from 0; `null` for one of its own.
    pub share: Option<u32>,
    /// How many children take a share of what it gets.
    pub shares: u32,
    /// The allocation that it has, whether or not it keeps that; `null` where it has none. No other session may be given the
    /// same, unless that takes a share of it.
    pub standing: Option<Map<String, Value>>,
    /// The options in force: its own, over its parent's where it takes a share, over the manifest's defaults.
    pub options: Map<String, Value>,
}

/// What the sessions would get, or what is wrong with what they ask for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct PlanAnswer {
    /// The version of the protocol, 1.
    pub protocol: u32,
    /// One entry for each session that was asked about, by its id; not looked at where there are faults.
    #[serde(default)]
    pub allocations: BTreeMap<String, Planned>,
    /// What is wrong, every fault in one answer.
    #[serde(default)]
    pub faults: Vec<Wrong>,
}

impl PlanAnswer {
    /// Returns what each session would get, by its id.
    pub fn new(allocations: BTreeMap<String, Planned>) -> Self {
        Self { protocol: PROTOCOL, allocations, faults: Vec::new() }
    }

    /// Returns what is wrong with what the sessions ask for.
    pub fn refused(faults: Vec<Wrong>) -> Self {
        Self { protocol: PROTOCOL, allocations: BTreeMap::new(), faults }
    }
}

/// What one session would get. In its strings `{{ workspace.root }}` stands for the workspace root, so that a plan is
/// the same in every clone; the same is done to a session's `name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Planned {
    /// What is handed to the other operations, and stands in the plan and in the discovery file.
    pub allocation: Map<String, Value>,
    /// Environment variables of the session; names match `[A-Z_][A-Z0-9_]*`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Sections of its prompt.
    #[serde(default)]
    pub prompt_sections: Vec<String>,
    /// Anything else that its discovery file should say.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// What a reviewer of the plan should know, one line each.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Planned {
    /// Returns an allocation that contributes nothing else to its session.
    pub fn new(allocation: Map<String, Value>) -> Self {
        Self { allocation, ..Self::default() }
    }
}

/// A fault of what a session asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Wrong {
    /// The session; `null` for a fault of the kind as a whole.
    #[serde(default)]
    pub session: Option<String>,
    /// The option that is wrong, which is underlined; `null` for the whole entry.
    #[serde(default)]
    pub option: Option<String>,
    /// What is wrong, one line.
    pub message: String,
    /// What to do about it, one line.
    #[serde(default)]
    pub help: Option<String>,
}

impl Wrong {
    /// Returns what is wrong with the entry of a session, or with the kind as a whole.
    pub fn new(session: Option<String>, message: String) -> Self {
        Self { session, option: None, message, help: None }
    }
}

/// One allocation to act on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LeaseRequest {
    /// The version of the protocol, 1.
    pub protocol: u32,
    /// The kind.
    pub kind: String,
    /// The session's id.
    pub session: String,
    /// The name that no other session and no other clone has, as in the request for a plan.
    pub name: String,
    /// The ownership mark of its swarm, 32 hexadecimal digits. What carries another one is somebody else's.
    pub owner: String,
    /// The options in force when it was planned.
    pub options: Map<String, Value>,
    /// What `plan` answered.
    pub allocation: Map<String, Value>,
}

/// Whether an allocation was made real.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ProvisionAnswer {
    /// The version of the protocol, 1.
    pub protocol: u32,
    /// Why it was not, one line; absent where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who else has it since it was planned, one line; absent where nobody has. The run is rolled back and planned again:
    /// the next `plan` has to give something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<String>,
}

impl ProvisionAnswer {
    /// Returns that the allocation was made real.
    pub fn done() -> Self {
        Self { protocol: PROTOCOL, error: None, taken: None }
    }

    /// Returns why it was not, in one line.
    pub fn failed(why: String) -> Self {
        Self { error: Some(why), ..Self::done() }
    }

    /// Returns who else has it, in one line.
    pub fn taken(by: String) -> Self {
        Self { taken: Some(by), ..Self::done() }
    }
}

/// Whether it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct DoneAnswer {
    /// The version of the protocol, 1.
    pub protocol: u32,
    /// Why it was not, one line; absent where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl DoneAnswer {
    /// Returns that it was done.
    pub fn done() -> Self {
        Self { protocol: PROTOCOL, error: None }
    }

    /// Returns why it was not, in one line.
    pub fn failed(why: String) -> Self {
        Self { error: Some(why), ..Self::done() }
    }
}

/// How a lease was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct InspectAnswer {
    /// The version of the protocol, 1.
    pub protocol: u32,
    /// Whether it is as it was provisioned.
    pub condition: Found,
    /// What is wrong, one line; for what is not sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What would be lost if it were released now and is saved nowhere else, one line each: `destroy` refuses then.
    #[serde(default)]
    pub losses: Vec<String>,
}

impl InspectAnswer {
    /// Returns that the lease is as it was provisioned, and that nothing in it would be lost.
    pub fn sound() -> Self {
        Self { protocol: PROTOCOL, condition: Found::Sound, why: None, losses: Vec::new() }
    }

    /// Returns that the lease is not as it was provisioned, and why, in one line.
    pub fn damaged(condition: Found, why: String) -> Self {
        Self { condition, why: Some(why), ..Self::sound() }
    }
}

/// The condition of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Found {
    /// As it was provisioned.
    Sound,
    /// Still there, and `provision` puts back what is missing without touching the rest.
    Mendable,
    /// Gone or broken: it is released and provisioned again.
    Broken,
}

/// An answer, which says what version of the protocol it is in.
pub(super) trait Answer: serde::de::DeserializeOwned {
    /// The version.
    fn protocol(&self) -> u32;
}

macro_rules! answers {
    ($($name:ty),*) => { $(impl Answer for $name { fn protocol(&self) -> u32 { self.protocol } })* };
}
answers!(PlanAnswer, ProvisionAnswer, DoneAnswer, InspectAnswer);

/// How much of an answer that cannot be read stands in the message, in characters.
const ECHO_MAX: usize = 200;

/// Reads an answer; the error says what is wrong with it, and shows its beginning, escaped.
pub(super) fn read<A: Answer>(bytes: &[u8]) -> Result<A, String> {
    match serde_json::from_slice::<A>(bytes) {
        Ok(answer) if answer.protocol() == PROTOCOL => Ok(answer),
        Ok(answer) => {
            Err(format!("it answered in version {} of the protocol, not {PROTOCOL}", answer.protocol()))
        }
        Err(error) => {
            let text: String = String::from_utf8_lossy(bytes).chars().take(ECHO_MAX).collect();
            let text = crate::host::text::printable(text.trim());
            Err(format!(
                "its answer cannot be read ({error}): {}",
                if text.is_empty() { "nothing" } else { &text }
            ))
        }
    }
}
