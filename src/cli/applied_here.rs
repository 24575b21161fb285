//! Swarms that are recorded in a workspace, for commands that work without a manifest.

use std::path::Path;

use seedbed::host::Host;
use seedbed::host::text::printable;
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
    match found.len() {
        0 | 1 => Ok(found.into_iter().next()),
        _ => {
            let message = format!("there is no manifest here\n{}", help(&found).unwrap_or_default());
            Err(Failure::new(error::SWARM_AMBIGUOUS, message))
        }
    }
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
    found.retain(|found| found.workspace() == Some(swarm.workspace()));
    Ok(help(&found))
}
