//! `fleet apply`, `destroy`, `recover` and `status`: runs over all hosts of a fleet.
#![expect(clippy::disallowed_methods, reason = "resolves the directories that the user names")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seedbed::fleet::coordinator::{self, Coordinator, HostProblem, Limits, Outcome, Part};
use seedbed::fleet::directory::{Config, FleetDirectory, Index};
use seedbed::fleet::launcher::CommandLauncher;
use seedbed::fleet::report::{FleetHost, FleetStatus, HostState};
use seedbed::fleet::{self, FleetPlan, review};
use seedbed::host::text::{printable, printable_lines};
use seedbed::plan::{Action, Change, Plan};
use seedbed::report::error;
use seedbed::state::{self, Verdict};

use super::plan::make;
use crate::cli::apply::{ask, digest, has_terminal};
use crate::cli::exit::{Failure, Status};
use crate::cli::observe::host_name;
use crate::cli::output::{self, count};
use crate::cli::project::{self, Project};
use crate::cli::{Global, duration};

/// Default for the time in which a host prepares its part: a `setup` may take a while.
const RUN_LIMIT: &str = "30m";

/// Limit of time for an observation and a report.
const READ_LIMIT: Duration = Duration::from_mins(5);

/// Directory of a fleet, and the way in which its hosts are reached.
#[derive(Debug, Args)]
pub(super) struct FleetArguments {
    /// Directory that all hosts share, at this path on each
    #[arg(value_name = "DIR")]
    shared: PathBuf,
    /// Names of the hosts, with a comma between them [default: those of the last run]
    #[arg(long, value_name = "HOST,…", value_delimiter = ',', value_parser = host_name)]
    hosts: Vec<String>,
    /// Command of a shell that runs `{command}` on `{host}`, as `ssh {host} {command}` [default: that of the last run]
    #[arg(long, value_name = "COMMAND")]
    launcher: Option<String>,
    /// Directory of the manifest on each host; `{host}` stands for its name [default: that of the last run, or the same as here]
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// End a phase on hosts that take longer (`90`, `2m`)
    #[arg(long, value_name = "TIME", default_value = RUN_LIMIT, value_parser = duration)]
    timeout: Duration,
}

/// Arguments of `fleet apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArguments {
    #[command(flatten)]
    fleet: FleetArguments,
    /// Apply only a plan with this digest: `sha256:` and 64 digits, as `fleet plan` prints it
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    expect: Option<String>,
    #[command(flatten)]
    release: ReleaseArguments,
}

/// Arguments of `fleet destroy`.
#[derive(Debug, Args)]
pub(super) struct DestroyArguments {
    #[command(flatten)]
    fleet: FleetArguments,
    #[command(flatten)]
    release: ReleaseArguments,
}

/// Treatment of unsaved work and processes on every host.
#[derive(Debug, Args)]
struct ReleaseArguments {
    /// Save unsaved work on its host under refs/seedbed/rescue first
    #[arg(long, conflicts_with = "discard")]
    rescue: bool,
    /// Discard unsaved work
    #[arg(long)]
    discard: bool,
    /// End processes that use released sessions
    #[arg(long)]
    stop: bool,
    /// Go on without this host, which is lost for good with its sessions; can be repeated
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    forget: Vec<String>,
}

impl ReleaseArguments {
    fn words(&self) -> Vec<&'static str> {
        let words = [(self.rescue, "--rescue"), (self.discard, "--discard"), (self.stop, "--stop")];
        words.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word).collect()
    }
}

