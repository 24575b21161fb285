//! Provides a host that permits everything, for tests, fuzzing and benchmarks of planning.

use std::collections::BTreeSet;
use std::path::Path;

use seedbed::name::PortBlock;
use seedbed::observe::{
    Directory, Observation, Query, Repository, TreeEntry, Untracked, WORKSPACE_REPOSITORY, WorkspaceFile,
};

/// Returns a host on which every ref exists, every target path is a directory and no port is in use.
pub(crate) fn friendly(queries: &BTreeSet<Query>) -> Observation {
    let mut observation = Observation::new("/workspace".into());
    let own = observation.repository_mut(WORKSPACE_REPOSITORY);
    own.repository = Some(Ok(Repository::new("/workspace".into(), "/workspace/.git".into())));
    observation.ephemeral = PortBlock::new(32768, 60999);
    observation.overlays = Some(Ok(()));
    for query in queries {
        match query {
            Query::Repository { name, .. } => {
                let root = Path::new("/").join(name);
                let found = Repository::new(root.clone(), root.join(".git"));
                observation.repository_mut(name).repository = Some(Ok(found));
            }
            Query::Commit { repository, base_ref } => {
                observation.repository_mut(repository).commits.insert(base_ref.clone(), Ok("1".repeat(40)));
            }
            Query::Tree { repository, base_ref, path, required } => {
                let entry =
                    if *required { TreeEntry::Directory } else { TreeEntry::Missing { near: Vec::new() } };
                observation.repository_mut(repository).trees.insert((base_ref.clone(), path.clone()), entry);
            }
            Query::Directory { path } => {
                observation.directories.insert(path.clone(), Directory::Listed(BTreeSet::new()));
            }
            Query::File { path, limit } => {
                let file = WorkspaceFile::Text("a\nb\nc\n".to_owned());
                observation.files.insert((path.clone(), *limit), file);
            }
            Query::Untracked { repository, glob } => {
                let files = Untracked::Files { files: 1, bytes: 1 };
                observation.repository_mut(repository).untracked.insert(glob.clone(), Ok(files));
            }
            Query::Blob { repository, path, .. } => {
                let blobs = &mut observation.repository_mut(repository).blobs;
                blobs.insert(("1".repeat(40), path.clone()), "3".repeat(40));
            }
            _ => {}
        }
    }
    observation
}
