//! All swarms and standalone sessions of a host, of any workspace.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{COMMITTED, Error, LOGS_KEPT, Record, Recovery, Rescuing, SESSIONS, SWARMS, Stage, Swarm, read};
use crate::host::files::Root;
use crate::host::{Host, clock};
use crate::name::{INSTANCE_DIGITS, instance_name};

/// Largest text about the owner of a lock that is read, in bytes.
pub(super) const HOLDER_MAX: usize = 64 << 10;

/// A swarm, or a standalone session, that has records on this host.
#[derive(Debug)]
pub struct RecordedSwarm {
    /// Directory of the swarm's files, below the state directory.
    collection: &'static str,
    /// Base name of the swarm's files in the state directory: `NAME-HASH`.
    pub key: String,
    /// Record of the applied plan.
    pub applied: Option<Record>,
    /// Record of a run that is in progress, or was interrupted: before it was committed, or before its asides were
    /// released.
    pub run: Option<Record>,
    /// `true` if a run is saving work, or was when it was interrupted.
    rescuing: bool,
    /// `true` if the unfinished run is not in progress.
    interrupted: bool,
    /// Existing records that cannot be read, each with the reason.
    pub unreadable: Vec<Error>,
    /// Time at which the applied record was written, in UTC as RFC 3339; `None` if no plan is applied.
    pub since: Option<String>,
    /// Current owner of the swarm's lock, or the owner that was killed: ``by pid 12 (`apply`) since …``.
    /// For messages.
    pub holder: Option<String>,
    /// Phase of the current or killed owner, by its name in events, and the time of its beginning, in UTC as RFC 3339.
    pub phase: Option<(String, String)>,
}

/// Work of a run that is in progress or was interrupted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Unfinished<'r> {
    /// Unsaved work is being rescued; recovery removes the temporary files of the rescue.
    Rescue,
    /// The run of this record is not committed; recovery rolls it back.
    Apply(&'r Record),
    /// The run of this record is a `destroy`, or is committed and releases its asides; recovery finishes it.
    Release(&'r Record),
    /// The record's swarm was created for the command of `seedbed run`; recovery removes it.
    Command(&'r Record),
}

impl RecordedSwarm {
    /// Returns the name of the swarm, or the id of the session; the base name of its files if no record can be read.
    pub fn name(&self) -> &str {
        let called = || self.key.rsplit_once('-').map_or(self.key.as_str(), |(name, _)| name);
        self.record().map_or_else(called, |record| match record.plan.sessions.first() {
            Some(session) if self.is_standalone() => &session.id,
            _ => &record.plan.swarm,
        })
    }

    /// Returns whether this is a standalone session.
    pub fn is_standalone(&self) -> bool {
        self.collection == SESSIONS
    }

    /// Returns the swarm or session of this name in the workspace at `workspace`, a directory.
    pub fn swarm_in<'h>(&self, host: &'h Host, workspace: &Path) -> Result<Swarm<'h>, Error> {
        let new = if self.is_standalone() { Swarm::for_session } else { Swarm::new };
        new(host, workspace, self.name())
    }

    /// Returns the directory of the swarm's records, below the state directory.
    pub fn directory(&self) -> PathBuf {
        Path::new(self.collection).join(&self.key)
    }

    /// Returns the swarm's files in the state directory, even if the workspace no longer exists; `None` if no record
    /// can be read.
    pub fn swarm<'h>(&self, host: &'h Host) -> Option<Swarm<'h>> {
        let workspace = self.workspace()?.to_owned();
        let (name, key) = (self.name().to_owned(), self.key.clone());
        Some(Swarm { host, name, workspace, manifest: None, collection: self.collection, key })
    }

    /// Returns the absolute path of the workspace root; `None` if no record can be read.
    pub fn workspace(&self) -> Option<&Path> {
        self.record().map(|record| record.workspace.as_path())
    }

    /// Returns the applied record, else the record applied before an unfinished run, else the record of the run.
    pub fn record(&self) -> Option<&Record> {
        let before = || Some(&self.run.as_ref()?.release.as_ref()?.before);
        self.applied.as_ref().or_else(before).or(self.run.as_ref())
    }

    /// Returns every record of the swarm, in any stage of its run.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let before = self.run.as_ref().and_then(|run| run.release.as_ref()).map(|release| &release.before);
        self.applied.iter().chain(&self.run).chain(before)
    }

    /// Returns whether a run is in progress, or was interrupted.
    pub fn is_unfinished(&self) -> bool {
        !self.unfinished().is_empty()
    }

    /// Returns the unfinished work of a run, in the order in which recovery handles it.
    pub fn unfinished(&self) -> Vec<Unfinished<'_>> {
        let temporary = self.applied.as_ref().filter(|record| record.temporary);
        self.rescuing
            .then_some(Unfinished::Rescue)
            .into_iter()
            .chain(self.run.as_ref().map(|run| self.stage_of(run)))
            .chain(temporary.map(Unfinished::Command))
            .collect()
    }

    fn stage_of<'r>(&self, run: &'r Record) -> Unfinished<'r> {
        let is_destroy = run.release.as_ref().is_some_and(|release| release.recovery == Recovery::Finish);
        let is_committed = self.applied.as_ref() == Some(run);
        if is_destroy || is_committed { Unfinished::Release(run) } else { Unfinished::Apply(run) }
    }

    /// Returns whether a run was interrupted.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Returns whether a run of the swarm or session is in progress.
    ///
    /// The check takes a shared lock for a moment. A run that begins at that moment regards the check as another run.
    pub fn is_running(&self, host: &Host) -> bool {
        !self.interrupted && is_locked(&host.state.join(self.collection).join(format!("{}.lock", self.key)))
    }
}

