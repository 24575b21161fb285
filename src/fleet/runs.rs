//! Runs in the directory of a fleet: their names, decisions, and the removal of old ones.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::directory::{AT_ONCE, Answer, DirectoryError, FleetDirectory};
use super::index::Index;
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::waiting;
use crate::state::{self, Decision, FleetIdentity, Verdict, run_directory};

/// File that a command has locked while it waits for observations.
const LOCK: &str = ".lock";

/// Time after which a missing answer is looked for again.
const LATE: Duration = Duration::from_secs(1);

impl FleetDirectory {
    /// Returns the sessions of all hosts after the last committed run; `None` before the first commit.
    ///
    /// The decision counts, also while the index is not published yet.
    pub fn index(&self) -> Result<Option<Index>, DirectoryError> {
        let (published, unreadable) = self.published()?;
        let published_run = published.as_ref().map_or("", |index| &index.run);
        match (self.committed_after(published_run)?, unreadable) {
            (None, Some(error)) => Err(error),
            (later, _) => Ok(later.or(published)),
        }
    }

    /// Returns the published index, and the error of one that is damaged: the directory of its run has it too.
    fn published(&self) -> Result<(Option<Index>, Option<DirectoryError>), DirectoryError> {
        match self.read(Path::new("index.json")) {
            Err(error @ DirectoryError::Invalid { .. }) => Ok((None, Some(error))),
            read => Ok((read?, None)),
        }
    }

    /// Returns the names of all runs, the oldest first.
    pub fn runs(&self) -> Result<Vec<String>, DirectoryError> {
        let Some(runs) = self.root.directory(Path::new("runs"))? else { return Ok(Vec::new()) };
        let names = runs.names()?.into_iter().filter_map(|name| name.into_string().ok());
        Ok(names.filter(|name| name.parse::<u32>().is_ok()).collect())
    }

    /// Returns the identity of the fleet; `None` before the first run.
    pub fn identity(&self) -> Result<Option<FleetIdentity>, DirectoryError> {
        Ok(state::fleet_identity(&self.root)?)
    }

    /// Returns the name of the next run. No two runs of a fleet have one name, even after a user removes the directories of
    /// runs: a host may still be prepared for the first.
    pub fn new_run(&self) -> Result<String, DirectoryError> {
        let mut identity = match self.identity()? {
            Some(identity) => identity,
            None => FleetIdentity::new(state::new_owner()?),
        };
        let index = self.index()?;
        let runs = self.runs()?;
        let numbers = runs.iter().chain(index.as_ref().map(|index| &index.run));
        let last = numbers.filter_map(|run| run.parse::<u32>().ok()).max().unwrap_or(0);
        identity.last_run = identity.last_run.max(last) + 1;
        self.write(Path::new(state::FLEET_IDENTITY), &identity)?;
        crashpoint!("fleet.numbered");
        let run = format!("{:06}", identity.last_run);
        self.root.create_directories(&run_directory(&run))?;
        Ok(run)
    }

    /// Creates the directory of the plan of a run.
    pub fn create_plan_directory(&self, run: &str) -> Result<Root, DirectoryError> {
        Ok(self.root.create_directories(&run_directory(run).join("plan"))?)
    }

    /// Opens the directory of the plan of a run.
    pub fn plan_directory(&self, run: &str) -> Result<Root, DirectoryError> {
        let name = run_directory(run).join("plan");
        self.root.directory(&name)?.ok_or_else(|| self.invalid(&name, &"it was removed"))
    }

    /// Writes down the hosts of a run, before any is asked to prepare its part. A commit makes this index valid.
    pub fn begin(&self, index: &Index) -> Result<(), DirectoryError> {
        self.write(&run_directory(&index.run).join("index.json"), index)
    }

    /// Returns the index that a commit of this run makes valid; `None` if no host was asked yet.
    pub fn planned_index(&self, run: &str) -> Result<Option<Index>, DirectoryError> {
        self.read(&run_directory(run).join("index.json"))
    }

    /// Returns the decision about a run; `None` if there is none.
    pub fn decision(&self, run: &str) -> Result<Option<Decision>, DirectoryError> {
        Ok(state::decision(&self.root, run)?)
    }

    /// Decides to abort a run, unless it is decided; returns the decision that counts.
    pub fn abort(&self, run: &str, reasons: Vec<String>) -> Result<Decision, DirectoryError> {
        Ok(state::decide(&self.root, &Decision::abort(run, reasons))?)
    }

    /// Decides to commit a run with this index, unless it is decided; returns the decision that counts.
    pub fn commit(&self, index: &Index) -> Result<Decision, DirectoryError> {
        Ok(state::decide(&self.root, &Decision::commit(&index.run, index.digest()))?)
    }

    /// Publishes the index of a committed run.
    pub fn publish(&self, index: &Index) -> Result<(), DirectoryError> {
        self.write(Path::new("index.json"), index)
    }

