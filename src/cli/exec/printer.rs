//! Shows the output of commands on a thread of its own, so that a reader of stdout that has stopped delays no command.
//!
//! Output that is not shown yet is kept in the logs only. So memory stays flat, and nothing is lost.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use seedbed::host::process::Stream;
use seedbed::name::SessionPath;
use seedbed::report::event::CommandEvent;

use super::super::output;

/// Length, in bytes, from which a line is shown before its end arrives.
const LINE_MAX: usize = 64 << 10;

/// Number of bytes that are read from a log at once.
const CHUNK: usize = 64 << 10;

/// Maximum number of pieces of output of one session that are not shown yet. Beyond it, a piece counts to the stream of
/// the one before.
const PIECES_MAX: usize = 4096;

/// Output to show of each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Each line as it is printed.
    Lines,
    /// The complete log, when the command has ended.
    Logs,
    /// Nothing.
    Nothing,
}

/// Printer of the output of several commands.
#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
    mode: Mode,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Output that is not shown yet.
#[derive(Debug, Default)]
struct Queue {
    sources: Vec<Source>,
    /// Sources that have something to show, the one that waits longest first.
    ready: VecDeque<usize>,
    is_closed: bool,
}

/// A session, and its output that is not shown yet.
#[derive(Debug)]
struct Source {
    session: SessionPath,
    log: Option<Arc<File>>,
    /// Streams and lengths of the parts of the log that are not shown yet.
    pieces: VecDeque<(Stream, u64)>,
    /// Number of complete lines, and whether the last line of stdout and stderr has no end yet.
    lines: u64,
    is_open: [bool; 2],
    ready: Option<Report>,
    end: Option<Report>,
}

/// Progress of the printer in the log of one session.
#[derive(Debug, Default)]
struct Progress {
    /// Position in the log up to which everything was read.
    position: u64,
    /// Output since the last line end, on stdout and on stderr.
    begun: [Vec<u8>; 2],
}

/// Report of the end of a command, or of the time at which it is ready.
#[derive(Debug)]
pub(super) struct Report {
    /// Message for stderr.
    pub(super) message: Option<String>,
    /// Event for `--json`.
    pub(super) event: CommandEvent,
}

