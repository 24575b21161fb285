//! Runs a command in many sessions at once, each supervised by a thread of its own.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::process::{Resource, Signal, getrlimit};
use seedbed::apply::NotReady;
use seedbed::discovery;
use seedbed::fleet::commands::CommandLimits;
use seedbed::host::clock;
use seedbed::host::occupants::MARK;
use seedbed::host::process::{self, Cancel, Listener, Process};
use seedbed::name::SessionPath;
use seedbed::plan::Session;
use seedbed::provider::Registry;
use seedbed::report::error;
use seedbed::report::event::{CommandEvent, Done};
use seedbed::state::{Exited, SessionRun, end_of_log};

use super::super::exit::Failure;
use super::super::lookup::Active;
use super::super::{Global, output, time_limit};
use super::printer::{Mode, Printer, Report};
use super::{FAILED, cannot_run, code_of, ready};

/// Number of open files per running command, and number of files that are kept free for everything else.
///
/// A command needs two pipes while it starts, then one end of each.
const FILES_EACH: u64 = 5;
const FILES_LEFT: u64 = 64;

/// Exit code of a command that a limit of time has ended, as that of `timeout`.
const LIMITED: u8 = 124;

/// Maximum number of sessions that a message lists.
const LISTED: usize = 12;

/// Limits of commands, and the place of their output.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(in super::super) struct Supervision {
    /// End a command that runs longer than this (`90`, `30m`)
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    timeout: Option<Duration>,
    /// End a command that prints nothing for this time
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    stall: Option<Duration>,
    /// End all other commands when one fails
    #[arg(long)]
    fail_fast: bool,
    /// Show output as it is printed, after the end of each command, or not at all
    #[arg(long, value_name = "FORM", default_value = "prefix")]
    show: Shown,
}

/// Form in which the output of commands is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// Each line as it is printed, after the session's path
    #[default]
    Prefix,
    /// All lines of a session, when its command has ended
    Grouped,
    /// Not at all; `seedbed logs` prints it
    None,
}

impl Supervision {
    /// Returns whether a command needs no supervision, so that it can replace this process.
    pub(in super::super) fn is_default(self) -> bool {
        let Self { timeout, stall, fail_fast, show } = self;
        timeout.is_none() && stall.is_none() && !fail_fast && show == Shown::default()
    }
}

impl Supervision {
    /// Returns the supervision of commands on another host; `None` if their output is to be grouped, which needs their logs.
    pub(in super::super) fn limits(self) -> Option<CommandLimits> {
        let Self { timeout, stall, fail_fast, show } = self;
        let is_silent = match show {
            Shown::Prefix => false,
            Shown::None => true,
            Shown::Grouped => return None,
        };
        Some(CommandLimits { timeout, stall, fail_fast, is_silent })
    }
}

impl From<CommandLimits> for Supervision {
    fn from(limits: CommandLimits) -> Self {
        let CommandLimits { timeout, stall, fail_fast, is_silent } = limits;
        Self { timeout, stall, fail_fast, show: if is_silent { Shown::None } else { Shown::Prefix } }
    }
}

/// A session, and the command to run in it.
pub(in super::super) struct Job<'f> {
    pub(in super::super) active: Active<'f>,
    pub(in super::super) words: Vec<String>,
    /// Value of [`MARK`] in the environment of the command; `None` for the value of this process.
    pub(in super::super) mark: Option<String>,
}

/// Manner of running jobs.
#[derive(Clone, Copy)]
pub(in super::super) struct Manner<'a> {
    pub(in super::super) global: &'a Global,
    pub(in super::super) registry: &'a Registry,
    pub(in super::super) supervision: Supervision,
    /// `true` if nothing that a command has started keeps running after it.
    pub(in super::super) ends_group: bool,
}

/// Result of the command in one session.
#[derive(Default)]
pub(in super::super) struct Ended {
    pub(in super::super) code: u8,
    /// Signal that ended the command.
    signal: Option<i32>,
    /// Why it could not be run, or was ended.
    failure: Option<Failure>,
    /// Duration of the command.
    pub(in super::super) elapsed: Duration,
    /// Number of printed lines.
    pub(in super::super) lines: u64,
    /// Complete output.
    pub(in super::super) log: Option<PathBuf>,
}

