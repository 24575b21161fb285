//! Errors that end a command early, with their messages and exit codes.

use std::process::ExitCode;

use seedbed::apply::{self, ErrorKind};
use seedbed::host::process::Cancel;
use seedbed::host::text::{printable, printable_lines};
use seedbed::manifest::Report;
use seedbed::{observe, orchestrator, state};

use super::outcome::{Outcome, SCHEMA_VERSION};
use super::{print, terminal};

/// Exit codes, as documented in `docs/src/reference/exit-codes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Done.
    Done = 0,
    /// Failed, and everything was rolled back, or kept as `apply --keep-failed` requests.
    Failed = 1,
    /// `plan --detailed-exitcode` or `status --detailed-exitcode` found changes.
    Changes = 2,
    /// The command line is wrong.
    Usage = 64,
    /// The manifest or plan file is invalid.
    Invalid = 65,
    /// Refused: unsaved work would be lost, processes use the sessions, or the plan is stale.
    Refused = 69,
    /// A bug in seedbed.
    Bug = 70,
    /// Done, and a `teardown` failed.
    NotTornDown = 72,
    /// Failed, and something could not be rolled back.
    NotPutBack = 73,
    /// Done, and the output could not be written.
    Unwritten = 74,
    /// Locked by another run.
    Locked = 75,
    /// Interrupted, and rolled back.
    Interrupted = 130,
}

/// Exit codes, for `--help`.
pub(super) const HELP: &str = "Exit codes:
  0    done
  1    failed, and everything was put back, or kept (`apply --keep-failed`)
  2    plan or status --detailed-exitcode found changes
  64   usage
  65   manifest or plan file invalid
  69   refused: work would be lost, processes are at work, or the plan is stale
  70   a bug in seedbed
  72   done, but a teardown failed
  73   failed, and something could not be put back
  74   done, but standard output could not be written
  75   locked by another run
  130  interrupted, and put back";

/// Remedy if the cause of an unfinished run cannot be repaired.
const GIVE_UP: &str = "where it cannot be mended: seedbed recover --give-up";

/// Maximum number of diagnostics that are printed as text. People read no more; `--json` contains all of them.
const FAULTS_PRINTED: usize = 100;

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Error that ends a command early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line is invalid.
    Usage(String),
    /// The manifest has diagnostics.
    Manifest(Report),
    /// The plan file cannot be used.
    PlanFile(String),
    /// The command would do something forbidden.
    Refused(String),
    /// Something could not be released; its record is kept.
    NotReleased(String),
    /// A run is in progress or was interrupted, so the state is not consistent.
    Unsettled(String),
    /// Ctrl-C, before anything was changed or printed.
    Interrupted,
    /// A run did not complete its task.
    Apply(apply::Error),
    /// The host could not be observed.
    Observe(observe::Error),
    /// The state directory could not be used.
    State(state::Error),
    /// Any other error of the system.
    Other(String),
}

