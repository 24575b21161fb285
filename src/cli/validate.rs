//! `validate`: checks a manifest, with output for people, programs and code review.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use seedbed::apply;
use seedbed::host::text::printable;
use seedbed::manifest::{Report, Validation};

use super::exit::{Failure, Status};
use super::overrides::Overrides;
use super::plan::settled;
use super::plan_format::choose;
use super::project::Project;
use super::{Global, output};

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Formats of diagnostics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Each problem at its line, underlined
    #[default]
    Text,
    /// JSON document, as `seedbed schema diagnostics` describes it
    Json,
    /// SARIF 2.1.0 log, for code scanning
    Sarif,
    /// Workflow commands of GitHub Actions, which show each problem at its line
    Github,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let format = choose(global, arguments.format, Format::Json)?;
    let project = Project::find_with(global, &arguments.overrides.set)?;
    let sessions = match check(&project) {
        Ok(sessions) => sessions,
        Err(Failure::Manifest(report)) if format != Format::Text && !global.cancel.is_requested() => {
            show(format, &report, None);
            return Ok(Status::Invalid.into());
        }
        Err(failure) => return Err(failure),
    };
    global.unless_interrupted()?;
    if format == Format::Text {
        if !global.quiet {
            output::print(&format!(
                "{} is valid: {}\n",
                printable(project.name()),
                output::count(sessions, "session")
            ));
        }
    } else {
        show(format, &Report::new(project.name(), "", Vec::new()), Some(sessions));
    }
    Ok(Status::Done.into())
}

/// Returns the number of sessions that a valid manifest declares.
fn check(project: &Project) -> Result<usize, Failure> {
    let manifest = project.manifest()?;
    let swarm = project.swarm()?;
    settled(&swarm)?;
    // The applied swarm does not affect validity, but must not conflict with its own plan. No program that the manifest
    // names runs: a user who checks a manifest may not have reviewed it yet.
    let input = apply::planning_input_without_programs(&swarm, &project.registry, &manifest)?;
    project.check(&manifest, &input).map_err(|diagnostics| project.diagnostics(diagnostics))?;
    let sessions = manifest.sessions.len();
    output::leave_to_system((manifest, input));
    Ok(sessions)
}

/// Prints the formats for programs; `sessions` is the number of sessions of a valid manifest.
fn show(format: Format, report: &Report, sessions: Option<usize>) {
    match (format, sessions) {
        (Format::Text, _) => {}
        (Format::Json, None) => output::print_json_pretty(&report.validation()),
        (Format::Json, Some(sessions)) => {
            output::print_json_pretty(&Validation::for_sessions(report.file_name(), sessions));
        }
        (Format::Sarif, _) => output::print_json_pretty(&report.sarif(env!("CARGO_PKG_VERSION"))),
        (Format::Github, _) => output::print(&report.github()),
    }
}
