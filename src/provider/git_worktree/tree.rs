//! What an index lists, as a tree of directories to go through, many at once.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::index::{Entry, Index};
use crate::host::files::Root;
use crate::host::files::copies;
use crate::provider::Error;

/// How many files one thread goes through before another may go on with the same directory.
const FILES: usize = 256;

/// An index, and the directories that its entries lie in.
pub(super) struct Tree {
    pub(super) index: Index,
    /// Each after the one that it lies in.
    directories: Vec<Directory>,
}

/// A directory of the worktree.
struct Directory {
    /// An entry that lies in it or below, and the length of the directory's path in the entry's name; 0 for the top.
    entry: usize,
    length: usize,
    /// The directories that lie right in it.
    directories: Vec<usize>,
    /// The entries that do.
    entries: Vec<usize>,
}

/// Entries of one directory, as many as one thread goes through in one go.
pub(super) struct Piece<'t> {
    tree: &'t Tree,
    directory: &'t Directory,
    entries: Range<usize>,
}

impl Tree {
    pub(super) fn of(index: Index) -> Self {
        let directory =
            |entry, length| Directory { entry, length, directories: Vec::new(), entries: Vec::new() };
        let mut tree = vec![directory(0, 0)];
        // The directories that the entry before lies in, from the top down: entries are sorted.
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

    /// Makes every directory that is not there yet.
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

    /// All entries, divided among threads.
    pub(super) fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        for directory in &self.directories {
            for start in (0..directory.entries.len()).step_by(FILES) {
                let entries = start..directory.entries.len().min(start + FILES);
                pieces.push(Piece { tree: self, directory, entries });
            }
        }
        pieces
    }

    fn path(&self, directory: &Directory) -> &Path {
        match self.index.entries().get(directory.entry) {
            Some(entry) => Path::new(OsStr::from_bytes(&self.index.name(entry)[..directory.length])),
            None => Path::new(""),
        }
    }
}

impl<'t> Piece<'t> {
    /// Opens its directory in a worktree, following no link.
    pub(super) fn open(&self, top: &Root) -> Result<Root, Error> {
        open(top, self.tree.path(self.directory))
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Its entries, and what each is called in the directory.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t Entry, &'t OsStr)> {
        let Self { tree, directory, entries } = self;
        let start = directory.length + usize::from(directory.length > 0);
        directory.entries[entries.clone()].iter().map(move |at| {
            let entry = &tree.index.entries()[*at];
            (entry, OsStr::from_bytes(&tree.index.name(entry)[start..]))
        })
    }
}

fn open(top: &Root, path: &Path) -> Result<Root, Error> {
    top.directory(path)?.ok_or_else(|| Error::Refused(format!("{} is gone", top.path().join(path).display())))
}
