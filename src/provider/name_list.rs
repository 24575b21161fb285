//! Formats lists of names in messages.

use std::collections::BTreeSet;
use std::ffi::OsString;

/// Maximum number of names in a list.
pub(super) const NAMED: usize = 3;

/// Returns the first few names, and the number of the others.
pub(super) fn list(names: &BTreeSet<OsString>) -> String {
    let shown: Vec<_> = names.iter().take(NAMED).map(|name| name.to_string_lossy()).collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
