//! Positions of string parts in the source: between quotes, with escapes before and inside of the parts.

use std::ops::Range;

/// Returns the bytes of `raw`, a TOML string with its quotes, that encode the bytes of its `content`; `None` if `raw`
/// does not encode `content`.
pub(super) fn within(raw: &str, content: &str, bytes: Range<usize>) -> Option<(usize, usize)> {
    if bytes.end > content.len() || bytes.start > bytes.end {
        return None;
    }
    let (quotes, is_basic) = [("\"\"\"", true), ("'''", false), ("\"", true), ("'", false)]
        .into_iter()
        .find(|(quotes, _)| raw.starts_with(quotes))?;
    let mut at = quotes.len();
    let is_multiline = quotes.len() == 3;
    if is_multiline {
        // A line end directly behind the opening quotes is not part of the string.
        at += line_end(&raw[at..]).unwrap_or(0);
    }
    let mut read = 0;
    let mut start = None;
    loop {
        // A line continuation encodes nothing, and is skipped before the part begins.
        if is_basic && is_multiline {
            at += continuation(&raw[at..]).unwrap_or(0);
        }
        if read >= bytes.start && start.is_none() {
            start = Some(at);
        }
        if read >= bytes.end && (read > bytes.start || bytes.is_empty()) {
            return Some((start?, at));
        }
        let c = content[read..].chars().next()?;
        read += c.len_utf8();
        at += match raw[at..].chars().next()? {
            '\\' if is_basic => escape(&raw[at..])?,
            // The content may contain only `\n` for a `\r\n` in the source.
            '\r' if c == '\n' => 2,
            same if same == c => c.len_utf8(),
            _ => return None,
        };
    }
}

/// Returns the length of the escape that `raw` begins with.
fn escape(raw: &str) -> Option<usize> {
    Some(match raw.as_bytes().get(1)? {
        b'x' => 4,
        b'u' => 6,
        b'U' => 10,
        _ => 2,
    })
}

/// Returns the length of the line continuation that `raw` begins with: a backslash at a line's end and the blanks
/// behind it.
fn continuation(raw: &str) -> Option<usize> {
    let behind = raw.strip_prefix('\\')?;
    let blank = behind.trim_start_matches([' ', '\t']);
    line_end(blank)?;
    Some(raw.len() - behind.trim_start_matches([' ', '\t', '\n', '\r']).len())
}

fn line_end(raw: &str) -> Option<usize> {
    if raw.starts_with("\r\n") {
        return Some(2);
    }
    raw.starts_with('\n').then_some(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::within;

    /// Checks that the source of `part` in `raw` is `expected`.
    #[track_caller]
    fn check(raw: &str, part: &str, expected: &str) {
        let text = format!("k = {raw}");
        let table = DeTable::parse(&text).expect("a string");
        let content = table.get_ref()["k"].get_ref().as_str().expect("a string");
        let at = content.find(part).expect("the part is there");
        let (start, end) = within(raw, content, at..at + part.len()).expect("the part is found");
        assert_eq!(&raw[start..end], expected, "{raw}");
    }

    #[test]
    fn a_part_is_found_behind_escapes() {
        check(r#""a b""#, "b", "b");
        check(r"'a\b'", "b", "b");
        check(r#""say \"hi\" \u00e4 b""#, "b", "b");
        check(r#""\U0001f980\x41\tb""#, "b", "b");
        check(r#""a\u0062c""#, "b", r"\u0062");
        check("\"\"\"\nfirst \\\n    b\"\"\"", "b", "b");
        check("\"\"\"\r\na\r\nb\"\"\"", "b", "b");
        check("'''\na\nb'''", "b", "b");
        check("\"日本 🦀 e\u{301} b\"", "b", "b");
    }

    proptest! {
        #[test]
        fn every_character_of_any_string_is_found(text in "[a-z\\\\\"\t\n é日🦀]{0,20}", at in 0usize..20) {
            let raw = toml_string(&text);
            prop_assume!(at < text.chars().count());
            let (start, c) = text.char_indices().nth(at).expect("it is there");
            let (from, to) = within(&raw, &text, start..start + c.len_utf8()).expect("it is found");
            let again = DeTable::parse(&format!("k = \"{}\"", &raw[from..to])).expect("a string").into_inner()["k"]
                .get_ref()
                .as_str()
                .map(str::to_owned);
            prop_assert_eq!(again, Some(c.to_string()));
        }
    }

    fn toml_string(text: &str) -> String {
        let escaped: String = text
            .chars()
            .map(|c| match c {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                'é' => "\\u00e9".to_owned(),
                c => c.to_string(),
            })
            .collect();
        format!("\"{escaped}\"")
    }
}
