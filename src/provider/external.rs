//! Provides external kinds: `[provider.NAME]` names a program that plans, provisions, inspects and releases them.
//!
//! Planning is pure, so the program plans while the host is observed. A [`Query`](crate::observe::Query) has the
//! whole request, and the answer is a fact like any other. The reviewed plan contains the answer and the program
//! itself. So a program's allocations are inspected and released by that same program, even if the manifest has changed
//! or does not exist any more.
//!
//! Planning a manifest runs the programs that it names, as applying one runs its `setup`.

mod plan;
pub mod protocol;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::protocol::{
    Answer, DoneAnswer, InspectAnswer, LeaseCondition, LeaseRequest, PROTOCOL, ProvisionAnswer, Request,
};
use super::{
    Allocation, Allocator, Condition, Context, Error, Planner, Provider, Scope, Task, UnsavedWork,
    placeholders, port_range,
};
use crate::host::occupants::Footprint;
use crate::host::text::printable_lines;
use crate::host::{absolute, program};
use crate::observe::Observation;

use plan::Externals;
pub(crate) use plan::{request, request_key};

/// Size limit of a lease's options and allocation as JSON, in bytes. The request has to fit into one variable of an
/// environment, 128 KiB, with room for names and escapes.
const LEASE_MAX: usize = 96 << 10;

/// Maximum size of a schema of options, in bytes.
pub(crate) const SCHEMA_MAX: usize = 64 << 10;

/// Program of an allocation of an external kind, and the allocation's contributions to its session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Contribution {
    /// Program and its arguments, at least one; a name with a slash is relative to the workspace root.
    pub command: Vec<String>,
    /// Time limit of one operation, in seconds.
    pub timeout: u32,
    /// `true` if the allocation is a claim: it is provisioned before everything else, and released after everything
    /// else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claim: bool,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Ports on which the resource itself listens until its release.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub serves: BTreeSet<u16>,
    /// Sections of the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt_sections: Vec<String>,
    /// Further metadata of the session.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// Provider of every external kind.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state")]
pub struct External;

impl Planner for External {
    fn kind(&self) -> &'static str {
        "an external kind"
    }

    fn allows_several(&self) -> bool {
        true
    }

    fn follows_other_kinds(&self) -> bool {
        true
    }

    // No `queries`: one query covers all sessions of a kind, see `plan::programs`.

    fn allocator<'o>(&'o self, observation: &'o Observation, scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(Externals::new(scope.kind, scope.program, observation, scope.requests))
    }

    fn context(&self, allocation: &Allocation) -> Context {
        let Some(external) = &allocation.external else { return Context::default() };
        Context {
            env: external.env.clone(),
            prompt_sections: external.prompt_sections.clone(),
            metadata: external.metadata.clone(),
            ..Context::default()
        }
    }

    fn is_in_place(&self, allocation: &Allocation, _scoped_name: &str) -> bool {
        allocation.external.as_ref().is_some_and(|external| !external.command.is_empty())
    }

    fn notices(&self, allocation: &Allocation, _observation: &Observation) -> Vec<String> {
        let command = allocation.external.as_ref().map(|external| external.command.join(" "));
        vec![format!(
            "{} is planned and created by a program of the manifest: {}",
            allocation.kind,
            command.unwrap_or_default()
        )]
    }

    // No `stale`: only the program could find out. If its plan has become impossible, provisioning fails and is rolled
    // back.

    fn is_claim(&self, allocation: &Allocation) -> bool {
        allocation.external.as_ref().is_some_and(|external| external.claim)
    }
}

