//! What the commands that change a swarm have in common: its lock, and what an interrupted run left.

use seedbed::apply::{self, Context, Event, Recovered, Unsaved};
use seedbed::host::text::printable;

use super::exit::Failure;
use super::setting::Setting;
use super::{Global, print};

/// Runs `act` under the lock of the manifest's swarm, and lets the lock go whatever came of it. `what` is what others
/// are told that the lock is held for.
pub(super) fn locked<T>(
    global: &Global,
    setting: &Setting,
    what: &str,
    act: impl FnOnce(&Context<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let locked = setting.swarm()?.lock(global.lock_timeout, what)?;
    let events = |event: &Event| say(global, event);
    let done = act(&Context { swarm: &locked, registry: &setting.registry, events: &events });
    let unlocked = locked.unlock();
    // What the run itself failed of says more, and decides the exit code.
    let done = done?;
    unlocked?;
    Ok(done)
}

/// Puts right what an earlier run left, and says so.
pub(super) fn recover(
    global: &Global,
    context: &Context<'_>,
    unsaved: Unsaved,
) -> Result<Recovered, Failure> {
    let recovered = apply::recover(context, unsaved)?;
    let said = match recovered {
        Recovered::Nothing => return Ok(recovered),
        Recovered::Undone => "undid an apply that had been interrupted",
        Recovered::Finished => "finished a destroy that had been interrupted",
    };
    if !global.quiet && !global.json {
        eprintln!("{said}");
    }
    Ok(recovered)
}

/// Says a step: every one with `--json` or `-v`, else those that a person waits for.
fn say(global: &Global, event: &Event) {
    if global.json {
        print::json(event);
        return;
    }
    let (line, always) = match event {
        Event::Rescued { session, reference, command, missing } => {
            // What was saved can only be found again by whoever is told: this is data, whatever is said beside it.
            print::out(&format!("{}\n", printable(command)));
            let missing = missing.iter().map(|line| format!("\n  {}", printable(line)));
            (format!("{session}: rescued to {reference}{}", missing.collect::<String>()), true)
        }
        Event::GoesAlong { session, what } => (format!("{session}: {}", printable(what)), true),
        Event::Provisioned { session, kind } => (format!("{session}: {kind}"), false),
        Event::SetUp { session } => (format!("{session}: set up"), false),
        Event::TornDown { session } => (format!("{session}: torn down"), false),
        Event::Ready { session } => (format!("{session}: ready"), false),
        Event::Released { session, kind } => (format!("{session}: {kind} released"), false),
        Event::RollingBack => ("rolling back".to_owned(), true),
    };
    if global.verbose || always && !global.quiet {
        eprintln!("{line}");
    }
}
