//! What commands print: tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::Write as _;

use seedbed::host::text::printable;
use seedbed::plan::Session;
use seedbed::review::ports;
use serde::Serialize;

/// Prints to stdout; where nobody reads any more there is nobody to tell.
pub(super) fn out(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Prints one JSON document on one line.
pub(super) fn json(document: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(document) {
        out(&format!("{text}\n"));
    }
}

/// Prints one JSON document, indented.
pub(super) fn json_pretty(document: &impl Serialize) {
    if let Ok(text) = serde_json::to_string_pretty(document) {
        out(&format!("{text}\n"));
    }
}

/// One line a session: where it works and which ports it has.
pub(super) fn sessions(sessions: &[Session]) -> String {
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            [
                session.path.to_string(),
                ports(session),
                session.working_directory.to_string_lossy().into_owned(),
            ]
        })
        .collect();
    table(&rows)
}

/// Columns as wide as they have to be, two spaces between.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let line = row.iter().zip(widths).fold(String::new(), |mut line, (cell, width)| {
            let _ = write!(line, "{}{:fill$}  ", printable(cell), "", fill = width - cell.chars().count());
            line
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
