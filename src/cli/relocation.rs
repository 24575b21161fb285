//! Workspaces that were moved, copied or deleted with their applied swarms: messages and commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use seedbed::apply::{self, Context, Event, Relation, Stray, Unsaved};
use seedbed::host::Host;
use seedbed::host::text::{printable, shell_quoted};
use seedbed::plan::PlannedRepository;
use seedbed::provider::Registry;
use seedbed::report::error;
use seedbed::state::{self, RecordedSwarm, Swarm, is_gone};

use super::Global;
use super::exit::Failure;
use super::lock;
use super::progress::Progress;
use super::project::{self, Project};

/// Refuses to continue if the swarm is not recorded here, but was moved or copied here, or if its repository was moved
/// away and replaced: any other advice would be wrong.
pub(super) fn refuse_strays(swarm: &Swarm<'_>, registry: &Registry) -> Result<(), Failure> {
    if let Some(found) = swarm.found()? {
        return match apply::replaced_repository(swarm.host(), registry, &found) {
            Some(repository) => Err(Failure::new(error::WORKSPACE_MOVED, replaced(&found, &repository))),
            None => Ok(()),
        };
    }
    let strays = apply::strays(swarm.host(), registry, swarm.workspace())?;
    let is_own = |stray: &&Stray| {
        stray.found.is_standalone() == swarm.is_standalone() && stray.found.name() == swarm.name()
    };
    match strays.iter().find(is_own) {
        Some(stray) => {
            let id = match stray.relation {
                Relation::Moved => error::WORKSPACE_MOVED,
                Relation::Copied => error::WORKSPACE_COPIED,
            };
            Err(Failure::new(id, described(stray, swarm.workspace())))
        }
        None => Ok(()),
    }
}

/// Describes a repository that is not the one in which a swarm was applied, and the remedies.
fn replaced(found: &RecordedSwarm, repository: &Path) -> String {
    let (name, key, repository) = (found.name(), &found.key, repository.display());
    format!(
        "{repository} is another repository than that in which {name} is applied, and has nothing of it\n\
         help: if the earlier repository was moved, run `seedbed recover --moved` there, or move it back; if it was \
         deleted, run `seedbed destroy {key} --gone`"
    )
}

/// Describes the change of a workspace, and the remedy.
fn described(stray: &Stray, workspace: &Path) -> String {
    let (name, here, there) = (stray.found.name(), workspace.display(), stray.workspace.display());
    let what = if stray.found.is_standalone() { "session" } else { "swarm" };
    match stray.relation {
        Relation::Moved => format!(
            "{what} {name} was applied in {there}, and its workspace was moved to {here}\n\
             help: keep its worktrees, and run `seedbed recover --moved`"
        ),
        Relation::Copied => format!(
            "{here} is a copy of {there}, where {what} {name} is applied: Git in the copied worktrees changes those of {there}\n\
             help: run `seedbed recover --copied`, which gives the copied worktrees to a swarm of this directory"
        ),
    }
}

