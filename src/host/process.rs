//! Runs a program with a deadline, a cap on what it prints, and an ear for Ctrl-C.

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
use super::text::{printable, printable_lines};

mod running;
mod waiting;
use running::{Halt, Running};

/// The most that is taken of a program's standard output: the file list of a repository with millions of files fits,
/// and a program that prints for ever is stopped before it fills the memory.
const STDOUT_MAX: usize = 256 << 20;

/// How much of standard error is kept: what went wrong stands at its end.
const STDERR_KEPT: usize = 64 << 10;

/// How long a command's text may get in a message, in characters.
const COMMAND_MAX: usize = 400;

/// How many lines of standard error stand in a message, and how long they may get together, in characters.
const TAIL_LINES: usize = 8;
const TAIL_MAX: usize = 2000;

/// How often, and how far apart, a program is tried again that somebody is still writing: a thread that wrote it may
/// have closed it while a child of another thread, between fork and exec, still has it open.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Whether the run has been asked to stop; every step asks before it starts, and a running child is ended. Clones are the
/// same one, and what was requested stays so: another run has another.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    /// What ends this run among others.
    above: Option<Arc<Cancel>>,
}

impl Cancel {
    /// Asks the run to stop.
    pub fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Another one, for less: it is requested where this one is, and on its own.
    #[must_use]
    pub fn below(&self) -> Self {
        Self { flag: Arc::default(), above: Some(Arc::new(self.clone())) }
    }

    /// Tells whether the run has been asked to stop.
    pub fn is_requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst) || self.above.as_ref().is_some_and(|above| above.is_requested())
    }

    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }
}

