//! Errors of the command line, by ids that programs may rely on. Pure.
//!
//! An id once published keeps its meaning and its exit code; a later release may add some.

use crate::host::{files, process, state_directory};
use crate::{apply, collect, fleet, observe, orchestrator, provider, state};

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

impl ErrorId {
    /// Returns the remedy as the text of a `help:` line.
    pub fn help(&self) -> String {
        let mut characters = self.remedy.chars();
        characters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(characters).collect()
    }
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
    COMMAND_LOST = "command-lost", 1, "seedbed can no longer wait for the command of `run`", "Run it again";
    COMMAND_STOPPED = "command-stopped", 1, "A command was ended, because that of another session failed (`--fail-fast`)", "Repair the one that failed";
    COMPLETIONS_FAILED = "completions-failed", 1, "The command line cannot be completed", "Report it: this is a bug";
    CONTAINER_UNUSABLE = "container-unusable", 1, "A session cannot work in a container", "Repair what the message names";
    DIRECTORY_SHARED = "directory-shared", 1, "A directory that must belong only to this user belongs to another user, or others can write to it", "Run `chown` or `chmod go-w` on it";
    DISCOVERY_UNREADABLE = "discovery-unreadable", 1, "A discovery file cannot be read", "Run `seedbed status --repair`";
    DOTENV_VALUE = "dotenv-value", 1, "A value has no form that all readers of dotenv files read alike", "Use another `--format`";
    FILE_INACCESSIBLE = "file-inaccessible", 1, "The system refuses access to a file", "Repair what the message names: permissions, space, the disk";
    FILE_IRREGULAR = "file-irregular", 1, "Another kind of file, or a file of another user, is at the path of a file", "Move it away";
    FILE_MOUNTED = "file-mounted", 1, "A file system is mounted at a path where none is allowed", "Run `umount` on it";
    FILE_TOO_LARGE = "file-too-large", 1, "A file is larger than allowed", "Move it away";
    FLEET_ABORTED = "fleet-aborted", 1, "A host of a fleet did not prepare its part, so no host keeps its part", "Repair what the message names, and repeat the command";
    FLEET_DIRECTORY = "fleet-directory", 1, "A file in the directory of a fleet cannot be read or written", "Repair what the message names";
    HOST_LOST = "host-lost", 1, "A host of a fleet gave no result, so the command in its sessions may have run or not", "Look at the host with `seedbed fleet status DIR`, and repeat the command";
    INPUT_UNREADABLE = "input-unreadable", 1, "Standard input cannot be read", "Pass the text as an argument";
    LOCK_UNUSABLE = "lock-unusable", 1, "A lock file cannot be used", "Repair what the message names";
    PATH_LINK = "path-link", 1, "A symbolic link is in a path, and is not followed", "Remove the link";
    PATH_OBSTRUCTED = "path-obstructed", 1, "A FIFO, a device or a directory is at the path of a file of Git", "Remove it";
    PATH_OUTSIDE = "path-outside", 1, "A path leads out of its root", "Write a plain relative path";
    PORTS_IN_USE = "ports-in-use", 1, "Ports are leased or in use", "Run `seedbed explain PORT`, which names the owner";
    PROGRAM_FAILED = "program-failed", 1, "Git, or a program of the manifest, failed", "Repair what its output names";
    PROGRAM_MISSING = "program-missing", 1, "A program cannot be started", "Install it";
    PROGRAM_OUTDATED = "program-outdated", 1, "A program is older than the oldest supported version", "Install a newer one";
    PROGRAM_OUTPUT = "program-output", 1, "A program printed more than seedbed reads", "Make it print less";
    PROGRAM_TIMEOUT = "program-timeout", 1, "A program ran longer than allowed, and was ended", "Raise `SEEDBED_GIT_TIMEOUT`, or `timeout` of the kind";
    REAP_FAILED = "reap-failed", 1, "`doctor --reap` could not read every record or remove a lease", "Repair what the message names";
    RECORD_UNREADABLE = "record-unreadable", 1, "A record of the state directory cannot be read", "Run `seedbed doctor`, which names the file";
    REPOSITORY_UNREADABLE = "repository-unreadable", 1, "Files of the repository cannot be read", "Repair the repository";
    RUN_FAILED = "run-failed", 1, "Steps failed, and the run was rolled back", "Repair the causes, and repeat the command";
    SESSION_FAILED = "session-failed", 1, "A standalone session cannot be recovered", "Repair what the message names, and repeat the command";
    SETUP_FAILED = "setup-failed", 1, "A `setup` failed, and `apply --keep-failed` kept the sessions", "Repair it, then run `seedbed apply`, or `seedbed destroy`";
    SIGNALS_UNAVAILABLE = "signals-unavailable", 1, "The system refuses to report signals", "Report it: this is a bug";
    VARIABLE_NAME = "variable-name", 1, "The record of the swarm has a variable whose name no shell accepts", "Run `seedbed apply`, which writes the record again";
    WORKSPACE_UNUSABLE = "workspace-unusable", 1, "The workspace is not a directory that can be used", "Repair what the message names";
    FLEET_DEGRADED = "fleet-degraded", 30, "A run over the hosts of a fleet is decided, and hosts have not followed; or hosts gave no results", "Run `seedbed fleet recover DIR` once the hosts can be reached";
    COMMAND_MISSING = "command-missing", 64, "The session has no `command`", "Add one to the manifest and run `seedbed apply`, or run `seedbed exec`";
    COMMAND_UNKNOWN = "command-unknown", 64, "The command does not exist", "Run `seedbed help`, which lists the commands";
    DIRECTORY_NOT_EMPTY = "directory-not-empty", 64, "The directory to write to has files", "Name a new directory";
    DIRECTORY_UNUSABLE = "directory-unusable", 64, "The directory of the command cannot be used", "Run it in another, or pass `-C DIR`";
    ENVIRONMENT_INVALID = "environment-invalid", 64, "An environment variable has a value that cannot be used", "Set it as the message describes";
    EXPORT_VALUE = "export-value", 64, "A path or a value cannot be written in the format of the export", "Use another `--format`, or change the value";
    GLOB_INVALID = "glob-invalid", 64, "A glob for files cannot be read", "Correct the glob";
    LOG_MISSING = "log-missing", 64, "The sessions have no log of a command", "Run one with `seedbed start`";
    MANIFEST_EXISTS = "manifest-exists", 64, "`init` would overwrite a file", "Remove it, or name another with `-f FILE`";
    MANIFEST_MISSING = "manifest-missing", 64, "There is no manifest in the directory or above it, and no applied swarm", "Run `seedbed init`, or pass `-f FILE`";
    MANIFEST_UNREADABLE = "manifest-unreadable", 64, "The manifest cannot be read, or is a directory", "Pass the file with `-f FILE`";
    NO_REPOSITORY = "no-repository", 64, "The directory is in no Git repository", "Run `git init`, or pass `-C DIR`";
    OUTPUT_EXISTS = "output-exists", 64, "`-o` names a file that the command has not written", "Remove the file, or name another with `-o`";
    OUTSIDE_SESSION = "outside-session", 64, "`whoami` was called outside of every session", "Call it in the directory of a session";
    PORT_INVALID = "port-invalid", 64, "The number is not a port", "Write a number from 1 to 65535";
    REF_UNKNOWN = "ref-unknown", 64, "A ref names no commit of the repository", "Name a branch, a tag or a commit";
    RESCUE_UNKNOWN = "rescue-unknown", 64, "No rescue has this name", "Run `seedbed rescue list`";
    SESSION_AMBIGUOUS = "session-ambiguous", 64, "More than one session has this name", "Write the path of one";
    SESSION_DECLARED = "session-declared", 64, "The session was not spawned: the manifest declares it", "Release it with `seedbed destroy`";
    SESSION_NAME = "session-name", 64, "The name of a session to spawn is invalid, or another session has it", "Choose another name";
    SESSION_PATTERN = "session-pattern", 64, "The glob of sessions cannot be read", "Correct the glob";
    SESSION_REQUIRED = "session-required", 64, "`run` needs the session for its command: more than one is at the top of the tree", "Pass `--session SESSION`";
    SESSION_UNKNOWN = "session-unknown", 64, "No active session has this name", "Run `seedbed status`, which lists the sessions";
    SLOT_MISSING = "slot-missing", 64, "No session has the number of the test runner's worker", "Set a higher `count` and run `seedbed apply`, or start fewer workers";
    SLOT_UNKNOWN = "slot-unknown", 64, "The environment has no number of a test runner's worker", "Run the command in a worker, or name a variable with its number, from 0: `--slot=VARIABLE`";
    STATE_HOMELESS = "state-homeless", 64, "There is no directory for the state directory", "Set `SEEDBED_STATE_DIR` to an absolute path";
    SUBJECT_UNKNOWN = "subject-unknown", 64, "The argument of `explain` is no port, session or path", "Run `seedbed list` or `seedbed status`, which list those that exist";
    SWARM_AMBIGUOUS = "swarm-ambiguous", 64, "More than one swarm of this host has this name, or is applied in a workspace without a manifest", "Write one of the keys that the message lists, or `--swarm NAME`";
    SWARM_NOT_APPLIED = "swarm-not-applied", 64, "The swarm of the manifest is not applied here", "Run `seedbed apply`";
    SWARM_UNKNOWN = "swarm-unknown", 64, "No swarm of this host, or of the workspace, has this name", "Run `seedbed list`";
    TEMPLATE_UNUSABLE = "template-unusable", 64, "A session cannot be made from the template at this position of the tree", "Choose another template or parent";
    USAGE = "usage", 64, "The arguments cannot be parsed, or contradict one another", "Run `seedbed help COMMAND`";
    FLEET_UNPLANNABLE = "fleet-unplannable", 65, "The observations do not fit the fleet of the manifest, or one another", "Observe each host again with `seedbed observe`";
    MANIFEST_INVALID = "manifest-invalid", 65, "The manifest has diagnostics, each in `diagnostics` with its rule", "Correct them, and check with `seedbed validate`";
    OBSERVATION_INVALID = "observation-invalid", 65, "The file is not an observation that this version can read", "Write a new one with `seedbed observe -o FILE`";
    PLAN_FILE_FOREIGN = "plan-file-foreign", 65, "The plan file belongs to another swarm than the manifest, or to a repository that the manifest does not declare", "Apply it with its own manifest";
    PLAN_FILE_INVALID = "plan-file-invalid", 65, "The file is not a plan that this version can apply or show", "Save a new one with `seedbed plan -o FILE`";
    COMMAND_RUNNING = "command-running", 69, "`start` would run a second command in a session where one runs", "Wait for it, or end it";
    CONSENT_REQUIRED = "consent-required", 69, "The command would remove something, or a saved plan would change other repositories, and there is no terminal to ask on", "Read `seedbed plan`, then pass `--yes`";
    DECLINED = "declined", 69, "The question on the terminal was not answered with yes; nothing was changed", "Answer `y`, or pass `--yes`";
    FETCH_FAILED = "fetch-failed", 69, "`--fetch` could not fetch a base ref; nothing was planned", "Check the network and the remote, or plan without `--fetch`";
    FLEET_COMMITS = "fleet-commits", 69, "A host of a fleet lacks commits, and cannot get them from here", "Repair what the message names, or fetch them on that host";
    FLEET_MANIFEST = "fleet-manifest", 69, "The manifest has changed since it was applied, and `fleet repair` changes nothing else", "Run `seedbed fleet apply DIR`";
    FLEET_PART = "fleet-part", 69, "The swarm is the part of this host of a fleet, and `apply` would give this host all of the manifest, or another fleet would change it", "Run `seedbed fleet apply DIR` with the directory of its fleet";
    FLEET_UNREACHABLE = "fleet-unreachable", 69, "The host is prepared for a run over a fleet whose directory is not there", "Bring the directory back, or run `seedbed recover --give-up`";
    INSIDE_SESSION = "inside-session", 69, "`destroy` was called from inside a session that it would remove", "Leave the session, or pass `--yes`";
    KIND_UNKNOWN = "kind-unknown", 69, "Only the program that provisioned a resource of this kind can release it", "Release it with that program";
    PLAN_STALE = "plan-stale", 69, "The facts of the saved plan are no longer true, for `reasons`; nothing was changed", "Save a new plan with `seedbed plan -o FILE`";
    PLAN_UNEXPECTED = "plan-unexpected", 69, "The plan does not have the digest of `--expect`; nothing was changed", "Review the plan that the message shows, and pass its digest";
    PROCESSES_AT_WORK = "processes-at-work", 69, "Processes, listed in `occupants`, use what would be released; unsaved work that would be lost as well is listed in `unsavedWork`", "End them, or pass `--stop`";
    REPOSITORY_UNUSABLE = "repository-unusable", 69, "A repository of which sessions have worktrees was moved, deleted or replaced by another one, or cannot be written", "Bring it back; if it was moved, write its new `root` in the manifest and run `seedbed recover --moved`; else give it up with `seedbed destroy --forget NAME`";
    REPOSITORY_USABLE = "repository-usable", 69, "`destroy --forget` was called for a repository that can be used", "Run `seedbed destroy` without it";
    RESCUE_FAILED = "rescue-failed", 69, "Work could not be rescued, and nothing was released", "Commit the work to a branch, or pass `--discard`";
    RESCUE_REFUSED = "rescue-refused", 69, "The rescue cannot be restored or deleted as requested", "Restore it in a new directory with `--into DIR`";
    SESSION_DAMAGED = "session-damaged", 69, "The session has no directory to work in", "Run `seedbed apply`, which creates it again, or `seedbed destroy`";
    SESSION_UNPLANNABLE = "session-unplannable", 69, "A session to spawn cannot be planned: nothing is left to share, or its options are invalid", "Correct the options of the command, or release what the session needs";
    SWARM_APPLIED = "swarm-applied", 69, "The swarm is already applied, and `run` would destroy it", "Use `seedbed exec`, or run `seedbed destroy` first";
    WORK_UNKNOWN = "work-unknown", 69, "It is unknown whether unsaved work would be lost; nothing was changed", "Repair what prevents the check, or pass `--discard`";
    WORK_UNSAVED = "work-unsaved", 69, "Unsaved work, listed in `unsavedWork`, would be lost; nothing was changed", "Commit it to a branch, or pass `--rescue` or `--discard`";
    WORKSPACE_COPIED = "workspace-copied", 69, "The workspace is a copy of one in which the swarm is applied", "Run `seedbed recover --copied`";
    WORKSPACE_EXISTS = "workspace-exists", 69, "`destroy --gone` was called for a workspace that exists", "Run `seedbed destroy` in the workspace";
    WORKSPACE_MOVED = "workspace-moved", 69, "The workspace was moved after the swarm was applied", "Run `seedbed recover --moved`";
    WORKSPACE_OCCUPIED = "workspace-occupied", 69, "A swarm that was moved or copied here is already applied here", "Destroy one of the two";
    BUG = "bug", 70, "This is a bug in seedbed or in a provider; the run was rolled back, or is left for `recover`", "Run `seedbed recover`, and report it";
    TEARDOWN_FAILED = "teardown-failed", 72, "A `teardown` failed; everything else is done", "Do by hand what the `teardown` left undone";
    NOT_RELEASED = "not-released", 73, "Resources of a deleted workspace could not be released", "Repair the cause and repeat the command, or pass `--discard`";
    NOT_ROLLED_BACK = "not-rolled-back", 73, "Steps failed, and so did their rollback; see `leftovers`", "Repair the cause, then run `seedbed recover`, or `seedbed recover --give-up`";
    RUN_UNFINISHED = "run-unfinished", 73, "The state directory failed during a run", "Repair the cause, then run `seedbed recover`, or `seedbed recover --give-up`";
    ARTIFACTS_UNSAVED = "artifacts-unsaved", 74, "The command of `run` has succeeded, but files of `--collect` could not be copied", "Repair the destination, and run it again";
    OUTPUT_UNWRITTEN = "output-unwritten", 74, "The command is done, but its output could not be written", "Repair the destination of standard output";
    FLEET_BUSY = "fleet-busy", 75, "Another command coordinates a run of the fleet", "Wait for it to end";
    FLEET_UNALLOCATED = "fleet-unallocated", 75, "Slurm does not have the hosts of a fleet, or not all of them", "Do what the message says, or try again later";
    FLEET_UNDECIDED = "fleet-undecided", 75, "The host is prepared for a run over a fleet, whose coordinator has not decided yet", "Wait for it, or run `seedbed fleet recover DIR`";
    LOCKED = "locked", 75, "Another run has the lock of the swarm", "Wait for it with `--lock-timeout TIME`";
    LOCKED_BY_ORPHANS = "locked-by-orphans", 75, "Programs that a killed run had started have the lock of the swarm", "Wait for them, or end them";
    RUN_IN_PROGRESS = "run-in-progress", 75, "A run of the swarm is in progress", "Wait for it to end";
    RUN_INTERRUPTED = "run-interrupted", 75, "A run of the swarm was interrupted and is not recovered", "Run `seedbed recover`";
    COMMAND_NOT_READY = "command-not-ready", 124, "A condition of `ready` did not hold in time, or the command ended before it did", "Read its log, or allow more time with `within`";
    COMMAND_STALLED = "command-stalled", 124, "A command printed nothing for the time of `--stall`, and was ended", "Read its log, or allow more time";
    COMMAND_TIMEOUT = "command-timeout", 124, "A command ran longer than `--timeout` allows, and was ended", "Read its log, or allow more time";
    COMMAND_NOT_EXECUTABLE = "command-not-executable", 126, "The command of `exec` or `run` cannot be executed", "Make it executable";
    COMMAND_NOT_FOUND = "command-not-found", 127, "The command of `exec` or `run` does not exist", "Correct its name, or `PATH`";
    INTERRUPTED = "interrupted", 130, "A signal ended the command; its run was rolled back, or is left for `recover`", "Run `seedbed recover` if the message suggests it, and repeat the command";
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
            Self::Refused(findings) if findings.iter().all(apply::SessionFinding::is_unknown) => WORK_UNKNOWN,
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
            Self::Unusable(_) => REPOSITORY_UNUSABLE,
            Self::State(error) => error.id(),
            Self::Unfinished(_) => RUN_UNFINISHED,
        }
    }
}

