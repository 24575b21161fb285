//! `exec`: commands inside sessions.
#![expect(clippy::disallowed_methods, reason = "runs the command that the user gives")]

use std::io::ErrorKind;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus};

use clap::Args;
use seedbed::discovery;
use seedbed::provider::Registry;
use seedbed::report::error;

use super::exit::Failure;
use super::lookup::{Active, Family};
use super::project::Project;
use super::{Global, completions};

pub(super) mod parallel;
mod printer;
pub(super) mod ready;
mod slot;

use self::parallel::{Job, Manner, Supervision};

/// Exit code of `exec` if seedbed itself failed, as that of `env` and `docker exec`.
pub(super) const FAILED: u8 = 125;

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sessions: paths, names, names of replicas without their number (`coder` selects `coder-0` and all others), or globs
    /// (`coder-*`)
    #[arg(required_unless_present_any = ["all", "slot"], conflicts_with = "all", add = completions::active_sessions())]
    sessions: Vec<String>,
    /// Run the command in every session
    #[arg(long)]
    all: bool,
    /// Run the command in the replica with the number of the test runner's worker: of the named session, or of the only one
    /// with replicas. Without VARIABLE, the variables of nextest, pytest-xdist, Playwright and Jest have the number
    /// (`NEXTEST_TEST_GLOBAL_SLOT`, `PYTEST_XDIST_WORKER`, `TEST_PARALLEL_INDEX`, `JEST_WORKER_ID`); VARIABLE counts from 0
    #[arg(long, value_name = "VARIABLE", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "all")]
    slot: Option<String>,
    #[command(flatten)]
    supervision: Supervision,
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
    let sessions = match (&arguments.slot, &arguments.sessions[..]) {
        (Some(variable), []) => vec![slot::session(&family, None, variable)?],
        (Some(variable), [name]) => vec![slot::session(&family, Some(name), variable)?],
        (Some(_), _) => {
            let text = "`--slot` chooses a replica of one session\nhelp: name only that session";
            return Err(Failure::new(error::USAGE, text));
        }
        // clap requires either names or `--all`.
        (None, names) => family.requested(names)?,
    };
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

/// Returns the command of `words`, with the session's directory and environment.
pub(super) fn command(active: Active<'_>, registry: &Registry, words: &[String]) -> Result<Command, Failure> {
    let directory = active.directory(registry)?;
    let Active { swarm, session, .. } = active;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(&directory).env_clear();
    command.envs(discovery::command_environment(swarm, session, &directory));
    Ok(command)
}

/// Returns the exit code by the shell's convention: 128 plus the number of the signal that ended the command.
pub(super) fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// Returns the failure of a command that cannot be run, with the exit codes of `env` and `docker exec`.
pub(super) fn cannot_run(words: &[String], error: &std::io::Error) -> Failure {
    let is_missing = error.kind() == ErrorKind::NotFound;
    let id = if is_missing { error::COMMAND_NOT_FOUND } else { error::COMMAND_NOT_EXECUTABLE };
    Failure::new(id, format!("cannot run `{}`: {error}", words[0]))
}
