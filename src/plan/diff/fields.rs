//! Differences in the data of a session, field by field.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Session;
use crate::manifest::TextEntry;
use crate::provider::Allocation;

/// Difference in one value of an active session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Field {
    /// Name of the value: `env PORT`, `prompt section 2`, `metadata team`, `setup command 1`, `ready condition 1`, `child lead/coder-2`, or
    /// an option of a kind, `git-worktree base-ref`. Sections and commands count from 1.
    pub name: String,
    /// Previous value; `null` if there was none.
    pub from: Option<Value>,
    /// New value; `null` if there is none.
    pub to: Option<Value>,
}

/// Name of the field for the resource in whose directory a session works.
pub const WORKING_DIRECTORY: &str = "directory";

/// Prefix of the names of fields that are commands of `setup`; their numbers follow.
pub(super) const SETUP_COMMAND: &str = "setup command";

/// Prefix of the names of fields that are conditions of `ready`; their numbers follow.
pub(super) const CONDITION: &str = "ready condition";

/// Prefix of the names of fields that are files; their paths follow.
const FILE: &str = "file ";

/// Maximum number of lines of a file that a reason shows.
const LINES: usize = 6;

/// Maximum length of a value in a reason, in characters; the field itself contains the whole value.
const SHOWN: usize = 60;

impl Field {
    /// Returns one line: `env PORT: 1 -> 2`.
    pub(super) fn line(&self) -> String {
        let name = &self.name;
        match (&self.from, &self.to) {
            (None, Some(Value::Bool(true))) => format!("{name} is new"),
            (Some(Value::Bool(true)), None) => format!("{name} is removed"),
            (from, to) if name.starts_with(FILE) => {
                format!("{name}{}", changed_lines(from.as_ref(), to.as_ref()))
            }
            (from, to) => {
                let explicit = |value: &Option<Value>, nothing: &str| {
                    value.as_ref().map_or_else(|| nothing.to_owned(), shown)
                };
                format!("{name}: {} -> {}", explicit(from, "not set"), explicit(to, "not set"))
            }
        }
    }
}

/// Returns the lines that only one of two versions of a file has, or the other difference.
fn changed_lines(from: Option<&Value>, to: Option<&Value>) -> String {
    let (Some(from), Some(to)) = (from, to) else {
        return if to.is_some() { " is new" } else { " is removed" }.to_owned();
    };
    let (old, new) = (lines_of(from), lines_of(to));
    let changed = [only_in(&old, &new, '-'), only_in(&new, &old, '+')].concat();
    match changed.len() {
        0 => " has another form".to_owned(),
        count if count > LINES => format!(": {}, and {} more", changed[..LINES].join(", "), count - LINES),
        _ => format!(": {}", changed.join(", ")),
    }
}

/// Returns the lines of a file.
fn lines_of(file: &Value) -> Vec<&str> {
    file["text"].as_str().unwrap_or_default().lines().collect()
}

/// Returns the lines that `others` does not have, each after a sign.
fn only_in(lines: &[&str], others: &[&str], sign: char) -> Vec<String> {
    let only = lines.iter().filter(|line| !others.contains(line));
    only.map(|line| format!("{sign}{}", cut((*line).to_owned()))).collect()
}

/// Returns a value in readable form: a string without quotes if that is unambiguous.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text)
            if !text.is_empty() && text.trim() == text && !text.contains(char::is_control) =>
        {
            text.clone()
        }
        other => other.to_string(),
    };
    cut(text)
}

/// Cuts a text that is too long to be shown.
fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns every difference in a session's environment, prompt, metadata, files, commands and children.
pub(super) fn changed_data(active: &Session, session: &Session) -> Vec<Field> {
    let mut fields = Vec::new();
    let (old, new) = (active.text(), session.text());
    if old != new {
        for ((key, old), (_, new)) in old.entries().into_iter().zip(new.entries()) {
            entries(&mut fields, key, &old, &new);
        }
    }
    if active.directory != session.directory {
        let value = |session: &Session| session.directory.as_deref().map(Value::from);
        add(&mut fields, || WORKING_DIRECTORY.to_owned(), value(active), value(session));
    }
    if active.expires != session.expires {
        let value = |session: &Session| session.expires.as_ref().map(|expires| expires.to_string().into());
        add(&mut fields, || "expires".to_owned(), value(active), value(session));
    }
    if active.children != session.children {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (active.children.iter().collect(), session.children.iter().collect());
        for child in old.symmetric_difference(&new) {
            let is = |children: &BTreeSet<_>| children.contains(*child).then_some(Value::Bool(true));
            add(&mut fields, || format!("child {child}"), is(&old), is(&new));
        }
    }
    fields
}

