//! Provides the `port-range` kind: a block of ports, chosen by the hash of the session's id and leased host-wide.

mod check;
mod child;
mod context;
mod display;
mod explanation;
mod lease;
mod plan;

use std::path::PathBuf;

use rayon::prelude::*;
use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Allocation, Allocator, BlockRange, ChildOptions, Condition, Context, Error, OwnedPath, PathSet,
    PlannedAllocation, Planner, Provider, Scope, Task, UnsavedWork, effective_options, is_in_git_directory,
};
use crate::host::leases::Leased;
use crate::host::occupants::Footprint;
use crate::manifest;
use crate::name::PortBlock;
use crate::observe::{Observation, Query};

/// Name of the kind.
pub const KIND: &str = "port-range";

/// Options of a `port-range`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Options {
    /// First port of the range that blocks are cut from. The default, 16000, lies below Linux's ephemeral range
    /// (32768-60999), in which an outgoing connection may already use any port.
    #[schemars(range(min = 1, max = 65535))]
    pub base_port: u32,
    /// Number of ports of a block.
    #[schemars(range(min = 1, max = 65535))]
    #[schemars(extend("examples" = [16]))]
    pub block_size: u32,
    /// Number of blocks in the range. Default: 512, or fewer if these would reach into Linux's ephemeral range.
    #[schemars(range(min = 1, max = 65535))]
    #[schemars(extend("examples" = [64]))]
    pub block_count: Option<u32>,
    /// Position of the primary port in the block, counted from 0.
    #[schemars(range(min = 0, max = 65534))]
    pub primary_port_offset: u32,
    /// Directory of the lock files of the blocks, relative to the workspace root.
    #[schemars(length(min = 1))]
    pub lock_directory: PathBuf,
    /// Names for single ports, assigned from the primary port upward, wrapping at the block's end. `http` becomes
    /// `AGENT_PORT_HTTP` in the environment and `{{ port.http }}` in templates.
    #[schemars(extend("examples" = [["http", "db"]]))]
    pub names: Vec<String>,
    /// Number of ports at the start of the block that the session keeps when its children divide the rest. Default: as
    /// many as the session has `names`. With 0 the session is a pool and owns no port.
    #[schemars(range(min = 0, max = 65535))]
    #[schemars(extend("examples" = [2]))]
    pub reserve: Option<u32>,
    /// Number of shares into which children divide the block. Default: the number of children that take a share. With a
    /// fixed number, children can be added without moving the others.
    #[schemars(range(min = 1, max = 65535))]
    #[schemars(extend("examples" = [8]))]
    pub slots: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base_port: 16000,
            block_size: 32,
            block_count: None,
            primary_port_offset: 0,
            lock_directory: PathBuf::from(".ai_ops/locks/ports"),
            names: Vec::new(),
            reserve: None,
            slots: None,
        }
    }
}

impl Options {
    /// Returns the number of blocks of the range, at least 1: the explicit number, else 512 as in the reference
    /// implementation. The default is reduced to the blocks below the ephemeral range, or below 65536 if the base lies
    /// in or above that range.
    pub fn blocks(&self) -> u32 {
        const EPHEMERAL: u32 = 32768;
        let end = if self.base_port < EPHEMERAL { EPHEMERAL } else { 65536 };
        let fit = end.saturating_sub(self.base_port) / self.block_size.max(1);
        self.block_count.unwrap_or(fit.clamp(1, 512))
    }
}

/// A planned block of ports. The first eight fields are those of the reference implementation. Paths are relative to
/// the workspace root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Block {
    /// First port of the range that the block was cut from; for a share, its own first port.
    pub base_port: u32,
    /// Number of ports in the block.
    pub block_size: u32,
    /// Number of blocks in the range; 1 for a share.
    pub block_count: u32,
    /// Position of the block in the range, from 0.
    pub block_index: u32,
    /// First port of the block.
    pub start_port: u32,
    /// Last port of the block.
    pub end_port: u32,
    /// Port to use if only one is needed.
    pub primary_port: u32,
    /// Lock file that prevents tools of the reference implementation from using the block.
    pub lock_path: PathBuf,
    /// Number of ports at the start of the block that belong to the session and are not divided among its children.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reserve: u32,
    /// Named ports.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub names: Map<String, Value>,
    /// Share of the parent's block; absent for a block of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// A child's share of the parent's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Share {
    /// Position of the share, from 0.
    pub index: u32,
    /// Number of shares into which the block is divided.
    pub of: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(reserve: &u32) -> bool {
    *reserve == 0
}

impl Block {
    /// Reads an allocation of this kind; `None` if planning did not make the allocation.
    pub fn from_allocation(allocation: &Allocation) -> Option<Self> {
        Self::deserialize(&allocation.allocation).ok()
    }

