//! What the configuration says of how git writes files.

use super::Worktree;
use crate::host::git::{Git, config};
use crate::provider::{Error, Task};

/// Settings that no configuration may make otherwise where an edit is looked for: under their opposites Git takes a file
/// for unchanged whose mode or content is another, or an untracked one for a tracked one of the same name in other case.
///
/// `core.symlinks` is not among them. Where it is off, a checkout writes the target of a link into a file, which then has
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

/// Settings under which git writes a file otherwise than its blob, or not at all, or has an index that is not simply
/// what the file system says of its files; and what they may be all the same.
const HARMLESS: [(&str, &[&str]); 7] = [
    // Attributes of another tree than the commit's, which git does not tell of an index.
    ("attr.tree", &[]),
    ("core.autocrlf", &["false", "input"]),
    ("core.eol", &["lf", "native"]),
    ("core.ignorestat", &["false"]),
    ("core.sparsecheckout", &["false"]),
    ("core.splitindex", &["false"]),
    ("core.symlinks", &["true"]),
];

/// The setting of the permissions that git gives its own files.
const SHARED: &str = "core.sharedrepository";

/// The settings of one worktree that matter here.
pub(super) struct Settings {
    gives_blobs: bool,
    is_shared: bool,
    /// The keys of what is included under a condition; `None` where they are not known.
    conditions: Option<Vec<String>>,
}

impl Settings {
    /// Those of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self { gives_blobs: false, is_shared: true, conditions: None }
    }

    /// Asks `git`, which is that of a registered worktree.
    pub(super) fn of(git: &Git<'_>) -> Result<Self, Error> {
        let names = HARMLESS.map(|(name, _)| name).join("|").replace('.', r"\.");
        let asked = format!(r"^({names}|{SHARED}|includeif\..*)$");
        let listed = git.output(["config", "--null", "--get-regexp", &asked])?;
        // With 1 it says that there are none.
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

    /// Tells whether git writes files as their blobs are, all of them, as far as attributes do not say otherwise, and
    /// says so in the index.
    pub(super) fn gives_blobs(&self) -> bool {
        self.gives_blobs
    }

    /// Tells whether git may give its own files other permissions than any program gives a file.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Tells whether git certainly writes the same into all of these as into `worktree`, whose settings these are.
    ///
    /// Configuration can depend on a worktree's entry or branch (`includeIf`), and with it line ends and filters.
    pub(super) fn hold_of(&self, worktree: &Worktree, others: &[(&Task<'_>, Worktree)]) -> bool {
        let same = |other: &Worktree| {
            (&other.commit, &other.target_path, other.checkout)
                == (&worktree.commit, &worktree.target_path, worktree.checkout)
        };
        let on_branches = worktree.branch.is_some() || others.iter().any(|(_, other)| other.branch.is_some());
        others.iter().all(|(_, other)| same(other))
            && self
                .conditions
                .as_ref()
                .is_some_and(|conditions| conditions.iter().all(|key| holds_of_all(key, on_branches)))
    }
}

/// Tells whether the condition in the key of an `includeIf` holds of all worktrees of a repository, or of none.
fn holds_of_all(key: &str, on_branches: bool) -> bool {
    let condition = key.get("includeif.".len()..).and_then(|condition| condition.split_once(':'));
    match condition {
        Some(("onbranch", _)) => !on_branches,
        Some(("hasconfig", _)) => true,
        // A directory above all entries, by its path.
        Some(("gitdir" | "gitdir/i", pattern)) => {
            (pattern.starts_with('/') || pattern.starts_with("~/"))
                && !pattern.contains(['*', '?', '[', '\\'])
                && !pattern.to_ascii_lowercase().contains("worktrees")
        }
        _ => false,
    }
}
