//! Errors of the command line, by ids that programs may rely on. Pure.
//!
//! An id once published keeps its meaning and its exit code; a later release may add some.

use crate::host::{files, process, state_directory};
use crate::{apply, observe, orchestrator, provider, state};

/// An error of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorId {
    /// Stable id in kebab-case, the `id` of a `failed` line.
    pub id: &'static str,
    /// Exit code of the command; `exec` exits with 125 for those below 126.
    pub exit_code: u8,
    /// Cause, one sentence without a full stop.
    pub meaning: &'static str,
    /// Next step of the user, one sentence without a full stop.
    pub remedy: &'static str,
}

macro_rules! errors {
    ($($name:ident = $id:literal, $exit_code:literal, $meaning:literal, $remedy:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &ErrorId =
            &ErrorId { id: $id, exit_code: $exit_code, meaning: $meaning, remedy: $remedy };)*

        /// Every error of the command line, by exit code and id.
        pub const ALL: &[&ErrorId] = &[$($name),*];
    };
}

errors! {
    COMMAND_LOST = "command-lost", 1, "The command of `run` can no longer be waited for", "Run it again";
    COMPLETIONS_FAILED = "completions-failed", 1, "The words of the line cannot be completed", "Report it: this is a bug";
    DIRECTORY_SHARED = "directory-shared", 1, "A directory that must belong to this user alone does not", "`chown` it, or `chmod go-w`";
    DISCOVERY_UNREADABLE = "discovery-unreadable", 1, "A discovery file cannot be read", "`seedbed status --repair`";
    DOTENV_VALUE = "dotenv-value", 1, "A value has no form that all readers of dotenv files agree on", "Another `--format`";
    FILE_INACCESSIBLE = "file-inaccessible", 1, "The system refuses access to a file", "Repair what the message names: permissions, space, the disk";
    FILE_IRREGULAR = "file-irregular", 1, "Another kind of file, or a file of another user, is in the place of a file", "Move it away";
    FILE_MOUNTED = "file-mounted", 1, "A file system is mounted where none may be", "`umount` it";
    FILE_TOO_LARGE = "file-too-large", 1, "A file is larger than any that belongs there", "Move it away";
    INPUT_UNREADABLE = "input-unreadable", 1, "Standard input cannot be read", "Give it as text, or as an argument";
    LOCK_UNUSABLE = "lock-unusable", 1, "A lock file cannot be used", "Repair what the message names";
    PATH_LINK = "path-link", 1, "A symbolic link is in a path, and is not followed", "Remove the link";
    PATH_OBSTRUCTED = "path-obstructed", 1, "A FIFO, a device or a directory is where Git expects a file", "Remove it";
    PATH_OUTSIDE = "path-outside", 1, "A path leads out of its root", "Write a plain relative path";
    PORTS_IN_USE = "ports-in-use", 1, "Ports are leased or in use", "`seedbed explain PORT` names the owner";
    PROGRAM_FAILED = "program-failed", 1, "Git, or a program of the manifest, failed", "Repair what its output names";
    PROGRAM_MISSING = "program-missing", 1, "A program cannot be started", "Install it";
    PROGRAM_OUTDATED = "program-outdated", 1, "A program is older than the oldest version that works", "Install a newer one";
    PROGRAM_OUTPUT = "program-output", 1, "A program printed more than is read", "Have it print less";
    PROGRAM_TIMEOUT = "program-timeout", 1, "A program ran longer than allowed, and was ended", "`SEEDBED_GIT_TIMEOUT`, or `timeout` of the kind, allows more";
    REAP_FAILED = "reap-failed", 1, "`doctor --reap` could not read every record or remove a lease", "Repair what the message names";
    RECORD_UNREADABLE = "record-unreadable", 1, "A record of the state directory cannot be read", "`seedbed doctor` names the file";
    REPOSITORY_UNREADABLE = "repository-unreadable", 1, "Files of the repository cannot be read", "Repair the repository";
    RUN_FAILED = "run-failed", 1, "Steps failed, and what the run had made was removed again", "Repair the causes in `failures`, and repeat the command";
    SESSION_FAILED = "session-failed", 1, "A standalone session cannot be recovered", "Repair what the message names, and repeat the command";
    SETUP_FAILED = "setup-failed", 1, "A `setup` failed, and `apply --keep-failed` kept what was made", "Repair it, then `seedbed apply`; or `seedbed destroy`";
    SIGNALS_UNAVAILABLE = "signals-unavailable", 1, "The system refuses to report signals", "Report it: this is a bug";
    VARIABLE_NAME = "variable-name", 1, "The record of the swarm has a variable whose name no shell accepts", "`seedbed apply` writes the record again";
    WORKSPACE_UNUSABLE = "workspace-unusable", 1, "The workspace is not a directory that can be used", "Repair what the message names";
    COMMAND_UNKNOWN = "command-unknown", 64, "There is no command of this name", "`seedbed help` lists them";
    DIRECTORY_UNUSABLE = "directory-unusable", 64, "The directory of the command cannot be used", "Run it in another, or say `-C DIR`";
    ENVIRONMENT_INVALID = "environment-invalid", 64, "A variable of the environment has a value that cannot be used", "Set it as the message says";
    MANIFEST_EXISTS = "manifest-exists", 64, "`init` would overwrite a file", "Remove it, or name another with `-f FILE`";
    MANIFEST_MISSING = "manifest-missing", 64, "There is no manifest in the directory or above it", "`seedbed init`, or `-f FILE`";
    MANIFEST_UNREADABLE = "manifest-unreadable", 64, "The manifest cannot be read, or is a directory", "Name the file with `-f FILE`";
    NO_REPOSITORY = "no-repository", 64, "The directory is in no Git repository", "`git init`";
    OUTSIDE_SESSION = "outside-session", 64, "`whoami` was called outside of every session", "Call it in the directory of a session";
    PORT_INVALID = "port-invalid", 64, "The number is no port", "Write one from 1 to 65535";
    RESCUE_UNKNOWN = "rescue-unknown", 64, "No rescue has this name", "`seedbed rescue list` lists them";
    SESSION_AMBIGUOUS = "session-ambiguous", 64, "More than one session has this name", "Write the path of one";
    SESSION_PATTERN = "session-pattern", 64, "The glob of sessions cannot be read", "Correct the glob";
    SESSION_REQUIRED = "session-required", 64, "`run` has more than one session to run its command in", "`--session SESSION`";
    SESSION_UNKNOWN = "session-unknown", 64, "No active session has this name", "`seedbed status` lists them";
    STATE_HOMELESS = "state-homeless", 64, "There is no place for the state directory", "Set `SEEDBED_STATE_DIR` to an absolute path";
    SUBJECT_UNKNOWN = "subject-unknown", 64, "The argument of `explain` is no port, session or path", "`seedbed list` and `seedbed status` list those that exist";
    SWARM_AMBIGUOUS = "swarm-ambiguous", 64, "More than one swarm of this host has this name", "Write one of the keys that the message lists";
    SWARM_NOT_APPLIED = "swarm-not-applied", 64, "The swarm of the manifest is not applied here", "`seedbed apply`";
    SWARM_UNKNOWN = "swarm-unknown", 64, "No swarm of this host has this name", "`seedbed list` lists them";
    USAGE = "usage", 64, "The arguments cannot be parsed, or contradict one another", "`seedbed help COMMAND`";
    MANIFEST_INVALID = "manifest-invalid", 65, "The manifest has diagnostics, each in `faults` with its rule", "Correct them; `seedbed validate` checks again";
    PLAN_FILE_FOREIGN = "plan-file-foreign", 65, "The plan file is of another swarm than the manifest", "Apply it with its own manifest";
    PLAN_FILE_INVALID = "plan-file-invalid", 65, "The file is no plan that this version can apply or show", "`seedbed plan -o FILE` saves a new one";
    CONSENT_REQUIRED = "consent-required", 69, "Something would be removed, and no terminal is there to ask on", "Read `seedbed plan`, then say `--yes`";
    DECLINED = "declined", 69, "The question on the terminal was not answered with yes; nothing was changed", "Answer `y`, or say `--yes`";
    INSIDE_SESSION = "inside-session", 69, "`destroy` was called from inside a session that it would remove", "Leave it, or say `--yes`";
    KIND_UNKNOWN = "kind-unknown", 69, "Only the program that provisioned a resource of this kind can release it", "Release it with that program";
    PLAN_STALE = "plan-stale", 69, "The saved plan no longer holds, for `reasons`; nothing was changed", "`seedbed plan -o FILE` makes a new one";
    PROCESSES_AT_WORK = "processes-at-work", 69, "Processes, listed in `occupants`, use what would be released", "End them, or say `--stop`";
    RESCUE_FAILED = "rescue-failed", 69, "Work could not be rescued, and nothing was released", "Commit it to a branch, or say `--discard`";
    RESCUE_REFUSED = "rescue-refused", 69, "A rescue cannot be restored or deleted as asked", "Do what the message says";
    SESSION_DAMAGED = "session-damaged", 69, "The session has no directory to work in", "`seedbed apply` makes it again, `seedbed destroy` removes it";
    SWARM_APPLIED = "swarm-applied", 69, "The swarm is applied, and `run` would destroy it", "`seedbed exec`, or `seedbed destroy` before";
    WORK_UNKNOWN = "work-unknown", 69, "It is unknown whether unsaved work would be lost; nothing was changed", "Repair what `losses` names";
    WORK_UNSAVED = "work-unsaved", 69, "Unsaved work, listed in `losses`, would be lost; nothing was changed", "Commit it to a branch, or say `--rescue` or `--discard`";
    WORKSPACE_COPIED = "workspace-copied", 69, "The workspace is a copy of one where the swarm is applied", "`seedbed recover --copied`";
    WORKSPACE_EXISTS = "workspace-exists", 69, "`destroy --gone` was asked for a workspace that exists", "`seedbed destroy` there";
    WORKSPACE_MOVED = "workspace-moved", 69, "The workspace was moved after the swarm was applied", "`seedbed recover --moved`";
    WORKSPACE_OCCUPIED = "workspace-occupied", 69, "The swarm that was moved or copied here is applied here too", "Destroy one of the two";
    BUG = "bug", 70, "This is a bug in seedbed or in a provider; what was made was rolled back, or is for `recover`", "`seedbed recover`, and report it";
    TEARDOWN_FAILED = "teardown-failed", 72, "A `teardown` failed; everything else is done", "Clean up by hand what it would have";
    NOT_RELEASED = "not-released", 73, "Resources of a deleted workspace could not be released", "Repair the cause and repeat the command, or say `--discard`";
    NOT_ROLLED_BACK = "not-rolled-back", 73, "Steps failed, and so did their rollback: `leftovers`", "Repair the cause, then `seedbed recover`; or `seedbed recover --give-up`";
    RUN_UNFINISHED = "run-unfinished", 73, "The state directory failed in the middle of a run", "Repair the cause, then `seedbed recover`; or `seedbed recover --give-up`";
    OUTPUT_UNWRITTEN = "output-unwritten", 74, "The command is done, and its output could not be written", "Repair where standard output leads";
    LOCKED = "locked", 75, "Another run holds the lock of the swarm", "Wait for it, with `--lock-timeout TIME`";
    LOCKED_BY_ORPHANS = "locked-by-orphans", 75, "Programs that a killed run had started hold the lock of the swarm", "Wait for them, or end them";
    RUN_IN_PROGRESS = "run-in-progress", 75, "A run of the swarm is in progress", "Wait for it to end";
    RUN_INTERRUPTED = "run-interrupted", 75, "A run of the swarm was interrupted and is not recovered", "`seedbed recover`";
    COMMAND_NOT_EXECUTABLE = "command-not-executable", 126, "The command of `exec` or `run` cannot be executed", "Make it executable";
    COMMAND_NOT_FOUND = "command-not-found", 127, "The command of `exec` or `run` does not exist", "Correct its name, or the `PATH`";
    INTERRUPTED = "interrupted", 130, "A signal ended the command, and what it had made was rolled back, or is for `recover`", "`seedbed recover` if the message says so; repeat the command";
}

