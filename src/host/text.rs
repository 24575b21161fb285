//! Makes foreign text safe to print: output of children, paths, values of manifests.

use std::time::Duration;

/// Number of characters of a process's command that a message shows: enough to recognise it.
const COMMAND_SHOWN_MAX: usize = 120;

/// Escapes characters that a terminal interprets, so that the text stays on one line and shows its real content.
///
/// Controls, invisible characters and characters that change the direction of writing become `\n`, `\u{1b}` and the
/// like. Everything else stays, also backslashes, so that escaping twice changes nothing.
pub fn printable(text: &str) -> String {
    escape(text, "")
}

/// Escapes text of several lines as [`printable`] does, except that line feeds and tabs stay.
pub fn printable_lines(text: &str) -> String {
    escape(text, "\n\t")
}

/// Returns the command of a process, escaped, and cut if it is too long for a message.
pub fn printable_command(command: &str) -> String {
    let command = printable(command);
    match command.char_indices().nth(COMMAND_SHOWN_MAX) {
        Some((cut, _)) => format!("{}…", &command[..cut]),
        None => command,
    }
}

/// Returns any text as one word of a POSIX shell.
pub fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:+=@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn escape(text: &str, keep: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) && !keep.contains(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Returns whether `c` is a control, a format character, or a separator of lines or paragraphs.
///
/// A terminal interprets such a character, shows nothing for it, or shows the following text in another order ("Trojan
/// Source"). The characters are the general categories Cc, Cf, Zl and Zp of Unicode 17, and U+2065, which is reserved.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            u32::from(c),
            0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x180e | 0x200b..=0x200f
                | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0x1_10bd | 0x1_10cd
                | 0x1_3430..=0x1_343f | 0x1_bca0..=0x1_bca3 | 0x1_d173..=0x1_d17a | 0xe_0001 | 0xe_0020..=0xe_007f
        )
}

/// Number of lines of output in a message, and their total length in characters.
const LAST_LINES: usize = 8;
pub(super) const LAST_LINES_MAX: usize = 2000;

/// Returns the last lines of a program's output that are not empty, escaped for a terminal, limited in number and length.
pub fn last_lines(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let mut lines: Vec<_> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.drain(..lines.len().saturating_sub(LAST_LINES));
    let last = printable_lines(&lines.join("\n"));
    match last.char_indices().rev().nth(LAST_LINES_MAX - 1) {
        Some((cut, _)) if cut > 0 => format!("…{}", &last[cut..]),
        _ => last,
    }
}

/// Returns a number of bytes for users, in units of a thousand: `1 byte`, `900 bytes`, `1.2 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    match bytes {
        1 => "1 byte".to_owned(),
        0..1000 => format!("{bytes} bytes"),
        _ => {
            let thousands = bytes.ilog10() / 3;
            let unit = 1000_u64.pow(thousands);
            format!("{}.{} {}", bytes / unit, bytes % unit / (unit / 10), UNITS[thousands as usize - 1])
        }
    }
}

/// Returns a number with separators: `10,000`.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a time in its largest unit.
pub fn largest_unit(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(24 * 60 * 60, "day"), (60 * 60, "hour"), (60, "minute"), (1, "second")];
    let seconds = time.as_secs();
    let (length, unit) = UNITS.into_iter().find(|(length, _)| seconds >= *length).unwrap_or((1, "second"));
    let count = seconds / length;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Returns the size of a directory with everything below it, and how much of it shares blocks on the disk with another
/// one: `1,234 files, 56.7 MB (50.1 MB in shared blocks)`.
pub fn tree_size(files: u64, bytes: u64, shared_bytes: u64) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    let files = thousands(usize::try_from(files).unwrap_or(usize::MAX));
    let shared =
        if shared_bytes == 0 { String::new() } else { format!(" ({} in shared blocks)", size(shared_bytes)) };
    format!("{files} {noun}, {}{shared}", size(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let check = |text, line: &str, lines: &str| {
            assert_eq!(printable(text), line);
            assert_eq!(printable_lines(text), lines);
            assert_eq!(printable(&printable(text)), line, "escaping twice changes nothing");
        };
        check("plain, ünicode 🙂 \\n", "plain, ünicode 🙂 \\n", "plain, ünicode 🙂 \\n");
        check("a\n\tb", "a\\n\\tb", "a\n\tb");
        check("\u{1b}[2J\r\0\u{7f}", "\\u{1b}[2J\\r\\u{0}\\u{7f}", "\\u{1b}[2J\\r\\u{0}\\u{7f}");
        check("\u{9b}1m\u{202e}", "\\u{9b}1m\\u{202e}", "\\u{9b}1m\\u{202e}");
        check("a\u{200b}b\u{ad}\u{e0041}", "a\\u{200b}b\\u{ad}\\u{e0041}", "a\\u{200b}b\\u{ad}\\u{e0041}");
    }
}