impl Printer {
    pub(super) fn new(json: bool, mode: Mode) -> Self {
        Self { json, mode, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a session, and returns its number.
    pub(super) fn add(&self, session: SessionPath) -> usize {
        let mut queue = self.queue();
        queue.sources.push(Source {
            session,
            log: None,
            pieces: VecDeque::new(),
            lines: 0,
            is_open: [false; 2],
            ready: None,
            end: None,
        });
        queue.sources.len() - 1
    }

    /// Sets the log of a session, which is still empty.
    pub(super) fn set_log(&self, source: usize, log: &Path) {
        self.queue().sources[source].log = File::open(log).ok().map(Arc::new);
    }

    /// Notes output of a session that is in its log already. Never blocks.
    pub(super) fn note(&self, source: usize, stream: Stream, piece: &[u8]) {
        let mut queue = self.queue();
        let noted = &mut queue.sources[source];
        noted.lines += piece.split(|byte| *byte == b'\n').count() as u64 - 1;
        noted.is_open[at(stream)] = !piece.ends_with(b"\n");
        if self.mode != Mode::Lines {
            return;
        }
        let length = piece.len() as u64;
        let is_full = noted.pieces.len() >= PIECES_MAX;
        match noted.pieces.back_mut() {
            Some((last, sum)) if *last == stream || is_full => *sum += length,
            _ => noted.pieces.push_back((stream, length)),
        }
        self.wake(queue, source);
    }

    /// Returns the number of lines that the command of a session has printed.
    pub(super) fn lines(&self, source: usize) -> u64 {
        let queue = self.queue();
        let Source { lines, is_open, .. } = &queue.sources[source];
        lines + is_open.iter().filter(|is_open| **is_open).count() as u64
    }

    /// Notes that a session's command is ready. Never blocks.
    pub(super) fn ready(&self, source: usize, ready: Report) {
        let mut queue = self.queue();
        queue.sources[source].ready = Some(ready);
        self.wake(queue, source);
    }

    /// Notes the end of a session's command. Never blocks.
    pub(super) fn end(&self, source: usize, end: Report) {
        let mut queue = self.queue();
        queue.sources[source].end = Some(end);
        self.wake(queue, source);
    }

    /// Makes [`Printer::run`] return when everything is shown.
    pub(super) fn close(&self) {
        self.queue().is_closed = true;
        self.changed.notify_all();
    }

    /// Shows all output until the printer is closed.
    pub(super) fn run(&self) {
        let mut chunk = vec![0; CHUNK];
        let mut progress: BTreeMap<usize, Progress> = BTreeMap::new();
        while let Some(number) = self.next() {
            let mut queue = self.queue();
            let source = &mut queue.sources[number];
            let mut ready = Source {
                session: source.session.clone(),
                log: source.log.clone(),
                pieces: std::mem::take(&mut source.pieces),
                ready: source.ready.take(),
                end: source.end.take(),
                ..*source
            };
            drop(queue);
            self.show(&mut ready, progress.entry(number).or_default(), &mut chunk);
        }
    }

    /// Waits for a source that has something to show; `None` if there will be none.
    fn next(&self) -> Option<usize> {
        let mut queue = self.queue();
        loop {
            match queue.ready.pop_front() {
                None if !queue.is_closed => {
                    queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                next => return next,
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>, source: usize) {
        if !queue.ready.contains(&source) {
            queue.ready.push_back(source);
            self.changed.notify_all();
        }
    }

    /// Shows the pieces and the end of a session.
    fn show(&self, ready: &mut Source, progress: &mut Progress, chunk: &mut [u8]) {
        for (stream, mut left) in ready.pieces.drain(..) {
            while left > 0 {
                let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let read = ready.log.as_ref().map(|log| log.read_at(&mut chunk[..length], progress.position));
                // A log that another program has shortened has no more to show.
                let Some(Ok(count @ 1..)) = read else { break };
                progress.position += count as u64;
                left -= count as u64;
                if let Some(lines) = progress.complete_lines(stream, &chunk[..count]) {
                    self.print(&ready.session, stream, &lines);
                }
            }
        }
        if let Some(report) = ready.ready.take() {
            self.report(report);
        }
        let Some(end) = ready.end.take() else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut progress.begun[at(stream)]);
            self.print(&ready.session, stream, &rest);
        }
        if let (Mode::Logs, Some(log)) = (self.mode, &ready.log) {
            show_log(&ready.session, log);
        }
        self.report(end);
    }

    fn report(&self, Report { message, event }: Report) {
        if self.json {
            output::print_line(event);
        } else if let Some(message) = message {
            say!("{message}");
        }
    }

    fn print(&self, session: &SessionPath, stream: Stream, lines: &[u8]) {
        let text = String::from_utf8_lossy(lines);
        if self.json {
            for line in text.lines() {
                let (session, text) = (session.clone(), line.to_owned());
                output::print_line(CommandEvent::Output { session, stream: stream.into(), text });
            }
            return;
        }
        let path = session.as_str();
        let shown = text.lines().fold(String::new(), |shown, line| shown + path + ": " + line + "\n");
        match stream {
            Stream::Stdout => output::print(&shown),
            Stream::Stderr => output::print_error(&shown),
        }
    }
}

impl Progress {
    /// Adds output, and returns it up to its last line end; `None` if no line is complete.
    fn complete_lines(&mut self, stream: Stream, output: &[u8]) -> Option<Vec<u8>> {
        let begun = &mut self.begun[at(stream)];
        begun.extend_from_slice(output);
        let end = match begun.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if begun.len() >= LINE_MAX => begun.len(),
            None => return None,
        };
        Some(begun.drain(..end).collect())
    }
}

fn at(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

/// Prints a log to stdout, after a line with the session's path.
fn show_log(session: &SessionPath, mut log: &File) {
    let mut stdout = std::io::stdout().lock();
    let shown = writeln!(stdout, "== {session}").and_then(|()| std::io::copy(&mut log, &mut stdout));
    output::keep_error(shown.map(drop));
}
