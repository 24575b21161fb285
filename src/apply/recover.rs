//! Puts right what an interrupted run left: a release is finished, a provisioning is undone.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::Path;

use super::release::Released;
use super::{Context, Destroy, Error, Failure, Phase, Run, commands, release, with_task, work};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::process::Cancel;
use crate::plan::Action;
use crate::state::{self, Record, Unsaved};

/// What there was to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing.
    Nothing,
    /// A run that was provisioning was undone.
    Undone,
    /// A run that was releasing was finished.
    Finished,
    /// The swarm of a `run` that was killed while its command ran was removed.
    Removed,
}

/// Finishes or undoes an interrupted run of this swarm. Idempotent: it can itself be interrupted at any point.
/// `unsaved` says what becomes of work in what an interrupted release has still to take away; where it says nothing
/// ([`Unsaved::Keep`]), what the interrupted run was told holds. A rescue is made again of what has changed since.
pub fn recover(context: &Context<'_>, unsaved: Unsaved) -> Result<Recovered, Error> {
    let mut recovered = Recovered::Nothing;
    let (intent, releasing) = (context.swarm.intent()?, context.swarm.releasing()?);
    for (record, released) in [
        intent.as_ref().map(|intent| (intent, provisioned_by(intent))),
        releasing.as_ref().map(|releasing| (&releasing.before, release::released_by(releasing))),
    ]
    .into_iter()
    .flatten()
    {
        work::known(context, record, &released)?;
    }
    work::sweep_after_a_kill(context)?;
    if let Some(intent) = intent {
        let standing = context.swarm.standing()?;
        sweep(context, &intent)?;
        let leftovers = undo(context, &intent, standing.as_ref(), &context.swarm.host().cancel)?;
        if !leftovers.is_empty() {
            return Err(Error::Failed { failures: Vec::new(), leftovers, interrupted: false });
        }
        recovered = Recovered::Undone;
    }
    if let Some(mut releasing) = releasing {
        if unsaved != Unsaved::Keep && unsaved != releasing.unsaved {
            releasing.unsaved = unsaved;
            context.swarm.amend_release(&releasing)?;
        }
        work::secure(context, &releasing.before, &release::released_by(&releasing), releasing.unsaved)?;
        sweep(context, &releasing.before)?;
        release::finish(context, &releasing, Vec::new())?;
        recovered = Recovered::Finished;
    }
    if remove_temporary(context, unsaved)? {
        recovered = Recovered::Removed;
    }
    Ok(recovered)
}

/// Removes a swarm that was made for one command; whoever made it is gone, because this run holds the lock. Returns
/// whether there was one.
///
/// Its work goes with it, as `run` says, unless a rescue is asked for.
fn remove_temporary(context: &Context<'_>, unsaved: Unsaved) -> Result<bool, Error> {
    let Some(record) = context.swarm.standing()?.filter(|record| record.temporary) else { return Ok(false) };
    let unsaved = if unsaved == Unsaved::Rescue { Unsaved::Rescue } else { Unsaved::Discard };
    release::destroy(context, &record, &Destroy { unsaved, children: true, ..Destroy::default() })?;
    Ok(true)
}

/// Takes away everything that `intent` was to provision, and tells the sessions of `standing` again what they own.
/// What could not be taken away is returned, and the intent kept for the next attempt; so it is where `cancel` ends the
/// commands of `teardown`.
pub(super) fn undo(
    context: &Context<'_>,
    intent: &Record,
    standing: Option<&Record>,
    cancel: &Cancel,
) -> Result<Vec<Failure>, Error> {
    // Taking away is not interrupted by the Ctrl-C that caused it.
    let host = Host { cancel: Cancel::default(), ..context.swarm.host().clone() };
    let run = Run { context, record: intent, host: &host };
    let pairs = || intent.plan.sessions.iter().zip(&intent.plan.changes);
    for (session, change) in pairs().rev() {
        let was_set_up = !session.setup.is_empty() && commands::was_run(context.swarm, session, "setup");
        if !change.provision.is_empty() && !session.teardown.is_empty() && was_set_up {
            let host = Host { cancel: cancel.clone(), ..host.clone() };
            // The run has failed already; what its teardown says is in the log.
            let torn_down = commands::run(context.swarm, &host, session, "teardown", &session.teardown);
            if torn_down.is_err() && cancel.is_requested() {
                return Err(Error::Interrupted);
            }
        }
    }
    let released = provisioned_by(intent);
    crashpoint!("undo.torn-down");
    let leftovers = run.release(Phase::RollBack, &released);
    if !leftovers.is_empty() {
        return Ok(leftovers);
    }
    crashpoint!("undo.released");
    let stood: HashMap<_, _> = standing
        .iter()
        .flat_map(|standing| &standing.plan.sessions)
        .map(|session| (&session.path, session))
        .collect();
    let mut failures = Vec::new();
    for (session, _) in pairs().filter(|(_, change)| change.action != Action::Keep) {
        match (standing, stood.get(&session.path)) {
            (Some(standing), Some(stood)) => {
                failures.extend(Run { context, record: standing, host: &host }.tell(stood).err());
            }
            _ => context.swarm.remove_discovery(&session.scoped_name).map_err(Error::Unfinished)?,
        }
    }
    crashpoint!("undo.told");
    context.swarm.abandon().map_err(Error::Unfinished)?;
    crashpoint!("undo.abandoned");
    Ok(failures)
}

/// What an intent provisions, in the order in which undoing releases it.
fn provisioned_by(intent: &Record) -> Released {
    let pairs = intent.plan.sessions.iter().zip(&intent.plan.changes);
    pairs
        .filter(|(_, change)| !change.provision.is_empty())
        .map(|(session, change)| (session.path.clone(), change.provision.iter().rev().cloned().collect()))
        .collect()
}

/// Removes the temporaries that a killed run left beside what `record` is of, each directory once.
fn sweep(context: &Context<'_>, record: &Record) -> Result<(), Error> {
    let swarm = context.swarm;
    let mut directories = BTreeSet::new();
    for session in &record.plan.sessions {
        let discovery = crate::discovery::file(swarm, session);
        directories.extend(discovery.parent().map(Path::to_owned));
        directories.extend(swarm.discovery_file(&session.scoped_name).parent().map(Path::to_owned));
        for allocation in &session.allocations {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            // Where it cannot be told, releasing says why.
            let debris =
                with_task(swarm.host(), record, session, allocation, None, |task| provider.debris(task));
            directories.extend(debris.unwrap_or_default());
        }
    }
    for directory in directories {
        sweep_one(&record.workspace, &directory).map_err(state::Error::from)?;
    }
    crashpoint!("recover.swept");
    Ok(())
}

/// A directory that is not there, or is reached by a link only, has nothing of ours.
fn sweep_one(workspace: &Path, directory: &Path) -> Result<(), files::Error> {
    let (root, below) = Root::toward(workspace, directory)?;
    let below = if below == Path::new("") { Path::new(".") } else { &below };
    match root.directory(below) {
        Ok(Some(directory)) => directory.sweep(),
        Ok(None) | Err(files::Error::Link { .. } | files::Error::Outside { .. }) => Ok(()),
        Err(files::Error::Io { source, .. }) if source.kind() == ErrorKind::NotADirectory => Ok(()),
        Err(error) => Err(error),
    }
}
