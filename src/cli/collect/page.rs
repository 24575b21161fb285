//! Markdown and HTML that `collect` prints. Every value is escaped.

use std::fmt::Write as _;

use seedbed::host::text::printable;
use seedbed::minijinja::value::Serde;
use seedbed::minijinja::{Environment, Error, UndefinedBehavior, Value, context};
use seedbed::report::collected::CollectedSwarm;

use super::super::last_runs;
use super::text;

const MARKDOWN: &str = include_str!("page.md.j2");
const HTML: &str = include_str!("page.html.j2");

/// Returns a comment for a pull request.
pub(super) fn markdown(swarm: &CollectedSwarm) -> String {
    render(MARKDOWN, swarm)
}

/// Returns a self-contained page.
pub(super) fn html(swarm: &CollectedSwarm) -> String {
    render(HTML, swarm)
}

fn render(template: &str, swarm: &CollectedSwarm) -> String {
    // The templates are part of the program; a test renders every part of them.
    let page = try_render(template, swarm);
    page.unwrap_or_else(|error| escape(&error.to_string())) + "\n"
}

fn try_render(template: &str, swarm: &CollectedSwarm) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_formatter(|output, _, value| Ok(output.write_str(&escape(&value.to_string()))?));
    let columns = text::Columns::new(swarm);
    let shown = swarm.worktrees.iter().map(|worktree| {
        let label = columns.label(&worktree.outcome.name());
        let work = worktree.outcome.work.as_ref();
        let last_run = worktree.last_run.as_ref().and_then(last_runs::described);
        context! { label, last_run, lines => work.map(text::lines), landed => work.map(text::landed) }
    });
    let shown: Vec<Value> = shown.collect();
    let overlaps: Vec<_> = swarm.overlaps.iter().map(|overlap| columns.labels(&overlap.worktrees)).collect();
    let conflicts: Vec<_> =
        swarm.conflicts.iter().map(|conflict| columns.labels(&conflict.worktrees)).collect();
    let has_conflicts = !swarm.conflicts.is_empty()
        || swarm
            .worktrees
            .iter()
            .filter_map(|worktree| worktree.outcome.work.as_ref())
            .any(|work| !work.conflicts.is_empty());
    let (has_worktree, has_repository) = (columns.has_worktree, columns.has_repository);
    let swarm = Value::from(Serde(swarm));
    environment.render_str(
        template,
        context! { swarm, shown, overlaps, conflicts, has_conflicts, has_worktree, has_repository },
    )
}

/// Replaces every character of a value that Markdown or HTML could read as markup by a character reference.
fn escape(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || " ,;/.+-:=()%\u{2026}".contains(c);
    printable(text).chars().fold(String::new(), |mut escaped, c| {
        if plain(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "&#{};", u32::from(c));
        }
        escaped
    })
}