/// Returns every swarm that has records on this host, in order of their keys. Standalone sessions are not included.
///
/// A record that cannot be read does not hide the others: it is part of the result.
pub fn swarms(host: &Host) -> Result<Vec<RecordedSwarm>, Error> {
    all(host, SWARMS)
}

/// Returns every standalone session that has records on this host, as [`swarms`] does.
pub fn sessions(host: &Host) -> Result<Vec<RecordedSwarm>, Error> {
    all(host, SESSIONS)
}

fn all(host: &Host, collection: &'static str) -> Result<Vec<RecordedSwarm>, Error> {
    let Some(root) = Root::open_if_any(&host.state.join(collection))? else { return Ok(Vec::new()) };
    let mut keys: Vec<String> =
        root.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect();
    keys.retain(|key| root.path().join(key).is_dir());
    keys.sort();
    Ok(keys.iter().map(|key| read_swarm(&root, collection, key)).filter(has_records).collect())
}

/// Removes lock files and empty directories of swarms and sessions that have no record and that no process owns. A killed run of a moved
/// workspace leaves such files.
pub fn sweep_locks(host: &Host) -> Result<(), Error> {
    [SWARMS, SESSIONS].into_iter().try_for_each(|collection| sweep(host, collection, |_| true))
}

/// Removes lock files and empty directories as [`sweep_locks`] does, of the base names of files that are `wanted`.
fn sweep(host: &Host, collection: &'static str, is_wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    let Some(root) = Root::open_if_any(&host.state.join(collection))? else { return Ok(()) };
    for name in root.names()? {
        let key = name.to_str().and_then(|name| name.strip_suffix(".lock"));
        let Some(key) = key.filter(|key| is_wanted(key)) else { continue };
        let lock = match root.open_or_create(Path::new(&name)) {
            Ok(lock) if lock.try_lock().is_ok() => lock,
            _ => continue,
        };
        // A process that waits for the lock detects that the file was removed, and creates a new one.
        let is_removed = root.remove_directory(Path::new(key))?;
        if is_removed || root.file_type(key.as_ref()).is_none() {
            root.remove_file(Path::new(&format!("{key}.holder")))?;
            root.remove_file(Path::new(&name))?;
        }
        drop(lock);
    }
    Ok(())
}

/// Removes what ended instances of a swarm have left without a record: lock files of killed runs, and logs of failed
/// setups, except those of the last ten instances.
pub fn sweep_instances(declared: &Swarm<'_>) -> Result<(), Error> {
    let host = declared.host;
    sweep(host, SWARMS, |key| is_instance_key(key, &declared.name))?;
    let Some(logs) = Root::open_if_any(&host.state.join("logs"))? else { return Ok(()) };
    let swarms = host.state.join(SWARMS);
    let is_ended = |key: &str| {
        is_instance_key(key, &declared.name)
            && !swarms.join(key).exists()
            && !is_locked(&swarms.join(format!("{key}.lock")))
    };
    let written = |key: &str| logs.path().join(key).metadata().and_then(|found| found.modified()).ok();
    let keys = logs.names()?.into_iter().filter_map(|name| name.into_string().ok());
    let mut ended: Vec<_> = keys.filter(|key| is_ended(key)).map(|key| (written(&key), key)).collect();
    ended.sort();
    for (_, key) in ended.iter().rev().skip(LOGS_KEPT) {
        logs.remove_all(Path::new(key))?;
    }
    Ok(())
}

/// Returns whether this base name of files is that of an instance of a swarm.
fn is_instance_key(key: &str, declared: &str) -> bool {
    let Some((name, _)) = key.rsplit_once('-') else { return false };
    let digits = name.rsplit('-').next().unwrap_or_default();
    let is_random = digits.len() == INSTANCE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_random && name == instance_name(declared, digits)
}

