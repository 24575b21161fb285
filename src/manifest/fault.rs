//! Diagnostics of a manifest, and their locations.

use std::fmt;
use std::ops::{Deref, Range};

use super::rule::Rule;
use super::words::escaped;

/// One step from a manifest's root toward a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Step into a table.
    Key(String),
    /// Step into an array.
    Index(usize),
}

/// Part of a [`Place`]'s value that a diagnostic is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
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
pub struct Place {
    /// Path from the root.
    pub steps: Vec<Step>,
    /// Part of the value at the end of `steps`.
    pub part: Part,
}

impl Place {
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
        self.part = Part::Key;
        self
    }

    /// Returns the location of bytes of the string at this location.
    #[must_use]
    pub fn within(mut self, bytes: Range<usize>) -> Self {
        self.part = Part::Within(bytes.start, bytes.end);
        self
    }

    /// Returns the location of bytes of the file itself.
    pub fn bytes(bytes: Range<usize>) -> Self {
        Self { steps: Vec::new(), part: Part::Bytes(bytes.start, bytes.end) }
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps, part: Part::Value }
    }
}

/// Writes keys and indices from the root, as in `session.lead.resources[0]`; empty for a location in bytes of the file.
impl fmt::Display for Place {
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
pub struct Fault {
    /// Rule that the manifest violates.
    pub rule: &'static Rule,
    /// Location in the manifest.
    pub place: Place,
    /// Description of the problem, one line without a full stop.
    pub message: String,
    /// Text below the underlined span, a few words.
    pub label: String,
    /// Suggested correction; `None` if there is no suggestion.
    pub help: Option<Box<str>>,
}

impl Fault {
    /// Creates a diagnostic at `place`, without help.
    pub fn new(
        rule: &'static Rule,
        place: Place,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self { rule, place, message: message.into(), label: label.into(), help: None }
    }

    /// Adds a suggested correction to the diagnostic.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into_boxed_str());
        self
    }
}

/// Writes one line: the location, the message, and the help in parentheses.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.to_string();
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

/// All diagnostics of one manifest, in no order, as an error; a [`Report`](super::Report) finds their lines.
///
/// An empty list means that the manifest is incomplete, and that nothing else is wrong with the rest of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Fault>);

impl Deref for Diagnostics {
    type Target = [Fault];

    fn deref(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Vec<Fault>> for Diagnostics {
    fn from(faults: Vec<Fault>) -> Self {
        Self(faults)
    }
}

impl From<Fault> for Diagnostics {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl From<Diagnostics> for Vec<Fault> {
    fn from(diagnostics: Diagnostics) -> Self {
        diagnostics.0
    }
}

impl FromIterator<Fault> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        Self(faults.into_iter().collect())
    }
}

impl IntoIterator for Diagnostics {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

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
        let lines: Vec<_> = self.0.iter().map(Fault::to_string).collect();
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
        let place = Place::default().key("session").key("a").key("resources").index(0);
        let fault = Fault::new(rule::SYNTAX, place, "this is wrong", "here").with_help("write it right");
        let other = Fault::new(rule::SYNTAX, Place::bytes(0..1), "that too", "");
        let error: Box<dyn std::error::Error> = Diagnostics::from(vec![fault, other]).into();
        assert_eq!(error.to_string(), "session.a.resources[0]: this is wrong (write it right)\nthat too");
    }
}
