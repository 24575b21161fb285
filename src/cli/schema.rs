//! `schema`: prints the JSON schemas of files and outputs.
#![expect(clippy::disallowed_methods, reason = "reads the schemas of external kinds that the user names")]

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use schemars::schema_for;
use seedbed::discovery::Snapshot;
use seedbed::fleet::directory::{Answer, HostReport, Index};
use seedbed::fleet::report::FleetStatus;
use seedbed::fleet::{Config, FleetPlan, HostObservation};
use seedbed::host::seeds::Seed;
use seedbed::manifest::{self, Validation};
use seedbed::plan::Plan;
use seedbed::provider::Registry;
use seedbed::provider::external::protocol::Protocol;
use seedbed::report::collected::CollectedSwarm;
use seedbed::report::error;
use seedbed::report::event::Line;
use seedbed::report::schema::generate;
use seedbed::report::status::SwarmStatus;
use seedbed::report::{Diagnosis, Environment, Explanation, Initialized, List, Prompt, Rescues};
use seedbed::state::Decision;

use super::exit::{Failure, Status};
use super::project::directory;
use super::{Global, output};

/// Documents with a JSON schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Schema {
    /// Manifest, `seedbed.toml`
    Manifest,
    /// Output of `plan --json` and `plan -o`
    Plan,
    /// Output of `observe`
    Observation,
    /// Output of `fleet plan --json`
    Fleet,
    /// Output of `fleet apply`, `fleet destroy`, `fleet recover` and `fleet repair` with `--json`; `index.json` of a fleet
    FleetIndex,
    /// `config.json` of a fleet
    FleetConfig,
    /// Votes and results of hosts in the directory of a fleet
    FleetAnswer,
    /// `reports/HOST.json` of a fleet
    FleetReport,
    /// `decision.json` of a run over the hosts of a fleet
    FleetDecision,
    /// Output of `fleet status --json`
    FleetStatus,
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
    /// `seed.json` of a seed in the state directory
    Seed,
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

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Document that the schema describes
    #[arg(default_value = "manifest")]
    document: Schema,
    /// Add the options of an external kind to the schema of the manifest: `database=providers/database.schema.json`. Can be
    /// given several times
    #[arg(long = "kind", value_name = "KIND=FILE")]
    kinds: Vec<String>,
}

/// Returns all kinds of a manifest: those of seedbed, and the external kinds that the user names.
fn kinds(global: &Global, arguments: &Arguments) -> Result<manifest::Kinds, Failure> {
    let mut kinds = Registry::built_in().kinds();
    for argument in &arguments.kinds {
        let refused = |why: &str| Failure::new(error::USAGE, format!("`--kind {argument}`: {why}"));
        let (kind, file) = argument.split_once('=').ok_or_else(|| refused("write it as KIND=FILE"))?;
        let text =
            std::fs::read(directory(global)?.join(file)).map_err(|error| refused(&error.to_string()))?;
        let schema = serde_json::from_slice(&text).map_err(|error| refused(&error.to_string()))?;
        if kinds.insert(kind.to_owned(), schema).is_some() {
            return Err(refused("there is already a kind of this name"));
        }
    }
    Ok(kinds)
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::built_in();
    let kinds = kinds(global, arguments)?;
    let schema = match arguments.document {
        Schema::Manifest => manifest::schema(&kinds),
        Schema::Plan => generate::<Plan>(&registry),
        Schema::Observation => generate::<HostObservation>(&registry),
        Schema::Fleet => generate::<FleetPlan>(&registry),
        Schema::FleetIndex => generate::<Index>(&registry),
        Schema::FleetConfig => generate::<Config>(&registry),
        Schema::FleetAnswer => generate::<Answer>(&registry),
        Schema::FleetReport => generate::<HostReport>(&registry),
        Schema::FleetDecision => generate::<Decision>(&registry),
        Schema::FleetStatus => generate::<FleetStatus>(&registry),
        Schema::Init => generate::<Initialized>(&registry),
        Schema::Diagnostics => generate::<Validation>(&registry),
        Schema::Provider => schema_for!(Protocol).to_value(),
        Schema::Discovery => generate::<Snapshot>(&registry),
        Schema::Events => generate::<Line>(&registry),
        Schema::Seed => generate::<Seed>(&registry),
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
    Ok(Status::Done.into())
}