impl Provider for External {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        let answer: ProvisionAnswer = ask(task, Request::Provision)?;
        match &answer.conflict {
            Some(why) => Err(Error::Conflict(says(task, why))),
            None => done(task, answer.error.as_deref()),
        }
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        let found = match inspected(task) {
            Ok(found) => found,
            Err(error) => return Ok(Condition::Unknown(unknown(task, &error))),
        };
        let why = || match found.why.as_deref().map(str::trim) {
            Some(why) if !why.is_empty() => format!("{}: {}", task.allocation.name(), printable_lines(why)),
            _ => format!("{} has changed since it was provisioned", task.allocation.name()),
        };
        Ok(match found.condition {
            LeaseCondition::Healthy => Condition::Healthy,
            LeaseCondition::Repairable => Condition::Repairable(why()),
            LeaseCondition::Broken => Condition::Broken(why()),
        })
    }

    fn unsaved_work(&self, task: &Task<'_>) -> Result<UnsavedWork, Error> {
        let found = match inspected(task) {
            Ok(found) => found,
            Err(error) => {
                return Ok(UnsavedWork { unknown: vec![unknown(task, &error)], ..UnsavedWork::default() });
            }
        };
        Ok(UnsavedWork { beyond_rescue: found.unsaved_work, ..UnsavedWork::default() })
    }

    fn footprint(&self, task: &Task<'_>) -> Footprint {
        let external = task.allocation.external.as_ref();
        let served = external.map(|external| external.serves.clone()).unwrap_or_default();
        Footprint { served, ..Footprint::default() }
    }

    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        // The program cannot be run in a workspace that does not exist.
        self.release(&Task { workspace: &task.host.state, ..*task })
    }

    fn manual_cleanup(&self, task: &Task<'_>) -> Vec<String> {
        vec![format!("{}, created by {}", super::allocation_line(task.allocation), shown(task))]
    }

    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        let answer: DoneAnswer = ask(task, Request::Release)?;
        done(task, answer.error.as_deref())
    }
}

fn done(task: &Task<'_>, error: Option<&str>) -> Result<(), Error> {
    error.map_or(Ok(()), |why| Err(Error::Refused(says(task, why))))
}

fn says(task: &Task<'_>, why: &str) -> String {
    format!("{} says: {}", shown(task), printable_lines(why))
}

/// Requests the condition of a lease from the program, once for all allocations that are inspected together.
fn inspected(task: &Task<'_>) -> Result<InspectAnswer, Error> {
    let what = format!("inspect {} of {}", task.allocation.name(), task.session);
    let answer = task.shared_result(&what, || {
        let answer = answer(task, Request::Inspect)?;
        // An answer that cannot be read is not kept.
        read::<InspectAnswer>(task, &answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })?;
    read(task, answer.as_bytes())
}

/// Returns the message for a lease whose condition is unknown, with a remedy.
fn unknown(task: &Task<'_>, error: &Error) -> String {
    format!(
        "the state of its {} is unknown: {}; start what {} needs (such as a server), and try again",
        task.allocation.kind,
        printable_lines(&error.to_string()),
        shown(task)
    )
}

/// Makes the program that planned an allocation act on it.
fn ask<A: Answer>(task: &Task<'_>, operation: fn(LeaseRequest) -> Request) -> Result<A, Error> {
    read(task, &answer(task, operation)?)
}

fn read<A: Answer>(task: &Task<'_>, answer: &[u8]) -> Result<A, Error> {
    protocol::read(answer).map_err(|why| Error::Refused(format!("{}: {why}", shown(task))))
}

fn answer(task: &Task<'_>, operation: fn(LeaseRequest) -> Request) -> Result<Vec<u8>, Error> {
    let Some(external) = task.allocation.external.as_ref().filter(|external| !external.command.is_empty())
    else {
        let message = format!("no program is known that plans and creates `{}`", task.allocation.kind);
        return Err(Error::Refused(message));
    };
    // In a plan a marker represents each value that only this clone has.
    let filled = |fields| placeholders::resolve_fields(fields, task.workspace);
    let request = operation(LeaseRequest {
        protocol: PROTOCOL,
        kind: task.allocation.kind.clone(),
        session: task.session.to_owned(),
        resource: task.allocation.name.clone(),
        name: placeholders::unique_name(
            &request_key(task.session, &task.allocation.kind, task.allocation.name()),
            task.workspace,
        ),
        owner: task.owner.to_owned(),
        directory: absolute(task.workspace, task.working_directory).to_string_lossy().into_owned(),
        ports: task.allocations.iter().flat_map(port_range::named_ports).collect(),
        options: filled(&task.allocation.options),
        allocation: filled(&task.allocation.allocation),
    });
    let request = serde_json::to_string(&request).map_err(|error| Error::Refused(error.to_string()))?;
    let timeout = Duration::from_secs(external.timeout.into());
    Ok(program::ask(task.host, task.workspace, &external.command, timeout, request, task.lock)?)
}

fn shown(task: &Task<'_>) -> String {
    let command = task.allocation.external.as_ref().map(|external| external.command.join(" "));
    format!("`{}`", printable_lines(&command.unwrap_or_default()))
}
