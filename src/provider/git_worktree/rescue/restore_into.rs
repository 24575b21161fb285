//! Restores a rescue in the worktree of a session, without losing anything that the session has.
//!
//! A path of the rescue is written only if the session has not changed it: its index and its disk have the content of
//! the rescue's base commit. All paths are checked before the first effect. Each file is then exchanged by
//! one rename, and the content that the rename replaced is compared once more. A restore that was killed is continued
//! by the same restore: paths that have the content of the rescue already are left alone.

#![expect(clippy::disallowed_methods, reason = "works in a scratch directory of its own")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::saved::SavedWork;
use super::verify::is_same;
use super::{Scratch, capture, name};
use crate::host::files::Root;
use crate::host::files::exchange::Exchange;
use crate::host::git::Git;
use crate::host::text::shell_quoted;
use crate::provider::git_worktree::paths::{WorktreePaths, io};
use crate::provider::git_worktree::unsaved::{self, OPERATIONS};
use crate::provider::git_worktree::{Worktree, overlay, ownership, worktree};
use crate::provider::name_list::list;
use crate::provider::{Error, Task};

/// Number of characters of a commit's id in messages.
const SHORT: usize = 12;

/// Mode of a commit of another repository in an index.
const GITLINK: &str = "160000";

/// Scratch directory in a mounted worktree: no rename crosses a mount.
pub(super) const IN_MOUNT: &str = ".seedbed-restore";

/// Result of restoring a rescue in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Directory of the worktree, absolute.
    pub directory: PathBuf,
    /// Branch that the worktree has checked out; `None` if its HEAD is detached.
    pub branch: Option<String>,
    /// Number of files that differ between the rescue and the commit that it was made from.
    pub files: usize,
    /// `true` if the rescue has other commits than HEAD, which only the rescue keeps.
    pub has_other_commits: bool,
}

/// Restores the work of `saved`, a rescue of the repository `common`, in a session's worktree: the files, and what was
/// staged.
///
/// # Errors
///
/// Nothing is changed if the worktree belongs to another repository or lacks commits of the rescue. The same holds if
/// it differs from the rescue's base commit in a path of the rescue. An operation such as a rebase is in progress in the
/// session or in the rescue. Git or the system fails: the same restore then continues.
pub fn restore_into(task: &Task<'_>, common: &Path, saved: &SavedWork) -> Result<Restored, Error> {
    let worktree = &worktree(task)?;
    let paths = WorktreePaths::new(task, worktree)?;
    check_worktree(task, worktree, &paths, common, saved)?;
    let root = paths.open()?;
    let admin = paths.admin_directory_path();
    let git = Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock);
    check_operations(&paths, &git, saved)?;
    let head = format!("{}^1", saved.object);
    check_commits(&paths, &git, &head)?;
    let scratch = RestoreScratch::create(task, worktree, &paths, &root)?;
    let restore = Restore { root: &root, git: &git, scratch: &scratch.path, saved, head: &head };
    let changes = restore.changes(worktree)?;
    restore.check_out(&changes)?;
    let steps = restore.steps(&paths, &changes)?;
    restore.write_index(&steps)?;
    restore.write_files(&steps)?;
    let branch = git.output(["symbolic-ref", "--quiet", "--short", "HEAD"])?;
    let branch = String::from_utf8_lossy(&branch.stdout).trim_end().to_owned();
    let others = format!("{}^4^1", saved.object);
    Ok(Restored {
        directory: paths.home.clone(),
        branch: (!branch.is_empty()).then_some(branch),
        files: changes.len(),
        has_other_commits: git.output(["rev-parse", "--verify", "--quiet", &others])?.status.success(),
    })
}

