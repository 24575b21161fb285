//! Runs a program with a deadline, a limit of its output, and cancellation.

#![expect(clippy::disallowed_methods, reason = "this is the one place that starts programs")]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::Access;

use super::failpoint::{crashpoint, failpoint};
use super::text::{last_lines, printable};

mod running;
mod blocked_read;
use running::{Halt, Running};

/// Largest standard output of a program, in bytes.
///
/// The file list of a repository with millions of files fits. A program that prints without end is stopped before it
/// fills the memory.
const STDOUT_MAX: usize = 256 << 20;

/// Number of bytes of standard error that are kept: the cause of a failure is at its end.
const STDERR_KEPT: usize = 64 << 10;

/// Longest text of a command in a message, in characters.
const COMMAND_MAX: usize = 400;

/// Attempts for a program whose file is still open for writing, and pause between them.
///
/// The thread that wrote the file may have closed it while a child of another thread, between fork and exec, still has
/// it open.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Request to stop a run. Every step checks the request before it starts, and a running child is ended.
///
/// Clones share one request, which cannot be withdrawn. Another run needs another value.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    /// Request that also stops this run.
    above: Option<Arc<Cancel>>,
}

impl Cancel {
    /// Requests the run to stop.
    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Returns a request for a part of the run: it is requested with this one, or separately.
    #[must_use]
    pub fn below(&self) -> Self {
        Self { flag: Arc::default(), above: Some(Arc::new(self.clone())) }
    }

    /// Returns whether the run was requested to stop.
    pub fn is_requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst) || self.above.as_ref().is_some_and(|above| above.is_requested())
    }

    /// Returns the flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }
}

/// A program to be run, in its own process group, which inherits only the values given here.
#[derive(Debug)]
pub struct Process {
    program: OsString,
    unsaid: Vec<OsString>,
    args: Vec<OsString>,
    directory: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    stdin: Stdin,
    limits: Limits,
    cancel: Cancel,
    is_watched: bool,
    log: Option<File>,
    listener: Option<Listener>,
    stdout_max: usize,
}

/// Limits of one run of a program.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// Time in all.
    deadline: Option<Duration>,
    /// Time without output.
    stall: Option<Duration>,
    /// `true` if background processes of the program are ended with it.
    ends_group: bool,
}

/// One of the two streams that a program prints on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a process has these two streams")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Receives the output of a program while it is printed, in pieces of any size.
#[derive(Clone)]
pub struct Listener(Arc<Take>);

type Take = dyn Fn(Stream, &[u8]) + Send + Sync;

