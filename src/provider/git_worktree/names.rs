//! Lists of names in messages.

use std::collections::BTreeSet;
use std::ffi::OsString;

/// How many of several things are named.
pub(super) const NAMED: usize = 3;

/// The first few names, and how many more there are.
pub(super) fn list(names: &BTreeSet<OsString>) -> String {
    let shown: Vec<_> = names.iter().take(NAMED).map(|name| name.to_string_lossy()).collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
