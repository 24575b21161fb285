//! Defines the input from which a kind decides a child's options without the parent's record.

use serde_json::{Map, Value};

/// A child that takes a share of an allocation in its parent's discovery file.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ChildShare<'a> {
    /// Session id of the parent.
    pub parent: &'a str,
    /// Allocated values of the parent; paths are absolute.
    pub allocation: &'a Map<String, Value>,
    /// Position of the child, from 0.
    pub index: u32,
    /// Number of children, at least 1.
    pub count: u32,
}

/// Function that returns the options of a child's request, spelled as in the reference implementation (`baseRef`). The
/// error says in one line why there is no such share, in the words of the reference implementation if it has any.
pub type ChildOptions = fn(&ChildShare<'_>) -> Result<Map<String, Value>, String>;

impl ChildShare<'_> {
    /// Returns a field that is a number, at least 0.
    pub(crate) fn number(&self, key: &str) -> Result<u64, String> {
        let number = self.allocation.get(key).and_then(Value::as_u64);
        number.ok_or_else(|| format!("Allocation field \"{key}\" must be an integer."))
    }

    /// Returns a field that is a text with more than blanks.
    pub(crate) fn text(&self, key: &str) -> Result<&str, String> {
        let text = self.allocation.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| format!("Allocation field \"{key}\" must be a non-empty string."))
    }
}
