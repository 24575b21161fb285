//! `--rescue` and `--discard`: what becomes of unsaved work.

use clap::Args;
use seedbed::apply::Unsaved;

/// What becomes of work that would be lost; where nothing is said, the command is refused.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct UnsavedWork {
    /// Saves unsaved work under refs/seedbed/rescue first, and prints the commands that bring it back
    #[arg(long, conflicts_with = "discard")]
    rescue: bool,
    /// Gives up unsaved work
    #[arg(long)]
    discard: bool,
}

impl From<UnsavedWork> for Unsaved {
    fn from(said: UnsavedWork) -> Self {
        match said {
            UnsavedWork { rescue: true, .. } => Self::Rescue,
            UnsavedWork { discard: true, .. } => Self::Discard,
            UnsavedWork { .. } => Self::Keep,
        }
    }
}
