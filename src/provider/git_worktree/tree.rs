//! Groups the entries of an index by directories, so that many threads can process them.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::index::{Entry, Index};
use crate::host::files::Root;
use crate::host::files::copies;
use crate::host::git::Git;
use crate::name::hex;
use crate::provider::Error;

/// Maximum number of files of a directory that one thread processes in a piece.
const FILES: usize = 256;

/// Mode of a subtree in a tree.
const MODE_TREE: u32 = 0o040_000;

/// An index, and the directories of its entries.
pub(super) struct Tree {
    pub(super) index: Index,
    /// Directories, each after the one that contains it.
    directories: Vec<Directory>,
}

/// A directory of the worktree.
struct Directory {
    /// An entry in or below the directory, and the length of the directory's path in the entry's name; 0 for the top.
    entry: usize,
    length: usize,
    /// Direct subdirectories.
    directories: Vec<usize>,
    /// Entries directly in the directory.
    entries: Vec<usize>,
}

/// Entries of one directory, as many as one thread processes in a piece.
pub(super) struct Batch<'t> {
    tree: &'t Tree,
    directory: &'t Directory,
    entries: Vec<usize>,
}

/// Hash of a directory's tree.
struct Hashed {
    id: Vec<u8>,
    /// Number of entries, including those in subdirectories.
    entries: usize,
}

impl Tree {
    pub(super) fn new(index: Index) -> Self {
        let directory =
            |entry, length| Directory { entry, length, directories: Vec::new(), entries: Vec::new() };
        let mut tree = vec![directory(0, 0)];
        // The directories of the previous entry, from the top down: entries are sorted.
        let mut open = vec![0];
        for (at, entry) in index.entries().iter().enumerate() {
            let name = index.name(entry);
            let is_in = |directory: &Directory| {
                let before = index.name(&index.entries()[directory.entry]);
                directory.length == 0
                    || (name.get(directory.length) == Some(&b'/')
                        && name[..directory.length] == before[..directory.length])
            };
            while open.len() > 1 && !is_in(&tree[open[open.len() - 1]]) {
                open.pop();
            }
            let mut inner = open[open.len() - 1];
            let known = tree[inner].length;
            let below = known + usize::from(known > 0);
            let slashes = name[below..].iter().enumerate().filter(|(_, byte)| **byte == b'/');
            for (slash, _) in slashes {
                let new = tree.len();
                tree.push(directory(at, below + slash));
                tree[inner].directories.push(new);
                inner = new;
                open.push(inner);
            }
            tree[inner].entries.push(at);
        }
        Self { index, directories: tree }
    }

    /// Creates every missing directory.
    pub(super) fn make_directories(&self, top: &Root) -> Result<(), Error> {
        for directory in self.directories.iter().filter(|directory| !directory.directories.is_empty()) {
            let here = open(top, self.path(directory))?;
            for below in &directory.directories {
                let name = self.path(&self.directories[*below]).file_name().unwrap_or_default();
                copies::make_directory(&here, name)?;
            }
        }
        Ok(())
    }

    /// Returns the entries whose positions are wanted, divided into pieces for threads.
    pub(super) fn batches(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<Batch<'_>> {
        let mut batches = Vec::new();
        for directory in &self.directories {
            let wanted: Vec<_> = directory.entries.iter().copied().filter(|at| is_wanted(*at)).collect();
            let of_one_thread = wanted.chunks(FILES).map(<[_]>::to_vec);
            batches.extend(of_one_thread.map(|entries| Batch { tree: self, directory, entries }));
        }
        batches
    }

    /// Returns the tree id in hexadecimal, and the tree with its stat data cleared (as `git read-tree` leaves it).
    /// Returns `None` if Git writes another version of the index.
    pub(super) fn without_stat_data(self) -> Option<(String, Self)> {
        let (id, trees) = self.trees();
        let index = self.index.without_stat_data(trees)?;
        Some((id, Self { index, ..self }))
    }

