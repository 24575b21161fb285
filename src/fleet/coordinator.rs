//! Coordinator of a run over the hosts of a fleet, in two phases.
//!
//! 1. Every host prepares its part: it makes everything except the commit of its record, and votes.
//! 2. The coordinator decides, by the creation of one file. It commits only if every host has voted for this plan.
//! 3. Every host follows the decision. A host that is not reached does so at its next command.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use super::clones::{Clones, Missing};
use super::directory::{Answer, DirectoryError, FleetDirectory, Index};
use super::launcher::{Ended, HostCommand, Launcher};
use super::{Config, HostObservation};
use crate::host::failpoint::crashpoint;
use crate::host::process::{Cancel, Listener};
use crate::observe::Observation;
use crate::state::{Decision, Verdict};

/// Limit of time for an observation and a report.
const READ_LIMIT: Duration = Duration::from_mins(5);

/// Limit of time for following the decision about an interrupted run; the hosts follow by themselves later.
const INTERRUPTED_LIMIT: Duration = Duration::from_secs(30);

/// Hosts of a fleet, and the way in which they are reached.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Hosts<'c> {
    /// Directory of the fleet.
    pub directory: &'c FleetDirectory,
    /// Names of the hosts, and their directories.
    pub config: &'c Config,
    launcher: &'c dyn Launcher,
    cancel: &'c Cancel,
}

/// Coordinator, which has the lock of the fleet.
#[non_exhaustive]
pub struct Coordinator<'c> {
    hosts: Hosts<'c>,
    /// Limit for preparing, and for following the decision.
    limit: Duration,
    _lock: File,
}

/// Host that did not do a phase, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostProblem {
    /// Name of the host.
    pub host: String,
    /// Reason.
    pub why: String,
}

/// Part that a host is asked to prepare.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Part {
    /// Name of the host.
    pub host: String,
    /// Digest of the plan that the host has to vote for; `None` if its part is to release everything.
    pub plan: Option<String>,
}

impl HostProblem {
    /// Creates the problem of a host.
    pub fn new(host: &str, why: &str) -> Self {
        Self { host: host.to_owned(), why: why.to_owned() }
    }
}

impl Part {
    /// Creates the part of a host.
    pub fn new(host: String, plan: Option<String>) -> Self {
        Self { host, plan }
    }
}

/// Answers of hosts that were to be observed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Observed {
    /// Observations.
    pub observations: Vec<HostObservation>,
    /// Hosts that lack repositories, so that they cannot be observed.
    pub missing: Vec<Missing>,
    /// Hosts that gave no answer.
    pub problems: Vec<HostProblem>,
}

/// Result of a run over the hosts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Decision.
    pub decision: Decision,
    /// Hosts that did not vote for the plan; empty if another process has decided to abort.
    pub refusals: Vec<HostProblem>,
    /// Hosts that have not followed the decision yet.
    pub unresolved: Vec<HostProblem>,
}

impl<'c> Hosts<'c> {
    /// Creates the hosts of a fleet.
    pub fn new(
        directory: &'c FleetDirectory,
        config: &'c Config,
        launcher: &'c dyn Launcher,
        cancel: &'c Cancel,
    ) -> Self {
        Self { directory, config, launcher, cancel }
    }

    /// Observes hosts, which needs no lock of the fleet; also returns those that gave no observation. `request` is a new
    /// name. The hosts report which commits of `own`, the observation of the coordinator, they have.
    pub fn observe(
        &self,
        request: &str,
        hosts: &[String],
        own: &Observation,
    ) -> Result<Observed, DirectoryError> {
        self.observe_by("observe", request, hosts, own, None, READ_LIMIT)
    }

    /// Lets hosts make the clones that they lack, whose bundles exist, and observes them as [`Self::observe`] does. A host
    /// that takes longer than `limit` is not observed.
    pub fn clone_and_observe(
        &self,
        request: &str,
        hosts: &[String],
        own: &Observation,
        clones: &Clones,
        limit: Duration,
    ) -> Result<Observed, DirectoryError> {
        self.observe_by("clone", request, hosts, own, Some(clones), limit)
    }

