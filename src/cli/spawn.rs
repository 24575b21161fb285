//! `spawn` and `release`: sessions beside the manifest, which agents and people add to a swarm.
#![expect(clippy::disallowed_methods, reason = "resolves the directory that the user names")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use seedbed::apply::{self, Context, Options, PlanningInput};
use seedbed::discovery::{self, Snapshot};
use seedbed::host::text::printable;
use seedbed::name::SessionPath;
use seedbed::plan::{self, Plan, Session, Spawn, SpawnError};
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::provider::way;
use seedbed::report::error;
use seedbed::state::{Record, Swarm};

use super::exit::{Failure, Status};
use super::lock::{recover, with_lock};
use super::own_session::{OwnSession, facts};
use super::project::{self, Project};
use super::release_options::{StopProcesses, UnsavedWork};
use super::{Global, completions, destroy, lookup, output, signals};

/// Arguments of `spawn`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the new session
    name: String,
    /// Session above the new one [default: the session that the command runs in, or none]
    #[arg(long, value_name = "SESSION", add = completions::active_sessions())]
    parent: Option<String>,
    /// Session of the manifest or of the swarm to make it from, with the sessions below it [default: a share of
    /// everything that the parent has; at the top a worktree, and the kinds of `[defaults]`]
    #[arg(long, value_name = "SESSION")]
    template: Option<String>,
    /// Directory, such as a worktree, that another tool made: the session works there, and seedbed never removes it
    #[arg(long, value_name = "DIR", conflicts_with = "base")]
    adopt: Option<PathBuf>,
    /// Base ref of its worktrees [default: that of the template; without one, the HEAD of the parent's worktree]
    #[arg(long, value_name = "REF")]
    base: Option<String>,
}

/// Arguments of `release`.
#[derive(Debug, Args)]
pub(super) struct ReleaseArguments {
    /// Spawned session to release, with its children: its path, or its name if the name is unique
    #[arg(add = completions::active_sessions())]
    session: String,
    #[command(flatten)]
    unsaved: UnsavedWork,
    #[command(flatten)]
    stop: StopProcesses,
}

/// Session to spawn, as a command requests it.
pub(super) struct Request<'a> {
    pub(super) name: &'a str,
    /// The session above as the user calls it; `None` for the session that the command runs in.
    pub(super) parent: Option<&'a str>,
    pub(super) template: Option<&'a str>,
    pub(super) base: Option<&'a str>,
    /// Directory of another tool, relative to the workspace root.
    pub(super) adopt: Option<PathBuf>,
    /// `true` if an active session of this path, which was spawned before, is the result.
    pub(super) reuse: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { name, parent, template, adopt, base } = arguments;
    let (parent, template, base) = (parent.as_deref(), template.as_deref(), base.as_deref());
    let (project, own) = find(global)?;
    let adopt = adopt.as_ref().map(|path| adopted(global, &project, path)).transpose()?;
    let request = Request { name, parent, template, base, adopt, reuse: false };
    let (snapshot, environment) = spawn(global, &project, own.as_ref(), &request)?;
    if global.json {
        output::print_json_pretty(&snapshot);
        return Ok(Status::Done.into());
    }
    let mut lines = facts(&snapshot);
    lines.extend(environment.iter().map(|(name, value)| format!("{name}={}", printable(value))));
    output::print(&(lines.join("\n") + "\n"));
    Ok(Status::Done.into())
}

/// Finds the manifest and the session of a command that may run inside a session.
pub(super) fn find(global: &Global) -> Result<(Project, Option<OwnSession>), Failure> {
    let own = own(global)?;
    let project = match named(global, own.as_ref()) {
        Some(directory) => Project::find_in(global, directory)?,
        None => Project::find(global)?,
    };
    Ok((project, own))
}

/// Finds the session that the command runs in, and whose swarm it is about.
fn own(global: &Global) -> Result<Option<OwnSession>, Failure> {
    let directory = project::directory(global)?;
    Ok(OwnSession::find(global)?.filter(|own| own.counts_in(&directory)))
}

