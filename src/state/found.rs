//! Every swarm of a host, and every session on its own, whatever workspace they are of.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{COMMITTED, Error, Record, Recovery, Rescuing, SESSIONS, SWARMS, Stage, Swarm, read};
use crate::host::files::{self, Root};
use crate::host::{Host, clock};

/// The most that is read of the text that says who holds a lock, in bytes.
pub(super) const HOLDER_MAX: usize = 64 << 10;

/// A swarm, or a session on its own, that has records on this host.
#[derive(Debug)]
pub struct Found {
    /// Where its files are, below the state directory.
    collection: &'static str,
    /// What its files in the state directory are called: `NAME-HASH`.
    pub key: String,
    /// The plan that stands.
    pub standing: Option<Record>,
    /// The record of a run that is under way, or was interrupted: before it was committed, or before what it moved
    /// aside was released.
    pub run: Option<Record>,
    /// Whether a run is saving work, or was when it was interrupted.
    rescuing: bool,
    /// The records that are there and cannot be read, each with why.
    pub unreadable: Vec<Error>,
    /// When the record that stands was written, in UTC as RFC 3339; `None` where none stands.
    pub since: Option<String>,
    /// Who holds its lock, or held it when it was killed: `by pid 12 (`apply`) since …`. For messages.
    pub holder: Option<String>,
    /// The phase that the holder is in, or was in when it was killed, by the name that it has in events, and since when, in
    /// UTC as RFC 3339.
    pub phase: Option<(String, String)>,
}

/// Work of a run that is under way or was interrupted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Unfinished<'r> {
    /// Unsaved work is being rescued; recovery removes what the rescue left beside it.
    Rescue,
    /// The run of this record is not committed; recovery undoes it.
    Apply(&'r Record),
    /// The run of this record is a `destroy`, or committed and releases what it has moved aside; recovery finishes it.
    Release(&'r Record),
    /// The record's swarm was made for the command of `seedbed run`; recovery removes it.
    Command(&'r Record),
}

impl Found {
    /// The swarm's name, or the id of the session; where no record says it, as its files are called.
    pub fn name(&self) -> &str {
        let called = || self.key.rsplit_once('-').map_or(self.key.as_str(), |(name, _)| name);
        self.record().map_or_else(called, |record| match record.plan.sessions.first() {
            Some(session) if self.is_alone() => &session.id,
            _ => &record.plan.swarm,
        })
    }

    /// Tells whether it is a session on its own.
    pub fn is_alone(&self) -> bool {
        self.collection == SESSIONS
    }

    /// The swarm or session of this name in the workspace at `workspace`, a directory.
    pub fn swarm_in<'h>(&self, host: &'h Host, workspace: &Path) -> Result<Swarm<'h>, Error> {
        let new = if self.is_alone() { Swarm::of_session } else { Swarm::new };
        new(host, workspace, self.name())
    }

    /// Where its records are, below the state directory.
    pub fn directory(&self) -> PathBuf {
        Path::new(self.collection).join(&self.key)
    }

    /// Its place in the state directory, also where its workspace is not there any more; `None` where no record can be
    /// read.
    pub fn swarm<'h>(&self, host: &'h Host) -> Option<Swarm<'h>> {
        let workspace = self.workspace()?.to_owned();
        let (name, key) = (self.name().to_owned(), self.key.clone());
        Some(Swarm { host, name, workspace, collection: self.collection, key })
    }

    /// The workspace root, absolute; `None` where no record can be read.
    pub fn workspace(&self) -> Option<&Path> {
        self.record().map(|record| record.workspace.as_path())
    }

    /// The record that stands, else the one that stood before an unfinished run, else that of the run.
    pub fn record(&self) -> Option<&Record> {
        let before = || Some(&self.run.as_ref()?.release.as_ref()?.before);
        self.standing.as_ref().or_else(before).or(self.run.as_ref())
    }

    /// Returns whether a run is under way, or was interrupted: which of the two, only its lock knows.
    pub fn is_unfinished(&self) -> bool {
        !self.unfinished().is_empty()
    }

    /// Returns what a run has not finished, in the order in which recovery handles it.
    pub fn unfinished(&self) -> Vec<Unfinished<'_>> {
        let temporary = self.standing.as_ref().filter(|record| record.temporary);
        self.rescuing
            .then_some(Unfinished::Rescue)
            .into_iter()
            .chain(self.run.as_ref().map(|run| self.stage_of(run)))
            .chain(temporary.map(Unfinished::Command))
            .collect()
    }

    fn stage_of<'r>(&self, run: &'r Record) -> Unfinished<'r> {
        let is_destroy = run.release.as_ref().is_some_and(|release| release.recovery == Recovery::Finish);
        let is_committed = self.standing.as_ref() == Some(run);
        if is_destroy || is_committed { Unfinished::Release(run) } else { Unfinished::Apply(run) }
    }

    /// Tells whether a run of it is under way.
    ///
    /// Looking takes the lock for a moment, shared, which a run that begins at that very moment takes for another's.
    pub fn is_running(&self, host: &Host) -> bool {
        is_locked(&host.state.join(self.collection).join(format!("{}.lock", self.key)))
    }
}

