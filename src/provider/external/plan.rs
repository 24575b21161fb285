//! Plans an external kind from the answer of its program. Pure: the program ran when the host was observed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::protocol::{self, PROTOCOL, PlanAnswer, PlanRequest, RequestDiagnostic, SessionRequest};
use super::{Contribution, LEASE_MAX, SCHEMA_MAX};
use crate::host::text::printable;
use crate::manifest::{
    Diagnostic, Diagnostics, Location, Program, check_options, denied_variable, is_variable, rule,
};
use crate::observe::Observation;
use crate::provider::{Allocation, Allocator, Parent, Planned, Request, placeholders};

/// Maximum length of a line from a program, in characters.
const LINE_MAX: usize = 400;

/// Returns the request for a plan as JSON. The same sessions in the same order give the same text.
pub(crate) fn request(kind: &str, swarm: &str, sessions: Vec<SessionRequest>) -> String {
    let request = protocol::Request::Plan(PlanRequest {
        protocol: PROTOCOL,
        kind: kind.to_owned(),
        swarm: swarm.to_owned(),
        sessions,
    });
    serde_json::to_string(&request).unwrap_or_default()
}

/// Returns the key of the request for a resource: the id of its session, and for a resource with a name of its own `#`
/// and the name after it.
pub(crate) fn request_key(session: &str, kind: &str, resource: &str) -> String {
    if resource == kind { session.to_owned() } else { format!("{session}#{resource}") }
}

/// Planner of one external kind.
pub(crate) struct Externals {
    kind: String,
    program: Option<Program>,
    answer: Answer,
    /// JSON schema of the options, or the reason for which it cannot be used; `None` if the manifest names none.
    schema: Option<Result<Value, String>>,
    workspace: PathBuf,
    /// Topmost session of each session's shared allocation; the session's own id if it has no share.
    tops: HashMap<String, String>,
    /// Topmost session of each allocation, by the allocation as JSON.
    given: HashMap<String, String>,
}

/// Outcome of the request for a plan.
enum Answer {
    /// The program did not run, because no program may be run: every allocation is planned without fields.
    NotRun,
    /// The program gave no plan, for this reason.
    NoPlan(String),
    /// The program answered.
    Plan(PlanAnswer),
}

impl Externals {
    /// Creates the planner. `requested` are the ids of the sessions in the request.
    pub(crate) fn new(
        kind: &str,
        program: Option<&Program>,
        observation: &Observation,
        requested: &[String],
    ) -> Self {
        let answer = match observation.programs.as_ref().map(|programs| programs.get(kind)) {
            _ if program.is_none() => Answer::NoPlan("the manifest names none".to_owned()),
            None => Answer::NotRun,
            Some(None) => Answer::NoPlan("it was not run".to_owned()),
            Some(Some(Err(why))) => Answer::NoPlan(why.clone()),
            Some(Some(Ok(bytes))) => match protocol::read::<PlanAnswer>(bytes) {
                Err(why) => Answer::NoPlan(why),
                Ok(answer) => match unrequested(&answer, requested) {
                    Some(session) => {
                        Answer::NoPlan(format!("its answer names `{session}`, which was not in the request"))
                    }
                    None => Answer::Plan(answer),
                },
            },
        };
        Self {
            kind: kind.to_owned(),
            program: program.cloned(),
            answer,
            schema: program.and_then(|program| Some(read_schema(observation, program.schema.as_deref()?))),
            workspace: observation.workspace.clone(),
            tops: HashMap::new(),
            given: HashMap::new(),
        }
    }

    fn plan(&mut self, request: &Request<'_>, parent: Option<&str>) -> Result<Planned, Diagnostics> {
        let key = &request_key(request.session, &self.kind, request.resource);
        self.check_options(request)?;
        let planned = self.answered(request, key, parent)?;
        if let Some(other) = self.give(key, parent, &planned.allocation) {
            let why = format!("it gave one allocation to `{other}` and to `{key}`, which share none");
            return Err(vec![self.no_plan(&why)].into());
        }
        Ok(planned)
    }

