//! Content of files of the workspace, never through a link.

use std::path::Path;

use crate::host::files::{self, Root};
use crate::host::text::printable;

/// Size limit of a file, in bytes: that of a template.
const SIZE_MAX: usize = 64 * 1024;

/// File of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkspaceFile {
    /// Content of the file.
    Text(String),
    /// Nothing exists at the path.
    Missing,
    /// The file cannot be used, for this reason, one line.
    Unusable(String),
}

/// Reads a file of the workspace. No component of the path may be a link, which could lead out of the workspace.
pub(super) fn read(workspace: &Path, path: &str) -> WorkspaceFile {
    let shown = path.escape_debug();
    let unusable = |why: &str| WorkspaceFile::Unusable(format!("`{shown}` {why}"));
    match Root::open(workspace).and_then(|root| root.read(Path::new(path), SIZE_MAX)) {
        Ok(Some(bytes)) => match String::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => unusable("is not text"),
            Ok(text) => WorkspaceFile::Text(text),
            Err(_) => unusable("is not text in UTF-8"),
        },
        Ok(None) => WorkspaceFile::Missing,
        Err(files::Error::Link { .. }) => unusable("is a link, or lies behind one"),
        Err(files::Error::TooLarge { .. }) => unusable("is larger than 64 KiB"),
        Err(files::Error::Irregular { .. }) => unusable("is not a file"),
        Err(error) => WorkspaceFile::Unusable(printable(&error.to_string())),
    }
}
