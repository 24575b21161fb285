//! What git takes for a branch's name, and which branches it cannot keep side by side. Pure.

use std::collections::BTreeMap;

/// A branch that git could not keep beside `branch`: the same, or one that would be a directory of the other. Only those
/// that `stay` count.
pub(super) fn in_the_way<'b, T>(
    branches: &'b BTreeMap<String, T>,
    branch: &str,
    stays: impl Fn(&str) -> bool,
) -> Option<&'b str> {
    let below = format!("{branch}/");
    let above = branch.match_indices('/').map(|(at, _)| &branch[..at]).chain([branch]);
    let mut above = above.filter_map(|other| branches.get_key_value(other)).map(|(other, _)| other.as_str());
    let under = branches.range(below.clone()..).map(|(other, _)| other.as_str());
    let mut under = under.take_while(|other| other.starts_with(&below));
    above.find(|other| stays(other)).or_else(|| under.find(|other| stays(other)))
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
