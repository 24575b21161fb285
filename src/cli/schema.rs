//! `schema`: prints the JSON schemas of files and outputs.

use std::process::ExitCode;

use clap::ValueEnum;
use schemars::schema_for;
use seedbed::discovery::Snapshot;
use seedbed::manifest::{self, Validation};
use seedbed::plan::Plan;
use seedbed::provider::Registry;
use seedbed::provider::external::protocol::Protocol;
use seedbed::report::{Diagnosis, Environment, Explanation, List, Prompt, Rescues};

use super::exit::Status;
use super::{outcome, print, status};

/// Documents with a JSON schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Schema {
    /// `seedbed.toml`
    Manifest,
    /// What `plan --json` prints and `plan -o` saves
    Plan,
    /// What `validate --format json` prints
    Faults,
    /// What the program of an external kind is asked, and answers
    Provider,
    /// The discovery file
    Discovery,
    /// Each line that `apply`, `destroy`, `recover`, `run` and `exec` print with `--json`
    Events,
    /// What `status --json` prints
    Status,
    /// What `list --json` prints
    List,
    /// What `doctor --json` prints
    Doctor,
    /// What `explain --json` prints
    Explain,
    /// What `env --json` prints
    Env,
    /// What `prompt --json` prints
    Prompt,
    /// What `rescue list`, `rescue restore` and `rescue drop` print with `--json`
    Rescues,
}

pub(super) fn run(what: Schema) -> ExitCode {
    let schema = match what {
        Schema::Manifest => manifest::schema(&Registry::built_in().kinds()),
        Schema::Plan => schema_for!(Plan).to_value(),
        Schema::Faults => schema_for!(Validation).to_value(),
        Schema::Provider => schema_for!(Protocol).to_value(),
        Schema::Discovery => schema_for!(Snapshot).to_value(),
        Schema::Events => outcome::schema().to_value(),
        Schema::Status => status::schema().to_value(),
        Schema::List => schema_for!(List).to_value(),
        Schema::Doctor => schema_for!(Diagnosis).to_value(),
        Schema::Explain => schema_for!(Explanation).to_value(),
        Schema::Env => schema_for!(Environment).to_value(),
        Schema::Prompt => schema_for!(Prompt).to_value(),
        Schema::Rescues => schema_for!(Rescues).to_value(),
    };
    print::json_pretty(&schema);
    Status::Done.into()
}
