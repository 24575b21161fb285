//! `rescue`: lists, restores and deletes rescues. Only the repository has to exist.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use seedbed::host::Host;
use seedbed::host::text::{printable, shell_quoted};
use seedbed::name::nearest;
use seedbed::provider::git_worktree::rescue::{self, SavedWork};
use seedbed::report::error;
use seedbed::report::{self, RescueAction, Rescues};

use super::apply::{ask, has_terminal};
use super::exit::{Failure, Status};
use super::{Global, example, output, project};

/// Arguments of `rescue`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the rescues of this repository
    ///
    /// Each line shows the session, the time, the number of files, and the name for `restore` and `drop`.
    #[command(after_help = example::help("rescue list"))]
    List,
    /// Restore a rescue in a new worktree
    ///
    /// No existing file is overwritten, and the rescue is kept.
    #[command(after_help = example::help("rescue restore"))]
    Restore {
        /// Name of the rescue, as in `seedbed rescue list`, or its ref
        name: String,
        /// Directory of the new worktree, which must not exist [default: one beside the repository]
        #[arg(long, value_name = "DIR")]
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
    let all = rescue::list(&host, &repository).map_err(Failure::from_error)?;
    let (action, rescues, directory) = match &arguments.command {
        Command::List => (RescueAction::Listed, all, None),
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
    let document = Rescues { schema_version: report::SCHEMA_VERSION, repository, action, rescues, directory };
    if global.json {
        output::print_json_pretty(&document);
    } else {
        show(global, &document);
    }
    Ok(Status::Done.into())
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
                format!("{names} would be deleted for good\nhelp: confirm with `--yes`"),
            ));
        }
        ask(global, &format!("Delete {names} for good?"))?;
    }
    rescue::delete(host, repository, rescues).map_err(Failure::from_error)
}

/// Finds a rescue by its name or its ref.
fn find<'r>(rescues: &'r [SavedWork], name: &str) -> Result<&'r SavedWork, Failure> {
    let is_named = |saved: &&SavedWork| saved.name == name || saved.reference == name;
    rescues.iter().find(is_named).ok_or_else(|| {
        let help = match nearest(name, rescues.iter().map(|saved| saved.name.as_str())) {
            Some(near) => format!("did you mean `{}`?", printable(near)),
            None => "`seedbed rescue list` names those that exist".to_owned(),
        };
        Failure::new(error::RESCUE_UNKNOWN, format!("no rescue is named `{}`; {help}", printable(name)))
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
                    say!("restored; delete the rescue with `seedbed rescue drop {}`", printable(&name));
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
