//! Defines the protocol between seedbed and the program of an external kind: one JSON object in each direction.
//!
//! The types are the protocol, and `schemas/provider.schema.json` is derived from them. Both sides can use them: a
//! program reads a [`Request`] and writes the answer to its operation, as `examples/external_kind.rs` does.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version of the protocol, in every request and every answer.
pub const PROTOCOL: u32 = 2;

/// Protocol between seedbed and the program of an external kind. The program reads a `request` from its standard input,
/// and writes the answer to its operation to its standard output. An exit code other than 0 means that the program
/// failed; its standard error has the reason.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:provider:2"))]
#[non_exhaustive]
pub struct Protocol {
    /// Request to the program.
    pub request: Request,
    /// Answer to `plan`.
    pub plan: PlanAnswer,
    /// Answer to `provision`.
    pub provision: ProvisionAnswer,
    /// Answer to `inspect`.
    pub inspect: InspectAnswer,
    /// Answer to `release`.
    pub release: DoneAnswer,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "operation")]
#[non_exhaustive]
pub enum Request {
    /// Plans the allocations of every session of a swarm. Changes nothing, and gives the same answer to the same
    /// request.
    Plan(PlanRequest),
    /// Provisions one allocation. An allocation that exists already and has the same owner is no error. One that
    /// another owner has is `conflict`.
    Provision(LeaseRequest),
    /// Checks whether a lease is still as it was provisioned. Changes nothing.
    Inspect(LeaseRequest),
    /// Removes everything of the allocation that exists and belongs to its owner, complete or not. A missing part is no
    /// error.
    Release(LeaseRequest),
}

/// The sessions to plan. The program runs in the workspace root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlanRequest {
    /// Version of the protocol, 2.
    pub protocol: u32,
    /// Requested kind.
    pub kind: String,
    /// Name of the swarm.
    pub swarm: String,
    /// Sessions that request the kind, parents before their children. Sessions that already have an allocation are
    /// included, but the answers for them are not used.
    pub sessions: Vec<SessionRequest>,
}

/// A session that requests the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionRequest {
    /// Key of the request, under which the answer has its allocation: the id of the session, and for a resource with a
    /// name of its own `#` and the name after it.
    pub request: String,
    /// Name of the resource; absent if it has the name of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Id of the session, `SWARM/PATH`.
    pub session: String,
    /// Path of the session in the tree.
    pub path: String,
    /// Number of the session in the swarm, from 0.
    pub index: u32,
    /// A name of 1 to 63 of `a-z`, `0-9` and `-` that no other session and no other clone has. An answer may contain
    /// it: the plan has a marker in place of each name that only this clone has.
    pub name: String,
    /// Key of the request whose allocation it shares; `null` for an allocation of its own.
    pub share_of: Option<String>,
    /// Position of its share among the shares of the same allocation, from 0; `null` for an allocation of its own.
    pub share: Option<u32>,
    /// Number of children that take a share of its allocation.
    pub shares: u32,
    /// Present allocation of the session, even if the session does not keep it; `null` if there is none. No other
    /// session may get the same allocation, unless it takes a share.
    pub applied: Option<Map<String, Value>>,
    /// Planned ports of the session by name, as in the requests for one allocation.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// Effective options: its own, over those of its parent if it takes a share, over the manifest's defaults.
    pub options: Map<String, Value>,
}

/// Allocations of the sessions, or the errors of their requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct PlanAnswer {
    /// Version of the protocol, 2.
    pub protocol: u32,
    /// One allocation for each request, by its key; ignored if there are `diagnostics`.
    #[serde(default)]
    pub allocations: BTreeMap<String, Planned>,
    /// All errors of the requests, in one answer.
    #[serde(default)]
    pub diagnostics: Vec<RequestDiagnostic>,
}

impl PlanAnswer {
    /// Creates an answer with the allocation for each request, by its key.
    pub fn new(allocations: BTreeMap<String, Planned>) -> Self {
        Self { protocol: PROTOCOL, allocations, diagnostics: Vec::new() }
    }

