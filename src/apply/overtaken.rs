//! Whether a run that failed is worth another plan: another run may have taken what this one had planned.

use super::{Error, stale};
use crate::observe::Observation;
use crate::plan::{Plan, Standing};
use crate::provider::Registry;

/// How often a run gives way to what it then sees: each time somebody else was served, and the seed's default range has
/// 512 blocks.
const SEEN_MAX: u32 = 512;

/// How often it gives way to what is gone again by the time that it looks, which is another run that failed itself.
const UNSEEN_MAX: u32 = 16;

/// Counts how often one run has been overtaken.
#[derive(Debug, Default)]
pub struct Overtaken {
    seen: u32,
    unseen: u32,
}

impl Overtaken {
    /// Tells by what the run of `late` that ended in `error` was overtaken, one line, where it is to be planned anew.
    ///
    /// `None` where it failed for another reason, was not put back whole, or has given way often enough. The host is as
    /// `observation` and `standing` have it by now.
    pub fn by(
        &mut self,
        error: &Error,
        late: &Plan,
        registry: &Registry,
        observation: &Observation,
        standing: Option<&Standing>,
    ) -> Option<String> {
        let Error::Failed { failures, .. } = error else { return None };
        if !error.is_undone() {
            return None;
        }
        let seen = stale(late, registry, observation, standing).into_iter().next();
        let found = failures.iter().find(|failure| failure.taken).map(|failure| failure.cause.clone());
        let (count, max) =
            if seen.is_some() { (&mut self.seen, SEEN_MAX) } else { (&mut self.unseen, UNSEEN_MAX) };
        // What the claim found says who has it.
        let why = found.or(seen)?;
        *count += 1;
        (*count <= max).then_some(why)
    }
}
