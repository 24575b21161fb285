//! State of this host: intents and applied plans of swarms, and their locks.
//!
//! ```text
//! STATE/swarms/NAME-HASH.lock             flock: one run a swarm at a time
//! STATE/swarms/NAME-HASH.holder           owner of the lock and since when, for messages
//! STATE/swarms/NAME-HASH/releasing.json   a run that moves aside what it releases; it has provisioned nothing yet
//! STATE/swarms/NAME-HASH/intent.json      a run that provisions; what it releases is aside
//! STATE/swarms/NAME-HASH/applied.json     the applied plan; a run whose asides still exist is finished
//! STATE/swarms/NAME-HASH/rescuing.json    a run that saves work before it releases; recovery sweeps after it
//! STATE/swarms/NAME-HASH/keeping.json     repositories in which refs keep commits for a run over several hosts
//! STATE/swarms/NAME-HASH/journal          steps of a run that provisions, each with its time; until commit or rollback
//! STATE/swarms/NAME-HASH/sessions/        canonical copies of the discovery files
//! STATE/logs/NAME-HASH/                   output of setup and teardown, until the release; after a failure, longer
//! STATE/logs/NAME-HASH/*.run-*.log        output of the last ten commands of start and exec in each session
//! STATE/logs/NAME-HASH/*.last-run.json    result of the last of them
//! STATE/logs/NAME-HASH/*.window.sh        script of the last window of `start --tmux`
//! STATE/logs/NAME-HASH/.tmux.json         tmux sessions that have such windows
//! STATE/.guard                            locked while a child of a session, or a release, is begun
//! STATE/given-up/                         what may remain of runs that were given up
//! STATE/leases/                           leases of ports and items, of every swarm
//! STATE/overlays/                         layers of worktrees with `checkout = "overlay"`
//! STATE/repositories/                     changes in the shared config of repositories
//! STATE/seeds/DIGEST/                     a seed: its document and its files, renamed into place when complete
//! STATE/seeds/DIGEST.lock                 flock: one run at a time makes, copies or removes the seed
//! STATE/seeds/DIGEST.log                  output of the command that populates the seed
//! ```
//!
//! A standalone session, without a swarm, has the same files in `STATE/sessions`, under its scoped name.
//!
//! A run writes one [`Record`] and renames it from stage to stage, so that each stage begins in one step:
//! `releasing.json`, `intent.json`, `applied.json`. A run that releases nothing begins with `intent.json`; one that
//! provisions nothing skips it. Until the last rename, recovery brings back what was moved aside and removes what was
//! provisioned. Only an interrupted `destroy` is finished instead.
//!
//! All of it is outside the checkouts, so that neither `git clean` nor a commit affects it. A run is alive while its
//! flock is owned; process ids are recorded for messages only.
#![expect(clippy::disallowed_methods, reason = "this module keeps the state on disk")]

mod children;
mod fleet_part;
mod recorded;
mod given_up;
mod journal;
mod lock;
mod locked_swarm;
mod rebind;
mod record;
mod session_runs;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use children::{ChildrenGuard, children, owners, standalone_sessions};
pub use fleet_part::{
    Decision, FLEET_IDENTITY, FleetIdentity, FleetPart, Verdict, decide, decision, fleet_identity,
    lock_coordinator, run_directory,
};
pub use given_up::{GivenUp, GivenUpFile, Remain, given_up};
pub use journal::{Journal, Milestone};
pub use locked_swarm::LockedSwarm;
pub use rebind::is_gone;
pub use record::{
    Artifacts, ChildOf, Expiry, NotSetUp, Record, Recovery, Release, SCHEMA_VERSION, Stage, Unsaved,
};
pub use recorded::{RecordedSwarm, Unfinished, sessions, swarms, sweep_instances, sweep_locks};
pub use session_runs::{Exited, RunLog, SessionRun, TmuxSession, end_of_log, record_end};

use self::record::{COMMITTED, Keeping, PartRecord, RECORD_MAX, Rescuing, read};
use crate::host::Host;
use crate::host::files::{self, Root};
use crate::name::{HashDigits, scoped_name, sha256_hex};

/// Useful time to wait for programs that a killed run left: a checkout of a large repository takes most of a minute.
pub const ORPHANS_TIMEOUT: Duration = Duration::from_mins(1);

/// Files of one swarm in the state directory.
#[derive(Clone, Debug)]
pub struct Swarm<'h> {
    host: &'h Host,
    name: String,
    workspace: PathBuf,
    /// Path of the manifest, relative to the workspace if it is inside.
    manifest: Option<PathBuf>,
    /// Directory below the state directory: [`SWARMS`] or [`SESSIONS`].
    collection: &'static str,
    key: String,
}

