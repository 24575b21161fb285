//! Allocations, and their contribution to a session.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::external;

/// What planning decided for one resource of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Allocation {
    /// Which provider it is for.
    pub kind: String,
    /// The options in force when it was planned, as far as they are not the kind's own defaults; another apply keeps
    /// the lease while they stay the same.
    pub options: Map<String, Value>,
    /// The seed's hard constraint, and what provisioning needs beside it. Paths are relative to the workspace root.
    pub allocation: Map<String, Value>,
    /// Whether it was planned as a share of the parent's.
    #[serde(default)]
    pub shared: bool,
    /// Whether it lies inside the parent's allocation, and cannot outlive it.
    #[serde(default)]
    pub within_parent: bool,
    /// What a reviewer should know, one line each: a block passed over and why, a setting that will be changed.
    pub notes: Vec<String>,
    /// What plans and makes it, and what it contributes; absent for the kinds that seedbed brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<external::Contribution>,
}

/// Describes an allocation by its fields, in one line.
pub(crate) fn allocation_line(allocation: &Allocation) -> String {
    format!("{} {}", allocation.kind, Value::Object(allocation.allocation.clone()))
}

/// What an allocation contributes to its session. Strings may hold [`WORKSPACE_ROOT`](super::WORKSPACE_ROOT).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Context {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Sections of the prompt.
    pub prompt_sections: Vec<String>,
    /// Anything else.
    pub metadata: Map<String, Value>,
    /// Where the session works, relative to the workspace root; the last allocation that says so wins.
    pub working_directory: Option<PathBuf>,
}

impl Context {
    /// Adds an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }
}

/// Where a session finds its discovery file, relative to the directory that it works in. A provider of directories
/// keeps the place free.
pub const DISCOVERY_DIRECTORY: &str = ".agent-context";

/// The name of the file there that tells a session what it owns.
pub const DISCOVERY_FILE: &str = "resources.json";
