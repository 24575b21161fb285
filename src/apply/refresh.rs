//! Finds workspace files that have changed since they were copied into sessions.

use rayon::prelude::*;

use super::with_task;
use crate::plan::Loss;
use crate::provider::{Registry, SharedResults, Task};
use crate::state::{Record, Swarm};

/// Returns the workspace files that have changed since they were copied into the sessions of a swarm. A plan with
/// [`Again::refresh`](crate::plan::Again) copies them again. Files that cannot be read are left out. Changes nothing.
pub fn outdated(swarm: &Swarm<'_>, registry: &Registry, record: &Record) -> Vec<Loss> {
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
        lines.into_iter().map(|what| Loss::new(session.path.clone(), what))
    });
    of_session.collect()
}
