//! Processes that work in sessions while commands of seedbed run.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

/// Process at work in a session.
pub(super) struct Process {
    pid: u32,
    /// `None` if a command of `exec` has left the process running.
    child: Option<Child>,
    /// Working directory of the process.
    pub(super) directory: PathBuf,
}

impl Process {
    pub(super) fn new(child: Child, directory: PathBuf) -> Self {
        Self { pid: child.id(), child: Some(child), directory }
    }

    /// Returns the process with a number, which is not a child of this one.
    pub(super) fn left(pid: u32, directory: PathBuf) -> Self {
        Self { pid, child: None, directory }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return child.try_wait().unwrap().is_some();
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().is_empty() || rest.starts_with(" Z"))
    }

    /// Returns the present working directory.
    pub(super) fn works_in(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).unwrap()
    }

    pub(super) fn end(mut self) {
        if self.has_ended() {
            return;
        }
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::KILL);
        if let Some(mut child) = self.child {
            child.wait().unwrap();
        }
    }
}
