//! What the repository's own work tree already has of a commit, copied into a worktree instead of checked out.
//!
//! A file is taken for its bytes alone: they are those of the commit's blob, by its id, and git would write them as they
//! are. So neither who wrote it matters, nor whether it is staged, nor what its times say. What it does not have like
//! that is left to git, and so is whatever git would write in another way than the blob has it.

#![expect(clippy::disallowed_methods, reason = "reads the index that git has just written")]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::copy::{Failed, Target, copy_piece, index_mode, modified};
use super::index::{Entry, Index, What};
use super::site::io;
use super::tree::Tree;
use crate::host::files::Root;
use crate::host::files::copies::Files;
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

/// What is left for git to write of a commit's tree.
pub(super) enum Left {
    Nothing(Tree),
    /// Some of the files. The directories stand, and so does the index, which is of the whole commit.
    Part(Tree),
    /// All of them, and the index.
    All,
}

impl Left {
    /// What the commit holds, as far as that is known.
    pub(super) fn tree(&self) -> Option<&Tree> {
        match self {
            Self::Nothing(tree) | Self::Part(tree) => Some(tree),
            Self::All => None,
        }
    }
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
        let Some(index) = Index::read(&bytes, self.commit.len() / 2) else {
            fs::remove_file(self.index).map_err(io("remove", self.index))?;
            return Ok(Left::All);
        };
        let tree = Tree::of(index);
        let (converted, made) =
            rayon::join(|| self.converted(&tree.index), || tree.make_directories(self.top));
        let converted = converted?;
        made?;
        let targets = [Target::of(self.top, &tree)];
        let modified = modified();
        let taken = tree.pieces().into_par_iter().with_max_len(1).map(|piece| {
            let Ok(from) = piece.open(donor) else { return Ok(0) };
            let files = Files::of(&from, modified);
            copy_piece(&piece, files, &targets, self.cancel, |files, entry, name| {
                Ok(!converted.contains(tree.index.name(entry)) && is_taken(&tree.index, files, entry, name))
            })
        });
        let taken =
            taken.try_reduce(|| 0, |one, other| Ok(one + other)).map_err(|(_, error): Failed| error)?;
        let [target] = targets;
        target.write_index(self.index, index_mode(self.index)?)?;
        Ok(if taken == tree.index.entries().len() { Left::Nothing(tree) } else { Left::Part(tree) })
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

    /// The names of what attributes have git write otherwise than its blob, or may have.
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
        if said.len() != index.entries().len() * ATTRIBUTES.len() {
            return Ok(index.entries().iter().map(|entry| index.name(entry).to_vec()).collect());
        }
        let converted = said.iter().filter(|[_, attribute, value]| !is_harmless(attribute, value));
        Ok(converted.map(|[name, ..]| name.to_vec()).collect())
    }
}

/// Takes a file if it is what the entry's blob is.
fn is_taken<'t>(index: &Index, files: &mut Files<'t>, entry: &Entry, name: &'t OsStr) -> bool {
    let wanted = |content: &[u8]| index.is_blob(entry, content);
    match entry.what {
        What::File => files.file_of(name, index.is_executable(entry), wanted),
        What::Link => files.link_of(name, wanted),
        What::Submodule => false,
    }
}
