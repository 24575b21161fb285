//! Saved plans: reading one back, and `show`.
#![expect(clippy::disallowed_methods, reason = "reads the plan file that the user names")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use seedbed::plan::{Plan, SCHEMA_VERSION};
use seedbed::review::Review;
use serde_json::Value;

use super::exit::{Failure, Status};
use super::format::Format;
use super::setting::{directory, registry};
use super::{Global, plan};

/// What `show` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A plan that `seedbed plan -o` saved
    file: PathBuf,
    /// How the plan is shown
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

/// Prints a saved plan, for which neither its manifest nor its repository has to be there.
pub(super) fn show(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let format = Format::chosen(global, arguments.format)?;
    let path = directory(global)?.join(&arguments.file);
    let plan = read(&path)?;
    let notices = plan::refusals(&plan);
    format.show(global, &Review { plan: &plan, notices: &notices, observation: None });
    Ok(Status::Done.into())
}

/// Reads a plan that was saved, and makes sure that it is one that planning made.
pub(super) fn read(path: &Path) -> Result<Plan, Failure> {
    let unusable = |why: String| Failure::PlanFile(format!("{} {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let document: Value =
        serde_json::from_slice(&bytes).map_err(|error| unusable(format!("is not a plan: {error}")))?;
    match document.get("schemaVersion").and_then(Value::as_u64) {
        Some(version) if version == u64::from(SCHEMA_VERSION) => {}
        Some(version) => {
            let what = if version > u64::from(SCHEMA_VERSION) {
                "a newer seedbed wrote it: use that one"
            } else {
                "an older seedbed wrote it: use that one"
            };
            return Err(unusable(format!(
                "has format {version}, and this seedbed reads format {SCHEMA_VERSION}; {what}, or make a new plan: \
                 seedbed plan -o FILE"
            )));
        }
        None => return Err(unusable("is not a plan".to_owned())),
    }
    let plan: Plan =
        serde_json::from_value(document).map_err(|error| unusable(format!("is not a plan: {error}")))?;
    if plan.computed_digest() != plan.digest {
        return Err(unusable("was edited: its digest does not match its content".to_owned()));
    }
    let registry = registry();
    if plan.standing.is_none() && plan.changes != plan.changes_from(&registry, None) {
        return Err(unusable("was edited: its changes do not create its sessions".to_owned()));
    }
    if let Some(session) = plan.misplaced(&registry) {
        return Err(unusable(format!("was edited: no manifest gives {} these places", session.path)));
    }
    Ok(plan)
}
