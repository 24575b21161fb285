//! Commands that ran in sessions: the log of each, and the result of the last one.
//!
//! No lock is needed: each run writes a log of its own, and replaces the result in one step. Logs and result are removed
//! when the session is released.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recorded::is_locked;
use super::{Error, LOGS_KEPT, Swarm};
use crate::host::clock;
use crate::host::files::{self, Root};
use crate::host::text::{last_lines, printable};
use crate::name::SessionPath;

/// Version of the formats of [`SessionRun`] and of the record of tmux sessions.
const RUN_VERSION: u32 = 1;

/// Separator of a session's name and the time of a run in the name of a log.
const RUN: &str = ".run-";

/// Name of the record of tmux sessions. The logs of no session begin with it.
pub(super) const TMUX_FILE: &str = ".tmux.json";

/// Number of bytes at the end of a log that are searched for its last lines.
const LOG_END: u64 = 64 << 10;

/// Size limit of the file of a result, in bytes.
const RESULT_MAX: usize = 4 << 20;

/// A run of a command in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionRun {
    /// Version of this format, 1.
    #[schemars(extend("const" = RUN_VERSION))]
    pub schema_version: u32,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Time of the start, in UTC as RFC 3339.
    pub started: String,
    /// Time of the end; `null` while the command runs, and if seedbed was killed.
    pub ended: Option<String>,
    /// Exit code; 128 and the number of a signal that ended the command; 124 after a limit of time; 125, 126 or 127 if
    /// the command was not run. `null` without an end, and if it is unknown.
    pub exit_code: Option<u8>,
    /// Reason why the command was not run, or was ended.
    pub error: Option<String>,
    /// Complete output, absolute.
    pub log: PathBuf,
}

/// End of a command in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "the command line builds it field by field")]
pub struct Exited {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Exit code; 128 and the number of a signal that ended the command; 125, 126 or 127 if it was not run.
    pub exit_code: u8,
    /// Number of the signal that ended the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Reason why the command was not run, or was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Id of `error`; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Duration of the command, in milliseconds.
    pub milliseconds: u64,
    /// Complete output, absolute; absent if the command was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
}

/// A tmux session in which `start --tmux` has opened windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "names a tmux session completely")]
pub struct TmuxSession {
    /// Socket of the tmux server, absolute.
    pub socket: PathBuf,
    /// Name of the tmux session.
    pub name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TmuxSessions {
    schema_version: u32,
    sessions: Vec<TmuxSession>,
}

/// Log of a running command. It is locked while the command runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunLog {
    /// Absolute path.
    pub path: PathBuf,
    /// The file, open for appending.
    pub file: File,
}

impl SessionRun {
    /// Returns a run that begins now.
    pub fn new(command: Vec<String>, log: PathBuf) -> Self {
        let started = clock::now();
        let schema_version = RUN_VERSION;
        Self { schema_version, command, started, ended: None, exit_code: None, error: None, log }
    }

    /// Returns whether the command runs now.
    pub fn is_running(&self) -> bool {
        self.ended.is_none() && is_locked(&self.log)
    }
}

