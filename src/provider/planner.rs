//! The pure half of a kind.

use std::path::PathBuf;

use schemars::{Schema, json_schema};

use super::{Allocation, Allocator, Context, Outlasts, Scope};
use crate::manifest::Options;
use crate::name::{PortBlock, SessionPath};
use crate::observe::{Observation, Question};

/// The pure half of a kind: it reads options, plans allocations and describes them. No method has an effect, and the
/// same arguments give the same result.
pub trait Planner: Send + Sync {
    /// The name that manifests call it by.
    fn kind(&self) -> &str;

    /// The JSON schema of its options, an object; keys are kebab-case. Default: any table.
    fn options_schema(&self) -> Schema {
        json_schema!({ "type": "object" })
    }

    /// The options that are in force: what the request says, over what a child takes along from `parent` (the options
    /// in force there, where it takes a share), over the manifest's defaults.
    fn options(&self, own: &Options, parent: Option<&Options>, defaults: &Options) -> Options {
        let mut options = defaults.clone();
        let over = parent.into_iter().flatten().chain(own);
        options.extend(over.map(|(key, value)| (key.clone(), value.clone())));
        options
    }

    /// Returns whether its options are templates of what the other kinds contribute, and its allocations are planned
    /// after theirs.
    fn follows_other_kinds(&self) -> bool {
        false
    }

    /// What has to be known of the host before it can be planned.
    fn questions(&self, _options: &Options) -> Vec<Question> {
        Vec::new()
    }

    /// What has to be known of the host before an allocation that is broken can be made again.
    fn questions_again(&self, _allocation: &Allocation) -> Vec<Question> {
        Vec::new()
    }

    /// The branch that an allocation works on, without `refs/heads/`.
    fn branch(&self, _allocation: &Allocation) -> Option<String> {
        None
    }

    /// The branch that outlasts the release of a lease, by an observation that answers [`Planner::questions_again`]. With
    /// no owner in it, what exists has outlasted a release that was made.
    fn outlasts(&self, _allocation: &Allocation, _observation: &Observation) -> Option<Outlasts> {
        None
    }

    /// Returns whether an allocation with these options in force is kept where `asked` are asked for.
    fn is_answered_by(&self, standing: &Options, asked: &Options) -> bool {
        standing == asked
    }

    /// Creates the allocator of one plan.
    fn allocator<'o>(&'o self, observation: &'o Observation, scope: &Scope<'_>) -> Box<dyn Allocator + 'o>;

    /// What an allocation contributes to its session's context. Follows from the allocation alone.
    fn context(&self, _allocation: &Allocation) -> Context {
        Context::default()
    }

    /// Returns the name by which templates see its allocations: `worktree`, `port`.
    fn template_name(&self) -> Option<&'static str> {
        None
    }

    /// Returns what templates see of an allocation by [`Planner::template_name`]. Follows from the allocation alone.
    fn template_value(&self, _allocation: &Allocation) -> Option<minijinja::Value> {
        None
    }

    /// Describes an allocation in a few words, in one line; `is_new` says whether the plan provisions it. Default: its
    /// fields.
    fn summary(&self, _allocation: &Allocation, _is_new: bool) -> Option<String> {
        None
    }

    /// Describes what several sessions that are alike have of this kind, at least one, in one line; `are_new` says whether
    /// the plan provisions the first. Default: their number.
    fn summary_of_many(&self, _allocations: &[&Allocation], _are_new: bool) -> Option<String> {
        None
    }

    /// Describes what new allocations like `first` are made from, in a few words. `sources` has for each new allocation the
    /// session whose allocation it is a copy of, if any.
    fn origin(&self, _first: &Allocation, _sources: &[Option<&SessionPath>]) -> Option<String> {
        None
    }

    /// Returns the ports of an allocation.
    fn ports(&self, _allocation: &Allocation) -> Option<PortBlock> {
        None
    }

    /// The directory that goes with an allocation, and with it everything inside, relative to the workspace root; `None`
    /// where there is none. Follows from the allocation alone.
    fn directory(&self, _allocation: &Allocation) -> Option<PathBuf> {
        None
    }

    /// Tells whether an allocation lies where planning would put it for a session of this scoped name; one read from a
    /// file may say anything.
    fn is_in_place(&self, allocation: &Allocation, scoped_name: &str) -> bool;

    /// What a reviewer should hear of an allocation on this very host, one line each; not part of the plan, whose
    /// bytes are the same on every machine.
    fn notices(&self, _allocation: &Allocation, _observation: &Observation) -> Vec<String> {
        Vec::new()
    }

    /// Why an allocation that is not provisioned yet cannot be any more, one line each: the ref moved, a port was
    /// taken, a path appeared. Empty where it can. `replaced` is the allocation that is released before it: what that
    /// one has is not in the way.
    fn stale(
        &self,
        _allocation: &Allocation,
        _replaced: Option<&Allocation>,
        _observation: &Observation,
    ) -> Vec<String> {
        Vec::new()
    }

    /// The fields of its allocations that hold paths: relative to the workspace root in a plan, absolute in a
    /// discovery file.
    fn path_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Tells whether provisioning takes nothing but something that other runs may take first, at once: a port, not a
    /// directory. Claims of all sessions come before everything else, so that a run that is too late learns it before
    /// it has cost anything.
    fn is_claim(&self, _allocation: &Allocation) -> bool {
        false
    }

    /// What an allocation is made from that others of the same run may be made from too: those for which this is equal
    /// are filled in one call. `None` where it is made on its own.
    fn basis(&self, _allocation: &Allocation) -> Option<String> {
        None
    }
}
