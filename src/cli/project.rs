//! Context of a command: the host, the manifest, the workspace.
#![expect(clippy::disallowed_methods, reason = "the command line is what reads the environment")]

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seedbed::apply::{self, PlanningInput};
use seedbed::discovery::Snapshot;
use seedbed::host::git::Git;
use seedbed::host::state_directory::{self, Places, state_directory};
use seedbed::host::text::printable;
use seedbed::host::{Host, git, leases};
use seedbed::manifest::{
    self, Diagnostic, Diagnostics, Located, Location, Manifest, Override, Reading, Report, rule,
};
use seedbed::name::nearest;
use seedbed::plan::{self, DISCOVERY_FILE, Plan};
use seedbed::provider::{DISCOVERY_DIRECTORY, Registry};
use seedbed::report::error;
use seedbed::state::{self, RecordedSwarm, Swarm};

use super::exit::Failure;
use super::own_session::OwnSession;
use super::{Global, applied_here, signals};

/// File name of the manifest, unless `-f` names another.
pub(super) const MANIFEST: &str = "seedbed.toml";

/// State directory that cannot exist, for commands that keep no state.
const NO_STATE: &str = "/dev/null/seedbed";

/// Text of the manifest, with its context.
pub(super) struct Project {
    pub(super) host: Host,
    pub(super) registry: Registry,
    /// Name of the manifest, as shown to the user.
    name: String,
    path: PathBuf,
    /// `None` if the manifest does not exist, and the swarm is that of a record.
    text: Option<String>,
    /// Values of the manifest that are changed for this run.
    overrides: Vec<Override>,
    /// Name of the instance of the manifest's swarm that the command is about; `None` for the swarm itself.
    instance: Option<String>,
    /// Swarm name and workspace, set when the manifest has been read.
    located: OnceCell<Located>,
}

impl Project {
    /// Reads the manifest that `global` names, or the nearest one above.
    pub(super) fn find(global: &Global) -> Result<Self, Failure> {
        if global.swarm.is_none() {
            return Self::find_in(global, &directory(global)?);
        }
        Self::find_instance(global)?.ok_or_else(|| {
            let message = "`--swarm` chooses an applied swarm, and this command reads a manifest\nhelp: name its file with `-f FILE`";
            Failure::new(error::USAGE, message)
        })
    }

    /// Reads the manifest that `global` names, or the nearest one in `directory` or above it.
    pub(super) fn find_in(global: &Global, directory: &Path) -> Result<Self, Failure> {
        match Self::find_if_any_in(global, directory)? {
            Some(project) => Ok(project),
            None => Err(missing(global)?),
        }
    }

    /// Returns the project of a manifest that another host has read. `name` is the name of its file, which need not exist here.
    pub(super) fn of_fleet(global: &Global, name: String, bytes: Vec<u8>) -> Result<Self, Failure> {
        let (text, diagnostic) = manifest::decode(bytes);
        if let Some(diagnostic) = diagnostic {
            return Err(Failure::Manifest(Report::new(name, &text, diagnostic)));
        }
        let root = root(global)?;
        Ok(Self {
            host: host(global)?,
            registry: registry(),
            path: root.join(&name),
            name,
            text: Some(text),
            overrides: Vec::new(),
            instance: None,
            located: OnceCell::new(),
        })
    }

    /// Reads the manifest as [`Self::find`] does, with values that are changed for this run.
    pub(super) fn find_with(global: &Global, overrides: &[Override]) -> Result<Self, Failure> {
        Ok(Self { overrides: overrides.to_vec(), ..Self::find(global)? })
    }

