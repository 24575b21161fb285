//! Script for `sh` that runs a program of one session in a sandbox of bubblewrap. Pure.

use std::fmt::Write as _;

use seedbed::host::text::shell_quoted;
use seedbed::provider::MountAccess;

use super::containers::Containers;
use super::origin;
use crate::cli::exit::Failure;

/// Options for the rest of the sandbox: the host's programs and files, which are only read, and no other process.
const DEFAULT: &str = "--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --unshare-pid --die-with-parent";

/// Returns the script.
pub(super) fn script(containers: &Containers<'_>) -> Result<String, Failure> {
    let session = containers.only("bubblewrap")?;
    let mut text = format!(
        "#!/bin/sh\n\
         # Runs a program in session {}, in a sandbox of bubblewrap.\n\
         #\n\
         #     sh FILE PROGRAM [ARGUMENT...]\n\
         #\n\
         # The variable BWRAP has the options for the rest of the sandbox.\n\
         {}: \"${{BWRAP={DEFAULT}}}\"\n\
         # shellcheck disable=SC2086 # one word an option\n\
         exec bwrap $BWRAP \\\n",
        session.path,
        origin(containers.digest)
    );
    for (path, access) in &session.mounts {
        let path = shell_quoted(session.text(path)?);
        let option = match access {
            MountAccess::ReadOnly => "--ro-bind",
            MountAccess::Writable => "--bind",
        };
        let _ = writeln!(text, "    {option} {path} {path} \\");
    }
    for (name, value) in &session.environment {
        let _ = writeln!(text, "    --setenv {} {} \\", shell_quoted(name), shell_quoted(value));
    }
    let directory = shell_quoted(session.text(&session.directory)?);
    let _ = writeln!(text, "    --chdir {directory} -- \"$@\"");
    Ok(text)
}
