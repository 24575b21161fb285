//! Brings untracked files of the workspace, such as `.env`, into a worktree: as copies or as links.

#![expect(clippy::disallowed_methods, reason = "copies files with their modes")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::copy_record::{self, Content, Copies, Copy, Stamp, State};
use super::files::CopySection;
use super::paths::{WorktreePaths, io as failed, split, within};
use super::tracked::Tracked;
use super::{Worktree, files as files_of_session};
use crate::host::failpoint::failpoint;
use crate::host::files;
use crate::host::files::copies::copy_large;
use crate::host::files::exchange::Exchange;
use crate::host::git::Git;
pub(super) use crate::observe::untracked::HIDDEN;
use crate::observe::untracked::{self, Listed, Matcher, Pattern};
use crate::provider::{DISCOVERY_DIRECTORY, Error, Refreshable, Task};

/// Size up to which a file is copied through memory, in bytes, and hashed there. The kernel copies larger ones.
const READ_MAX: u64 = 64 * 1024;

/// Copies and links the untracked files of the workspace that the globs match, including ignored files.
///
/// A glob matches a file or a directory above it. A directory that the commit does not have is linked as a whole. Files
/// of the commit are never overwritten, also if they are outside of the sparse path. A glob without a wildcard that
/// matches nothing is an error.
pub(super) fn copy_and_link(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    if worktree.copy.is_empty() && worktree.link.is_empty() {
        return Ok(());
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let untracked = untracked(task, &brought(worktree), &paths)?;
    // A file of a complete checkout exists.
    let tracked = match worktree.target_path {
        Some(_) => tracked(task, &paths, &untracked)?,
        None => Tracked::default(),
    };
    let mut made = BTreeMap::new();
    for path in matched(&worktree.copied(), &untracked)?.into_values().flatten() {
        if tracked.at(path).is_some() {
            continue;
        }
        let (from, to) = (paths.source.join(path), destination(&paths, path)?);
        made.extend(copy(&from, &to)?.map(|copy| (path.to_owned(), (to, copy))));
    }
    record(&paths, Copies::read(&paths), made)?;
    create_links(&worktree.linked(), &paths, &untracked, |path| match tracked.at(path) {
        Some(_) => Ok(false),
        None => link(&paths, path),
    })
}

fn tracked(task: &Task<'_>, paths: &WorktreePaths, untracked: &Listed) -> Result<Tracked, Error> {
    Tracked::read(task, paths, untracked.paths.iter().map(PathBuf::as_path))
}

/// Adds copies, each with its path, to the record.
fn record(
    paths: &WorktreePaths,
    mut copies: Copies,
    mut made: BTreeMap<PathBuf, (PathBuf, Copy)>,
) -> Result<(), Error> {
    copy_record::settle(&mut made).map_err(failed("read", &paths.worktree))?;
    copies.0.extend(made.into_iter().map(|(path, (_, copy))| (path, copy)));
    copies.write(paths)
}

/// Links the files that the patterns match. `link` creates a link, and returns whether it has.
fn create_links(
    patterns: &[Pattern],
    paths: &WorktreePaths,
    untracked: &Listed,
    link: impl Fn(&Path) -> Result<bool, Error>,
) -> Result<(), Error> {
    for (top, file_paths) in matched(patterns, untracked)? {
        // The files below a link are those of the workspace.
        let here = paths.worktree.join(within(paths)).join(top);
        if fs::read_link(here).is_ok_and(|target| target == paths.source.join(top)) {
            continue;
        }
        if !link(top)? {
            for path in file_paths {
                link(path)?;
            }
        }
    }
    Ok(())
}

/// Compiled patterns. Invalid globs match nothing. Whether Git ignores a file is not considered.
pub(super) struct Patterns(Vec<Matcher>);

impl Patterns {
    pub(super) fn new(patterns: &[Pattern]) -> Self {
        Self(patterns.iter().filter_map(|pattern| pattern.matcher().ok()).collect())
    }

    pub(super) fn matches(&self, path: &Path) -> bool {
        self.0.iter().any(|matcher| matcher.top(path).is_some())
    }
}

/// Returns the patterns of the files to bring into a worktree.
fn brought(worktree: &Worktree) -> Vec<Pattern> {
    [worktree.copied(), worktree.linked()].concat()
}

/// Files that were brought into a worktree.
pub(super) struct CopiedFiles<'w> {
    paths: &'w WorktreePaths,
    copy: Patterns,
    link: Patterns,
    copies: Copies,
    files: files_of_session::Record,
}