/// Returns the directory of the session that `AGENT_DISCOVERY_FILE` names, from which its manifest is found; `None` if the
/// user names a manifest or a swarm.
fn named<'o>(global: &Global, own: Option<&'o OwnSession>) -> Option<&'o Path> {
    let is_chosen = global.manifest.is_some() || global.swarm.is_some();
    let own = own.filter(|own| !is_chosen && own.is_named)?;
    Some(&*own.snapshot.working_directory).filter(|directory| directory.is_dir())
}

/// Adds a session to the swarm, and returns its discovery document and its environment.
pub(super) fn spawn(
    global: &Global,
    project: &Project,
    own: Option<&OwnSession>,
    request: &Request<'_>,
) -> Result<(Snapshot, BTreeMap<String, String>), Failure> {
    if project.swarm()?.applied()?.is_some_and(|record| record.temporary) {
        let why = "this swarm exists only for the command of `seedbed run`, which keeps its lock\nhelp: use `seedbed apply` and `seedbed \
                   exec`";
        return Err(Failure::new(error::RUN_IN_PROGRESS, why));
    }
    with_lock(global, project, "spawn", |context| {
        // The only output for programs is the document of the session.
        let quiet = |_: &apply::Event| {};
        let context = &if global.json { context.with_events(&quiet) } else { *context };
        recover(global, context, Options::default())?;
        let record = context.swarm.applied()?;
        let own = own.filter(|_| request.parent.is_none());
        let own = own.map(|own| own_path(project, context.swarm, own)).transpose()?.flatten();
        let spawn = spawn_of(project, context.swarm, record.as_ref(), own.as_ref(), request)?;
        let path = match &spawn.parent {
            Some(parent) => format!("{parent}/{}", spawn.name),
            None => spawn.name.clone(),
        };
        let find = |record: &Record| {
            record.plan.sessions().iter().find(|session| session.path.as_str() == path).cloned()
        };
        let active = record.as_ref().and_then(find);
        if let Some(active) = active.as_ref().filter(|_| !request.reuse) {
            return Err(failure(project, SpawnError::Active(active.path.clone())));
        }
        match active.filter(|session| request.reuse && session.spawned.is_some()) {
            // Only a new session depends on the manifest, which a person may be editing.
            None => apply_spawn(global, project, context, &spawn)?,
            Some(session) => {
                let record = lookup::record(context.swarm, project.name())?;
                let directory = apply::directory(context.swarm, &project.registry, &record, &session);
                directory.map_err(|why| {
                    let why = format!("session {path} has no directory to work in: {}", printable(&why));
                    Failure::new(error::SESSION_DAMAGED, why)
                })?;
            }
        }
        let record = lookup::record(context.swarm, project.name())?;
        let Some(session) = find(&record) else {
            return Err(Failure::new(error::BUG, format!("the spawned session {path} is not recorded")));
        };
        let snapshot = discovery::snapshot(
            &record,
            &session,
            &project.registry,
            context.swarm.workspace(),
            &context.swarm.host().state,
        );
        Ok((snapshot, discovery::environment(context.swarm, &session)))
    })
}

/// Returns the path of a directory of another tool, relative to the workspace root.
fn adopted(global: &Global, project: &Project, path: &Path) -> Result<PathBuf, Failure> {
    let path = project::directory(global)?.join(path);
    let unusable = |why: &str| {
        let why = format!("{} {why}", printable(&path.to_string_lossy()));
        Failure::new(error::DIRECTORY_UNUSABLE, why)
    };
    let directory =
        std::fs::canonicalize(&path).map_err(|error| unusable(&format!("cannot be used: {error}")))?;
    if !directory.is_dir() {
        return Err(unusable("is not a directory"));
    }
    let other = OwnSession::around(&directory)?.filter(|other| other.snapshot.working_directory == directory);
    if let Some(other) = other {
        let id = printable(&other.snapshot.session_id);
        return Err(unusable(&format!("is the directory of session {id}")));
    }
    Ok(way(project.swarm()?.workspace(), &directory))
}

