//! Events that a run reports while it is in progress.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, KeptBranch};
use crate::name::SessionPath;

/// Event of a run. Each phase with work reports its begin, each session that has passed, and its end, complete or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// A phase has begun.
    Begun {
        /// Phase that has begun.
        phase: Phase,
        /// Number of sessions that the phase acts on; at least one.
        sessions: usize,
    },
    /// A session has passed a phase.
    Passed {
        /// Phase that the session has passed.
        phase: Phase,
        /// Path of the session in the tree.
        session: SessionPath,
    },
    /// A phase has ended.
    Ended {
        /// Phase that has ended.
        phase: Phase,
        /// Number of sessions that have passed; fewer than at the begin after a failure or an interruption.
        sessions: usize,
        /// Duration of the phase, in milliseconds.
        milliseconds: u64,
    },
    /// An allocation was provisioned.
    Provisioned {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Name of the resource, by default its kind.
        resource: String,
    },
    /// An allocation was repaired in place.
    Repaired {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Name of the resource, by default its kind.
        resource: String,
    },
    /// An active allocation got other options in place.
    Updated {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Name of the resource.
        resource: String,
    },
    /// A file was not copied or linked into an active session, because the session has another one at its path.
    NotUpdated {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Description of the file, one line.
        description: String,
    },
    /// A file that a run had copied or linked into an active session was not removed when the run was rolled back, because
    /// the session has written it since.
    NotReverted {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Description of the file, one line.
        description: String,
    },
    /// A seeded directory is in place.
    Seeded {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Name of the resource, by default its kind.
        resource: String,
        /// Path of the directory, relative to the working directory of the session.
        path: String,
        /// `true` if the directory is a copy; `false` if the command of the seed has populated it.
        copied: bool,
        /// Number of files and links in the directory.
        files: u64,
        /// Bytes of the files.
        bytes: u64,
        /// Bytes that share blocks on the disk with the seed; 0 if the file system cannot share blocks.
        shared_bytes: u64,
    },
    /// The commands of `setup` have run.
    SetUp {
        /// Path of the session in the tree.
        session: SessionPath,
    },
    /// A changed file of the workspace was not copied again, because the session has changed its copy.
    NotRefreshed {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Description of the file, one line.
        description: String,
    },
    /// The commands of `setup` have run again, in a session that was torn down and that a rollback has brought back.
    SetUpAgain {
        /// Path of the session in the tree.
        session: SessionPath,
    },
    /// The commands of `teardown` have run.
    TornDown {
        /// Path of the session in the tree.
        session: SessionPath,
    },
    /// The commands of `teardown` were not run, because the session no longer has a usable directory.
    NotTornDown {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Reason, one line.
        why: String,
    },
    /// The discovery file is in place: the session is ready.
    Ready {
        /// Path of the session in the tree.
        session: SessionPath,
    },
    /// An allocation was released.
    Released {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Name of the resource, by default its kind.
        resource: String,
    },
    /// Unsaved work was saved, before anything is released.
    Rescued {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Full name of the ref that has the work.
        reference: String,
        /// Shell command that restores the work in a new directory.
        command: String,
        /// Work that the command does not restore exactly, one line each.
        missing: Vec<String>,
    },
    /// Files or commits that are no reason to refuse are about to be removed with their session.
    AlsoRemoved {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Description of the files or commits, one line.
        description: String,
    },
    /// A branch outlasts its session, because it has commits or existed before.
    BranchKept(KeptBranch),
    /// Processes of the host may not be inspected by this user, so that their use of the sessions is unknown.
    Uninspected {
        /// Number of these processes.
        processes: usize,
    },
    /// A process that used a session to be released, or a descendant of such a process, was ended.
    Stopped {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Process id.
        pid: u32,
        /// Program and arguments, with blanks between them.
        command: String,
        /// `true` if the process was killed because it had not ended by itself in time.
        killed: bool,
    },
    /// A resource of an abandoned run may remain.
    GivenUp {
        /// Path of the session in the tree.
        session: SessionPath,
        /// Name of the resource, by default its kind.
        resource: String,
        /// Paths, branches, ports or resources of a program that may remain, one line each.
        remains: Vec<String>,
        /// Reason why the resource remains, one line.
        why: String,
    },
    /// Files of sessions were copied, before the swarm of a `run` is removed.
    ArtifactsSaved {
        /// Directory to which they were copied.
        directory: PathBuf,
        /// Number of files.
        files: usize,
        /// Reasons for which other files were not copied, one line each.
        failures: Vec<String>,
    },
    /// A step failed or was interrupted, and the run begins to remove what it provisioned.
    RollingBack,
}

/// Phase of a run. Each phase begins after the previous one has ended; phases without work are not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Phase {
    /// Unsaved work in what the run releases is saved.
    Rescue,
    /// The commands of `teardown` run in sessions to be released.
    TearDown,
    /// Resources to be released are moved aside, and their unsaved work is checked again there.
    SetAside,
    /// Resources to be released free the names that new allocations may need.
    GiveWay,
    /// Resources that were moved aside are released.
    Release,
    /// Resources that other processes could take first are claimed: ports.
    Claim,
    /// Every other new allocation is created without its content: worktrees are registered.
    Create,
    /// New allocations are populated: worktrees are checked out.
    Populate,
    /// New allocations are finished, and active ones are repaired or updated in place.
    Finish,
    /// Seeded directories are brought into new allocations.
    Seed,
    /// The commands of `setup` run in new sessions, and in others for which the plan requires it.
    SetUp,
    /// The conditions of `ready` are waited for.
    Wait,
    /// Discovery files are written.
    WriteDiscovery,
    /// Resources that the run provisioned are released again.
    RollBack,
    /// Resources that the run moved aside are brought back.
    BringBack,
}

impl fmt::Display for Phase {
    /// Writes the name that the phase has in JSON.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// Reports one phase: its begin, each session that has passed, and, when dropped, its end.
pub(super) struct PhaseReport<'a> {
    context: &'a Context<'a>,
    phase: Phase,
    begun: Instant,
    passed: AtomicUsize,
    has_sessions: bool,
}

impl<'a> PhaseReport<'a> {
    /// Reports the begin of a phase that acts on `sessions` sessions; with none, nothing is reported.
    pub(super) fn begin(context: &'a Context<'a>, phase: Phase, sessions: usize) -> Self {
        let has_sessions = sessions > 0;
        if has_sessions {
            context.swarm.note_phase(&phase.to_string());
            (context.events)(&Event::Begun { phase, sessions });
        }
        Self { context, phase, begun: Instant::now(), passed: 0.into(), has_sessions }
    }

    /// Reports that a session on which the phase acts has passed.
    pub(super) fn passed(&self, session: &SessionPath) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        (self.context.events)(&Event::Passed { phase: self.phase, session: session.clone() });
    }
}

impl Drop for PhaseReport<'_> {
    fn drop(&mut self) {
        if self.has_sessions {
            let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let sessions = *self.passed.get_mut();
            (self.context.events)(&Event::Ended { phase: self.phase, sessions, milliseconds });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Phase;

    #[test]
    fn phase_has_the_name_that_json_has() {
        let phases = [
            Phase::Rescue,
            Phase::TearDown,
            Phase::SetAside,
            Phase::GiveWay,
            Phase::Release,
            Phase::Claim,
            Phase::Create,
            Phase::Populate,
            Phase::Finish,
            Phase::Seed,
            Phase::SetUp,
            Phase::Wait,
            Phase::WriteDiscovery,
            Phase::RollBack,
            Phase::BringBack,
        ];
        for phase in phases {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.to_string());
        }
    }
}
