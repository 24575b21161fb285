//! Clones that a host makes of repositories of the coordinator that it does not have.
//!
//! A clone has the checked-out branch of the coordinator, the refs of the plan, and `origin` with the coordinator's address
//! for it. It is made beside its path, and renamed when it is complete and durable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bundle::{self, BundleError, Delivery};
use super::received::unpack;
use super::{FleetDirectory, SCHEMA_VERSION};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::host::git::scratch::Located;
use crate::host::process;
use crate::host::text::{printable, shell_quoted};
use crate::name::sha256_hex;
use crate::observe::Observation;

/// Clones for the hosts that lack repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Clones {
    /// Version of the format of this document.
    pub schema_version: u32,
    /// Repositories, each once.
    pub repositories: Vec<RepositoryClone>,
}

/// Clone of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct RepositoryClone {
    /// Bundle with everything of the clone.
    pub delivery: Delivery,
    /// Directory of the manifest, or of another repository its own, relative to the top of the work tree; empty for the top.
    pub below: PathBuf,
    /// Branch that is checked out; `None` if HEAD names no branch.
    pub branch: Option<String>,
    /// Commit of HEAD.
    pub head: String,
    /// Commits by the full names of their refs.
    pub refs: BTreeMap<String, String>,
    /// Address of the remote `origin`, without a password; `None` if there is none.
    pub origin: Option<String>,
    /// Format of object ids.
    pub format: String,
}

/// Repositories that a host lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Missing {
    /// Version of the format of this document.
    pub schema_version: u32,
    /// Name of the host.
    pub host: String,
    /// Names of the repositories, each with its path on the host; the name of the workspace's own is empty.
    pub repositories: BTreeMap<String, PathBuf>,
}

impl Missing {
    /// Creates the document of a host.
    pub fn new(host: &str, repositories: BTreeMap<String, PathBuf>) -> Self {
        Self { schema_version: SCHEMA_VERSION, host: host.to_owned(), repositories }
    }
}

impl Clones {
    /// Plans clones of these repositories of the coordinator, by their names and directories. `own` is the observation of the
    /// coordinator.
    pub fn new(
        host: &Host,
        own: &Observation,
        directories: &BTreeMap<String, PathBuf>,
    ) -> Result<Self, BundleError> {
        let repositories = directories.iter().map(|(name, directory)| repository(host, own, name, directory));
        Ok(Self { schema_version: SCHEMA_VERSION, repositories: repositories.collect::<Result<_, _>>()? })
    }

    /// Returns the digest of this document, which the coordinator gives to the hosts.
    pub fn digest(&self) -> String {
        format!("sha256:{}", sha256_hex(&serde_json::to_vec(self).unwrap_or_default()))
    }
}

