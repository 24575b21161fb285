//! What the commands that change a swarm have in common: its lock, and what an interrupted run left.

use seedbed::apply::{self, Context, Event, Recovered, Unsaved};

use super::Global;
use super::exit::Failure;
use super::progress::Progress;
use super::setting::Setting;

/// Runs `act` under the lock of the manifest's swarm, and lets the lock go whatever came of it. `what` is what others
/// are told that the lock is held for.
pub(super) fn locked<T>(
    global: &Global,
    setting: &Setting,
    what: &str,
    act: impl FnOnce(&Context<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let locked = setting.swarm()?.lock(global.lock_timeout, what)?;
    let progress = Progress::new(global, &setting.host.cancel);
    let events = |event: &Event| progress.hear(event);
    let done = act(&Context { swarm: &locked, registry: &setting.registry, events: &events });
    drop(progress);
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
