//! State of this host: intents and applied plans of swarms, and their locks.
//!
//! ```text
//! STATE/swarms/NAME-HASH.lock             flock: one run a swarm at a time
//! STATE/swarms/NAME-HASH.holder           owner of the lock and since when, for messages
//! STATE/swarms/NAME-HASH/releasing.json   a run that moves aside what it releases; it has provisioned nothing yet
//! STATE/swarms/NAME-HASH/intent.json      a run that provisions; what it releases is aside
//! STATE/swarms/NAME-HASH/standing.json    the applied plan; a run whose asides still exist is finished
//! STATE/swarms/NAME-HASH/rescuing.json    a run that saves work before it releases; recovery sweeps after it
//! STATE/swarms/NAME-HASH/journal          steps of a run that provisions, each with its time; until commit or rollback
//! STATE/swarms/NAME-HASH/sessions/        canonical copies of the discovery files
//! STATE/logs/NAME-HASH/                   output of setup and teardown, until the release; after a failure, longer
//! STATE/.guard                            locked while a child of a session, or a release, is begun
//! STATE/given-up/                         what may remain of runs that were given up
//! STATE/ports/                            port leases of every swarm
//! STATE/overlays/                         layers of worktrees with `checkout = "overlay"`
//! STATE/repositories/                     changes in the shared config of repositories
//! ```
//!
//! A standalone session, without a swarm, has the same files in `STATE/sessions`, under its scoped name.
//!
//! A run writes one [`Record`] and renames it from stage to stage, so that each stage begins in one step:
//! `releasing.json`, `intent.json`, `standing.json`. A run that releases nothing begins with `intent.json`; one that
//! provisions nothing skips it. Until the last rename, recovery brings back what was moved aside and removes what was
//! provisioned. Only an interrupted `destroy` is finished instead.
//!
//! All of it is outside the checkouts, so that neither `git clean` nor a commit affects it. A run is alive while its
//! flock is owned; process ids are recorded for messages only.
#![expect(clippy::disallowed_methods, reason = "this module keeps the state on disk")]

mod found;
mod given_up;
mod journal;
mod locked;
mod rebind;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use found::{Found, Unfinished, sessions, swarms, sweep_locks};
pub use given_up::{GivenUp, GivenUpFile, Remain, given_up};
pub use journal::{Journal, Milestone};
pub use locked::Locked;
pub use rebind::is_gone;

use self::found::sessions as sessions_of;
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::{Host, clock, holders, mounts};
use crate::name::{HashDigits, SessionPath, scoped_name, sha256_hex};
use crate::plan::Plan;

/// Version of the format of record files.
pub const SCHEMA_VERSION: u32 = 2;

/// Largest record that is read, in bytes; a plan of 100,000 sessions has about 300 MB.
const RECORD_MAX: usize = 2 << 30;

/// Useful time to wait for programs that a killed run left: a checkout of a large repository takes most of a minute.
pub const ORPHANS_TIMEOUT: Duration = Duration::from_mins(1);

/// Longest time for which a lock may have no known owner.
///
/// On a busy machine, a run needs this time from locking until it has written its name, and a program from fork to
/// exec.
const SETTLING: Duration = Duration::from_secs(5);

/// Attempts for a lock without a visible owner: the owner may be in another container.
const UNSEEN_TRIES: u32 = 5;

/// Interval of attempts while waiting for a lock.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Files of one swarm in the state directory.
#[derive(Clone, Debug)]
pub struct Swarm<'h> {
    host: &'h Host,
    name: String,
    workspace: PathBuf,
    /// Directory below the state directory: [`SWARMS`] or [`SESSIONS`].
    collection: &'static str,
    key: String,
}

/// Directory of swarms.
const SWARMS: &str = "swarms";

/// Directory of standalone sessions.
const SESSIONS: &str = "sessions";

/// File of the state directory that [`FamilyGuard`] locks.
const GUARD: &str = ".guard";

/// A plan that is applied, or is about to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Record {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Ownership marker: 32 random hexadecimal digits, created when the swarm is first applied.
    pub owner: String,
    /// Absolute path of the workspace root.
    pub workspace: PathBuf,
    /// Ids of the sessions above a standalone session, nearest first, which have the same ownership marker. In a swarm,
    /// the plan lists the ancestors instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// Position among the children, for a child that a program provisioned from another session's snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildOf>,
    /// `true` if `seedbed run` created the swarm for one command. Default: `false`.
    ///
    /// The swarm is removed with everything in it when the command has ended. A later run that finds the swarm removes
    /// it too: the run of the command owns the lock as long as the command lives.
    #[serde(default, skip_serializing_if = "is_false")]
    pub temporary: bool,
    /// Sessions whose `setup` has not succeeded, which a failed run left with [`keep_failed`](crate::apply::Options).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_set_up: BTreeMap<SessionPath, NotSetUp>,
    /// The plan; without sessions if everything is released.
    pub plan: Plan,
    /// Allocations that the run of this record releases; `None` after their release, and for a run that releases
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Box<Release>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A session whose `setup` has not succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct NotSetUp {
    /// `true` if the setup commands of the session have begun; `false` if the commands of another session failed first.
    pub begun: bool,
    /// Reason, one line that reads after "setup": `failed: …`.
    pub why: String,
}

