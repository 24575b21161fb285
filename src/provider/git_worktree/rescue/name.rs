//! Names rescue refs, and those of collected commits. Pure.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::name::sha256_hex;

/// Prefix of all rescue refs.
pub(super) const ROOT: &str = "refs/seedbed/rescue/";

/// End of the first line of a rescue's message, after the session's id.
pub(super) const SUBJECT: &str = ": unsaved work of its worktree";

/// Prefix of a line of a rescue's message that names a file whose bytes a checkout would convert.
const EXACT: &str = "Seedbed-Exact: ";

/// Pattern that matches every rescue.
pub(super) const ALL: &str = "refs/seedbed/rescue/*";

/// First character of the last part of a rescue's name. No session's name begins with it, so that a rescue of one
/// session cannot have the path of another session's rescues.
pub(super) const TIME: char = '@';

/// Prefix of the line of a rescue's message that has the hash of its content.
pub(super) const FINGERPRINT: &str = "Seedbed-Content: ";

/// Maximum length of one part of a name, in bytes; file systems allow 255.
const PART_MAX: usize = 120;

/// Returns the prefix of a session's rescues, with a slash at its end.
pub(super) fn prefix(session: &str) -> String {
    let parts: Vec<String> = session.split('/').map(part).collect();
    format!("{ROOT}{}/", parts.join("/"))
}

/// Returns the ref of the commits that were collected from a worktree of a session on another host. The id of the session
/// is `SWARM/PATH`.
pub fn collected_reference(session: &str, resource: &str) -> String {
    let parts: Vec<String> = session.split('/').map(part).collect();
    format!("refs/seedbed/collected/{}/{TIME}{}", parts.join("/"), part(resource))
}

/// Returns the prefix of the rescues of one worktree of a session; `resource` is its name if the session has several.
pub(super) fn worktree_prefix(prefix: &str, resource: Option<&str>) -> String {
    let resource = resource.map(|resource| format!("{TIME}{}", part(resource)));
    format!("{prefix}{}{TIME}", resource.unwrap_or_default())
}

/// Returns the path of a session's rescues and the name of the worktree in a rescue's name; `None` if the name is not
/// one of a rescue.
pub(super) fn parse(reference: &str) -> Option<(&str, Option<&str>)> {
    let at = reference.rfind('/')? + 1;
    let (path, last) = reference.split_at(at);
    let last = last.strip_prefix(TIME)?;
    Some((path, last.split_once(TIME).map(|(resource, _)| resource)))
}

/// Returns the name of one rescue. `time` is in plain letters and digits; `attempt` counts from 1.
pub(super) fn reference(worktree_prefix: &str, time: &str, attempt: u32) -> String {
    if attempt == 1 {
        format!("{worktree_prefix}{time}")
    } else {
        format!("{worktree_prefix}{time}-{attempt}")
    }
}

/// Returns the line of a message that names a file whose bytes a checkout would convert.
pub(super) fn exact_line(path: &Path) -> String {
    let mut line = EXACT.to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_graphic() && *byte != b'%' {
            line.push(char::from(*byte));
        } else {
            let _ = write!(line, "%{byte:02X}");
        }
    }
    line
}

/// Returns the path that a line of a message names; `None` if [`exact_line`] did not write the line.
pub(super) fn exact_path(line: &str) -> Option<PathBuf> {
    let mut parts = line.strip_prefix(EXACT)?.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    Some(OsString::from_vec(bytes).into())
}

/// Returns one part of an id in a form that Git accepts (`git check-ref-format`). Other bytes become `%XX`, which has
/// no other meaning, so that two ids never share a name.
fn part(text: &str) -> String {
    let mut part = String::new();
    for (at, byte) in text.bytes().enumerate() {
        let dot_is_fine = || {
            let rest = &text.as_bytes()[at + 1..];
            at > 0 && !rest.is_empty() && !rest.starts_with(b".") && !rest.eq_ignore_ascii_case(b"lock")
        };
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || byte == b'.' && dot_is_fine() {
            part.push(byte.into());
        } else {
            let _ = write!(part, "%{byte:02X}");
        }
    }
    if part.is_empty() {
        // No byte is encoded as a single `%`.
        part.push('%');
    }
    if part.len() > PART_MAX {
        part.truncate(PART_MAX);
        let _ = write!(part, "%{}", &sha256_hex(text.as_bytes())[..16]);
    }
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_id_gives_a_ref_that_git_takes(
            id in proptest::collection::vec(prop::sample::select(&b"aZ0-_./@{}~^:?*[\\ \t\0\x7flock\xff"[..]), 0..12),
        ) {
            let id = String::from_utf8_lossy(&id).into_owned();
            let name = reference(&worktree_prefix(&prefix(&id), Some(&id)), "20261125T120000Z", 2);
            prop_assert!(gix_validate::reference::name(name.as_str().into()).is_ok(), "{}", name);
        }
    }

    #[test]
    fn names_that_git_would_not_take() {
        let check = |session, expected: &str| {
            assert_eq!(prefix(session), format!("refs/seedbed/rescue/{expected}/"), "{session:?}");
        };
        check("shop/lead/coder-0", "shop/lead/coder-0");
        check("a.b/v1.2_x", "a.b/v1.2_x");
        check("a..b/x.lock/x.LOCK/end.", "a%2E.b/x%2Elock/x%2ELOCK/end%2E");
        check("a b/~^:?*[\\/@{", "a%20b/%7E%5E%3A%3F%2A%5B%5C/%40%7B");
        check("/-x//ü", "%/-x/%/%C3%BC");
        check(".hidden/.", "%2Ehidden/%2E");
        let long = prefix(&format!("s/{}", "x".repeat(300)));
        assert!(long.split('/').all(|part| part.len() <= 255), "{long}");
        assert_ne!(long, prefix(&format!("s/{}", "x".repeat(301))));
    }

    #[test]
    fn exact_lines_name_any_path() {
        for path in [&b"a/b.txt"[..], b"100% sure", b"new\nline", b"\xff", b"%41"] {
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            let line = exact_line(&path);
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(exact_path(&line), Some(path));
        }
        for line in ["Seedbed-Exact: %4", "Seedbed-Exact: %zz", "Seedbed: a"] {
            assert_eq!(exact_path(line), None, "{line}");
        }
    }

    #[test]
    fn rescues_of_one_second() {
        let (one, web) = (worktree_prefix("p/", None), worktree_prefix("p/", Some("web")));
        assert_eq!(reference(&one, "20261125T120000Z", 1), "p/@20261125T120000Z");
        assert_eq!(reference(&web, "20261125T120000Z", 2), "p/@web@20261125T120000Z-2");
        assert_eq!(parse("p/@20261125T120000Z"), Some(("p/", None)));
        assert_eq!(parse("p/@web@20261125T120000Z-2"), Some(("p/", Some("web"))));
        assert_eq!(parse("p/web"), None);
    }
}
