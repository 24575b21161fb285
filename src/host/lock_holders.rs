//! Processes that own a file's flock: for messages, and to distinguish a run from processes that it left behind.

#![expect(clippy::disallowed_methods, reason = "reads /proc")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::text::printable;

/// Number of characters of a process's command that are kept.
const COMMAND_MAX: usize = 60;

/// A process that owns a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Command of the process, escaped for a terminal and limited in length; empty if unknown.
    pub command: String,
    /// `true` if the process got the lock when it was started: as its standard input, or as a file that stays open over
    /// exec(2).
    ///
    /// A run opens the lock itself, and that file is closed by exec(2).
    pub inherited: bool,
}

/// Returns the processes that own the flock of the file that is open as `file`, in order of their ids.
///
/// Only Linux reports owners, and only processes that this user may inspect. Other systems give an empty list.
pub fn of_lock(file: &File) -> Vec<Holder> {
    let (Ok(wanted), Ok(processes)) = (file.metadata(), fs::read_dir("/proc")) else { return Vec::new() };
    let wanted = (wanted.dev(), wanted.ino());
    let mut holders: Vec<Holder> = processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| holder(pid, wanted))
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

fn holder(pid: u32, wanted: (u64, u64)) -> Option<Holder> {
    let process = Path::new("/proc").join(pid.to_string());
    let open = fs::read_dir(process.join("fd")).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let held: Vec<bool> = open
        .filter(|number| {
            let found = fs::metadata(process.join("fd").join(number));
            found.is_ok_and(|found| (found.dev(), found.ino()) == wanted)
        })
        // A process that waits for the lock has the file open too, but owns no lock on it.
        .filter_map(|number| {
            let info = fs::read_to_string(process.join("fdinfo").join(&number)).ok()?;
            let is_locked = info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK"));
            is_locked.then(|| number == "0" || outlasts_exec(&info))
        })
        .collect();
    if held.is_empty() {
        return None;
    }
    let command = fs::read(process.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let command: String = printable(&command).chars().take(COMMAND_MAX).collect();
    Some(Holder { pid, command, inherited: held.into_iter().all(|inherited| inherited) })
}

/// Returns whether a file stays open over exec(2), according to its `/proc/PID/fdinfo/FD`.
fn outlasts_exec(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| !OFlags::from_bits_retain(flags).contains(OFlags::CLOEXEC))
}
