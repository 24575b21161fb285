//! Errors that end a command early, with their messages and exit codes.

use std::fmt::Display;
use std::process::ExitCode;

use seedbed::apply::{self, FindingKind, SessionFinding, UnusableRepository};
use seedbed::fleet::directory::DirectoryError;
use seedbed::host::files;
use seedbed::host::process::{self, Cancel};
use seedbed::host::text::{printable, printable_lines, shell_quoted};
use seedbed::manifest::Report;
use seedbed::name::SessionPath;
use seedbed::report::error::{self, ErrorId, Identified};
use seedbed::report::event::Failed;
use seedbed::{observe, orchestrator, state};

use super::suggestion::pasteable;
use super::{output, terminal};

/// Exit codes of a command that ends as it should; those of errors belong to their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Done.
    Done = 0,
    /// Failed, and everything was rolled back, or kept as `apply --keep-failed` requests.
    Failed = 1,
    /// `plan --detailed-exitcode` or `status --detailed-exitcode` found changes.
    Changes = 2,
    /// The manifest or plan file is invalid.
    Invalid = 65,
    /// Refused: unsaved work would be lost, processes use the sessions, or the plan is stale.
    Refused = 69,
    /// Done, and what was to be printed could not be written.
    Unwritten = 74,
    /// Interrupted, and rolled back.
    Interrupted = 130,
}

/// Exit codes, for `--help`.
pub(super) const HELP: &str = "Exit codes:
  0    done
  1    failed, and everything was rolled back, or kept (`apply --keep-failed`)
  2    plan or status --detailed-exitcode found changes
  30   a run over the hosts of a fleet is decided, and hosts have not followed; or hosts gave no results
  64   usage
  65   manifest or plan file invalid
  69   refused: unsaved work would be lost, processes use the sessions, or the plan is stale
  70   a bug in seedbed
  72   done, but a teardown failed
  73   failed, and something could not be rolled back
  74   done, but standard output could not be written
  75   locked by another run
  130  interrupted, and rolled back";

/// Note on work that could not be rescued.
const NOT_RESCUED: &str = "note: unsaved work could not be rescued, so nothing was released; rescues that succeeded are \
                           kept, and `seedbed rescue list` lists them";

/// Remedy if the cause of an unfinished run cannot be repaired.
const GIVE_UP: &str = "help: if the cause cannot be repaired, run `seedbed recover --give-up`";

/// Maximum number of diagnostics that are printed as text. People read no more; `--json` contains all of them.
const DIAGNOSTICS_PRINTED: usize = 100;

/// Beginnings of the lines that belong to the error above them.
const DETAILS: [&str; 3] = ["  ", "note: ", "help: "];

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Error that ends a command early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The manifest has diagnostics.
    Manifest(Report),
    /// Ctrl-C, before anything was changed or printed.
    Interrupted,
    /// A run did not complete its task.
    Apply(apply::Error),
    /// The host could not be observed.
    Observe(observe::Error),
    /// The state directory could not be used.
    State(state::Error),
    /// Anything else, by its id, with its text.
    Other(&'static ErrorId, String),
}

impl Failure {
    /// Creates the failure of an id, with its text.
    pub(super) fn new(id: &'static ErrorId, text: impl Into<String>) -> Self {
        Self::Other(id, text.into())
    }

    /// Creates the failure of a library error, with its id and its text.
    #[expect(clippy::needless_pass_by_value, reason = "is passed to `map_err`")]
    pub(super) fn from_error(error: impl Identified + Display) -> Self {
        Self::new(error.id(), error.to_string())
    }

    /// Creates the failure of a file, with what was done to it.
    pub(super) fn from_file_error(text: impl Into<String>) -> Self {
        Self::new(error::FILE_INACCESSIBLE, text)
    }

