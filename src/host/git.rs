//! Runs Git, hardened: no hooks, no fsmonitor, no network, no inherited repository, no prompt.
//!
//! Everyone who can write to a repository controls its configuration, also an agent in a linked worktree. The
//! configuration names programs that Git would run. Filters (such as `git lfs`) stay on: without them a checkout would
//! differ from the tree.

pub mod bundle;
pub mod checkouts;
pub mod config;
pub(crate) mod scratch;
mod special_files;
pub(crate) mod version;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::Host;
use super::process::{Error, Output, Process, Stdin};

/// Arguments of every call, which no configuration can override.
const HARDENED: [&str; 16] = [
    "-c",
    "core.fsmonitor=false",
    "-c",
    "submodule.recurse=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    // The programs that verify signatures are named by the configuration.
    "-c",
    "log.showSignature=false",
    "-c",
    "gpg.program=false",
    "-c",
    "gpg.ssh.program=false",
    "-c",
    "gpg.x509.program=false",
];

/// Arguments of every call beside [`HARDENED`], except fetches.
const WITHOUT_TRANSPORT: [&str; 6] =
    ["-c", "core.sshCommand=false", "-c", "core.askpass=true", "-c", "protocol.allow=never"];

/// Arguments of every call beside [`HARDENED`], unless the repository's hooks are to run.
///
/// Since 2.54, Git also runs hooks that the configuration defines (`hook.NAME.command`), with any `core.hooksPath`.
/// `hook.EVENT.enabled` turns off the hooks of an event; calls of this crate cause the events listed here.
const WITHOUT_HOOKS: [&str; 8] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "hook.post-checkout.enabled=false",
    "-c",
    "hook.post-index-change.enabled=false",
    "-c",
    "hook.reference-transaction.enabled=false",
];

/// Variables in the environment of every call.
///
/// Messages are matched, so Git must print messages in English. A call that only reads takes no lock, which would block
/// the Git of another process.
const VARIABLES: [(&str, &str); 5] = [
    ("LC_ALL", "C"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    // The output is read as a whole, so it need not be written line by line.
    ("GIT_FLUSH", "0"),
];

/// Variables of every call beside [`VARIABLES`], except fetches.
const NO_TRANSPORT: [(&str, &str); 1] = [
    // No transport at all. Git before 2.39.4, 2.40.2, 2.41.1, 2.42.2, 2.43.4 and 2.44.1 does not know
    // `GIT_NO_LAZY_FETCH`, and a repository's `protocol.ext.allow` overrides `protocol.allow`. A transport may be a
    // program that the repository chooses.
    ("GIT_ALLOW_PROTOCOL", "none"),
];

/// Variables of a fetch. Nothing asks for a password, neither Git nor `ssh` nor a credential manager.
const FETCH_VARIABLES: [(&str, &str); 4] = [
    ("GIT_ASKPASS", "true"),
    ("SSH_ASKPASS", "false"),
    ("SSH_ASKPASS_REQUIRE", "force"),
    ("GCM_INTERACTIVE", "never"),
];

/// Variables of the user that a fetch inherits.
const USERS_TRANSPORT: [&str; 4] = ["GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"];

/// Limit of time for one call.
///
/// The slowest call is a checkout: millions of files on a slow disk take minutes. A Git that runs longer waits for
/// something that will never happen.
pub const DEADLINE: Duration = Duration::from_mins(10);

/// Limit of attempts of a call that fails because of another Git.
///
/// Beside two `git worktree prune` in a loop, 100 calls needed 7 at most.
const TRIES: u32 = 10;

/// First and longest pause between two attempts. Each is shortened at random by up to a half, so that two processes
/// that collide do not keep colliding.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Number of last `fatal:` and `error:` lines that are searched for traces of another Git.
///
/// Git first prints the cause, then up to two lines about what it abandons because of that.
const LINES_LOOKED_AT: usize = 3;

/// Runs Git in one repository.
///
/// Before the first call, the version of Git is determined. A Git that is too old gives [`Error::TooOld`] for every
/// call. If Git would wait for something that is no file, it is not run at all ([`Error::Obstructed`]).
///
/// No call inherits a `GIT_*` variable. Every call ends with the run's [`Cancel`](super::process::Cancel): the rollback
/// of a cancelled run needs a [`Host`] with a new one.
#[derive(Clone, Debug)]
pub struct Git<'a> {
    host: &'a Host,
    repository: Repository<'a>,
    lock: Option<&'a File>,
    hooks: bool,
    transport: bool,
    with_any_version: bool,
    variables: Vec<(OsString, OsString)>,
    settings: Vec<&'a str>,
    deadline: Duration,
}

