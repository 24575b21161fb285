//! Data that locates an applied swarm, readable even in a broken manifest.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::Manifest;
use crate::name::is_name;

/// Data that locates an applied swarm, even if the rest of its manifest is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Located {
    /// Name of the swarm.
    pub swarm: String,
    /// Path of the repository, relative to the manifest's directory; `.` by default.
    pub workspace_root: PathBuf,
}

impl Located {
    /// Returns the data of a swarm with this name, whose manifest is at the top of the repository.
    pub fn new(swarm: impl Into<String>) -> Self {
        Self { swarm: swarm.into(), workspace_root: PathBuf::from(".") }
    }
}

impl std::convert::From<&Manifest> for Located {
    fn from(manifest: &Manifest) -> Self {
        Self { swarm: manifest.swarm.clone(), workspace_root: manifest.workspace_root.clone() }
    }
}

/// Reads only the data that locates an applied swarm; `None` if the text has no valid swarm name. Pure.
pub fn locate(text: &str) -> Option<Located> {
    let (table, _) = DeTable::parse_recoverable(text);
    let swarm = table.get_ref().get("swarm")?.get_ref().as_str().filter(|swarm| is_name(swarm))?.to_owned();
    let workspace = table.get_ref().get("workspace").and_then(|workspace| workspace.get_ref().as_table());
    let workspace_root =
        match workspace.and_then(|workspace| workspace.get("root")).map(toml::Spanned::get_ref) {
            None => PathBuf::from("."),
            Some(DeValue::String(root)) => PathBuf::from(&**root),
            Some(_) => return None,
        };
    Some(Located { swarm, workspace_root })
}
