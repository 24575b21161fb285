//! Fetches the remote-tracking refs that worktrees begin at.
//!
//! Everyone who can write to a repository controls its configuration, and Git runs programs that it names when it fetches.
//! So Git fetches in an empty repository in the state directory, with the objects of the real one. Only the user's and the
//! system's configuration count there; of the repository's own, only the addresses of its remotes are used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::branch::is_name;
use crate::host::Host;
use crate::host::files;
use crate::host::git::Git;
use crate::host::git::scratch::{Located, Scratch};
use crate::host::process;
use crate::host::text::printable;

/// Name that the temporary directory repeats.
const NAME: &str = "fetch";

/// Remote of a name that has none, such as `pull/123`.
const DEFAULT_REMOTE: &str = "origin";

/// Directories below `refs` in which hosting services keep proposed changes, each as `NUMBER/head`.
const PROPOSALS: [&str; 2] = ["pull", "merge-requests"];

/// Base ref that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedRef {
    /// Base ref as the manifest names it.
    pub base_ref: String,
    /// Commit that the ref named before; `None` if the ref did not exist.
    pub before: Option<String>,
    /// Commit that the ref names now.
    pub now: String,
}

/// Error of a fetch. No later ref is fetched, and nothing is planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The remote gave no answer, or does not have a ref.
    #[error("cannot fetch {refs} from the remote `{remote}` of {}: {why}", printable(&repository.to_string_lossy()))]
    Remote {
        /// Refs that were requested, with commas between them.
        refs: String,
        /// Name of the remote.
        remote: String,
        /// Directory of the repository.
        repository: PathBuf,
        /// Output of Git, without a password.
        why: String,
    },
    /// The repository could not be read or written.
    #[error(transparent)]
    Git(#[from] process::Error),
    /// The temporary repository could not be written.
    #[error("cannot fetch: {0}")]
    File(#[from] files::Error),
}

/// Ref of a remote, and the local ref that follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tracking {
    remote: String,
    /// Name on the remote.
    source: String,
    /// Name in the repository.
    target: String,
}

/// Fetches those of `base_refs` that follow a remote: `origin/main`, `pull/123`, `origin/pull/123`. Others, and a directory
/// without a repository, are left to planning.
pub fn fetch(host: &Host, directory: &Path, base_refs: &BTreeSet<&str>) -> Result<Vec<FetchedRef>, Error> {
    let git = Git::discover(host, directory);
    let Some(located) = Located::new(&git)? else { return Ok(Vec::new()) };
    let remotes = remotes(&git)?;
    let refs = Refs::read(&git)?;
    let mut wanted: BTreeMap<String, Vec<(&str, Tracking)>> = BTreeMap::new();
    for base_ref in base_refs {
        if let Some(tracking) = tracking(base_ref, &remotes, &refs) {
            wanted.entry(tracking.remote.clone()).or_default().push((base_ref, tracking));
        }
    }
    let mut fetched = Vec::new();
    for (remote, wanted) in wanted {
        let known = refs.commits.iter().map(|(name, commit)| (name.as_str(), commit.as_str()));
        let scratch = Scratch::new(host, NAME, &located, known)?;
        let address = address(&remotes[&remote], directory, &git);
        let found = fetch_into(&scratch, host, &located.objects, &address, &wanted);
        scratch.remove()?;
        let commits = found.map_err(|why| Error::Remote {
            refs: wanted.iter().map(|(base_ref, _)| printable(base_ref)).collect::<Vec<_>>().join(", "),
            remote: printable(&remote),
            repository: directory.to_owned(),
            why: without_password(&printable(&why), &address),
        })?;
        for ((base_ref, tracking), now) in wanted.into_iter().zip(commits) {
            let before = refs.commits.get(&tracking.target).cloned();
            update(&git, &tracking, before.as_deref(), &now)?;
            fetched.push(FetchedRef { base_ref: base_ref.to_owned(), before, now });
        }
    }
    Ok(fetched)
}

/// Sets a local ref to the fetched commit. Another fetch may have set it meanwhile.
fn update(git: &Git<'_>, tracking: &Tracking, before: Option<&str>, now: &str) -> Result<(), process::Error> {
    if before == Some(now) {
        return Ok(());
    }
    let message = format!("fetch {}: {}", tracking.remote, tracking.source);
    let absent = "0".repeat(now.len());
    let args = ["update-ref", "-m", &message, &tracking.target, now, before.unwrap_or(&absent)];
    let Err(error) = git.run_beside_others(&args) else { return Ok(()) };
    let found = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", &tracking.target])?;
    if found.stdout.trim_ascii_end() == now.as_bytes() { Ok(()) } else { Err(error) }
}

