//! `fleet status`: what every host reports.

use std::process::ExitCode;

use seedbed::fleet::directory::Index;
use seedbed::fleet::launcher::{Allocated, JobState};
use seedbed::fleet::report::{FleetHost, FleetStatus, HostState};
use seedbed::report::error;
use seedbed::state;

use super::allocate::described;
use super::opened::{Fleet, FleetArguments};
use crate::cli::exit::{Failure, Status};
use crate::cli::project::Project;
use crate::cli::{Global, output};

pub(super) fn run(global: &Global, arguments: &FleetArguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, &arguments.reach, false)?;
    let launcher = fleet.launcher(&project)?;
    let request: String = state::new_owner()?;
    fleet.hosts(&project, launcher.as_ref()).report(&request);
    global.unless_interrupted()?;
    print_status(global, &fleet, &request, launcher.allocated())
}

/// Prints what each host has reported; only answers to `request` are current.
pub(super) fn print_status(
    global: &Global,
    fleet: &Fleet,
    request: &str,
    allocation: Option<Allocated>,
) -> Result<ExitCode, Failure> {
    let index = fleet.directory.index()?;
    let mut status = FleetStatus::new(&fleet.config.swarm, index.as_ref());
    status.allocation = allocation;
    let committed = index.as_ref().map(Index::sessions_by_host).unwrap_or_default();
    for (host, report) in fleet.config.hosts.iter().zip(fleet.directory.reports(&fleet.config.hosts)) {
        let committed = committed.get(host.as_str()).map_or(&[][..], Vec::as_slice);
        status.hosts.push(FleetHost::new(host, report, request, committed));
    }
    if global.json {
        output::print_json_pretty(&status);
    } else {
        if let Some(allocated) = &status.allocation {
            output::print(&format!("{}\n\n", described(allocated)));
        }
        let head = ["HOST", "STATE", "SESSIONS", "BROKEN", "UNSAVED", "REPORTED"].map(str::to_owned);
        let rows = status.hosts.iter().map(|host| {
            let [broken, unsaved] = host.counts();
            let at = host.report.as_ref().map_or_else(|| "never".to_owned(), |report| report.at.clone());
            [host.host.clone(), host.state.to_string(), host.sessions.to_string(), broken, unsaved, at]
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        output::print(&output::table(&rows));
    }
    // The hosts of a fleet without sessions are released.
    let is_released = status.allocation.as_ref().is_some_and(|job| job.state == JobState::Ended)
        && index.is_none_or(|index| index.sessions.is_empty());
    let is_whole = is_released || status.hosts.iter().all(|host| host.state == HostState::Applied);
    Ok(if is_whole { Status::Done.into() } else { ExitCode::from(error::FLEET_DEGRADED.exit_code) })
}
