//! Processes that use given directories and ports, found in one scan of `/proc`.
//!
//! The kernel reports open files by their paths. The mount tables list other paths that show the same files: in bind
//! mounts, and in the mount namespaces of containers. Only Linux has `/proc`; on other systems no process is found.

#![expect(clippy::disallowed_methods, reason = "reads /proc")]

mod termination;
mod path_aliases;
mod processes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use path_aliases::{Namespaces, PathAliases};
pub(crate) use processes::{Process, Processes};
pub(crate) use termination::Termination;

use super::{listeners, sockets};
use crate::name::PortBlock;

/// Number of uses that are kept of one process in one area: an editor has thousands of files open.
const USES_MAX: usize = 8;

/// Suffix that the kernel appends to the path of a removed file.
const DELETED: &[u8] = b" (deleted)";

/// Variable in the environment of commands that seedbed starts in sessions. The processes that the commands leave
/// running inherit it. Its value names the command and the session.
pub const MARK: &str = "SEEDBED_COMMAND";

/// Variable beside [`MARK`] that identifies the run of an apply. Its value is the time at which the run began to
/// provision, in nanoseconds since 1970.
pub(crate) const RUN: &str = "SEEDBED_RUN";

/// A process with a value of [`MARK`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marked {
    /// Process id.
    pub pid: u32,
    /// Program and arguments, one after another.
    pub command: String,
    /// Value of the variable.
    pub mark: String,
}

/// Finds the processes that have one of these values of [`MARK`], by process id. This process is left out.
pub fn marked(marks: &BTreeSet<String>) -> Vec<Marked> {
    let find = |process: Process| {
        let mark = process.variable(MARK).filter(|mark| marks.contains(mark))?;
        Some(Marked { pid: process.pid, command: process.command(), mark })
    };
    let processes = Processes::read().all().into_iter();
    processes.filter(|process| process.pid != std::process::id()).filter_map(find).collect()
}

/// Returns the value of [`MARK`] of a process; `None` if it has none, or may not be inspected.
pub(crate) fn mark_of(pid: u32) -> Option<String> {
    Process { pid, started: 0 }.variable(MARK)
}

/// Directories and ports that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Footprint {
    /// Absolute paths without links. A path that does not exist matches processes that still use removed files there.
    pub directories: Vec<PathBuf>,
    /// Blocks of ports.
    pub ports: Vec<PortBlock>,
    /// Ports in `ports` on which a resource itself listens. Their listeners are no occupants.
    pub served: BTreeSet<u16>,
    /// `true` if a directory is a mount, which the kernel does not release while any process uses it.
    pub is_mounted: bool,
}