/// Number of logs that are kept: of the commands of a session, and of ended instances.
const LOGS_KEPT: usize = 10;

/// Directory of swarms.
const SWARMS: &str = "swarms";

/// Directory of standalone sessions.
const SESSIONS: &str = "sessions";

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
    #[error("`{swarm}` is locked by programs that an ended run left running: {processes}{holder}")]
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
    /// A run over several hosts has prepared this part, and its coordinator has not decided yet.
    #[error("`{swarm}` is prepared for run {run} of the fleet in {}, which is not decided yet", directory.display())]
    Undecided {
        /// Name of the swarm.
        swarm: String,
        /// Name of the run.
        run: String,
        /// Directory of the fleet.
        directory: PathBuf,
    },
    /// A prepared part cannot be resolved, because the directory of its fleet is not there.
    #[error("a prepared run cannot be resolved without the directory of its fleet, {}: {why}", directory.display())]
    FleetUnreachable {
        /// Directory of the fleet.
        directory: PathBuf,
        /// Reason.
        why: String,
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
        matches!(
            self,
            Self::Locked { .. } | Self::Orphaned { .. } | Self::Unrecovered { .. } | Self::Undecided { .. }
        )
    }
}

impl<'h> Swarm<'h> {
    /// Returns the swarm called `name` of the workspace at `workspace`, a directory that may be reached through links.
    pub fn new(host: &'h Host, workspace: &Path, name: &str) -> Result<Self, Error> {
        let workspace = canonical(workspace)?;
        let key = format!("{name}-{}", identity(&workspace, name));
        Ok(Self { host, name: name.to_owned(), workspace, manifest: None, collection: SWARMS, key })
    }

    /// Returns the swarm with the absolute path of its manifest, which discovery files name.
    #[must_use]
    pub fn with_manifest(mut self, manifest: &Path) -> Self {
        self.manifest = Some(manifest.strip_prefix(&self.workspace).unwrap_or(manifest).to_owned());
        self
    }

    /// Returns the path of the manifest, relative to the workspace if it is inside; `None` without a manifest.
    pub fn manifest(&self) -> Option<&Path> {
        self.manifest.as_deref()
    }

    /// Returns the files of a standalone session. The id is any text, so the scoped name represents the session in file
    /// names.
    pub fn for_session(host: &'h Host, workspace: &Path, id: &str) -> Result<Self, Error> {
        let workspace = canonical(workspace)?;
        let key = format!("{}-{}", scoped_name(id, HashDigits::Eight), identity(&workspace, id));
        Ok(Self { host, name: id.to_owned(), workspace, manifest: None, collection: SESSIONS, key })
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
    pub fn is_standalone(&self) -> bool {
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
        let Some(directory) = Root::open_if_any(directory)? else { return Ok(None) };
        Ok(directory.read(Path::new(name), RECORD_MAX)?)
    }

    /// Returns the directory of the output of session commands.
    pub fn log_directory(&self) -> PathBuf {
        self.host.state.join("logs").join(&self.key)
    }

    /// Returns the record of the applied plan; `None` if no plan is applied.
    pub fn applied(&self) -> Result<Option<Record>, Error> {
        let record = self.committed()?;
        Ok(record.filter(|record| !record.plan.sessions.is_empty()))
    }

    /// Returns the part of a fleet that is applied; `None` if the swarm is no part of one, or nothing is applied.
    ///
    /// This is faster than [`Self::applied`]: the plan is skipped.
    pub fn applied_part(&self) -> Result<Option<FleetPart>, Error> {
        let part: Option<PartRecord> = read(&self.directory(), COMMITTED)?;
        Ok(part.filter(|part| !part.plan.sessions.is_empty()).and_then(|part| part.fleet))
    }

    /// Returns the record of the last committed run, which may have nothing left except asides to release.
    pub fn committed(&self) -> Result<Option<Record>, Error> {
        let record: Option<Record> = read(&self.directory(), COMMITTED)?;
        // A committed part is no longer prepared.
        Ok(record.map(|record| Record { prepared: false, ..record }))
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
    pub fn found(&self) -> Result<Option<RecordedSwarm>, Error> {
        recorded::find(self.host, self.collection, &self.key)
    }

    /// Returns the prefix of the refs that keep commits for a run over several hosts.
    pub(crate) fn kept_refs(&self) -> String {
        format!("refs/seedbed/fleet/{}/", self.key)
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

/// Creates a new ownership marker.
pub fn new_owner() -> Result<String, Error> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    File::open(path)
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|source| files::Error::Io { action: "read", path: path.to_owned(), source })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
