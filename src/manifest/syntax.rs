//! Syntax errors, in clearer words than the parser's, and the readable rest of the text.
//!
//! A parser that continues behind an error misreads the text that follows. Instead, this module blanks the statement
//! with the error and parses the text again. Everything else keeps its position and meaning.

mod explain;
mod statements;

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::diagnostic::{Diagnostic, Location};
use super::rule;
use statements::{Opener, Statement};

/// Maximum number of times that a text is blanked and parsed again. An error is seldom hidden by more than one other
/// error.
const PASSES: usize = 8;

/// Parses a text; the error is the readable rest of a text with syntax errors.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, ReadableRest> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() { Ok(table) } else { Err(ReadableRest::parse(text)) }
}

/// Readable rest of a text with syntax errors.
pub(super) struct ReadableRest {
    /// Text of the same length in bytes, with the wrong statements blanked.
    pub(super) text: String,
    /// Diagnostics, in no order.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// `true` if the rest can be read.
    pub(super) is_readable: bool,
}

impl ReadableRest {
    /// Parses the rest, with all wrong statements blanked.
    pub(super) fn table(&self) -> Spanned<DeTable<'_>> {
        DeTable::parse_recoverable(&self.text).0
    }

    fn parse(text: &str) -> Self {
        let mut rest = Self { text: text.to_owned(), diagnostics: Vec::new(), is_readable: true };
        if let Some(diagnostic) = explain::other_language(text) {
            return Self { diagnostics: vec![diagnostic], is_readable: false, ..rest };
        }
        rest.blank_unclosed();
        // Only the first error of a line is reported: the others mostly follow from the first.
        let mut reported = BTreeSet::new();
        for _ in 0..PASSES {
            let statements = statements::parse(&rest.text);
            let mut wrong = BTreeSet::new();
            for error in self::errors(&rest.text) {
                let span = error.span().unwrap_or(text.len()..text.len());
                let at = statements.partition_point(|statement| statement.range.start <= span.start);
                let at = at.saturating_sub(1);
                let statement = statements.get(at).map(|statement| statement.range.clone());
                let line = statement.clone().unwrap_or_default().start.max(line_start(text, span.start));
                let is_duplicate = error.message() == "duplicate key";
                if reported.insert((line, is_duplicate)) {
                    rest.diagnostics.push(explain::diagnostic(
                        error.message(),
                        span,
                        &statement.unwrap_or_default(),
                        text,
                    ));
                }
                // A duplicate key breaks nothing else.
                if !is_duplicate {
                    wrong.insert(at);
                }
            }
            if wrong.is_empty() {
                return rest;
            }
            rest.blank(&statements, &wrong);
        }
        rest.is_readable = self::errors(&rest.text).iter().all(|error| error.message() == "duplicate key");
        rest
    }

    /// Blanks constructs that are opened and never closed. They make all following text meaningless, so they are found
    /// first.
    fn blank_unclosed(&mut self) {
        let statements = statements::parse(&self.text);
        let mut wrong = BTreeSet::new();
        for (at, statement) in statements.iter().enumerate() {
            let Some(opened) = &statement.unclosed else { continue };
            wrong.insert(at);
            let (what, help) = match opened.what {
                Opener::Array => ("an array", "write `]` where it ends"),
                Opener::Table => ("an inline table", "write `}` where it ends"),
                Opener::Basic => ("a string", "write `\"\"\"` where it ends"),
                Opener::Literal => ("a string", "write `'''` where it ends"),
                Opener::Line => (
                    "a string",
                    "close it on the same line; to have a quote inside of a string, put the other kind of quotes around it",
                ),
            };
            let location = Location::bytes(opened.at..opened.at + opened.what.length());
            let diagnostic =
                Diagnostic::new(rule::SYNTAX, location, format!("{what} is not closed"), "opened here");
            self.diagnostics.push(diagnostic.with_help(help));
        }
        if !wrong.is_empty() {
            self.blank(&statements, &wrong);
        }
    }

    /// Blanks these statements; below a wrong header also all statements, which would belong to another table.
    fn blank(&mut self, statements: &[Statement], wrong: &BTreeSet<usize>) {
        let mut bytes = self.text.as_bytes().to_vec();
        let mut below_header = false;
        for (at, statement) in statements.iter().enumerate() {
            if statement.is_header {
                below_header = wrong.contains(&at);
            }
            if below_header || wrong.contains(&at) {
                let statement = &mut bytes[statement.range.clone()];
                statement.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
            }
        }
        // Statements begin and end between characters.
        self.text = String::from_utf8_lossy(&bytes).into_owned();
    }
}

fn errors(text: &str) -> Vec<Error> {
    DeTable::parse_recoverable(text).1
}

fn line_start(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Returns the line that a byte is on, without its line end.
fn line_of(text: &str, at: usize) -> Range<usize> {
    let start = line_start(text, at);
    let end = text[start..].find(['\n', '\r']).map_or(text.len(), |length| start + length);
    start..end
}
