//! Runs the programs of external kinds to plan.

use std::path::Path;
use std::time::Duration;

use super::Error;
use crate::host::{Host, process, program};

/// Returns the output of a program, or the reason for which it gave no answer, which is a fact like any other.
///
/// Fails if the run was interrupted meanwhile.
pub(super) fn run(
    host: &Host,
    workspace: &Path,
    command: &[String],
    timeout: u32,
    request: &str,
) -> Result<Result<Vec<u8>, String>, Error> {
    let timeout = Duration::from_secs(timeout.into());
    match program::ask(host, workspace, command, timeout, request.to_owned(), None) {
        Ok(answer) => Ok(Ok(answer)),
        Err(error @ process::Error::Cancelled { .. }) => Err(Error::Interrupted(error)),
        Err(error) => Ok(Err(error.to_string())),
    }
}
