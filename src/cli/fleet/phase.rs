//! `fleet phase`: the part of one host in a run over all hosts. The coordinator runs it; its answer is a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use seedbed::apply::{self, Context, Destroy};
use seedbed::fleet::clones::Missing;
use seedbed::fleet::directory::{Answer, FleetDirectory, HostReport, ReportedSession};
use seedbed::fleet::{self, FleetPlan, PlannedShard, received};
use seedbed::host::clock;
use seedbed::host::text::{printable, shell_quoted};
use seedbed::manifest::Manifest;
use seedbed::observe::WORKSPACE_REPOSITORY;
use seedbed::plan::DamageKind;
use seedbed::report::error;
use seedbed::state::{FleetPart, Record};

use super::{clone, collect, command_phase};
use crate::cli::apply::SavedPlan;
use crate::cli::exit::{Failure, Status};
use crate::cli::lock::{recover, with_lock};
use crate::cli::observe::{host_name, observe};
use crate::cli::project::Project;
use crate::cli::release_options::{StopProcesses, UnsavedWork, options};
use crate::cli::{Global, apply as apply_command, signals};

/// Arguments of `fleet phase`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Phase
    phase: Phase,
    /// Directory of the fleet, absolute
    #[arg(value_name = "DIR")]
    shared: PathBuf,
    /// Name of this host in the fleet
    #[arg(long, value_parser = host_name)]
    host: String,
    /// Name of the run, or of the request for a report
    #[arg(long, value_parser = run_name)]
    pub(super) run: String,
    /// Digest of the plan of the fleet, or of the clones
    #[arg(long, default_value = "")]
    pub(super) expect: String,
    /// File of the manifest below `manifests` of the fleet [default: that of this host]
    #[arg(long, value_name = "FILE")]
    fleet_manifest: Option<String>,
    /// Commit to report if this host has it, after the name of its repository: `NAME=COMMIT`
    #[arg(long, value_name = "NAME=COMMIT", value_parser = commit)]
    commit: Vec<(String, String)>,
    #[command(flatten)]
    unsaved: UnsavedWork,
    #[command(flatten)]
    stop: StopProcesses,
}

/// Phase of a run over the hosts of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// Write the observation of this host, or the repositories that it lacks
    Observe,
    /// Clone the repositories that this host lacks, and write its observation
    Clone,
    /// Make everything of this host's part of the plan except its commit, and vote
    Prepare,
    /// Move everything of the swarm aside, to be released if that is decided, and vote
    Release,
    /// Follow the decision about the run
    Resolve,
    /// Write a report
    Report,
    /// Repair in place what this host can repair by itself, and write a report
    Repair,
    /// Run the command of a request in sessions of this host
    Command,
    /// Bring the commits of the sessions of this host
    Collect,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let directory = FleetDirectory::open(&arguments.shared)?;
    let Arguments { phase, host, run, .. } = arguments;
    let project = match &arguments.fleet_manifest {
        Some(file) => {
            let (name, bytes) = directory.manifest(file)?;
            Project::of_fleet(global, name, bytes)?
        }
        None => Project::find_applied(global)?,
    };
    if clone::is_absent(project.directory())
        && let Some(done) = without_root(&project, &directory, arguments)?
    {
        return Ok(done);
    }
    let answered = match phase {
        Phase::Report | Phase::Repair => {
            if *phase == Phase::Repair {
                repair(global, &project, arguments)?;
            }
            directory.write_report(&report(&project, host, run)?)?;
            return Ok(Status::Done.into());
        }
        Phase::Observe | Phase::Clone => {
            let missing = clone::missing(&project, &project.manifest()?);
            clone::check(&project.host, &missing)?;
            if *phase == Phase::Clone {
                clone::clone(&project, &directory, arguments, &missing)?;
            } else if !missing.is_empty() {
                directory.write_missing(run, &Missing::new(host, missing))?;
                return Ok(Status::Done.into());
            }
            resolved(global, &project, arguments)?;
            let mut observation = observe(&project, host.clone(), None)?;
            let directories = directories(&project, &project.manifest()?)?;
            let present = received::present(&project.host, &directories, &arguments.commit);
            observation.present = Some(present.map_err(Failure::from_error)?);
            directory.write_observation(run, &observation)?;
            return Ok(Status::Done.into());
        }
        Phase::Command => {
            let follow = || follow(global, &project, arguments);
            return command_phase::run(global, &project, &directory, (host, run), follow);
        }
        Phase::Collect => {
            let follow = || follow(global, &project, arguments);
            let names = (host.as_str(), run.as_str(), is_rescue(arguments));
            return collect::phase(global, &project, &directory, names, follow);
        }
        Phase::Prepare => prepare(global, &project, &directory, arguments),
        Phase::Release => release(global, &project, &directory, arguments),
        Phase::Resolve => resolved(global, &project, arguments),
    };
    let name = if *phase == Phase::Resolve { "resolve" } else { "prepare" };
    let digest = answered.as_ref().map(Clone::clone).map_err(Failure::summary);
    signals::while_computing(&global.cancel, || {
        directory.write_answer(name, &Answer::new(run, host, digest))
    })?;
    let is_late = *phase != Phase::Resolve && directory.decision(run)?.is_some();
    if is_late {
        // The coordinator has not waited for this host, and may not come again.
        resolved(global, &project, arguments)?;
    }
    answered.map(|_| Status::Done.into())
}

