//! `fleet apply`, `destroy` and `recover`: runs over all hosts of a fleet.

use std::process::ExitCode;

use clap::Args;
use seedbed::fleet::coordinator::{Outcome, Part};
use seedbed::fleet::directory::Index;
use seedbed::fleet::{self, FleetPlan, review};
use seedbed::host::text::printable_lines;
use seedbed::plan::{Action, Change, Plan};
use seedbed::report::error;
use seedbed::state::{self, Verdict};

use super::opened::{Fleet, FleetArguments, degraded, refused};
use super::plan::make;
use crate::cli::Global;
use crate::cli::apply::{ask, digest, has_terminal};
use crate::cli::exit::{Failure, Status};
use crate::cli::observe::host_name;
use crate::cli::output::count;
use crate::cli::project::Project;

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
    let reached = fleet.hosts(&project, launcher.as_ref());
    // Undecided runs are decided, and another coordinator is named, before hosts are asked.
    drop(fleet.coordinate(reached, arguments.fleet.timeout)?);
    let (observations, problems) = reached.observe(&state::new_owner()?, &hosts);
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
    // The question holds no lock. A host whose facts have changed since refuses its part.
    let coordinator = fleet.coordinate(reached, arguments.fleet.timeout)?;
    let run = fleet.directory.new_run()?;
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
    if !global.quiet && !global.json {
        say!("every host has followed the decisions of the fleet");
    }
    if global.json {
        fleet.print_index()?;
    }
    Ok(Status::Done.into())
}

impl Fleet {
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
