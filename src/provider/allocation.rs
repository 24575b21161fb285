//! Defines allocations, and their contribution to a session.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::external;
use crate::host::files::Root;
use crate::host::files::hidden::is_mark;
use crate::name::{NAME_PATTERN, variable_part};

/// A planned allocation of one resource for one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Allocation {
    /// Kind of the resource.
    pub kind: String,
    /// Name of the resource, unique in its session; absent if the resource has the name of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub name: Option<String>,
    /// Effective options at the time of the plan, except for the kind's own defaults. Another apply keeps the lease
    /// while they stay the same.
    pub options: Map<String, Value>,
    /// Hard constraint of the reference implementation, with the further data that provisioning needs. Paths are
    /// relative to the workspace root.
    pub allocation: Map<String, Value>,
    /// `true` if the allocation is a share of the parent's allocation.
    #[serde(default)]
    pub shared: bool,
    /// `true` if the allocation lies inside the parent's allocation, and cannot outlive it.
    #[serde(default)]
    pub within_parent: bool,
    /// Notes for a reviewer, one line each: a block that was passed over and the reason, a setting that will be
    /// changed.
    pub notes: Vec<String>,
    /// Program of an external kind, with the allocation's contributions; absent for built-in kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<external::Contribution>,
}

impl Allocation {
    /// Returns the name of the resource.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.kind)
    }
}

/// Returns a planned resource of a built-in kind as the fields of its allocation.
pub(crate) fn allocation_fields(resource: &impl Serialize) -> Map<String, Value> {
    let Ok(Value::Object(fields)) = serde_json::to_value(resource) else {
        unreachable!("a struct of plain fields with UTF-8 paths is a JSON object")
    };
    fields
}

/// Describes an allocation by its fields, in one line.
pub(crate) fn allocation_line(allocation: &Allocation) -> String {
    format!("{} {}", allocation.name(), Value::Object(allocation.allocation.clone()))
}

/// Contribution of an allocation to its session. Strings may contain [`WORKSPACE_ROOT`](super::WORKSPACE_ROOT).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Context {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Further environment variables, whose names tell the session's resources apart, such as those of named ports.
    pub own_env: BTreeMap<String, String>,
    /// Sections of the prompt.
    pub prompt_sections: Vec<String>,
    /// Further metadata.
    pub metadata: Map<String, Value>,
    /// Working directory of the session, relative to the workspace root. If several allocations set it, the last one
    /// wins.
    pub working_directory: Option<PathBuf>,
}

impl Context {
    /// Returns the contribution of the resource `name` of `kind`. The first resource of a kind in a session contributes
    /// unchanged. A resource with a name of its own contributes variables and metadata with this name inside. Its
    /// sections of the prompt begin with the name.
    pub(crate) fn for_resource(mut self, kind: &str, name: &str, is_first: bool) -> Self {
        if name != kind {
            let (infix, prefix) = (variable_part(name), name.replace(['-', '.'], "_"));
            let named = |variable: &str| Some(format!("AGENT_{infix}_{}", variable.strip_prefix("AGENT_")?));
            let env: Vec<_> =
                self.env.iter().filter_map(|(key, value)| Some((named(key)?, value.clone()))).collect();
            let metadata: Vec<_> =
                self.metadata.iter().map(|(key, value)| (format!("{prefix}_{key}"), value.clone())).collect();
            if !is_first {
                self.env.retain(|key, _| named(key).is_none());
                self.metadata.clear();
            }
            self.env.extend(env);
            self.metadata.extend(metadata);
            for section in &mut self.prompt_sections {
                *section = format!("{name}: {section}");
            }
        }
        self.env.append(&mut self.own_env);
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }
}

/// First lines of the file that hides discovery files from Git. They hide the file itself, and incomplete files that a
/// killed process left. Each discovery file in the directory has one more line.
pub(crate) const IGNORE_HEAD: &str =
    "# written by seedbed: hides its own files, and no others\n/.gitignore\n/.*.seedbed-*\n";

/// Name of the file that hides discovery files from Git.
pub(crate) const IGNORE: &str = ".gitignore";

/// Largest such file that is read, in bytes.
pub(crate) const IGNORE_MAX: usize = 4096;

/// Returns the names of the files in a directory that seedbed writes there and hides from Git.
pub(crate) fn hidden_names(directory: &Root) -> Vec<OsString> {
    if is_mark(&directory.path().join(IGNORE)) {
        return vec![IGNORE.into()];
    }
    let found = directory.read(Path::new(IGNORE), IGNORE_MAX).ok().flatten().unwrap_or_default();
    let Some(hidden) = found.strip_prefix(IGNORE_HEAD.as_bytes()) else { return Vec::new() };
    let names = hidden.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"/"));
    let unescaped = |name: &[u8]| {
        let bytes = name.iter().copied().filter(|byte| *byte != b'\\').collect();
        OsString::from_vec(bytes)
    };
    names.map(unescaped).chain([IGNORE.into()]).collect()
}

/// Directory of a session's discovery file, relative to its working directory. A provider of directories keeps this
/// path free.
pub const DISCOVERY_DIRECTORY: &str = ".agent-context";

/// Name of the discovery file, which describes to a session what it owns.
pub const DISCOVERY_FILE: &str = "resources.json";