/// Checks that the worktree is complete, belongs to the session, and is of the rescue's repository.
fn check_worktree(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    common: &Path,
    saved: &SavedWork,
) -> Result<(), Error> {
    let home = paths.home.display();
    if fs::canonicalize(common).map_err(io("read", common))? != paths.common.path() {
        let (one, other) = (paths.common.path().display(), common.display());
        return Err(Error::Refused(format!("{home} is a worktree of {one}, and the rescue is in {other}")));
    }
    if !saved.valid {
        return Err(Error::Refused(format!("{} does not have the form of a rescue", saved.reference)));
    }
    ownership::of_admin_directory_if_not_others(task, paths)?;
    let is_missing =
        paths.directory()?.is_none() || paths.common.directory(&paths.admin_directory)?.is_none();
    if is_missing || overlay::is_unmounted(worktree, paths)? {
        return Err(Error::Refused(format!("{home} is damaged or not mounted; `seedbed apply` repairs it")));
    }
    Ok(())
}

/// Checks that neither the worktree nor the rescue is in the middle of an operation.
fn check_operations(paths: &WorktreePaths, git: &Git<'_>, saved: &SavedWork) -> Result<(), Error> {
    let names = paths
        .common
        .directory(&paths.admin_directory)?
        .map(|admin| admin.names())
        .transpose()?
        .unwrap_or_default();
    let state = git.run(["ls-tree", "--name-only", "-z", "--full-tree", &format!("{}^3", saved.object)])?;
    let state: BTreeSet<OsString> = fields(&state).map(|name| OsStr::from_bytes(name).to_owned()).collect();
    for (name, operation) in OPERATIONS {
        if names.contains(OsStr::new(name)) {
            let home = paths.home.display();
            return Err(Error::Refused(format!("{home} is in the middle of {operation}; finish it first")));
        }
        if state.contains(OsStr::new(name)) {
            return Err(elsewhere(&format!("is in the middle of {operation}")));
        }
    }
    let sides = git.output(["ls-tree", "--name-only", "--full-tree", &format!("{}^4", saved.object)])?;
    if sides.status.success() && !sides.stdout.is_empty() {
        return Err(elsewhere("has unmerged files"));
    }
    Ok(())
}

/// Returns the refusal of a rescue that only a worktree of its own can have.
fn elsewhere(why: &str) -> Error {
    Error::Refused(format!("the rescue {why}, which no session can take over; restore it without `--into`"))
}

/// Checks that the worktree has all commits of the rescue. Otherwise only a part of the work would be restored.
fn check_commits(paths: &WorktreePaths, git: &Git<'_>, head: &str) -> Result<(), Error> {
    let count = git.line(["rev-list", "--count", head, "--not", "HEAD"])?;
    if count == "0" {
        return Ok(());
    }
    let commit = git.line(["rev-parse", head])?;
    let ahead = git.output(["merge-base", "--is-ancestor", "HEAD", head])?.status.success();
    let (home, option) = (paths.home.display(), if ahead { " --ff-only" } else { "" });
    let commits = if count == "1" { "1 commit".to_owned() } else { format!("{count} commits") };
    let commit = &commit[..SHORT.min(commit.len())];
    Err(Error::Refused(format!(
        "{home} lacks {commits} of the rescue, up to {commit}; nothing was changed\nhelp: bring them there first: git -C \
         {} merge{option} {commit}",
        shell_quoted(&paths.home.to_string_lossy())
    )))
}

/// Scratch directory of a restore on the file system of the worktree. It is removed when this value is dropped; after a
/// crash by the next restore or recovery.
struct RestoreScratch<'s> {
    path: PathBuf,
    /// Scratch directory beside the worktree, or the worktree that contains it.
    _beside: Option<Scratch<'s>>,
    inside: Option<&'s Root>,
}

impl<'s> RestoreScratch<'s> {
    fn create(
        task: &Task<'_>,
        worktree: &Worktree,
        paths: &'s WorktreePaths,
        root: &'s Root,
    ) -> Result<Self, Error> {
        if overlay::is_wanted(worktree) {
            root.remove_all(Path::new(IN_MOUNT))?;
            let path = root.create_directories(Path::new(IN_MOUNT))?.path().to_owned();
            return Ok(Self { path, _beside: None, inside: Some(root) });
        }
        let scratch = Scratch::create(task, worktree, paths)?;
        Ok(Self { path: scratch.path.clone(), _beside: Some(scratch), inside: None })
    }
}