impl Identified for apply::PlanningInputError {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::Observe(error) => error.id(),
            Self::State(error) => error.id(),
            Self::Unusable(_) => REPOSITORY_UNUSABLE,
        }
    }
}

impl Identified for fleet::BundleError {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::File(error) => error.id(),
            Self::State(error) => error.id(),
            Self::Git(error) => error.id(),
            Self::Unusable(_) => FLEET_COMMITS,
        }
    }
}

impl Identified for fleet::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::TooFewHosts { .. } | Self::Twice(_) | Self::Unusable { .. } => FLEET_UNPLANNABLE,
            Self::Diagnostics(_) => MANIFEST_INVALID,
        }
    }
}

impl Identified for fleet::directory::DirectoryError {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::File(error) => error.id(),
            Self::State(error) => error.id(),
            Self::Invalid { .. } | Self::Unwritten { .. } => FLEET_DIRECTORY,
            Self::Busy(_) => FLEET_BUSY,
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
            Self::Undecided { .. } => FLEET_UNDECIDED,
            Self::FleetUnreachable { .. } => FLEET_UNREACHABLE,
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
            Self::Conflict(_) => PORTS_IN_USE,
            Self::Refused(_) => RESCUE_REFUSED,
            Self::Interrupted => INTERRUPTED,
            Self::Panicked(_) => BUG,
        }
    }
}

impl Identified for collect::Error {
    fn id(&self) -> &'static ErrorId {
        match self {
            Self::NoCommit(_) => REF_UNKNOWN,
            Self::Git(error) => error.id(),
            Self::Files(error) => error.id(),
            Self::Worktree(error) => error.id(),
            Self::Bundle(_) => PROGRAM_FAILED,
            Self::Glob(_) => GLOB_INVALID,
            Self::NotEmpty(_) => DIRECTORY_NOT_EMPTY,
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
            Self::WouldLose(findings) if findings.iter().all(apply::SessionFinding::is_unknown) => {
                WORK_UNKNOWN
            }
            Self::WouldLose(_) => WORK_UNSAVED,
            Self::Occupied { .. } => PROCESSES_AT_WORK,
            Self::Interrupted => INTERRUPTED,
            Self::Provision { leftovers, .. } if !leftovers.is_empty() => NOT_ROLLED_BACK,
            Self::Release(_) => NOT_ROLLED_BACK,
            Self::SessionId(_)
            | Self::Child(_)
            | Self::Diagnostics(_)
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
            Self::Deadline { .. } | Self::Stalled { .. } => PROGRAM_TIMEOUT,
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
