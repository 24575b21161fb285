//! The plan as a tree for a terminal.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::{Review, allocated, mark, ports, summary};
use crate::host::text::printable;
use crate::plan::{Action, Change, Plan, Session};

/// Writes the tree.
pub(super) fn text(review: &Review<'_>) -> String {
    let plan = review.plan;
    let mut text = String::new();
    let _ = writeln!(text, "swarm {}: {}", plan.swarm, summary(plan));
    let _ = writeln!(text, "plan {}\n", plan.digest);
    let last: Vec<bool> = last_of_siblings(plan);
    let mut open: Vec<bool> = Vec::new();
    for (at, (session, change)) in plan.sessions.iter().zip(&plan.changes).enumerate() {
        let depth = session.path.as_str().matches('/').count();
        open.truncate(depth);
        let above: String = open.iter().skip(1).map(|open| if *open { "│  " } else { "   " }).collect();
        let branch = match (depth, last[at]) {
            (0, _) => "",
            (_, false) => "├─ ",
            (_, true) => "└─ ",
        };
        let _ = writeln!(text, "{above}{branch}{} {}", mark(change.action), heading(session, change));
        open.push(!last[at]);
        let below: String = open.iter().skip(1).map(|open| if *open { "│  " } else { "   " }).collect();
        let inner = if session.children.is_empty() { "    " } else { "│   " };
        for line in details(session, change) {
            let _ = writeln!(text, "{below}{inner}{line}");
        }
    }
    for change in plan.changes.iter().skip(plan.sessions.len()) {
        let _ = writeln!(text, "{} {}  {}", mark(change.action), change.session, change.reasons.join("; "));
    }
    for notice in review.notices {
        let _ = writeln!(text, "\nnote: {}", printable(notice));
    }
    text
}

fn heading(session: &Session, change: &Change) -> String {
    let what = match change.action {
        Action::Create => "",
        Action::Keep => "  (stands)",
        Action::Update => "  (is told anew)",
        Action::Repair => "  (is repaired)",
        Action::Replace => "  (is replaced)",
        Action::Destroy => "  (is destroyed)",
    };
    format!("{}{what}", session.path.name())
}

fn details(session: &Session, change: &Change) -> Vec<String> {
    let mut lines: Vec<_> =
        change.reasons.iter().map(|reason| format!("because {}", printable(reason))).collect();
    if change.action == Action::Keep {
        lines.push(format!("{}  {}", session.working_directory.display(), ports(session)));
        return lines;
    }
    for allocation in &session.allocations {
        lines.push(format!("{:<13} {}", allocation.kind, printable(&allocated(allocation))));
        lines.extend(allocation.notes.iter().map(|note| format!("{:<13} {}", "", printable(note))));
    }
    if !session.setup.is_empty() {
        lines.push(format!("{:<13} {} command(s)", "setup", session.setup.len()));
    }
    lines
}

/// For each session, whether no sibling comes after it.
fn last_of_siblings(plan: &Plan) -> Vec<bool> {
    let last: HashSet<_> = plan.sessions.iter().filter_map(|session| session.children.last()).collect();
    plan.sessions.iter().map(|session| last.contains(&session.path)).collect()
}
