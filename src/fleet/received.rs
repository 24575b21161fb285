//! Commits that a host receives before it prepares its part, in one bundle for each repository.
//!
//! Objects are received aside, checked as `transfer.fsckObjects` does, and moved to the others when they are complete and
//! durable. No ref of the user is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::bundle::{BUNDLES, BundleError, Delivery};
use super::{FleetDirectory, PlannedShard};
use crate::apply::kept_commits::{self, INCOMING, SCRATCH};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::git::bundle::{self, seek_pack};
use crate::host::git::scratch::{Located, Scratch};
use crate::host::git::{Git, is_object_id};
use crate::host::process;
use crate::host::text::printable;
use crate::observe::WORKSPACE_REPOSITORY;
use crate::state::LockedSwarm;

/// Largest header of a bundle, in bytes: a line for each commit.
const HEADER_MAX: u64 = 1 << 20;

/// Option that checks objects as `transfer.fsckObjects` does. Old commits of well-known repositories have these faults, which
/// harm nothing.
const STRICT: &str = "--strict=zeroPaddedFilemode=ignore,missingSpaceBeforeDate=ignore,badTimezone=ignore";

/// Repositories of a host, by name, each with a directory in it.
pub type Directories = BTreeMap<String, PathBuf>;

/// Returns those of `asked`, pairs of a repository and a commit, of which this host has the complete history.
pub fn present(
    host: &Host,
    directories: &Directories,
    asked: &[(String, String)],
) -> Result<BTreeMap<String, BTreeSet<String>>, process::Error> {
    let mut present: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (repository, commit) in asked {
        let Some(directory) = directories.get(repository) else { continue };
        if is_complete(&Git::discover(host, directory), &[commit.clone()].into(), None)? {
            present.entry(repository.clone()).or_default().insert(commit.clone());
        }
    }
    Ok(present)
}

