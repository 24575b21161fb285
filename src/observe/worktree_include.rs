//! Patterns of a `.worktreeinclude`, which names the ignored files that every worktree needs. Pure.
//!
//! Several tools for worktrees read this file. The patterns are those of a `.gitignore`, and match as Git matches them.
//! The crate `ignore` reads a few patterns in another way than Git: each of these is rewritten, or refused.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Entry of `copy` that stands for the patterns of the file.
pub(crate) const ENTRY: &str = "@worktreeinclude";

/// Name of the file in the directory that `copy` is relative to.
pub(crate) const FILE: &str = ".worktreeinclude";

/// Maximum size of the file, in bytes.
pub(super) const FILE_MAX: usize = 64 << 10;

/// Matcher of the patterns of a file.
pub(crate) struct Included(Gitignore);

impl Included {
    /// Compiles patterns that [`patterns`] returned. Others match nothing.
    pub(crate) fn new(patterns: &[String]) -> Self {
        Self(compiled(patterns.iter().map(String::as_str)).unwrap_or_else(|_| Gitignore::empty()))
    }

    /// Returns whether the patterns match a file or a directory above it. The path is relative to the directory of the
    /// file.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.retain(|part| !part.as_os_str().is_empty());
        // From the top: Git excludes everything below an excluded directory, whatever the later patterns are.
        above.iter().rev().any(|directory| self.0.matched(directory, true).is_ignore())
            || self.0.matched(path, false).is_ignore()
    }
}

/// Returns the patterns in the text of a file, without comments, or the reason for which a line has none.
pub(crate) fn patterns(text: &str) -> Result<Vec<String>, String> {
    let mut patterns = Vec::new();
    for (line, number) in text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').zip(1..) {
        if line.starts_with('#') {
            continue;
        }
        let pattern = without_trailing_blanks(line.strip_suffix('\r').unwrap_or(line));
        if pattern.is_empty() {
            continue;
        }
        let checked = check(pattern).and_then(|()| compiled([pattern]).map(drop));
        checked.map_err(|why| format!("line {number} of `{FILE}` is no pattern: {why}"))?;
        patterns.push(pattern.to_owned());
    }
    Ok(patterns)
}

