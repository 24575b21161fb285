//! Limits of a whole manifest: sessions, and the text of all sessions together.
//!
//! Replicas multiply, so that a few lines can declare more than fits in memory.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::CommandLine;
use super::diagnostic::{Diagnostic, Location};
use super::document::{Document, Resource, SessionTable};
use super::key_path::KeyPath;
use super::rule;
use super::session_text::{SessionText, TextEntry};

/// Maximum number of sessions of one manifest: a plan of half as many takes 2.3 s and 770 MB (measured).
const SESSIONS_MAX: u64 = 200_000;

/// Maximum number of bytes of all sessions of one manifest, before templates are rendered.
const BYTES_MAX: u64 = 256 << 20;

/// Bytes of a key or a value in addition to its text.
const ENTRY: u64 = 16;

/// Returns the diagnostic of a manifest that is too large to plan, at the table that passes the limit.
pub(super) fn check(document: &Document) -> Option<Diagnostic> {
    let defaults = document.defaults.kinds.values().map(options).fold(0, u64::saturating_add);
    let session = document.defaults.session.as_ref();
    let inherit = session.is_some_and(|session| session.inherit.unwrap_or(true));
    let mut totals =
        Totals { inherit, default_text: session.map_or(0, |table| text(&table.text())), ..Totals::default() };
    totals.tables(&document.session, &KeyPath::ROOT.key("session"), 1, (defaults, 0))
}

#[derive(Default)]
struct Totals {
    sessions: u64,
    bytes: u64,
    /// Bytes of the text of `[defaults.session]`.
    default_text: u64,
    /// `true` if children inherit the text of their parents by default.
    inherit: bool,
}

impl Totals {
    /// Adds tables that exist `times` over; each session has `inherited` bytes beside its own. `above` are the bytes of the
    /// text of the session above.
    fn tables(
        &mut self,
        tables: &BTreeMap<String, SessionTable>,
        at: &KeyPath<'_>,
        times: u64,
        (inherited, above): (u64, u64),
    ) -> Option<Diagnostic> {
        tables.iter().find_map(|(name, table)| {
            let times = times.saturating_mul(table.count.unwrap_or(1).into());
            let resources = table.resources.iter().flatten().flatten().map(resource);
            let inherited = resources.fold(inherited, u64::saturating_add);
            let at = at.key(name);
            self.sessions = self.sessions.saturating_add(times);
            let base = if table.inherit.unwrap_or(self.inherit) { above } else { 0 }.max(self.default_text);
            let text = text(&table.text()).saturating_add(base);
            self.bytes = self.bytes.saturating_add(times.saturating_mul(inherited.saturating_add(text)));
            let location = || if table.count.is_some() { at.key("count").location() } else { at.location() };
            if self.sessions > SESSIONS_MAX {
                return Some(too_many(location()));
            }
            if self.bytes > BYTES_MAX {
                return Some(too_large(location()));
            }
            self.tables(&table.child, &at.key("child"), times, (inherited, text))
        })
    }
}

fn too_many(location: Location) -> Diagnostic {
    let message = format!("the manifest declares more than {SESSIONS_MAX} sessions");
    Diagnostic::new(rule::TOO_MANY_SESSIONS, location, message, "the limit is passed here")
        .with_help("a `count` multiplies with every `count` above it")
}

fn too_large(location: Location) -> Diagnostic {
    let message = format!("the sessions of the manifest are larger than {} MiB together", BYTES_MAX >> 20);
    Diagnostic::new(rule::TOO_LARGE, location, message, "the limit is passed here").with_help(
        "each replica counts: move long texts into files that the sessions read, or lower a `count`",
    )
}

/// Returns the bytes of the text of a table.
fn text(text: &SessionText<'_>) -> u64 {
    let size = |one: TextEntry<'_>| match one {
        TextEntry::Variable(name, value) => entry(name) + entry(value),
        TextEntry::Section(text) => entry(text),
        TextEntry::File(path, file) => entry(path) + entry(&file.text),
        TextEntry::Value(name, value) => entry(name).saturating_add(bytes(value)),
        TextEntry::Condition(condition) => bytes(&condition.to_table()),
        TextEntry::Command(CommandLine::Shell(line)) | TextEntry::Work(CommandLine::Shell(line)) => {
            entry(line)
        }
        TextEntry::Command(CommandLine::Arguments(arguments))
        | TextEntry::Work(CommandLine::Arguments(arguments)) => {
            arguments.iter().map(|argument| entry(argument)).sum()
        }
    };
    text.entries().into_iter().flat_map(|(_, entries)| entries).map(size).fold(0, u64::saturating_add)
}

fn resource(resource: &Resource) -> u64 {
    let name = resource.name.as_deref().map_or(0, entry);
    (entry(&resource.kind) + name).saturating_add(options(&resource.options))
}

fn options(options: &Map<String, Value>) -> u64 {
    options.iter().map(|(key, value)| entry(key).saturating_add(bytes(value))).sum()
}

fn bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => entry(text),
        Value::Array(values) => values.iter().map(bytes).sum::<u64>().saturating_add(ENTRY),
        Value::Object(values) => options(values).saturating_add(ENTRY),
        Value::Null | Value::Bool(_) | Value::Number(_) => ENTRY,
    }
}

fn entry(text: &str) -> u64 {
    ENTRY + text.len() as u64
}
