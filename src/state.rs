//! What stands on this host: intents and standing plans of swarms and their locks.
//!
//! ```text
//! STATE/swarms/NAME-HASH.lock             flock: one run a swarm at a time
//! STATE/swarms/NAME-HASH.holder           who holds it and since when, for messages
//! STATE/swarms/NAME-HASH/releasing.json   a run that moves aside what it releases; nothing of it is provisioned yet
//! STATE/swarms/NAME-HASH/intent.json      a run that provisions, what it releases is aside
//! STATE/swarms/NAME-HASH/standing.json    the plan that stands; a run whose asides are still there is finished
//! STATE/swarms/NAME-HASH/rescuing.json    a run that saves work before it releases; recovery sweeps after it
//! STATE/swarms/NAME-HASH/journal          steps of a run that provisions, each with its time; gone once it is committed or undone
//! STATE/swarms/NAME-HASH/sessions/        canonical copies of the discovery files
//! STATE/logs/NAME-HASH/                   what setup and teardown printed, until the session is released; after a failure, longer
//! STATE/.guard                            held while a child of a session, or a release, is begun
//! STATE/given-up/                         what may remain of runs that were given up
//! STATE/ports/                            port leases of every swarm
//! STATE/overlays/                         what worktrees with `checkout = "overlay"` show and keep
//! STATE/repositories/                     what was changed in a repository's shared config
//! ```
//!
//! A session on its own, without a swarm, has the same files in `STATE/sessions`, under its scoped name.
//!
//! A run writes one [`Record`] and renames it from stage to stage, so that each stage begins in one step:
//! `releasing.json`, `intent.json`, `standing.json`. A run that releases nothing begins with `intent.json`, one that
//! provisions nothing skips it. Until the last rename, recovery brings back what was moved aside and removes what was
//! provisioned; only an interrupted `destroy` is finished instead.
//!
//! All of it lies outside the checkouts, where neither `git clean` nor a commit reaches it. Liveness is the flock,
//! never a pid: pids stand here for messages alone.
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

/// The version of the record files' format.
pub const SCHEMA_VERSION: u32 = 2;

/// The most that is read of a record, in bytes; a plan of 100,000 sessions takes some 300 MB.
const RECORD_MAX: usize = 2 << 30;

/// How long it is worth waiting for programs that a killed run left: a checkout of a large repository takes most of a
/// minute.
pub const ORPHANS_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a lock may be held by nobody who can be told, at most: what a run takes from locking to saying so, and what
/// a program takes from fork to exec, on a machine that is busy.
const SETTLING: Duration = Duration::from_secs(5);

/// How often a lock is tried again that nobody is seen to hold: who holds it may be in another container.
const UNSEEN_TRIES: u32 = 5;

/// How often a held lock is tried again while waiting for it.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// A swarm's place in the state directory.
#[derive(Clone, Debug)]
pub struct Swarm<'h> {
    host: &'h Host,
    name: String,
    workspace: PathBuf,
    /// Below the state directory: [`SWARMS`] or [`SESSIONS`].
    collection: &'static str,
    key: String,
}

/// Where the files of swarms are.
const SWARMS: &str = "swarms";

/// Where those of sessions on their own are.
const SESSIONS: &str = "sessions";

/// The file of the state directory that [`FamilyGuard`] locks.
const GUARD: &str = ".guard";

/// A plan that stands, or is about to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Record {
    /// The version of this file's format.
    pub schema_version: u32,
    /// The ownership mark: 32 random hexadecimal digits, made when the swarm is first applied.
    pub owner: String,
    /// The workspace root, absolute.
    pub workspace: PathBuf,
    /// For a session on its own, the ids of the sessions above it, nearest first, whose ownership mark this is too; in
    /// a swarm the plan says which they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// For a child that a program provisioned from another session's snapshot, its place among the children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildOf>,
    /// Whether `seedbed run` made it for one command: it is removed when the command has ended, with everything in it,
    /// and by any later run that finds it, because a run holds the lock for as long as it lives. Default: `false`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub temporary: bool,
    /// The sessions whose `setup` has not succeeded, which a failed run left with [`keep_failed`](crate::apply::Options).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_set_up: BTreeMap<SessionPath, NotSetUp>,
    /// The plan; without sessions where everything is released.
    pub plan: Plan,
    /// What the run that made this record releases; `None` once that is gone, and for a run that releases nothing.
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
    /// Whether its commands have begun; `false` where those of another session failed first.
    pub begun: bool,
    /// Why it has not, one line that reads after "setup": `failed: …`.
    pub why: String,
}