/// Removes the blanks at the end of a line, except for one that is escaped.
fn without_trailing_blanks(line: &str) -> &str {
    let mut end = 0;
    let mut is_escaped = false;
    for (at, c) in line.char_indices() {
        if c != ' ' || is_escaped {
            end = at + c.len_utf8();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    &line[..end]
}

/// Refuses patterns that are unusual, and that the crate `ignore` and Git do not read in the same way.
fn check(pattern: &str) -> Result<(), String> {
    let trimmed = pattern.trim_end();
    if trimmed.len() < pattern.len() && !pattern.ends_with("\\ ") {
        return Err("it ends with white space".to_owned());
    }
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' if rest.next().is_none() => return Err("it ends with a backslash".to_owned()),
            '[' => {
                let Some((class, after)) = rest.as_str().split_once(']') else {
                    return Err("a bracket is not closed".to_owned());
                };
                rest = after.chars();
                let members = class.strip_prefix(['!', '^']).unwrap_or(class);
                let is_plain = members.chars().all(|c| c.is_ascii_alphanumeric() || "-_.,+~@ ".contains(c));
                if members.is_empty() || !is_plain {
                    return Err(
                        "a bracket contains other characters than letters, digits, blanks and `-_.,+~@`"
                            .to_owned(),
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Compiles patterns; the error is a reason, one line.
fn compiled<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        builder.add_line(None, &without_alternatives(pattern)).map_err(|error| error.to_string())?;
    }
    builder.build().map_err(|error| error.to_string())
}

/// Escapes braces: in Git's patterns, they mean themselves.
fn without_alternatives(pattern: &str) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    let mut is_escaped = false;
    for c in pattern.chars() {
        if matches!(c, '{' | '}') && !is_escaped {
            escaped.push('\\');
        }
        escaped.push(c);
        is_escaped = c == '\\' && !is_escaped;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::sandbox::Sandbox;
    use super::super::untracked::{Pattern, list};
    use super::*;
    use crate::host::git::Git;

    /// Untracked files of the repository.
    const FILES: [&str; 24] = [
        "a",
        "b",
        "ab",
        "a b",
        "a ",
        "#a",
        "!a",
        "{a,b}",
        "a.env",
        "ab.env",
        "d/a",
        "d/b",
        "d/ab",
        "d/a.env",
        "d/d/a",
        "d/d/b",
        "d/d/d/a",
        "e/a",
        "e/d/a",
        "e/d/b.env",
        "a.d/a",
        "e/a.d/b",
        "e/e/e",
        "d/e/a",
    ];

    fn sandbox() -> Sandbox {
        let sandbox = Sandbox::repository(&[]);
        sandbox.write("d/tracked.env", "t");
        sandbox.write("tracked", "t");
        sandbox.git(&["add", "."]);
        for file in FILES {
            sandbox.write(file, file);
        }
        sandbox.git(&["init", "-q", "d/nested"]);
        sandbox.write("d/nested/a", "a");
        std::os::unix::fs::symlink("d", sandbox.workspace.join("e/link")).unwrap();
        sandbox
    }

    fn matched_by(sandbox: &Sandbox, text: &str) -> Option<BTreeSet<PathBuf>> {
        let pattern = Pattern::Included(patterns(text).ok()?);
        let listed =
            list(&Git::discover(&sandbox.host, &sandbox.workspace), std::slice::from_ref(&pattern)).unwrap();
        let matcher = pattern.matcher().unwrap();
        let is_matched = |path: &&PathBuf| matcher.top_of_listed(path, &listed).is_some();
        Some(listed.paths.iter().filter(is_matched).cloned().collect())
    }

    fn listed_by_git(sandbox: &Sandbox, exclude: &str) -> BTreeSet<PathBuf> {
        let listed = sandbox.git(&["ls-files", "-z", "--others", "--ignored", exclude]);
        let names = listed.split('\0').filter(|name| !name.is_empty() && !name.ends_with('/'));
        names.map(PathBuf::from).collect()
    }

    #[track_caller]
    fn assert_like_git(sandbox: &Sandbox, ignored: &str, included: &str) {
        sandbox.write(".gitignore", ignored);
        sandbox.write(FILE, included);
        let by_git = |exclude: &str| listed_by_git(sandbox, exclude);
        let expected = &by_git("--exclude-standard") & &by_git(&format!("--exclude-from={FILE}"));
        if let Some(matched) = matched_by(sandbox, included) {
            assert_eq!(matched, expected, "{ignored:?} {included:?}");
        }
    }

    #[test]
    fn patterns_match_as_in_git() {
        let sandbox = sandbox();
        for included in [
            "*.env\r\nd/\r\n",
            "\u{feff}a\n",
            "d\n!d/a\n",
            "d/*\n!d/d\n",
            "/d/*\n!/d/d/\n/d/d/*\n!/d/d/a\n",
            "!d\n",
            "{a,b}\n",
            "\\#a\n\\!a\n#b\n",
            "a\\ \n",
            "a b  \n",
            "d/**\n",
            "**/d\n",
            "d/**/a\n",
            "e/link/\n",
            "e/link\n",
            "[ab]\n",
            "[!a]\n",
            "d[!x]a\n",
            "tracked\n*.env\n",
            "/\n",
            "//\n",
            "a\\b\n",
            "d/nested\n",
            "**\n",
        ] {
            assert!(patterns(included).is_ok(), "{included:?}");
            for ignored in ["*\n", "d/\n", "*.env\n!ab.env\na\n", ""] {
                assert_like_git(&sandbox, ignored, included);
            }
        }
    }

    #[test]
    fn lines_that_are_no_patterns_are_refused() {
        let check = |text: &str, expected: &str| {
            let why = patterns(text).unwrap_err();
            assert!(why.contains(expected), "{text:?}: {why}");
        };
        check("a\nb[\n", "line 2 of `.worktreeinclude` is no pattern: a bracket is not closed");
        check("[[:alpha:]]", "a bracket contains");
        check("[b-a]", "line 1");
        check("a\\", "ends with a backslash");
        check("a\t\n", "ends with white space");
        assert_eq!(patterns("# a\n\n  \na\n").unwrap(), ["a"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

        #[test]
        fn generated_patterns_match_as_in_git(
            lists in proptest::collection::vec(
                proptest::collection::vec("!?/?(a|b|d|e|\\*|\\?|\\*\\*|/|\\.env|\\.d|\\[ab\\]|\\[!d\\]|\\{|\\}|,| ){1,5}/?", 0..5),
                16,
            ),
        ) {
            let sandbox = sandbox();
            for pair in lists.chunks(2) {
                assert_like_git(&sandbox, &(pair[0].join("\n") + "\n"), &(pair[1].join("\n") + "\n"));
            }
        }
    }
}