/// Follows the decision about a prepared run: what is applied on this host depends on it.
fn follow(global: &Global, project: &Project, arguments: &Arguments) -> Result<(), Failure> {
    match project.swarm()?.interrupted()? {
        Some((record, _)) if record.prepared => resolved(global, project, arguments).map(drop),
        _ => Ok(()),
    }
}

/// Returns whether unsaved work is rescued.
fn is_rescue(arguments: &Arguments) -> bool {
    apply::Unsaved::from(arguments.unsaved) == apply::Unsaved::Rescue
}

/// Does a phase on a host that has no directory for the swarm; `None` if the phase makes one, or fails.
fn without_root(
    project: &Project,
    directory: &FleetDirectory,
    arguments: &Arguments,
) -> Result<Option<ExitCode>, Failure> {
    let Arguments { phase, host, run, .. } = arguments;
    let own = BTreeMap::from([(WORKSPACE_REPOSITORY.to_owned(), project.directory().to_owned())]);
    clone::check(&project.host, &own)?;
    match phase {
        Phase::Report | Phase::Repair => directory.write_report(&HostReport::new(host, run, clock::now()))?,
        Phase::Release => directory.write_answer("prepare", &Answer::new(run, host, Ok(None)))?,
        Phase::Resolve => directory.write_answer("resolve", &Answer::new(run, host, Ok(None)))?,
        _ => return Ok(None),
    }
    Ok(Some(Status::Done.into()))
}

/// Parses the name of a run.
fn run_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.len() <= 40 && text.chars().all(|c| c.is_ascii_alphanumeric());
    if is_name { Ok(text.to_owned()) } else { Err("a run has a name of letters and digits".to_owned()) }
}

/// Parses the name of a repository, which is empty for the workspace's own, and a commit.
fn commit(text: &str) -> Result<(String, String), String> {
    let (repository, commit) = text.rsplit_once('=').ok_or("write `NAME=COMMIT`")?;
    Ok((repository.to_owned(), commit.to_owned()))
}

/// Returns the directories of the repositories of this host, by name.
fn directories(project: &Project, manifest: &Manifest) -> Result<received::Directories, Failure> {
    let own = (WORKSPACE_REPOSITORY.to_owned(), project.swarm()?.workspace().to_owned());
    Ok(project.repositories(manifest).into_iter().chain([own]).collect())
}