impl Listener {
    /// Returns a listener that calls `take` on the thread that waits for the program.
    pub fn new(take: impl Fn(Stream, &[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// Standard input of a child.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stdin {
    /// Nothing.
    Null,
    /// This file. The child owns any flock of the file description as long as it lives.
    File(File),
    /// These bytes, then the end.
    Bytes(Vec<u8>),
}

/// Exit status and output of a program.
#[derive(Debug)]
#[non_exhaustive]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Complete standard output; empty if it was written to a log.
    pub stdout: Vec<u8>,
    /// End of standard error, limited in length; with a log, the end of both streams.
    pub stderr: Vec<u8>,
}

/// Reason for which a program gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// Name of the program.
        program: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The program is too old, and was not run.
    #[error("{program} {version} is older than {needed}, the oldest that works: install a newer one")]
    TooOld {
        /// Name of the program.
        program: String,
        /// Version of the program.
        version: String,
        /// Oldest version that works.
        needed: String,
    },
    /// Something that is no file replaces a file. The program would have waited for the obstacle or failed, and was not
    /// run; or the program waited, and was ended.
    #[error("{} is {what}, where git expects a file: remove it", printable(&path.to_string_lossy()))]
    Obstructed {
        /// Path of the obstacle.
        path: PathBuf,
        /// `a FIFO`, `a directory`, …
        what: &'static str,
    },
    /// The program ran longer than allowed, and was ended.
    #[error("`{command}` was ended after {} s without a result", after.as_secs())]
    Deadline {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// Limit of time.
        after: Duration,
    },
    /// The program printed nothing for longer than allowed, and was ended.
    #[error("`{command}` was ended after it had printed nothing for {} s", after.as_secs())]
    Stalled {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// Limit of time.
        after: Duration,
    },
    /// The run was interrupted while the program ran, and the program was ended.
    #[error("`{command}` was interrupted")]
    Cancelled {
        /// The program and its arguments, escaped for a terminal.
        command: String,
    },
    /// The program ended with a status that means failure.
    #[error("`{command}` failed ({status}){}", after_colon(tail))]
    Failed {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// Exit status.
        status: ExitStatus,
        /// Last lines of standard error (with a log, of both streams), escaped for a terminal.
        tail: String,
    },
    /// The program printed more than the limit.
    #[error("`{command}` printed more than {limit} bytes")]
    TooMuch {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// Limit of standard output, in bytes.
        limit: usize,
    },
    /// Communication with the program failed.
    #[error("lost `{command}`: {source}")]
    Lost {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// Error of the system.
        source: std::io::Error,
    },
}

impl Error {
    /// Returns whether the program ended by itself, so that its failure is its answer.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// Returns the end of a program's output as the end of a message: one line after a colon, several indented below.
fn after_colon(tail: &str) -> String {
    match tail.lines().count() {
        0 => String::new(),
        1 => format!(": {tail}"),
        _ => format!("\n  {}", tail.replace('\n', "\n  ")),
    }
}

impl Process {
    /// Returns `program` without arguments, with an empty environment, in the current directory, with empty input.
    ///
    /// A name without a slash is searched in the `PATH` of the environment that [`Process::envs`] gives.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            unsaid: Vec::new(),
            args: Vec::new(),
            directory: None,
            variables: Vec::new(),
            stdin: Stdin::Null,
            limits: Limits::default(),
            cancel: Cancel::default(),
            is_watched: false,
            log: None,
            listener: None,
            stdout_max: STDOUT_MAX,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds arguments before all others that messages leave out, because every command of this type has them.
    #[must_use]
    pub fn unreported_args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.unsaid.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Runs the program in `directory`.
    #[must_use]
    pub fn current_dir(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Adds variables to the environment. If a name occurs twice, the later value counts.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Ends the program after `deadline`: SIGTERM to its group, and SIGKILL five seconds later. The default has no
    /// limit.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.limits.deadline = Some(deadline);
        self
    }

    /// Ends the program, as after a deadline, if it prints nothing for this time. The default has no limit.
    #[must_use]
    pub fn stall(mut self, stall: Duration) -> Self {
        self.limits.stall = Some(stall);
        self
    }

    /// Ends the processes of the program's group that still run when the program has ended: SIGTERM, and SIGKILL five
    /// seconds later at most.
    #[must_use]
    pub fn ending_its_group(mut self) -> Self {
        self.limits.ends_group = true;
        self
    }

    /// Ends the program when `cancel` is requested. If `cancel` is requested already, the program is not started.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Ends the program as soon as it waits for a FIFO or a device ([`Error::Obstructed`]).
    ///
    /// This is for Git, which opens every file that its configuration names.
    #[must_use]
    pub(super) fn watched(mut self) -> Self {
        self.is_watched = true;
        self
    }

    /// Ends the program if it prints more than this on standard output, in bytes.
    #[must_use]
    pub fn stdout_max(mut self, bytes: usize) -> Self {
        self.stdout_max = bytes;
        self
    }

    /// Passes all output to `listener` while it is printed; none of it is kept.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Copies both output streams to `log` while they are printed, at the current position of `log`.
    ///
    /// Nothing else is kept except the end of both streams: programs print the cause of a failure on either.
    #[must_use]
    pub fn log(mut self, log: File) -> Self {
        self.log = Some(log);
        self
    }

    /// Returns the program and its arguments for messages: escaped for a terminal, limited in length.
    pub fn command(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| {
            let word = printable(&word.to_string_lossy());
            if word.is_empty() || word.contains(' ') { format!("'{word}'") } else { word }
        });
        let text = words.collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(COMMAND_MAX) {
            Some((cut, _)) => format!("{}…", &text[..cut]),
            None => text,
        }
    }

