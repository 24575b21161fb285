//! Mermaid rendering of a plan: the tree of sessions with paths and ports, and actions as classes.

use std::fmt::Write as _;

use super::outline::{Entry, outline};
use super::{Review, summary, verb};
use crate::host::text::thousands;
use crate::plan::Action;

/// Maximum length of the graph, in characters, and maximum number of edges.
///
/// GitHub and Mermaid's own default draw up to 50,000 characters and 500 edges.
const CHARACTERS: usize = 45_000;
const EDGES: usize = 400;
/// Maximum number of characters in one line of a label.
const LINE: usize = 100;

/// Styles of the actions, readable on a light or a dark background: each class sets its own colours.
const CLASSES: [(Action, &str); 6] = [
    (Action::Create, "fill:#dafbe1,stroke:#1a7f37,color:#0b3d1c"),
    (Action::Keep, "fill:#f1f3f5,stroke:#6b7280,color:#374151"),
    (Action::Update, "fill:#ddf4ff,stroke:#0969da,color:#0a3069"),
    (Action::Repair, "fill:#fff8c5,stroke:#9a6700,color:#4d2d00"),
    (Action::Replace, "fill:#fbefff,stroke:#8250df,color:#3e1f79"),
    (Action::Destroy, "fill:#ffebe9,stroke:#cf222e,color:#6e011a"),
];

/// Writes the graph.
pub(super) fn mermaid(review: &Review<'_>) -> String {
    let plan = review.plan;
    let mut graph = Graph { text: "flowchart LR\n".to_owned(), nodes: 0, left_out: 0 };
    let title = [label(&plan.swarm), label(&summary(plan))].join("<br/>");
    let _ = writeln!(graph.text, "  swarm([\"{title}\"])");
    for entry in &outline(review, false) {
        graph.entry(entry, "swarm");
    }
    if graph.left_out > 0 {
        let more = label(&format!("… and {} more sessions", thousands(graph.left_out)));
        let _ = writeln!(graph.text, "  more[\"{more}\"]\n  swarm --> more");
    }
    for (action, style) in CLASSES {
        // No semicolon at the end: Mermaid parses a colour with a semicolon as an entity.
        let _ = writeln!(graph.text, "  classDef {} {style}", verb(action));
    }
    graph.text
}

struct Graph {
    text: String,
    nodes: usize,
    left_out: usize,
}

impl Graph {
    fn entry(&mut self, entry: &Entry<'_>, parent: &str) {
        let id = format!("s{}", self.nodes);
        let action = entry.first().change.action;
        let mut lines = vec![label(&format!("{} {}", verb(action), entry.label()))];
        lines.extend(entry.count().map(|count| label(&count)));
        lines.extend(entry.is_spawned().then(|| "spawned".to_owned()));
        for (at, allocation) in entry.first().allocations().iter().enumerate() {
            let what = if entry.is_folded() {
                super::folded::summary_of_all(entry, at)
            } else {
                entry.summary(allocation)
            };
            // Most sessions have one resource of a kind, without a name of its own.
            let name = if allocation.name() == allocation.kind { "" } else { allocation.name() };
            let separator = if name.is_empty() { "" } else { ": " };
            lines.push(label(&format!("{name}{separator}{what}")));
        }
        let node = format!("  {id}[\"{}\"]:::{}\n  {parent} --> {id}\n", lines.join("<br/>"), verb(action));
        if self.nodes >= EDGES || self.text.len() + node.len() > CHARACTERS {
            self.leave_out(entry);
            return;
        }
        self.text.push_str(&node);
        self.nodes += 1;
        for child in &entry.children {
            self.entry(child, &id);
        }
    }

    fn leave_out(&mut self, entry: &Entry<'_>) {
        self.left_out += entry.members.len();
        entry.children.iter().for_each(|child| self.leave_out(child));
    }
}

/// Returns one line of a label; every special character of Mermaid or HTML is written as a Mermaid entity.
fn label(line: &str) -> String {
    let line = crate::host::text::printable(line);
    let mut text = String::new();
    for (at, c) in line.chars().enumerate() {
        if at == LINE {
            text.push('…');
            break;
        }
        if c.is_ascii_alphanumeric() || !c.is_ascii() || " .,-/_+=".contains(c) {
            text.push(c);
        } else {
            let _ = write!(text, "#{};", u32::from(c));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_hold_nothing_that_mermaid_looks_at() {
        assert_eq!(label("lead/coder-0 …"), "lead/coder-0 …");
        assert_eq!(label("\"];x-->y"), "#34;#93;#59;x--#62;y");
        assert_eq!(label("<b>&#1;"), "#60;b#62;#38;#35;1#59;");
        assert_eq!(label("a\nb"), "a#92;nb");
        assert_eq!(label(&"x".repeat(200)).chars().count(), LINE + 1);
    }
}
