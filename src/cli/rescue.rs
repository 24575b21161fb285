//! `rescue`: lists, restores and deletes rescues. Only the repository has to exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use seedbed::apply::{self, RestoreError};
use seedbed::host::Host;
use seedbed::host::text::{printable, shell_quoted};
use seedbed::name::{SessionPath, nearest};
use seedbed::provider::git_worktree::rescue::{self, Restored, SavedWork};
use seedbed::report::error;
use seedbed::report::{self, RescueAction, Rescues};

use super::apply::{ask, has_terminal};
use super::exit::{Failure, Status};
use super::lock::with_lock;
use super::project::Project;
use super::{Global, completions, example, lookup, output, project};

/// Arguments of `rescue`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the rescues of this repository and the others of the manifest
    ///
    /// Each line shows the session, the time, the number of files, and the name for `restore` and `drop`.
    #[command(after_help = example::help("rescue list"))]
    List,
    /// Restore a rescue in a new worktree, or in an active session
    ///
    /// No existing work is overwritten, and the rescue is kept. A session must have the commits of the rescue; if it differs
    /// from them in a path of the rescue, nothing is changed.
    #[command(after_help = example::help("rescue restore"))]
    Restore {
        /// Name of the rescue, as in `seedbed rescue list`, or its ref
        name: String,
        /// Active session, or directory of the new worktree, which must not exist [default: one beside the repository]; `./NAME`
        /// is always a directory
        #[arg(long, value_name = "SESSION|DIR", add = completions::active_sessions())]
        into: Option<PathBuf>,
    },
    /// Delete rescues
    ///
    /// Work that no branch contains is lost then, so the command asks first.
    #[command(after_help = example::help("rescue drop"))]
    Drop {
        /// Names of the rescues, as in `seedbed rescue list`, or their refs
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = project::host(global)?;
    let directory = project::directory(global)?;
    let repository = rescue::common_directory(&host, &directory).map_err(|error| {
        let why = format!("no repository around {}: {error}", directory.display());
        Failure::new(error::NO_REPOSITORY, why)
    })?;
    let mut all = rescue::list(&host, &repository).map_err(Failure::from_error)?;
    let others = other_rescues(global, &host, &repository)?;
    let repository = match &arguments.command {
        Command::List => {
            all.extend(others.into_values().flatten());
            repository
        }
        // A rescue of another repository is found where it is.
        Command::Restore { name, .. } => of_repository(repository, &mut all, others, name),
        Command::Drop { names } => {
            let first = names.first().map_or("", String::as_str);
            of_repository(repository, &mut all, others, first)
        }
    };
    let mut session = None;
    let (action, rescues, directory) = match &arguments.command {
        Command::List => (RescueAction::Listed, all, None),
        Command::Restore { name, into: Some(into) } if is_session(global, into)? => {
            let saved = find(&all, name)?.clone();
            let (path, restored) = restore_into(global, &repository, &saved, into)?;
            session = Some((path, restored.clone()));
            (RescueAction::Restored, vec![saved], Some(restored.directory))
        }
        Command::Restore { name, into } => {
            let saved = find(&all, name)?.clone();
            let into = into.as_ref().map(|into| directory.join(into));
            let restored =
                rescue::restore(&host, &repository, &saved, into.as_deref()).map_err(Failure::from_error)?;
            (RescueAction::Restored, vec![saved], Some(restored))
        }
        Command::Drop { names } => {
            let mut dropped = names.iter().map(|name| find(&all, name)).collect::<Result<Vec<_>, _>>()?;
            dropped.sort_by(|one, other| one.reference.cmp(&other.reference));
            dropped.dedup();
            drop_rescues(global, &host, &repository, &dropped)?;
            (RescueAction::Dropped, dropped.into_iter().cloned().collect(), None)
        }
    };
    let path = session.as_ref().map(|(path, _)| path.clone());
    let schema_version = report::SCHEMA_VERSION;
    let document = Rescues { schema_version, repository, action, rescues, directory, session: path };
    if global.json {
        output::print_json_pretty(&document);
    } else {
        if let Some((path, restored)) = session.filter(|_| !global.quiet) {
            say!("{}", described(&path, &restored, &document.rescues));
        }
        show(global, &document);
    }
    Ok(Status::Done.into())
}

/// Returns the rescues of the other repositories of the manifest, by common Git directory.
fn other_rescues(
    global: &Global,
    host: &Host,
    own: &Path,
) -> Result<BTreeMap<PathBuf, Vec<SavedWork>>, Failure> {
    let mut others = BTreeMap::new();
    // Rescues are found without a manifest, and beside a broken one.
    let Some(project) = Project::find_if_any(global).ok().flatten() else { return Ok(others) };
    let Ok(manifest) = project.manifest() else { return Ok(others) };
    for root in project.repositories(&manifest).into_values() {
        let Ok(common) = rescue::common_directory(host, &root) else { continue };
        if common != own {
            let saved = rescue::list(host, &common).map_err(Failure::from_error)?;
            others.insert(common, saved);
        }
    }
    Ok(others)
}

/// Returns the repository that has a rescue called `name`, with its rescues in `all`; `own` if no other one has it.
fn of_repository(
    own: PathBuf,
    all: &mut Vec<SavedWork>,
    others: BTreeMap<PathBuf, Vec<SavedWork>>,
    name: &str,
) -> PathBuf {
    if find(all, name).is_ok() {
        return own;
    }
    let found = others.into_iter().find(|(_, rescues)| find(rescues, name).is_ok());
    found.map_or(own, |(repository, rescues)| {
        *all = rescues;
        repository
    })
}

