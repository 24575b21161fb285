//! Files that a session has in its directory: templates in a manifest, rendered text in a plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Directories that no file of a session can be in: Git's, and those that seedbed writes to itself.
const RESERVED: [&str; 3] = [".git", ".agent-context", ".ai_ops"];

/// File of a session, or a section of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionFile {
    /// Content of the file or of the section: a template in a manifest, rendered in a plan.
    pub text: String,
    /// Comment marker of the lines around the section: `#`, or `<!-- -->` with a blank between begin and end; absent if the
    /// text is the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Path of the file in the workspace that has the template, relative to the workspace root; `None` in a plan, and if the
    /// manifest has the text itself.
    #[serde(skip)]
    pub template_file: Option<String>,
}

impl SessionFile {
    /// Creates a file with this content.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Creates a section of a file, between lines with this comment marker.
    pub fn section(text: impl Into<String>, comment: impl Into<String>) -> Self {
        Self { text: text.into(), comment: Some(comment.into()), template_file: None }
    }

    /// Returns the key of a manifest's table that has the template.
    pub(crate) fn source_key(&self) -> &'static str {
        if self.template_file.is_some() { "template-file" } else { "text" }
    }

    /// Returns the file in the form of a manifest.
    pub(crate) fn to_table(&self) -> Value {
        let source = self.template_file.as_ref().unwrap_or(&self.text);
        let mut table = Map::from_iter([(self.source_key().to_owned(), source.as_str().into())]);
        if let Some(comment) = &self.comment {
            table.insert("mode".to_owned(), "section".into());
            table.insert("comment".to_owned(), comment.as_str().into());
        }
        table.into()
    }
}

/// Returns the comment marker of a file's language, by its name; `None` if its language has no comments. Any other file has
/// the default marker `#`.
pub(super) fn comment_of(path: &str) -> Option<&'static str> {
    let extension = path.rsplit('/').next()?.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "json" => None,
        "c" | "cc" | "cpp" | "cs" | "go" | "h" | "java" | "js" | "json5" | "jsonc" | "kt" | "mjs" | "mts"
        | "rs" | "swift" | "ts" | "tsx" => Some("//"),
        "css" => Some("/* */"),
        "html" | "md" | "svg" | "vue" | "xml" => Some("<!-- -->"),
        "lua" | "sql" => Some("--"),
        _ => Some("#"),
    }
}

/// Returns the reason for which no session can have a file at this path; `None` if one can.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    let is_reserved = |name: &str| RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    let mut names = path.split('/');
    if path.is_empty() {
        Some("is empty")
    } else if path.starts_with('/') || path.starts_with('~') {
        Some("is not relative to the directory of the session")
    } else if path.contains(char::is_control) {
        Some("contains a control character")
    } else if names.clone().any(|name| matches!(name, "" | "." | "..")) {
        Some("is not plain: write it without `.`, `..` and a slash at its end")
    } else if names.any(is_reserved) {
        Some("leads into a directory of Git or of seedbed")
    } else {
        None
    }
}