    /// Reads the manifest for the instance of its swarm that `--swarm` names; `None` if it names another swarm.
    fn find_instance(global: &Global) -> Result<Option<Self>, Failure> {
        let Some(mut project) = Self::find_if_any(global)? else { return Ok(None) };
        let Some(located) = manifest::locate(project.text()) else { return Ok(None) };
        let Ok(swarm) = project.swarm_at(&located) else { return Ok(None) };
        let found = state::swarms(&project.host)?;
        let is_instance = |found: &&RecordedSwarm| {
            let of = found.record().and_then(|record| record.instance_of.as_ref());
            of == Some(&located.swarm) && found.workspace() == Some(swarm.workspace())
        };
        let mut names = found.iter().filter(is_instance).map(|found| found.name().to_owned());
        project.instance = names.find(|name| global.swarm.as_ref() == Some(name));
        Ok(project.instance.is_some().then_some(project))
    }

    /// Makes the command about an instance of the manifest's swarm; `None` for the swarm itself.
    pub(super) fn set_instance(&mut self, name: Option<String>) {
        self.instance = name;
    }

    /// Finds the swarm that a command inspects or releases: the one that `--swarm` names, the one of the manifest, or,
    /// without a manifest, the only one that is recorded here.
    pub(super) fn find_applied(global: &Global) -> Result<Self, Failure> {
        match Self::find_applied_if_any(global)? {
            Some(project) => Ok(project),
            None => Err(missing(global)?),
        }
    }

    /// Finds a swarm as [`Project::find_applied`] does; `None` if there is neither a manifest nor a record.
    pub(super) fn find_applied_if_any(global: &Global) -> Result<Option<Self>, Failure> {
        if global.swarm.is_none()
            && let Some(project) = Self::find_if_any(global)?
        {
            return Ok(Some(project));
        }
        // A manifest outside of the workspace is named by `-f`.
        if global.manifest.is_some()
            && let Some(project) = Self::find_instance(global)?
        {
            return Ok(Some(project));
        }
        let host = host(global)?;
        let found = recorded(global, &host)?;
        let Some(found) = applied_here::only(found, global.swarm.as_deref())? else { return Ok(None) };
        let Some(workspace) = found.workspace() else { return Ok(None) };
        if global.swarm.is_none() && !global.quiet && !global.json {
            say!("no {MANIFEST} here; the swarm is {}, which is applied", printable(found.name()));
        }
        Ok(Some(Self {
            host,
            registry: registry(),
            name: MANIFEST.to_owned(),
            path: workspace.join(MANIFEST),
            text: None,
            overrides: Vec::new(),
            instance: None,
            located: OnceCell::from(Located::new(found.name())),
        }))
    }

    /// Reads the manifest, for commands that also work without one: `None` if there is none. A manifest that is named
    /// must exist.
    pub(super) fn find_if_any(global: &Global) -> Result<Option<Self>, Failure> {
        Self::find_if_any_in(global, &directory(global)?)
    }

    /// Reads the manifest that `global` names, or the nearest one in `directory` or above it; `None` if there is none.
    pub(super) fn find_if_any_in(global: &Global, directory: &Path) -> Result<Option<Self>, Failure> {
        let named = global.manifest.as_ref().map(|path| directory.join(path));
        let Some(path) = named.or_else(|| above(directory)) else { return Ok(None) };
        if path.is_dir() {
            let location = path.display();
            let help = format!("help: name the file in it: `-f {}`", path.join(MANIFEST).display());
            return Err(Failure::new(
                error::MANIFEST_UNREADABLE,
                format!("{location} is a directory, not a manifest\n{help}"),
            ));
        }
        let bytes = std::fs::read(&path).map_err(|error| {
            let why = format!("cannot read {}: {error}", path.display());
            Failure::new(error::MANIFEST_UNREADABLE, with_recorded(global, why))
        })?;
        // As the user's shell would find it, and code review too: not relative to `-C`.
        let current = std::env::current_dir().unwrap_or_default();
        let name = path.strip_prefix(&current).unwrap_or(&path).to_string_lossy().into_owned();
        match manifest::decode(bytes) {
            (text, None) => Ok(Some(Self {
                instance: own_instance(global, directory, &text),
                host: host(global)?,
                registry: registry(),
                name,
                path,
                text: Some(text),
                overrides: Vec::new(),
                located: OnceCell::new(),
            })),
            (text, Some(diagnostic)) => Err(Failure::Manifest(Report::new(name, &text, diagnostic))),
        }
    }

