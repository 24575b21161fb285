//! Swarm that is already applied, as planning sees it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Plan;
use crate::name::SessionPath;

/// Swarm that is already applied.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AppliedPlan {
    /// Plan of the last completed run.
    pub plan: Plan,
    /// Lost or broken allocations, by session and name of the resource.
    pub broken: BTreeMap<(SessionPath, String), Damage>,
}

impl AppliedPlan {
    /// Creates an applied swarm in which nothing is lost or broken.
    pub fn new(plan: Plan) -> Self {
        Self { plan, broken: BTreeMap::new() }
    }
}

/// Damage of an existing allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Description of the damage, one line.
    pub why: String,
    /// Way in which the damage is repaired.
    pub kind: DamageKind,
}

/// Way in which damage is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum DamageKind {
    /// The allocation has to be created again.
    Lost,
    /// The allocation can be repaired in place, without releasing it first.
    Repairable,
    /// The allocation works as it is, and only its format is that of an earlier version. It is repaired in place.
    Older,
    /// Only another tool can repair the damage. A run leaves the allocation as it is, and writes no discovery file.
    Absent,
    /// The damage is unknown, because a dependency of the inspection does not respond; the allocation may be undamaged.
    Unknown,
}

impl Damage {
    /// Creates damage, described in one line.
    pub fn new(kind: DamageKind, why: String) -> Self {
        Self { why, kind }
    }

    /// Returns whether the allocation has to be created again.
    pub fn is_lost(&self) -> bool {
        self.kind == DamageKind::Lost
    }

    /// Returns whether the allocation can be repaired in place.
    pub fn is_repairable(&self) -> bool {
        matches!(self.kind, DamageKind::Repairable | DamageKind::Older)
    }
}
