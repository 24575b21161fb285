//! What the commands that change a swarm have in common: its lock, and what an interrupted run left.

use seedbed::apply::{self, Context, Event, Options, Recovered};
use seedbed::host::text::printable;
use seedbed::state::{self, Locked, Swarm};

use super::Global;
use super::elsewhere;
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
    let swarm = setting.swarm()?;
    elsewhere::refuse_strays(&swarm, &setting.registry)?;
    let locked = lock(global, &swarm, what)?;
    let progress = Progress::new(global, &setting.host.cancel);
    let events = |event: &Event| progress.hear(event);
    let done = act(&Context::new(&locked, &setting.registry).with_events(&events));
    drop(progress);
    if let Err(error) = locked.unlock() {
        // What was done counts; at worst an empty file stays behind.
        say!("seedbed: {}", printable(&error.to_string()));
    }
    done
}

pub(super) fn lock<'h>(global: &Global, swarm: &Swarm<'h>, what: &str) -> Result<Locked<'h>, Failure> {
    match swarm.lock(global.lock_timeout.unwrap_or_default(), what) {
        Err(error @ state::Error::Orphaned { .. }) if global.lock_timeout.is_none() => {
            if !global.quiet {
                let seconds = state::ORPHANS_TIMEOUT.as_secs();
                say!("{}; waiting up to {seconds} s for it", printable(&error.to_string()));
            }
            Ok(swarm.lock(state::ORPHANS_TIMEOUT, what)?)
        }
        locked => Ok(locked?),
    }
}

/// Puts right what an earlier run left, and says so.
pub(super) fn recover(
    global: &Global,
    context: &Context<'_>,
    options: Options,
) -> Result<Recovered, Failure> {
    let recovered = apply::recover(context, options).inspect_err(|error| {
        if matches!(error, apply::Error::Refused(_)) && !global.quiet && !global.json {
            say!("a run was interrupted, and recovering it would remove work:");
        }
    })?;
    if recovered != Recovered::Nothing && !global.quiet && !global.json {
        say!("{recovered}");
    }
    Ok(recovered)
}
