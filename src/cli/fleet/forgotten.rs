//! Sessions of this host that its fleet has given up, because the host was lost.

use seedbed::fleet::directory::FleetDirectory;
use seedbed::host::text::printable;
use seedbed::state::{FleetPart, Swarm};

use crate::cli::Global;
use crate::cli::exit::Failure;

/// Help for a host whose sessions were given up.
pub(in crate::cli) const HELP: &str =
    "help: nothing was removed here; save what is needed, then run `seedbed destroy`";

/// Prints a note if the fleet of this host has given up the sessions that the host has.
pub(in crate::cli) fn note(global: &Global, swarm: &Swarm<'_>) -> Result<(), Failure> {
    if global.quiet || global.json {
        return Ok(());
    }
    if let Some(part) = swarm.applied_part()?
        && is_forgotten(&part)
    {
        say!("note: {}\n{HELP}", message(&part));
    }
    Ok(())
}

/// Returns whether the fleet has given up the sessions of its host; `false` if the directory of the fleet is not there.
pub(in crate::cli) fn is_forgotten(part: &FleetPart) -> bool {
    let Ok(directory) = FleetDirectory::open(&part.directory) else { return false };
    let is_same = directory.identity().is_ok_and(|fleet| fleet.is_some_and(|fleet| fleet.id == part.fleet));
    is_same && directory.index().is_ok_and(|index| index.is_some_and(|index| index.is_forgotten(&part.host)))
}

/// Returns the fact, one line.
pub(in crate::cli) fn message(part: &FleetPart) -> String {
    format!(
        "the fleet has given up host {} with its sessions, and other hosts may have sessions of these names now",
        printable(&part.host)
    )
}
