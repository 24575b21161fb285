//! Finds the file that a running Git waits for: a FIFO that has no writer, or a device whose content never ends.
//!
//! Git opens every file that its configuration names, and configuration includes further configuration. Finding a FIFO
//! there before Git runs would need a second reader of all these formats. The kernel knows which file a process waits
//! for, and `/proc` shows it to the user who started the process. So only a Git that really waits is ended, and never
//! one that is slow.
//!
//! If `/proc` shows nothing, the deadline of the call still ends Git: on systems other than Linux, and if Yama's
//! `ptrace_scope` is 2 or 3.
#![expect(clippy::disallowed_methods, reason = "reads /proc")]

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two checks. Most calls of Git end before the first one.
const INTERVAL: Duration = Duration::from_millis(100);

/// Name of the processes that are checked. Hooks and filters have other names, and may wait for any file.
const PROGRAM: &str = "git";

/// Longest path that the kernel opens, in bytes.
const PATH_MAX: usize = 4096;

/// First descriptor that a process opens itself; lower ones are its standard streams.
const FIRST_OPENED: u32 = 3;

/// Checks one program at intervals.
#[derive(Debug)]
pub(super) struct Watch {
    next: Instant,
    previous: Option<Wait>,
}

/// A file whose content may never end, and the process that has opened it or is opening it.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    process: u32,
    path: PathBuf,
    what: &'static str,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { next: Instant::now() + INTERVAL, previous: None }
    }

    /// Returns the path of the file that `program`, or a Git that it started, waits for, with the kind of the file.
    ///
    /// Two checks in a row have to find the same file.
    pub(super) fn check(&mut self, program: u32) -> Option<(PathBuf, &'static str)> {
        if Instant::now() < self.next {
            return None;
        }
        let found = wait_of(program);
        let is_same = found.is_some() && found == self.previous;
        self.previous = found;
        self.next = Instant::now() + INTERVAL;
        self.previous.take_if(|_| is_same).map(|wait| (wait.path, wait.what))
    }
}

fn wait_of(process: u32) -> Option<Wait> {
    let directory = PathBuf::from(format!("/proc/{process}"));
    if fs::read_to_string(directory.join("comm")).ok()?.trim_end() != PROGRAM {
        return None;
    }
    if let Some((path, what)) = opened(&directory).or_else(|| opening(&directory)) {
        return Some(Wait { process, path, what });
    }
    let children = fs::read_to_string(directory.join(format!("task/{process}/children"))).ok()?;
    children.split_whitespace().find_map(|child| wait_of(child.parse().ok()?))
}

/// Returns an endless file that the process has open, and has not inherited from this one.
fn opened(process: &Path) -> Option<(PathBuf, &'static str)> {
    fs::read_dir(process.join("fd")).ok()?.flatten().find_map(|entry| {
        let descriptor: u32 = entry.file_name().to_str()?.parse().ok()?;
        let what = endless(&fs::metadata(entry.path()).ok()?)?;
        let path = fs::read_link(entry.path()).ok()?;
        let is_inherited =
            || fs::read_link(format!("/proc/self/fd/{descriptor}")).is_ok_and(|own| own == path);
        // Pipes have no path.
        (descriptor >= FIRST_OPENED && path.is_absolute() && !is_inherited()).then_some((path, what))
    })
}

/// Returns the endless file that the process opens at the moment: opening a FIFO waits for its other end.
fn opening(process: &Path) -> Option<(PathBuf, &'static str)> {
    // `running`, or the number of the system call and its arguments.
    let call = fs::read_to_string(process.join("syscall")).ok()?;
    let arguments = call.split_whitespace().skip(1).take(2).filter_map(|word| word.strip_prefix("0x"));
    // The path is the first argument of `open`, and the second one of `openat`.
    arguments.filter_map(|word| u64::from_str_radix(word, 16).ok()).find_map(|address| {
        // Git opens every path relative to its current directory. The link `cwd` can be followed without knowing the
        // path of that directory.
        let path = text_at(process, address)?;
        let what = endless(&fs::metadata(process.join("cwd").join(&path)).ok()?)?;
        Some((fs::read_link(process.join("cwd")).ok()?.join(path), what))
    })
}

/// Returns the kind of a file whose content may never end.
fn endless(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    if kind.is_fifo() {
        return Some("a FIFO");
    }
    let is_null = || fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == found.rdev());
    ((kind.is_char_device() && !is_null()) || kind.is_block_device()).then_some("a device")
}

/// Returns the text, up to its NUL, at an address of the process.
fn text_at(process: &Path, address: u64) -> Option<PathBuf> {
    let mut bytes = vec![0; PATH_MAX];
    let length = File::open(process.join("mem")).ok()?.read_at(&mut bytes, address).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0).filter(|end| *end > 0)?;
    bytes.truncate(end);
    Some(OsString::from_vec(bytes).into())
}
