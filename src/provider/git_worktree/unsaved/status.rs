//! Finds uncommitted changes of the working tree and the index.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FileType};

use super::baseline::Baseline;
use super::listed_file::{ListedFile, is_discovery};
use super::repositories::Inner;
use super::{filtered, index_flags};
use crate::host::git::Git;
use crate::provider::directory_scan::{self, DirectoryScan};
use crate::provider::git_worktree::checkout_config::EXACT;
use crate::provider::git_worktree::paths::{Content, WorktreePaths, read};
use crate::provider::git_worktree::untracked::CopiedFiles;
use crate::provider::git_worktree::{Worktree, files, index, untracked};
use crate::provider::name_list::list;
use crate::provider::{Error, Task, UnsavedWork};

/// Adds the changes that `git status` reports, and those that it does not report. If `baseline` is given, only later
/// changes are added.
pub(super) fn add(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    scan: &DirectoryScan,
    baseline: Option<&Baseline>,
    unsaved_work: &mut UnsavedWork,
) -> Result<(), Error> {
    let admin = paths.admin_directory_path();
    let git = Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock);
    let git = EXACT.iter().fold(git, |git, setting| git.with_setting(setting));
    let changes = Changes::read(&git, task, worktree, paths, baseline)?;
    let listed = git.run(["ls-files", "-v", "--stage", "-z"])?;
    let is_later = |path: &Path| baseline.is_none_or(|baseline| baseline.is_later(paths, path));
    let is_tree_later =
        |path: &OsStr| baseline.is_none_or(|baseline| baseline.is_part_later(paths, Path::new(path)));
    let files = listed.split(|byte| *byte == 0).filter_map(ListedFile::parse);
    let files: Vec<_> = files.filter(|file| file.mode == "160000" || is_later(file.path)).collect();
    let index_flags = index_flags::changed(&git, paths, &files)?;
    let index = paths.common.read(&paths.admin_directory.join("index"), index::MAX)?;
    let filtered = filtered::changed(&git, &paths.worktree, index, &files, &changes.tracked)?;
    let filtered = filtered.iter().filter(|path| !is_discovery(worktree, path)).count();
    let mut submodules = submodules(paths, &files)?;
    submodules.retain(|path| is_tree_later(path));
    let mut inner = Inner::ask(task, paths, scan, |path| {
        let is_reported = changes.repositories.iter().any(|it| Path::new(it) == path);
        if is_reported || submodules.contains(path.as_os_str()) {
            return None;
        }
        Some(path.ancestors().any(|above| changes.ignored.iter().any(|it| Path::new(it) == above)))
    });
    inner.with_work.retain(|path| is_tree_later(path));
    inner.without_stat_data.retain(|path| is_tree_later(path));
    let counts = changes.counts(index_flags, filtered);
    describe(paths, &counts, &changes, &submodules, &inner, unsaved_work);
    Ok(())
}

/// Adds one line for each kind of what was found.
fn describe(
    paths: &WorktreePaths,
    counts: &str,
    changes: &Changes,
    submodules: &BTreeSet<OsString>,
    inner: &Inner,
    unsaved_work: &mut UnsavedWork,
) {
    let path = paths.home.display();
    if !counts.is_empty() {
        unsaved_work.work.push(format!("{path} has uncommitted changes: {counts}"));
    }
    let beyond_rescue = [
        (
            "contains repositories of their own",
            &changes.repositories,
            ", which git cannot take into a commit; move them away",
        ),
        (
            "has submodules checked out",
            submodules,
            ", whose commits may be nowhere else; push those, then `git submodule deinit --all` there",
        ),
        (
            "has changed files that cannot be read",
            &changes.unreadable,
            "; `chmod u+r` them, or have their owner do it",
        ),
        (
            "contains repositories with changes or commits that are nowhere else",
            &inner.with_work,
            "; push those, or move the repositories away",
        ),
        (
            "has a `.git` that is no repository, and that Git ignores",
            &inner.without_stat_data,
            "; move it away",
        ),
    ];
    for (what, named, remedy) in beyond_rescue.into_iter().filter(|(_, named, _)| !named.is_empty()) {
        unsaved_work.beyond_rescue.push(format!("{path} {what} ({}){remedy}", list(named)));
    }
    let passing = [
        ("repositories without work of their own", &inner.copies),
        ("ignored files or directories", &changes.ignored),
    ];
    for (what, named) in passing.into_iter().filter(|(_, named)| !named.is_empty()) {
        unsaved_work.ignored.push(format!("{path} has {} {what}: {}", named.len(), list(named)));
    }
}

