//! Decides the options of a child's worktree, which lies in its parent's worktree, or beside the directory of a parent
//! with several.

use std::path::Path;

use serde_json::{Map, Value};

use super::reserved_names::nested_root;
use crate::name::{HashDigits, scoped_name};
use crate::provider::ChildShare;

/// Returns the options of a worktree at the parent's base ref and target path.
pub(super) fn options(share: &ChildShare<'_>) -> Result<Map<String, Value>, String> {
    let path = Path::new(share.text("worktreePath")?);
    // The worktrees of a child with several lie side by side, and not each in another worktree of the parent.
    let own_root = share.text("worktreeRoot").ok().map(Path::new).filter(|root| path.parent() != Some(*root));
    let nested = || nested_root(path, &scoped_name(share.parent, HashDigits::Eight));
    let root = own_root.map_or_else(nested, Path::to_owned);
    let base_ref = share.text("baseRef").unwrap_or("HEAD");
    let mut options = Map::new();
    options.insert("rootDirectory".to_owned(), root.to_string_lossy().into());
    options.insert("baseRef".to_owned(), base_ref.into());
    if let Ok(target) = share.text("targetPath") {
        options.insert("targetPath".to_owned(), target.trim().into());
    }
    // The worktree of a child is of the same repository.
    if let Ok(repository) = share.text("repository") {
        options.insert("repository".to_owned(), repository.into());
    }
    Ok(options)
}
