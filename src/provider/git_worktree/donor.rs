//! Copies files of a commit from the repository's own work tree, instead of checking them out.
//!
//! A file is taken if its bytes have the id of the commit's blob, and if Git would write them unchanged. So the author,
//! the staging and the times of the file do not matter. Git writes all other files, and every file that it would
//! convert. If the index of the work tree has the tree ids of the commit, it serves as a list of files.

#![expect(clippy::disallowed_methods, reason = "reads and writes the index of a worktree")]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rayon::prelude::*;

use super::checkout_config::Settings;
use super::copy::{Destinations, Failed, PartialCopy, Target, copy_batch, index_mode, modified, write_index};
use super::index::{self, Entry, EntryType, Index};
use super::paths::{WorktreePaths, io};
use super::tree::{self, Tree};
use super::{Checkout, Worktree};
use crate::host::files::Root;
use crate::host::files::copies::Files;
use crate::host::git::Git;
use crate::host::process::Cancel;
use crate::provider::Error;

/// Attributes that can make Git convert a file, with their harmless values.
const ATTRIBUTES: [(&str, &[&str]); 4] = [
    ("eol", &["unset", "lf"]),
    ("filter", &["unset"]),
    ("ident", &["unset"]),
    ("working-tree-encoding", &["unset"]),
];

/// Properties of a commit and a repository, read before any file is written.
pub(super) struct CheckoutSource {
    pub(super) settings: Settings,
    /// Files that can be taken, and the work tree that has them.
    offer: Option<Offer>,
}

/// Files of a commit that a work tree may have.
struct Offer {
    top: Root,
    tree: Tree,
    converted: Converted,
}

/// A work tree that files may be taken from.
struct Donor {
    top: Root,
    /// The repository, if the work tree's index lies in it.
    repository: Option<Root>,
}

/// An empty directory into which a commit is to be checked out.
pub(super) struct Recipient<'a> {
    /// Git with this directory and its index.
    pub(super) git: &'a Git<'a>,
    pub(super) commit: &'a str,
    pub(super) top: &'a Root,
    pub(super) index: &'a Path,
    pub(super) cancel: &'a Cancel,
}

/// The entries of a commit, and those that Git writes converted.
struct Listed {
    tree: Tree,
    converted: Converted,
}

/// Files that Git writes converted.
struct Converted {
    names: HashSet<Vec<u8>>,
    /// `true` if any of the files goes through a filter.
    is_filtered: bool,
}

impl CheckoutSource {
    /// Reads the properties of a commit that is to be checked out, for one worktree (`is_single`) or for several. If there is
    /// anything to take, the commit's index is written at the recipient's path.
    pub(super) fn find(
        recipient: &Recipient<'_>,
        worktree: &Worktree,
        paths: &WorktreePaths,
        is_single: bool,
    ) -> Result<Self, Error> {
        let Some(donor) = Donor::find(paths, worktree)? else {
            let settings = if is_single { Settings::unknown() } else { Settings::read(recipient.git)? };
            return Ok(Self { settings, offer: None });
        };
        let (settings, listed) = donor.read(recipient)?;
        if !settings.gives_blobs() {
            recipient.remove_index()?;
            return Ok(Self { settings, offer: None });
        }
        let listed = if let Some(listed) = listed { Some(listed) } else { recipient.list()? };
        let offer = listed.map(|Listed { tree, converted }| Offer { top: donor.top, tree, converted });
        Ok(Self { settings, offer })
    }

    /// Copies the usable files of the repository's own work tree, also to `others`, and writes the recipient's index of
    /// the whole commit. Returns `None` if Git has to write everything.
    pub(super) fn give<'p>(
        self,
        recipient: &'p Recipient<'_>,
        others: &'p Destinations<'_>,
    ) -> Result<Option<PartialCopy<'p>>, Failed> {
        self.offer.map(|offer| offer.give(recipient, others)).transpose()
    }
}

