//! `fleet exec` and `fleet start`: commands in sessions of all hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use seedbed::fleet::commands::{BEAT, CommandLimits, CommandRequest, CommandResults};
use seedbed::fleet::coordinator::HostProblem;
use seedbed::fleet::directory::IndexedSession;
use seedbed::host::process::Cancel;
use seedbed::name::SessionPath;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::state::{self, Exited};

use super::command_output::CommandOutput;
use super::opened::{Fleet, ReachArguments, listed};
use crate::cli::exec::FAILED;
use crate::cli::exec::parallel::{self, Supervision};
use crate::cli::exit::Failure;
use crate::cli::project::Project;
use crate::cli::{Global, lookup, output, start};

/// Time in which the hosts end their commands and answer, after a request to stop. A command has five seconds to end itself.
const GRACE: Duration = Duration::from_secs(15);

/// Pause between two looks at requests to stop.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `fleet exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArguments {
    #[command(flatten)]
    reach: ReachArguments,
    /// Sessions: paths, names, names of replicas without their number (`coder` selects `coder-0` and all others), or globs
    /// (`coder-*`)
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "SESSION")]
    sessions: Vec<String>,
    /// Run the command in every session; with `--hosts`, in every session of these hosts
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    supervision: Supervision,
    /// Command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Arguments of `fleet start`.
#[derive(Debug, Args)]
pub(super) struct StartArguments {
    #[command(flatten)]
    reach: ReachArguments,
    /// Sessions: paths, names, names of replicas without their number, or globs [default: all with a `command`]
    #[arg(value_name = "SESSION")]
    sessions: Vec<String>,
    #[command(flatten)]
    supervision: Supervision,
}

pub(super) fn exec(global: &Global, arguments: &ExecArguments) -> ExitCode {
    let ExecArguments { reach, sessions, supervision, command, .. } = arguments;
    ended(global, in_sessions(global, reach, sessions, *supervision, Some(command.clone())))
}

pub(super) fn start(global: &Global, arguments: &StartArguments) -> ExitCode {
    let StartArguments { reach, sessions, supervision } = arguments;
    ended(global, in_sessions(global, reach, sessions, *supervision, None))
}

/// Reports a failure of seedbed itself with the exit code that `exec` has for it.
fn ended(global: &Global, result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|failure| match failure {
        Failure::Interrupted => failure.report(global.json),
        failure => failure.report_as(FAILED, global.json),
    })
}

/// Runs a command, or the `command` of each session, on the hosts that have the sessions.
fn in_sessions(
    global: &Global,
    reach: &ReachArguments,
    names: &[String],
    supervision: Supervision,
    words: Option<Vec<String>>,
) -> Result<ExitCode, Failure> {
    let Some(limits) = supervision.limits() else {
        let why =
            "output of other hosts cannot be grouped\nhelp: `--show none`, and `seedbed logs` on each host";
        return Err(Failure::new(error::USAGE, why));
    };
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, reach, false)?;
    let index = fleet.directory.index()?.map(|index| index.sessions).unwrap_or_default();
    let sessions = requested(&index, names, &reach.hosts)?;
    let launcher = fleet.launcher(&project)?;
    let hosts = fleet.hosts(&project, launcher.as_ref());
    global.catch_signals()?;
    let request = CommandRequest::new(state::new_owner()?, words, !names.is_empty(), sessions, limits);
    let output = Arc::new(CommandOutput::new(global.json, global.quiet));
    fleet.directory.write_command(&request)?;
    // The hosts end the commands themselves; the launchers are ended only if that takes too long.
    let (launchers, is_over) = (Cancel::default(), AtomicBool::new(false));
    let endings = thread::scope(|scope| {
        let supervised = scope.spawn(|| supervise(global, &fleet, &request, &output, &launchers, &is_over));
        let hosts_of_request: Vec<String> = request.sessions.keys().cloned().collect();
        let jobs = global.jobs.map(NonZeroUsize::get);
        let listener = |host: &str| output.listener(host);
        let endings = hosts.command(&request.request, &hosts_of_request, jobs, &listener, &launchers);
        is_over.store(true, Ordering::SeqCst);
        // A thread that has panicked has requested nothing more.
        let _ = supervised.join();
        endings
    });
    output.finish();
    let mut results = Results::default();
    for host in request.sessions.keys() {
        let answer = fleet.directory.results(&request.request, host);
        let error = endings.get(host).and_then(|ended| ended.as_ref().err());
        let error = output.error(host).or_else(|| error.cloned());
        let missing = error
            .map_or_else(|| "it gave no results".to_owned(), |error| format!("it gave no results: {error}"));
        results.add(&request, host, answer.map_err(|error| error.to_string()), missing, &output);
    }
    if results.lost.is_empty() {
        fleet.directory.remove_command(&request.request)?;
    }
    results.report(global, limits)
}

/// Returns the sessions that the user calls by these names, by host; without a name, all. Names of hosts leave out the
/// sessions of others.
pub(super) fn requested(
    index: &[IndexedSession],
    names: &[String],
    hosts: &[String],
) -> Result<BTreeMap<String, Vec<SessionPath>>, Failure> {
    let mut chosen = BTreeSet::new();
    for name in names {
        chosen.extend(lookup::some_of(index, name)?.into_iter().map(|session| &session.session));
    }
    let mut requested: BTreeMap<String, Vec<SessionPath>> = BTreeMap::new();
    for IndexedSession { session, host, .. } in index {
        let is_named = names.is_empty() || chosen.contains(session);
        if is_named && (hosts.is_empty() || hosts.contains(host)) {
            requested.entry(host.clone()).or_default().push(session.clone());
        }
    }
    if requested.is_empty() {
        let why = "the fleet has no such session\nhelp: run `seedbed fleet apply DIR`";
        return Err(Failure::new(error::SWARM_NOT_APPLIED, why));
    }
    Ok(requested)
}