/// Position of a child among the children of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ChildOf {
    /// Position, from 0; no other active child of the same parent has this position.
    pub index: u32,
    /// Number of shares into which the parent was divided for this child, at least 1.
    pub count: u32,
}

/// Allocations that a run releases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Release {
    /// Record that was applied before the run.
    pub before: Record,
    /// Kinds that are released, by session of `before`, in the order of their release.
    pub kinds: BTreeMap<SessionPath, Vec<String>>,
    /// Handling of unsaved work.
    pub unsaved: Unsaved,
    /// Action of recovery before the run is committed.
    pub recovery: Recovery,
}

/// Action of recovery on a run that was interrupted before it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Recovery {
    /// Recovery undoes the run: what was moved aside is brought back.
    Undo,
    /// Recovery finishes the run, a `destroy`, unless unsaved work has appeared meanwhile.
    Finish,
}

/// Progress of a run that is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The run moves aside what it releases, or brings it back; nothing is provisioned.
    SettingAside,
    /// Asides of the run are complete, and its new allocations may exist.
    Provisioning,
}

impl Stage {
    fn file(self) -> &'static str {
        match self {
            Self::SettingAside => "releasing.json",
            Self::Provisioning => "intent.json",
        }
    }
}

/// File of the record of the last committed run.
const COMMITTED: &str = "standing.json";

/// A rescue in progress. The applied plan determines which files the rescue may have left.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rescuing {
    /// Version of the format of this file.
    schema_version: u32,
}

/// Handling of unsaved work that a release would lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "unsaved work refuses a release, is saved or is discarded")]
pub enum Unsaved {
    /// Unsaved work refuses the release.
    #[default]
    Keep,
    /// Unsaved work is saved first, so that it survives the release.
    Rescue,
    /// Unsaved work is discarded.
    Discard,
}

/// Reason for which the state could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the state directory could not be accessed.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Another run owns the swarm's lock.
    #[error("`{swarm}` is locked{holder}")]
    Locked {
        /// Name of the swarm, or id of the standalone session.
        swarm: String,
        /// Owner of the lock and the time since when, with a space before it; empty if unknown.
        holder: String,
    },
    /// No run owns the swarm's lock, but programs of a killed run do, and may still be at work.
    #[error("`{swarm}` is locked by what a killed run left running: {processes}{holder}")]
    Orphaned {
        /// Name of the swarm, or id of the standalone session.
        swarm: String,
        /// Ids and commands of the programs.
        processes: String,
        /// Description of the killed run, with the text before it; empty if unknown.
        holder: String,
    },
    /// A run was interrupted and is not recovered: another run would overwrite its record.
    #[error(
        "a run of `{swarm}` was interrupted: recover it first, with `apply::recover` or `seedbed recover`"
    )]
    Unrecovered {
        /// Name of the swarm, or id of the standalone session.
        swarm: String,
    },
    /// The workspace is not a usable directory.
    #[error("cannot use the workspace {}: {source}", path.display())]
    Workspace {
        /// Path of the workspace root as it was given.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The lock file could not be used.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// Path of the lock file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A record is not in the format of this version.
    #[error("{} cannot be read: {why}", path.display())]
    Unreadable {
        /// Path of the record.
        path: PathBuf,
        /// Reason.
        why: String,
    },
}

impl Error {
    /// Returns whether another run of the swarm is in progress, or was interrupted and is not recovered.
    pub fn is_in_progress(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Orphaned { .. } | Self::Unrecovered { .. })
    }
}

impl<'h> Swarm<'h> {
    /// Returns the swarm called `name` of the workspace at `workspace`, a directory that may be reached through links.
    pub fn new(host: &'h Host, workspace: &Path, name: &str) -> Result<Self, Error> {
        let workspace = canonical(workspace)?;
        let key = format!("{name}-{}", identity(&workspace, name));
        Ok(Self { host, name: name.to_owned(), workspace, collection: SWARMS, key })
    }

    /// Returns the files of a standalone session. The id is any text, so the scoped name represents the session in file
    /// names.
    pub fn of_session(host: &'h Host, workspace: &Path, id: &str) -> Result<Self, Error> {
        let workspace = canonical(workspace)?;
        let key = format!("{}-{}", scoped_name(id, HashDigits::Eight), identity(&workspace, id));
        Ok(Self { host, name: id.to_owned(), workspace, collection: SESSIONS, key })
    }

