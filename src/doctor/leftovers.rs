//! Finds leftovers of earlier runs: interrupted runs, leases and lock files, temporary directories.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Severity::{Fails, Warns};
use super::repository::LINE_MAX;
use super::{Case, Findings, Id};
use crate::apply::{self, Relation, Stray};
use crate::host::files::{self, Root};
use crate::host::leases::{self, Lease};
use crate::host::seeds::{self, Seed};
use crate::host::text::shell_quoted;
use crate::host::{Host, absolute};
use crate::manifest;
use crate::observe::{self, PortOwner, Query};
use crate::provider::git_worktree::{self, Mark, Worktree};
use crate::provider::{Examination, Leftover, Registry};
use crate::state::{self, Record, RecordedSwarm};

/// First remedy for resources that this state directory does not know.
const OTHER_STATE_DIRECTORY: &str =
    "use the state directory that it was created with (SEEDBED_STATE_DIR, XDG_STATE_HOME, another user's)";

/// Finds problems of earlier runs.
pub(super) fn inspect(case: &Case<'_>, examination: &Examination<'_>, findings: &mut Findings) {
    let moved = strays(case, findings);
    runs(case, &moved, findings);
    given_up(case, findings);
    let owners = match state::owners(case.host) {
        Ok(owners) => owners,
        Err(error) => {
            let remedy = "until it can be read, no lease can be proven orphaned";
            findings.add(Warns, Id::UnreadableRecord, error.to_string(), remedy);
            return;
        }
    };
    let leases = leases::all(case.host).unwrap_or_default();
    leaked_leases(&leases, &owners, findings);
    unowned_lock_files(case, &leases, &owners, findings);
    let others = examination.other_common_dirs.iter().map(PathBuf::as_path);
    let recorded = recorded_worktrees(case.host);
    for common_dir in examination.common_dir.into_iter().chain(others) {
        unknown_worktrees(common_dir, &owners, &recorded, findings);
    }
    unowned_leftovers(examination, &owners, findings);
}

/// Finds leases that belong to no swarm, or cannot be read.
fn leaked_leases(leases: &[Lease], owners: &BTreeSet<String>, findings: &mut Findings) {
    for lease in leases.iter().filter(|lease| !owners.contains(&lease.owner)) {
        let session = &lease.session;
        let workspace = lease.workspace.display();
        let what = match lease.ports() {
            Some(ports) => format!("ports {ports} are leased to {session}"),
            None => format!("{} is leased to {session}", lease.resource),
        };
        if lease.owner.is_empty() {
            let remedy =
                format!("after you have checked that nothing uses them: remove that file of {workspace}");
            findings.add(Warns, Id::LeakedLease, format!("{what}: the lease cannot be read"), remedy);
        } else {
            let what = format!("{what} of {workspace}, and no such swarm is applied");
            findings.add(Warns, Id::LeakedLease, what, "seedbed doctor --reap");
        }
    }
}

/// Finds lock files of the workspace that reserve ports for no swarm of this state directory.
fn unowned_lock_files(case: &Case<'_>, leases: &[Lease], owners: &BTreeSet<String>, findings: &mut Findings) {
    for file in lock_files(case) {
        let shown = file.path.display();
        let (what, remedy) = match file.owner {
            Some(owner) if owners.contains(&owner) => continue,
            Some(owner) if !has_lease(leases, &owner) => (
                format!("{shown} reserves its ports for a swarm that is unknown here"),
                format!("{OTHER_STATE_DIRECTORY}; rm {shown}, if no such swarm is applied"),
            ),
            Some(_) => (
                format!("{shown} leases its ports to a swarm that is not applied"),
                "seedbed doctor --reap".to_owned(),
            ),
            None => (
                format!("{shown} leases its ports to no owner: another program wrote it"),
                format!("rm {shown}, once its writer has ended"),
            ),
        };
        findings.add(Warns, Id::LockFile, what, remedy);
    }
}

/// Returns the admin directories of the worktrees in all records of this host.
fn recorded_worktrees(host: &Host) -> BTreeSet<PathBuf> {
    let mut all = state::swarms(host).unwrap_or_default();
    all.extend(state::sessions(host).unwrap_or_default());
    let of_record = |record: &Record| {
        let allocations = record.plan.sessions().iter().flat_map(|session| &session.allocations);
        let worktrees = allocations.filter_map(Worktree::from_allocation);
        worktrees
            .filter_map(|worktree| git_worktree::admin_directory(&record.workspace, &worktree).ok())
            .collect::<Vec<_>>()
    };
    all.iter().flat_map(RecordedSwarm::records).flat_map(of_record).collect()
}

