//! `start --tmux`: runs the commands in windows of tmux, which outlive seedbed and have a terminal.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Args;
use seedbed::host::Host;
use seedbed::host::process::{Output, Process, Stdin};
use seedbed::host::text::{printable_lines, shell_quoted};
use seedbed::provider::Registry;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::state::{RunLog, SessionRun, Swarm, TmuxSession, end_of_log, record_end};

use super::super::exec::parallel::Job;
use super::super::exec::{FAILED, ready};
use super::super::exit::{Failure, Status};
use super::super::export::tmux::{Log, Window, open_windows, session_name};
use super::super::export::{SessionCommand, script};
use super::super::lookup::{Active, Family};
use super::super::tmux_windows::{OpenWindow, session_here, windows_of};
use super::super::{Global, output};

/// Arguments of the command with which a window records the end of its command.
#[derive(Debug, Args)]
pub(in super::super) struct Ended {
    log: PathBuf,
    /// Exit code; empty after a signal.
    code: String,
    /// Number of the signal; empty after an exit.
    signal: String,
}

/// Opens a window of tmux for each job, in the tmux session of the swarm, and returns the logs. Windows of earlier
/// commands of these sessions, which have ended, are closed.
pub(super) fn open(
    family: &Family<'_>,
    registry: &Registry,
    jobs: &[Job<'_>],
) -> Result<Vec<PathBuf>, Failure> {
    let host = family.swarm.host();
    let name = session_name(family.swarm.key());
    let session = session_here(host, &name);
    let earlier = windows_of(host, &session)?;
    let program = own_program()?;
    let commands: Vec<_> =
        jobs.iter().map(|job| SessionCommand::new(job, registry)).collect::<Result<_, _>>()?;
    let mut logs: Vec<RunLog> = Vec::new();
    let mut windows = Vec::new();
    for (job, command) in jobs.iter().zip(&commands) {
        let swarm = job.active.swarm;
        let log = swarm.create_run_log(&command.scoped_name)?;
        swarm.record_run(&command.scoped_name, &SessionRun::new(command.words.clone(), log.path.clone()))?;
        let path = shell_quoted(&log.path.to_string_lossy());
        let script = window_script(command, &path, &program);
        let script = swarm.write_window_script(&command.scoped_name, &script)?;
        let end = format!("{program} __ended {path}");
        windows.push(Window {
            path: &command.path,
            command: format!("sh {}", shell_quoted(&script.to_string_lossy())),
            log: Some(Log { append: format!("cat >>{path}"), end }),
        });
        logs.push(log);
    }
    let mut launcher = format!("set -eu\nname={name}\n{}", open_windows(&windows, earlier.is_some()));
    let is_next = |window: &&OpenWindow| windows.iter().any(|next| next.path == window.path);
    for OpenWindow { id, .. } in earlier.iter().flatten().filter(|window| window.is_dead).filter(is_next) {
        let _ = writeln!(launcher, "tmux kill-window -t {id}");
    }
    record_session(&family.swarm, session)?;
    let opened = run(host, Process::new("sh").stdin(Stdin::Bytes(launcher.into_bytes())))?;
    if !opened.status.success() {
        for log in &logs {
            record_end(&log.path, Some(FAILED))?;
        }
        let why = printable_lines(String::from_utf8_lossy(&opened.stderr).trim());
        return Err(Failure::new(error::PROGRAM_FAILED, format!("tmux cannot open the windows: {why}")));
    }
    // The scripts of the windows wait for the locks of their logs, which are released here.
    Ok(logs.into_iter().map(|log| log.path).collect())
}

/// Waits until the sessions of the jobs are ready, then shows their windows if there is a terminal. The windows of sessions
/// that are not ready stay.
pub(super) fn wait_and_show(
    global: &Global,
    family: &Family<'_>,
    registry: &Registry,
    jobs: &[Job<'_>],
    logs: &[PathBuf],
) -> Result<ExitCode, Failure> {
    let waited: Vec<_> = jobs.iter().zip(logs).filter(|(job, _)| ready::is_waited_for(job)).collect();
    if !waited.is_empty() {
        global.catch_signals()?;
        let begun = Instant::now();
        let wait = |(job, log): (&Job<'_>, &PathBuf)| wait_for_window(global, registry, job, log, begun);
        let failures: Vec<String> = std::thread::scope(|scope| {
            let waits: Vec<_> = waited.into_iter().map(|waited| scope.spawn(move || wait(waited))).collect();
            waits.into_iter().filter_map(|wait| wait.join().ok()?.err()).collect()
        });
        global.unless_interrupted()?;
        if !failures.is_empty() {
            return Err(Failure::new(error::COMMAND_NOT_READY, failures.join("\n")));
        }
    }
    shown(global, &session_name(family.swarm.key()), jobs.len())
}

/// Waits until the command of a window is ready; the error names the session.
fn wait_for_window(
    global: &Global,
    registry: &Registry,
    job: &Job<'_>,
    log: &Path,
    begun: Instant,
) -> Result<(), String> {
    let Active { swarm, session, .. } = job.active;
    let path = &session.path;
    let ended = || swarm.last_run(&session.scoped_name).filter(|run| run.log == log && run.ended.is_some());
    let directory = job.active.directory(registry).map_err(|failure| failure.summary())?;
    let mark = job.mark.as_deref().unwrap_or_default();
    let found = ready::wait(job, mark, &directory, &global.cancel, begun, || ended().is_none());
    found.map_err(|found| {
        let code = ended().and_then(|run| run.exit_code).map(|code| format!("exit code {code}"));
        let status = code.as_ref().map(|code| code as &dyn std::fmt::Display);
        format!("{path}: {}{}", ready::explained(&found, status), end_of_log(log))
    })
}

/// Records that the swarm has windows in a tmux session, so that they are closed when their sessions are released.
fn record_session(swarm: &Swarm<'_>, session: TmuxSession) -> Result<(), Failure> {
    let mut sessions = swarm.tmux_sessions();
    if !sessions.contains(&session) {
        sessions.push(session);
        swarm.record_tmux_sessions(&sessions)?;
    }
    Ok(())
}

/// Records the end of the command of a window.
pub(in super::super) fn ended(Ended { log, code, signal }: &Ended) -> Result<ExitCode, Failure> {
    let of_signal = || signal.parse().ok().map(|signal: u8| signal.saturating_add(128));
    record_end(log, code.parse().ok().or_else(of_signal))?;
    Ok(Status::Done.into())
}

/// Shows the tmux session in place of this process if there is a terminal; prints its name otherwise.
fn shown(global: &Global, name: &str, windows: usize) -> Result<ExitCode, Failure> {
    if global.json {
        output::print_line(Done { exit_code: Some(0), ..Done::default() });
        return Ok(Status::Done.into());
    }
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !has_terminal {
        if !global.quiet {
            let windows = output::count(windows, "window");
            say!("opened {windows} in tmux session {name}; attach with `tmux attach-session -t ={name}`");
        }
        return Ok(Status::Done.into());
    }
    #[expect(clippy::disallowed_methods, reason = "tmux replaces the command line on the terminal")]
    let error = {
        let show = if std::env::var_os("TMUX").is_some() { "switch-client" } else { "attach-session" };
        Command::new("tmux").args([show, "-t", &format!("={name}")]).exec()
    };
    Err(Failure::new(error::PROGRAM_MISSING, format!("cannot run `tmux`: {error}")))
}

fn run(host: &Host, process: Process) -> Result<Output, Failure> {
    Ok(process.envs(host.environment.iter().cloned()).output()?)
}

/// Returns this program as a word of the shell.
fn own_program() -> Result<String, Failure> {
    let program = std::env::current_exe();
    let program = program
        .map_err(|error| Failure::from_file_error(format!("cannot find the program of seedbed: {error}")))?;
    Ok(shell_quoted(&program.to_string_lossy()))
}

/// Returns a script that runs the command of a session, and records its exit code with `program`, which is seedbed. The
/// script, the command, and what it leaves running, own the lock of the log, which may be renamed meanwhile.
///
/// tmux 3.3 does not always learn the exit code of a window. Ctrl-C ends the command, but not the script. When the window
/// is closed, both end.
fn window_script(command: &SessionCommand, log: &str, program: &str) -> String {
    format!(
        "exec 9>>{log}\nflock 9\ntrap : INT QUIT\ncd /\n{}(\nset -e\n{}        exec {}\n)\ncode=$?\n\
         {program} __ended \"$(readlink /proc/$$/fd/9)\" $code ''\n",
        script::without_git(),
        script::enter(command),
        script::line(command)
    )
}
