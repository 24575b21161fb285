//! Settings as `git config --null` prints them.

use std::collections::BTreeMap;

/// Settings by name, with sections and keys in lower case; `None` for a setting without `=`.
pub type Settings = BTreeMap<String, Option<String>>;

/// Parses the output of `git config --null --list` or `--get-regexp`. If a name occurs twice, the later value counts.
pub fn parse(printed: &[u8]) -> Settings {
    let entry = |entry: &str| match entry.split_once('\n') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (entry.to_owned(), None),
    };
    String::from_utf8_lossy(printed).split_terminator('\0').map(entry).collect()
}

/// Returns whether a setting is on, as Git interprets it: without `=` it is.
pub fn is_on(settings: &Settings, name: &str) -> bool {
    match settings.get(name) {
        None => false,
        Some(None) => true,
        Some(Some(value)) => {
            matches!(value.to_lowercase().as_str(), "true" | "yes" | "on")
                || value.parse::<i64>().is_ok_and(|number| number != 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_as_git_reads_them() {
        let config = |value: Option<&str>| BTreeMap::from([("k".to_owned(), value.map(str::to_owned))]);
        for on in [None, Some("true"), Some("Yes"), Some("ON"), Some("1"), Some("-1")] {
            assert!(is_on(&config(on), "k"), "{on:?}");
        }
        for off in [Some("false"), Some("no"), Some("off"), Some("0"), Some("")] {
            assert!(!is_on(&config(off), "k"), "{off:?}");
        }
        assert!(!is_on(&BTreeMap::new(), "k"));
    }
}