    fn observe_by(
        &self,
        phase: &str,
        request: &str,
        hosts: &[String],
        own: &Observation,
        clones: Option<&Clones>,
        limit: Duration,
    ) -> Result<Observed, DirectoryError> {
        let _lock = self.directory.create_request(request)?;
        let mut asked = asked_commits(own);
        if let Some(clones) = clones {
            self.directory.write_clones(request, clones)?;
            asked.insert(format!("--expect={}", clones.digest()));
        }
        let words: Vec<&str> =
            ["--run", request].into_iter().chain(asked.iter().map(String::as_str)).collect();
        let ended = self.phase(phase, &words, hosts, limit, self.cancel);
        let mut observed = Observed::default();
        for (host, found) in hosts.iter().zip(self.directory.observations(request, hosts)) {
            match found {
                Ok(observation) => observed.observations.push(observation),
                Err(why) => match self.directory.missing(request, host)? {
                    Some(missing) => observed.missing.push(missing),
                    None => observed.problems.push(problem(host, why, &ended)),
                },
            }
        }
        crashpoint!("fleet.observed");
        self.directory.remove_request(request)?;
        Ok(observed)
    }

    /// Asks all hosts for their reports, which needs no lock of the fleet. `request` is a new name, and that of the answers.
    pub fn report(&self, request: &str) {
        self.phase("report", &["--run", request], &self.config.hosts, READ_LIMIT, self.cancel);
    }

    /// Lets all hosts repair in place what they can, and report, as [`Self::report`] does.
    pub fn repair(&self, request: &str) {
        self.phase("repair", &["--run", request], &self.config.hosts, READ_LIMIT, self.cancel);
    }

    /// Lets hosts bring the commits of their sessions, and their rescues too if `with_rescues`, which needs no lock of the
    /// fleet. `request` is a new name, and that of the answers.
    pub fn collect(&self, request: &str, hosts: &[String], with_rescues: bool, limit: Duration) -> Ended {
        let words = ["--run", request].into_iter().chain(with_rescues.then_some("--rescue"));
        let ended = self.phase("collect", &words.collect::<Vec<_>>(), hosts, limit, self.cancel);
        crashpoint!("fleet.collected");
        ended
    }

    /// Runs the command of a request in sessions of hosts, which needs no lock of the fleet, at most `jobs` at once on a host.
    /// The listener of a host gets what its seedbed prints: one event per line.
    pub fn command(
        &self,
        request: &str,
        hosts: &[String],
        jobs: Option<usize>,
        listener: &(dyn Fn(&str) -> Listener + Sync),
        cancel: &Cancel,
    ) -> Ended {
        let jobs = jobs.map(|jobs| format!("--jobs={jobs}"));
        let words: Vec<_> = ["--run", request, "--json"].into_iter().chain(jobs.as_deref()).collect();
        self.launcher.stream(
            hosts,
            &command(self.directory, self.config, "command", &words),
            listener,
            cancel,
        )
    }

    /// Takes the lock of the fleet, and decides about runs whose coordinator has ended without a decision. A host that takes
    /// longer than `limit` to prepare its part does not vote.
    pub fn coordinate(self, limit: Duration) -> Result<Coordinator<'c>, DirectoryError> {
        let lock = self.directory.lock()?;
        for run in self.directory.runs()? {
            if self.directory.decision(&run)?.is_none() {
                self.directory.abort(&run, vec!["its coordinator ended without a decision".to_owned()])?;
            }
        }
        self.directory.publish_last()?;
        Ok(Coordinator { hosts: self, limit, _lock: lock })
    }

    fn phase(
        &self,
        phase: &str,
        words: &[&str],
        hosts: &[String],
        limit: Duration,
        cancel: &Cancel,
    ) -> Ended {
        self.launcher.run(hosts, &command(self.directory, self.config, phase, words), limit, cancel)
    }
}

