//! Measures the disk space of sessions, and finds the time of the last change of their files.
#![expect(clippy::disallowed_methods, reason = "lists the directories of sessions")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::occupants::footprint;
use crate::name::SessionPath;
use crate::plan::Session;
use crate::provider::{Location, Registry, SharedResults};
use crate::state::{Record, Swarm};

/// Size of a block in the metadata of a file, in bytes (`stat(2)`).
const BLOCK: u64 = 512;

/// Disk space of a session's resources, and the time of their last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes on disk of the session's directories, without those of other sessions inside them. A file with several
    /// names counts once. Blocks that a file shares with another one count in full.
    pub bytes: u64,
    /// Time of the last change of a file or directory, in seconds since 1970, UTC; `None` if it is unknown, also because
    /// something cannot be read.
    pub changed: Option<u64>,
    /// The first path that cannot be read.
    pub unreadable: Option<PathBuf>,
}

/// Returns the usage of each session of an applied swarm. Changes nothing.
///
/// Of a mounted overlay, the layer of the session's own files counts.
pub fn usage(swarm: &Swarm<'_>, registry: &Registry, record: &Record) -> BTreeMap<SessionPath, Usage> {
    let (host, shared) = (swarm.host(), SharedResults::default());
    let directories = |session: &Session| {
        let kinds: Vec<String> =
            session.allocations.iter().map(|allocation| allocation.name().to_owned()).collect();
        footprint(host, registry, record, session, &kinds, Location::Home, &shared).directories
    };
    let of_sessions: Vec<(&SessionPath, Vec<PathBuf>)> =
        record.plan.sessions().iter().map(|session| (&session.path, directories(session))).collect();
    let all: BTreeSet<&Path> =
        of_sessions.iter().flat_map(|(_, directories)| directories.iter().map(PathBuf::as_path)).collect();
    of_sessions
        .par_iter()
        .map(|(session, directories)| {
            let mut walk = Walk { usage: Usage::default(), files: BTreeSet::new(), others: &all };
            for directory in directories {
                walk.add_top(directory);
            }
            if walk.usage.unreadable.is_some() {
                walk.usage.changed = None;
            }
            ((*session).clone(), walk.usage)
        })
        .collect()
}

/// Walk through the directories of one session.
struct Walk<'a> {
    usage: Usage,
    /// Files with several names that were counted, by device and inode.
    files: BTreeSet<(u64, u64)>,
    /// Directories of all sessions, which are not entered from the directory above.
    others: &'a BTreeSet<&'a Path>,
}

impl Walk<'_> {
    fn add_top(&mut self, top: &Path) {
        let device =
            |path: Option<&Path>| path.and_then(|path| fs::symlink_metadata(path).ok()).map(|it| it.dev());
        match fs::symlink_metadata(top) {
            // The files below a mount are those of its layers.
            Ok(found) if device(top.parent()) == Some(found.dev()) => {
                self.add(&found);
                self.add_below(top, found.dev());
            }
            Err(error) if error.kind() != ErrorKind::NotFound => self.fail(top),
            _ => {}
        }
    }

    fn add_below(&mut self, top: &Path, device: u64) {
        let mut left = vec![top.to_owned()];
        while let Some(directory) = left.pop() {
            let listed: io::Result<Vec<DirEntry>> = fs::read_dir(&directory).and_then(Iterator::collect);
            match listed {
                Ok(entries) => {
                    left.extend(entries.iter().filter_map(|entry| self.add_entry(entry, device)));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(_) => self.fail(&directory),
            }
        }
    }

    /// Adds an entry, and returns its path if it is a directory to enter.
    fn add_entry(&mut self, entry: &DirEntry, device: u64) -> Option<PathBuf> {
        let path = entry.path();
        let found = match entry.metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(_) => {
                self.fail(&path);
                return None;
            }
        };
        if found.dev() != device || self.others.contains(path.as_path()) {
            return None;
        }
        self.add(&found);
        found.is_dir().then_some(path)
    }

    fn add(&mut self, found: &Metadata) {
        if found.is_dir() || found.nlink() == 1 || self.files.insert((found.dev(), found.ino())) {
            self.usage.bytes += found.blocks() * BLOCK;
        }
        self.usage.changed = self.usage.changed.max(u64::try_from(found.mtime()).ok());
    }

    fn fail(&mut self, path: &Path) {
        self.usage.unreadable.get_or_insert_with(|| path.to_owned());
    }
}
