//! Ends processes, with certainty about the identity of each.

use std::collections::BTreeMap;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::Process;

/// Processes that were requested to end.
#[derive(Debug, Default)]
pub(crate) struct Termination(BTreeMap<Process, Handle>);

impl Termination {
    /// Requests a process to end, once: sends TERM, and CONT in case it is stopped and cannot handle TERM.
    pub(crate) fn ask(&mut self, process: Process) {
        if self.0.contains_key(&process) {
            return;
        }
        let Some(handle) = Handle::open(process) else { return };
        handle.send(Signal::TERM);
        handle.send(Signal::CONT);
        self.0.insert(process, handle);
    }

    /// Kills every process that still runs, and returns these.
    pub(crate) fn kill(&self) -> Vec<Process> {
        let running = self.0.iter().filter(|(_, handle)| handle.is_running());
        running.filter(|(_, handle)| handle.send(Signal::KILL)).map(|(process, _)| *process).collect()
    }

    pub(crate) fn is_any_running(&self) -> bool {
        self.0.values().any(Handle::is_running)
    }

    pub(crate) fn ended(&self) -> impl Iterator<Item = Process> {
        self.0.iter().filter(|(_, handle)| !handle.is_running()).map(|(process, _)| *process)
    }
}

/// A process that receives signals.
#[derive(Debug)]
struct Handle {
    process: Process,
    /// Descriptor that refers to this process and never to another one with the same number; `None` if the kernel has
    /// no such descriptors.
    #[cfg(target_os = "linux")]
    descriptor: Option<std::os::fd::OwnedFd>,
}

impl Handle {
    /// Opens a process; `None` if it has ended.
    fn open(process: Process) -> Option<Self> {
        #[cfg(target_os = "linux")]
        let descriptor =
            match rustix::process::pidfd_open(pid(process)?, rustix::process::PidfdFlags::empty()) {
                Ok(descriptor) => Some(descriptor),
                Err(Errno::SRCH) => return None,
                Err(_) => None,
            };
        // The descriptor refers to this process, if this process still runs.
        process.is_running().then_some(Self {
            process,
            #[cfg(target_os = "linux")]
            descriptor,
        })
    }

    /// Sends a signal; `false` if that is not permitted, or the process has ended.
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
