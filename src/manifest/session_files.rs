//! Checks the files of a session table, independent of the host.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostic;
use super::document::{FileEntry, FileMode, FileTable};
use super::key_path::KeyPath;
use super::rule;
use super::session_file::{comment_of, path_fault};
use super::text::quoted;

/// Returns the diagnostics of the files of a table. `at` leads to them.
pub(super) fn check(files: &BTreeMap<String, FileEntry>, at: &KeyPath<'_>) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for (path, FileEntry(table)) in files {
        let at = at.key(path);
        diagnostics.extend(check_path(path, &at));
        diagnostics.extend(check_source(path, table, &at));
        diagnostics.extend(check_mode(path, table, &at));
    }
    diagnostics
}

fn check_path(path: &str, at: &KeyPath<'_>) -> Option<Diagnostic> {
    let message = format!("the path {} {}", quoted(path), path_fault(path)?);
    let location = at.location().the_key();
    let help = "write the path from the directory of the session: `.env.local`, `services/api/.env`";
    Some(Diagnostic::new(rule::SESSION_FILE, location, message, "not a path of a file").with_help(help))
}

fn check_source(path: &str, table: &FileTable, at: &KeyPath<'_>) -> Option<Diagnostic> {
    let shown = quoted(path);
    if table.text.is_some() == table.template_file.is_some() {
        let wrong = if table.text.is_some() { "both `text` and" } else { "neither `text` nor" };
        let message = format!("the file {shown} has {wrong} `template-file`");
        let help = "write the content as `text`, or name a file of the workspace as `template-file`";
        let diagnostic = Diagnostic::new(rule::SESSION_FILE, at.location(), message, "needs one of the two");
        return Some(diagnostic.with_help(help));
    }
    let fault = path_fault(table.template_file.as_deref()?)?;
    let message = format!("the path of the template file of {shown} {fault}");
    let location = at.key("template-file").location();
    let diagnostic = Diagnostic::new(rule::TEMPLATE_FILE, location, message, "not a path of the workspace");
    Some(diagnostic.with_help("write the path from the workspace root: `dev/env.j2`"))
}

fn check_mode(path: &str, table: &FileTable, at: &KeyPath<'_>) -> Option<Diagnostic> {
    let is_section = table.mode == Some(FileMode::Section);
    let (key, message, label, help) = match &table.comment {
        Some(_) if !is_section => (
            "comment",
            format!("{} is a whole file, which has no comment marker", quoted(path)),
            "only for a section",
            "remove it, or write `mode = \"section\"`",
        ),
        Some(comment) if !is_marker(comment) => (
            "comment",
            format!("{} is not a comment marker", quoted(comment)),
            "not a comment marker",
            "write `#`, or begin and end with a blank between: `<!-- -->`",
        ),
        None if is_section && comment_of(path).is_none() => (
            "mode",
            format!("the language of {} has no comments that could mark a section", quoted(path)),
            "cannot be marked",
            "write `mode = \"whole\"`, or name a `comment` that readers of the file skip",
        ),
        _ => return None,
    };
    let location = at.key(key).location();
    Some(Diagnostic::new(rule::SESSION_FILE, location, message, label).with_help(help))
}

fn is_marker(comment: &str) -> bool {
    let words = comment.split(' ').count();
    !comment.contains(char::is_control) && comment.split(' ').all(|word| !word.is_empty()) && words <= 2
}
