//! Tracked paths of a worktree, at which no file of the workspace is brought, even if the worktree does not have them:
//! the session has deleted them, or they are outside of its sparse path.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::paths::{WorktreePaths, within};
use crate::host::git::Git;
use crate::provider::{Error, Task};

/// Number of paths to which one call of Git is limited; for more paths, everything is listed.
const PATHS_MAX: usize = 500;

/// Paths in the index of a worktree, relative to the workspace.
#[derive(Debug, Default)]
pub(super) struct Tracked(BTreeSet<PathBuf>);

impl Tracked {
    /// Reads the paths in the index that can be at, above or below one of `candidates`, which are relative to the
    /// workspace.
    pub(super) fn read<'p>(
        task: &Task<'_>,
        paths: &WorktreePaths,
        candidates: impl IntoIterator<Item = &'p Path>,
    ) -> Result<Self, Error> {
        let tops = candidates.into_iter().filter_map(|path| path.components().next());
        let tops: BTreeSet<PathBuf> = tops.map(|top| within(paths).join(top)).collect();
        if tops.is_empty() {
            return Ok(Self::default());
        }
        let admin = paths.admin_directory_path();
        let git = Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock);
        let mut args: Vec<_> = ["--literal-pathspecs", "ls-files", "-z", "--"].map(PathBuf::from).into();
        if tops.len() <= PATHS_MAX {
            args.extend(tops);
        }
        let listed = git.run(args)?;
        let listed = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let own = |path| Path::new(OsStr::from_bytes(path)).strip_prefix(within(paths)).ok();
        Ok(Self(listed.filter_map(own).map(Path::to_owned).collect()))
    }

    /// Returns the highest path on the way to `path` at which the index has a file, or `path` itself if the index has
    /// files below it.
    pub(super) fn at<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let is_file = |part: &&Path| self.0.contains(*part);
        let above = path.ancestors().filter(is_file).last();
        above.or_else(|| {
            let next = self.0.range::<Path, _>((Bound::Included(path), Bound::Unbounded)).next();
            next.is_some_and(|next| next.starts_with(path)).then_some(path)
        })
    }
}
