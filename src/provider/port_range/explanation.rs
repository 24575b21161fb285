//! Explains the choice of a block of ports, and the role of each port.

use super::Block;
use super::check::count;
use crate::name::hash_u32;
use crate::provider::{OwnedPath, PlannedAllocation};

/// Returns the rules that decide the ports of a block.
pub(super) fn rules(planned: &PlannedAllocation<'_>, block: &Block) -> Vec<String> {
    let mut rules = Vec::new();
    let (start, end) = (block.start_port, block.end_port);
    match block.share {
        None => {
            let hash = hash_u32(planned.session);
            let preferred = hash % block.block_count.max(1);
            let by_hash = format!(
                "block {preferred} of {} is preferred by hash: sha256(\"{}\") begins with {hash:08x}, modulo {}",
                block.block_count, planned.session, block.block_count
            );
            rules.push(by_hash);
            if preferred != block.block_index {
                rules.push(format!(
                    "block {} is the next one that was free when this was planned:",
                    block.block_index
                ));
                rules.extend(planned.allocation.notes.iter().map(|note| format!("  {note}")));
            }
            rules.push(format!(
                "block {} is {start}-{end}: {} + {} * {}, {} ports",
                block.block_index, block.base_port, block.block_index, block.block_size, block.block_size
            ));
        }
        Some(share) => {
            match planned
                .parent
                .and_then(|(parent, allocation)| Some((parent, Block::from_allocation(allocation)?)))
            {
                Some((parent, whole)) => rules.push(format!(
                    "{start}-{end} is share {} of {} of the ports of {}, {}-{}{}",
                    share.index + 1,
                    share.of,
                    parent,
                    whole.start_port,
                    whole.end_port,
                    kept(&whole)
                )),
                None => rules.push(format!("{start}-{end} is share {} of {}", share.index + 1, share.of)),
            }
        }
    }
    if planned.has_children && block.reserve > 0 {
        rules.push(format!(
            "it keeps the first {} ports for itself, and its children divide the rest",
            block.reserve
        ));
    }
    let names = block.named_ports();
    if !names.is_empty() {
        let names: Vec<_> = names.iter().map(|(name, port)| format!("{name} {port}")).collect();
        rules.push(format!(
            "its names are given from the primary port, {}, upward: {}",
            block.primary_port,
            names.join(", ")
        ));
    }
    rules
}

fn kept(whole: &Block) -> String {
    if whole.reserve == 0 {
        String::new()
    } else {
        format!(" without the {} that the parent keeps", count(whole.reserve, "port"))
    }
}

/// Describes the role of one port of a block in its session.
pub(super) fn port_role(planned: &PlannedAllocation<'_>, block: &Block, port: u16) -> String {
    let port = u32::from(port);
    let named = block.named_ports();
    if let Some((name, _)) = named.iter().find(|(_, named)| *named == u64::from(port)) {
        let also = if port == block.primary_port { ", and its primary port" } else { "" };
        return format!("`{name}`{also}, AGENT_PORT_{}", name.to_uppercase().replace('-', "_"));
    }
    if port == block.primary_port {
        return "its primary port".to_owned();
    }
    if !planned.has_children || port < block.start_port + block.reserve {
        "one of its ports without a name".to_owned()
    } else {
        "a port for its children that none of them has".to_owned()
    }
}

/// Returns the lock file of a block.
pub(super) fn owned_paths(block: &Block) -> Vec<OwnedPath> {
    let rule = format!(
        "it keeps other tools off ports {}-{}: `lock-directory`, and the block's first and last port",
        block.start_port, block.end_port
    );
    vec![OwnedPath::new(block.lock_path.clone(), "lock file", vec![rule])]
}
