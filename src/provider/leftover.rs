//! What killed runs leave behind.

use std::path::{Path, PathBuf};

use super::Allocation;
use crate::host::Host;
use crate::host::files::Root;

/// Number of hexadecimal digits of an ownership marker.
const OWNER_DIGITS: usize = 32;

/// Where leftovers are looked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Vicinity<'a> {
    /// The host.
    pub host: &'a Host,
    /// The workspace root, absolute.
    pub workspace: &'a Path,
    /// The common git directory of the repository; `None` if there is none.
    pub common_dir: Option<&'a Path>,
    /// The allocations of the plan, of every kind.
    pub allocations: Vec<&'a Allocation>,
    /// Whether there is a plan; without one, leftovers are looked for in the default places.
    pub is_planned: bool,
}

/// A temporary file or directory of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Its path, absolute.
    pub path: PathBuf,
    /// The ownership marker in its name, of the swarm whose run it is; `None` if the name has none.
    pub owner: Option<String>,
}

impl Leftover {
    /// Returns a leftover at `path`, of the swarm that has this ownership marker.
    pub fn new(path: PathBuf, owner: Option<String>) -> Self {
        Self { path, owner }
    }

    /// Returns what in a directory has a name that begins with one of these prefixes; an ownership marker comes next.
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
