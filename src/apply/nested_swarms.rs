//! Finds what others have inside a session: swarms, because an agent may run seedbed there, and directories of other tools
//! in which sessions work.

use std::path::{Path, PathBuf};

use super::release_set::ResourcesBySession;
use crate::host::absolute;
use crate::host::files::Root;
use crate::host::text::printable;
use crate::name::SessionPath;
use crate::plan::{Session, SessionFinding};
use crate::provider::Registry;
use crate::state::{self, Record, RecordedSwarm, Swarm};

/// Returns the swarms, the standalone sessions, and the directories of other tools that lie inside what is released. They
/// belong to the process that applied them or to the other tool, and only a release of their own returns what they lease.
pub(super) fn find(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    released: &ResourcesBySession,
) -> Result<Vec<SessionFinding>, state::Error> {
    let directories = |session: &Session| {
        let kinds = released.get(&session.path).into_iter().flatten();
        let allocations = kinds.filter_map(|kind| session.allocation(kind));
        let directories = allocations.filter_map(|of| registry.get(&of.kind)?.directory(of));
        directories.map(|directory| absolute(&record.workspace, &directory)).collect::<Vec<_>>()
    };
    let sessions = record.plan.sessions.iter();
    let released: Vec<_> = sessions.map(|session| (session, directories(session))).collect();
    let mut findings = Vec::new();
    for found in state::swarms(swarm.host())?.iter().chain(&state::sessions(swarm.host())?) {
        let Some(inner) = found.record().filter(|inner| inner.owner != record.owner) else { continue };
        for (session, directories) in &released {
            if directories.iter().any(|directory| is_below(registry, inner, directory)) {
                findings.push(SessionFinding::new(session.path.clone(), described(found, inner)));
            }
        }
    }
    for (inner, directory) in
        record.plan.sessions.iter().flat_map(|session| foreign(registry, record, session))
    {
        for (session, directories) in &released {
            if directories.iter().any(|released| directory.starts_with(released)) {
                let what = format!(
                    "it contains {}, which another tool made and in which {} works: move it away, or run `seedbed release \
                     {}` first",
                    printable(&directory.to_string_lossy()),
                    inner,
                    inner
                );
                findings.push(SessionFinding::new(session.path.clone(), what));
            }
        }
    }
    findings.sort_by(|one, other| one.session.cmp(&other.session));
    Ok(findings)
}

/// Returns the directories of other tools in which a session works, and which exist.
fn foreign<'r>(
    registry: &'r Registry,
    record: &'r Record,
    session: &'r Session,
) -> impl Iterator<Item = (&'r SessionPath, PathBuf)> {
    let directories =
        session.allocations.iter().filter_map(|of| registry.get(&of.kind)?.foreign_directory(of));
    let absolute = directories.map(|directory| absolute(&record.workspace, &directory));
    let existing = absolute.filter(|directory| Root::open(directory).is_ok());
    existing.map(|directory| (&session.path, directory))
}

/// Returns whether a swarm has its workspace, or any directory of a session, in `directory`.
fn is_below(registry: &Registry, inner: &Record, directory: &Path) -> bool {
    let allocations = inner.plan.sessions.iter().flat_map(|session| &session.allocations);
    let mut inside = allocations.filter_map(|of| registry.get(&of.kind)?.working_directory(of));
    inner.workspace.starts_with(directory)
        || inside.any(|inside| absolute(&inner.workspace, &inside).starts_with(directory))
}

fn described(found: &RecordedSwarm, inner: &Record) -> String {
    let (name, workspace) = (printable(found.name()), inner.workspace.display());
    if found.is_standalone() {
        format!(
            "it contains session {name} of a program, applied in {workspace}: release that session there first"
        )
    } else {
        format!("it contains swarm {name}, applied in {workspace}: run `seedbed destroy` there first")
    }
}
