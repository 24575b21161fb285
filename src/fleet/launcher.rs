//! Launchers: the way in which a command is run on the hosts of a fleet.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::host::Host;
use crate::host::process::{Cancel, Process};
use crate::host::text::shell_quoted;

/// Maximum number of hosts on which a command runs at once.
const FAN_OUT: usize = 64;

/// Largest standard output of a command that is read, in bytes. Nothing depends on it.
const OUTPUT_MAX: usize = 1 << 20;

/// Way in which a command is run on the hosts of a fleet.
pub trait Launcher: Sync {
    /// Runs a command on each of these hosts, at most for `limit`, and returns how it ended there.
    ///
    /// The result explains an answer that is missing. It is never an answer: a command that has ended well may have had no
    /// effect, and one that is lost may have done everything.
    fn run(&self, hosts: &[String], command: &HostCommand, limit: Duration, cancel: &Cancel) -> Ended;
}

/// End of a command on each host: nothing, or a message.
pub type Ended = BTreeMap<String, Result<(), String>>;

/// Command of seedbed for a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostCommand {
    /// Words of the command; in each, `{host}` stands for the name of the host.
    pub words: Vec<String>,
}

impl HostCommand {
    /// Creates a command.
    pub fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    /// Returns the command for a host, as a line for a shell.
    pub fn for_host(&self, host: &str) -> String {
        let words = self.words.iter().map(|word| shell_quoted(&word.replace("{host}", host)));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Launcher that runs a command of the user for each host, such as `ssh {host} {command}`.
#[derive(Debug)]
#[non_exhaustive]
pub struct CommandLauncher<'h> {
    /// Host whose environment the command has.
    host: &'h Host,
    template: String,
}

impl<'h> CommandLauncher<'h> {
    /// Creates a launcher; the error is the reason for which the template cannot be used.
    pub fn new(host: &'h Host, template: &str) -> Result<Self, String> {
        if template.contains("{command}") {
            return Ok(Self { host, template: template.to_owned() });
        }
        Err("a launcher has `{command}` in it, and `{host}`: `ssh {host} {command}`".to_owned())
    }

    /// Returns the line for the shell of this host.
    fn line(&self, host: &str, command: &HostCommand) -> String {
        // A host has no character that a shell interprets. The command is one word, which the remote shell reads.
        self.template.replace("{host}", host).replace("{command}", &shell_quoted(&command.for_host(host)))
    }
}

impl Launcher for CommandLauncher<'_> {
    fn run(&self, hosts: &[String], command: &HostCommand, limit: Duration, cancel: &Cancel) -> Ended {
        let (next, ended) = (AtomicUsize::new(0), Mutex::new(Ended::new()));
        thread::scope(|scope| {
            for _ in 0..hosts.len().min(FAN_OUT) {
                scope.spawn(|| {
                    while let Some(host) = hosts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let process = Process::new("sh")
                            .args(["-c", &self.line(host, command)])
                            .envs(self.host.environment.iter().cloned())
                            .deadline(limit)
                            .stdout_max(OUTPUT_MAX)
                            .cancel(cancel);
                        let done = process.run().map(drop).map_err(|error| error.to_string());
                        ended.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), done);
                    }
                });
            }
        });
        ended.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
