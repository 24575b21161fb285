//! Diagnostics as a SARIF 2.1.0 log, which code scanning and editors read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Entry, Report};

/// Returns the log of one run with the report's diagnostics.
pub(super) fn log(report: &Report, version: &str) -> Value {
    // Violated rules; the position of each is its index in the log.
    let rules: BTreeMap<&str, &str> = report
        .diagnostics
        .iter()
        .map(|shown| (shown.diagnostic.rule.id, shown.diagnostic.rule.about))
        .collect();
    let position = |id: &str| rules.keys().position(|rule| *rule == id);
    let described = rules.iter().map(|(id, about)| {
        json!({
            "id": id,
            "shortDescription": { "text": format!("{about}.") },
            "defaultConfiguration": { "level": "error" },
        })
    });
    let uri = uri(report.file_name());
    let results =
        report.diagnostics().map(|diagnostic| result(&diagnostic, position(&diagnostic.rule), &uri));
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "seedbed",
                "semanticVersion": version,
                "rules": described.collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "artifacts": [{ "location": { "uri": uri }, "sourceLanguage": "toml" }],
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

fn result(diagnostic: &Entry, rule_index: Option<usize>, uri: &str) -> Value {
    let mut message = format!("{}: {}", diagnostic.message, diagnostic.label);
    if let Some(help) = &diagnostic.help {
        message = format!("{message}\n{help}");
    }
    if let Some(argument) = &diagnostic.argument {
        let message = format!("--set {argument}: {message}");
        return json!({
            "ruleId": diagnostic.rule,
            "ruleIndex": rule_index,
            "level": "error",
            "message": { "text": message },
        });
    }
    json!({
        "ruleId": diagnostic.rule,
        "ruleIndex": rule_index,
        "level": "error",
        "message": { "text": message },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri, "index": 0 },
            "region": {
                "startLine": diagnostic.line,
                "startColumn": diagnostic.column,
                "endLine": diagnostic.end_line,
                "endColumn": diagnostic.end_column,
            },
        } }],
    })
}

/// Converts a path to a URI reference: percent-encodes characters with another meaning in a URI. An absolute path
/// becomes a `file` URI.
fn uri(path: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~');
    let encoded: String = path
        .bytes()
        .map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    if encoded.starts_with('/') { format!("file://{encoded}") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn a_path_becomes_a_uri_reference() {
        assert_eq!(uri("a b/ü:#?.toml"), "a%20b/%C3%BC%3A%23%3F.toml");
        assert_eq!(uri("/x/y.toml"), "file:///x/y.toml");
    }
}
