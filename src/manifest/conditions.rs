//! Checks the conditions of a session table, independent of the host.

use super::diagnostic::Diagnostic;
use super::document::ReadyTable;
use super::key_path::KeyPath;
use super::rule;

/// Returns the diagnostics of the conditions of a table. `at` leads to them.
pub(super) fn check(conditions: &[Option<ReadyTable>], at: &KeyPath<'_>) -> Vec<Diagnostic> {
    let conditions = conditions.iter().enumerate();
    let unclear = conditions.filter_map(|(index, table)| {
        let table = table.as_ref().filter(|table| table.port.is_some() == table.command.is_some())?;
        let wrong = if table.port.is_some() { "both `port` and" } else { "neither `port` nor" };
        let message = format!("the condition has {wrong} `command`");
        let help = "name a port of the session as `port`, or write a command that succeeds once the session is ready";
        let location = at.index(index).location();
        Some(Diagnostic::new(rule::READY, location, message, "needs one of the two").with_help(help))
    });
    unclear.collect()
}
