//! Processes of the host, with the facts that the kernel reports to every user.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::host::listeners;

/// Flag of a kernel thread, which uses no directory (`PF_KTHREAD` in `linux/sched.h`).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A process. A later process with the same number has a later start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: u32,
    /// Ticks of the clock from the boot of the host to the start of the process.
    pub(crate) started: u64,
}

/// Every process with its parent's number, by its number, except kernel threads and zombies.
#[derive(Debug)]
pub(crate) struct Processes(BTreeMap<u32, (Process, u32)>);

impl Processes {
    pub(crate) fn read() -> Self {
        let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(numbers.filter_map(|pid| Some((pid, read(pid)?))).collect())
    }

    pub(super) fn all(&self) -> Vec<Process> {
        self.0.values().map(|(process, _)| *process).collect()
    }

    /// Returns the numbers of this process and its ancestors.
    pub(crate) fn callers(&self) -> BTreeSet<u32> {
        let mut callers = BTreeSet::new();
        let mut next = Some(std::process::id());
        while let Some(pid) = next.filter(|pid| callers.insert(*pid)) {
            next = self.0.get(&pid).map(|(_, parent)| *parent);
        }
        callers
    }

    fn contains(&self, process: Process) -> bool {
        self.0.get(&process.pid).is_some_and(|(found, _)| *found == process)
    }

    /// Returns a process and all its descendants, as far as they still run.
    pub(crate) fn with_descendants(&self, top: Process) -> BTreeSet<Process> {
        let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
        for (process, parent) in self.0.values() {
            children.entry(*parent).or_default().push(*process);
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<Process> = Some(top).filter(|top| self.contains(*top)).into_iter().collect();
        while let Some(process) = open.pop() {
            if found.insert(process) {
                open.extend(children.get(&process.pid).into_iter().flatten());
            }
        }
        found
    }
}

impl Process {
    pub(super) fn is_running(self) -> bool {
        read(self.pid).is_some_and(|(found, _)| found == self)
    }

    /// Returns the directory in `/proc` that lists the files of the process. After the end of the first thread, this is
    /// the directory of another thread.
    pub(super) fn directory(self) -> PathBuf {
        let own = Path::new("/proc").join(self.pid.to_string());
        let is_missing = |error: std::io::Error| error.kind() == ErrorKind::NotFound;
        if !std::fs::read_link(own.join("cwd")).is_err_and(is_missing) {
            return own;
        }
        let first = self.pid.to_string();
        let threads = std::fs::read_dir(own.join("task")).into_iter().flatten().flatten();
        let other = threads.map(|thread| thread.path()).find(|path| path.file_name() != Some(first.as_ref()));
        other.unwrap_or(own)
    }

    /// Returns program and arguments, as [`listeners::Running::command`].
    pub(crate) fn command(self) -> String {
        listeners::command(&self.directory())
    }

    /// Returns the value of a variable in the environment with which the process was started.
    pub(crate) fn variable(self, name: &str) -> Option<String> {
        let environment = std::fs::read(self.directory().join("environ")).ok()?;
        let head = format!("{name}=");
        let value =
            environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(head.as_bytes()))?;
        String::from_utf8(value.to_vec()).ok()
    }
}

/// Reads one process and the number of its parent; `None` if no process, or an excluded one, has that number.
fn read(pid: u32) -> Option<(Process, u32)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &text)
}

/// Parses `/proc/PID/stat` (`proc_pid_stat(5)`). The second field is the name in parentheses, and may contain any byte.
fn parse(pid: u32, text: &[u8]) -> Option<(Process, u32)> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace().collect();
    // The third field has index 0.
    let field = |number: usize| fields.get(number - 3).copied();
    let flags: u32 = field(9)?.parse().ok()?;
    let is_dead = matches!(field(3)?, "Z" | "X" | "x");
    let threads: u64 = field(20)?.parse().ok()?;
    if flags & KERNEL_THREAD != 0 || (is_dead && threads < 2) {
        return None;
    }
    Some((Process { pid, started: field(22)?.parse().ok()? }, field(4)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{KERNEL_THREAD, Process, parse};

    #[test]
    fn line_of_stat_is_parsed_for_any_process_name() {
        let line = |name: &str, state: &str, flags: u32, threads: u32| {
            format!("7 ({name}) {state} 3 7 7 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 {threads} 0 4711 1 2 3\n")
        };
        let parse = |line: String| parse(7, line.as_bytes());
        let running = (Process { pid: 7, started: 4711 }, 3);
        assert_eq!(parse(line("sh", "S", 4_194_304, 1)), Some(running));
        assert_eq!(parse(line(") R 1 (", "S", 0, 1)), Some(running));
        assert_eq!(parse(line("dead", "Z", 0, 1)), None);
        assert_eq!(parse(line("headless", "Z", 0, 3)), Some(running));
        assert_eq!(parse(line("kworker/0:1", "I", KERNEL_THREAD, 1)), None);
        assert_eq!(parse("7 (sh) S 3".to_owned()), None);
        assert_eq!(parse(String::new()), None);
    }
}