impl Donor {
    /// Returns the work tree of the repository that `paths` is in. Returns `None` if there is none, if Git is to write
    /// everything, or if Git may replace objects. Returns `None` for a target path too, since only Git knows its files.
    fn find(paths: &WorktreePaths, worktree: &Worktree) -> Result<Option<Self>, Error> {
        let is_bare = paths.common.path() == paths.repo_root;
        let is_by_git = worktree.checkout == Checkout::Git || worktree.target_path.is_some();
        if is_bare || is_by_git || may_replace_objects(&paths.common) {
            return Ok(None);
        }
        let top = Root::open(&paths.repo_root)?;
        let is_main = paths.common.path() == paths.repo_root.join(".git");
        let repository = if is_main { Some(Root::open(paths.common.path())?) } else { None };
        Ok(Some(Self { top, repository }))
    }

    /// Reads the settings, and the list of the commit if the work tree's own index is one; `None` if it is not.
    ///
    /// The list is written and its attributes are queried before its id is compared with the commit's, which saves time.
    /// The ids are equal unless another process is changing the work tree.
    fn read(&self, recipient: &Recipient<'_>) -> Result<(Settings, Option<Listed>), Error> {
        let listed = self.list(recipient.commit);
        if let Some((_, tree)) = &listed {
            recipient.write_index(tree)?;
        }
        let ((settings, id), converted) = rayon::join(
            || rayon::join(|| Settings::read(recipient.git), || tree::id_of(recipient.git, recipient.commit)),
            || listed.as_ref().map(|(_, tree)| recipient.converted(&tree.index)),
        );
        let settings = settings?;
        let list = match (listed, converted) {
            (Some((own, tree)), Some(converted)) if id.is_ok_and(|id| id == own) => Some((tree, converted)),
            _ => None,
        };
        let is_usable = settings.gives_blobs() && !settings.is_shared();
        let listed = match list.filter(|_| is_usable) {
            Some((tree, converted)) => Some(Listed { tree, converted: converted? }),
            None => None,
        };
        Ok((settings, listed))
    }

    /// Returns the entries of the work tree's own index, as Git would write them in a new index, with their tree id.
    /// The owner of the index can have written anything into it. So the entries are the commit's only if the id is that
    /// of the commit's tree.
    fn list(&self, commit: &str) -> Option<(String, Tree)> {
        let bytes = self.repository.as_ref()?.read(Path::new("index"), index::MAX).ok()??;
        Tree::new(Index::read(&bytes, commit.len() / 2)?).without_stat_data()
    }
}

impl Offer {
    fn give<'p>(
        self,
        recipient: &'p Recipient<'_>,
        others: &'p Destinations<'_>,
    ) -> Result<PartialCopy<'p>, Failed> {
        let own = |error| (None, error);
        let Self { top, tree, converted } = self;
        let (made, others_made) =
            rayon::join(|| tree.make_directories(recipient.top), || others.make_directories(&tree));
        made.map_err(own)?;
        others_made?;
        let mut targets = vec![Target::new(recipient.top, &tree)];
        targets.extend(others.targets(&tree));
        let modified = modified();
        let copied = tree.batches(|_| true).into_par_iter().with_max_len(1).map(|batch| {
            let Ok(from) = batch.open(&top) else { return Ok(Vec::new()) };
            let files = Files::new(&from, modified);
            copy_batch(&batch, files, &targets, recipient.cancel, |files, entry, name| {
                let is_converted = converted.names.contains(tree.index.name(entry));
                Ok(!is_converted && is_taken(&tree.index, files, entry, name))
            })
        });
        let copied: Vec<_> = copied
            .collect::<Result<_, _>>()
            // The recipient precedes the others.
            .map_err(|(at, error): Failed| (at.and_then(|at| at.checked_sub(1)), error))?;
        let copied: HashSet<usize> = copied.into_iter().flatten().collect();
        let missing = (0..tree.index.entries().len()).filter(|at| !copied.contains(at)).collect();
        let index_mode = index_mode(recipient.index).map_err(own)?;
        let others = targets.split_off(1);
        for target in targets {
            target.write_index(recipient.index, index_mode).map_err(own)?;
        }
        Ok(PartialCopy { tree, missing, is_filtered: converted.is_filtered, others, index_mode })
    }
}

