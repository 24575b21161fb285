//! Follows repositories beside the workspace's own that were moved to other paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Error, repositories};
use crate::host::Host;
use crate::host::git::Git;
use crate::plan::PlannedRepository;
use crate::provider::{Registry, way};
use crate::state::Record;

/// Writes the new root of each repository that was moved into a record. Returns these repositories. `roots` are the
/// canonical roots that the manifest declares now, by name.
///
/// A repository was moved if it cannot be used at its recorded root, and a worktree with the swarm's ownership marker is
/// registered at the new one: `is_marked` finds that out from a record with the new root.
pub(super) fn follow(
    host: &Host,
    registry: &Registry,
    record: &mut Record,
    roots: &BTreeMap<String, PathBuf>,
    is_marked: impl Fn(&Record, &str) -> Result<bool, Error>,
) -> Result<Vec<PlannedRepository>, Error> {
    let mut followed = Vec::new();
    for unusable in repositories::unusable(host, registry, record) {
        let Some(root) = roots.get(&unusable.name) else { continue };
        let moved = with_root(registry, record, &unusable.name, &way(&record.workspace, root));
        if !is_marked(&moved, &unusable.name)? {
            continue;
        }
        let args = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
        let Ok(common) = Git::discover(host, root).path(args) else { continue };
        *record = moved;
        let planned = record.plan.repositories.iter_mut().find(|one| one.name == unusable.name);
        let Some(planned) = planned else { continue };
        planned.root = way(&record.workspace, root);
        planned.common_directory = way(&record.workspace, &common);
        followed.push(planned.clone());
    }
    if !followed.is_empty() {
        record.plan.changes.clear();
        record.plan.digest = record.plan.computed_digest();
    }
    Ok(followed)
}

/// Returns a record in which all allocations of a repository have another root, relative to the workspace root.
fn with_root(registry: &Registry, record: &Record, name: &str, root: &Path) -> Record {
    let mut moved = record.clone();
    for held in moved.plan.sessions.iter_mut().flat_map(|session| &mut session.allocations) {
        if let Some(kind) = registry.get(&held.kind)
            && kind.repository(held).is_some_and(|(of, _)| of == name)
        {
            *held = kind.in_moved_repository(held, root);
        }
    }
    moved
}
