//! Replaces markers: text of a plan whose value only one clone has, so that the plan has the same bytes in every clone.
//! Applying a plan replaces each marker by its value.

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

/// Beginning of the marker of a session's hash. It is followed by 16 digits that name the session, and by [`CLOSE`].
const SESSION_HASH: &str = "{{ session.hash ";
const CLOSE: &str = " }}";

/// Number of hexadecimal digits that name a session in its marker, and number of digits of its hash.
const NAMING: usize = 16;
const HASH: usize = 12;

/// Returns the marker of a session's hash, which [`resolve`] replaces by [`session_hash`].
pub fn session_hash_placeholder(id: &str) -> String {
    format!("{SESSION_HASH}{}{CLOSE}", named(id))
}

/// Returns 12 hexadecimal digits that no other session has, and that differ for the same session in another clone. They
/// change when the workspace is moved.
pub fn session_hash(id: &str, workspace: &Path) -> String {
    hash_of_named(&named(id), workspace)
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
        let digits = marker[SESSION_HASH.len()..].get(..NAMING).filter(|digits| is_hexadecimal(digits));
        let end = SESSION_HASH.len() + NAMING;
        if let Some(digits) = digits.filter(|_| marker[end..].starts_with(CLOSE)) {
            filled.push_str(&hash_of_named(digits, workspace));
            rest = &marker[end + CLOSE.len()..];
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

/// Returns the digits that name a session in its marker.
fn named(id: &str) -> String {
    sha256_hex(id.as_bytes())[..NAMING].to_owned()
}

fn hash_of_named(named: &str, workspace: &Path) -> String {
    let bytes = [named.as_bytes(), workspace.as_os_str().as_encoded_bytes()].concat();
    sha256_hex(&bytes)[..HASH].to_owned()
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
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
        check("{{ workspace.root }}/a", "/srv/{{ session.hash 0123456789abcdef }}/a");
        for text in
            ["{{ session.hash ", "{{ session.hash é0123456789abcdef }}", "{{ session.hash 0123456789abcdef}}"]
        {
            check(text, text);
        }
        check(&format!("{{{{ session.hash {marker}"), &format!("{{{{ session.hash {one}"));
    }
}