    /// Returns the host.
    pub fn host(&self) -> &'h Host {
        self.host
    }

    /// Returns the name of the swarm, or the id of the standalone session.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether this is a standalone session.
    pub fn is_alone(&self) -> bool {
        self.collection == SESSIONS
    }

    /// Returns the base name of the swarm's files in the state directory: `NAME-HASH`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the absolute path of the workspace root.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Returns the path of the canonical copy of a session's discovery file.
    ///
    /// For a session without its own directory, this copy is the discovery file.
    pub fn discovery_file(&self, scoped_name: &str) -> PathBuf {
        self.directory().join("sessions").join(scoped_name).join(crate::plan::DISCOVERY_FILE)
    }

    /// Returns the canonical copy of a session's discovery file; `None` if it does not exist.
    pub fn discovery(&self, scoped_name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.discovery_file(scoped_name);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        match Root::open(directory) {
            Ok(directory) => Ok(directory.read(Path::new(name), RECORD_MAX)?),
            Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the directory of the output of session commands.
    pub fn log_directory(&self) -> PathBuf {
        self.host.state.join("logs").join(&self.key)
    }

    /// Returns the record of the applied plan; `None` if no plan is applied.
    pub fn standing(&self) -> Result<Option<Record>, Error> {
        let record = self.committed()?;
        Ok(record.filter(|record| !record.plan.sessions.is_empty()))
    }

    /// Returns the record of the last committed run, which may have nothing left except asides to release.
    pub fn committed(&self) -> Result<Option<Record>, Error> {
        read(&self.directory(), COMMITTED)
    }

    /// Returns the run that was interrupted before it was committed, and its stage.
    pub fn interrupted(&self) -> Result<Option<(Record, Stage)>, Error> {
        for stage in [Stage::SettingAside, Stage::Provisioning] {
            if let Some(record) = read(&self.directory(), stage.file())? {
                return Ok(Some((record, stage)));
            }
        }
        Ok(None)
    }

    /// Returns whether a run was interrupted, before it was committed or before its asides were released.
    pub fn is_unfinished(&self) -> Result<bool, Error> {
        Ok(self.interrupted()?.is_some() || self.committed()?.is_some_and(|record| record.release.is_some()))
    }

    /// Returns all records of the swarm; `None` if there are none.
    pub fn found(&self) -> Result<Option<Found>, Error> {
        found::find(self.host, self.collection, &self.key)
    }

    /// Returns whether a run of the swarm is in progress. Works as [`Found::is_running`].
    pub fn is_locked(&self) -> bool {
        found::is_locked(&self.host.state.join(self.collection).join(format!("{}.lock", self.key)))
    }

    /// Locks the swarm, and waits at most `timeout` for another run to end.
    pub fn lock(&self, timeout: Duration, what: &str) -> Result<Locked<'h>, Error> {
        let state = Root::create_private(&self.host.state)?;
        let swarms = Root::create(&self.host.state.join(self.collection))?;
        let name = PathBuf::from(format!("{}.lock", self.key));
        let path = swarms.path().join(&name);
        let holder = PathBuf::from(format!("{}.holder", self.key));
        let failed = |source| Error::Lock { path: path.clone(), source };
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let lock = swarms.open_or_create(&name)?;
            let wait = begun.elapsed() < timeout && !self.host.cancel.is_requested();
            match lock.try_lock() {
                Ok(()) => {
                    // The previous owner may have removed the file after it was opened here and before it was locked.
                    let same =
                        |there: std::fs::Metadata| lock.metadata().is_ok_and(|own| own.ino() == there.ino());
                    if std::fs::symlink_metadata(&path).is_ok_and(same) {
                        crashpoint!("state.locked");
                        let locked = Locked {
                            swarm: self.clone(),
                            lock,
                            named_logs: Mutex::default(),
                            journal: Mutex::default(),
                        };
                        let text = format!("by pid {} (`{what}`) since {}", std::process::id(), clock::now());
                        let begun = self.sweep(&state, &swarms);
                        let begun = begun.and_then(|()| Ok(swarms.replace(&holder, text.as_bytes())?));
                        return match begun {
                            Ok(()) => Ok(locked),
                            Err(error) => {
                                // The first error is reported.
                                let _ = locked.unlock();
                                Err(error)
                            }
                        };
                    }
                }
                Err(TryLockError::WouldBlock) if wait => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => match self.held(&swarms, &holder, &lock, tries) {
                    Some(error) => return Err(error),
                    None if begun.elapsed() < timeout + SETTLING => {
                        tries += 1;
                        std::thread::sleep(LOCK_POLL);
                    }
                    None => return Err(Error::Locked { swarm: self.name.clone(), holder: String::new() }),
                },
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }

    /// Returns the error that names the owner of the lock; `None` if the owner is not yet certain after this number of
    /// `tries`.
    ///
    /// A program that has just been forked looks like the run that forks it. An owner that has just released the lock
    /// is no longer visible.
    fn held(&self, swarms: &Root, holder: &Path, lock: &File, tries: u32) -> Option<Error> {
        let text = swarms.read(holder, found::HOLDER_MAX).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let text = text.lines().next().unwrap_or_default().escape_debug().to_string();
        let swarm = self.name.clone();
        let holders = holders::of_lock(lock);
        let run = |holder: &holders::Holder| text.starts_with(&format!("by pid {} ", holder.pid));
        if (holders.is_empty() && tries >= UNSEEN_TRIES) || holders.iter().any(run) {
            let holder = if text.is_empty() { text } else { format!(" {text}") };
            return Some(Error::Locked { swarm, holder });
        }
        if holders.is_empty() || holders.iter().any(|holder| !holder.inherited) {
            return None;
        }
        let processes: Vec<_> =
            holders.iter().map(|holder| format!("pid {} (`{}`)", holder.pid, holder.command)).collect();
        let holder = if text.is_empty() { text } else { format!("; it was run {text}") };
        Some(Error::Orphaned { swarm, processes: processes.join(", "), holder })
    }

    /// Removes incomplete files that killed processes left, of this swarm and beside it, and the mounts of killed
    /// trials.
    fn sweep(&self, state: &Root, swarms: &Root) -> Result<(), Error> {
        mounts::sweep(state)?;
        swarms.sweep()?;
        if let Some(records) = swarms.directory(Path::new(&self.key))? {
            records.sweep()?;
        }
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.host.state.join(self.collection).join(&self.key)
    }
}

/// Returns the unique path of a workspace, absolute and without links, as records and plans use it.
fn canonical(workspace: &Path) -> Result<PathBuf, Error> {
    let found = std::fs::canonicalize(workspace).and_then(|found| {
        if found.is_dir() { Ok(found) } else { Err(std::io::Error::from(ErrorKind::NotADirectory)) }
    });
    found.map_err(|source| Error::Workspace { path: workspace.to_owned(), source })
}

/// Returns the hash that distinguishes swarms of one name in several workspaces.
fn identity(workspace: &Path, name: &str) -> String {
    let identity = [workspace.as_os_str().as_encoded_bytes(), b"\0", name.as_bytes()].concat();
    sha256_hex(&identity)[..16].to_owned()
}

/// Lock that protects the family of a session.
///
/// Under this lock, no parent is released while a child is begun, and no two children get the same number. The lock is
/// owned only briefly: from reading the active sessions until the intent is written.
#[derive(Debug)]
pub struct FamilyGuard(File);

impl FamilyGuard {
    /// Waits until no other process has the lock, and locks it.
    pub fn acquire(host: &Host) -> Result<Self, Error> {
        let state = Root::create_private(&host.state)?;
        let guard = state.open_or_create(Path::new(GUARD))?;
        guard.lock().map_err(|source| Error::Lock { path: state.path().join(GUARD), source })?;
        Ok(Self(guard))
    }
}

impl Drop for FamilyGuard {
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
pub fn children(host: &Host, record: &Record) -> Result<Vec<Found>, Error> {
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
    let depth = |found: &Found| found.record().map_or(0, |child| child.ancestors.len());
    children.sort_by(|one, other| (depth(one), one.name()).cmp(&(depth(other), other.name())));
    Ok(children)
}

/// Returns the records of standalone sessions with this ownership marker that are active or being provisioned, in order
/// of their ids.
///
/// Reads the records of every standalone session of this host, about 3 KB each.
pub fn alone(host: &Host, owner: &str) -> Result<Vec<Record>, Error> {
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

/// Reads a record; `None` if it does not exist.
fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: Option<u32>,
    }
    let directory = match Root::open(directory) {
        Ok(directory) => directory,
        // A lock file has no records below it.
        Err(files::Error::Io { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(bytes) = directory.read(Path::new(name), RECORD_MAX)? else { return Ok(None) };
    let path = directory.path().join(name);
    let version = serde_json::from_slice::<Version>(&bytes).ok().and_then(|version| version.schema_version);
    if version.is_some_and(|version| version != SCHEMA_VERSION) {
        let why = "another version of seedbed wrote it; use that version to destroy the swarm".to_owned();
        return Err(Error::Unreadable { path, why });
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Unreadable { path, why: error.to_string() })
}

/// Creates a new ownership marker.
pub fn new_owner() -> Result<String, Error> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    File::open(path)
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|source| files::Error::Io { action: "read", path: path.to_owned(), source })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