/// Returns the first address of each remote, by its name.
fn remotes(git: &Git<'_>) -> Result<BTreeMap<String, String>, process::Error> {
    let listed = git.output(["config", "--null", "--get-regexp", r"^remote\..*\.url$"])?;
    let mut remotes = BTreeMap::new();
    for entry in String::from_utf8_lossy(&listed.stdout).split('\0') {
        let Some((key, address)) = entry.split_once('\n') else { continue };
        let name = key.strip_prefix("remote.").and_then(|key| key.strip_suffix(".url"));
        if let Some(name) = name {
            remotes.entry(name.to_owned()).or_insert_with(|| address.to_owned());
        }
    }
    Ok(remotes)
}

/// Refs of a repository.
#[derive(Debug, Default)]
struct Refs {
    /// Object that each ref names, by the full name of the ref.
    commits: BTreeMap<String, String>,
    /// Target of each symbolic ref, by its full name.
    symbolic: BTreeMap<String, String>,
}

impl Refs {
    fn read(git: &Git<'_>) -> Result<Self, process::Error> {
        let listed = git.run(["for-each-ref", "--format=%(objectname) %(refname) %(symref)"])?;
        let mut refs = Self::default();
        for line in String::from_utf8_lossy(&listed).lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [commit, name, ""] => refs.commits.insert(name.to_owned(), commit.to_owned()),
                [_, name, symbolic] => refs.symbolic.insert(name.to_owned(), symbolic.to_owned()),
                _ => None,
            };
        }
        Ok(refs)
    }

    /// Returns whether Git reads a short name as another ref than one of a remote.
    fn has_other(&self, name: &str) -> bool {
        ["refs/tags/", "refs/heads/"]
            .iter()
            .any(|prefix| self.commits.contains_key(&format!("{prefix}{name}")))
    }
}

/// Returns the ref of a remote that a base ref follows; `None` if it follows none.
fn tracking(base_ref: &str, remotes: &BTreeMap<String, String>, refs: &Refs) -> Option<Tracking> {
    let full = base_ref.strip_prefix("refs/remotes/").or_else(|| base_ref.strip_prefix("remotes/"));
    if full.is_none() && refs.has_other(base_ref) {
        return None;
    }
    if full.is_none()
        && let Some(source) = proposal(base_ref)
        && remotes.contains_key(DEFAULT_REMOTE)
    {
        let target = format!("refs/{base_ref}");
        return Some(Tracking { remote: DEFAULT_REMOTE.to_owned(), source, target });
    }
    let name = full.unwrap_or(base_ref);
    let below = |remote: &&String| name.strip_prefix(remote.as_str())?.strip_prefix('/').or(Some(""));
    let is_of = |remote: &&String| name == **remote || name.starts_with(&format!("{remote}/"));
    let remote = remotes.keys().filter(is_of).max_by_key(|remote| remote.len())?;
    let prefix = format!("refs/remotes/{remote}/");
    // The short name of a remote is its main branch.
    let branch = match below(&remote)? {
        "" | "HEAD" => refs.symbolic.get(&format!("{prefix}HEAD"))?.strip_prefix(&prefix)?,
        branch => branch,
    };
    // Suffixes such as `~1` are no names.
    if !is_name(branch) {
        return None;
    }
    let source = proposal(branch).unwrap_or_else(|| format!("refs/heads/{branch}"));
    Some(Tracking { remote: remote.clone(), source, target: format!("{prefix}{branch}") })
}

/// Returns the name on the remote of a proposed change: `refs/pull/123/head` for `pull/123`.
fn proposal(name: &str) -> Option<String> {
    let (service, number) = name.split_once('/')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (PROPOSALS.contains(&service) && is_number).then(|| format!("refs/{name}/head"))
}

/// Returns whether a base ref is the name of a proposed change, such as `pull/123` or `origin/pull/123`.
pub(super) fn is_proposal(base_ref: &str) -> bool {
    proposal(base_ref).is_some() || base_ref.split_once('/').is_some_and(|(_, name)| proposal(name).is_some())
}

/// Returns the address of a remote. A relative path starts at the top of the work tree.
fn address(address: &str, directory: &Path, git: &Git<'_>) -> String {
    // As Git decides (`url_is_local_not_ssh`).
    let is_local = match (address.find(':'), address.find('/')) {
        (None, _) => true,
        (Some(colon), Some(slash)) => slash < colon,
        (Some(_), None) => false,
    };
    if !is_local || Path::new(address).is_absolute() {
        return address.to_owned();
    }
    let top = git.path(["rev-parse", "--show-toplevel"]).unwrap_or_else(|_| directory.to_owned());
    top.join(address).to_string_lossy().into_owned()
}

