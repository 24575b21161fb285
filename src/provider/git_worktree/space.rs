//! Counts the space of checkouts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::paths::common_of;
use super::{Checkout, KIND, Worktree};
use crate::host::absolute;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::host::process::Error;
use crate::provider::{Examination, NeededSpace, Uncounted};

/// Limit of time for listing all files of one commit: a million files take two seconds. A few trees that contain each
/// other have any number of files.
const PATIENCE: Duration = Duration::from_secs(10);

/// Size of a block, in bytes: 4 KiB nearly everywhere. The last block of a file is partly unused.
const BLOCK: u64 = 4096;

const REMEDY: &str =
    "have less checked out with target-path, or keep worktrees elsewhere with root-directory";

/// Returns the space of the new worktrees; overlays share one checkout of each commit, in the state directory.
pub(super) fn needed(examination: &Examination<'_>) -> Vec<Result<NeededSpace, Uncounted>> {
    let Some(common_dir) = examination.common_dir else { return Vec::new() };
    let mut listings = BTreeMap::new();
    let mut overlays = BTreeSet::new();
    let new = examination.new.iter().filter(|allocation| allocation.kind == KIND);
    let mut needed = Vec::new();
    for worktree in new.filter_map(|allocation| Worktree::from_allocation(allocation)) {
        let is_overlay = worktree.checkout == Checkout::Overlay;
        if is_overlay && !overlays.insert((worktree.commit.clone(), worktree.target_path.clone())) {
            continue;
        }
        let directory = if is_overlay {
            &examination.host.state
        } else {
            &absolute(examination.workspace, &worktree.worktree_root)
        };
        let list = |(_, commit): &(_, String)| {
            let common = match &worktree.repository {
                Some(_) => common_of(examination.workspace, &worktree).ok(),
                None => None,
            };
            let common_dir = common.as_ref().map_or(common_dir, Root::path);
            list(&Git::open(examination.host, common_dir, None).within(PATIENCE), commit)
        };
        let key = (worktree.repository.clone(), worktree.commit.clone());
        let listing = listings.entry(key).or_insert_with_key(list);
        needed.push(match listing {
            Ok(files) => {
                let (bytes, inodes) = size(files, worktree.target_path.as_deref());
                Ok(NeededSpace::new(directory.clone(), bytes, inodes, REMEDY))
            }
            Err(uncounted) => Err(uncounted.clone()),
        });
    }
    needed
}

#[derive(Debug)]
struct File {
    path: String,
    size: u64,
}

/// Lists the files of a commit.
fn list(git: &Git<'_>, commit: &str) -> Result<Vec<File>, Uncounted> {
    let listed = match git.run(["ls-tree", "-r", "-l", "-z", "--full-tree", commit]) {
        Err(Error::Deadline { .. } | Error::TooMuch { .. }) => {
            let remedy = "check out less of it with target-path; git ls-tree -r --name-only lists its files";
            return Err(Uncounted::new(format!("commit {commit} has too many files to count them"), remedy));
        }
        // A commit that cannot be listed for another reason is reported elsewhere.
        listed => listed.unwrap_or_default(),
    };
    let lines = listed.split(|byte| *byte == 0);
    Ok(lines
        .filter_map(|line| {
            // `MODE TYPE OBJECT SIZE`, the size padded, a tab, and the path; `-` for a submodule.
            let line = String::from_utf8_lossy(line);
            let (facts, path) = line.split_once('\t')?;
            let size = facts.split_whitespace().last()?.parse().unwrap_or(0);
            Some(File { path: path.to_owned(), size })
        })
        .collect())
}

/// Returns the bytes and inodes of a checkout. A sparse checkout has the directory, and the files beside every directory
/// above it.
fn size(files: &[File], target: Option<&str>) -> (u64, u64) {
    let is_in = |path: &Path| {
        let target = Path::new(target.unwrap_or(""));
        path.starts_with(target) || path.parent().is_some_and(|above| target.starts_with(above))
    };
    let mut directories = BTreeSet::new();
    let (mut blocks, mut inodes) = (0_u64, 0);
    for file in files.iter().filter(|file| is_in(Path::new(&file.path))) {
        directories.extend(Path::new(&file.path).ancestors().skip(1));
        blocks = blocks.saturating_add(file.size.div_ceil(BLOCK));
        inodes += 1;
    }
    let directories = directories.len() as u64;
    (blocks.saturating_add(directories).saturating_mul(BLOCK), inodes + directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkout_needs_blocks_and_inodes() {
        let files: Vec<File> = [("top", 1), ("a/one", 4096), ("a/deep/two", 4097), ("b/three", 0)]
            .map(|(path, size)| File { path: path.to_owned(), size })
            .into();
        let amount = |blocks: u64, inodes: u64| (blocks * BLOCK, inodes);
        // Five blocks except for the empty file, and one a directory: the top, a, a/deep, b.
        assert_eq!(size(&files, None), amount(4 + 4, 4 + 4));
        assert_eq!(size(&files, Some("a/deep")), amount(4 + 3, 3 + 3));
        assert_eq!(size(&files, Some("b")), amount(1 + 2, 2 + 2));
    }
}
