//! Launcher of Slurm: one job holds the hosts, and each phase is one step over all of them.
//!
//! - The allocation has no shell (`salloc --no-shell`), so that it survives the loss of its first host.
//! - `--no-kill` and `--overlap` let a phase run on the other hosts after one is lost.
//! - A task finds the name of its host in `SLURMD_NODENAME`. Ranks change when a host is lost, so nothing uses them.
//! - Variables of an enclosing job would change what `srun` does, so they are removed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::config::{LauncherConfig, SlurmJob};
use super::directory::FleetDirectory;
use super::is_host_name;
use super::launcher::{
    Allocated, Allocation, Ended, HostCommand, HostRequest, JobState, Launcher, OUTPUT_MAX, ended, on_each,
};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::process::{Cancel, Listener, Output, Process};
use crate::host::text::{printable_lines, shell_quoted};
use crate::name::sha256_hex;

/// Maximum number of steps that run at once, each on a host that the job has lost.
const PINNED: usize = 64;

/// Limit of time for an answer of `squeue`, `scontrol`, `sbatch` and `scancel`.
const QUERY_LIMIT: Duration = Duration::from_mins(1);

/// Seconds for which `salloc` waits for all hosts, unless the user passes another number.
const ALLOCATE_SECONDS: &str = "60";

/// Limit of the allocation, unless the user passes another.
const ALLOCATION_TIME: &str = "8:00:00";

/// Seconds for which a step of its own waits for its host.
const PINNED_SECONDS: &str = "20";

/// Variable in which a task of Slurm has the name of its host.
const NODE_NAME: &str = "SLURMD_NODENAME";

/// Largest file of errors that is read, in bytes, and number of its last lines that are reported.
const ERROR_MAX: usize = 1 << 20;
const ERROR_LINES: usize = 8;

/// States of a job that does not return to its hosts.
const ENDED: &[&str] = &[
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "COMPLETING",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
];

/// Options of `salloc` that a user cannot pass, with what to do instead.
const REFUSED: &[(&str, Option<char>, &str)] = &[
    ("--nodes", Some('N'), "the manifest has the number of hosts, or pass `--hosts NUMBER`"),
    ("--ntasks", Some('n'), "each host has one task"),
    ("--ntasks-per-node", None, "each host has one task"),
    ("--nodelist", Some('w'), "pass `--hosts HOST,…`"),
    ("--nodefile", Some('F'), "pass `--hosts HOST,…`"),
    ("--exclusive", None, "hosts of a fleet are always exclusive"),
    ("--oversubscribe", Some('s'), "hosts of a fleet are always exclusive"),
    ("--share", None, "hosts of a fleet are always exclusive"),
    ("--no-kill", Some('k'), "a fleet always survives the loss of a host"),
    ("--no-shell", None, "the allocation of a fleet has no shell"),
    ("--job-name", Some('J'), "seedbed finds an allocation by its name if it is interrupted"),
    ("--clusters", Some('M'), "set SLURM_CONF to the configuration of the cluster"),
    ("--cluster", None, "set SLURM_CONF to the configuration of the cluster"),
    ("--quiet", Some('Q'), "seedbed reads what `salloc` prints"),
    ("--hold", Some('H'), "the hosts are needed now"),
    ("--begin", None, "the hosts are needed now"),
    ("--help", Some('h'), "run `salloc --help`"),
    ("--usage", Some('u'), "run `salloc --help`"),
    ("--version", Some('V'), "run `salloc --version`"),
];

/// Launcher that runs commands as steps of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct SlurmLauncher<'h> {
    /// Host whose environment the programs of Slurm have, without the variables of a job.
    host: &'h Host,
    directory: &'h FleetDirectory,
    /// Job of the fleet; `None` before the allocation.
    job: Option<SlurmJob>,
}

/// Job as `squeue` shows it.
struct QueuedJob {
    state: JobState,
    /// State in the words of Slurm, such as `RUNNING`.
    slurm_state: String,
    hosts: Vec<String>,
    partition: String,
    account: Option<String>,
    until: String,
}

