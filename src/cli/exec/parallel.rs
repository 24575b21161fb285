//! Runs a command in many sessions at once: each printed line is shown immediately, prefixed with the session's path.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::process::{Resource, Signal, getrlimit};
use seedbed::host::process::{self, Listener, Process, Stream};
use seedbed::name::SessionPath;
use seedbed::provider::Registry;
use seedbed::report::event::{CommandEvent, Done};

use super::super::exit::Failure;
use super::super::lookup::Active;
use super::super::{Global, output};
use super::{FAILED, cannot_run, code_of, environment};

/// Length, in bytes, from which a line is shown before its end arrives.
const LINE_MAX: usize = 64 << 10;

/// Number of open files per running command, and number of files that are kept free for everything else.
///
/// A command needs two pipes while it starts, then one end of each.
const FILES_EACH: u64 = 5;
const FILES_LEFT: u64 = 64;

/// Maximum number of sessions that a message lists.
const LISTED: usize = 12;

/// Result of the command in one session.
struct Ended {
    code: u8,
    /// Signal that ended the command.
    signal: Option<i32>,
    /// Why it could not be run, or was ended.
    failure: Option<Failure>,
}

/// Runs the command in all sessions, and returns the largest of the exit codes.
pub(super) fn run(
    global: &Global,
    registry: &Registry,
    sessions: &[Active<'_>],
    words: &[String],
) -> Result<ExitCode, Failure> {
    let at_once = at_once(global, sessions.len());
    if at_once < sessions.len() && !global.quiet {
        say!("{}", waiting(global, sessions, at_once));
    }
    let next = AtomicUsize::new(0);
    let ended = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(active) = sessions.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Active { swarm, session, .. } = *active;
                    if swarm.host().cancel.is_requested() {
                        break;
                    }
                    let how = one(global.json, *active, registry, words);
                    ended.lock().unwrap_or_else(PoisonError::into_inner).insert(session.id.as_str(), how);
                }
            });
        }
    });
    global.unless_interrupted()?;
    let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    let code = ended.values().map(|ended| ended.code).max().unwrap_or(0);
    if global.json {
        output::print_line(Done { exit_code: Some(code), ..Done::default() });
    } else if code != 0 {
        say!("{}", summary(sessions, &ended));
    }
    Ok(ExitCode::from(code))
}

/// Returns the number of commands that run at once: all, unless `--jobs` or the limit of open files is lower.
fn at_once(global: &Global, sessions: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(files.saturating_sub(FILES_LEFT) / FILES_EACH).unwrap_or(usize::MAX);
    let wanted = global.jobs.map_or(sessions, NonZeroUsize::get);
    wanted.min(sessions).min(room.max(1))
}

