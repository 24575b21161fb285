//! `start --tmux`: runs the commands in windows of tmux, which outlive seedbed and have a terminal.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;
use seedbed::host::Host;
use seedbed::host::process::{Output, Process, Stdin};
use seedbed::host::text::{printable_lines, shell_quoted};
use seedbed::provider::Registry;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::state::{RunLog, SessionRun, Swarm, TmuxSession, record_end};

use super::super::exec::FAILED;
use super::super::exec::parallel::Job;
use super::super::exit::{Failure, Status};
use super::super::export::tmux::{Log, Window, open_windows, session_name};
use super::super::export::{SessionCommand, script};
use super::super::lookup::Family;
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

/// Opens a window of tmux for each job, in the tmux session of the swarm, and shows it if there is a terminal. Windows
/// of earlier commands of these sessions, which have ended, are closed.
pub(super) fn open(
    global: &Global,
    family: &Family<'_>,
    registry: &Registry,
    jobs: &[Job<'_>],
) -> Result<ExitCode, Failure> {
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
    // The scripts of the windows wait for the locks of their logs.
    drop(logs);
    shown(global, &name, jobs.len())
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
