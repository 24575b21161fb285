//! Diagnostics of a manifest, and their locations.

use std::fmt;
use std::ops::{Deref, Range};

use super::rule::Rule;
use super::text::escaped;

/// One step from a manifest's root toward a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Step into a table.
    Key(String),
    /// Step into an array.
    Index(usize),
}

impl Step {
    /// Creates a step into a table.
    pub(crate) fn key(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

/// Part of a [`Location`]'s value that a diagnostic is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LocationPart {
    /// Value, or for a table its header.
    #[default]
    Value,
    /// Key.
    Key,
    /// Bytes of a string value, counted after unescaping.
    Within(usize, usize),
    /// Bytes of the file itself, for text that no key names, such as a syntax error.
    Bytes(usize, usize),
}

/// Location in a manifest, named by keys so that no span has to be carried along.
///
/// Spans are looked up when a diagnostic is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Location {
    /// Path from the root.
    pub steps: Vec<Step>,
    /// Part of the value at the end of `steps`.
    pub part: LocationPart,
}

impl Location {
    /// Returns the location of `key` in the table at this location.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// Returns the location of the `index`-th entry of the array at this location.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// Returns the location of the key itself instead of its value.
    #[must_use]
    pub fn the_key(mut self) -> Self {
        self.part = LocationPart::Key;
        self
    }

    /// Returns the location of bytes of the string at this location.
    #[must_use]
    pub fn within(mut self, bytes: Range<usize>) -> Self {
        self.part = LocationPart::Within(bytes.start, bytes.end);
        self
    }

    /// Returns the location of bytes of the file itself.
    pub fn bytes(bytes: Range<usize>) -> Self {
        Self { steps: Vec::new(), part: LocationPart::Bytes(bytes.start, bytes.end) }
    }

    /// Returns the location that one more step leads to.
    #[must_use]
    pub(crate) fn step(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps, part: LocationPart::Value }
    }
}

/// Writes keys and indices from the root, as in `session.lead.resources[0]`; empty for a location in bytes of the file.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(&escaped(key))?,
                Step::Key(key) => write!(f, ".{}", escaped(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One diagnostic of a manifest, reported before any effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Rule that the manifest violates.
    pub rule: &'static Rule,
    /// Location in the manifest.
    pub location: Location,
    /// Description of the problem, one line without a full stop.
    pub message: String,
    /// Text below the underlined span, a few words.
    pub label: String,
    /// Suggested correction; `None` if there is no suggestion.
    pub help: Option<Box<str>>,
}

impl Diagnostic {
    /// Creates a diagnostic at `location`, without help.
    pub fn new(
        rule: &'static Rule,
        location: Location,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self { rule, location, message: message.into(), label: label.into(), help: None }
    }

    /// Adds a suggested correction to the diagnostic.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into_boxed_str());
        self
    }
}

/// Writes one line: the location, the message, and the help in parentheses.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = self.location.to_string();
        if !location.is_empty() {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)?;
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

/// All diagnostics of one manifest, in no order, as an error; a [`Report`](super::Report) finds their lines.
///
/// An empty list means that the manifest is incomplete, and that nothing else is wrong with the rest of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Deref for Diagnostics {
    type Target = [Diagnostic];

    fn deref(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self(diagnostics)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl From<Diagnostics> for Vec<Diagnostic> {
    fn from(diagnostics: Diagnostics) -> Self {
        diagnostics.0
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(diagnostics: I) -> Self {
        Self(diagnostics.into_iter().collect())
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Writes one line per diagnostic.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the manifest is not complete");
        }
        let lines: Vec<_> = self.0.iter().map(Diagnostic::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::rule;

    #[test]
    fn diagnostics_as_an_error_name_each_place_and_what_to_do() {
        let location = Location::default().key("session").key("a").key("resources").index(0);
        let diagnostic =
            Diagnostic::new(rule::SYNTAX, location, "this is wrong", "here").with_help("write it right");
        let other = Diagnostic::new(rule::SYNTAX, Location::bytes(0..1), "that too", "");
        let error: Box<dyn std::error::Error> = Diagnostics::from(vec![diagnostic, other]).into();
        assert_eq!(error.to_string(), "session.a.resources[0]: this is wrong (write it right)\nthat too");
    }
}