impl<'w> CopiedFiles<'w> {
    pub(super) fn new(worktree: &Worktree, paths: &'w WorktreePaths) -> Self {
        let (copy, link) = (Patterns::new(&worktree.copied()), Patterns::new(&worktree.linked()));
        Self { paths, copy, link, copies: Copies::read(paths), files: files_of_session::Record::read(paths) }
    }

    /// Returns whether an untracked file of the worktree was brought or generated and is unchanged, or equals the file in the
    /// workspace. The path is relative to the worktree.
    pub(super) fn is_untouched(&self, path: &Path) -> bool {
        let own = path.strip_prefix(within(self.paths)).ok();
        // A copy outlasts its glob in the manifest.
        let copy = own.and_then(|own| self.copies.0.get(own));
        if self.files.0.contains_key(path) {
            return self.files.is_untouched(self.paths, path, |rest| {
                copy.is_some_and(|copy| copy.content == Some(copy_record::content_of_file(rest)))
            });
        }
        let Some(own) = own else { return false };
        let is_copy = copy.is_some() || self.copy.matches(own);
        if !is_copy && !self.link.matches(own) {
            return false;
        }
        let (here, there) = (self.paths.worktree.join(path), self.paths.source.join(own));
        let target = fs::read_link(&here).ok();
        if target.is_some_and(|target| target == there || Some(target) == fs::read_link(&there).ok()) {
            return true;
        }
        if copy.is_some_and(|copy| copy.is_pristine(&here)) {
            return true;
        }
        let Ok(Some(content)) = copy_record::content(&here) else { return false };
        let is_copied = copy.is_some_and(|copy| copy.content.as_ref() == Some(&content));
        is_copy && (is_copied || copy_record::content(&there).is_ok_and(|there| there == Some(content)))
    }
}

