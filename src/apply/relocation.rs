//! Handles workspaces that were moved, copied or deleted together with their applied swarms.
//!
//! A record belongs to a workspace by its path, and the applied swarm in the workspace carries the record's ownership
//! marker. A workspace may have no record of its own but the marker of another workspace's record. It was then moved if
//! the other workspace no longer exists, and copied if it exists.

#![expect(clippy::disallowed_methods, reason = "compares directories")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Context, Error, Failure, Run, moved_repositories, recover, repositories, with_task};
use crate::discovery;
use crate::host::failpoint::crashpoint;
use crate::host::git::Git;
use crate::host::process::Cancel;
use crate::host::{Host, absolute};
use crate::name::sha256_hex;
use crate::plan::{PlannedRepository, Session, SessionFinding};
use crate::provider::{self, Allocation, Kind, Location, Registry, Task};
use crate::state::{self, LockedSwarm, Record, RecordedSwarm, Swarm, Unsaved, is_gone};

/// Relation of a workspace to the workspace of a record whose ownership marker it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a workspace was either moved or copied")]
pub enum Relation {
    /// The workspace of the record was moved here.
    Moved,
    /// The workspace is a copy of the record's workspace, which still exists.
    Copied,
}

/// Record of another workspace whose ownership marker this workspace carries.
#[derive(Debug)]
#[non_exhaustive]
pub struct Stray {
    /// Record of the other workspace, as it was found.
    pub found: RecordedSwarm,
    /// Relation of this workspace to the record's workspace.
    pub relation: Relation,
    /// Path of the record's workspace.
    pub workspace: PathBuf,
}

/// Finds the records of other workspaces whose swarms or standalone sessions were moved to `workspace` or copied there.
///
/// Reads every record of the host.
pub fn strays(host: &Host, registry: &Registry, workspace: &Path) -> Result<Vec<Stray>, state::Error> {
    let mut found = state::swarms(host)?;
    found.extend(state::sessions(host)?);
    // A copy that was adopted is no stray any more.
    let own: BTreeSet<String> = found
        .iter()
        .filter(|found| found.workspace() == Some(workspace))
        .flat_map(RecordedSwarm::records)
        .map(|record| record.owner.clone())
        .collect();
    found.retain(|found| !found.records().any(|record| own.contains(&owner_of_copy(record, workspace))));
    Ok(found.into_iter().filter_map(|found| stray(host, registry, workspace, found)).collect())
}

/// Returns the ownership marker that a copy of the record's workspace has. The marker is the same for each adoption of
/// the copy, so that a killed run can be repeated.
fn owner_of_copy(record: &Record, workspace: &Path) -> String {
    let identity = [record.owner.as_bytes(), b"\0", workspace.as_os_str().as_encoded_bytes()].concat();
    sha256_hex(&identity)[..32].to_owned()
}

fn stray(host: &Host, registry: &Registry, workspace: &Path, found: RecordedSwarm) -> Option<Stray> {
    let other = found.workspace()?.to_owned();
    // A killed move may have rewritten some of the records.
    let is_half_moved = other == workspace && found.swarm_in(host, workspace).ok()?.key() != found.key;
    if other == workspace && !is_half_moved {
        return None;
    }
    let is_taken_in = |record: &Record| {
        let copy = Record { owner: owner_of_copy(record, workspace), ..record.clone() };
        has_ownership_marker(host, registry, &copy, workspace)
    };
    let is_here = found
        .records()
        .any(|record| has_ownership_marker(host, registry, record, workspace) || is_taken_in(record));
    if !is_here && !is_half_moved {
        return None;
    }
    let other = if is_half_moved { PathBuf::from("an earlier path") } else { other };
    let relation = relation(host, registry, workspace, &found, &other)?;
    Some(Stray { found, relation, workspace: other })
}

/// Returns `None` where the two workspaces are different directories of one repository, or one directory under two
/// paths.
fn relation(
    host: &Host,
    registry: &Registry,
    workspace: &Path,
    found: &RecordedSwarm,
    other: &Path,
) -> Option<Relation> {
    if is_gone(other) || std::fs::canonicalize(other).is_ok_and(|other| other == workspace) {
        return Some(Relation::Moved);
    }
    if !found.records().any(|record| has_ownership_marker(host, registry, record, other)) {
        return Some(Relation::Moved);
    }
    let id = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let common = |path: &Path| {
        let args = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
        let common = Git::discover(host, path).path(args).ok()?;
        id(&common)
    };
    let is_same =
        id(workspace) == id(other) || common(workspace).is_some_and(|own| common(other) == Some(own));
    (!is_same).then_some(Relation::Copied)
}

