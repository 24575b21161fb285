//! What commands print: trees and tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::Write as _;

use seedbed::host::text::printable;
use seedbed::plan::{Action, Change, Plan, Session};
use seedbed::provider::Allocation;
use seedbed::provider::git_worktree::Worktree;
use seedbed::provider::port_range::Block;
use serde::Serialize;

/// Prints to stdout; where nobody reads any more there is nobody to tell.
pub(super) fn out(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Prints one JSON document on one line.
pub(super) fn json(document: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(document) {
        out(&format!("{text}\n"));
    }
}

/// Prints one JSON document, indented.
pub(super) fn json_pretty(document: &impl Serialize) {
    if let Ok(text) = serde_json::to_string_pretty(document) {
        out(&format!("{text}\n"));
    }
}

/// The plan as a tree that a person can review.
pub(super) fn plan(plan: &Plan, notices: &[String]) -> String {
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
    for notice in notices {
        let _ = writeln!(text, "\nnote: {}", printable(notice));
    }
    text
}

/// How many sessions come, stay and go: `3 to create, 1 to keep`.
pub(super) fn summary(plan: &Plan) -> String {
    let count = |action| plan.changes.iter().filter(|change| change.action == action).count();
    let parts = [
        (count(Action::Create), "to create"),
        (count(Action::Replace), "to replace"),
        (count(Action::Repair), "to repair"),
        (count(Action::Update), "to update"),
        (count(Action::Keep), "to keep"),
        (count(Action::Destroy), "to destroy"),
    ];
    let parts: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { "no sessions".to_owned() } else { parts.join(", ") }
}

/// One line a session: where it works and which ports it has.
pub(super) fn sessions(sessions: &[Session]) -> String {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            [
                session.path.to_string(),
                ports(session),
                session.working_directory.to_string_lossy().into_owned(),
            ]
        })
        .collect();
    table(&rows)
}

/// Columns as wide as they have to be, two spaces between.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let line = row.iter().zip(widths).fold(String::new(), |mut line, (cell, width)| {
            let _ = write!(line, "{}{:fill$}  ", printable(cell), "", fill = width - cell.chars().count());
            line
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The ports of a session, `-` where it has none.
pub(super) fn ports(session: &Session) -> String {
    let blocks: Vec<_> = session
        .allocations
        .iter()
        .filter_map(Block::of)
        .map(|block| format!("{}-{}", block.start_port, block.end_port))
        .collect();
    if blocks.is_empty() { "-".to_owned() } else { blocks.join(" ") }
}

fn mark(action: Action) -> &'static str {
    match action {
        Action::Create => "+",
        Action::Keep => "=",
        Action::Update => "~",
        Action::Repair => "!",
        Action::Replace => "±",
        Action::Destroy => "-",
    }
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

fn allocated(allocation: &Allocation) -> String {
    if let Some(worktree) = Worktree::of(allocation) {
        let mut text = format!(
            "{}  {} @ {:.10}",
            worktree.worktree_path.display(),
            worktree.branch.as_ref().map_or_else(
                || worktree.base_ref.clone(),
                |branch| format!("{branch} (new) from {}", worktree.base_ref)
            ),
            worktree.commit
        );
        if let Some(target) = &worktree.target_path {
            let _ = write!(text, "  only {target}");
        }
        return text;
    }
    if let Some(block) = Block::of(allocation) {
        let mut text = format!("{}-{}", block.start_port, block.end_port);
        if block.names.is_empty() {
            let _ = write!(text, "  primary={}", block.primary_port);
        }
        for (name, port) in block.named_ports() {
            let _ = write!(text, "  {name}={port}");
        }
        return text;
    }
    serde_json::to_string(&allocation.allocation).unwrap_or_default()
}

/// For each session, whether no sibling comes after it.
fn last_of_siblings(plan: &Plan) -> Vec<bool> {
    let last: std::collections::HashSet<_> =
        plan.sessions.iter().filter_map(|session| session.children.last()).collect();
    plan.sessions.iter().map(|session| last.contains(&session.path)).collect()
}
