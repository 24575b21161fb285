//! Provides the `pool` kind: items of a list, such as devices or accounts, leased host-wide.
//!
//! The manifest names the items. Nothing is created: a session is told which items are its own. No other session of the
//! host has them, because each is leased in the registry in which ports are leased.

mod lease;
mod plan;

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Allocation, Allocator, Condition, Context, Error, PathSet, PlannedAllocation, Planner, Provider, Scope,
    Task, UnsavedWork, effective_options,
};
use crate::host::leases::{self, Leased};
use crate::manifest;
use crate::name::{NAME_PATTERN, is_name, variable_part};
use crate::observe::{Observation, Query};

/// Name of the kind.
pub const KIND: &str = "pool";

/// Options that name the items. A request that sets one of them inherits neither.
const LIST: [&str; 2] = ["items", "file"];

/// Longest item, in bytes.
const ITEM_MAX: usize = 256;

/// Maximum size of a file with items, in bytes.
const FILE_MAX: usize = 1 << 20;

/// Number of items that a summary names.
const NAMED: usize = 4;

/// Options of a `pool`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Options {
    /// All items of the pool. An item is one line of text without commas.
    #[schemars(length(max = 4096))]
    #[schemars(extend("examples" = [["gpu0", "gpu1"]]))]
    pub items: Vec<String>,
    /// File with the items, one a line, relative to the workspace root; instead of `items`. Empty lines, and lines that
    /// begin with `#`, are skipped.
    #[schemars(extend("examples" = ["devices.txt"]))]
    pub file: Option<PathBuf>,
    /// Name of the pool on this host. Manifests that name the same pool share its items. Default: the name of the
    /// resource.
    #[schemars(regex(pattern = NAME_PATTERN))]
    #[schemars(extend("examples" = ["gpu"]))]
    pub pool: Option<String>,
    /// Number of items that the session itself has. With 0 only its children have items.
    #[schemars(range(min = 0, max = 4096))]
    pub count: u32,
    /// Number of further items, from which children take their shares. Default: the number of children that take a
    /// share.
    #[schemars(range(min = 0, max = 4096))]
    #[schemars(extend("examples" = [8]))]
    pub slots: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { items: Vec::new(), file: None, pool: None, count: 1, slots: None }
    }
}

/// Planned items of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Items {
    /// Name of the pool on this host.
    pub pool: String,
    /// Items of the session itself.
    pub items: Vec<String>,
    /// Items from which children take their shares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_children: Vec<String>,
}

impl Items {
    /// Reads an allocation of this kind; `None` if planning did not make the allocation.
    pub fn from_allocation(allocation: &Allocation) -> Option<Self> {
        Self::deserialize(&allocation.allocation).ok()
    }

    /// Returns the items of the session itself and those for its children.
    fn all(&self) -> impl Iterator<Item = &String> {
        self.items.iter().chain(&self.for_children)
    }

    fn leased(&self) -> impl Iterator<Item = Leased> {
        self.all().map(|item| Leased::Item { pool: self.pool.clone(), item: item.clone() })
    }

    /// Returns whether planning could have returned these items for these options.
    fn is_of(&self, options: &Options, resource: &str, is_share: bool) -> bool {
        let listed: BTreeSet<&String> = options.items.iter().collect();
        let is_listed = |item: &String| options.file.is_some() || listed.contains(item);
        let distinct: BTreeSet<&String> = self.all().collect();
        is_name(&self.pool)
            && (is_share || self.pool == options.pool.as_deref().unwrap_or(resource))
            && distinct.len() == self.all().count()
            && self.all().all(|item| plan::is_item(item) && is_listed(item))
            && u32::try_from(self.items.len()) == Ok(options.count)
            && options.slots.is_none_or(|slots| u32::try_from(self.for_children.len()) == Ok(slots))
    }
}

