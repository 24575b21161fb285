//! Finds files and directories that killed runs left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Examination;
use crate::host::absolute;
use crate::host::files::Root;

/// Beginning of the name of a resource that a run has moved aside, before the ownership marker.
pub(crate) const ASIDE: &str = ".aside-";

/// Beginning of the name of a resource that is being removed, before the ownership marker.
pub(crate) const TRASH: &str = ".trash-";

/// Number of hexadecimal digits of an ownership marker.
const OWNER_DIGITS: usize = 32;

/// A temporary file or directory of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Absolute path of the leftover.
    pub path: PathBuf,
    /// Ownership marker in the name, of the swarm whose run left it; `None` if the name has none.
    pub owner: Option<String>,
}

impl Leftover {
    /// Creates a leftover at `path`, of the swarm that has this ownership marker.
    pub fn new(path: PathBuf, owner: Option<String>) -> Self {
        Self { path, owner }
    }

    /// Returns the leftovers in the root directories of planned allocations; without a plan, in the default one.
    pub(crate) fn in_roots(
        scope: &Examination<'_>,
        planned: impl Iterator<Item = PathBuf>,
        default: PathBuf,
        prefixes: &[&str],
    ) -> Vec<Self> {
        let default = (!scope.is_planned).then_some(default);
        let roots: BTreeSet<PathBuf> = planned.chain(default).collect();
        let roots = roots.iter().map(|root| absolute(scope.workspace, root));
        roots.flat_map(|root| Self::beside(&root, prefixes)).collect()
    }

    /// Returns the leftovers in a directory, by the prefixes of their names. After the prefix a name has an ownership
    /// marker.
    pub(crate) fn beside(directory: &Path, prefixes: &[&str]) -> Vec<Self> {
        let names = Root::open(directory).and_then(|root| root.names()).unwrap_or_default();
        let leftover = |name: std::ffi::OsString| {
            let text = name.to_string_lossy();
            let rest = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix))?;
            let owner = rest.get(..OWNER_DIGITS).map(str::to_owned);
            Some(Self { path: directory.join(&name), owner })
        };
        names.into_iter().filter_map(leftover).collect()
    }
}