/// Prepares the part of this host, and returns the digest of its plan; `None` for a part without sessions.
fn prepare(
    global: &Global,
    project: &Project,
    directory: &FleetDirectory,
    arguments: &Arguments,
) -> Result<Option<String>, Failure> {
    let manifest = project.manifest()?;
    let saved = directory.plan_directory(&arguments.run)?;
    let invalid = |error: fleet::SavedError| Failure::new(error::PLAN_FILE_INVALID, error.to_string());
    let plan = fleet::load(&saved).map_err(invalid)?;
    if plan.digest != arguments.expect {
        return Err(Failure::new(error::PLAN_UNEXPECTED, "the plan of the run is not the expected one"));
    }
    let shard = own_shard(&plan, project, &arguments.host)?;
    let part = fleet::load_shard(&saved, shard, &project.registry).map_err(invalid)?;
    let digest = (!part.sessions().is_empty()).then(|| part.digest().to_owned());
    let path = saved.path().join(fleet::shard_file(shard.shard));
    with_lock(global, project, "fleet", |context| {
        let options = options(arguments.unsaved, arguments.stop);
        recover(global, context, options)?;
        undecided(directory, arguments)?;
        of_this_fleet(context, directory)?;
        if part.has_changes() {
            received::receive(context.swarm, directory, &directories(project, &manifest)?, shard)
                .map_err(Failure::from_error)?;
        }
        let saved = SavedPlan { path: &path, commits: &shard.commits };
        let (part, record) = apply_command::checked(project, context.swarm, &manifest, part, saved)?;
        if digest.is_none() && record.is_none() {
            return Ok(());
        }
        apply::check_releases(context, &part, record.as_ref(), options)?;
        let own = own_part(directory, arguments)?;
        apply::prepare(context, &part, record.as_ref(), options, own)?;
        bring_rescues(project, directory, arguments, record.as_ref())
    })?;
    Ok(digest)
}

/// Moves everything that the swarm has on this host aside.
fn release(
    global: &Global,
    project: &Project,
    directory: &FleetDirectory,
    arguments: &Arguments,
) -> Result<Option<String>, Failure> {
    with_lock(global, project, "fleet", |context| {
        recover(global, context, options(arguments.unsaved, arguments.stop))?;
        undecided(directory, arguments)?;
        of_this_fleet(context, directory)?;
        let Some(record) = context.swarm.applied()? else { return Ok(()) };
        let mut destroy = Destroy::default();
        destroy.unsaved = arguments.unsaved.into();
        destroy.occupants = arguments.stop.into();
        let impact = apply::release_impact(context.swarm, &project.registry, &record, &destroy)?;
        let findings = impact.refused(destroy.unsaved);
        if !findings.is_empty() {
            return Err(apply::Error::Refused(findings).into());
        }
        apply::prepare_destroy(context, &record, &destroy, own_part(directory, arguments)?)?;
        bring_rescues(project, directory, arguments, Some(&record))
    })?;
    Ok(None)
}

/// Keeps rescues in the directory of the fleet before this host votes, so that no committed run leaves work on one host only.
fn bring_rescues(
    project: &Project,
    directory: &FleetDirectory,
    arguments: &Arguments,
    record: Option<&Record>,
) -> Result<(), Failure> {
    if !is_rescue(arguments) {
        return Ok(());
    }
    let sessions = record.iter().flat_map(|record| record.plan.sessions());
    collect::bring_rescues(project, directory, (&arguments.host, &arguments.run), sessions)
}

/// Recovers, which follows the decision about what is prepared; returns the digest of the plan that is applied then.
fn resolved(global: &Global, project: &Project, arguments: &Arguments) -> Result<Option<String>, Failure> {
    with_lock(global, project, "fleet", |context: &Context<'_>| {
        recover(global, context, options(arguments.unsaved, arguments.stop))?;
        let applied = context.swarm.applied()?;
        Ok(applied.map(|record| record.plan.digest().to_owned()))
    })
}

