//! Text rendering of a plan, as a tree for a terminal.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::outline::{Entry, Member, outline};
use super::{Review, folded, phrase, sign};
use crate::host::text::printable;
use crate::manifest::{FILES, TextEntry};
use crate::plan::Action;
use crate::provider::Allocation;

/// Options of the tree.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Style {
    /// Number of columns: longer lines continue on the next line, with a hanging indent.
    ///
    /// `None` never wraps, so that other programs find each fact on one line.
    pub width: Option<usize>,
    /// `true` if actions are coloured. No information depends on colour.
    pub color: bool,
    /// `true` if every session is shown separately and completely, even if many are similar.
    pub full: bool,
}

impl Style {
    /// Sets the number of columns.
    #[must_use]
    pub fn with_width(self, width: Option<usize>) -> Self {
        Self { width, ..self }
    }

    /// Sets whether actions are coloured.
    #[must_use]
    pub fn with_color(self, color: bool) -> Self {
        Self { color, ..self }
    }

    /// Sets whether every session is written separately and completely.
    #[must_use]
    pub fn with_full(self, full: bool) -> Self {
        Self { full, ..self }
    }
}

/// Start of the second column in a session's details.
const KIND: usize = 14;
/// Minimum width for wrapping; no real terminal is narrower.
const NARROW: usize = 24;

const BOLD: &str = "1";
const DIM: &str = "2";

/// Writes the tree.
pub(super) fn text(review: &Review<'_>, style: Style) -> String {
    let plan = review.plan;
    let mut page = Page { text: String::new(), style, folded: false };
    page.line("", "", 0, BOLD, &format!("swarm {}: {}", printable(&plan.swarm), super::summary(plan)));
    page.line("", "", 0, DIM, &format!("plan {}", printable(&plan.approval())));
    for condition in super::conditions(plan) {
        page.line("", "", 6, "", &printable(&condition));
    }
    page.text.push('\n');
    for entry in &outline(review, style.full) {
        page.entry(entry, "", "", "");
    }
    for notice in review.notices {
        page.text.push('\n');
        page.line("", "", 6, "", &format!("note: {}", printable(notice)));
    }
    if page.folded {
        page.text.push('\n');
        page.line("", "", 0, DIM, "Sessions that differ only in numbers are shown as one; -v shows each.");
    }
    page.text
}

struct Page {
    text: String,
    style: Style,
    folded: bool,
}

impl Page {
    /// Writes one entry and its descendants.
    ///
    /// `above` are the guides of the entry's own line, `below` the guides of the following lines, and `branch` the
    /// connector to its parent.
    fn entry(&mut self, entry: &Entry<'_>, above: &str, branch: &str, below: &str) {
        let member = entry.first();
        let mut heading = format!("{} {}", sign(member.change.action), printable(&entry.label()));
        if let Some(count) = entry.count() {
            let _ = write!(heading, "  ({count})");
            self.folded = true;
        }
        let notes = [if entry.is_spawned() { "spawned" } else { "" }, phrase(member.change.action)];
        let notes: Vec<_> = notes.into_iter().filter(|note| !note.is_empty()).collect();
        if !notes.is_empty() {
            let _ = write!(heading, "  ({})", notes.join(", "));
        }
        let inner = format!("{below}{}", if entry.children.is_empty() { "    " } else { "│   " });
        self.line(&format!("{above}{branch}"), &inner, 2, color(member.change.action), &heading);
        for (color, line) in details(entry, self.style.full) {
            self.line(&inner, &inner, KIND, color, &line);
        }
        for (at, child) in entry.children.iter().enumerate() {
            let is_last = at + 1 == entry.children.len();
            let (branch, guide) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.entry(child, below, branch, &format!("{below}{guide}"));
        }
    }

    /// Writes one line, wrapped if too long.
    ///
    /// The first part follows `lead`; the other parts follow `rest` and `indent` more columns.
    fn line(&mut self, lead: &str, rest: &str, indent: usize, color: &str, line: &str) {
        let width = self.style.width.map_or(usize::MAX, |width| width.max(NARROW));
        let lead_width = lead.width();
        // A hanging indent that leaves too little room is dropped.
        let indent = if rest.width() + indent + NARROW / 2 > width { 0 } else { indent };
        let rest_width = rest.width() + indent;
        for (at, part) in wrapped(line, width.saturating_sub(lead_width), width.saturating_sub(rest_width))
            .iter()
            .enumerate()
        {
            let (lead, indent) = if at == 0 { (lead, 0) } else { (rest, indent) };
            self.paint(DIM, lead.trim_end_matches(' '));
            let spaces = lead.len() - lead.trim_end_matches(' ').len() + indent;
            let _ = write!(self.text, "{:spaces$}", "");
            self.paint(color, part);
            self.text.truncate(self.text.trim_end().len());
            self.text.push('\n');
        }
    }

    fn paint(&mut self, color: &str, text: &str) {
        if self.style.color && !color.is_empty() && !text.is_empty() {
            let _ = write!(self.text, "\u{1b}[{color}m{text}\u{1b}[0m");
        } else {
            self.text.push_str(text);
        }
    }
}

