//! Restores rescues in active sessions.

use std::path::Path;

use super::{Context, rescue, with_task};
use crate::plan::Session;
use crate::provider::git_worktree::rescue::{Restored, SavedWork, restore_into};
use crate::provider::{self, git_worktree};
use crate::state::{self, Record};

/// Error of restoring a rescue in a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state directory could not be used, or an interrupted run of the swarm is not recovered.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The rescue cannot be restored there, or Git or the system failed.
    #[error(transparent)]
    Worktree(#[from] provider::Error),
}

/// Restores `saved`, a rescue of the repository `common`, in the worktree of an active session, as [`restore_into`]
/// does.
///
/// An interrupted run of the swarm is recovered first, by [`super::recover()`]; until then the result is
/// [`state::Error::Unrecovered`]. A rescue or a restore that was killed is no reason to refuse.
pub fn restore(
    context: &Context<'_>,
    record: &Record,
    session: &Session,
    common: &Path,
    saved: &SavedWork,
) -> Result<Restored, RestoreError> {
    // What a killed rescue left is removed by the next one; else recovery reports why it cannot be removed.
    let _ = rescue::sweep_after_a_kill(context);
    context.swarm.require_recovered()?;
    let worktrees: Vec<_> = session.allocations_of(git_worktree::KIND).collect();
    let saved_from = worktrees.iter().find(|worktree| saved.resource.as_deref() == Some(worktree.name()));
    let Some(allocation) = saved_from.or(worktrees.first()) else {
        return Err(provider::Error::Refused(format!("{} has no worktree", session.path)).into());
    };
    context.swarm.begin_rescue()?;
    let (host, lock) = (context.swarm.host(), Some(context.swarm.file()));
    let restored =
        with_task(host, record, session, allocation, lock, |task| restore_into(task, common, saved));
    // Leftovers that cannot be removed now are removed by the next recovery.
    let _ = rescue::sweep_after_a_kill(context);
    Ok(restored?)
}