    /// Creates an answer with the errors of the requests.
    pub fn refused(diagnostics: Vec<RequestDiagnostic>) -> Self {
        Self { protocol: PROTOCOL, allocations: BTreeMap::new(), diagnostics }
    }
}

/// Allocation of one session. In its strings `{{ workspace.root }}` represents the workspace root, so that a plan is
/// the same in every clone. A session's `name` is replaced in the same way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Planned {
    /// Data for the other operations, which is also in the plan and in the discovery file.
    pub allocation: Map<String, Value>,
    /// Environment variables of the session; names match `[A-Z_][A-Z0-9_]*`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Sections of the session's prompt.
    #[serde(default)]
    pub prompt_sections: Vec<String>,
    /// Further metadata for the session's discovery file.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Ports of the session on which the resource itself listens until its release. The release of the session does not
    /// take such a listener for a process at work.
    #[serde(default)]
    pub serves: BTreeSet<u16>,
    /// Notes for a reviewer of the plan, one line each.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Planned {
    /// Creates an allocation that contributes nothing else to its session.
    pub fn new(allocation: Map<String, Value>) -> Self {
        Self { allocation, ..Self::default() }
    }
}

/// An error in the request of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct RequestDiagnostic {
    /// Key of the request; `null` for an error of the kind as a whole.
    #[serde(default)]
    pub session: Option<String>,
    /// Wrong option, which is underlined; `null` for the whole request.
    #[serde(default)]
    pub option: Option<String>,
    /// Description of the error, one line.
    pub message: String,
    /// Remedy, one line.
    #[serde(default)]
    pub help: Option<String>,
}

impl RequestDiagnostic {
    /// Creates an error for the request of a session, or for the kind as a whole.
    pub fn new(session: Option<String>, message: String) -> Self {
        Self { session, option: None, message, help: None }
    }
}

/// One allocation to act on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LeaseRequest {
    /// Version of the protocol, 2.
    pub protocol: u32,
    /// Kind of the allocation.
    pub kind: String,
    /// Id of the session.
    pub session: String,
    /// Name of the resource; absent if it has the name of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Name that no other resource and no other clone has, as in the request for a plan.
    pub name: String,
    /// Ownership marker of the swarm, 32 hexadecimal digits. A resource with another marker belongs to another owner.
    pub owner: String,
    /// Absolute path of the session's working directory. It may not exist yet when a claim is provisioned, and may not exist
    /// any more when the allocation is released.
    pub directory: String,
    /// Ports of the session by name, of all of its `port-range`s. The primary port of a range without names is `primary`.
    pub ports: BTreeMap<String, u16>,
    /// Effective options at the time of the plan.
    pub options: Map<String, Value>,
    /// Allocation from the answer to `plan`.
    pub allocation: Map<String, Value>,
}

/// Result of provisioning an allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ProvisionAnswer {
    /// Version of the protocol, 2.
    pub protocol: u32,
    /// Reason of a failure, one line; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Owner of the allocation if another one has it since it was planned, one line; absent otherwise. The run is rolled
    /// back and planned again: the next `plan` has to give another allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
}

impl ProvisionAnswer {
    /// Creates an answer for success.
    pub fn done() -> Self {
        Self { protocol: PROTOCOL, error: None, conflict: None }
    }

    /// Creates an answer for a failure, with its reason in one line.
    pub fn failed(why: String) -> Self {
        Self { error: Some(why), ..Self::done() }
    }

    /// Creates an answer for an allocation that another owner has, with the owner in one line.
    pub fn conflict(owner: String) -> Self {
        Self { conflict: Some(owner), ..Self::done() }
    }
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct DoneAnswer {
    /// Version of the protocol, 2.
    pub protocol: u32,
    /// Reason of a failure, one line; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl DoneAnswer {
    /// Creates an answer for success.
    pub fn done() -> Self {
        Self { protocol: PROTOCOL, error: None }
    }

    /// Creates an answer for a failure, with its reason in one line.
    pub fn failed(why: String) -> Self {
        Self { error: Some(why), ..Self::done() }
    }
}

/// Result of inspecting a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct InspectAnswer {
    /// Version of the protocol, 2.
    pub protocol: u32,
    /// Condition of the lease.
    pub condition: LeaseCondition,
    /// Description of the damage, one line; absent for a healthy lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Unsaved work that exists nowhere else, one line each: `destroy` refuses while there is any.
    #[serde(default)]
    pub unsaved_work: Vec<String>,
}

