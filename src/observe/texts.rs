//! Text of a file of the workspace.

use std::path::Path;

use crate::host::files::{Error, Root};

/// Largest file that is read, in bytes.
const FILE_MAX: usize = 1 << 20;

/// Returns the text of a file, or the reason, one line, for which it cannot be read. No link is followed.
pub(super) fn read(workspace: &Path, path: &Path) -> Result<String, String> {
    let bytes = match Root::open(workspace).and_then(|root| root.read(path, FILE_MAX)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err("it does not exist".to_owned()),
        Err(Error::Link { .. } | Error::Outside { .. }) => {
            return Err("it is a link, leads through one, or is outside the workspace".to_owned());
        }
        Err(Error::TooLarge { .. }) => return Err(format!("it is larger than {FILE_MAX} bytes")),
        Err(error) => return Err(error.to_string()),
    };
    String::from_utf8(bytes).map_err(|_| "it is not text in UTF-8".to_owned())
}
