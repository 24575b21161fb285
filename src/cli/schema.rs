//! `schema`: prints the JSON schemas of files and outputs.

use std::process::ExitCode;

use clap::ValueEnum;
use schemars::schema_for;
use seedbed::discovery::Snapshot;
use seedbed::manifest::{self, Validation};
use seedbed::plan::Plan;
use seedbed::provider::Registry;
use seedbed::provider::external::protocol::Protocol;
use seedbed::report::event::Line;
use seedbed::report::schema::generate;
use seedbed::report::status::SwarmStatus;
use seedbed::report::{Diagnosis, Environment, Explanation, Initialized, List, Prompt, Rescues};

use super::exit::Status;
use super::print;

/// Documents with a JSON schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Schema {
    /// `seedbed.toml`
    Manifest,
    /// What `plan --json` prints and `plan -o` saves
    Plan,
    /// What `init --json` prints
    Init,
    /// What `validate --format json` prints
    Faults,
    /// What the program of an external kind is asked, and answers
    Provider,
    /// The discovery file
    Discovery,
    /// Each line that `apply`, `destroy`, `recover`, `run` and `exec` print with `--json`, and any command that fails
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
    let registry = Registry::built_in();
    let schema = match what {
        Schema::Manifest => manifest::schema(&registry.kinds()),
        Schema::Plan => generate::<Plan>(&registry),
        Schema::Init => generate::<Initialized>(&registry),
        Schema::Faults => generate::<Validation>(&registry),
        Schema::Provider => schema_for!(Protocol).to_value(),
        Schema::Discovery => generate::<Snapshot>(&registry),
        Schema::Events => generate::<Line>(&registry),
        Schema::Status => generate::<SwarmStatus>(&registry),
        Schema::List => generate::<List>(&registry),
        Schema::Doctor => generate::<Diagnosis>(&registry),
        Schema::Explain => generate::<Explanation>(&registry),
        Schema::Env => generate::<Environment>(&registry),
        Schema::Prompt => generate::<Prompt>(&registry),
        Schema::Rescues => generate::<Rescues>(&registry),
    };
    print::json_pretty(&schema);
    Status::Done.into()
}
