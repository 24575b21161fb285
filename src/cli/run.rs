//! `run`: applies a manifest for a command, and destroys the swarm afterwards.

pub(super) mod instances;

use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal};
use seedbed::apply::{self, Context, Destroy, Fetched, Options, Unsaved, artifact_glob};
use seedbed::manifest::Manifest;
use seedbed::name::instance_name;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::state::{self, Artifacts, Record, Swarm};

use super::apply::{Approval, Steps, apply_manifest};
use super::exec::parallel::{self, Job, Manner, Supervision};
use super::exec::{FAILED, cannot_run, code_of, command};
use super::exit::{Failure, Status};
use super::lock::{recover, with_lock};
use super::lookup::Active;
use super::overrides::Overrides;
use super::project::Project;
use super::release_options::StopProcesses;
use super::repeated_steps::RepeatedSteps;
use super::{Global, completions, lookup, output, project, relocation};

/// Interval of checks whether a command of `run` has ended, so that a signal is passed on in time.
const POLL: Duration = Duration::from_millis(20);

/// Heading of the options about artifacts.
const ARTIFACTS: &str = "Artifacts";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Session to run the command in [default: the only session at the top of the tree]
    #[arg(long, add = completions::planned())]
    session: Option<String>,
    /// Run the command in every session, in parallel; the largest exit code counts
    #[arg(long, conflicts_with = "session")]
    all: bool,
    /// Apply the swarm of the manifest itself, so that only one `run` at a time is possible [default: an instance with a name,
    /// paths, branches and ports of its own]
    #[arg(long)]
    in_place: bool,
    /// Keep the swarm afterwards, for inspection
    #[arg(long)]
    keep: bool,
    /// Copy files of each session to DIR/SESSION before the swarm is removed, also after a failure or Ctrl-C
    #[arg(long, value_name = "DIR", requires = "collect", help_heading = ARTIFACTS)]
    artifacts: Option<PathBuf>,
    /// Files to copy, relative to the session's directory: `reports/**/*.xml`; a directory is copied with everything in it. Can be
    /// given several times
    #[arg(long, value_name = "GLOB", requires = "artifacts", value_parser = checked_glob, help_heading = ARTIFACTS)]
    collect: Vec<String>,
    #[command(flatten)]
    supervision: Supervision,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    stop: StopProcesses,
    /// Command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

fn checked_glob(text: &str) -> Result<String, String> {
    artifact_glob(text).map(|_| text.to_owned())
}

/// Result of a run whose swarm is destroyed, or kept as requested.
struct Ended {
    /// Exit code of the command; `None` if the manifest has no session.
    code: Option<u8>,
    /// Digest of the applied plan.
    plan: String,
    /// Reasons for which artifacts are not saved.
    unsaved: Vec<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (project, manifest) = instance(global, arguments)?;
    let artifacts = artifacts(global, arguments)?;
    let swarm = project.swarm()?;
    recover_instances(global, arguments, &project, &manifest)?;
    let Ended { code, plan, unsaved } = with_lock(global, &project, "run", |context| {
        let context = context.with_instance_of(manifest.instance_of.as_deref());
        let context = context.with_artifacts(artifacts.as_ref());
        apply_run_and_destroy(global, arguments, &project, &manifest, &context)
    })?;
    let code = code.unwrap_or(FAILED);
    let is_interrupted = swarm.host().cancel.is_requested();
    if !unsaved.is_empty() {
        let failure = Failure::new(
            error::ARTIFACTS_UNSAVED,
            format!("artifacts are not saved: {}", unsaved.join("; ")),
        );
        // The code of the command counts.
        if code == 0 && !is_interrupted {
            return Err(failure);
        }
        if !global.json {
            failure.report(false);
        }
    }
    if is_interrupted {
        return if global.json { Err(Failure::Interrupted) } else { Ok(Status::Interrupted.into()) };
    }
    if arguments.keep && !arguments.in_place && !global.quiet && !global.json {
        let name = swarm.name();
        say!(
            "kept the swarm {name}\nhelp: `seedbed status --swarm {name}` shows it, `seedbed destroy --swarm {name}` removes it"
        );
    }
    if global.json {
        let (plan, swarm) = (Some(plan), Some(swarm.name().to_owned()));
        output::print_line(Done { plan, swarm, exit_code: Some(code), ..Done::default() });
    }
    Ok(ExitCode::from(code))
}

/// Returns the manifest of a new instance, or with `--in-place`, of its own swarm.
fn instance(global: &Global, arguments: &Arguments) -> Result<(Project, Manifest), Failure> {
    let mut project = Project::find_with(global, &arguments.overrides.set)?;
    // Inside an instance, a `run` makes another one of the same manifest.
    project.set_instance(None);
    let mut manifest = project.manifest()?;
    if !arguments.in_place {
        // The workspace of the manifest's swarm may have been moved, or replaced.
        relocation::refuse_strays(&project.swarm()?, &project.registry)?;
        let name = instance_name(&manifest.swarm, &state::new_owner()?);
        manifest.become_instance(&name);
        project.set_instance(Some(name));
    }
    Ok((project, manifest))
}

/// Returns the artifacts to save, in an absolute directory.
fn artifacts(global: &Global, arguments: &Arguments) -> Result<Option<Artifacts>, Failure> {
    let Some(directory) = &arguments.artifacts else { return Ok(None) };
    Ok(Some(Artifacts::new(&project::directory(global)?.join(directory), arguments.collect.clone())))
}

