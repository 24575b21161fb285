//! Updates the copies and links of a worktree in place, while its session works there, and undoes an update.
//!
//! All files are copied aside first. Then a journal in the admin directory names every effect, before the first one. A
//! file is put in place in one step, and only where nothing exists. A rollback removes what the update has put there,
//! unless the session has changed it since.
//!
//! The copies of a glob that the manifest no longer has remain: a program of the session may use them. Links of such a
//! glob are removed, because through them the session would change files of the workspace.

#![expect(clippy::disallowed_methods, reason = "looks at files of the workspace and of a worktree")]

mod journal;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::symlinkat;
use rustix::io::Errno;

pub(super) use self::journal::JOURNAL;
use self::journal::{Effect, Journal};
use super::copy_record::{self, Copies, Copy};
use super::paths::{WorktreePaths, io as failed, split, within};
use super::scratch::Scratch;
use super::tracked::Tracked;
use super::untracked::{Patterns, copy, has_content_of, is_linked, matched, untracked};
use super::{Worktree, overlay};
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::{self, Root};
use crate::observe::untracked::{Listed, Pattern};
use crate::provider::{Error, Task};

/// Maximum number of files that are named one by one.
const NAMED: usize = 8;

/// Forgets the journal of an earlier update.
pub(super) fn begin(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    Journal::remove(&WorktreePaths::new(task, worktree)?)
}

/// Brings the copies and links that `to` has and `from` does not, and removes the links that only `from` has. Returns
/// the files that it leaves as they are, one line each.
pub(super) fn update(task: &Task<'_>, from: &Worktree, to: &Worktree) -> Result<Vec<String>, Error> {
    let paths = WorktreePaths::new(task, to)?;
    let update = Update::find(task, &paths, from, to)?;
    let mut left = update.left();
    if update.unlinked.is_empty() && update.placed.is_empty() {
        return Ok(left);
    }
    let scratch = Scratch::create(&paths, to)?;
    let done = update.carry_out(&scratch);
    scratch.remove()?;
    left.extend(named(&done?, EXISTS));
    Ok(left)
}

/// Returns the files that an update would leave as they are, one line each. Changes nothing.
pub(super) fn left(task: &Task<'_>, from: &Worktree, to: &Worktree) -> Result<Vec<String>, Error> {
    Ok(Update::find(task, &WorktreePaths::new(task, to)?, from, to)?.left())
}

/// Undoes an update of a worktree that has `copy` and `link` of before again. Returns the files that it leaves because
/// the session has written them, one line each.
pub(super) fn revert(task: &Task<'_>, worktree: &Worktree) -> Result<Vec<String>, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    let Some(journal) = Journal::read(&paths)? else { return Ok(Vec::new()) };
    if let Some(overlay::MountDamage::Unmounted(_)) = overlay::fault(task, worktree, &paths)? {
        overlay::repair(task, worktree, &paths)?;
    }
    let mut kept = BTreeSet::new();
    if let Some(top) = paths.directory()? {
        let scratch = Scratch::create(&paths, worktree)?;
        let done = journal.0.iter().rev().try_for_each(|(effect, path)| {
            crashpoint!("revert.effect");
            kept.extend(undo(&paths, &top, &scratch, effect, path)?);
            Ok::<(), Error>(())
        });
        scratch.remove()?;
        done?;
    }
    let mut copies = Copies::read(&paths);
    for (_, path) in journal.0.iter().filter(|(effect, _)| matches!(effect, Effect::Placed(_))) {
        copies.0.remove(path);
    }
    copies.replace(&paths)?;
    crashpoint!("revert.recorded");
    Journal::remove(&paths)?;
    Ok(named(&kept, WRITTEN))
}