    /// Returns the manifest, or all its diagnostics.
    ///
    /// These include the diagnostics that depend on the host, as far as other diagnostics allow.
    pub(super) fn manifest(&self) -> Result<Manifest, Failure> {
        let Some(text) = &self.text else {
            return Err(Failure::new(
                error::MANIFEST_MISSING,
                format!("{} does not exist", self.path.display()),
            ));
        };
        let read = || manifest::read_with(text, &self.overrides, &self.registry.kinds());
        let Reading { mut manifest, mut diagnostics, .. } = signals::while_computing(&self.host.cancel, read);
        if let Some(manifest) = &mut manifest {
            self.directory().clone_into(&mut manifest.directory);
        }
        match manifest {
            Some(manifest) if diagnostics.is_empty() => {
                let _ = self.located.set(Located::from(&manifest));
                Ok(self.of_instance(manifest))
            }
            manifest => {
                let manifest = manifest.map(|manifest| self.of_instance(manifest));
                diagnostics
                    .extend(manifest.iter().flat_map(|manifest| self.diagnostics_of_the_host(manifest)));
                Err(self.diagnostics(diagnostics))
            }
        }
    }

    /// Returns the manifest of the instance that the command is about, if any.
    fn of_instance(&self, mut manifest: Manifest) -> Manifest {
        if let Some(instance) = &self.instance {
            manifest.become_instance(instance);
        }
        manifest
    }

    /// Returns the diagnostics of a partly readable manifest that depend on the host.
    ///
    /// Returns nothing if the host cannot be observed, because that error is not about the manifest.
    fn diagnostics_of_the_host(&self, manifest: &Manifest) -> Vec<Diagnostic> {
        let swarm = match self.swarm_at(&Located::from(manifest)) {
            Ok(swarm) => swarm,
            Err(diagnostic) => return diagnostic.into_iter().collect(),
        };
        // A partly applied swarm would conflict with the plan.
        if swarm.is_unfinished().unwrap_or(true) {
            return Vec::new();
        }
        // An invalid manifest must not run the programs that it names.
        let input = apply::planning_input_without_programs(&swarm, &self.registry, manifest);
        let Ok(input) = input else { return Vec::new() };
        self.check(manifest, &input).err().unwrap_or_default().into()
    }

    /// Finds the diagnostics that planning would find.
    pub(super) fn check(&self, manifest: &Manifest, input: &PlanningInput) -> Result<(), Diagnostics> {
        signals::while_computing(&self.host.cancel, || {
            plan::check(manifest, &self.registry, &input.observation, input.applied.as_ref())
        })
    }

    /// Plans the manifest.
    pub(super) fn plan(&self, manifest: &Manifest, input: &PlanningInput) -> Result<Plan, Failure> {
        signals::while_computing(&self.host.cancel, || {
            plan::plan(manifest, &self.registry, &input.observation, input.applied.as_ref())
        })
        .map_err(|diagnostics| self.diagnostics(diagnostics))
    }

    /// Returns an error with diagnostics of this manifest, of any stage.
    pub(super) fn diagnostics(&self, diagnostics: impl Into<Diagnostics>) -> Failure {
        let report = || Report::with_overrides(self.name.clone(), self.text(), &self.overrides, diagnostics);
        Failure::Manifest(signals::while_computing(&self.host.cancel, report))
    }

    /// Returns the directory of the manifest.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Returns the roots of the repositories that the manifest declares, by name; without those that do not exist.
    pub(super) fn repositories(&self, manifest: &Manifest) -> BTreeMap<String, PathBuf> {
        let found = manifest.repositories.iter().filter_map(|(name, root)| {
            Some((name.clone(), std::fs::canonicalize(self.directory().join(root)).ok()?))
        });
        found.collect()
    }

    /// Returns whether the manifest exists; otherwise the swarm is that of a record.
    pub(super) fn has_manifest(&self) -> bool {
        self.text.is_some()
    }

