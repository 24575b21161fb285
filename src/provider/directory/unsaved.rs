//! Finds unsaved work in a directory, and things in it that are not its session's.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::iter;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Stat, lstat};

use super::Directory;
use super::paths::{DirectoryPaths, named};
use super::record::{self, Contents, Record, Stage, Stamp};
use crate::host::files::{Root, temporary};
use crate::host::mounts::{self, Mount};
use crate::host::text::{printable, shell_quoted};
use crate::provider::directory_scan::{DirectoryScan, mount_blocker, stuck, unknown};
use crate::provider::name_list::list;
use crate::provider::{
    DISCOVERY_DIRECTORY, Error, InterruptedRun, LeaseProgress, Location, Task, UnsavedWork, hidden_names,
};

/// Size limit of the file that a linked worktree has at `.git`, in bytes.
const POINTER_MAX: usize = 64 * 1024;

/// Finds the unsaved work that a release of the directory would discard. If `run` is given,
/// files that it has written are no work.
pub(super) fn unsaved_work(
    task: &Task<'_>,
    directory: &Directory,
    run: Option<InterruptedRun>,
) -> Result<UnsavedWork, Error> {
    let paths = DirectoryPaths::new(task, directory)?;
    let mut unsaved_work = UnsavedWork::default();
    let record = match record::owned(task, &paths) {
        Err(Error::Refused(why)) => {
            unsaved_work.beyond_rescue.push(why);
            return Ok(unsaved_work);
        }
        record => record?,
    };
    // The files of a directory that the run has not recorded as its own are not removed.
    let Some(Record { stage: Stage::Created | Stage::Complete, .. }) = record else {
        return Ok(unsaved_work);
    };
    let Some(top) = paths.directory()? else { return Ok(unsaved_work) };
    // Resources in the directory have been moved aside separately: what lies in their places there is not theirs.
    let of_others = directory.contains.iter().filter(|_| task.location == Location::Home);
    let of_others: BTreeSet<PathBuf> = of_others.map(|name| paths.path().join(name)).collect();
    let mut mounts = mounts(task, &paths)?;
    mounts.retain(|mount| !of_others.iter().any(|other| Path::new(&mount.place).starts_with(other)));
    unsaved_work
        .blockers
        .extend(mounts.iter().map(|mount| mount_blocker(mount, &home_of(&paths, &mount.place))));
    let mut places: BTreeSet<_> = mounts.iter().map(|mount| PathBuf::from(&mount.place)).collect();
    places.extend(of_others);
    let is_foreign = |below: &Path| places.contains(&paths.path().join(below));
    let scan = DirectoryScan::read(&paths.path(), &places);
    unsaved_work.blockers.extend(stuck(&paths.home_path(), &scan));
    let tops = iter::once(Path::new("")).chain(scan.with_git.iter().map(PathBuf::as_path));
    unsaved_work.blockers.extend(tops.filter_map(|below| linked_worktree(&top, &paths, below)));
    let baseline = Baseline::new(task, directory, &paths, run)?;
    let mut written = BTreeSet::new();
    let mut own_files = OwnFiles::default();
    let listed = record::each_file(&top, &is_foreign, &mut |path, stat| {
        if directory.keep && baseline.is_work(&paths, path, stat) && !own_files.contains(&top, path) {
            written.insert(path.as_os_str().to_owned());
        }
    });
    let home = paths.home_path();
    let unlisted = listed.err().map(|error| format!("not all of {} can be read: {error}", home.display()));
    unsaved_work.unknown.extend(unknown(&home, &scan).or(unlisted));
    unsaved_work.beyond_rescue.extend(work(&paths, &written));
    Ok(unsaved_work)
}

/// Files that seedbed writes for a session that works in the directory: discovery files, temporary files beside them, and
/// those that hide things from Git.
#[derive(Default)]
struct OwnFiles {
    /// Names of such files in the latest directory.
    latest: Option<(PathBuf, Vec<OsString>)>,
}

impl OwnFiles {
    fn contains(&mut self, top: &Root, path: &Path) -> bool {
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        // A killed run leaves such a file beside the discovery file that it was writing.
        if above.ends_with(DISCOVERY_DIRECTORY) && temporary::is_temporary(name) {
            return true;
        }
        if self.latest.as_ref().is_none_or(|(latest, _)| latest != above) {
            let names = top.directory(above).ok().flatten().map(|directory| hidden_names(&directory));
            self.latest = Some((above.to_owned(), names.unwrap_or_default()));
        }
        self.latest.as_ref().is_some_and(|(_, names)| names.iter().any(|own| own == name))
    }
}