/// The place of a child among the children of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ChildOf {
    /// Its position, from 0; no other living child of its parent has it.
    pub index: u32,
    /// Into how many shares its parent was divided for it, at least 1.
    pub count: u32,
}

/// Allocations that a run releases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Release {
    /// The record that stood before the run.
    pub before: Record,
    /// The kinds that are released, by session of `before`, in the order in which they are released.
    pub kinds: BTreeMap<SessionPath, Vec<String>>,
    /// What becomes of unsaved work.
    pub unsaved: Unsaved,
    /// What recovery does before the run is committed.
    pub recovery: Recovery,
}

/// What recovery does with a run that was interrupted before it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Recovery {
    /// It undoes the run: what was moved aside is brought back.
    Undo,
    /// It finishes the run, unless unsaved work has appeared meanwhile: a `destroy`.
    Finish,
}

/// How far a run has come that is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// What it releases is being moved aside, or brought back; nothing of it is provisioned.
    SettingAside,
    /// What it releases is aside, and what it provisions may be there.
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

/// The record of the last run that was committed.
const COMMITTED: &str = "standing.json";

/// A rescue under way. What it may have left follows from what stands.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rescuing {
    /// The version of this file's format.
    schema_version: u32,
}

/// What becomes of work that a release would lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "unsaved work refuses a release, is saved or is discarded")]
pub enum Unsaved {
    /// It stays where it is: the release is refused.
    #[default]
    Keep,
    /// It is saved first, where it outlasts the release.
    Rescue,
    /// It is given up.
    Discard,
}

