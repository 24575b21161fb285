//! Requests of a child, from the snapshot of its parent: `buildChildResourceRequests` of the reference implementation.

use std::path::Path;

use serde_json::{Map, Value};

use super::ResourceRequest;
use crate::discovery::Snapshot;
use crate::name::{HashDigits, PortBlock, scoped_name};
use crate::provider::git_worktree::nested_root;
use crate::provider::port_range::{Share, share_of};
use crate::provider::{git_worktree, port_range};

/// Reason for which a child's requests cannot be determined. Errors that the reference implementation has too use its
/// texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The number of children is 0.
    #[error("childCount must be a positive integer.")]
    Count,
    /// The index is not less than the number of children.
    #[error("childIndex must be an integer in [0, childCount).")]
    Index,
    /// A number of the parent's allocation is missing.
    #[error("Allocation field \"{0}\" must be an integer.")]
    NotAnInteger(&'static str),
    /// A text of the parent's allocation is missing.
    #[error("Allocation field \"{0}\" must be a non-empty string.")]
    NotAString(&'static str),
    /// An active child of the same parent has this position.
    #[error("child {index} of its parent is already active: it is `{session}`")]
    Taken {
        /// Position of the child.
        index: u32,
        /// Id of the child that has this position.
        session: String,
    },
    /// The allocations of the parent would be planned differently now, so that no share of them can be planned.
    #[error("`{0}` was provisioned with options that its kinds now plan differently; apply it again")]
    Changed(String),
    /// There are more children than ports.
    #[error("Cannot suballocate {count} child port blocks from parent range {start}-{end}.")]
    TooManyChildren {
        /// Number of children.
        count: u32,
        /// First port of the parent that can be divided, after its reserve.
        start: u64,
        /// Last port of the parent.
        end: u64,
    },
    /// The share contains a port that the parent has named.
    #[error(
        "child {index} would get port {port}, which is `{name}` of its parent; raise the parent's `reserve`"
    )]
    Named {
        /// Position of the child.
        index: u32,
        /// Number of the port.
        port: u64,
        /// The parent's name of the port.
        name: String,
    },
}

/// Returns the requests of the child at `child_index` (from 0) of `child_count`. Pure.
///
/// The requests are a worktree like its parent's, inside the parent's, and a share of its parent's ports. Each share
/// has `floor(size / child_count)` ports, and the last one gets the rest. The reserved ports of the parent (`reserve`)
/// are not divided; in the reference implementation, and without `names`, there are none.
///
/// For other kinds, the snapshot has too little information.
/// [`Orchestrator::provision_child`](super::Orchestrator::provision_child) plans their shares from the parent's record.
pub fn child_requests(
    parent: &Snapshot,
    child_index: u32,
    child_count: u32,
) -> Result<Vec<ResourceRequest>, ChildError> {
    if child_count == 0 {
        return Err(ChildError::Count);
    }
    if child_index >= child_count {
        return Err(ChildError::Index);
    }
    let mut requests = Vec::new();
    if let Some(worktree) = parent.allocation(git_worktree::KIND) {
        requests.push(worktree_request(parent, worktree)?);
    }
    if let Some(block) = parent.allocation(port_range::KIND) {
        requests.push(port_request(block, Share { index: child_index, of: child_count })?);
    }
    Ok(requests)
}

fn worktree_request(parent: &Snapshot, worktree: &Map<String, Value>) -> Result<ResourceRequest, ChildError> {
    let path = text(worktree, "worktreePath")?;
    let scoped_parent = scoped_name(&parent.session_id, HashDigits::Eight);
    let root = nested_root(Path::new(path), &scoped_parent);
    let base_ref = text(worktree, "baseRef").unwrap_or("HEAD");
    let mut request = ResourceRequest::new(git_worktree::KIND)
        .with("rootDirectory", root.to_string_lossy())
        .with("baseRef", base_ref);
    if let Ok(target) = text(worktree, "targetPath") {
        request = request.with("targetPath", target.trim());
    }
    Ok(request)
}

fn port_request(block: &Map<String, Value>, share: Share) -> Result<ResourceRequest, ChildError> {
    let start = number(block, "startPort")?;
    let end = number(block, "endPort")?;
    let primary = number(block, "primaryPort")?;
    let lock_path = text(block, "lockPath")?;

    let start = start.saturating_add(number(block, "reserve").unwrap_or(0));
    let small = |port: u64| u32::try_from(port).ok();
    let ports = small(start)
        .zip(small(end))
        .and_then(|(start, end)| PortBlock::new(start, end))
        .and_then(|rest| share_of(rest, share))
        .ok_or(ChildError::TooManyChildren { count: share.of, start, end })?;
    let (first, last) = (u64::from(ports.start()), u64::from(ports.end()));
    let names = block.get("names").and_then(Value::as_object).into_iter().flatten();
    for (name, port) in names.filter_map(|(name, port)| Some((name, port.as_u64()?))) {
        if (first..=last).contains(&port) {
            return Err(ChildError::Named { index: share.index, port, name: name.clone() });
        }
    }
    let directory = Path::new(lock_path).parent().unwrap_or(Path::new("."));
    Ok(ResourceRequest::new(port_range::KIND)
        .with("basePort", first)
        .with("blockSize", ports.size())
        .with("blockCount", 1)
        .with("primaryPortOffset", primary.clamp(first, last) - first)
        .with("lockDirectory", directory.to_string_lossy()))
}

fn number(allocation: &Map<String, Value>, key: &'static str) -> Result<u64, ChildError> {
    allocation.get(key).and_then(Value::as_u64).ok_or(ChildError::NotAnInteger(key))
}

fn text<'a>(allocation: &'a Map<String, Value>, key: &'static str) -> Result<&'a str, ChildError> {
    let text = allocation.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    text.ok_or(ChildError::NotAString(key))
}