    /// Publishes the index of the last run that was committed, if that is not done.
    pub fn publish_last(&self) -> Result<(), DirectoryError> {
        let (published, _) = self.published()?;
        match self.committed_after(published.as_ref().map_or("", |index| &index.run))? {
            Some(index) => self.publish(&index),
            None => Ok(()),
        }
    }

    /// Returns the index of the last committed run after `run`; `None` if there is none.
    fn committed_after(&self, run: &str) -> Result<Option<Index>, DirectoryError> {
        for run in self.runs()?.iter().rev().take_while(|name| name.as_str() > run) {
            let Some(decision) = self.decision(run)?.filter(|made| made.verdict == Verdict::Commit) else {
                continue;
            };
            let index = self.planned_index(run)?.filter(|index| decision.index == Some(index.digest()));
            let name = run_directory(run).join("index.json");
            return match index {
                Some(index) => Ok(Some(index)),
                None => Err(self.invalid(&name, &"it is not the index that was committed")),
            };
        }
        Ok(None)
    }

    /// Removes what no host asks for any more: plans of all runs but the last committed one, runs that every host has
    /// followed, and observations of commands that were killed.
    ///
    /// The decision about a run stays as long as a host may be prepared for it. A host that has prepared or followed a later
    /// run is not.
    pub fn tidy(&self) -> Result<(), DirectoryError> {
        let runs = self.runs()?;
        let last = self.index()?.map(|index| index.run);
        for (at, run) in runs.iter().enumerate().filter(|(_, run)| last.as_ref() != Some(*run)) {
            let Some(decision) = self.decision(run)? else { continue };
            // The newest decision to commit is that of the sessions.
            if decision.verdict == Verdict::Commit && last.as_ref().is_none_or(|last| run > last) {
                continue;
            }
            let hosts = self.planned_index(run)?.map(|index| index.hosts).unwrap_or_default();
            let has_followed = |host: &str| {
                let answers = runs[at..].iter().flat_map(|later| {
                    let phases: &[&str] = if later == run { &["resolve"] } else { &["resolve", "prepare"] };
                    phases.iter().map(|phase| self.answer(later, phase, host))
                });
                answers.flatten().flatten().any(|answer| answer.done)
            };
            let followed = waiting::map(&hosts, AT_ONCE, |host| has_followed(&host.host));
            if followed.into_iter().all(|has_followed| has_followed) {
                self.root.remove_all(&run_directory(run))?;
            } else {
                self.root.remove_all(&run_directory(run).join("plan"))?;
            }
        }
        self.remove_old_observations()
    }

    /// Removes the observations whose command has ended.
    fn remove_old_observations(&self) -> Result<(), DirectoryError> {
        let Some(requests) = self.root.directory(Path::new("observations"))? else { return Ok(()) };
        for name in requests.names()? {
            let lock = requests.open_or_create(&Path::new(&name).join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                requests.remove_all(Path::new(&name))?;
            }
        }
        Ok(())
    }

    /// Creates the directory for the observations of a request. It stays as long as the returned lock.
    pub fn create_request(&self, request: &str) -> Result<File, DirectoryError> {
        let directory = self.root.create_directories(&Path::new("observations").join(request))?;
        let lock = directory.open_or_create(Path::new(LOCK))?;
        // A file system without locks keeps no request: the hosts answer in moments.
        let _ = lock.try_lock();
        Ok(lock)
    }

    /// Removes the observations of a request.
    pub fn remove_request(&self, request: &str) -> Result<(), DirectoryError> {
        Ok(self.root.remove_all(&Path::new("observations").join(request))?)
    }

    /// Returns the answers of hosts to a phase of a run, in their order; an answer that cannot be read is a reason.
    ///
    /// If hosts whose command has ended well have not answered, this looks again after a moment: a file system that is shared
    /// by a network may show new files late.
    pub fn answers(
        &self,
        run: &str,
        phase: &str,
        hosts: &[String],
        has_ended_well: impl Fn(&str) -> bool,
    ) -> Vec<Result<Option<Answer>, String>> {
        let read = |host: &String| self.answer(run, phase, host).map_err(|error| error.to_string());
        let mut answers = waiting::map(hosts, AT_ONCE, read);
        let is_late = |(answer, host): (&Result<Option<Answer>, String>, &String)| {
            matches!(answer, Ok(None)) && has_ended_well(host)
        };
        if answers.iter().zip(hosts).any(is_late) {
            std::thread::sleep(LATE);
            // A listing makes a client of NFS ask its server.
            let _ = self
                .root
                .directory(&run_directory(run).join(phase))
                .map(|listed| listed.map(|it| it.names()));
            for (answer, host) in
                answers.iter_mut().zip(hosts).filter(|(answer, _)| matches!(answer, Ok(None)))
            {
                *answer = read(host);
            }
        }
        answers
    }
}
