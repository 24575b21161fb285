//! `--rescue`, `--discard` and `--stop`: treatment of unsaved work, and of processes in released sessions.

use std::time::Duration;

use clap::Args;
use seedbed::apply::{Occupants, Options, Unsaved};

use super::duration;

/// Heading of the options in this module.
const HEADING: &str = "Unsaved work and processes";

/// Option to end processes that use released sessions.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct StopProcesses {
    /// End processes that use released sessions: their directories, files or ports; send TERM, and KILL after this time
    /// (`10`, `1m`) [default: 10]
    #[arg(long, help_heading = HEADING, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "10",
          value_parser = duration)]
    stop: Option<Duration>,
}

impl From<StopProcesses> for Occupants {
    fn from(chosen: StopProcesses) -> Self {
        chosen.stop.map_or(Self::Refuse, Self::Stop)
    }
}

/// Combines the options of a run.
pub(super) fn options(unsaved: UnsavedWork, stop: StopProcesses) -> Options {
    let mut options = Options::from(Unsaved::from(unsaved));
    options.occupants = stop.into();
    options
}

/// Options for unsaved work; without one of them, the command is refused.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct UnsavedWork {
    /// Save unsaved work under refs/seedbed/rescue first, and print the commands that restore it
    #[arg(long, help_heading = HEADING, conflicts_with = "discard")]
    rescue: bool,
    /// Discard unsaved work
    #[arg(long, help_heading = HEADING)]
    discard: bool,
}

impl From<UnsavedWork> for Unsaved {
    fn from(chosen: UnsavedWork) -> Self {
        match chosen {
            UnsavedWork { rescue: true, .. } => Self::Rescue,
            UnsavedWork { discard: true, .. } => Self::Discard,
            UnsavedWork { .. } => Self::Keep,
        }
    }
}
