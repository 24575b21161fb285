//! Explanation of a syntax error, from the parser's message and the text.

use std::ops::Range;

use super::super::diagnostic::{Diagnostic, Location};
use super::super::rule;
use super::super::text::{escaped, quoted};
use super::line_of;

/// Returns the diagnostic of a text in another language that users often write instead of TOML.
pub(super) fn other_language(text: &str) -> Option<Diagnostic> {
    let start = text.len() - text.trim_start_matches('\u{feff}').trim_start().len();
    let line = &text[start..line_of(text, start).end];
    let (language, example) = if line.starts_with('{') {
        ("JSON", "`version = 1`, and tables as `[session.NAME]`")
    } else if line == "---" || text.lines().filter(|line| is_yaml(line)).count() > text.lines().count() / 2 {
        ("YAML", "`version = 1` instead of `version: 1`, and tables as `[session.NAME]`")
    } else {
        return None;
    };
    let location = Location::bytes(start..start + line.len());
    let diagnostic =
        Diagnostic::new(rule::SYNTAX, location, format!("this looks like {language}"), "not TOML");
    Some(diagnostic.with_help(format!("a manifest is TOML: write {example}")))
}

fn is_yaml(line: &str) -> bool {
    let line = line.trim().trim_start_matches("- ");
    let key = line.split_once(':').filter(|(_, value)| value.is_empty() || value.starts_with(' '));
    key.is_some_and(|(key, _)| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    })
}

/// Returns the diagnostic for one of the parser's errors, in this statement.
pub(super) fn diagnostic(
    message: &str,
    span: Range<usize>,
    statement: &Range<usize>,
    text: &str,
) -> Diagnostic {
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let line = line_of(text, span.start);
    let error = Error { what, expected, meant: text.get(span.clone()).unwrap_or_default(), span, line, text };
    mistake(text, &error.line, statement)
        .or_else(|| error.key_diagnostic())
        .or_else(|| error.string_diagnostic())
        .or_else(|| error.value_diagnostic())
        .unwrap_or_else(|| error.as_said())
}

/// One of the parser's errors.
struct Error<'t> {
    what: &'t str,
    expected: Option<&'t str>,
    span: Range<usize>,
    /// Text that the span underlines.
    meant: &'t str,
    line: Range<usize>,
    text: &'t str,
}