/// Returns whether a process owns the lock of this file.
pub(super) fn is_locked(path: &Path) -> bool {
    // Opening a FIFO in its place would block.
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
        && File::open(path).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn has_records(found: &RecordedSwarm) -> bool {
    found.record().is_some() || !found.unreadable.is_empty()
}

/// Returns the swarm or session with this base name of files; `None` if it has no record.
pub(super) fn find(host: &Host, collection: &'static str, key: &str) -> Result<Option<RecordedSwarm>, Error> {
    let root = Root::open_if_any(&host.state.join(collection))?;
    Ok(root.map(|root| read_swarm(&root, collection, key)).filter(has_records))
}

fn read_swarm(root: &Root, collection: &'static str, key: &str) -> RecordedSwarm {
    let lock = root.path().join(format!("{key}.lock"));
    let run_of = |found: &RecordedSwarm| found.is_unfinished().then(|| found.holder.clone());
    let read = || read_records(root, collection, key.to_owned());
    let (found, interrupted) = read_beside_runs(read, run_of, || is_locked(&lock));
    RecordedSwarm { interrupted, ..found }
}

/// Reads records beside runs that change them. Returns the records, and whether their run was interrupted. `run_of`
/// returns what identifies the unfinished run of records; `None` if there is none.
///
/// A run may end, and another begin, between a reading and the look at the lock. So a run was interrupted only if it was
/// read before and after the lock was found free. For a settled swarm, the lock is not looked at, because a look takes
/// it for a moment.
fn read_beside_runs<T, R: PartialEq>(
    mut read: impl FnMut() -> T,
    run_of: impl Fn(&T) -> Option<R>,
    mut is_running: impl FnMut() -> bool,
) -> (T, bool) {
    let mut found = read();
    while let Some(run) = run_of(&found) {
        if is_running() {
            break;
        }
        found = read();
        if run_of(&found) == Some(run) {
            return (found, true);
        }
    }
    (found, false)
}

fn read_records(root: &Root, collection: &'static str, key: String) -> RecordedSwarm {
    let directory = root.path().join(&key);
    let mut unreadable = Vec::new();
    let [setting_aside, provisioning, committed]: [Option<Record>; 3] =
        [Stage::SettingAside.file(), Stage::Provisioning.file(), COMMITTED]
            .map(|name| readable(read(&directory, name), &mut unreadable));
    let written = || directory.join(COMMITTED).metadata().and_then(|found| found.modified()).ok();
    let unreleased = committed.clone().filter(|record| record.release.is_some());
    let applied = committed.filter(|record| !record.plan.sessions.is_empty());
    // A record of an earlier version does not have the time.
    let last_applied = || Some(clock::rfc3339(written()?.duration_since(UNIX_EPOCH).ok()?.as_secs()));
    let since = applied.as_ref().and_then(|record| record.since.clone().or_else(last_applied));
    let holder = root.read(Path::new(&format!("{key}.holder")), HOLDER_MAX).ok().flatten();
    let holder = holder.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let mut lines = holder.lines();
    let (holder, phase) = (lines.next().map(str::to_owned), lines.next_back());
    RecordedSwarm {
        collection,
        run: setting_aside.or(provisioning).or(unreleased),
        interrupted: false,
        rescuing: readable(read::<Rescuing>(&directory, "rescuing.json"), &mut unreadable).is_some(),
        since,
        phase: phase.and_then(|line| line.split_once(' ')).map(|(name, since)| (name.into(), since.into())),
        holder,
        key,
        applied,
        unreadable,
    }
}

fn readable<T>(read: Result<Option<T>, Error>, unreadable: &mut Vec<Error>) -> Option<T> {
    read.unwrap_or_else(|error| {
        unreadable.push(error);
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the last reading, and whether its run was interrupted, for these readings and looks at the lock.
    fn read(readings: &[Option<&'static str>], locked: &[bool]) -> (Option<&'static str>, bool) {
        let (mut readings, mut locked) = (readings.iter(), locked.iter());
        let read = || *readings.next().unwrap();
        let found = read_beside_runs(read, |run| *run, || *locked.next().unwrap());
        assert!(readings.next().is_none() && locked.next().is_none(), "{found:?}");
        found
    }

    #[test]
    fn key_of_an_instance_is_that_of_its_swarm_only() {
        assert!(is_instance_key("shop-run-0123abcd-0123456789abcdef", "shop"));
        for other in
            ["shop-0123456789abcdef", "shop-run-0123456789abcdef", "shop-run-0123abcx-0123456789abcdef"]
        {
            assert!(!is_instance_key(other, "shop"), "{other}");
        }
        assert!(!is_instance_key("shop-run-0123abcd-0123456789abcdef", "sho"));
        let long = "x".repeat(63);
        assert!(is_instance_key(&format!("{}-run-0123abcd-0123456789abcdef", &long[..50]), &long));
    }

    #[test]
    fn run_that_ends_or_begins_beside_the_reading_is_not_interrupted() {
        assert_eq!(read(&[None], &[]), (None, false));
        assert_eq!(read(&[Some("a")], &[true]), (Some("a"), false));
        assert_eq!(read(&[Some("a"), Some("a")], &[false]), (Some("a"), true));
        assert_eq!(read(&[Some("a"), None], &[false]), (None, false));
        // Run a ends, the lock is free, and run b begins.
        assert_eq!(read(&[Some("a"), Some("b")], &[false, true]), (Some("b"), false));
        assert_eq!(read(&[Some("a"), Some("b"), None], &[false, false]), (None, false));
        assert_eq!(read(&[Some("a"), Some("b"), Some("b")], &[false, false]), (Some("b"), true));
    }
}