/// Changes that `git status` reports.
#[derive(Default)]
struct Changes {
    modified: usize,
    staged: usize,
    unmerged: usize,
    untracked: usize,
    /// Tracked files that are changed in any way.
    tracked: BTreeSet<PathBuf>,
    ignored: BTreeSet<OsString>,
    /// Untracked repositories.
    repositories: BTreeSet<OsString>,
    /// Changed and untracked files that this user may not read.
    unreadable: BTreeSet<OsString>,
}

impl Changes {
    fn read(
        git: &Git<'_>,
        task: &Task<'_>,
        worktree: &Worktree,
        paths: &WorktreePaths,
        baseline: Option<&Baseline>,
    ) -> Result<Self, Error> {
        let status = git.run([
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=all",
            "--ignored=matching",
            "--ignore-submodules=none",
            "--no-renames",
        ])?;
        let mut changes = Self::default();
        let copied_files = CopiedFiles::new(worktree, paths);
        // Git may ignore these, or only name a directory around them.
        let mut edited = files::edited(task, paths, |path| copied_files.is_untouched(path))?;
        for change in status.split(|byte| *byte == 0) {
            let Some((state, [b' ', path @ ..])) = change.split_at_checked(2) else { continue };
            let path = Path::new(OsStr::from_bytes(path));
            if *state == *b"!!" && edited.contains(path) {
                continue;
            }
            edited.remove(path);
            if baseline.is_none_or(|baseline| baseline.counts(worktree, paths, state, path)) {
                changes.add(state, path, worktree, &copied_files, paths);
            }
        }
        for path in edited {
            if baseline.is_none_or(|baseline| baseline.counts(worktree, paths, b"??", &path)) {
                changes.add(b"??", &path, worktree, &copied_files, paths);
            }
        }
        Ok(changes)
    }

    fn add(
        &mut self,
        state: &[u8],
        path: &Path,
        worktree: &Worktree,
        copied_files: &CopiedFiles<'_>,
        paths: &WorktreePaths,
    ) {
        let is_made =
            || is_discovery(worktree, path) || worktree.is_seeded(path) || copied_files.is_untouched(path);
        match *state {
            [b'?', b'?'] if path.as_os_str().as_bytes().ends_with(b"/") => {
                self.repositories.insert(path.as_os_str().to_owned());
            }
            [b'?', b'?'] | [b'!', b'!'] if is_made() => {}
            [b'?', b'?'] => {
                self.untracked += 1;
                self.add_unreadable(paths, path);
            }
            [b'!', b'!'] if path.starts_with(untracked::HIDDEN) => {}
            [b'!', b'!'] => drop(self.ignored.insert(path.as_os_str().to_owned())),
            [b'U', _] | [_, b'U'] | [b'A', b'A'] | [b'D', b'D'] => {
                self.unmerged += 1;
                self.tracked.insert(path.to_owned());
            }
            // A branch may track these files. Those that seedbed restores are no work.
            [b' ', _] if is_discovery(worktree, path) => {}
            [index, tree] => {
                self.staged += usize::from(index != b' ');
                self.modified += usize::from(tree != b' ');
                self.tracked.insert(path.to_owned());
                self.add_unreadable(paths, path);
            }
            _ => {}
        }
    }

    fn add_unreadable(&mut self, paths: &WorktreePaths, path: &Path) {
        if is_denied(&paths.worktree.join(path)) {
            self.unreadable.insert(path.as_os_str().to_owned());
        }
    }

    /// Returns the numbers of changed files by kind of change, in words; an empty text if there are none.
    fn counts(&self, index_flags: usize, filtered: usize) -> String {
        let counts = [
            (self.modified, "modified"),
            (self.staged, "staged"),
            (self.unmerged, "unmerged"),
            (self.untracked, "untracked"),
            (index_flags, "hidden from `git status` by assume-unchanged or skip-worktree"),
            (filtered, "hidden from `git status` by filters, line ends or equal times"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        counts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }
}

/// Returns whether this user may not read a file.
fn is_denied(path: &Path) -> bool {
    let denied = directory_scan::may(path, Access::READ_OK);
    denied.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        && rustix::fs::lstat(path).is_ok_and(|found| !FileType::from_raw_mode(found.st_mode).is_symlink())
}

/// Returns the submodules that are checked out.
fn submodules(paths: &WorktreePaths, files: &[ListedFile<'_>]) -> Result<BTreeSet<OsString>, Error> {
    let Some(directory) = paths.directory()? else { return Ok(BTreeSet::new()) };
    let links = files.iter().filter(|file| file.mode == "160000");
    Ok(links
        // A path that cannot be inspected may be a submodule.
        .filter(|file| read(&directory, &file.path.join(".git")).map_or(true, |it| it != Content::Missing))
        .map(|file| file.path.as_os_str().to_owned())
        .collect())
}