/// Plans and applies; plans again if another run has taken a planned resource first.
fn apply_spawn(
    global: &Global,
    project: &Project,
    context: &Context<'_>,
    spawn: &Spawn,
) -> Result<(), Failure> {
    let registry = &project.registry;
    let manifest = project.manifest()?;
    let applied = context.swarm.applied()?.map(|record| plan::AppliedPlan::new(record.plan));
    let manifest =
        plan::spawn(&manifest, registry, applied.as_ref(), spawn).map_err(|error| failure(project, error))?;
    let make = || {
        let input = apply::spawning_input(context.swarm, registry, &manifest)?;
        let plan = signals::while_computing(&project.host.cancel, || {
            plan::plan_spawned(&manifest, registry, &input.observation, input.applied.as_ref())
        });
        Ok((plan.map_err(|error| failure(project, error))?, input))
    };
    let check = |_: &Plan, _: &PlanningInput| global.unless_interrupted();
    apply::apply_until_free(context, Options::default(), make, check, |_| {}).map(drop)
}

/// Returns the path of the session that the command runs in.
fn own_path(project: &Project, swarm: &Swarm<'_>, own: &OwnSession) -> Result<Option<SessionPath>, Failure> {
    let Snapshot { session_id, workspace_root, swarm: position, .. } = &own.snapshot;
    let id = printable(session_id);
    let Some(position) = position else {
        let why = format!(
            "this command runs in session {id}, which a program has provisioned: it is in no swarm\nhelp: name the session above \
             with `--parent SESSION`"
        );
        return Err(Failure::new(error::USAGE, why));
    };
    if position.name == swarm.name() && workspace_root == swarm.workspace() {
        return Ok(Some(position.path.clone()));
    }
    let why = format!(
        "this command runs in session {id}, which is not of the swarm `{}` that {} declares\nhelp: name the manifest of the \
         session with `-f FILE`, or the session above with `--parent SESSION`",
        swarm.name(),
        project.name()
    );
    Err(Failure::new(error::USAGE, why))
}

/// Returns the session to add: below the one that is named, or below the own one.
fn spawn_of(
    project: &Project,
    swarm: &Swarm<'_>,
    record: Option<&Record>,
    own: Option<&SessionPath>,
    request: &Request<'_>,
) -> Result<Spawn, Failure> {
    let mut spawn = Spawn::default();
    request.name.clone_into(&mut spawn.name);
    spawn.template = request.template.map(str::to_owned);
    spawn.adopt.clone_from(&request.adopt);
    let parent = match (request.parent, record) {
        (Some(name), Some(record)) => Some(lookup::session(record, name)?),
        (Some(_), None) => Some(lookup::record(swarm, swarm.name()).map(|_| None)?).flatten(),
        (None, _) => {
            spawn.parent = own.cloned();
            own.and_then(|own| record?.plan.session(own))
        }
    };
    if let Some(parent) = parent {
        spawn.parent = Some(parent.path.clone());
    }
    let names = parent.into_iter().flat_map(|parent| parent.allocations_of(git_worktree::KIND));
    let names: Vec<_> = names.map(|held| held.name().to_owned()).collect();
    spawn.base_refs = match (request.base, parent) {
        // In the session above, `HEAD` is what is checked out there.
        (Some(base), Some(parent)) if beyond_head(base).is_some() => {
            let beyond = beyond_head(base).unwrap_or_default();
            let heads = heads(swarm, parent, |progress| progress.head)?;
            heads.into_iter().map(|(name, head)| (name, head + beyond)).collect()
        }
        (Some(base), _) => {
            let names = names.into_iter().chain([git_worktree::KIND.to_owned()]);
            names.map(|name| (name, base.to_owned())).collect()
        }
        (None, Some(parent)) if request.template.is_none() && request.adopt.is_none() => {
            if let Some(record) = record {
                refuse_unusable(project, swarm, record, parent)?;
            }
            heads(swarm, parent, |progress| progress.branch.unwrap_or(progress.head))?
        }
        (None, _) => BTreeMap::new(),
    };
    Ok(spawn)
}

