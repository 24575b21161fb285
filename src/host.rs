//! The hardened edge to the outside: running processes, git above all, and touching files without following links.
//!
//! But for the registry of leases, which says whose they are, nothing here knows what a session is. What several
//! modules need of the outside stands here, so that a defence stands at one place. What the process was given (environment, state directory, cores) arrives as one [`Host`] value: the
//! library never reads the environment.

mod bound;
pub mod clock;
pub(crate) mod failpoint;
pub mod files;
pub mod git;
pub mod holders;
pub mod leases;
pub(crate) mod mounts;
pub mod listeners;
pub mod occupants;
pub mod process;
pub mod program;
pub(crate) mod sockets;
pub mod state_directory;
pub mod text;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// What the caller lends to the library.
#[derive(Clone, Debug)]
pub struct Host {
    /// The environment that child processes start from; git's own variables are always taken out of it.
    pub environment: Vec<(OsString, OsString)>,
    /// Where intents, standing plans, leases and logs are kept, e.g. `~/.local/state/seedbed`.
    pub state: PathBuf,
    /// The directory that leases of ports are published in, for other users of the host and for other state directories;
    /// `None`, the default, publishes nothing and regards nothing that is published. The command line uses
    /// [`leases::shared_directory`].
    pub shared_ports: Option<PathBuf>,
    /// Number of steps that run in parallel. Default: the number of CPUs that this process may use.
    pub jobs: NonZeroUsize,
    /// How long one call of git may take before it is ended; [`git::DEADLINE`] unless there is a reason.
    pub git_deadline: std::time::Duration,
    /// Ends what is done with this host, and with its clones, for good: every step asks it before it starts. What is to
    /// be ended on its own is given another, with [`Host::with_cancel`].
    pub cancel: process::Cancel,
    /// What was found out about git once, for all that is done with this host and its clones.
    pub(crate) git: Arc<git::Known>,
    /// What claims found bound, for all that is done with this host and its clones.
    pub(crate) bound: Arc<bound::Bound>,
    /// Whether what this state directory has leased is published.
    pub(crate) published: Arc<leases::Complete>,
}

/// The variables that tie git to one repository (`git rev-parse --local-env-vars`): inherited from a hook they would
/// make a session's git work on another repository's index.
const GIT_LOCAL: [&str; 15] = [
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

/// The variables that say where the caller is, and where it was before.
const CALLERS: [&str; 2] = ["PWD", "OLDPWD"];

impl Host {
    /// Returns a host that uses all cores, gives git [`git::DEADLINE`], publishes no ports and is never cancelled.
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

    /// The same host for one run, which `cancel` ends; what is done with this one goes on.
    #[must_use]
    pub fn with_cancel(&self, cancel: process::Cancel) -> Self {
        Self { cancel, ..self.clone() }
    }

    /// The environment that a program of a session starts from when it runs in `directory`, which is absolute: `PWD` is
    /// that directory, and the caller's `OLDPWD` is removed.
    ///
    /// A shell sets `PWD` itself; `make`, `docker compose` and others believe the one that they inherit.
    pub fn environment_in(&self, directory: &Path) -> impl Iterator<Item = (OsString, OsString)> {
        let is_callers = |name: &OsString| CALLERS.iter().chain(&GIT_LOCAL).any(|callers| name == callers);
        let inherited = self.environment.iter().filter(move |(name, _)| !is_callers(name)).cloned();
        inherited.chain([("PWD".into(), directory.into())])
    }
}

/// `path` as seen from `directory`, absolute and without `.` and `..`, by its names alone.
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