/// Plans the clone of the repository around a directory.
fn repository(
    host: &Host,
    own: &Observation,
    name: &str,
    directory: &Path,
) -> Result<RepositoryClone, BundleError> {
    let git = Git::discover(host, directory);
    let shown = printable(&directory.to_string_lossy());
    let unusable = |why: &str| BundleError::Unusable(format!("{shown} cannot be cloned: {why}"));
    let located = Located::new(&git)?.ok_or_else(|| unusable("it is in no repository"))?;
    let top = git.path(["rev-parse", "--show-toplevel"]);
    let top = top.map_err(|_| unusable("its repository has no work tree: clone it on the host"))?;
    let below = directory.strip_prefix(&top).map_err(|_| unusable("it is outside of its repository"))?;
    let line = |args: &[&str]| {
        let found = git.output(args)?;
        let text = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        Ok::<_, process::Error>(Some(text).filter(|text| found.status.success() && !text.is_empty()))
    };
    let head = line(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
    let head = head.ok_or_else(|| unusable("it has no commit"))?;
    let branch = line(&["symbolic-ref", "--quiet", "HEAD"])?;
    let mut refs: BTreeMap<String, String> = branch.iter().map(|name| (name.clone(), head.clone())).collect();
    let mut tips = BTreeSet::from([head.clone()]);
    for (base_ref, commit) in &own.repository(name).commits {
        let Ok(commit) = commit else { continue };
        tips.insert(commit.clone());
        let full = line(&["rev-parse", "--symbolic-full-name", "--verify", "--quiet", base_ref])?;
        let is_copied = |full: &String| {
            ["refs/heads/", "refs/tags/", "refs/remotes/"].iter().any(|below| full.starts_with(below))
        };
        if let Some(full) = full.filter(is_copied) {
            refs.insert(full, commit.clone());
        }
    }
    let tips: Vec<_> = tips.into_iter().collect();
    let delivery = bundle::delivery_from(host, &located.common_directory, name, &tips, &BTreeSet::new())?;
    if let Some(why) = &delivery.refused {
        return Err(unusable(why));
    }
    let origin = line(&["config", "--get", "remote.origin.url"])?;
    Ok(RepositoryClone {
        delivery,
        below: below.to_owned(),
        branch: branch.and_then(|name| Some(name.strip_prefix("refs/heads/")?.to_owned())),
        head,
        refs,
        origin: origin.map(|origin| public_address(&origin, &top)),
        format: located.format,
    })
}

/// Returns an address without a password and, for HTTP, without a user. A relative path is one from `top`.
fn public_address(address: &str, top: &Path) -> String {
    if let Some((scheme, rest)) = address.split_once("://") {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let Some((user, server)) = authority.rsplit_once('@') else { return address.to_owned() };
        let user = user.split(':').next().unwrap_or_default();
        let is_http = scheme.starts_with("http");
        let user = if is_http || user.is_empty() { String::new() } else { format!("{user}@") };
        return format!("{scheme}://{user}{server}{path}");
    }
    let is_path = match (address.find(':'), address.find('/')) {
        (None, _) => true,
        (Some(colon), Some(slash)) => slash < colon,
        (Some(_), None) => false,
    };
    if is_path { top.join(address).to_string_lossy().into_owned() } else { address.to_owned() }
}

/// Makes a clone at `top`, which does not exist or is an empty directory. `manifest` is a file of the clone, with its text,
/// which is written if no commit has it.
pub fn make(
    host: &Host,
    fleet: &FleetDirectory,
    clone: &RepositoryClone,
    top: &Path,
    manifest: Option<(&Path, &str)>,
) -> Result<(), BundleError> {
    let shown = printable(&top.to_string_lossy());
    let (Some(above), Some(name)) = (top.parent(), top.file_name()) else {
        return Err(BundleError::Unusable(format!("{shown} cannot be a clone")));
    };
    let parent = Root::open_if_any(above)?.ok_or_else(|| {
        let above = shell_quoted(&above.to_string_lossy());
        BundleError::Unusable(format!(
            "{shown} has no directory above it\nhelp: on the host, run `mkdir -p {above}`"
        ))
    })?;
    sweep(top)?;
    let temporary = parent.make_temporary_directory(name)?;
    crashpoint!("fleet.cloning");
    let made = fill(host, fleet, clone, &parent.path().join(&temporary.name), manifest).and_then(|()| {
        crashpoint!("fleet.cloned");
        parent.rename(Path::new(&temporary.name), Path::new(name))?;
        Ok(parent.sync()?)
    });
    if made.is_err() {
        parent.remove_all(Path::new(&temporary.name))?;
    }
    made
}

/// Removes what a killed process left of a clone at `top`.
pub fn sweep(top: &Path) -> Result<(), BundleError> {
    let (Some(above), Some(name)) = (top.parent(), top.file_name()) else { return Ok(()) };
    let Some(parent) = Root::open_if_any(above)? else { return Ok(()) };
    for abandoned in parent.abandoned(name)? {
        parent.remove_all(Path::new(&abandoned.name))?;
    }
    Ok(())
}

/// Creates the repository in an empty directory, and makes it durable.
fn fill(
    host: &Host,
    fleet: &FleetDirectory,
    clone: &RepositoryClone,
    at: &Path,
    manifest: Option<(&Path, &str)>,
) -> Result<(), BundleError> {
    let branch = clone.branch.as_deref().unwrap_or("main");
    let format = format!("--object-format={}", clone.format);
    let branch_option = format!("--initial-branch={branch}");
    Git::discover(host, at).run(["init", "--quiet", "--template=", &format, &branch_option])?;
    let directory = at.join(".git");
    let git = Git::open(host, &directory, Some(at));
    unpack(&git, fleet, &clone.delivery)?;
    let mut updates = String::new();
    for (name, commit) in &clone.refs {
        let _ = writeln!(updates, "create {name} {commit}");
    }
    git.run_with_input(["update-ref", "--stdin"], updates.into_bytes())?;
    if clone.branch.is_none() {
        git.run(["update-ref", "--no-deref", "HEAD", &clone.head])?;
    }
    if let Some(origin) = &clone.origin {
        let merge = format!("refs/heads/{branch}");
        let (remote_key, merge_key) = (format!("branch.{branch}.remote"), format!("branch.{branch}.merge"));
        let mut settings = vec![
            ("remote.origin.url", origin.as_str()),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
        ];
        if clone.branch.is_some() {
            settings.extend([(remote_key.as_str(), "origin"), (merge_key.as_str(), merge.as_str())]);
        }
        for (key, value) in settings {
            git.run(["config", "--local", "--", key, value])?;
        }
    }
    git.run(["reset", "--hard", "--quiet"])?;
    let found = git.line(["rev-parse", "--verify", "HEAD^{commit}"])?;
    if found != clone.head {
        return Err(BundleError::Unusable("the bundle has another commit than the clone".to_owned()));
    }
    let root = Root::open(at)?;
    if let Some((file, text)) = manifest
        && let Some(below) = file.parent()
    {
        root.create_directories(below)?;
        root.create_new(file, text.as_bytes())?;
    }
    Ok(root.sync_file_system()?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::public_address;

    #[test]
    fn address_of_a_clone_has_no_password() {
        for (address, expected) in [
            ("https://me:secret@host/x.git", "https://host/x.git"),
            ("https://token@host/x.git", "https://host/x.git"),
            ("https://host/x@y.git", "https://host/x@y.git"),
            ("ssh://git:secret@host:22/x.git", "ssh://git@host:22/x.git"),
            ("git@host:x.git", "git@host:x.git"),
            ("../x.git", "/a/b/../x.git"),
            ("/srv/x.git", "/srv/x.git"),
        ] {
            assert_eq!(public_address(address, Path::new("/a/b")), expected, "{address}");
        }
    }
}