/// Every swarm that has records on this host, in order of their keys; sessions on their own are none.
///
/// What a single record hides does not hide the others: a record that cannot be read is part of the answer.
pub fn swarms(host: &Host) -> Result<Vec<Found>, Error> {
    all(host, SWARMS)
}

/// Every session on its own that has records on this host, in order of their keys; otherwise as [`swarms`].
pub fn sessions(host: &Host) -> Result<Vec<Found>, Error> {
    all(host, SESSIONS)
}

fn all(host: &Host, collection: &'static str) -> Result<Vec<Found>, Error> {
    let root = match Root::open(&host.state.join(collection)) {
        Ok(root) => root,
        Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut keys: Vec<String> =
        root.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect();
    keys.retain(|key| root.path().join(key).is_dir());
    keys.sort();
    Ok(keys.into_iter().map(|key| look(&root, collection, key)).filter(has_records).collect())
}

/// Removes lock files of swarms and sessions that have no record, and that no process holds: a killed run of a workspace
/// that is elsewhere now has left them.
pub fn sweep_locks(host: &Host) -> Result<(), Error> {
    for collection in [SWARMS, SESSIONS] {
        let root = match Root::open(&host.state.join(collection)) {
            Ok(root) => root,
            Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        for name in root.names()? {
            let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".lock")) else { continue };
            let lock = match root.open_or_create(Path::new(&name)) {
                Ok(lock) if lock.try_lock().is_ok() => lock,
                _ => continue,
            };
            // Who waits for the lock sees that its file is gone, and makes a new one.
            if root.file_type(key.as_ref()).is_none() {
                root.remove_file(Path::new(&format!("{key}.holder")))?;
                root.remove_file(Path::new(&name))?;
            }
            drop(lock);
        }
    }
    Ok(())
}

/// Returns whether a process holds the lock whose file this is.
pub(super) fn is_locked(path: &Path) -> bool {
    // A FIFO in its place would be waited for.
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
        && File::open(path).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn has_records(found: &Found) -> bool {
    found.record().is_some() || !found.unreadable.is_empty()
}

/// The swarm or session whose files are called so; `None` where it has no record.
pub(super) fn find(host: &Host, collection: &'static str, key: &str) -> Result<Option<Found>, Error> {
    match Root::open(&host.state.join(collection)) {
        Ok(root) => Ok(Some(look(&root, collection, key.to_owned())).filter(has_records)),
        Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn look(root: &Root, collection: &'static str, key: String) -> Found {
    let directory = root.path().join(&key);
    let mut unreadable = Vec::new();
    let [setting_aside, provisioning, committed]: [Option<Record>; 3] =
        [Stage::SettingAside.file(), Stage::Provisioning.file(), COMMITTED]
            .map(|name| kept(read(&directory, name), &mut unreadable));
    let written = || directory.join(COMMITTED).metadata()?.modified();
    let unreleased = committed.clone().filter(|record| record.release.is_some());
    let standing = committed.filter(|record| !record.plan.sessions.is_empty());
    let since = standing.as_ref().and_then(|_| written().ok()?.duration_since(UNIX_EPOCH).ok());
    let holder = root.read(Path::new(&format!("{key}.holder")), HOLDER_MAX).ok().flatten();
    let holder = holder.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let mut lines = holder.lines();
    let (holder, phase) = (lines.next().map(str::to_owned), lines.next_back());
    Found {
        collection,
        run: setting_aside.or(provisioning).or(unreleased),
        rescuing: kept(read::<Rescuing>(&directory, "rescuing.json"), &mut unreadable).is_some(),
        since: since.map(|since| clock::rfc3339(since.as_secs())),
        phase: phase.and_then(|line| line.split_once(' ')).map(|(name, since)| (name.into(), since.into())),
        holder,
        key,
        standing,
        unreadable,
    }
}

fn kept<T>(read: Result<Option<T>, Error>, unreadable: &mut Vec<Error>) -> Option<T> {
    read.unwrap_or_else(|error| {
        unreadable.push(error);
        None
    })
}
