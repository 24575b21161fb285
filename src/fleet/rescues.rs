//! Rescues of hosts, which bundles in the directory of the fleet keep beyond the life of their host.
//!
//! ```text
//! DIR/rescues/HOST/index.json     rescues, and the bundle of each
//! DIR/rescues/HOST/TAG-N.bundle   rescues of one repository, which `git fetch` reads
//! ```
//!
//! A bundle is complete before the index names it, and never changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SCHEMA_VERSION;
use super::directory::{DirectoryError, FleetDirectory};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::git::Git;
use crate::host::git::bundle::BundledCommit;
use crate::provider::git_worktree::{self, Worktree, rescue};

/// Rescues of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct HostRescues {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Name of the host.
    pub host: String,
    /// Rescues, also those that the host has no more.
    pub rescues: Vec<BundledRescue>,
}

/// Rescue in [`HostRescues`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BundledRescue {
    /// Id of the session, `SWARM/PATH`.
    pub session: String,
    /// Full name of the ref.
    pub reference: String,
    /// Commit of the ref.
    pub commit: String,
    /// Time of the rescue, in UTC as RFC 3339; `None` if it is unknown.
    pub saved: Option<String>,
    /// Name of the repository in the manifest; `None` for the workspace's own.
    pub repository: Option<String>,
    /// Name of the bundle beside this file.
    pub bundle: String,
}

impl FleetDirectory {
    /// Writes the rescues of this host that no bundle has yet: those of the sessions of a swarm, in the repositories of
    /// `worktrees` and of the workspace. `tag` is a new name. The caller owns the lock of the swarm.
    ///
    /// # Errors
    ///
    /// A bundle or the index cannot be written. Rescues that a bundle has before are kept.
    pub fn bring_rescues(
        &self,
        host: &Host,
        (name, tag): (&str, &str),
        (workspace, swarm): (&Path, &str),
        worktrees: &[Worktree],
    ) -> Result<(), DirectoryError> {
        let below = Path::new("rescues").join(name);
        let root = self.root.create_directories(&below)?;
        let unwritten = |path: &Path, why: &dyn std::fmt::Display| DirectoryError::Unwritten {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let mut all = self.rescues(name)?.unwrap_or_else(|| HostRescues {
            schema_version: SCHEMA_VERSION,
            host: name.to_owned(),
            rescues: Vec::new(),
        });
        let before: BTreeSet<(String, String)> =
            all.rescues.iter().map(|rescue| (rescue.reference.clone(), rescue.commit.clone())).collect();
        for (number, (directory, (repository, known))) in
            repositories(workspace, worktrees).into_iter().enumerate()
        {
            let Ok(common) = rescue::common_directory(host, &directory) else { continue };
            let saved = rescue::list(host, &common).map_err(|error| unwritten(root.path(), &error))?;
            let of_swarm = format!("{swarm}/");
            let saved: Vec<_> = saved
                .into_iter()
                .filter(|saved| saved.valid && saved.session.starts_with(&of_swarm))
                .filter(|saved| !before.contains(&(saved.reference.clone(), saved.object.clone())))
                .collect();
            if saved.is_empty() {
                continue;
            }
            let commits = saved
                .iter()
                .map(|saved| BundledCommit { name: saved.reference.clone(), id: saved.object.clone() });
            let commits: Vec<_> = commits.collect();
            let bundle = format!("{tag}-{number}.bundle");
            let file = root.open_or_create(Path::new(&bundle))?;
            let written = Git::open(host, &common, None).write_bundle(&commits, &known, &file);
            written.map_err(|error| unwritten(&root.path().join(&bundle), &error))?;
            all.rescues.extend(saved.into_iter().map(|saved| BundledRescue {
                session: saved.session,
                reference: saved.reference,
                commit: saved.object,
                saved: saved.saved,
                repository: repository.clone(),
                bundle: bundle.clone(),
            }));
        }
        crashpoint!("fleet.rescued");
        if all.rescues.len() == before.len() {
            return Ok(());
        }
        self.write(&below.join("index.json"), &all)
    }

    /// Returns the rescues of a host that bundles have; `None` without any.
    pub fn rescues(&self, host: &str) -> Result<Option<HostRescues>, DirectoryError> {
        let name = Path::new("rescues").join(host).join("index.json");
        let rescues: Option<HostRescues> = self.read(&name)?;
        match &rescues {
            Some(rescues) if rescues.schema_version != SCHEMA_VERSION => {
                Err(self.invalid(&name, &"it is of another version of seedbed"))
            }
            _ => Ok(rescues),
        }
    }
}

/// Returns the directory of each repository, with its name in the manifest and the commits that worktrees were made from.
fn repositories(
    workspace: &Path,
    worktrees: &[Worktree],
) -> BTreeMap<PathBuf, (Option<String>, BTreeSet<String>)> {
    let mut repositories = BTreeMap::from([(workspace.to_owned(), (None, BTreeSet::new()))]);
    for worktree in worktrees {
        let directory = git_worktree::repository_directory(workspace, worktree);
        let new = || (worktree.repository.clone(), BTreeSet::new());
        repositories.entry(directory).or_insert_with(new).1.insert(worktree.commit.clone());
    }
    repositories
}