/// An error that has an id.
pub trait Identified {
    /// Returns the id.
    fn id(&self) -> &'static ErrorId;
}

impl Identified for apply::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Stale(_) => PLAN_STALE,
            Self::Refused(losses) if losses.iter().all(|loss| loss.unknown) => WORK_UNKNOWN,
            Self::Refused(_) => WORK_UNSAVED,
            Self::Occupied { .. } => PROCESSES_AT_WORK,
            Self::NotRescued { interrupted: false, .. } => RESCUE_FAILED,
            Self::Failed { leftovers, .. } if !leftovers.is_empty() => NOT_ROLLED_BACK,
            Self::Failed { failures, .. } if failures.iter().any(|failure| failure.panicked) => BUG,
            Self::NotRescued { interrupted: true, .. }
            | Self::Failed { interrupted: true, .. }
            | Self::Interrupted => INTERRUPTED,
            Self::Failed { interrupted: false, .. } => RUN_FAILED,
            Self::NotTornDown(_) => TEARDOWN_FAILED,
            Self::NotSetUp(_) => SETUP_FAILED,
            Self::UnknownKind { .. } => KIND_UNKNOWN,
            Self::State(error) => error.id(),
            Self::Unfinished(_) => RUN_UNFINISHED,
        }
    }
}

