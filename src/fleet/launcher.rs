//! Launchers: the way in which a command is run on the hosts of a fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::LauncherConfig;
use crate::host::Host;
use crate::host::process::{Cancel, Listener, Process};
use crate::host::text::shell_quoted;
use crate::host::waiting;

/// Number of open files per running command, and number of files that are kept free for everything else.
const FILES_EACH: u64 = 5;
const FILES_LEFT: u64 = 64;

/// Largest standard output of a command that is read, in bytes. Nothing depends on it.
pub(super) const OUTPUT_MAX: usize = 1 << 20;

/// Way in which the hosts of a fleet are allocated, and a command is run on them.
pub trait Launcher: Sync {
    /// Allocates all hosts of the request in a limited time, or none; the error is the reason.
    fn allocate(&self, request: &HostRequest, cancel: &Cancel) -> Result<Allocation, String>;

    /// Runs a command on each of these hosts, at most for `limit`, and returns how it ended there.
    ///
    /// The result explains an answer that is missing. It is never an answer: a command that has ended well may have had no
    /// effect, and one that is lost may have done everything.
    fn run(&self, hosts: &[String], command: &HostCommand, limit: Duration, cancel: &Cancel) -> Ended;

    /// Returns the hosts that are alive, as far as the launcher knows; `None` if hosts are not allocated with it.
    fn allocated(&self) -> Option<Allocated>;

    /// Leaves a command to a host that is not reached, which runs it when it returns. Returns a note about that; `None` if
    /// the launcher cannot do so.
    fn defer(&self, host: &str, command: &HostCommand, limit: Duration) -> Option<String>;

    /// Releases the hosts, if this program has allocated them; the error is the reason for which that failed.
    fn release(&self) -> Result<(), String>;

    /// Runs a command on all of these hosts at once, without a limit of time. The output of a host goes to the listener that
    /// `listener` returns for it, while it is printed.
    fn stream(
        &self,
        hosts: &[String],
        command: &HostCommand,
        listener: &(dyn Fn(&str) -> Listener + Sync),
        cancel: &Cancel,
    ) -> Ended;
}

/// Request for hosts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HostRequest {
    /// Number of hosts, at least that of `names`.
    pub count: usize,
    /// Names of hosts that are required.
    pub names: Vec<String>,
    /// Further arguments of the program that allocates hosts.
    pub arguments: Vec<String>,
}

impl HostRequest {
    /// Creates a request for `count` hosts, with these among them.
    pub fn new(count: usize, names: Vec<String>, arguments: Vec<String>) -> Self {
        Self { count: count.max(names.len()), names, arguments }
    }
}

/// Hosts that were allocated, and the launcher that reaches them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Allocation {
    /// Names of the hosts.
    pub hosts: Vec<String>,
    /// Launcher.
    pub launcher: LauncherConfig,
}

/// State of an allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Allocated {
    /// Number of the job.
    pub job: u32,
    /// State of the job.
    pub state: JobState,
    /// Names of the hosts that the job has; a host that was lost is not one of them.
    pub hosts: BTreeSet<String>,
    /// Local time at which the job ends, as the engine prints it; absent for an ended job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Reason for which the state is unknown; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// State of the job of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum JobState {
    /// The job has its hosts.
    Running,
    /// The job has ended, so that other jobs may use its hosts.
    Ended,
    /// The engine did not answer, or has suspended the job.
    Unknown,
}

/// End of a command on each host: nothing, or a message.
pub type Ended = BTreeMap<String, Result<(), String>>;

/// Command of seedbed for a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostCommand {
    /// Words of the command; in each, `{host}` stands for the name of the host.
    pub words: Vec<String>,
    /// `true` if the command may run twice on a host.
    pub is_repeatable: bool,
    /// `true` if the command is also run on hosts that the allocation has lost, or whose job has ended.
    pub outlives_job: bool,
}

impl HostCommand {
    /// Creates a command that runs once, on allocated hosts.
    pub fn new(words: Vec<String>) -> Self {
        Self { words, is_repeatable: false, outlives_job: false }
    }