    /// Returns its id, which the exit code belongs to.
    pub(super) fn id(&self) -> &'static ErrorId {
        match self {
            Self::Manifest(_) => error::MANIFEST_INVALID,
            Self::Interrupted => error::INTERRUPTED,
            Self::Apply(error) => error.id(),
            Self::Observe(error) => error.id(),
            Self::State(error) => error.id(),
            Self::Other(id, _) => id,
        }
    }

    /// Returns `Interrupted` if `cancel` was requested and nothing was changed yet: the interruption is then the cause
    /// of the error.
    pub(super) fn because(self, cancel: &Cancel) -> Self {
        const BEFORE_ANYTHING: [u8; 3] =
            [error::RUN_FAILED.exit_code, error::PLAN_STALE.exit_code, error::LOCKED.exit_code];
        let is_before_anything = match &self {
            Self::Manifest(_) | Self::Observe(_) => true,
            Self::Other(id, _) => BEFORE_ANYTHING.contains(&id.exit_code),
            Self::State(error) | Self::Apply(apply::Error::State(error)) => {
                matches!(error, state::Error::Locked { .. } | state::Error::Orphaned { .. })
            }
            Self::Apply(error) => matches!(
                error,
                apply::Error::Refused(_)
                    | apply::Error::Occupied { .. }
                    | apply::Error::Stale(_)
                    | apply::Error::Unusable(_)
            ),
            Self::Interrupted => false,
        };
        if is_before_anything && cancel.is_requested() { Self::Interrupted } else { self }
    }

    /// Converts the error of a standalone session, with its id if known.
    pub(super) fn from_session_error(id: Option<&str>, error: orchestrator::Error) -> Self {
        match error {
            orchestrator::Error::State(error) => Self::State(error),
            orchestrator::Error::Release(leftovers) if !leftovers.is_empty() => {
                Self::Apply(apply::Error::Failed { failures: Vec::new(), leftovers, interrupted: false })
            }
            orchestrator::Error::UnknownKind(kind) => {
                Self::Apply(apply::Error::UnknownKind { session: id.unwrap_or_default().to_owned(), kind })
            }
            orchestrator::Error::Occupied { occupants, findings } => {
                Self::Apply(apply::Error::Occupied { occupants, uninspected: 0, findings })
            }
            orchestrator::Error::WouldLose(findings) => Self::Apply(apply::Error::Refused(findings)),
            error => Self::Other(
                error.id(),
                match id {
                    Some(id) => format!("session {id}: {error}"),
                    None => error.to_string(),
                },
            ),
        }
    }

    /// Prints the error on stderr, or with `json` on stdout, and returns the exit code.
    pub(super) fn report(self, json: bool) -> ExitCode {
        let code = self.id().exit_code;
        self.report_as(code, json)
    }

    /// Prints the error, for a command that has one exit code for all errors.
    pub(super) fn report_as(self, code: u8, json: bool) -> ExitCode {
        if json {
            output::print_line(self.failed(code));
        } else {
            output::print_labelled(&self.text());
        }
        ExitCode::from(code)
    }

    /// Returns the text of the error: `error: MESSAGE [ID]`, its details, and the remedy as `help: REMEDY`.
    fn text(self) -> String {
        let id = self.id().id;
        if let Self::Manifest(report) = self {
            let report = report.printing(DIAGNOSTICS_PRINTED);
            let diagnostics = terminal::diagnostics(&report, &std::io::stderr());
            return format!("{diagnostics}error: {report} [{id}]\n");
        }
        let mut text = String::new();
        for (at, line) in self.lines().iter().enumerate() {
            let (first, rest) = line.split_once('\n').map_or((line.as_str(), None), |(a, b)| (a, Some(b)));
            let id = if at == 0 { format!(" [{id}]") } else { String::new() };
            let rest = rest.map(|rest| format!("\n{rest}")).unwrap_or_default();
            let is_detail = DETAILS.iter().any(|beginning| line.starts_with(beginning));
            text.extend([if is_detail { "" } else { "error: " }, first, &id, &rest, "\n"]);
        }
        text
    }

    /// Returns the error in one line that is safe to print.
    pub(super) fn summary(&self) -> String {
        pasteable(&printable(&self.messages().join("\n").replace('\n', "; ")))
    }

    /// Returns the error and the remedies, one line each, safe to print. Commands in them can be pasted.
    fn lines(&self) -> Vec<String> {
        let mut lines = self.messages();
        let has_remedy = lines.iter().any(|line| line.starts_with("help: ") || line.contains("\nhelp: "));
        if !has_remedy {
            lines.extend(self.remedy().map(|remedy| format!("help: {remedy}")));
        }
        lines.iter().map(|line| pasteable(line)).collect()
    }

    /// Returns the remedy of the id, for a message without one of its own. `None` if the user knows it: diagnostics have
    /// their own, and the user has just interrupted or declined.
    fn remedy(&self) -> Option<String> {
        let id = self.id();
        let is_known = [error::MANIFEST_INVALID, error::INTERRUPTED, error::DECLINED].contains(&id);
        (!is_known).then(|| id.help())
    }

    fn messages(&self) -> Vec<String> {
        match self {
            Self::Manifest(report) => vec![report.to_string()],
            Self::Other(_, message) => vec![printable_lines(message)],
            Self::Interrupted => vec!["interrupted".to_owned()],
            Self::Observe(error) => vec![printable_lines(&error.to_string())],
            Self::State(error) | Self::Apply(apply::Error::State(error)) => {
                let message = printable_lines(&error.to_string());
                std::iter::once(message).chain(lock_remedy(error).map(str::to_owned)).collect()
            }
            Self::Apply(apply::Error::Unfinished(error)) => vec![
                printable_lines(&error.to_string()),
                "note: the run could not be finished".to_owned(),
                "help: repair the cause, then run `seedbed recover`".to_owned(),
                GIVE_UP.to_owned(),
            ],
            Self::Apply(apply::Error::Stale(reasons)) => {
                let mut lines = vec!["the plan is stale; nothing was changed".to_owned()];
                lines.extend(reasons.iter().map(|reason| format!("  {}", printable(reason))));
                lines.push("help: make a new plan with `seedbed plan -o FILE`".to_owned());
                lines
            }
            Self::Apply(apply::Error::Refused(findings)) => {
                let why = if findings.iter().all(|finding| finding.kind == FindingKind::Obstacle) {
                    "the sessions cannot be released"
                } else if findings.iter().all(|finding| finding.kind != FindingKind::Known) {
                    "it is unknown what would be lost"
                } else {
                    "work would be lost"
                };
                let mut lines = vec![format!("refused, because {why}; nothing was changed")];
                lines.extend(by_session(&[], findings));
                if findings.iter().all(|finding| finding.kind == FindingKind::Obstacle) {
                    lines.push("help: remove what is named above, or move it away, and try again".to_owned());
                }
                lines.extend(work_remedy("it", findings));
                lines
            }
            Self::Apply(apply::Error::Occupied { occupants, uninspected, findings }) => {
                let and_work = if findings.is_empty() { "" } else { ", and work would be lost" };
                let head = "refused, because processes use what would be released";
                let mut lines = vec![format!("{head}{and_work}; nothing was released")];
                lines.extend(by_session(occupants, findings));
                if *uninspected > 0 {
                    lines.push(format!("  {}", self::uninspected(*uninspected)));
                }
                let them = if findings.is_empty() { "them" } else { "the processes" };
                lines.push(format!("help: end {them}, or let seedbed end them with `--stop`"));
                lines.extend(work_remedy("the work", findings));
                lines
            }
            Self::Apply(apply::Error::NotRescued { failures, .. }) => {
                let mut lines: Vec<_> = failures.iter().map(failed_step).collect();
                lines.push(NOT_RESCUED.to_owned());
                lines
            }
            Self::Apply(error @ apply::Error::UnknownKind { .. }) => {
                vec![printable_lines(&error.to_string()), "help: release it with that program".to_owned()]
            }
            Self::Apply(apply::Error::Unusable(repositories)) => {
                let mut lines: Vec<_> = repositories.iter().map(unusable).collect();
                lines.push(repository_remedy(repositories));
                lines
            }
            Self::Apply(apply::Error::Interrupted) => {
                vec!["interrupted".to_owned(), "help: continue with `seedbed recover`".to_owned()]
            }
            Self::Apply(apply::Error::NotTornDown(failures)) => {
                let mut lines: Vec<_> = failures.iter().map(failed_step).collect();
                lines.push("note: the sessions were released anyway".to_owned());
                lines
            }
            Self::Apply(apply::Error::NotSetUp(failures)) => {
                let mut lines: Vec<_> = failures.iter().map(failed_step).collect();
                lines.push("note: the sessions were kept, marked as broken".to_owned());
                lines.push(
                    "help: continue with `seedbed apply`, or remove them with `seedbed destroy`".to_owned(),
                );
                lines
            }
            Self::Apply(apply::Error::Failed { failures, leftovers, interrupted }) => {
                let mut lines: Vec<_> = failures.iter().map(failed_step).collect();
                if *interrupted {
                    lines.push("interrupted".to_owned());
                }
                if leftovers.is_empty() {
                    lines.push("note: the run was rolled back".to_owned());
                } else {
                    lines.push("could not be rolled back:".to_owned());
                    lines.extend(leftovers.iter().map(|left| format!("  {}", failed_step(left))));
                    lines.push(
                        "help: repair the cause, then run `seedbed recover` and `seedbed apply`".to_owned(),
                    );
                    lines.push(GIVE_UP.to_owned());
                }
                lines
            }
            Self::Apply(error) => vec![printable_lines(&error.to_string())],
        }
    }

    fn failed(&self, exit_code: u8) -> Failed {
        let id = self.id().id.to_owned();
        let failed = Failed { id, exit_code, message: self.lines().join("\n"), ..Failed::default() };
        match self {
            Self::Manifest(report) => Failed { diagnostics: Some(report.diagnostics().collect()), ..failed },
            Self::Apply(apply::Error::Failed { failures, leftovers, .. }) => {
                Failed { failures: Some(failures.clone()), leftovers: Some(leftovers.clone()), ..failed }
            }
            Self::Apply(
                apply::Error::NotRescued { failures, .. }
                | apply::Error::NotTornDown(failures)
                | apply::Error::NotSetUp(failures),
            ) => Failed { failures: Some(failures.clone()), ..failed },
            Self::Apply(apply::Error::Refused(findings)) => {
                Failed { unsaved_work: Some(findings.clone()), ..failed }
            }
            Self::Apply(apply::Error::Occupied { occupants, uninspected, findings }) => Failed {
                occupants: Some(occupants.clone()),
                uninspected: Some(*uninspected),
                unsaved_work: (!findings.is_empty()).then(|| findings.clone()),
                ..failed
            },
            Self::Apply(apply::Error::Stale(reasons)) => Failed { reasons: Some(reasons.clone()), ..failed },
            _ => failed,
        }
    }
}

