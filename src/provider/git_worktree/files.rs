//! Writes the files of a session in its worktree: whole files, and marked sections of files that the session edits.
//!
//! One function makes the worktree have exactly the files of a plan: it creates, updates, repairs and rolls back.
//! A file is put in place in one step. One that the session has changed stays beside, as `NAME.seedbed-N`.

#![expect(clippy::disallowed_methods, reason = "reads files of a worktree while they are exchanged")]

mod hide;
mod record;
mod section;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, linkat};
use rustix::io::Errno;

use self::record::Written;
pub(super) use self::record::{RECORD, Record};
use super::Worktree;
use super::copy_record::{self, Copies, content_of_file};
use super::paths::{WorktreePaths, io as failed, split, within};
use super::scratch::Scratch;
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::exchange::Exchange;
use crate::host::files::{self, Root};
use crate::host::git::Git;
use crate::provider::placeholders::resolve;
use crate::provider::{Error, Task};

/// Size limit of a file around a section, in bytes.
const SIZE_MAX: usize = 64 << 20;

/// File that a plan gives to a session.
struct Planned {
    /// Content of the file or of the section.
    text: Vec<u8>,
    /// Comment marker of a section; empty for a whole file.
    comment: String,
}

/// State of a file, compared with the planned one.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The file is as planned; no file is planned and none exists.
    Planned,
    /// Nothing exists at the path.
    Missing,
    /// The file is one that seedbed wrote, and the session has not changed it, apart from what surrounds a section.
    Untouched(Vec<u8>),
    /// The file lacks the section.
    WithoutSection(Vec<u8>),
    /// The session has changed the file or the section.
    Edited(Vec<u8>),
    /// Something else is at the path, or in place of a directory above it.
    Blocked,
}

/// Writes the planned files of a new worktree.
pub(super) fn create(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    read_copies(task, worktree)?;
    let left = reconcile(task, worktree)?;
    if left.is_empty() { Ok(()) } else { Err(Error::Refused(left.join("; "))) }
}