impl Recipient<'_> {
    /// Makes Git write the index of the commit. If the index is not supported, it is removed and `None` is returned.
    fn list(&self) -> Result<Option<Listed>, Error> {
        self.git.run(["read-tree", self.commit])?;
        let bytes = fs::read(self.index).map_err(io("read", self.index))?;
        let read = Index::read(&bytes, self.commit.len() / 2);
        let Some(tree) = read.map(Tree::new) else {
            self.remove_index()?;
            return Ok(None);
        };
        let converted = self.converted(&tree.index)?;
        Ok(Some(Listed { tree, converted }))
    }

    fn write_index(&self, tree: &Tree) -> Result<(), Error> {
        write_index(self.index, &tree.index.for_copy().finish(), None)
    }

    fn remove_index(&self) -> Result<(), Error> {
        match fs::remove_file(self.index) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", self.index)(error)),
            _ => Ok(()),
        }
    }

    /// Returns the files that Git converts, or may convert, because of attributes in the index.
    fn converted(&self, index: &Index) -> Result<Converted, Error> {
        let mut names = Vec::new();
        for entry in index.entries() {
            names.extend_from_slice(index.name(entry));
            names.push(0);
        }
        // Queries all specified attributes, which are few: Git takes longer to print four attributes of every file than
        // to find them.
        let attributes =
            self.git.run_with_input(["check-attr", "--cached", "-z", "--stdin", "--all"], names)?;
        let attributes: Vec<_> = attributes.split(|byte| *byte == 0).collect();
        let (attributes, _) = attributes.as_chunks();
        let mut converted = Converted { names: HashSet::new(), is_filtered: false };
        for [name, attribute, value] in attributes {
            if !is_harmless(attribute, value) {
                converted.names.insert(name.to_vec());
                converted.is_filtered |= *attribute == b"filter";
            }
        }
        Ok(converted)
    }
}

/// Returns whether Git may replace an object by another (`git replace`). Then a file has other bytes than its blob, or
/// a tree has other files. With reftables only Git itself can find that out.
fn may_replace_objects(common: &Root) -> bool {
    // The directory remains when the last of its refs is deleted or packed.
    let has_none = |directory| match common.directory(Path::new(directory)) {
        Ok(found) => found.is_none_or(|found| found.names().is_ok_and(|names| names.is_empty())),
        Err(_) => false,
    };
    let replaces = |line: &[u8]| {
        let mut words = line.splitn(2, u8::is_ascii_whitespace);
        words.nth(1).is_some_and(|name| name.starts_with(b"refs/replace/"))
    };
    !has_none("refs/replace")
        || !has_none("reftable")
        || match common.read(Path::new("packed-refs"), index::MAX) {
            Ok(packed) => packed.is_some_and(|refs| refs.split(|byte| *byte == b'\n').any(replaces)),
            Err(_) => true,
        }
}

/// Returns whether an attribute with this value does not change how Git writes a file.
fn is_harmless(attribute: &[u8], value: &[u8]) -> bool {
    let of_it = ATTRIBUTES.iter().find(|(name, _)| name.as_bytes() == attribute);
    of_it.is_none_or(|(_, harmless)| harmless.iter().any(|harmless| harmless.as_bytes() == value))
}

/// Takes a file if its bytes are those of the entry's blob.
fn is_taken<'t>(index: &Index, files: &mut Files<'t>, entry: &Entry, name: &'t OsStr) -> bool {
    let wanted = |content: &[u8]| index.is_blob(entry, content);
    match entry.what {
        EntryType::File => files.file_of(name, index.is_executable(entry), wanted),
        EntryType::Link => files.link_of(name, wanted),
        EntryType::Submodule => {
            files.directory(name);
            true
        }
    }
}
