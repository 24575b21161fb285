//! Finds workspace files that have changed since they were copied into sessions.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::with_task;
use crate::name::SessionPath;
use crate::plan::{Session, SessionFinding};
use crate::provider::{Refreshable, Registry, SharedResults, Task};
use crate::state::{Record, Swarm};

/// Returns the workspace files that have changed since they were copied into the sessions of a swarm. A plan with
/// [`Again::refresh`](crate::plan::Again) copies them again. Files that cannot be read are left out. Changes nothing.
pub fn outdated(swarm: &Swarm<'_>, registry: &Registry, record: &Record) -> Vec<SessionFinding> {
    let shared_results = SharedResults::default();
    let of_session = record.plan.sessions.par_iter().flat_map_iter(|session| {
        let lines = session.allocations.iter().filter_map(|allocation| {
            let provider = registry.get(&allocation.kind)?;
            let outdated = with_task(swarm.host(), record, session, allocation, None, |task| {
                provider.outdated(&Task { shared_results: Some(&shared_results), ..*task })
            });
            outdated.ok()
        });
        let lines: Vec<String> = lines.flatten().collect();
        lines.into_iter().map(|line| SessionFinding::new(session.path.clone(), line))
    });
    of_session.collect()
}

/// Returns the sessions in which a refresh would copy files, and the files that it would not update in the others.
/// Those are files that their sessions have changed. A session whose files cannot be read is among the first: the refresh
/// reports the reason. Changes nothing.
pub fn refreshable(
    swarm: &Swarm<'_>,
    registry: &Registry,
    record: &Record,
    sessions: &BTreeSet<SessionPath>,
) -> (BTreeSet<SessionPath>, Vec<SessionFinding>) {
    let shared_results = SharedResults::default();
    let requested = record.plan.sessions.par_iter().filter(|session| sessions.contains(&session.path));
    let of_session = |session: &Session| {
        let mut of_session = Refreshable::default();
        for allocation in &session.allocations {
            let Some(provider) = registry.get(&allocation.kind) else { continue };
            let found = with_task(swarm.host(), record, session, allocation, None, |task| {
                provider.refreshable(&Task { shared_results: Some(&shared_results), ..*task })
            });
            match found {
                Ok(found) => {
                    of_session.is_due |= found.is_due;
                    of_session.kept.extend(found.kept);
                }
                Err(_) => of_session.is_due = true,
            }
        }
        (session.path.clone(), of_session)
    };
    let found: Vec<_> = requested.map(of_session).collect();
    let (due, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, found)| found.is_due);
    let kept = others.into_iter().flat_map(|(path, found)| {
        found.kept.into_iter().map(move |line| SessionFinding::new(path.clone(), line))
    });
    (due.into_iter().map(|(path, _)| path).collect(), kept.collect())
}