/// Records the content of copies that get a section. A large copy is not read when it is made.
fn read_copies(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let planned = planned(task, worktree);
    if planned.values().all(|planned| planned.comment.is_empty()) {
        return Ok(());
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let mut copies = Copies::read(&paths);
    let unread = copies
        .0
        .iter_mut()
        .filter(|(path, copy)| copy.content.is_none() && planned.contains_key(&within(&paths).join(path)));
    let mut has_read = false;
    for (path, copy) in unread {
        let path = paths.worktree.join(within(&paths)).join(path);
        copy.content = copy_record::content(&path).map_err(failed("read", &path))?;
        has_read = true;
    }
    if has_read { copies.write(&paths) } else { Ok(()) }
}

/// Makes a worktree have exactly the planned files. Returns what it leaves as it is, or beside, one line each.
pub(super) fn reconcile(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<String>, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let (planned, record) = (planned(task, worktree), Record::read(&paths));
    if planned.is_empty() && record.0.is_empty() {
        return Ok(Vec::new());
    }
    let Some(top) = paths.directory()? else { return Ok(Vec::new()) };
    let mut pending = BTreeMap::new();
    for path in planned.keys().chain(record.0.keys()) {
        let state = state(&top, path, planned.get(path), record.0.get(path))?;
        if state != State::Planned {
            pending.insert(path.clone(), state);
        }
    }
    let tracked = tracked(task, &paths, pending.keys())?;
    let mut left = Vec::new();
    let is_left = |path: &Path, state: &State| tracked.contains(path) || *state == State::Blocked;
    pending.retain(|path, state| {
        let is_left = is_left(path, state);
        if is_left && planned.contains_key(path) {
            let why = if tracked.contains(path) { "is tracked" } else { "is no file" };
            left.push(format!("`{}` {why} in the session, and stays as it is", path.display()));
        }
        !is_left
    });
    let complete = Record(planned.iter().map(|(path, planned)| (path.clone(), planned.written())).collect());
    if pending.is_empty() && complete == record {
        hide::hide(task, &paths, complete.0.keys(), worktree.seeded())?;
        return Ok(left);
    }
    with_both(record.clone(), &complete).write(&paths)?;
    crashpoint!("session-files.recorded");
    if !pending.is_empty() {
        let scratch = Scratch::create(&paths, worktree)?;
        let placed = pending.into_iter().try_for_each(|(path, state)| {
            let place = Place { top: &top, scratch: &scratch, path: &path, written: record.0.get(&path) };
            left.extend(match planned.get(&path) {
                Some(planned) => place.put(planned, state)?,
                None => place.remove(state)?,
            });
            crashpoint!("session-files.placed");
            Ok::<(), Error>(())
        });
        scratch.remove()?;
        placed?;
    }
    for path in record.0.keys().filter(|path| !planned.contains_key(*path)) {
        remove_empty_directories(&top, path);
    }
    hide::hide(task, &paths, complete.0.keys(), worktree.seeded())?;
    complete.write(&paths)?;
    crashpoint!("session-files.completed");
    Ok(left)
}

/// Hides the files that seedbed wrote, and the seeded directories.
pub(super) fn hide(task: &Task<'_>, worktree: &Worktree, paths: &WorktreePaths) -> Result<(), Error> {
    hide::hide(task, paths, Record::read(paths).0.keys(), worktree.seeded())
}

/// Returns the damage of the planned files, one line; `None` if there is none. Paths that another file or a commit of the
/// session takes are no damage.
pub(super) fn damage(task: &Task<'_>, worktree: &Worktree) -> Result<Option<String>, Error> {
    let planned = planned(task, worktree);
    if planned.is_empty() {
        return Ok(None);
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let (Some(top), record) = (paths.directory()?, Record::read(&paths)) else { return Ok(None) };
    let mut found = BTreeMap::new();
    for (path, planned) in &planned {
        let what = match state(&top, path, Some(planned), record.0.get(path))? {
            State::Planned | State::Blocked => continue,
            State::Missing => "does not exist",
            State::Untouched(_) => "is of an earlier plan",
            State::WithoutSection(_) => "lacks its section",
            State::Edited(_) => "was changed",
        };
        found.insert(path.clone(), what);
    }
    let tracked = tracked(task, &paths, found.keys())?;
    found.retain(|path, _| !tracked.contains(path));
    let lines: Vec<_> = found.iter().map(|(path, what)| format!("`{}` {what}", path.display())).collect();
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

/// Returns the files that the session has changed, relative to the top of the worktree: they are its work, even if Git
/// ignores them. Tracked files are left out.
pub(super) fn edited(
    task: &Task<'_>,
    paths: &WorktreePaths,
    is_untouched: impl Fn(&Path) -> bool,
) -> Result<BTreeSet<PathBuf>, Error> {
    let Some(top) = paths.directory()? else { return Ok(BTreeSet::new()) };
    // Nothing behind a link is the session's file.
    let exists = |path: &Path| {
        let (above, name) = split(path);
        let parent = top.directory(above).ok().flatten();
        let found = parent.and_then(|parent| parent.file_type(name));
        found.is_some_and(|found| found != FileType::Directory)
    };
    let mut edited: BTreeSet<PathBuf> = Record::read(paths).0.into_keys().collect();
    edited.retain(|path| exists(path) && !is_untouched(path));
    let tracked = tracked(task, paths, edited.iter())?;
    edited.retain(|path| !tracked.contains(path));
    Ok(edited)
}

impl Record {
    /// Returns whether a file is as seedbed wrote it. `is_original` tells whether bytes around a section are those that the
    /// file had before.
    pub(super) fn is_untouched(
        &self,
        paths: &WorktreePaths,
        path: &Path,
        is_original: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let Some(written) = self.0.get(path) else { return false };
        let read = || paths.directory().ok()??.read(path, SIZE_MAX).ok()?;
        let Some(bytes) = read() else { return false };
        // A run may have been killed before it added the section to a copy.
        let Some(parts) = written.section(&bytes) else {
            return written.is_untouched(&bytes) || is_original(&bytes);
        };
        let rest = [parts.before, parts.after].concat();
        let without_break = rest.strip_suffix(b"\n").unwrap_or(&rest);
        written.is_untouched(&bytes)
            && (rest.trim_ascii().is_empty() || is_original(&rest) || is_original(without_break))
    }
}

/// Section of a copy, which the refresh of the copy keeps.
pub(super) struct CopySection {
    comment: String,
    text: Vec<u8>,
}

impl CopySection {
    /// Finds the section of the file at a path, relative to the top of the worktree; `None` if the file has none, or the
    /// session has changed it.
    pub(super) fn find(paths: &WorktreePaths, path: &Path) -> Option<Self> {
        let record = Record::read(paths);
        let written = record.0.get(path)?;
        let bytes = paths.directory().ok()??.read(path, SIZE_MAX).ok()??;
        let parts = written.section(&bytes).filter(|_| written.is_untouched(&bytes))?;
        Some(Self { comment: written.comment.clone(), text: parts.section.to_vec() })
    }

    /// Returns whether a file has this content around the section.
    pub(super) fn is_around(&self, path: &Path, content: &str) -> std::io::Result<bool> {
        let bytes = fs::read(path)?;
        let Some(parts) = section::find(&bytes, &self.comment) else { return Ok(false) };
        let rest = [parts.before, parts.after].concat();
        let without_break = rest.strip_suffix(b"\n").unwrap_or(&rest);
        Ok(parts.section == self.text
            && [&rest, without_break].iter().any(|it| content_of_file(it) == content))
    }

    /// Adds the section to a file.
    pub(super) fn add_to(&self, path: &Path) -> std::io::Result<()> {
        fs::write(path, section::join(&fs::read(path)?, &self.text, b"", &self.comment))
    }
}

impl Planned {
    fn written(&self) -> Written {
        Written { comment: self.comment.clone(), contents: vec![content_of_file(&self.text)] }
    }

    /// Returns the content of the file, given the bytes that surround a section.
    fn bytes(&self, before: &[u8], after: &[u8]) -> Vec<u8> {
        match &*self.comment {
            "" => self.text.clone(),
            comment => section::join(before, &self.text, after, comment),
        }
    }
}

/// Returns the files that the task's plan puts into a worktree, by path relative to its top.
fn planned(task: &Task<'_>, worktree: &Worktree) -> BTreeMap<PathBuf, Planned> {
    let planned = task.files.iter().filter_map(|(path, file)| {
        let path = task.working_directory.join(path);
        let path = path.strip_prefix(&worktree.worktree_path).ok()?.to_owned();
        let mut text = resolve(&file.text, task.workspace).into_bytes();
        if file.comment.is_some() && !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Some((path, Planned { text, comment: file.comment.clone().unwrap_or_default() }))
    });
    planned.collect()
}

/// Compares a file with the planned one, and with what seedbed has written.
fn state(
    top: &Root,
    path: &Path,
    planned: Option<&Planned>,
    written: Option<&Written>,
) -> Result<State, Error> {
    let bytes = match top.read(path, SIZE_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) if planned.is_none() => return Ok(State::Planned),
        Ok(None) => return Ok(State::Missing),
        Err(files::Error::Link { .. } | files::Error::Irregular { .. } | files::Error::TooLarge { .. }) => {
            return Ok(State::Blocked);
        }
        Err(files::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotADirectory => {
            return Ok(State::Blocked);
        }
        Err(error) => return Err(error.into()),
    };
    let section = planned.filter(|planned| !planned.comment.is_empty());
    let parts = section.and_then(|planned| section::find(&bytes, &planned.comment));
    let is_planned = planned.is_some_and(|planned| match (&parts, &*planned.comment) {
        (Some(parts), _) => parts.section == planned.text,
        (None, "") => bytes == planned.text,
        (None, _) => false,
    });
    Ok(if is_planned {
        State::Planned
    } else if written.is_some_and(|written| written.is_untouched(&bytes)) {
        State::Untouched(bytes)
    } else if section.is_some() && parts.is_none() {
        State::WithoutSection(bytes)
    } else if planned.is_none() && written.is_some_and(|written| written.section(&bytes).is_none()) {
        // The session's own file now, without a section that could be removed, or changed as a whole.
        State::Planned
    } else {
        State::Edited(bytes)
    })
}

/// Returns those of the paths that the index of the worktree has.
fn tracked<'p>(
    task: &Task<'_>,
    paths: &WorktreePaths,
    candidates: impl Iterator<Item = &'p PathBuf>,
) -> Result<BTreeSet<PathBuf>, Error> {
    let mut args: Vec<_> = ["--literal-pathspecs", "ls-files", "-z", "--"].map(PathBuf::from).into();
    let fixed = args.len();
    args.extend(candidates.cloned());
    if args.len() == fixed {
        return Ok(BTreeSet::new());
    }
    let admin = paths.admin_directory_path();
    let listed = Git::open(task.host, &admin, Some(&paths.worktree)).holding(task.lock).run(args)?;
    let listed = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    Ok(listed.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect())
}

/// Returns a record with the contents of both.
fn with_both(mut record: Record, other: &Record) -> Record {
    for (path, written) in &other.0 {
        let both = record.0.entry(path.clone()).or_insert_with(|| written.clone());
        if both.comment != written.comment {
            written.comment.clone_into(&mut both.comment);
        }
        let new = written.contents.iter().filter(|content| !both.contents.contains(content));
        let new: Vec<_> = new.cloned().collect();
        both.contents.extend(new);
    }
    record
}

/// File that is put in place or removed.
struct Place<'a> {
    top: &'a Root,
    scratch: &'a Scratch,
    path: &'a Path,
    /// Content that seedbed has written there before.
    written: Option<&'a Written>,
}

impl Place<'_> {
    /// Puts the planned file in place. Returns what the session has at the path, one line.
    fn put(&self, planned: &Planned, state: State) -> Result<Option<String>, Error> {
        let (above, name) = split(self.path);
        let parent = self.top.create_directories(above)?;
        failpoint!("session-files.put").map_err(|error| failed("create", self.path)(error.into()))?;
        let (old, is_edited) = match state {
            State::Missing => {
                return self.create(&parent, name, &planned.bytes(b"", b""));
            }
            State::Untouched(old) | State::WithoutSection(old) => (old, false),
            State::Edited(old) => (old, true),
            State::Planned | State::Blocked => return Ok(None),
        };
        let new = match section::find(&old, &planned.comment) {
            Some(parts) if !planned.comment.is_empty() => planned.bytes(parts.before, parts.after),
            // A whole file that seedbed wrote has nothing of the session.
            _ if self.written.is_some_and(|it| it.comment.is_empty() && it.is_untouched(&old)) => {
                planned.bytes(b"", b"")
            }
            _ => planned.bytes(&old, b""),
        };
        let beside = if is_edited { Some(keep_beside(&parent, name, &old)?) } else { None };
        let changed = self.exchange(&parent, name, &old, &new)?;
        let kept = || {
            let beside = self.path.with_file_name(beside.as_ref()?);
            let (path, beside) = (self.path.display(), beside.display());
            Some(format!("`{path}` was changed in the session, whose version is `{beside}` now"))
        };
        Ok(changed.or_else(kept))
    }

    /// Removes a file or a section that is not planned any more. Returns what stays, one line.
    fn remove(&self, state: State) -> Result<Option<String>, Error> {
        let (above, name) = split(self.path);
        let Some(parent) = self.top.directory(above)? else { return Ok(None) };
        let State::Untouched(old) = state else {
            return Ok(matches!(state, State::Edited(_)).then(|| self.changed(None)));
        };
        let parts = self.written.and_then(|written| written.section(&old));
        let rest = parts.map(|parts| [parts.before, parts.after].concat()).unwrap_or_default();
        if !rest.trim_ascii().is_empty() {
            return self.exchange(&parent, name, &old, &rest);
        }
        let aside = OsStr::new("old");
        match parent.take(name, &self.scratch.directory, aside, |path| Ok(fs::read(path)? == old))? {
            Exchange::Changed { beside } => return Ok(Some(self.changed(beside))),
            Exchange::Done => drop(self.scratch.directory.remove_file(Path::new(aside))?),
        }
        Ok(None)
    }

    /// Creates the file in one step, unless something exists by now.
    fn create(&self, parent: &Root, name: &OsStr, bytes: &[u8]) -> Result<Option<String>, Error> {
        let (scratch, aside) = (&self.scratch.directory, OsStr::new("new"));
        scratch.create_new(Path::new(aside), bytes)?;
        if parent.place(name, scratch, aside)? {
            return Ok(None);
        }
        scratch.remove_file(Path::new(aside))?;
        Ok(Some(self.changed(None)))
    }

    /// Replaces the file in one step, if it still has the old content.
    fn exchange(&self, parent: &Root, name: &OsStr, old: &[u8], new: &[u8]) -> Result<Option<String>, Error> {
        let (scratch, aside) = (&self.scratch.directory, OsStr::new("new"));
        scratch.create_new(Path::new(aside), new)?;
        let path = scratch.path().join(aside);
        let mode = fs::symlink_metadata(parent.path().join(name)).map(|found| found.permissions().mode());
        if let Ok(mode) = mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o777))
                .map_err(failed("set the mode of", &path))?;
        }
        let done = parent.exchange(name, scratch, aside, |path| Ok(fs::read(path)? == old))?;
        scratch.remove_file(Path::new(aside))?;
        Ok(match done {
            Exchange::Done => None,
            Exchange::Changed { beside } => Some(self.changed(beside)),
        })
    }

    fn changed(&self, beside: Option<OsString>) -> String {
        let path = self.path.display();
        match beside.map(|beside| self.path.with_file_name(beside)) {
            Some(beside) => {
                format!("`{path}` was changed in the session; `{}` is beside it", beside.display())
            }
            None => format!("`{path}` was changed in the session, and stays as it is"),
        }
    }
}

/// Gives the session's version a second name beside it, unless a version with the same content has one.
fn keep_beside(parent: &Root, name: &OsStr, bytes: &[u8]) -> Result<OsString, Error> {
    for number in 1.. {
        let mut beside = name.to_owned();
        beside.push(format!(".seedbed-{number}"));
        let path = parent.path().join(&beside);
        match linkat(parent, name, parent, &beside, AtFlags::empty()) {
            Ok(()) => return Ok(beside),
            Err(Errno::EXIST) if fs::read(&path).is_ok_and(|found| found == bytes) => return Ok(beside),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("link", &path)(error.into())),
        }
    }
    Ok(name.to_owned())
}

/// Removes the directories above a removed file in which nothing else is. One that cannot be removed stays.
fn remove_empty_directories(top: &Root, path: &Path) {
    let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    let _ = above.take_while(|above| matches!(top.remove_directory(above), Ok(true))).count();
}