/// Receives the commits of a host's part that the host lacks, and keeps all of them until the run is decided.
pub fn receive(
    swarm: &LockedSwarm<'_>,
    fleet: &FleetDirectory,
    directories: &Directories,
    shard: &PlannedShard,
) -> Result<(), BundleError> {
    let mut commits: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for planned in &shard.commits {
        commits.entry(&planned.repository).or_default().insert(planned.commit.clone());
    }
    let mut located = Vec::new();
    for (name, commits) in commits {
        let no_repository =
            || BundleError::Unusable(format!("{} cannot be found on this host", described(name)));
        let directory = directories.get(name).ok_or_else(no_repository)?;
        let git = Git::discover(swarm.host(), directory);
        located.push((name, commits, Located::new(&git)?.ok_or_else(no_repository)?));
    }
    let mut lacking = Vec::new();
    for (name, mut commits, located) in located {
        let git = Git::open(swarm.host(), &located.common_directory, None);
        commits.retain(|commit| !is_reachable(&git, commit, &swarm.kept_refs()));
        if !commits.is_empty() {
            lacking.push((name, commits, located));
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let repositories = lacking.iter().map(|(_, _, located)| located.common_directory.clone());
    kept_commits::begin(swarm, repositories.collect())?;
    for (name, commits, located) in &lacking {
        let git = Git::open(swarm.host(), &located.common_directory, None);
        let kept = swarm.kept_refs();
        if !is_complete(&git, commits, Some(&kept))? {
            let delivery = shard.deliveries.iter().find(|delivery| delivery.repository == **name);
            let delivery = delivery.ok_or_else(|| {
                BundleError::Unusable(format!(
                    "commits of {} that were here when the host was observed are gone: repeat the command",
                    described(name)
                ))
            })?;
            receive_one(swarm.host(), fleet, delivery, located)?;
            if !is_complete(&git, commits, Some(&kept))? {
                return Err(BundleError::Unusable(format!(
                    "the bundle of {} does not have the commits of the plan: repeat the command",
                    described(name)
                )));
            }
        }
        kept_commits::keep(swarm, &located.common_directory, commits)?;
        // Garbage collection may have removed objects before the refs existed.
        if !is_complete(&git, commits, Some(&kept))? {
            return Err(BundleError::Unusable(format!(
                "commits of {} were removed by another Git: repeat the command",
                described(name)
            )));
        }
    }
    Ok(())
}

/// Returns whether a ref of the user reaches a commit. Refs below `but` are no refs of the user.
fn is_reachable(git: &Git<'_>, commit: &str, but: &str) -> bool {
    let exclude = format!("--exclude={but}*");
    let args = ["rev-list", "--max-count=1", commit, "--not", &exclude, "--glob=refs/*"];
    is_object_id(commit)
        && git.output(args).is_ok_and(|found| found.status.success() && found.stdout.is_empty())
}

fn described(repository: &str) -> String {
    match repository {
        WORKSPACE_REPOSITORY => "the workspace's repository".to_owned(),
        name => format!("repository `{}`", printable(name)),
    }
}

/// Returns whether a repository has commits with everything that they lead to. Refs below `but` are no proof.
fn is_complete(git: &Git<'_>, commits: &BTreeSet<String>, but: Option<&str>) -> Result<bool, process::Error> {
    if !commits.iter().all(|commit| is_object_id(commit)) {
        return Ok(false);
    }
    let mut args: Vec<String> = ["rev-list", "--quiet", "--objects"].map(str::to_owned).into();
    args.extend(commits.iter().cloned());
    args.push("--not".to_owned());
    args.extend(but.map(|prefix| format!("--exclude={prefix}*")));
    args.push("--all".to_owned());
    Ok(git.output(&args)?.status.success())
}

/// Receives the objects of one bundle.
fn receive_one(
    host: &Host,
    fleet: &FleetDirectory,
    delivery: &Delivery,
    located: &Located,
) -> Result<(), BundleError> {
    let objects = Root::open(&located.objects)?;
    let scratch = Scratch::new(host, SCRATCH, located, [])?;
    let incoming = objects.make_temporary_directory(OsStr::new(INCOMING))?;
    let into = objects.path().join(&incoming.name);
    crashpoint!("fleet.receiving");
    let path = scratch.path();
    let git = Git::open(host, &path, None)
        .with_variable("GIT_OBJECT_DIRECTORY", &into)
        .with_variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", quoted(&located.objects));
    let received = unpack(&git, fleet, delivery).and_then(|()| {
        crashpoint!("fleet.received");
        place(&objects, &Path::new(&incoming.name).join("pack"))
    });
    scratch.remove()?;
    objects.remove_all(Path::new(&incoming.name))?;
    received
}

/// Indexes the pack of a bundle, and checks its objects.
pub(super) fn unpack(git: &Git<'_>, fleet: &FleetDirectory, delivery: &Delivery) -> Result<(), BundleError> {
    let name = Path::new(BUNDLES).join(format!("{}.bundle", delivery.name()));
    let shown = || printable(&fleet.path().join(&name).to_string_lossy());
    let invalid = |why: &str| BundleError::Unusable(format!("{} {why}: repeat the command", shown()));
    let (mut file, _) = fleet.root.open_to_read(&name)?.ok_or_else(|| invalid("does not exist"))?;
    seek_pack(&mut file, HEADER_MAX).map_err(|error| match error {
        bundle::BundleError::File(error) => invalid(&format!("cannot be read: {error}")),
        _ => invalid("is no bundle"),
    })?;
    // Git reads the pack from the position of the file.
    git.clone().holding(Some(&file)).run(["index-pack", "--stdin", "--fix-thin", STRICT]).map_err(
        |error| match error {
            error if error.is_answer() => invalid(&format!("cannot be used: {error}")),
            error => error.into(),
        },
    )?;
    Ok(())
}

/// Moves the files of a pack to the others. Git uses a pack once its index exists.
fn place(objects: &Root, incoming: &Path) -> Result<(), BundleError> {
    let pack = objects.create_directories(Path::new("pack"))?;
    let Some(from) = objects.directory(incoming)? else { return Ok(()) };
    let is_index = |name: &OsStr| Path::new(name).extension() == Some(OsStr::new("idx"));
    let mut names: Vec<_> = from.names()?.into_iter().collect();
    names.sort_by_key(|name| is_index(name));
    for name in names {
        from.rename_into(Path::new(&name), &pack, Path::new(&name))?;
    }
    Ok(pack.sync()?)
}

/// Quotes a path for a list of paths in a variable of Git.
fn quoted(path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut quoted = b"\"".to_vec();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    std::ffi::OsString::from_vec(quoted)
}