/// Undoes one effect, if it has happened and the session has not changed its path since. Returns the files of the
/// session at the path or beside it.
fn undo(
    paths: &WorktreePaths,
    top: &Root,
    scratch: &Scratch,
    effect: &Effect,
    path: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let below = within(paths).join(path);
    let (above, name) = split(&below);
    // A directory that the session has replaced by a link or a file has nothing of the update.
    let parent = match top.directory(above) {
        Err(files::Error::Link { .. }) | Ok(None) => return Ok(Vec::new()),
        Err(files::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
            return Ok(Vec::new());
        }
        parent => parent?,
    };
    let Some(parent) = parent else { return Ok(Vec::new()) };
    match effect {
        Effect::Placed(content) => {
            let kept = scratch.take_back(&parent, name, content)?;
            return Ok(kept.into_iter().map(|kept| path.with_file_name(kept)).collect());
        }
        Effect::Directory => match parent.remove_directory(Path::new(name)) {
            Ok(_) | Err(files::Error::Link { .. } | files::Error::Irregular { .. }) => {}
            Err(files::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(error.into()),
        },
        Effect::Unlinked => unless_there(symlinkat(paths.source.join(path), &parent, name))
            .map(drop)
            .map_err(failed("link", &paths.worktree.join(&below)))?,
    }
    Ok(Vec::new())
}

/// Effects of an update that are found before the first one. Paths are relative to the workspace.
struct Update<'s> {
    paths: &'s WorktreePaths,
    /// Links to remove.
    unlinked: BTreeSet<PathBuf>,
    /// Copies and links to put in place.
    placed: BTreeMap<PathBuf, Placed>,
    /// Paths that the session's index has.
    tracked: Tracked,
    /// Paths at which the session has another file, or has deleted a tracked one.
    occupied: BTreeSet<PathBuf>,
    /// Copies of globs that the manifest no longer has.
    staying: BTreeSet<PathBuf>,
}

/// Form in which a file of the workspace is put in place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placed {
    Copy,
    Link,
}

impl<'s> Update<'s> {
    fn find(
        task: &Task<'_>,
        paths: &'s WorktreePaths,
        from: &Worktree,
        to: &Worktree,
    ) -> Result<Self, Error> {
        let mut update = Self {
            paths,
            unlinked: BTreeSet::new(),
            placed: BTreeMap::new(),
            tracked: Tracked::default(),
            occupied: BTreeSet::new(),
            staying: BTreeSet::new(),
        };
        let copy = without(&to.copied(), &from.copied());
        let link = without(&to.linked(), &from.linked());
        let unlinked = without(&from.linked(), &to.linked());
        let listed = if copy.is_empty() && link.is_empty() && unlinked.is_empty() {
            Listed::default()
        } else {
            untracked(task, &[&*copy, &*link, &*unlinked].concat(), paths)?
        };
        let literal = unlinked.iter().map(|pattern| Path::new(pattern.name()));
        update.tracked =
            Tracked::read(task, paths, listed.paths.iter().map(PathBuf::as_path).chain(literal))?;
        update.find_unlinked(to, &unlinked, &listed);
        update.find_copies(&copy, &listed)?;
        update.find_links(&link, &listed)?;
        if !update.unlinked.is_empty() {
            // Globs that stay may match files that were reached through a removed link.
            let mut listed = untracked(task, &[to.copied(), to.linked()].concat(), paths)?;
            listed.paths.retain(|path| update.unlinked.iter().any(|unlinked| path.starts_with(unlinked)));
            update.find_copies(&that_match(&to.copied(), &from.copied(), &listed), &listed)?;
            update.find_links(&that_match(&to.linked(), &from.linked(), &listed), &listed)?;
        }
        update.find_staying(to, &without(&from.copied(), &to.copied()));
        Ok(update)
    }

    /// Returns the files that the update leaves as they are, one line each.
    fn left(&self) -> Vec<String> {
        let is_missing = |path: &PathBuf| {
            self.tracked.at(path).is_some() && fs::symlink_metadata(self.here(path)).is_err()
        };
        let (missing, existing): (BTreeSet<_>, _) = self.occupied.iter().cloned().partition(is_missing);
        let mut left = named(&existing, EXISTS);
        left.extend(named(&missing, TRACKED));
        left.extend(named(&self.staying, STAYS));
        left
    }

    /// Finds the links that globs which are no longer in the manifest made.
    fn find_unlinked(&mut self, to: &Worktree, removed: &[Pattern], listed: &Listed) {
        for glob in removed {
            // The files may be gone from the workspace.
            let literal = PathBuf::from(glob.name().trim_start_matches("./").trim_end_matches('/'));
            let matched = matched(std::slice::from_ref(glob), listed).unwrap_or_default();
            let candidates = matched.into_iter().flat_map(|(top, below)| below.into_iter().chain([top]));
            for path in candidates.map(Path::to_owned).chain([literal]) {
                let (below, there) = (within(self.paths).join(&path), self.paths.source.join(&path));
                let is_link = self.is_link_to(&path, &there);
                if !is_link || is_linked(to, self.paths, &below, &there) {
                    continue;
                }
                // A link that the session has committed is its own.
                let links =
                    if self.tracked.at(&path).is_some() { &mut self.occupied } else { &mut self.unlinked };
                links.insert(path);
            }
        }
    }

