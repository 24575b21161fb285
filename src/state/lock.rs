//! Taking the lock of a swarm, and finding out who has it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::locked_swarm::LockedSwarm;
use super::recorded::HOLDER_MAX;
use super::{Error, Swarm};
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::{clock, lock_holders, mounts};

/// Longest time for which a lock may have no known owner.
///
/// On a busy machine, a run needs this time from locking until it has written its name, and a program from fork to
/// exec.
const SETTLING: Duration = Duration::from_secs(5);

/// Attempts for a lock without a visible owner: the owner may be in another container.
const UNSEEN_TRIES: u32 = 5;

/// Interval of attempts while waiting for a lock.
const LOCK_POLL: Duration = Duration::from_millis(50);

impl<'h> Swarm<'h> {
    /// Takes the swarm's lock, waiting at most `timeout` for another run to end.
    pub fn lock(&self, timeout: Duration, what: &str) -> Result<LockedSwarm<'h>, Error> {
        let state = Root::create_private(&self.host.state)?;
        let swarms = Root::create(&self.host.state.join(self.collection))?;
        let lock = self.acquire(&swarms, timeout)?;
        crashpoint!("state.locked");
        let locked = LockedSwarm {
            swarm: self.clone(),
            lock,
            named_logs: Mutex::default(),
            journal: Mutex::default(),
        };
        let text = format!("by pid {} (`{what}`) since {}", std::process::id(), clock::now());
        let begun = self.sweep(&state, &swarms);
        match begun.and_then(|()| Ok(swarms.replace(&self.holder_file(), text.as_bytes())?)) {
            Ok(()) => Ok(locked),
            Err(error) => {
                // What went wrong first is what is reported.
                let _ = locked.unlock();
                Err(error)
            }
        }
    }

    /// Locks the lock's file.
    fn acquire(&self, swarms: &Root, timeout: Duration) -> Result<File, Error> {
        let name = PathBuf::from(format!("{}.lock", self.key));
        let path = swarms.path().join(&name);
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let lock = swarms.open_or_create(&name)?;
            let waits = begun.elapsed() < timeout && !self.host.cancel.is_requested();
            match lock.try_lock() {
                Ok(()) if is_at(&lock, &path) => return Ok(lock),
                // The last owner has removed the file after it was opened here, and before it was locked.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !waits {
                        if let Some(error) = self.holder_error(swarms, &lock, tries) {
                            return Err(error);
                        }
                        if begun.elapsed() >= timeout + SETTLING {
                            let (swarm, holder) = (self.name.clone(), String::new());
                            return Err(Error::Locked { swarm, holder });
                        }
                        tries += 1;
                    }
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::Error(source)) => return Err(Error::Lock { path, source }),
            }
        }
    }

    fn holder_file(&self) -> PathBuf {
        PathBuf::from(format!("{}.holder", self.key))
    }

    /// Returns the error that names the owner of the lock; `None` if the owner is not yet certain after this number of
    /// `tries`.
    ///
    /// A program that has just been forked looks like the run that forks it. An owner that has just released the lock
    /// is no longer visible.
    fn holder_error(&self, swarms: &Root, lock: &File, tries: u32) -> Option<Error> {
        let text = swarms.read(&self.holder_file(), HOLDER_MAX).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let text = text.lines().next().unwrap_or_default().escape_debug().to_string();
        let swarm = self.name.clone();
        let holders = lock_holders::of_lock(lock);
        let run = |holder: &lock_holders::Holder| text.starts_with(&format!("by pid {} ", holder.pid));
        if (holders.is_empty() && tries >= UNSEEN_TRIES) || holders.iter().any(run) {
            let holder = if text.is_empty() { text } else { format!(" {text}") };
            return Some(Error::Locked { swarm, holder });
        }
        if holders.is_empty() || holders.iter().any(|holder| !holder.inherited) {
            return None;
        }
        let processes: Vec<_> =
            holders.iter().map(|holder| format!("pid {} (`{}`)", holder.pid, holder.command)).collect();
        let holder = if text.is_empty() { text } else { format!("; the run was started {text}") };
        Some(Error::Orphaned { swarm, processes: processes.join(", "), holder })
    }

    /// Removes incomplete files that killed processes left, of this swarm and beside it, and the mounts of killed
    /// trials.
    fn sweep(&self, state: &Root, swarms: &Root) -> Result<(), Error> {
        mounts::sweep(state)?;
        swarms.sweep()?;
        if let Some(records) = swarms.directory(Path::new(&self.key))? {
            records.sweep()?;
        }
        if let Some(logs) = state.directory(&Path::new("logs").join(&self.key))? {
            logs.sweep()?;
        }
        Ok(())
    }
}

/// Returns whether an open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let there = std::fs::symlink_metadata(path);
    there.is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()))
}