    /// Returns the text of the manifest; empty if it does not exist.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Returns the name of the manifest's file.
    pub(super) fn file_name(&self) -> &str {
        self.path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or(MANIFEST)
    }

    /// Returns the user's name for the manifest.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the swarm of this manifest, even if the rest of the manifest has diagnostics.
    pub(super) fn swarm(&self) -> Result<Swarm<'_>, Failure> {
        let read = || self.located.get().cloned();
        let Some(located) = read().or_else(|| manifest::locate(self.text())) else {
            // A manifest without a swarm name has a diagnostic that reports it.
            self.manifest()?;
            return Err(Failure::new(error::MANIFEST_UNREADABLE, format!("{} names no swarm", self.name)));
        };
        self.swarm_at(&located).map_err(|diagnostic| match diagnostic {
            Some(diagnostic) => self.diagnostics(vec![diagnostic]),
            None => Failure::new(
                error::DIRECTORY_UNUSABLE,
                format!("the directory of {} cannot be used", self.name),
            ),
        })
    }

    /// Returns the swarm at its workspace.
    ///
    /// The error is the diagnostic of a workspace root that is not a directory; `None` if the manifest has no explicit
    /// root.
    fn swarm_at(&self, located: &Located) -> Result<Swarm<'_>, Option<Diagnostic>> {
        let directory = self.directory();
        let workspace = std::fs::canonicalize(directory.join(&located.workspace_root));
        match workspace {
            Ok(workspace) if workspace.is_dir() => {
                let name = self.instance.as_ref().unwrap_or(&located.swarm);
                let swarm = Swarm::new(&self.host, &workspace, name).map_err(|_| None)?;
                // A pipe cannot be read again.
                let absolute = || Some(std::fs::canonicalize(directory).ok()?.join(self.path.file_name()?));
                Ok(match absolute().filter(|manifest| manifest.is_file()) {
                    Some(manifest) => swarm.with_manifest(&manifest),
                    None => swarm,
                })
            }
            _ if located.workspace_root == Path::new(".") => Err(None),
            _ => Err(Some(nowhere(directory, &located.workspace_root))),
        }
    }
}

/// Returns the error of a command that needs a manifest where there is none.
fn missing(global: &Global) -> Result<Failure, Failure> {
    let directory = directory(global)?;
    let message = format!(
        "no {MANIFEST} in {} or above it\nhelp: run `seedbed init` to write one, or name another with `-f FILE`",
        directory.display()
    );
    Ok(Failure::new(error::MANIFEST_MISSING, with_recorded(global, message)))
}

/// Adds the swarms that are recorded here to the message about a missing manifest, which they do not need.
fn with_recorded(global: &Global, message: String) -> String {
    let found = host(global).and_then(|host| recorded(global, &host)).unwrap_or_default();
    match applied_here::help(&found) {
        Some(help) => format!("{message}\n{help}"),
        None => message,
    }
}

/// Returns the swarms that are recorded in the workspace around the directory of the command.
fn recorded(global: &Global, host: &Host) -> Result<Vec<RecordedSwarm>, Failure> {
    let directory = std::path::absolute(outside(directory(global)?)).unwrap_or_default();
    applied_here::around(host, &std::fs::canonicalize(&directory).unwrap_or(directory))
}

