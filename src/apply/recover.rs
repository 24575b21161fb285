//! Recovers an interrupted run: finishes a committed run and a `destroy`, and rolls back any other.

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::occupants::Marks;
use super::release::Teardowns;
use super::release_set;
use super::{
    Context, Error, Options, occupants, repositories, rescue, stop_processes, transaction, unsaved_work,
    with_task,
};
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::provider::Location;
use crate::state::{self, Record, Recovery, Release, Stage, Unsaved, Verdict};

/// Result of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Recovered {
    /// There was nothing to recover.
    Nothing,
    /// An interrupted apply was rolled back.
    RolledBack,
    /// An interrupted destroy was finished.
    Finished,
    /// A prepared part of a run over several hosts was committed, as the fleet has decided.
    Committed,
    /// The swarm of a killed `run` was removed.
    Removed,
    /// A run that could be neither rolled back nor finished was abandoned; `givenUp` events name what may remain.
    GivenUp,
    /// Parts that an abandoned run had left were released or brought back, all or some of them.
    TakenUp,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to recover",
            Self::RolledBack => "rolled back an interrupted apply",
            Self::Finished => "finished an interrupted destroy",
            Self::Committed => "committed what a fleet has decided to commit",
            Self::Removed => "removed the swarm of a killed `run`",
            Self::GivenUp => {
                "gave up a run that could not be recovered; the resources named above may remain"
            }
            Self::TakenUp => "released or brought back what a run that was given up had left",
        })
    }
}

/// Finishes or rolls back an interrupted run.
pub(super) fn undo_or_finish(context: &Context<'_>, options: Options) -> Result<Recovered, Error> {
    let unsaved = options.unsaved;
    let (interrupted, stage) = context.swarm.interrupted()?.unzip();
    if let Some((record, stage)) = interrupted.as_ref().zip(stage)
        && is_to_be_committed(context, record)?
    {
        transaction::commit_prepared(context, record, stage)?;
        return Ok(Recovered::Committed);
    }
    if let Some(record) = &interrupted {
        unsaved_work::refuse_unknown_kinds(context, record, &release_set::provisioned(record))?;
    }
    let committed = context.swarm.committed()?;
    let releases = interrupted.iter().chain(&committed).filter_map(|record| record.release.as_ref());
    for release in releases {
        unsaved_work::refuse_unknown_kinds(context, &release.before, &release.kinds)?;
    }
    require_repositories(context, interrupted.as_ref(), committed.as_ref())?;
    rescue::sweep_after_a_kill(context)?;
    let applied = context.swarm.applied()?;
    if let Some(mut record) = interrupted {
        let provisioned = release_set::provisioned(&record);
        let is_judged = stage == Some(Stage::Provisioning);
        let of_run = unsaved_of(&record, unsaved);
        let own = Marks::for_run(&record, &provisioned);
        if is_judged {
            unsaved_work::check_interrupted(context, &record, &provisioned, of_run).map_err(|error| {
                stop_processes::with_occupants(context, &record, &provisioned, options.occupants, &own, error)
            })?;
        }
        sweep(context, &record)?;
        if let Some(release) = &mut record.release {
            sweep(context, &release.before)?;
            if release.recovery == Recovery::Finish {
                if unsaved != Unsaved::Keep {
                    release.unsaved = unsaved;
                }
                unsaved_work::check_ready(context, &release.before, &release.kinds)?;
                let options = Options { unsaved: release.unsaved, ..options };
                refuse_or_stop_release(context, release, options)?;
                let teardowns = Teardowns::NotBegun;
                transaction::run_begun(context, &record, applied.as_ref(), teardowns, options)?;
                return Ok(Recovered::Finished);
            }
        }
        if is_judged {
            // Work was checked above, by the time at which it was done.
            let options = Options { unsaved: Unsaved::Discard, ..options };
            stop_processes::refuse_or_stop(context, &record, &provisioned, options, &own)?;
            let with_work = unsaved_work::check_interrupted(context, &record, &provisioned, of_run)?;
            if of_run == Unsaved::Rescue {
                rescue::save_interrupted(context, &record, &with_work)?;
            }
        }
        let cancel = &context.swarm.host().cancel;
        let leftovers =
            transaction::roll_back(context, &record, applied.as_ref(), cancel, Some(options.occupants))?;
        if !leftovers.is_empty() {
            return Err(Error::Failed { failures: Vec::new(), leftovers, interrupted: false });
        }
        return Ok(Recovered::RolledBack);
    }
    let Some(record) = committed else { return Ok(Recovered::Nothing) };
    let Some(release) = &record.release else { return Ok(Recovered::Nothing) };
    sweep(context, &release.before)?;
    let kinds = transaction::left_to_release(context, &record, release);
    stop_processes::refuse_or_stop_again(
        context,
        &release.before,
        &kinds,
        Location::Aside,
        options.occupants,
    )?;
    transaction::finish(context, &record, Vec::new())?;
    Ok(Recovered::Finished)
}

