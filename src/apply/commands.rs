//! Runs the commands of `setup` and `teardown`, in the session's directory, with its environment.

use std::path::Path;

use crate::discovery;
use crate::host::Host;
use crate::host::occupants::{MARK, RUN};
use crate::host::process::Process;
use crate::host::text;
use crate::manifest::CommandLine;
use crate::plan::Session;
use crate::state::{self, LockedSwarm};

/// Log name of the teardown in a rollback. Its log differs from that of the teardown of an earlier session.
pub(super) const ROLLBACK: &str = "rollback";

/// Returns the value that identifies processes of this step of the session: `STEP:SESSION_ID`.
pub(super) fn mark(step: &str, session: &Session) -> String {
    format!("{step}:{}", session.id)
}

/// Runs the commands one after another until one fails. The error names the command, the cause, the end of its output
/// and the path of the complete log.
pub(super) fn run(
    swarm: &LockedSwarm<'_>,
    host: &Host,
    session: &Session,
    step: &str,
    commands: &[CommandLine],
) -> Result<(), String> {
    let directory = discovery::directory(swarm, session)?;
    let name = log_name(session, step);
    let log = swarm.create_log(&name).map_err(|error| error.to_string())?;
    let mut variables: Vec<_> = discovery::command_environment(swarm, session, &directory).collect();
    variables.push((MARK.into(), mark(step, session).into()));
    variables.retain(|(name, _)| name != RUN);
    let run = swarm.journal().ok().and_then(|journal| journal.run());
    variables.extend(run.map(|run| (RUN.into(), run.into())));
    for command in commands {
        let words = discovery::command(command, swarm.workspace());
        let Some((program, arguments)) = words.split_first() else { continue };
        let log = log.try_clone().map_err(|error| error.to_string())?;
        Process::new(program)
            .args(arguments)
            .current_dir(&directory)
            .envs(variables.clone())
            .cancel(&host.cancel)
            .log(log)
            .run()
            .map_err(|error| {
                swarm.keep_log(&name);
                let hint = hint(step, commands).unwrap_or_default();
                format!("{error}{hint}\n  complete log: {}", whole(&swarm.log_directory(), &name))
            })?;
    }
    Ok(())
}

/// Returns a hint if a list of commands looks like the words of one command, as in `setup = ["npm", "ci"]`.
fn hint(step: &str, commands: &[CommandLine]) -> Option<String> {
    let word = |command: &CommandLine| match command {
        CommandLine::Shell(line) if !line.contains(char::is_whitespace) => Some(line.clone()),
        CommandLine::Shell(_) | CommandLine::Arguments(_) => None,
    };
    let words = commands.iter().map(word).collect::<Option<Vec<_>>>().filter(|words| words.len() > 1)?;
    Some(format!(
        "\nhelp: each string of `{step}` is a command of its own; one command with arguments is a list in it: \
         {step} = [{}]",
        serde_json::to_string(&words).ok()?
    ))
}

/// Returns the end of the log of a step's commands, below the message of a failure, and keeps the log; nothing without a
/// log.
pub(super) fn end_of_log(swarm: &LockedSwarm<'_>, session: &Session, step: &str) -> String {
    let name = log_name(session, step);
    let end = state::end_of_log(&swarm.log_directory().join(&name));
    if !end.is_empty() {
        swarm.keep_log(&name);
    }
    end
}

/// Returns whether this run has begun the commands of `step`.
pub(super) fn was_run(swarm: &LockedSwarm<'_>, session: &Session, step: &str) -> bool {
    swarm.has_log(&log_name(session, step))
}

/// Deletes the log that records an earlier run of the commands of `step`.
pub(super) fn forget(swarm: &LockedSwarm<'_>, session: &Session, step: &str) -> Result<(), state::Error> {
    swarm.remove_log(&log_name(session, step))
}

fn log_name(session: &Session, step: &str) -> String {
    format!("{}.{step}.log", session.scoped_name)
}

fn whole(directory: &Path, name: &str) -> String {
    text::printable(&directory.join(name).to_string_lossy())
}
