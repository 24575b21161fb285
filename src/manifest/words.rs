//! How faults speak: quoting, lists, the nearest valid name. What is echoed from a file is escaped here.

use std::fmt::Write as _;

use serde_json::Value;

use crate::host::text::is_unprintable;

/// Longer text is cut in messages: the snippet below them shows it anyway.
const ECHO_MAX: usize = 60;

/// `text` between backticks, escaped and cut.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", escaped(text))
}

/// `text` with everything that a terminal would act on, or that hides or reorders text, written as `\u{..}`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (count, c) in text.chars().enumerate() {
        if count == ECHO_MAX {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_unprintable(c) => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

/// `text` byte for byte as long, with what a terminal would act on replaced; line ends and tabs stay.
///
/// For snippets, whose spans count bytes of the original.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let line_end = c == '\n' || (c == '\r' && chars.peek() == Some(&'\n'));
        if line_end || c == '\t' || !is_unprintable(c) {
            out.push(c);
        } else {
            out.push_str(match c.len_utf8() {
                1 => "?",
                2 => "¿",
                3 => "\u{fffd}",
                _ => "????",
            });
        }
    }
    out
}

/// `a`, `b` or `c`, each quoted; what joins the last two is up to the caller.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let names: Vec<String> = names.into_iter().map(quoted).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [head @ .., end] => format!("{} {last} {end}", head.join(", ")),
    }
}

/// The valid name that `wrong` was most likely meant to be.
pub(crate) fn nearest<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = kebab(wrong);
    let distance = |name: &str| strsim::damerau_levenshtein(&wrong, &kebab(name));
    let valid: Vec<&str> = valid.into_iter().collect();
    let (name, least) = valid.iter().map(|name| (*name, distance(name))).min_by_key(|(_, d)| *d)?;
    // A third of the letters wrong is a typing mistake; more is another word.
    if least <= (wrong.chars().count().max(name.chars().count()) / 3).max(1) {
        return Some(name);
    }
    // `children` for `child`, `environment` for `env`, `ref` for none.
    let mut begins = valid.iter().filter(|name| name.len() > 2 && wrong.starts_with(&kebab(name)));
    begins.next().filter(|_| begins.next().is_none()).copied()
}

/// `baseRef` and `base_ref` as `base-ref`: the two other ways of writing a key, the seed's among them.
fn kebab(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    let mut after_lower = false;
    for c in name.chars().take(ECHO_MAX) {
        if c.is_ascii_uppercase() && after_lower {
            out.push('-');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c == '_' { '-' } else { c.to_ascii_lowercase() });
    }
    out
}

/// What kind of value it is, in TOML's words, with its article.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a float",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}

/// The value as it would stand in a manifest, escaped and cut.
pub(crate) fn toml_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key} = {}", toml_of(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::String(text) => format!("\"{}\"", escaped(text).replace('"', "\\\"")),
        other => other.to_string(),
    }
}
