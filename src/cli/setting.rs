//! Where a command runs: the host, the manifest, the workspace.
#![expect(clippy::disallowed_methods, reason = "the command line is what reads the environment")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use seedbed::discovery::Snapshot;
use seedbed::host::Host;
use seedbed::host::process::Cancel;
use seedbed::manifest::{self, Fault, Manifest, Report};
use seedbed::plan::DISCOVERY_FILE;
use seedbed::provider::{DISCOVERY_DIRECTORY, Registry};
use seedbed::state::Swarm;

use super::Global;
use super::exit::{Failure, Status};

/// What the manifest is called where nobody says otherwise.
pub(super) const MANIFEST: &str = "seedbed.toml";

/// The manifest's text, and what it belongs to.
pub(super) struct Setting {
    pub(super) host: Host,
    pub(super) registry: Registry,
    /// As it is shown to the user.
    name: String,
    path: PathBuf,
    text: String,
}

impl Setting {
    /// Reads the manifest that `global` names, or the nearest one above.
    pub(super) fn find(global: &Global) -> Result<Self, Failure> {
        let directory = directory(global)?;
        Self::find_if_any(global)?.ok_or_else(|| {
            let place = directory.display();
            Failure::Usage(format!(
                "no {MANIFEST} in {place} or above it; `seedbed init` writes one, `-f FILE` names another"
            ))
        })
    }

    /// The same, for what does without a manifest where there is none; one that is named has to be there.
    pub(super) fn find_if_any(global: &Global) -> Result<Option<Self>, Failure> {
        let directory = directory(global)?;
        let named = global.manifest.as_ref().map(|path| directory.join(path));
        let Some(path) = named.or_else(|| above(&directory)) else { return Ok(None) };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
        let name = path.strip_prefix(&directory).unwrap_or(&path).to_string_lossy().into_owned();
        Ok(Some(Self { host: host(global)?, registry: Registry::built_in(), name, path, text }))
    }

    /// The manifest, or every fault in it.
    pub(super) fn manifest(&self) -> Result<Manifest, Failure> {
        manifest::parse(&self.text, &self.registry.kinds()).map_err(|faults| self.faults(faults))
    }

    /// Faults of this manifest, of whatever stage.
    pub(super) fn faults(&self, faults: Vec<Fault>) -> Failure {
        Failure::Manifest(Report::new(self.name.clone(), &self.text, faults))
    }

    /// The manifest as it is written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What the user knows the manifest by.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The swarm of this manifest, even where the rest of it has faults.
    pub(super) fn swarm(&self) -> Result<Swarm<'_>, Failure> {
        let Some(located) = manifest::locate(&self.text) else {
            // Without a swarm's name the manifest has a fault that says so.
            self.manifest()?;
            return Err(Failure::Usage(format!("{} names no swarm", self.name)));
        };
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let workspace = directory.join(&located.workspace_root);
        let workspace = std::fs::canonicalize(&workspace).map_err(|error| {
            Failure::Usage(format!("the workspace root {} cannot be used: {error}", workspace.display()))
        })?;
        Ok(Swarm::new(&self.host, &workspace, &located.swarm))
    }

    /// The first Ctrl-C or SIGTERM asks the run to stop and put things back; the second ends it at once, and leaves what
    /// `recover` puts right.
    pub(super) fn catch_signals(&self) -> Result<(), Failure> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        for signal in [SIGINT, SIGTERM] {
            let asked = self.host.cancel.flag();
            flag::register_conditional_shutdown(signal, Status::Interrupted as i32, asked.clone())
                .and_then(|_| flag::register(signal, asked))
                .map_err(|error| Failure::Other(format!("cannot listen for signals: {error}")))?;
        }
        Ok(())
    }
}

/// The nearest manifest in `directory` or above it.
///
/// A session's worktree may hold a copy of the manifest, which is of the same commit and of no swarm: from inside a
/// session the search goes on from its workspace.
fn above(directory: &Path) -> Option<PathBuf> {
    let discovery = Path::new(DISCOVERY_DIRECTORY).join(DISCOVERY_FILE);
    let session = directory.ancestors().find_map(|above| {
        let snapshot: Snapshot = serde_json::from_slice(&std::fs::read(above.join(&discovery)).ok()?).ok()?;
        // A workspace inside the session would be searched for ever.
        (!snapshot.workspace_root.starts_with(above)).then_some(snapshot.workspace_root)
    });
    match session {
        Some(workspace) => above(&workspace),
        None => directory.ancestors().map(|above| above.join(MANIFEST)).find(|path| path.is_file()),
    }
}

/// The directory that the command runs in.
pub(super) fn directory(global: &Global) -> Result<PathBuf, Failure> {
    let current = std::env::current_dir()
        .map_err(|error| Failure::Usage(format!("the current directory cannot be used: {error}")))?;
    Ok(match &global.directory {
        Some(directory) => current.join(directory),
        None => current,
    })
}

/// What the command lends to the library.
pub(super) fn host(global: &Global) -> Result<Host, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("SEEDBED_STATE_DIR")
        .or_else(|| Some(variable("XDG_STATE_HOME").filter(|path| path.is_absolute())?.join("seedbed")))
        .or_else(|| Some(variable("HOME")?.join(".local/state/seedbed")))
        .ok_or_else(|| {
            Failure::Usage("set HOME or SEEDBED_STATE_DIR: there is no place to keep state".to_owned())
        })?;
    let state = std::path::absolute(&state).unwrap_or(state);
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(Host {
        environment: std::env::vars_os().collect(),
        state,
        jobs: global.jobs.unwrap_or_else(cores),
        cancel: Cancel::default(),
    })
}