/// Returns whether the user means a session, by its path, its id or its name, and not a directory.
fn is_session(global: &Global, into: &Path) -> Result<bool, Failure> {
    let Some(name) = into.to_str() else { return Ok(false) };
    let Some(project) = Project::find_if_any(global)? else { return Ok(false) };
    let Some(record) = project.swarm()?.applied()? else { return Ok(false) };
    match lookup::session(&record, name) {
        Ok(_) => Ok(true),
        Err(failure) if failure.id() == error::SESSION_AMBIGUOUS => Err(failure),
        Err(_) => Ok(false),
    }
}

/// Restores a rescue in an active session, under the lock of its swarm.
fn restore_into(
    global: &Global,
    repository: &Path,
    saved: &SavedWork,
    into: &Path,
) -> Result<(SessionPath, Restored), Failure> {
    let project = Project::find(global)?;
    with_lock(global, &project, "rescue restore", |context| {
        let record = context.swarm.applied()?.ok_or_else(|| {
            Failure::new(
                error::SWARM_NOT_APPLIED,
                "the swarm is not applied any more\nhelp: run `seedbed apply`",
            )
        })?;
        let session = lookup::session(&record, &into.to_string_lossy())?;
        match apply::restore(context, &record, session, repository, saved) {
            Ok(restored) => Ok((session.path.clone(), restored)),
            Err(RestoreError::State(error)) => Err(error.into()),
            Err(RestoreError::Worktree(error)) => Err(Failure::from_error(error)),
            Err(error) => Err(Failure::new(error::RESCUE_REFUSED, error.to_string())),
        }
    })
}

/// Describes the result of restoring a rescue in a session.
fn described(session: &SessionPath, restored: &Restored, rescues: &[SavedWork]) -> String {
    let files = output::count(restored.files, "file");
    let branch = restored.branch.as_ref().map(|branch| format!(" (branch {})", printable(branch)));
    let saved = rescues.first().filter(|_| restored.has_other_commits);
    let commits = saved.map(|saved| {
        let commits = shell_quoted(&format!("{}^4", saved.reference));
        format!("; commits that only the rescue keeps: git log {}", printable(&commits))
    });
    format!("restored {files} in {session}{}{}", branch.unwrap_or_default(), commits.unwrap_or_default())
}

/// Deletes rescues, with consent.
fn drop_rescues(
    global: &Global,
    host: &Host,
    repository: &std::path::Path,
    rescues: &[&SavedWork],
) -> Result<(), Failure> {
    if !global.yes {
        let names: Vec<_> = rescues.iter().map(|saved| printable(&saved.name)).collect();
        let names = names.join(", ");
        if !has_terminal() {
            return Err(Failure::new(
                error::CONSENT_REQUIRED,
                format!("{names} would be deleted permanently\nhelp: confirm with `--yes`"),
            ));
        }
        ask(global, &format!("Delete {names} permanently?"))?;
    }
    rescue::delete(host, repository, rescues).map_err(Failure::from_error)
}

/// Finds a rescue by its name or its ref.
fn find<'r>(rescues: &'r [SavedWork], name: &str) -> Result<&'r SavedWork, Failure> {
    let is_named = |saved: &&SavedWork| saved.name == name || saved.reference == name;
    rescues.iter().find(is_named).ok_or_else(|| {
        let help = match nearest(name, rescues.iter().map(|saved| saved.name.as_str())) {
            Some(near) => format!("did you mean `{}`?", printable(near)),
            None => "`seedbed rescue list` lists the rescues".to_owned(),
        };
        Failure::new(error::RESCUE_UNKNOWN, format!("no rescue is named `{}`\nhelp: {help}", printable(name)))
    })
}

fn show(global: &Global, document: &Rescues) {
    match (&document.action, &document.directory) {
        (RescueAction::Listed, _) if document.rescues.is_empty() => {
            if !global.quiet {
                say!("this repository has no rescue");
            }
        }
        (RescueAction::Listed, _) => {
            let head = ["SESSION", "SAVED", "FILES", "RESCUE"].map(str::to_owned);
            let rows: Vec<_> = std::iter::once(head).chain(document.rescues.iter().map(row)).collect();
            output::print(&output::table(&rows));
        }
        (RescueAction::Restored, Some(directory)) => {
            output::print(&format!("{}\n", printable(&directory.to_string_lossy())));
            if !global.quiet {
                let names = document.rescues.iter().map(|saved| shell_quoted(&saved.name));
                for name in names {
                    say!("the rescue is kept; delete it with `seedbed rescue drop {}`", printable(&name));
                }
            }
        }
        (RescueAction::Restored | RescueAction::Dropped, _) => {
            if !global.quiet {
                say!("{} deleted", output::count(document.rescues.len(), "rescue"));
            }
        }
    }
}

fn row(saved: &SavedWork) -> [String; 4] {
    let files = saved.files.map_or_else(|| "unknown".to_owned(), |files| files.to_string());
    [
        saved.session.clone(),
        saved.saved.clone().unwrap_or_else(|| "-".to_owned()),
        if saved.valid { files } else { "no rescue".to_owned() },
        saved.name.clone(),
    ]
}
