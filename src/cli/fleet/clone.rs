//! Hosts without a repository of the manifest: they clone it from the coordinator before they are observed.
#![expect(clippy::disallowed_methods, reason = "finds the repositories that do not exist")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use seedbed::fleet::clones::{self, Clones, Missing};
use seedbed::fleet::coordinator::{HostProblem, Hosts, Observed};
use seedbed::fleet::{FleetDirectory, review};
use seedbed::host::Host;
use seedbed::host::text::printable;
use seedbed::manifest::Manifest;
use seedbed::observe::{Observation, WORKSPACE_REPOSITORY};
use seedbed::report::error;
use seedbed::state;

use super::opened::{Fleet, listed};
use super::phase::Arguments;
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::project::Project;

/// Clones for hosts that lack repositories.
pub(super) struct Cloning<'c> {
    pub(super) global: &'c Global,
    pub(super) project: &'c Project,
    pub(super) manifest: &'c Manifest,
    pub(super) fleet: &'c Fleet,
    pub(super) reached: Hosts<'c>,
    /// Observation of the coordinator.
    pub(super) own: &'c Observation,
    pub(super) limit: Duration,
}

impl Cloning<'_> {
    /// Lets hosts clone the repositories that they lack, and observes them.
    pub(super) fn clone_and_observe(&self, missing: &[Missing]) -> Result<Observed, Failure> {
        let hosts: Vec<_> = missing.iter().map(|missing| missing.host.clone()).collect();
        let directories = self.directories(missing)?;
        let clones = Clones::new(&self.project.host, self.own, &directories).map_err(Failure::from_error)?;
        // Another coordinator would remove the bundles.
        let _coordinator = self.fleet.coordinate(self.reached, self.limit)?;
        let made = self.fleet.directory.make_clones(&self.project.host, &clones, &directories);
        made.map_err(Failure::from_error)?;
        if !self.global.quiet && !self.global.json {
            print(missing, &clones);
        }
        Ok(self.reached.clone_and_observe(&state::new_owner()?, &hosts, self.own, &clones, self.limit)?)
    }

    /// Returns the directories of the missing repositories on this host.
    fn directories(&self, missing: &[Missing]) -> Result<BTreeMap<String, PathBuf>, Failure> {
        let mut here = self.project.repositories(self.manifest);
        let own = std::fs::canonicalize(self.project.directory()).unwrap_or_default();
        here.insert(WORKSPACE_REPOSITORY.to_owned(), own);
        let (mut directories, mut problems) = (BTreeMap::new(), Vec::new());
        for Missing { host, repositories, .. } in missing {
            for name in repositories.keys() {
                if let Some(directory) = here.get(name) {
                    directories.insert(name.clone(), directory.clone());
                } else {
                    let why =
                        format!("repository `{}` does not exist, neither there nor here", printable(name));
                    problems.push(HostProblem::new(host, &why));
                }
            }
        }
        if problems.is_empty() {
            return Ok(directories);
        }
        Err(Failure::new(
            error::FLEET_COMMITS,
            listed("hosts lack repositories; nothing was changed", &problems),
        ))
    }
}

/// Prints the clones that hosts get.
fn print(missing: &[Missing], clones: &Clones) {
    for Missing { host, repositories, .. } in missing {
        for (name, path) in repositories {
            let clone = clones.repositories.iter().find(|clone| clone.delivery.repository == *name);
            let what = clone.map(|clone| review::delivered(&clone.delivery)).unwrap_or_default();
            let path = printable(&path.to_string_lossy());
            say!("{} gets a clone at {path}: {what}", printable(host));
        }
    }
}

/// Returns the repositories of the manifest that this host lacks, with their paths.
pub(super) fn missing(project: &Project, manifest: &Manifest) -> BTreeMap<String, PathBuf> {
    let own = (WORKSPACE_REPOSITORY.to_owned(), project.directory().to_owned());
    let others = manifest
        .repositories
        .iter()
        .map(|(name, root)| (name.clone(), without_parents(&project.directory().join(root))));
    others.chain([own]).filter(|(_, path)| is_absent(path)).collect()
}

/// Returns whether a path does not exist, or is an empty directory.
pub(super) fn is_absent(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound && std::fs::symlink_metadata(path).is_err(),
    }
}

/// Removes what a killed process left of clones, and refuses to go on if sessions were made at a path that is gone.
pub(super) fn check(host: &Host, missing: &BTreeMap<String, PathBuf>) -> Result<(), Failure> {
    for path in missing.values() {
        let above = path.parent().and_then(|above| std::fs::canonicalize(above).ok());
        let path = above.zip(path.file_name()).map_or_else(|| path.clone(), |(above, name)| above.join(name));
        clones::sweep(&path).map_err(Failure::from_error)?;
        let swarms = state::swarms(host)?;
        let used = swarms.iter().find(|found| found.workspace().is_some_and(|of| of.starts_with(&path)));
        if let Some(used) = used {
            let message = format!(
                "{} is gone, and swarm `{}` has sessions in it\nhelp: bring it back, or give the swarm up on that host",
                printable(&path.to_string_lossy()),
                printable(used.name())
            );
            return Err(Failure::new(error::REPOSITORY_UNUSABLE, message));
        }
    }
    Ok(())
}

/// Clones the repositories that this host lacks.
pub(super) fn clone(
    project: &Project,
    fleet: &FleetDirectory,
    arguments: &Arguments,
    missing: &BTreeMap<String, PathBuf>,
) -> Result<(), Failure> {
    let unusable = |why: String| Failure::new(error::FLEET_COMMITS, why);
    let clones = fleet.clones(&arguments.run)?.filter(|clones| clones.digest() == arguments.expect);
    let clones = clones.ok_or_else(|| unusable("the clones are not those of the coordinator".to_owned()))?;
    for (name, path) in missing {
        let clone = clones.repositories.iter().find(|clone| clone.delivery.repository == *name);
        let clone = clone.ok_or_else(|| {
            unusable(format!("repository `{}` is missing since the host was observed", printable(name)))
        })?;
        let shown = printable(&path.to_string_lossy());
        let top = path
            .ends_with(&clone.below)
            .then(|| path.ancestors().nth(clone.below.components().count()).unwrap_or(path));
        let top = top.filter(|top| is_absent(top)).ok_or_else(|| {
            let below = printable(&clone.below.to_string_lossy());
            unusable(format!(
                "{shown} is no path for a clone: the coordinator has the manifest in `{below}` of its repository\nhelp: end \
                 `--root` with `{below}`, in a directory that does not exist"
            ))
        })?;
        let file = clone.below.join(project.file_name());
        let manifest = (name == WORKSPACE_REPOSITORY).then(|| (file.as_path(), project.text()));
        clones::make(&project.host, fleet, clone, top, manifest).map_err(Failure::from_error)?;
    }
    Ok(())
}

/// Returns a path without `..`, as if no component was a link.
fn without_parents(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}