impl Coordinator<'_> {
    /// Prepares all parts, decides, and lets the hosts follow the decision. `words` are further arguments of the phase.
    pub fn run(
        &self,
        phase: &str,
        parts: &[Part],
        words: &[&str],
        index: &Index,
    ) -> Result<Outcome, DirectoryError> {
        let hosts: Vec<String> = parts.iter().map(|part| part.host.clone()).collect();
        let (directory, run) = (self.hosts.directory, index.run.as_str());
        directory.begin(index)?;
        let words = [&["--run", run], words].concat();
        crashpoint!("fleet.preparing");
        let ended = self.hosts.phase(phase, &words, &hosts, self.limit, self.hosts.cancel);
        let answers = directory.answers(run, "prepare", &hosts, |host| ended.get(host) == Some(&Ok(())));
        let mut refusals = Vec::new();
        for (part, answer) in parts.iter().zip(answers) {
            let why = match answer {
                Ok(Some(Answer { done: true, plan, .. })) if plan == part.plan => continue,
                Ok(Some(Answer { error: Some(error), .. })) | Err(error) => error,
                Ok(Some(_)) => "it voted for another plan".to_owned(),
                Ok(None) => "it did not vote".to_owned(),
            };
            refusals.push(problem(&part.host, why, &ended));
        }
        crashpoint!("fleet.voted");
        let decision = if self.hosts.cancel.is_requested() {
            directory.abort(run, vec!["interrupted".to_owned()])?
        } else if refusals.is_empty() {
            directory.commit(index)?
        } else {
            let reasons = refusals.iter().map(|HostProblem { host, why }| format!("{host}: {why}"));
            directory.abort(run, reasons.collect())?
        };
        if decision.verdict == Verdict::Commit {
            directory.publish(index)?;
            crashpoint!("fleet.published");
        }
        let unresolved = self.resolve(run, parts, decision.verdict)?;
        Ok(Outcome { decision, refusals, unresolved })
    }

    /// Lets hosts follow the decision about a run. Returns the hosts that did not, or have another plan than was committed.
    pub fn resolve(
        &self,
        run: &str,
        parts: &[Part],
        verdict: Verdict,
    ) -> Result<Vec<HostProblem>, DirectoryError> {
        let hosts: Vec<String> = parts.iter().map(|part| part.host.clone()).collect();
        // An interrupted run is rolled back. A signal from now on ends only the wait for hosts, which follow by themselves.
        let (limit, cancel) = if self.hosts.cancel.is_requested() {
            (self.limit.min(INTERRUPTED_LIMIT), Cancel::default())
        } else {
            (self.limit, self.hosts.cancel.clone())
        };
        let words = ["--run", run];
        let ended = self.hosts.phase("resolve", &words, &hosts, limit, &cancel);
        let has_ended_well = |host: &str| ended.get(host) == Some(&Ok(()));
        let answers = self.hosts.directory.answers(run, "resolve", &hosts, has_ended_well);
        let mut unresolved = Vec::new();
        for (part, answer) in parts.iter().zip(answers) {
            let why = match answer {
                Ok(Some(Answer { done: true, plan, .. }))
                    if verdict == Verdict::Abort || plan == part.plan =>
                {
                    continue;
                }
                Ok(Some(Answer { done: true, .. })) => "another plan is applied there".to_owned(),
                Ok(Some(Answer { error, .. })) => error.unwrap_or_default(),
                Ok(None) => "it did not answer".to_owned(),
                Err(error) => error,
            };
            let has_answered = !why.starts_with("it did not answer");
            let mut problem = problem(&part.host, why, &ended);
            if !has_answered {
                let command = command(self.hosts.directory, self.hosts.config, "resolve", &words);
                let note = self.hosts.launcher.defer(&part.host, &command, self.limit);
                problem.why.extend(note.map(|note| format!("\n{note}")));
            }
            unresolved.push(problem);
        }
        crashpoint!("fleet.resolved");
        Ok(unresolved)
    }
}

/// Returns the arguments with which hosts are asked about the commits of the coordinator, each commit once.
fn asked_commits(own: &Observation) -> BTreeSet<String> {
    let commits = own.repositories.iter().flat_map(|(name, observed)| {
        observed.commits.values().flatten().map(move |commit| format!("--commit={name}={commit}"))
    });
    commits.collect()
}

/// Returns the command of a phase.
fn command(directory: &FleetDirectory, config: &Config, phase: &str, words: &[&str]) -> HostCommand {
    let directory = directory.path().to_string_lossy();
    let manifest = config.manifest.iter().map(|file| format!("--fleet-manifest={file}"));
    let own = [
        "seedbed",
        "-C",
        &config.directory,
        "--quiet",
        "fleet",
        "phase",
        phase,
        &directory,
        "--host",
        "{host}",
    ];
    let mut command =
        HostCommand::new(own.iter().chain(words).map(|word| (*word).to_owned()).chain(manifest).collect());
    command.is_repeatable = matches!(phase, "observe" | "report" | "repair" | "resolve");
    command.outlives_job = matches!(phase, "release" | "resolve");
    command
}

/// Returns the problem of a host, with how its command ended if the host has not answered.
fn problem(host: &str, why: String, ended: &Ended) -> HostProblem {
    let why = match ended.get(host) {
        Some(Err(error)) if !why.contains('\n') && why.starts_with("it ") => format!("{why}: {error}"),
        _ => why,
    };
    HostProblem { host: host.to_owned(), why }
}