    /// Records the allocation of a request, which is a share of the parent's if `parent` is given. Returns a request
    /// that has the same allocation without sharing it. An allocation without fields is never the same. Requests are
    /// given by their keys.
    fn give(&mut self, key: &str, parent: Option<&str>, allocation: &Map<String, Value>) -> Option<String> {
        let top =
            parent.map_or(key, |parent| self.tops.get(parent).map_or(parent, String::as_str)).to_owned();
        self.tops.insert(key.to_owned(), top.clone());
        if allocation.is_empty() {
            return None;
        }
        let text = serde_json::to_string(allocation).unwrap_or_default();
        let known = self.given.entry(text).or_insert_with(|| top.clone());
        (*known != top).then(|| known.clone())
    }

    fn answered(
        &self,
        request: &Request<'_>,
        key: &str,
        parent: Option<&str>,
    ) -> Result<Planned, Diagnostics> {
        let within_parent = parent.is_some();
        let answer = match &self.answer {
            Answer::NotRun => return Ok(self.planned(&protocol::Planned::default(), &[], within_parent)),
            Answer::NoPlan(why) => return Err(vec![self.no_plan(why)].into()),
            Answer::Plan(answer) => answer,
        };
        let own = answer
            .diagnostics
            .iter()
            .filter(|reported| reported.session.as_deref().is_none_or(|session| session == key));
        let diagnostics: Vec<_> = own.map(|reported| self.diagnostic(reported, request)).collect();
        if !diagnostics.is_empty() {
            return Err(diagnostics.into());
        }
        let Some(planned) = answer.allocations.get(key) else {
            return Err(vec![self.no_plan(&match answer.diagnostics.first() {
                Some(other) => {
                    format!("it reports a diagnostic for `{}`", other.session.as_deref().unwrap_or_default())
                }
                None => format!("it planned nothing for `{key}`"),
            })]
            .into());
        };
        if let Some(why) = unfit(planned, request) {
            return Err(vec![self.no_plan(&format!("its plan for `{key}` cannot be used: {why}"))].into());
        }
        let ids: Vec<&str> = parent.into_iter().chain([key]).collect();
        Ok(self.planned(planned, &ids, within_parent))
    }

    /// Returns the planned allocation, with markers in place of the names that only this clone has.
    fn planned(&self, planned: &protocol::Planned, ids: &[&str], within_parent: bool) -> Planned {
        let value = |value: &Value| placeholders::with_placeholders(value, ids, &self.workspace);
        let map = |map: &Map<String, Value>| -> Map<String, Value> {
            map.iter().map(|(key, field)| (key.clone(), value(field))).collect()
        };
        let text = |text: &String| match value(&Value::from(text.as_str())) {
            Value::String(text) => text,
            _ => text.clone(),
        };
        Planned {
            allocation: map(&planned.allocation),
            within_parent,
            notes: planned.notes.iter().map(|note| text(&line(note))).collect(),
            external: self.program.as_ref().map(|program| Contribution {
                command: program.command.clone(),
                timeout: program.timeout,
                claim: program.claim,
                env: planned.env.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
                serves: planned.serves.clone(),
                prompt_sections: planned.prompt_sections.iter().map(text).collect(),
                metadata: map(&planned.metadata),
            }),
        }
    }

    /// Checks the options of a request by the schema that the manifest names for the kind.
    fn check_options(&self, request: &Request<'_>) -> Result<(), Diagnostics> {
        let found = match &self.schema {
            None => return Ok(()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(schema)) => check_options(request.options, schema),
        };
        let at_request = |mut diagnostic: Diagnostic| {
            diagnostic.location.steps.splice(0..0, request.location.steps.iter().cloned());
            diagnostic
        };
        match found {
            Ok(found) if found.is_empty() => Ok(()),
            Ok(found) => Err(found.into_iter().map(at_request).collect::<Vec<_>>().into()),
            Err(why) => {
                let location = Location::default().key("provider").key(&self.kind).key("schema");
                let message = format!("the schema of kind `{}` cannot be used: {}", self.kind, line(&why));
                let diagnostic = Diagnostic::new(rule::OPTIONS_SCHEMA, location, message, "cannot be used");
                Err(vec![diagnostic.with_help("name a file with a JSON schema of an object, without `$ref`")]
                    .into())
            }
        }
    }

