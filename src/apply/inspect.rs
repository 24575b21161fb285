//! What of a standing swarm is not as it was made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;

use super::with_task;
use crate::discovery;
use crate::name::SessionPath;
use crate::plan::{DISCOVERY, Damage, Loss, SETUP, Session, Standing};
use crate::provider::{Condition, Findings, Registry, Task};
use crate::state::{self, NotSetUp, Record};

/// Where a session works, absolute; or why nothing can be run there, one line. Where its worktree is gone, not mounted or
/// not what was made, git and programs would work in whatever lies around it: the repository's own checkout.
pub fn directory(
    swarm: &state::Swarm<'_>,
    registry: &Registry,
    record: &Record,
    session: &Session,
) -> Result<PathBuf, String> {
    for held in &session.allocations {
        let Some(provider) = registry.get(&held.kind) else { continue };
        if provider.context(held).working_directory.is_some() {
            let found = with_task(swarm.host(), record, session, held, None, |task| provider.unusable(task));
            match found {
                Ok(None) => {}
                Ok(Some(why)) => return Err(why),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    discovery::directory(swarm, session)
}

/// Finds what of a standing swarm is gone or broken, for planning to repair.
pub fn inspect(
    swarm: &state::Swarm<'_>,
    registry: &Registry,
    record: &Record,
) -> BTreeMap<(SessionPath, String), Damage> {
    inspect_sharing(swarm, registry, record, &Findings::default())
}

/// The same, with what is found out kept for whatever else looks at the swarm in the same breath.
pub(super) fn inspect_sharing(
    swarm: &state::Swarm<'_>,
    registry: &Registry,
    record: &Record,
    findings: &Findings,
) -> BTreeMap<(SessionPath, String), Damage> {
    record
        .plan
        .sessions
        .par_iter()
        .flat_map_iter(|session| {
            let mut broken = Vec::new();
            for allocation in &session.allocations {
                let Some(provider) = registry.get(&allocation.kind) else { continue };
                let found = with_task(swarm.host(), record, session, allocation, None, |task| {
                    provider.inspect(&Task { findings: Some(findings), ..*task })
                });
                let damage = match found {
                    Ok(Condition::Sound) => continue,
                    Ok(Condition::Mendable(why)) => Damage { why, mendable: true, unknown: false },
                    Ok(Condition::Broken(why)) => Damage { why, mendable: false, unknown: false },
                    Ok(Condition::Unknown(why)) => Damage { why, mendable: false, unknown: true },
                    Err(error) => Damage { why: error.to_string(), mendable: false, unknown: false },
                };
                broken.push(((session.path.clone(), allocation.kind.clone()), damage));
            }
            let expected = discovery::snapshot(record, session, registry, &record.workspace);
            if let Some(why) = discovery::inspect(swarm, session, &expected) {
                let damage = Damage { why, mendable: true, unknown: false };
                broken.push(((session.path.clone(), DISCOVERY.to_owned()), damage));
            }
            if let Some(NotSetUp { why, .. }) = record.not_set_up.get(&session.path) {
                let damage = Damage { why: why.clone(), mendable: false, unknown: false };
                broken.push(((session.path.clone(), SETUP.to_owned()), damage));
            }
            broken
        })
        .collect()
}

/// Returns what of a standing swarm cannot be inspected, as what nobody can say is not lost.
pub fn unknown(standing: Option<&Standing>) -> impl Iterator<Item = Loss> {
    let broken = standing.into_iter().flat_map(|standing| &standing.broken);
    broken.filter(|(_, damage)| damage.unknown).map(|((session, _), damage)| Loss {
        session: session.clone(),
        what: damage.why.clone(),
        unknown: true,
    })
}
