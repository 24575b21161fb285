//! The faults of a manifest as a user sees them.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};
use serde::Serialize;

use super::fault::Fault;
use super::source::{Source, Spans};
use super::words::escaped;

/// Every fault of one manifest, in the order of the text; prints through miette.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    faults: Vec<Shown>,
}

/// One fault of a [`Report`] as data, for output that programs read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The line it begins on, 1-based.
    pub line: usize,
    /// The column it begins at, 1-based, in characters.
    pub column: usize,
    /// How many characters are meant; 0 where something is missing there. Never goes past the line's end.
    pub length: usize,
    /// What is wrong, one line.
    pub message: String,
    /// What to say at the span, a few words.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Report {
    /// Finds the place of every fault in the manifest's text, sorts them and drops repetitions. `file_name` is what the
    /// user knows the file by.
    ///
    /// Faults may come from any stage, so long as they are faults of this text.
    pub fn new(file_name: impl Into<String>, text: &str, faults: Vec<Fault>) -> Self {
        let source = Arc::new(Source::new(file_name.into(), text));
        let spans = Spans::new(text);
        let shown = |fault: Fault| Shown { span: spans.of(&fault.place), fault, source: Arc::clone(&source) };
        let mut faults: Vec<Shown> = faults.into_iter().map(shown).collect();
        faults.sort_by(|a, b| {
            let key = |shown: &Shown| (shown.span.start, shown.span.end);
            key(a).cmp(&key(b)).then_with(|| a.fault.message.cmp(&b.fault.message))
        });
        let mut seen = HashSet::new();
        faults.retain(|shown| seen.insert((shown.span.clone(), shown.fault.message.clone())));
        Self { source, faults }
    }

    /// The faults as data, in the order of the text.
    pub fn faults(&self) -> impl Iterator<Item = Entry> {
        self.faults.iter().map(|Shown { source, span, fault }| {
            let (line, column) = source.position(span.start);
            Entry {
                line,
                column,
                length: source.characters(span.clone()),
                message: fault.message.clone(),
                label: fault.label.clone(),
                help: fault.help.clone(),
            }
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = escaped(self.source.name());
        match self.faults.len() {
            1 => write!(f, "{name} has a fault"),
            count => write!(f, "{name} has {count} faults"),
        }
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.faults.iter().map(|fault| fault as &dyn Diagnostic)))
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
