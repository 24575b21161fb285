//! Bundles of Git, through which hosts get commits that they lack: one for each repository and set of commits.
//!
//! ```text
//! DIR/bundles/NAME.bundle   bundle; NAME is a digest of the commits in it and of those that it continues
//! DIR/bundles/NAME.json     its size and its digest; written after the bundle
//! ```
//!
//! The coordinator makes a bundle before the hosts prepare their parts, and removes those that the run does not need: every
//! earlier run is decided. The directory may be writable by others, so that a host checks the objects and the commit ids.
#![expect(clippy::disallowed_methods, reason = "reads a bundle again that was written")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FleetPlan, PlannedCommit, PlannedShard, SCHEMA_VERSION};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::git::Git;
use crate::host::git::bundle::{self, BundledCommit};
use crate::host::process;
use crate::name::{Sha256Hasher, sha256_hex};
use crate::observe::Observation;

/// Directory of bundles in that of the fleet.
pub(super) const BUNDLES: &str = "bundles";

/// Largest record of a bundle that is read, in bytes.
const RECORD_MAX: usize = 1 << 16;

/// Commits of one repository that a host gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Delivery {
    /// Name of the repository; empty for the workspace's own.
    pub repository: String,
    /// Commits of the plan that the host lacks, in order.
    pub tips: Vec<String>,
    /// Commits that the host has, and that the bundle continues, in order; empty if it has the complete history.
    pub beyond: Vec<String>,
    /// Number of commits in the bundle.
    pub commits: u64,
    /// Size of the objects in the coordinator's repository, in bytes; the bundle has about this size.
    pub bytes: u64,
    /// Reason for which the coordinator cannot make the bundle, one line; absent if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Bundle that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Made {
    schema_version: u32,
    /// Size of the file, in bytes.
    bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    sha256: String,
}

/// Reason for which commits cannot be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file could not be accessed.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The state directory could not be used.
    #[error(transparent)]
    State(#[from] crate::state::Error),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] process::Error),
    /// A host lacks commits, and gets none that it can use.
    #[error("{0}")]
    Unusable(String),
}

impl From<bundle::BundleError> for BundleError {
    fn from(error: bundle::BundleError) -> Self {
        match error {
            bundle::BundleError::Git(error) => error.into(),
            error => Self::Unusable(error.to_string()),
        }
    }
}

impl Delivery {
    /// Returns the name of the files of the bundle, without their extensions.
    pub(super) fn name(&self) -> String {
        let content = serde_json::to_vec(&(SCHEMA_VERSION, &self.tips, &self.beyond)).unwrap_or_default();
        sha256_hex(&content)[..32].to_owned()
    }
}

/// Adds to a plan the commits that each host gets from this one, with their number and size. `own` is the observation of
/// this host.
pub fn add_deliveries(host: &Host, own: &Observation, plan: &mut FleetPlan) -> Result<(), process::Error> {
    let mut known: BTreeMap<(String, Vec<String>, BTreeSet<String>), Delivery> = BTreeMap::new();
    for shard in &mut plan.shards {
        let mut lacking: BTreeMap<&str, Vec<&PlannedCommit>> = BTreeMap::new();
        let has_changes = shard.plan.as_ref().is_some_and(crate::plan::Plan::has_changes);
        for commit in shard.commits.iter().filter(|_| has_changes) {
            lacking.entry(&commit.repository).or_default().push(commit);
        }
        for (repository, commits) in lacking {
            let tips: BTreeSet<_> =
                commits.iter().filter(|of| !of.is_present).map(|of| of.commit.clone()).collect();
            if tips.is_empty() {
                continue;
            }
            let tips: Vec<_> = tips.into_iter().collect();
            let on_host = commits.iter().filter_map(|of| of.on_host.clone()).collect();
            let key = (repository.to_owned(), tips, on_host);
            let delivery = if let Some(delivery) = known.get(&key) {
                delivery.clone()
            } else {
                let delivery = delivery(host, own, &key.0, &key.1, &key.2)?;
                known.insert(key, delivery.clone());
                delivery
            };
            shard.deliveries.push(delivery);
        }
    }
    Ok(())
}