fn failed_step(failure: &apply::Failure) -> String {
    format!("{}: {}: {}", failure.session, failure.step, printable_lines(&failure.cause))
}

/// Returns processes and findings, one line each, grouped by session, the processes of a session first.
fn by_session(occupants: &[apply::Occupant], findings: &[SessionFinding]) -> Vec<String> {
    let occupants = occupants.iter().map(|one| (&one.session, at_work(one)));
    let findings = findings.iter().map(|finding| {
        (&finding.session, format!("{}: {}", finding.session, printable(&finding.description)))
    });
    let mut lines: Vec<_> = occupants.chain(findings).collect();
    lines.sort_by_key(|(session, _)| *session);
    lines.into_iter().map(|(_, line)| format!("  {line}")).collect()
}

/// Formats a repository that cannot be used, with its sessions, on one line.
pub(super) fn unusable(repository: &UnusableRepository) -> String {
    let sessions: Vec<_> = repository.sessions.iter().map(SessionPath::as_str).collect();
    let have = if sessions.len() == 1 { "has a worktree" } else { "have worktrees" };
    format!("{}; {} {have} of it", printable(&repository.to_string()), sessions.join(", "))
}

/// Returns the remedy for repositories that cannot be used, at least one.
pub(super) fn repository_remedy(repositories: &[UnusableRepository]) -> String {
    if let Some(own) = repositories.iter().find(|one| one.is_own()) {
        return format!(
            "help: if the earlier repository was moved, run `seedbed recover --moved` there, or move it back; if it was \
             deleted, run `seedbed destroy {} --gone`",
            shell_quoted(&printable(&own.workspace.to_string_lossy()))
        );
    }
    let it = if repositories.len() == 1 { "it" } else { "them" };
    let names: Vec<_> = repositories.iter().map(|one| format!(" --forget {}", one.name)).collect();
    format!(
        "help: bring {it} back; if moved, write the new `root` in the manifest, and run `seedbed recover --moved`; if what is \
         in {it} is lost for good, give it up with `seedbed destroy{}`",
        names.concat()
    )
}