impl Swarm<'_> {
    /// Creates a log for a command in a session, and removes the oldest logs of the session if there are too many.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written to.
    pub fn create_run_log(&self, scoped_name: &str) -> Result<RunLog, Error> {
        let directory = Root::create(&self.log_directory())?;
        directory.sweep()?;
        let logs = self.run_logs(scoped_name);
        let old = (logs.len() + 1).saturating_sub(LOGS_KEPT);
        for log in logs.iter().take(old).filter(|log| !is_locked(log)) {
            directory.remove_file(Path::new(log.file_name().unwrap_or_default()))?;
        }
        let time: String = clock::now().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let mut number = 0;
        loop {
            let name = format!("{}{time}-{}-{number}.log", prefix(scoped_name), std::process::id());
            let path = directory.path().join(&name);
            match File::options().create_new(true).append(true).open(&path) {
                Ok(file) => {
                    // Only readers lock it now, for a moment. A file system without locks makes the run look ended.
                    let _ = file.lock();
                    return Ok(RunLog { path, file });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(files::Error::Io { action: "create", path, source }.into()),
            }
        }
    }

    /// Creates a log as [`Self::create_run_log`] does; `None` if a command runs in the session already. Of two calls at the
    /// same time only one creates a log.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written to.
    pub fn create_only_run_log(&self, scoped_name: &str) -> Result<Option<RunLog>, Error> {
        let _starts = self.lock_starts()?;
        if !self.running_logs(scoped_name).is_empty() {
            return Ok(None);
        }
        self.create_run_log(scoped_name).map(Some)
    }

    /// Waits until no other process starts commands in sessions of the swarm. None does until the returned
    /// directory of logs is closed.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written to.
    pub fn lock_starts(&self) -> Result<File, Error> {
        Ok(Root::create(&self.log_directory())?.lock()?)
    }

    /// Returns the logs of the commands that ran in a session, the oldest first.
    pub fn run_logs(&self, scoped_name: &str) -> Vec<PathBuf> {
        let directory = self.log_directory();
        let names = Root::open(&directory).and_then(|logs| logs.names()).unwrap_or_default();
        let prefix = prefix(scoped_name);
        let names = names.iter().filter_map(|name| name.to_str()).filter(|name| name.starts_with(&prefix));
        names.map(|name| directory.join(name)).collect()
    }

    /// Returns the logs of the commands that run in a session now, the oldest first.
    pub fn running_logs(&self, scoped_name: &str) -> Vec<PathBuf> {
        self.run_logs(scoped_name).into_iter().filter(|log| is_locked(log)).collect()
    }

    /// Records the last run of a command in a session.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written to.
    pub fn record_run(&self, scoped_name: &str, run: &SessionRun) -> Result<(), Error> {
        let Ok(bytes) = serde_json::to_vec(run) else { return Ok(()) };
        Ok(Root::create(&self.log_directory())?.replace(&result(scoped_name), &bytes)?)
    }

    /// Returns the last run of a command in a session; `None` if there was none, or its record cannot be read.
    pub fn last_run(&self, scoped_name: &str) -> Option<SessionRun> {
        last_run(&Root::open(&self.log_directory()).ok()?, scoped_name)
    }

    /// Returns the tmux sessions with windows of the swarm's sessions; none if the record cannot be read.
    pub fn tmux_sessions(&self) -> Vec<TmuxSession> {
        let bytes = Root::open(&self.log_directory())
            .ok()
            .and_then(|logs| logs.read(Path::new(TMUX_FILE), RESULT_MAX).ok().flatten());
        let found = bytes.and_then(|bytes| serde_json::from_slice::<TmuxSessions>(&bytes).ok());
        found
            .filter(|found| found.schema_version == RUN_VERSION)
            .map(|found| found.sessions)
            .unwrap_or_default()
    }

    /// Records the tmux sessions with windows of the swarm's sessions.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written to.
    pub fn record_tmux_sessions(&self, sessions: &[TmuxSession]) -> Result<(), Error> {
        let logs = Root::create(&self.log_directory())?;
        if sessions.is_empty() {
            logs.remove_file(Path::new(TMUX_FILE))?;
            return Ok(());
        }
        let record = TmuxSessions { schema_version: RUN_VERSION, sessions: sessions.to_vec() };
        let Ok(bytes) = serde_json::to_vec(&record) else { return Ok(()) };
        Ok(logs.replace(Path::new(TMUX_FILE), &bytes)?)
    }

    /// Writes the script of a session's window in tmux, and returns its absolute path.
    ///
    /// # Errors
    ///
    /// The state directory cannot be written to.
    pub fn write_window_script(&self, scoped_name: &str, text: &str) -> Result<PathBuf, Error> {
        let directory = Root::create(&self.log_directory())?;
        let name = format!("{scoped_name}.window.sh");
        directory.replace(Path::new(&name), text.as_bytes())?;
        Ok(directory.path().join(name))
    }
}

/// Records the end of a run by its log. If the session was released, its end is recorded, or a later run has begun, records
/// nothing.
///
/// # Errors
///
/// The state directory cannot be written to.
pub fn record_end(log: &Path, exit_code: Option<u8>) -> Result<(), Error> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Ok(()) };
    let (Ok(directory), Some((scoped_name, _))) =
        (Root::open(directory), name.to_str().and_then(|name| name.split_once(RUN)))
    else {
        return Ok(());
    };
    let exists = || Ok::<_, files::Error>(directory.names()?.iter().any(|other| other == name));
    let is_this = |run: &SessionRun| run.log.file_name() == log.file_name() && run.ended.is_none();
    let run = last_run(&directory, scoped_name).filter(is_this);
    let (Some(run), true) = (run, exists()?) else { return Ok(()) };
    let run = SessionRun { ended: Some(clock::now()), exit_code, ..run };
    let Ok(bytes) = serde_json::to_vec(&run) else { return Ok(()) };
    directory.replace(&result(scoped_name), &bytes)?;
    // The session may have been released meanwhile.
    if !exists()? {
        directory.remove_file(&result(scoped_name))?;
    }
    Ok(())
}

fn last_run(directory: &Root, scoped_name: &str) -> Option<SessionRun> {
    let bytes = directory.read(&result(scoped_name), RESULT_MAX).ok()??;
    let mut run: SessionRun = serde_json::from_slice(&bytes).ok()?;
    // The directory is renamed with a workspace that moves.
    run.log = directory.path().join(run.log.file_name()?);
    (run.schema_version == RUN_VERSION).then_some(run)
}

/// Returns the last lines of a log, indented, with their heading and the path of the log below them; nothing if the log
/// is empty or cannot be read.
pub fn end_of_log(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        let mut bytes = Vec::new();
        file.take(LOG_END).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let last = read().map(|bytes| last_lines(&bytes)).unwrap_or_default();
    if last.is_empty() {
        return String::new();
    }
    let path = printable(&log.to_string_lossy());
    format!("\n  last lines of the log:\n    {}\n  complete log: {path}", last.replace('\n', "\n    "))
}

fn prefix(scoped_name: &str) -> String {
    format!("{scoped_name}{RUN}")
}

fn result(scoped_name: &str) -> PathBuf {
    format!("{scoped_name}.last-run.json").into()
}
