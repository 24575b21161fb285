//! Saved plans: reading one, and `show`.
#![expect(clippy::disallowed_methods, reason = "reads the plan file that the user names")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use seedbed::plan::Plan;
use seedbed::report::error;
use seedbed::review::Review;

use super::exit::{Failure, Status};
use super::plan_format::{Format, choose};
use super::project::{directory, registry};
use super::{Global, plan};

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Plan that `seedbed plan -o` saved
    file: PathBuf,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

/// Prints a saved plan; neither its manifest nor its repository has to exist.
pub(super) fn show(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let format = choose(global, arguments.format, Format::Json)?;
    let path = directory(global)?.join(&arguments.file);
    let plan = read(&path)?;
    let notices = plan::refusals(&plan);
    // The file may come from a stranger, and is the only source of its content.
    format.show(global, &Review::new(&plan).with_notices(&notices), true);
    Ok(Status::Done.into())
}

/// Reads a saved plan, and checks that planning could have made it.
pub(super) fn read(path: &Path) -> Result<Plan, Failure> {
    let unusable = |why: String| Failure::new(error::PLAN_FILE_INVALID, format!("{} {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    Plan::read(&bytes, &registry()).map_err(|error| unusable(error.to_string()))
}