/// Returns the commits `tips` of a repository for a host that has those of `on_host`.
fn delivery(
    host: &Host,
    own: &Observation,
    repository: &str,
    tips: &[String],
    on_host: &BTreeSet<String>,
) -> Result<Delivery, process::Error> {
    let Some(directory) = source(own, repository) else {
        let refused = Some("this host has no such repository".to_owned());
        let (repository, tips) = (repository.to_owned(), tips.to_vec());
        return Ok(Delivery { repository, tips, beyond: Vec::new(), commits: 0, bytes: 0, refused });
    };
    delivery_from(host, directory, repository, tips, on_host)
}

/// Returns the commits `tips` as [`delivery`] does, from the repository with this common Git directory.
pub(super) fn delivery_from(
    host: &Host,
    directory: &Path,
    repository: &str,
    tips: &[String],
    on_host: &BTreeSet<String>,
) -> Result<Delivery, process::Error> {
    let mut delivery = Delivery {
        repository: repository.to_owned(),
        tips: tips.to_vec(),
        beyond: Vec::new(),
        commits: 0,
        bytes: 0,
        refused: None,
    };
    let git = Git::open(host, directory, None);
    delivery.refused = refusal(&git, tips)?;
    if delivery.refused.is_some() {
        return Ok(delivery);
    }
    let known = |commit: &&String| {
        git.output(["cat-file", "-e", &format!("{commit}^{{commit}}")])
            .is_ok_and(|found| found.status.success())
    };
    let beyond: Vec<_> = on_host.iter().filter(known).cloned().collect();
    let count = |beyond: &[String], options: &[&str]| {
        let mut args: Vec<&str> = [&["rev-list"], options].concat();
        args.extend(tips.iter().map(String::as_str));
        args.push("--not");
        args.extend(beyond.iter().map(String::as_str));
        Ok::<u64, process::Error>(git.line(args)?.parse().unwrap_or(0))
    };
    delivery.commits = count(&beyond, &["--count"])?;
    // Git makes no bundle without commits. The host has these, but not all that they lead to.
    if delivery.commits > 0 {
        delivery.beyond = beyond;
    } else {
        delivery.commits = count(&[], &["--count"])?;
    }
    delivery.bytes = count(&delivery.beyond, &["--objects", "--disk-usage"])?;
    Ok(delivery)
}

/// Returns the common Git directory of a repository of the coordinator; `None` if it cannot be used.
fn source<'o>(own: &'o Observation, repository: &str) -> Option<&'o Path> {
    let observed = own.repository(repository).repository.as_ref()?;
    Some(&observed.as_ref().ok()?.common_dir)
}

