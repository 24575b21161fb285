//! Distinguishes work that was done in an interrupted run's sessions from what the run did itself.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::occupants;
use super::release_set::ResourcesBySession;
use crate::host::{Host, clock};
use crate::name::SessionPath;
use crate::plan::Session;
use crate::provider::{InterruptedRun, LeaseProgress, Registry};
use crate::state::{self, Journal, Milestone, Record, Swarm};

/// Progress of an interrupted run, from its journal.
pub(super) struct RunProgress {
    journal: Journal,
    /// Sessions in which commands of `setup` that outlived the run still run.
    at_work: BTreeSet<SessionPath>,
    now: SystemTime,
}

impl RunProgress {
    /// Reads the progress of the run of `record`.
    pub(super) fn read(
        swarm: &Swarm<'_>,
        registry: &Registry,
        record: &Record,
        provisioned: &ResourcesBySession,
    ) -> Result<Self, state::Error> {
        let journal = swarm.journal()?;
        let mut setting_up = provisioned.clone();
        setting_up.retain(|path, _| {
            journal.sessions.get(path).is_some_and(|(step, _)| *step == Milestone::SettingUp)
        });
        let host: &Host = swarm.host();
        let at_work = occupants::left_by_setup(host, registry, record, &setting_up);
        Ok(Self { journal, at_work, now: clock::precise() })
    }

    /// Returns the run as far as it concerns a session.
    pub(super) fn in_session(&self, session: &Session) -> InterruptedRun {
        let made = match self.made(session) {
            LeaseProgress::Populating => LeaseProgress::Populating,
            // Any change may be work.
            _ if self.journal.is_ahead_of(self.now) => LeaseProgress::Complete(SystemTime::UNIX_EPOCH),
            made => made,
        };
        InterruptedRun::new(self.journal.begun.unwrap_or(SystemTime::UNIX_EPOCH), made)
    }

    fn made(&self, session: &Session) -> LeaseProgress {
        let alive = self.journal.alive_until().unwrap_or(SystemTime::UNIX_EPOCH);
        let reached = self.journal.reached;
        match (self.journal.sessions.get(&session.path), reached) {
            (Some((Milestone::SettingUp, at)), _) => {
                let alive = if self.at_work.contains(&session.path) { self.now } else { alive };
                LeaseProgress::SettingUp { at: *at, alive }
            }
            (Some((Milestone::SetUp | Milestone::Finished, at)), _) => LeaseProgress::Complete(*at),
            // Sessions are finished after all of them are populated.
            (Some((Milestone::Filled, at)), None) => LeaseProgress::Populated { at: *at, alive: *at },
            (Some((Milestone::Filled, at)), Some((Milestone::Filled, _))) => {
                LeaseProgress::Populated { at: *at, alive }
            }
            (None, Some((Milestone::Filled, at))) => LeaseProgress::Populated { at, alive },
            (_, Some((_, at))) => LeaseProgress::Complete(at),
            (None, None) => LeaseProgress::Populating,
        }
    }
}