/// Finds worktrees of the repository with an ownership marker that no record of this state directory has: their swarm is
/// unknown, or their repository or workspace was given up.
fn unknown_worktrees(
    common_dir: &Path,
    owners: &BTreeSet<String>,
    recorded: &BTreeSet<PathBuf>,
    findings: &mut Findings,
) {
    for Marked { mark: Mark { session, owner }, path, entry } in marked(common_dir) {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if recorded.contains(&entry.with_file_name(git_worktree::without_stand_in(&owner, &name))) {
            continue;
        }
        let (shown, quoted) = (path.display(), shell_quoted(&path.to_string_lossy()));
        let git = format!("git -C {}", shell_quoted(&common_dir.to_string_lossy()));
        let what = if owners.contains(&owner) {
            format!(
                "the worktree {shown} belonged to the session {session}, whose swarm has no worktree here any more"
            )
        } else {
            format!("the worktree {shown} belongs to the session {session}, whose swarm is unknown here")
        };
        let condition = if owners.contains(&owner) {
            "if no commit and no staged file of it is needed".to_owned()
        } else {
            format!(
                "{OTHER_STATE_DIRECTORY}; if its records are lost, and no commit and no staged file of it is needed"
            )
        };
        let remedy = if path.symlink_metadata().is_ok() {
            format!("{git} worktree unlock {quoted} && {git} worktree remove {quoted}")
        } else {
            // Its commits are in no directory any more.
            format!("{git} worktree unlock {quoted} && {git} worktree prune")
        };
        findings.add(Warns, Id::UnknownWorktree, what, format!("{condition}: {remedy}"));
    }
}

/// Finds temporary files of runs that have ended.
fn unowned_leftovers(examination: &Examination<'_>, owners: &BTreeSet<String>, findings: &mut Findings) {
    let registry = Registry::built_in();
    // Kinds may keep their resources in one directory.
    let mut seen = BTreeSet::new();
    for Leftover { path, owner } in registry.iter().flat_map(|kind| kind.leftovers(examination)) {
        if !seen.insert(path.clone()) {
            continue;
        }
        if owner.is_none_or(|owner| !owners.contains(&owner)) {
            let shown = path.display();
            let what = format!("{shown} was left by a run that has ended");
            let remedy = format!("rm -r {shown}, after you have checked that nothing in it is yours");
            findings.add(Warns, Id::Leftover, what, remedy);
        }
    }
}

/// Finds problems of swarms of this host and of standalone sessions. The workspaces of swarms in `moved`, by their
/// keys, are known to exist.
fn runs(case: &Case<'_>, moved: &BTreeSet<String>, findings: &mut Findings) {
    let mut all = Vec::new();
    for some in [state::swarms(case.host), state::sessions(case.host)] {
        match some {
            Ok(some) => all.extend(some),
            Err(error) => {
                findings.add(Warns, Id::UnreadableRecord, error.to_string(), "repair what the message names");
            }
        }
    }
    for found in all {
        for error in &found.unreadable {
            let remedy = "use the version of seedbed that wrote it, or restore the file";
            findings.add(Warns, Id::UnreadableRecord, error.to_string(), remedy);
        }
        let Some(workspace) = found.workspace() else { continue };
        let (name, shown) = (found.name(), workspace.display());
        let what = if found.is_standalone() { "session" } else { "swarm" };
        if moved.contains(&found.key) {
            continue;
        }
        if state::is_gone(workspace) {
            findings.add(
                Warns,
                Id::WorkspaceMissing,
                format!("the workspace {shown} of {what} {name} does not exist, but its leases do"),
                format!(
                    "if it was moved: seedbed recover --moved, in its new path; if it was deleted: seedbed destroy {} --gone",
                    found.key
                ),
            );
        } else if found.is_interrupted() {
            findings.add(
                Warns,
                Id::InterruptedRun,
                format!("a run of {what} {name} of {shown} was interrupted"),
                format!("seedbed recover, in {shown}; if that cannot succeed: seedbed recover --give-up"),
            );
        } else {
            unusable_repositories(case, &found, findings);
        }
    }
}

