//! A plan as people review it. Pure: a [`Review`] in, text out.
//!
//! In the library, not in the command line: whoever has a [`Plan`], made just now or read from a file, shows it the
//! same way, and what is shown can be tested without running anything. Nothing here knows of a terminal; its width and
//! whether it has colours are told.

mod folded;
mod html;
pub mod markdown;
mod mermaid;
mod outline;
pub mod text;

use std::fmt::Write as _;

use self::outline::thousands;
use crate::manifest::CommandLine;
use crate::observe::Observation;
use crate::plan::{Action, Plan, Session};
use crate::provider::Allocation;
use crate::provider::git_worktree::{Existing, Worktree};
use crate::provider::port_range::Block;

/// What is reviewed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Review<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What is true of this host and repository alone, one line each.
    pub notices: &'a [String],
    /// The host, for the page that shows whose its ports are; `None` for a plan that was read from a file.
    pub observation: Option<&'a Observation>,
}

impl<'a> Review<'a> {
    /// Returns the review of a plan without notices and without a host.
    pub fn new(plan: &'a Plan) -> Self {
        Self { plan, notices: &[], observation: None }
    }

    /// Adds what is true of this host and repository alone.
    #[must_use]
    pub fn with_notices(self, notices: &'a [String]) -> Self {
        Self { notices, ..self }
    }

    /// Adds the host, whose ports the page shows.
    #[must_use]
    pub fn with_observation(self, observation: &'a Observation) -> Self {
        Self { observation: Some(observation), ..self }
    }

    /// The plan as a tree.
    pub fn text(&self, style: text::Style) -> String {
        text::text(self, style)
    }

    /// The plan as Markdown for a comment on a pull request, at most [`markdown::LIMIT`] bytes: what does not fit is
    /// counted.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// The plan as a Mermaid graph, small enough for what draws them; what does not fit is counted.
    pub fn mermaid(&self) -> String {
        mermaid::mermaid(self)
    }

    /// The plan as one HTML page that needs nothing else.
    pub fn html(&self) -> String {
        html::html(self)
    }
}

/// Every action, in the order that summaries name them.
const ACTIONS: [Action; 6] =
    [Action::Create, Action::Replace, Action::Repair, Action::Update, Action::Keep, Action::Destroy];

/// How many sessions come, stay and go: `3 to create, 1 to keep`.
pub fn summary(plan: &Plan) -> String {
    counted(plan, |action| format!("to {}", verb(action)))
}

/// How many sessions came, stayed and went, once the plan is applied: `3 created, 1 kept`.
pub fn outcome(plan: &Plan) -> String {
    counted(plan, |action| match action {
        Action::Create => "created".to_owned(),
        Action::Replace => "replaced".to_owned(),
        Action::Repair => "repaired".to_owned(),
        Action::Update => "updated".to_owned(),
        Action::Keep => "kept".to_owned(),
        Action::Destroy => "destroyed".to_owned(),
    })
}

fn counted(plan: &Plan, what: impl Fn(Action) -> String) -> String {
    let count = |action| plan.changes.iter().filter(|change| change.action == action).count();
    let parts: Vec<_> = ACTIONS
        .into_iter()
        .filter(|action| count(*action) > 0)
        .map(|action| format!("{} {}", thousands(count(action)), what(action)))
        .collect();
    if parts.is_empty() { "no sessions".to_owned() } else { parts.join(", ") }
}

/// The ports of a session, `-` where it has none.
pub fn ports(session: &Session) -> String {
    let blocks: Vec<_> = session
        .allocations
        .iter()
        .filter_map(Block::of)
        .map(|block| format!("{}-{}", block.start_port, block.end_port))
        .collect();
    if blocks.is_empty() { "-".to_owned() } else { blocks.join(" ") }
}

/// The sign that stands for an action, so that nothing is lost without colour.
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

/// What an action is called, as in the plan document.
fn verb(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Keep => "keep",
        Action::Update => "update",
        Action::Repair => "repair",
        Action::Replace => "replace",
        Action::Destroy => "destroy",
    }
}

/// What happens, beside the name of whom it happens to; empty where that need not be said.
fn said(action: Action) -> &'static str {
    match action {
        Action::Create => "",
        Action::Keep => "stands",
        Action::Update => "is told anew",
        Action::Repair => "is repaired",
        Action::Replace => "is replaced",
        Action::Destroy => "is destroyed",
    }
}

/// A command as the manifest writes it: a line for the shell, or an array.
fn command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(line) => line.clone(),
        CommandLine::Arguments(words) => serde_json::to_string(words).unwrap_or_default(),
    }
}

/// The branch of a worktree, and whether it is created or goes on from where it is.
fn branch_of(branch: &str, worktree: &Worktree, is_made: bool) -> String {
    let base_ref = &worktree.base_ref;
    match &worktree.existing {
        None if is_made => format!("{branch} (new) from {base_ref}"),
        None => format!("{branch} from {base_ref}"),
        // One that did not contain the commit would not be taken.
        Some(Existing { ahead, .. }) => format!("{branch} (exists, {ahead} ahead, 0 behind {base_ref})"),
    }
}

/// The files that are brought into a worktree, by the globs of the manifest.
fn brought(worktree: &Worktree) -> String {
    let bring = |verb: &str, globs: &[String]| {
        if globs.is_empty() { String::new() } else { format!("  {verb} {}", globs.join(", ")) }
    };
    bring("copies", &worktree.copy) + &bring("links", &worktree.link)
}

/// What was decided for one resource, on one line.
fn allocated(allocation: &Allocation, is_made: bool) -> String {
    if let Some(worktree) = Worktree::of(allocation) {
        let mut text = format!(
            "{}  {} @ {:.10}",
            worktree.worktree_path.display(),
            worktree
                .branch
                .as_ref()
                .map_or_else(|| worktree.base_ref.clone(), |branch| branch_of(branch, &worktree, is_made)),
            worktree.commit
        );
        if let Some(target) = &worktree.target_path {
            let _ = write!(text, "  only {target}");
        }
        text.push_str(&brought(&worktree));
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
