//! Inspects an applied swarm for damage.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;

use super::with_task;
use crate::discovery;
use crate::name::SessionPath;
use crate::plan::{AppliedPlan, DISCOVERY, Damage, DamageKind, FindingKind, SETUP, Session, SessionFinding};
use crate::provider::{Condition, Registry, SharedResults, Task};
use crate::state::{self, NotSetUp, Record};

/// Returns the absolute working directory of a session, or on one line the reason why no command can run there. If any
/// worktree of the session is missing, not mounted or replaced, Git and other programs would work in the repository's own
/// checkout around it.
pub fn directory(
    swarm: &state::Swarm<'_>,
    registry: &Registry,
    record: &Record,
    session: &Session,
) -> Result<PathBuf, String> {
    for allocation in &session.allocations {
        let Some(provider) = registry.get(&allocation.kind) else { continue };
        let found =
            with_task(swarm.host(), record, session, allocation, None, |task| provider.unusable(task));
        match found {
            Ok(None) => {}
            Ok(Some(why)) => return Err(why),
            Err(error) => return Err(error.to_string()),
        }
    }
    discovery::directory(swarm, session)
}

/// Finds missing or broken resources of an applied swarm, as input for a plan that repairs them.
pub fn inspect(
    swarm: &state::Swarm<'_>,
    registry: &Registry,
    record: &Record,
) -> BTreeMap<(SessionPath, String), Damage> {
    inspect_sharing(swarm, registry, record, &SharedResults::default())
}

/// Inspects an applied swarm as [`inspect`] does, and caches the answers in `shared_results` for other inspections at
/// the same time.
pub(super) fn inspect_sharing(
    swarm: &state::Swarm<'_>,
    registry: &Registry,
    record: &Record,
    shared_results: &SharedResults,
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
                    provider.inspect(&Task { shared_results: Some(shared_results), ..*task })
                });
                let damage = match found {
                    Ok(Condition::Healthy) => continue,
                    Ok(Condition::Repairable(why)) => Damage::new(DamageKind::Repairable, why),
                    Ok(Condition::Broken(why)) => Damage::new(DamageKind::Lost, why),
                    Ok(Condition::Absent(why)) => Damage::new(DamageKind::Absent, why),
                    Ok(Condition::Unknown(why)) => Damage::new(DamageKind::Unknown, why),
                    Err(error) => Damage::new(DamageKind::Lost, error.to_string()),
                };
                broken.push(((session.path.clone(), allocation.name().to_owned()), damage));
            }
            let expected =
                discovery::snapshot(record, session, registry, &record.workspace, &swarm.host().state);
            let is_absent = broken.iter().any(|(_, damage)| damage.kind == DamageKind::Absent);
            if let Some(damage) = discovery::inspect(swarm, session, &expected).filter(|_| !is_absent) {
                broken.push(((session.path.clone(), DISCOVERY.to_owned()), damage));
            }
            if let Some(NotSetUp { why, .. }) = record.not_set_up.get(&session.path) {
                let damage = Damage::new(DamageKind::Lost, why.clone());
                broken.push(((session.path.clone(), SETUP.to_owned()), damage));
            }
            broken
        })
        .collect()
}

/// Returns the resources of an applied swarm that cannot be inspected: they cannot be called lost.
pub fn unknown(applied: Option<&AppliedPlan>) -> impl Iterator<Item = SessionFinding> {
    let broken = applied.into_iter().flat_map(|applied| &applied.broken);
    broken.filter(|(_, damage)| damage.kind == DamageKind::Unknown).map(|((session, resource), damage)| {
        SessionFinding {
            resource: Some(resource.clone()),
            kind: FindingKind::Unknown,
            ..SessionFinding::new(session.clone(), damage.why.clone())
        }
    })
}
