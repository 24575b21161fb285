//! Defines the pure half of a kind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    Allocation, Allocator, BlockRange, ChildOptions, Context, OwnedPath, PlannedAllocation, RootDirectory,
    Scope, SurvivingBranch,
};
use crate::host::leases::Leased;
use crate::manifest::Options;
use crate::name::{PortBlock, SessionPath};
use crate::observe::{Observation, Query};

/// One of several requested resources of a kind in a session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ResourceOptions<'a> {
    /// Name of the resource.
    pub name: &'a str,
    /// Effective options; defaults of the kind may be missing.
    pub options: &'a Options,
    /// `true` if the resource is a share of the parent's.
    pub shared: bool,
}

/// Set of paths, relative to the workspace root.
pub type PathSet = BTreeSet<PathBuf>;

/// The pure half of a kind: it reads options, plans allocations and describes them. No method has an effect, and equal
/// arguments give equal results.
pub trait Planner: Send + Sync {
    /// Returns the name of the kind in manifests.
    fn kind(&self) -> &str;

    /// Returns the JSON schema of the kind's options, an object; keys are kebab-case. Default: any table.
    fn options_schema(&self) -> Schema {
        json_schema!({ "type": "object" })
    }

    /// Returns the JSON schema of [`Allocation::allocation`], an object, as the generator refers to it. Default:
    /// `None`, which accepts any object.
    fn allocation_schema(&self, _generator: &mut SchemaGenerator) -> Option<Schema> {
        None
    }

    /// Returns the effective options: those of the request, over those that a child inherits from `parent`, over the
    /// manifest's defaults. `parent` has the effective options of the parent if the request takes a share.
    fn options(&self, own: &Options, parent: Option<&Options>, defaults: &Options) -> Options {
        let mut options = defaults.clone();
        let over = parent.into_iter().flatten().chain(own);
        options.extend(over.map(|(key, value)| (key.clone(), value.clone())));
        options
    }

    /// Returns whether planning requests the kind by itself, see [`Planner::enclosure`]. Manifests cannot request it, and
    /// discovery files do not list it.
    fn is_implied(&self) -> bool {
        false
    }