fn has_ownership_marker(host: &Host, registry: &Registry, record: &Record, workspace: &Path) -> bool {
    let here = Record { workspace: workspace.to_owned(), ..record.clone() };
    let mut any = false;
    let looked = each(host, registry, &here, None, "inspect", |_, provider, task| {
        any = any || provider.has_ownership_marker(task);
        Ok(())
    });
    looked.is_ok() && any
}

/// Calls `act` for each allocation of a record, parents before children, until one fails. `act` gets the location at
/// which the session finds the allocation, and the location to which an interrupted run may have moved it. `step` names
/// the action.
fn each(
    host: &Host,
    registry: &Registry,
    record: &Record,
    lock: Option<&std::fs::File>,
    step: &str,
    mut act: impl FnMut(&Session, &dyn Kind, &Task<'_>) -> Result<(), provider::Error>,
) -> Result<(), Failure> {
    for session in &record.plan.sessions {
        for allocation in &session.allocations {
            let Some(provider) = registry.get(&allocation.kind) else { continue };
            let done = with_task(host, record, session, allocation, lock, |task| {
                let locations = locations(provider).iter();
                locations
                    .copied()
                    .try_for_each(|location| act(session, provider, &Task { location, ..*task }))
            });
            done.map_err(|error| Failure::from_provider(session, step, allocation.name(), error))?;
        }
    }
    Ok(())
}

/// Returns the locations at which a lease of a kind may lie. `Aside` is first, because only the admin directory of a
/// worktree that is aside may have stayed behind.
fn locations(provider: &dyn Kind) -> &'static [Location] {
    if provider.moves_aside() { &[Location::Aside, Location::Home] } else { &[Location::Home] }
}

fn failed(failure: Failure) -> Error {
    Error::Failed { failures: vec![failure], leftovers: Vec::new(), interrupted: false }
}

/// Rebinds worktrees, leases and discovery files of a workspace that was moved to its new path. Idempotent; values that
/// are already correct are not changed. The record has to belong to this workspace, or to `old`, whose lock the caller
/// owns.
///
/// `repositories` are the canonical roots of the repositories that the manifest declares now. Worktrees of another
/// repository that was moved to such a root are rebound to it, unless a run was interrupted. Returns these repositories.
///
/// Until the last record is adopted, every command finds the swarm moved, and the rebinding is repeated. A failure
/// is not rolled back: links to the old path are invalid anyway.
pub fn rebind(
    context: &Context<'_>,
    old: Option<&LockedSwarm<'_>>,
    repositories: &BTreeMap<String, PathBuf>,
) -> Result<Vec<PlannedRepository>, Error> {
    let swarm = context.swarm;
    let host = Host { cancel: Cancel::default(), ..swarm.host().clone() };
    let found = match old {
        Some(old) => old.found()?,
        None => swarm.found()?,
    };
    let Some(found) = found else { return Ok(Vec::new()) };
    let is_unfinished = found.is_unfinished();
    let (mut moved, mut applied) = (Vec::new(), None);
    for record in found.records() {
        let mut here = Record { workspace: swarm.workspace().to_owned(), ..record.clone() };
        if !is_unfinished {
            let is_marked =
                |record: &Record, name: &str| has_marker_in_repository(&host, context.registry, record, name);
            moved = moved_repositories::follow(&host, context.registry, &mut here, repositories, is_marked)?;
        }
        repositories::require_all(&host, context.registry, &here)?;
        // What a killed rebinding has left in an unmounted overlay would keep the overlay from being mounted.
        recover::sweep(context, &here)?;
        each(&host, context.registry, &here, Some(swarm.file()), "rebind", |_, provider, task| {
            crashpoint!("moved.allocation");
            provider.rebind(task)
        })
        .map_err(failed)?;
        applied = (!moved.is_empty()).then_some(here);
    }
    if let Some(old) = old {
        swarm.take_over(old)?;
    }
    if let Some(applied) = applied {
        swarm.adopt(&applied)?;
    }
    let Some(applied) = swarm.applied()? else { return Ok(moved) };
    let record = repositories::with_identities(&host, context.registry, applied.clone());
    if record != applied {
        swarm.adopt(&record)?;
    }
    let run = Run { context, record: &record, host: &host };
    for session in &record.plan.sessions {
        crashpoint!("moved.discovery");
        let expected =
            discovery::snapshot(&record, session, context.registry, swarm.workspace(), &swarm.host().state);
        // A session that has lost its directory is repaired by `apply`.
        if discovery::directory(swarm, session).is_ok()
            && discovery::inspect(swarm, session, &expected).is_some()
        {
            run.write_discovery(session).map_err(failed)?;
        }
    }
    Ok(moved)
}