/// Finds repositories of an applied swarm that cannot be used.
fn unusable_repositories(case: &Case<'_>, found: &RecordedSwarm, findings: &mut Findings) {
    let Some((swarm, record)) = found.swarm(case.host).zip(found.record()) else { return };
    for repository in apply::unusable_repositories(&swarm, &Registry::built_in(), record) {
        let (name, workspace) = (found.name(), record.workspace.display());
        let remedy = if repository.is_own() {
            format!(
                "if the earlier repository was moved: seedbed recover --moved, in its new path; if it was deleted: seedbed \
                 destroy {} --gone",
                found.key
            )
        } else {
            format!(
                "bring it back; if what is in it is lost for good: seedbed destroy --forget {}, in {workspace}",
                repository.name
            )
        };
        findings.add(
            Warns,
            Id::UnusableRepository,
            format!("swarm {name} of {workspace}: {repository}"),
            remedy,
        );
    }
}

/// Finds resources that may remain of runs that were given up.
fn given_up(case: &Case<'_>, findings: &mut Findings) {
    let registry = Registry::built_in().with_external_kinds();
    let all = match state::given_up(case.host) {
        Ok(all) => all,
        Err(error) => {
            findings.add(Warns, Id::UnreadableRecord, error.to_string(), "repair what the message names");
            return;
        }
    };
    for state::GivenUpFile { path, run } in all {
        let file = shell_quoted(&path.to_string_lossy());
        let given_up = match run {
            Ok(given_up) => given_up,
            Err(error) => {
                findings.add(Warns, Id::UnreadableRecord, error.to_string(), format!("rm {file}"));
                continue;
            }
        };
        let workspace = given_up.record.workspace.display();
        for remain in &given_up.remains {
            for what in apply::described(case.host, &registry, &given_up.record, remain) {
                findings.add(
                    Warns,
                    Id::GivenUp,
                    format!(
                        "of a run in {workspace} that was abandoned {}, this may remain of session {}: {what} ({})",
                        given_up.since, remain.session, remain.why
                    ),
                    format!(
                        "seedbed recover, in {workspace}, once the reason is repaired; or remove it, or bring it back, by hand; \
                         once nothing of that run is needed: rm {file}"
                    ),
                );
            }
        }
    }
}

/// Finds swarms and standalone sessions that were moved or copied to this workspace from another one.
///
/// Returns the keys of the moved ones.
fn strays(case: &Case<'_>, findings: &mut Findings) -> BTreeSet<String> {
    // Unreadable records are reported above.
    let strays = apply::strays(case.host, &Registry::built_in(), case.workspace).unwrap_or_default();
    let mut moved = BTreeSet::new();
    for Stray { found, relation, workspace } in strays {
        let (name, there) = (found.name(), workspace.display());
        match relation {
            Relation::Moved => findings.add(
                Fails,
                Id::MovedWorkspace,
                format!("{name} was applied in {there}, and was moved here with its workspace"),
                "seedbed recover --moved",
            ),
            Relation::Copied => findings.add(
                Fails,
                Id::CopiedWorkspace,
                format!("this is a copy of {there} with the worktrees of {name}: git in them changes those of {there}"),
                format!("work in {there}; to keep the copied worktrees as another swarm: seedbed recover --copied"),
            ),
        }
        if relation == Relation::Moved {
            moved.insert(found.key);
        }
    }
    moved
}

/// Returns whether a lease with this ownership marker exists here: a lease and a lock file of ports are created
/// together.
fn has_lease(leased: &[Lease], owner: &str) -> bool {
    leased.iter().any(|lease| lease.owner == owner)
}

/// A worktree with an ownership marker.
struct Marked {
    mark: Mark,
    /// Path of the worktree, which need not exist.
    path: PathBuf,
    /// Path of its admin directory.
    entry: PathBuf,
}

/// Returns the worktrees of a repository that have an ownership marker.
fn marked(common_dir: &Path) -> Vec<Marked> {
    let Ok(Some(entries)) =
        Root::open(common_dir).and_then(|common| common.directory(Path::new("worktrees")))
    else {
        return Vec::new();
    };
    let of_admin_directory = |name: OsString| {
        let entry = entries.directory(Path::new(&name)).ok().flatten()?;
        let git_file = String::from_utf8(entry.read(Path::new("gitdir"), LINE_MAX).ok().flatten()?).ok()?;
        let path = Path::new(git_file.trim_end()).parent()?.to_owned();
        Some(Marked { mark: Mark::read(&entry)?, path, entry: entry.path().to_owned() })
    };
    entries.names().unwrap_or_default().into_iter().filter_map(of_admin_directory).collect()
}

struct LockFile {
    path: PathBuf,
    owner: Option<String>,
}

