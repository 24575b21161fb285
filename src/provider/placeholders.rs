//! Replaces markers: text of a plan whose value only one clone has, so that the plan has the same bytes in every clone.
//! Applying a plan replaces each marker by its value.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::name::{NAME_MAX, SessionPath, Slug, sha256_hex};

/// Marker of the workspace root in a plan's strings. A manifest cannot produce it otherwise.
pub const WORKSPACE_ROOT: &str = "{{ workspace.root }}";

/// Returns a planned path as text, with [`WORKSPACE_ROOT`] before a relative one.
pub(crate) fn absolute_path(path: &Path) -> String {
    if path.is_absolute() {
        path.display().to_string()
    } else if path == Path::new(".") {
        WORKSPACE_ROOT.to_owned()
    } else {
        format!("{WORKSPACE_ROOT}/{}", path.display())
    }
}

/// Beginning of the marker of a session's hash. It is followed by the id of the session, and by [`CLOSE`]. Readers of a
/// plan see the markers.
const SESSION_HASH: &str = "{{ session.hash ";
const CLOSE: &str = " }}";

/// Number of hexadecimal digits of a session's hash.
const HASH: usize = 12;

/// Returns the marker of a session's hash, such as `{{ session.hash shop/api }}`, which [`resolve`] replaces by
/// [`session_hash`].
pub fn session_hash_placeholder(id: &str) -> String {
    format!("{SESSION_HASH}{}{CLOSE}", in_marker(id))
}

/// Returns 12 hexadecimal digits that no other session has, and that differ for the same session in another clone. They
/// change when the workspace is moved.
pub fn session_hash(id: &str, workspace: &Path) -> String {
    hash_of(&in_marker(id), workspace)
}

/// Returns a name of 1 to 63 of `a-z`, `0-9` and `-`. No other session has it, and it differs for the same session in
/// another clone. It consists of the session's shortened id and its hash.
pub fn unique_name(id: &str, workspace: &Path) -> String {
    let slug = Slug::cut(&SessionPath::from_id(id), NAME_MAX - 1 - HASH);
    format!("{}-{}", slug.as_str(), session_hash(id, workspace))
}

/// Returns the value with each of these sessions' hashes replaced by its marker: the reverse of [`resolve_value`].
pub fn with_placeholders(value: &Value, ids: &[&str], workspace: &Path) -> Value {
    let hashes: Vec<_> =
        ids.iter().map(|id| (session_hash(id, workspace), session_hash_placeholder(id))).collect();
    with_each_placeholder(value, &hashes)
}

fn with_each_placeholder(value: &Value, hashes: &[(String, String)]) -> Value {
    match value {
        Value::String(text) => {
            let with_placeholders =
                hashes.iter().fold(text.clone(), |text, (hash, marker)| text.replace(hash, marker));
            Value::from(with_placeholders)
        }
        Value::Array(values) => values.iter().map(|value| with_each_placeholder(value, hashes)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), with_each_placeholder(value, hashes))).collect()
        }
        other => other.clone(),
    }
}

/// Returns the text with its markers replaced by their values.
pub fn resolve(text: &str, workspace: &Path) -> String {
    if !text.contains("{{ ") {
        return text.to_owned();
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SESSION_HASH) {
        let (before, marker) = rest.split_at(at);
        filled.push_str(before);
        let parts = marker[SESSION_HASH.len()..].split_once(CLOSE);
        if let Some((id, after)) = parts.filter(|(id, _)| is_in_marker(id)) {
            filled.push_str(&hash_of(id, workspace));
            rest = after;
        } else {
            filled.push_str(SESSION_HASH);
            rest = &marker[SESSION_HASH.len()..];
        }
    }
    filled.push_str(rest);
    filled.replace(WORKSPACE_ROOT, &workspace.to_string_lossy())
}

/// Returns the value with the markers in all of its strings replaced.
pub fn resolve_value(value: &Value, workspace: &Path) -> Value {
    match value {
        Value::String(text) => Value::from(resolve(text, workspace)),
        Value::Array(values) => values.iter().map(|value| resolve_value(value, workspace)).collect(),
        Value::Object(fields) => Value::Object(
            fields.iter().map(|(key, value)| (key.clone(), resolve_value(value, workspace))).collect(),
        ),
        other => other.clone(),
    }
}

/// Returns the fields with the markers in all of their strings replaced.
pub fn resolve_fields(fields: &Map<String, Value>, workspace: &Path) -> Map<String, Value> {
    fields.iter().map(|(key, value)| (key.clone(), resolve_value(value, workspace))).collect()
}

/// Returns a session's id as it is in a marker. Characters that no id of a manifest has are replaced by their numbers,
/// because a program may choose any id, and the id must not end the marker.
fn in_marker(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for c in id.chars() {
        if is_plain(c) {
            text.push(c);
        } else {
            let _ = write!(text, "%{:x}%", u32::from(c));
        }
    }
    text
}

fn is_in_marker(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| is_plain(c) || c == '%')
}

/// Returns whether ids of a manifest's sessions, or names of resources behind them, have this character.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '#')
}

/// Returns the hash of a session by its id in a marker.
fn hash_of(id: &str, workspace: &Path) -> String {
    let bytes = [id.as_bytes(), b"\0", workspace.as_os_str().as_encoded_bytes()].concat();
    sha256_hex(&bytes)[..HASH].to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{resolve, session_hash, session_hash_placeholder};

    #[test]
    fn resolve_replaces_each_marker_and_nothing_else() {
        let workspace = Path::new("/srv/{{ session.hash 0123456789abcdef }}");
        let check = |text: &str, expected: &str| assert_eq!(resolve(text, workspace), expected);
        let (one, other) = (session_hash("shop/a", workspace), session_hash("shop/b", workspace));
        assert!(one != other && one != session_hash("shop/a", Path::new("/srv/b")));
        let marker = session_hash_placeholder("shop/a");
        check(&format!("x{marker}{}y", session_hash_placeholder("shop/b")), &format!("x{one}{other}y"));
        assert_eq!(marker, "{{ session.hash shop/a }}");
        let odd = "a }}{{ session.hash shop/a";
        check(&session_hash_placeholder(odd), &session_hash(odd, workspace));
        check("{{ workspace.root }}/a", "/srv/{{ session.hash 0123456789abcdef }}/a");
        for text in
            ["{{ session.hash ", "{{ session.hash é }}", "{{ session.hash shop/a}}", "{{ session.hash  }}"]
        {
            check(text, text);
        }
        check(&format!("{{{{ session.hash {marker}"), &format!("{{{{ session.hash {one}"));
    }
}
