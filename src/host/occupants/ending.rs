//! Ends processes, each of them for certain the one that was meant.

use std::collections::BTreeMap;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::Process;

/// Processes that were asked to end.
#[derive(Debug, Default)]
pub(crate) struct Ending(BTreeMap<Process, Handle>);

impl Ending {
    /// Asks a process to end, once: sends TERM, and CONT to one that is stopped and could not act on it.
    pub(crate) fn ask(&mut self, process: Process) {
        if self.0.contains_key(&process) {
            return;
        }
        let Some(handle) = Handle::open(process) else { return };
        handle.send(Signal::TERM);
        handle.send(Signal::CONT);
        self.0.insert(process, handle);
    }

    /// Kills every one of them that still runs, and returns those.
    pub(crate) fn kill(&self) -> Vec<Process> {
        let running = self.0.iter().filter(|(_, handle)| handle.is_running());
        running.filter(|(_, handle)| handle.send(Signal::KILL)).map(|(process, _)| *process).collect()
    }

    /// Returns whether any of them still runs.
    pub(crate) fn is_any_running(&self) -> bool {
        self.0.values().any(Handle::is_running)
    }

    /// Those that do not run any more.
    pub(crate) fn ended(&self) -> impl Iterator<Item = Process> {
        self.0.iter().filter(|(_, handle)| !handle.is_running()).map(|(process, _)| *process)
    }
}

/// A process that is signalled.
#[derive(Debug)]
struct Handle {
    process: Process,
    /// Refers to the process and never to another one of the same number; `None` where the kernel has no such thing.
    #[cfg(target_os = "linux")]
    descriptor: Option<std::os::fd::OwnedFd>,
}

impl Handle {
    /// Opens a process; `None` where it has ended.
    fn open(process: Process) -> Option<Self> {
        #[cfg(target_os = "linux")]
        let descriptor =
            match rustix::process::pidfd_open(pid(process)?, rustix::process::PidfdFlags::empty()) {
                Ok(descriptor) => Some(descriptor),
                Err(Errno::SRCH) => return None,
                Err(_) => None,
            };
        // What is open by now is this one, if this one still runs.
        process.is_running().then_some(Self {
            process,
            #[cfg(target_os = "linux")]
            descriptor,
        })
    }

    /// Sends a signal; `false` where that is not permitted, or the process has ended.
    fn send(&self, signal: Signal) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = &self.descriptor {
            return rustix::process::pidfd_send_signal(descriptor, signal).is_ok();
        }
        self.process.is_running()
            && pid(self.process).is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    fn is_running(&self) -> bool {
        self.process.is_running()
    }
}

fn pid(process: Process) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process.pid).ok()?)
}
