//! Keeps commits of a run over several hosts from Git's garbage collection.
//!
//! A commit that no ref of the user reaches is named by `refs/seedbed/fleet/SWARM/COMMIT`, from before the run prepares until
//! no session of the swarm was made from it. So the commits of a session that are not its own are no unsaved work.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::git::scratch::Scratch;
use crate::host::git::{Git, is_object_id};
use crate::host::process;
use crate::state::{Error, LockedSwarm};

/// Name that the temporary directories of new objects repeat, in the directory of objects.
pub(crate) const INCOMING: &str = "seedbed-incoming";

/// Name of the temporary repository in which objects are received.
pub(crate) const SCRATCH: &str = "receive";

/// Records the repositories in which commits are about to be kept, by their common Git directories.
pub(crate) fn begin(swarm: &LockedSwarm<'_>, mut repositories: BTreeSet<PathBuf>) -> Result<(), Error> {
    repositories.extend(swarm.kept_in()?);
    swarm.begin_keeping(repositories)?;
    crashpoint!("fleet.keeping");
    Ok(())
}

/// Keeps commits of a repository.
pub(crate) fn keep(
    swarm: &LockedSwarm<'_>,
    repository: &Path,
    commits: &BTreeSet<String>,
) -> Result<(), process::Error> {
    let prefix = swarm.kept_refs();
    let updates = commits.iter().map(|commit| format!("update {prefix}{commit} {commit}\n"));
    let updates = updates.collect::<Vec<_>>().concat();
    Git::open(swarm.host(), repository, None)
        .run_with_input(["update-ref", "--stdin"], updates.into_bytes())?;
    crashpoint!("fleet.kept");
    Ok(())
}

/// Removes the refs of commits from which no session of the applied swarm was made, and the objects of a bundle that a killed
/// process did not finish. A repository that cannot be used is left to the next recovery.
pub(super) fn release(swarm: &LockedSwarm<'_>) -> Result<(), Error> {
    let kept_in = swarm.kept_in()?;
    if kept_in.is_empty() {
        return Ok(());
    }
    Scratch::sweep(swarm.host(), SCRATCH)?;
    let applied = swarm.applied()?;
    let mut needed = BTreeSet::new();
    for session in applied.iter().flat_map(|record| &record.plan.sessions) {
        session
            .allocations
            .iter()
            .flat_map(|held| held.allocation.values())
            .for_each(|of| ids(of, &mut needed));
    }
    let mut is_done = true;
    for repository in kept_in {
        let Some(root) = Root::open_if_any(&repository)? else { continue };
        if let Some(objects) = root.directory(Path::new("objects"))? {
            for abandoned in objects.abandoned(OsStr::new(INCOMING))? {
                objects.remove_all(abandoned.name.as_ref())?;
            }
        }
        is_done &= remove_refs(swarm, &repository, &needed).unwrap_or(false);
        // Git leaves this directory.
        root.remove_directory(Path::new("refs/seedbed"))?;
    }
    if is_done { swarm.end_keeping() } else { Ok(()) }
}

/// Adds the texts of an allocation that are object ids.
fn ids<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
    match value {
        Value::String(text) if is_object_id(text) => {
            found.insert(text);
        }
        Value::Array(values) => values.iter().for_each(|value| ids(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| ids(value, found)),
        _ => {}
    }
}

/// Removes the refs of other commits than the needed ones. Returns whether no ref is left.
fn remove_refs(
    swarm: &LockedSwarm<'_>,
    repository: &Path,
    needed: &BTreeSet<&str>,
) -> Result<bool, process::Error> {
    let git = Git::open(swarm.host(), repository, None);
    let refs = git.run(["for-each-ref", "--format=%(refname)", &swarm.kept_refs()])?;
    let mut is_empty = true;
    for name in String::from_utf8_lossy(&refs).lines() {
        if name.rsplit('/').next().is_some_and(|commit| needed.contains(commit)) {
            is_empty = false;
            continue;
        }
        git.run_beside_others(&["update-ref", "-d", name])?;
        crashpoint!("fleet.released");
    }
    Ok(is_empty)
}