    fn find_copies(&mut self, added: &[Pattern], listed: &Listed) -> Result<(), Error> {
        for path in matched(added, listed)?.into_values().flatten() {
            match self.occupant(path) {
                None => drop(self.placed.insert(path.to_owned(), Placed::Copy)),
                Some(occupant) => {
                    let is_same = || has_content_of(&self.here(path), &self.paths.source.join(path));
                    if occupant != path || !is_same() {
                        self.occupied.insert(path.to_owned());
                    }
                }
            }
        }
        Ok(())
    }

    fn find_links(&mut self, added: &[Pattern], listed: &Listed) -> Result<(), Error> {
        for (top, below) in matched(added, listed)? {
            if self.occupant(top).is_none() {
                self.placed.insert(top.to_owned(), Placed::Link);
                continue;
            }
            if self.is_link_to(top, &self.paths.source.join(top)) {
                continue;
            }
            // The files of a directory that the worktree has are linked one by one.
            for path in below {
                match self.occupant(path) {
                    None => drop(self.placed.insert(path.to_owned(), Placed::Link)),
                    Some(_) if self.is_link_to(path, &self.paths.source.join(path)) => {}
                    Some(_) => drop(self.occupied.insert(path.to_owned())),
                }
            }
        }
        Ok(())
    }

    /// Finds the copies that stay although their globs are no longer in the manifest.
    fn find_staying(&mut self, to: &Worktree, removed: &[Pattern]) {
        if removed.is_empty() {
            return;
        }
        let requested = Patterns::new(&[to.copied(), to.linked()].concat());
        let removed = Patterns::new(removed);
        let copies = Copies::read(self.paths).0;
        let copies = copies.into_keys().filter(|path| removed.matches(path) && !requested.matches(path));
        self.staying = copies.filter(|path| fs::symlink_metadata(self.here(path)).is_ok()).collect();
    }