pub(super) fn apply(global: &Global, arguments: &ApplyArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let manifest = project.manifest()?;
    let fleet = Fleet::open(global, &project, &arguments.fleet, true)?;
    let hosts = fleet.hosts_without(&arguments.release.forget)?;
    let launcher = fleet.launcher(&project)?;
    let coordinator = fleet.coordinator(&project, &launcher, arguments.fleet.timeout)?;
    let run = fleet.directory.new_run()?;
    let (observations, problems) = coordinator.observe(&run, &hosts);
    global.unless_interrupted()?;
    if !problems.is_empty() {
        return Err(refused("hosts could not be observed; nothing was changed", &problems));
    }
    let plan = make(&project, &manifest, observations)?;
    if let Some(expected) = arguments.expect.as_ref().filter(|expected| **expected != plan.digest) {
        let text = review::text(&plan, &project.registry, false);
        let message = format!(
            "the plan has another digest than the expected {expected}; nothing was changed\n\n{text}"
        );
        return Err(Failure::new(error::PLAN_UNEXPECTED, message));
    }
    consent(global, &project, &plan)?;
    if !global.quiet && !global.json {
        say!("{}", review::text(&plan, &project.registry, global.verbose));
    }
    fleet::save(&fleet.directory.plan_directory(&run)?, &plan)?;
    let part = |shard: &fleet::PlannedShard| {
        let plan = shard.plan.as_ref().filter(|plan| !plan.sessions().is_empty());
        Part::new(shard.host.clone(), plan.map(|plan| plan.digest().to_owned()))
    };
    let parts: Vec<_> = plan.shards.iter().map(part).collect();
    let words = [&["--expect", plan.digest.as_str()], &arguments.release.words()[..]].concat();
    let index = Index::new(&manifest.swarm, &run, Some(&plan), &project.registry);
    let outcome = coordinator.run("prepare", &parts, &words, &index)?;
    fleet.end(global, &outcome, &hosts, index.sessions.len())
}

pub(super) fn destroy(global: &Global, arguments: &DestroyArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, &arguments.fleet, false)?;
    let hosts = fleet.hosts_without(&arguments.release.forget)?;
    let launcher = fleet.launcher(&project)?;
    let coordinator = fleet.coordinator(&project, &launcher, arguments.fleet.timeout)?;
    if !global.yes {
        let question = format!("Destroy the sessions of {}?", count(hosts.len(), "host"));
        if !has_terminal() {
            let message = format!(
                "the sessions of {} would be destroyed\nhelp: confirm with `--yes`",
                count(hosts.len(), "host")
            );
            return Err(Failure::new(error::CONSENT_REQUIRED, message));
        }
        ask(global, &question)?;
    }
    let run = fleet.directory.new_run()?;
    let parts: Vec<_> = hosts.iter().map(|host| Part::new(host.clone(), None)).collect();
    let index = Index::new(&fleet.config.swarm, &run, None, &project.registry);
    let outcome = coordinator.run("release", &parts, &arguments.release.words(), &index)?;
    fleet.end(global, &outcome, &hosts, 0)
}

pub(super) fn recover(global: &Global, arguments: &FleetArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, arguments, false)?;
    let launcher = fleet.launcher(&project)?;
    let coordinator = fleet.coordinator(&project, &launcher, arguments.timeout)?;
    let Some(run) = fleet.directory.runs()?.pop() else {
        say!("nothing to recover");
        return Ok(Status::Done.into());
    };
    let parts: Vec<_> = fleet.config.hosts.iter().map(|host| Part::new(host.clone(), None)).collect();
    // What is applied on each host depends on runs before this one, too.
    let unresolved = coordinator.resolve(&run, &parts, Verdict::Abort)?;
    if !unresolved.is_empty() {
        return Err(degraded("hosts could not follow the decision", &unresolved));
    }
    if !global.quiet && !global.json {
        say!("every host has followed the decisions of the fleet");
    }
    if global.json {
        fleet.print_index()?;
    }
    Ok(Status::Done.into())
}

pub(super) fn status(global: &Global, arguments: &FleetArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, arguments, false)?;
    let launcher = fleet.launcher(&project)?;
    let request: String = state::new_owner()?;
    let cancel = &project.host.cancel;
    coordinator::report(&fleet.directory, &fleet.config, &launcher, &request, READ_LIMIT, cancel);
    global.unless_interrupted()?;
    fleet.print_status(global, &request)
}

/// Fleet of a command.
struct Fleet {
    directory: FleetDirectory,
    config: Config,
}

