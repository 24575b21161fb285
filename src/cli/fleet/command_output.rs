//! Output of commands on the hosts of a fleet, line by line, after the names of host and session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seedbed::host::process::{Listener, Stream};
use seedbed::host::text::printable;
use seedbed::name::SessionPath;
use seedbed::report::error;
use seedbed::report::event::{self, CommandEvent, Content, Line, Outcome};
use seedbed::state::Exited;

use crate::cli::output;

/// Longest line of a host, in bytes. A line of seedbed is shorter.
const LINE_MAX: usize = 1 << 20;

/// Output of all hosts.
pub(super) struct CommandOutput {
    json: bool,
    quiet: bool,
    /// Ends of commands that hosts have printed.
    ended: Mutex<BTreeMap<SessionPath, Exited>>,
    has_failure: AtomicBool,
    /// Errors for which hosts have run nothing.
    errors: Mutex<BTreeMap<String, String>>,
    /// Begun lines of each host, on stdout and on stderr.
    begun: Mutex<BTreeMap<String, [Vec<u8>; 2]>>,
}

impl CommandOutput {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self {
            json,
            quiet,
            ended: Mutex::default(),
            has_failure: AtomicBool::new(false),
            errors: Mutex::default(),
            begun: Mutex::default(),
        }
    }

    /// Returns the listener for what a host prints: events of its `exec` on stdout.
    pub(super) fn listener(self: &Arc<Self>, host: &str) -> Listener {
        let (output, host) = (Arc::clone(self), host.to_owned());
        Listener::new(move |stream, piece| output.add(&host, stream, piece))
    }

    /// Shows lines that have no end.
    pub(super) fn finish(&self) {
        let begun = std::mem::take(&mut *locked(&self.begun));
        for (host, [stdout, stderr]) in begun {
            for (stream, rest) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                if !rest.is_empty() {
                    self.show(&host, stream, &rest);
                }
            }
        }
    }

    /// Returns whether a command has failed.
    pub(super) fn has_failure(&self) -> bool {
        self.has_failure.load(Ordering::SeqCst)
    }

    /// Returns the end of a command that its host has printed.
    pub(super) fn ended(&self, session: &SessionPath) -> Option<Exited> {
        locked(&self.ended).get(session).cloned()
    }

    /// Returns the error that the seedbed of a host has printed.
    pub(super) fn error(&self, host: &str) -> Option<String> {
        locked(&self.errors).get(host).cloned()
    }

    /// Prints the end of a command.
    pub(super) fn print_end(&self, host: &str, ended: &Exited) {
        let content = CommandEvent::Exited(ended.clone());
        self.print(host, Line { host: None, ..Line::new(content) });
    }

    /// Adds a piece of output, and shows its complete lines.
    fn add(&self, host: &str, stream: Stream, piece: &[u8]) {
        let lines: Vec<u8> = {
            let mut begun = locked(&self.begun);
            let begun = &mut begun.entry(host.to_owned()).or_default()[usize::from(stream == Stream::Stderr)];
            begun.extend_from_slice(piece);
            let end = begun.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1);
            let end = end.or_else(|| (begun.len() > LINE_MAX).then_some(begun.len()));
            let Some(end) = end else { return };
            begun.drain(..end).collect()
        };
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.show(host, stream, line.strip_suffix(b"\n").unwrap_or(line));
        }
    }

    fn show(&self, host: &str, stream: Stream, line: &[u8]) {
        let parsed = (stream == Stream::Stdout).then(|| serde_json::from_slice::<Line>(line).ok()).flatten();
        if let Some(line) = parsed {
            self.print(host, line);
        } else {
            // A message of the launcher or of a login script, which is no output of a session.
            let text = String::from_utf8_lossy(line);
            output::print_error(&format!("{host}: {}\n", text.trim_end_matches('\r')));
        }
    }

    fn print(&self, host: &str, line: Line) {
        let event = match &line.content {
            Content::Command(event) => event,
            Content::Outcome(Outcome::Failed(failed)) => {
                locked(&self.errors).insert(host.to_owned(), failed.message.clone());
                return;
            }
            _ => return,
        };
        if let CommandEvent::Exited(ended) = event {
            if ended.exit_code != 0 {
                self.has_failure.store(true, Ordering::SeqCst);
            }
            locked(&self.ended).insert(ended.session.clone(), ended.clone());
        }
        if self.json {
            output::print_json(&Line { host: Some(host.to_owned()), ..line });
            return;
        }
        match event {
            CommandEvent::Output { session, stream, text } => {
                let shown = format!("{host}:{session}: {text}\n");
                match stream {
                    event::Stream::Stdout => output::print(&shown),
                    event::Stream::Stderr => output::print_error(&shown),
                }
            }
            CommandEvent::CommandReady { session, milliseconds } if !self.quiet => {
                say!("{host}:{session}: ready after {}.{} s", milliseconds / 1000, milliseconds / 100 % 10);
            }
            CommandEvent::Exited(Exited { session, error: Some(error), id: Some(id), .. })
                if id != error::INTERRUPTED.id =>
            {
                say!("{host}:{session}: {} [{id}]", printable(error));
            }
            _ => {}
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