    /// Returns the kind and the options of a directory that contains the session's resources of this kind, side by
    /// side, if a session requests several, given as `resources`. Default: `None`, the resources lie where they would
    /// lie alone.
    fn enclosure(&self, _resources: &[ResourceOptions<'_>]) -> Option<(&'static str, Options)> {
        None
    }

    /// Returns whether an allocation lies where planning would create it in a session that requests only this resource
    /// of the kind, or `several`. If not, an active allocation is replaced.
    fn is_located(&self, _allocation: &Allocation, _several: bool) -> bool {
        true
    }

    /// Returns whether a session may own several resources of the kind. If so, [`Allocator`] is called for each, and
    /// distinguishes them by [`Request::resource`](super::Request::resource) and [`Allocation::name`].
    fn allows_several(&self) -> bool {
        false
    }

    /// Returns whether the options are templates that use contributions of other kinds. If so, the kind's allocations
    /// are planned after those of the other kinds.
    fn follows_other_kinds(&self) -> bool {
        false
    }

    /// Returns the queries about the host that planning needs.
    fn queries(&self, _options: &Options) -> Vec<Query> {
        Vec::new()
    }

    /// Returns the queries about the host that are needed to create a broken allocation again.
    fn recreation_queries(&self, _allocation: &Allocation) -> Vec<Query> {
        Vec::new()
    }

    /// Returns the queries about the host that [`Planner::surviving_branch`] needs.
    fn survival_queries(&self, allocation: &Allocation) -> Vec<Query> {
        self.recreation_queries(allocation)
    }

    /// Returns whether the directory of an allocation can have files of its session, which the kind writes there.
    fn takes_files(&self) -> bool {
        false
    }

    /// Returns the queries about the host that planning needs for a file of a session at this path, relative to the working
    /// directory of an allocation with these options.
    fn file_queries(&self, _options: &Options, _path: &str) -> Vec<Query> {
        Vec::new()
    }

    /// Returns the reason, one line, for which an allocation cannot have a file at this path, relative to the allocation's
    /// directory, and the remedy. `is_section` is `true` if only a section of the file is written.
    fn file_fault(
        &self,
        _allocation: &Allocation,
        _observation: &Observation,
        _path: &str,
        _is_section: bool,
    ) -> Option<(String, String)> {
        None
    }

    /// Returns the number of directories that [`Provider::seed`](super::Provider::seed) brings into an allocation.
    fn seeded_directories(&self, _allocation: &Allocation) -> usize {
        0
    }

    /// Returns the branch that an allocation works on, without `refs/heads/`.
    fn branch(&self, _allocation: &Allocation) -> Option<String> {
        None
    }

    /// Returns the repository that an allocation belongs to, if it is not the workspace's own: its name in the manifest
    /// and its root, relative to the workspace root.
    fn repository(&self, _allocation: &Allocation) -> Option<(String, PathBuf)> {
        None
    }

    /// Returns the allocation of a repository that was moved to another root, relative to the workspace root.
    fn in_moved_repository(&self, allocation: &Allocation, _root: &Path) -> Allocation {
        allocation.clone()
    }

    /// Returns the branch that still exists after the release of a lease, by an observation that answers
    /// [`Planner::survival_queries`]. If the observation has no owner, the release has happened already, and an
    /// existing branch has outlasted it.
    fn surviving_branch(
        &self,
        _allocation: &Allocation,
        _observation: &Observation,
    ) -> Option<SurvivingBranch> {
        None
    }

    /// Returns whether an allocation with the effective options `applied` is kept if `asked` are requested.
    fn is_compatible(&self, applied: &Options, requested: &Options) -> bool {
        applied == requested
    }

    /// Returns whether a lease with the allocation `from` is turned into one with the allocation `to` in place, by
    /// [`Provider::update`](super::Provider::update). If not, the lease is released and another one provisioned. Each
    /// allocation has its options. Default: no allocation is updated.
    fn is_update(&self, _from: &Allocation, _to: &Allocation) -> bool {
        false
    }

    /// Creates the allocator of one plan.
    fn allocator<'o>(&'o self, observation: &'o Observation, scope: &Scope<'_>) -> Box<dyn Allocator + 'o>;

    /// Returns the function that decides the options of a child's request from the discovery file of its parent. Default:
    /// `None`, for a kind whose shares are planned by [`Allocator::sub_allocate`], from the parent's record.
    fn child_options(&self) -> Option<ChildOptions> {
        None
    }

    /// Returns the contribution of an allocation to its session's context. It depends only on the allocation.
    fn context(&self, _allocation: &Allocation) -> Context {
        Context::default()
    }

