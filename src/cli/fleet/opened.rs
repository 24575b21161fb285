//! Fleet of a command: its directory, its hosts, and the way in which they are reached.
#![expect(clippy::disallowed_methods, reason = "resolves the directories that the user names")]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use seedbed::fleet::coordinator::{Coordinator, HostProblem, Hosts};
use seedbed::fleet::directory::{DirectoryError, FleetDirectory, Index};
use seedbed::fleet::launcher::{self, CommandLauncher, Launcher};
use seedbed::fleet::slurm::SlurmLauncher;
use seedbed::fleet::{Config, LauncherConfig};
use seedbed::host::text::{printable, printable_lines};
use seedbed::report::error;

use crate::cli::exit::Failure;
use crate::cli::observe::host_name;
use crate::cli::project::{self, Project};
use crate::cli::{Global, duration, output};

/// Default for the time in which a host prepares its part: a `setup` may take a while.
const RUN_LIMIT: &str = "30m";

/// Directory of a fleet, the way in which its hosts are reached, and a limit of time.
#[derive(Clone, Debug, Args)]
pub(super) struct FleetArguments {
    #[command(flatten)]
    pub(super) reach: ReachArguments,
    /// End a phase on hosts that take longer (`90`, `2m`)
    #[arg(long, value_name = "TIME", default_value = RUN_LIMIT, value_parser = duration)]
    pub(super) timeout: Duration,
}

/// Directory of a fleet, and the way in which its hosts are reached.
#[derive(Clone, Debug, Args)]
pub(super) struct ReachArguments {
    /// Directory that all hosts share, at this path on each
    #[arg(value_name = "DIR")]
    shared: PathBuf,
    /// Names of the hosts, with a comma between them; with `--slurm`, a number too [default: those of the last run]
    #[arg(long, value_name = "HOST,…", value_delimiter = ',', value_parser = host_name)]
    pub(super) hosts: Vec<String>,
    /// Command of a shell that runs `{command}` on `{host}`, as `ssh {host} {command}` [default: that of the last run]
    #[arg(long, value_name = "COMMAND")]
    launcher: Option<String>,
    /// Directory of the manifest on each host; `{host}` stands for its name [default: that of the last run, or the same as here]
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
}

impl ReachArguments {
    /// Opens the directory of the fleet; `is_new` permits a new one.
    pub(super) fn directory(&self, global: &Global, is_new: bool) -> Result<FleetDirectory, Failure> {
        let path = project::directory(global)?.join(&self.shared);
        let absolute = std::path::absolute(&path).unwrap_or(path);
        if is_new {
            FleetDirectory::create(&absolute)?;
        }
        // Hosts get the path without links and `..`.
        let path = std::fs::canonicalize(&absolute).unwrap_or(absolute);
        Ok(FleetDirectory::open(&path)?)
    }

    /// Returns the directory of the manifest on each host.
    pub(super) fn root_or(&self, project: &Project, saved: Option<Config>) -> String {
        let own = || std::fs::canonicalize(project.directory()).unwrap_or_default();
        let saved = saved.map(|saved| saved.directory);
        self.root.clone().or(saved).unwrap_or_else(|| own().to_string_lossy().into_owned())
    }
}

/// Fleet of a command.
pub(super) struct Fleet {
    pub(super) directory: FleetDirectory,
    pub(super) config: Config,
    /// Number of hosts that are asked at once; `None` for all.
    pub(super) jobs: Option<NonZeroUsize>,
}

impl Fleet {
    /// Opens the fleet, with the options of this command instead of those of the last run. `is_new` permits a new one.
    pub(super) fn open(
        global: &Global,
        project: &Project,
        arguments: &ReachArguments,
        is_new: bool,
    ) -> Result<Self, Failure> {
        let directory = arguments.directory(global, is_new)?;
        let is_complete =
            !arguments.hosts.is_empty() && arguments.launcher.is_some() && arguments.root.is_some();
        let saved = match directory.config() {
            // A configuration that cannot be read is written again.
            Err(DirectoryError::Invalid { .. }) if is_complete => None,
            Err(error @ DirectoryError::Invalid { .. }) => {
                let help = "help: write it again: pass `--hosts`, `--launcher` and `--root`";
                return Err(Failure::new(error::FLEET_DIRECTORY, format!("{error}\n{help}")));
            }
            saved => saved?,
        };
        // A host that was given up takes part again only if it is named.
        let index = if saved.is_some() { directory.index()? } else { None };
        let is_left = |host: &&String| index.as_ref().is_none_or(|index| !index.is_forgotten(host));
        let swarm = project.swarm()?.name().to_owned();
        if let Some(saved) = saved.as_ref().filter(|saved| saved.swarm != swarm) {
            let message = format!(
                "{} is the fleet of swarm `{}`, and the manifest declares `{swarm}`",
                directory.path().display(),
                saved.swarm
            );
            return Err(Failure::new(error::USAGE, message));
        }
        let manifest = if project.has_manifest() {
            Some(directory.write_manifest(project.file_name(), project.text())?)
        } else {
            saved.as_ref().and_then(|saved| saved.manifest.clone())
        };
        let missing =
            |option: &str| Failure::new(error::USAGE, format!("the fleet is new\nhelp: pass {option}"));
        let before = saved.clone();
        let hosts = Some(arguments.hosts.clone()).filter(|hosts| !hosts.is_empty());
        let given = arguments.launcher.clone().map(|command| LauncherConfig::Command { command });
        let mut config = Config::new(
            swarm,
            hosts
                .or(before.as_ref().map(|saved| saved.hosts.iter().filter(is_left).cloned().collect()))
                .ok_or_else(|| missing("`--hosts HOST,…`"))?,
            given
                .or(before.map(|saved| saved.launcher))
                .ok_or_else(|| missing("`--launcher 'ssh {host} {command}'`"))?,
            arguments.root_or(project, saved),
        );
        config.manifest = manifest;
        let names: BTreeSet<_> = config.hosts.iter().collect();
        if names.len() < config.hosts.len() {
            return Err(Failure::new(error::USAGE, "a host is named twice in `--hosts`"));
        }
        Ok(Self { directory, config, jobs: global.jobs })
    }

