//! Paths for walking a manifest; converted to a [`Location`] only for a diagnostic.

use super::diagnostic::{Location, Step};

/// Path from the manifest's root, with each step on the stack of the function that adds it.
#[derive(Clone, Copy)]
pub(super) struct KeyPath<'a> {
    /// Path before the last step, and the last step; `None` at the root.
    last: Option<(&'a KeyPath<'a>, Segment<'a>)>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> KeyPath<'a> {
    pub(super) const ROOT: KeyPath<'static> = KeyPath { last: None };

    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self { last: Some((self, Segment::Key(key))) }
    }

    pub(super) fn index(&'a self, index: usize) -> Self {
        Self { last: Some((self, Segment::Index(index))) }
    }

    pub(super) fn location(&self) -> Location {
        let mut location = Location::default();
        let mut way = self;
        while let Some((before, part)) = way.last {
            location.steps.push(match part {
                Segment::Key(key) => Step::Key(key.to_owned()),
                Segment::Index(index) => Step::Index(index),
            });
            way = before;
        }
        location.steps.reverse();
        location
    }
}
