//! A locked swarm, and the records that a run writes at each stage.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::{COMMITTED, Error, Keeping, Record, Rescuing, SCHEMA_VERSION, Stage, Swarm, read};
use crate::host::clock;
use crate::host::failpoint::{crashpoint, failpoint};
use crate::host::files::{self, Root};

/// File of [`Keeping`].
const KEEPING: &str = "keeping.json";

/// A locked swarm. Only a locked swarm permits changes of its state.
#[derive(Debug)]
pub struct LockedSwarm<'h> {
    pub(super) swarm: Swarm<'h>,
    pub(super) lock: File,
    /// Logs that a failure of this run has named.
    pub(super) named_logs: Mutex<BTreeSet<String>>,
    /// Journal of this run, once it provisions.
    pub(super) journal: Mutex<Option<File>>,
}

impl<'h> Deref for LockedSwarm<'h> {
    type Target = Swarm<'h>;

    fn deref(&self) -> &Swarm<'h> {
        &self.swarm
    }
}

impl Drop for LockedSwarm<'_> {
    /// Unlocks explicitly. Closing the file is not enough: a process that another thread has just forked has the file
    /// open too, until it runs its program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl LockedSwarm<'_> {
    /// Returns the lock, for Git children that inherit it.
    pub fn file(&self) -> &File {
        &self.lock
    }

    /// Returns another descriptor of the lock, which every program started until its drop inherits.
    ///
    /// These programs own the lock as long as they live, unless this run unlocks it first.
    pub fn inheritable(&self) -> std::io::Result<OwnedFd> {
        let lock = OwnedFd::from(self.lock.try_clone()?);
        rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
        Ok(lock)
    }

    /// Checks that no interrupted run is unrecovered: only its record names what it created.
    pub fn require_recovered(&self) -> Result<(), Error> {
        if self.is_unfinished()? { Err(Error::Unrecovered { swarm: self.name.clone() }) } else { Ok(()) }
    }

    /// Writes the record of a run before its first effect.
    ///
    /// An interrupted run must be recovered first, else this is [`Error::Unrecovered`].
    pub fn begin(&self, record: &Record) -> Result<(), Error> {
        self.require_recovered()?;
        self.end_journal()?;
        let stage = if record.release.is_some() { Stage::SettingAside } else { Stage::Provisioning };
        self.write(stage.file(), record).inspect_err(|_| {
            // Nothing has begun, so nothing is left to recover.
            let _ = self.remove(stage.file());
        })
    }

    /// Begins the next stage: what the run releases is aside, and it now provisions.
    pub fn begin_provisioning(&self) -> Result<(), Error> {
        self.rename(Stage::SettingAside.file(), Stage::Provisioning.file())
    }

    /// Returns to the previous stage: nothing that the run provisioned exists, and its asides are now brought back.
    pub fn begin_bringing_back(&self) -> Result<(), Error> {
        self.rename(Stage::Provisioning.file(), Stage::SettingAside.file())
    }

    /// Rewrites the record of the run, in its stage, before it is committed.
    pub fn amend(&self, record: &Record, stage: Stage) -> Result<(), Error> {
        self.write(stage.file(), record)
    }

    /// Makes the record of the run the applied one, in one step.
    pub fn commit(&self, stage: Stage) -> Result<(), Error> {
        self.rename(stage.file(), COMMITTED)?;
        // If the journal remains, the next run removes it.
        let _ = self.end_journal();
        Ok(())
    }

    /// Makes `record` an intent again after its commit failed, and restores `before` as the applied record.
    ///
    /// `record` may already be the applied one or not.
    pub fn take_back(&self, record: &Record, stage: Stage, before: Option<&Record>) -> Result<(), Error> {
        self.write(stage.file(), record)?;
        match before {
            Some(before) => self.write(COMMITTED, before),
            None => self.remove(COMMITTED),
        }
    }

    /// Removes the record of a run that was rolled back.
    pub fn abandon(&self, stage: Stage) -> Result<(), Error> {
        self.end_journal()?;
        self.remove(stage.file())
    }

    /// Removes the asides of a committed run from its record, once they are released. A record without sessions is
    /// removed.
    pub fn end_release(&self, record: &Record) -> Result<(), Error> {
        if record.plan.sessions.is_empty() {
            return self.remove(COMMITTED);
        }
        self.write(COMMITTED, &Record { release: None, ..record.clone() })
    }

    /// Records that work is about to be saved, before the first effect.
    pub fn begin_rescue(&self) -> Result<(), Error> {
        self.write("rescuing.json", &Rescuing { schema_version: SCHEMA_VERSION })
    }

    /// Returns whether a run was saving work when it was interrupted.
    pub fn is_rescuing(&self) -> Result<bool, Error> {
        Ok(read::<Rescuing>(&self.directory(), "rescuing.json")?.is_some())
    }

    /// Records that a rescue has ended and that nothing remains of it except the saved work.
    pub fn end_rescue(&self) -> Result<(), Error> {
        self.records()?.remove_file(Path::new("rescuing.json"))?;
        Ok(())
    }

    /// Records the repositories in which refs are about to keep commits, before the first ref exists.
    pub(crate) fn begin_keeping(&self, repositories: BTreeSet<PathBuf>) -> Result<(), Error> {
        self.write(KEEPING, &Keeping { schema_version: SCHEMA_VERSION, repositories })
    }

    /// Returns the repositories in which refs may keep commits.
    pub(crate) fn kept_in(&self) -> Result<BTreeSet<PathBuf>, Error> {
        if !self.directory().join(KEEPING).is_file() {
            return Ok(BTreeSet::new());
        }
        Ok(read::<Keeping>(&self.directory(), KEEPING)?
            .map(|keeping| keeping.repositories)
            .unwrap_or_default())
    }

    /// Records that no ref keeps commits any more.
    pub(crate) fn end_keeping(&self) -> Result<(), Error> {
        self.remove(KEEPING)
    }

    /// Writes the canonical copy of a session's discovery file.
    pub fn write_discovery(&self, scoped_name: &str, bytes: &[u8]) -> Result<(), Error> {
        let session = self.records()?.create_directories(&Path::new("sessions").join(scoped_name))?;
        Ok(session.replace(Path::new(crate::plan::DISCOVERY_FILE), bytes)?)
    }

    /// Removes the canonical copy of a session's discovery file, and its logs.
    ///
    /// Logs that a failure of this run has named stay until the session is released again.
    pub fn remove_discovery(&self, scoped_name: &str) -> Result<(), Error> {
        let records = self.records()?;
        records.remove_all(&Path::new("sessions").join(scoped_name))?;
        records.remove_directory(Path::new("sessions"))?;
        self.remove_logs(scoped_name);
        Ok(())
    }

    /// Removes the logs of a session. A log that cannot be removed is no reason to fail.
    fn remove_logs(&self, scoped_name: &str) {
        let Ok(logs) = Root::open(&self.log_directory()) else { return };
        let named = self.named_logs.lock().unwrap_or_else(PoisonError::into_inner);
        let own = format!("{scoped_name}.");
        for name in logs.names().unwrap_or_default() {
            let Some(log) = name.to_str() else { continue };
            if log.starts_with(&own) && !named.contains(log) {
                let _ = logs.remove_file(Path::new(log));
            }
        }
    }

    /// Keeps a log that a failure names, although its session is released.
    pub fn keep_log(&self, name: &str) {
        self.named_logs.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// Creates the log of one session's commands, empty.
    pub fn create_log(&self, name: &str) -> Result<File, Error> {
        let directory = Root::create(&self.log_directory())?;
        directory.remove_file(Path::new(name))?;
        let path = directory.path().join(name);
        failpoint!("state.create-log")
            .map_err(std::io::Error::from)
            .and_then(|()| File::options().create_new(true).append(true).open(&path))
            .map_err(|source| files::Error::Io { action: "create", path, source }.into())
    }

    /// Returns whether the log of one session's commands exists.
    pub fn has_log(&self, name: &str) -> bool {
        self.log_directory().join(name).is_file()
    }

    /// Removes the log of one session's commands.
    pub fn remove_log(&self, name: &str) -> Result<(), Error> {
        Root::create(&self.log_directory())?.remove_file(Path::new(name))?;
        Ok(())
    }

    /// Records the phase of the run and its beginning, for other processes to read. Nothing depends on this record.
    pub(crate) fn note_phase(&self, phase: &str) {
        let holder = self.host.state.join(self.collection).join(format!("{}.holder", self.key));
        let line = format!("\n{phase} {}", clock::now());
        let _ =
            File::options().append(true).open(holder).and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// Ends the run: removes empty directories, and unlocks the swarm.
    pub fn unlock(self) -> Result<(), Error> {
        let swarms = Root::create(&self.host.state.join(self.collection))?;
        swarms.remove_file(Path::new(&format!("{}.holder", self.key)))?;
        crashpoint!("state.unlocking");
        if swarms.remove_directory(Path::new(&self.key))? || !self.directory().exists() {
            if let Ok(logs) = Root::open(&self.host.state.join("logs")) {
                let _ = logs.remove_file(&Path::new(&self.key).join(super::session_runs::TMUX_FILE));
                let _ = logs.remove_directory(Path::new(&self.key));
            }
            // A process that waits for the lock detects that the file was removed, and creates a new one.
            swarms.remove_file(Path::new(&format!("{}.lock", self.key)))?;
        }
        Ok(())
    }

    pub(super) fn records(&self) -> Result<Root, Error> {
        Ok(Root::create(&self.directory())?)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let records = self.records()?;
        records.rename(Path::new(from), Path::new(to))?;
        Ok(records.sync()?)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let records = self.records()?;
        records.remove_file(Path::new(name))?;
        Ok(records.sync()?)
    }

    pub(super) fn write<T: Serialize>(&self, name: &str, record: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(|error| Error::Unreadable {
            path: self.directory().join(name),
            why: error.to_string(),
        })?;
        Ok(self.records()?.replace(Path::new(name), &bytes)?)
    }
}