    /// Returns the first path on the way to a path that is in the way of a new file; `None` if nothing is.
    fn occupant<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        if let Some(tracked) = self.tracked.at(path) {
            return Some(tracked);
        }
        let mut way: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
        way.reverse();
        for part in way {
            if self.placed.contains_key(part) {
                return Some(part);
            }
            if self.unlinked.contains(part) {
                return None;
            }
            match fs::symlink_metadata(self.here(part)) {
                Err(_) => return None,
                Ok(found) if found.is_dir() && part != path => {}
                Ok(_) => return Some(part),
            }
        }
        None
    }

    /// Carries out the update. Returns the paths at which the session has created or changed a file since.
    fn carry_out(&self, scratch: &Scratch) -> Result<BTreeSet<PathBuf>, Error> {
        let copied = self.copy_aside(scratch)?;
        self.journal(&copied).write(self.paths)?;
        crashpoint!("update.journaled");
        let top = self.paths.open()?;
        let (mut record, mut occupied) = (Copies::read(self.paths), BTreeSet::new());
        for path in &self.unlinked {
            let below = within(self.paths).join(path);
            let (above, name) = split(&below);
            // The session may have replaced the link by a file of its own since.
            if let Some(parent) = top.directory(above)? {
                let link = copy_record::content_of_link(&self.paths.source.join(path));
                let kept = scratch.take_back(&parent, name, &link)?;
                occupied.extend(kept.into_iter().map(|kept| path.with_file_name(kept)));
            }
            crashpoint!("update.unlinked");
        }
        for (path, placed) in &self.placed {
            let copied = copied.get(path.as_path());
            if *placed == Placed::Copy && copied.is_none() {
                continue;
            }
            let below = within(self.paths).join(path);
            let (above, name) = split(&below);
            let parent = top.create_directories(above)?;
            failpoint!("update.place").map_err(|error| failed("create", &self.here(path))(error.into()))?;
            let is_placed = match copied {
                Some((_, aside)) => parent.place(name, &scratch.directory, OsStr::new(aside))?,
                None => unless_there(symlinkat(self.paths.source.join(path), &parent, name))
                    .map_err(failed("create", &self.here(path)))?,
            };
            crashpoint!("update.placed");
            if !is_placed {
                occupied.insert(path.clone());
            } else if let Some((copy, _)) = copied {
                record.0.insert(path.clone(), copy.clone());
            }
        }
        record.write(self.paths)?;
        crashpoint!("update.recorded");
        Ok(occupied)
    }

    /// Copies the files into the scratch directory. Returns them with their names there.
    fn copy_aside(&self, scratch: &Scratch) -> Result<BTreeMap<&Path, (Copy, String)>, Error> {
        let mut copied = BTreeMap::new();
        for (path, _) in self.placed.iter().filter(|(_, placed)| **placed == Placed::Copy) {
            let name = copied.len().to_string();
            let aside = scratch.directory.path().join(&name);
            let Some(mut made) = copy(&self.paths.source.join(path), &aside)? else { continue };
            // The session may write the file as soon as it is in place.
            made.made = None;
            if made.content.is_none() {
                made.content = copy_record::content(&aside).map_err(failed("read", &aside))?;
            }
            copied.insert(path.as_path(), (made, name));
        }
        Ok(copied)
    }

    fn journal(&self, copied: &BTreeMap<&Path, (Copy, String)>) -> Journal {
        let unlinked = self.unlinked.iter().map(|path| (Effect::Unlinked, path.clone()));
        let above = self.placed.keys().flat_map(|path| path.ancestors().skip(1));
        let is_unlinked = |path: &Path| path.ancestors().any(|part| self.unlinked.contains(part));
        let is_missing = |path: &Path| is_unlinked(path) || fs::symlink_metadata(self.here(path)).is_err();
        let missing = above.filter(|above| !above.as_os_str().is_empty() && is_missing(above));
        let missing: BTreeSet<&Path> = missing.collect();
        let missing = missing.into_iter().map(|path| (Effect::Directory, path.to_owned()));
        let placed = self.placed.iter().filter_map(|(path, placed)| {
            let content = match placed {
                Placed::Copy => copied.get(path.as_path())?.0.content.clone()?,
                Placed::Link => copy_record::content_of_link(&self.paths.source.join(path)),
            };
            Some((Effect::Placed(content), path.clone()))
        });
        Journal(unlinked.chain(missing).chain(placed).collect())
    }

    fn here(&self, path: &Path) -> PathBuf {
        self.paths.worktree.join(within(self.paths)).join(path)
    }

    fn is_link_to(&self, path: &Path, target: &Path) -> bool {
        fs::read_link(self.here(path)).is_ok_and(|found| found == target)
    }
}

/// Returns the globs that are not among the others.
fn without(globs: &[Pattern], others: &[Pattern]) -> Vec<Pattern> {
    globs.iter().filter(|glob| !others.contains(glob)).cloned().collect()
}

/// Returns the globs that are also in the other list and match a listed file.
fn that_match(globs: &[Pattern], others: &[Pattern], listed: &Listed) -> Vec<Pattern> {
    let has_match = |glob: &Pattern| matched(std::slice::from_ref(glob), listed).is_ok();
    globs.iter().filter(|glob| others.contains(glob) && has_match(glob)).cloned().collect()
}

/// Returns whether something was created; `false` if something exists at its path.
fn unless_there(done: rustix::io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends of the line about a file that is left as it is; of one, and of several.
type Words = (&'static str, &'static str);

const EXISTS: Words =
    ("exists in the session and stays as it is", "exist in the session and stay as they are");

const TRACKED: Words = (
    "is tracked in the session, which does not have it now, and is not created",
    "are tracked in the session, which does not have them now, and are not created",
);

const STAYS: Words = (
    "stays in the session; remove it there if it is not needed",
    "stay in the session; remove them there if they are not needed",
);

const WRITTEN: Words =
    ("was written in the session and stays as it is", "were written in the session and stay as they are");

/// Returns one line for each of the paths, and the number of those that are too many to name.
fn named(paths: &BTreeSet<PathBuf>, words: Words) -> Vec<String> {
    let more = paths.len().saturating_sub(NAMED);
    let line = |path: &PathBuf| format!("`{}` {}", path.display(), words.0);
    let mut lines: Vec<String> = paths.iter().take(NAMED).map(line).collect();
    match more {
        0 => {}
        1 => lines.push(format!("1 more file {}", words.0)),
        more => lines.push(format!("{more} more files {}", words.1)),
    }
    lines
}
