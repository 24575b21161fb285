//! Errors of a run, with the session, the step and the cause.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::UnusableRepository;
use crate::name::SessionPath;
use crate::plan::{Occupant, Session, SessionFinding};
use crate::{provider, state};

/// Number of failures, findings or processes that the text of an error names; the error itself has all of them.
const NAMED: usize = 5;

/// Step that failed. Its text names the session, the step and the cause.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Failure {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Step that failed: `provision git-worktree`, `setup`, …
    pub step: String,
    /// Kind of the resource; `None` if the step does not act on one resource.
    #[serde(skip)]
    pub kind: Option<String>,
    /// Cause of the failure.
    pub cause: String,
    /// `true` if another process uses a resource that planning found free.
    #[serde(skip)]
    pub is_conflict: bool,
    /// `true` if the failure is a bug: the provider panicked.
    #[serde(skip)]
    pub panicked: bool,
    /// Error of the provider; `None` if another error is the cause.
    #[serde(skip)]
    source: Option<Arc<provider::Error>>,
}

impl Failure {
    /// Creates the failure of a step that is not a provider's.
    pub(super) fn new(session: &Session, step: &str, cause: String) -> Self {
        Self::in_step(session.path.clone(), step.to_owned(), cause)
    }

    /// Creates the failure of a provider's step.
    pub(super) fn from_provider(session: &Session, step: &str, kind: &str, error: provider::Error) -> Self {
        Self {
            kind: Some(kind.to_owned()),
            is_conflict: matches!(error, provider::Error::Conflict(_)),
            panicked: matches!(error, provider::Error::Panicked(_)),
            ..Self::new(session, &format!("{step} {kind}"), error.to_string())
        }
        .with_source(error)
    }

    /// Creates the failure of a release that a process prevents.
    pub(super) fn from_occupant(occupant: Occupant) -> Self {
        let cause = occupant.described();
        Self::in_step(occupant.session, "release".to_owned(), cause)
    }

    /// Creates the failure of a release that would have lost work.
    pub(super) fn from_finding(finding: SessionFinding) -> Self {
        Self::in_step(finding.session, "release".to_owned(), finding.description)
    }

    fn with_source(self, error: provider::Error) -> Self {
        Self { source: Some(Arc::new(error)), ..self }
    }

    fn in_step(session: SessionPath, step: String, cause: String) -> Self {
        Self { session, step, kind: None, cause, is_conflict: false, panicked: false, source: None }
    }
}

/// Compares every field except `source`: errors of the system cannot be compared.
impl PartialEq for Failure {
    fn eq(&self, other: &Self) -> bool {
        let Self { session, step, kind, cause, is_conflict, panicked, source: _ } = self;
        (session, step, kind, cause, is_conflict, panicked)
            == (&other.session, &other.step, &other.kind, &other.cause, &other.is_conflict, &other.panicked)
    }
}

impl Eq for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.session, self.step, self.cause)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().and_then(std::error::Error::source)
    }
}

/// Error of a run. The text names the sessions, the steps and the causes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The plan is stale; nothing was changed.
    Stale(Vec<String>),
    /// Work would be lost; nothing was released.
    Refused(Vec<SessionFinding>),
    /// Processes use what would be released. Nothing was changed; if the processes were only found after teardowns, the
    /// sessions were set up again.
    Occupied {
        /// Processes that use the sessions.
        occupants: Vec<Occupant>,
        /// Number of processes of the host that this user may not inspect.
        uninspected: usize,
        /// Work that would be lost, for which the run is refused even after the processes have ended; empty if there is
        /// none.
        findings: Vec<SessionFinding>,
    },
    /// Work could not be rescued, and nothing was released; work that was rescued in other sessions remains saved.
    NotRescued {
        /// Failures, by session.
        failures: Vec<Failure>,
        /// `true` if the run was interrupted.
        interrupted: bool,
    },
    /// Steps failed; what the run provisioned was released again, except `leftovers`.
    Failed {
        /// Failures, by session.
        failures: Vec<Failure>,
        /// Resources that could not be released.
        leftovers: Vec<Failure>,
        /// `true` if the run was interrupted.
        interrupted: bool,
    },
    /// Commands of `teardown` failed; every other step of the run is done.
    NotTornDown(Vec<Failure>),
    /// Commands of `setup` failed, and the new sessions are kept, as
    /// [`Options::keep_failed`](super::Options::keep_failed) requests; teardowns may have failed as well.
    NotSetUp(Vec<Failure>),
    /// A resource to be released has a kind that the registry does not know; nothing was changed.
    UnknownKind {
        /// Id of the session.
        session: String,
        /// Name of the kind.
        kind: String,
    },
    /// Repositories of what is released cannot be used; nothing was changed.
    Unusable(Vec<UnusableRepository>),
    /// Recovery was interrupted; the next recovery continues.
    Interrupted,
    /// The state directory could not be used; nothing of the run remains.
    State(state::Error),
    /// The state directory could not be used in the middle of a release or a rollback; `recover` does the rest.
    Unfinished(state::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(reasons) => write!(f, "the plan is stale: {}", list(reasons)),
            Self::Refused(findings) => {
                write!(f, "work would be lost: {}", list(lines(findings)))
            }
            Self::Occupied { occupants, findings, .. } => {
                let occupants = occupants.iter().map(|one| format!("{}: {}", one.session, one.described()));
                write!(f, "processes use what would be released: {}", list(occupants))?;
                if findings.is_empty() {
                    return Ok(());
                }
                write!(f, "; and work would be lost: {}", list(lines(findings)))
            }
            Self::NotRescued { interrupted: true, failures } if failures.is_empty() => {
                f.write_str("interrupted")
            }
            Self::NotRescued { failures, .. } => write!(f, "work could not be rescued: {}", list(failures)),
            Self::Failed { failures, leftovers, interrupted } => {
                if *interrupted {
                    f.write_str("interrupted")?;
                }
                let separator = if *interrupted && !failures.is_empty() { ": " } else { "" };
                write!(f, "{separator}{}", list(failures))?;
                if leftovers.is_empty() {
                    return Ok(());
                }
                write!(f, "; could not be rolled back: {}", list(leftovers))
            }
            Self::NotTornDown(failures) => write!(f, "teardown failed: {}", list(failures)),
            Self::NotSetUp(failures) => write!(f, "setup failed: {}", list(failures)),
            Self::UnknownKind { session, kind } => write!(
                f,
                "session `{session}` has a resource of kind `{kind}`, which only the program that provisioned it can \
                 release; nothing was changed"
            ),
            Self::Unusable(repositories) => list(repositories).fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
            Self::State(error) | Self::Unfinished(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotRescued { failures, .. }
            | Self::Failed { failures, .. }
            | Self::NotTornDown(failures)
            | Self::NotSetUp(failures) => failures.first().map(|failure| failure as _),
            Self::State(error) | Self::Unfinished(error) => error.source(),
            Self::Stale(_)
            | Self::Refused(_)
            | Self::Occupied { .. }
            | Self::UnknownKind { .. }
            | Self::Unusable(_)
            | Self::Interrupted => None,
        }
    }
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        Self::State(error)
    }
}

