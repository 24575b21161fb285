//! `exec` and `run`: commands inside sessions.
#![expect(clippy::disallowed_methods, reason = "runs the command that the user gives")]

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal};
use seedbed::apply::{self, Context, Destroy, Fetched, Options, Unsaved};
use seedbed::discovery;
use seedbed::plan::Session;
use seedbed::provider::Registry;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::state::{Record, Swarm};

use super::apply::{Steps, apply_manifest};
use super::exit::{Failure, Status};
use super::lock::{recover, with_lock};
use super::lookup::{Active, Family};
use super::overrides::Overrides;
use super::project::Project;
use super::release_options::StopProcesses;
use super::repeated_steps::RepeatedSteps;
use super::{Global, completions, lookup, output};

pub(super) mod parallel;
mod printer;

use self::parallel::{Job, Manner, Supervision};

/// Exit code of `exec` if seedbed itself failed, as that of `env` and `docker exec`.
pub(super) const FAILED: u8 = 125;

/// Interval of checks whether a command of `run` has ended, so that a signal is passed on in time.
const POLL: Duration = Duration::from_millis(20);

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sessions: paths, names, names of replicas without their number (`coder` selects `coder-0` and all others), or globs
    /// (`coder-*`)
    #[arg(required_unless_present = "all", conflicts_with = "all", add = completions::active_sessions())]
    sessions: Vec<String>,
    /// Run the command in every session
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    supervision: Supervision,
    /// Command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Session to run the command in [default: the only session at the top of the tree]
    #[arg(long, add = completions::planned())]
    session: Option<String>,
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

pub(super) fn run(global: &Global, arguments: &Arguments) -> ExitCode {
    exec(global, arguments).unwrap_or_else(|failure| match failure {
        Failure::Interrupted => failure.report(global.json),
        failure => failure.report_as(FAILED, global.json),
    })
}

fn exec(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    // clap requires either names or `--all`.
    let sessions = family.requested(&arguments.sessions)?;
    let supervision = arguments.supervision;
    if let ([one], false, true) = (&sessions[..], global.json, supervision.is_default()) {
        // The command replaces this process, and so receives signals and the terminal itself.
        let error = command(*one, &project.registry, &arguments.command)?.exec();
        return Ok(cannot_run(&arguments.command, &error).report(false));
    }
    global.catch_signals()?;
    let job = |active| Job { active, words: arguments.command.clone(), mark: None };
    let jobs: Vec<_> = sessions.into_iter().map(job).collect();
    let manner = Manner { global, registry: &project.registry, supervision, ends_group: false };
    let ended = parallel::run(manner, &jobs);
    let code = parallel::finish(global, &ended)?;
    if code != 0 && !global.json {
        say!("{}", parallel::summary(&jobs, &ended));
    }
    Ok(ExitCode::from(code))
}

pub(super) fn run_and_destroy(global: &Global, arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let project = Project::find_with(global, &arguments.overrides.set)?;
    let manifest = project.manifest()?;
    let swarm = project.swarm()?;
    let (code, plan) = with_lock(global, &project, "run", |context| {
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
        let plan = apply_manifest(global, &project, context, &manifest, steps, None, options)?;
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
    if global.json {
        output::print_line(Done { plan: Some(plan), exit_code: Some(code), ..Done::default() });
    }
    Ok(ExitCode::from(code))
}

/// Runs the command, which inherits the lock: if this process is killed, no later run removes the swarm while the
/// command runs.
fn run_in(
    global: &Global,
    context: &Context<'_>,
    record: &Record,
    arguments: &RunArguments,
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

fn command(active: Active<'_>, registry: &Registry, words: &[String]) -> Result<Command, Failure> {
    let directory = active.directory(registry)?;
    let Active { swarm, session, .. } = active;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(&directory).env_clear();
    command.envs(environment(swarm, session, &directory));
    Ok(command)
}

fn environment(
    swarm: &Swarm<'_>,
    session: &Session,
    directory: &Path,
) -> impl Iterator<Item = (OsString, OsString)> {
    let own = discovery::environment(swarm, session);
    let own = own.into_iter().map(|(name, value)| (name.into(), value.into()));
    swarm.host().environment_in(directory).chain(own)
}

/// Returns the exit code by the shell's convention: 128 plus the number of the signal that ended the command.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// Returns the failure of a command that cannot be run, with the exit codes of `env` and `docker exec`.
fn cannot_run(words: &[String], error: &std::io::Error) -> Failure {
    let is_missing = error.kind() == ErrorKind::NotFound;
    let id = if is_missing { error::COMMAND_NOT_FOUND } else { error::COMMAND_NOT_EXECUTABLE };
    Failure::new(id, format!("cannot run `{}`: {error}", words[0]))
}
