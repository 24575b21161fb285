//! What a session holds, and why.

use seedbed::host::listeners;
use seedbed::plan::Session;
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::provider::port_range::{self, Block};

use super::super::exit::Failure;
use super::known::{Known, Side, State};
use super::rule;
use super::shown::{Explanation, Owner};

/// `None` where no session is called so. A path and a name are looked for in the manifest's own swarm alone, an id in
/// every one.
pub(super) fn explain(known: &mut Known<'_>, name: &str) -> Result<Option<Explanation>, Failure> {
    if let Some((at, session)) = known.find(|side| exactly(side, name)) {
        return Ok(Some(explained(known, at, session)));
    }
    let Some((at, called)) = known.find(|side| called(side, name)) else { return Ok(None) };
    match called[..] {
        [session] => Ok(Some(explained(known, at, session))),
        [one, other, ..] => {
            let sessions = &known.sides()[at].plan.sessions;
            Err(Failure::Usage(format!(
                "more than one session is called `{name}`: {}, {}, …; say the path",
                sessions[one].path, sessions[other].path
            )))
        }
        [] => Ok(None),
    }
}

fn exactly(side: &Side, name: &str) -> Option<usize> {
    let is = |session: &Session| session.id == name || side.own && session.path.as_str() == name;
    side.plan.sessions.iter().position(is)
}

/// The sessions that have this name, where any has.
fn called(side: &Side, name: &str) -> Option<Vec<usize>> {
    let sessions = side.plan.sessions.iter().enumerate().filter(|(_, session)| session.path.name() == name);
    let called: Vec<_> = sessions.map(|(at, _)| at).collect();
    (side.own && !called.is_empty()).then_some(called)
}

fn explained(known: &Known<'_>, at: usize, session: usize) -> Explanation {
    let side = &known.sides()[at];
    let session = &side.plan.sessions[session];
    let directory = seedbed::host::absolute(&side.workspace, &session.working_directory);
    let mut explanation =
        Explanation::new(format!("{} {} works in {}", session.id, side.state.said(), directory.display()));
    explanation.owner = Some(Owner::of(side, session));
    explanation.shows(known.declared(side, session));
    for allocation in &session.allocations {
        if let Some(block) = Block::of(allocation).filter(|_| allocation.kind == port_range::KIND) {
            explanation.rules.extend(rule::of_block(side, session, allocation, &block));
            explanation.listeners = block.ports().map(listeners::on).unwrap_or_default();
            explanation.has_ports = true;
        } else if let Some(worktree) =
            Worktree::of(allocation).filter(|_| allocation.kind == git_worktree::KIND)
        {
            explanation.rules.extend(rule::of_worktree(session, &worktree));
        } else if let Some(external) = allocation.external.as_ref().filter(|_| side.state == State::Planned) {
            let program = external.command.join(" ");
            explanation
                .rules
                .push(format!("{} is planned by {program}, which is not asked here", allocation.kind));
        } else {
            let fields = serde_json::to_string(&allocation.allocation).unwrap_or_default();
            explanation.rules.push(format!("{} {fields}", allocation.kind));
        }
        // Where all is a share of the parent's, its table says so at once.
        if known.says_resources(side, session) {
            explanation.shows(known.asked(side, session, &allocation.kind, None));
        }
    }
    explanation
}
