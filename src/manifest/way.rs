//! Paths for walking a manifest; converted to a [`Place`] only for a diagnostic.

use super::fault::{Place, Step};

/// Path from the manifest's root, with each step on the stack of the function that adds it.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    /// Path before the last step, and the last step; `None` at the root.
    last: Option<(&'a Way<'a>, Part<'a>)>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Way<'a> {
    pub(super) const ROOT: Way<'static> = Way { last: None };

    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self { last: Some((self, Part::Key(key))) }
    }

    pub(super) fn index(&'a self, index: usize) -> Self {
        Self { last: Some((self, Part::Index(index))) }
    }

    pub(super) fn place(&self) -> Place {
        let mut place = Place::default();
        let mut way = self;
        while let Some((before, part)) = way.last {
            place.steps.push(match part {
                Part::Key(key) => Step::Key(key.to_owned()),
                Part::Index(index) => Step::Index(index),
            });
            way = before;
        }
        place.steps.reverse();
        place
    }
}
