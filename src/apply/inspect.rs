//! What of a standing swarm is not as it was made.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::with_task;
use crate::discovery;
use crate::name::SessionPath;
use crate::plan::{DISCOVERY, Damage};
use crate::provider::{Condition, Registry};
use crate::state::{self, Record};

/// Finds what of a standing swarm is gone or broken, for planning to repair.
pub fn inspect(
    swarm: &state::Swarm<'_>,
    registry: &Registry,
    record: &Record,
) -> BTreeMap<(SessionPath, String), Damage> {
    record
        .plan
        .sessions
        .par_iter()
        .flat_map_iter(|session| {
            let mut broken = Vec::new();
            for allocation in &session.allocations {
                let Some(provider) = registry.get(&allocation.kind) else { continue };
                let found =
                    with_task(swarm.host(), record, session, allocation, None, |task| provider.inspect(task));
                let damage = match found {
                    Ok(Condition::Sound) => continue,
                    Ok(Condition::Mendable(why)) => Damage { why, mendable: true },
                    Ok(Condition::Broken(why)) => Damage { why, mendable: false },
                    Err(error) => Damage { why: error.to_string(), mendable: false },
                };
                broken.push(((session.path.clone(), allocation.kind.clone()), damage));
            }
            let expected = discovery::snapshot(&record.plan, session, registry, &record.workspace);
            if let Some(why) = discovery::inspect(swarm, session, &expected) {
                let damage = Damage { why, mendable: true };
                broken.push(((session.path.clone(), DISCOVERY.to_owned()), damage));
            }
            broken
        })
        .collect()
}