    /// Returns the launcher.
    pub(super) fn launcher<'p>(&'p self, project: &'p Project) -> Result<Box<dyn Launcher + 'p>, Failure> {
        Ok(match &self.config.launcher {
            LauncherConfig::Slurm(job) => {
                Box::new(SlurmLauncher::new(&project.host, &self.directory, Some(job.clone())))
            }
            LauncherConfig::Command { command } => {
                let (hosts, room) = (self.config.hosts.len(), launcher::room());
                if self.jobs.map_or(hosts, NonZeroUsize::get).min(hosts) > room {
                    let help = "raise the limit of open files (`ulimit -n`) for more";
                    say!("note: {room} of {hosts} hosts work at once; {help}");
                }
                Box::new(
                    CommandLauncher::new(&project.host, command, self.jobs)
                        .map_err(|why| Failure::new(error::USAGE, why))?,
                )
            }
        })
    }

    /// Returns the hosts as this launcher reaches them.
    pub(super) fn hosts<'c>(&'c self, project: &'c Project, launcher: &'c dyn Launcher) -> Hosts<'c> {
        Hosts::new(&self.directory, &self.config, launcher, &project.host.cancel)
    }

    /// Takes the lock of the fleet, and saves its configuration. A phase ends on hosts that take longer than `limit`.
    pub(super) fn coordinate<'c>(
        &self,
        hosts: Hosts<'c>,
        limit: Duration,
    ) -> Result<Coordinator<'c>, Failure> {
        let coordinator = hosts.coordinate(limit)?;
        self.directory.set_config(&self.config)?;
        Ok(coordinator)
    }

    /// Refuses if another run was committed since `index` was read: hosts may have got sessions, or lost them.
    pub(super) fn require_last(&self, index: Option<&Index>) -> Result<(), Failure> {
        let last = self.directory.index()?;
        if last.as_ref().map(|last| &last.run) == index.map(|index| &index.run) {
            return Ok(());
        }
        let run = last.map(|last| last.run).unwrap_or_default();
        let message = format!(
            "run {run} of the fleet was committed meanwhile, so the plan is stale; nothing was changed\nhelp: run the command again"
        );
        Err(Failure::new(error::PLAN_STALE, message))
    }

    /// Returns the hosts of a run. A host that has sessions takes part, unless it is forgotten.
    pub(super) fn hosts_without(
        &self,
        index: Option<&Index>,
        forgotten: &[String],
    ) -> Result<Vec<String>, Failure> {
        let is_known = |host: &&String| {
            self.config.hosts.contains(*host)
                || index.is_some_and(|index| {
                    index.is_forgotten(host) || index.hosts_with_sessions().contains(host.as_str())
                })
        };
        if let Some(unknown) = forgotten.iter().find(|host| !is_known(host)) {
            let message = format!("{} is no host of the fleet", printable(unknown));
            return Err(Failure::new(error::USAGE, message));
        }
        let with_sessions = index.into_iter().flat_map(Index::hosts_with_sessions);
        let named: BTreeSet<_> = forgotten.iter().chain(&self.config.hosts).map(String::as_str).collect();
        let absent = with_sessions
            .filter(|host| !named.contains(host))
            .map(|host| HostProblem::new(host, "it has sessions of the fleet"));
        let absent: Vec<_> = absent.collect();
        if !absent.is_empty() {
            let help = "help: name them too, or give up what they have with `--forget HOST`";
            let what = listed("hosts with sessions are not named by `--hosts`", &absent);
            return Err(Failure::new(error::FLEET_ABORTED, format!("{what}\n{help}")));
        }
        let hosts = self.config.hosts.iter().filter(|host| !forgotten.contains(host));
        Ok(hosts.cloned().collect())
    }

    /// Prints the sessions of all hosts.
    pub(super) fn print_index(&self) -> Result<(), Failure> {
        let index = self.directory.index()?;
        output::print_json_pretty(&index.unwrap_or_else(|| Index::empty(&self.config.swarm, "")));
        Ok(())
    }
}

/// Returns the error of a run that is decided, and that hosts have not followed.
pub(super) fn degraded(what: &str, problems: &[HostProblem]) -> Failure {
    let help = "help: once these hosts can be reached, run `seedbed fleet recover DIR`; any seedbed on such a host does the same";
    Failure::new(error::FLEET_DEGRADED, format!("{}\n{help}", listed(what, problems)))
}

/// Returns a line, and one for each host with its problem.
pub(super) fn listed(what: &str, problems: &[HostProblem]) -> String {
    let line = |HostProblem { host, why, .. }: &HostProblem| {
        format!("  {}: {}", printable(host), printable_lines(why).replace('\n', "\n  "))
    };
    std::iter::once(what.to_owned()).chain(problems.iter().map(line)).collect::<Vec<_>>().join("\n")
}
