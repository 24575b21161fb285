//! Progress of the run that provisions, for the recovery that rolls it back.
//!
//! With the journal, recovery distinguishes files that the run created from work that was done since.
//!
//! ```text
//! STATE/swarms/NAME-HASH/journal   one line a step, `STEP NANOSECONDS [SESSION]`; the first is `begun NANOSECONDS`.
//!                                  The time of the file is the last sign of life
//! ```
//!
//! The file is not synced: if a power failure loses a line, recovery asks once more than necessary.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Error, LockedSwarm, Swarm};
use crate::host::clock;
use crate::host::files::{self, Root};
use crate::name::SessionPath;

/// Name of the file, below the swarm's directory.
const JOURNAL: &str = "journal";

/// Largest journal that is read, in bytes; a session has two lines of at most 4 KB.
const JOURNAL_MAX: usize = 1 << 30;

/// Name of the first line.
const BEGUN: &str = "begun";

/// Pause between two signs of life.
const BEAT: Duration = Duration::from_millis(200);

/// Time by which the last sign of life may be late on a busy machine.
const LATE_MAX: Duration = Duration::from_millis(300);

/// A step that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Milestone {
    /// The session is populated; for the run, all sessions are populated, and are being finished.
    Filled,
    /// All sessions of the run are finished, and those with a `setup` are being set up.
    Finished,
    /// The commands of a session's `setup` begin.
    SettingUp,
    /// The commands of a session's `setup` have ended.
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

/// Steps that an interrupted run had reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Journal {
    /// Time before the first change of the run; `None` if it is not recorded.
    pub begun: Option<SystemTime>,
    /// Last step of the run as a whole, and its time; `None` before the first.
    pub reached: Option<(Milestone, SystemTime)>,
    /// Last step of each session that has reached one separately.
    pub sessions: BTreeMap<SessionPath, (Milestone, SystemTime)>,
    /// Time of the last sign of life.
    pub last_sign: Option<SystemTime>,
}

impl Swarm<'_> {
    /// Reads the journal of an interrupted run; empty if the run has not begun one.
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
        journal.last_sign = last.ok();
        Ok(journal)
    }
}

impl Journal {
    /// Returns the time after which the run was certainly not alive, if there was a sign of life.
    pub fn alive_until(&self) -> Option<SystemTime> {
        self.last_sign.map(|last| last + BEAT + LATE_MAX)
    }

    /// Returns the text that identifies the run; `None` if its begin is not recorded.
    pub(crate) fn run(&self) -> Option<String> {
        Some(self.begun?.duration_since(UNIX_EPOCH).ok()?.as_nanos().to_string())
    }

    /// Returns whether the journal has times after `now`. Then the clock was set back since, and the times of files do
    /// not show what came first.
    pub fn is_ahead_of(&self, now: SystemTime) -> bool {
        let steps = self.reached.iter().chain(self.sessions.values()).map(|(_, at)| *at);
        steps.chain(self.begun).chain(self.last_sign).any(|at| at > now)
    }
}

/// Parses a journal. A line that a kill has cut off is skipped: its step is not certain.
fn parse(text: &str) -> Journal {
    let mut journal = Journal::default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        let mut words = line.splitn(3, ' ');
        let name = words.next().unwrap_or_default();
        let Some(time) = words.next().and_then(|nanoseconds| nanoseconds.parse().ok()) else { continue };
        let time = UNIX_EPOCH + Duration::from_nanos(time);
        if name == BEGUN {
            journal.begun = Some(time);
        }
        let Some(step) = Milestone::ALL.into_iter().find(|step| step.name() == name) else { continue };
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

impl LockedSwarm<'_> {
    /// Begins the journal of a run that provisions.
    pub(crate) fn begin_journal(&self) -> Result<(), Error> {
        let directory = self.records()?;
        directory.remove_file(Path::new(JOURNAL))?;
        let path = directory.path().join(JOURNAL);
        let file = File::options().create_new(true).append(true).open(&path);
        let mut file = file.map_err(|source| files::Error::Io { action: "create", path, source })?;
        let _ = file.write_all(line(BEGUN, clock::file_time(), None).as_bytes());
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Records a step, of a session if given. A step that cannot be recorded counts as not reached.
    pub(crate) fn note(&self, step: Milestone, time: SystemTime, session: Option<&SessionPath>) {
        let line = line(step.name(), time, session);
        if let Some(file) = &mut *self.journal.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Runs `work`, and gives signs of life meanwhile.
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

    /// Removes the journal: the run is committed, or rolled back.
    pub(super) fn end_journal(&self) -> Result<(), Error> {
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(self.records()?.remove_file(Path::new(JOURNAL)).map(drop)?)
    }
}

fn line(name: &str, time: SystemTime, session: Option<&SessionPath>) -> String {
    let nanoseconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let session = session.map(|session| format!(" {session}")).unwrap_or_default();
    format!("{name} {nanoseconds}{session}\n")
}

/// Ends the signs of life, also if the work panics.
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
        let text = "begun 500\nfilled 1000\nfinished 2000\nsetting-up 3000 a/b\nset-up 4000 a/b\nset-up 50";
        let journal = parse(text);
        let at = |nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        assert_eq!(journal.begun, Some(at(500)));
        assert_eq!(journal.reached, Some((Milestone::Finished, at(2000))));
        assert_eq!(journal.sessions[&SessionPath::from_id("a/b")], (Milestone::SetUp, at(4000)));
        assert_eq!(journal.sessions.len(), 1);
        assert!(journal.is_ahead_of(at(3999)) && !journal.is_ahead_of(at(4000)));
    }
}