/// Returns the copies whose files in the workspace have changed since they were copied, in words, one line each. Copies
/// that a session has changed or removed itself are left out.
pub(super) fn outdated(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<String>, Error> {
    if worktree.copy.is_empty() {
        return Ok(Vec::new());
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let mut outdated = Vec::new();
    // The manifest may no longer have the glob of a copy.
    let patterns = Patterns::new(&worktree.copied());
    for (path, copy) in Copies::read(&paths).0.iter().filter(|(path, _)| patterns.matches(path)) {
        let here = here(&paths, path);
        if changed(task, &paths, path, copy, &here)? && is_untouched(&paths, path, copy)? {
            outdated.push(format!("`{}` has changed in the workspace since it was copied", path.display()));
        }
    }
    Ok(outdated)
}

/// Returns whether the worktree has the content that was copied, not through a link of the session.
fn is_untouched(paths: &WorktreePaths, path: &Path, copy: &Copy) -> Result<bool, Error> {
    let here = &here(paths, path);
    let is_same = || has_copied(paths, path, copy.content.as_ref(), here);
    Ok(!is_obstructed(paths, path)? && (copy.is_pristine(here) || is_same().map_err(failed("read", here))?))
}

/// Returns whether a file has the content that was copied, around its section if it has one.
fn has_copied(
    paths: &WorktreePaths,
    path: &Path,
    content: Option<&Content>,
    file: &Path,
) -> io::Result<bool> {
    let Some(content) = content else { return Ok(false) };
    match CopySection::find(paths, &within(paths).join(path)) {
        Some(section) => section.is_around(file, content),
        None => Ok(copy_record::content(file)?.as_ref() == Some(content)),
    }
}

/// Returns whether the content at a copy's path in the workspace differs from the copied content.
fn changed(
    task: &Task<'_>,
    paths: &WorktreePaths,
    path: &Path,
    copy: &Copy,
    here: &Path,
) -> Result<bool, Error> {
    let from = paths.source.join(path);
    let Ok(found) = fs::symlink_metadata(&from) else { return Ok(false) };
    if Stamp::from(&found) == copy.source {
        return Ok(false);
    }
    let there = task.shared_result(&format!("content {}", from.display()), || {
        Ok(copy_record::content(&from).map_err(failed("read", &from))?.unwrap_or_default())
    })?;
    // A copy that is what the workspace has now needs no other.
    let copied = copy
        .content_at(here)
        .and_then(|known| known.map_or_else(|| copy_record::content(here), |known| Ok(Some(known))));
    Ok(!there.is_empty() && Some(there) != copied.map_err(failed("read", here))?)
}

/// Brings files again, as [`copy_and_link`] does, and replaces the copies whose files in the workspace have changed.
/// Returns the copies that were not replaced because the session has changed or removed them, in words, one line each.
pub(super) fn refresh(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<String>, Error> {
    if worktree.copy.is_empty() && worktree.link.is_empty() {
        return Ok(Vec::new());
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let untracked = untracked(task, &brought(worktree), &paths)?;
    let (to_copy, mut kept) = with_existing_sources(worktree.copied(), &untracked);
    let (to_link, missing) = with_existing_sources(worktree.linked(), &untracked);
    kept.extend(missing);
    let (copies, tracked) = (Copies::read(&paths), tracked(task, &paths, &untracked)?);
    let is_free = |path: &Path| -> Result<bool, Error> {
        Ok(tracked.at(path).is_none() && !is_obstructed(&paths, path)?)
    };
    let mut made = BTreeMap::new();
    for path in matched(&to_copy, &untracked)?.into_values().flatten() {
        let from = paths.source.join(path);
        let copy = match copies.0.get(path) {
            None if !is_free(path)? => continue,
            None => copy(&from, &destination(&paths, path)?)?,
            Some(old) if !changed(task, &paths, path, old, &here(&paths, path))? => continue,
            Some(old) => match replace(worktree, &paths, path, old)? {
                Replaced::Copy(copy) => Some(copy),
                Replaced::Kept(why) => {
                    kept.push(why);
                    None
                }
            },
        };
        made.extend(copy.map(|copy| (path.to_owned(), (here(&paths, path), copy))));
    }
    record(&paths, copies, made)?;
    create_links(&to_link, &paths, &untracked, |path| Ok(is_free(path)? && link(&paths, path)?))?;
    Ok(kept)
}

/// Returns the patterns without those that name files which the workspace no longer has, and one line for each of these:
/// the copies of a session outlast their sources.
fn with_existing_sources(patterns: Vec<Pattern>, untracked: &Listed) -> (Vec<Pattern>, Vec<String>) {
    let has_match = |pattern: &Pattern| matched(std::slice::from_ref(pattern), untracked).is_ok();
    let (existing, missing): (Vec<_>, Vec<_>) = patterns.into_iter().partition(has_match);
    let line =
        |missing: &Pattern| format!("`{}` is no untracked file of the workspace any more", missing.name());
    (existing, missing.iter().map(line).collect())
}

/// Returns whether the session has put a file or a link in the place of a directory above a path.
fn is_obstructed(paths: &WorktreePaths, path: &Path) -> Result<bool, Error> {
    let below = within(paths).join(path);
    match paths.open()?.directory(below.parent().unwrap_or(Path::new(""))) {
        Err(files::Error::Link { .. }) => Ok(true),
        Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotADirectory => Ok(true),
        found => Ok(found.map(|_| false)?),
    }
}

/// Returns the path of a file in the worktree; `path` is relative to the workspace.
fn here(paths: &WorktreePaths, path: &Path) -> PathBuf {
    paths.worktree.join(within(paths)).join(path)
}

/// Returns the work that [`refresh`] would find.
pub(super) fn refreshable(task: &Task<'_>, worktree: &Worktree) -> Result<Refreshable, Error> {
    let mut found = Refreshable::default();
    if worktree.copy.is_empty() && worktree.link.is_empty() {
        return Ok(found);
    }
    let paths = WorktreePaths::new(task, worktree)?;
    let untracked = untracked(task, &brought(worktree), &paths)?;
    let (to_copy, mut kept) = with_existing_sources(worktree.copied(), &untracked);
    let (to_link, missing) = with_existing_sources(worktree.linked(), &untracked);
    kept.extend(missing);
    found.kept = kept;
    let (copies, tracked) = (Copies::read(&paths), tracked(task, &paths, &untracked)?);
    let here = |path: &Path| here(&paths, path);
    let is_missing = |path: &Path| {
        let is_free = || tracked.at(path).is_none() && !is_obstructed(&paths, path).unwrap_or(false);
        fs::symlink_metadata(here(path)).is_err() && is_free()
    };
    for path in matched(&to_copy, &untracked)?.into_values().flatten() {
        match copies.0.get(path) {
            None => found.is_due |= is_missing(path),
            Some(old) if !changed(task, &paths, path, old, &here(path))? => {}
            Some(old) if is_untouched(&paths, path, old)? => found.is_due = true,
            Some(_) => found.kept.push(changed_in_session(path)),
        }
    }
    let links = matched(&to_link, &untracked)?;
    found.is_due |=
        links.into_iter().any(|(top, file_paths)| is_missing(top) || file_paths.into_iter().any(is_missing));
    Ok(found)
}

/// Describes a copy that is not refreshed.
fn changed_in_session(path: &Path) -> String {
    format!("`{}` was changed or removed in the session", path.display())
}

/// Result of replacing a copy.
enum Replaced {
    /// The new copy is in place.
    Copy(Copy),
    /// The session has changed the copy, which stays; with the reason, one line.
    Kept(String),
}

/// Replaces an untouched copy in one step. An edit at that moment is kept.
fn replace(worktree: &Worktree, paths: &WorktreePaths, path: &Path, old: &Copy) -> Result<Replaced, Error> {
    let (from, to) = (paths.source.join(path), here(paths, path));
    let changed = || Ok(Replaced::Kept(changed_in_session(path)));
    let Some(content) = old.content_at(&to).map_err(failed("read", &to))? else { return changed() };
    let section = CopySection::find(paths, &within(paths).join(path));
    let is_old = |path: &Path| match &section {
        Some(section) => section.is_around(path, &content),
        None => Ok(copy_record::content(path)?.as_ref() == Some(&content)),
    };
    if is_obstructed(paths, path)? || !is_old(&to).unwrap_or(false) {
        return changed();
    }
    let below = within(paths).join(path);
    let (above, name) = split(&below);
    let Some(parent) = paths.open()?.directory(above)? else { return changed() };
    let own = Path::new(worktree.target_path.as_deref().unwrap_or_default()).join(DISCOVERY_DIRECTORY);
    let own = paths.open()?.create_directories(&own)?;
    let temporary = own.make_temporary_directory(OsStr::new("copy"))?;
    let beside = own.path().join(&temporary.name).join("copy");
    let replaced = copy(&from, &beside).and_then(|made| {
        let Some(mut made) = made else { return changed() };
        // The exchange changes its state, and the session may write it at once.
        made.made = None;
        if made.content.is_none() {
            made.content = copy_record::content(&beside).map_err(failed("read", &beside))?;
        }
        if let Some(section) = &section {
            section.add_to(&beside).map_err(failed("write", &beside))?;
        }
        let Some(scratch) = own.directory(Path::new(&temporary.name))? else { return changed() };
        Ok(match parent.exchange(name, &scratch, OsStr::new("copy"), is_old)? {
            Exchange::Done => Replaced::Copy(made),
            Exchange::Changed { beside: None } => Replaced::Kept(changed_in_session(path)),
            Exchange::Changed { beside: Some(other) } => Replaced::Kept(format!(
                "{}; another version of it is `{}`",
                changed_in_session(path),
                path.with_file_name(other).display()
            )),
        })
    });
    own.remove_all(Path::new(&temporary.name))?;
    replaced
}

/// Returns whether a file of the workspace is brought to a path of the worktree, or a file is generated there, complete or
/// not.
pub(super) fn is_brought(worktree: &Worktree, paths: &WorktreePaths, path: &Path) -> bool {
    if files_of_session::Record::read(paths).0.contains_key(path) {
        return true;
    }
    let Ok(own) = path.strip_prefix(within(paths)) else { return false };
    Patterns::new(&brought(worktree)).matches(own) && fs::symlink_metadata(paths.source.join(own)).is_ok()
}

/// Returns whether two files have the same content, or two links the same target.
pub(super) fn has_content_of(one: &Path, other: &Path) -> bool {
    let content = |path| copy_record::content(path).ok().flatten();
    content(one).is_some_and(|one| Some(one) == content(other))
}

/// Returns whether a link to `target` in the workspace belongs at a path of the worktree.
pub(super) fn is_linked(worktree: &Worktree, paths: &WorktreePaths, path: &Path, target: &Path) -> bool {
    let Ok(own) = path.strip_prefix(within(paths)) else { return false };
    target == paths.source.join(own) && Patterns::new(&worktree.linked()).matches(own)
}

/// Returns the untracked files that may match the patterns, as paths relative to the workspace.
pub(super) fn untracked(
    task: &Task<'_>,
    patterns: &[Pattern],
    paths: &WorktreePaths,
) -> Result<Listed, Error> {
    patterns.iter().try_for_each(|pattern| matcher(pattern).map(drop))?;
    let git = Git::discover(task.host, &paths.source).holding(task.lock);
    Ok(untracked::list(&git, patterns)?)
}

/// Returns the listed files that the patterns match, by the matched path: the file itself, or the highest matching
/// directory above it.
pub(super) fn matched<'p>(
    patterns: &[Pattern],
    listed: &'p Listed,
) -> Result<BTreeMap<&'p Path, BTreeSet<&'p Path>>, Error> {
    let mut matched: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for pattern in patterns {
        let compiled = matcher(pattern)?;
        let mut any = false;
        for path in &listed.paths {
            if let Some(top) = compiled.top_of_listed(path, listed) {
                matched.entry(top).or_default().insert(path);
                any = true;
            }
        }
        if !any && !pattern.has_wildcard() {
            return Err(Error::Refused(format!(
                "{:?} is no untracked file of the workspace",
                pattern.name()
            )));
        }
    }
    Ok(matched)
}

fn matcher(pattern: &Pattern) -> Result<Matcher, Error> {
    pattern.matcher().map_err(|error| Error::Refused(format!("{:?} is not a glob: {error}", pattern.name())))
}

/// Creates the directory above a file of the worktree, following no link of the commit, and returns the path of the
/// file. No other process works in the worktree yet, so that the path stays valid.
fn destination(paths: &WorktreePaths, path: &Path) -> Result<PathBuf, Error> {
    let path = within(paths).join(path);
    let directory = paths.open()?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        directory.create_directories(parent)?;
    }
    Ok(paths.worktree.join(path))
}

/// Copies a file or a link; `None` if something exists at `to`, or if `from` is neither.
pub(super) fn copy(from: &Path, to: &Path) -> Result<Option<Copy>, Error> {
    let found = fs::symlink_metadata(from).map_err(failed("inspect", from))?;
    let source = Stamp::from(&found);
    if found.is_symlink() {
        let target = fs::read_link(from).map_err(failed("read", from))?;
        let content = Some(copy_record::content_of_link(&target));
        let created = unless_there(symlink(target, to)).map_err(failed("create", to))?;
        return Ok(created.map(|()| Copy { content, made: None, source }));
    }
    copy_file(from, to, source)
}

/// Copies a file; `None` if something exists at `to`, or if `from` is no file.
fn copy_file(from: &Path, to: &Path, stamp: Stamp) -> Result<Option<Copy>, Error> {
    // Opens neither a link nor a FIFO that replaced the file since.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let source =
        OpenOptions::new().read(true).custom_flags(flags).open(from).map_err(failed("open", from))?;
    let found = source.metadata().map_err(failed("inspect", from))?;
    if !found.is_file() {
        return Ok(None);
    }
    let mode = found.permissions().mode() & 0o777;
    let created = failpoint!("bring.copy")
        .map_err(io::Error::from)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(mode).open(to));
    let Some(mut file) = unless_there(created).map_err(failed("create", to))? else { return Ok(None) };
    let content = failpoint!("bring.write")
        .map_err(io::Error::from)
        .and_then(|()| populate(&source, &mut file, found.len()))
        .map_err(failed("write", to))?;
    // The mode at creation was reduced by the umask.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", to))?;
    let state = State::new(&file.metadata().map_err(failed("inspect", to))?);
    Ok(Some(Copy { content, made: state, source: stamp }))
}

/// Copies the `size` bytes of a file into an empty one. Returns the content of a small file, which is read for the
/// copy.
fn populate(source: &File, file: &mut File, size: u64) -> io::Result<Option<Content>> {
    if size > READ_MAX {
        copy_large(source, file, size)?;
        return Ok(None);
    }
    let mut bytes = Vec::new();
    source.take(READ_MAX).read_to_end(&mut bytes)?;
    file.write_all(&bytes)?;
    Ok(Some(copy_record::content_of_file(&bytes)))
}

/// Creates a link to the workspace; `false` if something exists at its path.
fn link(paths: &WorktreePaths, path: &Path) -> Result<bool, Error> {
    let to = destination(paths, path)?;
    let linked = failpoint!("bring.link").map_err(io::Error::from);
    let linked = linked.and_then(|()| symlink(paths.source.join(path), &to));
    let made = unless_there(linked).map_err(failed("link", &to))?;
    Ok(made.is_some())
}

fn unless_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}