/// Recovers the instances of the manifest whose `run` was killed.
fn recover_instances(
    global: &Global,
    arguments: &Arguments,
    project: &Project,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let declared = manifest.instance_of.as_ref().unwrap_or(&manifest.swarm);
    let declared = Swarm::new(&project.host, project.swarm()?.workspace(), declared)?;
    let mut options = Options::default();
    options.occupants = arguments.stop.into();
    instances::report(global, &instances::recover(global, &declared, &project.registry, options)?);
    Ok(())
}

/// Applies the manifest, runs the command, saves artifacts, and destroys the swarm.
fn apply_run_and_destroy(
    global: &Global,
    arguments: &Arguments,
    project: &Project,
    manifest: &Manifest,
    context: &Context<'_>,
) -> Result<Ended, Failure> {
    let occupants = arguments.stop.into();
    let mut options = Options::default();
    options.occupants = occupants;
    recover(global, context, options)?;
    if context.swarm.applied()?.is_some() {
        let message = "the swarm is applied already, and `run` would destroy it\nhelp: run without `--in-place`, use `seedbed exec`, or run \
                       `seedbed destroy` first";
        return Err(Failure::new(error::SWARM_APPLIED, message));
    }
    let tops: Vec<_> = manifest.sessions.iter().filter(|session| session.parent.is_none()).collect();
    if arguments.session.is_none() && !arguments.all && tops.len() != 1 {
        let tops: Vec<_> = tops.iter().map(|session| session.path.as_str()).collect();
        let message = format!(
            "`run` needs the session to run the command in\nhelp: choose one with `--session`: {}; or all with `--all`",
            tops.join(", ")
        );
        return Err(Failure::new(error::SESSION_REQUIRED, message));
    }
    let mut options = Options::default();
    options.temporary = !arguments.keep;
    let steps = Steps { again: &RepeatedSteps::default(), fetched: &Fetched::default() };
    let plan = apply_manifest(global, project, context, manifest, steps, Approval::default(), options)?;
    let plan = plan.digest().to_owned();
    let Some(record) = context.swarm.applied()? else {
        return Ok(Ended { code: None, plan, unsaved: Vec::new() });
    };
    let code = run_in(global, context, &record, arguments);
    let unsaved = apply::save_artifacts(context, &record);
    if !arguments.keep
        && let Some(record) = context.swarm.applied()?
    {
        // Changes in the worktrees of a fixture are never unsaved work.
        let mut everything = Destroy::default();
        everything.unsaved = Unsaved::Discard;
        everything.occupants = occupants;
        everything.children = true;
        apply::destroy(context, &record, &everything)?;
    }
    Ok(Ended { code: Some(code?), plan, unsaved })
}

/// Runs the command in the requested sessions, and returns its exit code, the largest of several. The commands inherit the
/// lock: if this process is killed, no later run removes the swarm while one of them runs.
fn run_in(
    global: &Global,
    context: &Context<'_>,
    record: &Record,
    arguments: &Arguments,
) -> Result<u8, Failure> {
    let swarm: &Swarm<'_> = context.swarm;
    let sessions = match &arguments.session {
        Some(name) => vec![lookup::session(record, name)?],
        None if arguments.all => record.plan.sessions().iter().collect(),
        None => vec![&record.plan.sessions()[0]],
    };
    let active = |session| Active { swarm, record, session };
    let words = &arguments.command;
    let is_alone = sessions.len() == 1 && !global.json && arguments.supervision.is_default();
    let alone = is_alone.then(|| command(active(sessions[0]), context.registry, words)).transpose()?;
    let lock = context.swarm.inheritable().map_err(|error| {
        Failure::new(error::LOCK_UNUSABLE, format!("cannot pass the lock to the command: {error}"))
    })?;
    if let Some(mut command) = alone {
        let spawned = command.spawn();
        drop(lock);
        return match spawned {
            Ok(child) => wait(swarm, child),
            Err(error) => {
                let failure = cannot_run(words, &error);
                let code = failure.id().exit_code;
                failure.report(false);
                Ok(code)
            }
        };
    }
    let job = |session| Job { active: active(session), words: words.clone(), mark: None };
    let jobs: Vec<_> = sessions.into_iter().map(job).collect();
    let manner =
        Manner { global, registry: context.registry, supervision: arguments.supervision, ends_group: false };
    let ended = parallel::run(manner, &jobs);
    drop(lock);
    let code = parallel::largest_code(&ended);
    if code != 0 && jobs.len() > 1 && !global.json {
        say!("{}", parallel::summary(&jobs, &ended));
    }
    Ok(code)
}

/// Waits for the end of a command, and returns its exit code.
fn wait(swarm: &Swarm<'_>, mut child: Child) -> Result<u8, Failure> {
    let mut is_reported = false;
    loop {
        let ended = child.try_wait().map_err(|error| {
            Failure::new(error::COMMAND_LOST, format!("cannot wait for the command: {error}"))
        })?;
        if let Some(status) = ended {
            return Ok(code_of(status));
        }
        if swarm.host().cancel.is_requested() && !is_reported {
            // A signal to only this process is passed on. Ctrl-C has reached the command already, which may end in its
            // own way.
            is_reported = true;
            let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::TERM);
        }
        std::thread::sleep(POLL);
    }
}