impl Fleet {
    /// Opens the fleet, with the options of this command instead of those of the last run. `is_new` permits a new one.
    fn open(
        global: &Global,
        project: &Project,
        arguments: &FleetArguments,
        is_new: bool,
    ) -> Result<Self, Failure> {
        let path = project::directory(global)?.join(&arguments.shared);
        let absolute = std::path::absolute(&path).unwrap_or(path);
        if is_new {
            FleetDirectory::create(&absolute)?;
        }
        // Hosts get the path without links and `..`.
        let path = std::fs::canonicalize(&absolute).unwrap_or(absolute);
        let directory = FleetDirectory::open(&path)?;
        let saved = directory.config()?;
        let swarm = project.swarm()?.name().to_owned();
        if let Some(saved) = saved.as_ref().filter(|saved| saved.swarm != swarm) {
            let message = format!(
                "{} is the fleet of swarm `{}`, and the manifest declares `{swarm}`",
                path.display(),
                saved.swarm
            );
            return Err(Failure::new(error::USAGE, message));
        }
        let missing =
            |option: &str| Failure::new(error::USAGE, format!("the fleet is new\nhelp: pass {option}"));
        let own = std::fs::canonicalize(project.directory()).unwrap_or_default();
        let own = own.to_string_lossy().into_owned();
        let before = saved.clone();
        let hosts = Some(arguments.hosts.clone()).filter(|hosts| !hosts.is_empty());
        let config = Config::new(
            swarm,
            hosts
                .or(before.as_ref().map(|saved| saved.hosts.clone()))
                .ok_or_else(|| missing("`--hosts HOST,…`"))?,
            arguments
                .launcher
                .clone()
                .or(before.as_ref().map(|saved| saved.launcher.clone()))
                .ok_or_else(|| missing("`--launcher 'ssh {host} {command}'`"))?,
            arguments.root.clone().or(before.map(|saved| saved.directory)).unwrap_or(own),
        );
        let names: BTreeSet<_> = config.hosts.iter().collect();
        if names.len() < config.hosts.len() {
            return Err(Failure::new(error::USAGE, "a host is named twice in `--hosts`"));
        }
        Ok(Self { directory, config })
    }

