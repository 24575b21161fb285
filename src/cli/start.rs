//! `start`: runs the command that the manifest names for each session, until all have ended.

pub(super) mod tmux;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seedbed::discovery;
use seedbed::host::occupants;
use seedbed::host::process::Cancel;
use seedbed::host::text::printable;
use seedbed::name::SessionPath;
use seedbed::plan::Session;
use seedbed::provider::git_worktree::{self, Progress, Worktree};
use seedbed::report::error;

use super::exec::parallel::{self, Ended, Job, Manner, Supervision};
use super::exec::ready;
use super::exit::Failure;
use super::lookup::{Active, Family};
use super::project::Project;
use super::{Global, completions, output};

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sessions: paths, names, names of replicas without their number, or globs [default: all with a `command`]
    #[arg(add = completions::active_sessions())]
    sessions: Vec<String>,
    /// Run the command of every session that has one, as without names
    #[arg(long, conflicts_with = "sessions")]
    all: bool,
    /// Run each command in a window of tmux, with a terminal, and do not wait for the end
    #[arg(long, conflicts_with_all = ["timeout", "stall", "fail_fast", "show"])]
    tmux: bool,
    #[command(flatten)]
    supervision: Supervision,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    let names = if arguments.all { &[] } else { &arguments.sessions[..] };
    // Other starts open windows in the same tmux session.
    let starts = arguments.tmux.then(|| family.swarm.lock_starts()).transpose()?;
    let jobs = jobs(&family, names)?;
    if arguments.tmux {
        let logs = tmux::open(&family, &project.registry, &jobs)?;
        drop(starts);
        return tmux::wait_and_show(global, &family, &project.registry, &jobs, &logs);
    }
    global.catch_signals()?;
    let at_start = worktrees_at_start(&jobs);
    let manner =
        Manner { global, registry: &project.registry, supervision: arguments.supervision, ends_group: true };
    let ended = parallel::run(manner, &jobs);
    if !global.json && !global.quiet {
        output::print_error(&table(&jobs, &ended, &at_start));
    }
    Ok(ExitCode::from(parallel::finish(global, &ended)?))
}

/// Returns the requested sessions with their commands; an error if a command runs in one of them already.
fn jobs<'f>(family: &'f Family<'_>, names: &[String]) -> Result<Vec<Job<'f>>, Failure> {
    let jobs = commands(family, names)?;
    refuse_running(&jobs)?;
    Ok(jobs)
}

/// Returns an error if a command runs in one of the sessions already, or if something of an earlier one is left.
pub(super) fn refuse_running(jobs: &[Job<'_>]) -> Result<(), Failure> {
    let is_running = |job: &&Job<'_>| {
        let Active { swarm, session, .. } = job.active;
        !swarm.running_logs(&session.scoped_name).is_empty()
    };
    if let Some(job) = jobs.iter().find(is_running) {
        return Err(parallel::runs_already(job.active.session));
    }
    refuse_left(jobs)?;
    ready::refuse_served(jobs)
}

/// Returns the requested sessions with their commands.
pub(super) fn commands<'f>(family: &'f Family<'_>, names: &[String]) -> Result<Vec<Job<'f>>, Failure> {
    let mut jobs = Vec::new();
    for active in family.requested(names)? {
        match job(active) {
            Some(job) => jobs.push(job),
            None if names.is_empty() => {}
            None => return Err(without_command(&active.session.path)),
        }
    }
    if jobs.is_empty() { Err(missing("no session has a `command`")) } else { Ok(jobs) }
}

