//! `fleet apply` and `repair`: runs that give sessions to hosts.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seedbed::apply;
use seedbed::fleet::clones::Missing;
use seedbed::fleet::coordinator::{HostProblem, Hosts, Observed, Outcome, Part};
use seedbed::fleet::directory::{DirectoryError, Index, manifest_digest};
use seedbed::fleet::{self, FleetPlan, HostObservation, PlannedShard, review};
use seedbed::host::text::{printable, printable_lines};
use seedbed::manifest::Manifest;
use seedbed::observe::Observation;
use seedbed::plan::{Action, Change, Plan};
use seedbed::report::error;
use seedbed::state::{self, Verdict};

use super::allocate::{allocate, release_if_unused, require_allocated};
use super::clone::Cloning;
use super::opened::{Fleet, FleetArguments, listed};
use super::plan::{make, own_commits};
use super::run::ReleaseArguments;
use super::status::print_status;
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
    /// Use hosts that `salloc` allocates with these arguments (`-p PARTITION --time=4:00:00`), or those of the job around
    /// this command
    #[arg(
        long,
        value_name = "ARGUMENTS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        conflicts_with = "launcher"
    )]
    slurm: Option<String>,
    /// Apply only a plan with this digest: `sha256:` and 64 digits, as `fleet plan` prints it
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    expect: Option<String>,
    #[command(flatten)]
    release: ReleaseArguments,
}

/// Arguments of `fleet repair`.
#[derive(Debug, Args)]
pub(super) struct RepairArguments {
    #[command(flatten)]
    fleet: FleetArguments,
    /// Place the sessions of this host, which is lost for good, on other hosts; can be repeated
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    forget: Vec<String>,
}

pub(super) fn apply(global: &Global, arguments: &ApplyArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let Some(words) = &arguments.slurm else {
        return apply_on_hosts(global, &project, arguments, &arguments.fleet);
    };
    let mut fleet = arguments.fleet.clone();
    let is_new = allocate(global, &project, &mut fleet.reach, &arguments.release.forget, words)?;
    let applied = apply_on_hosts(global, &project, arguments, &fleet);
    if is_new && applied.is_err() {
        let fleet = Fleet::open(global, &project, &fleet.reach, false)?;
        // Another coordinator may use the hosts already.
        match fleet.directory.lock() {
            Err(DirectoryError::Busy(_)) => {}
            lock => {
                let _lock = lock?;
                release_if_unused(global, &fleet, fleet.launcher(&project)?.as_ref())?;
            }
        }
    }
    applied
}

/// Applies the manifest on hosts that are named or allocated.
fn apply_on_hosts(
    global: &Global,
    project: &Project,
    arguments: &ApplyArguments,
    fleet: &FleetArguments,
) -> Result<ExitCode, Failure> {
    let manifest = project.manifest()?;
    let fleet = Fleet::open(global, project, &fleet.reach, true)?;
    let index = fleet.directory.index()?;
    let run = PlannedRun {
        global,
        project,
        manifest: &manifest,
        fleet: &fleet,
        index: index.as_ref(),
        limit: arguments.fleet.timeout,
        words: arguments.release.words(),
        forgotten: &arguments.release.forget,
        expected: arguments.expect.as_deref(),
        is_repair: false,
    };
    run.run()
}

pub(super) fn repair(global: &Global, arguments: &RepairArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let manifest = project.manifest()?;
    let fleet = Fleet::open(global, &project, &arguments.fleet.reach, false)?;
    let index = fleet.directory.index()?;
    let Some(applied) = index.as_ref().and_then(|index| index.manifest.as_ref()) else {
        return nothing_to_repair(global, &fleet);
    };
    if *applied != manifest_digest(project.text()) {
        let message = "the manifest has changed since it was applied, and a repair changes nothing else\nhelp: apply the changed \
                       manifest with `seedbed fleet apply DIR`, which repairs too, or repair with the manifest as it was";
        return Err(Failure::new(error::FLEET_MANIFEST, message));
    }
    let run = PlannedRun {
        global,
        project: &project,
        manifest: &manifest,
        fleet: &fleet,
        index: index.as_ref(),
        limit: arguments.fleet.timeout,
        words: Vec::new(),
        forgotten: &arguments.forget,
        expected: None,
        is_repair: true,
    };
    run.run()
}

