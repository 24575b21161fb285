//! Output of commands: tables for people, JSON for programs.

use std::fmt::{Display, Write as _};
use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use seedbed::apply::KeptBranch;
use seedbed::host::text::{printable, shell_quoted};
use seedbed::plan::{Plan, Session};
use seedbed::provider::Registry;
use seedbed::report::error::OUTPUT_UNWRITTEN;
use seedbed::report::event::{Content, Line};
use seedbed::review::ports;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::exit::Status;
use super::{suggestion, terminal};

/// First error of writing to stdout that has to be reported.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

/// Prints to stdout. [`finish`] reports text that cannot be written.
pub(super) fn print(text: &str) {
    keep_error(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// Keeps an error of writing to stdout for [`finish`]. A closed reader, such as `head`, is not an error.
pub(super) fn keep_error(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = UNWRITTEN.set(error);
    }
}

/// Ends the output: reports a failed write, and returns the exit code, which becomes an error after a failed write.
pub(super) fn finish(code: ExitCode) -> ExitCode {
    keep_error(std::io::stdout().lock().flush());
    let Some(error) = UNWRITTEN.get() else { return code };
    let (id, help) = (OUTPUT_UNWRITTEN.id, OUTPUT_UNWRITTEN.help());
    say!("error: cannot write to standard output: {error} [{id}]\nhelp: {help}");
    let is_good = [Status::Done, Status::Changes].map(ExitCode::from).contains(&code);
    if is_good { Status::Unwritten.into() } else { code }
}

/// Prints to stderr; write errors are ignored.
pub(super) fn print_error(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Prints lines to stderr, with colours for the labels `error:`, `note:` and `help:`.
pub(super) fn print_labelled(text: &str) {
    print_error(&terminal::with_colored_labels(text, &std::io::stderr()));
}

/// Prints a message on a line of stderr; the commands that it suggests can be pasted.
pub(super) fn print_message(message: &str) {
    print_labelled(&(suggestion::pasteable(message) + "\n"));
}

/// Prints one JSON document on one line.
pub(super) fn print_json(document: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(document) {
        print(&format!("{text}\n"));
    }
}

/// Prints a line of a command that changes something.
pub(super) fn print_line(content: impl Into<Content>) {
    print_json(&Line::new(content));
}

/// Prints the plan document.
pub(super) fn print_plan(plan: &Plan) {
    keep_error(write_plan(std::io::stdout(), plan));
}

/// Writes the plan document.
pub(super) fn write_plan(to: impl Write + Send, plan: &Plan) -> std::io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 16, to);
    plan.write(&mut to)?;
    to.flush()
}

/// Writes one JSON document, indented.
pub(super) fn write_json(to: impl Write, document: &impl Serialize) -> std::io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 16, to);
    serde_json::to_writer_pretty(&mut to, document)?;
    to.write_all(b"\n")?;
    to.flush()
}

/// Prints one JSON document, indented.
pub(super) fn print_json_pretty(document: &impl Serialize) {
    keep_error(write_json(std::io::stdout(), document));
}

/// Leaves the memory of a value to the system, which frees it at once when the process ends.
///
/// Freeing the data of a hundred thousand sessions piece by piece takes a tenth of the time of planning.
pub(super) fn leave_to_system(value: impl Sized) {
    std::mem::forget(value);
}

/// Returns one line per session: its ports and its working directory.
pub(super) fn session_table(registry: &Registry, sessions: &[Session]) -> String {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            [
                session.path.to_string(),
                ports(registry, session),
                session.working_directory.to_string_lossy().into_owned(),
            ]
        })
        .collect();
    table(&rows)
}

/// Returns a number of things, such as "1 session" and "2 sessions".
pub(super) fn count(number: impl Copy + Display + PartialEq + From<u8>, noun: &str) -> String {
    count_of(number, noun, &format!("{noun}s"))
}

/// Returns a number of things whose plural is not the noun and an "s".
pub(super) fn count_of(number: impl Copy + Display + PartialEq + From<u8>, one: &str, many: &str) -> String {
    let noun = if number == 1.into() { one } else { many };
    format!("{number} {noun}")
}

/// Formats a number of bytes, such as "12.5 MiB".
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
pub(super) fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            let digits = usize::from(unit != "B");
            return format!("{size:.digits$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

/// Describes a branch that outlasts its session.
pub(super) fn kept_branch(kept: &KeptBranch) -> String {
    let KeptBranch { session, branch, commit, commits, repository, landed_in, .. } = kept;
    let place = repository.as_ref().map(|name| format!(" in {}", printable(name))).unwrap_or_default();
    let text = format!("{session}: branch {} is kept{place}", printable(branch));
    if let Some(base_ref) = landed_in {
        let (base_ref, command) = (printable(base_ref), shell_quoted(branch));
        let there = if repository.is_some() { " there" } else { "" };
        return format!(
            "{text} at {commit:.10}: {base_ref} has all its commits, and `git branch -d {command}`{there} deletes it"
        );
    }
    let commits = match commits {
        0 => "no commit".to_owned(),
        _ => count(*commits, "commit"),
    };
    format!("{text}, with {commits} of its own, at {commit:.10}")
}

/// Formats columns of minimum width, two spaces apart.
pub(super) fn table(rows: &[impl AsRef<[String]>]) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = printable(cell).width().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let line = row.as_ref().iter().zip(&widths).fold(String::new(), |mut line, (cell, width)| {
            let cell = printable(cell);
            let _ = write!(line, "{cell}{:fill$}  ", "", fill = width - cell.width());
            line
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