impl Drop for RestoreScratch<'_> {
    fn drop(&mut self) {
        // A directory that cannot be removed here is removed by the next restore.
        let _ = self.inside.map(|root| root.remove_all(Path::new(IN_MOUNT)));
    }
}

/// Mode and object of a path in a tree or an index; `None` if the path is not there.
type Blob = Option<(String, String)>;

/// One path of the rescue.
struct Change {
    /// Content in the commit that the rescue was made from.
    old: Blob,
    /// Content in the index of the rescue.
    staged: Blob,
    /// Content in the files of the rescue.
    new: Blob,
}

/// Steps of a restore that was checked.
struct Steps<'p> {
    /// Lines for `git update-index --index-info`.
    index: Vec<u8>,
    /// Paths whose bit `skip-worktree` is removed, each ended by NUL.
    shown: Vec<u8>,
    /// Paths whose files are written or removed.
    files: Vec<&'p Path>,
}

/// Inputs of a restore.
struct Restore<'r> {
    /// Worktree of the session.
    root: &'r Root,
    git: &'r Git<'r>,
    scratch: &'r Path,
    saved: &'r SavedWork,
    /// Commit that the rescue was made from.
    head: &'r str,
}

impl Restore<'_> {
    /// Returns the paths that the rescue changes, except discovery files.
    fn changes(&self, worktree: &Worktree) -> Result<BTreeMap<PathBuf, Change>, Error> {
        let mut changes = BTreeMap::new();
        let files = self.differences(&self.saved.object)?;
        let staged = self.differences(&format!("{}^2", self.saved.object))?;
        for path in files.keys().chain(staged.keys()) {
            if unsaved::is_discovery(worktree, path) {
                continue;
            }
            let old = files.get(path).or(staged.get(path)).map(|(old, _)| old.clone()).unwrap_or_default();
            let or_old =
                |found: Option<&(Blob, Blob)>| found.map_or_else(|| old.clone(), |(_, new)| new.clone());
            let (new, staged) = (or_old(files.get(path)), or_old(staged.get(path)));
            changes.insert(path.clone(), Change { old, staged, new });
        }
        Ok(changes)
    }

    /// Returns the paths in which a commit differs from the one that the rescue was made from, with both contents.
    fn differences(&self, commit: &str) -> Result<BTreeMap<PathBuf, (Blob, Blob)>, Error> {
        let args =
            ["diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--ignore-submodules=none"];
        let printed = self.git.run(args.into_iter().chain([self.head, commit]))?;
        let mut differences = BTreeMap::new();
        let mut fields = fields(&printed);
        while let (Some(header), Some(path)) = (fields.next(), fields.next()) {
            let header = String::from_utf8_lossy(header);
            let [mode, new_mode, object, new_object, _] =
                header.trim_start_matches(':').split(' ').collect::<Vec<_>>()[..]
            else {
                continue;
            };
            let blob =
                |mode: &str, object: &str| (mode != "000000").then(|| (mode.to_owned(), object.to_owned()));
            let pair = (blob(mode, object), blob(new_mode, new_object));
            differences.insert(capture::path(path).to_owned(), pair);
        }
        Ok(differences)
    }

    /// Checks both contents of each path out: into `old` and `new` of the scratch directory.
    fn check_out(&self, changes: &BTreeMap<PathBuf, Change>) -> Result<(), Error> {
        for (directory, commit) in [("old", self.head), ("new", self.saved.object.as_str())] {
            let git = self
                .git
                .clone()
                .with_variable("GIT_INDEX_FILE", self.scratch.join(format!("{directory}.index")));
            let whole = ["-c", "core.sparseCheckout=false", "-c", "core.symlinks=true"];
            git.run(whole.into_iter().chain(["read-tree", commit]))?;
            let files = changes.iter().filter(|(_, change)| {
                let blob = if directory == "old" { &change.old } else { &change.new };
                blob.as_ref().is_some_and(|(mode, _)| mode != GITLINK)
            });
            let input: Vec<u8> =
                files.flat_map(|(path, _)| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
            let to = self.scratch.join(directory);
            fs::create_dir_all(&to).map_err(io("create", &to))?;
            let mut prefix = OsString::from("--prefix=");
            prefix.push(&to);
            prefix.push("/");
            let args = whole.into_iter().chain(["checkout-index", "--force", "-z", "--stdin"]);
            git.run_with_input(args.map(OsString::from).chain([prefix]), input)?;
        }
        let message = self.git.run(["cat-file", "commit", &self.saved.object])?;
        for path in String::from_utf8_lossy(&message).lines().filter_map(name::exact_path) {
            let Some((_, object)) = changes.get(&path).and_then(|change| change.new.as_ref()) else {
                continue;
            };
            let to = self.scratch.join("new").join(&path);
            fs::write(&to, self.git.run(["cat-file", "blob", object])?).map_err(io("write", &to))?;
        }
        Ok(())
    }

    /// Checks every path against the index and the files of the session, and returns the steps.
    fn steps<'p>(
        &self,
        paths: &WorktreePaths,
        changes: &'p BTreeMap<PathBuf, Change>,
    ) -> Result<Steps<'p>, Error> {
        let is_swapped = |path: &PathBuf| path.ancestors().skip(1).any(|above| changes.contains_key(above));
        if changes.keys().any(is_swapped) {
            return Err(elsewhere("replaces a file by a directory, or a directory by a file"));
        }
        let listed = self.git.run(["ls-files", "-v", "--stage", "-z"])?;
        let mut index: BTreeMap<&Path, Vec<(Blob, bool)>> = BTreeMap::new();
        for file in fields(&listed).filter_map(unsaved::ListedFile::parse) {
            let blob = Some((file.mode.to_owned(), file.object.to_owned()));
            index.entry(file.path).or_default().push((blob, file.hidden));
        }
        let mut steps = Steps { index: Vec::new(), shown: Vec::new(), files: Vec::new() };
        let mut conflicts = BTreeSet::new();
        for (path, change) in changes {
            let (entry, hidden) = match index.get(path.as_path()).map(Vec::as_slice) {
                None => (&None, false),
                Some([(entry, hidden)]) => (entry, *hidden),
                Some(_) => {
                    conflicts.insert(path.as_os_str().to_owned());
                    continue;
                }
            };
            let is_staged = *entry == change.staged;
            let differs = change.staged != change.old;
            let is_gitlink = (change.old.is_some() || change.new.is_some())
                && [&change.old, &change.new].into_iter().flatten().all(|(mode, _)| mode == GITLINK);
            let (is_new, is_old) = (is_gitlink || self.has(path, "new")?, self.has(path, "old")?);
            let above = path.parent().unwrap_or(Path::new(""));
            let left_out = hidden && !self.exists(path) && !self.is_obstructed(above);
            let is_unchanged = (is_old || left_out) && (is_staged || *entry == change.old);
            let is_restored = is_new && !differs;
            let can_be_restored = (is_new || is_unchanged) && (is_staged || *entry == change.old);
            if !is_restored && !can_be_restored {
                conflicts.insert(path.as_os_str().to_owned());
                continue;
            }
            let line = path.as_os_str().as_bytes();
            if differs && !is_staged {
                let zero = ("0".to_owned(), "0".repeat(self.saved.object.len()));
                let (mode, object) = change.staged.as_ref().unwrap_or(&zero);
                steps.index.extend([mode.as_bytes(), b" ", object.as_bytes(), b"\t", line, b"\0"].concat());
            }
            if !is_new {
                steps.files.push(path);
                if left_out {
                    steps.shown.extend([line, b"\0"].concat());
                }
            }
        }
        if conflicts.is_empty() {
            return Ok(steps);
        }
        let home = paths.home.display();
        Err(Error::Refused(format!(
            "{home} differs from the commit that the rescue was made from in {}; nothing was changed\nhelp: restore the \
             rescue without `--into`, and merge there",
            list(&conflicts)
        )))
    }

    /// Returns whether the worktree has the content of `old` or `new` at a path.
    fn has(&self, path: &Path, directory: &str) -> Result<bool, Error> {
        let (here, there) = (self.root.path().join(path), self.scratch.join(directory).join(path));
        let parent = path.parent().unwrap_or(Path::new(""));
        let is_reached = parent == Path::new("") || matches!(self.root.directory(parent), Ok(Some(_)));
        match (is_reached, self.exists(path), fs::symlink_metadata(&there).is_ok()) {
            (_, false, false) => Ok(is_reached || !self.is_obstructed(parent)),
            (true, true, true) => {
                let is_directory = fs::symlink_metadata(&here).is_ok_and(|found| found.is_dir());
                Ok(!is_directory && is_same(&here, &there).map_err(io("compare", &here))?)
            }
            _ => Ok(false),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        let found = fs::symlink_metadata(self.root.path().join(path));
        // What cannot be inspected exists.
        found.map_or_else(|error| !matches!(error.kind(), ErrorKind::NotFound), |_| true)
    }

    /// Returns whether a file or a link is in the place of a directory above a path.
    fn is_obstructed(&self, directory: &Path) -> bool {
        directory
            .ancestors()
            .filter(|above| *above != Path::new(""))
            .any(|above| self.root.directory(above).is_err())
    }

    /// Writes all entries at once: Git replaces the index by a rename, under its lock.
    fn write_index(&self, steps: &Steps<'_>) -> Result<(), Error> {
        if !steps.index.is_empty() {
            self.git.run_with_input(["update-index", "-z", "--index-info"], steps.index.clone())?;
        }
        if !steps.shown.is_empty() {
            let args = ["update-index", "--no-skip-worktree", "-z", "--stdin"];
            self.git.run_with_input(args, steps.shown.clone())?;
        }
        Ok(())
    }

    fn write_files(&self, steps: &Steps<'_>) -> Result<(), Error> {
        let rescued = Root::open(&self.scratch.join("new"))?;
        for path in &steps.files {
            let (above, name) =
                (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
            let new = rescued.create_directories(above)?;
            let (exists, is_written) = (self.exists(path), new.file_type(name).is_some());
            let parent = if is_written {
                Some(self.root.create_directories(above)?)
            } else {
                self.root.directory(above)?
            };
            let Some(parent) = parent.filter(|_| exists || is_written) else { continue };
            let old = self.scratch.join("old").join(path);
            let is_old = |replaced: &Path| is_same(replaced, &old);
            let done = match (exists, is_written) {
                (true, true) => parent.exchange(name, &new, name, is_old)?,
                (true, false) => parent.take(name, &new, name, is_old)?,
                (false, _) if parent.place(name, &new, name)? => Exchange::Done,
                (false, _) => Exchange::Changed { beside: None },
            };
            if let Exchange::Changed { beside } = done {
                return Err(changes(&self.root.path().join(path), beside));
            }
            if !is_written {
                self.remove_empty(Some(above))?;
            }
            crate::host::failpoint::crashpoint!("restore.file");
        }
        Ok(())
    }

    /// Removes the directories that a removed file leaves empty, as Git does.
    fn remove_empty(&self, mut directory: Option<&Path>) -> Result<(), Error> {
        while let Some(path) = directory.filter(|path| *path != Path::new("")) {
            let is_empty =
                self.root.directory(path)?.is_some_and(|root| root.names().is_ok_and(|it| it.is_empty()));
            if !is_empty {
                return Ok(());
            }
            self.root.remove_directory(path)?;
            directory = path.parent();
        }
        Ok(())
    }
}

/// Returns the refusal because of a file that another program writes, with the path of a second version of it.
fn changes(path: &Path, beside: Option<OsString>) -> Error {
    let beside =
        beside.map(|name| format!(" (another version of it is {})", path.with_file_name(name).display()));
    Error::Refused(format!(
        "{}{} changes while the rescue is restored; end the program that writes it, and repeat the command",
        path.display(),
        beside.unwrap_or_default()
    ))
}

/// Returns the fields of a Git command's output with NUL after each.
fn fields(printed: &[u8]) -> impl Iterator<Item = &[u8]> {
    printed.split(|byte| *byte == 0).filter(|field| !field.is_empty())
}
