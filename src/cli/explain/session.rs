//! Explanation of a session's allocations.

use seedbed::host::listeners;
use seedbed::plan::Session;
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::provider::port_range::{self, Block};
use seedbed::report::OwnerState;

use super::super::exit::Failure;
use super::super::lookup::ambiguous;
use super::known::{Known, Side, said};
use super::rule;
use super::shown::{Explained, owner_of};

/// Explains a session; `None` if no session has this name.
///
/// A path or a name is searched in the manifest's own swarm only, an id in every swarm.
pub(super) fn explain(known: &mut Known<'_>, name: &str) -> Result<Option<Explained>, Failure> {
    if let Some((at, session)) = known.find(|side| exactly(side, name)) {
        return Ok(Some(explained(known, at, session)));
    }
    let Some((at, called)) = known.find(|side| called(side, name)) else { return Ok(None) };
    match called[..] {
        [session] => Ok(Some(explained(known, at, session))),
        [one, other, ..] => {
            let sessions = &known.sides()[at].plan.sessions;
            Err(ambiguous(name, [&sessions[one], &sessions[other]], called.len()))
        }
        [] => Ok(None),
    }
}

fn exactly(side: &Side, name: &str) -> Option<usize> {
    let is = |session: &Session| session.id == name || side.own && session.path.as_str() == name;
    side.plan.sessions.iter().position(is)
}

/// Returns the sessions that have this name; `None` if there are none.
fn called(side: &Side, name: &str) -> Option<Vec<usize>> {
    let sessions = side.plan.sessions.iter().enumerate().filter(|(_, session)| session.path.name() == name);
    let called: Vec<_> = sessions.map(|(at, _)| at).collect();
    (side.own && !called.is_empty()).then_some(called)
}

fn explained(known: &Known<'_>, at: usize, session: usize) -> Explained {
    let side = &known.sides()[at];
    let session = &side.plan.sessions[session];
    let directory = seedbed::host::absolute(&side.workspace, &session.working_directory);
    let mut explanation =
        Explained::new(format!("{} {} works in {}", session.id, said(side.state), directory.display()));
    explanation.said.owner = Some(owner_of(side, session));
    explanation.shows(known.declared(side, session));
    for allocation in &session.allocations {
        if let Some(block) = Block::of(allocation).filter(|_| allocation.kind == port_range::KIND) {
            explanation.said.rules.extend(rule::of_block(side, session, allocation, &block));
            explanation.said.listeners = block.ports().map(listeners::on).unwrap_or_default();
            explanation.has_ports = true;
        } else if let Some(worktree) =
            Worktree::of(allocation).filter(|_| allocation.kind == git_worktree::KIND)
        {
            explanation.said.rules.extend(rule::of_worktree(session, &worktree));
        } else if let Some(external) =
            allocation.external.as_ref().filter(|_| side.state == OwnerState::Planned)
        {
            let program = external.command.join(" ");
            explanation
                .said
                .rules
                .push(format!("{} is planned by {program}, which is not asked here", allocation.kind));
        } else {
            let summary =
                known.registry.get(&allocation.kind).and_then(|kind| kind.summary(allocation, false));
            let fields = || serde_json::to_string(&allocation.allocation).unwrap_or_default();
            let summary = summary.unwrap_or_else(fields);
            explanation.said.rules.push(format!("{} {summary}", allocation.kind));
        }
        // If everything is a share of the parent's, the line of the session's table is sufficient.
        if known.says_resources(side, session) {
            explanation.shows(known.asked(side, session, &allocation.kind, None));
        }
    }
    explanation
}