/// Returns text without the name and the password in an address.
fn without_password(text: &str, address: &str) -> String {
    let user = address.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
    match user {
        Some((user, _)) if !user.is_empty() => text.replace(&format!("{user}@"), ""),
        _ => text.to_owned(),
    }
}

/// Fetches refs from an address, and returns their commits. The error is what Git printed, on one line.
fn fetch_into(
    scratch: &Scratch,
    host: &Host,
    objects: &Path,
    address: &str,
    wanted: &[(&str, Tracking)],
) -> Result<Vec<String>, String> {
    let path = scratch.path();
    let git = Git::open(host, &path, None).with_transport().with_variable("GIT_OBJECT_DIRECTORY", objects);
    // The address may have a password, and messages quote the arguments of Git.
    let text = |error: process::Error| error.to_string();
    git.run(["config", "--", "remote.fetched.url", address]).map_err(text)?;
    let mut args: Vec<String> = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-recurse-submodules",
        "--no-auto-maintenance",
        "--no-prune",
        "--end-of-options",
        "fetched",
    ]
    .map(str::to_owned)
    .into();
    args.extend(wanted.iter().map(|(_, Tracking { source, target, .. })| format!("+{source}:{target}")));
    let output = git.output(&args).map_err(text)?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines = printed.lines().map(|line| line.trim_start_matches("fatal: ").trim());
        return Err(lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; "));
    }
    let commit = |(_, tracking): &(&str, Tracking)| {
        git.line(["rev-parse", "--verify", "--end-of-options", &format!("{}^{{commit}}", tracking.target)])
    };
    wanted.iter().map(commit).collect::<Result<_, _>>().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::{Refs, Tracking, is_proposal, tracking, without_password};

    #[test]
    fn base_ref_of_a_remote_is_recognised_as_git_reads_it() {
        let remotes = ["origin", "team/x", "team"].map(|name| (name.to_owned(), String::new())).into();
        let mut refs = Refs::default();
        let names = ["refs/heads/origin/mine", "refs/tags/origin/v1", "refs/heads/pull/7"];
        refs.commits = names.map(|name| (name.to_owned(), "c".to_owned())).into();
        refs.symbolic =
            [("refs/remotes/origin/HEAD".to_owned(), "refs/remotes/origin/trunk".to_owned())].into();
        let check = |base_ref: &str, expected: Option<[&str; 3]>| {
            let expected = expected.map(|[remote, source, target]| Tracking {
                remote: remote.to_owned(),
                source: source.to_owned(),
                target: target.to_owned(),
            });
            assert_eq!(tracking(base_ref, &remotes, &refs), expected, "{base_ref}");
        };
        let main = Some(["origin", "refs/heads/main", "refs/remotes/origin/main"]);
        check("origin/main", main);
        check("remotes/origin/main", main);
        check("refs/remotes/origin/main", main);
        let trunk = Some(["origin", "refs/heads/trunk", "refs/remotes/origin/trunk"]);
        check("origin", trunk);
        check("origin/HEAD", trunk);
        check("team/x/a/b", Some(["team/x", "refs/heads/a/b", "refs/remotes/team/x/a/b"]));
        check("team/y", Some(["team", "refs/heads/y", "refs/remotes/team/y"]));
        check("pull/123", Some(["origin", "refs/pull/123/head", "refs/pull/123"]));
        check("origin/pull/123", Some(["origin", "refs/pull/123/head", "refs/remotes/origin/pull/123"]));
        check("merge-requests/5", Some(["origin", "refs/merge-requests/5/head", "refs/merge-requests/5"]));
        // Names that Git reads as branches or tags of the user, and those that are no names.
        for other in
            ["main", "HEAD", "v1.0", "origin/mine", "origin/v1", "pull/7", "origin/main~1", "team", "x/main"]
        {
            check(other, None);
        }
        for (base_ref, expected) in
            [("pull/1", true), ("o/pull/1", true), ("pull/x", false), ("pull/1/head", false)]
        {
            assert_eq!(is_proposal(base_ref), expected, "{base_ref}");
        }
    }

    #[test]
    fn password_of_an_address_is_not_reported() {
        let text = "unable to access 'https://me:secret@host/x.git/'";
        assert_eq!(
            without_password(text, "https://me:secret@host/x.git"),
            "unable to access 'https://host/x.git/'"
        );
        assert_eq!(without_password(text, "../x"), text);
    }
}
