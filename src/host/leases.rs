//! The host-wide registry of leases of ports and of items of pools, so that two clones of one repository never use the
//! same port or item.
//!
//! Each lease is one file in `STATE/leases`. Changes require the flock of `STATE/leases/.guard`. A lease ends when it
//! is revoked, never because a process has ended: the command line exits while its leases remain.
//!
//! The name of a file, `START-END.MARK.json` or `item-HASH.MARK.json`, records its [`Key`] and, by a hash, the owner.
//! The content is only information for users. A file with torn content therefore still reserves its ports or item, and
//! its session can still revoke it.
//!
//! Each lease is also published to the other users of the host, see [`others`].
//!
//! A lease that a run is about to revoke is set aside, as `….MARK.aside.json`. Its ports or item are free for new leases
//! of the same owner, and for no other owner.

mod leased;
mod probe;
mod published;

use std::fs::File;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub use leased::{Key, Leased};
pub use probe::probe;
pub(crate) use published::Complete;
pub use published::{Published, obstacle, others, shared_directory};

use self::published::Shared;
use crate::host::failpoint::failpoint;
use crate::host::{Host, files, listeners};
use crate::name::{PortBlock, sha256_hex};

/// Version of the format of lease files.
pub const SCHEMA_VERSION: u32 = 2;

/// Name of the registry's directory in the state directory.
pub(crate) const DIRECTORY: &str = "leases";
/// Name of the file whose flock orders changes.
const GUARD: &str = ".guard";
/// Suffix of the names of lease files.
const SUFFIX: &str = ".json";
/// Suffix of the names of leases that are set aside.
const ASIDE: &str = ".aside.json";
/// Largest lease file that is read, in bytes. A lease has about 300 bytes; two paths of the greatest length still fit.
const FILE_LIMIT: usize = 64 * 1024;
/// Number of hexadecimal digits of the hash, 64 bits. The hashed owner is random, so no process can target another's
/// file name.
const MARK_DIGITS: usize = 16;

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Lease {
    /// Version of the format of this file, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Id of the session.
    pub session: String,
    /// Ownership marker of the session's swarm.
    pub owner: String,
    /// Absolute path of the workspace root, for messages.
    pub workspace: std::path::PathBuf,
    /// Ports or item that the lease reserves.
    pub resource: Leased,
}

impl Lease {
    /// Returns a lease in the current version of the format.
    pub fn new(session: String, owner: String, workspace: std::path::PathBuf, resource: Leased) -> Self {
        Self { schema_version: SCHEMA_VERSION, session, owner, workspace, resource }
    }

    /// Returns the leased ports; `None` for an item.
    pub fn ports(&self) -> Option<PortBlock> {
        match self.resource {
            Leased::Ports(block) => Some(block),
            Leased::Item { .. } | Leased::UnreadableItem(_) => None,
        }
    }
}

/// Reason for which a lease was not granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another lease includes one of the ports, or the item.
    #[error("{} to {session} of {}", wanted.conflict(*held), workspace.display())]
    Leased {
        /// Requested ports or item.
        wanted: Leased,
        /// Ports or item of the conflicting lease.
        held: Key,
        /// Session that owns the conflicting lease.
        session: String,
        /// Workspace of that session.
        workspace: std::path::PathBuf,
    },
    /// Another user, or another state directory of this user, has published a lease of one of the ports, or of the item.
    #[error("{} to a session of {holder}", wanted.conflict(*held))]
    Published {
        /// Requested ports or item.
        wanted: Leased,
        /// Ports or item of the conflicting lease.
        held: Key,
        /// Owner of the conflicting lease.
        holder: String,
    },
    /// A socket is bound to one of the ports.
    #[error(
        "ports {wanted} are not free: {protocol} port {port} is in use{}",
        if holder.is_empty() { " by a process" } else { holder }
    )]
    Bound {
        /// Requested ports.
        wanted: PortBlock,
        /// Port that is in use.
        port: u16,
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// ` by pid NUMBER (COMMAND)`; empty if unknown.
        holder: String,
    },
    /// The registry could not be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The registry could not be locked.
    #[error("cannot lock the registry of leases: {0}")]
    Lock(std::io::Error),
}

/// Returns every lease of this host: ports in order of the first one, then items. Files that are no leases are skipped.
///
/// A file with the name of a lease whose content is not that lease is returned as `unknown (FILE)`, without an owner:
/// its ports or item may be in use.
pub fn all(host: &Host) -> Result<Vec<Lease>, files::Error> {
    let Some(registry) = open(host)? else { return Ok(Vec::new()) };
    let mut leases: Vec<Lease> =
        entries(&registry)?.into_iter().filter_map(|(key, name)| read(&registry, key, &name)).collect();
    leases.sort_by(|a, b| (&a.resource, &a.session, &a.owner).cmp(&(&b.resource, &b.session, &b.owner)));
    Ok(leases)
}

