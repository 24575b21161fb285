//! Statements of a text, with their boundaries, even if their content is wrong.

use std::ops::Range;

/// Header, or a key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Range from the start of the first line to the end of the last line, without the line end.
    pub(super) range: Range<usize>,
    /// `true` if the statement begins a table.
    pub(super) is_header: bool,
    /// Construct of the statement that is opened and never closed.
    pub(super) unclosed: Option<Opened>,
}

/// Construct that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Position in the text, in bytes.
    pub(super) at: usize,
    /// Kind of the construct.
    pub(super) what: Opener,
}

/// Construct that can span several lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    /// `[`
    Array,
    /// `{`
    Table,
    /// `"""`
    Basic,
    /// `'''`
    Literal,
    /// `"` or `'`, which ends with its line at the latest.
    Line,
}

impl Opener {
    /// Returns the length in bytes.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Array | Self::Table | Self::Line => 1,
            Self::Basic | Self::Literal => 3,
        }
    }
}

/// Returns the statements of `text`, in order.
pub(super) fn parse(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line = line_at(text, at);
        let content = text[line.clone()].trim_start_matches([' ', '\t', '\u{feff}']);
        if content.is_empty() || content.starts_with('#') {
            at = next_line(text, line.end);
            continue;
        }
        let statement = if content.starts_with('[') {
            Statement { range: line, is_header: true, unclosed: None }
        } else {
            value(text, line)
        };
        at = next_line(text, statement.range.end);
        statements.push(statement);
    }
    statements
}

/// Returns the statement that begins on this line, a key with its value.
fn value(text: &str, line: Range<usize>) -> Statement {
    let bytes = text.as_bytes();
    let mut opened: Vec<Opened> = Vec::new();
    // A string that is cut off by the end of its line, the likely reason when the statement does not end.
    let mut cut_off = None;
    let statement = |end, unclosed| Statement { range: line.start..end, is_header: false, unclosed };
    let mut at = text[line.clone()].find('=').map_or(line.end, |equals| line.start + equals + 1);
    while at < text.len() {
        match bytes[at] {
            b'#' => {
                at = line_at(text, at).end;
                continue;
            }
            b'\n' if opened.is_empty() => break,
            b'\n' => {
                let next = &text[line_at(text, at + 1)];
                let innermost = opened.last().copied();
                let in_array = innermost.is_some_and(|opened| opened.what == Opener::Array);
                if is_header(next) || in_array && is_key(next) {
                    return statement(at, cut_off.or(innermost));
                }
            }
            b'[' => opened.push(Opened { at, what: Opener::Array }),
            b'{' => opened.push(Opened { at, what: Opener::Table }),
            b']' | b'}' => drop(opened.pop()),
            quote @ (b'"' | b'\'') => match string_end(text, at, quote) {
                Ok(end) => {
                    if end == at + 1 || bytes[end - 1] != quote {
                        cut_off = Some(Opened { at, what: Opener::Line });
                    }
                    at = end;
                    continue;
                }
                Err(unclosed) => {
                    // The statement ends before the next table, if there is one.
                    let end = lines(text, at).skip(1).find(|line| is_header(&text[line.clone()]));
                    return statement(end.map_or(text.len(), |line| line.start - 1), Some(unclosed));
                }
            },
            _ => {}
        }
        at += 1;
    }
    statement(at, opened.last().map(|innermost| cut_off.unwrap_or(*innermost)))
}

