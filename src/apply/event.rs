//! What a run tells of itself while it goes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, KeptBranch};
use crate::name::SessionPath;

/// What happened. Of each phase that has anything to do: that it has begun, each session that has passed it, and that
/// it has ended, whether or not all of them have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// A phase has begun.
    Begun {
        /// Which.
        phase: Phase,
        /// How many sessions it has something to do for, at least one.
        sessions: usize,
    },
    /// A session has passed a phase.
    Passed {
        /// Which phase.
        phase: Phase,
        /// The session's path.
        session: SessionPath,
    },
    /// A phase has ended.
    Ended {
        /// Which.
        phase: Phase,
        /// How many sessions have passed it: fewer than it began with, where something failed or was interrupted.
        sessions: usize,
        /// How long it took.
        milliseconds: u64,
    },
    /// An allocation was made real.
    Provisioned {
        /// The session's path.
        session: SessionPath,
        /// The kind.
        kind: String,
    },
    /// An allocation was mended where it stands.
    Mended {
        /// The session's path.
        session: SessionPath,
        /// The kind.
        kind: String,
    },
    /// The commands of `setup` have run.
    SetUp {
        /// The session's path.
        session: SessionPath,
    },
    /// A file of the workspace that has changed was not copied again: the session has changed its copy.
    NotRefreshed {
        /// The session's path.
        session: SessionPath,
        /// What, one line.
        what: String,
    },
    /// The commands of `setup` have run again, in a session that was torn down and is back because the run was undone.
    SetUpAgain {
        /// The session's path.
        session: SessionPath,
    },
    /// The commands of `teardown` have run.
    TornDown {
        /// The session's path.
        session: SessionPath,
    },
    /// The commands of `teardown` were not run: there is nowhere to run them any more.
    NotTornDown {
        /// The session's path.
        session: SessionPath,
        /// Why, one line.
        why: String,
    },
    /// The discovery file is in place: the session is ready.
    Ready {
        /// The session's path.
        session: SessionPath,
    },
    /// An allocation was taken away.
    Released {
        /// The session's path.
        session: SessionPath,
        /// The kind.
        kind: String,
    },
    /// Unsaved work was saved, before anything is released.
    Rescued {
        /// The session's path.
        session: SessionPath,
        /// The full name of the ref that has it.
        reference: String,
        /// The shell command that brings it back, in a new place.
        command: String,
        /// What the command does not bring back as it was, one line each.
        missing: Vec<String>,
    },
    /// Something that nobody asked to keep goes with a session that is about to be released.
    GoesAlong {
        /// The session's path.
        session: SessionPath,
        /// What, one line.
        what: String,
    },
    /// A branch outlasts its session: it has commits, or was there before.
    BranchKept(KeptBranch),
    /// Processes of the host may not be inspected by this user: whether they use what is released is unknown.
    Uninspected {
        /// Their number.
        processes: usize,
    },
    /// A process that used what is to be released was ended, or one that descends from such a process.
    Stopped {
        /// The session's path.
        session: SessionPath,
        /// Number of the process.
        pid: u32,
        /// Program and arguments, a blank between them.
        command: String,
        /// Whether it was killed because it had not ended by itself in time.
        killed: bool,
    },
    /// A resource may remain of a run that was given up.
    GivenUp {
        /// The session's path.
        session: SessionPath,
        /// The kind.
        kind: String,
        /// What may remain: paths, branches, ports, or what a program has made, one line each.
        what: Vec<String>,
        /// Why it remains, one line.
        why: String,
    },
    /// Something failed or was interrupted, and what this run made is being taken away.
    RollingBack,
}

/// A part of a run. Each begins when the one before it has ended; those that have nothing to do are not heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Phase {
    /// Unsaved work in what goes is saved.
    Rescue,
    /// The commands of `teardown` run in what goes.
    TearDown,
    /// What goes is moved aside, and judged again there.
    SetAside,
    /// What goes gives up the names that what comes may need.
    GiveWay,
    /// What was moved aside is taken away.
    Release,
    /// What others could take first is taken: ports.
    Claim,
    /// Everything else that comes is made, but for what is in it: worktrees are registered.
    Make,
    /// What comes is filled: worktrees are checked out.
    Fill,
    /// What comes is finished, and what is broken is mended where it stands.
    Finish,
    /// The commands of `setup` run in what has come.
    SetUp,
    /// Discovery files are written.
    Tell,
    /// What this run made is taken away again.
    RollBack,
    /// What this run moved aside is brought back.
    BringBack,
}

impl Phase {
    /// The name of the phase in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rescue => "rescue",
            Self::TearDown => "tearDown",
            Self::SetAside => "setAside",
            Self::GiveWay => "giveWay",
            Self::Release => "release",
            Self::Claim => "claim",
            Self::Make => "make",
            Self::Fill => "fill",
            Self::Finish => "finish",
            Self::SetUp => "setUp",
            Self::Tell => "tell",
            Self::RollBack => "rollBack",
            Self::BringBack => "bringBack",
        }
    }
}

/// Tells of one phase: that it begins, who has passed it, and where this is dropped that it has ended.
pub(super) struct Telling<'a> {
    context: &'a Context<'a>,
    phase: Phase,
    begun: Instant,
    passed: AtomicUsize,
    is_heard: bool,
}

impl<'a> Telling<'a> {
    /// `sessions` is how many there is something to do for; with none, nothing is told.
    pub(super) fn begin(context: &'a Context<'a>, phase: Phase, sessions: usize) -> Self {
        let is_heard = sessions > 0;
        if is_heard {
            context.swarm.note_phase(phase.name());
            (context.events)(&Event::Begun { phase, sessions });
        }
        Self { context, phase, begun: Instant::now(), passed: 0.into(), is_heard }
    }

    /// A session that there was something to do for is through.
    pub(super) fn passed(&self, session: &SessionPath) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        (self.context.events)(&Event::Passed { phase: self.phase, session: session.clone() });
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if self.is_heard {
            let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let sessions = *self.passed.get_mut();
            (self.context.events)(&Event::Ended { phase: self.phase, sessions, milliseconds });
        }
    }
}
