//! Bundles of commits, in the format of `git bundle`: names of commits, and a pack.
//!
//! A bundle is written without refs in the repository, and read without a transport: Git checks fetched objects of a bundle
//! only in recent versions.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Git, is_object_id, reported};
use crate::host::process::{Error, Listener, Stdin, Stream};

/// Largest header of a bundle, in bytes: some hundred thousand refs.
const HEADER_MAX: u64 = 64 << 20;

/// Commit in a bundle, with its name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "callers name each field")]
pub struct BundledCommit {
    /// Full name of a ref.
    pub name: String,
    /// Object id.
    pub id: String,
}

/// Reason for which a bundle cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Git failed.
    #[error(transparent)]
    Git(#[from] Error),
    /// The file could not be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
    /// The file is no bundle that can be read.
    #[error("it is no bundle of this repository: {0}")]
    Invalid(&'static str),
    /// The bundle has other commits than expected.
    #[error("it has {0}, which is not expected")]
    Unexpected(String),
    /// The file could not be opened.
    #[error("{0}")]
    Other(String),
    /// The repository lacks commits on which the bundle is based.
    #[error("this repository lacks commit {0}, on which it is based")]
    Lacking(String),
}

impl Git<'_> {
    /// Writes a bundle of commits into an empty file, without `known` commits and what they contain. The repository that
    /// reads the bundle has to have them. Returns `false` if nothing is left to write.
    pub fn write_bundle(
        &self,
        commits: &[BundledCommit],
        known: &BTreeSet<String>,
        file: &File,
    ) -> Result<bool, BundleError> {
        let known: Vec<String> = self.existing(known)?.into_iter().collect();
        let ids = commits.iter().map(|commit| format!("{}\n", commit.id));
        let input: String = ids.chain(known.iter().map(|id| format!("^{id}\n"))).collect();
        let is_new =
            self.run_with_input(["rev-list", "--max-count=1", "--stdin"], input.clone().into_bytes())?;
        if is_new.is_empty() {
            return Ok(false);
        }
        let mut header = match self.line(["rev-parse", "--show-object-format"])?.as_str() {
            "sha1" => "# v2 git bundle\n".to_owned(),
            format => format!("# v3 git bundle\n@object-format={format}\n"),
        };
        header.extend(known.iter().map(|id| format!("-{id}\n")));
        header.extend(commits.iter().map(|commit| format!("{} {}\n", commit.id, commit.name)));
        let mut to = file.try_clone()?;
        to.write_all(header.as_bytes())?;
        to.write_all(b"\n")?;
        let written = Arc::new(Mutex::new((Ok(()), Vec::new())));
        let kept = Arc::clone(&written);
        let to = Mutex::new(to);
        let listener = Listener::new(move |stream, piece| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            match stream {
                Stream::Stdout if kept.0.is_ok() => {
                    kept.0 = to.lock().unwrap_or_else(PoisonError::into_inner).write_all(piece);
                }
                Stream::Stdout => {}
                Stream::Stderr => kept.1.extend_from_slice(piece),
            }
        });
        let command = ["pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "--quiet"];
        let process = self.process(command)?.stdin(Stdin::Bytes(input.into_bytes())).listener(listener);
        let command = process.command();
        let mut output = process.output()?;
        let (result, stderr) = std::mem::replace(
            &mut *written.lock().unwrap_or_else(PoisonError::into_inner),
            (Ok(()), Vec::new()),
        );
        output.stderr = stderr;
        reported(output).success(command)?;
        result?;
        file.sync_all()?;
        Ok(true)
    }

    /// Adds the objects of a bundle, which has to have exactly the `expected` commits. Every object is checked first. No ref
    /// is changed.
    pub fn read_bundle(&self, file: &File, expected: &BTreeSet<BundledCommit>) -> Result<(), BundleError> {
        let format = self.line(["rev-parse", "--show-object-format"])?;
        let mut pack = file.try_clone()?;
        let header = seek_pack(&mut pack, HEADER_MAX)?;
        if header.format != format {
            return Err(BundleError::Invalid("its object ids have another format"));
        }
        if let Some(other) = header.commits.symmetric_difference(expected).next() {
            return Err(BundleError::Unexpected(format!("{} at {}", other.name, other.id)));
        }
        let existing = self.existing(&header.known)?;
        if let Some(lacking) = header.known.difference(&existing).next() {
            return Err(BundleError::Lacking(lacking.clone()));
        }
        let process =
            self.process(["index-pack", "--stdin", "--fix-thin", "--strict"])?.stdin(Stdin::File(pack));
        let command = process.command();
        reported(process.output()?).success(command)?;
        self.check_connected(header.commits.iter().map(|commit| commit.id.as_str()))?;
        Ok(())
    }

    /// Checks that the repository has the commits, and everything that they contain.
    pub fn check_connected<'i>(&self, commits: impl Iterator<Item = &'i str>) -> Result<(), Error> {
        let input = commits.fold(String::new(), |input, id| input + id + "\n");
        if !input.is_empty() {
            let command = ["rev-list", "--objects", "--stdin", "--not", "--all", "--quiet"];
            self.run_with_input(command, input.into_bytes())?;
        }
        Ok(())
    }

    /// Returns those of the objects that the repository has.
    fn existing(&self, ids: &BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
        if ids.is_empty() {
            return Ok(BTreeSet::new());
        }
        let input = ids.iter().fold(String::new(), |input, id| input + id + "\n");
        let printed = self.run_with_input(["cat-file", "--batch-check=%(objectname)"], input.into_bytes())?;
        let printed = String::from_utf8_lossy(&printed);
        Ok(printed.lines().filter(|line| is_object_id(line)).map(str::to_owned).collect())
    }
}

