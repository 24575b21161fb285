//! Content of files of the workspace, never through a link.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::files::{Error, Root};
use crate::host::text::printable;

/// File of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum WorkspaceFile {
    /// Content of the file.
    Text(String),
    /// Nothing exists at the path.
    Missing,
    /// The file cannot be used, for this reason, one line, such as `is not a file`.
    Unusable(String),
}

/// Reads a text file of the workspace of at most `limit` bytes. No component of the path may be a link, which could lead
/// out of the workspace.
pub(super) fn read(workspace: &Path, path: &Path, limit: usize) -> WorkspaceFile {
    let unusable = |why: &str| WorkspaceFile::Unusable(why.to_owned());
    match Root::open(workspace).and_then(|root| root.read(path, limit)) {
        Ok(Some(bytes)) => match String::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => unusable("contains NUL"),
            Ok(text) => WorkspaceFile::Text(text),
            Err(_) => unusable("is not text in UTF-8"),
        },
        Ok(None) => WorkspaceFile::Missing,
        Err(Error::Link { .. }) => unusable("is a link, or lies behind one"),
        Err(Error::Outside { .. }) => unusable("is outside the workspace"),
        Err(Error::Irregular { .. }) => unusable("is not a file"),
        Err(Error::TooLarge { .. }) => WorkspaceFile::Unusable(format!("is larger than {} KiB", limit >> 10)),
        Err(error) => WorkspaceFile::Unusable(printable(&format!("cannot be read: {error}"))),
    }
}
