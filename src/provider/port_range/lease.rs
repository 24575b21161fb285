//! Leases and releases blocks, first in the host-wide registry, then as a lock file of the reference implementation in
//! the workspace.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Block;
use crate::host::failpoint::crashpoint;
use crate::host::leases::{self, Lease, Leased};
use crate::host::{clock, files};
use crate::name::{PortBlock, sha256_hex};
use crate::provider::error::of_leases;
use crate::provider::{Condition, Error, Location, Task, retry_while_missing};

/// Size limit of a lock file, in bytes.
const LOCK_MAX: usize = 64 * 1024;

/// Digits of the hash of a session's id in the name of its lock file, while the lock file is aside.
const ASIDE_DIGITS: usize = 16;

/// Content of a lock file: the four fields of the reference implementation, and the owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lock {
    session_id: String,
    allocated_at: String,
    start_port: u32,
    end_port: u32,
    owner: Option<String>,
}

pub(super) fn provision(task: &Task<'_>) -> Result<(), Error> {
    let (block, ports) = block(task)?;
    let (root, directory, name) = location(task, &block)?;
    let path = directory.join(&name);
    // A session's lock file is written after its first grant and removed before the lease is revoked.
    let had = read(&root, &path)?.is_some_and(|lock| is_own(task, &lock));
    let grant = if had { leases::grant_again } else { leases::grant };
    grant(task.host, &lease(task, ports), task.ancestors).map_err(of_leases)?;
    crashpoint!("lease.granted");
    let lock = Lock {
        session_id: task.session.to_owned(),
        allocated_at: clock::now(),
        start_port: block.start_port,
        end_port: block.end_port,
        owner: Some(task.owner.to_owned()),
    };
    let mut bytes = serde_json::to_vec(&lock).map_err(|error| Error::Refused(error.to_string()))?;
    bytes.push(b'\n');
    // The directory is removed with its last lock file, which may be released between the two steps.
    let created =
        retry_while_missing(|| Ok(root.create_hidden(&directory)?.create_new(Path::new(&name), &bytes)?))?;
    if created || holds(task, &root, &path)? {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "{} belongs to another program; ports {ports} are not free",
        root.path().join(path).display()
    )))
}

/// Returns a line for the lease if it is granted, aside or not, or if that cannot be determined.
pub(super) fn manual_cleanup(task: &Task<'_>) -> Vec<String> {
    let Ok((_, ports)) = block(task) else { return Vec::new() };
    let own = lease(task, ports);
    let is_gone = leases::all(task.host).is_ok_and(|leases| !leases.contains(&own));
    if is_gone { Vec::new() } else { vec![format!("lease of ports {ports}")] }
}

pub(super) fn inspect(task: &Task<'_>) -> Result<Condition, Error> {
    let (block, ports) = block(task)?;
    if !leases::is_granted(task.host, &lease(task, ports)).map_err(of_leases)? {
        return Ok(Condition::Repairable(format!("the lease of ports {ports} does not exist")));
    }
    let (root, directory, name) = location(task, &block)?;
    if !holds(task, &root, &directory.join(name))? {
        return Ok(Condition::Repairable(format!("the lock file of ports {ports} does not exist")));
    }
    Ok(Condition::Healthy)
}

/// Sets the lock file and the lease aside: only new leases of this swarm may have the ports.
pub(super) fn give_way(task: &Task<'_>) -> Result<(), Error> {
    let (block, ports) = block(task)?;
    let (root, directory, name) = location(task, &block)?;
    leases::set_aside(task.host, &lease(task, ports)).map_err(of_leases)?;
    crashpoint!("lease.aside");
    rename_lock(task, &root, &directory.join(&name), &directory.join(aside_of(task, &name)))
}

/// Undoes [`give_way`].
pub(super) fn bring_back(task: &Task<'_>) -> Result<(), Error> {
    let (block, ports) = block(task)?;
    let (root, directory, name) = location(task, &block)?;
    rename_lock(task, &root, &directory.join(aside_of(task, &name)), &directory.join(&name))?;
    crashpoint!("lease.unlocked-back");
    leases::bring_back(task.host, &lease(task, ports)).map_err(of_leases)
}

/// Releases the block, or the part of it that is aside.
pub(super) fn release(task: &Task<'_>) -> Result<(), Error> {
    let (block, ports) = block(task)?;
    let (root, directory, mut name) = location(task, &block)?;
    if task.location == Location::Aside {
        name = aside_of(task, &name);
    }
    let path = directory.join(name);
    if read(&root, &path)?.is_some_and(|lock| is_own(task, &lock)) {
        root.remove_file(&path)?;
    }
    crashpoint!("lease.unlocked");
    root.remove_hidden(&directory)?;
    crashpoint!("lease.unhidden");
    revoke(task, &lease(task, ports))
}

