//! `start`: runs the command that the manifest names for each session, until all have ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seedbed::discovery;
use seedbed::host::occupants;
use seedbed::host::text::printable;
use seedbed::plan::Session;
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::report::error;

use super::exec::parallel::{self, Ended, Job, Manner, Supervision};
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
    #[command(flatten)]
    supervision: Supervision,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    let jobs = jobs(&family, &arguments.sessions)?;
    refuse_left(&jobs)?;
    global.catch_signals()?;
    let before = commits_ahead(&jobs);
    let manner =
        Manner { global, registry: &project.registry, supervision: arguments.supervision, ends_group: true };
    let (code, ended) = parallel::run(manner, &jobs)?;
    if !global.json && !global.quiet {
        output::print_error(&table(&jobs, &ended, &before));
    }
    Ok(ExitCode::from(code))
}

/// Returns the requested sessions with their commands.
fn jobs<'f>(family: &'f Family<'_>, names: &[String]) -> Result<Vec<Job<'f>>, Failure> {
    let mut jobs = Vec::new();
    for active in family.requested(names)? {
        let Active { swarm, session, .. } = active;
        let command = session.command.as_ref().map(|command| discovery::command(command, swarm.workspace()));
        match command.filter(|words| !words.is_empty()) {
            Some(_) if swarm.last_run(&session.scoped_name).is_some_and(|run| run.is_running()) => {
                let path = &session.path;
                let message = format!(
                    "a command runs in session {path} already\nhelp: `seedbed logs --follow {path}` shows it"
                );
                return Err(Failure::new(error::COMMAND_RUNNING, message));
            }
            Some(words) => jobs.push(Job { active, words, mark: Some(mark(&active)) }),
            None if names.is_empty() => {}
            None => {
                let path = &session.path;
                return Err(missing(&format!("session {path} has no `command`")));
            }
        }
    }
    if jobs.is_empty() { Err(missing("no session has a `command`")) } else { Ok(jobs) }
}

/// Returns the mark of the processes that `start` starts in a session.
fn mark(active: &Active<'_>) -> String {
    format!("start:{}:{}", active.record.owner, active.session.id)
}

/// Returns an error if processes of an earlier `start`, which was killed, still run in the sessions: two agents in one
/// worktree would overwrite each other's work.
fn refuse_left(jobs: &[Job<'_>]) -> Result<(), Failure> {
    let sessions: BTreeMap<String, &Session> =
        jobs.iter().filter_map(|job| Some((job.mark.clone()?, job.active.session))).collect();
    let left = occupants::marked(&sessions.keys().cloned().collect());
    if left.is_empty() {
        return Ok(());
    }
    let mut message = "processes of a killed `start` still run".to_owned();
    for process in &left {
        let (session, command) = (&sessions[&process.mark].path, printable(&process.command));
        let _ = write!(message, "\n  {session}: {} ({command})", process.pid);
    }
    let pids: Vec<_> = left.iter().map(|process| process.pid.to_string()).collect();
    let help = format!("help: wait for them, or end them with `kill {}`", pids.join(" "));
    Err(Failure::new(error::COMMAND_RUNNING, format!("{message}\n{help}")))
}

fn missing(what: &str) -> Failure {
    let help = "help: add one to the manifest and run `seedbed apply`, or use `seedbed exec`";
    Failure::new(error::COMMAND_MISSING, format!("{what}\n{help}"))
}

/// Returns the number of commits beyond the base of each session that has a worktree, by session id.
fn commits_ahead(jobs: &[Job<'_>]) -> BTreeMap<String, u64> {
    let worktree = |job: &Job<'_>| {
        let session = job.active.session;
        Some((session.id.clone(), Worktree::from_allocation(session.allocation(git_worktree::KIND)?)?))
    };
    let (ids, worktrees): (Vec<_>, Vec<_>) = jobs.iter().filter_map(worktree).unzip();
    let Some(swarm) = jobs.first().map(|job| job.active.swarm) else { return BTreeMap::new() };
    let progress =
        git_worktree::progress(swarm.host(), swarm.workspace(), &worktrees.iter().collect::<Vec<_>>());
    ids.into_iter().zip(progress).filter_map(|(id, progress)| Some((id, progress.ok()?.ahead))).collect()
}

/// Returns one row for each session: how its command ended, after which time, and what came of it.
fn table(jobs: &[Job<'_>], ended: &BTreeMap<&str, Ended>, before: &BTreeMap<String, u64>) -> String {
    let after = commits_ahead(jobs);
    let commits = |id: &str| Some(after.get(id)?.saturating_sub(*before.get(id)?).to_string());
    let head = ["SESSION", "RESULT", "TIME", "COMMITS", "LINES"].map(str::to_owned);
    let rows = jobs.iter().map(|job| {
        let session = job.active.session;
        let commits = commits(&session.id).unwrap_or_else(|| "-".to_owned());
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