impl Error {
    /// Returns the class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed { leftovers, .. } if !leftovers.is_empty() => ErrorKind::NotRolledBack,
            Self::Failed { failures, .. } if failures.iter().any(|failure| failure.panicked) => {
                ErrorKind::Bug
            }
            Self::State(error) if error.is_in_progress() => ErrorKind::InProgress,
            Self::Stale(_)
            | Self::Refused(_)
            | Self::Occupied { .. }
            | Self::UnknownKind { .. }
            | Self::Unusable(_)
            | Self::NotRescued { interrupted: false, .. } => ErrorKind::Refused,
            Self::NotRescued { interrupted: true, .. }
            | Self::Failed { interrupted: true, .. }
            | Self::Interrupted => ErrorKind::Interrupted,
            Self::Failed { interrupted: false, .. } | Self::NotSetUp(_) | Self::State(_) => ErrorKind::Failed,
            Self::NotTornDown(_) => ErrorKind::NotTornDown,
            Self::Unfinished(_) => ErrorKind::NotRolledBack,
        }
    }

    /// Returns whether everything that the run provisioned was released again without an interruption, so that the run
    /// may be tried again.
    pub fn is_undone(&self) -> bool {
        matches!(self, Self::Failed { leftovers, interrupted: false, .. } if leftovers.is_empty())
    }
}

/// Class of an error. The command line has an exit code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers decide for each: one more is a new major version")]
pub enum ErrorKind {
    /// The run failed and was rolled back, or kept as [`Options::keep_failed`](super::Options::keep_failed) requests.
    Failed,
    /// Nothing was done: work would be lost, processes use the sessions, or the plan is stale.
    Refused,
    /// A provider panicked; the run was rolled back.
    Bug,
    /// The run is done except for teardowns that failed.
    NotTornDown,
    /// A resource could not be rolled back or released; [`recover`](super::recover()) tries again.
    NotRolledBack,
    /// Another run of the swarm is in progress or unfinished; nothing was done.
    InProgress,
    /// The run was interrupted, and rolled back or left to [`recover`](super::recover()).
    Interrupted,
}

/// Returns the findings, one line each.
fn lines(findings: &[SessionFinding]) -> impl Iterator<Item = String> {
    findings.iter().map(|finding| format!("{}: {}", finding.session, finding.description))
}

/// Joins the first [`NAMED`] items, followed by the number of those that are left out.
fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let named: Vec<_> = all.by_ref().take(NAMED).map(|one| one.to_string()).collect();
    match all.count() {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;
    use crate::host::files;

    fn failure(session: &str) -> Failure {
        let source = io::Error::other("the disk is full");
        let error = provider::Error::File(files::Error::Io { action: "write", path: "a".into(), source });
        let step = "provision git-worktree".to_owned();
        Failure::in_step(SessionPath::from_id(session), step, error.to_string()).with_source(error)
    }

    #[test]
    fn an_error_names_session_step_and_cause_and_keeps_its_source() {
        let sessions = ["a", "b", "c", "d", "e", "f", "g"];
        let failures = sessions.map(failure).to_vec();
        let error = Error::Failed { failures, leftovers: vec![failure("b")], interrupted: false };
        let text = error.to_string();
        assert!(
            text.starts_with("a: provision git-worktree: cannot write a: the disk is full; b: "),
            "{text}"
        );
        assert!(text.contains("; and 2 more; could not be rolled back: b: provision"), "{text}");
        let source = error.source().and_then(std::error::Error::source).expect("an error of the system");
        assert_eq!(source.to_string(), "the disk is full");
        assert_eq!(error.kind(), ErrorKind::NotRolledBack);
    }

    #[test]
    fn interrupted_run_is_reported_as_interrupted() {
        let error = Error::Failed { failures: Vec::new(), leftovers: Vec::new(), interrupted: true };
        assert_eq!((error.to_string().as_str(), error.kind()), ("interrupted", ErrorKind::Interrupted));
    }
}
