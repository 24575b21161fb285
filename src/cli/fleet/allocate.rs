//! `--slurm`: hosts that Slurm allocates for a fleet, and their release.

use std::collections::BTreeSet;

use seedbed::fleet::directory::{FleetDirectory, Index};
use seedbed::fleet::launcher::{Allocated, HostRequest, JobState, Launcher};
use seedbed::fleet::slurm::{self, SlurmLauncher};
use seedbed::fleet::{Config, LauncherConfig};
use seedbed::manifest::Manifest;
use seedbed::report::error;

use super::opened::{Fleet, ReachArguments};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::count;
use crate::cli::project::Project;

/// Lowest number of a step that Slurm itself starts, such as that of a batch script or of an interactive shell.
const SPECIAL_STEPS: u32 = 0xffff_fff0;

/// Allocates the hosts of a fleet, unless its job runs, and saves them in its configuration. Returns whether the allocation
/// is new. `words` are arguments of `salloc`. Hosts that have sessions are allocated again, except `forgotten` ones.
pub(super) fn allocate(
    global: &Global,
    project: &Project,
    arguments: &mut ReachArguments,
    forgotten: &[String],
    words: &str,
) -> Result<bool, Failure> {
    let words = slurm::arguments(words)
        .map_err(|why| Failure::new(error::USAGE, format!("`--slurm={words}`: {why}")))?;
    let enclosing = enclosing_job(project)?;
    if let Some(job) = enclosing.filter(|_| !words.is_empty()) {
        let message = format!(
            "`--slurm` takes no arguments inside job {job}, whose hosts it uses\nhelp: pass them to `sbatch` or `salloc`"
        );
        return Err(Failure::new(error::USAGE, message));
    }
    let (number, names) = requested(&project.manifest()?, arguments)?;
    let directory = arguments.directory(global, true)?;
    // No other command allocates hosts for this fleet meanwhile.
    let _lock = directory.lock()?;
    let saved = directory.config()?;
    if let Some(running) =
        saved.as_ref().map(|saved| running(project, &directory, saved)).transpose()?.flatten()
    {
        let hosts = saved.map(|saved| saved.hosts.len()).unwrap_or_default();
        if hosts < number {
            let message = format!(
                "{number} hosts are needed, and job {} of the fleet has {hosts}\nhelp: destroy the fleet first",
                running.job
            );
            return Err(Failure::new(error::FLEET_UNALLOCATED, message));
        }
        return Ok(false);
    }
    let index = directory.index()?;
    let with_sessions = index.iter().flat_map(Index::hosts_with_sessions);
    let with_sessions = with_sessions.filter(|host| !forgotten.iter().any(|given_up| given_up == host));
    let required: BTreeSet<_> = with_sessions.map(str::to_owned).chain(names).collect();
    let request = HostRequest::new(number, required.into_iter().collect(), words);
    let launcher = SlurmLauncher::new(&project.host, &directory, None);
    let allocation = match enclosing {
        Some(job) => launcher.adopt(job, &request),
        None => launcher.allocate(&request, &project.host.cancel),
    };
    let allocation = allocation.map_err(|why| {
        let hosts = count(request.count, "host");
        let message = format!(
            "{hosts} could not be allocated; nothing was changed: {why}\nhelp: try again later, or let `salloc` wait \
             longer with `--slurm='--immediate=SECONDS'`"
        );
        Failure::new(error::FLEET_UNALLOCATED, message)
    })?;
    let hosts = count(allocation.hosts.len(), "host");
    let swarm = project.swarm()?.name().to_owned();
    let root = arguments.root_or(project, saved);
    let config = Config::new(swarm, allocation.hosts, allocation.launcher, root);
    if let Err(error) = directory.set_config(&config) {
        Fleet { directory, config, jobs: None }
            .launcher(project)?
            .release()
            .map_err(|why| unreleased(&why))?;
        return Err(error.into());
    }
    if let LauncherConfig::Slurm(job) = &config.launcher
        && !global.quiet
        && !global.json
    {
        say!("job {} of Slurm has {hosts}: {}", job.job, config.hosts.join(", "));
    }
    Ok(true)
}

/// Releases the hosts of a fleet without sessions, if seedbed has allocated them. The caller has the lock of the fleet.
pub(super) fn release_if_unused(
    global: &Global,
    fleet: &Fleet,
    launcher: &dyn Launcher,
) -> Result<(), Failure> {
    let is_used = fleet.directory.index()?.is_some_and(|index| !index.sessions.is_empty());
    let LauncherConfig::Slurm(job) = &fleet.config.launcher else { return Ok(()) };
    if is_used || !job.is_own || launcher.allocated().is_none_or(|job| job.state == JobState::Ended) {
        return Ok(());
    }
    launcher.release().map_err(|why| unreleased(&why))?;
    if !global.quiet && !global.json {
        say!("job {} of Slurm is released", job.job);
    }
    Ok(())
}