impl Error<'_> {
    fn diagnostic(
        &self,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostic {
        Self::fault_at(self.span.clone(), message, label, help)
    }

    fn fault_at(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::new(rule::SYNTAX, Location::bytes(span), message, label).with_help(help)
    }

    /// Explains errors of keys and headers.
    fn key_diagnostic(&self) -> Option<Diagnostic> {
        let content = trimmed(self.text, &self.line);
        let words = &self.text[content.clone()];
        Some(match self.what {
            "duplicate key" => {
                let message = format!("{} is given twice", quoted(self.meant));
                let location = Location::bytes(self.span.clone());
                Diagnostic::new(rule::DUPLICATE_KEY, location, message, "given before")
                    .with_help("keep one of them, or merge the two")
            }
            "key with no value" => {
                let help = format!("write `{} = ..`", escaped(words));
                Self::fault_at(content, "a key has no value", "expected `=` and a value", help)
            }
            "unclosed table" => {
                let close = if words.starts_with("[[") { "]]" } else { "]" };
                let help = format!("write `{}{close}`", escaped(words.trim_end_matches(']')));
                Self::fault_at(content, "a header is not closed", "expected `]`", help)
            }
            "unexpected key or value" => Self::fault_at(
                self.span.start..self.line.end.max(self.span.start),
                "text follows the value",
                "expected the end of the line",
                "write each key on a line of its own, or `#` before a comment",
            ),
            "cannot extend value of type inline table with a dotted key" => self.diagnostic(
                format!("{} is an inline table, which is complete where it ends", quoted(self.meant)),
                "cannot be added to",
                "write it as a table with a header of its own, or put this inside its `{ .. }`",
            ),
            _ => return None,
        })
    }

    fn string_diagnostic(&self) -> Option<Diagnostic> {
        let is_string = self.what.contains("basic string") || self.what.contains("literal string");
        if let Some(control) = self.meant.chars().next().filter(|c| is_string && c.is_control()) {
            let message = format!("a string contains the control character {}", quoted(&control.to_string()));
            return Some(self.diagnostic(
                message,
                "a control character",
                "remove it, or write it as an escape",
            ));
        }
        if self.what.contains("escape") || self.what.contains("unicode value") {
            let start = self.text[..self.span.start].rfind('\\').filter(|at| *at >= self.line.start)?;
            let behind = self.text[start..self.line.end].char_indices().nth(2);
            let end = behind.map_or(self.line.end, |(length, _)| start + length);
            return Some(Self::fault_at(
                start..end,
                format!("{} begins no escape", quoted(&self.text[start..end])),
                "not an escape",
                "write a backslash as `\\\\`, or the string between single quotes: 'C:\\dir'",
            ));
        }
        (is_string && self.meant.is_empty()).then(|| {
            let expected = self.expected.map_or_else(|| "here".to_owned(), |what| format!("expected {what}"));
            let help = "close it, or write a string of several lines between `\"\"\"`";
            self.diagnostic("a string is not closed", expected, help)
        })
    }

    /// Explains errors of values that are not strings, or should be strings.
    fn value_diagnostic(&self) -> Option<Diagnostic> {
        Some(match self.what {
            "string values must be quoted" if self.meant.is_empty() => {
                let before =
                    &self.text[self.line.start..self.span.start.clamp(self.line.start, self.line.end)];
                let key = before.trim().trim_end_matches('=').trim();
                self.diagnostic(
                    "a value is missing",
                    "expected a value",
                    format!("write `{} = ..`", escaped(key)),
                )
            }
            "string values must be quoted" => {
                let help = format!("write `\"{}\"`", escaped(self.meant));
                self.diagnostic("a string has no quotes", "needs quotes", help)
            }
            "recursion limit" => {
                self.diagnostic("tables or arrays are nested too deep", "too deep", "write it flatter")
            }
            "invalid boolean" => {
                let help = format!("write `{}`", escaped(&self.meant.to_ascii_lowercase()));
                self.diagnostic("true and false are written in small letters", "not a value", help)
            }
            "unexpected leading zero" => {
                let behind = &self.text[self.span.start..self.line.end];
                let digits = behind.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                let number = digits.trim_start_matches('0');
                let help = format!("write `{}`", if number.is_empty() { "0" } else { number });
                let location = self.span.start..self.span.start + digits.len();
                Self::fault_at(location, "a number begins with a zero", "a leading zero", help)
            }
            "missing comma between array elements" | "missing comma between key-value pairs" => self
                .diagnostic("a comma is missing", "expected `,` before this", "put a comma between the two"),
            _ => return None,
        })
    }

    /// Returns the diagnostic in the parser's own words.
    fn as_said(&self) -> Diagnostic {
        let label =
            self.expected.map_or_else(|| "here".to_owned(), |expected| format!("expected {expected}"));
        let diagnostic = Diagnostic::new(rule::SYNTAX, Location::bytes(self.span.clone()), self.what, label);
        if self.meant.trim().is_empty() {
            diagnostic
        } else {
            diagnostic.with_help(format!("{} is in the way", quoted(self.meant)))
        }
    }
}

