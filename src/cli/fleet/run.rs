//! `fleet destroy` and `recover`, and the result of a run over all hosts of a fleet.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use seedbed::fleet::coordinator::{Outcome, Part};
use seedbed::fleet::directory::Index;
use seedbed::host::text::{printable_lines, shell_quoted};
use seedbed::report::error;
use seedbed::state::Verdict;

use super::allocate::release_if_unused;
use super::opened::{Fleet, FleetArguments, degraded};
use crate::cli::Global;
use crate::cli::apply::{ask, has_terminal};
use crate::cli::exit::{Failure, Status};
use crate::cli::observe::host_name;
use crate::cli::output::count;
use crate::cli::project::Project;

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
pub(super) struct ReleaseArguments {
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
    pub(super) forget: Vec<String>,
}

impl ReleaseArguments {
    pub(super) fn words(&self) -> Vec<&'static str> {
        let words = [(self.rescue, "--rescue"), (self.discard, "--discard"), (self.stop, "--stop")];
        words.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word).collect()
    }
}

pub(super) fn destroy(global: &Global, arguments: &DestroyArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, &arguments.fleet.reach, false)?;
    let index = fleet.directory.index()?;
    let mut hosts = fleet.hosts_without(index.as_ref(), &arguments.release.forget)?;
    // A spare that is lost has nothing to release.
    let with_sessions = index.as_ref().map(Index::hosts_with_sessions).unwrap_or_default();
    if !with_sessions.is_empty() {
        hosts.retain(|host| with_sessions.contains(host.as_str()));
    }
    let launcher = fleet.launcher(&project)?;
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
    let reached = fleet.hosts(&project, launcher.as_ref());
    let coordinator = fleet.coordinate(reached, arguments.fleet.timeout)?;
    fleet.require_last(index.as_ref())?;
    fleet.directory.tidy()?;
    let run = fleet.directory.new_run()?;
    let parts: Vec<_> = hosts.iter().map(|host| Part::new(host.clone(), None)).collect();
    let released = Index::released(&fleet.config.swarm, &run, &hosts)
        .with_forgotten(index.as_ref(), &arguments.release.forget);
    let outcome = coordinator.run("release", &parts, &arguments.release.words(), &released)?;
    let allocated = launcher.allocated().map(|allocated| allocated.hosts).unwrap_or_default();
    // A host that could not follow needs the allocation until it has recovered.
    if !outcome.unresolved.iter().any(|problem| allocated.contains(&problem.host)) {
        release_if_unused(global, &fleet, launcher.as_ref())?;
    }
    let ended = fleet.end(global, &outcome, hosts.len(), 0);
    if ended.is_ok() && arguments.release.rescue && !global.json {
        fleet.say_rescues(&hosts)?;
    }
    ended
}

pub(super) fn recover(global: &Global, arguments: &FleetArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, &arguments.reach, false)?;
    let launcher = fleet.launcher(&project)?;
    let coordinator = fleet.coordinate(fleet.hosts(&project, launcher.as_ref()), arguments.timeout)?;
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
    release_if_unused(global, &fleet, launcher.as_ref())?;
    if !global.quiet && !global.json {
        say!("every host has followed the decisions of the fleet");
    }
    if global.json {
        fleet.print_index()?;
    }
    Ok(Status::Done.into())
}

impl Fleet {
    /// Prints the places of the rescues of hosts in the directory of the fleet.
    pub(super) fn say_rescues(&self, hosts: &[String]) -> Result<(), Failure> {
        for host in hosts {
            let rescues = self.directory.rescues(host)?.map(|found| found.rescues).unwrap_or_default();
            if rescues.is_empty() {
                continue;
            }
            let sessions: BTreeSet<_> = rescues.iter().map(|rescue| &rescue.session).collect();
            let bundles: BTreeSet<_> = rescues.iter().map(|rescue| &rescue.bundle).collect();
            let at = self.directory.path().join("rescues").join(host);
            say!("rescues of {} of host {host} are in {}", count(sessions.len(), "session"), at.display());
            for bundle in bundles {
                let bundle = shell_quoted(&at.join(bundle).to_string_lossy());
                say!("  git fetch {bundle} 'refs/seedbed/rescue/*:refs/seedbed/rescue/*'");
            }
        }
        Ok(())
    }

    /// Reports the outcome of a run.
    pub(super) fn end(
        &self,
        global: &Global,
        outcome: &Outcome,
        hosts: usize,
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
            let (sessions, hosts) = (count(sessions, "session"), count(hosts, "host"));
            say!("run {} is committed: {sessions} on {hosts}", decision.run);
        }
        if global.json {
            self.print_index()?;
        }
        Ok(Status::Done.into())
    }
}
