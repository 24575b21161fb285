//! HTML rendering of a plan, as one self-contained page. It needs no other file, no server and no network, and no
//! script for reading.
//!
//! The page's own content security policy names its script by hash, so that even an unescaped value could not run. All
//! values are escaped anyway, in one function: [`escape`].

mod ports;
mod tree;

use std::collections::HashMap;
use std::fmt::Write as _;

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

use super::outline::{Entry, outline};
use super::{ACTIONS, Review, mark, verb};
use crate::host::text::{printable, printable_lines, thousands};
use crate::plan::Action;

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// Writes the page.
pub(super) fn html(review: &Review<'_>) -> String {
    let plan = review.plan;
    let entries = outline(review, false);
    let anchors = anchors(&entries);
    let map = ports::ports(review, &anchors);
    let mut page = head(&plan.swarm);
    page.push_str("<a class=\"skip\" href=\"#sessions\">To the sessions</a>\n");
    title(&mut page, review);
    let differs = plan.standing.is_some();
    bar(&mut page, differs, !map.is_empty());
    page.push_str("<main>\n");
    if differs {
        difference(&mut page, &entries, &anchors);
    }
    tree::tree(&mut page, &entries);
    page.push_str(&map);
    page.push_str(
        "</main>\n<footer>Written by seedbed. The page loads nothing and sends nothing.</footer>\n",
    );
    let _ = write!(page, "<script>{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

fn head(swarm: &str) -> String {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        source(STYLE),
        source(SCRIPT)
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>Plan of {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        escape(swarm)
    )
}

fn title(page: &mut String, review: &Review<'_>) {
    let plan = review.plan;
    let _ = write!(
        page,
        "<header>\n<p>seedbed plan</p>\n<h1>{}</h1>\n<ul class=\"counts\">\n",
        escape(&plan.swarm)
    );
    for action in ACTIONS {
        let count = plan.changes.iter().filter(|change| change.action == action).count();
        if count > 0 {
            let name = verb(action);
            let _ = writeln!(
                page,
                "<li class=\"{name}\"><b>{} {}</b> to {name}</li>",
                mark(action),
                thousands(count)
            );
        }
    }
    page.push_str("</ul>\n<dl class=\"facts\">\n");
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    };
    fact("Sessions", &thousands(plan.sessions.len()));
    fact("Plan", &format!("<code>{}</code>", escape(&plan.digest)));
    match &plan.standing {
        Some(standing) => fact("Stands", &format!("<code>{}</code>", escape(standing))),
        None => fact("Stands", "nothing yet"),
    }
    page.push_str("</dl>\n");
    if !review.notices.is_empty() {
        page.push_str("<ul class=\"notices\">\n");
        for notice in review.notices {
            let _ = writeln!(page, "<li>{}</li>", escape(notice));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</header>\n");
}

fn bar(page: &mut String, differs: bool, ports: bool) {
    page.push_str("<div class=\"bar\"><div>\n<nav aria-label=\"Parts of the page\">");
    let sections =
        [("difference", "Difference", differs), ("sessions", "Sessions", true), ("ports", "Ports", ports)];
    for (id, name, _) in sections.iter().filter(|(_, _, there)| *there) {
        let _ = write!(page, "<a href=\"#{id}\">{name}</a>");
    }
    page.push_str(
        "</nav>\n<form id=\"search\" role=\"search\" hidden>\n\
         <input id=\"query\" type=\"search\" autocomplete=\"off\" spellcheck=\"false\" \
         aria-label=\"Search the sessions\" aria-keyshortcuts=\"/\" \
         placeholder=\"Name, port, path, value (press /)\">\n\
         <output id=\"found\" for=\"query\"></output>\n</form>\n</div></div>\n",
    );
}

/// Writes the changes with their reasons; changes that may lose something come first.
fn difference(page: &mut String, entries: &[Entry<'_>], anchors: &Anchors<'_>) {
    let mut changed = Vec::new();
    flatten(entries, &mut changed);
    let kept: usize = changed
        .iter()
        .filter(|entry| entry.first().change.action == Action::Keep)
        .map(|entry| entry.members.len())
        .sum();
    changed.retain(|entry| entry.first().change.action != Action::Keep);
    changed.sort_by_key(|entry| std::cmp::Reverse(entry.first().change.action));
    page.push_str("<section aria-labelledby=\"difference\">\n<h2 id=\"difference\">Difference</h2>\n");
    if !changed.is_empty() {
        page.push_str(
            "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">What</th>\
             <th scope=\"col\">Session</th><th scope=\"col\">Why</th>\
             <th scope=\"col\">What is done</th></tr></thead>\n<tbody>\n",
        );
        for entry in changed {
            let change = entry.first().change;
            let why: String =
                change.reasons.iter().fold(String::new(), |list, why| list + "<li>" + &escape(why) + "</li>");
            let steps =
                [("releases", &change.release), ("makes", &change.provision), ("mends", &change.mend)];
            let steps = steps
                .iter()
                .filter(|(_, kinds)| !kinds.is_empty())
                .fold(String::new(), |list, (does, kinds)| {
                    list + "<li>" + does + " " + &escape(&kinds.join(", ")) + "</li>"
                });
            let _ = writeln!(
                page,
                "<tr class=\"{name}\"><td class=\"verb\"><b>{}</b> {name}</td><th scope=\"row\"><a href=\"#{}\">{}</a></th>\
                 <td><ul>{why}</ul></td><td><ul>{steps}</ul></td></tr>",
                mark(change.action),
                anchors.get(change.session.as_str()).map_or("sessions", String::as_str),
                escape(&tree::path(entry)),
                name = verb(change.action),
            );
        }
        page.push_str("</tbody>\n</table></div>\n");
    }
    if kept > 0 {
        let _ = writeln!(page, "<p class=\"more\">{} sessions stay as they are.</p>", thousands(kept));
    }
    page.push_str("</section>\n");
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
fn escape(text: &str) -> String {
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
    fn nothing_of_a_value_is_markup() {
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
