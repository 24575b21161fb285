//! Requests of a child, from the snapshot of its parent: `buildChildResourceRequests` of the reference implementation.

use super::ResourceRequest;
use crate::discovery::Snapshot;
use crate::provider::{ChildShare, Planner, Registry};

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
    /// An allocation of the parent has no such share.
    #[error("{why}")]
    Share {
        /// Kind of the resource.
        kind: String,
        /// Reason, one line.
        why: String,
    },
    /// An active child of the same parent has this position.
    #[error("child {index} of its parent is already active: it is `{session}`")]
    Conflict {
        /// Position of the child.
        index: u32,
        /// Id of the child that has this position.
        session: String,
    },
    /// The allocations of the parent would be planned differently now, so that no share of them can be planned.
    #[error("`{0}` was provisioned with options that its kinds now plan differently; apply it again")]
    Changed(String),
}

/// Returns the requests of the child at `child_index` (from 0) of `child_count`. Pure.
///
/// The requests are a worktree like its parent's, inside the parent's, and a share of its parent's ports. Each share
/// has `floor(size / child_count)` ports, and the last one gets the rest. The reserved ports of the parent (`reserve`)
/// are not divided; in the reference implementation, and without `names`, there are none.
///
/// Kinds without [`Planner::child_options`] need more than the snapshot.
/// [`Orchestrator::provision_child`](super::Orchestrator::provision_child) plans their shares from the parent's record.
pub fn child_requests(
    registry: &Registry,
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
    let mut requests: Vec<ResourceRequest> = Vec::new();
    for constraint in &parent.hard_constraints {
        let Some(options) = registry.get(&constraint.kind).and_then(Planner::child_options) else { continue };
        let (parent, allocation) = (parent.session_id.as_str(), &constraint.allocation);
        let options = options(&ChildShare { parent, allocation, index: child_index, count: child_count });
        let options = options.map_err(|why| ChildError::Share { kind: constraint.kind.clone(), why })?;
        let (kind, name) = (constraint.kind.clone(), constraint.name.clone());
        requests.push(ResourceRequest { kind, name, options });
    }
    Ok(requests)
}