/// Splits the arguments of `salloc` into words, and refuses those that contradict the fleet.
pub fn arguments(text: &str) -> Result<Vec<String>, String> {
    let words = words(text)?;
    if let Some(first) = words.first().filter(|word| !word.starts_with('-')) {
        return Err(format!("`{first}` is no option of `salloc`"));
    }
    for word in &words {
        if let Some((option, _, why)) = REFUSED.iter().find(|refused| is_option(word, refused)) {
            return Err(format!("`{word}` sets `{option}`: {why}"));
        }
    }
    Ok(words)
}

impl<'h> SlurmLauncher<'h> {
    /// Creates a launcher for a job, or for an allocation.
    pub fn new(host: &'h Host, directory: &'h FleetDirectory, job: Option<SlurmJob>) -> Self {
        Self { host, directory, job }
    }

    /// Takes up a job that runs already, which is not released; the error is the reason.
    pub fn adopt(&self, job: u32, request: &HostRequest) -> Result<Allocation, String> {
        let queued = self.running(job)?.ok_or_else(|| format!("job {job} has ended"))?;
        if let Some(absent) = request.names.iter().find(|name| !queued.hosts.contains(name)) {
            return Err(format!("job {job} does not have host {absent}"));
        }
        let mut hosts = queued.hosts.clone();
        if hosts.len() < request.count {
            return Err(format!("{} hosts are needed, and job {job} has {}", request.count, hosts.len()));
        }
        if !request.names.is_empty() {
            hosts.clone_from(&request.names);
        }
        Ok(allocation(job, false, hosts, queued))
    }

    /// Returns the name of the jobs of this fleet: `seedbed-` and a hash of the path of its directory.
    fn job_name(&self, role: &str) -> String {
        let path = self.directory.path().as_os_str().as_encoded_bytes();
        format!("seedbed-{}{role}", &sha256_hex(path)[..12])
    }

    /// Returns the numbers of the user's jobs with this name that have not ended.
    fn jobs_named(&self, name: &str) -> Result<Vec<String>, String> {
        let name = format!("--name={name}");
        let listed = self.query("squeue", &["--noheader", "--me", &name, "--format=%i"])?;
        Ok(listed.split_whitespace().map(str::to_owned).collect())
    }

    /// Returns a job that runs; `None` if it has ended.
    fn running(&self, job: u32) -> Result<Option<QueuedJob>, String> {
        match self.queued(job)? {
            Some(queued) if queued.state == JobState::Unknown => {
                Err(format!("job {job} is {}", printable_lines(&queued.slurm_state)))
            }
            queued => Ok(queued.filter(|queued| queued.state == JobState::Running)),
        }
    }

    /// Returns a job; `None` if Slurm has forgotten it.
    fn queued(&self, job: u32) -> Result<Option<QueuedJob>, String> {
        let job = format!("--jobs={job}");
        let listed = match self.query("squeue", &["--noheader", &job, "--format=%T|%N|%P|%a|%e"]) {
            Err(error) if error.contains("Invalid job id") => return Ok(None),
            listed => listed?,
        };
        let Some(line) = listed.lines().next() else { return Ok(None) };
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        let [state, nodes, partition, account, until] = fields[..] else {
            return Err(format!("`squeue` printed `{}`", printable_lines(line)));
        };
        let nodes = if nodes.is_empty() {
            String::new()
        } else {
            self.query("scontrol", &["show", "hostnames", nodes])?
        };
        let hosts: Vec<_> = nodes.split_whitespace().map(str::to_owned).collect();
        if let Some(unusable) = hosts.iter().find(|host| !is_host_name(host)) {
            return Err(format!("`scontrol` printed `{}`, which is no host", printable_lines(unusable)));
        }
        Ok(Some(QueuedJob {
            state: match state {
                "RUNNING" => JobState::Running,
                state if ENDED.contains(&state) => JobState::Ended,
                _ => JobState::Unknown,
            },
            slurm_state: state.to_owned(),
            hosts,
            partition: partition.to_owned(),
            account: Some(account.to_owned()).filter(|account| !matches!(account.as_str(), "" | "(null)")),
            until: until.to_owned(),
        }))
    }