/// Refuses a run over hosts of a job that has ended.
pub(super) fn require_allocated(launcher: &dyn Launcher) -> Result<(), Failure> {
    match launcher.allocated().filter(|allocated| allocated.state != JobState::Running) {
        None => Ok(()),
        Some(allocated) => {
            let help =
                "help: allocate its hosts again with `seedbed fleet apply DIR --slurm`, or destroy the fleet";
            let message = format!("{}; nothing was changed\n{help}", described(&allocated));
            Err(Failure::new(error::FLEET_UNALLOCATED, message))
        }
    }
}

/// Describes an allocation in one line.
pub(super) fn described(allocated: &Allocated) -> String {
    let job = allocated.job;
    match allocated.state {
        JobState::Running => {
            let until = allocated.until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
            format!("job {job} of Slurm has {}{until}", count(allocated.hosts.len(), "host"))
        }
        JobState::Ended => format!("job {job} of Slurm has ended, so other jobs may use its hosts and ports"),
        _ => format!(
            "the state of job {job} of Slurm is unknown: {}",
            allocated.error.as_deref().unwrap_or("no answer")
        ),
    }
}

/// Returns the number of hosts that the fleet needs, and the names of those that the user requires. A number instead of
/// names is removed from the arguments.
fn requested(manifest: &Manifest, arguments: &mut ReachArguments) -> Result<(usize, Vec<String>), Failure> {
    let declared = manifest.fleet.and_then(|fleet| Some(fleet.shards? + fleet.spares));
    let spares = manifest.fleet.map_or(0, |fleet| fleet.spares) as usize;
    let declared = declared.map(|hosts| hosts as usize);
    let number = match &arguments.hosts[..] {
        [number] => number.parse::<usize>().ok(),
        _ => None,
    };
    if number.is_some() {
        arguments.hosts.clear();
    }
    let named = number.or(Some(arguments.hosts.len()).filter(|named| *named > 0));
    let Some(hosts) = named.or(declared) else {
        let message = "the manifest does not have the number of hosts\nhelp: declare `shards` in `[fleet]`, or pass \
                       `--hosts NUMBER`";
        return Err(Failure::new(error::USAGE, message));
    };
    let needed = declared.unwrap_or(spares + 1);
    if hosts < needed {
        let message = format!("`--hosts` has {}, and the fleet needs {needed}", count(hosts, "host"));
        return Err(Failure::new(error::USAGE, message));
    }
    Ok((hosts, arguments.hosts.clone()))
}

/// Returns the allocation of a fleet if its job runs.
fn running(
    project: &Project,
    directory: &FleetDirectory,
    saved: &Config,
) -> Result<Option<Allocated>, Failure> {
    let LauncherConfig::Slurm(job) = &saved.launcher else { return Ok(None) };
    let allocated = SlurmLauncher::new(&project.host, directory, Some(job.clone())).allocated();
    match allocated {
        Some(allocated) if allocated.state == JobState::Unknown => {
            Err(Failure::new(error::FLEET_UNALLOCATED, described(&allocated)))
        }
        allocated => Ok(allocated.filter(|allocated| allocated.state == JobState::Running)),
    }
}

/// Returns the job in which this command runs.
fn enclosing_job(project: &Project) -> Result<Option<u32>, Failure> {
    let variable = |name: &str| {
        let found = project.host.environment.iter().find(|(variable, _)| variable == name);
        found.and_then(|(_, value)| value.to_str()?.parse::<u32>().ok())
    };
    let Some(job) = variable("SLURM_JOB_ID") else { return Ok(None) };
    match variable("SLURM_STEP_ID") {
        Some(step) if step < SPECIAL_STEPS => {
            let message = format!(
                "this is step {step} of job {job} of Slurm, and a fleet needs steps of its own\nhelp: run the command \
                 without `srun`"
            );
            Err(Failure::new(error::USAGE, message))
        }
        _ => Ok(Some(job)),
    }
}

fn unreleased(why: &str) -> Failure {
    let help = "help: release it with `scancel JOB`";
    Failure::new(error::FLEET_UNALLOCATED, format!("the allocation could not be released: {why}\n{help}"))
}
