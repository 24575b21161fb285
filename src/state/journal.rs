//! Progress of the run that provisions, for the recovery that undoes it: what a session holds is the run's own, or work
//! that was done since.
//!
//! ```text
//! STATE/swarms/NAME-HASH/journal   one line a step, `STEP NANOSECONDS [SESSION]`; its own time is the last sign of life
//! ```
//!
//! The file is not synced: a line that a power failure takes away makes recovery ask once more than necessary.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Error, Locked, Swarm};
use crate::host::clock;
use crate::host::files::{self, Root};
use crate::name::SessionPath;

/// Name of the file, below the swarm's directory.
const JOURNAL: &str = "journal";

/// The most that is read of it, in bytes; a session takes two lines of at most 4 KB.
const JOURNAL_MAX: usize = 1 << 30;

/// Pause between two signs of life.
const BEAT: Duration = Duration::from_millis(200);

/// Time by which the last sign of life may be late on a busy machine.
const LATE_MAX: Duration = Duration::from_millis(300);

/// A step that is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Milestone {
    /// The session has its files; of the run, all have, and are being finished.
    Filled,
    /// All sessions of the run are finished, and those with a `setup` are being set up.
    Finished,
    /// The commands of a session's `setup` begin.
    SettingUp,
    /// They have ended.
    SetUp,
}

impl Milestone {
    const ALL: [Self; 4] = [Self::Filled, Self::Finished, Self::SettingUp, Self::SetUp];

    fn name(self) -> &'static str {
        match self {
            Self::Filled => "filled",
            Self::Finished => "finished",
            Self::SettingUp => "setting-up",
            Self::SetUp => "set-up",
        }
    }
}

/// The steps that an interrupted run had come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Journal {
    /// The last step of the run as a whole, and when it was reached; `None` before the first.
    pub reached: Option<(Milestone, SystemTime)>,
    /// The last step of each session that has come to one of its own.
    pub sessions: BTreeMap<SessionPath, (Milestone, SystemTime)>,
    /// The time after which the run was certainly not alive.
    pub alive_until: Option<SystemTime>,
}

impl Swarm<'_> {
    /// Reads what an interrupted run has written down; empty where it has not come that far.
    pub fn journal(&self) -> Result<Journal, Error> {
        let directory = match Root::open(&self.directory()) {
            Ok(directory) => directory,
            Err(files::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Journal::default());
            }
            Err(error) => return Err(error.into()),
        };
        let Some(bytes) = directory.read(Path::new(JOURNAL), JOURNAL_MAX)? else {
            return Ok(Journal::default());
        };
        let mut journal = parse(&String::from_utf8_lossy(&bytes));
        let last = directory.path().join(JOURNAL).metadata().and_then(|found| found.modified());
        journal.alive_until = last.ok().map(|last| last + BEAT + LATE_MAX);
        Ok(journal)
    }
}

/// A line that a kill has cut off is passed over: its step has not been reached for certain.
fn parse(text: &str) -> Journal {
    let mut journal = Journal::default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        let mut words = line.splitn(3, ' ');
        let step = words.next().and_then(|name| Milestone::ALL.into_iter().find(|step| step.name() == name));
        let time = words.next().and_then(|nanoseconds| nanoseconds.parse().ok());
        let (Some(step), Some(time)) = (step, time) else { continue };
        let time = UNIX_EPOCH + Duration::from_nanos(time);
        match words.next() {
            None => journal.reached = Some((step, time)),
            Some(session) => {
                if let Ok(session) = SessionPath::standalone(session) {
                    journal.sessions.insert(session, (step, time));
                }
            }
        }
    }
    journal
}

impl Locked<'_> {
    /// Begins the journal of a run that provisions.
    pub(crate) fn begin_journal(&self) -> Result<(), Error> {
        let directory = self.records()?;
        directory.remove_file(Path::new(JOURNAL))?;
        let path = directory.path().join(JOURNAL);
        let file = File::options().create_new(true).append(true).open(&path);
        let file = file.map_err(|source| files::Error::Io { action: "create", path, source })?;
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Writes down a step; of a session, where it is one of its own. What cannot be written counts as not reached.
    pub(crate) fn note(&self, step: Milestone, time: SystemTime, session: Option<&SessionPath>) {
        let nanoseconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let session = session.map(|session| format!(" {session}")).unwrap_or_default();
        let line = format!("{} {nanoseconds}{session}\n", step.name());
        if let Some(file) = &mut *self.journal.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Does `work`, giving signs of life meanwhile.
    pub(crate) fn while_alive<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, ended) = (Mutex::new(false), Condvar::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                while !*done {
                    done = ended.wait_timeout(done, BEAT).unwrap_or_else(PoisonError::into_inner).0;
                    if let Some(file) = &*self.journal.lock().unwrap_or_else(PoisonError::into_inner) {
                        let _ = file.set_modified(clock::precise());
                    }
                }
            });
            let _ending = Ending { done: &done, ended: &ended };
            work()
        })
    }

    /// Forgets the journal: the run is committed, or undone.
    pub(super) fn end_journal(&self) -> Result<(), Error> {
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(self.records()?.remove_file(Path::new(JOURNAL)).map(drop)?)
    }
}

/// Ends the signs of life, also where the work panics.
struct Ending<'a> {
    done: &'a Mutex<bool>,
    ended: &'a Condvar,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_is_read_up_to_the_line_that_a_kill_cut_off() {
        let journal = parse("filled 1000\nfinished 2000\nsetting-up 3000 a/b\nset-up 4000 a/b\nset-up 50");
        let at = |nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        assert_eq!(journal.reached, Some((Milestone::Finished, at(2000))));
        assert_eq!(journal.sessions[&SessionPath::alone("a/b")], (Milestone::SetUp, at(4000)));
        assert_eq!(journal.sessions.len(), 1);
    }
}