    /// Runs a program of Slurm that only reads, or that ends at once, and returns its output.
    fn query(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let process = self.process(program).args(args).deadline(QUERY_LIMIT);
        let printed = process.run().map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// Returns a program of Slurm, with the environment of the coordinator without its job.
    fn process(&self, program: &str) -> Process {
        Process::new(program).envs(outside_job(&self.host.environment)).stdout_max(OUTPUT_MAX)
    }

    /// Runs a command as one step on hosts of the job.
    fn step(
        &self,
        job: u32,
        hosts: &[String],
        command: &HostCommand,
        limit: Duration,
        cancel: &Cancel,
    ) -> Ended {
        let mut ended = Ended::new();
        let mut left = hosts.to_vec();
        while !left.is_empty() {
            let lost = match self.step_once(job, &left, command, limit, cancel) {
                Ok((lost, on_hosts)) => {
                    ended.extend(on_hosts);
                    lost
                }
                Err(error) => {
                    ended.extend(left.iter().map(|host| (host.clone(), Err(error.clone()))));
                    break;
                }
            };
            let before = left.len();
            left.retain(|host| !lost.contains(host));
            // Slurm ends a step on all hosts if it cannot be started on one, whose loss it has not noticed yet.
            if !command.is_repeatable || left.len() == before {
                break;
            }
        }
        ended
    }

    /// Runs a step once. Also returns the hosts on which it could not be started.
    fn step_once(
        &self,
        job: u32,
        hosts: &[String],
        command: &HostCommand,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<(BTreeSet<String>, Ended), String> {
        let (name, errors) = self.directory.new_step().map_err(|error| error.to_string())?;
        let path = shell_quoted(&errors.path().to_string_lossy());
        // Lines of several hosts would be mixed in one stream.
        let line = format!("{} 2>{path}/\"${NODE_NAME}\"", command.for_variable(NODE_NAME));
        let count = hosts.len();
        let process = self
            .process("srun")
            .args([&format!("--jobid={job}"), &format!("-N{count}"), &format!("-n{count}"), "-w"])
            .arg(hosts.join(","))
            .args(["--ntasks-per-node=1", "--overlap", "--kill-on-bad-exit=0", "--wait=0", "--chdir=/"])
            .args(["--output=none", "sh", "-c", &line])
            .deadline(limit)
            .cancel(cancel);
        let done = process.output();
        let on_host = |host: &String| {
            let why = match &done {
                Ok(output) if output.status.success() => return (host.clone(), Ok(())),
                Ok(output) => last_lines(&errors, host).unwrap_or_else(|| failure("srun", output)),
                Err(error) => error.to_string(),
            };
            (host.clone(), Err(why))
        };
        let ended = hosts.iter().map(on_host).collect();
        self.directory.remove_step(&name);
        Ok((done.as_ref().map(not_started).unwrap_or_default(), ended))
    }

    /// Runs a command on one host as a job of its own.
    fn pinned(
        &self,
        host: &str,
        command: &HostCommand,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<(), String> {
        let process = self
            .process("srun")
            .args(self.pinned_arguments(host, limit))
            .args([&format!("--immediate={PINNED_SECONDS}"), "--chdir=/", "--output=none", "sh", "-c"])
            .arg(command.for_variable(NODE_NAME))
            .deadline(limit)
            .cancel(cancel);
        match process.output().map_err(|error| error.to_string())? {
            output if output.status.success() => Ok(()),
            output => Err(failure("srun", &output)),
        }
    }

    /// Returns the arguments of a job of its own on a host.
    fn pinned_arguments(&self, host: &str, limit: Duration) -> Vec<String> {
        let minutes = limit.as_secs().div_ceil(60) + 1;
        let name = self.job_name(&format!("-{host}"));
        let mut arguments = vec![
            "-N1".to_owned(),
            "-n1".to_owned(),
            format!("--nodelist={host}"),
            format!("--time={minutes}"),
            format!("--job-name={name}"),
        ];
        if let Some(job) = &self.job {
            arguments.push(format!("--partition={}", job.partition));
            arguments.extend(job.account.iter().map(|account| format!("--account={account}")));
        }
        arguments
    }

    /// Submits a job that runs a command on a host once the host returns.
    fn janitor(&self, host: &str, command: &HostCommand, limit: Duration) -> Result<String, String> {
        if let Some(job) = self.jobs_named(&self.job_name(&format!("-{host}")))?.pop() {
            return Ok(job);
        }
        let arguments = self.pinned_arguments(host, limit);
        let line = format!("--wrap={}", command.for_variable(NODE_NAME));
        let last = ["--parsable", "--output=/dev/null", "--chdir=/", &line];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(last).collect();
        let printed = self.query("sbatch", &arguments)?;
        // A cluster with a name follows after a semicolon.
        Ok(printed.trim().split(';').next().unwrap_or_default().to_owned())
    }
}

impl Launcher for SlurmLauncher<'_> {
    fn allocate(&self, request: &HostRequest, cancel: &Cancel) -> Result<Allocation, String> {
        let name = self.job_name("");
        // A coordinator that was killed has left them; the lock of the fleet excludes another.
        for job in self.jobs_named(&name)? {
            self.query("scancel", &[&job])?;
        }
        let mut process = self
            .process("salloc")
            .args([&format!("-N{}", request.count), "--ntasks-per-node=1", "--exclusive", "--no-kill"])
            .args(["--no-shell", &format!("--immediate={ALLOCATE_SECONDS}")])
            .args([format!("--time={ALLOCATION_TIME}"), format!("--job-name={name}")]);
        if !request.names.is_empty() {
            process = process.arg(format!("--nodelist={}", request.names.join(",")));
        }
        let output = process.args(&request.arguments).cancel(cancel).output();
        let output = output.map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stderr);
        let granted = printed.split("Granted job allocation ").nth(1);
        let job = granted.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let Some(job) = job.filter(|_| output.status.success()) else {
            return Err(failure("salloc", &output));
        };
        crashpoint!("fleet.allocated");
        match self.running(job)? {
            Some(queued) if queued.hosts.len() == request.count => {
                Ok(allocation(job, true, queued.hosts.clone(), queued))
            }
            _ => {
                self.query("scancel", &[&job.to_string()])?;
                Err(format!("job {job} was granted, and does not have {} hosts", request.count))
            }
        }
    }

    fn run(&self, hosts: &[String], command: &HostCommand, limit: Duration, cancel: &Cancel) -> Ended {
        let refused = |why: &str| hosts.iter().map(|host| (host.clone(), Err(why.to_owned()))).collect();
        let Some(SlurmJob { job, .. }) = self.job else { return refused("the fleet has no job of Slurm") };
        let queued = match self.running(job) {
            Ok(queued) => queued,
            Err(error) => return refused(&error),
        };
        let has = |host: &String| queued.as_ref().is_some_and(|queued| queued.hosts.contains(host));
        let (inside, outside): (Vec<_>, Vec<_>) = hosts.iter().cloned().partition(has);
        let mut ended = self.step(job, &inside, command, limit, cancel);
        ended.extend(if command.outlives_job {
            on_each(&outside, PINNED, |host| self.pinned(host, command, limit, cancel))
        } else {
            let why = match queued {
                Some(_) => format!("job {job} has lost this host"),
                None => format!("job {job} has ended"),
            };
            outside.into_iter().map(|host| (host, Err(why.clone()))).collect()
        });
        ended
    }

    fn stream(
        &self,
        hosts: &[String],
        command: &HostCommand,
        listener: &(dyn Fn(&str) -> Listener + Sync),
        cancel: &Cancel,
    ) -> Ended {
        // Each host has a step of its own, so that the lines of two hosts are never mixed.
        on_each(hosts, hosts.len(), |host| {
            let job = self.job.as_ref().ok_or("the fleet has no job of Slurm")?.job;
            let process = self
                .process("srun")
                .args([&format!("--jobid={job}"), "-N1", "-n1", "-w", host, "--overlap"])
                .args([
                    "--kill-on-bad-exit=0",
                    "--wait=0",
                    "--chdir=/",
                    "--input=none",
                    "--quiet",
                    "sh",
                    "-c",
                ])
                .arg(command.for_host(host))
                .listener(listener(host))
                .cancel(cancel);
            ended(process)
        })
    }

    fn allocated(&self) -> Option<Allocated> {
        let job = self.job.as_ref()?.job;
        let mut state =
            Allocated { job, state: JobState::Ended, hosts: BTreeSet::new(), until: None, error: None };
        match self.running(job) {
            Ok(Some(queued)) => {
                state.state = JobState::Running;
                state.hosts = queued.hosts.into_iter().collect();
                state.until = Some(queued.until);
            }
            Ok(None) => {}
            Err(error) => {
                state.state = JobState::Unknown;
                state.error = Some(error);
            }
        }
        Some(state)
    }

    fn defer(&self, host: &str, command: &HostCommand, limit: Duration) -> Option<String> {
        Some(match self.janitor(host, command, limit) {
            Ok(job) => format!("job {job} does so when the host returns"),
            Err(error) => format!("no job could be left for it: {error}"),
        })
    }

    fn release(&self) -> Result<(), String> {
        match &self.job {
            Some(SlurmJob { job, is_own: true, .. }) => self.query("scancel", &[&job.to_string()]).map(drop),
            _ => Ok(()),
        }
    }
}

/// Returns the allocation of a job.
fn allocation(job: u32, is_own: bool, hosts: Vec<String>, queued: QueuedJob) -> Allocation {
    let QueuedJob { partition, account, .. } = queued;
    let launcher = LauncherConfig::Slurm(SlurmJob { job, is_own, partition, account });
    Allocation { hosts, launcher }
}

/// Returns the environment without the variables of a job.
fn outside_job(environment: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsString| name == "SLURM_CONF" || !name.as_encoded_bytes().starts_with(b"SLURM");
    environment.iter().filter(|(name, _)| is_kept(name)).cloned().collect()
}

/// Returns the hosts on which a step could not be started.
fn not_started(output: &Output) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let failed = text.lines().filter_map(|line| line.split_once(" failed on node ")?.1.split_once(':'));
    failed.map(|(host, _)| host.to_owned()).collect()
}

