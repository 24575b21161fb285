//! `logs`: prints the output of the last command of sessions.
#![expect(clippy::disallowed_methods, reason = "reads logs")]

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seedbed::report::error;
use seedbed::report::event::{CommandEvent, Done};

use super::exit::{Failure, Status};
use super::lookup::{Active, Family};
use super::project::Project;
use super::{Global, completions, output};

/// Interval at which `--follow` looks for new lines.
const POLL: Duration = Duration::from_millis(100);

/// Number of bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sessions: paths, names, names of replicas without their number, or globs [default: all]
    #[arg(add = completions::active_sessions())]
    sessions: Vec<String>,
    /// Continue with new lines until the commands have ended
    #[arg(short = 'F', long)]
    follow: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    let sessions = family.requested(&arguments.sessions)?;
    let mut logs: Vec<Log<'_>> = sessions.into_iter().filter_map(Log::current).collect();
    if logs.is_empty() {
        let message = "no log in these sessions\nhelp: `seedbed start` writes one, and `seedbed exec` in several sessions or with a limit such as `--timeout`";
        return Err(Failure::new(error::LOG_MISSING, message));
    }
    let style = match (global.json, logs.len()) {
        (true, _) => Style::Events,
        (false, 1) => Style::Plain,
        (false, _) => Style::Prefix,
    };
    global.catch_signals()?;
    loop {
        let is_running = arguments.follow && logs.iter().any(Log::is_running);
        for log in &mut logs {
            log.print(style)?;
        }
        if !is_running || global.cancel.is_requested() {
            break;
        }
        std::thread::sleep(POLL);
    }
    for log in &mut logs {
        log.print_rest(style);
    }
    if global.json {
        output::print_line(Done::default());
    }
    Ok(Status::Done.into())
}

/// Form in which logs are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Bytes of the log.
    Plain,
    /// Each line after the path of its session.
    Prefix,
    /// A JSON document for each line.
    Events,
}

/// Log of one session.
struct Log<'f> {
    active: Active<'f>,
    path: PathBuf,
    /// Number of bytes that were read.
    read: u64,
    /// Begin of a line whose end was not read yet.
    begun: Vec<u8>,
}

impl<'f> Log<'f> {
    /// Returns the log of the command that runs in a session, or else its newest log; `None` if it has none.
    fn current(active: Active<'f>) -> Option<Self> {
        let name = &active.session.scoped_name;
        let path = active.swarm.running_logs(name).pop().or_else(|| active.swarm.run_logs(name).pop())?;
        Some(Self { active, path, read: 0, begun: Vec::new() })
    }

    fn is_running(&self) -> bool {
        self.active.swarm.running_logs(&self.active.session.scoped_name).contains(&self.path)
    }

    /// Prints what was written since the last call; unless it is plain, only complete lines.
    fn print(&mut self, style: Style) -> Result<(), Failure> {
        let failed =
            |error| Failure::from_file_error(format!("cannot read {}: {error}", self.path.display()));
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // The session was released in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        file.seek(SeekFrom::Start(self.read)).map_err(failed)?;
        loop {
            let mut bytes = Vec::new();
            let piece = std::io::Read::by_ref(&mut file).take(CHUNK as u64).read_to_end(&mut bytes);
            let count = piece.map_err(failed)?;
            if count == 0 {
                return Ok(());
            }
            self.read += count as u64;
            self.begun.extend(bytes);
            let end = match self.begun.iter().rposition(|byte| *byte == b'\n') {
                _ if style == Style::Plain => self.begun.len(),
                Some(end) => end + 1,
                None if self.begun.len() < CHUNK => continue,
                None => self.begun.len(),
            };
            let lines: Vec<u8> = self.begun.drain(..end).collect();
            self.show(&lines, style);
        }
    }

    /// Prints a last line without an end.
    fn print_rest(&mut self, style: Style) {
        let rest = std::mem::take(&mut self.begun);
        self.show(&rest, style);
    }

    fn show(&self, lines: &[u8], style: Style) {
        let path = &self.active.session.path;
        let text = String::from_utf8_lossy(lines);
        match style {
            Style::Plain => output::keep_error(std::io::stdout().lock().write_all(lines)),
            Style::Prefix => output::print(
                &text.lines().fold(String::new(), |shown, line| format!("{shown}{path}: {line}\n")),
            ),
            Style::Events => text.lines().for_each(|line| {
                output::print_line(CommandEvent::Logged { session: path.clone(), text: line.to_owned() });
            }),
        }
    }
}