    /// Returns the command for a host, as a line for a shell.
    pub fn for_host(&self, host: &str) -> String {
        let words = self.words.iter().map(|word| shell_quoted(&word.replace("{host}", host)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Returns the command as a line for a shell on any host, where a variable of the environment has the name of the host.
    pub fn for_variable(&self, variable: &str) -> String {
        let name = format!("\"${variable}\"");
        let word = |word: &String| word.split("{host}").map(shell_quoted).collect::<Vec<_>>().join(&name);
        self.words.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

/// Launcher that runs a command of the user for each host, such as `ssh {host} {command}`.
#[derive(Debug)]
#[non_exhaustive]
pub struct CommandLauncher<'h> {
    /// Host whose environment the command has.
    host: &'h Host,
    template: String,
    at_once: usize,
}

impl<'h> CommandLauncher<'h> {
    /// Creates a launcher; the error is the reason for which the template cannot be used.
    ///
    /// Commands run on all hosts at once, because they mostly wait: with `jobs`, on so many. Fewer run at once if the limit of
    /// open files requires that.
    pub fn new(host: &'h Host, template: &str, jobs: Option<NonZeroUsize>) -> Result<Self, String> {
        if template.contains("{command}") {
            let at_once = jobs.map_or(usize::MAX, NonZeroUsize::get).min(room());
            return Ok(Self { host, template: template.to_owned(), at_once });
        }
        Err("a launcher has `{command}` in it, and `{host}`: `ssh {host} {command}`".to_owned())
    }

    /// Returns the process that runs a command on a host.
    fn process(&self, host: &str, command: &HostCommand, cancel: &Cancel) -> Process {
        // A host has no character that a shell interprets. The command is one word, which the remote shell reads.
        let line = self
            .template
            .replace("{host}", host)
            .replace("{command}", &shell_quoted(&command.for_host(host)));
        Process::new("sh").args(["-c", &line]).envs(self.host.environment.iter().cloned()).cancel(cancel)
    }
}

impl Launcher for CommandLauncher<'_> {
    fn allocate(&self, request: &HostRequest, _: &Cancel) -> Result<Allocation, String> {
        if request.names.len() < request.count {
            return Err(format!("{} hosts are needed, and {} named", request.count, request.names.len()));
        }
        let launcher = LauncherConfig::Command { command: self.template.clone() };
        Ok(Allocation { hosts: request.names.clone(), launcher })
    }

    fn run(&self, hosts: &[String], command: &HostCommand, limit: Duration, cancel: &Cancel) -> Ended {
        on_each(hosts, self.at_once, |host| {
            ended(self.process(host, command, cancel).deadline(limit).stdout_max(OUTPUT_MAX))
        })
    }

    fn stream(
        &self,
        hosts: &[String],
        command: &HostCommand,
        listener: &(dyn Fn(&str) -> Listener + Sync),
        cancel: &Cancel,
    ) -> Ended {
        on_each(hosts, hosts.len(), |host| {
            ended(self.process(host, command, cancel).listener(listener(host)))
        })
    }

    fn allocated(&self) -> Option<Allocated> {
        None
    }

    fn defer(&self, _: &str, _: &HostCommand, _: Duration) -> Option<String> {
        None
    }

    fn release(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Runs a process, and returns how it ended.
pub(super) fn ended(process: Process) -> Result<(), String> {
    process.run().map(drop).map_err(|error| error.to_string())
}

/// Calls a function for each host, for so many hosts at once.
pub(super) fn on_each(
    hosts: &[String],
    at_once: usize,
    run: impl Fn(&str) -> Result<(), String> + Sync,
) -> Ended {
    waiting::map(hosts, at_once, |host| (host.clone(), run(host))).into_iter().collect()
}

/// Returns the number of commands that can run at once, at least 1.
pub fn room() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(FILES_LEFT) / FILES_EACH).unwrap_or(usize::MAX).max(1)
}