/// Why the state could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the state directory could not be touched.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Another run holds the swarm's lock.
    #[error("`{swarm}` is locked{holder}")]
    Locked {
        /// The swarm's name, or the id of a session on its own.
        swarm: String,
        /// By whom since when, where it is known, with a space before it.
        holder: String,
    },
    /// No run holds the swarm's lock, but programs that a killed one had started do, and may still be at work.
    #[error("`{swarm}` is locked by what a killed run left running: {processes}{holder}")]
    Orphaned {
        /// The swarm's name, or the id of a session on its own.
        swarm: String,
        /// Their ids and commands.
        processes: String,
        /// Who the run was, where it is known, with what comes before it.
        holder: String,
    },
    /// A run was interrupted, and nobody has recovered it: another one would overwrite what it has written down.
    #[error(
        "a run of `{swarm}` was interrupted: recover it first, with `apply::recover` or `seedbed recover`"
    )]
    Unrecovered {
        /// The swarm's name, or the id of a session on its own.
        swarm: String,
    },
    /// The workspace is not a directory that can be used.
    #[error("cannot use the workspace {}: {source}", path.display())]
    Workspace {
        /// The workspace root as it was given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The lock file could not be used.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A record is not what this version writes.
    #[error("{} cannot be read: {why}", path.display())]
    Unreadable {
        /// The record.
        path: PathBuf,
        /// Why.
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
    /// The swarm called `name` of the workspace at `workspace`: a directory, however the path leads there.
    pub fn new(host: &'h Host, workspace: &Path, name: &str) -> Result<Self, Error> {
        let workspace = canonical(workspace)?;
        let key = format!("{name}-{}", identity(&workspace, name));
        Ok(Self { host, name: name.to_owned(), workspace, collection: SWARMS, key })
    }

    /// The place of one session on its own. Its id is any text, so that the scoped name stands for it in the names of
    /// files.
    pub fn of_session(host: &'h Host, workspace: &Path, id: &str) -> Result<Self, Error> {
        let workspace = canonical(workspace)?;
        let key = format!("{}-{}", scoped_name(id, HashDigits::Eight), identity(&workspace, id));
        Ok(Self { host, name: id.to_owned(), workspace, collection: SESSIONS, key })
    }

    /// The host it stands on.
    pub fn host(&self) -> &'h Host {
        self.host
    }

    /// The swarm's name, or the id of a session on its own.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether it is a session on its own.
    pub fn is_alone(&self) -> bool {
        self.collection == SESSIONS
    }

    /// What its files in the state directory are called: `NAME-HASH`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The workspace root, absolute.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Where the canonical copy of a session's discovery file lies; for a session without a directory of its own it
    /// is the file.
    pub fn discovery_file(&self, scoped_name: &str) -> PathBuf {
        self.directory().join("sessions").join(scoped_name).join(crate::plan::DISCOVERY_FILE)
    }

    /// The canonical copy of a session's discovery file; `None` where there is none.
    pub fn discovery(&self, scoped_name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.discovery_file(scoped_name);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        match Root::open(directory) {
            Ok(directory) => Ok(directory.read(Path::new(name), RECORD_MAX)?),
            Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where what a session's commands print is kept.
    pub fn log_directory(&self) -> PathBuf {
        self.host.state.join("logs").join(&self.key)
    }

    /// The plan that stands; `None` where nothing does.
    pub fn standing(&self) -> Result<Option<Record>, Error> {
        let record = self.committed()?;
        Ok(record.filter(|record| !record.plan.sessions.is_empty()))
    }

    /// The record of the last run that was committed, which may have nothing left but asides to release.
    pub fn committed(&self) -> Result<Option<Record>, Error> {
        read(&self.directory(), COMMITTED)
    }

    /// The run that was interrupted before it was committed, and how far it had come.
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

    /// Everything that is recorded of it; `None` where nothing is.
    pub fn found(&self) -> Result<Option<Found>, Error> {
        found::find(self.host, self.collection, &self.key)
    }

    /// Returns whether a run of it is under way. As [`Found::is_running`].
    pub fn is_locked(&self) -> bool {
        found::is_locked(&self.host.state.join(self.collection).join(format!("{}.lock", self.key)))
    }

    /// Takes the swarm's lock, waiting at most `timeout` for another run to end.
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
                    // Whoever held it last may have removed it between our opening and locking it.
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
                                // What went wrong first is what is reported.
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

    /// Who keeps this run from the lock; `None` where that is not settled yet, after so many `tries`: a program that has
    /// just been forked looks like the run that forks it, and who has just let go is not seen any more.
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

    /// Removes what a killed process left half-written of this swarm's, or of anybody's beside it, and what was mounted
    /// to find out whether that can be.
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

/// The one path of a workspace, absolute and without links: what its records, and paths in plans, are called by.
fn canonical(workspace: &Path) -> Result<PathBuf, Error> {
    let found = std::fs::canonicalize(workspace).and_then(|found| {
        if found.is_dir() { Ok(found) } else { Err(std::io::Error::from(ErrorKind::NotADirectory)) }
    });
    found.map_err(|source| Error::Workspace { path: workspace.to_owned(), source })
}

/// What tells swarms of one name in several workspaces apart.
fn identity(workspace: &Path, name: &str) -> String {
    let identity = [workspace.as_os_str().as_encoded_bytes(), b"\0", name.as_bytes()].concat();
    sha256_hex(&identity)[..16].to_owned()
}

/// Keeps a parent from being released while a child of it is begun, and two children from being given one number.
///
/// Held for moments: from looking at who stands to the intent that says what is begun.
#[derive(Debug)]
pub struct FamilyGuard(File);

impl FamilyGuard {
    /// Waits until nobody else holds it.
    pub fn acquire(host: &Host) -> Result<Self, Error> {
        let state = Root::create_private(&host.state)?;
        let guard = state.open_or_create(Path::new(GUARD))?;
        guard.lock().map_err(|source| Error::Lock { path: state.path().join(GUARD), source })?;
        Ok(Self(guard))
    }
}

impl Drop for FamilyGuard {
    /// As for the lock of a swarm: a process that has just been forked holds the file too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// The children that programs have provisioned from sessions of `record`, and theirs: every session on its own that stands,
/// comes or goes with the same ownership mark below one of them. Parents come before their children.
///
/// An error where a record of any session on its own cannot be read: it may be of one of them.
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

/// The records of the sessions on their own that stand with this ownership mark, or are being provisioned, in order
/// of their ids.
///
/// Reads those of every session on its own of this host, some 3 KB each.
pub fn alone(host: &Host, owner: &str) -> Result<Vec<Record>, Error> {
    let path = host.state.join(SESSIONS);
    let mut records = Vec::new();
    if !path.is_dir() {
        return Ok(records);
    }
    for key in Root::open(&path)?.names()? {
        // In this order, so that one which is committed in between is not missed.
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

/// The ownership marks of everything that has records on this host, swarms and sessions on their own, whether it stands,
/// comes or goes. An error where any record cannot be read: then nobody knows what belongs to nobody.
pub fn owners(host: &Host) -> Result<BTreeSet<String>, Error> {
    loop {
        let before = keys(host)?;
        let owners = owners_once(host)?;
        // The records of a workspace that was moved are renamed, perhaps past this look.
        if before == keys(host)? {
            return Ok(owners);
        }
    }
}

/// The names of all files and directories of swarms and sessions.
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

/// Reads a record; `None` where there is none.
fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: Option<u32>,
    }
    let directory = match Root::open(directory) {
        Ok(directory) => directory,
        // A lock's file has no records below it.
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

/// A new ownership mark.
pub fn new_owner() -> Result<String, Error> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    File::open(path)
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|source| files::Error::Io { action: "read", path: path.to_owned(), source })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
