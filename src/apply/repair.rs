//! Repairs damage of an applied swarm in place: discovery files, locks of worktrees, leases.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Failure, Run, SessionFinding};
use crate::discovery;
use crate::plan::{DISCOVERY, Damage};
use crate::state::Record;

/// Result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// Damage that was repaired, with its session.
    pub repaired: Vec<SessionFinding>,
    /// Damage that requires a new allocation, which [`super::apply`] provisions.
    pub left: Vec<SessionFinding>,
    /// Repairs that failed.
    pub failures: Vec<Failure>,
}

/// Repairs the damage that [`super::inspect`] finds and that does not require a new allocation. No work of a session is
/// changed.
///
/// A discovery file is written only if its directory belongs to the session. A directory that replaces a lost worktree
/// belongs to another program.
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
        let line =
            |kind: &str, why: &str| SessionFinding::new(session.path.clone(), format!("{kind}: {why}"));
        let mut broken = BTreeSet::new();
        for (kind, damage) in damages.iter().filter(|(kind, _)| *kind != DISCOVERY) {
            let line = line(kind, &damage.why);
            if !damage.is_repairable() {
                repair.left.push(line);
                broken.insert(kind.as_str());
                continue;
            }
            match run.repair(session, kind) {
                Ok(()) => repair.repaired.push(line),
                Err(failure) => {
                    repair.failures.push(failure);
                    broken.insert(kind.as_str());
                }
            }
        }
        let Some((_, damage)) = damages.iter().find(|(kind, _)| *kind == DISCOVERY) else { continue };
        let has_directory = !session.allocations.iter().any(|allocation| {
            let gives =
                context.registry.get(&allocation.kind).map(|of| of.context(allocation).working_directory);
            broken.contains(allocation.name()) && gives.flatten().is_some()
        });
        if !has_directory {
            repair.left.push(line(DISCOVERY, &damage.why));
            continue;
        }
        let expected = discovery::snapshot(
            record,
            session,
            context.registry,
            &record.workspace,
            &context.swarm.host().state,
        );
        // The repair of the worktree may have restored the file as well.
        if discovery::inspect(context.swarm, session, &expected).is_none() {
            continue;
        }
        match discovery::restore(context.swarm, session, &expected) {
            Ok(()) => repair.repaired.push(line(DISCOVERY, &damage.why)),
            Err(error) => repair.failures.push(Failure::new(session, "discovery file", error.to_string())),
        }
    }
    repair
}
