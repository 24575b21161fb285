//! The allocator of one kind, and its input and output.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Allocation, external};
use crate::manifest::{Diagnostics, Fault, Options, Place, Program, rule};
use crate::name::{SessionPath, Slug};
use crate::template;

/// Plans the allocations of one kind for all sessions of one plan, in canonical order. Pure.
pub trait Allocator {
    /// Counts an allocation that is kept as taken, before any new one is allocated. `parent` is the id of the session
    /// above.
    fn keep(&mut self, _session: &str, _parent: Option<&str>, _allocation: &Allocation) {}

    /// Counts an allocation as released, before any new one is allocated.
    fn free(&mut self, _allocation: &Allocation) {}

    /// Returns the allocation that replaces a missing or broken one at the same location: it may continue from what has
    /// become of the old one since. [`Allocator::keep`] was called for it.
    fn again(&mut self, _request: &Request<'_>, allocation: &Allocation) -> Result<Allocation, Diagnostics> {
        Ok(allocation.clone())
    }

    /// Allocates for one session.
    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics>;

    /// Allocates a share of the parent's allocation. Default: it cannot be divided.
    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        let kind = &parent.allocation.kind;
        let message = format!("`{kind}` of `{}` cannot be divided", parent.session);
        let fault = Fault::new(rule::INDIVISIBLE, request.place.clone(), message, "asks for a share");
        Err(vec![fault.with_help("ask for one of its own: from = \"pool\"")].into())
    }
}

/// Facts about a kind that hold for all requests of one plan.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Scope<'a> {
    /// Name of the kind in the manifest.
    pub kind: &'a str,
    /// Program that the manifest names for the kind; `None` for a kind that is registered.
    pub program: Option<&'a Program>,
    /// Ids of the sessions that request the kind, in canonical order, and of those that have it and are not planned.
    pub sessions: &'a [&'a str],
}

/// What one session asks of one provider.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The session's id.
    pub session: &'a str,
    /// The session's scoped name, unique in the plan.
    pub scoped_name: &'a str,
    /// The swarm's name.
    pub swarm: &'a str,
    /// The session's place in the tree.
    pub path: &'a SessionPath,
    /// The session's number in the swarm.
    pub index: u32,
    /// Its number among the replicas of its table; `None` where the table has no `count`.
    pub replica: Option<u32>,
    /// Its slug, unique in the plan.
    pub slug: &'a Slug,
    /// The options in force, shared by all requests that come to the same.
    pub options: &'a Arc<Options>,
    /// Those of them that the request itself says.
    pub own: &'a Options,
    /// Where the request stands in the manifest; an option's place is `place.key(NAME)` where it is said there.
    pub place: &'a Place,
    /// How many children take a share of this.
    pub shares: u32,
}

impl Request<'_> {
    /// What templates in options may name: `swarm`, and of `session` its `id`, `path`, `name`, `index`, `replica` and
    /// `slug`.
    pub fn names(&self) -> minijinja::Value {
        let session =
            template::of_session(self.path, self.session, self.index, self.replica, self.slug, None);
        minijinja::Value::from_pairs([("swarm", minijinja::Value::from(self.swarm)), ("session", session)])
    }
}

/// The parent that a share is taken of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Parent<'a> {
    /// Its session id.
    pub session: &'a str,
    /// Its scoped name.
    pub scoped_name: &'a str,
    /// Its allocation of the same kind.
    pub allocation: &'a Allocation,
    /// The position of this child among those that take a share, 0-based.
    pub index: u32,
    /// How many children take one, at least 1.
    pub count: u32,
}

/// What a planner decided.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Planned {
    /// As in [`Allocation::allocation`].
    pub allocation: Map<String, Value>,
    /// As in [`Allocation::within_parent`].
    pub within_parent: bool,
    /// As in [`Allocation::notes`].
    pub notes: Vec<String>,
    /// As in [`Allocation::external`].
    pub external: Option<external::Contribution>,
}

impl Planned {
    /// Returns an allocation with these fields, and nothing else to say about it.
    pub fn new(allocation: Map<String, Value>) -> Self {
        Self { allocation, ..Self::default() }
    }
}