/// Explains mistakes that are clearer from the line than from the position at which the parser stopped.
fn mistake(text: &str, line: &Range<usize>, statement: &Range<usize>) -> Option<Diagnostic> {
    if line.start > statement.start {
        // The line is inside of a value over several lines.
        return None;
    }
    let content = trimmed(text, line);
    let words = &text[content.clone()];
    let is_bare = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let diagnostic = |range: Range<usize>, message: &str, label: &str, help: String| {
        Some(Diagnostic::new(rule::SYNTAX, Location::bytes(range), message, label).with_help(help))
    };
    if let Some(inner) = words.strip_prefix('[').and_then(|words| words.strip_suffix(']')) {
        let parts: Vec<&str> = inner.split_whitespace().collect();
        if parts.len() > 1 && parts.iter().all(|part| is_bare(part)) {
            let help = format!("write `[{}]`", parts.join("."));
            return diagnostic(
                content,
                "the parts of a header have dots between them",
                "blanks inside",
                help,
            );
        }
        return None;
    }
    let key_end = words.find(['=', ':', '"', '\'', '#', '[', '{']).unwrap_or(words.len());
    let key = words[..key_end].trim_end();
    match words[key_end..].chars().next() {
        Some(':') if is_bare(key) && !key.contains('.') => {
            let at = content.start + key_end;
            let value = words[key_end + 1..].trim();
            let value = if value.is_empty() { ".." } else { value };
            let help = format!("write `{} = {}`", escaped(key), escaped(value));
            diagnostic(at..at + 1, "a key and its value have `=` between them", "not `=`", help)
        }
        Some('=') if words[key_end + 1..].starts_with('=') => {
            let at = content.start + key_end;
            diagnostic(
                at..at + 2,
                "a key and its value have one `=` between them",
                "one too many",
                "write `=`".to_owned(),
            )
        }
        Some('=')
            if key.split_whitespace().count() > 1
                && key.split_whitespace().all(is_bare)
                && !key.contains(char::is_control) =>
        {
            let kebab = key.split_whitespace().collect::<Vec<_>>().join("-");
            let location = content.start..content.start + key.len();
            diagnostic(
                location,
                "a key has blanks in it",
                "not one word",
                format!("write `{kebab}`, or `\"{key}\"`"),
            )
        }
        Some('=') if is_bare(key) => second_key(words, key_end + 1).and_then(|(from, second)| {
            let location = content.start + from..content.start + from + second.len();
            let help = format!("write `{second}` on a line of its own");
            diagnostic(location, "two keys are on one line", "expected the end of the line before this", help)
        }),
        _ => None,
    }
}

/// Finds the bare key of a second `key = value` behind a first value without blanks: `count = 1 prompt = ["x"]`.
fn second_key(words: &str, from: usize) -> Option<(usize, &str)> {
    let value = words[from..].trim_start();
    let start = words.len() - value.len();
    if value.starts_with(['[', '{', '"', '\'']) {
        return None;
    }
    let blank = value.find(' ')?;
    let rest = value[blank..].trim_start();
    let key = rest[..rest.find('=')?].trim_end();
    let is_bare =
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    is_bare.then(|| (start + value.len() - rest.len(), key))
}

/// Returns the line without surrounding blanks and without a trailing comment.
fn trimmed(text: &str, line: &Range<usize>) -> Range<usize> {
    let content = &text[line.clone()];
    let content =
        if content.contains(['"', '\'']) { content } else { content.split('#').next().unwrap_or_default() };
    let words = content.trim_start_matches([' ', '\t', '\u{feff}']);
    let start = line.start + (content.len() - words.len());
    start..start + words.trim_end().len()
}

#[cfg(test)]
mod tests {
    use super::super::super::diagnostic::LocationPart;
    use super::super::parse;

    #[test]
    fn diagnostics_of_odd_blanks_are_printable_and_inside_the_text() {
        #[rustfmt::skip]
        let cases = [
            ("a form feed in a key", "dnv\u{c}ot  =\n"),
            ("a vertical tab in a key", "a\u{b}b = 1\n"),
            ("a byte order mark and tabs before a key without a value", "\u{feff}\t\tcuont"),
            ("a byte order mark and tabs on a later line", "a = 1\n\u{feff}\t\tcuont = 2"),
        ];
        for (case, text) in cases {
            let diagnostics = parse(text).err().map(|sound| sound.diagnostics).unwrap_or_default();
            assert!(!diagnostics.is_empty(), "{case}");
            for diagnostic in diagnostics {
                let LocationPart::Bytes(start, end) = diagnostic.location.part else {
                    panic!("{case}: {diagnostic:?}")
                };
                assert!(text.get(start..end).is_some(), "{case}: {diagnostic:?}");
                let texts = format!(
                    "{}{}{}",
                    diagnostic.message,
                    diagnostic.label,
                    diagnostic.help.as_deref().unwrap_or_default()
                );
                assert!(!texts.contains(char::is_control), "{case}: {diagnostic:?}");
            }
        }
    }
}
