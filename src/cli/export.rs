//! `export`: writes the commands of sessions for tmux, process-compose or systemd, or their mounts for containers.

mod bubblewrap;
mod compose;
mod containers;
mod devcontainer;
mod process_compose;
pub(super) mod script;
mod systemd;
#[cfg(test)]
mod tests;
pub(super) mod tmux;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use seedbed::discovery;
use seedbed::host::occupants::MARK;
use seedbed::provider::Registry;
use seedbed::report::error;

use self::containers::Containers;
use super::exec::parallel::Job;
use super::exit::{Failure, Status};
use super::lookup::Family;
use super::project::Project;
use super::{Global, completions, output_file, start};

/// Text near the beginning of each file that is written.
const FILE_MARK: &str = "`seedbed export` wrote this file";

/// Returns the comment that names the plan of a file.
fn origin(digest: &str) -> String {
    format!("# {FILE_MARK} for plan {digest}.\n# Write it again after `seedbed apply`.\n")
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sessions: paths, names, names of replicas without their number, or globs [default: all with a `command`; for
    /// containers, all with a directory]
    #[arg(add = completions::active_sessions())]
    sessions: Vec<String>,
    /// Program that is to run the commands, or the containers
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Image of the containers: for `compose-mounts`, and required for `devcontainer`
    #[arg(long, value_name = "IMAGE", required_if_eq("format", "devcontainer"))]
    image: Option<String>,
    /// Write into this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Formats of the exported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Script for `sh` that opens a tmux session with a window for each session
    Tmux,
    /// Configuration file of process-compose
    ProcessCompose,
    /// Script for `sh` that starts a transient systemd unit of the user for each session
    Systemd,
    /// Configuration file of a dev container for one session
    Devcontainer,
    /// File for docker compose with a service for each session: its mounts, variables and ports
    ComposeMounts,
    /// Script for `sh` that runs a program of one session in a sandbox of bubblewrap
    Bubblewrap,
}

/// Commands of the sessions of one swarm.
#[derive(Debug)]
pub(super) struct Export<'f> {
    /// Name of the swarm.
    pub(super) swarm: &'f str,
    /// Name of the swarm that no other swarm of the host has: `NAME-HASH`.
    pub(super) key: &'f str,
    /// Digest of the applied plan.
    pub(super) digest: &'f str,
    pub(super) commands: Vec<SessionCommand>,
}

/// Command of one session, with all that it needs to run.
#[derive(Debug)]
pub(super) struct SessionCommand {
    /// Path of the session in the tree.
    pub(super) path: String,
    /// Base name of the session's files.
    pub(super) scoped_name: String,
    /// Absolute path of the working directory.
    pub(super) directory: String,
    /// Variables beside those of the caller, by name.
    pub(super) environment: Vec<(String, String)>,
    /// Program and its arguments.
    pub(super) words: Vec<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let has_image = matches!(arguments.format, Format::Devcontainer | Format::ComposeMounts);
    if arguments.image.is_some() && !has_image {
        let message = "`--image` is for `devcontainer` and `compose-mounts`: other formats have no image";
        return Err(Failure::new(error::USAGE, message));
    }
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    let text = match arguments.format {
        Format::Tmux => tmux::script(&commands(&project, &family, arguments)?),
        Format::ProcessCompose => process_compose::configuration(&commands(&project, &family, arguments)?),
        Format::Systemd => systemd::script(&commands(&project, &family, arguments)?),
        Format::Devcontainer => devcontainer::configuration(&Containers::new(&project, &family, arguments)?)?,
        Format::ComposeMounts => compose::file(&Containers::new(&project, &family, arguments)?)?,
        Format::Bubblewrap => bubblewrap::script(&Containers::new(&project, &family, arguments)?)?,
    };
    if let Some(path) = output_file::write_or_print(global, arguments.output.as_deref(), FILE_MARK, &text)? {
        say!(
            "{}",
            match arguments.format {
                Format::Tmux | Format::Systemd => format!("run `sh {path}` to start the commands"),
                Format::ProcessCompose => format!("run `process-compose -f {path}` to start the commands"),
                Format::Devcontainer =>
                    format!("pass {path} to `devcontainer up --override-config` to start the container"),
                Format::ComposeMounts =>
                    format!("run `docker compose -f {path} up`, with `-f` for other files"),
                Format::Bubblewrap => format!("run `sh {path} PROGRAM` to start a program"),
            }
        );
    }
    Ok(Status::Done.into())
}

/// Returns the commands of the sessions that the user names.
fn commands<'f>(
    project: &Project,
    family: &'f Family<'_>,
    arguments: &Arguments,
) -> Result<Export<'f>, Failure> {
    let jobs = start::commands(family, &arguments.sessions)?;
    let commands = jobs.iter().map(|job| SessionCommand::new(job, &project.registry));
    Ok(Export {
        swarm: family.record.plan.swarm(),
        key: family.swarm.key(),
        digest: family.record.plan.digest(),
        commands: commands.collect::<Result<_, _>>()?,
    })
}

impl SessionCommand {
    /// Returns the command of a session as it runs with `start`; an error if the session has no directory.
    pub(super) fn new(job: &Job<'_>, registry: &Registry) -> Result<Self, Failure> {
        let session = job.active.session;
        let directory = job.active.directory(registry)?;
        let mark = job.mark.iter().map(|mark| (MARK.to_owned(), mark.clone()));
        Ok(Self {
            path: session.path.to_string(),
            scoped_name: session.scoped_name.clone(),
            directory: directory.to_string_lossy().into_owned(),
            environment: discovery::environment(job.active.swarm, session).into_iter().chain(mark).collect(),
            words: job.words.clone(),
        })
    }
}