/// Returns the end of the string that begins at `at`; a string of one line ends with the line at the latest.
///
/// The error is a multi-line string that never ends.
fn string_end(text: &str, at: usize, quote: u8) -> Result<usize, Opened> {
    let bytes = text.as_bytes();
    let is_basic = quote == b'"';
    let is_multiline = bytes[at..].starts_with(&[quote; 3]);
    let mut inner = at + if is_multiline { 3 } else { 1 };
    while inner < text.len() {
        match bytes[inner] {
            b'\\' if is_basic => inner += 1,
            b'\n' if !is_multiline => return Ok(inner),
            byte if byte == quote && !is_multiline => return Ok(inner + 1),
            byte if byte == quote && bytes[inner..].starts_with(&[quote; 3]) => {
                // Up to two quotes may precede the closing quotes directly.
                let quotes = bytes[inner..].iter().take(5).take_while(|byte| **byte == quote).count();
                return Ok(inner + quotes);
            }
            _ => {}
        }
        inner += 1;
    }
    if is_multiline {
        let what = if is_basic { Opener::Basic } else { Opener::Literal };
        return Err(Opened { at, what });
    }
    Ok(text.len())
}

/// Returns whether a line is the header of one of a manifest's tables, which no array can contain.
fn is_header(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    let Some(inner) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) else { return false };
    let inner = inner.trim_start_matches('[').trim_start();
    let tables = ["workspace", "defaults", "provider", "session"];
    tables.iter().any(|table| {
        inner.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with([']', '.', ' ']))
    })
}

/// Returns whether a line begins with a bare key and its `=`, which no array can contain.
fn is_key(line: &str) -> bool {
    let Some((key, _)) = line.split_once('=') else { return false };
    let key = key.trim();
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Returns the line that begins at `at`, without its `\n`.
fn line_at(text: &str, at: usize) -> Range<usize> {
    at..text[at..].find('\n').map_or(text.len(), |length| at + length)
}

fn next_line(text: &str, end: usize) -> usize {
    (end + 1).min(text.len())
}

fn lines(text: &str, at: usize) -> impl Iterator<Item = Range<usize>> {
    std::iter::successors(Some(line_at(text, at)), move |line| {
        (line.end < text.len()).then(|| line_at(text, line.end + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::{Opener, parse};

    /// Checks the text of each statement, and the construct that is not closed.
    #[track_caller]
    fn check(text: &str, expected: &[(&str, Option<Opener>)]) {
        let found: Vec<_> = parse(text)
            .into_iter()
            .map(|statement| (&text[statement.range], statement.unclosed.map(|opened| opened.what)))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn statements_end_where_their_values_do() {
        check(
            "a = 1\n\n# [x]\n [b] # c\nd = [\n  1, # ]\n]\n",
            &[("a = 1", None), (" [b] # c", None), ("d = [\n  1, # ]\n]", None)],
        );
        check(
            "a = \"\"\"\n[session.b]\nc = 1\"\"\"\"\nd = '''x'''",
            &[("a = \"\"\"\n[session.b]\nc = 1\"\"\"\"", None), ("d = '''x'''", None)],
        );
        check(
            "a = { b = 1,\n  c = 2 }\nd = \"[\\\"{\"\n",
            &[("a = { b = 1,\n  c = 2 }", None), ("d = \"[\\\"{\"", None)],
        );
    }

    #[test]
    fn unclosed_value_ends_before_the_next_statement() {
        check("a = [1,\nb = 2\n", &[("a = [1,", Some(Opener::Array)), ("b = 2", None)]);
        check(
            "a = [{ x = 1,\n[session.b]\n",
            &[("a = [{ x = 1,", Some(Opener::Table)), ("[session.b]", None)],
        );
        check(
            "a = '''x\ny = 1\n[session]\n",
            &[("a = '''x\ny = 1", Some(Opener::Literal)), ("[session]", None)],
        );
        check("a = [\n  [1],\n  [\"x\"]\n", &[("a = [\n  [1],\n  [\"x\"]\n", Some(Opener::Array))]);
        check("a = ['it's']\nb = 1\n", &[("a = ['it's']", Some(Opener::Line)), ("b = 1", None)]);
        check("a = \"", &[("a = \"", None)]);
        check("a = \"\"\"x", &[("a = \"\"\"x", Some(Opener::Basic))]);
    }
}
