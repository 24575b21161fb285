//! Plans an external kind by what its program answered. Pure: the program was asked when the host was observed.

use std::collections::HashSet;

use super::protocol::{self, Asked, PROTOCOL, PlanAnswer, PlanRequest, Request as Question, Wrong};
use super::{Contribution, LEASE_MAX};
use crate::host::text::printable;
use crate::manifest::{Fault, Place, Program, denied_variable, is_variable, rule};
use crate::observe::Observation;
use crate::provider::{Allocation, Parent, Planned, Planner, Request};

/// The longest line that is taken over from a program, in characters.
const LINE_MAX: usize = 400;

/// The request that a program is asked to plan by, as JSON: the same sessions in the same order give the same text.
pub(crate) fn request(kind: &str, swarm: &str, sessions: Vec<Asked>) -> String {
    let request = Question::Plan(PlanRequest {
        protocol: PROTOCOL,
        kind: kind.to_owned(),
        swarm: swarm.to_owned(),
        sessions,
    });
    serde_json::to_string(&request).unwrap_or_default()
}

/// Plans one external kind.
pub(crate) struct Externals {
    kind: String,
    program: Program,
    answer: Answer,
}

/// What is known of the program's plan.
enum Answer {
    /// It was not asked, which is so where no program is to be run: everything is planned as nothing.
    NotAsked,
    /// It gave none, with why.
    None(String),
    /// It answered.
    Given(PlanAnswer),
}

impl Externals {
    /// `asked` are the ids of the sessions that it was asked about.
    pub(crate) fn new(
        kind: &str,
        program: &Program,
        observation: &Observation,
        asked: &HashSet<&str>,
    ) -> Self {
        let answer = match observation.programs.as_ref().map(|programs| programs.get(kind)) {
            None => Answer::NotAsked,
            Some(None) => Answer::None("it was not asked".to_owned()),
            Some(Some(Err(why))) => Answer::None(why.clone()),
            Some(Some(Ok(bytes))) => match protocol::read::<PlanAnswer>(bytes) {
                Err(why) => Answer::None(why),
                Ok(answer) => match stranger(&answer, asked) {
                    Some(stranger) => {
                        Answer::None(format!("it speaks of `{stranger}`, which it was not asked about"))
                    }
                    None => Answer::Given(answer),
                },
            },
        };
        Self { kind: kind.to_owned(), program: program.clone(), answer }
    }

    fn plan(&self, request: &Request<'_>, within_parent: bool) -> Result<Planned, Vec<Fault>> {
        let answer = match &self.answer {
            Answer::NotAsked => return Ok(self.planned(protocol::Planned::default(), within_parent)),
            Answer::None(why) => return Err(vec![self.no_plan(why)]),
            Answer::Given(answer) => answer,
        };
        let own = answer
            .faults
            .iter()
            .filter(|wrong| wrong.session.as_deref().is_none_or(|session| session == request.session));
        let faults: Vec<_> = own.map(|wrong| self.wrong(wrong, request)).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let Some(planned) = answer.allocations.get(request.session) else {
            return Err(vec![self.no_plan(&match answer.faults.first() {
                Some(other) => {
                    format!("it finds fault with `{}`", other.session.as_deref().unwrap_or_default())
                }
                None => format!("it planned nothing for `{}`", request.session),
            })]);
        };
        if let Some(why) = unfit(planned, request) {
            return Err(vec![
                self.no_plan(&format!("what it planned for `{}` cannot be used: {why}", request.session)),
            ]);
        }
        Ok(self.planned(planned.clone(), within_parent))
    }

    fn planned(&self, planned: protocol::Planned, within_parent: bool) -> Planned {
        Planned {
            allocation: planned.allocation,
            within_parent,
            notes: planned.notes.iter().map(|note| line(note)).collect(),
            external: Some(Contribution {
                command: self.program.command.clone(),
                timeout: self.program.timeout,
                env: planned.env,
                prompt_sections: planned.prompt_sections,
                metadata: planned.metadata,
            }),
        }
    }

    fn program_place(&self) -> Place {
        Place::default().key("provider").key(&self.kind).key("command")
    }

    /// Something that is the program's fault, not that of whoever asks for the kind.
    fn no_plan(&self, why: &str) -> Fault {
        let message = format!("the program of kind `{}` gave no plan: {}", self.kind, line(why));
        Fault::new(rule::PROGRAM, self.program_place(), message, "gave no plan")
            .with_help("run it by hand; `seedbed schema provider` prints what it is asked and has to answer")
    }

    fn wrong(&self, wrong: &Wrong, request: &Request<'_>) -> Fault {
        let place = match (&wrong.session, &wrong.option) {
            (None, _) => self.program_place(),
            (Some(_), Some(option)) if request.own.contains_key(option) => request.place.key(option),
            (Some(_), _) => request.place.clone(),
        };
        let label = match &wrong.option {
            Some(option) => format!("`{}` says so of `{}`", self.kind, line(option)),
            None => format!("`{}` says so", self.kind),
        };
        let fault = Fault::new(rule::EXTERNAL_OPTION, place, line(&wrong.message), label);
        match &wrong.help {
            Some(help) => fault.with_help(line(help)),
            None => fault,
        }
    }
}

impl Planner for Externals {
    fn keep(&mut self, _session: &str, _parent: Option<&str>, _allocation: &Allocation) {}

    fn free(&mut self, _allocation: &Allocation) {}

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Vec<Fault>> {
        self.plan(request, false)
    }

    fn sub_allocate(&mut self, request: &Request<'_>, _parent: &Parent<'_>) -> Result<Planned, Vec<Fault>> {
        self.plan(request, true)
    }
}

/// A session that is spoken of and was not asked about.
fn stranger<'a>(answer: &'a PlanAnswer, asked: &HashSet<&str>) -> Option<&'a str> {
    let faulty = answer.faults.iter().filter_map(|wrong| wrong.session.as_deref());
    let mut sessions = answer.allocations.keys().map(String::as_str).chain(faulty);
    sessions.find(|session| !asked.contains(session))
}

/// Why what a program planned cannot be handed to a session, or back to the program.
fn unfit(planned: &protocol::Planned, request: &Request<'_>) -> Option<String> {
    for name in planned.env.keys() {
        if !is_variable(name) {
            return Some(format!("`{}` cannot be the name of a variable", line(name)));
        }
        if let Some(reason) = denied_variable(name) {
            return Some(format!("`{name}` is not a session's to set: {reason}"));
        }
    }
    let texts = planned.env.values().chain(&planned.prompt_sections);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Some("a text of it holds NUL".to_owned());
    }
    let size = [&planned.allocation, &**request.options]
        .map(|map| serde_json::to_string(map).unwrap_or_default().len());
    (size.iter().sum::<usize>() > LEASE_MAX).then(|| format!("it is larger than {LEASE_MAX} bytes"))
}

/// What a program says, on one line of bounded length, safe to print.
fn line(text: &str) -> String {
    let text = printable(text.trim());
    match text.char_indices().nth(LINE_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
