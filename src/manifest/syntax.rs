//! Faults of syntax, in better words than the parser's, and what can be read around them.
//!
//! A parser that goes on behind a fault takes what follows for what it is not. Here the statement with the fault is
//! blanked instead, and the text parsed anew: everything else is then where and what it was.

mod explain;
mod statements;

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::fault::{Fault, Place};
use super::rule;
use statements::{Opener, Statement};

/// How often a text is blanked and parsed anew. What is found behind a fault is seldom hidden by another.
const PASSES: usize = 8;

/// Reads a text; the error is what can be read of one with faults of syntax.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Sound> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() { Ok(table) } else { Err(Sound::of(text)) }
}

/// What of a text with faults can be read.
pub(super) struct Sound {
    /// The text with the statements blanked that have faults, byte for byte as long.
    pub(super) text: String,
    /// The faults, in no order.
    pub(super) faults: Vec<Fault>,
    /// Whether what is left can be read.
    pub(super) is_readable: bool,
}

impl Sound {
    /// What is left when whatever is wrong with it has been blanked.
    pub(super) fn table(&self) -> Spanned<DeTable<'_>> {
        DeTable::parse_recoverable(&self.text).0
    }

    fn of(text: &str) -> Self {
        let mut sound = Self { text: text.to_owned(), faults: Vec::new(), is_readable: true };
        if let Some(fault) = explain::other_language(text) {
            return Self { faults: vec![fault], is_readable: false, ..sound };
        }
        sound.blank_unclosed();
        // Of a line only the first error is told: the others are mostly what the parser makes of the first.
        let mut told = BTreeSet::new();
        for _ in 0..PASSES {
            let statements = statements::of(&sound.text);
            let mut wrong = BTreeSet::new();
            for error in self::errors(&sound.text) {
                let span = error.span().unwrap_or(text.len()..text.len());
                let at = statements.partition_point(|statement| statement.range.start <= span.start);
                let at = at.saturating_sub(1);
                let statement = statements.get(at).map(|statement| statement.range.clone());
                let line = statement.clone().unwrap_or_default().start.max(line_start(text, span.start));
                let is_duplicate = error.message() == "duplicate key";
                if told.insert((line, is_duplicate)) {
                    sound.faults.push(explain::fault(
                        error.message(),
                        span,
                        &statement.unwrap_or_default(),
                        text,
                    ));
                }
                // Two values for a key break nothing else.
                if !is_duplicate {
                    wrong.insert(at);
                }
            }
            if wrong.is_empty() {
                return sound;
            }
            sound.blank(&statements, &wrong);
        }
        sound.is_readable = self::errors(&sound.text).iter().all(|error| error.message() == "duplicate key");
        sound
    }

    /// What is opened and never closed makes nonsense of all that follows, and is looked for first.
    fn blank_unclosed(&mut self) {
        let statements = statements::of(&self.text);
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
            let place = Place::bytes(opened.at..opened.at + opened.what.length());
            let fault = Fault::new(rule::SYNTAX, place, format!("{what} is not closed"), "opened here");
            self.faults.push(fault.with_help(help));
        }
        if !wrong.is_empty() {
            self.blank(&statements, &wrong);
        }
    }

    /// Blanks these statements; with a header everything below it, which would belong to another table.
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

/// The line that a byte is on, without its end.
fn line_of(text: &str, at: usize) -> Range<usize> {
    let start = line_start(text, at);
    let end = text[start..].find(['\n', '\r']).map_or(text.len(), |length| start + length);
    start..end
}
