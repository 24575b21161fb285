//! Repositories beside the workspace's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{AppliedPlan, Plan, PlannedRepository, Session};
use crate::host::text::printable;
use crate::manifest::{Diagnostic, Location, Manifest, rule};
use crate::name::is_name;
use crate::observe::{Observation, Query, WORKSPACE_REPOSITORY};
use crate::provider::{Registry, is_way, way};

/// Returns the queries for the repositories that a manifest declares.
pub(super) fn queries(manifest: &Manifest) -> impl Iterator<Item = Query> {
    manifest
        .repositories
        .iter()
        .map(|(name, root)| Query::Repository { name: name.clone(), root: manifest.directory.join(root) })
}

/// Returns the diagnostics of declared repositories that cannot be used.
pub(super) fn diagnostics(
    manifest: &Manifest,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Vec<Diagnostic> {
    let unusable = manifest.repositories.keys().filter_map(|name| {
        let Some(Err(why)) = &observation.repository(name).repository else { return None };
        let location = Location::default().key("repository").key(name).key("root");
        let is_used = |applied: &AppliedPlan| {
            applied.plan.repositories.iter().any(|repository| repository.name == *name)
        };
        let help = if applied.is_some_and(is_used) {
            format!(
                "active sessions have worktrees of it: bring it back; if it was moved, write its new path here, and run \
                 `seedbed recover --moved`; if what is in it is lost for good, give it up with `seedbed destroy --forget {name}`"
            )
        } else {
            "write the path from the directory of this file to the top of a repository".to_owned()
        };
        Some(
            Diagnostic::new(rule::NO_REPOSITORY, location, why, "no repository that can be used")
                .with_help(help),
        )
    });
    unusable.collect()
}

/// Returns the repositories that sessions have worktrees of.
pub(super) fn planned(
    sessions: &[Session],
    registry: &Registry,
    observation: &Observation,
) -> Vec<PlannedRepository> {
    let planned = roots(sessions, registry).into_iter().filter_map(|(name, root)| {
        let Some(Ok(repository)) = &observation.repository(&name).repository else { return None };
        let common_directory = way(&observation.workspace, &repository.common_dir);
        Some(PlannedRepository { name, root, common_directory })
    });
    planned.collect()
}

/// Returns the root of each repository that sessions have worktrees of, by name.
fn roots(sessions: &[Session], registry: &Registry) -> BTreeMap<String, PathBuf> {
    let allocations = sessions.iter().flat_map(|session| &session.allocations);
    allocations.filter_map(|allocation| registry.get(&allocation.kind)?.repository(allocation)).collect()
}

impl PlannedRepository {
    /// Returns the query that finds the repository on a host.
    pub(crate) fn query(&self) -> Query {
        Query::Repository { name: self.name.clone(), root: self.root.clone() }
    }

    /// Returns the reason, one line, for which the repository is not the planned one any more; `None` if it is.
    pub(crate) fn stale(&self, observation: &Observation) -> Option<String> {
        let (name, root) = (&self.name, self.root.display());
        match &observation.repository(name).repository {
            Some(Ok(repository)) => {
                let found = [&repository.root, &repository.common_dir];
                let is_planned = found.map(|path| way(&observation.workspace, path))
                    == [self.root.clone(), self.common_directory.clone()];
                (!is_planned).then(|| format!("{root} is not the planned repository `{name}` any more"))
            }
            Some(Err(why)) => Some(format!("the repository `{name}` cannot be used: {why}")),
            None => Some(format!("the repository `{name}` was not found")),
        }
    }
}

impl Plan {
    /// Returns the repositories beside the workspace's own that sessions have worktrees of, by name.
    pub fn repositories(&self) -> &[PlannedRepository] {
        &self.repositories
    }

    /// Returns the notices for reviewers about names that are one repository on this host, one line each.
    pub fn repository_notices(&self, observation: &Observation) -> Vec<String> {
        let mut names: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
        let own = &observation.repository(WORKSPACE_REPOSITORY).repository;
        let own = own.iter().flatten().map(|own| way(&observation.workspace, &own.common_dir)).next();
        if let Some(own) = &own {
            names.entry(own).or_default().push("the workspace's".to_owned());
        }
        for PlannedRepository { name, common_directory, .. } in &self.repositories {
            names.entry(common_directory).or_default().push(format!("`{name}`"));
        }
        let several = names.into_values().filter(|names| names.len() > 1);
        several.map(|names| format!("{} are one repository", names.join(" and "))).collect()
    }

    /// Checks that the listed repositories are those of the allocations, which the document's reader cannot trust.
    pub(super) fn check_repositories(&self, registry: &Registry) -> Result<(), String> {
        for PlannedRepository { name, root, common_directory } in &self.repositories {
            if !is_name(name) || !is_way(root) || !is_way(common_directory) {
                return Err(format!("`{}` is no repository of a manifest", printable(name)));
            }
        }
        let listed = self.repositories.iter().map(|repository| (&repository.name, &repository.root));
        if !listed.eq(&roots(&self.sessions, registry)) {
            return Err("its list of repositories is not that of its worktrees".to_owned());
        }
        let allocations = self.sessions.iter().flat_map(|session| &session.allocations);
        let mut of_worktrees =
            allocations.filter_map(|allocation| registry.get(&allocation.kind)?.repository(allocation));
        let is_listed = |(name, root): (String, PathBuf)| {
            self.repositories.iter().any(|repository| repository.name == name && repository.root == root)
        };
        if of_worktrees.all(is_listed) {
            Ok(())
        } else {
            Err("two of its worktrees have one repository in two places".to_owned())
        }
    }
}