impl Identified for apply::SurveyError {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Observe(error) => error.id(),
            Self::State(error) => error.id(),
        }
    }
}

impl Identified for state::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::File(error) => error.id(),
            Self::Locked { .. } => LOCKED,
            Self::Orphaned { .. } => LOCKED_BY_ORPHANS,
            Self::Unrecovered { .. } => RUN_INTERRUPTED,
            Self::Workspace { .. } => WORKSPACE_UNUSABLE,
            Self::Lock { .. } => LOCK_UNUSABLE,
            Self::Unreadable { .. } => RECORD_UNREADABLE,
        }
    }
}

impl Identified for observe::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Workspace(_) => WORKSPACE_UNUSABLE,
            Self::Registry(error) => error.id(),
            Self::Git(error) => error.id(),
            Self::Interrupted(_) => INTERRUPTED,
            Self::Repository(_) => REPOSITORY_UNREADABLE,
        }
    }
}

impl Identified for provider::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Process(error) => error.id(),
            Self::File(error) => error.id(),
            Self::Taken(_) => PORTS_IN_USE,
            Self::Refused(_) => RESCUE_REFUSED,
            Self::Interrupted => INTERRUPTED,
            Self::Panicked(_) => BUG,
        }
    }
}

impl Identified for orchestrator::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Observe(error) => error.id(),
            Self::State(error) => error.id(),
            Self::File(error) => error.id(),
            Self::Workspace { .. } => WORKSPACE_UNUSABLE,
            Self::UnknownKind(_) => KIND_UNKNOWN,
            Self::WouldLose(losses) if losses.iter().all(|loss| loss.unknown) => WORK_UNKNOWN,
            Self::WouldLose(_) => WORK_UNSAVED,
            Self::Occupied(_) => PROCESSES_AT_WORK,
            Self::Interrupted => INTERRUPTED,
            Self::Provision { leftovers, .. } if !leftovers.is_empty() => NOT_ROLLED_BACK,
            Self::Release(_) => NOT_ROLLED_BACK,
            Self::SessionId(_)
            | Self::Child(_)
            | Self::Faults(_)
            | Self::AlreadyActive(_)
            | Self::Released(_)
            | Self::Provision { .. }
            | Self::Discovery { .. } => SESSION_FAILED,
        }
    }
}

