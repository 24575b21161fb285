//! `destroy` and `recover`: takes leases away, never unsaved work.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use seedbed::apply::{self, Destroy, Loss, Recovered, Unsaved};
use seedbed::host::text::printable;
use seedbed::state::Record;
use serde_json::json;

use super::exit::{Failure, Status};
use super::locked::{locked, recover as recover_first};
use super::outcome::{self, Outcome};
use super::plan::settled;
use super::setting::Setting;
use super::unsaved::UnsavedWork;
use super::{Global, completions, standing};

/// What `destroy` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The sessions to release, each with everything below it; default: all
    #[arg(add = completions::standing())]
    sessions: Vec<String>,
    #[command(flatten)]
    unsaved: UnsavedWork,
    /// Says what would be released, lost and rescued, and changes nothing; exits with 69 where it would be refused
    #[arg(long)]
    dry_run: bool,
}

/// What `recover` takes. Where neither is said, what the interrupted run was told holds.
#[derive(Debug, Args)]
pub(super) struct RecoverArguments {
    #[command(flatten)]
    unsaved: UnsavedWork,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let setting = Setting::find(global)?;
    if arguments.dry_run {
        return dry_run(global, &setting, arguments);
    }
    let done = locked(global, &setting, "destroy", |context| {
        recover_first(global, context, arguments.unsaved.into())?;
        let Some(record) = context.swarm.standing()? else { return Ok(None) };
        let after = apply::destroy(context, &record, &what(arguments, &record)?)?;
        let left = after.map_or(0, |record| record.plan.sessions.len());
        Ok(Some((record.plan.sessions.len() - left, left)))
    })?;
    let (released, left) = done.unwrap_or_default();
    if global.json {
        super::print::json(&Outcome::destroyed(released, left));
    } else if !global.quiet {
        match done {
            None => eprintln!("nothing stands"),
            Some((released, 0)) => eprintln!("{released} session(s) released; nothing is left"),
            Some((released, left)) => eprintln!("{released} session(s) released, {left} left standing"),
        }
    }
    Ok(Status::Done.into())
}

/// What the arguments ask to release.
fn what(arguments: &Arguments, record: &Record) -> Result<Destroy, Failure> {
    let sessions: Result<BTreeSet<_>, Failure> = arguments
        .sessions
        .iter()
        .map(|name| standing::session(record, name).map(|session| session.path.clone()))
        .collect();
    Ok(Destroy { sessions: sessions?, unsaved: arguments.unsaved.into() })
}

/// Says what the real one would do. It decides with the same code, by the same look.
fn dry_run(global: &Global, setting: &Setting, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let swarm = setting.swarm()?;
    settled(&swarm)?;
    let Some(record) = swarm.standing()? else {
        if global.json {
            let stands = json!({ "schemaVersion": 1, "event": "dryRun", "refused": false, "sessions": [] });
            super::print::json(&stands);
        } else if !global.quiet {
            eprintln!("nothing stands");
        }
        return Ok(Status::Done.into());
    };
    let destroy = what(arguments, &record)?;
    let stake = apply::at_stake(&swarm, &setting.registry, &record, &destroy)?;
    global.unless_interrupted()?;
    let refused = stake.refused(destroy.unsaved);
    let sessions: Vec<_> = destroy.sessions_of(&record).map(|session| session.path.as_str()).collect();
    let work = [&stake.held, &stake.beyond_rescue, &stake.work].map(|losses| losses.iter());
    let work: Vec<_> = work.into_iter().flatten().collect();
    if global.json {
        super::print::json(&json!({
            "schemaVersion": 1,
            "event": "dryRun",
            "refused": !refused.is_empty(),
            "sessions": sessions,
            "losses": work,
            "rescued": if destroy.unsaved == Unsaved::Rescue { &stake.work[..] } else { &[] },
            "goesAlong": stake.passing,
        }));
    } else {
        let lines = |word: &str, losses: &[&Loss]| -> String {
            let line = |loss: &&Loss| format!("  {}: {word}{}\n", loss.session, printable(&loss.what));
            losses.iter().map(line).collect()
        };
        let would = match destroy.unsaved {
            Unsaved::Keep => "",
            Unsaved::Rescue => "would be rescued: ",
            Unsaved::Discard => "would be given up: ",
        };
        let (kept, blocking): (Vec<_>, Vec<_>) = work.into_iter().partition(|loss| !refused.contains(loss));
        let mut text = format!("would release {}\n", sessions.join(", "));
        text += &lines("refused: ", &blocking);
        text += &lines(would, &kept);
        text += &lines("", &stake.passing.iter().collect::<Vec<_>>());
        super::print::out(&text);
    }
    Ok(if refused.is_empty() { Status::Done } else { Status::Refused }.into())
}

pub(super) fn recover(global: &Global, arguments: &RecoverArguments) -> Result<ExitCode, Failure> {
    let setting = Setting::find(global)?;
    let recovered = locked(global, &setting, "recover", |context| {
        recover_first(global, context, arguments.unsaved.into())
    })?;
    if global.json {
        let what = match recovered {
            Recovered::Nothing => outcome::Recovered::Nothing,
            Recovered::Undone => outcome::Recovered::Undone,
            Recovered::Finished => outcome::Recovered::Finished,
        };
        super::print::json(&Outcome::recovered(what));
    } else if recovered == Recovered::Nothing && !global.quiet {
        eprintln!("nothing to recover");
    }
    Ok(Status::Done.into())
}