/// Facts about Git that need not be determined again.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    texts: version::Texts,
}

#[derive(Clone, Copy, Debug)]
enum Repository<'a> {
    Discovered(&'a Path),
    Opened { git_dir: &'a Path, work_tree: Option<&'a Path> },
}

impl<'a> Git<'a> {
    /// Returns a Git that finds the repository around `directory` by itself.
    pub fn discover(host: &'a Host, directory: &'a Path) -> Self {
        Self::new(host, Repository::Discovered(directory))
    }

    /// Returns a Git for the given repository: an agent can replace a worktree's `.git` file, but not this path.
    ///
    /// Both paths are absolute; `git_dir` is a repository's Git directory or the admin directory of a linked worktree.
    /// Relative paths in arguments start at `work_tree`, which must exist; without a work tree, at `git_dir`.
    pub fn open(host: &'a Host, git_dir: &'a Path, work_tree: Option<&'a Path>) -> Self {
        Self::new(host, Repository::Opened { git_dir, work_tree })
    }

    fn new(host: &'a Host, repository: Repository<'a>) -> Self {
        Self {
            host,
            repository,
            lock: None,
            hooks: false,
            transport: false,
            with_any_version: false,
            variables: Vec::new(),
            settings: Vec::new(),
            deadline: host.git_deadline,
        }
    }

    /// Makes Git own the lock of `lock` as long as Git runs: it inherits the file as its standard input.
    #[must_use]
    pub fn holding(mut self, lock: Option<&'a File>) -> Self {
        self.lock = lock;
        self
    }

    /// Enables the repository's hooks, which are off by default: everyone who can write to the repository controls
    /// them.
    #[must_use]
    pub fn with_hooks(mut self, hooks: bool) -> Self {
        self.hooks = hooks;
        self
    }

    /// Permits fetches, by the protocols that the user's configuration allows.
    ///
    /// Only for a repository whose configuration this program has written: a configuration names programs that a fetch
    /// runs.
    #[must_use]
    pub(crate) fn with_transport(mut self) -> Self {
        self.transport = true;
        self
    }

    /// Permits calls before the version of Git is known.
    ///
    /// The caller determines the version at the same time, and discards the results of a Git that is too old.
    #[must_use]
    pub(crate) fn with_any_version(mut self) -> Self {
        self.with_any_version = true;
        self
    }