/// Runs the jobs, shows their output, and returns the results by session id.
pub(in super::super) fn run<'f>(manner: Manner<'_>, jobs: &[Job<'f>]) -> BTreeMap<&'f str, Ended> {
    let Manner { global, supervision, .. } = manner;
    let at_once = at_once(global, jobs.len());
    if at_once < jobs.len() && !global.quiet {
        say!("{}", waiting(global, jobs, at_once));
    }
    let next = AtomicUsize::new(0);
    let stop = global.cancel.below();
    let ended = Mutex::new(BTreeMap::new());
    let printer = printer(manner);
    std::thread::scope(|scope| {
        scope.spawn(|| printer.run());
        let work = || {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.is_requested() {
                    break;
                }
                let how = one(manner, job, &printer, &stop);
                if supervision.fail_fast && how.code != 0 {
                    stop.request();
                }
                let id = job.active.session.id.as_str();
                ended.lock().unwrap_or_else(PoisonError::into_inner).insert(id, how);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(work);
            }
        });
        printer.close();
    });
    let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    if global.cancel.is_requested() && !global.json {
        let was_ended =
            |job: &&Job<'_>| ended.get(job.active.session.id.as_str()).is_some_and(Ended::was_ended);
        let sessions = jobs.iter().filter(was_ended).map(|job| job.active.session.path.to_string());
        let sessions: Vec<_> = sessions.collect();
        if !sessions.is_empty() {
            say!("ended the commands of {}", listed(sessions.into_iter()));
        }
    }
    ended
}

/// Returns the largest of the exit codes, and prints a `done` line with `--json`; an error if the run was interrupted.
pub(in super::super) fn finish(global: &Global, ended: &BTreeMap<&str, Ended>) -> Result<u8, Failure> {
    global.unless_interrupted()?;
    let code = largest_code(ended);
    if global.json {
        output::print_line(Done { exit_code: Some(code), ..Done::default() });
    }
    Ok(code)
}

/// Returns the largest of the exit codes, of the commands that were not ended because of another one.
pub(in super::super) fn largest_code(ended: &BTreeMap<&str, Ended>) -> u8 {
    let is_own = |ended: &&Ended| ended.has_own_code();
    ended.values().filter(is_own).map(|ended| ended.code).max().unwrap_or(0)
}

fn printer(Manner { global, supervision, .. }: Manner<'_>) -> Arc<Printer> {
    let mode = match supervision.show {
        Shown::None => Mode::Nothing,
        Shown::Grouped if !global.json => Mode::Logs,
        Shown::Prefix | Shown::Grouped => Mode::Lines,
    };
    Arc::new(Printer::new(global.json, mode))
}

/// Returns the number of commands that run at once: all, unless `--jobs` or the limit of open files is lower.
fn at_once(global: &Global, sessions: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(files.saturating_sub(FILES_LEFT) / FILES_EACH).unwrap_or(usize::MAX);
    let wanted = global.jobs.map_or(sessions, NonZeroUsize::get);
    wanted.min(sessions).min(room.max(1))
}

