//! Which kinds of resources there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::Schema;

use super::{Allocation, Provider, external, git_worktree, port_range};

/// The providers that a manifest may ask for, one a kind. A clone has the same ones.
#[derive(Clone, Default)]
pub struct Registry {
    providers: BTreeMap<String, Arc<dyn Provider>>,
    external: Option<external::External>,
}

/// A kind that has a provider already.
#[derive(Debug, thiserror::Error)]
#[error("resource provider \"{0}\" is already registered")]
#[non_exhaustive]
pub struct AlreadyRegistered(pub String);

impl Registry {
    /// A registry with the kinds that seedbed brings: `git-worktree` and `port-range`.
    pub fn built_in() -> Self {
        let providers: [Arc<dyn Provider>; 2] =
            [Arc::new(git_worktree::GitWorktree), Arc::new(port_range::PortRange)];
        Self {
            providers: providers.into_iter().map(|provider| (provider.kind().to_owned(), provider)).collect(),
            external: None,
        }
    }

    /// The same, and every other kind is external: planned and made by the program that the manifest names for it, which
    /// planning then runs.
    #[must_use]
    pub fn with_external_kinds(mut self) -> Self {
        self.external = Some(external::External);
        self
    }

    /// Tells whether kinds that nobody registered are external.
    pub fn has_external_kinds(&self) -> bool {
        self.external.is_some()
    }

    /// Adds a provider; a second one of the same kind is refused.
    pub fn register(&mut self, provider: Box<dyn Provider>) -> Result<(), AlreadyRegistered> {
        let kind = provider.kind().to_owned();
        if self.providers.contains_key(&kind) {
            return Err(AlreadyRegistered(kind));
        }
        self.providers.insert(kind, provider.into());
        Ok(())
    }

    /// The provider of this kind.
    pub fn get(&self, kind: &str) -> Option<&dyn Provider> {
        let external = || self.external.as_ref().map(|external| external as &dyn Provider);
        self.providers.get(kind).map(AsRef::as_ref).or_else(external)
    }

    /// The provider of an allocation; `None` where its kind is not registered, and no program was recorded with it.
    pub fn provider(&self, allocation: &Allocation) -> Option<&dyn Provider> {
        let is_known = self.providers.contains_key(&allocation.kind) || allocation.external.is_some();
        self.get(&allocation.kind).filter(|_| is_known)
    }

    /// All providers that were registered, by kind.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Provider> {
        self.providers.values().map(AsRef::as_ref)
    }

    /// The schemas of the kinds' options, which the manifest's schema is put together from.
    pub fn kinds(&self) -> BTreeMap<String, Schema> {
        self.iter().map(|provider| (provider.kind().to_owned(), provider.options_schema())).collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.providers.keys()).finish()
    }
}
