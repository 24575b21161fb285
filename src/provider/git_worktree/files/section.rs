//! Sections of files, between two comment lines that mark them.

/// Returns the lines before and after a section, each with its line feed.
fn markers(comment: &str) -> (String, String) {
    let (open, close) = comment.split_once(' ').unwrap_or((comment, ""));
    let close = if close.is_empty() { String::new() } else { format!(" {close}") };
    let begin = format!("{open} >>> seedbed: the lines up to <<< are generated >>>{close}\n");
    (begin, format!("{open} <<< seedbed <<<{close}\n"))
}

/// Parts of a file with a section.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'b> {
    pub(super) before: &'b [u8],
    pub(super) section: &'b [u8],
    pub(super) after: &'b [u8],
}

/// Finds the section of a file; `None` if the file has none, or only one of its two marking lines.
pub(super) fn find<'b>(bytes: &'b [u8], comment: &str) -> Option<Parts<'b>> {
    let (begin, end) = markers(comment);
    let is = |line: &[u8], marker: &str| line.trim_ascii_end() == marker.trim_end().as_bytes();
    let mut at = 0;
    let mut opened: Option<(usize, usize)> = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let next = at + line.len();
        match opened {
            None if is(line, &begin) => opened = Some((at, next)),
            Some((start, inner)) if is(line, &end) => {
                let section = &bytes[inner..at];
                return Some(Parts { before: &bytes[..start], section, after: &bytes[next..] });
            }
            _ => {}
        }
        at = next;
    }
    None
}

/// Returns a file with a section. A line that the section would continue is ended before it.
pub(super) fn join(before: &[u8], section: &[u8], after: &[u8], comment: &str) -> Vec<u8> {
    let (begin, end) = markers(comment);
    let line_break: &[u8] = if before.is_empty() || before.ends_with(b"\n") { b"" } else { b"\n" };
    [before, line_break, begin.as_bytes(), section, end.as_bytes(), after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_found_where_it_was_joined() {
        for comment in ["#", "//", "<!-- -->"] {
            for (before, after) in [("", ""), ("A=1\n", ""), ("A=1\n", "B=2"), ("", "B=2\n")] {
                let joined = join(before.as_bytes(), b"X=1\nY=2\n", after.as_bytes(), comment);
                let parts = find(&joined, comment).unwrap();
                assert_eq!((parts.before, parts.after), (before.as_bytes(), after.as_bytes()), "{comment}");
                assert_eq!(parts.section, b"X=1\nY=2\n");
                assert_eq!(join(parts.before, parts.section, parts.after, comment), joined);
                assert_eq!(find(&joined, "--"), None);
                assert_eq!(find(&joined[..joined.len() - after.len() - 3], comment), None);
            }
        }
        assert!(join(b"A=1", b"", b"", "#").starts_with(b"A=1\n# >>>"));
        // An editor may write other line ends.
        let joined = String::from_utf8(join(b"A=1\n", b"X=1\n", b"", "#")).unwrap().replace('\n', "\r\n");
        assert_eq!(find(joined.as_bytes(), "#").unwrap().section, b"X=1\r\n");
    }
}
