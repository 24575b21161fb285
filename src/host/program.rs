//! Calls an external program: one request on its standard input, one answer on its standard output.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::process::{Error, Process, Stdin};
use super::{Host, absolute};

/// Largest answer, in bytes: a plan of 10,000 sessions has about 10 MB.
const ANSWER_MAX: usize = 64 << 20;

/// Shell script that passes on a request from a variable, and keeps the standard input open as another file.
///
/// The program and all its children own any lock of that file as long as they run.
const HOLDING: &str =
    r#"exec 3<&0; request=$SEEDBED_REQUEST; unset SEEDBED_REQUEST; printf %s "$request" | "$@""#;

/// Runs a program in `directory` until it ends, with `request` as its input, and returns its standard output.
///
/// A name with a slash is relative to `directory`; one without is searched in the `PATH`. With `lock`, the program owns
/// that lock as long as it or a child of it lives. The request then has to fit one variable of the environment, 128
/// KiB.
pub fn ask(
    host: &Host,
    directory: &Path,
    command: &[String],
    timeout: Duration,
    request: String,
    lock: Option<&File>,
) -> Result<Vec<u8>, Error> {
    let (program, arguments) =
        command.split_first().map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let program = if program.contains('/') {
        absolute(directory, Path::new(program)).into_os_string()
    } else {
        program.into()
    };
    let process = match lock.map(File::try_clone) {
        None => Process::new(program)
            .stdin(Stdin::Bytes(request.into_bytes()))
            .envs(host.environment_in(directory)),
        Some(lock) => {
            let lock = lock
                .map_err(|source| Error::Start { program: program.to_string_lossy().into_owned(), source })?;
            let request = (OsString::from("SEEDBED_REQUEST"), OsString::from(request));
            Process::new("/bin/sh")
                .unreported_args(["-c", HOLDING, "seedbed"])
                .arg(program)
                .stdin(Stdin::File(lock))
                .envs(host.environment_in(directory).chain([request]))
        }
    };
    process
        .args(arguments)
        .current_dir(directory)
        .deadline(timeout)
        .cancel(&host.cancel)
        .stdout_max(ANSWER_MAX)
        .run()
}
