//! Data that a session receives without its manifest: from its allocations and from its names.

use std::path::PathBuf;

use super::Session;
use crate::name::Slug;
use crate::provider::{Allocation, Context, Kind, Registry, placeholders};

/// Returns the data that a session receives from its allocations and its names.
pub(super) fn session_context(session: &Session, registry: &Registry) -> Context {
    let mut context = contributed(&session.allocations, registry);
    context.env.extend(name_variables(&session.id, session.index, session.replica, &session.slug));
    context
}

/// Returns the data that all allocations of a session contribute, each overriding those before it.
pub(super) fn contributed(allocations: &[Allocation], registry: &Registry) -> Context {
    let mut all = Context::default();
    for (at, allocation) in allocations.iter().enumerate() {
        let Some(provider) = registry.get(&allocation.kind) else { continue };
        let context = resource_context(allocations, at, provider);
        all.env.extend(context.env);
        all.prompt_sections.extend(context.prompt_sections);
        all.metadata.extend(context.metadata);
        all.working_directory = context.working_directory.or(all.working_directory);
    }
    all
}

/// Returns the contribution of the allocation at this position. The variables of the kind are those of the resource with
/// the name of the kind, or else of the first one.
pub(super) fn resource_context(allocations: &[Allocation], at: usize, provider: &dyn Kind) -> Context {
    let allocation = &allocations[at];
    let mut of_kind = allocations.iter().enumerate().filter(|(_, other)| other.kind == allocation.kind);
    let first = of_kind.clone().find(|(_, other)| other.name.is_none()).or_else(|| of_kind.next());
    let is_first = first.is_some_and(|(first, _)| first == at);
    provider.context(allocation).for_resource(&allocation.kind, allocation.name(), is_first)
}

/// Returns the working directory of a session, relative to the workspace root: that of the resource that it chooses, or
/// that which its allocations contribute; `None` if there is none.
pub(super) fn working_directory(session: &Session, registry: &Registry) -> Option<PathBuf> {
    match &session.directory {
        Some(name) => directory_of(&session.allocations, name, registry),
        None => contributed(&session.allocations, registry).working_directory,
    }
}

/// Returns the directory in which a session works that chooses the resource of this name.
pub(super) fn directory_of(allocations: &[Allocation], name: &str, registry: &Registry) -> Option<PathBuf> {
    let chosen = allocations.iter().find(|allocation| allocation.name() == name)?;
    registry.get(&chosen.kind)?.working_directory(chosen)
}

/// Returns the variables that name a session.
pub(super) fn name_variables(
    id: &str,
    index: u32,
    replica: Option<u32>,
    slug: &Slug,
) -> [(String, String); 5] {
    [
        ("AGENT_SESSION_ID", id.to_owned()),
        ("AGENT_SESSION_INDEX", index.to_string()),
        ("AGENT_SESSION_REPLICA", replica.unwrap_or(0).to_string()),
        ("AGENT_SESSION_SLUG", slug.as_str().to_owned()),
        ("AGENT_SESSION_HASH", placeholders::session_hash_placeholder(id)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}
