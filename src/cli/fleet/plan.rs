//! `fleet plan`: plans the parts of all hosts.
#![expect(clippy::disallowed_methods, reason = "reads and writes the directories that the user names")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use rayon::prelude::*;
use seedbed::fleet::{self, FleetPlan, HostObservation, review};
use seedbed::host::files::Root;
use seedbed::host::text::{printable, shell_quoted};
use seedbed::manifest::Manifest;
use seedbed::observe::{self, Observation};
use seedbed::report::error;

use crate::cli::exit::{Failure, Status};
use crate::cli::plan_format::choose;
use crate::cli::project::{Project, directory};
use crate::cli::{Global, output, signals};

/// Arguments of `fleet plan`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory of the observations, each from `seedbed observe -o DIR/HOST.json`
    #[arg(long, value_name = "DIR")]
    observations: PathBuf,
    /// Save the plan in this directory: `fleet.json`, and for each host a plan for `seedbed apply`
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

/// Formats of the plan of a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Shards, similar ones as one
    #[default]
    Text,
    /// Plan document, with the plans of all shards
    Json,
    /// Comment for a pull request
    Markdown,
    /// Self-contained HTML page
    Html,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let format = choose(global, arguments.format, Format::Json)?;
    let project = Project::find(global)?;
    let manifest = project.manifest()?;
    let directory = directory(global)?;
    let observations = read_observations(&directory.join(&arguments.observations))?;
    let own = own_commits(&project, &manifest)?;
    let plan = make(&project, &manifest, &own, observations, None)?;
    global.unless_interrupted()?;
    if let Some(path) = &arguments.output {
        let into = directory.join(path);
        let saved = std::path::absolute(&into).map_err(|error| unreadable(&into, &error))?;
        let saved = Root::create(&saved)?;
        fleet::save(&saved, &plan)?;
        if !global.quiet && !global.json {
            let path = shell_quoted(&printable(&path.to_string_lossy()));
            say!(
                "plan saved; on the host of shard K, apply exactly its part with `seedbed apply {path}/shard-K.json`"
            );
        }
    }
    match format {
        Format::Text => output::print(&review::text(&plan, &project.registry, global.verbose)),
        Format::Markdown => output::print(&review::markdown(&plan, &project.registry)),
        Format::Html => output::print(&review::html(&plan, &project.registry)),
        Format::Json => output::print_json_pretty(&plan),
    }
    Ok(Status::Done.into())
}

/// Observes the commits of this host, which are those of the plan.
pub(super) fn own_commits(project: &Project, manifest: &Manifest) -> Result<Observation, Failure> {
    let queries = fleet::commit_queries(manifest, &project.registry);
    let swarm = project.swarm()?;
    observe::observe(&project.host, swarm.workspace(), &queries).map_err(Failure::Observe)
}

/// Plans this number of shards, or that of the manifest; commits are those of this host, as far as it has the repositories.
pub(super) fn make(
    project: &Project,
    manifest: &Manifest,
    own: &Observation,
    observations: Vec<HostObservation>,
    shards: Option<usize>,
) -> Result<FleetPlan, Failure> {
    let planned = signals::while_computing(&project.host.cancel, || {
        let shards = shards.map_or_else(|| fleet::shards(manifest, observations.len(), None), Ok)?;
        fleet::plan_shards(manifest, &project.registry, own, observations, shards)
    });
    let mut plan = planned.map_err(|error| match error {
        fleet::Error::Diagnostics(diagnostics) => project.diagnostics(diagnostics),
        error => Failure::from_error(error),
    })?;
    fleet::add_deliveries(&project.host, own, &mut plan).map_err(Failure::from_error)?;
    Ok(plan)
}

/// Reads every observation of a directory: its files that end in `.json`.
pub(super) fn read_observations(directory: &Path) -> Result<Vec<HostObservation>, Failure> {
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    if paths.is_empty() {
        let message = format!(
            "{} has no observation\nhelp: run `seedbed observe -o DIR/HOST.json` on each host",
            printable(&directory.to_string_lossy())
        );
        return Err(Failure::new(error::OBSERVATION_INVALID, message));
    }
    let read = |path: &PathBuf| {
        let invalid = |why: String| {
            Failure::new(error::OBSERVATION_INVALID, format!("{} {why}", printable(&path.to_string_lossy())))
        };
        let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
        HostObservation::read(&bytes).map_err(invalid)
    };
    let read: Vec<_> = paths.par_iter().map(read).collect();
    read.into_iter().collect()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::from_file_error(format!("cannot read {}: {error}", printable(&path.to_string_lossy())))
}