    /// Returns the name by which templates use the kind's allocations: `worktree`, `port`.
    fn template_name(&self) -> Option<&'static str> {
        None
    }

    /// Returns the value of an allocation in templates, under [`Planner::template_name`]. It depends only on
    /// the allocation.
    fn template_value(&self, _allocation: &Allocation) -> Option<minijinja::Value> {
        None
    }

    /// Describes an allocation in a few words, in one line. `is_new` is true if the plan provisions it. Default: the
    /// fields of the allocation.
    fn summary(&self, _allocation: &Allocation, _is_new: bool) -> Option<String> {
        None
    }

    /// Describes the allocations of this kind of several sessions that are alike, at least one, in one line. `are_new`
    /// is true if the plan provisions the first. Default: the number of allocations.
    fn summary_of_many(&self, _allocations: &[&Allocation], _are_new: bool) -> Option<String> {
        None
    }

    /// Returns the reasons why an allocation is as it is, one line each. Default: the kind and the summary.
    fn explanation(&self, planned: &PlannedAllocation<'_>) -> Vec<String> {
        let allocation = planned.allocation;
        let fields = || serde_json::to_string(&allocation.allocation).unwrap_or_default();
        vec![format!("{} {}", allocation.name(), self.summary(allocation, false).unwrap_or_else(fields))]
    }

    /// Returns the files and directories of an allocation that users may meet. Default: its directory.
    fn owned_paths(&self, planned: &PlannedAllocation<'_>) -> Vec<OwnedPath> {
        let (Some(path), Some(role)) = (self.directory(planned.allocation), self.template_name()) else {
            return Vec::new();
        };
        vec![OwnedPath::new(path, role, self.summary(planned.allocation, false).into_iter().collect())]
    }

    /// Returns the directory in which the kind creates an allocation; with `None`, any allocation by default.
    fn root_directory(&self, _allocation: Option<&Allocation>) -> Option<RootDirectory> {
        None
    }

    /// Describes the role of one port of an allocation in its session.
    fn port_role(&self, _planned: &PlannedAllocation<'_>, _port: u16) -> Option<String> {
        None
    }

    /// Returns the ports of an allocation that have names, each with its name. If only one port is to be used without a
    /// name, it is called `primary`.
    fn named_ports(&self, _allocation: &Allocation) -> Vec<(String, u16)> {
        Vec::new()
    }

    /// Returns the range that the ports of an allocation were cut from; `None` for a share of another allocation.
    fn block_range(&self, _allocation: &Allocation) -> Option<BlockRange> {
        None
    }

    /// Returns the range that ports are cut from with these options of the manifest's defaults.
    fn default_block_range(&self, _options: &Options) -> Option<BlockRange> {
        None
    }

    /// Describes the origin of new allocations like `first`, in a few words. `sources` has one element for each new
    /// allocation: the session whose allocation is copied, if any.
    fn origin(&self, _first: &Allocation, _sources: &[Option<&SessionPath>]) -> Option<String> {
        None
    }

    /// Returns the resources that an allocation leases in the host-wide registry.
    fn leased(&self, _allocation: &Allocation) -> Vec<Leased> {
        Vec::new()
    }

    /// Returns the ports of an allocation.
    fn ports(&self, _allocation: &Allocation) -> Option<PortBlock> {
        None
    }

    /// Returns the directory of an allocation, relative to the workspace root; `None` if there is none. A release
    /// removes it with everything inside. It depends only on the allocation.
    fn directory(&self, _allocation: &Allocation) -> Option<PathBuf> {
        None
    }

    /// Returns the directory of another tool that an allocation uses, relative to the workspace root; `None` if there is
    /// none. A release leaves it where it is, and nothing that contains it is released.
    fn foreign_directory(&self, _allocation: &Allocation) -> Option<PathBuf> {
        None
    }

    /// Returns the directory in which a session works that chooses this allocation, relative to the workspace root.
    /// Default: the directory of the allocation, or that of the other tool.
    fn working_directory(&self, allocation: &Allocation) -> Option<PathBuf> {
        self.directory(allocation).or_else(|| self.foreign_directory(allocation))
    }

    /// Returns whether an allocation lies at the location that planning would choose for a session of this scoped name.
    /// An allocation that was read from a file is untrusted.
    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool;

    /// Returns the notices for reviewers about an allocation on this host, one line each. They are not part of the
    /// plan, whose bytes are the same on every machine.
    fn notices(&self, _allocation: &Allocation, _observation: &Observation) -> Vec<String> {
        Vec::new()
    }

    /// Returns the reasons why a planned allocation can no longer be provisioned, one line each: the ref moved, a port
    /// was taken, a path appeared. Empty if it still can be. `replaced` is the allocation that is released first: its
    /// resources are no conflict. `released` are the directories that are released first, of any kind.
    fn stale(
        &self,
        _allocation: &Allocation,
        _replaced: Option<&Allocation>,
        _released: &PathSet,
        _observation: &Observation,
    ) -> Vec<String> {
        Vec::new()
    }

    /// Returns the reasons why an active allocation can no longer be updated in place to this one, one line each.
    fn stale_update(&self, _allocation: &Allocation, _observation: &Observation) -> Vec<String> {
        Vec::new()
    }

    /// Returns the fields of the kind's allocations that are paths: relative to the workspace root in a plan, absolute
    /// in a discovery file.
    fn path_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns whether provisioning only claims a contended resource, such as a port, without other effects. Claims of
    /// all sessions come before everything else, so that a run that is too late fails before it has any cost.
    fn is_claim(&self, _allocation: &Allocation) -> bool {
        false
    }

    /// Returns the group key of an allocation. Allocations of one run with equal keys are populated in one call,
    /// because they can be made from the same source. Returns `None` if the allocation is made separately.
    fn group_key(&self, _allocation: &Allocation) -> Option<String> {
        None
    }
}