impl Failure {
    /// Returns the exit code of the error.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Usage(_) => Status::Usage,
            Self::Manifest(_) | Self::PlanFile(_) => Status::Invalid,
            Self::Refused(_) => Status::Refused,
            Self::NotReleased(_) => Status::NotPutBack,
            Self::Interrupted => Status::Interrupted,
            Self::Unsettled(_) => Status::Locked,
            Self::Apply(error) => match error.kind() {
                ErrorKind::Failed => Status::Failed,
                ErrorKind::Refused => Status::Refused,
                ErrorKind::Bug => Status::Bug,
                ErrorKind::NotTornDown => Status::NotTornDown,
                ErrorKind::NotRolledBack => Status::NotPutBack,
                ErrorKind::InProgress => Status::Locked,
                ErrorKind::Interrupted => Status::Interrupted,
            },
            Self::State(error) if error.is_in_progress() => Status::Locked,
            Self::Observe(_) | Self::State(_) | Self::Other(_) => Status::Failed,
        }
    }

    /// Returns `Interrupted` if `cancel` was requested and nothing was changed yet: the interruption is then the cause
    /// of the error.
    pub(super) fn because(self, cancel: &Cancel) -> Self {
        let is_before_anything = match &self {
            Self::Manifest(_)
            | Self::Refused(_)
            | Self::Unsettled(_)
            | Self::Observe(_)
            | Self::Other(_)
            | Self::Apply(
                apply::Error::Refused(_) | apply::Error::Occupied { .. } | apply::Error::Stale(_),
            ) => true,
            Self::State(error) | Self::Apply(apply::Error::State(error)) => {
                matches!(error, state::Error::Locked { .. } | state::Error::Orphaned { .. })
            }
            Self::Usage(_)
            | Self::PlanFile(_)
            | Self::NotReleased(_)
            | Self::Interrupted
            | Self::Apply(_) => false,
        };
        if is_before_anything && cancel.is_requested() { Self::Interrupted } else { self }
    }

    /// Converts the error of a standalone session, with its id if known.
    pub(super) fn of_session(id: Option<&str>, error: orchestrator::Error) -> Self {
        match error {
            orchestrator::Error::State(error) => Self::State(error),
            orchestrator::Error::Release(leftovers) if !leftovers.is_empty() => {
                Self::Apply(apply::Error::Failed { failures: Vec::new(), leftovers, interrupted: false })
            }
            orchestrator::Error::UnknownKind(kind) => {
                Self::Apply(apply::Error::UnknownKind { session: id.unwrap_or_default().to_owned(), kind })
            }
            orchestrator::Error::Occupied(occupants) => {
                Self::Apply(apply::Error::Occupied { occupants, uninspected: 0 })
            }
            orchestrator::Error::WouldLose(losses) => Self::Apply(apply::Error::Refused(losses)),
            error => Self::Other(match id {
                Some(id) => format!("session {id}: {error}"),
                None => error.to_string(),
            }),
        }
    }

    /// Prints the error on stderr, or with `json` on stdout, and returns the exit code.
    pub(super) fn report(self, json: bool) -> ExitCode {
        let code = self.status() as u8;
        self.report_as(code, json)
    }

    /// Prints the error, for a command that has one exit code for all errors.
    pub(super) fn report_as(self, code: u8, json: bool) -> ExitCode {
        if json {
            print::json(&self.outcome(code));
        } else {
            print::err(&self.text());
        }
        ExitCode::from(code)
    }

    fn text(self) -> String {
        match self {
            Self::Manifest(report) => {
                let drawn = terminal::diagnostic(&report.printing(FAULTS_PRINTED), &std::io::stderr());
                format!("{drawn}\n")
            }
            Self::Usage(message) => format!("seedbed: {}\n", printable_lines(&message)),
            other => other.lines().iter().fold(String::new(), |text, line| text + "seedbed: " + line + "\n"),
        }
    }

    /// Returns the error in one line that is safe to print.
    pub(super) fn summary(&self) -> String {
        printable(&self.lines().join("; "))
    }

    /// Returns the error and the remedies, one line each, safe to print.
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Manifest(report) => vec![report.to_string()],
            Self::Usage(message)
            | Self::PlanFile(message)
            | Self::Refused(message)
            | Self::NotReleased(message)
            | Self::Unsettled(message)
            | Self::Other(message) => {
                vec![printable_lines(message)]
            }
            Self::Interrupted => vec!["interrupted".to_owned()],
            Self::Observe(error) => vec![printable_lines(&error.to_string())],
            Self::State(error) | Self::Apply(apply::Error::State(error)) => {
                vec![printable_lines(&error.to_string())]
            }
            Self::Apply(apply::Error::Unfinished(error)) => vec![
                printable_lines(&error.to_string()),
                "the run could not be finished: mend the cause, then: seedbed recover".to_owned(),
                GIVE_UP.to_owned(),
            ],
            Self::Apply(apply::Error::Stale(reasons)) => {
                let mut lines = vec!["the plan is stale; nothing was touched".to_owned()];
                lines.extend(reasons.iter().map(|reason| format!("  {}", printable(reason))));
                lines.push("make a new plan: seedbed plan -o FILE".to_owned());
                lines
            }
            Self::Apply(apply::Error::Refused(losses)) => {
                let is_unknown = losses.iter().all(|loss| loss.unknown);
                let why = if is_unknown { "nobody can say what would be lost" } else { "work would be lost" };
                let mut lines = vec![format!("refused, because {why}; nothing was touched")];
                lines.extend(
                    losses.iter().map(|loss| format!("  {}: {}", loss.session, printable(&loss.what))),
                );
                if losses.iter().any(|loss| !loss.unknown) {
                    let remedy = "commit it to a branch, save it with --rescue, or give it up with --discard";
                    lines.push(remedy.to_owned());
                }
                lines
            }
            Self::Apply(apply::Error::Occupied { occupants, uninspected }) => {
                let head =
                    "refused, because processes are at work in what would be released; nothing was released";
                let mut lines = vec![head.to_owned()];
                lines.extend(occupants.iter().map(|one| format!("  {}", at_work(one))));
                if *uninspected > 0 {
                    lines.push(format!("  {}", self::uninspected(*uninspected)));
                }
                lines.push("end them, or let seedbed end them: --stop".to_owned());
                lines
            }
            Self::Apply(apply::Error::NotRescued { failures, .. }) => {
                let mut lines: Vec<_> = failures.iter().map(told).collect();
                lines.push("what cannot be rescued is not given up: nothing was released".to_owned());
                lines
            }
            Self::Apply(error @ apply::Error::UnknownKind { .. }) => {
                vec![printable_lines(&error.to_string()), "release it with that program".to_owned()]
            }
            Self::Apply(apply::Error::Interrupted) => {
                vec!["interrupted; go on from here: seedbed recover".to_owned()]
            }
            Self::Apply(apply::Error::NotTornDown(failures)) => {
                let mut lines: Vec<_> = failures.iter().map(told).collect();
                lines.push("what was to go is gone all the same".to_owned());
                lines
            }
            Self::Apply(apply::Error::NotSetUp(failures)) => {
                let mut lines: Vec<_> = failures.iter().map(told).collect();
                lines.push(
                    "what was made stands, marked as broken; go on from here: seedbed apply; give it up: seedbed destroy"
                        .to_owned(),
                );
                lines
            }
            Self::Apply(apply::Error::Failed { failures, leftovers, interrupted }) => {
                let mut lines: Vec<_> = failures.iter().map(told).collect();
                if *interrupted {
                    lines.push("interrupted".to_owned());
                }
                if leftovers.is_empty() {
                    lines.push("what this run had made was taken away again".to_owned());
                } else {
                    lines.push("could not be put back:".to_owned());
                    lines.extend(leftovers.iter().map(|left| format!("  {}", told(left))));
                    lines.push("mend the cause, then: seedbed recover, seedbed apply".to_owned());
                    lines.push(GIVE_UP.to_owned());
                }
                lines
            }
            Self::Apply(error) => vec![printable_lines(&error.to_string())],
        }
    }

    fn outcome(&self, exit_code: u8) -> Outcome {
        let mut outcome = Outcome::Failed {
            schema_version: SCHEMA_VERSION,
            exit_code,
            message: self.lines().join("\n"),
            faults: None,
            failures: None,
            leftovers: None,
            losses: None,
            occupants: None,
            uninspected: None,
            reasons: None,
        };
        if let Outcome::Failed {
            faults, failures, leftovers, losses, occupants, uninspected, reasons, ..
        } = &mut outcome
        {
            match self {
                Self::Manifest(report) => *faults = Some(report.faults().collect()),
                Self::Apply(apply::Error::Failed { failures: failed, leftovers: left, .. }) => {
                    (*failures, *leftovers) = (Some(failed.clone()), Some(left.clone()));
                }
                Self::Apply(
                    apply::Error::NotRescued { failures: failed, .. }
                    | apply::Error::NotTornDown(failed)
                    | apply::Error::NotSetUp(failed),
                ) => {
                    *failures = Some(failed.clone());
                }
                Self::Apply(apply::Error::Refused(lost)) => *losses = Some(lost.clone()),
                Self::Apply(apply::Error::Occupied { occupants: at_work, uninspected: number }) => {
                    (*occupants, *uninspected) = (Some(at_work.clone()), Some(*number));
                }
                Self::Apply(apply::Error::Stale(why)) => *reasons = Some(why.clone()),
                _ => {}
            }
        }
        outcome
    }
}

fn told(failure: &apply::Failure) -> String {
    format!("{}: {}: {}", failure.session, failure.step, printable_lines(&failure.cause))
}

/// Formats a process in a session, on one line.
pub(super) fn at_work(occupant: &apply::Occupant) -> String {
    format!("{}: {}", occupant.session, printable(&occupant.described()))
}

/// Formats the warning about processes that cannot be inspected.
pub(super) fn uninspected(processes: usize) -> String {
    let s = if processes == 1 { "" } else { "es" };
    format!("{processes} process{s} of this host cannot be inspected by this user: what they use is unknown")
}

impl From<apply::Error> for Failure {
    fn from(error: apply::Error) -> Self {
        Self::Apply(error)
    }
}

impl From<state::Error> for Failure {
    fn from(error: state::Error) -> Self {
        Self::State(error)
    }
}

impl From<apply::SurveyError> for Failure {
    fn from(error: apply::SurveyError) -> Self {
        match error {
            apply::SurveyError::Observe(error) => Self::Observe(error),
            apply::SurveyError::State(error) => Self::State(error),
            error => Self::Other(error.to_string()),
        }
    }
}