/// Returns whether exactly this lease is granted, according to the only file that would record it.
pub fn is_granted(host: &Host, lease: &Lease) -> Result<bool, Error> {
    let own = file_of(lease);
    let Some(registry) = open(host)? else { return Ok(false) };
    Ok(read(&registry, lease.resource.key(), &own).is_some_and(|held| held == *lease))
}

/// Grants a lease, under the guard. Granting a lease that this session already has is no error.
///
/// No lease of another session may include one of its ports, or its item, except leases of the same owner's `ancestors`
/// and descendants. No process may be bound to one of its ports. Ports in a lease of the same owner that is set aside
/// are not probed.
pub fn grant(host: &Host, lease: &Lease, ancestors: &[&str]) -> Result<(), Error> {
    claim(host, lease, ancestors, true)
}

/// Grants a lease that this session had before it was lost. Ports are not probed: the session may be using them.
pub fn grant_again(host: &Host, lease: &Lease, ancestors: &[&str]) -> Result<(), Error> {
    claim(host, lease, ancestors, false)
}

fn claim(host: &Host, lease: &Lease, ancestors: &[&str], probes: bool) -> Result<(), Error> {
    let (wanted, own) = (lease.resource.key(), file_of(lease));
    let registry = create(host)?;
    let _guard = lock(&registry)?;
    // Also locked during the probe, which would detect the probe of another user.
    let published = Shared::locked(host);

    let mut shared = false;
    let mut given_up = false;
    let held = entries(&registry)?;
    let leases = || held.iter().map(|(_, name)| entry_of(name)).collect();
    for (held, name) in held.iter().cloned() {
        if !held.overlaps(wanted) {
            continue;
        }
        let Some(other) = read(&registry, held, &name) else { continue };
        if is_aside(&name) && other.owner == lease.owner {
            // Listeners on these ports belong to the session that releases them, and end with its teardown.
            given_up |= held.contains(wanted);
            continue;
        }
        if name == own {
            if other != *lease {
                registry.replace(Path::new(&own), &bytes_of(&registry, lease)?)?;
            }
            if let Some(published) = published {
                // If this fails, `doctor` reports it.
                let _ = published.publish(host, &entry_of(&own), &leases());
            }
            return Ok(());
        }
        let ancestor = ancestors.contains(&other.session.as_str());
        // A lost lease is granted again while shares of it are still leased.
        let below = other.session.strip_prefix(&lease.session).is_some_and(|rest| rest.starts_with('/'));
        if other.owner != lease.owner || !(ancestor || below || other.session == lease.session) {
            let wanted = lease.resource.clone();
            return Err(Error::Leased { wanted, held, session: other.session, workspace: other.workspace });
        }
        shared |= ancestor && held.contains(wanted);
    }
    if let Key::Ports(wanted) = wanted
        && probes
        && !given_up
    {
        probe(wanted).map_err(|(port, protocol)| {
            host.bound.note(port, protocol);
            Error::Bound { wanted, port, protocol, holder: listeners::holder(port, protocol) }
        })?;
    }
    if !registry.create_new(Path::new(&own), &bytes_of(&registry, lease)?)? {
        return Err(files::Error::Irregular { path: registry.path().join(own) }.into());
    }
    let Some(published) = published else { return Ok(()) };
    let _ = published.publish(host, &entry_of(&own), &leases());
    if shared || given_up {
        return Ok(());
    }
    let Some(Published { key: held, holder }) =
        others(host).into_iter().find(|other| other.key.overlaps(wanted))
    else {
        return Ok(());
    };
    registry.remove_file(Path::new(&own))?;
    published.withdraw(host, &entry_of(&own));
    Err(Error::Published { wanted: lease.resource.clone(), held, holder })
}

/// Revokes the lease of this owner, session and resource, if it exists.
pub fn revoke(host: &Host, lease: &Lease) -> Result<(), Error> {
    let own = file_of(lease);
    remove(host, &own)
}

/// Sets a lease aside, if it exists.
pub fn set_aside(host: &Host, lease: &Lease) -> Result<(), Error> {
    let own = file_of(lease);
    rename(host, &own, &aside_of(&own))
}

/// Brings back a lease that was set aside, if it exists.
pub fn bring_back(host: &Host, lease: &Lease) -> Result<(), Error> {
    let own = file_of(lease);
    rename(host, &aside_of(&own), &own)
}

/// Revokes a lease that was set aside, if it exists.
pub fn revoke_aside(host: &Host, lease: &Lease) -> Result<(), Error> {
    let own = file_of(lease);
    remove(host, &aside_of(&own))
}

fn rename(host: &Host, from: &str, to: &str) -> Result<(), Error> {
    let Some(registry) = open(host)? else { return Ok(()) };
    let _guard = lock(&registry)?;
    // Anything but a file is not seedbed's, and is not moved.
    if registry.read(Path::new(from), FILE_LIMIT)?.is_some() {
        registry.rename(Path::new(from), Path::new(to))?;
    }
    Ok(())
}

