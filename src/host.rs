//! The hardened edge to the outside: runs processes, above all Git, and accesses files without following
//! links.
//!
//! Except for the registry of leases, which records the owner of each port, no module here knows sessions.
//! Access to the outside that several modules need is here, so that each defence is in one place.
//!
//! The environment, the state directory and the number of CPUs arrive as one [`Host`] value: the library
//! never reads the environment.

mod bound_ports;
pub mod clock;
pub(crate) mod failpoint;
pub mod files;
pub mod git;
pub mod lock_holders;
pub mod leases;
pub mod seeds;
pub(crate) mod mounts;
pub mod listeners;
pub mod occupants;
pub mod process;
pub mod program;
pub(crate) mod sockets;
pub mod state_directory;
pub mod text;
pub mod waiting;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Settings that the caller passes to the library.
#[derive(Clone, Debug)]
pub struct Host {
    /// Environment that child processes start from. Git's own variables are always removed from it.
    pub environment: Vec<(OsString, OsString)>,
    /// Directory of intents, applied plans, leases and logs, such as `~/.local/state/seedbed`.
    pub state: PathBuf,
    /// Directory in which leases of ports are published for other users of the host and for other state
    /// directories.
    ///
    /// `None`, the default, publishes nothing and ignores published leases. The command line uses
    /// [`leases::shared_directory`].
    pub shared_ports: Option<PathBuf>,
    /// Number of steps that run in parallel. Default: the number of CPUs that this process may use.
    pub jobs: NonZeroUsize,
    /// Limit of time for one call of Git, after which Git is ended. Default: [`git::DEADLINE`].
    pub git_deadline: std::time::Duration,
    /// Cancels for good everything that runs with this host and its clones: every step checks it before it
    /// starts.
    ///
    /// A run that is to be cancelled separately gets its own `Cancel`, with [`Host::with_cancel`].
    pub cancel: process::Cancel,
    /// Facts about Git, determined once for this host and its clones.
    pub(crate) git: Arc<git::Versions>,
    /// Ports that claims found bound, shared by this host and its clones.
    pub(crate) bound: Arc<bound_ports::BoundPorts>,
    /// `true` once the leases of this state directory are known to be all published.
    pub(crate) published: Arc<leases::Complete>,
}

/// Variables that tie Git to one repository (`git rev-parse --local-env-vars`).
///
/// If a session inherited these variables from a hook, its Git would use another repository's index.
pub const GIT_LOCAL: [&str; 15] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
];

/// Variables with the current and the previous directory of the caller.
const CALLERS: [&str; 2] = ["PWD", "OLDPWD"];

impl Host {
    /// Returns a host that uses all CPUs, gives Git [`git::DEADLINE`], publishes no ports and is never
    /// cancelled.
    pub fn new(environment: Vec<(OsString, OsString)>, state: PathBuf) -> Self {
        Self {
            environment,
            state,
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            git_deadline: git::DEADLINE,
            cancel: process::Cancel::default(),
            git: Arc::default(),
            bound: Arc::default(),
            shared_ports: None,
            published: Arc::default(),
        }
    }

    /// Returns a clone of this host for one run, which `cancel` ends. Other users of this host are not
    /// affected.
    #[must_use]
    pub fn with_cancel(&self, cancel: process::Cancel) -> Self {
        Self { cancel, ..self.clone() }
    }

    /// Returns the environment that a program of a session starts from in `directory`, which must be
    /// absolute.
    ///
    /// `PWD` is that directory, and the caller's `OLDPWD` is removed. A shell sets `PWD` itself; `make`,
    /// `docker compose` and others trust an inherited `PWD`.
    pub fn environment_in(&self, directory: &Path) -> impl Iterator<Item = (OsString, OsString)> {
        let is_callers = |name: &OsString| CALLERS.iter().chain(&GIT_LOCAL).any(|callers| name == callers);
        let inherited = self.environment.iter().filter(move |(name, _)| !is_callers(name)).cloned();
        inherited.chain([("PWD".into(), directory.into())])
    }
}

/// Returns `path` relative to `directory` as an absolute path without `.` and `..`, only from its names.
pub fn absolute(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path).components().fold(PathBuf::new(), |mut absolute, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(absolute.pop()),
            component => absolute.push(component),
        }
        absolute
    })
}