/// Returns a session with its command; `None` if it has none.
pub(super) fn job(active: Active<'_>) -> Option<Job<'_>> {
    let Active { swarm, session, .. } = active;
    let words = discovery::command(session.command.as_ref()?, swarm.workspace());
    (!words.is_empty()).then(|| Job { active, words, mark: Some(mark(&active)) })
}

/// Returns the error of a session that has no command.
pub(super) fn without_command(path: &SessionPath) -> Failure {
    missing(&format!("session {path} has no `command`"))
}

/// Returns the mark of the processes that `start` starts in a session.
pub(super) fn mark(active: &Active<'_>) -> String {
    format!("start:{}:{}", active.record.owner, active.session.id)
}

/// Returns an error if processes of a killed `start`, or of an exported command, still run in the sessions: two agents in
/// one worktree would overwrite each other's work.
fn refuse_left(jobs: &[Job<'_>]) -> Result<(), Failure> {
    let sessions: BTreeMap<String, &Session> =
        jobs.iter().filter_map(|job| Some((job.mark.clone()?, job.active.session))).collect();
    let left = occupants::marked(&sessions.keys().cloned().collect());
    if left.is_empty() {
        return Ok(());
    }
    let mut message = "processes of an earlier `start` or of an export still run".to_owned();
    for process in &left {
        let (session, command) = (&sessions[&process.mark].path, printable(&process.command));
        let _ = write!(message, "\n  {session}: {} ({command})", process.pid);
    }
    let pids: Vec<_> = left.iter().map(|process| process.pid.to_string()).collect();
    let help = format!("help: wait for them, or end them with `kill {}`", pids.join(" "));
    Err(Failure::new(error::COMMAND_RUNNING, format!("{message}\n{help}")))
}

/// Returns the error of missing commands.
pub(super) fn missing(what: &str) -> Failure {
    let help = "help: add one to the manifest and run `seedbed apply`, or use `seedbed exec`";
    Failure::new(error::COMMAND_MISSING, format!("{what}\n{help}"))
}

/// Returns the worktrees of the sessions, each with the session's id and with the commit that is checked out as its base.
/// Sessions with a worktree that cannot be read are left out.
fn worktrees_at_start(jobs: &[Job<'_>]) -> Vec<(String, Worktree)> {
    let worktrees = jobs.iter().flat_map(|job| {
        let session = job.active.session;
        let worktrees = session.allocations_of(git_worktree::KIND).filter_map(Worktree::from_allocation);
        worktrees.map(|worktree| (session.id.clone(), worktree))
    });
    let mut worktrees: Vec<_> = worktrees.collect();
    let progress = progress(jobs, &worktrees);
    let mut unreadable = BTreeSet::new();
    for ((id, worktree), progress) in worktrees.iter_mut().zip(progress) {
        match progress {
            Ok(progress) => worktree.base_ref = progress.head,
            Err(_) => drop(unreadable.insert(id.clone())),
        }
    }
    worktrees.retain(|(id, _)| !unreadable.contains(id));
    worktrees
}

/// Returns the number of commits that each session has now and did not have at the start, in all of its worktrees, by
/// session id; `None` if a worktree cannot be read.
fn commits_made<'w>(jobs: &[Job<'_>], at_start: &'w [(String, Worktree)]) -> BTreeMap<&'w str, Option<u64>> {
    let mut made: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for ((id, _), progress) in at_start.iter().zip(progress(jobs, at_start)) {
        let sum = made.entry(id).or_insert(Some(0));
        *sum = sum.zip(progress.ok()).map(|(sum, progress)| sum + progress.ahead);
    }
    made
}

fn progress(jobs: &[Job<'_>], worktrees: &[(String, Worktree)]) -> Vec<Result<Progress, String>> {
    let Some(swarm) = jobs.first().map(|job| job.active.swarm) else { return Vec::new() };
    let worktrees: Vec<_> = worktrees.iter().map(|(_, worktree)| worktree).collect();
    // The commits are counted after an interruption too.
    let host = swarm.host().with_cancel(Cancel::default());
    git_worktree::progress(&host, swarm.workspace(), &worktrees)
}

/// Returns one row for each session: how its command ended, after which time, and what came of it.
fn table(jobs: &[Job<'_>], ended: &BTreeMap<&str, Ended>, at_start: &[(String, Worktree)]) -> String {
    let made = commits_made(jobs, at_start);
    let head = ["SESSION", "RESULT", "TIME", "COMMITS", "LINES"].map(str::to_owned);
    let rows = jobs.iter().map(|job| {
        let session = job.active.session;
        let commits = made.get(session.id.as_str()).copied().flatten();
        let commits = commits.map_or_else(|| "-".to_owned(), |commits| commits.to_string());
        match ended.get(session.id.as_str()) {
            Some(ended) => {
                let result = if ended.code == 0 { "done".to_owned() } else { ended.result() };
                let lines = ended.lines.to_string();
                [session.path.to_string(), result, seconds(ended.elapsed), commits, lines]
            }
            None => [session.path.as_str(), "not started", "-", "-", "-"].map(str::to_owned),
        }
    });
    output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn seconds(elapsed: Duration) -> String {
    if elapsed.as_secs() < 60 {
        return format!("{:.1} s", elapsed.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(elapsed.as_secs())).to_string()
}