    /// Ends a call after `deadline`, if this is shorter than the host's limit.
    #[must_use]
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = self.deadline.min(deadline);
        self
    }

    /// Sets a variable, also a `GIT_*` one: `GIT_INDEX_FILE`, `GIT_AUTHOR_NAME`.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Sets one setting, which overrides the repository's configuration: `core.splitIndex=false`.
    #[must_use]
    pub fn with_setting(mut self, setting: &'a str) -> Self {
        self.settings.push(setting);
        self
    }

    /// Runs Git and returns its standard output. A status other than 0 is an error.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Vec<u8>, Error> {
        let process = self.process(args)?;
        let command = process.command();
        reported(process.output()?).success(command)
    }

    /// Runs Git with `input` on its standard input, instead of a lock, and returns its standard output.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let process = self.process(args)?.stdin(Stdin::Bytes(input));
        let command = process.command();
        reported(process.output()?).success(command)
    }

    /// Runs Git and returns its standard output as text, without white space around it.
    pub fn line<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.run(args)?).trim().to_owned())
    }

    /// Runs Git and returns its standard output as a path, byte by byte, without the final line feed.
    pub fn path<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<PathBuf, Error> {
        let mut bytes = self.run(args)?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        Ok(OsString::from_vec(bytes).into())
    }

    /// Runs Git. Any exit status is a result.
    pub fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output, Error> {
        self.process(args)?.output()
    }

    /// Runs Git again, at most ten times with growing pauses, while it fails because of another Git beside it
    /// (`reliability.md`, R16).
    ///
    /// Any other failure is returned at once.
    pub fn run_beside_others<S: AsRef<OsStr> + Clone>(&self, args: &[S]) -> Result<Vec<u8>, Error> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            let process = self.process(args)?;
            let command = process.command();
            let output = process.output()?;
            if output.status.success() || !is_of_another_git(&output.stderr) {
                return reported(output).success(command);
            }
            thread::sleep(shortened(pause));
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.run(args)
    }

    /// Checks that Git is new enough, and would not wait for something that is no file.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.with_any_version {
            version::require(self.host)?;
        }
        match self.repository {
            Repository::Discovered(directory) => special_files::check_discovered(directory),
            Repository::Opened { git_dir, .. } => special_files::check_git_directory(git_dir),
        }
    }

    fn process<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Process, Error> {
        self.check()?;
        self.process_without_version(args)
    }

    /// Returns the process without any check.
    fn process_without_version<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Process, Error> {
        let is_inherited = |name: &OsStr| {
            !is_scrubbed(name) || self.transport && USERS_TRANSPORT.iter().any(|users| name == *users)
        };
        let inherited = self.host.environment.iter().filter(|(name, _)| is_inherited(name)).cloned();
        let transport = if self.transport { &FETCH_VARIABLES[..] } else { &NO_TRANSPORT[..] };
        let fixed = VARIABLES.iter().chain(transport).map(|(name, value)| (name.into(), value.into()));
        let mut process = Process::new("git")
            .unreported_args(HARDENED)
            .unreported_args(WITHOUT_TRANSPORT.into_iter().filter(|_| !self.transport))
            .unreported_args(WITHOUT_HOOKS.into_iter().filter(|_| !self.hooks))
            .envs(inherited.chain(fixed).chain(self.variables.iter().cloned()))
            .deadline(self.deadline)
            .watched()
            .cancel(&self.host.cancel);
        process = match self.repository {
            Repository::Discovered(directory) => process.arg("-C").arg(directory),
            Repository::Opened { git_dir, work_tree: Some(work_tree) } => process
                .arg(option("--git-dir=", git_dir))
                .arg(option("--work-tree=", work_tree))
                .current_dir(work_tree),
            // Without a work tree, Git regards the current directory as one, so that must belong to no repository.
            Repository::Opened { git_dir, work_tree: None } => {
                process.arg(option("--git-dir=", git_dir)).current_dir(git_dir)
            }
        };
        process = process.args(self.settings.iter().flat_map(|setting| ["-c", setting])).args(args);
        let Some(lock) = self.lock else { return Ok(process) };
        match lock.try_clone() {
            Ok(lock) => Ok(process.stdin(Stdin::File(lock))),
            Err(source) => Err(Error::Lost { command: process.command(), source }),
        }
    }
}

/// Returns whether a text has the form of an object id.
pub(crate) fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns whether a variable is hidden from Git: variables that name a repository or give configuration, and variables
/// that choose the language of its messages.
fn is_scrubbed(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"GIT_") || name.starts_with(b"LC_") || name == b"LANG" || name == b"LANGUAGE"
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// Reduces standard error to the part that begins with Git's first error message: progress before it explains nothing.
fn reported(mut output: Output) -> Output {
    let mut start = 0;
    for line in output.stderr.split_inclusive(|byte| *byte == b'\n') {
        if is_complaint(line) {
            output.stderr.drain(..start);
            break;
        }
        start += line.len();
    }
    output
}

fn is_complaint(line: &[u8]) -> bool {
    line.starts_with(b"fatal: ") || line.starts_with(b"error: ")
}

/// Returns whether Git failed because another Git was at work in the same repository.
fn is_of_another_git(stderr: &[u8]) -> bool {
    let complaints = stderr.split(|byte| *byte == b'\n').rev().filter(|line| is_complaint(line));
    complaints
        .take(LINES_LOOKED_AT)
        .any(|line| is_passing(&String::from_utf8_lossy(&line["fatal: ".len()..])))
}

/// Returns whether an error message, without its `fatal: ` or `error: `, describes a temporary state.
fn is_passing(complaint: &str) -> bool {
    // An admin directory under `worktrees` is read or removed while it is being created.
    (complaint.starts_with("failed to read ")
        && (complaint.ends_with("/commondir: Success")
            || complaint.ends_with("/commondir: No such file or directory")))
        || (complaint.starts_with("could not open '")
            && complaint.contains("/worktrees/")
            && complaint.ends_with("' for writing: No such file or directory"))
        || complaint.starts_with("could not find created worktree '")
        // Another process owns a lock of the repository that is locked only briefly.
        || (complaint.starts_with("could not lock config file ") && complaint.ends_with(": File exists"))
        || complaint.ends_with("/packed-refs.lock': File exists.")
}

fn shortened(pause: Duration) -> Duration {
    // Every `RandomState` has other keys, which is random enough here.
    let kept = 512 + RandomState::new().hash_one(()) % 512;
    pause * u32::try_from(kept).unwrap_or(1024) / 1024
}

#[cfg(test)]
mod tests;
