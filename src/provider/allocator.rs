//! Defines the allocator of one kind, with its input and output.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Allocation, external};
use crate::manifest::{Diagnostic, Diagnostics, Location, Options, Program, rule};
use crate::name::{INSTANCE_DIGITS, INSTANCE_MARK, SessionPath, Slug};
use crate::template;

/// Plans the allocations of one kind for all sessions of one plan, in canonical order. Pure.
pub trait Allocator {
    /// Marks an allocation that is kept as used, before any new one is allocated. `parent` is the id of the session
    /// above.
    fn keep(&mut self, _session: &str, _parent: Option<&str>, _allocation: &Allocation) {}

    /// Returns whether an active allocation may be kept if its options satisfy the request. `false` if planning would
    /// now find something else under the names in its options, such as another repository.
    fn can_keep(&self, _allocation: &Allocation) -> bool {
        true
    }

    /// Returns whether an active allocation is to be updated although its options satisfy the request, because a file of
    /// the workspace that its options name has changed.
    fn needs_update(&self, _allocation: &Allocation) -> bool {
        false
    }

    /// Marks a directory as released, of an allocation of any kind, before any new one is allocated. Its path is
    /// relative to the workspace root.
    fn vacate(&mut self, _directory: &Path) {}

    /// Marks an allocation as released, before any new one is allocated.
    fn free(&mut self, _allocation: &Allocation) {}

    /// Returns the allocation that replaces a missing or broken one at the same location. The new one may continue from
    /// the present state of the old one, for which [`Allocator::keep`] was called.
    fn recreate(
        &mut self,
        _request: &Request<'_>,
        allocation: &Allocation,
    ) -> Result<Allocation, Diagnostics> {
        Ok(allocation.clone())
    }

    /// Returns the fields that an active allocation has with the options of the request, if it is updated in place;
    /// `None` if these options require another allocation. The result is used only if [`Planner::is_update`] accepts
    /// it. Called before [`Allocator::keep`] and [`Allocator::free`]. Default: `None`.
    ///
    /// [`Planner::is_update`]: super::Planner::is_update
    fn update(
        &mut self,
        _request: &Request<'_>,
        _allocation: &Allocation,
    ) -> Option<Result<Map<String, Value>, Diagnostics>> {
        None
    }

    /// Allocates for one session.
    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics>;

    /// Allocates a share of the parent's allocation. Default: refuses, because the allocation cannot be divided.
    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        let name = parent.allocation.name();
        let message = format!("`{name}` of `{}` cannot be divided", parent.session);
        let diagnostic =
            Diagnostic::new(rule::INDIVISIBLE, request.location.clone(), message, "requests a share");
        Err(vec![diagnostic.with_help("request one of its own: from = \"pool\"")].into())
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
    /// Keys of the requests for the kind, in canonical order, and of its resources that are not planned: the id of the
    /// session, and for a resource with a name of its own `#` and the name after it.
    pub requests: &'a [String],
}

/// Request of one session to one kind.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// Id of the session.
    pub session: &'a str,
    /// Name of the resource, unique in its session; by default its kind.
    pub resource: &'a str,
    /// Scoped name of the session, unique in the plan.
    pub scoped_name: &'a str,
    /// Name of the swarm.
    pub swarm: &'a str,
    /// Path of the session in the tree.
    pub path: &'a SessionPath,
    /// Number of the session in the swarm, from 0.
    pub index: u32,
    /// Number of the session among the replicas of its table, from 0; `None` if the table has no `count`.
    pub replica: Option<u32>,
    /// Slug of the session, unique in the plan.
    pub slug: &'a Slug,
    /// Effective options, shared by all requests with equal options.
    pub options: &'a Arc<Options>,
    /// Explicit options of the request itself.
    pub own: &'a Options,
    /// Place of the request in the manifest. The place of an explicit option is `location.key(NAME)`.
    pub location: &'a Location,
    /// `true` if the session requests several resources of the kind.
    pub several: bool,
    /// Number of children that take a share of this allocation.
    pub shares: u32,
    /// `true` if the session was spawned: others may follow, and their number is not known.
    pub spawned: bool,
    /// `true` if the swarm is an instance, for one `run`: others of the same manifest may be active beside it.
    pub is_instance: bool,
}

impl Request<'_> {
    /// Returns the names that templates in options may use: `swarm`, `resource.name`, and of `session` its `id`, `path`,
    /// `name`, `index`, `replica` and `slug`.
    pub fn names(&self) -> minijinja::Value {
        let session =
            template::session_value(self.path, self.session, self.index, self.replica, self.slug, None);
        let resource = minijinja::Value::from_pairs([("name", self.resource)]);
        let swarm = minijinja::Value::from(self.swarm);
        minijinja::Value::from_pairs([("swarm", swarm), ("session", session), ("resource", resource)])
    }

    /// Returns a name that no other instance of the manifest has. If the swarm is an instance, and the name does not contain
    /// its random digits in any case, the name gets the end of the instance's name: `-run-XXXXXXXX`.
    pub fn distinct(&self, name: String) -> String {
        let (_, digits) = self.swarm.split_at(self.swarm.len().saturating_sub(INSTANCE_DIGITS));
        if !self.is_instance || name.to_ascii_lowercase().contains(digits) {
            return name;
        }
        format!("{name}{INSTANCE_MARK}{digits}")
    }
}

/// The parent from which a share is taken.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Parent<'a> {
    /// Session id of the parent.
    pub session: &'a str,
    /// Scoped name of the parent.
    pub scoped_name: &'a str,
    /// Allocation of the parent, of the same kind and name.
    pub allocation: &'a Allocation,
    /// Position of this child among those that take a share, from 0.
    pub index: u32,
    /// Number of children that take a share, at least 1.
    pub count: u32,
}

/// A planned allocation without its kind and options.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Planned {
    /// See [`Allocation::allocation`].
    pub allocation: Map<String, Value>,
    /// See [`Allocation::within_parent`].
    pub within_parent: bool,
    /// See [`Allocation::notes`].
    pub notes: Vec<String>,
    /// See [`Allocation::external`].
    pub external: Option<external::Contribution>,
}

impl Planned {
    /// Creates an allocation with these fields and nothing else.
    pub fn new(allocation: Map<String, Value>) -> Self {
        Self { allocation, ..Self::default() }
    }
}
