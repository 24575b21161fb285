//! `observe`: writes the observation of this host, for planning a fleet elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use seedbed::apply;
use seedbed::fleet::{HostObservation, ShardNumber, is_host_name};
use seedbed::host::text::printable;
use seedbed::report::error;

use super::exit::{Failure, Status};
use super::project::Project;
use super::{Global, output, output_file, plan, relocation};

/// Text in each observation.
const MARK: &str = "\"observation\":";

/// Arguments of `observe`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write the observation to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name under which other hosts reach this one [default: the name of this host]
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    host: Option<String>,
    /// Shard of this host and number of shards, as `0/4` [default: the plan chooses]
    #[arg(long, value_name = "K/N", value_parser = ShardNumber::parse)]
    shard: Option<ShardNumber>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let host = arguments.host.clone().map_or_else(own_name, Ok)?;
    let observation = observe(&project, host, arguments.shard)?;
    global.unless_interrupted()?;
    let Some(path) = &arguments.output else {
        output::print_json_pretty(&observation);
        return Ok(Status::Done.into());
    };
    let path = super::project::directory(global)?.join(path);
    let file = output_file::create(&path, MARK)?;
    output::write_json(file, &observation).map_err(|error| output_file::unwritten(&path, &error))?;
    if global.json {
        output::print_json_pretty(&observation);
    } else if !global.quiet {
        say!(
            "observation of host {} saved; plan with `seedbed fleet plan --observations DIR`",
            observation.host
        );
    }
    Ok(Status::Done.into())
}

/// Observes this host for the manifest of a project.
pub(super) fn observe(
    project: &Project,
    host: String,
    shard: Option<ShardNumber>,
) -> Result<HostObservation, Failure> {
    let manifest = project.manifest()?;
    let swarm = project.swarm()?;
    plan::settled(&swarm)?;
    relocation::refuse_strays(&swarm, &project.registry)?;
    let input = apply::planning_input_without_programs(&swarm, &project.registry, &manifest)?;
    if let Some(record) = &input.record {
        apply::require_same_repositories(&swarm, &project.registry, record)?;
    }
    Ok(HostObservation::new(&manifest, &project.registry, host, shard, input))
}

/// Parses the name of a host.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    if is_host_name(text) { Ok(text.to_owned()) } else { Err("a host has a name or an address".to_owned()) }
}

/// Returns the name of this host.
#[expect(clippy::disallowed_methods, reason = "the command line is what reads the environment")]
fn own_name() -> Result<String, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if is_host_name(name) {
        return Ok(name.to_owned());
    }
    let message = format!(
        "the name of this host cannot be used: `{}`\nhelp: pass one with `--host NAME`",
        printable(name)
    );
    Err(Failure::new(error::USAGE, message))
}