/// Returns the diagnostic of a workspace root that is not a directory, with the nearest similar directory.
fn nowhere(directory: &Path, root: &Path) -> Diagnostic {
    // The part of the path that exists, and the first component that does not.
    let exists = root.ancestors().find(|above| directory.join(above).is_dir()).unwrap_or(Path::new(""));
    let lost = root.strip_prefix(exists).ok().and_then(|rest| rest.components().next());
    let lost = lost.map(|lost| lost.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    let beside = std::fs::read_dir(directory.join(exists)).into_iter().flatten().flatten();
    let directories: Vec<String> = beside
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let nearest = nearest(&lost, directories.iter().map(String::as_str));
    let location = Location::default().key("workspace").key("root");
    let message = format!("the workspace root `{}` is not a directory", printable(&root.to_string_lossy()));
    let help = "write the path from the directory of this file to the repository";
    match nearest {
        Some(near) => {
            let near = exists.join(near);
            let label = format!("did you mean `{}`?", printable(&near.to_string_lossy()));
            Diagnostic::new(rule::WORKSPACE_ROOT, location, message, label).with_help(help)
        }
        None => Diagnostic::new(rule::WORKSPACE_ROOT, location, message, "leads nowhere").with_help(help),
    }
}

/// Finds the nearest manifest in `directory` or above it.
///
/// A session's worktree may contain a copy of the manifest, from the session's commit and without a swarm. So from
/// inside a session, the search begins at the session's workspace.
pub(super) fn above(directory: &Path) -> Option<PathBuf> {
    let own = session_around(directory).filter(|(above, snapshot)| is_in_place(above, snapshot));
    let manifest = own.and_then(|(_, snapshot)| snapshot.swarm?.manifest).filter(|file| file.is_file());
    manifest.or_else(|| {
        let directory = outside(directory.to_owned());
        directory.ancestors().map(|above| above.join(MANIFEST)).find(|path| path.is_file())
    })
}

/// Returns the directory in which to search for a manifest or a swarm: inside a session, the session's workspace.
fn outside(directory: PathBuf) -> PathBuf {
    let session = session_around(&directory).and_then(|(above, snapshot)| {
        // The discovery file of a moved or copied directory names another directory. Then the workspace is searched
        // above.
        if !is_in_place(&above, &snapshot) {
            return above.parent().map(Path::to_owned);
        }
        // A workspace inside the session would make the search endless.
        (!snapshot.workspace_root.starts_with(&above)).then_some(snapshot.workspace_root)
    });
    session.map_or(directory, outside)
}

/// Returns the nearest directory, `directory` or above it, that has a discovery file, with the content of the file.
fn session_around(directory: &Path) -> Option<(PathBuf, Snapshot)> {
    directory.ancestors().find_map(|above| {
        let file = above.join(DISCOVERY_DIRECTORY).join(DISCOVERY_FILE);
        // A session may have replaced the file by one that blocks a reader, such as a pipe.
        let bytes = file.is_file().then(|| std::fs::read(&file).ok())??;
        Some((above.to_owned(), serde_json::from_slice(&bytes).ok()?))
    })
}

/// Returns the instance of the swarm of a manifest that the command runs in: that of the session around `directory`, or of
/// the session that `AGENT_DISCOVERY_FILE` names. `None` with `-f`, which names the swarm itself.
fn own_instance(global: &Global, directory: &Path, manifest: &str) -> Option<String> {
    if global.manifest.is_some() {
        return None;
    }
    let around = session_around(directory).filter(|(above, snapshot)| is_in_place(above, snapshot));
    let snapshot = around.map(|(_, snapshot)| snapshot).or_else(|| {
        // Commands that need no discovery file work beside one that cannot be read.
        let own = OwnSession::find(global).ok().flatten();
        own.filter(|own| own.is_named && own.counts_in(directory)).map(|own| own.snapshot)
    });
    let position = snapshot.and_then(|snapshot| snapshot.swarm);
    let own = position.filter(|position| position.instance_of.is_some());
    let own = own.filter(|own| own.instance_of == manifest::locate(manifest).map(|located| located.swarm));
    own.map(|own| own.name)
}

/// Returns whether a directory is the one that its discovery file names.
fn is_in_place(directory: &Path, snapshot: &Snapshot) -> bool {
    std::fs::canonicalize(&snapshot.working_directory).ok() == std::fs::canonicalize(directory).ok()
}

/// Returns the absolute path of the directory that the command is to run in, which need not exist.
fn root(global: &Global) -> Result<PathBuf, Failure> {
    match &global.directory {
        Some(directory) => Ok(std::path::absolute(directory).unwrap_or_else(|_| directory.clone())),
        None => directory(global),
    }
}

/// Returns the directory that the command runs in.
pub(super) fn directory(global: &Global) -> Result<PathBuf, Failure> {
    let current = std::env::current_dir().map_err(|error| {
        let why = format!("the current directory cannot be used: {error}");
        Failure::new(error::DIRECTORY_UNUSABLE, why)
    })?;
    let Some(directory) = &global.directory else { return Ok(current) };
    let directory = current.join(directory);
    if directory.is_dir() {
        return Ok(directory);
    }
    let why = format!("{} is not a directory\nhelp: name another one with `-C DIR`", directory.display());
    Err(Failure::new(error::DIRECTORY_UNUSABLE, why))
}

/// Returns the top of the repository around a directory, or the directory itself if there is no repository.
pub(super) fn around(host: &Host, directory: &Path) -> Result<PathBuf, Failure> {
    let directory = std::fs::canonicalize(directory).map_err(|error| {
        let why = format!("{} cannot be used: {error}", directory.display());
        Failure::new(error::DIRECTORY_UNUSABLE, why)
    })?;
    Ok(Git::discover(host, &directory).path(["rev-parse", "--show-toplevel"]).unwrap_or(directory))
}

/// Returns every kind that a manifest can name.
pub(super) fn registry() -> Registry {
    Registry::built_in().with_external_kinds()
}

/// Returns the time limit of one Git call: `SEEDBED_GIT_TIMEOUT` in seconds, for repositories with a slow checkout.
fn git_deadline() -> Result<Duration, Failure> {
    let Some(text) = std::env::var_os("SEEDBED_GIT_TIMEOUT").filter(|text| !text.is_empty()) else {
        return Ok(git::DEADLINE);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let deadline = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    deadline.filter(|deadline| !deadline.is_zero()).ok_or_else(|| {
        let text = text.to_string_lossy();
        let why = format!("SEEDBED_GIT_TIMEOUT is `{text}`, and has to be a number of seconds above 0");
        Failure::new(error::ENVIRONMENT_INVALID, why)
    })
}

/// Returns the directory in which port leases are published to other users.
///
/// This is `SEEDBED_PORT_REGISTRY`, or a directory that exists on all hosts; `None` for `none`.
fn shared_ports() -> Result<Option<PathBuf>, Failure> {
    match std::env::var_os("SEEDBED_PORT_REGISTRY").filter(|value| !value.is_empty()) {
        None => Ok(Some(leases::shared_directory())),
        Some(value) if value == "none" => Ok(None),
        Some(value) if Path::new(&value).is_absolute() => Ok(Some(value.into())),
        Some(value) => Err(Failure::new(
            error::ENVIRONMENT_INVALID,
            format!(
                "SEEDBED_PORT_REGISTRY is {}, and has to be an absolute path or `none`",
                printable(&value.to_string_lossy())
            ),
        )),
    }
}

/// Creates the library's host from the environment and the options. Also catches signals, if the command runs programs.
pub(super) fn host(global: &Global) -> Result<Host, Failure> {
    let chosen = std::env::var_os("SEEDBED_STATE_DIR");
    let xdg = std::env::var_os("XDG_STATE_HOME");
    // Without `HOME`, this is the home directory in the system's user database.
    let home = std::env::home_dir();
    let mut locations = Places::default();
    (locations.chosen, locations.xdg, locations.home) = (chosen.as_deref(), xdg.as_deref(), home.as_deref());
    let state = match state_directory(locations) {
        Err(state_directory::Error::Nowhere) if !global.needs_state => NO_STATE.into(),
        state => state.map_err(Failure::from_error)?,
    };
    let state = std::path::absolute(&state).unwrap_or(state);
    if global.runs_programs {
        global.catch_signals()?;
    }
    let mut host = Host::new(std::env::vars_os().collect(), state);
    host.jobs = global.jobs.unwrap_or(host.jobs);
    host.git_deadline = git_deadline()?;
    host.shared_ports = shared_ports()?;
    host.cancel = global.cancel.clone();
    Ok(host)
}
