//! Fetches the base refs of a manifest that follow a remote, before the host is observed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::host::absolute;
use crate::manifest::Manifest;
use crate::observe::{Observation, Query, WORKSPACE_REPOSITORY};
use crate::plan;
use crate::provider::Registry;
use crate::provider::git_worktree::{self, FetchError, FetchedRef};
use crate::state::Swarm;

/// Base refs that were fetched, by the name of their repository.
#[derive(Clone, Debug, Default)]
pub struct Fetched(BTreeMap<String, Vec<FetchedRef>>);

impl Fetched {
    /// Returns the fetched refs, each with the name of its repository; that of the workspace's own is empty.
    pub fn refs(&self) -> impl Iterator<Item = (&str, &FetchedRef)> {
        self.0
            .iter()
            .flat_map(|(repository, refs)| refs.iter().map(move |fetched| (repository.as_str(), fetched)))
    }

    /// Adds to an observation that the refs are up to date. A repository has no other record of a fetch that has changed
    /// nothing.
    pub fn add_to(&self, observation: &mut Observation) {
        for (repository, fetched) in self.refs() {
            if let Some(age) = observation.repository_mut(repository).ages.get_mut(&fetched.base_ref) {
                age.fetched = Some(Duration::ZERO);
            }
        }
    }
}

/// Fetches exactly the base refs of a manifest that follow a remote, of all repositories at the same time.
///
/// # Errors
///
/// The first error in the order of the repositories. Refs of other repositories may have been fetched; fetching a ref again
/// is harmless.
pub fn fetch(swarm: &Swarm<'_>, registry: &Registry, manifest: &Manifest) -> Result<Fetched, FetchError> {
    let queries = plan::queries(manifest, registry);
    let mut directories = BTreeMap::from([(WORKSPACE_REPOSITORY, swarm.workspace().to_owned())]);
    let mut refs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for query in &queries {
        match query {
            Query::Repository { name, root } => {
                directories.insert(name, absolute(swarm.workspace(), root));
            }
            Query::Commit { repository, base_ref } => {
                refs.entry(repository).or_default().insert(base_ref);
            }
            _ => {}
        }
    }
    let fetch_one = |(name, refs): (&&str, &BTreeSet<&str>)| {
        // Planning reports a repository that does not exist.
        let directory = directories.get(*name).filter(|directory| is_directory(directory));
        let fetched =
            directory.map(|directory| git_worktree::fetch(swarm.host(), directory, refs)).transpose()?;
        Ok(((*name).to_owned(), fetched.unwrap_or_default()))
    };
    let fetch_one = &fetch_one;
    thread::scope(|scope| {
        let threads: Vec<_> = refs.iter().map(|one| scope.spawn(move || fetch_one(one))).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let fetched = joined.map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        fetched.collect::<Result<_, FetchError>>().map(Fetched)
    })
}

#[expect(clippy::disallowed_methods, reason = "only a directory can be a repository")]
fn is_directory(path: &Path) -> bool {
    path.is_dir()
}