    /// Returns the named ports, lowest first.
    pub fn named_ports(&self) -> Vec<(&str, u64)> {
        let mut named: Vec<_> =
            self.names.iter().filter_map(|(name, port)| Some((name.as_str(), port.as_u64()?))).collect();
        named.sort_by_key(|(_, port)| *port);
        named
    }

    /// Returns whether one of the named ports is in `ports`.
    fn has_name_within(&self, ports: PortBlock) -> bool {
        let within = u64::from(ports.start())..=u64::from(ports.end());
        self.names.values().filter_map(Value::as_u64).any(|port| within.contains(&port))
    }

    /// Returns the named ports by name; the primary port if none has a name.
    fn reported_ports(&self) -> Vec<(String, u16)> {
        let port = |name: &str, port: u64| Some((name.to_owned(), u16::try_from(port).ok()?));
        let named: Vec<_> =
            self.names.iter().filter_map(|(name, number)| port(name, number.as_u64()?)).collect();
        if named.is_empty() { port("primary", self.primary_port.into()).into_iter().collect() } else { named }
    }

    /// Returns whether planning could have returned this block for these options.
    fn is_of(&self, options: &Options) -> bool {
        let lies_within = |port: u64| (u64::from(self.start_port)..=u64::from(self.end_port)).contains(&port);
        let is_cut_from_range = self.base_port == options.base_port
            && self.block_size == options.block_size
            && self.block_count == options.blocks()
            && self.block_index < self.block_count
            && u64::from(self.start_port)
                == u64::from(self.base_port) + u64::from(self.block_index) * u64::from(self.block_size);
        check::diagnostics(options, &manifest::Location::default(), self.share.is_some()).is_empty()
            && u64::from(self.end_port) + 1 == u64::from(self.start_port) + u64::from(self.block_size)
            && lies_within(self.primary_port.into())
            && self.reserve <= self.block_size
            && self.names.len() == options.names.len()
            && options
                .names
                .iter()
                .all(|name| self.names.get(name).and_then(Value::as_u64).is_some_and(lies_within))
            && self.lock_path.parent() == Some(&options.lock_directory)
            && (self.share.is_some() || is_cut_from_range)
    }

    /// Returns the ports of the block; `None` if they are no valid range.
    pub fn ports(&self) -> Option<PortBlock> {
        PortBlock::new(self.start_port, self.end_port)
    }
}

/// Returns the ports of an allocation by name, as [`Planner::named_ports`] does; none for another kind.
pub(super) fn named_ports(allocation: &Allocation) -> Vec<(String, u16)> {
    let block =
        Some(allocation).filter(|allocation| allocation.kind == KIND).and_then(Block::from_allocation);
    block.map(|block| block.reported_ports()).unwrap_or_default()
}

/// Provider of `port-range`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state")]
pub struct PortRange;

impl Planner for PortRange {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn options_schema(&self) -> Schema {
        schema_for!(Options)
    }