/// Returns the reason for which no bundle can be made of commits.
fn refusal(git: &Git<'_>, tips: &[String]) -> Result<Option<String>, process::Error> {
    if git.line(["rev-parse", "--is-shallow-repository"])? == "true" {
        return Ok(Some("this host has a shallow clone: run `git fetch --unshallow` here".to_owned()));
    }
    let partial =
        git.output(["config", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$"])?;
    if partial.status.success() {
        let why = "this host has a partial clone, which lacks objects: make a complete clone here";
        return Ok(Some(why.to_owned()));
    }
    let mut args = vec!["grep", "--quiet", "--fixed-strings", "filter=lfs"];
    args.extend(tips.iter().map(String::as_str));
    args.extend(["--", ":(glob)**/.gitattributes"]);
    if git.output(args)?.status.success() {
        let why =
            "they have files of Git LFS, which no bundle contains: run `git fetch` and `git lfs fetch` there";
        return Ok(Some(why.to_owned()));
    }
    Ok(None)
}

/// Makes the bundles of clones of the repositories around these directories, by name.
pub(super) fn make_for_clones<'d>(
    host: &Host,
    fleet: &Root,
    deliveries: impl Iterator<Item = &'d Delivery>,
    directories: &BTreeMap<String, PathBuf>,
) -> Result<(), BundleError> {
    let bundles = fleet.create_directories(Path::new(BUNDLES))?;
    for delivery in deliveries {
        let directory = directories.get(&delivery.repository);
        let git = directory.map(|directory| Git::discover(host, directory));
        make_one(git.as_ref(), &bundles, &delivery.name(), delivery)?;
    }
    Ok(())
}

/// Makes the bundles of these deliveries in the directory of a fleet, and removes all others.
pub(super) fn make(
    host: &Host,
    own: &Observation,
    fleet: &Root,
    shards: &[PlannedShard],
) -> Result<(), BundleError> {
    let needed: BTreeMap<String, &Delivery> = shards
        .iter()
        .flat_map(|shard| &shard.deliveries)
        .map(|delivery| (delivery.name(), delivery))
        .collect();
    if needed.is_empty() && fleet.directory(Path::new(BUNDLES))?.is_none() {
        return Ok(());
    }
    let bundles = fleet.create_directories(Path::new(BUNDLES))?;
    for (name, delivery) in &needed {
        let git = source(own, &delivery.repository).map(|directory| Git::open(host, directory, None));
        make_one(git.as_ref(), &bundles, name, delivery)?;
    }
    for name in bundles.names()? {
        let stem = Path::new(&name).file_stem().and_then(OsStr::to_str);
        if stem.is_none_or(|stem| !needed.contains_key(stem)) {
            bundles.remove_all(Path::new(&name))?;
        }
    }
    Ok(())
}

/// Makes a bundle from the repository of `git`, unless it is complete.
fn make_one(
    git: Option<&Git<'_>>,
    bundles: &Root,
    name: &str,
    delivery: &Delivery,
) -> Result<(), BundleError> {
    let (bundle, record) = (PathBuf::from(format!("{name}.bundle")), PathBuf::from(format!("{name}.json")));
    if is_made(bundles, &bundle, &record)? {
        return Ok(());
    }
    let unusable = |why: &str| BundleError::Unusable(why.to_owned());
    let git = git.ok_or_else(|| unusable("there is no such repository"))?;
    let commits: Vec<_> = delivery
        .tips
        .iter()
        .map(|tip| BundledCommit { name: format!("refs/seedbed/{tip}"), id: tip.clone() })
        .collect();
    let temporary = bundles.make_temporary_directory(OsStr::new(name))?;
    let unfinished = Path::new(&temporary.name).join("bundle");
    let file = bundles.open_or_create(&unfinished)?;
    crashpoint!("fleet.bundling");
    let made = git.write_bundle(&commits, &delivery.beyond.iter().cloned().collect(), &file);
    let made = made.map_err(BundleError::from).and_then(|_| {
        let digest = digest(&bundles.path().join(&unfinished))?;
        bundles.rename(&unfinished, &bundle)?;
        bundles.sync()?;
        crashpoint!("fleet.packed");
        let bytes = serde_json::to_vec(&digest).unwrap_or_default();
        Ok(bundles.replace(&record, &bytes)?)
    });
    bundles.remove_all(Path::new(&temporary.name))?;
    made
}

/// Returns whether a bundle of an earlier run is complete.
fn is_made(bundles: &Root, bundle: &Path, record: &Path) -> Result<bool, BundleError> {
    let Some(bytes) = bundles.read(record, RECORD_MAX)? else { return Ok(false) };
    let Ok(made) = serde_json::from_slice::<Made>(&bytes) else { return Ok(false) };
    Ok(digest(&bundles.path().join(bundle)).is_ok_and(|found| found == made))
}

/// Makes a file durable, and returns its size and its digest.
fn digest(path: &Path) -> Result<Made, BundleError> {
    let failed = |source| files::Error::Io { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let (mut hash, mut buffer, mut bytes) = (Sha256Hasher::default(), vec![0; 1 << 16], 0);
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(Made { schema_version: SCHEMA_VERSION, bytes, sha256: hash.finish() });
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}