/// Writes signs of life for the hosts, and passes a request to stop on to them: a Ctrl-C, or the failure of a command.
fn supervise(
    global: &Global,
    fleet: &Fleet,
    request: &CommandRequest,
    output: &CommandOutput,
    launchers: &Cancel,
    is_over: &AtomicBool,
) {
    let (mut beat, mut last, mut stopped) = (0, Instant::now(), None::<Instant>);
    while !is_over.load(Ordering::SeqCst) {
        thread::sleep(PAUSE);
        let has_to_stop = global.cancel.is_requested() || request.limits.fail_fast && output.has_failure();
        if has_to_stop && stopped.is_none() || last.elapsed() >= BEAT {
            (beat, last) = (beat + 1, Instant::now());
            // A directory that cannot be written is a coordinator without signs of life: the hosts stop as well.
            if let Err(error) = fleet.directory.beat(&request.request, beat, has_to_stop) {
                say!("warning: {error}");
            }
        }
        if has_to_stop && stopped.get_or_insert_with(Instant::now).elapsed() > GRACE {
            launchers.request();
        }
    }
}

/// Results of all hosts.
#[derive(Default)]
struct Results {
    /// End of the command in each session.
    ended: BTreeMap<SessionPath, Exited>,
    /// Hosts without results.
    lost: Vec<HostProblem>,
    /// Hosts that ran nothing.
    refused: Vec<HostProblem>,
}

impl Results {
    /// Adds what a host has answered. Sessions without a result have failed, and their end is printed.
    fn add(
        &mut self,
        request: &CommandRequest,
        host: &str,
        answer: Result<Option<CommandResults>, String>,
        missing: String,
        output: &CommandOutput,
    ) {
        let sessions = request.sessions.get(host).map_or(&[][..], Vec::as_slice);
        let why = match answer {
            Ok(Some(CommandResults { error: None, results, .. })) => {
                self.ended.extend(results.into_iter().map(|ended| (ended.session.clone(), ended)));
                None
            }
            Ok(Some(CommandResults { error: Some(error), .. })) => {
                self.refused.push(HostProblem::new(host, &error));
                Some(error)
            }
            Ok(None) => {
                self.lost.push(HostProblem::new(host, &missing));
                Some(missing)
            }
            Err(why) => {
                self.lost.push(HostProblem::new(host, &why));
                Some(why)
            }
        };
        let is_start = request.words.is_none();
        for session in sessions {
            if self.ended.contains_key(session) || is_start && why.is_none() {
                continue;
            }
            let why = why.clone().unwrap_or_else(|| "its host gave no result".to_owned());
            let ended = output.ended(session).unwrap_or_else(|| {
                let ended = Exited {
                    session: session.clone(),
                    exit_code: FAILED,
                    signal: None,
                    error: Some(why),
                    id: Some(error::HOST_LOST.id.to_owned()),
                    milliseconds: 0,
                    log: None,
                };
                output.print_end(host, &ended);
                ended
            });
            self.ended.insert(session.clone(), ended);
        }
    }

    /// Prints the summary, and returns the largest exit code.
    fn report(&self, global: &Global, limits: CommandLimits) -> Result<ExitCode, Failure> {
        if !global.json {
            self.print_problems(global);
        }
        global.unless_interrupted()?;
        if self.ended.is_empty() {
            return Err(start::missing("no session has a `command`"));
        }
        let is_own = |ended: &&Exited| {
            let stopped = [error::COMMAND_STOPPED.id, error::INTERRUPTED.id];
            !limits.fail_fast || !ended.id.as_ref().is_some_and(|id| stopped.contains(&id.as_str()))
        };
        let code = self.ended.values().filter(is_own).map(|ended| ended.exit_code).max().unwrap_or(0);
        let has_problem = !self.lost.is_empty() || !self.refused.is_empty();
        let code = if has_problem { code.max(FAILED) } else { code };
        if global.json {
            output::print_line(Done { exit_code: Some(code), ..Done::default() });
            return Ok(ExitCode::from(code));
        }
        let failed: Vec<_> = self.ended.values().filter(|ended| ended.exit_code != 0).collect();
        if !failed.is_empty() {
            let named = failed.iter().map(|ended| {
                let Exited { session, exit_code, signal, id, .. } = ended;
                format!("{session} ({})", parallel::described(*exit_code, *signal, id.as_deref()))
            });
            let named = parallel::listed(named);
            say!("failed in {} of {} sessions: {named}", failed.len(), self.ended.len());
        }
        Ok(ExitCode::from(code))
    }

    /// Prints the hosts that gave no results or ran nothing, and the sessions whose commands an interruption has ended.
    fn print_problems(&self, global: &Global) {
        for (what, problems) in [
            ("hosts gave no results, so their commands may still run", &self.lost),
            ("hosts could not run the command", &self.refused),
        ] {
            if !problems.is_empty() {
                say!("error: {}", listed(what, problems));
            }
        }
        let is_ended = |ended: &&Exited| ended.id.as_deref() == Some(error::INTERRUPTED.id);
        let interrupted: Vec<_> = self.ended.values().filter(is_ended).collect();
        if global.cancel.is_requested() && !interrupted.is_empty() {
            let sessions = parallel::listed(interrupted.iter().map(|ended| ended.session.to_string()));
            say!("ended the commands of {sessions}");
        }
    }
}
