//! git, hardened: no hooks, no fsmonitor, no network, no inherited repository, no prompt.
//!
//! A repository's configuration belongs to whoever can write to it, an agent in a linked worktree among them, and
//! names programs that git would run. Filters (`git lfs` is one) stay on: without them a checkout is not the tree.

pub mod checkouts;
pub mod config;
mod obstacles;
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

/// What every call is given on the command line, where no configuration can undo it.
const HARDENED: [&str; 22] = [
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.sshCommand=false",
    "-c",
    "core.askpass=true",
    "-c",
    "protocol.allow=never",
    "-c",
    "submodule.recurse=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    // What checks signatures is a program that the configuration names.
    "-c",
    "log.showSignature=false",
    "-c",
    "gpg.program=false",
    "-c",
    "gpg.ssh.program=false",
    "-c",
    "gpg.x509.program=false",
];

/// Arguments of every call beside [`HARDENED`], unless the repository's hooks are to run.
///
/// Since 2.54 Git also runs hooks that the configuration defines (`hook.NAME.command`), wherever `core.hooksPath` points.
/// `hook.EVENT.enabled` turns them off, and these are the events that calls of this crate cause.
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

/// What every call has in its environment. Messages are matched, so they have to be in English. A call that only
/// reads takes no lock, which would be in the way of the git of somebody else.
const VARIABLES: [(&str, &str); 6] = [
    ("LC_ALL", "C"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    // No transport at all. Git before 2.39.4, 2.40.2, 2.41.1, 2.42.2, 2.43.4 and 2.44.1 does not know the variable above, and
    // a repository's `protocol.ext.allow` overrides `protocol.allow`. A transport may be a program of the repository's choice.
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    // What it says is read as a whole, and need not be written line by line.
    ("GIT_FLUSH", "0"),
];

/// How long one call may take. The slowest is a checkout, where millions of files on a slow disk take minutes; a git
/// that runs for longer waits for something that will not come.
pub const DEADLINE: Duration = Duration::from_mins(10);

/// How often a call is made that fails because of another git, at most. Beside two `git worktree prune` in a loop 7
/// were the most that 100 calls needed.
const TRIES: u32 = 10;

/// The first pause between two such calls, and the longest; each is cut at random by up to a half, so that two who
/// are in each other's way do not stay so.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How many of the last `fatal:` and `error:` lines are looked at for another git's traces: git says first what it
/// met, then up to two times what it gives up because of that.
const LINES_LOOKED_AT: usize = 3;

/// git, pointed at one repository.
///
/// Before the first call git is asked which version it is; what one that is too old answers is
/// [`Error::TooOld`], whatever it was asked beside that. Where git would wait for something that is no file, it
/// is not asked at all ([`Error::Obstructed`]). No call inherits a `GIT_*` variable, and every one ends with the run's
/// [`Cancel`](super::process::Cancel): what takes a cancelled run back needs a [`Host`] with a fresh one.
#[derive(Clone, Debug)]
pub struct Git<'a> {
    host: &'a Host,
    repository: Repository<'a>,
    lock: Option<&'a File>,
    hooks: bool,
    of_any_version: bool,
    variables: Vec<(OsString, OsString)>,
    settings: Vec<&'a str>,
    deadline: Duration,
}

/// What does not have to be asked or looked for again.
#[derive(Debug, Default)]
pub(crate) struct Known {
    said: version::Said,
}

#[derive(Clone, Copy, Debug)]
enum Repository<'a> {
    Around(&'a Path),
    Of { git_dir: &'a Path, work_tree: Option<&'a Path> },
}

impl<'a> Git<'a> {
    /// git as it finds the repository around `directory` by itself.
    pub fn around(host: &'a Host, directory: &'a Path) -> Self {
        Self::new(host, Repository::Around(directory))
    }

    /// git with the repository given: an agent can replace a worktree's `.git` file, but not this.
    ///
    /// Both paths are absolute, `git_dir` a repository's own or the entry of a linked worktree. Relative paths in
    /// arguments start at `work_tree`, which has to exist; where there is none, at `git_dir`.
    pub fn of(host: &'a Host, git_dir: &'a Path, work_tree: Option<&'a Path>) -> Self {
        Self::new(host, Repository::Of { git_dir, work_tree })
    }

    fn new(host: &'a Host, repository: Repository<'a>) -> Self {
        Self {
            host,
            repository,
            lock: None,
            hooks: false,
            of_any_version: false,
            variables: Vec::new(),
            settings: Vec::new(),
            deadline: host.git_deadline,
        }
    }

    /// Has git hold the lock that `lock` carries for as long as it lives, by inheriting it as its standard input.
    #[must_use]
    pub fn holding(mut self, lock: Option<&'a File>) -> Self {
        self.lock = lock;
        self
    }

    /// Lets the repository's hooks run, which are off by default: they are programs of whoever can write to it.
    #[must_use]
    pub fn with_hooks(mut self, hooks: bool) -> Self {
        self.hooks = hooks;
        self
    }