/// Returns whether a run is prepared and the decision of its fleet is to commit it; `false` for any other run.
fn is_to_be_committed(context: &Context<'_>, record: &Record) -> Result<bool, Error> {
    let Some(part) = record.fleet.as_ref().filter(|_| record.prepared) else { return Ok(false) };
    let undecided = || state::Error::Undecided {
        swarm: context.swarm.name().to_owned(),
        run: part.run.clone(),
        directory: part.directory.clone(),
    };
    Ok(part.resolve()?.ok_or_else(undecided)?.verdict == Verdict::Commit)
}

/// Refuses to recover a run with resources of a repository that cannot be used.
fn require_repositories(
    context: &Context<'_>,
    interrupted: Option<&Record>,
    committed: Option<&Record>,
) -> Result<(), Error> {
    if let Some(record) = interrupted {
        repositories::require(context, record, &release_set::provisioned(record))?;
    }
    for record in interrupted.into_iter().chain(committed) {
        if let Some(release) = &record.release {
            repositories::require(context, &release.before, &release.kinds)?;
        }
    }
    Ok(())
}

/// Returns the policy for unsaved work in what a run has provisioned. Work in a swarm that was created for one command
/// is discarded, unless a rescue is requested.
pub(super) fn unsaved_of(record: &Record, unsaved: Unsaved) -> Unsaved {
    if record.temporary && unsaved == Unsaved::Keep { Unsaved::Discard } else { unsaved }
}

/// Refuses or ends processes that use what an interrupted `destroy` still has to release. If its teardown still runs,
/// the teardown is ended.
fn refuse_or_stop_release(context: &Context<'_>, release: &Release, options: Options) -> Result<(), Error> {
    let (before, kinds) = (&release.before, &release.kinds);
    let torn_down = Marks::new(before, &["teardown"], |session| release_set::is_torn_down(session, kinds));
    let mut own = occupants::left_for_teardown(before, kinds);
    own.extend(&torn_down);
    stop_processes::refuse_or_stop(context, before, kinds, options, &own)?;
    stop_processes::end_own(context, before, kinds, &torn_down);
    Ok(())
}

/// Removes the temporary files that a killed run left beside the allocations of `record`, each directory once.
pub(super) fn sweep(context: &Context<'_>, record: &Record) -> Result<(), Error> {
    let swarm = context.swarm;
    let mut directories = BTreeSet::new();
    for session in &record.plan.sessions {
        let discovery = crate::discovery::file(swarm, session);
        directories.extend(discovery.parent().map(Path::to_owned));
        directories.extend(swarm.discovery_file(&session.scoped_name).parent().map(Path::to_owned));
        for allocation in &session.allocations {
            let Some(provider) = context.registry.get(&allocation.kind) else { continue };
            // If the directories cannot be determined, the release reports the reason.
            let debris = with_task(swarm.host(), record, session, allocation, None, |task| {
                provider.temporary_file_directories(task)
            });
            directories.extend(debris.unwrap_or_default());
        }
    }
    for directory in directories {
        sweep_one(&record.workspace, &directory).map_err(state::Error::from)?;
    }
    crashpoint!("recover.swept");
    Ok(())
}

/// A directory that does not exist, or that is reached only by a link, has no temporary files of this program.
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
