//! Lists the directories that processes of a session use.

use std::path::{Path, PathBuf};

use super::paths::{admin_directory_at, anchor, below_at, canonical, common_dir};
use super::{Worktree, overlay};
use crate::host;
use crate::host::occupants::Footprint;
use crate::provider::Task;

/// Returns the directories of a worktree: its own, its admin directory, and those of its overlay. Values that all
/// worktrees of a repository share are computed once.
pub(super) fn footprint(task: &Task<'_>, worktree: &Worktree) -> Footprint {
    let real = |path: &Path| {
        let find = || Ok(canonical(path)?.to_str().map(str::to_owned).unwrap_or_default());
        let found = task.shared_result(&format!("real path of {}", path.display()), find);
        found.ok().filter(|found| !found.is_empty()).map_or_else(|| path.to_owned(), PathBuf::from)
    };
    let (above, below) = anchor(&real(task.workspace), &worktree.worktree_path);
    let path = above.join(below_at(task.location, task, worktree, &below));
    let mut directories = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => vec![real(parent).join(name)],
        _ => Vec::new(),
    };
    let repository = real(&host::absolute(task.workspace, &worktree.repo_root));
    let common = task.shared_result(&format!("common directory of {}", repository.display()), || {
        Ok(common_dir(&repository)?.to_str().map(str::to_owned).unwrap_or_default())
    });
    if let Some(common) = common.ok().filter(|common| !common.is_empty()) {
        directories.push(Path::new(&common).join(admin_directory_at(task.location, task, worktree)));
    }
    let is_mounted = overlay::is_wanted(worktree);
    if is_mounted {
        directories.push(real(&task.host.state).join(overlay::layers(task, worktree)));
    }
    Footprint { directories, is_mounted, ..Footprint::default() }
}
