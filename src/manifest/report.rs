//! Report of a manifest's diagnostics, as shown to users.

mod github;
mod sarif;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{LabeledSpan, SourceCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::overrides::Override;
use super::positions::{self, Source};
use super::text::escaped;

/// Every diagnostic of one manifest, in the order of the text; prints through miette.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    diagnostics: Vec<Shown>,
    /// Number of diagnostics that are printed.
    printed: usize,
}

/// One diagnostic of a manifest as data, for output that programs read.
///
/// Lines and columns count from 1; columns count Unicode code points, neither bytes nor UTF-16 units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Entry {
    /// Rule that the manifest violates, e.g. `unknown-key`. A published id keeps its meaning.
    pub rule: String,
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Line of the last character, always equal to `line`.
    pub end_line: usize,
    /// Column behind the last character; equal to `column` if something is missing there.
    pub end_column: usize,
    /// Number of characters that the diagnostic is about; 0 if something is missing there.
    pub length: usize,
    /// Description of the problem, one line.
    pub message: String,
    /// Text to show at the span, a few words.
    pub label: String,
    /// Suggested correction; `null` if there is no suggestion.
    pub help: Option<String>,
    /// Argument of `--set` that the diagnostic is about; the line and the columns are in the argument. Absent if the
    /// diagnostic is about the manifest's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
}

/// Document that `seedbed validate --format json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:diagnostics:1"))]
#[non_exhaustive]
pub struct Validation {
    /// Version of the format of this document, 1.
    #[schemars(extend("const" = 1))]
    pub schema_version: u32,
    /// `true` if the manifest has no diagnostics.
    pub valid: bool,
    /// User's name for the manifest.
    pub file: String,
    /// Number of sessions that the manifest declares; `null` if the manifest has diagnostics.
    pub sessions: Option<usize>,
    /// Every diagnostic, in the order of the text.
    pub diagnostics: Vec<Entry>,
}

impl Validation {
    /// Creates the outcome of a valid manifest with this number of sessions.
    pub fn for_sessions(file: &str, sessions: usize) -> Self {
        let file = file.to_owned();
        Self { schema_version: 1, valid: true, file, sessions: Some(sessions), diagnostics: Vec::new() }
    }
}

impl Report {
    /// Creates a report: finds the span of every diagnostic in the manifest's text, sorts the diagnostics and drops
    /// repetitions.
    ///
    /// `file_name` is the user's name for the file. Diagnostics may come from any stage, if they belong to this text.
    pub fn new(file_name: impl Into<String>, text: &str, diagnostics: impl Into<Diagnostics>) -> Self {
        Self::with_overrides(file_name, text, &[], diagnostics)
    }

    /// Creates a report of a manifest that was read with `overrides`. A diagnostic of one of them shows its argument, in
    /// front of those of the text.
    pub fn with_overrides(
        file_name: impl Into<String>,
        text: &str,
        overrides: &[Override],
        diagnostics: impl Into<Diagnostics>,
    ) -> Self {
        let diagnostics = diagnostics.into();
        let source = Arc::new(Source::new(file_name.into(), text));
        let locations = diagnostics.iter().map(|diagnostic| &diagnostic.location);
        let spans = positions::spans_with(text, overrides, locations);
        let shown = |(diagnostic, (given, span)): (_, (Option<&Override>, _))| {
            let argument = given.map(|given| given.argument().to_owned());
            let source = match &argument {
                Some(argument) => Arc::new(Source::new("--set".to_owned(), argument)),
                None => Arc::clone(&source),
            };
            Shown { span, diagnostic, source, argument }
        };
        let mut diagnostics: Vec<Shown> = diagnostics.into_iter().zip(spans).map(shown).collect();
        diagnostics.sort_by(|a, b| {
            let key = |shown: &Shown| (shown.argument.is_none(), shown.span.start, shown.span.end);
            key(a).cmp(&key(b)).then_with(|| a.diagnostic.message.cmp(&b.diagnostic.message))
        });
        let mut seen = HashSet::new();
        diagnostics.retain(|shown| {
            seen.insert((shown.argument.clone(), shown.span.clone(), shown.diagnostic.message.clone()))
        });
        let printed = diagnostics.len();
        Self { source, diagnostics, printed }
    }

    /// Limits the printed report to the first `most` diagnostics and the number of the others. Data outputs still
    /// contain all diagnostics.
    #[must_use]
    pub fn printing(mut self, most: usize) -> Self {
        self.printed = self.diagnostics.len().min(most);
        self
    }

    /// Returns the user's name for the manifest.
    pub fn file_name(&self) -> &str {
        self.source.name()
    }

    /// Returns the document that `validate --format json` prints.
    pub fn validation(&self) -> Validation {
        let file = self.file_name().to_owned();
        Validation {
            schema_version: 1,
            valid: false,
            file,
            sessions: None,
            diagnostics: self.diagnostics().collect(),
        }
    }

    /// Returns a SARIF 2.1.0 log; `version` is the version of the tool in the log.
    pub fn sarif(&self, version: &str) -> Value {
        sarif::log(self, version)
    }

    /// Returns one workflow command of GitHub Actions per diagnostic; GitHub shows the diagnostic at its line.
    pub fn github(&self) -> String {
        github::annotations(self)
    }

    /// Returns the diagnostics as data, in the order of the text.
    pub fn diagnostics(&self) -> impl Iterator<Item = Entry> {
        self.diagnostics.iter().map(|Shown { source, span, diagnostic, argument }| {
            let (line, column) = source.position(span.start);
            let length = source.characters(span.clone());
            Entry {
                rule: diagnostic.rule.id.to_owned(),
                line,
                column,
                // A span never extends beyond the end of its line.
                end_line: line,
                end_column: column + length,
                length,
                message: diagnostic.message.clone(),
                label: diagnostic.label.clone(),
                help: diagnostic.help.as_deref().map(str::to_owned),
                argument: argument.clone(),
            }
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = escaped(self.source.name());
        match self.diagnostics.len() {
            1 => write!(f, "{name} has 1 error"),
            count if count > self.printed => {
                write!(f, "{name} has {count} errors, of which these are the first {}", self.printed)
            }
            count => write!(f, "{name} has {count} errors"),
        }
    }
}

impl std::error::Error for Report {}

impl miette::Diagnostic for Report {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(
            self.diagnostics
                .iter()
                .take(self.printed)
                .map(|diagnostic| diagnostic as &dyn miette::Diagnostic),
        ))
    }
}

/// Diagnostic with its span.
#[derive(Debug)]
struct Shown {
    span: Range<usize>,
    diagnostic: Diagnostic,
    source: Arc<Source>,
    /// Argument of `--set` that is the source; `None` for the manifest's text.
    argument: Option<String>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown {}

impl miette::Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.rule))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some(self.diagnostic.label.clone()), self.span.start, self.span.len());
        Some(Box::new(std::iter::once(label)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
}