/// Returns the last lines that a task has written on a host; `None` without any.
fn last_lines(errors: &Root, host: &str) -> Option<String> {
    let bytes = errors.read(Path::new(host), ERROR_MAX).ok()??;
    Some(end_of(&bytes)).filter(|text| !text.is_empty())
}

/// Returns the failure of a program of Slurm.
fn failure(program: &str, output: &Output) -> String {
    match end_of(&output.stderr) {
        text if text.is_empty() => format!("`{program}` failed ({})", output.status),
        text => text,
    }
}

/// Returns the last lines of a text, escaped for a terminal.
fn end_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<_> = text.trim().lines().collect();
    printable_lines(&lines[lines.len().saturating_sub(ERROR_LINES)..].join("\n"))
}

/// Returns whether a word sets an option, which can be shortened.
fn is_option(word: &str, (option, short, _): &(&str, Option<char>, &str)) -> bool {
    /// Options without a value, after which others can follow in one word.
    const FLAGS: &str = "Ov";
    if word.starts_with("--") {
        let name = word.split('=').next().unwrap_or_default();
        return name.len() > 2 && option.starts_with(name);
    }
    let letters = word.strip_prefix('-').unwrap_or_default();
    letters
        .trim_start_matches(|letter| FLAGS.contains(letter))
        .chars()
        .next()
        .is_some_and(|first| Some(first) == *short)
}

/// Splits a text at spaces, except in quotes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in text.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            None if matches!(letter, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}