fn remove(host: &Host, name: &str) -> Result<(), Error> {
    let Some(registry) = open(host)? else { return Ok(()) };
    let _guard = lock(&registry)?;
    registry.remove_file(Path::new(name))?;
    // The same ports may have both a new lease and one that is set aside.
    let entry = entry_of(name);
    if !published::has_lease(&host.state, &entry)
        && let Some(published) = Shared::locked(host)
    {
        published.withdraw(host, &entry);
    }
    Ok(())
}

/// Rewrites the lease of this owner, session and resource, set aside or not, because its workspace was moved.
pub fn rebind(host: &Host, lease: &Lease) -> Result<(), Error> {
    let own = file_of(lease);
    let Some(registry) = open(host)? else { return Ok(()) };
    let _guard = lock(&registry)?;
    for name in [aside_of(&own), own] {
        if read(&registry, lease.resource.key(), &name).is_some_and(|held| held != *lease) {
            registry.replace(Path::new(&name), &bytes_of(&registry, lease)?)?;
        }
    }
    Ok(())
}

/// Opens the registry; `None` if nothing was ever leased on this host. A link in its place is an error.
fn open(host: &Host) -> Result<Option<files::Root>, files::Error> {
    match files::Root::open_if_any(&host.state)? {
        Some(state) => state.directory(Path::new(DIRECTORY)),
        None => Ok(None),
    }
}

fn create(host: &Host) -> Result<files::Root, files::Error> {
    let path = host.state.join(DIRECTORY);
    files::Root::create_private(&host.state)?;
    files::Root::create(&path)?;
    open(host)?.ok_or_else(|| files::Error::Io {
        action: "open",
        path,
        source: std::io::ErrorKind::NotFound.into(),
    })
}

/// Excludes every other change until the file is dropped. The work under the lock is limited, so waiting is limited
/// too.
fn lock(registry: &files::Root) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let guard = failpoint!("leases.guard")
        .and_then(|()| rustix::fs::open(registry.path().join(GUARD), flags, mode))
        .map_err(|errno| Error::Lock(errno.into()))?;
    let guard = File::from(guard);
    guard.lock().map_err(Error::Lock)?;
    Ok(guard)
}

/// Returns the keys and names of all files whose names have the form of lease files.
fn entries(registry: &files::Root) -> Result<Vec<(Key, String)>, files::Error> {
    let names = registry.names()?.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter_map(|name| Some((key_of(&name)?, name))).collect())
}

/// Returns the lease in a file; `None` if the file does not exist or cannot be seedbed's.
///
/// Seedbed never writes a FIFO, a link, a directory or a file of another user.
fn read(registry: &files::Root, key: Key, name: &str) -> Option<Lease> {
    let content = match registry.read(Path::new(name), FILE_LIMIT) {
        Ok(Some(bytes)) => serde_json::from_slice::<Lease>(&bytes).ok(),
        Ok(None)
        | Err(files::Error::Link { .. } | files::Error::Irregular { .. } | files::Error::Outside { .. }) => {
            return None;
        }
        Err(
            files::Error::TooLarge { .. }
            | files::Error::Shared { .. }
            | files::Error::Mounted { .. }
            | files::Error::Io { .. },
        ) => None,
    };
    let lease = content.filter(|lease| {
        let expected = file_of(lease);
        lease.schema_version == SCHEMA_VERSION && (expected == name || aside_of(&expected) == name)
    });
    Some(lease.unwrap_or_else(|| Lease {
        schema_version: SCHEMA_VERSION,
        session: format!("unknown ({name})"),
        owner: String::new(),
        workspace: registry.path().to_owned(),
        resource: match key {
            Key::Ports(block) => Leased::Ports(block),
            Key::Item(key) => Leased::UnreadableItem(key),
        },
    }))
}

/// Returns the name of a lease's file.
fn file_of(lease: &Lease) -> String {
    let hash = sha256_hex(format!("{}\0{}", lease.owner, lease.session).as_bytes());
    format!("{}.{}{SUFFIX}", lease.resource.key(), &hash[..MARK_DIGITS])
}

/// Returns the name of a lease's file while the lease is set aside.
fn aside_of(name: &str) -> String {
    format!("{}{ASIDE}", name.strip_suffix(SUFFIX).unwrap_or(name))
}

/// Returns the name under which a lease is published, set aside or not.
fn entry_of(name: &str) -> String {
    name.strip_suffix(ASIDE).or_else(|| name.strip_suffix(SUFFIX)).unwrap_or(name).to_owned()
}

fn is_aside(name: &str) -> bool {
    name.ends_with(ASIDE)
}

/// Returns the key in the name of a lease file; `None` for any other name.
pub fn key_of(name: &str) -> Option<Key> {
    let (key, mark) = name.strip_suffix(ASIDE).or_else(|| name.strip_suffix(SUFFIX))?.split_once('.')?;
    let marked =
        mark.len() == MARK_DIGITS && mark.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    Key::parse(key).filter(|_| marked)
}

fn bytes_of(registry: &files::Root, lease: &Lease) -> Result<Vec<u8>, files::Error> {
    let mut bytes = serde_json::to_vec_pretty(lease).map_err(|error| files::Error::Io {
        action: "write a lease in",
        path: registry.path().to_owned(),
        source: error.into(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
