//! `explain`: the owner of a port, path or session, with the deciding rule, the line of the manifest, and the listening
//! programs.

mod sources;
mod path;
mod port;
mod session;
mod answer;

use std::process::ExitCode;

use clap::Args;
use seedbed::host::text::printable;
use seedbed::name::nearest;
use seedbed::report::error;

use self::sources::Sources;
use super::exit::{Failure, Status};
use super::project::{self, Project};
use super::{Global, completions};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Port (only digits), session (path, id, or unique name), or path (`./8080` if it looks like a port or session)
    #[arg(value_name = "PORT|PATH|SESSION", add = completions::session_or_path())]
    subject: String,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let subject = &arguments.subject;
    // Ports and paths are explained without a manifest too, unless one was named.
    let project = match Project::find_applied(global) {
        Ok(project) => Some(project),
        Err(failure) if global.manifest.is_some() => return Err(failure),
        Err(_) => None,
    };
    let host = project::host(global)?;
    let directory = project::directory(global)?;
    let registry = project::registry();
    let mut sources = Sources::read(&host, &registry, &directory, project.as_ref())?;
    let explanation = if subject.bytes().all(|byte| byte.is_ascii_digit()) && !subject.is_empty() {
        let port = subject.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            Failure::new(
                error::PORT_INVALID,
                format!(
                    "{subject} is not a port: ports are from 1 to 65535\nhelp: for a path of this name, write `./{subject}`"
                ),
            )
        })?;
        port::explain(&mut sources, port)?
    } else if let Some(explanation) = session::explain(&mut sources, subject)? {
        explanation
    } else if let Some(explanation) = path::explain(&mut sources, subject) {
        explanation
    } else {
        return Err(unknown(&sources, subject));
    };
    global.unless_interrupted()?;
    if !global.quiet && !global.json {
        for note in sources.notes() {
            say!("note: {}", printable(note));
        }
    }
    explanation.show(global);
    Ok(Status::Done.into())
}

/// Returns the error for a subject that is no session, no existing path and no path of a session.
fn unknown(sources: &Sources<'_>, subject: &str) -> Failure {
    if let Some(failure) = sources.manifest_failure() {
        return failure;
    }
    let sessions = sources.plans().iter().flat_map(|located| located.plan.sessions());
    let nearest = nearest(subject, sessions.map(|session| session.path.as_str()));
    let message = format!("`{subject}` is not a port, a session of this swarm or an existing path");
    Failure::new(
        error::SUBJECT_UNKNOWN,
        match nearest {
            Some(path) if path != subject => format!("{message}\nhelp: did you mean `{path}`?"),
            _ => {
                format!("{message}\nhelp: `seedbed list` lists the swarms, `seedbed status` the sessions")
            }
        },
    )
}
