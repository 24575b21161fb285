//! Common parts of the commands that change a swarm: its lock, and recovery of an interrupted run.

use std::time::Duration;

use seedbed::apply::{self, Context, Event, Options, Recovered};
use seedbed::host::text::printable;
use seedbed::report::error;
use seedbed::state::{self, LockedSwarm, Swarm};

use super::exit::{self, Failure};
use super::progress::Progress;
use super::project::Project;
use super::relocation;
use super::tmux_windows;
use super::{Global, applied_here};

/// Time for which a command waits for another one without a message.
const SILENT: Duration = Duration::from_secs(2);

/// Runs `act` under the lock of the manifest's swarm, and releases the lock in any case.
///
/// `what` is the reason that waiting runs report for the lock.
pub(super) fn with_lock<T>(
    global: &Global,
    project: &Project,
    what: &str,
    act: impl FnOnce(&Context<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if global.manifest.is_none() {
        applied_here::refuse_session(&project.host, &project.registry, project.directory())?;
    }
    let swarm = project.swarm()?;
    relocation::refuse_strays(&swarm, &project.registry)?;
    let locked = lock(global, &swarm, what)?;
    let progress = Progress::new(global, &project.host.cancel);
    let events = |event: &Event| progress.handle(event);
    let done = act(&Context::new(&locked, &project.registry).with_events(&events));
    drop(progress);
    tmux_windows::close_released(&locked);
    if let Err(error) = locked.unlock() {
        // The result counts; at worst an empty lock file remains.
        say!("error: {}", printable(&error.to_string()));
    }
    done
}

pub(super) fn lock<'h>(global: &Global, swarm: &Swarm<'h>, what: &str) -> Result<LockedSwarm<'h>, Failure> {
    let patience = global.lock_timeout.unwrap_or(global.patience);
    let silent = patience.min(SILENT);
    let locked = match swarm.lock(silent, what) {
        Err(error @ state::Error::Locked { .. }) if silent < patience => {
            if !global.quiet {
                say!("{}; waiting up to {} s", printable(&error.to_string()), patience.as_secs());
            }
            swarm.lock(patience.saturating_sub(silent), what)
        }
        locked => locked,
    };
    match locked {
        Err(error @ state::Error::Orphaned { .. }) if global.lock_timeout.is_none() => {
            if !global.quiet {
                let seconds = state::ORPHANS_TIMEOUT.as_secs();
                say!("{}; waiting up to {seconds} s", printable(&error.to_string()));
            }
            Ok(swarm.lock(state::ORPHANS_TIMEOUT, what)?)
        }
        locked => Ok(locked?),
    }
}

/// Recovers from an interrupted earlier run, and reports the recovery.
pub(super) fn recover(
    global: &Global,
    context: &Context<'_>,
    options: Options,
) -> Result<Recovered, Failure> {
    let recovered = apply::recover(context, options).inspect_err(|error| {
        let loses_work = match error {
            apply::Error::Refused(_) => true,
            apply::Error::Occupied { findings, .. } => !findings.is_empty(),
            _ => false,
        };
        if loses_work && !global.quiet && !global.json {
            say!("a run was interrupted, and recovering it would remove work:");
        }
    });
    let recovered = recovered.map_err(|error| match error {
        apply::Error::Unusable(repositories) => {
            let lines: Vec<_> = repositories.iter().map(exit::unusable).collect();
            let help = "help: a run was interrupted: bring it back, then run `seedbed recover`; if what is in it is lost for \
                        good: `seedbed recover --give-up`";
            Failure::new(error::REPOSITORY_UNUSABLE, format!("{}\n{help}", lines.join("\n")))
        }
        error => error.into(),
    })?;
    if recovered != Recovered::Nothing && !global.quiet && !global.json {
        say!("{recovered}");
    }
    Ok(recovered)
}