/// Returns an error if a session has a worktree in a repository that cannot be used.
fn refuse_unusable(
    project: &Project,
    swarm: &Swarm<'_>,
    record: &Record,
    session: &Session,
) -> Result<(), Failure> {
    let mut unusable = apply::unusable_repositories(swarm, &project.registry, record);
    unusable.retain(|repository| repository.sessions.contains(&session.path));
    if unusable.is_empty() { Ok(()) } else { Err(Failure::Apply(apply::Error::Unusable(unusable))) }
}

/// Returns the rest of a ref that begins with `HEAD`: nothing, or steps to an earlier commit such as `~1`.
fn beyond_head(base: &str) -> Option<&str> {
    let beyond = base.strip_prefix("HEAD").or_else(|| base.strip_prefix('@'))?;
    (beyond.is_empty() || beyond.starts_with(['~', '^'])).then_some(beyond)
}

/// Returns what is checked out in each worktree of a session, by name of the resource: what `name` returns.
fn heads(
    swarm: &Swarm<'_>,
    session: &Session,
    name: impl Fn(git_worktree::Progress) -> String,
) -> Result<BTreeMap<String, String>, Failure> {
    let held = session.allocations_of(git_worktree::KIND);
    let (names, worktrees): (Vec<_>, Vec<_>) =
        held.filter_map(|held| Some((held.name(), Worktree::from_allocation(held)?))).unzip();
    let found =
        git_worktree::progress(swarm.host(), swarm.workspace(), &worktrees.iter().collect::<Vec<_>>());
    let checked_out = |(resource, found): (&str, Result<git_worktree::Progress, String>)| match found {
        Ok(progress) => Ok((resource.to_owned(), name(progress))),
        Err(why) => {
            let path = &session.path;
            let why = format!(
                "the commit of session {path} cannot be read: {}\nhelp: name a commit with `--base REF`, or repair the session \
                 with `seedbed apply`",
                printable(&why)
            );
            Err(Failure::new(error::SESSION_DAMAGED, why))
        }
    };
    names.into_iter().zip(found).map(checked_out).collect()
}

/// Converts the reason for which a session cannot be added.
fn failure(project: &Project, error: SpawnError) -> Failure {
    let id = match &error {
        SpawnError::Diagnostics(_) => error::MANIFEST_INVALID,
        SpawnError::Unplannable(_) => error::SESSION_UNPLANNABLE,
        SpawnError::Name(_) | SpawnError::Depth(_) | SpawnError::Active(_) | SpawnError::Declared(_) => {
            error::SESSION_NAME
        }
        SpawnError::Parent(_) => error::SESSION_UNKNOWN,
        SpawnError::Changed(_) => error::PLAN_STALE,
        _ => error::TEMPLATE_UNUSABLE,
    };
    match error {
        SpawnError::Diagnostics(diagnostics) => project.diagnostics(diagnostics),
        error => Failure::new(id, error.to_string()),
    }
}

pub(super) fn release(global: &Global, arguments: &ReleaseArguments) -> Result<ExitCode, Failure> {
    let own = own(global)?;
    let project = match named(global, own.as_ref()) {
        Some(directory) => Project::find_if_any_in(global, directory)?,
        None => None,
    };
    let project = project.map_or_else(|| Project::find_applied(global), Ok)?;
    let swarm = project.swarm()?;
    let record = lookup::record(&swarm, project.name())?;
    let own = own.and_then(|own| own.snapshot.swarm);
    let below = own.map(|own| format!("{}/{}", own.path, arguments.session));
    let below =
        below.and_then(|path| record.plan.sessions().iter().find(|session| session.path.as_str() == path));
    let session = match below.filter(|session| session.spawned.is_some()) {
        Some(session) => session,
        None => lookup::session(&record, &arguments.session)?,
    };
    if session.spawned.is_none() {
        return Err(declared(session));
    }
    destroy::release(global, &project, &session.path, arguments.unsaved, arguments.stop)
}

/// Returns the failure of releasing a session that was not spawned.
pub(super) fn declared(session: &Session) -> Failure {
    let path = &session.path;
    let why = format!(
        "{path} was not spawned: the manifest declares it\nhelp: release it with `seedbed destroy {path}`"
    );
    Failure::new(error::SESSION_DECLARED, why)
}
