//! Decides the options of a child's block, which is a share of its parent's block.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Share;
use super::plan::share_of;
use crate::name::PortBlock;
use crate::provider::ChildShare;

/// Returns the options of a block of exactly the share's ports.
pub(super) fn options(share: &ChildShare<'_>) -> Result<Map<String, Value>, String> {
    let (start, end) = (share.number("startPort")?, share.number("endPort")?);
    let primary = share.number("primaryPort")?;
    let lock_path = share.text("lockPath")?;

    let start = start.saturating_add(share.number("reserve").unwrap_or(0));
    let small = |port: u64| u32::try_from(port).ok();
    let ports = small(start)
        .zip(small(end))
        .and_then(|(start, end)| PortBlock::new(start, end))
        .and_then(|rest| share_of(rest, Share { index: share.index, of: share.count }))
        .ok_or_else(|| {
            format!("Cannot suballocate {} child port blocks from parent range {start}-{end}.", share.count)
        })?;
    let (first, last) = (u64::from(ports.start()), u64::from(ports.end()));
    let names = share.allocation.get("names").and_then(Value::as_object).into_iter().flatten();
    let mut named_ports = names.filter_map(|(name, port)| Some((name, port.as_u64()?)));
    if let Some((name, port)) = named_ports.find(|(_, port)| (first..=last).contains(port)) {
        return Err(format!(
            "child {} would get port {port}, which is `{name}` of its parent; raise the parent's `reserve`",
            share.index
        ));
    }
    let directory = Path::new(lock_path).parent().unwrap_or(Path::new("."));
    let options = [
        ("basePort", json!(first)),
        ("blockSize", json!(ports.size())),
        ("blockCount", json!(1)),
        ("primaryPortOffset", json!(primary.clamp(first, last) - first)),
        ("lockDirectory", json!(directory.to_string_lossy())),
    ];
    Ok(options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
