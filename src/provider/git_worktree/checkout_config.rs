//! Reads the configuration that decides how Git writes files.

use super::Worktree;
use crate::host::git::{Git, config};
use crate::provider::{Error, Task};

/// Settings that override any configuration when edits are searched. With the opposite values, Git takes a file for
/// unchanged although its mode or content is different. Or it takes an untracked file for a tracked file whose name
/// differs in case.
///
/// `core.symlinks` is not among them. If it is off, a checkout writes the target of a link into a file, which then has
/// the bytes that a commit would have.
pub(super) const EXACT: [&str; 7] = [
    "core.fileMode=true",
    "core.trustctime=true",
    "core.checkStat=default",
    "core.ignoreStat=false",
    "core.ignoreCase=false",
    "core.untrackedCache=false",
    "sparse.expectFilesOutsideOfPatterns=false",
];

/// Settings, with their harmless values, that can make Git write a file unlike its blob or not at all. Some of them
/// give Git an index that is not simply the stat data of its files.
const HARMLESS: [(&str, &[&str]); 7] = [
    // Attributes of another tree than the commit's, which Git does not report for an index.
    ("attr.tree", &[]),
    ("core.autocrlf", &["false", "input"]),
    ("core.eol", &["lf", "native"]),
    ("core.ignorestat", &["false"]),
    ("core.sparsecheckout", &["false"]),
    ("core.splitindex", &["false"]),
    ("core.symlinks", &["true"]),
];

/// Setting for the permissions that Git gives its own files.
const SHARED: &str = "core.sharedrepository";

/// Settings of one worktree that matter here.
pub(super) struct Settings {
    gives_blobs: bool,
    is_shared: bool,
    /// Keys of conditional includes; `None` if they are not known.
    conditions: Option<Vec<String>>,
}

impl Settings {
    /// Returns settings of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self { gives_blobs: false, is_shared: true, conditions: None }
    }

    /// Reads the settings with `git`, which must be that of a registered worktree.
    pub(super) fn read(git: &Git<'_>) -> Result<Self, Error> {
        let names = HARMLESS.map(|(name, _)| name).join("|").replace('.', r"\.");
        let pattern = format!(r"^({names}|{SHARED}|includeif\..*)$");
        let listed = git.output(["config", "--null", "--get-regexp", &pattern])?;
        // Exit code 1 means that there are none.
        if !matches!(listed.status.code(), Some(0 | 1)) {
            return Ok(Self::unknown());
        }
        let found = config::parse(&listed.stdout);
        let is_harmless = |(name, harmless): &(&str, &[&str])| match found.get(*name) {
            None => true,
            Some(value) => value.as_deref().is_some_and(|value| harmless.contains(&value)),
        };
        Ok(Self {
            gives_blobs: HARMLESS.iter().all(is_harmless),
            is_shared: found.contains_key(SHARED),
            conditions: Some(found.into_keys().filter(|key| key.starts_with("includeif.")).collect()),
        })
    }

    /// Returns whether Git writes all files as their blobs, except for attributes, and records them so in the index.
    pub(super) fn gives_blobs(&self) -> bool {
        self.gives_blobs
    }

    /// Returns whether Git may give its own files other permissions than any program gives a file.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Returns whether Git certainly writes the same files into all of these as into `worktree`, whose settings these
    /// are.
    ///
    /// Configuration can depend on a worktree's admin directory or branch (`includeIf`), and line ends and filters can
    /// depend on the configuration.
    pub(super) fn are_same_for(&self, worktree: &Worktree, others: &[(&Task<'_>, Worktree)]) -> bool {
        let same = |other: &Worktree| {
            (&other.commit, &other.target_path, other.checkout)
                == (&worktree.commit, &worktree.target_path, worktree.checkout)
        };
        let on_branches = worktree.branch.is_some() || others.iter().any(|(_, other)| other.branch.is_some());
        others.iter().all(|(_, other)| same(other))
            && self
                .conditions
                .as_ref()
                .is_some_and(|conditions| conditions.iter().all(|key| applies_to_all(key, on_branches)))
    }
}

/// Returns whether the condition in the key of an `includeIf` is true for all worktrees of a repository, or for none.
fn applies_to_all(key: &str, on_branches: bool) -> bool {
    let condition = key.get("includeif.".len()..).and_then(|condition| condition.split_once(':'));
    match condition {
        Some(("onbranch", _)) => !on_branches,
        Some(("hasconfig", _)) => true,
        // A directory above all admin directories, by its path.
        Some(("gitdir" | "gitdir/i", pattern)) => {
            (pattern.starts_with('/') || pattern.starts_with("~/"))
                && !pattern.contains(['*', '?', '[', '\\'])
                && !pattern.to_ascii_lowercase().contains("worktrees")
        }
        _ => false,
    }
}
