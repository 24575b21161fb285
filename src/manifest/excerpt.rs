//! Excerpt of a manifest that shows a location in the style of diagnostics, without reporting one.

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, Severity, SourceCode};

use super::diagnostic::Location;
use super::positions::{self, Source};

/// One line of a manifest with a part of the line underlined; prints through miette.
#[derive(Debug)]
pub struct Excerpt {
    source: Source,
    span: Range<usize>,
    message: String,
    label: String,
}

impl Excerpt {
    /// Creates the excerpt of the line of `location`.
    ///
    /// `file_name` is the user's name for the file. `message` is printed above the line, and `label` below the
    /// underlined part.
    pub fn new(
        file_name: impl Into<String>,
        text: &str,
        location: &Location,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        let span = positions::spans(text, [location]).remove(0);
        let source = Source::new(file_name.into(), text);
        Self { source, span, message: message.into(), label: label.into() }
    }

    /// Returns the user's name for the manifest.
    pub fn file_name(&self) -> &str {
        self.source.name()
    }

    /// Returns the line and the column of the underlined part, both from 1, the column in characters.
    pub fn position(&self) -> (usize, usize) {
        self.source.position(self.span.start)
    }

    /// Returns the number of underlined characters.
    pub fn length(&self) -> usize {
        self.source.characters(self.span.clone())
    }

    /// Returns the text below the underlined part.
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Excerpt {}

impl Diagnostic for Excerpt {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Advice)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some(self.label.clone()), self.span.start, self.span.len());
        Some(Box::new(std::iter::once(label)))
    }
}