/// Use of an area by a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "how", deny_unknown_fields)]
#[non_exhaustive]
pub enum Use {
    /// The working directory of the process is in the area.
    WorkingDirectory {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The root directory of the process is in the area.
    Root {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The program of the process is in the area.
    Executable {
        /// Path of the program.
        path: PathBuf,
    },
    /// The process listens (TCP) or is bound (UDP) on a port.
    Port {
        /// Protocol: `tcp` or `udp`.
        protocol: String,
        /// Local address; unspecified (`0.0.0.0`, `::`) for all addresses of the host.
        address: IpAddr,
        /// Number of the port.
        port: u16,
    },
    /// The process has a file or a directory open in the area.
    OpenFile {
        /// Path of the file.
        path: PathBuf,
    },
    /// The process has a file mapped into its memory.
    MappedFile {
        /// Path of the file.
        path: PathBuf,
    },
}

/// A process that uses an area, or a socket on a port of the area whose process cannot be found.
#[derive(Clone, Debug)]
pub(crate) struct Occupant {
    /// Index of the area in the list of requested areas.
    pub(crate) footprint: usize,
    /// The process; `None` for a socket whose process cannot be found.
    pub(crate) process: Option<Process>,
    /// Program and arguments, as [`listeners::Running::command`].
    pub(crate) command: String,
    /// Uses of the area: at least one and at most [`USES_MAX`], in the order of [`Use`].
    pub(crate) uses: Vec<Use>,
    /// `true` for this process and its ancestors.
    pub(crate) is_caller: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    /// Occupants, by area and process id.
    pub(crate) occupants: Vec<Occupant>,
    /// Number of processes that this user may not inspect.
    pub(crate) uninspected: usize,
}

/// Finds every process of the host that uses one of `footprints`.
///
/// A path or a port in more than one area counts for the innermost area, and for the last one if these are equal. Of
/// this process only its directories count: its open files are the business of the caller.
pub(crate) fn scan(footprints: &[Footprint]) -> Scan {
    let processes = Processes::read();
    let callers = processes.callers();
    let sockets = sockets_in(footprints);
    let namespaces = Namespaces::new(footprints);
    let processes = processes.all();
    let inspect = |process: Process| (process, inspect(process, &namespaces, &sockets));
    let inspected: Vec<_> = processes.into_par_iter().map(inspect).collect();
    let mut scan = Scan::default();
    let mut owned = BTreeSet::new();
    for (process, found) in inspected {
        let Some(found) = found else {
            scan.uninspected += 1;
            continue;
        };
        owned.extend(found.inodes);
        for (footprint, mut uses) in found.uses {
            uses.sort();
            uses.dedup();
            uses.truncate(USES_MAX);
            scan.occupants.push(Occupant {
                footprint,
                process: Some(process),
                command: process.command(),
                uses,
                is_caller: callers.contains(&process.pid),
            });
        }
    }
    let lost = sockets.iter().filter(|(inode, _)| !owned.contains(inode));
    scan.occupants.extend(lost.map(|(_, socket)| Occupant {
        footprint: socket.footprint,
        process: None,
        command: String::new(),
        uses: vec![socket.used.clone()],
        is_caller: false,
    }));
    scan.occupants.sort_by_key(|occupant| (occupant.footprint, occupant.process.map(|process| process.pid)));
    scan
}

/// A socket on a port of an area.
struct Socket {
    footprint: usize,
    used: Use,
}

/// Returns the sockets that are served on ports of the areas, by inode. Sockets without an inode have no process any
/// more.
fn sockets_in(footprints: &[Footprint]) -> BTreeMap<u64, Socket> {
    if footprints.iter().all(|footprint| footprint.ports.is_empty()) {
        return BTreeMap::new();
    }
    let blocks: Vec<(PortBlock, usize)> = footprints
        .iter()
        .enumerate()
        .flat_map(|(at, footprint)| footprint.ports.iter().map(move |block| (*block, at)))
        .collect();
    // A share may be as large as its parent block; children follow their parents.
    let innermost = |port: u16| {
        let around = blocks.iter().filter(|(block, _)| (block.start()..=block.end()).contains(&port));
        around
            .min_by_key(|(block, footprint)| (block.size(), Reverse(*footprint)))
            .map(|(_, footprint)| *footprint)
    };
    let served = sockets::served().into_iter().filter(|socket| socket.inode != 0);
    served
        .filter_map(|socket| {
            let footprint = innermost(socket.port)?;
            if footprints[footprint].served.contains(&socket.port) {
                return None;
            }
            let protocol = socket.protocol.to_owned();
            let used = Use::Port { protocol, address: socket.address, port: socket.port };
            Some((socket.inode, Socket { footprint, used }))
        })
        .collect()
}

/// Uses of one process.
#[derive(Default)]
struct Inspected {
    uses: BTreeMap<usize, Vec<Use>>,
    /// Inodes of the process's sockets that are on requested ports.
    inodes: Vec<u64>,
}

impl Inspected {
    fn add(&mut self, footprint: usize, used: Use) {
        self.uses.entry(footprint).or_default().push(used);
    }

    fn add_path(&mut self, path: PathBuf, used: OfPath, path_aliases: &PathAliases) {
        if let Some(footprint) = path_aliases.footprint(&path) {
            self.add(footprint, used(path));
        }
    }

    /// Drops mapped files that are also open or executed: that use already names them.
    fn drop_mapped_twice(&mut self) {
        for uses in self.uses.values_mut() {
            let open: BTreeSet<PathBuf> = uses
                .iter()
                .filter_map(|used| match used {
                    Use::OpenFile { path } | Use::Executable { path } => Some(path.clone()),
                    _ => None,
                })
                .collect();
            uses.retain(|used| !matches!(used, Use::MappedFile { path } if open.contains(path)));
        }
    }
}

/// Inspects one process; `None` if this user may not. A process that has ended meanwhile uses nothing.
fn inspect(process: Process, namespaces: &Namespaces, sockets: &BTreeMap<u64, Socket>) -> Option<Inspected> {
    let mut found = Inspected::default();
    let directory = process.directory();
    match std::fs::read_link(directory.join("cwd")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
        Err(_) => return Some(found),
        Ok(_) => {}
    }
    let path_aliases = namespaces.of_process(&directory);
    let links = [("cwd", working_directory as OfPath), ("root", root), ("exe", executable)];
    for (link, used) in links {
        if let Some(path) = target(&directory.join(link)) {
            found.add_path(path, used, &path_aliases);
        }
    }
    let is_own = process.pid == std::process::id();
    for file in std::fs::read_dir(directory.join("fd")).into_iter().flatten().flatten() {
        let Some(path) = target(&file.path()) else { continue };
        if is_own {
            found.inodes.extend(listeners::inode(&path));
            continue;
        }
        match listeners::inode(&path) {
            None => found.add_path(path, |path| Use::OpenFile { path }, &path_aliases),
            Some(inode) => {
                if let Some(socket) = sockets.get(&inode) {
                    found.inodes.push(inode);
                    found.add(socket.footprint, socket.used.clone());
                }
            }
        }
    }
    if is_own {
        return Some(found);
    }
    for path in mapped_files(&directory) {
        found.add_path(path, |path| Use::MappedFile { path }, &path_aliases);
    }
    found.drop_mapped_twice();
    Some(found)
}

/// Constructor of a use of a path.
type OfPath = fn(PathBuf) -> Use;

fn working_directory(path: PathBuf) -> Use {
    Use::WorkingDirectory { path }
}

fn root(path: PathBuf) -> Use {
    Use::Root { path }
}

fn executable(path: PathBuf) -> Use {
    Use::Executable { path }
}

fn mapped_files(process: &Path) -> Vec<PathBuf> {
    let maps = std::fs::read(process.join("maps")).unwrap_or_default();
    let mut paths: Vec<&[u8]> = maps.split(|byte| *byte == b'\n').filter_map(mapped).collect();
    // The ranges of one file are adjacent.
    paths.dedup();
    let paths = paths.into_iter().map(|path| path.strip_suffix(DELETED).unwrap_or(path));
    paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}

impl Use {
    /// Describes the use in words that follow the name of a process: `listens on tcp 127.0.0.1:20928`. Paths are not
    /// escaped.
    pub fn described(&self) -> String {
        match self {
            Self::WorkingDirectory { path } => format!("works in {}", path.display()),
            Self::Root { path } => format!("has its root directory at {}", path.display()),
            Self::Executable { path } => format!("runs {}", path.display()),
            Self::Port { protocol, address, port } => {
                format!("listens on {protocol} {}", std::net::SocketAddr::new(*address, *port))
            }
            Self::OpenFile { path } => format!("has {} open", path.display()),
            Self::MappedFile { path } => format!("has {} mapped into its memory", path.display()),
        }
    }
}

/// Returns the target of a link in `/proc`, without the suffix of removed files; `None` if it cannot be read.
fn target(link: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(link).ok()?;
    let bytes = target.as_os_str().as_bytes();
    let Some(path) = bytes.strip_suffix(DELETED).filter(|_| bytes.first() == Some(&b'/')) else {
        return Some(target);
    };
    // A file may really have this suffix in its name.
    if std::fs::metadata(link).is_ok_and(|found| found.nlink() > 0) {
        return Some(target);
    }
    Some(PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// Returns the path in a line of `maps` (`proc_pid_maps(5)`). The fields before it have no slash; entries in brackets
/// are no files.
fn mapped(line: &[u8]) -> Option<&[u8]> {
    let at = line.iter().position(|byte| *byte == b'/')?;
    (!line[..at].contains(&b'[')).then_some(&line[at..])
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
