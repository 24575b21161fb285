//! Shared code of the tests.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use seedbed::manifest::Kinds;
use serde::Deserialize;

/// Returns the path of a folder or file beside this crate's `Cargo.toml`.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns two kinds that resemble the real ones, so that the manifest is tested without any provider.
pub(crate) fn kinds() -> Kinds {
    [
        ("git-worktree".to_owned(), schemars::schema_for!(GitWorktree)),
        ("port-range".to_owned(), schemars::schema_for!(PortRange)),
    ]
    .into()
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[derive(Default)]
struct GitWorktree {
    /// Directory of the worktrees, relative to the repository.
    root_directory: Option<String>,
    /// Commit to start from.
    #[schemars(extend("examples" = ["main"]))]
    base_ref: Option<String>,
    target_path: Option<String>,
    branch: Option<String>,
    checkout: Option<Checkout>,
    copy: Vec<String>,
    link: Vec<String>,
    git_hooks: Option<bool>,
    layout: Option<Layout>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Checkout {
    /// An overlay if the host supports it, otherwise Git.
    Auto,
    /// Files of its own.
    Git,
    /// A shared base below, changes above.
    Overlay,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Layout {
    Flat,
    Nested,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[derive(Default)]
struct PortRange {
    #[schemars(range(min = 1, max = 65535))]
    base_port: Option<u32>,
    #[schemars(range(min = 1, max = 65535), extend("examples" = [16]))]
    block_size: Option<u32>,
    #[schemars(range(min = 1))]
    block_count: Option<u32>,
    primary_port_offset: Option<u32>,
    lock_directory: Option<String>,
    #[schemars(inner(regex(pattern = "^[a-z][a-z0-9-]*$")))]
    names: Vec<String>,
    reserve: Option<u32>,
    slots: Option<u32>,
}