impl InspectAnswer {
    /// Creates an answer for a healthy lease without unsaved work.
    pub fn healthy() -> Self {
        Self { protocol: PROTOCOL, condition: LeaseCondition::Healthy, why: None, unsaved_work: Vec::new() }
    }

    /// Creates an answer for a damaged lease, with a description in one line.
    pub fn damaged(condition: LeaseCondition, why: String) -> Self {
        Self { condition, why: Some(why), ..Self::healthy() }
    }
}

/// Condition of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum LeaseCondition {
    /// As it was provisioned.
    Healthy,
    /// Damaged, but `provision` restores the missing parts without changing the others.
    Repairable,
    /// Missing or broken: the lease is released and provisioned again.
    Broken,
}

/// An answer, with its version of the protocol.
pub(super) trait Answer: serde::de::DeserializeOwned {
    /// Returns the version of the protocol.
    fn protocol(&self) -> u32;
}

macro_rules! answers {
    ($($name:ty),*) => { $(impl Answer for $name { fn protocol(&self) -> u32 { self.protocol } })* };
}
answers!(PlanAnswer, ProvisionAnswer, DoneAnswer, InspectAnswer);

/// Maximum number of characters of an unreadable answer that a message shows.
const ECHO_MAX: usize = 200;

/// Reads an answer. The error describes the problem, and shows the escaped beginning of the answer.
pub(super) fn read<A: Answer>(bytes: &[u8]) -> Result<A, String> {
    match serde_json::from_slice::<A>(bytes) {
        Ok(answer) if answer.protocol() == PROTOCOL => Ok(answer),
        Ok(answer) => {
            Err(format!("it answered in version {} of the protocol, not {PROTOCOL}", answer.protocol()))
        }
        Err(error) => {
            let text: String = String::from_utf8_lossy(bytes).chars().take(ECHO_MAX).collect();
            let text = crate::host::text::printable(text.trim());
            // The parser's message repeats names of the answer.
            let error = crate::host::text::printable(&error.to_string());
            Err(format!(
                "its answer cannot be read ({error}): {}",
                if text.is_empty() { "nothing" } else { &text }
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fuzz;

    /// Checks that an answer is read, or refused in one harmless line of bounded length.
    fn is_read<A: Answer>(input: &[u8]) -> bool {
        let answer = read::<A>(input);
        if let Err(why) = &answer {
            assert!(!why.contains(|c: char| c.is_control()) && why.len() < 4096, "{why:?}");
        }
        answer.is_ok()
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_escaped() {
        let why = read::<DoneAnswer>(b"{ \"\\u001b[2J\": 1 }").unwrap_err();
        assert!(why.starts_with("its answer cannot be read (unknown field `\\u{1b}[2J`"), "{why}");
    }

    #[test]
    fn fuzz_answers_of_programs() {
        let corpus = [
            json!({ "protocol": 2, "error": "no", "conflict": null }),
            json!({ "protocol": 2, "condition": "repairable", "why": "w", "unsavedWork": ["a", "b"] }),
            json!({ "protocol": 2 }),
        ];
        let raw = corpus.clone().map(|answer| answer.to_string().into_bytes());
        let words = [
            "\"",
            "{",
            "[",
            "null",
            "1e999",
            "\\u0000",
            "\u{202e}",
            "healthy",
            "error",
            "unsavedWork",
            "protocol",
            "why",
        ];
        fuzz::run(
            "lease-answer",
            |random| match random.below(4) {
                0 => fuzz::bytes(random, &raw, &words),
                _ => fuzz::json(random, &corpus, &words).to_string().into_bytes(),
            },
            |input| {
                [is_read::<ProvisionAnswer>, is_read::<DoneAnswer>, is_read::<InspectAnswer>]
                    .iter()
                    .filter(|is_read| is_read(input))
                    .count()
                    > 0
            },
        );
    }
}