    /// Lets calls begin before git has said which version it is, for whoever asks that beside them and gives up what one
    /// that is too old has answered.
    #[must_use]
    pub(crate) fn of_any_version(mut self) -> Self {
        self.of_any_version = true;
        self
    }

    /// Ends a call after `deadline`, where that is less than what the host gives every call.
    #[must_use]
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = self.deadline.min(deadline);
        self
    }

    /// Sets one variable, a `GIT_*` one too: `GIT_INDEX_FILE`, `GIT_AUTHOR_NAME`.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Sets one setting of the configuration, whatever the repository's own says: `core.splitIndex=false`.
    #[must_use]
    pub fn with_setting(mut self, setting: &'a str) -> Self {
        self.settings.push(setting);
        self
    }

    /// Runs git and returns what it printed; a status other than 0 is an error.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Vec<u8>, Error> {
        let process = self.process(args)?;
        let command = process.command();
        reported(process.output()?).success(command)
    }

    /// Runs git with `input` on its standard input, in place of a lock, and returns what it printed.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let process = self.process(args)?.stdin(Stdin::Bytes(input));
        let command = process.command();
        reported(process.output()?).success(command)
    }

    /// Runs git and returns what it printed as text, without the white space around it.
    pub fn line<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.run(args)?).trim().to_owned())
    }

    /// Runs git and returns what it printed as a path, byte by byte, without the line feed behind it.
    pub fn path<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<PathBuf, Error> {
        let mut bytes = self.run(args)?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        Ok(OsString::from_vec(bytes).into())
    }

    /// Runs git; any exit status is a result.
    pub fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output, Error> {
        self.process(args)?.output()
    }

    /// Runs git again, at most ten times with growing pauses, while it fails because of another git beside it
    /// (`reliability.md`, R16); anything else fails at once.
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

    /// Makes sure that git is new enough, and would not wait for what is no file of its own.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.of_any_version {
            version::require(self.host)?;
        }
        match self.repository {
            Repository::Around(directory) => obstacles::around(directory),
            Repository::Of { git_dir, .. } => obstacles::of(git_dir),
        }
    }

    fn process<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Process, Error> {
        self.check()?;
        self.unasked(args)
    }

    /// The same, whichever git it is.
    fn unasked<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Process, Error> {
        let inherited = self.host.environment.iter().filter(|(name, _)| !is_scrubbed(name)).cloned();
        let fixed = VARIABLES.map(|(name, value)| (name.into(), value.into()));
        let mut process = Process::new("git")
            .unsaid_args(HARDENED)
            .unsaid_args(WITHOUT_HOOKS.into_iter().filter(|_| !self.hooks))
            .envs(inherited.chain(fixed).chain(self.variables.iter().cloned()))
            .deadline(self.deadline)
            .watched()
            .cancel(&self.host.cancel);
        process = match self.repository {
            Repository::Around(directory) => process.arg("-C").arg(directory),
            Repository::Of { git_dir, work_tree: Some(work_tree) } => process
                .arg(option("--git-dir=", git_dir))
                .arg(option("--work-tree=", work_tree))
                .current_dir(work_tree),
            // Without a work tree git takes the current directory for one, so that must be nobody's.
            Repository::Of { git_dir, work_tree: None } => {
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

/// Tells whether a variable is kept from git: those that point it at a repository or give it configuration, and those
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

/// Leaves of standard error what begins with git's own complaint: progress before it explains nothing.
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

/// Tells whether git failed because another git was at work in the same repository at that moment.
fn is_of_another_git(stderr: &[u8]) -> bool {
    let complaints = stderr.split(|byte| *byte == b'\n').rev().filter(|line| is_complaint(line));
    complaints
        .take(LINES_LOOKED_AT)
        .any(|line| is_passing(&String::from_utf8_lossy(&line["fatal: ".len()..])))
}

/// Tells whether a complaint, without its `fatal: ` or `error: `, is of something that passes.
fn is_passing(complaint: &str) -> bool {
    // An entry under `worktrees` is read or removed while it is being made.
    (complaint.starts_with("failed to read ")
        && (complaint.ends_with("/commondir: Success")
            || complaint.ends_with("/commondir: No such file or directory")))
        || (complaint.starts_with("could not open '")
            && complaint.contains("/worktrees/")
            && complaint.ends_with("' for writing: No such file or directory"))
        || complaint.starts_with("could not find created worktree '")
        // Somebody holds a lock of the repository that is held for a moment only.
        || (complaint.starts_with("could not lock config file ") && complaint.ends_with(": File exists"))
        || complaint.ends_with("/packed-refs.lock': File exists.")
}

fn shortened(pause: Duration) -> Duration {
    // Every `RandomState` has other keys, which is all the chance that is needed.
    let kept = 512 + RandomState::new().hash_one(()) % 512;
    pause * u32::try_from(kept).unwrap_or(1024) / 1024
}

#[cfg(test)]
mod tests;
