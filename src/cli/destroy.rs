//! `destroy` and `recover`: takes leases away, never unsaved work.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use seedbed::apply::{self, Destroy, Recovered};
use serde_json::json;

use super::exit::{Failure, Status};
use super::locked::{locked, recover as recover_first};
use super::setting::Setting;
use super::{Global, completions, standing};

/// What `destroy` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The sessions to release, each with everything below it; default: all
    #[arg(add = completions::standing())]
    sessions: Vec<String>,
    /// Gives up unsaved work
    #[arg(long)]
    discard: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let setting = Setting::find(global)?;
    setting.catch_signals()?;
    let done = locked(global, &setting, "destroy", |context| {
        recover_first(global, context, arguments.discard)?;
        let Some(record) = context.swarm.standing()? else { return Ok(None) };
        let sessions: Result<BTreeSet<_>, Failure> = arguments
            .sessions
            .iter()
            .map(|name| standing::session(&record, name).map(|session| session.path.clone()))
            .collect();
        let destroy = Destroy { sessions: sessions?, discard: arguments.discard };
        let after = apply::destroy(context, &record, &destroy)?;
        let left = after.map_or(0, |record| record.plan.sessions.len());
        Ok(Some((record.plan.sessions.len() - left, left)))
    })?;
    let (released, left) = done.unwrap_or_default();
    if global.json {
        super::print::json(
            &json!({ "schemaVersion": 1, "event": "done", "released": released, "left": left }),
        );
    } else if !global.quiet {
        match done {
            None => eprintln!("nothing stands"),
            Some((released, 0)) => eprintln!("{released} session(s) released; nothing is left"),
            Some((released, left)) => eprintln!("{released} session(s) released, {left} left standing"),
        }
    }
    Ok(Status::Done.into())
}

pub(super) fn recover(global: &Global) -> Result<ExitCode, Failure> {
    let setting = Setting::find(global)?;
    let recovered = locked(global, &setting, "recover", |context| recover_first(global, context, false))?;
    if global.json {
        let what = match recovered {
            Recovered::Nothing => "nothing",
            Recovered::Undone => "undone",
            Recovered::Finished => "finished",
        };
        super::print::json(&json!({ "schemaVersion": 1, "event": "done", "recovered": what }));
    } else if recovered == Recovered::Nothing && !global.quiet {
        eprintln!("nothing to recover");
    }
    Ok(Status::Done.into())
}
