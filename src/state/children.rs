//! Relations between records: children of sessions, and owners of everything.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use super::record::{COMMITTED, Record, Stage, read};
use super::recorded::{RecordedSwarm, sessions as sessions_of};
use super::{Error, SESSIONS, SWARMS};
use crate::host::Host;
use crate::host::files::Root;

/// File of the state directory that [`ChildrenGuard`] locks.
const GUARD: &str = ".guard";

/// Lock that protects the family of a session.
///
/// Under this lock, no parent is released while a child is begun, and no two children get the same number. The lock is
/// owned only briefly: from reading the active sessions until the intent is written.
#[derive(Debug)]
pub struct ChildrenGuard(File);

impl ChildrenGuard {
    /// Waits until no other process has the lock, and locks it.
    pub fn acquire(host: &Host) -> Result<Self, Error> {
        let state = Root::create_private(&host.state)?;
        let guard = state.open_or_create(Path::new(GUARD))?;
        guard.lock().map_err(|source| Error::Lock { path: state.path().join(GUARD), source })?;
        Ok(Self(guard))
    }
}

impl Drop for ChildrenGuard {
    /// Unlocks explicitly, as for the lock of a swarm: a process that has just been forked has the file open too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Returns all descendants that programs have provisioned from sessions of `record`, parents before their children.
///
/// Descendants are standalone sessions below a session of `record`, with the same ownership marker, that are active,
/// being created or being released. Fails if the record of any standalone session cannot be read: it may be such a
/// descendant.
pub fn children(host: &Host, record: &Record) -> Result<Vec<RecordedSwarm>, Error> {
    let sessions: BTreeSet<&str> = record.plan.sessions.iter().map(|session| session.id.as_str()).collect();
    let mut children = Vec::new();
    for mut found in sessions_of(host)? {
        if let Some(unreadable) = found.unreadable.pop() {
            return Err(unreadable);
        }
        let is_child = found.record().is_some_and(|child| {
            child.owner == record.owner
                && child.ancestors.iter().any(|ancestor| sessions.contains(ancestor.as_str()))
        });
        if is_child {
            children.push(found);
        }
    }
    let depth = |found: &RecordedSwarm| found.record().map_or(0, |child| child.ancestors.len());
    children.sort_by(|one, other| (depth(one), one.name()).cmp(&(depth(other), other.name())));
    Ok(children)
}

/// Returns the records of standalone sessions with this ownership marker that are active or being provisioned, in order
/// of their ids.
///
/// Reads the records of every standalone session of this host, about 3 KB each.
pub fn standalone_sessions(host: &Host, owner: &str) -> Result<Vec<Record>, Error> {
    let path = host.state.join(SESSIONS);
    let mut records = Vec::new();
    if !path.is_dir() {
        return Ok(records);
    }
    for key in Root::open(&path)?.names()? {
        // In this order, so that a record that is committed meanwhile is not missed.
        for name in [Stage::Provisioning.file(), COMMITTED] {
            let record = read::<Record>(&path.join(&key), name)?;
            records.extend(record.filter(|record| record.owner == owner && !record.plan.sessions.is_empty()));
        }
    }
    let id = |record: &Record| record.plan.sessions.first().map(|session| session.id.clone());
    records.sort_by_key(id);
    records.dedup_by_key(|record| id(record));
    Ok(records)
}

/// Returns the ownership markers of all records on this host: of swarms and standalone sessions that are applied, being
/// created or being released.
///
/// Fails if any record cannot be read, because then no lease can be proven orphaned.
pub fn owners(host: &Host) -> Result<BTreeSet<String>, Error> {
    loop {
        let before = keys(host)?;
        let owners = owners_once(host)?;
        // The records of a moved workspace are renamed, so this scan may have missed them.
        if before == keys(host)? {
            return Ok(owners);
        }
    }
}

/// Returns the names of all files and directories of swarms and sessions.
fn keys(host: &Host) -> Result<BTreeSet<OsString>, Error> {
    let mut keys = BTreeSet::new();
    for collection in [SWARMS, SESSIONS] {
        let path = host.state.join(collection);
        if path.is_dir() {
            keys.extend(Root::open(&path)?.names()?);
        }
    }
    keys.retain(|key| {
        !Path::new(key).extension().is_some_and(|extension| extension == "lock" || extension == "holder")
    });
    Ok(keys)
}

fn owners_once(host: &Host) -> Result<BTreeSet<String>, Error> {
    let mut owners = BTreeSet::new();
    for collection in [SWARMS, SESSIONS] {
        let path = host.state.join(collection);
        if !path.is_dir() {
            continue;
        }
        for key in Root::open(&path)?.names()? {
            let directory = path.join(&key);
            // In the order in which a run renames its record, so that none is missed.
            for name in [Stage::SettingAside.file(), Stage::Provisioning.file(), COMMITTED] {
                owners.extend(read::<Record>(&directory, name)?.map(|record| record.owner));
            }
        }
    }
    Ok(owners)
}
