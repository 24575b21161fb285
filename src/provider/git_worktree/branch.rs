//! What git takes for a branch's name, and which branches it cannot keep side by side. Pure.

use std::collections::BTreeSet;

/// A branch that git could not keep beside `branch`: the same, or one that would be a directory of the other.
pub(super) fn in_the_way<'b>(branches: &'b BTreeSet<String>, branch: &str) -> Option<&'b str> {
    let below = format!("{branch}/");
    let mut above = branch.match_indices('/').map(|(at, _)| &branch[..at]).chain([branch]);
    let above = above.find_map(|other| branches.get(other));
    let below = || branches.range(below.clone()..).next().filter(|other| other.starts_with(&below));
    above.or_else(below).map(String::as_str)
}

/// The rules of `git check-ref-format --branch`.
pub(super) fn is_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let bad_part = |part: &str| {
        part.is_empty()
            || part.starts_with('.')
            || part.to_ascii_lowercase().ends_with(".lock")
            || part.ends_with('.')
    };
    !name.starts_with('-')
        && name != "HEAD"
        && name != "@"
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(bad)
        && !name.split('/').any(bad_part)
}