    fn allocation_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<Block>())
    }

    fn options(
        &self,
        own: &manifest::Options,
        parent: Option<&manifest::Options>,
        defaults: &manifest::Options,
    ) -> manifest::Options {
        // These options describe the geometry of one block; a share has its own.
        const OF_THE_BLOCK: [&str; 6] =
            ["base-port", "block-size", "block-count", "primary-port-offset", "reserve", "slots"];
        effective_options::<Options>(own, parent, defaults, &OF_THE_BLOCK)
    }

    fn queries(&self, options: &manifest::Options) -> Vec<Query> {
        let directory = options
            .get("lock-directory")
            .and_then(Value::as_str)
            .map_or_else(|| Options::default().lock_directory, PathBuf::from);
        vec![Query::Ports, Query::Directory { path: directory.clone() }, Query::Locks { directory }]
    }

    fn allows_several(&self) -> bool {
        true
    }

    /// Updates the names, the primary port, and the numbers of blocks and slots in place.
    fn is_update(&self, from: &Allocation, to: &Allocation) -> bool {
        let (Some(from), Some(to)) = (Block::from_allocation(from), Block::from_allocation(to)) else {
            return false;
        };
        let Block { block_count, primary_port, reserve, .. } = to;
        let names = to.names.clone();
        Block { block_count, primary_port, reserve, names, ..from } == to
    }

    fn allocator<'o>(&'o self, observation: &'o Observation, _scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(plan::Ports::new(observation))
    }

    fn child_options(&self) -> Option<ChildOptions> {
        Some(child::options)
    }

    fn context(&self, allocation: &Allocation) -> Context {
        Block::from_allocation(allocation).as_ref().map(context::describe).unwrap_or_default()
    }

    fn template_name(&self) -> Option<&'static str> {
        Some("port")
    }

    fn template_value(&self, allocation: &Allocation) -> Option<minijinja::Value> {
        Some(context::names(&Block::from_allocation(allocation)?))
    }

    fn summary(&self, allocation: &Allocation, _is_new: bool) -> Option<String> {
        Some(display::summary(&Block::from_allocation(allocation)?))
    }

    fn summary_of_many(&self, allocations: &[&Allocation], _are_new: bool) -> Option<String> {
        let blocks = allocations.par_iter().map(|allocation| Block::from_allocation(allocation));
        display::summary_of_many(&blocks.collect::<Option<Vec<_>>>()?)
    }

    fn explanation(&self, planned: &PlannedAllocation<'_>) -> Vec<String> {
        Block::from_allocation(planned.allocation)
            .map(|block| explanation::rules(planned, &block))
            .unwrap_or_default()
    }

    fn owned_paths(&self, planned: &PlannedAllocation<'_>) -> Vec<OwnedPath> {
        Block::from_allocation(planned.allocation)
            .map(|block| explanation::owned_paths(&block))
            .unwrap_or_default()
    }

    fn port_role(&self, planned: &PlannedAllocation<'_>, port: u16) -> Option<String> {
        Some(explanation::port_role(planned, &Block::from_allocation(planned.allocation)?, port))
    }

    fn named_ports(&self, allocation: &Allocation) -> Vec<(String, u16)> {
        named_ports(allocation)
    }

    fn block_range(&self, allocation: &Allocation) -> Option<BlockRange> {
        let block = Block::from_allocation(allocation).filter(|block| block.share.is_none())?;
        Some(BlockRange::new(block.base_port, block.block_size, block.block_count))
    }

    fn default_block_range(&self, options: &manifest::Options) -> Option<BlockRange> {
        let options: Options = serde_json::from_value(options.clone().into()).ok()?;
        Some(BlockRange::new(options.base_port, options.block_size, options.blocks()))
    }

    fn leased(&self, allocation: &Allocation) -> Vec<Leased> {
        self.ports(allocation).map(Leased::Ports).into_iter().collect()
    }

    fn ports(&self, allocation: &Allocation) -> Option<PortBlock> {
        Block::from_allocation(allocation)?.ports()
    }

    fn is_in_place(&self, allocation: &Allocation, _scoped_name: &str) -> bool {
        let options = self.options(&allocation.options, None, &manifest::Options::new());
        let Ok(options) = Options::deserialize(&options) else { return false };
        Block::from_allocation(allocation).is_some_and(|block| {
            block.is_of(&options)
                && block.ports().is_some_and(|ports| block.lock_path.ends_with(format!("{ports}.lock")))
                && !is_in_git_directory(&block.lock_path)
        })
    }

    fn notices(&self, allocation: &Allocation, observation: &Observation) -> Vec<String> {
        plan::notices(allocation, observation)
    }

    fn stale(
        &self,
        allocation: &Allocation,
        replaced: Option<&Allocation>,
        _released: &PathSet,
        observation: &Observation,
    ) -> Vec<String> {
        plan::stale(allocation, replaced, observation)
    }

    fn path_fields(&self) -> &'static [&'static str] {
        &["lockPath"]
    }

    fn is_claim(&self, _allocation: &Allocation) -> bool {
        true
    }
}

impl Provider for PortRange {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::provision(task)
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        lease::inspect(task)
    }

    fn unsaved_work(&self, _task: &Task<'_>) -> Result<UnsavedWork, Error> {
        Ok(UnsavedWork::default())
    }

    fn has_ownership_marker(&self, task: &Task<'_>) -> bool {
        lease::has_ownership_marker(task).unwrap_or(false)
    }

    fn rebind(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::rebind(task)
    }

    fn adopt(&self, task: &Task<'_>, original: &Task<'_>) -> Result<Option<Allocation>, Error> {
        lease::unlock_copy(task, original.owner)?;
        Ok(None)
    }

    fn forget(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::forget(task)
    }

    fn moves_aside(&self) -> bool {
        true
    }

    fn give_way(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::give_way(task)
    }

    fn bring_back(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::bring_back(task)
    }

    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::release(task)
    }

    fn manual_cleanup(&self, task: &Task<'_>) -> Vec<String> {
        lease::manual_cleanup(task)
    }

    fn footprint(&self, task: &Task<'_>) -> Footprint {
        let ports = Block::from_allocation(task.allocation).and_then(|block| block.ports());
        Footprint { ports: ports.into_iter().collect(), ..Footprint::default() }
    }

    fn temporary_file_directories(&self, task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        lease::temporary_file_directories(task)
    }
}