/// Run that gives the sessions of a manifest to hosts.
struct PlannedRun<'r> {
    global: &'r Global,
    project: &'r Project,
    manifest: &'r Manifest,
    fleet: &'r Fleet,
    /// Sessions before the run; `None` before the first commit.
    index: Option<&'r Index>,
    /// Limit for preparing.
    limit: Duration,
    /// Further arguments of the phase in which hosts prepare their parts.
    words: Vec<&'static str>,
    /// Hosts whose sessions are given up.
    forgotten: &'r [String],
    /// Digest that the plan has to have.
    expected: Option<&'r str>,
    /// `true` if hosts that are lost with their sessions are only reported.
    is_repair: bool,
}

impl PlannedRun<'_> {
    /// Plans and runs. As long as spares are left, hosts without sessions that fail are replaced, and everything is planned
    /// again.
    fn run(&self) -> Result<ExitCode, Failure> {
        let mut hosts = self.fleet.hosts_without(self.index, self.forgotten)?;
        let launcher = self.fleet.launcher(self.project)?;
        require_allocated(launcher.as_ref())?;
        let shards = fleet::shards(self.manifest, hosts.len(), self.index.and_then(Index::shards));
        let shards = shards.map_err(Failure::from_error)?;
        let reached = self.fleet.hosts(self.project, launcher.as_ref());
        // Undecided runs are decided, and another coordinator is named, before hosts are asked.
        drop(self.fleet.coordinate(reached, self.limit)?);
        let mut agreed = BTreeSet::new();
        loop {
            let own = own_commits(self.project, self.manifest)?;
            let Observed { mut observations, missing, problems, .. } =
                reached.observe(&state::new_owner()?, &hosts, &own)?;
            self.global.unless_interrupted()?;
            if self.is_repair && problems.iter().any(|problem| self.has_sessions(&problem.host)) {
                return self.repair_in_place(reached, &problems);
            }
            if !self.replaces(&problems, &mut hosts, shards) {
                let mut what = listed("hosts could not be observed; nothing was changed", &problems);
                if problems.iter().any(|problem| self.has_sessions(&problem.host)) {
                    what += "\nhelp: wait for hosts that have sessions, or give up what they have with `--forget HOST`";
                }
                return Err(Failure::new(error::FLEET_ABORTED, what));
            }
            if !missing.is_empty() {
                let cloned = self.clone_and_observe(reached, &own, &missing)?;
                if !self.replaces(&cloned.problems, &mut hosts, shards) {
                    let what = listed(
                        "hosts could not clone and be observed; no session was made",
                        &cloned.problems,
                    );
                    let note = "note: clones that other hosts have made are kept";
                    return Err(Failure::new(error::FLEET_ABORTED, format!("{what}\n{note}")));
                }
                observations.extend(cloned.observations);
            }
            let plan = self.plan(&own, observations, shards)?;
            let is_known = |host: &String| self.index.is_some_and(|index| index.is_forgotten(host));
            if self.is_repair && self.forgotten.iter().all(is_known) && !has_changes(&plan) {
                return nothing_to_repair(self.global, self.fleet);
            }
            self.consent(&plan, &mut agreed)?;
            if !self.global.quiet && !self.global.json {
                say!("{}", review::text(&plan, &self.project.registry, self.global.verbose));
            }
            let (outcome, index) = self.attempt(reached, &own, &plan)?;
            if !self.is_planned_again(&outcome) || !self.replaces(&outcome.refusals, &mut hosts, shards) {
                return self.fleet.end(self.global, &outcome, index.hosts.len(), index.sessions.len());
            }
        }
    }

    /// Lets hosts clone the repositories that they lack.
    fn clone_and_observe(
        &self,
        reached: Hosts<'_>,
        own: &Observation,
        missing: &[Missing],
    ) -> Result<Observed, Failure> {
        if self.expected.is_some() {
            let hosts =
                missing.iter().map(|missing| HostProblem::new(&missing.host, "it lacks a repository"));
            let what = "the expected plan was made without hosts that lack a repository; nothing was changed";
            let what = listed(what, &hosts.collect::<Vec<_>>());
            let help = "help: review the plan without `--expect`";
            return Err(Failure::new(error::PLAN_UNEXPECTED, format!("{what}\n{help}")));
        }
        let Self { global, project, manifest, fleet, limit, .. } = *self;
        let observed =
            Cloning { global, project, manifest, fleet, reached, own, limit }.clone_and_observe(missing)?;
        global.unless_interrupted()?;
        Ok(observed)
    }

    fn has_sessions(&self, host: &str) -> bool {
        self.index.is_some_and(|index| index.hosts_with_sessions().contains(host))
    }

    /// Leaves out hosts with problems, and reports them; `false` if one of them has sessions, or too few hosts are left.
    fn replaces(&self, problems: &[HostProblem], hosts: &mut Vec<String>, shards: usize) -> bool {
        if problems.is_empty() {
            return true;
        }
        let is_needed = |problem: &HostProblem| self.has_sessions(&problem.host);
        if problems.iter().any(is_needed) || hosts.len() < shards + problems.len() {
            return false;
        }
        for HostProblem { host, why, .. } in problems {
            hosts.retain(|named| named != host);
            let (host, why) = (printable(host), printable_lines(why));
            say!("warning: host {host} has no sessions and is left out, another host takes its place: {why}");
        }
        true
    }

    /// Returns whether the parts of hosts that refused are planned for other hosts: every other host has to be as before.
    fn is_planned_again(&self, outcome: &Outcome) -> bool {
        let is_refusing = |problem: &HostProblem| outcome.refusals.iter().any(|it| it.host == problem.host);
        outcome.decision.verdict == Verdict::Abort
            && self.expected.is_none()
            && !outcome.refusals.is_empty()
            && outcome.unresolved.iter().all(is_refusing)
            && self.global.unless_interrupted().is_ok()
    }

    /// Plans all shards. `own` is the observation of this host.
    fn plan(
        &self,
        own: &Observation,
        mut observations: Vec<HostObservation>,
        shards: usize,
    ) -> Result<FleetPlan, Failure> {
        if let Some(index) = self.index {
            let is_back = |observed: &&HostObservation| {
                observed.applied.is_some() && index.is_forgotten(&observed.host)
            };
            let back = observations.iter().filter(is_back);
            let back: Vec<_> =
                back.map(|observed| HostProblem::new(&observed.host, "it has sessions of before")).collect();
            if !back.is_empty() {
                let help = "help: save what is needed there, then run `seedbed destroy` on these hosts, or leave them out with `--hosts`";
                let what =
                    listed("the sessions of these hosts were given up, and exist on other hosts now", &back);
                return Err(Failure::new(error::FLEET_ABORTED, format!("{what}\n{help}")));
            }
            index.keep_shards(&mut observations, shards);
        }
        let plan = make(self.project, self.manifest, own, observations, Some(shards))?;
        require_deliveries(&plan)?;
        match self.expected.filter(|expected| *expected != plan.digest) {
            None => Ok(plan),
            Some(expected) => {
                let text = review::text(&plan, &self.project.registry, false);
                let message = format!(
                    "the plan has another digest than the expected {expected}; nothing was changed\n\n{text}"
                );
                Err(Failure::new(error::PLAN_UNEXPECTED, message))
            }
        }
    }

    /// Lets the hosts prepare a plan, decides, and lets them follow.
    fn attempt(
        &self,
        reached: Hosts<'_>,
        own: &Observation,
        plan: &FleetPlan,
    ) -> Result<(Outcome, Index), Failure> {
        // The question holds no lock. A host whose facts have changed since refuses its part.
        let coordinator = self.fleet.coordinate(reached, self.limit)?;
        self.fleet.require_last(self.index)?;
        let directory = &self.fleet.directory;
        directory.tidy()?;
        require_same_commits(own, &own_commits(self.project, self.manifest)?)?;
        let made = directory.make_bundles(&self.project.host, own, plan);
        made.map_err(Failure::from_error)?;
        let run = directory.new_run()?;
        fleet::save(&directory.create_plan_directory(&run)?, plan)?;
        let part = |shard: &PlannedShard| {
            let plan = shard.plan.as_ref().filter(|plan| !plan.sessions().is_empty());
            Part::new(shard.host.clone(), plan.map(|plan| plan.digest().to_owned()))
        };
        let parts: Vec<_> = plan.shards.iter().map(part).collect();
        let words = [&["--expect", plan.digest.as_str()], &self.words[..]].concat();
        let index = Index::new(&run, plan, self.project.text(), &self.project.registry)
            .with_forgotten(directory.index()?.as_ref(), self.forgotten);
        Ok((coordinator.run("prepare", &parts, &words, &index)?, index))
    }

    /// Repairs what every host that is reached can repair by itself, and reports the lost hosts.
    fn repair_in_place(&self, reached: Hosts<'_>, lost: &[HostProblem]) -> Result<ExitCode, Failure> {
        let request = state::new_owner()?;
        reached.repair(&request);
        self.global.unless_interrupted()?;
        if !self.global.json {
            let allocated = self.fleet.launcher(self.project)?.allocated();
            print_status(self.global, self.fleet, &request, allocated)?;
        }
        let help = "help: their sessions stay theirs. Run `seedbed fleet repair DIR` again when they are back; to place the \
                    sessions on other hosts, run `seedbed fleet repair DIR --forget HOST`";
        let what =
            listed("hosts with sessions are lost; only what other hosts repair in place was repaired", lost);
        Err(Failure::new(error::FLEET_DEGRADED, format!("{what}\n{help}")))
    }

    /// Requires consent before existing allocations are removed on any host; `agreed` are the sessions of an earlier consent.
    fn consent(&self, plan: &FleetPlan, agreed: &mut BTreeSet<String>) -> Result<(), Failure> {
        let is_removed = |change: &&Change| {
            matches!(change.action, Action::Destroy | Action::Replace) && !change.release.is_empty()
        };
        let changes = plans(plan).flat_map(Plan::changes).filter(is_removed);
        let removed: BTreeSet<_> = changes.map(|change| change.session.as_str().to_owned()).collect();
        if removed.is_subset(agreed) || self.global.yes {
            return Ok(());
        }
        let question = format!("{} would be destroyed or replaced", count(removed.len(), "session"));
        let registry = &self.project.registry;
        if !has_terminal() {
            let text = review::text(plan, registry, true);
            let message =
                format!("{question}\n\n{}\nhelp: review this, then confirm with `--yes`", text.trim_end());
            return Err(Failure::new(error::CONSENT_REQUIRED, message));
        }
        ask(self.global, &format!("{}\n{question}. Go on?", review::text(plan, registry, false)))?;
        agreed.extend(removed);
        Ok(())
    }
}

