//! `run`: applies a manifest for one command, and destroys the swarm afterwards.

pub(super) mod instances;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal};
use seedbed::apply::{self, Context, Destroy, Fetched, Options, Unsaved};
use seedbed::name::instance_name;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::state::{self, Record, Swarm};

use super::apply::{Approval, Steps, apply_manifest};
use super::exec::{FAILED, cannot_run, code_of, command, parallel};
use super::exit::{Failure, Status};
use super::lock::{recover, with_lock};
use super::lookup::Active;
use super::overrides::Overrides;
use super::project::Project;
use super::release_options::StopProcesses;
use super::repeated_steps::RepeatedSteps;
use super::{Global, completions, lookup, output, relocation};

/// Interval of checks whether a command of `run` has ended, so that a signal is passed on in time.
const POLL: Duration = Duration::from_millis(20);

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Session to run the command in [default: the only session at the top of the tree]
    #[arg(long, add = completions::planned())]
    session: Option<String>,
    /// Apply the swarm of the manifest itself, so that only one `run` at a time is possible [default: an instance with a name,
    /// paths, branches and ports of its own]
    #[arg(long)]
    in_place: bool,
    /// Keep the swarm afterwards, for inspection
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    stop: StopProcesses,
    /// Command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
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
    let swarm = project.swarm()?;
    let declared = manifest.instance_of.as_ref().unwrap_or(&manifest.swarm);
    let declared = Swarm::new(&project.host, swarm.workspace(), declared)?;
    let mut options = Options::default();
    options.occupants = arguments.stop.into();
    instances::report(global, &instances::recover(&declared, &project.registry, options)?);
    let (code, plan) = with_lock(global, &project, "run", |context| {
        let context = &context.with_instance_of(manifest.instance_of.as_deref());
        let occupants = arguments.stop.into();
        let mut options = Options::default();
        options.occupants = occupants;
        recover(global, context, options)?;
        if context.swarm.applied()?.is_some() {
            let message = "the swarm is applied already, and `run` would destroy it\nhelp: use `seedbed exec`, or run `seedbed destroy` first";
            return Err(Failure::new(error::SWARM_APPLIED, message));
        }
        let tops: Vec<_> = manifest.sessions.iter().filter(|session| session.parent.is_none()).collect();
        if arguments.session.is_none() && tops.len() != 1 {
            let tops: Vec<_> = tops.iter().map(|session| session.path.as_str()).collect();
            let message = format!(
                "`run` needs the session to run the command in\nhelp: choose one with `--session`: {}",
                tops.join(", ")
            );
            return Err(Failure::new(error::SESSION_REQUIRED, message));
        }
        let mut options = Options::default();
        options.temporary = !arguments.keep;
        let steps = Steps { again: &RepeatedSteps::default(), fetched: &Fetched::default() };
        let plan = apply_manifest(global, &project, context, &manifest, steps, Approval::default(), options)?;
        let plan = plan.digest().to_owned();
        let code =
            context.swarm.applied()?.map(|record| run_in(global, context, &record, arguments)).transpose();
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
        Ok((code?, plan))
    })?;
    if swarm.host().cancel.is_requested() {
        return if global.json { Err(Failure::Interrupted) } else { Ok(Status::Interrupted.into()) };
    }
    let code = code.unwrap_or(FAILED);
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

/// Runs the command, which inherits the lock: if this process is killed, no later run removes the swarm while the
/// command runs.
fn run_in(
    global: &Global,
    context: &Context<'_>,
    record: &Record,
    arguments: &Arguments,
) -> Result<u8, Failure> {
    let swarm: &Swarm<'_> = context.swarm;
    let session = match &arguments.session {
        Some(name) => lookup::session(record, name)?,
        None => &record.plan.sessions()[0],
    };
    let active = Active { swarm, record, session };
    let mut command = command(active, context.registry, &arguments.command)?;
    let lock = context.swarm.inheritable().map_err(|error| {
        Failure::new(error::LOCK_UNUSABLE, format!("cannot pass the lock to the command: {error}"))
    })?;
    if global.json {
        return Ok(parallel::alone(global, active, context.registry, &arguments.command));
    }
    let spawned = command.spawn();
    drop(lock);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let failure = cannot_run(&arguments.command, &error);
            let code = failure.id().exit_code;
            failure.report(false);
            return Ok(code);
        }
    };
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
