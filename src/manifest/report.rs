//! The faults of a manifest as a user sees them.

mod github;
mod sarif;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::fault::{Diagnostics, Fault};
use super::source::{self, Source};
use super::words::escaped;

/// Every fault of one manifest, in the order of the text; prints through miette.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    faults: Vec<Shown>,
    /// How many of the faults are printed.
    printed: usize,
}

/// One fault of a [`Report`] as data, for output that programs read.
///
/// Lines and columns count from 1; columns count Unicode code points, neither bytes nor UTF-16 units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Entry {
    /// The rule that the manifest does not meet, e.g. `unknown-key`. An id once published keeps its meaning.
    pub rule: String,
    /// The line it begins on.
    pub line: usize,
    /// The column it begins at.
    pub column: usize,
    /// The line it ends on; the one it begins on.
    pub end_line: usize,
    /// The column behind its last character; `column` where something is missing there.
    pub end_column: usize,
    /// How many characters are meant; 0 where something is missing there.
    pub length: usize,
    /// What is wrong, one line.
    pub message: String,
    /// What to say at the span, a few words.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// What `seedbed validate --format json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:faults:1"))]
#[non_exhaustive]
pub struct Validation {
    /// Version of this document's format, 1.
    #[schemars(extend("const" = 1))]
    pub schema_version: u32,
    /// Whether the manifest has no fault.
    pub valid: bool,
    /// What the user knows the manifest by.
    pub file: String,
    /// How many sessions it declares; `null` where it has faults.
    pub sessions: Option<usize>,
    /// Every fault, in the order of the text.
    pub faults: Vec<Entry>,
}

impl Validation {
    /// The outcome for a manifest of so many sessions, without a fault.
    pub fn of_sessions(file: &str, sessions: usize) -> Self {
        let file = file.to_owned();
        Self { schema_version: 1, valid: true, file, sessions: Some(sessions), faults: Vec::new() }
    }
}

impl Report {
    /// Finds the place of every fault in the manifest's text, sorts them and drops repetitions. `file_name` is what the
    /// user knows the file by.
    ///
    /// Faults may come from any stage, so long as they are faults of this text.
    pub fn new(file_name: impl Into<String>, text: &str, faults: impl Into<Diagnostics>) -> Self {
        let faults = faults.into();
        let source = Arc::new(Source::new(file_name.into(), text));
        let spans = source::spans(text, faults.iter().map(|fault| &fault.place));
        let shown = |(fault, span)| Shown { span, fault, source: Arc::clone(&source) };
        let mut faults: Vec<Shown> = faults.into_iter().zip(spans).map(shown).collect();
        faults.sort_by(|a, b| {
            let key = |shown: &Shown| (shown.span.start, shown.span.end);
            key(a).cmp(&key(b)).then_with(|| a.fault.message.cmp(&b.fault.message))
        });
        let mut seen = HashSet::new();
        faults.retain(|shown| seen.insert((shown.span.clone(), shown.fault.message.clone())));
        let printed = faults.len();
        Self { source, faults, printed }
    }

    /// The same report, of which only the first `most` faults are printed, with how many more there are. As data all of
    /// them are given.
    #[must_use]
    pub fn printing(mut self, most: usize) -> Self {
        self.printed = self.faults.len().min(most);
        self
    }

    /// What the user knows the manifest by.
    pub fn file_name(&self) -> &str {
        self.source.name()
    }

    /// The document that `validate --format json` prints.
    pub fn validation(&self) -> Validation {
        let file = self.file_name().to_owned();
        Validation { schema_version: 1, valid: false, file, sessions: None, faults: self.faults().collect() }
    }

    /// A SARIF 2.1.0 log, of a tool of this version.
    pub fn sarif(&self, version: &str) -> Value {
        sarif::log(self, version)
    }

    /// One workflow command of GitHub Actions a fault, which shows it at its line.
    pub fn github(&self) -> String {
        github::annotations(self)
    }

    /// The faults as data, in the order of the text.
    pub fn faults(&self) -> impl Iterator<Item = Entry> {
        self.faults.iter().map(|Shown { source, span, fault }| {
            let (line, column) = source.position(span.start);
            let length = source.characters(span.clone());
            Entry {
                rule: fault.rule.id.to_owned(),
                line,
                column,
                // A span never goes past its line's end.
                end_line: line,
                end_column: column + length,
                length,
                message: fault.message.clone(),
                label: fault.label.clone(),
                help: fault.help.as_deref().map(str::to_owned),
            }
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = escaped(self.source.name());
        match self.faults.len() {
            1 => write!(f, "{name} has a fault"),
            count if count > self.printed => {
                write!(f, "{name} has {count} faults, of which these are the first {}", self.printed)
            }
            count => write!(f, "{name} has {count} faults"),
        }
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.faults.iter().take(self.printed).map(|fault| fault as &dyn Diagnostic)))
    }
}

/// A fault with its place found.
#[derive(Debug)]
struct Shown {
    span: Range<usize>,
    fault: Fault,
    source: Arc<Source>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.fault.rule))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some(self.fault.label.clone()), self.span.start, self.span.len());
        Some(Box::new(std::iter::once(label)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.fault.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
}
