//! What the repository's own work tree already has of a commit, copied into a worktree instead of checked out.
//!
//! A file is taken for its bytes alone: they are those of the commit's blob, by its id, and git would write them as they
//! are. So neither who wrote it matters, nor whether it is staged, nor what its times say. What it does not have like
//! that is left to git, and so is whatever git would write in another way than the blob has it.

#![expect(clippy::disallowed_methods, reason = "finds out what mode git gave an index")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rustix::fs::Stat;

use super::copy::{modified, write_index};
use super::index::{Entry, Index, What};
use super::site::io;
use super::tree::{Piece, Tree};
use crate::host::files::Root;
use crate::host::files::copies::Copier;
use crate::host::git::{Git, config};
use crate::host::process::Cancel;
use crate::provider::Error;

/// Settings under which git writes a file otherwise than its blob, or not at all, or has an index that is not simply
/// what the file system says of its files; and what they may be all the same.
const SETTINGS: [(&str, &[&str]); 6] = [
    ("core.autocrlf", &["false", "input"]),
    ("core.eol", &["lf", "native"]),
    ("core.ignorestat", &["false"]),
    ("core.sparsecheckout", &["false"]),
    ("core.splitindex", &["false"]),
    ("core.symlinks", &["true"]),
];

/// Attributes under which git writes a file otherwise than its blob, and what they may be all the same.
const ATTRIBUTES: [(&str, &[&str]); 4] = [
    ("eol", &["unspecified", "unset", "lf"]),
    ("filter", &["unspecified", "unset"]),
    ("ident", &["unspecified", "unset"]),
    ("working-tree-encoding", &["unspecified", "unset"]),
];

/// What is left for git to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// Some of the files. The index stands, and is of the whole commit.
    Part,
    /// All of them, and the index.
    All,
}

/// An empty directory that a commit is to be checked out into.
pub(super) struct Recipient<'a> {
    /// git, of this directory and the index that belongs to it.
    pub(super) git: &'a Git<'a>,
    pub(super) commit: &'a str,
    pub(super) top: &'a Root,
    pub(super) index: &'a Path,
    pub(super) cancel: &'a Cancel,
}

impl Recipient<'_> {
    /// Copies what `donor` has of the commit, and writes the index of all of it.
    pub(super) fn take(&self, donor: &Root) -> Result<Left, Error> {
        if !self.is_given_blobs()? {
            return Ok(Left::All);
        }
        self.git.run(["read-tree", self.commit])?;
        let bytes = fs::read(self.index).map_err(io("read", self.index))?;
        let Some(index) = Index::read(&bytes, self.commit.len() / 2) else { return Ok(Left::Part) };
        let converted = self.converted(&index)?;
        let tree = Tree::of(index);
        tree.make_directories(self.top)?;
        let own = Mutex::new(tree.index.of_a_copy());
        let modified = modified();
        let pieces = tree.pieces();
        let taken = pieces.par_iter().with_max_len(1).map(|piece| {
            let taken = self.take_piece(donor, piece, &converted, modified)?;
            let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
            for (entry, stat) in &taken {
                own.put(entry, stat);
            }
            Ok(taken.len())
        });
        let taken = taken.try_reduce(|| 0, |one, other| Ok::<_, Error>(one + other))?;
        let mode = fs::symlink_metadata(self.index).map_err(io("look at", self.index))?.permissions().mode();
        let own = own.into_inner().unwrap_or_else(PoisonError::into_inner);
        write_index(self.index, &own.finish(), mode & 0o777)?;
        Ok(if taken == tree.index.entries().len() { Left::Nothing } else { Left::Part })
    }

    /// Tells whether the configuration lets git write files as their blobs are, all of them, and say so in the index.
    fn is_given_blobs(&self) -> Result<bool, Error> {
        let names = SETTINGS.map(|(name, _)| name.replace('.', r"\.")).join("|");
        let listed = self.git.output(["config", "--null", "--get-regexp", &format!("^({names})$")])?;
        // With 1 it says that there are none.
        if !matches!(listed.status.code(), Some(0 | 1)) {
            return Ok(false);
        }
        let found = config::parse(&listed.stdout);
        Ok(SETTINGS.iter().all(|(name, harmless)| match found.get(*name) {
            None => true,
            Some(value) => value.as_deref().is_some_and(|value| harmless.contains(&value)),
        }))
    }

    /// The names of what attributes have git write otherwise than its blob.
    fn converted(&self, index: &Index) -> Result<HashSet<Vec<u8>>, Error> {
        let mut names = Vec::new();
        for entry in index.entries() {
            names.extend_from_slice(index.name(entry));
            names.push(0);
        }
        let asked = ["check-attr", "--cached", "-z", "--stdin"];
        let asked = asked.into_iter().chain(ATTRIBUTES.map(|(attribute, _)| attribute));
        let said = self.git.run_with_input(asked, names)?;
        let said: Vec<_> = said.split(|byte| *byte == 0).collect();
        let (said, _) = said.as_chunks();
        let is_harmless = |attribute: &[u8], value: &[u8]| {
            ATTRIBUTES.iter().any(|(name, harmless)| {
                name.as_bytes() == attribute && harmless.iter().any(|harmless| harmless.as_bytes() == value)
            })
        };
        let converted = said.iter().filter(|[_, attribute, value]| !is_harmless(attribute, value));
        Ok(converted.map(|[name, ..]| name.to_vec()).collect())
    }

    /// Copies of a piece what the donor has, and returns what the file system says of the copies.
    fn take_piece<'t>(
        &self,
        donor: &Root,
        piece: &Piece<'t>,
        converted: &HashSet<Vec<u8>>,
        modified: i64,
    ) -> Result<Vec<(&'t Entry, Stat)>, Error> {
        let index = piece.index();
        let Ok(from) = piece.open(donor) else { return Ok(Vec::new()) };
        let to = [piece.open(self.top)?];
        let mut copier = Copier::new(&from, &to, modified);
        let (mut taken, mut stats) = (Vec::with_capacity(piece.len()), Vec::with_capacity(piece.len()));
        for (entry, name) in piece.entries() {
            if self.cancel.is_requested() {
                return Err(Error::Refused("interrupted".to_owned()));
            }
            if converted.contains(index.name(entry)) {
                continue;
            }
            let wanted = |content: &[u8]| index.is_blob(entry, content);
            let done = match entry.what {
                What::File => copier.file_of(name, index.is_executable(entry), wanted, &mut stats),
                What::Link => copier.link_of(name, wanted, &mut stats),
                What::Submodule => Ok(false),
            };
            if done.map_err(|(_, error)| error)? {
                taken.push(entry);
            }
        }
        Ok(taken.into_iter().zip(stats).collect())
    }
}
