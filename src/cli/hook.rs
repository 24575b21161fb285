//! `hook`: contracts of coding agents that let a program make their worktrees.
#![expect(clippy::disallowed_methods, reason = "reads standard input, and the paths that it names")]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use seedbed::host::absolute;
use seedbed::host::text::printable;
use seedbed::name::{HashDigits, is_name, scoped_name};
use seedbed::plan::Session;
use seedbed::provider::Registry;
use seedbed::report::error;
use serde::Deserialize;

use super::exit::{Failure, Status};
use super::own_session::OwnSession;
use super::project::{self, Project};
use super::release_options::{StopProcesses, UnsavedWork};
use super::spawn::{Request, spawn};
use super::{Global, completions, destroy, example, lookup, output};

/// Maximum length of a request on standard input, in bytes: a thousand times that of a real one.
const INPUT_MAX: u64 = 1 << 20;

/// Arguments of `hook`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    agent: Agent,
}

#[derive(Debug, Subcommand)]
enum Agent {
    /// Worktree hooks of Claude Code: create and remove
    ///
    /// Claude Code writes a JSON object to standard input.
    #[command(after_help = example::help("hook claude"))]
    Claude {
        #[command(subcommand)]
        event: Event,
    },
}

#[derive(Debug, Subcommand)]
enum Event {
    /// Spawn a session, and print its directory
    ///
    /// Its name is the `name` of the request. An active session of this name, which was spawned before, is used again.
    #[command(after_help = example::help("hook claude create"))]
    Create {
        /// Session above the new one [default: the session that the hook runs in, or none]
        #[arg(long, value_name = "SESSION", add = completions::active_sessions())]
        parent: Option<String>,
        /// Session of the manifest or of the swarm to make it from [default: as for `seedbed spawn`]
        #[arg(long, value_name = "SESSION")]
        template: Option<String>,
    },
    /// Release the spawned session whose directory is the `worktree_path` of the request
    ///
    /// Unsaved work is a reason to refuse; the worktree then stays.
    #[command(after_help = example::help("hook claude remove"))]
    Remove {
        #[command(flatten)]
        unsaved: UnsavedWork,
        #[command(flatten)]
        stop: StopProcesses,
    },
}

/// Fields of a request that are used. Versions of Claude Code have sent the name under two keys.
#[derive(Deserialize)]
struct Input {
    cwd: Option<PathBuf>,
    name: Option<String>,
    worktree_name: Option<String>,
    worktree_path: Option<PathBuf>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Agent::Claude { event } = &arguments.agent;
    let input = read_input()?;
    match event {
        Event::Create { parent, template } => create(global, &input, parent.as_deref(), template.as_deref()),
        Event::Remove { unsaved, stop } => remove(global, &input, *unsaved, *stop),
    }
}

fn read_input() -> Result<Input, Failure> {
    let unreadable = |why: String| {
        let why = format!("the request on standard input cannot be read: {why}");
        Failure::new(error::INPUT_UNREADABLE, why)
    };
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(INPUT_MAX).read_to_end(&mut text);
    read.map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}

/// Returns the failure of a request without a field.
fn lacking(field: &str) -> Failure {
    Failure::new(error::INPUT_UNREADABLE, format!("the request on standard input has no `{field}`"))
}

fn create(
    global: &Global,
    input: &Input,
    parent: Option<&str>,
    template: Option<&str>,
) -> Result<ExitCode, Failure> {
    let name = input.name.as_ref().or(input.worktree_name.as_ref()).ok_or_else(|| lacking("name"))?;
    let scoped = || scoped_name(name, HashDigits::Eight).trim_start_matches(['-', '_', '.']).to_owned();
    let name = if is_name(name) { name.clone() } else { scoped() };
    let directory = match &input.cwd {
        Some(directory) if global.directory.is_none() => directory.clone(),
        _ => project::directory(global)?,
    };
    // The session that an agent works in now counts more than the one that it was started in.
    let own = match OwnSession::around(&directory)? {
        Some(own) => Some(own),
        None => OwnSession::find(global)?.filter(|own| own.counts_in(&directory)),
    };
    let from = match &own {
        Some(own) if own.is_named && own.snapshot.working_directory.is_dir() => {
            &own.snapshot.working_directory
        }
        _ => &directory,
    };
    let project = Project::find_in(global, from)?;
    let request = Request { name: &name, parent, template, base: None, adopt: None, reuse: true };
    let (snapshot, _) = spawn(global, &project, own.as_ref(), &request)?;
    output::print(&format!("{}\n", snapshot.working_directory.display()));
    Ok(Status::Done.into())
}

fn remove(
    global: &Global,
    input: &Input,
    unsaved: UnsavedWork,
    stop: StopProcesses,
) -> Result<ExitCode, Failure> {
    let path = input.worktree_path.as_ref().ok_or_else(|| lacking("worktree_path"))?;
    if !path.exists() {
        return Ok(Status::Done.into());
    }
    let project = Project::find_if_any_in(global, path)?;
    let project = project.map_or_else(|| Project::find_applied(global), Ok)?;
    let swarm = project.swarm()?;
    let record = lookup::record(&swarm, project.name())?;
    let is_at = |session: &&Session| is_at(session, swarm.workspace(), &project.registry, path);
    let Some(session) = record.plan.sessions().iter().find(is_at) else {
        let why = format!("{} is not the directory of a session", printable(&path.to_string_lossy()));
        return Err(Failure::new(error::SESSION_UNKNOWN, why));
    };
    if session.spawned.is_none() {
        return Err(super::spawn::declared(session));
    }
    destroy::release(global, &project, &session.path, unsaved, stop)
}

/// Returns whether a session works in this directory.
fn is_at(session: &Session, workspace: &Path, registry: &Registry, path: &Path) -> bool {
    let is_same = |directory: &Path| {
        let canonical = std::fs::canonicalize(absolute(workspace, directory));
        canonical.is_ok_and(|directory| std::fs::canonicalize(path).is_ok_and(|path| path == directory))
    };
    let mut directories =
        session.allocations.iter().filter_map(|held| registry.get(&held.kind)?.directory(held));
    session.discovery_file.is_some() && is_same(&session.working_directory)
        || directories.any(|directory| is_same(&directory))
}
