//! What an index lists, as a tree of directories to go through, many at once.

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

/// How many files one thread goes through before another may go on with the same directory.
const FILES: usize = 256;

/// What a tree writes as the mode of another.
const MODE_TREE: u32 = 0o040_000;

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
    entries: Vec<usize>,
}

/// What is known of the tree of a directory.
struct Hashed {
    id: Vec<u8>,
    /// How many entries it has, those below counted.
    entries: usize,
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

    /// The entries whose positions are wanted, divided among threads.
    pub(super) fn pieces(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        for directory in &self.directories {
            let wanted: Vec<_> = directory.entries.iter().copied().filter(|at| is_wanted(*at)).collect();
            let of_one_thread = wanted.chunks(FILES).map(<[_]>::to_vec);
            pieces.extend(of_one_thread.map(|entries| Piece { tree: self, directory, entries }));
        }
        pieces
    }

    /// The same in an index that says nothing of files yet, and the id of the tree that it is, in hexadecimal; `None` where
    /// git writes another version of index.
    pub(super) fn unseen(self) -> Option<(String, Self)> {
        let (id, trees) = self.trees();
        let index = self.index.unseen(trees)?;
        Some((id, Self { index, ..self }))
    }

    /// The id of the tree that the entries are together, in hexadecimal, and what an index says of the trees that they
    /// are: the extension `TREE`.
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

    /// The trees of all directories, by the directories' positions.
    fn hashed(&self) -> Vec<Hashed> {
        let mut hashed: Vec<Hashed> = Vec::new();
        // Each before the one that it lies in.
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
            // Entries are sorted as those of trees are.
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

    /// Entries of a directory by their positions, and what each is called there.
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

impl<'t> Piece<'t> {
    /// Opens its directory in a worktree, following no link.
    pub(super) fn open(&self, top: &Root) -> Result<Root, Error> {
        open(top, self.tree.path(self.directory))
    }

    /// Its entries with their positions, and what each is called in the directory.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, &'t Entry, &'t OsStr)> {
        self.tree.entries_of(self.directory, &self.entries)
    }
}

/// The id of a commit's tree, in hexadecimal.
pub(super) fn id_of(git: &Git<'_>, commit: &str) -> Result<String, Error> {
    Ok(git.line(["rev-parse", "--verify", "--end-of-options", &format!("{commit}^{{tree}}")])?)
}

fn open(top: &Root, path: &Path) -> Result<Root, Error> {
    top.directory(path)?.ok_or_else(|| Error::Refused(format!("{} is gone", top.path().join(path).display())))
}
