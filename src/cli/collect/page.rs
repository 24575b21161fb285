//! Markdown and HTML that `collect` prints. Every value is escaped.

use std::fmt::Write as _;

use seedbed::host::text::printable;
use seedbed::minijinja::value::Serde;
use seedbed::minijinja::{Environment, Error, UndefinedBehavior, Value, context};
use seedbed::report::collected::CollectedSwarm;

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
    let works = swarm.sessions.iter().map(|session| {
        let work = session.outcome.work.as_ref();
        work.map(|work| context! { lines => text::lines(work), landed => text::landed(work) })
    });
    let works: Vec<Option<Value>> = works.collect();
    let has_conflicts = !swarm.conflicts.is_empty()
        || swarm
            .sessions
            .iter()
            .filter_map(|session| session.outcome.work.as_ref())
            .any(|work| !work.conflicts.is_empty());
    let swarm = Value::from(Serde(swarm));
    environment
        .render_str(template, context! { swarm => swarm, works => works, has_conflicts => has_conflicts })
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