/// Repairs in place what needs no plan; the report names what is left.
fn repair(global: &Global, project: &Project, arguments: &Arguments) -> Result<(), Failure> {
    with_lock(global, project, "fleet", |context| {
        recover(global, context, options(arguments.unsaved, arguments.stop))?;
        if let Some(record) = context.swarm.applied()? {
            apply::repair(context, &record);
        }
        Ok(())
    })
}

/// Refuses a run that is decided already, or that everyone has followed since: this host is late.
fn undecided(directory: &FleetDirectory, arguments: &Arguments) -> Result<(), Failure> {
    let is_over = match directory.decision(&arguments.run)? {
        Some(_) => true,
        None => directory.planned_index(&arguments.run)?.is_none(),
    };
    if is_over {
        return Err(Failure::new(error::FLEET_ABORTED, format!("run {} is decided already", arguments.run)));
    }
    Ok(())
}

/// Refuses a run over sessions that belong to another fleet, whose index would be wrong afterwards.
fn of_this_fleet(context: &Context<'_>, directory: &FleetDirectory) -> Result<(), Failure> {
    match context.swarm.applied()?.and_then(|record| record.fleet) {
        Some(part) if part.is_of_another(directory.path()) => {
            let other = shell_quoted(&printable(&part.directory.to_string_lossy()));
            let message = format!(
                "the swarm is the part of host {} of the fleet in {other}\nhelp: run `seedbed fleet destroy {other}` first",
                printable(&part.host)
            );
            Err(Failure::new(error::FLEET_PART, message))
        }
        _ => Ok(()),
    }
}

fn own_part(directory: &FleetDirectory, arguments: &Arguments) -> Result<FleetPart, Failure> {
    let id = directory.identity()?.map(|identity| identity.id).unwrap_or_default();
    Ok(FleetPart::new(directory.path().to_owned(), id, arguments.run.clone(), arguments.host.clone()))
}

/// Returns the shard of this host, which has to be planned for this workspace.
fn own_shard<'p>(plan: &'p FleetPlan, project: &Project, host: &str) -> Result<&'p PlannedShard, Failure> {
    let foreign = |why: String| Failure::new(error::PLAN_FILE_FOREIGN, why);
    let shard = plan.shards.iter().find(|shard| shard.host == host);
    let shard =
        shard.ok_or_else(|| foreign(format!("the plan of the fleet has no shard for host {host}")))?;
    let workspace = project.swarm()?.workspace().to_owned();
    if shard.workspace == workspace {
        return Ok(shard);
    }
    let (planned, own) = (shard.workspace.display(), workspace.display());
    Err(foreign(format!("the part of host {host} is planned for {planned}, and this workspace is {own}")))
}

/// Reports the state of the swarm on this host, without changing it.
fn report(project: &Project, host: &str, request: &str) -> Result<HostReport, Failure> {
    let swarm = project.swarm()?;
    let mut report = HostReport::new(host, request, clock::now());
    report.unfinished = swarm.is_unfinished()?;
    if let Some((record, _)) = swarm.interrupted()?.filter(|(record, _)| record.prepared) {
        report.prepared = record.fleet.map(|part| part.run);
    }
    let Some(record) = swarm.applied()? else { return Ok(report) };
    report.plan = Some(record.plan.digest().to_owned());
    let (broken, impact) = apply::examine(&swarm, &project.registry, &record)?;
    let findings = [impact.obstacles, impact.work, impact.beyond_rescue, impact.unknown].concat();
    report.sessions = record
        .plan
        .sessions()
        .iter()
        .map(|session| {
            let damage = broken
                .iter()
                .filter(|((path, _), damage)| *path == session.path && damage.kind != DamageKind::Older);
            let damage = damage.map(|((_, kind), damage)| format!("{kind}: {}", damage.why));
            let unsaved = findings.iter().filter(|finding| finding.session == session.path);
            let unsaved = unsaved.map(|finding| finding.description.clone());
            ReportedSession::new(session.path.clone(), damage.collect(), unsaved.collect())
        })
        .collect();
    Ok(report)
}