fn nothing_to_repair(global: &Global, fleet: &Fleet) -> Result<ExitCode, Failure> {
    if global.json {
        fleet.print_index()?;
    } else if !global.quiet {
        say!("nothing to repair");
    }
    Ok(Status::Done.into())
}

fn plans(plan: &FleetPlan) -> impl Iterator<Item = &Plan> {
    plan.shards.iter().filter_map(|shard| shard.plan.as_ref())
}

fn has_changes(plan: &FleetPlan) -> bool {
    plans(plan).any(Plan::has_changes)
}

/// Refuses a plan with commits that this host cannot send.
fn require_deliveries(plan: &FleetPlan) -> Result<(), Failure> {
    let refused = plan.shards.iter().flat_map(|shard| {
        shard.deliveries.iter().filter_map(|delivery| {
            let why = review::refusal(delivery)?;
            Some(HostProblem::new(&shard.host, &why))
        })
    });
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::new(error::FLEET_COMMITS, listed("hosts lack commits; nothing was changed", &refused)))
}

/// Refuses a plan if refs of this host have moved since.
fn require_same_commits(planned: &Observation, now: &Observation) -> Result<(), Failure> {
    let moved = planned.repositories.iter().flat_map(|(name, observed)| {
        let now = &now.repository(name).commits;
        let moved = observed.commits.iter().filter(|(base_ref, commit)| now.get(*base_ref) != Some(commit));
        moved.map(|(base_ref, _)| format!("`{}` has moved on this host", printable(base_ref)))
    });
    let moved: Vec<_> = moved.collect();
    if moved.is_empty() { Ok(()) } else { Err(apply::Error::Stale(moved).into()) }
}
