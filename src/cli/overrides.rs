//! `--set`: values of the manifest that are changed for one run.

use clap::Args;
use seedbed::manifest::Override;
use seedbed::plan::Plan;
use seedbed::report::error;
use seedbed::state::Record;

use super::exit::Failure;

/// Values of the manifest that are changed for one run.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Overrides {
    /// Change a value of the manifest for this run: `session.coder.count=8`. Can be given several times; the value is TOML,
    /// or else a string
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = Override::parse)]
    pub(super) set: Vec<Override>,
}

impl Overrides {
    /// Refuses values beside a saved plan, which was made with its own.
    pub(super) fn refuse_with_saved_plan(&self) -> Result<(), Failure> {
        let Some(first) = self.set.first() else { return Ok(()) };
        let message = format!(
            "`--set {}` is part of a saved plan\nhelp: make it with `seedbed plan -o FILE --set PATH=VALUE`",
            first.argument()
        );
        Err(Failure::new(error::USAGE, message))
    }
}

/// Returns a note for values that were changed when the swarm was applied, and are not changed in this plan.
pub(super) fn note(plan: &Plan, applied: Option<&Record>) -> Option<String> {
    let applied = applied?.plan.overrides();
    let lost: Vec<_> = applied.iter().filter(|given| !plan.overrides().contains(given)).collect();
    let given = lost.iter().map(|given| format!("--set {given}")).collect::<Vec<_>>().join(" ");
    (!lost.is_empty()).then(|| format!("the swarm was applied with {given}, which this plan does not have"))
}
