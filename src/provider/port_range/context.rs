//! Describes a block to its session: environment, prompt, metadata, and `port.*` of templates.

use std::collections::BTreeMap;

use super::Block;
use crate::provider::Context;

/// Returns the soft context of the reference implementation.
pub(super) fn describe(block: &Block) -> Context {
    let env = BTreeMap::from([
        ("AGENT_PORT_RANGE_START".to_owned(), block.start_port.to_string()),
        ("AGENT_PORT_RANGE_END".to_owned(), block.end_port.to_string()),
        ("AGENT_PORT_PRIMARY".to_owned(), block.primary_port.to_string()),
    ]);
    let own_env = block.names.iter().map(|(name, port)| (variable(name), port.to_string())).collect();
    let mut prompt_sections = vec![
        format!("Assigned deterministic port range: {}-{}", block.start_port, block.end_port),
        format!("Primary port: {}", block.primary_port),
    ];
    if !block.names.is_empty() {
        let names: Vec<_> = block.named_ports().iter().map(|(name, port)| format!("{name}={port}")).collect();
        prompt_sections.push(format!("Named ports: {}", names.join(", ")));
    }
    let metadata = [
        ("port_range_start", block.start_port),
        ("port_range_end", block.end_port),
        ("port_primary", block.primary_port),
        ("port_block_index", block.block_index),
    ];
    Context {
        env,
        own_env,
        prompt_sections,
        metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect(),
        ..Context::default()
    }
}

/// Returns `port.*` for templates.
pub(super) fn names(block: &Block) -> minijinja::Value {
    let fixed = [("start", block.start_port), ("end", block.end_port), ("primary", block.primary_port)];
    let fixed = fixed.into_iter().map(|(name, port)| (name, u64::from(port)));
    minijinja::Value::from_pairs(fixed.chain(block.named_ports()))
}

/// Returns the variable for a named port: `http-admin` is `AGENT_PORT_HTTP_ADMIN`.
pub(super) fn variable(name: &str) -> String {
    format!("AGENT_PORT_{}", name.to_ascii_uppercase().replace('-', "_"))
}
