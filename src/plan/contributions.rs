//! Data that a session receives without its manifest: from its allocations and from its names.

use super::Session;
use crate::name::Slug;
use crate::provider::{Allocation, Context, Registry, placeholders};

/// Returns the data that a session receives from its allocations and its names.
pub(super) fn session_context(session: &Session, registry: &Registry) -> Context {
    let mut context = contributed(&session.allocations, registry);
    context.env.extend(name_variables(&session.id, session.index, session.replica, &session.slug));
    context
}

/// Returns the data that all allocations of a session contribute, each overriding those before it.
pub(super) fn contributed(allocations: &[Allocation], registry: &Registry) -> Context {
    let mut all = Context::default();
    for (at, held) in allocations.iter().enumerate() {
        let Some(provider) = registry.get(&held.kind) else { continue };
        let is_first = allocations[..at].iter().all(|earlier| earlier.kind != held.kind);
        let context = provider.context(held).for_resource(&held.kind, held.name(), is_first);
        all.env.extend(context.env);
        all.prompt_sections.extend(context.prompt_sections);
        all.metadata.extend(context.metadata);
        all.working_directory = context.working_directory.or(all.working_directory);
    }
    all
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
