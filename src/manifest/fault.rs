//! What is wrong with a manifest, and where.

use std::ops::Range;

use super::rule::Rule;

/// One step from a manifest's root toward a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Into a table.
    Key(String),
    /// Into an array.
    Index(usize),
}

/// Which part of what stands at the end of a [`Place`] is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The value, or for a table its header.
    #[default]
    Value,
    /// The key.
    Key,
    /// Bytes of a string value, as it reads once unescaped.
    Within(usize, usize),
    /// Bytes of the file itself, for what has no key to be named by, such as a fault of syntax.
    Bytes(usize, usize),
}

/// A place in the manifest, named by keys so that no span has to be carried about; spans are looked up when a fault
/// is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Place {
    /// The way from the root.
    pub steps: Vec<Step>,
    /// What is meant there.
    pub part: Part,
}

impl Place {
    /// The place of `key` in the table at this place.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// The place of the `index`-th entry of the array at this place.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// The key itself instead of what it stands for.
    #[must_use]
    pub fn the_key(mut self) -> Self {
        self.part = Part::Key;
        self
    }

    /// Bytes of the string at this place.
    #[must_use]
    pub fn within(mut self, bytes: Range<usize>) -> Self {
        self.part = Part::Within(bytes.start, bytes.end);
        self
    }

    /// Bytes of the file itself.
    pub fn bytes(bytes: Range<usize>) -> Self {
        Self { steps: Vec::new(), part: Part::Bytes(bytes.start, bytes.end) }
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps, part: Part::Value }
    }
}

/// One fault of a manifest, known before anything was done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What it is an instance of.
    pub rule: &'static Rule,
    /// Where it is.
    pub place: Place,
    /// What is wrong, one line without a full stop.
    pub message: String,
    /// What stands under the underlined span, a few words.
    pub label: String,
    /// What to do about it.
    pub help: Option<Box<str>>,
}

impl Fault {
    /// A fault at `place`, without help.
    pub fn new(
        rule: &'static Rule,
        place: Place,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self { rule, place, message: message.into(), label: label.into(), help: None }
    }

    /// The same fault, with what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into_boxed_str());
        self
    }
}