/// Header of a bundle.
pub(crate) struct Header {
    format: String,
    /// Commits that a reader has to have.
    known: BTreeSet<String>,
    commits: BTreeSet<BundledCommit>,
}

/// Reads the header of a bundle, and moves the position of the file to the pack behind it.
/// A header is at most `header_max` bytes long.
pub(crate) fn seek_pack(file: &mut File, header_max: u64) -> Result<Header, BundleError> {
    let (header, length) = header(file, header_max)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(header)
}

/// Reads the header of a bundle, and returns its length too.
fn header(file: &File, header_max: u64) -> Result<(Header, u64), BundleError> {
    let invalid = BundleError::Invalid;
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut lines = BufReader::new(file.take(header_max));
    let mut length = 0;
    let mut line = String::new();
    let mut next = || {
        line.clear();
        let count = lines.read_line(&mut line).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => invalid("its header is no text"),
            _ => error.into(),
        })?;
        length += count as u64;
        let line = line.strip_suffix('\n').ok_or(invalid("its header has no end"))?;
        Ok::<_, BundleError>((line.to_owned(), length))
    };
    let has_format = match next()?.0.as_str() {
        "# v2 git bundle" => false,
        "# v3 git bundle" => true,
        _ => return Err(invalid("it begins otherwise")),
    };
    let mut header = Header { format: "sha1".to_owned(), known: BTreeSet::new(), commits: BTreeSet::new() };
    loop {
        let (line, length) = next()?;
        if line.is_empty() {
            return Ok((header, length));
        }
        if let Some(format) = line.strip_prefix("@object-format=").filter(|_| has_format) {
            format.clone_into(&mut header.format);
        } else if let Some(known) = line.strip_prefix('-') {
            let id = known.split(' ').next().filter(|id| is_object_id(id));
            header.known.insert(id.ok_or(invalid("it is based on no commit"))?.to_owned());
        } else if let Some((id, name)) = line.split_once(' ').filter(|(id, _)| is_object_id(id)) {
            header.commits.insert(BundledCommit { name: name.to_owned(), id: id.to_owned() });
        } else {
            return Err(invalid("its header has an unknown line"));
        }
    }
}
