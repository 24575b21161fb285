//! Swarms that are recorded in a workspace, for commands that work without a manifest.

use std::path::Path;

use seedbed::host::text::{printable, shell_quoted};
use seedbed::host::{Host, absolute};
use seedbed::plan::Session;
use seedbed::provider::{Registry, git_worktree};
use seedbed::report::error;
use seedbed::state::{self, RecordedSwarm, Swarm};

use super::Global;
use super::exit::Failure;

/// Returns the swarms that are recorded in the nearest workspace at or above `directory`, an absolute path without
/// links, in order of their names.
pub(super) fn around(host: &Host, directory: &Path) -> Result<Vec<RecordedSwarm>, Failure> {
    let mut found = state::swarms(host)?;
    let workspaces = found.iter().filter_map(RecordedSwarm::workspace);
    let nearest = workspaces
        .filter(|workspace| directory.starts_with(workspace))
        .max_by_key(|workspace| workspace.components().count());
    let nearest = nearest.map(Path::to_owned);
    found.retain(|found| found.workspace().is_some() && found.workspace() == nearest.as_deref());
    Ok(found)
}

/// Refuses a directory in a session without its discovery file, which programs such as `git clean` remove. The manifest there
/// is a copy of that of the session's swarm, and would make another swarm inside the session.
#[expect(clippy::disallowed_methods, reason = "looks for a linked worktree")]
pub(super) fn refuse_session(host: &Host, registry: &Registry, directory: &Path) -> Result<(), Failure> {
    // Only Git worktrees have copies of a manifest. A linked worktree has a file `.git`.
    if !directory.ancestors().any(|above| above.join(".git").is_file()) {
        return Ok(());
    }
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    for found in state::swarms(host)? {
        let Some(record) = found.record() else { continue };
        let is_around = |session: &&Session| {
            let own = session.allocations_of(git_worktree::KIND);
            let mut paths = own.filter_map(|of| registry.get(git_worktree::KIND)?.directory(of));
            paths.any(|path| directory.starts_with(absolute(&record.workspace, &path)))
        };
        if let Some(session) = record.plan.sessions().iter().find(is_around) {
            let workspace = shell_quoted(&record.workspace.to_string_lossy());
            let why = format!(
                "{} is in session {}, whose discovery file is missing\nhelp: `seedbed -C {workspace} status --repair` writes it \
                 again; name a manifest in the session with `-f FILE`",
                directory.display(),
                printable(&session.id)
            );
            return Err(Failure::new(error::SESSION_DAMAGED, why));
        }
    }
    Ok(())
}

/// Returns the swarm to act on: the one that `--swarm` names, or the only one. `None` if there is none.
pub(super) fn only(
    found: Vec<RecordedSwarm>,
    requested: Option<&str>,
) -> Result<Option<RecordedSwarm>, Failure> {
    if let Some(name) = requested {
        let help = help(&found).unwrap_or_else(|| "help: `seedbed list` lists the swarms".to_owned());
        let message = format!("no swarm `{}` is applied here\n{help}", printable(name));
        let named = found.into_iter().find(|found| found.name() == name);
        return named.map(Some).ok_or_else(|| Failure::new(error::SWARM_UNKNOWN, message));
    }
    // An instance is chosen by its name only, unless there is nothing else.
    let (instances, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_instance);
    let found = if others.is_empty() { instances } else { others };
    match found.len() {
        0 | 1 => Ok(found.into_iter().next()),
        _ => {
            let message = format!("there is no manifest here\n{}", help(&found).unwrap_or_default());
            Err(Failure::new(error::SWARM_AMBIGUOUS, message))
        }
    }
}

fn is_instance(found: &RecordedSwarm) -> bool {
    found.record().is_some_and(|record| record.instance_of.is_some())
}

/// Returns a help line that names swarms, and the option that chooses one; `None` without swarms.
pub(super) fn help(found: &[RecordedSwarm]) -> Option<String> {
    let names: Vec<String> = found.iter().map(|found| printable(found.name())).collect();
    let first = names.first()?;
    let are = if names.len() == 1 { "swarm" } else { "swarms" };
    Some(format!(
        "help: {are} applied here: {}; choose one with `--swarm`, as in `seedbed status --swarm {first}`",
        names.join(", ")
    ))
}

/// Returns `message` about a swarm that has no record, with a help line that names the other swarms of its workspace: the
/// name of the swarm in its manifest may have changed.
pub(super) fn with_others(swarm: &Swarm<'_>, message: String) -> Result<String, Failure> {
    Ok(match others(swarm)? {
        Some(help) => format!("{message}\n{help}"),
        None => message,
    })
}

/// Prints that a swarm is new in its workspace, in which others are applied.
pub(super) fn note_others(global: &Global, swarm: &Swarm<'_>) -> Result<(), Failure> {
    if !global.quiet
        && !global.json
        && let Some(help) = others(swarm)?
    {
        say!("swarm {} is not applied here yet\n{help}", printable(swarm.name()));
    }
    Ok(())
}

/// Returns a help line that names the other swarms of a swarm's workspace; `None` if there are none, or if the swarm
/// itself has a record.
fn others(swarm: &Swarm<'_>) -> Result<Option<String>, Failure> {
    if swarm.found()?.is_some() {
        return Ok(None);
    }
    let mut found = state::swarms(swarm.host())?;
    // An instance that is active for one command is of no use to others.
    let is_used = |found: &RecordedSwarm| !found.record().is_some_and(|record| record.temporary);
    found.retain(|found| found.workspace() == Some(swarm.workspace()) && is_used(found));
    Ok(help(&found))
}