/// Returns whether an allocation of the repository carries the record's ownership marker.
fn has_marker_in_repository(
    host: &Host,
    registry: &Registry,
    record: &Record,
    name: &str,
) -> Result<bool, Error> {
    let mut any = false;
    each(host, registry, record, None, "inspect", |_, kind, task| {
        let is_of_it = kind.repository(task.allocation).is_some_and(|(of, _)| of == name);
        any = any || is_of_it && kind.has_ownership_marker(task);
        Ok(())
    })
    .map_err(failed)?;
    Ok(any)
}

/// Assigns the worktrees that were copied with a workspace, with everything in them, to a swarm of the copy's own.
/// Ports and resources of external kinds remain the original's, and nothing of the original is changed. Idempotent.
///
/// Returns a finding for each directory that is not the copy's: its repository was not copied along, or it lies outside
/// of the workspace.
pub fn adopt(context: &Context<'_>, original: &RecordedSwarm) -> Result<Vec<SessionFinding>, Error> {
    let swarm = context.swarm;
    let Some(record) = original.record() else { return Ok(Vec::new()) };
    let mut left = Vec::new();
    let mut copy = Record {
        owner: owner_of_copy(record, swarm.workspace()),
        workspace: swarm.workspace().to_owned(),
        temporary: false,
        artifacts: None,
        ..record.clone()
    };
    // Directories aside are named after the ownership marker.
    let copied = Record { workspace: copy.workspace.clone(), ..record.clone() };
    let mut kept: Vec<Vec<Allocation>> = Vec::new();
    for session in &copy.plan.sessions {
        let mut allocations = Vec::new();
        for allocation in &session.allocations {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            crashpoint!("copied.allocation");
            let adopted = with_task(swarm.host(), &copy, session, allocation, Some(swarm.file()), |task| {
                provider.adopt(task, &Task { workspace: &record.workspace, owner: &record.owner, ..*task })
            });
            let adopted = adopted.map_err(|error| {
                failed(Failure::from_provider(session, "adopt", allocation.name(), error))
            })?;
            if adopted.is_none() {
                left.extend(left_to_original(swarm.host(), &copied, session, provider, allocation));
            }
            allocations.extend(adopted);
        }
        kept.push(allocations);
    }
    // The discovery file of a session whose worktree was not copied would be written into the original's worktree.
    let mut elsewhere = BTreeSet::new();
    for (session, allocations) in copy.plan.sessions.iter_mut().zip(kept) {
        let has_directory = |allocations: &[Allocation]| {
            let mut providers = allocations.iter().map(|of| (context.registry.get(&of.kind), of));
            providers.any(|(provider, of)| {
                provider.is_some_and(|provider| provider.working_directory(of).is_some())
            })
        };
        if has_directory(&session.allocations) && !has_directory(&allocations) {
            elsewhere.insert(session.path.clone());
        }
        session.allocations = allocations;
    }
    let allocations = || copy.plan.sessions.iter().flat_map(|session| &session.allocations);
    let is_used = |repository: &PlannedRepository| {
        allocations().any(|held| {
            let of = context.registry.get(&held.kind).and_then(|kind| kind.repository(held));
            of.is_some_and(|(name, _)| name == repository.name)
        })
    };
    let mut repositories = copy.plan.repositories.clone();
    repositories.retain(is_used);
    copy.plan.repositories = repositories;
    copy.plan.changes.clear();
    copy.plan.digest = copy.plan.computed_digest();
    copy = repositories::with_identities(swarm.host(), context.registry, copy);
    crashpoint!("copied.adopted");
    swarm.adopt(&copy)?;
    let run = Run { context, record: &copy, host: swarm.host() };
    for session in &copy.plan.sessions {
        crashpoint!("copied.discovery");
        if !elsewhere.contains(&session.path) && discovery::directory(swarm, session).is_ok() {
            run.write_discovery(session).map_err(failed)?;
        }
    }
    Ok(left)
}