/// Returns the directories of lock files, by default and by the plan, as planned.
fn lock_directories(case: &Case<'_>) -> BTreeSet<PathBuf> {
    let registry = Registry::built_in();
    let default = registry.iter().flat_map(|kind| kind.queries(&manifest::Options::new()));
    let sessions = case.plan.and_then(Result::ok).map(|plan| &plan.sessions);
    let planned = sessions.into_iter().flatten().flat_map(|session| &session.allocations);
    let planned =
        planned.filter_map(|allocation| Some(registry.get(&allocation.kind)?.queries(&allocation.options)));
    let directory = |query: Query| match query {
        Query::Locks { directory } => Some(directory),
        _ => None,
    };
    default.chain(planned.flatten()).filter_map(directory).collect()
}

/// Returns the lock files that a run has set aside with a lease.
fn lock_files_aside(case: &Case<'_>, lease: &Lease) -> Vec<PathBuf> {
    let owner = &lease.owner;
    let Some(ports) = lease.ports() else { return Vec::new() };
    let mut found = Vec::new();
    for directory in lock_directories(case) {
        let directory = absolute(case.workspace, &directory);
        for name in Root::open(&directory).and_then(|root| root.names()).unwrap_or_default() {
            let text = name.to_string_lossy();
            let is_aside = text.starts_with(&format!(".aside-{owner}-"));
            if is_aside && text.ends_with(&format!("-{ports}.lock")) {
                found.push(directory.join(name));
            }
        }
    }
    found
}

fn lock_files(case: &Case<'_>) -> Vec<LockFile> {
    let mut found = Vec::new();
    for directory in lock_directories(case) {
        let query = Query::Locks { directory: directory.clone() };
        let Ok(observed) = observe::observe(case.host, case.workspace, &BTreeSet::from([query])) else {
            continue;
        };
        found.extend(observed.ports_in_use.into_iter().filter_map(|used| match used.owner {
            PortOwner::LockFile { name, owner, .. } => {
                Some(LockFile { path: absolute(case.workspace, &directory).join(name), owner })
            }
            PortOwner::Lease { .. } | PortOwner::Socket { .. } => None,
        }));
    }
    found
}

/// Leases and lock files that [`reap`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// Leases of the host's registry.
    pub leases: Vec<Lease>,
    /// Lock files of the workspace, absolute.
    pub lock_files: Vec<PathBuf>,
    /// Seeds of this host.
    pub seeds: Vec<Seed>,
}

/// Reason for which nothing could be reaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A record cannot be read, so that no lease can be proven orphaned.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The registry of leases cannot be used.
    #[error(transparent)]
    Leases(#[from] leases::Error),
    /// A lock file or a seed could not be removed.
    #[error(transparent)]
    File(#[from] files::Error),
}

/// Removes leases, and lock files of the workspace, that provably have no owner; and seeds that no session needs (see
/// [`seeds::reap`]).
///
/// No record of this host has the ownership marker of the lease or file, and every record can be read. This includes
/// all swarms and standalone sessions that are applied, being created or being released. A lock file whose marker has
/// no lease here either was created with another state directory, and is left.
///
/// Every run writes its intent before its first lease. So if a lease existed before the records were read, and no
/// record has its marker, the run of the lease no longer exists.
pub fn reap(case: &Case<'_>) -> Result<Reaped, Error> {
    let leased = leases::all(case.host)?;
    let locked = lock_files(case);
    let owners = state::owners(case.host)?;
    let mut reaped = Reaped::default();
    // Lock files first: after a kill, the lease still leads to the rest.
    for LockFile { path, owner } in locked {
        let is_nobodys = |owner: String| !owners.contains(&owner) && has_lease(&leased, &owner);
        if owner.is_some_and(is_nobodys) && remove(case.workspace, &path)? {
            reaped.lock_files.push(path);
        }
    }
    for lease in leased {
        if !lease.owner.is_empty() && !owners.contains(&lease.owner) {
            for path in lock_files_aside(case, &lease) {
                if remove(case.workspace, &path)? {
                    reaped.lock_files.push(path);
                }
            }
            leases::revoke(case.host, &lease)?;
            leases::revoke_aside(case.host, &lease)?;
            reaped.leases.push(lease);
        }
    }
    reaped.seeds = seeds::reap(case.host)?;
    Ok(reaped)
}

fn remove(workspace: &Path, path: &Path) -> Result<bool, files::Error> {
    let (root, below) = Root::toward(workspace, path)?;
    let removed = root.remove_file(&below)?;
    if let Some(directory) = below.parent() {
        root.remove_hidden(directory)?;
    }
    Ok(removed)
}