/// Returns the first few items, and the number of the others.
fn listed(items: &[&String]) -> String {
    let shown: Vec<&str> = items.iter().take(NAMED).map(|item| item.as_str()).collect();
    match items.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Provider of `pool`.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no state")]
pub struct Pool;

impl Planner for Pool {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn options_schema(&self) -> Schema {
        schema_for!(Options)
    }

    fn allocation_schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<Items>())
    }

    fn options(
        &self,
        own: &manifest::Options,
        parent: Option<&manifest::Options>,
        defaults: &manifest::Options,
    ) -> manifest::Options {
        let names_items = |options: &manifest::Options| {
            LIST.iter().any(|key| {
                options.get(*key).is_some_and(|value| !value.is_null() && *value != Value::Array(Vec::new()))
            })
        };
        let without_items = |options: &manifest::Options| {
            let mut options = options.clone();
            options.retain(|key, _| !LIST.contains(&key.as_str()));
            options
        };
        let (mut parent, mut defaults) = (parent.cloned(), defaults.clone());
        if names_items(own) || parent.as_ref().is_some_and(names_items) {
            defaults = without_items(&defaults);
        }
        if names_items(own) {
            parent = parent.as_ref().map(without_items);
        }
        // A share has numbers of its own, also instead of the defaults for pools.
        if parent.is_some() {
            defaults.retain(|key, _| LIST.contains(&key.as_str()));
        }
        effective_options::<Options>(own, parent.as_ref(), &defaults, &["count", "slots"])
    }

    fn queries(&self, options: &manifest::Options) -> Vec<Query> {
        let file = options.get("file").and_then(Value::as_str);
        let file = file.map(|path| Query::File { path: path.into(), limit: FILE_MAX });
        file.into_iter().chain([Query::Items]).collect()
    }

    fn allows_several(&self) -> bool {
        true
    }

    /// Updates in place what leaves the items as they are, such as the list that they are from.
    fn is_update(&self, from: &Allocation, to: &Allocation) -> bool {
        from.allocation == to.allocation
    }

    fn allocator<'o>(&'o self, observation: &'o Observation, _scope: &Scope<'_>) -> Box<dyn Allocator + 'o> {
        Box::new(plan::Pools::new(observation))
    }

    fn context(&self, allocation: &Allocation) -> Context {
        let Some(items) = Items::from_allocation(allocation).filter(|items| !items.items.is_empty()) else {
            return Context::default();
        };
        let variable = match &allocation.name {
            Some(name) => format!("AGENT_POOL_{}", variable_part(name)),
            None => "AGENT_POOL".to_owned(),
        };
        let text = items.items.join(",");
        Context {
            prompt_sections: vec![format!("Items of the pool {}: {text}", items.pool)],
            metadata: Map::from_iter([("pool_items".to_owned(), items.items.into())]),
            own_env: [(variable, text)].into(),
            ..Context::default()
        }
    }

    fn template_name(&self) -> Option<&'static str> {
        Some(KIND)
    }

    fn template_value(&self, allocation: &Allocation) -> Option<minijinja::Value> {
        let items = Items::from_allocation(allocation)?;
        let first = items.items.first().map(|item| ("item", minijinja::Value::from(item.as_str())));
        let list = ("items", minijinja::Value::from(items.items.clone()));
        Some(minijinja::Value::from_pairs(first.into_iter().chain([list])))
    }

    fn summary(&self, allocation: &Allocation, _is_new: bool) -> Option<String> {
        let items = Items::from_allocation(allocation)?;
        let own = listed(&items.items.iter().collect::<Vec<_>>());
        let rest: Vec<&String> = items.for_children.iter().collect();
        Some(match (own.is_empty(), rest.is_empty()) {
            (_, true) => own,
            (true, false) => format!("for its children: {}", listed(&rest)),
            (false, false) => format!("{own}  for its children: {}", listed(&rest)),
        })
    }

    fn summary_of_many(&self, allocations: &[&Allocation], _are_new: bool) -> Option<String> {
        let items: Option<Vec<Items>> = allocations.iter().map(|one| Items::from_allocation(one)).collect();
        let items = items?;
        let own: Vec<&String> = items.iter().flat_map(|items| &items.items).collect();
        Some(format!("{} in {} sessions", listed(&own), items.len()))
    }

    fn explanation(&self, planned: &PlannedAllocation<'_>) -> Vec<String> {
        let Some(items) = Items::from_allocation(planned.allocation) else { return Vec::new() };
        let all = listed(&items.all().collect::<Vec<_>>());
        let pool = &items.pool;
        let mut rules = match planned.parent.filter(|_| planned.allocation.within_parent) {
            Some((parent, _)) => {
                vec![format!("{all} of the pool {pool} are a share of the items of {parent}")]
            }
            None => vec![format!(
                "{all} of the pool {pool}: the first free ones, from the position that the hash of {} gives",
                planned.session
            )],
        };
        rules.extend(planned.allocation.notes.iter().map(|note| format!("  {note}")));
        if !items.for_children.is_empty() {
            let rest = listed(&items.for_children.iter().collect::<Vec<_>>());
            rules.push(format!("its children take their shares from {rest}"));
        }
        rules
    }

    fn is_in_place(&self, allocation: &Allocation, _scoped_name: &str) -> bool {
        let options = self.options(&allocation.options, None, &manifest::Options::new());
        let options = Options::deserialize(&options).ok();
        let items = Items::from_allocation(allocation);
        options.zip(items).is_some_and(|(options, items)| {
            items.is_of(&options, allocation.name(), allocation.within_parent)
        })
    }

    fn leased(&self, allocation: &Allocation) -> Vec<Leased> {
        Items::from_allocation(allocation).map(|items| items.leased().collect()).unwrap_or_default()
    }

    fn stale(
        &self,
        allocation: &Allocation,
        _replaced: Option<&Allocation>,
        _released: &PathSet,
        observation: &Observation,
    ) -> Vec<String> {
        plan::stale(allocation, observation)
    }

    fn is_claim(&self, _allocation: &Allocation) -> bool {
        true
    }
}

impl Provider for Pool {
    fn provision(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::provision(task)
    }

    fn inspect(&self, task: &Task<'_>) -> Result<Condition, Error> {
        lease::inspect(task)
    }

    fn unsaved_work(&self, _task: &Task<'_>) -> Result<UnsavedWork, Error> {
        Ok(UnsavedWork::default())
    }

    fn rebind(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::each(task, leases::rebind)
    }

    fn moves_aside(&self) -> bool {
        true
    }

    fn give_way(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::each(task, leases::set_aside)
    }

    fn bring_back(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::each(task, leases::bring_back)
    }

    fn release(&self, task: &Task<'_>) -> Result<(), Error> {
        lease::release(task)
    }

    fn manual_cleanup(&self, task: &Task<'_>) -> Vec<String> {
        lease::manual_cleanup(task)
    }

    fn temporary_file_directories(&self, task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
        Ok(vec![task.host.state.join(leases::DIRECTORY)])
    }
}
