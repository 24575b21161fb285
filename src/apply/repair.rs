//! Puts back what of a standing swarm can be put back where it stands: discovery files, locks of worktrees, leases.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Failure, Loss, Run, failure};
use crate::discovery;
use crate::plan::{DISCOVERY, Damage};
use crate::state::Record;

/// What a repair came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// What was wrong and is not any more, each with its session.
    pub repaired: Vec<Loss>,
    /// What is wrong and has to be made anew, which [`super::apply`] does.
    pub left: Vec<Loss>,
    /// What could not be repaired.
    pub failures: Vec<Failure>,
}

/// Repairs what [`super::inspect`] finds and what does not have to be made anew. No work of a session is touched.
///
/// A discovery file is only written where the directory that it belongs into is its session's: what stands in the place
/// of a lost worktree is somebody else's.
pub fn repair(context: &Context<'_>, record: &Record) -> Repair {
    let found = super::inspect(context.swarm, context.registry, record);
    let mut by_session: BTreeMap<_, Vec<(&String, &Damage)>> = BTreeMap::new();
    for ((path, kind), damage) in &found {
        by_session.entry(path).or_default().push((kind, damage));
    }
    let run = Run { context, record, host: context.swarm.host() };
    let mut repair = Repair::default();
    for session in &record.plan.sessions {
        let damages = by_session.remove(&session.path).unwrap_or_default();
        let broken: BTreeSet<_> =
            damages.iter().filter(|(_, damage)| !damage.mendable).map(|(kind, _)| kind.as_str()).collect();
        let has_directory = !session.allocations.iter().any(|held| {
            let gives = context.registry.get(&held.kind).map(|of| of.context(held).working_directory);
            broken.contains(held.kind.as_str()) && gives.flatten().is_some()
        });
        for (kind, damage) in damages {
            let line = Loss { session: session.path.clone(), what: format!("{kind}: {}", damage.why) };
            let mended = if kind == DISCOVERY && has_directory {
                let expected =
                    discovery::snapshot(&record.plan, session, context.registry, &record.workspace);
                discovery::restore(context.swarm, session, &expected)
                    .map_err(|error| failure(session, "discovery file", error.to_string()))
            } else if kind != DISCOVERY && damage.mendable {
                run.mend(session, kind)
            } else {
                repair.left.push(line);
                continue;
            };
            match mended {
                Ok(()) => repair.repaired.push(line),
                Err(failure) => repair.failures.push(failure),
            }
        }
    }
    repair
}
