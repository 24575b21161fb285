//! Compares the space that new worktrees need with the free space.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::fs::{stat, statvfs};

use super::Severity::{Fails, Warns};
use super::host::nearest;
use super::{Case, Findings, Id, PATIENCE};
use crate::host::absolute;
use crate::host::git::Git;
use crate::host::process::Error;
use crate::plan::Plan;
use crate::provider::git_worktree::{Checkout, KIND, Worktree};

/// Size of a block, in bytes: 4 KiB nearly everywhere. The last block of a file is partly unused.
const BLOCK: u64 = 4096;

/// Needed or free space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

pub(super) fn inspect(case: &Case<'_>, common_dir: &Path, findings: &mut Findings) {
    let Some(Ok(plan)) = case.plan else { return };
    let mut trees: BTreeMap<String, Vec<File>> = BTreeMap::new();
    let mut uncounted = BTreeSet::new();
    // By the device of the file system.
    let mut needed: BTreeMap<u64, (PathBuf, Amount, usize)> = BTreeMap::new();
    let mut shared = BTreeSet::new();
    for worktree in new_worktrees(plan) {
        let files = trees.entry(worktree.commit.clone()).or_insert_with_key(|commit| {
            let listed = list(&Git::open(case.host, common_dir, None).within(PATIENCE), commit);
            if matches!(listed, Err(Error::Deadline { .. } | Error::TooMuch { .. })) {
                uncounted.insert(commit.clone());
            }
            // A commit that cannot be listed for another reason is reported elsewhere.
            listed.unwrap_or_default()
        });
        // Overlays share one checkout of each commit, in the state directory.
        let path = if worktree.checkout == Checkout::Overlay {
            if !shared.insert((worktree.commit.clone(), worktree.target_path.clone())) {
                continue;
            }
            nearest(&case.host.state)
        } else {
            nearest(&absolute(case.workspace, &worktree.worktree_root))
        };
        let Ok(there) = stat(&path) else { continue };
        let (_, sum, count) = needed.entry(there.st_dev).or_insert((path, Amount::default(), 0));
        *sum = sum.plus(taken(files, worktree.target_path.as_deref()));
        *count += 1;
    }
    for commit in uncounted {
        let what = format!("commit {commit} has too many files to count them");
        let remedy = "check out less of it with target-path; git ls-tree -r --name-only lists its files";
        findings.add(Warns, Id::DiskSpace, what, remedy);
    }
    for (path, needed, count) in needed.into_values() {
        if let Ok(there) = statvfs(&path) {
            let free = Amount {
                bytes: there.f_bavail.saturating_mul(there.f_frsize),
                // Some file systems have as many inodes as there is space.
                inodes: if there.f_files == 0 { u64::MAX } else { there.f_favail },
            };
            compare(&path, count, needed, free, findings);
        }
    }
}

/// Returns the worktrees that applying the plan creates.
fn new_worktrees(plan: &Plan) -> impl Iterator<Item = Worktree> {
    let changes = plan.sessions.iter().zip(&plan.changes);
    changes
        .filter(|(_, change)| change.provision.iter().any(|kind| kind == KIND))
        .filter_map(|(session, _)| Worktree::of(session.allocations_of(KIND).next()?))
}

/// Reports worktrees that do not fit, and also those that need more than nine tenths of the free space.
pub(super) fn compare(path: &Path, count: usize, needed: Amount, free: Amount, findings: &mut Findings) {
    let tight = |needed: u64, free: u64| {
        if needed > free {
            Some(Fails)
        } else if needed > free - free / 10 {
            Some(Warns)
        } else {
            None
        }
    };
    let shown = path.display();
    let remedy =
        "make room, have less checked out with target-path, or keep worktrees elsewhere with root-directory";
    if let Some(severity) = tight(needed.bytes, free.bytes) {
        let (needed, free) = (mebibytes(needed.bytes), mebibytes(free.bytes));
        let what = format!("{count} worktrees need up to {needed} MiB, and {free} MiB are free at {shown}");
        findings.add(severity, Id::DiskSpace, what, remedy);
    }
    if let Some(severity) = tight(needed.inodes, free.inodes) {
        let (needed, free) = (needed.inodes, free.inodes);
        let what = format!("{count} worktrees need {needed} inodes, and {free} are free at {shown}");
        findings.add(severity, Id::Inodes, what, remedy);
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[derive(Debug)]
struct File {
    path: String,
    size: u64,
}

fn list(git: &Git<'_>, commit: &str) -> Result<Vec<File>, Error> {
    let listed = git.run(["ls-tree", "-r", "-l", "-z", "--full-tree", commit])?;
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

/// Returns the space of a checkout. A sparse checkout has the directory, and the files beside every directory above it.
fn taken(files: &[File], target: Option<&str>) -> Amount {
    let is_in = |path: &Path| {
        let target = Path::new(target.unwrap_or(""));
        path.starts_with(target) || path.parent().is_some_and(|above| target.starts_with(above))
    };
    let mut directories = BTreeSet::new();
    let mut taken = Amount::default();
    for file in files.iter().filter(|file| is_in(Path::new(&file.path))) {
        directories.extend(Path::new(&file.path).ancestors().skip(1));
        let bytes = file.size.div_ceil(BLOCK) * BLOCK;
        taken = taken.plus(Amount { bytes, inodes: 1 });
    }
    let directories = directories.len() as u64;
    taken.plus(Amount { bytes: directories * BLOCK, inodes: directories })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkout_needs_blocks_and_inodes() {
        let files: Vec<File> = [("top", 1), ("a/one", 4096), ("a/deep/two", 4097), ("b/three", 0)]
            .map(|(path, size)| File { path: path.to_owned(), size })
            .into();
        let amount = |blocks: u64, inodes| Amount { bytes: blocks * BLOCK, inodes };
        // Five blocks except for the empty file, and one a directory: the top, a, a/deep, b.
        assert_eq!(taken(&files, None), amount(4 + 4, 4 + 4));
        assert_eq!(taken(&files, Some("a/deep")), amount(4 + 3, 3 + 3));
        assert_eq!(taken(&files, Some("b")), amount(1 + 2, 2 + 2));
    }

    #[test]
    fn lack_of_space_is_an_error_and_nearly_full_is_a_warning() {
        let check = |needed: (u64, u64), free: (u64, u64), expected: &[(super::super::Severity, Id)]| {
            let mut findings = Findings::default();
            let amount = |(bytes, inodes)| Amount { bytes, inodes };
            compare(Path::new("/"), 3, amount(needed), amount(free), &mut findings);
            let found: Vec<_> = findings.0.iter().map(|finding| (finding.severity, finding.id)).collect();
            assert_eq!(found, expected);
        };
        check((90, 90), (100, 100), &[]);
        check((91, 1), (100, 100), &[(Warns, Id::DiskSpace)]);
        check((101, 101), (100, 100), &[(Fails, Id::DiskSpace), (Fails, Id::Inodes)]);
        check((0, 95), (0, 100), &[(Warns, Id::Inodes)]);
        check((1, 1), (0, u64::MAX), &[(Fails, Id::DiskSpace)]);
    }
}