/// Rebinds swarms that were moved to this workspace, or adopts those that were copied here. Returns the number of
/// swarms and standalone sessions.
///
/// Swarms that are recorded here are rebound too: they may have been moved away and back.
pub(super) fn recover(
    global: &Global,
    host: &Host,
    registry: &Registry,
    workspace: &Path,
    relation: Relation,
    repositories: &BTreeMap<String, PathBuf>,
) -> Result<usize, Failure> {
    let mut strays = apply::strays(host, registry, workspace)?;
    strays.retain(|stray| stray.relation == relation);
    for stray in &strays {
        let swarm = stray.found.swarm_in(host, workspace)?;
        if swarm.key() != stray.found.key && swarm.found()?.is_some() {
            return Err(Failure::new(
                error::WORKSPACE_OCCUPIED,
                format!(
                    "{} is applied in {} too\nhelp: destroy one of the two, the other with `seedbed destroy {} --gone`",
                    stray.found.name(),
                    workspace.display(),
                    stray.found.key
                ),
            ));
        }
        match relation {
            Relation::Moved => {
                let Some(old) = stray.found.swarm(host) else { continue };
                act(global, registry, &swarm, "recover --moved", |context| {
                    let old = lock::lock(global, &old, "recover --moved")?;
                    let done = apply::rebind(context, Some(&old), repositories);
                    old.unlock()?;
                    report_moved(global, &done?);
                    Ok(())
                })?;
            }
            Relation::Copied => {
                let left = act(global, registry, &swarm, "recover --copied", |context| {
                    Ok(apply::adopt(context, &stray.found)?)
                })?;
                if !global.quiet && !global.json {
                    for finding in left {
                        say!("{}: {}", finding.session, printable(&finding.description));
                    }
                }
            }
        }
        if !global.quiet && !global.json {
            let (name, here, there) = (stray.found.name(), workspace.display(), stray.workspace.display());
            say!(
                "{}",
                printable(&match relation {
                    Relation::Moved => format!(
                        "{name} was rebound from {there} to {here}; its setup was not run again: `seedbed apply --setup` runs it"
                    ),
                    Relation::Copied => format!(
                        "{name} of {here} is now separate from that of {there}, and has no ports: `seedbed apply` leases some, \
                     `seedbed destroy` removes it"
                    ),
                })
            );
        }
    }
    state::sweep_locks(host)?;
    Ok(strays.len())
}

/// Rebinds a swarm to the workspace in its record: the swarm may have been moved away and back, and its other
/// repositories may have been moved to their roots in `repositories`. Returns the number of these.
pub(super) fn rebind(
    global: &Global,
    registry: &Registry,
    swarm: &Swarm<'_>,
    repositories: &BTreeMap<String, PathBuf>,
) -> Result<usize, Failure> {
    if swarm.found()?.is_none() {
        return Ok(0);
    }
    let moved = act(global, registry, swarm, "recover --moved", |context| {
        Ok(apply::rebind(context, None, repositories)?)
    })?;
    report_moved(global, &moved);
    Ok(moved.len())
}

/// Prints the repositories to which worktrees were rebound.
fn report_moved(global: &Global, moved: &[PlannedRepository]) {
    if global.quiet || global.json {
        return;
    }
    for PlannedRepository { name, root, .. } in moved {
        say!(
            "the worktrees of `{}` were rebound to {}: `seedbed apply` updates the environment of their sessions",
            printable(name),
            printable(&root.to_string_lossy())
        );
    }
}