/// Returns the name of a lock file that is aside. Another session may have one of the same block.
fn aside_of(task: &Task<'_>, name: &str) -> String {
    let session = sha256_hex(task.session.as_bytes());
    format!(".aside-{}-{}-{name}", task.owner, &session[..ASIDE_DIGITS])
}

fn rename_lock(task: &Task<'_>, root: &files::Root, from: &Path, to: &Path) -> Result<(), Error> {
    if read(root, from)?.is_some_and(|lock| is_own(task, &lock)) {
        root.rename(from, to)?;
    }
    Ok(())
}

/// Returns the directories that may contain leftovers: the lock directory, those above it that a run may have made, and
/// the registry.
pub(super) fn temporary_file_directories(task: &Task<'_>) -> Result<Vec<PathBuf>, Error> {
    let (block, _) = block(task)?;
    let (root, directory, _) = location(task, &block)?;
    let mut temporary_file_directories: Vec<_> =
        directory.ancestors().map(|above| root.path().join(above)).collect();
    temporary_file_directories.push(task.host.state.join(leases::DIRECTORY));
    Ok(temporary_file_directories)
}

/// Returns whether the lock file of the ports is in the task's workspace and belongs to its session.
pub(super) fn has_ownership_marker(task: &Task<'_>) -> Result<bool, Error> {
    let (block, _) = block(task)?;
    let (root, directory, mut name) = location(task, &block)?;
    if task.location == Location::Aside {
        name = aside_of(task, &name);
    }
    let is_here = root.path().join(&directory).starts_with(task.workspace);
    Ok(is_here && read(&root, &directory.join(name))?.is_some_and(|lock| is_own(task, &lock)))
}

/// Rewrites the lease to name the task's workspace.
pub(super) fn rebind(task: &Task<'_>) -> Result<(), Error> {
    let (_, ports) = block(task)?;
    leases::rebind(task.host, &lease(task, ports)).map_err(of_leases)
}

/// Removes the lock file that a copy of the workspace has from the swarm whose ownership marker is `from`.
pub(super) fn unlock_copy(task: &Task<'_>, from: &str) -> Result<(), Error> {
    let (block, _) = block(task)?;
    let original = Task { owner: from, ..*task };
    if has_ownership_marker(&original)? {
        let (root, directory, name) = location(task, &block)?;
        root.remove_file(&directory.join(name))?;
        root.remove_hidden(&directory)?;
    }
    Ok(())
}

/// Revokes the lease of a workspace that does not exist any more, or the part of it that is aside.
pub(super) fn forget(task: &Task<'_>) -> Result<(), Error> {
    let (_, ports) = block(task)?;
    revoke(task, &lease(task, ports))
}

fn revoke(task: &Task<'_>, lease: &Lease) -> Result<(), Error> {
    match task.location {
        Location::Home => leases::revoke(task.host, lease),
        Location::Aside => leases::revoke_aside(task.host, lease),
    }
    .map_err(of_leases)
}

fn block(task: &Task<'_>) -> Result<(Block, PortBlock), Error> {
    let block = Block::from_allocation(task.allocation);
    let ports = block.as_ref().and_then(Block::ports);
    block
        .zip(ports)
        .ok_or_else(|| Error::Refused(format!("the port allocation of {} cannot be read", task.session)))
}

fn lease(task: &Task<'_>, ports: PortBlock) -> Lease {
    let workspace = task.workspace.to_owned();
    Lease::new(task.session.to_owned(), task.owner.to_owned(), workspace, Leased::Ports(ports))
}

/// Returns the root from which the lock directory is reached, the directory below it, and the lock file's name.
fn location(task: &Task<'_>, block: &Block) -> Result<(files::Root, PathBuf, String), Error> {
    let name = block.lock_path.file_name().map(|name| name.to_string_lossy().into_owned());
    let directory = block.lock_path.parent();
    let (Some(directory), Some(name)) = (directory, name) else {
        return Err(Error::Refused(format!("{} names no lock file", block.lock_path.display())));
    };
    let (root, directory) = files::Root::toward(task.workspace, directory)?;
    Ok((root, directory, name))
}

/// Returns whether the lock file reserves the ports for this session. It is the session's own, or that of an ancestor
/// from which the session has a share.
fn holds(task: &Task<'_>, root: &files::Root, path: &Path) -> Result<bool, Error> {
    Ok(read(root, path)?.is_some_and(|lock| {
        is_own(task, &lock)
            || lock.owner.as_deref() == Some(task.owner) && task.ancestors.contains(&lock.session_id.as_str())
    }))
}

fn is_own(task: &Task<'_>, lock: &Lock) -> bool {
    lock.owner.as_deref() == Some(task.owner) && lock.session_id == task.session
}

/// Reads the lock file; `None` if it does not exist or cannot be read. Anything else at its path is not ours.
fn read(root: &files::Root, path: &Path) -> Result<Option<Lock>, Error> {
    match root.read(path, LOCK_MAX) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())),
        Err(files::Error::Irregular { .. } | files::Error::TooLarge { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
