//! HTML rendering of a plan, as one self-contained page. It needs no other file, no server and no network, and no
//! script for reading.
//!
//! The page's own content security policy names its script by hash, so that even an unescaped value could not run. All
//! values are escaped anyway, in one function: the formatter of [`environment`].

mod ports;
mod tree;

use std::collections::HashMap;

use data_encoding::BASE64;
use minijinja::{Environment, Error, UndefinedBehavior, Value, context};
use sha2::{Digest as _, Sha256};

use super::outline::{Entry, outline};
use super::{ACTIONS, Review, sign, verb};
use crate::host::text::{printable, printable_lines, thousands};
use crate::plan::Action;

const PAGE: &str = include_str!("html/page.html.j2");
pub(crate) const STYLE: &str = include_str!("html/page.css");
pub(crate) const SCRIPT: &str = include_str!("html/page.js");

/// Returns the page.
pub(super) fn html(review: &Review<'_>) -> String {
    // The template is part of the program; tests render every part of it.
    render(review).unwrap_or_else(|error| escape(&error.to_string()))
}

fn render(review: &Review<'_>) -> Result<String, Error> {
    let plan = review.plan;
    let entries = outline(review, false);
    let anchors = anchors(&entries);
    let (difference, kept) = difference(&entries, &anchors);
    let tree = tree::tree(&entries);
    let page = environment().render_str(
        PAGE,
        context! {
            policy => policy(),
            style => STYLE,
            script => SCRIPT,
            swarm => plan.swarm.as_str(),
            counts => counts(review),
            sessions => thousands(plan.sessions.len()),
            digest => plan.approval(),
            applied => plan.applied.as_deref(),
            notices => [super::conditions(plan), review.notices.to_vec()].concat(),
            difference,
            kept => (kept > 0).then(|| thousands(kept)),
            entries => tree.entries,
            is_cut => tree.is_cut,
            ports => ports::ports(review, &anchors),
        },
    )?;
    Ok(page + "\n")
}

/// Returns the content security policy of the page.
pub(crate) fn policy() -> String {
    format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        source(STYLE),
        source(SCRIPT)
    )
}

/// Returns the environment of the page's template. Every value that is not marked as safe is escaped.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("lines", |text: String| Value::from_safe_string(escape_lines(&text)));
    environment.set_formatter(|output, _, value| {
        let text = value.to_string();
        Ok(output.write_str(&if value.is_safe() { text } else { escape(&text) })?)
    });
    environment
}

/// Returns the number of sessions of each action.
fn counts(review: &Review<'_>) -> Vec<Value> {
    let count = |action| review.plan.changes.iter().filter(|change| change.action == action).count();
    let counts = ACTIONS.into_iter().map(|action| (action, count(action))).filter(|(_, count)| *count > 0);
    counts
        .map(|(action, count)| {
            context! { action => verb(action), sign => sign(action), count => thousands(count) }
        })
        .collect()
}

/// Returns the changes with their reasons, and the number of unchanged sessions.
///
/// Changes that may lose something come first.
fn difference(entries: &[Entry<'_>], anchors: &Anchors<'_>) -> (Vec<Value>, usize) {
    let mut changed = Vec::new();
    flatten(entries, &mut changed);
    let is_kept = |entry: &&Entry<'_>| entry.first().change.action == Action::Keep;
    let kept = changed.iter().copied().filter(is_kept).map(|entry| entry.members.len()).sum();
    changed.retain(|entry| !is_kept(entry));
    changed.sort_by_key(|entry| std::cmp::Reverse(entry.first().change.action));
    let row = |entry: &Entry<'_>| {
        let change = entry.first().change;
        let steps =
            [("releases", &change.release), ("creates", &change.provision), ("repairs", &change.repair)];
        let steps = steps.into_iter().filter(|(_, kinds)| !kinds.is_empty());
        context! {
            action => verb(change.action),
            sign => sign(change.action),
            anchor => anchors.get(change.session.as_str()).map_or("sessions", String::as_str),
            session => tree::path(entry),
            reasons => change.reasons.clone(),
            steps => steps.map(|(does, kinds)| format!("{does} {}", kinds.join(", "))).collect::<Vec<_>>(),
        }
    };
    (changed.into_iter().map(row).collect(), kept)
}

/// Anchor of each session in the page, by the session's path.
type Anchors<'p> = HashMap<&'p str, String>;

fn anchors<'p>(entries: &[Entry<'p>]) -> Anchors<'p> {
    let mut flat = Vec::new();
    flatten(entries, &mut flat);
    let numbered = flat.into_iter().enumerate();
    numbered
        .flat_map(|(at, entry)| {
            entry.members.iter().map(move |member| (member.path().as_str(), format!("s{at}")))
        })
        .collect()
}

fn flatten<'e, 'p>(entries: &'e [Entry<'p>], flat: &mut Vec<&'e Entry<'p>>) {
    for entry in entries {
        flat.push(entry);
        flatten(&entry.children, flat);
    }
}

/// Escapes text from outside, on one line, for text and attributes.
pub(crate) fn escape(text: &str) -> String {
    escaped(&printable(text))
}

/// Escapes text that may have several lines.
fn escape_lines(text: &str) -> String {
    escaped(&printable_lines(text))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns the source expression of a script or a style for a content security policy.
fn source(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(&Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_never_markup() {
        assert_eq!(
            escape("<a b=\"c\" d='e'>&amp;\n\u{202e}"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;\\n\\u{202e}"
        );
        assert_eq!(escape_lines("a\n<\u{1b}"), "a\n&lt;\\u{1b}");
    }

    #[test]
    fn style_and_script_stay_inside_their_elements() {
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains("</") && !text.contains("<!--"));
            assert!(!text.contains("http") && !text.contains("@import"), "the page loads nothing");
        }
    }
}
