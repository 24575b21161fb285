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
    let runs = runs(ports);
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

/// Merges blocks that touch one another; returns the lowest first.
pub(crate) fn runs(mut blocks: Vec<PortBlock>) -> Vec<PortBlock> {
    blocks.sort_unstable();
    let mut runs: Vec<PortBlock> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(last) if u32::from(block.start()) <= u32::from(last.end()) + 1 => {
                let end = last.end().max(block.end());
                *last = PortBlock::new(last.start().into(), end.into()).unwrap_or(block);
            }
            _ => runs.push(block),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_touch_are_one() {
        let block = |start, end| PortBlock::new(start, end).unwrap();
        let given = vec![block(20, 29), block(1, 9), block(10, 19), block(40, 65535), block(41, 42)];
        assert_eq!(runs(given), [block(1, 29), block(40, 65535)]);
    }
}