    fn program_location(&self) -> Location {
        Location::default().key("provider").key(&self.kind).key("command")
    }

    /// Returns a diagnostic for an error of the program, not of the request.
    fn no_plan(&self, why: &str) -> Diagnostic {
        let message = format!("the program of kind `{}` gave no plan: {}", self.kind, line(why));
        Diagnostic::new(rule::PROGRAM, self.program_location(), message, "gave no plan").with_help(
            "run it by hand; `seedbed schema provider` prints the schemas of its requests and answers",
        )
    }

    fn diagnostic(&self, reported: &RequestDiagnostic, request: &Request<'_>) -> Diagnostic {
        let location = match (&reported.session, &reported.option) {
            (None, _) => self.program_location(),
            (Some(_), Some(option)) if request.own.contains_key(option) => request.location.key(option),
            (Some(_), _) => request.location.clone(),
        };
        let label = match &reported.option {
            Some(option) => format!("reported by `{}` for `{}`", self.kind, line(option)),
            None => format!("reported by `{}`", self.kind),
        };
        let diagnostic = Diagnostic::new(rule::EXTERNAL_OPTION, location, line(&reported.message), label);
        match &reported.help {
            Some(help) => diagnostic.with_help(line(help)),
            None => diagnostic,
        }
    }
}

impl Allocator for Externals {
    fn keep(&mut self, session: &str, parent: Option<&str>, allocation: &Allocation) {
        // An existing allocation is not the result of this plan.
        let key = |session: &str| request_key(session, &self.kind, allocation.name());
        let parent = parent.filter(|_| allocation.shared).map(key);
        let key = key(session);
        let _ = self.give(&key, parent.as_deref(), &allocation.allocation);
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        self.plan(request, None)
    }

    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        let parent = request_key(parent.session, &self.kind, parent.allocation.name());
        self.plan(request, Some(&parent))
    }
}

/// Reads the JSON schema of options. It may be a stranger's: references could be circular, or lead out of the file.
fn read_schema(observation: &Observation, path: &Path) -> Result<Value, String> {
    fn has_reference(schema: &Value) -> bool {
        match schema {
            Value::Object(entries) => entries
                .iter()
                .any(|(key, value)| key.ends_with("ef") && key.starts_with('$') || has_reference(value)),
            Value::Array(values) => values.iter().any(has_reference),
            _ => false,
        }
    }
    let file = observation.file(path, SCHEMA_MAX);
    let text = file.unwrap_or_else(|| Err("it was not read".to_owned()))?;
    let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if has_reference(&schema) {
        return Err("it has a reference, `$ref`".to_owned());
    }
    Ok(schema)
}

/// Returns a session in the answer that was not in the request.
fn unrequested<'a>(answer: &'a PlanAnswer, requested: &[String]) -> Option<&'a str> {
    let requested: HashSet<_> = requested.iter().map(String::as_str).collect();
    let reported = answer.diagnostics.iter().filter_map(|reported| reported.session.as_deref());
    let mut sessions = answer.allocations.keys().map(String::as_str).chain(reported);
    sessions.find(|session| !requested.contains(session))
}

/// Returns the reason why an allocation from a program cannot be given to a session, or back to the program.
fn unfit(planned: &protocol::Planned, request: &Request<'_>) -> Option<String> {
    for name in planned.env.keys() {
        if !is_variable(name) {
            return Some(format!("`{}` cannot be the name of a variable", line(name)));
        }
        if let Some(reason) = denied_variable(name) {
            return Some(format!("`{name}` is reserved: {reason}"));
        }
    }
    let texts = planned.env.values().chain(&planned.prompt_sections);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Some("one of its texts contains NUL".to_owned());
    }
    let size = [&planned.allocation, &**request.options]
        .map(|map| serde_json::to_string(map).unwrap_or_default().len());
    (size.iter().sum::<usize>() > LEASE_MAX).then(|| format!("it is larger than {LEASE_MAX} bytes"))
}

/// Returns a text of a program on one line of limited length, safe to print.
fn line(text: &str) -> String {
    let text = printable(text.trim());
    match text.char_indices().nth(LINE_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