/// Returns the remedy for work that would be lost, if some is known; `work` names the work.
fn work_remedy(work: &str, findings: &[SessionFinding]) -> Option<String> {
    findings.iter().any(|finding| finding.kind == FindingKind::Known).then(|| {
        format!("help: commit {work} to a branch, save it with `--rescue`, or discard it with `--discard`")
    })
}

/// Returns the remedy for a lock that others own; `None` for other errors.
fn lock_remedy(error: &state::Error) -> Option<&'static str> {
    match error {
        state::Error::Locked { .. } => Some("help: wait for it with `--lock-timeout 1m`"),
        state::Error::Orphaned { .. } => Some("help: wait for them with `--lock-timeout 1m`, or end them"),
        _ => None,
    }
}

/// Formats a process in a session, on one line.
pub(super) fn at_work(occupant: &apply::Occupant) -> String {
    format!("{}: {}", occupant.session, printable(&occupant.described()))
}

/// Formats the warning about processes that cannot be inspected.
pub(super) fn uninspected(processes: usize) -> String {
    let processes = output::count_of(processes, "process", "processes");
    format!(
        "{processes} of this host cannot be inspected by this user: the files and ports in use are unknown"
    )
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

impl From<apply::PlanningInputError> for Failure {
    fn from(error: apply::PlanningInputError) -> Self {
        match error {
            apply::PlanningInputError::Observe(error) => Self::Observe(error),
            apply::PlanningInputError::State(error) => Self::State(error),
            apply::PlanningInputError::Unusable(repositories) => {
                Self::Apply(apply::Error::Unusable(repositories))
            }
            error => Self::from_error(error),
        }
    }
}

impl From<process::Error> for Failure {
    fn from(error: process::Error) -> Self {
        Self::from_error(error)
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::from_error(error)
    }
}

impl From<files::Error> for Failure {
    fn from(error: files::Error) -> Self {
        Self::from_error(error)
    }
}
