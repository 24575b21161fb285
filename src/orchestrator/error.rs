//! Why a session could not be provisioned, told or released.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::ChildError;
use crate::apply::{self, Failure, Loss, Occupant};
use crate::host::files;
use crate::host::text::printable;
use crate::manifest::{Diagnostics, Fault};
use crate::{observe, state};

/// Why a session could not be provisioned, told or released. Each says all of it in its text, on one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A session's id is empty, or has a control character in it.
    #[error("\"{}\" cannot be a session's id", printable(.0))]
    SessionId(String),
    /// No provider of this kind is registered.
    #[error("No provider registered for resource kind \"{}\".", printable(.0))]
    UnknownKind(String),
    /// The workspace root is not a directory that can be used.
    #[error("cannot use the workspace {}: {source}", path.display())]
    Workspace {
        /// The workspace root.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What a child would ask for cannot be told from its parent's snapshot.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The requests cannot be met; nothing was touched.
    #[error("Resource provisioning failed: {}", faults(.0))]
    Faults(Diagnostics),
    /// A session of this id stands in this workspace.
    #[error("session \"{}\" stands already", printable(.0))]
    Stands(String),
    /// The session was released.
    #[error("session \"{}\" does not stand any more", printable(.0))]
    Released(String),
    /// The host could not be looked at.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// Steps of provisioning failed; what it made was taken away again, but for `leftovers`.
    #[error("Resource provisioning failed: {}", failed(failures, leftovers))]
    Provision {
        /// What failed.
        failures: Vec<Failure>,
        /// What could not be taken away. Provisioning this id, or finding it, tries again.
        leftovers: Vec<Failure>,
    },
    /// It was cancelled. What was being provisioned was taken away again; what was being released is finished by
    /// releasing it again.
    #[error("interrupted")]
    Interrupted,
    /// Releasing would lose work; nothing was touched.
    #[error("releasing would lose work: {}", lines(.0.iter().map(|loss| &loss.what)))]
    WouldLose(Vec<Loss>),
    /// Processes are at work in the session; nothing was touched.
    #[error("processes are at work in the session: {}", lines(.0.iter().map(Occupant::described)))]
    Occupied(Vec<Occupant>),
    /// Resources could not be released. The others are; releasing again tries these again.
    #[error("Failed to release provisioned resources: {}", failed(.0, &[]))]
    Release(Vec<Failure>),
    /// The place for a discovery file cannot be used.
    #[error("cannot put a discovery file at {}: {why}", path.display())]
    Discovery {
        /// The path as it was given.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The state directory could not be used, or another run holds the session's lock.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A file could not be touched.
    #[error(transparent)]
    File(#[from] files::Error),
}

impl Error {
    pub(super) fn of_provisioning(error: apply::Error) -> Self {
        match error {
            apply::Error::Failed { leftovers, interrupted: true, .. } if leftovers.is_empty() => {
                Self::Interrupted
            }
            apply::Error::Failed { failures, leftovers, .. } => Self::Provision { failures, leftovers },
            error => Self::of_release(error),
        }
    }

    pub(super) fn of_release(error: apply::Error) -> Self {
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
            apply::Error::Refused(losses) => Self::WouldLose(losses),
            apply::Error::Occupied { occupants, .. } => Self::Occupied(occupants),
            apply::Error::Stale(faults) => Self::Faults(
                faults
                    .into_iter()
                    .map(|why| {
                        Fault::new(crate::manifest::rule::STALE, crate::manifest::Place::default(), why, "")
                    })
                    .collect(),
            ),
            apply::Error::State(error) | apply::Error::Unfinished(error) => Self::State(error),
        }
    }
}

impl From<apply::SurveyError> for Error {
    fn from(error: apply::SurveyError) -> Self {
        match error {
            apply::SurveyError::Observe(error) => Self::Observe(error),
            apply::SurveyError::State(error) => Self::State(error),
        }
    }
}

fn faults(faults: &[Fault]) -> String {
    lines(faults.iter().map(|fault| match &fault.help {
        Some(help) => format!("{} ({help})", fault.message),
        None => fault.message.clone(),
    }))
}

fn failed(failures: &[Failure], leftovers: &[Failure]) -> String {
    let told = |failure: &Failure| format!("{}: {}", failure.step, failure.cause);
    let mut text = match failures {
        [] => "interrupted".to_owned(),
        failures => lines(failures.iter().map(told)),
    };
    if !leftovers.is_empty() {
        let _ = write!(text, "; could not be undone: {}", lines(leftovers.iter().map(told)));
    }
    text
}

fn lines(lines: impl Iterator<Item = impl AsRef<str>>) -> String {
    lines.map(|line| printable(line.as_ref())).collect::<Vec<_>>().join(" | ")
}
