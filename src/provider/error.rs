//! Errors of providers.

use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};

use crate::host::text::printable_lines;
use crate::host::{files, process};

/// Why a step of a provider failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An outside program failed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A file could not be touched.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Somebody else has taken what planning found free; another plan may find something else.
    #[error("{0}")]
    Taken(String),
    /// Something that is not this swarm's stands in the way, or the allocation cannot be read.
    #[error("{0}")]
    Refused(String),
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The provider panicked, with this message: a bug of whoever wrote it.
    #[error("a bug: it panicked: {0}")]
    Panicked(String),
}

/// Runs one step of a provider. A panic in it, on whichever thread of its own, is an error like any other: the run is
/// rolled back, or goes on past it.
pub(crate) fn caught<T>(step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What the step has broken of its own is the provider's; seedbed's own mutexes are read past a poisoning.
    panic::catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        Err(Error::Panicked(printable_lines(text)))
    })
}

/// How often a step is tried again that loses against somebody removing an empty directory under it: a foreign prune
/// the empty `worktrees`, another session's release the directory of worktrees or of locks. Each try is microseconds.
const TRIES: usize = 100;

/// Tries a step again for as long as it fails because something is not there.
pub(crate) fn again_while_missing<T>(mut step: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..TRIES {
        match step() {
            Err(Error::File(files::Error::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    step()
}
