//! Renderings of a plan for review. Pure: a [`Review`] in, text out.
//!
//! This module is in the library, not in the command line. So every program that has a [`Plan`], new or read from a
//! file, shows the plan in one form, and tests need not run anything. Nothing here detects a terminal: the caller
//! passes the width and the use of colours.

mod folded;
pub(crate) mod html;
pub mod markdown;
mod mermaid;
mod outline;
pub mod text;

use std::sync::LazyLock;

use crate::host::text::thousands;
use crate::manifest::{SessionText, TextEntry};
use crate::observe::Observation;
use crate::plan::{Action, Plan, PlannedRepository, Session};
use crate::provider::{Allocation, Registry};

/// Plan under review, with its context.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Review<'a> {
    /// Plan to show.
    pub plan: &'a Plan,
    /// Kinds, which describe their allocations.
    pub registry: &'a Registry,
    /// Facts about this host and repository, one line each; they are not part of the plan.
    pub notices: &'a [String],
    /// Observation of the host, for the page that shows the owners of its ports; `None` for a plan that was read from a
    /// file.
    pub observation: Option<&'a Observation>,
}

impl<'a> Review<'a> {
    /// Creates the review of a plan without notices and without a host, for the built-in kinds.
    pub fn new(plan: &'a Plan) -> Self {
        static BUILT_IN: LazyLock<Registry> = LazyLock::new(Registry::built_in);
        Self { plan, registry: &BUILT_IN, notices: &[], observation: None }
    }

    /// Sets the kinds, which describe their allocations.
    #[must_use]
    pub fn with_registry(self, registry: &'a Registry) -> Self {
        Self { registry, ..self }
    }

    /// Adds facts about this host and repository.
    #[must_use]
    pub fn with_notices(self, notices: &'a [String]) -> Self {
        Self { notices, ..self }
    }

    /// Adds the host, whose ports the page shows.
    #[must_use]
    pub fn with_observation(self, observation: &'a Observation) -> Self {
        Self { observation: Some(observation), ..self }
    }

    /// Returns the plan as a tree.
    pub fn text(&self, style: text::Style) -> String {
        text::text(self, style)
    }

    /// Returns the plan as Markdown for a comment on a pull request, at most [`markdown::LIMIT`] bytes; parts that do
    /// not fit are counted.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// Returns the plan as a Mermaid graph, small enough for common renderers; parts that do not fit are counted.
    pub fn mermaid(&self) -> String {
        mermaid::mermaid(self)
    }

    /// Returns the plan as one self-contained HTML page.
    pub fn html(&self) -> String {
        html::html(self)
    }
}

/// All actions, in the order of summaries.
pub(crate) const ACTIONS: [Action; 6] =
    [Action::Create, Action::Replace, Action::Repair, Action::Update, Action::Keep, Action::Destroy];

/// Returns the number of sessions per planned action: `3 to create, 1 to keep`.
pub fn summary(plan: &Plan) -> String {
    counted(plan, |action| format!("to {}", verb(action)))
}

/// Returns the number of sessions per completed action: `3 created, 1 kept`.
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

/// Returns the ports of a session, or `-` if it has none.
pub fn ports(registry: &Registry, session: &Session) -> String {
    let ports = |allocation: &Allocation| registry.get(&allocation.kind)?.ports(allocation);
    let blocks: Vec<_> = session
        .allocations
        .iter()
        .filter_map(ports)
        .map(|block| format!("{}-{}", block.start(), block.end()))
        .collect();
    if blocks.is_empty() { "-".to_owned() } else { blocks.join(" ") }
}

/// Returns a line for each repository beside the workspace's own that sessions have worktrees of, and for each changed
/// value of the manifest.
fn conditions(plan: &Plan) -> Vec<String> {
    let line = |repository: &PlannedRepository| {
        format!("repository {}: {}", repository.name, repository.root.display())
    };
    let overrides = plan.overrides.iter().map(|given| format!("set for this plan: {given}"));
    plan.repositories.iter().map(line).chain(overrides).collect()
}

/// Returns the sign of an action, so that output without colours loses nothing.
pub(crate) fn sign(action: Action) -> &'static str {
    match action {
        Action::Create => "+",
        Action::Keep => "=",
        Action::Update => "~",
        Action::Repair => "!",
        Action::Replace => "±",
        Action::Destroy => "-",
    }
}

/// Returns the name of an action, as in the plan document.
pub(crate) fn verb(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Keep => "keep",
        Action::Update => "update",
        Action::Repair => "repair",
        Action::Replace => "replace",
        Action::Destroy => "destroy",
    }
}

/// Returns the action as a phrase behind a session's name; empty if the phrase is not needed.
fn phrase(action: Action) -> &'static str {
    match action {
        Action::Create => "",
        Action::Keep => "is kept",
        Action::Update => "is updated",
        Action::Repair => "is repaired",
        Action::Replace => "is replaced",
        Action::Destroy => "is destroyed",
    }
}

/// Entries of a session's text, by key of the session table.
type Entries<'t> = Vec<(&'static str, Vec<TextEntry<'t>>)>;

/// Returns the commands and conditions of a session, and the other entries of its text.
fn commands_and_others<'t>(text: &'t SessionText<'_>) -> (Entries<'t>, Entries<'t>) {
    let is_command = |entries: &[TextEntry<'_>]| {
        matches!(entries.first(), Some(TextEntry::Command(_) | TextEntry::Condition(_) | TextEntry::Work(_)))
    };
    text.entries().into_iter().partition(|(_, entries)| is_command(entries))
}
