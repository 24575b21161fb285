//! Defines the errors of providers.

use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};

use crate::host::text::printable_lines;
use crate::host::{files, leases, process};

/// Failure of a provider's step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An external program failed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A resource that was free when it was planned is now in use by another process. A new plan may find another one.
    #[error("{0}")]
    Conflict(String),
    /// A resource that is not this swarm's is in the way, or the allocation cannot be read.
    #[error("{0}")]
    Refused(String),
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The provider panicked, with this message: a bug in the provider.
    #[error("a bug: it panicked: {0}")]
    Panicked(String),
}

/// Returns the error of a provider whose lease was not granted, or cannot be changed.
pub(super) fn of_leases(error: leases::Error) -> Error {
    match error {
        leases::Error::File(error) => Error::File(error),
        leases::Error::Leased { .. } | leases::Error::Published { .. } | leases::Error::Bound { .. } => {
            Error::Conflict(error.to_string())
        }
        leases::Error::Lock(_) => Error::Refused(error.to_string()),
    }
}

/// Runs one step of a provider. A panic in it, on any of its threads, is an error like any other: the run is rolled
/// back, or continues without the step.
pub(crate) fn catch_panics<T>(step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // A state that the step has broken is the provider's own. seedbed's own mutexes ignore poisoning.
    panic::catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        Err(Error::Panicked(printable_lines(text)))
    })
}

/// Maximum number of attempts of a step that fails because another process removes an empty directory under it. Another
/// program's `git worktree prune` removes the empty `worktrees`. Another session's release removes the directory of
/// worktrees or of locks. Each attempt takes microseconds.
const TRIES: usize = 100;

/// Repeats a step as long as it fails because a path does not exist.
pub(crate) fn retry_while_missing<T>(mut step: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..TRIES {
        match step() {
            Err(Error::File(files::Error::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    step()
}
