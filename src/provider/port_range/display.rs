//! Describes blocks of ports for a review.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Block;
use crate::host::text::thousands;
use crate::name::PortBlock;

/// Maximum number of runs of ports that are listed.
const RUNS: usize = 3;

/// Describes a block.
pub(super) fn summary(block: &Block) -> String {
    let mut text = format!("{}-{}", block.start_port, block.end_port);
    if block.names.is_empty() {
        let _ = write!(text, "  primary={}", block.primary_port);
    }
    for (name, port) in block.named_ports() {
        let _ = write!(text, "  {name}={port}");
    }
    text
}

/// Describes blocks of sessions that are alike; `None` if there are none.
pub(super) fn summary_of_many(blocks: &[Block]) -> Option<String> {
    let first = blocks.first()?;
    let ports: Vec<PortBlock> = blocks.iter().filter_map(Block::ports).collect();
    let runs = PortBlock::merged(ports);
    let shown: Vec<String> = runs.iter().take(RUNS).map(PortBlock::to_string).collect();
    let sizes: BTreeSet<u32> = blocks.iter().map(|block| block.block_size).collect();
    let size = match (sizes.first(), sizes.last()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        _ => first.block_size.to_string(),
    };
    let locations = match (runs.len() > RUNS, runs.first(), runs.last()) {
        (true, Some(lowest), Some(highest)) => format!("between {} and {}", lowest.start(), highest.end()),
        _ => shown.join(", "),
    };
    let names: Vec<&str> = first.named_ports().into_iter().map(|(name, _)| name).collect();
    let names = if names.is_empty() { String::new() } else { format!("  {} in each", names.join(", ")) };
    Some(format!("{} blocks of {size}, {locations}{names}", thousands(blocks.len())))
}
