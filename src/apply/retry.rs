//! Decides after a failure whether to plan again, because another run may have taken the planned resources.

use std::fmt::Write as _;

use super::provision::SET_UP;
use super::{Context, Error, Failure, Options, PlanningInput, apply, stale_reasons};
use crate::host::text::printable_lines;
use crate::name::SessionPath;
use crate::observe::Observation;
use crate::plan::{AppliedPlan, Plan};
use crate::provider::{Allocation, Registry};

/// Maximum number of retries while the conflict is still visible. Another run succeeded each time, and the default
/// range of the reference implementation has 512 blocks.
const SEEN_MAX: u32 = 512;

/// Maximum number of retries while the conflict is no longer visible, because the other run failed as well, or while
/// planning returns the same plan.
const UNSEEN_MAX: u32 = 16;

/// Maximum number of times that an external kind's program may plan an allocation that it has just reported as in use.
/// Another run that failed may have released the resource in between.
const REPEATED_MAX: u32 = 2;

/// Counters of the conflicts that one run has met.
#[derive(Debug, Default)]
pub struct Retries {
    seen: u32,
    unseen: u32,
    repeated: u32,
    /// Digest of the plan whose run failed last.
    digest: Option<String>,
    /// Allocations of external kinds that were reported as in use in the last run.
    conflicts: Vec<(SessionPath, Allocation)>,
}

/// Plans and applies. Plans again if another run has taken the planned resources first.
///
/// `make` plans. `check` is called with each plan before the plan is applied. `on_conflict` is called with the conflict
/// because of which planning is repeated, one line. If planning again fails, the error is that of the failed run, unless
/// another run took its resources.
pub fn apply_until_free<E: From<Error>>(
    context: &Context<'_>,
    options: Options,
    mut make: impl FnMut() -> Result<(Plan, PlanningInput), E>,
    mut check: impl FnMut(&Plan, &PlanningInput) -> Result<(), E>,
    on_conflict: impl Fn(&str),
) -> Result<Plan, E> {
    let (mut plan, mut input) = make()?;
    let mut retries = Retries::default();
    loop {
        check(&plan, &input)?;
        let Err(mut error) = apply(context, &plan, input.record.as_ref(), options) else { return Ok(plan) };
        if !Retries::may_help(&error) {
            return Err(error.into());
        }
        let planned = plan;
        (plan, input) = match make() {
            Err(_) if !is_conflict(&error) => return Err(error.into()),
            planned_again => planned_again?,
        };
        let applied = input.applied.as_ref();
        match retries.conflict(&mut error, &planned, context.registry, &input.observation, applied) {
            Some(why) => on_conflict(&why),
            None => return Err(error.into()),
        }
    }
}

/// Returns whether a claim of the failed run found that another run has the resource.
pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Failed { failures, .. } if failures.iter().any(|failure| failure.is_conflict))
}

impl Retries {
    /// Returns whether another run may be the cause of an error, so that planning again may help.
    pub fn may_help(error: &Error) -> bool {
        let Error::Failed { failures, .. } = error else { return false };
        // Everything was provisioned, so nothing was taken. What a `setup` leaves, such as a commit, makes the plan stale.
        error.is_undone() && failures.iter().all(|failure| failure.step != SET_UP)
    }

    /// Returns the conflict because of which the run of `plan` ended in `error`, on one line, if planning again may
    /// help.
    ///
    /// Returns `None` if the run failed for another reason, was not rolled back completely, or has been retried often
    /// enough. If the program of an external kind plans such a resource again and again, `error` names the program.
    /// `observation` and `applied` describe the host after the failure.
    pub fn conflict(
        &mut self,
        error: &mut Error,
        plan: &Plan,
        registry: &Registry,
        observation: &Observation,
        applied: Option<&AppliedPlan>,
    ) -> Option<String> {
        if !Self::may_help(error) {
            return None;
        }
        let Error::Failed { failures, .. } = error else { return None };
        let seen = stale_reasons(plan, registry, observation, applied).into_iter().next();
        let found = failures.iter().find(|failure| failure.is_conflict).map(|failure| failure.cause.clone());
        let conflicts = external(failures, plan);
        let repeated = conflicts.iter().position(|one| self.conflicts.contains(one));
        let is_other = !conflicts.is_empty() && repeated.is_none();
        // Planning did not avoid the conflict, although it is visible.
        let is_same_plan =
            self.digest.replace(plan.digest.clone()).is_some_and(|digest| digest == plan.digest);
        self.conflicts = conflicts;
        self.repeated = if repeated.is_some() { self.repeated + 1 } else { 0 };
        if let Some(at) = repeated.filter(|_| self.repeated >= REPEATED_MAX) {
            name_program(failures, &self.conflicts[at]);
            return None;
        }
        let (count, max) = if (seen.is_some() && !is_same_plan) || is_other {
            (&mut self.seen, SEEN_MAX)
        } else {
            (&mut self.unseen, UNSEEN_MAX)
        };
        // The failure of the claim names the owner.
        let why = found.or(seen)?;
        *count += 1;
        (*count <= max).then_some(why)
    }
}

/// Returns the allocations of external kinds that were reported as in use.
fn external(failures: &[Failure], plan: &Plan) -> Vec<(SessionPath, Allocation)> {
    let conflicts = failures.iter().filter(|failure| failure.is_conflict);
    let allocation = |failure: &Failure| {
        let session = plan.sessions.iter().find(|session| session.path == failure.session)?;
        let allocation = session.allocation(failure.kind.as_deref()?)?;
        allocation.external.as_ref()?;
        Some((session.path.clone(), allocation.clone()))
    };
    conflicts.filter_map(allocation).collect()
}

/// Adds the program that planned the allocation to the failure's cause.
fn name_program(failures: &mut [Failure], (session, allocation): &(SessionPath, Allocation)) {
    let command = allocation.external.as_ref().map(|external| external.command.join(" ")).unwrap_or_default();
    let is_of =
        |one: &&mut Failure| one.session == *session && one.kind.as_deref() == Some(allocation.name());
    for failure in failures.iter_mut().filter(is_of) {
        let _ = write!(
            failure.cause,
            "; `{}` plans the same allocation again, although it reports a conflict: its `plan` has to leave out what is \
             in use",
            printable_lines(&command)
        );
    }
}