    /// Returns the id of the tree of all entries, in hexadecimal, and the content of the extension `TREE`.
    fn trees(&self) -> (String, Vec<u8>) {
        let hashed = self.hashed();
        let mut extension = Vec::new();
        let mut left = vec![0];
        while let Some(at) = left.pop() {
            let below = &self.directories[at].directories;
            let name = self.path(&self.directories[at]).file_name().unwrap_or_default();
            extension.extend_from_slice(name.as_bytes());
            let _ = writeln!(extension, "\0{} {}", hashed[at].entries, below.len());
            extension.extend_from_slice(&hashed[at].id);
            let first = left.len();
            left.extend_from_slice(below);
            // Shorter names come first.
            left[first..].sort_by_cached_key(|at| {
                let name = self.path(&self.directories[*at]).file_name().unwrap_or_default();
                Reverse((name.len(), name))
            });
        }
        (hex(&hashed[0].id), extension)
    }

    /// Returns the trees of all directories, by the directories' positions.
    fn hashed(&self) -> Vec<Hashed> {
        let mut hashed: Vec<Hashed> = Vec::new();
        // Each directory is hashed before the one that contains it.
        for directory in self.directories.iter().rev() {
            let of = |at: usize| &hashed[self.directories.len() - 1 - at];
            let below = directory.directories.iter().map(|at| {
                let inner = &self.directories[*at];
                (inner.entry, self.path(inner).file_name().unwrap_or_default(), MODE_TREE, &of(*at).id[..])
            });
            let own = self
                .entries_of(directory, &directory.entries)
                .map(|(at, entry, name)| (at, name, self.index.mode(entry), self.index.id(entry)));
            let mut all: Vec<_> = below.chain(own).collect();
            // Entries have the order of tree entries.
            all.sort_unstable_by_key(|(at, ..)| *at);
            let mut content = Vec::new();
            for (_, name, mode, id) in all {
                let _ = write!(content, "{mode:o} ");
                content.extend_from_slice(name.as_bytes());
                content.push(0);
                content.extend_from_slice(id);
            }
            let below = directory.directories.iter().map(|at| of(*at).entries);
            let entries = directory.entries.len() + below.sum::<usize>();
            hashed.push(Hashed { id: self.index.object_id("tree", &content), entries });
        }
        hashed.reverse();
        hashed
    }

    /// Returns entries of a directory with their positions and their names in the directory.
    fn entries_of<'t>(
        &'t self,
        directory: &Directory,
        entries: &[usize],
    ) -> impl Iterator<Item = (usize, &'t Entry, &'t OsStr)> {
        let start = directory.length + usize::from(directory.length > 0);
        entries.iter().map(move |at| {
            let entry = &self.index.entries()[*at];
            (*at, entry, OsStr::from_bytes(&self.index.name(entry)[start..]))
        })
    }

    fn path(&self, directory: &Directory) -> &Path {
        match self.index.entries().get(directory.entry) {
            Some(entry) => Path::new(OsStr::from_bytes(&self.index.name(entry)[..directory.length])),
            None => Path::new(""),
        }
    }
}

impl<'t> Batch<'t> {
    /// Opens the directory in a worktree, following no link.
    pub(super) fn open(&self, top: &Root) -> Result<Root, Error> {
        open(top, self.tree.path(self.directory))
    }

    /// Returns the entries with their positions and their names in the directory.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, &'t Entry, &'t OsStr)> {
        self.tree.entries_of(self.directory, &self.entries)
    }
}

/// Returns the id of a commit's tree, in hexadecimal.
pub(super) fn id_of(git: &Git<'_>, commit: &str) -> Result<String, Error> {
    Ok(git.line(["rev-parse", "--verify", "--end-of-options", &format!("{commit}^{{tree}}")])?)
}

fn open(top: &Root, path: &Path) -> Result<Root, Error> {
    top.directory(path)?
        .ok_or_else(|| Error::Refused(format!("{} does not exist", top.path().join(path).display())))
}
