//! Explanation of a session's allocations.

use seedbed::host::listeners;
use seedbed::plan::Session;
use seedbed::report::OwnerState;

use super::super::exit::Failure;
use super::super::lookup::ambiguous;
use super::answer::{Answer, owner_of};
use super::sources::{LocatedPlan, Sources, state_words};

/// Explains a session; `None` if no session has this name.
///
/// A path or a name is searched in the manifest's own swarm only, an id in every swarm.
pub(super) fn explain(sources: &mut Sources<'_>, name: &str) -> Result<Option<Answer>, Failure> {
    if let Some((at, session)) = sources.find(|located| exactly(located, name)) {
        return Ok(Some(explained(sources, at, session)));
    }
    let Some((at, called)) = sources.find(|located| called(located, name)) else { return Ok(None) };
    match called[..] {
        [session] => Ok(Some(explained(sources, at, session))),
        [one, other, ..] => {
            let sessions = &sources.plans()[at].plan.sessions();
            Err(ambiguous(name, [&sessions[one].path, &sessions[other].path], called.len()))
        }
        [] => Ok(None),
    }
}

fn exactly(located: &LocatedPlan, name: &str) -> Option<usize> {
    let is = |session: &Session| session.id == name || located.own && session.path.as_str() == name;
    located.plan.sessions().iter().position(is)
}

/// Returns the sessions that have this name; `None` if there are none.
fn called(located: &LocatedPlan, name: &str) -> Option<Vec<usize>> {
    let sessions =
        located.plan.sessions().iter().enumerate().filter(|(_, session)| session.path.name() == name);
    let called: Vec<_> = sessions.map(|(at, _)| at).collect();
    (located.own && !called.is_empty()).then_some(called)
}

fn explained(sources: &Sources<'_>, at: usize, session: usize) -> Answer {
    let located = &sources.plans()[at];
    let session = &located.plan.sessions()[session];
    let directory = seedbed::host::absolute(&located.workspace, &session.working_directory);
    let mut explanation = Answer::new(format!(
        "{} {} works in {}",
        session.id,
        state_words(located.state),
        directory.display()
    ));
    explanation.document.owner = Some(owner_of(located, session));
    explanation.add_excerpt(sources.declaration_excerpt(located, session));
    explanation.document.rules.extend(sources.inherited(located, session));
    for allocation in &session.allocations {
        let is_planned = located.state == OwnerState::Planned;
        if let Some(external) = allocation.external.as_ref().filter(|_| is_planned) {
            let program = external.command.join(" ");
            explanation
                .document
                .rules
                .push(format!("{} is planned by {program}, which `explain` does not run", allocation.name()));
        } else if let Some((kind, planned)) = located.planned(sources.registry, session, allocation) {
            let is_one_of_several = session.allocations_of(&allocation.kind).nth(1).is_some();
            let rules = kind.explanation(&planned).into_iter();
            explanation.document.rules.extend(
                rules.map(
                    |rule| {
                        if is_one_of_several { format!("{}: {rule}", allocation.name()) } else { rule }
                    },
                ),
            );
            if let Some(ports) = kind.ports(allocation) {
                explanation.document.listeners.extend(listeners::on(ports));
                explanation.has_ports = true;
            }
        }
        // If everything is a share of the parent's, the line of the session's table is sufficient.
        if sources.has_own_resources(located, session) {
            explanation.add_excerpt(sources.request_excerpt(located, session, allocation.name(), None));
        }
    }
    explanation
}
