//! `schema`: prints the JSON schemas of files and outputs.

use std::process::ExitCode;

use clap::ValueEnum;
use schemars::schema_for;
use seedbed::discovery::Snapshot;
use seedbed::manifest::{self, Validation};
use seedbed::plan::Plan;
use seedbed::provider::Registry;
use seedbed::provider::external::protocol::Protocol;
use seedbed::report::collected::CollectedSwarm;
use seedbed::report::event::Line;
use seedbed::report::schema::generate;
use seedbed::report::status::SwarmStatus;
use seedbed::report::{Diagnosis, Environment, Explanation, Initialized, List, Prompt, Rescues};

use super::exit::Status;
use super::output;

/// Documents with a JSON schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Schema {
    /// Manifest, `seedbed.toml`
    Manifest,
    /// Output of `plan --json` and `plan -o`
    Plan,
    /// Output of `init --json`
    Init,
    /// Output of `validate --format json`
    Diagnostics,
    /// Requests to the program of an external kind, and its answers
    Provider,
    /// Discovery file of a session
    Discovery,
    /// Lines of `apply`, `destroy`, `recover`, `run`, `start` and `exec` with `--json`, and of any command that fails
    Events,
    /// Output of `status --json`
    Status,
    /// Output of `collect --json`
    Collected,
    /// Output of `list --json`
    List,
    /// Output of `doctor --json`
    Doctor,
    /// Output of `explain --json`
    Explain,
    /// Output of `env --json`
    Env,
    /// Output of `prompt --json`
    Prompt,
    /// Output of `rescue list`, `rescue restore` and `rescue drop` with `--json`
    Rescues,
}

pub(super) fn run(document: Schema) -> ExitCode {
    let registry = Registry::built_in();
    let schema = match document {
        Schema::Manifest => manifest::schema(&registry.kinds()),
        Schema::Plan => generate::<Plan>(&registry),
        Schema::Init => generate::<Initialized>(&registry),
        Schema::Diagnostics => generate::<Validation>(&registry),
        Schema::Provider => schema_for!(Protocol).to_value(),
        Schema::Discovery => generate::<Snapshot>(&registry),
        Schema::Events => generate::<Line>(&registry),
        Schema::Status => generate::<SwarmStatus>(&registry),
        Schema::Collected => generate::<CollectedSwarm>(&registry),
        Schema::List => generate::<List>(&registry),
        Schema::Doctor => generate::<Diagnosis>(&registry),
        Schema::Explain => generate::<Explanation>(&registry),
        Schema::Env => generate::<Environment>(&registry),
        Schema::Prompt => generate::<Prompt>(&registry),
        Schema::Rescues => generate::<Rescues>(&registry),
    };
    output::print_json_pretty(&schema);
    Status::Done.into()
}
