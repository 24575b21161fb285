//! Errors of provisioning, finding and releasing a session.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::ChildError;
use crate::apply::{self, Failure, FindingKind, Occupant, SessionFinding};
use crate::host::files;
use crate::host::text::printable;
use crate::manifest::{Diagnostic, Diagnostics};
use crate::{observe, state};

/// Reason for which a session could not be provisioned, found or released. The text of each error is complete, on one
/// line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The id of a session is empty, or has a control character.
    #[error("\"{}\" cannot be a session's id", printable(.0))]
    SessionId(String),
    /// No provider of this kind is registered.
    #[error("No provider registered for resource kind \"{}\".", printable(.0))]
    UnknownKind(String),
    /// The workspace root is not a usable directory.
    #[error("cannot use the workspace {}: {source}", path.display())]
    Workspace {
        /// Path of the workspace root.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The requests of a child cannot be determined from its parent's snapshot.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The requests cannot be met; nothing was changed.
    #[error("Resource provisioning failed: {}", diagnostics(.0))]
    Diagnostics(Diagnostics),
    /// A session of this id is already active in this workspace.
    #[error("session \"{}\" is already active", printable(.0))]
    AlreadyActive(String),
    /// The session was released.
    #[error("session \"{}\" is no longer active", printable(.0))]
    Released(String),
    /// The host could not be observed.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// Steps of provisioning failed; everything provisioned was removed again, except `leftovers`.
    #[error("Resource provisioning failed: {}", failed(failures, leftovers))]
    Provision {
        /// Failed steps.
        failures: Vec<Failure>,
        /// Resources that could not be removed. The next provisioning or search of this id tries again.
        leftovers: Vec<Failure>,
    },
    /// The run was cancelled.
    ///
    /// Resources that were being provisioned were removed again. A release that was in progress is finished by
    /// releasing again.
    #[error("interrupted")]
    Interrupted,
    /// A release would lose work; nothing was changed.
    #[error("releasing would lose work: {}", lines(.0.iter().map(|finding| &finding.description)))]
    WouldLose(Vec<SessionFinding>),
    /// Processes are at work in the session; nothing was changed.
    #[error("processes use the session: {}", occupied(occupants, findings))]
    Occupied {
        /// Processes that use the session.
        occupants: Vec<Occupant>,
        /// Work that the release would lose as well; empty if there is none.
        findings: Vec<SessionFinding>,
    },
    /// Resources could not be released. The others are released; another release tries these again.
    #[error("Failed to release provisioned resources: {}", failed(.0, &[]))]
    Release(Vec<Failure>),
    /// The location for a discovery file cannot be used.
    #[error("cannot write a discovery file at {}: {why}", path.display())]
    Discovery {
        /// Path as it was given.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// The state directory could not be used, or another run owns the session's lock.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A file could not be accessed.
    #[error(transparent)]
    File(#[from] files::Error),
}

impl Error {
    pub(super) fn from_provisioning_error(error: apply::Error) -> Self {
        match error {
            apply::Error::Failed { leftovers, interrupted: true, .. } if leftovers.is_empty() => {
                Self::Interrupted
            }
            apply::Error::Failed { failures, leftovers, .. } => Self::Provision { failures, leftovers },
            error => Self::from_release_error(error),
        }
    }

    pub(super) fn from_release_error(error: apply::Error) -> Self {
        match error {
            apply::Error::Failed { leftovers, interrupted: true, .. } if leftovers.is_empty() => {
                Self::Interrupted
            }
            apply::Error::Interrupted | apply::Error::NotRescued { interrupted: true, .. } => {
                Self::Interrupted
            }
            apply::Error::Failed { failures, .. } if !failures.is_empty() => Self::Release(failures),
            apply::Error::Failed { leftovers, .. } => Self::Release(leftovers),
            apply::Error::NotRescued { failures, .. }
            | apply::Error::NotTornDown(failures)
            | apply::Error::NotSetUp(failures) => Self::Release(failures),
            apply::Error::UnknownKind { kind, .. } => Self::UnknownKind(kind),
            apply::Error::Unusable(repositories) => Self::WouldLose(
                repositories
                    .iter()
                    .flat_map(|repository| {
                        let what = repository.to_string();
                        repository.sessions.iter().map(move |session| SessionFinding {
                            kind: FindingKind::Obstacle,
                            ..SessionFinding::new(session.clone(), what.clone())
                        })
                    })
                    .collect(),
            ),
            apply::Error::Refused(findings) => Self::WouldLose(findings),
            apply::Error::Occupied { occupants, findings, .. } => Self::Occupied { occupants, findings },
            apply::Error::Stale(diagnostics) => Self::Diagnostics(
                diagnostics
                    .into_iter()
                    .map(|why| {
                        Diagnostic::new(
                            crate::manifest::rule::STALE,
                            crate::manifest::Location::default(),
                            why,
                            "",
                        )
                    })
                    .collect(),
            ),
            apply::Error::State(error) | apply::Error::Unfinished(error) => Self::State(error),
        }
    }
}

impl From<apply::PlanningInputError> for Error {
    fn from(error: apply::PlanningInputError) -> Self {
        match error {
            apply::PlanningInputError::Observe(error) => Self::Observe(error),
            apply::PlanningInputError::State(error) => Self::State(error),
            apply::PlanningInputError::Unusable(repositories) => {
                Self::from_release_error(apply::Error::Unusable(repositories))
            }
        }
    }
}

fn diagnostics(diagnostics: &[Diagnostic]) -> String {
    lines(diagnostics.iter().map(|diagnostic| match &diagnostic.help {
        Some(help) => format!("{} ({help})", diagnostic.message),
        None => diagnostic.message.clone(),
    }))
}

fn failed(failures: &[Failure], leftovers: &[Failure]) -> String {
    let line = |failure: &Failure| format!("{}: {}", failure.step, failure.cause);
    let mut text = match failures {
        [] => "interrupted".to_owned(),
        failures => lines(failures.iter().map(line)),
    };
    if !leftovers.is_empty() {
        let _ = write!(text, "; could not be rolled back: {}", lines(leftovers.iter().map(line)));
    }
    text
}

fn occupied(occupants: &[Occupant], findings: &[SessionFinding]) -> String {
    let and_work = if findings.is_empty() { "" } else { " | work would be lost: " };
    let occupants = lines(occupants.iter().map(Occupant::described));
    format!("{occupants}{and_work}{}", lines(findings.iter().map(|finding| &finding.description)))
}

fn lines(lines: impl Iterator<Item = impl AsRef<str>>) -> String {
    lines.map(|line| printable(line.as_ref())).collect::<Vec<_>>().join(" | ")
}