/// Removes everything that is kept of a swarm whose workspace was deleted; returns the number of sessions.
pub(super) fn destroy_gone(global: &Global, name: &str, unsaved: Unsaved) -> Result<usize, Failure> {
    if unsaved == Unsaved::Rescue {
        let why = "`--rescue` needs the repository, which is missing\nhelp: copy the files that you need, then use `--discard`";
        return Err(Failure::new(error::USAGE, why));
    }
    let host = project::host(global)?;
    let registry = project::registry();
    let mut all = state::swarms(&host)?;
    all.extend(state::sessions(&host)?);
    let path = project::directory(global)?.join(name);
    let is_of_path = |found: &RecordedSwarm| found.workspace().is_some_and(|workspace| workspace == path);
    let mut named: Vec<&RecordedSwarm> = all.iter().filter(|found| found.key == name).collect();
    if named.is_empty() {
        named = all.iter().filter(|found| found.name() == name).collect();
        if named.len() > 1 {
            let missing: Vec<_> =
                named.iter().copied().filter(|found| found.workspace().is_some_and(is_gone)).collect();
            if missing.len() == 1 {
                named = missing;
            } else {
                return Err(Failure::new(
                    error::SWARM_AMBIGUOUS,
                    format!(
                        "more than one swarm is named `{name}`\nhelp: name one of these instead:\n{}",
                        candidates(&named)
                    ),
                ));
            }
        }
    }
    if named.is_empty() {
        named = all.iter().filter(|found| is_of_path(found)).collect();
    }
    if named.is_empty() {
        state::sweep_locks(&host)?;
        let message =
            format!("no swarm of this host is named `{name}`\nhelp: `seedbed list` lists the swarms");
        return Err(Failure::new(error::SWARM_UNKNOWN, message));
    }
    // Sessions that a program provisioned from a swarm's sessions are removed too, the deepest first.
    let mut goes: Vec<&RecordedSwarm> = all
        .iter()
        .filter(|found| {
            let is_below = |named: &&RecordedSwarm| {
                let (one, other) = (found.record(), named.record());
                one.zip(other)
                    .is_some_and(|(one, other)| one.owner == other.owner && one.workspace == other.workspace)
            };
            named.iter().any(|named| named.key == found.key)
                || found.is_standalone() && named.iter().any(is_below)
        })
        .collect();
    goes.sort_by_key(|found| {
        std::cmp::Reverse((found.is_standalone(), found.record().map(|record| record.ancestors.len())))
    });
    for found in &goes {
        let Some(workspace) = found.workspace() else {
            return Err(Failure::new(
                error::RECORD_UNREADABLE,
                format!("no record of {} can be read", found.key),
            ));
        };
        if !is_gone(workspace) && apply::replaced_repository(&host, &registry, found).is_none() {
            return Err(Failure::new(
                error::WORKSPACE_EXISTS,
                format!(
                    "the workspace {} of {} exists\nhelp: run `seedbed -C {} destroy --swarm {}`",
                    workspace.display(),
                    found.name(),
                    shell_quoted(&printable(&workspace.to_string_lossy())),
                    found.name()
                ),
            ));
        }
    }
    refuse_moved_here(global, &host, &registry, &goes)?;
    let mut sessions = 0;
    for found in goes {
        let Some(swarm) = found.swarm(&host) else { continue };
        let left =
            act(global, &registry, &swarm, "destroy --gone", |context| Ok(apply::forget(context, unsaved)?))
                .map_err(|error| with_remedy(error, &found.key))?;
        for failure in left {
            say!("not removed: {}: {}: {}", failure.session, failure.step, printable(&failure.cause));
        }
        state::sweep_locks(&host)?;
        sessions += found.record().map_or(0, |record| record.plan.sessions().len());
    }
    Ok(sessions)
}

/// Refuses to forget swarms whose workspace was moved to the current one: nothing could recover them later.
fn refuse_moved_here(
    global: &Global,
    host: &Host,
    registry: &Registry,
    goes: &[&RecordedSwarm],
) -> Result<(), Failure> {
    let Some(project) = Project::find_if_any(global)? else { return Ok(()) };
    let Ok(here) = project.swarm() else { return Ok(()) };
    let strays = apply::strays(host, registry, here.workspace())?;
    let is_released = |stray: &&Stray| {
        goes.iter().any(|found| found.key == stray.found.key) && stray.relation == Relation::Moved
    };
    match strays.iter().find(is_released) {
        Some(stray) => Err(Failure::new(error::WORKSPACE_MOVED, described(stray, here.workspace()))),
        None => Ok(()),
    }
}

/// Replaces the usual remedy for leases that could not be released: their record is kept.
fn with_remedy(failure: Failure, key: &str) -> Failure {
    match failure {
        Failure::Apply(apply::Error::Failed { leftovers, .. }) if !leftovers.is_empty() => {
            let lines =
                leftovers.iter().map(|left| format!("  {}: {}: {}\n", left.session, left.step, left.cause));
            Failure::new(
                error::NOT_RELEASED,
                format!(
                    "could not be released:\n{}its record is kept\nhelp: repair the cause and try again, or discard it with \
                 `seedbed destroy {key} --gone --discard`",
                    lines.collect::<String>()
                ),
            )
        }
        other => other,
    }
}

fn candidates(found: &[&RecordedSwarm]) -> String {
    let line = |found: &&RecordedSwarm| {
        let workspace = found.workspace().map(|workspace| workspace.display().to_string());
        format!("  {}  {}", found.key, workspace.unwrap_or_default())
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Runs `act` under the lock of a swarm or session.
fn act<T>(
    global: &Global,
    registry: &Registry,
    swarm: &Swarm<'_>,
    what: &str,
    act: impl FnOnce(&Context<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let locked = lock::lock(global, swarm, what)?;
    let progress = Progress::new(global, &swarm.host().cancel);
    let events = |event: &Event| progress.handle(event);
    let done = act(&Context::new(&locked, registry).with_events(&events));
    drop(progress);
    locked.unlock()?;
    done
}