    /// Runs the program to its end. Any exit status is a result.
    ///
    /// The end is that of the program itself. Background processes that it leaves are not waited for, even if they
    /// still have its standard output open. When the program is ended early, its whole process group is ended.
    pub fn output(self) -> Result<Output, Error> {
        let command = self.command();
        if self.cancel.is_requested() {
            return Err(Error::Cancelled { command });
        }
        let (limits, cancel) = (self.limits, self.cancel.clone());
        let watch = self.is_watched.then(blocked_read::Watch::new);
        let mut running = self.start()?;
        crashpoint!("process.started");
        let halt = match running.attend(limits, &cancel, watch) {
            Ok(status) => {
                crashpoint!("process.ended");
                return Ok(running.into_output(status));
            }
            Err(halt) => halt,
        };
        let limit = running.stdout_max();
        running.end();
        Err(match halt {
            Halt::Deadline(after) => Error::Deadline { command, after },
            Halt::Stalled(after) => Error::Stalled { command, after },
            Halt::Cancelled => Error::Cancelled { command },
            Halt::TooMuch => Error::TooMuch { command, limit },
            Halt::Waits(path, what) => Error::Obstructed { path, what },
            Halt::Lost(source) => Error::Lost { command, source },
        })
    }

    /// Runs the program to its end and returns its standard output. A status other than 0 is [`Error::Failed`].
    pub fn run(self) -> Result<Vec<u8>, Error> {
        let command = self.command();
        self.output()?.success(command)
    }

    fn start(self) -> Result<Running, Error> {
        let (stdin, bytes) = match self.stdin {
            Stdin::Null => (Stdio::null(), None),
            Stdin::File(file) => (Stdio::from(file), None),
            Stdin::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
        };
        let mut command =
            Command::new(found(&self.program, &self.variables).as_ref().unwrap_or(&self.program));
        command
            .arg0(&self.program)
            .args(&self.unsaid)
            .args(&self.args)
            .env_clear()
            .envs(self.variables)
            .process_group(0);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let injected = failpoint!("process.start").map_err(io::Error::from);
        injected
            .and_then(|()| spawn(&mut command))
            .and_then(|child| Running::new(child, bytes, self.log, self.listener, self.stdout_max))
            .map_err(|source| Error::Start {
                program: printable(&self.program.to_string_lossy()),
                source: explained(source, &self.program, self.directory.as_deref()),
            })
    }
}

impl Output {
    /// Returns the standard output. A status other than 0 is [`Error::Failed`] of `command`.
    pub fn success(self, command: String) -> Result<Vec<u8>, Error> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let tail = self.tail();
        Err(Error::Failed { command, status: self.status, tail })
    }

    /// Returns the last lines of [`Output::stderr`], escaped for a terminal, limited in number and length.
    pub fn tail(&self) -> String {
        last_lines(&self.stderr)
    }
}

/// Returns the path of a program with a name without a slash; `None` if the name has a slash, or the system has to
/// search.
///
/// With a path, the standard library starts the child in a copy of this process that shares its memory. Otherwise all
/// page tables have to be copied first. A path also saves failing attempts in every earlier directory.
pub(super) fn found(program: &OsStr, variables: &[(OsString, OsString)]) -> Option<OsString> {
    if program.as_encoded_bytes().contains(&b'/') {
        return None;
    }
    let (_, path) = variables.iter().rev().find(|(name, _)| name == "PATH")?;
    for directory in std::env::split_paths(path) {
        // A relative directory starts at the child's directory.
        if !directory.is_absolute() {
            return None;
        }
        let file = directory.join(program);
        if rustix::fs::access(&file, Access::EXEC_OK).is_ok() && file.is_file() {
            return Some(file.into());
        }
    }
    None
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 1..BUSY_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    command.spawn()
}

/// Explains what was not found: the system reports a missing program and a missing directory in the same way.
fn explained(error: io::Error, program: &OsStr, directory: Option<&Path>) -> io::Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    match directory {
        Some(directory) if !directory.is_dir() => {
            let directory = printable(&directory.to_string_lossy());
            io::Error::new(ErrorKind::NotFound, format!("there is no directory {directory} to run it in"))
        }
        _ if !program.as_encoded_bytes().contains(&b'/') => {
            io::Error::new(ErrorKind::NotFound, "there is no such program in PATH")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests;