/// Returns the allocations of a session and the reasons for its change, each line with its colour.
pub(super) fn details(entry: &Entry<'_>, full: bool) -> Vec<(&'static str, String)> {
    let Member { session, change } = entry.first();
    let mut lines: Vec<_> = change
        .reasons
        .iter()
        .map(|reason| (color(change.action), format!("because {}", printable(reason))))
        .collect();
    let Some(session) = session else { return lines };
    if change.action == Action::Keep && !entry.is_folded() && !full {
        let directory = printable(&session.working_directory.to_string_lossy());
        lines.push((DIM, format!("{directory}  {}", super::ports(entry.registry, session))));
        return lines;
    }
    let shade = if change.action == Action::Keep { DIM } else { "" };
    for (at, allocation) in session.allocations.iter().enumerate() {
        lines.push((shade, column(allocation.name(), &folded::description(entry, at, allocation))));
        lines.extend(folded::notes(entry, at).into_iter().map(|note| (shade, column("", &note))));
        if full {
            lines.extend(options_and_program(allocation).iter().map(|line| (shade, column("", line))));
        }
    }
    let text = session.text();
    if !text.files.is_empty() && !full {
        let paths: Vec<_> = text.files.keys().map(String::as_str).collect();
        lines.push((shade, column(FILES, &paths.join(", "))));
    }
    let (commands, others) = super::commands_and_others(&text);
    for (key, entries) in commands.into_iter().chain(others.into_iter().filter(|_| full)) {
        for (at, entry) in entries.into_iter().enumerate() {
            let line = match entry {
                TextEntry::Variable(name, value) => format!("{name}={value}"),
                TextEntry::Value(name, value) => format!("{name} = {value}"),
                TextEntry::File(path, file) => format!("{path} = {:?}", file.text),
                TextEntry::Section(_)
                | TextEntry::Command(_)
                | TextEntry::Condition(_)
                | TextEntry::Work(_) => entry.shown(),
            };
            lines.push((shade, column(if at == 0 { key } else { "" }, &line)));
        }
    }
    lines
}

/// Returns the options and the external program of an allocation, which decide its files and the programs that run.
fn options_and_program(allocation: &Allocation) -> Vec<String> {
    let options = allocation.options.iter().map(|(name, value)| format!("{name} = {value}"));
    let program = allocation.external.iter().map(|external| {
        let words: Vec<_> = external.command.iter().map(|word| format!("{word:?}")).collect();
        format!("created by the program {}", words.join(" "))
    });
    options.chain(program).collect()
}

/// Returns a line of two columns, safe to print.
fn column(name: &str, value: &str) -> String {
    format!("{name:<width$} {}", printable(value), width = KIND - 1)
}

/// Returns the colour of an action, as a number of terminal escape codes.
fn color(action: Action) -> &'static str {
    match action {
        Action::Create => "32",
        Action::Keep => DIM,
        Action::Update => "36",
        Action::Repair => "33",
        Action::Replace => "35",
        Action::Destroy => "31",
    }
}

/// Cuts a line at spaces: the first part has at most `first` columns, the others at most `rest`.
///
/// A word that is too long for any line is cut at the end of a line.
fn wrapped(line: &str, first: usize, rest: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut left = line;
    let mut room = first;
    while left.width() > room {
        let mut end = 0;
        let mut columns = 0;
        for (at, c) in left.char_indices() {
            columns += c.width().unwrap_or_default();
            // Every line has at least one character, at any width.
            if columns > room && at > 0 {
                break;
            }
            end = at + c.len_utf8();
        }
        let fits = &left[..end];
        let space = if left[end..].starts_with(' ') { Some(end) } else { fits.rfind(' ') };
        // A line is not cut at its leading spaces, nor before a word that is too long for any line.
        let is_place = |space: &usize| {
            let word = left[*space..].split_whitespace().next().unwrap_or_default();
            !left[..*space].trim().is_empty() && word.width() <= rest
        };
        let end = space.filter(is_place).unwrap_or(end);
        parts.push(left[..end].trim_end());
        left = left[end..].trim_start();
        room = rest.max(1);
    }
    if !left.is_empty() || parts.is_empty() {
        parts.push(left);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_spaces() {
        let check =
            |line, first, rest, expected: &[&str]| assert_eq!(wrapped(line, first, rest), expected, "{line}");
        check("", 10, 10, &[""]);
        check("one two three", 20, 20, &["one two three"]);
        check("one two three", 7, 5, &["one two", "three"]);
        check("one two three", 8, 5, &["one two", "three"]);
        check("one  two", 4, 4, &["one", "two"]);
        check("abcdefgh", 3, 4, &["abc", "defg", "h"]);
        check("   abcdefgh", 5, 4, &["   ab", "cdef", "gh"]);
        check("kind   abcdefgh", 9, 4, &["kind   ab", "cdef", "gh"]);
        check("日本語 です", 4, 6, &["日本", "語", "です"]);
        check("日本", 1, 1, &["日", "本"]);
        check("a\u{301}b", 1, 1, &["a\u{301}", "b"]);
    }
}