/// Describes the sessions that wait for others to end.
fn waiting(global: &Global, jobs: &[Job<'_>], at_once: usize) -> String {
    let why = match global.jobs {
        Some(jobs) if jobs.get() == at_once => format!("--jobs {jobs}"),
        _ => "the limit of open files (`ulimit -n`)".to_owned(),
    };
    let waiting = listed(jobs[at_once..].iter().map(|job| job.active.session.path.to_string()));
    format!("{at_once} of {} sessions run at once ({why}); waiting: {waiting}", jobs.len())
}

/// Describes the sessions whose commands failed, with the reasons.
pub(in super::super) fn summary(jobs: &[Job<'_>], ended: &BTreeMap<&str, Ended>) -> String {
    let failed: Vec<_> = jobs
        .iter()
        .filter_map(|job| Some((&job.active.session.path, ended.get(job.active.session.id.as_str())?)))
        .filter(|(_, ended)| ended.code != 0)
        .map(|(path, ended)| format!("{path} ({})", ended.result()))
        .collect();
    format!("failed in {} of {} sessions: {}", failed.len(), jobs.len(), listed(failed.into_iter()))
}

impl Ended {
    /// Returns whether the exit code is the command's own, not that of a command that was ended for another one.
    fn has_own_code(&self) -> bool {
        self.failure.as_ref().is_none_or(|failure| failure.id() != error::COMMAND_STOPPED)
    }

    /// Returns whether the command was ended with the run.
    fn was_ended(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.id() == error::INTERRUPTED)
    }

    /// Describes the end of the command.
    pub(in super::super) fn result(&self) -> String {
        described(self.code, self.signal, self.failure.as_ref().map(|failure| failure.id().id))
    }

    /// Returns the event of the end of the command.
    pub(in super::super) fn event(&self, session: &SessionPath) -> Exited {
        Exited {
            session: session.clone(),
            exit_code: self.code,
            signal: self.signal,
            error: self.failure.as_ref().map(Failure::summary),
            id: self.failure.as_ref().map(|failure| failure.id().id.to_owned()),
            milliseconds: self.elapsed.as_millis().try_into().unwrap_or(u64::MAX),
            log: self.log.clone(),
        }
    }
}

/// Describes the end of a command by its exit code, the signal that ended it, and the id of the error.
pub(in super::super) fn described(code: u8, signal: Option<i32>, id: Option<&str>) -> String {
    let named = [
        (error::COMMAND_TIMEOUT, "timeout"),
        (error::COMMAND_STALLED, "no output"),
        (error::COMMAND_NOT_READY, "not ready"),
        (error::COMMAND_STOPPED, "ended"),
        (error::INTERRUPTED, "interrupted"),
    ];
    let name = named.iter().find(|(error, _)| id == Some(error.id));
    match (id, signal) {
        (Some(_), _) if name.is_some() => name.map_or("", |(_, name)| name).to_owned(),
        (Some(_), _) if code == FAILED => "not run".to_owned(),
        (Some(_), _) => "cannot be run".to_owned(),
        (None, Some(signal)) => match Signal::from_named_raw(signal) {
            Some(name) => {
                let name = format!("{name:?}");
                format!("SIG{}", name.trim_matches('"').trim_start_matches("Signal::"))
            }
            None => format!("signal {signal}"),
        },
        (None, None) => format!("exit code {code}"),
    }
}

/// Lists names, up to a maximum.
pub(in super::super) fn listed(mut names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let listed = names.by_ref().take(LISTED).collect::<Vec<_>>().join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

/// Runs the command in one session. An interruption ends the command and all its descendants.
fn one(manner: Manner<'_>, job: &Job<'_>, printer: &Arc<Printer>, stop: &Cancel) -> Ended {
    let begun = Instant::now();
    let session = job.active.session;
    let source = printer.add(session.path.clone());
    let mut log = None;
    let ended = logged(manner, job, (printer, source), stop, &mut log)
        .unwrap_or_else(|failure| Ended::failed(FAILED, failure));
    let ended = Ended { elapsed: begun.elapsed(), lines: printer.lines(source), log, ..ended };
    let message = ended.failure.as_ref().filter(|_| !ended.was_ended());
    let log_end = |failure: &Failure| match &ended.log {
        Some(log) if failure.id() == error::COMMAND_NOT_READY => end_of_log(log),
        _ => String::new(),
    };
    printer.end(
        source,
        Report {
            message: message.map(|failure| {
                let (summary, id) = (failure.summary(), failure.id().id);
                format!("{}: {summary} [{id}]{}", session.path, log_end(failure))
            }),
            event: CommandEvent::Exited(ended.event(&session.path)),
        },
    );
    ended
}

/// Returns the refusal of a second command of `start` in a session.
pub(in super::super) fn runs_already(session: &Session) -> Failure {
    let path = &session.path;
    let message =
        format!("a command runs in session {path} already\nhelp: `seedbed logs --follow {path}` shows it");
    Failure::new(error::COMMAND_RUNNING, message)
}

/// Runs the command in one session, with a log and a record of the run.
fn logged(
    manner: Manner<'_>,
    job: &Job<'_>,
    (printer, source): (&Arc<Printer>, usize),
    stop: &Cancel,
    path: &mut Option<PathBuf>,
) -> Result<Ended, Failure> {
    let Active { swarm, session, .. } = job.active;
    let directory = job.active.directory(manner.registry)?;
    let log = if job.mark.is_some() {
        swarm.create_only_run_log(&session.scoped_name)?.ok_or_else(|| runs_already(session))?
    } else {
        swarm.create_run_log(&session.scoped_name)?
    };
    *path = Some(log.path.clone());
    printer.set_log(source, &log.path);
    let mut run = SessionRun::new(job.words.clone(), log.path);
    swarm.record_run(&session.scoped_name, &run)?;
    let noted = Arc::clone(printer);
    let listener = Listener::new(move |stream, piece| noted.note(source, stream, piece));
    let announced = Arc::clone(printer);
    let announce = move |elapsed: Duration| {
        let event = CommandEvent::CommandReady {
            session: session.path.clone(),
            milliseconds: elapsed.as_millis().try_into().unwrap_or(u64::MAX),
        };
        let message = format!("{}: ready after {:.1} s", session.path, elapsed.as_secs_f64());
        let message = Some(message).filter(|_| !manner.global.quiet);
        announced.ready(source, Report { message, event });
    };
    let ended = supervised(manner, job, &directory, log.file, listener, stop, &announce);
    run.ended = Some(clock::now());
    run.exit_code = Some(ended.code);
    run.error = ended.failure.as_ref().map(Failure::summary);
    // If the session was released in the meantime, nothing of it remains. A later run keeps its record.
    let is_last = swarm.last_run(&session.scoped_name).is_none_or(|last| last.log == run.log);
    if is_last && run.log.exists() {
        swarm.record_run(&session.scoped_name, &run)?;
    }
    Ok(ended)
}

fn supervised(
    manner: Manner<'_>,
    job: &Job<'_>,
    directory: &Path,
    log: File,
    listener: Listener,
    stop: &Cancel,
    announce: &(dyn Fn(Duration) + Sync),
) -> Ended {
    let Manner { supervision, ends_group, .. } = manner;
    let Job { active: Active { swarm, session, .. }, words, mark } = job;
    let mut process = Process::new(&words[0])
        .args(&words[1..])
        .current_dir(directory)
        .envs(discovery::command_environment(swarm, session, directory))
        .envs(mark.iter().map(|mark| (MARK.into(), mark.into())))
        .cancel(stop)
        .log(log)
        .listener(listener);
    if let Some(timeout) = supervision.timeout {
        process = process.deadline(timeout);
    }
    if let Some(stall) = supervision.stall {
        process = process.stall(stall);
    }
    if ends_group {
        process = process.ending_its_group();
    }
    let (ended, not_ready) = match mark.as_ref().filter(|_| ready::is_waited_for(job)) {
        Some(mark) => ready::run(job, mark, directory, process, stop, announce),
        None => (process.output(), None),
    };
    match (ended, not_ready.filter(|found| *found != NotReady::Interrupted)) {
        (Ok(output), Some(found)) => {
            let own = Some(code_of(output.status)).filter(|code| *code != 0);
            Ended::failed(own.unwrap_or(LIMITED), not_ready_failure(&found, Some(&output.status)))
        }
        (Err(process::Error::Cancelled { .. }), Some(found @ NotReady::Late { .. })) => {
            Ended::failed(LIMITED, not_ready_failure(&found, None))
        }
        (ended, _) => of_output(manner, words, ended),
    }
}

fn not_ready_failure(found: &NotReady, status: Option<&dyn Display>) -> Failure {
    Failure::new(error::COMMAND_NOT_READY, ready::explained(found, status))
}

/// Returns the result of a command that was not waited for, or was ready.
fn of_output(manner: Manner<'_>, words: &[String], ended: Result<process::Output, process::Error>) -> Ended {
    let global = manner.global;
    match ended {
        Ok(output) => Ended {
            code: code_of(output.status),
            signal: std::os::unix::process::ExitStatusExt::signal(&output.status),
            ..Ended::default()
        },
        Err(process::Error::Start { source, .. }) => {
            let failure = cannot_run(words, &source);
            Ended::failed(failure.id().exit_code, failure)
        }
        Err(process::Error::Deadline { after, .. }) => {
            let why = format!("ended after {}", humantime::format_duration(after));
            Ended::failed(LIMITED, Failure::new(error::COMMAND_TIMEOUT, why))
        }
        Err(process::Error::Stalled { after, .. }) => {
            let why = format!("ended after {} without output", humantime::format_duration(after));
            Ended::failed(LIMITED, Failure::new(error::COMMAND_STALLED, why))
        }
        Err(process::Error::Cancelled { .. }) if !global.cancel.is_requested() => {
            let why = "ended, because the command of another session failed";
            Ended::failed(FAILED, Failure::new(error::COMMAND_STOPPED, why))
        }
        Err(error) => Ended::failed(FAILED, error.into()),
    }
}

impl Ended {
    fn failed(code: u8, failure: Failure) -> Self {
        Self { code, failure: Some(failure), ..Self::default() }
    }
}