/// Adds the differing options of an allocation, and its source if one of the two is a share.
pub(super) fn options(fields: &mut Vec<Field>, old: &Allocation, new: &Allocation) {
    let of = old.name();
    let source = |of: &Allocation| Some(Value::from(if of.shared { "parent" } else { "pool" }));
    add(fields, || format!("{of} from"), source(old), source(new));
    let keys: BTreeSet<_> = old.options.keys().chain(new.options.keys()).collect();
    for key in keys {
        let value = |of: &Allocation| of.options.get(key).cloned();
        add(fields, || format!("{of} {key}"), value(old), value(new));
    }
}

/// Adds the entries of a key of the session table that differ, by name or by number.
fn entries(fields: &mut Vec<Field>, key: &str, old: &[TextEntry<'_>], new: &[TextEntry<'_>]) {
    let (old, new) = (by_position(old), by_position(new));
    let positions: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for position in positions {
        let (from, to) = (old.get(position), new.get(position));
        let (name, number) = position;
        let name = || match from.or(to) {
            Some(TextEntry::Section(_)) => format!("{key} section {number}"),
            Some(TextEntry::Command(_)) => format!("{key} command {number}"),
            Some(TextEntry::Condition(_)) => format!("{CONDITION} {number}"),
            Some(TextEntry::Work(_)) => key.to_owned(),
            Some(TextEntry::File(..)) => format!("{FILE}{name}"),
            Some(TextEntry::Variable(..) | TextEntry::Value(..)) | None => format!("{key} {name}"),
        };
        add(fields, name, from.map(TextEntry::value), to.map(TextEntry::value));
    }
}

/// Returns entries by name and by number, from 1; the number of an entry with a name is 0.
fn by_position<'t>(entries: &[TextEntry<'t>]) -> BTreeMap<(&'t str, usize), TextEntry<'t>> {
    let position = |(index, entry): (usize, &TextEntry<'t>)| match entry.name() {
        Some(name) => (name, 0),
        None => ("", index + 1),
    };
    entries.iter().enumerate().map(|(index, entry)| (position((index, entry)), *entry)).collect()
}

fn add(fields: &mut Vec<Field>, name: impl FnOnce() -> String, from: Option<Value>, to: Option<Value>) {
    if from != to {
        fields.push(Field { name: name(), from, to });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Field, options};
    use crate::provider::Allocation;

    #[test]
    fn options_differ_in_their_source_too() {
        let allocation = |shared: bool, keep: bool| -> Allocation {
            let value = json!({ "kind": "directory", "options": { "keep": keep }, "allocation": {}, "shared": shared, "notes": [] });
            serde_json::from_value(value).unwrap()
        };
        let mut fields = Vec::new();
        options(&mut fields, &allocation(true, true), &allocation(false, false));
        let lines: Vec<_> = fields.iter().map(Field::line).collect();
        assert_eq!(lines, ["directory from: parent -> pool", "directory keep: true -> false"]);
    }

    #[test]
    fn a_field_is_one_line() {
        let line =
            |from: Option<Value>, to: Option<Value>| Field { name: "env A".to_owned(), from, to }.line();
        assert_eq!(line(Some(json!("1")), Some(json!("2"))), "env A: 1 -> 2");
        assert_eq!(line(None, Some(json!(""))), "env A: not set -> \"\"");
        assert_eq!(line(Some(json!("a\nb")), None), "env A: \"a\\nb\" -> not set");
        assert_eq!(line(Some(json!(["npm", "ci"])), Some(json!(true))), "env A: [\"npm\",\"ci\"] -> true");
        assert_eq!(line(None, Some(json!(true))), "env A is new");
        let long = line(None, Some(json!("x".repeat(100))));
        assert!(long.ends_with(&format!("{}…", "x".repeat(60))), "{long}");
    }
}
