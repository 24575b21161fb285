//! Documents and scalars of YAML. Pure.

use std::fmt::Write as _;

use serde_json::Value;

/// Returns a document in block style, with the keys of each map in order, and every string in double quotes.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes a value whose first line begins where the text ends; the other lines are indented by `indent` spaces.
fn block(value: &Value, indent: usize, text: &mut String) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().map(|(key, value)| (format!("{}:", key_scalar(key)), value)).collect()
        }
        Value::Array(list) if !list.is_empty() => list.iter().map(|value| ("-".to_owned(), value)).collect(),
        Value::String(string) => {
            let _ = writeln!(text, "{}", quoted(string));
            return;
        }
        // Numbers, `true`, `null` and empty collections are those of JSON.
        scalar => {
            let _ = writeln!(text, "{scalar}");
            return;
        }
    };
    for (at, (head, value)) in entries.iter().enumerate() {
        if at > 0 {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(head);
        let has_lines = match value {
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => false,
        };
        if has_lines && head != "-" {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
        } else {
            text.push(' ');
        }
        block(value, indent + 2, text);
    }
}

/// Returns a key: plain, unless it is a word of another type in some version of YAML.
fn key_scalar(key: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || "./-".contains(c))
        && !WORDS.contains(&key.to_ascii_lowercase().as_str());
    if is_plain { key.to_owned() } else { quoted(key) }
}

/// Returns a double-quoted scalar of YAML without `$`, which programs of compose files expand, and without characters that
/// YAML forbids.
pub(super) fn quoted_without_dollar(text: &str) -> String {
    quoted(text).replace('$', "\\u0024")
}

/// Returns a double-quoted scalar of YAML without characters that YAML forbids.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c if u32::from(c) <= 0xffff => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_blocks_whose_strings_are_quoted() {
        let value = json!({
            "list": [{ "a": [], "b": { "c": 1 } }, ["x", true], "$(no) 'y' \"z\"\n\u{1}\u{2028}\u{1f600}"],
            "on": null,
        });
        let expected = "list:\n  - a: []\n    b:\n      c: 1\n  - - \"x\"\n    - true\n  - \"$(no) 'y' \\\"z\\\"\\n\\u0001\\u2028\\U0001f600\"\n\"on\": null\n";
        assert_eq!(document(&value), expected);
        assert_eq!(quoted_without_dollar("$a"), r#""\u0024a""#);
    }
}