/// Names the unsaved files, in one line.
fn work(paths: &DirectoryPaths, written: &BTreeSet<OsString>) -> Option<String> {
    let count = match written.len() {
        0 => return None,
        1 => "1 file that was".to_owned(),
        many => format!("{many} files that were"),
    };
    Some(format!(
        "{} has {count} written since it was created: {}; no rescue saves a directory of this kind: copy what you need",
        paths.home_path().display(),
        printable(&list(written))
    ))
}

/// Files that are no work.
struct Baseline<'d> {
    /// Files with which the directory was created; `None` if it is not complete.
    contents: Option<Contents>,
    /// Time from which on a change is work, in nanoseconds since 1970, after an interrupted run.
    since: Option<i128>,
    /// Time before the first change of the interrupted run, in nanoseconds since 1970. Older files are work.
    begun: i128,
    /// Directory that is copied, if the copy was interrupted.
    source: Option<(&'d Path, Root)>,
}

impl<'d> Baseline<'d> {
    fn new(
        task: &Task<'_>,
        directory: &'d Directory,
        paths: &DirectoryPaths,
        run: Option<InterruptedRun>,
    ) -> Result<Self, Error> {
        let since = run.and_then(|run| match run.made {
            LeaseProgress::Populating | LeaseProgress::Populated { .. } => None,
            LeaseProgress::SettingUp { at, alive } => Some(nanoseconds(alive.max(at))),
            LeaseProgress::Complete(at) => Some(nanoseconds(at)),
        });
        let begun = run.map_or(0, |run| nanoseconds(run.begun));
        let contents = record::original_contents(paths)?;
        let from = directory.copy_from.as_deref().filter(|_| contents.is_none());
        let source = match from {
            Some(from) => Root::open(task.workspace)?.directory(from)?.map(|root| (from, root)),
            None => None,
        };
        Ok(Self { contents, since, begun, source })
    }

    /// Returns whether a file is work: it differs from the files with which the directory was created, and the
    /// interrupted run has not certainly written it.
    fn is_work(&self, paths: &DirectoryPaths, path: &Path, stat: &Stat) -> bool {
        let stamp = Stamp::new(stat);
        let is_older = stamp.changed < self.begun;
        match &self.contents {
            Some(contents) if contents.get(path) == Some(&stamp) => return false,
            None if !is_older && self.is_being_copied(path) => return false,
            _ => {}
        }
        let Some(since) = self.since else { return true };
        is_older || stamp.changed >= since || is_below_later(paths, path, since)
    }

    /// Returns whether the original has a file of this path, which the interrupted run may have been copying.
    fn is_being_copied(&self, path: &Path) -> bool {
        let Some((_, source)) = &self.source else { return false };
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        matches!(source.directory(above), Ok(Some(above)) if above.file_type(name).is_some())
    }
}

/// Returns whether a directory around a file was changed at `since` or later. It may have been moved there with its
/// files.
fn is_below_later(paths: &DirectoryPaths, path: &Path, since: i128) -> bool {
    let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    above
        .map(|above| lstat(paths.path().join(above)))
        .any(|found| found.is_ok_and(|found| Stamp::new(&found).changed >= since))
}

fn nanoseconds(time: SystemTime) -> i128 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

fn mounts(task: &Task<'_>, paths: &DirectoryPaths) -> Result<Vec<Mount>, Error> {
    let table = task.shared_result("mounts", || Ok(mounts::table()?))?;
    Ok(mounts::at_or_below(&table, &paths.path()))
}

/// Returns the path of something in the directory as messages name it.
fn home_of(paths: &DirectoryPaths, path: &str) -> String {
    named(paths, Path::new(path).strip_prefix(paths.path()).unwrap_or(Path::new("")))
}

/// Describes the linked worktree at `below`, a path in the directory, if its repository has it registered.
fn linked_worktree(top: &Root, paths: &DirectoryPaths, below: &Path) -> Option<String> {
    let text = top.read(&below.join(".git"), POINTER_MAX).ok()??;
    let entry = Path::new(OsStr::from_bytes(text.strip_prefix(b"gitdir: ")?.trim_ascii_end()));
    // A relative path begins at the directory with the `.git` file.
    let entry = paths.path().join(below).join(entry);
    let is_worktrees = entry.parent().and_then(Path::file_name) == Some(OsStr::new("worktrees"));
    if !is_worktrees || lstat(entry.join("gitdir")).is_err() {
        return None;
    }
    let path = named(paths, below);
    Some(format!(
        "{path} is a worktree of a repository: `git worktree remove {}` ends it",
        shell_quoted(&path)
    ))
}
