//! Positions in a manifest's text: locations to spans, offsets to lines.

mod escapes;

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Location, LocationPart, Step};
use super::overrides::{self, Override};
use super::syntax;
use super::text::visible;

/// Returns the bytes of `text` to underline for each of these locations, never more than one line.
///
/// Parses the text again: a manifest without diagnostics needs no spans.
pub(super) fn spans<'p>(text: &str, locations: impl IntoIterator<Item = &'p Location>) -> Vec<Range<usize>> {
    spans_with(text, &[], locations).into_iter().map(|(_, span)| span).collect()
}

/// Returns the bytes to underline, as [`spans`] does. A location that one of `overrides` has set is in its argument.
pub(super) fn spans_with<'o, 'p>(
    text: &str,
    overrides: &'o [Override],
    locations: impl IntoIterator<Item = &'p Location>,
) -> Vec<(Option<&'o Override>, Range<usize>)> {
    let find = |spans: &Spans<'_>| {
        let find = |location| match overrides::find(spans.root.get_ref(), overrides, location) {
            Some((given, bytes)) => (Some(given), bytes),
            None => (None, spans.range(location)),
        };
        locations.into_iter().map(find).collect()
    };
    match syntax::parse(text) {
        Ok(root) => find(&Spans { text, root }),
        Err(rest) => find(&Spans { text: &rest.text, root: rest.table() }),
    }
}

/// Spans of a manifest's values.
struct Spans<'t> {
    /// Text without the statements whose syntax is broken.
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl Spans<'_> {
    /// Returns the bytes to underline for `location`, never more than one line.
    ///
    /// A missing value is shown at the nearest enclosing value that exists.
    fn range(&self, location: &Location) -> Range<usize> {
        let span = match location.part {
            LocationPart::Bytes(start, end) => start..end,
            _ => self.find(location),
        };
        self.on_one_line(span)
    }

    fn find(&self, location: &Location) -> Range<usize> {
        let Some((Step::Key(first), rest)) = location.steps.split_first() else { return 0..0 };
        let Some((key, mut value)) = self.root.get_ref().get_key_value(first.as_str()) else { return 0..0 };
        let mut key = Some(key.span());
        for step in rest {
            let next = match (step, value.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => {
                    table.get_key_value(name.as_str()).map(|(key, value)| (Some(key.span()), value))
                }
                (Step::Index(index), DeValue::Array(items)) => items.get(*index).map(|item| (None, item)),
                _ => None,
            };
            let Some(next) = next else { return value.span() };
            (key, value) = next;
        }
        match location.part {
            LocationPart::Key => key.unwrap_or_else(|| value.span()),
            LocationPart::Within(start, end) => {
                self.within(value, start..end).unwrap_or_else(|| value.span())
            }
            _ => value.span(),
        }
    }

    /// Returns the position in the text of bytes of a string's content, with any escapes in between.
    fn within(&self, value: &Spanned<DeValue<'_>>, bytes: Range<usize>) -> Option<Range<usize>> {
        let content = value.get_ref().as_str()?;
        let raw = self.text.get(value.span())?;
        let (start, end) = escapes::within(raw, content, bytes)?;
        Some(value.span().start + start..value.span().start + end)
    }

    fn on_one_line(&self, span: Range<usize>) -> Range<usize> {
        let start = floor_char(self.text, span.start);
        let end = floor_char(self.text, span.end.max(start));
        let line = self.text[start..end].split(['\n', '\r']).next().unwrap_or_default();
        start..start + line.len()
    }
}

/// Text of a manifest as shown: named, harmless to a terminal, with line lookup in logarithmic time.
///
/// miette's own sources are scanned from the start for each snippet, 18 ms on 2 MB.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

/// Length from which a line is shown in part, so that a file of one line is not repeated for each diagnostic.
const LINE_SHOWN_MAX: usize = 400;

impl Source {
    pub(super) fn new(name: String, text: &str) -> Self {
        let mut text = visible(text);
        // miette shows no label behind the last character of a text.
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, line_starts }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the line and the column of a byte, both from 1, the column in characters.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let column = self.text[self.line_starts[line]..floor_char(&self.text, offset)].chars().count();
        (line + 1, column + 1)
    }

    /// Returns the number of characters in the bytes.
    pub(super) fn characters(&self, bytes: Range<usize>) -> usize {
        self.text.get(bytes).map_or(0, |text| text.chars().count())
    }

    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) - 1
    }

    fn line_end(&self, line: usize) -> usize {
        self.line_starts.get(line + 1).copied().unwrap_or(self.text.len())
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let (start, end) = (span.offset(), span.offset() + span.len());
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let (first, last) = (self.line(start), self.line(end));
        let mut from = first.saturating_sub(lines_before);
        let mut to = (last + lines_after).min(self.line_starts.len() - 1);
        let long = |line: usize| self.line_end(line) - self.line_starts[line] > LINE_SHOWN_MAX;
        while from < first && (from..first).any(long) {
            from += 1;
        }
        while to > last && (last + 1..=to).any(long) {
            to -= 1;
        }
        if long(first) {
            from = first;
        }
        let (mut left, mut right) = (self.line_starts[from], self.line_end(to));
        // When miette requests no lines before, the snippet's head needs the line and column of the span itself.
        if lines_before == 0 {
            left = start;
        }
        if long(first) {
            left = left.max(floor_char(&self.text, start.saturating_sub(LINE_SHOWN_MAX / 4)));
            right = right.min(floor_char(&self.text, end.saturating_add(LINE_SHOWN_MAX / 4)));
        }
        let column = self.position(left).1 - 1;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            &self.text.as_bytes()[left..right],
            (left, right - left).into(),
            from,
            column,
            to + 1 - from,
        )))
    }
}

/// Returns the start of the character that byte `at` belongs to, or the end of the text.
fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
