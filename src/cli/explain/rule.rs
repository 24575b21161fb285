//! Rules of planning, with the numbers of one case.

use seedbed::name::{HashDigits, hash_u32, scoped_name};
use seedbed::plan::Session;
use seedbed::provider::Allocation;
use seedbed::provider::git_worktree::Worktree;
use seedbed::provider::port_range::Block;

use super::super::output;
use super::sources::LocatedPlan;

/// Explains the choice of a session's block.
pub(super) fn of_block(
    located: &LocatedPlan,
    session: &Session,
    allocation: &Allocation,
    block: &Block,
) -> Vec<String> {
    let mut rules = Vec::new();
    let (start, end) = (block.start_port, block.end_port);
    match block.share {
        None => {
            let hash = hash_u32(&session.id);
            let preferred = hash % block.block_count.max(1);
            let by_hash = format!(
                "block {preferred} of {} is preferred by hash: sha256(\"{}\") begins with {hash:08x}, modulo {}",
                block.block_count, session.id, block.block_count
            );
            rules.push(by_hash);
            if preferred != block.block_index {
                rules.push(format!(
                    "block {} is the next one that was free when this was planned:",
                    block.block_index
                ));
                rules.extend(allocation.notes.iter().map(|note| format!("  {note}")));
            }
            rules.push(format!(
                "block {} is {start}-{end}: {} + {} * {}, {} ports",
                block.block_index, block.base_port, block.block_index, block.block_size, block.block_size
            ));
        }
        Some(share) => {
            let parent = session.parent.as_ref().and_then(|parent| located.plan.session(parent));
            let of = parent.and_then(|parent| Some((parent, parent.allocation(allocation.name())?)));
            match of.and_then(|(parent, held)| Some((parent, Block::of(held)?))) {
                Some((parent, whole)) => rules.push(format!(
                    "{start}-{end} is share {} of {} of the ports of {}, {}-{}{}",
                    share.index + 1,
                    share.of,
                    parent.path,
                    whole.start_port,
                    whole.end_port,
                    kept(&whole)
                )),
                None => rules.push(format!("{start}-{end} is share {} of {}", share.index + 1, share.of)),
            }
        }
    }
    if !session.children.is_empty() && block.reserve > 0 {
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
        format!(" without the {} that the parent keeps", output::count(whole.reserve, "port"))
    }
}

/// Describes the role of one port of a block in the session.
pub(super) fn of_port(session: &Session, block: &Block, port: u16) -> String {
    let port = u32::from(port);
    let named = block.named_ports();
    if let Some((name, _)) = named.iter().find(|(_, named)| *named == u64::from(port)) {
        let also = if port == block.primary_port { ", and its primary port" } else { "" };
        return format!("`{name}`{also}, AGENT_PORT_{}", name.to_uppercase().replace('-', "_"));
    }
    if port == block.primary_port {
        return "its primary port".to_owned();
    }
    if session.children.is_empty() || port < block.start_port + block.reserve {
        "one of its ports without a name".to_owned()
    } else {
        "a port for its children that none of them has".to_owned()
    }
}

/// Explains the location and the commit of a session's worktree.
pub(super) fn of_worktree(session: &Session, worktree: &Worktree) -> Vec<String> {
    let path = worktree.worktree_path.display();
    let root = worktree.worktree_root.display();
    let digits = [(HashDigits::Eight, 8), (HashDigits::Sixteen, 16)]
        .into_iter()
        .find(|(digits, _)| scoped_name(&session.id, *digits) == session.scoped_name)
        .map_or(8, |(_, digits)| digits);
    let by = if worktree.worktree_root.components().any(|part| part.as_os_str() == "child-worktrees") {
        "inside the parent's, by `layout = \"nested\"`"
    } else {
        "by `root-directory`"
    };
    let mut rules = vec![
        format!("{path} is {root}, {by}, and the session's scoped name, {}", session.scoped_name),
        format!(
            "the scoped name is {}, with other characters than letters, digits, `_` and `-` replaced by one `-`, cut at 32 characters, and the first {digits} digits of its SHA-256",
            session.id
        ),
        format!("{} named commit {} when this was planned", worktree.base_ref, worktree.base()),
    ];
    if let Some(branch) = &worktree.branch {
        rules.push(match &worktree.existing {
            None => format!("branch {branch} begins there"),
            Some(existing) => format!(
                "branch {branch} existed, {} ahead of it, and continues from commit {}",
                existing.ahead, worktree.commit
            ),
        });
    }
    if let Some(target) = &worktree.target_path {
        rules.push(format!("only {target} is checked out, by `target-path`, and the session works in it"));
    }
    rules
}