    fn launcher<'p>(&self, project: &'p Project) -> Result<CommandLauncher<'p>, Failure> {
        CommandLauncher::new(&project.host, &self.config.launcher)
            .map_err(|why| Failure::new(error::USAGE, why))
    }

    /// Takes the lock of the fleet, and saves its configuration.
    fn coordinator<'c>(
        &'c self,
        project: &'c Project,
        launcher: &'c CommandLauncher<'c>,
        limit: Duration,
    ) -> Result<Coordinator<'c>, Failure> {
        let limits = Limits::new(limit, READ_LIMIT);
        let cancel = &project.host.cancel;
        let coordinator = Coordinator::new(&self.directory, &self.config, launcher, limits, cancel);
        let coordinator = coordinator?;
        self.directory.set_config(&self.config)?;
        Ok(coordinator)
    }

    /// Returns the hosts of a run. A host that has sessions takes part, unless it is forgotten.
    fn hosts_without(&self, forgotten: &[String]) -> Result<Vec<String>, Failure> {
        let index = self.directory.index()?;
        let with_sessions = index.iter().flat_map(Index::hosts);
        let absent = with_sessions
            .filter(|host| !forgotten.iter().chain(&self.config.hosts).any(|known| known == host))
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

    /// Reports the outcome of a run.
    fn end(
        &self,
        global: &Global,
        outcome: &Outcome,
        hosts: &[String],
        sessions: usize,
    ) -> Result<ExitCode, Failure> {
        let Outcome { decision, unresolved, .. } = outcome;
        if decision.verdict == Verdict::Abort {
            let reasons = decision
                .reasons
                .iter()
                .map(|reason| format!("  {}", printable_lines(reason).replace('\n', "\n  ")));
            let mut lines =
                vec!["the hosts did not all prepare their parts, so none is committed".to_owned()];
            lines.extend(reasons);
            if unresolved.is_empty() {
                lines.push("note: every host was rolled back".to_owned());
                return Err(Failure::new(error::FLEET_ABORTED, lines.join("\n")));
            }
            return Err(degraded(&lines.join("\n"), unresolved));
        }
        if !unresolved.is_empty() {
            return Err(degraded("the run is committed, and hosts have not followed yet", unresolved));
        }
        if !global.quiet && !global.json {
            let (sessions, hosts) = (count(sessions, "session"), count(hosts.len(), "host"));
            say!("run {} is committed: {sessions} on {hosts}", decision.run);
        }
        if global.json {
            self.print_index()?;
        }
        Ok(Status::Done.into())
    }

    /// Prints the sessions of all hosts.
    fn print_index(&self) -> Result<(), Failure> {
        let index = self.directory.index()?;
        output::print_json_pretty(&index.unwrap_or_else(|| Index::empty(&self.config.swarm)));
        Ok(())
    }

    /// Prints what each host has reported; only answers to `request` are current.
    fn print_status(&self, global: &Global, request: &str) -> Result<ExitCode, Failure> {
        let index = self.directory.index()?;
        let mut status = FleetStatus::new(&self.config.swarm, index.as_ref());
        for host in &self.config.hosts {
            let report = self.directory.report(host)?;
            status.hosts.push(FleetHost::new(host, report, request, index.as_ref()));
        }
        if global.json {
            output::print_json_pretty(&status);
        } else {
            let head = ["HOST", "STATE", "SESSIONS", "BROKEN", "UNSAVED", "REPORTED"].map(str::to_owned);
            let rows = status.hosts.iter().map(|host| {
                let [broken, unsaved] = host.counts();
                let at = host.report.as_ref().map_or_else(|| "never".to_owned(), |report| report.at.clone());
                [host.host.clone(), host.state.to_string(), host.sessions.to_string(), broken, unsaved, at]
            });
            let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
            output::print(&output::table(&rows));
        }
        let is_whole = status.hosts.iter().all(|host| host.state == HostState::Applied);
        Ok(if is_whole { Status::Done.into() } else { ExitCode::from(error::FLEET_DEGRADED.exit_code) })
    }
}

/// Requires consent before existing allocations are removed on any host.
fn consent(global: &Global, project: &Project, plan: &FleetPlan) -> Result<(), Failure> {
    let is_removed = |change: &&Change| {
        matches!(change.action, Action::Destroy | Action::Replace) && !change.release.is_empty()
    };
    let plans = || plan.shards.iter().filter_map(|shard| shard.plan.as_ref());
    let removed: Vec<_> =
        plans().flat_map(Plan::changes).filter(is_removed).map(|change| change.session.as_str()).collect();
    if removed.is_empty() || global.yes {
        return Ok(());
    }
    let removed = format!("{} would be destroyed or replaced", count(removed.len(), "session"));
    if !has_terminal() {
        let text = review::text(plan, &project.registry, true);
        let message =
            format!("{removed}\n\n{}\nhelp: review this, then confirm with `--yes`", text.trim_end());
        return Err(Failure::new(error::CONSENT_REQUIRED, message));
    }
    ask(global, &format!("{}\n{removed}. Go on?", review::text(plan, &project.registry, false)))
}

/// Returns the error of hosts that cannot take part.
fn refused(what: &str, problems: &[HostProblem]) -> Failure {
    Failure::new(error::FLEET_ABORTED, listed(what, problems))
}

/// Returns the error of a run that is decided, and that hosts have not followed.
fn degraded(what: &str, problems: &[HostProblem]) -> Failure {
    let help = "help: once these hosts can be reached, run `seedbed fleet recover DIR`; any seedbed on such a host does the same";
    Failure::new(error::FLEET_DEGRADED, format!("{}\n{help}", listed(what, problems)))
}

fn listed(what: &str, problems: &[HostProblem]) -> String {
    let line = |HostProblem { host, why, .. }: &HostProblem| {
        format!("  {}: {}", printable(host), printable_lines(why).replace('\n', "\n  "))
    };
    std::iter::once(what.to_owned()).chain(problems.iter().map(line)).collect::<Vec<_>>().join("\n")
}
