//! Whether a run that failed is worth another plan: another run may have taken what this one had planned.

use std::fmt::Write as _;

use super::{Error, Failure, stale};
use crate::host::text::printable_lines;
use crate::name::SessionPath;
use crate::observe::Observation;
use crate::plan::{Plan, Standing};
use crate::provider::{Allocation, Registry};

/// How often a run gives way to what it then sees: each time somebody else was served, and the seed's default range has
/// 512 blocks.
const SEEN_MAX: u32 = 512;

/// How often it gives way to what is gone again by the time that it looks, which is another run that failed itself.
const UNSEEN_MAX: u32 = 16;

/// How often the program of an external kind may plan the allocation again that it has just reported as taken. Another
/// run that failed may have released the resource in between.
const REPEATED_MAX: u32 = 2;

/// Counts how often one run has been overtaken.
#[derive(Debug, Default)]
pub struct Overtaken {
    seen: u32,
    unseen: u32,
    repeated: u32,
    /// The allocations of external kinds that were taken in the last run.
    taken: Vec<(SessionPath, Allocation)>,
}

impl Overtaken {
    /// Tells by what the run of `late` that ended in `error` was overtaken, one line, where it is to be planned anew.
    ///
    /// `None` where it failed for another reason, was not put back whole, or has given way often enough. Where the program
    /// of an external kind plans what is taken again and again, `error` names the program. The host is as `observation`
    /// and `standing` have it by now.
    pub fn by(
        &mut self,
        error: &mut Error,
        late: &Plan,
        registry: &Registry,
        observation: &Observation,
        standing: Option<&Standing>,
    ) -> Option<String> {
        if !error.is_undone() {
            return None;
        }
        let Error::Failed { failures, .. } = error else { return None };
        let seen = stale(late, registry, observation, standing).into_iter().next();
        let found = failures.iter().find(|failure| failure.taken).map(|failure| failure.cause.clone());
        let taken = external(failures, late);
        let repeated = taken.iter().position(|one| self.taken.contains(one));
        let is_other = !taken.is_empty() && repeated.is_none();
        self.taken = taken;
        self.repeated = if repeated.is_some() { self.repeated + 1 } else { 0 };
        if let Some(at) = repeated.filter(|_| self.repeated >= REPEATED_MAX) {
            name_program(failures, &self.taken[at]);
            return None;
        }
        let (count, max) = if seen.is_some() || is_other {
            (&mut self.seen, SEEN_MAX)
        } else {
            (&mut self.unseen, UNSEEN_MAX)
        };
        // What the claim found says who has it.
        let why = found.or(seen)?;
        *count += 1;
        (*count <= max).then_some(why)
    }
}

/// Returns the allocations of external kinds that were taken.
fn external(failures: &[Failure], late: &Plan) -> Vec<(SessionPath, Allocation)> {
    let taken = failures.iter().filter(|failure| failure.taken);
    let allocation = |failure: &Failure| {
        let session = late.sessions.iter().find(|session| session.path == failure.session)?;
        let allocation = session.allocation(failure.kind.as_deref()?)?;
        allocation.external.as_ref()?;
        Some((session.path.clone(), allocation.clone()))
    };
    taken.filter_map(allocation).collect()
}

/// Adds to the failure of an allocation which program has planned it.
fn name_program(failures: &mut [Failure], (session, allocation): &(SessionPath, Allocation)) {
    let command = allocation.external.as_ref().map(|external| external.command.join(" ")).unwrap_or_default();
    let is_of = |one: &&mut Failure| one.session == *session && one.kind.as_ref() == Some(&allocation.kind);
    for failure in failures.iter_mut().filter(is_of) {
        let _ = write!(
            failure.cause,
            "; `{}` plans the same allocation again, although it reports it as taken: its `plan` has to leave out what is \
             in use",
            printable_lines(&command)
        );
    }
}