/// Describes the directories that the adoption has left to the original: the copied ones, else the one outside of the copy.
/// `None` for an allocation without a directory.
fn left_to_original(
    host: &Host,
    copy: &Record,
    session: &Session,
    kind: &dyn Kind,
    allocation: &Allocation,
) -> Option<SessionFinding> {
    let own = absolute(&copy.workspace, &kind.directory(allocation)?);
    let mut directories = BTreeSet::new();
    for location in locations(kind) {
        let found = with_task(host, copy, session, allocation, None, |task| {
            Ok::<_, provider::Error>(kind.footprint(&Task { location: *location, ..*task }).directories)
        });
        directories.extend(found.into_iter().flatten());
    }
    directories.retain(|directory| directory.starts_with(&copy.workspace) && directory.exists());
    let name = allocation.name();
    let copied: Vec<_> = directories.iter().map(|directory| directory.display().to_string()).collect();
    let description = match kind.repository(allocation) {
        Some((_, root)) if !copied.is_empty() => format!(
            "{name} remains the original's, because the repository {} was not copied along; Git in the copied directory \
             changes the original's worktree: move {} away",
            root.display(),
            copied.join(" and ")
        ),
        _ => format!("{name} remains the original's: {} was not copied along", own.display()),
    };
    Some(SessionFinding {
        resource: Some(name.to_owned()),
        ..SessionFinding::new(session.path.clone(), description)
    })
}

/// Removes what remains of a swarm or a standalone session whose workspace no longer exists: leases, layers of
/// overlays, resources of external kinds, records, logs. Idempotent.
///
/// Unsaved work that is stored outside the workspace is a reason to refuse, unless the work is discarded. In that case,
/// resources that cannot be released are abandoned as well, and returned.
pub fn forget(context: &Context<'_>, unsaved: Unsaved) -> Result<Vec<Failure>, Error> {
    let swarm: &Swarm<'_> = context.swarm;
    let host = swarm.host();
    let Some(found) = swarm.found()? else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    for record in found.records() {
        let looked = each(host, context.registry, record, None, "inspect", |session, provider, task| {
            let kept = provider.unsaved_work_outside(task)?;
            let lines = kept.work.into_iter().chain(kept.beyond_rescue).chain(kept.unknown);
            for finding in lines.map(|line| SessionFinding::new(session.path.clone(), line)) {
                // Both locations of a lease are inspected.
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
            Ok(())
        });
        looked.map_err(failed)?;
    }
    if !findings.is_empty() && unsaved != Unsaved::Discard {
        return Err(Error::Refused(findings));
    }
    let mut failures: Vec<Failure> = Vec::new();
    for record in found.records() {
        for session in record.plan.sessions.iter().rev() {
            for allocation in session.allocations.iter().rev() {
                crashpoint!("gone.allocation");
                let lock = Some(context.swarm.file());
                let done = match context.registry.get(&allocation.kind) {
                    Some(provider) => with_task(host, record, session, allocation, lock, |task| {
                        let forget = |location| provider.forget(&Task { location, ..*task });
                        locations(provider).iter().copied().try_for_each(forget)
                    }),
                    None => Err(provider::Error::Refused("this program does not know the kind".to_owned())),
                };
                if let Err(error) = done {
                    let failure = Failure::from_provider(session, "release", allocation.name(), error);
                    if !failures.contains(&failure) {
                        failures.push(failure);
                    }
                }
            }
        }
    }
    if !failures.is_empty() && unsaved != Unsaved::Discard {
        return Err(Error::Failed { failures: Vec::new(), leftovers: failures, interrupted: false });
    }
    context.swarm.forget()?;
    Ok(failures)
}