/// A program about to be run, in a process group of its own, with nothing inherited but what is said here.
#[derive(Debug)]
pub struct Process {
    program: OsString,
    unsaid: Vec<OsString>,
    args: Vec<OsString>,
    directory: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    stdin: Stdin,
    deadline: Option<Duration>,
    cancel: Cancel,
    is_watched: bool,
    log: Option<File>,
    listener: Option<Listener>,
    stdout_max: usize,
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

/// Takes what a program prints as it comes, in pieces of any size.
#[derive(Clone)]
pub struct Listener(Arc<Take>);

type Take = dyn Fn(Stream, &[u8]) + Send + Sync;

impl Listener {
    /// A listener that calls `take` on the thread that waits for the program.
    pub fn new(take: impl Fn(Stream, &[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// What a child reads on its standard input.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stdin {
    /// Nothing.
    Null,
    /// This file. The child holds whatever flock the file description has for as long as it lives.
    File(File),
    /// These bytes, then the end.
    Bytes(Vec<u8>),
}

/// How a program ended and what it printed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, whole; empty where it went to a log.
    pub stdout: Vec<u8>,
    /// The end of its standard error, capped unless everything is kept; where there is a log, of both streams.
    pub stderr: Vec<u8>,
}

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is older than what is used of it, and was not run.
    #[error("{program} {version} is older than {needed}, the oldest that works: install a newer one")]
    TooOld {
        /// The program.
        program: String,
        /// Its version.
        version: String,
        /// The oldest that works.
        needed: String,
    },
    /// It would wait for what stands in the place of a file, or fail at it, and was not run; or it waited, and was ended.
    #[error("{} is {what}, where git expects a file: remove it", printable(&path.to_string_lossy()))]
    Obstructed {
        /// What is in the way.
        path: PathBuf,
        /// `a FIFO`, `a directory`, …
        what: &'static str,
    },
    /// It ran longer than allowed, and was ended.
    #[error("`{command}` was ended after {} s without a result", after.as_secs())]
    Deadline {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// How long it was given.
        after: Duration,
    },
    /// The run was interrupted while it ran, and it was ended.
    #[error("`{command}` was interrupted")]
    Cancelled {
        /// The program and its arguments, escaped for a terminal.
        command: String,
    },
    /// It ended with a status that means failure.
    #[error("`{command}` failed ({status}){}", if tail.is_empty() { String::new() } else { format!(": {tail}") })]
    Failed {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of what it printed on standard error (with a log, on both streams), escaped for a terminal.
        tail: String,
    },
    /// It printed more than is taken.
    #[error("`{command}` printed more than {limit} bytes")]
    TooMuch {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// The cap on standard output, in bytes.
        limit: usize,
    },
    /// Talking to it failed.
    #[error("lost `{command}`: {source}")]
    Lost {
        /// The program and its arguments, escaped for a terminal.
        command: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Returns whether the program ended by itself, so that its failure is its answer.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

impl Process {
    /// `program` without arguments, with an empty environment, in the current directory, its input empty.
    ///
    /// A name without a slash is looked for in the `PATH` of the environment that [`Process::envs`] gives.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            unsaid: Vec::new(),
            args: Vec::new(),
            directory: None,
            variables: Vec::new(),
            stdin: Stdin::Null,
            deadline: None,
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

    /// Adds arguments before all others that messages leave out, because every command of the kind has them.
    #[must_use]
    pub fn unsaid_args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.unsaid.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Runs it in `directory`.
    #[must_use]
    pub fn current_dir(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Adds variables to its environment; of two with the same name the later one stands.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// Gives it this input.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Ends it after `deadline`: SIGTERM to its group, five seconds later SIGKILL. Without one it may run for ever.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Ends it when `cancel` is requested; it is not started at all where that is so already.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Ends it as soon as it waits for a FIFO or a device ([`Error::Obstructed`]). For Git, which opens every file that its
    /// configuration names.
    #[must_use]
    pub(super) fn watched(mut self) -> Self {
        self.is_watched = true;
        self
    }

    /// Ends it where it prints more than this on standard output, in bytes.
    #[must_use]
    pub fn stdout_max(mut self, bytes: usize) -> Self {
        self.stdout_max = bytes;
        self
    }

    /// Gives all that it prints to `listener` as it comes; nothing of it is kept then.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Copies what it prints, both streams, to `log` as it comes, from where `log` stands.
    ///
    /// Its output is kept nowhere else then, but for the end of both streams: programs say on either why they fail.
    #[must_use]
    pub fn log(mut self, log: File) -> Self {
        self.log = Some(log);
        self
    }

    /// The program and its arguments as they stand in messages: escaped for a terminal, bounded in length.
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

    /// Runs it to its end; any exit status is a result.
    ///
    /// The end is that of the program itself: what it leaves running in the background is not waited for, even where
    /// that still holds its standard output open. When it is ended early, its whole process group is.
    pub fn output(self) -> Result<Output, Error> {
        let command = self.command();
        if self.cancel.is_requested() {
            return Err(Error::Cancelled { command });
        }
        let (deadline, cancel) = (self.deadline, self.cancel.clone());
        let watch = self.is_watched.then(waiting::Watch::new);
        let mut running = self.start()?;
        crashpoint!("process.started");
        let halt = match running.attend(deadline, &cancel, watch) {
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
            Halt::Cancelled => Error::Cancelled { command },
            Halt::TooMuch => Error::TooMuch { command, limit },
            Halt::Waits(path, what) => Error::Obstructed { path, what },
            Halt::Lost(source) => Error::Lost { command, source },
        })
    }

    /// Runs it to its end and returns what it printed; a status other than 0 is [`Error::Failed`].
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
        let asked = failpoint!("process.start").map_err(io::Error::from);
        asked
            .and_then(|()| spawn(&mut command))
            .and_then(|child| Running::new(child, bytes, self.log, self.listener, self.stdout_max))
            .map_err(|source| Error::Start {
                program: printable(&self.program.to_string_lossy()),
                source: explained(source, &self.program, self.directory.as_deref()),
            })
    }
}

impl Output {
    /// What it printed on standard output; a status other than 0 is [`Error::Failed`] of `command`.
    pub fn success(self, command: String) -> Result<Vec<u8>, Error> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let tail = self.tail();
        Err(Error::Failed { command, status: self.status, tail })
    }

    /// The last lines of [`Output::stderr`], escaped for a terminal, bounded in number and length.
    pub fn tail(&self) -> String {
        let said = String::from_utf8_lossy(&self.stderr);
        let mut lines: Vec<_> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(TAIL_LINES));
        let tail = printable_lines(&lines.join("\n"));
        match tail.char_indices().rev().nth(TAIL_MAX - 1) {
            Some((cut, _)) if cut > 0 => format!("…{}", &tail[cut..]),
            _ => tail,
        }
    }
}

/// Where a program lies that is called by a name without a slash; `None` where it has a slash, and where that is for
/// the system to find out.
///
/// The standard library starts what it is given the path of in a copy of this process that shares its memory, and
/// anything else in one that has to have all of its page tables copied first. It also saves trying to start the program
/// in every directory before its own.
pub(super) fn found(program: &OsStr, variables: &[(OsString, OsString)]) -> Option<OsString> {
    if program.as_encoded_bytes().contains(&b'/') {
        return None;
    }
    let (_, path) = variables.iter().rev().find(|(name, _)| name == "PATH")?;
    for directory in std::env::split_paths(path) {
        // It starts where the child does.
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

/// Says what was not found: the system says the same of a missing program and of a missing directory to run it in.
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
