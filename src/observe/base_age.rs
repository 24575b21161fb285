//! Finds the age of the refs that worktrees are created from: the date of the commit, the upstream branch, the last fetch.
//!
//! These facts differ between clones and from day to day, so no plan depends on them. They only decide whether a base is too
//! old to be planned.
#![expect(clippy::disallowed_methods, reason = "reads the time of the last fetch")]

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::host::clock;
use crate::host::git::Git;
use crate::host::process;

/// Largest file that is read, in bytes: thousands of fetched refs, or of entries of a log.
const FILE_MAX: u64 = 4 << 20;

/// Age of a base ref.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseAge {
    /// The ref as it was requested.
    pub base_ref: String,
    /// Time at which its commit was committed, in seconds since 1970, UTC.
    pub committed: u64,
    /// The remote-tracking branch: the ref itself, or the upstream branch of a local one; `None` if there is none.
    pub remote: Option<RemoteBranch>,
}

/// A remote-tracking branch of a base ref.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteBranch {
    /// Short name, such as `origin/main`.
    pub name: String,
    /// Number of its commits that the base ref does not have; 0 for the base ref itself.
    pub behind: u64,
    /// Time of the last fetch of the branch, in seconds since 1970, UTC; `None` if it is unknown, such as after a clone.
    pub fetched: Option<u64>,
}

/// Time since the commit of a base ref, and since the last fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Age {
    /// Time since the commit was committed; 0 if that is in the future.
    pub committed: Duration,
    /// Time since the last fetch of the remote-tracking branch; `None` if there is none, or if the time is unknown.
    pub fetched: Option<Duration>,
    /// Short name of the remote-tracking branch: the ref itself, or the upstream branch of a local one; `None` if there is
    /// none.
    pub remote: Option<String>,
    /// Number of commits of the remote-tracking branch that the base ref does not have.
    pub behind: u64,
}

/// Returns the ages of `refs` now, by their names. Refs that are no branches have none.
pub(super) fn ages(
    host: &Host,
    directory: &Path,
    refs: &[&str],
) -> Result<BTreeMap<String, Age>, process::Error> {
    let now = clock::seconds();
    let since = |time: u64| Duration::from_secs(now.saturating_sub(time));
    let age = |BaseAge { base_ref, committed, remote }: BaseAge| {
        let (remote, fetched, behind) = match remote {
            Some(RemoteBranch { name, behind, fetched }) => (Some(name), fetched.map(since), behind),
            None => (None, None, 0),
        };
        (base_ref, Age { committed: since(committed), fetched, remote, behind })
    };
    Ok(base_ages(host, directory, refs)?.into_iter().map(age).collect())
}

/// Returns the age of each ref of the repository around `directory` that is a branch, a remote-tracking branch or a fetched
/// pull request, or HEAD on a branch; others are left out.
///
/// # Errors
///
/// Git cannot read the refs.
pub fn base_ages(host: &Host, directory: &Path, refs: &[&str]) -> Result<Vec<BaseAge>, process::Error> {
    if refs.is_empty() {
        return Ok(Vec::new());
    }
    let git = Git::discover(host, directory);
    let head = git.output(["symbolic-ref", "--quiet", "HEAD"])?;
    let head = String::from_utf8_lossy(head.stdout.trim_ascii()).into_owned();
    let full = |base_ref: &str| match base_ref {
        "HEAD" => vec![head.clone()],
        name if name.starts_with("refs/") => vec![name.to_owned()],
        // In the order of Git (`git help revisions`).
        name => vec![format!("refs/{name}"), format!("refs/heads/{name}"), format!("refs/remotes/{name}")],
    };
    let format = "--format=%(refname)%00%(committerdate:unix)%00%(upstream)%00%(upstream:track,nobracket)";
    let wanted: Vec<String> =
        refs.iter().flat_map(|base_ref| full(base_ref)).filter(|name| !name.is_empty()).collect();
    let printed = git.run(["for-each-ref", format].into_iter().chain(wanted.iter().map(String::as_str)))?;
    let printed = String::from_utf8_lossy(&printed);
    let lines = printed.lines().filter_map(|line| {
        let mut fields = line.split('\0');
        Some((fields.next()?, [fields.next()?, fields.next()?, fields.next()?]))
    });
    let found: BTreeMap<&str, [&str; 3]> = lines.collect();
    let fetched = Fetched::read(&git)?;
    let age = |base_ref: &&str| {
        let names = full(base_ref);
        let (name, [committed, upstream, track]) =
            names.iter().find_map(|name| Some((name.as_str(), found.get(name.as_str())?)))?;
        let (remote, behind) = match name.strip_prefix("refs/remotes/") {
            Some(_) => (name, 0),
            None => (*upstream, behind(track)),
        };
        let remote = remote.strip_prefix("refs/remotes/").map(|name| RemoteBranch {
            name: name.to_owned(),
            behind,
            fetched: fetched.time_of(name),
        });
        Some(BaseAge { base_ref: (*base_ref).to_owned(), committed: committed.parse().ok()?, remote })
    };
    Ok(refs.iter().filter_map(age).collect())
}

/// Returns the number after `behind` in `ahead 1, behind 2`.
fn behind(track: &str) -> u64 {
    let count = track.split(", ").find_map(|part| part.strip_prefix("behind "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Records of fetches.
struct Fetched {
    /// Content of `FETCH_HEAD`, and the time of the fetch that wrote it.
    last: String,
    time: Option<u64>,
    /// Directory of the logs of all refs.
    logs: PathBuf,
}

impl Fetched {
    fn read(git: &Git<'_>) -> Result<Self, process::Error> {
        let path = |name| git.path(["rev-parse", "--path-format=absolute", "--git-path", name]);
        let (last, logs) = (path("FETCH_HEAD")?, path("logs/refs/remotes")?);
        let time = regular(&last).and_then(|found| found.modified().ok()?.duration_since(UNIX_EPOCH).ok());
        Ok(Self { last: text(&last), time: time.map(|time| time.as_secs()), logs })
    }

    /// Returns the time of the last fetch of a branch of a remote, such as `origin/main`.
    ///
    /// The last fetch names a branch, and the address instead of the name of the remote (`git help fetch`). A fetch in
    /// another worktree is known only if it has changed the branch, which is in the log of the ref.
    fn time_of(&self, remote_branch: &str) -> Option<u64> {
        let names = remote_branch.match_indices('/').map(|(at, _)| &remote_branch[at + 1..]);
        let marks: Vec<String> = names.map(|name| format!("\tbranch '{name}' of ")).collect();
        let is_fetched = |line: &str| marks.iter().any(|mark| line.contains(mark.as_str()));
        let last = self.time.filter(|_| self.last.lines().any(is_fetched));
        let log = text(&self.logs.join(remote_branch));
        let changed = log.lines().last().and_then(|line| {
            let (entry, _) = line.split_once('\t').unwrap_or((line, ""));
            entry.rsplit(' ').nth(1)?.parse().ok()
        });
        last.max(changed)
    }
}

/// Returns the metadata of a regular file of limited size.
fn regular(path: &Path) -> Option<Metadata> {
    std::fs::symlink_metadata(path).ok().filter(|found| found.is_file() && found.len() <= FILE_MAX)
}

/// Returns the text of such a file; otherwise nothing.
fn text(path: &Path) -> String {
    let bytes = regular(path).and_then(|_| std::fs::read(path).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
