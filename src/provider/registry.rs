//! Registers the kinds of resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::Schema;

use super::{Allocation, Kind, directory, existing_directory, external, git_worktree, pool, port_range};
use crate::manifest::Manifest;

/// Kinds that a manifest may request. A clone has the same kinds.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<String, Arc<dyn Kind>>,
    external: Option<external::External>,
}

/// Error for a kind that is already registered.
#[derive(Debug, thiserror::Error)]
#[error("resource provider \"{0}\" is already registered")]
#[non_exhaustive]
pub struct AlreadyRegistered(pub String);

impl Registry {
    /// Creates a registry with the built-in kinds: `directory`, `existing-directory`, `git-worktree`, `pool` and `port-range`, and
    /// that of the [directories of sessions](directory::session) with several worktrees.
    pub fn built_in() -> Self {
        let kinds: [Arc<dyn Kind>; 6] = [
            Arc::new(directory::Directories),
            Arc::new(directory::session::SessionDirectories),
            Arc::new(existing_directory::ExistingDirectories),
            Arc::new(git_worktree::GitWorktree),
            Arc::new(pool::Pool),
            Arc::new(port_range::PortRange),
        ];
        Self { kinds: kinds.into_iter().map(|kind| (kind.kind().to_owned(), kind)).collect(), external: None }
    }

    /// Makes every other kind external: the program that the manifest names for the kind plans and provisions it.
    /// Planning then runs that program.
    #[must_use]
    pub fn with_external_kinds(mut self) -> Self {
        self.external = Some(external::External);
        self
    }

    /// Returns whether kinds that are not registered are external.
    pub fn has_external_kinds(&self) -> bool {
        self.external.is_some()
    }

    /// Adds a kind; an error if a kind of the same name exists.
    pub fn register(&mut self, kind: Box<dyn Kind>) -> Result<(), AlreadyRegistered> {
        let name = kind.kind().to_owned();
        if self.kinds.contains_key(&name) {
            return Err(AlreadyRegistered(name));
        }
        self.kinds.insert(name, kind.into());
        Ok(())
    }

    /// Returns the kind of this name.
    pub fn get(&self, kind: &str) -> Option<&dyn Kind> {
        let external = || self.external.as_ref().map(|external| external as &dyn Kind);
        self.kinds.get(kind).map(AsRef::as_ref).or_else(external)
    }

    /// Returns the kind that plans `kind` of a manifest. Returns `None` unless the kind is registered, or external and
    /// the manifest names its program.
    pub fn planned_by(&self, manifest: &Manifest, kind: &str) -> Option<&dyn Kind> {
        let is_known = self.kinds.contains_key(kind) || manifest.providers.contains_key(kind);
        self.get(kind).filter(|_| is_known)
    }

    /// Returns the kind of an allocation. Returns `None` unless the kind is registered, or the allocation records a
    /// program.
    pub fn provider(&self, allocation: &Allocation) -> Option<&dyn Kind> {
        let is_known = self.kinds.contains_key(&allocation.kind) || allocation.external.is_some();
        self.get(&allocation.kind).filter(|_| is_known)
    }

    /// Returns whether planning requests a kind by itself, and manifests cannot.
    pub(crate) fn is_implied(&self, kind: &str) -> bool {
        self.kinds.get(kind).is_some_and(|kind| kind.is_implied())
    }

    /// Returns the registered kinds, by name.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Kind> {
        self.kinds.values().map(AsRef::as_ref)
    }

    /// Returns whether a kind of this name is registered, not one of a program.
    pub(crate) fn is_registered(&self, kind: &str) -> bool {
        self.kinds.contains_key(kind)
    }

    /// Returns the schemas of the options of all kinds that a manifest can request, from which the manifest's schema is composed.
    pub fn kinds(&self) -> BTreeMap<String, Schema> {
        let requested = self.iter().filter(|kind| !kind.is_implied());
        requested.map(|kind| (kind.kind().to_owned(), kind.options_schema())).collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}