impl Identified for state_directory::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Relative(_) => ENVIRONMENT_INVALID,
            Self::Nowhere => STATE_HOMELESS,
        }
    }
}

impl Identified for process::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Start { .. } => PROGRAM_MISSING,
            Self::TooOld { .. } => PROGRAM_OUTDATED,
            Self::Obstructed { .. } => PATH_OBSTRUCTED,
            Self::Deadline { .. } => PROGRAM_TIMEOUT,
            Self::Cancelled { .. } => INTERRUPTED,
            Self::Failed { .. } | Self::Lost { .. } => PROGRAM_FAILED,
            Self::TooMuch { .. } => PROGRAM_OUTPUT,
        }
    }
}

impl Identified for files::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Link { .. } => PATH_LINK,
            Self::Outside { .. } => PATH_OUTSIDE,
            Self::Irregular { .. } => FILE_IRREGULAR,
            Self::Shared { .. } => DIRECTORY_SHARED,
            Self::Mounted { .. } => FILE_MOUNTED,
            Self::TooLarge { .. } => FILE_TOO_LARGE,
            Self::Io { .. } => FILE_INACCESSIBLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_listed_by_exit_code_and_id() {
        let keys: Vec<_> = ALL.iter().map(|error| (error.exit_code, error.id)).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(keys, sorted);
        let mut ids: Vec<_> = ALL.iter().map(|error| error.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
        for ErrorId { id, meaning, remedy, .. } in ALL {
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{id}");
            assert!(![meaning, remedy].iter().any(|text| text.ends_with('.') || text.contains('|')), "{id}");
        }
    }
}