/// Describes the sessions that wait for others to end.
fn waiting(global: &Global, sessions: &[Active<'_>], at_once: usize) -> String {
    let why = match global.jobs {
        Some(jobs) if jobs.get() == at_once => format!("--jobs {jobs}"),
        _ => "the limit of open files (`ulimit -n`)".to_owned(),
    };
    let waiting = listed(sessions[at_once..].iter().map(|active| active.session.path.to_string()));
    format!("{at_once} of {} sessions run at once ({why}); waiting: {waiting}", sessions.len())
}

/// Describes the sessions whose commands failed, with the reasons.
fn summary(sessions: &[Active<'_>], ended: &BTreeMap<&str, Ended>) -> String {
    let failed: Vec<_> = sessions
        .iter()
        .filter_map(|active| Some((&active.session.path, ended.get(active.session.id.as_str())?)))
        .filter(|(_, ended)| ended.code != 0)
        .map(|(path, ended)| format!("{path} ({})", how(ended)))
        .collect();
    format!("failed in {} of {} sessions: {}", failed.len(), sessions.len(), listed(failed.into_iter()))
}

fn how(ended: &Ended) -> String {
    match (&ended.failure, ended.signal) {
        (Some(_), _) if ended.code == FAILED => "not run".to_owned(),
        (Some(_), _) => "cannot be run".to_owned(),
        (None, Some(signal)) => match Signal::from_named_raw(signal) {
            Some(name) => {
                let name = format!("{name:?}");
                format!("SIG{}", name.trim_matches('"').trim_start_matches("Signal::"))
            }
            None => format!("signal {signal}"),
        },
        (None, None) => format!("exit code {}", ended.code),
    }
}

fn listed(mut names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let listed = names.by_ref().take(LISTED).collect::<Vec<_>>().join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

/// Runs the command in one session and shows its output. An interruption ends the command and all its descendants.
fn one(json: bool, active: Active<'_>, registry: &Registry, words: &[String]) -> Ended {
    let begun = Instant::now();
    let session = active.session;
    let ended = supervised(json, active, registry, words);
    if let (Some(failure), false) = (&ended.failure, json) {
        say!("{}: {} [{}]", session.path, failure.summary(), failure.id().id);
    }
    if json {
        output::print_line(CommandEvent::Exited {
            session: session.path.clone(),
            exit_code: ended.code,
            signal: ended.signal,
            error: ended.failure.as_ref().map(Failure::summary),
            id: ended.failure.as_ref().map(|failure| failure.id().id.to_owned()),
            milliseconds: begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
        });
    }
    ended
}

fn supervised(json: bool, active: Active<'_>, registry: &Registry, words: &[String]) -> Ended {
    let Active { swarm, session, .. } = active;
    let failed = |code, failure| Ended { code, signal: None, failure: Some(failure) };
    let directory = match active.directory(registry) {
        Ok(directory) => directory,
        Err(failure) => return failed(FAILED, failure),
    };
    let lines = Arc::new(Lines::new(json, session.path.clone()));
    let hears = Arc::clone(&lines);
    let output = Process::new(&words[0])
        .args(&words[1..])
        .current_dir(&directory)
        .envs(environment(swarm, session, &directory))
        .cancel(&swarm.host().cancel)
        .listener(Listener::new(move |stream, piece| hears.take(stream, piece)))
        .output();
    lines.end();
    match output {
        Ok(output) => Ended {
            code: code_of(output.status),
            signal: std::os::unix::process::ExitStatusExt::signal(&output.status),
            failure: None,
        },
        Err(process::Error::Start { source, .. }) => {
            let failure = cannot_run(words, &source);
            failed(failure.id().exit_code, failure)
        }
        Err(error) => failed(FAILED, error.into()),
    }
}

/// Runs the command in one session for `run --json`, and returns its exit code.
pub(super) fn alone(active: Active<'_>, registry: &Registry, words: &[String]) -> u8 {
    one(true, active, registry, words).code
}

/// Buffer that assembles the output of one session's command into complete lines.
struct Lines {
    json: bool,
    session: SessionPath,
    /// Output since the last line end, on stdout and on stderr.
    begun: Mutex<[Vec<u8>; 2]>,
}

impl Lines {
    fn new(json: bool, session: SessionPath) -> Self {
        Self { json, session, begun: Mutex::default() }
    }

    fn take(&self, stream: Stream, piece: &[u8]) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = &mut begun[usize::from(stream == Stream::Stderr)];
        begun.extend_from_slice(piece);
        let end = match begun.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if begun.len() >= LINE_MAX => begun.len(),
            None => return,
        };
        self.show(stream, &begun[..end]);
        begun.drain(..end);
    }

    /// Shows output that has no final line end.
    fn end(&self) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for (stream, begun) in [Stream::Stdout, Stream::Stderr].into_iter().zip(begun.iter_mut()) {
            self.show(stream, &std::mem::take(begun));
        }
    }

    fn show(&self, stream: Stream, lines: &[u8]) {
        let text = String::from_utf8_lossy(lines);
        if self.json {
            for line in text.lines() {
                let (session, text) = (self.session.clone(), line.to_owned());
                output::print_line(CommandEvent::Output { session, stream: stream.into(), text });
            }
            return;
        }
        let path = self.session.as_str();
        let shown = text.lines().fold(String::new(), |shown, line| shown + path + ": " + line + "\n");
        match stream {
            Stream::Stdout => output::print(&shown),
            Stream::Stderr => output::print_error(&shown),
        }
    }
}
