//! `destroy` and `recover`: release leases, but never lose unsaved work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use seedbed::apply::{
    self, Context, Destroy, Event, Occupancy, Occupant, Occupants, Options, Recovered, Relation,
    ReleaseImpact, SessionFinding, Unsaved, UnusableRepository,
};
use seedbed::host::Host;
use seedbed::host::text::printable;
use seedbed::name::SessionPath;
use seedbed::orchestrator::{Orchestrator, Recovery};
use seedbed::plan::Role;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::state::{self, Record, RecordedSwarm, Swarm};

use super::apply::{ask, has_terminal};
use super::exit::{self, Failure, Status, at_work};
use super::fleet::forgotten;
use super::lock::{recover as recover_first, with_lock};
use super::output::{count, count_of};
use super::project::{self, Project};
use super::release_options::{StopProcesses, UnsavedWork, options};
use super::run::instances;
use super::suggestion::pasteable;
use super::{Global, applied_here, completions, lookup, output, relocation};

mod dry_run;
mod rule;

use self::dry_run::dry_run;
use self::rule::{Condition, condition};

/// Arguments of `destroy`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Sessions to release, each with its children [default: all]
    #[arg(add = completions::active_sessions())]
    sessions: Vec<String>,
    #[command(flatten)]
    unsaved: UnsavedWork,
    #[command(flatten)]
    stop: StopProcesses,
    /// Release only sessions that meet all of these conditions, together with everything below them: `landed` or
    /// `landed=REF`, `idle=TIME`, `clean`, `no-process`; a condition that cannot be determined is not met
    #[arg(long = "where", value_name = "CONDITIONS", value_delimiter = ',', value_parser = condition, conflicts_with = "gone")]
    conditions: Vec<Condition>,
    /// Print what would be released, lost and rescued, and change nothing; exit with 69 if it would be refused
    #[arg(long)]
    dry_run: bool,
    /// Remove the leases and records of a swarm whose workspace was deleted; name the swarm as in `seedbed list`, or by its
    /// workspace
    #[arg(long, conflicts_with = "dry_run")]
    gone: bool,
    /// Give up what is in this repository of the manifest, which was deleted or cannot be used; can be repeated
    #[arg(long, value_name = "REPOSITORY", conflicts_with = "gone")]
    forget: Vec<String>,
}

/// Arguments of `recover`. Without `--rescue` and `--discard`, the choice of the interrupted run applies.
#[derive(Debug, Args)]
pub(super) struct RecoverArguments {
    #[command(flatten)]
    unsaved: UnsavedWork,
    /// Rebind worktrees, leases and discovery files after this workspace was moved
    #[arg(long, conflicts_with = "copied")]
    moved: bool,
    /// Give worktrees that were copied with this workspace to a new swarm, without ports; the original is not changed
    #[arg(long)]
    copied: bool,
    #[command(flatten)]
    stop: StopProcesses,
    /// Abandon an interrupted run that can be neither rolled back nor finished: release and restore as much as possible,
    /// and list the rest; unsaved work is kept
    #[arg(long, conflicts_with_all = ["moved", "copied"])]
    give_up: bool,
}

impl RecoverArguments {
    fn options(&self) -> Options {
        let mut options = options(self.unsaved, self.stop);
        options.give_up = self.give_up;
        options
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.gone {
        let [name] = &arguments.sessions[..] else {
            return Err(Failure::new(
                error::USAGE,
                "`--gone` needs the name of one swarm\nhelp: run `seedbed destroy SWARM --gone`",
            ));
        };
        let released = relocation::destroy_gone(global, name, arguments.unsaved.into())?;
        if global.json {
            output::print_line(destroyed(released, 0));
        } else if !global.quiet {
            say!("{} of a deleted workspace released; nothing is left", count(released, "session"));
        }
        return Ok(Status::Done.into());
    }
    let project = Project::find_applied(global)?;
    forgotten::note(global, &project.swarm()?)?;
    if arguments.dry_run {
        return dry_run(global, &project, arguments);
    }
    release_selected(global, &project, arguments)
}

/// Releases one session with everything below it, as `destroy SESSION` does.
pub(super) fn release(
    global: &Global,
    project: &Project,
    session: &SessionPath,
    unsaved: UnsavedWork,
    stop: StopProcesses,
) -> Result<ExitCode, Failure> {
    let arguments = Arguments {
        sessions: vec![session.to_string()],
        unsaved,
        stop,
        conditions: Vec::new(),
        dry_run: false,
        gone: false,
        forget: Vec::new(),
    };
    release_selected(global, project, &arguments)
}

/// Releases the sessions that the arguments select, and reports the result.
fn release_selected(global: &Global, project: &Project, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let kept = AtomicUsize::new(0);
    let (mut unmatched, mut unusable) = (Vec::new(), Vec::new());
    let done = with_lock(global, project, "destroy", |context| {
        let events = |event: &Event| {
            let stays = matches!(event, Event::BranchKept(_) | Event::Rescued { .. });
            kept.fetch_add(usize::from(stays), Ordering::Relaxed);
            (context.events)(event);
        };
        let context = &context.with_events(&events);
        recover_first(global, context, options(arguments.unsaved, arguments.stop))?;
        let Some(record) = context.swarm.applied()? else { return Ok(None) };
        let Selection { destroy, named, kept, unusable: found, is_empty } =
            selection(project, arguments, context.swarm, &record)?;
        (unmatched, unusable) = (kept, found);
        if is_empty && !unusable.is_empty() && arguments.conditions.is_empty() {
            return Err(Failure::Apply(apply::Error::Unusable(unusable.clone())));
        }
        if !global.quiet && !global.json {
            for repository in &unusable {
                say!("{}", exit::unusable(repository));
            }
        }
        if is_empty {
            return Ok(Some((0, record.plan.sessions().len() + children(context, Some(&record))?)));
        }
        consent(global, project, &targets(context.swarm, &record, &destroy, &named))?;
        let mut released = 0;
        for (child, record) in &named {
            released += destroy_child(context, child, record, &destroy)?;
        }
        if named.is_empty() || !destroy.sessions.is_empty() {
            released += destroy.children_of(context.swarm.host(), &record)?.len();
            let after = apply::destroy(context, &record, &destroy)?;
            let left = after.as_ref().map_or(0, |record| record.plan.sessions().len());
            released += record.plan.sessions().len() - left;
            return Ok(Some((released, left + children(context, after.as_ref())?)));
        }
        Ok(Some((released, record.plan.sessions().len() + children(context, Some(&record))?)))
    })?;
    let (released, left) = done.unwrap_or_default();
    if global.json {
        let unmatched = (!arguments.conditions.is_empty() || !unusable.is_empty()).then_some(unmatched);
        output::print_line(Done { unmatched, ..destroyed(released, left) });
    } else if !global.quiet {
        for finding in &unmatched {
            say!("{}", not_released(finding));
        }
        match done {
            None => {
                let message = "nothing is applied".to_owned();
                say!("{}", applied_here::with_others(&project.swarm()?, message)?);
            }
            Some((released, 0)) => match kept.into_inner() {
                0 => say!("{} released; nothing is left", count(released, "session")),
                kept => {
                    let kept = count_of(kept, "branch or rescue", "branches or rescues");
                    say!("{} released; {kept} kept, as listed above", count(released, "session"));
                }
            },
            Some((released, left)) => say!("{} released, {left} still active", count(released, "session")),
        }
    }
    if unusable.is_empty() {
        return Ok(Status::Done.into());
    }
    if !global.json && !global.quiet {
        say!("{}", pasteable(&exit::repository_remedy(&unusable)));
    }
    Ok(Status::Refused.into())
}

/// Returns the result of a destroy: the number of sessions that it released, and of those that are still active.
fn destroyed(released: usize, left: usize) -> Done {
    Done { released: Some(released), left: Some(left), ..Done::default() }
}

/// Swarm, or child that a program has provisioned, with the part to release.
struct Target<'a> {
    swarm: &'a Swarm<'a>,
    record: &'a Record,
    destroy: Destroy,
}

/// Returns the targets of a command: children that are named, and the selected part of the swarm.
fn targets<'a>(
    swarm: &'a Swarm<'a>,
    record: &'a Record,
    destroy: &Destroy,
    named: &'a [(Swarm<'a>, Record)],
) -> Vec<Target<'a>> {
    let named_targets = named.iter().map(|(swarm, record)| Target {
        swarm,
        record,
        destroy: destroy.clone().with_all_sessions(),
    });
    let own = named.is_empty() || !destroy.sessions.is_empty();
    let own = own.then(|| Target { swarm, record, destroy: destroy.clone() });
    named_targets.chain(own).collect()
}

/// Returns the impact of releasing all targets, and the paths of the released sessions.
fn impact(project: &Project, targets: &[Target<'_>]) -> Result<(ReleaseImpact, Vec<SessionPath>), Failure> {
    let mut impact = ReleaseImpact::default();
    let mut sessions = Vec::new();
    for Target { swarm, record, destroy } in targets {
        impact.add(apply::release_impact(swarm, &project.registry, record, destroy)?);
        let children = destroy.children_of(swarm.host(), record)?;
        let children = children.iter().rev().filter_map(RecordedSwarm::record);
        let paths = children.flat_map(|child| child.plan.sessions()).chain(destroy.sessions_of(record));
        sessions.extend(paths.map(|session| session.path.clone()));
    }
    Ok((impact, sessions))
}

/// Returns the paths of sessions for a sentence.
fn listed(sessions: &[SessionPath]) -> String {
    sessions.iter().map(SessionPath::as_str).collect::<Vec<_>>().join(", ")
}

/// Returns the processes that use any of the targets.
fn occupancy(project: &Project, targets: &[Target<'_>]) -> Result<Occupancy, Failure> {
    let mut all = Occupancy::default();
    for Target { swarm, record, destroy } in targets {
        let found = apply::occupancy(swarm, &project.registry, record, destroy)?;
        all.occupants.extend(found.occupants);
        all.uninspected = all.uninspected.max(found.uninspected);
    }
    Ok(all)
}

/// Returns the number of children that programs have provisioned from the remaining sessions.
fn children(context: &Context<'_>, left: Option<&Record>) -> Result<usize, Failure> {
    Ok(left.map_or(Ok(0), |left| state::children(context.swarm.host(), left).map(|found| found.len()))?)
}

/// Describes a session that does not meet the conditions of `--where`.
fn not_released(SessionFinding { session, description, .. }: &SessionFinding) -> String {
    format!("{session}: not released: {}", printable(description))
}

/// Sessions to release.
struct Selection<'h> {
    destroy: Destroy,
    /// Children that programs have provisioned and that are named.
    named: Vec<(Swarm<'h>, Record)>,
    /// Sessions that do not meet the conditions of `--where`, or that have a worktree of a repository that cannot be used,
    /// with the reasons.
    kept: Vec<SessionFinding>,
    /// Repositories that cannot be used and are not given up.
    unusable: Vec<UnusableRepository>,
    /// `true` if nothing is released.
    is_empty: bool,
}

/// Returns the sessions that the arguments select: sessions of the swarm, and their children by id.
fn selection<'h>(
    project: &Project,
    arguments: &Arguments,
    swarm: &Swarm<'h>,
    record: &Record,
) -> Result<Selection<'h>, Failure> {
    let mut destroy = Destroy::default();
    destroy.unsaved = arguments.unsaved.into();
    destroy.occupants = arguments.stop.into();
    destroy.children = true;
    let mut children = lookup::children(swarm, record)?;
    let mut named = BTreeSet::new();
    for name in &arguments.sessions {
        match lookup::session(record, name) {
            Ok(session) => {
                destroy.sessions.insert(session.path.clone());
            }
            Err(failure) if !children.iter().any(|(child, _)| child.name() == name) => return Err(failure),
            Err(_) => {
                named.insert(name.as_str());
            }
        }
    }
    let conditions = &arguments.conditions;
    if let Some(child) = named.first().filter(|_| !conditions.is_empty()) {
        let message = format!("`--where` selects sessions of the manifest, and {child} is a child of one");
        return Err(Failure::new(error::USAGE, message));
    }
    destroy.forget = forgotten(project, arguments, swarm, record, &children)?;
    let (mut kept, mut unusable, mut is_empty) = (Vec::new(), Vec::new(), false);
    if named.is_empty() || !destroy.sessions.is_empty() {
        let selected = rule::select(project, swarm, record, &children, &destroy, conditions)?;
        if !conditions.is_empty() || !selected.unusable.is_empty() {
            is_empty = selected.sessions.is_empty() && named.is_empty();
            (destroy.sessions, kept) = (selected.sessions, selected.kept);
            unusable = selected.unusable;
        }
    }
    // A child below another named child, or below a named session, is released together with it.
    let also_removed = |child: &Record| {
        child.ancestors.iter().any(|above| {
            named.contains(above.as_str())
                || destroy.sessions.iter().any(|path| path.id(record.plan.swarm()) == *above)
        })
    };
    children.retain(|(child, record)| named.contains(child.name()) && !also_removed(record));
    Ok(Selection { destroy, named: children, kept, unusable, is_empty })
}

/// Returns the names of the repositories of `--forget`. Each has to be one that sessions have worktrees of and that
/// cannot be used.
fn forgotten(
    project: &Project,
    arguments: &Arguments,
    swarm: &Swarm<'_>,
    record: &Record,
    children: &[(Swarm<'_>, Record)],
) -> Result<BTreeSet<String>, Failure> {
    let all =
        || std::iter::once((swarm, record)).chain(children.iter().map(|(swarm, record)| (swarm, record)));
    for name in &arguments.forget {
        let repositories = || all().flat_map(|(_, record)| record.plan.repositories());
        let Some(repository) = repositories().find(|repository| repository.name == *name) else {
            let names: BTreeSet<_> = repositories().map(|repository| repository.name.as_str()).collect();
            let help = match names.into_iter().collect::<Vec<_>>().join(", ") {
                names if names.is_empty() => "run `seedbed destroy` without `--forget`".to_owned(),
                names => format!("name one of these: {names}"),
            };
            let message =
                format!("no session has a worktree of a repository `{}`\nhelp: {help}", printable(name));
            return Err(Failure::new(error::USAGE, message));
        };
        let is_unusable = |(swarm, record): (&Swarm<'_>, &Record)| {
            apply::unusable_repositories(swarm, &project.registry, record)
                .iter()
                .any(|unusable| unusable.name == *name)
        };
        if !all().any(is_unusable) {
            let root = repository.root.display();
            let message = format!(
                "the repository `{name}` ({root}) can be used, so nothing in it has to be given up\n\
                 help: run `seedbed destroy` without `--forget`"
            );
            return Err(Failure::new(error::REPOSITORY_USABLE, message));
        }
    }
    Ok(arguments.forget.iter().cloned().collect())
}

/// Releases a child that a program has provisioned, after its own children; returns the number of released sessions.
fn destroy_child(
    context: &Context<'_>,
    child: &Swarm<'_>,
    record: &Record,
    destroy: &Destroy,
) -> Result<usize, Failure> {
    let locked = child.lock(Duration::ZERO, "destroy")?;
    let of_child = Context::new(&locked, context.registry).with_events(context.events);
    let destroy = destroy.clone().with_all_sessions();
    let done = || {
        let mut options = Options::from(destroy.unsaved);
        options.occupants = destroy.occupants;
        apply::recover(&of_child, options)?;
        let count = destroy.children_of(child.host(), record)?.len();
        match locked.applied()? {
            Some(record) => apply::destroy(&of_child, &record, &destroy).map(|_| count + 1),
            None => Ok(count),
        }
    };
    let done = done();
    // The result counts; at worst an empty lock file remains.
    let _ = locked.unlock();
    Ok(done?)
}

/// Asks on a terminal. From inside a released session, `--yes` is required: programs there lose their working
/// directory.
///
/// A release that would be refused afterwards is refused before the question.
fn consent(global: &Global, project: &Project, targets: &[Target<'_>]) -> Result<(), Failure> {
    let Some(unsaved) = targets.first().map(|target| target.destroy.unsaved).filter(|_| !global.yes) else {
        return Ok(());
    };
    let occupancy = occupancy(project, targets)?;
    if occupancy.has_caller() {
        let is_caller = |one: &&Occupant| matches!(one.role, Role::Caller | Role::PinningCaller);
        let callers = occupancy.occupants.iter().filter(is_caller);
        let callers: Vec<_> = callers.map(at_work).collect();
        return Err(Failure::new(
            error::INSIDE_SESSION,
            format!(
                "this command runs inside a session that would be released\n  {}\nhelp: leave the session, or confirm with `--yes`",
                callers.join("\n  ")
            ),
        ));
    }
    let stops = targets.iter().any(|target| target.destroy.occupants != Occupants::Refuse);
    if !has_terminal() || occupancy.occupants.iter().any(|one| refuses(one, stops)) {
        return Ok(());
    }
    let (impact, sessions) = impact(project, targets)?;
    if !impact.refused(unsaved).is_empty() {
        return Ok(());
    }
    let mut shown = String::new();
    if unsaved == Unsaved::Discard {
        let work = impact.work.iter().chain(&impact.beyond_rescue);
        shown.extend(work.map(|finding| {
            format!("{}: would be discarded: {}\n", finding.session, printable(&finding.description))
        }));
    }
    let along = impact.also_removed.iter();
    shown.extend(along.map(|finding| {
        format!("{}: would be deleted: {}\n", finding.session, printable(&finding.description))
    }));
    let ended = occupancy.occupants.iter().filter(|one| one.is_refusal());
    shown.extend(ended.map(|one| format!("would be ended: {}\n", at_work(one))));
    ask(global, &format!("{shown}Destroy {}?", listed(&sessions)))
}

/// Returns whether a release would be refused because of this process; with `stops`, most processes are ended instead.
fn refuses(occupant: &Occupant, stops: bool) -> bool {
    occupant.is_refusal() && !(stops && occupant.is_stoppable())
}

pub(super) fn recover(global: &Global, arguments: &RecoverArguments) -> Result<ExitCode, Failure> {
    let project = Project::find_applied_if_any(global)?;
    let mut elsewhere = 0;
    if arguments.moved || arguments.copied {
        elsewhere = recover_elsewhere(global, project.as_ref(), arguments)?;
    }
    let (recovered, workspace, host) = if let Some(project) = &project {
        let recovered = with_lock(global, project, "recover", |context| {
            let recovered = recover_first(global, context, arguments.options())?;
            if recovered != Recovered::Nothing {
                return Ok(recovered);
            }
            let taken_up = apply::take_up(context, arguments.options())?;
            if taken_up != Recovered::Nothing && !global.quiet && !global.json {
                say!("{taken_up}");
            }
            Ok(taken_up)
        })?;
        forgotten::note(global, &project.swarm()?)?;
        (recovered, project.swarm()?.workspace().to_owned(), project.host.clone())
    } else {
        let host = project::host(global)?;
        let workspace = project::around(&host, &project::directory(global)?)?;
        (Recovered::Nothing, workspace, host)
    };
    let instances = match &project {
        Some(project) => recover_instances(global, project, arguments)?,
        None => BTreeMap::new(),
    };
    let standalone_sessions = recover_standalone(global, host, &workspace, arguments)?;
    if project.is_none() && standalone_sessions.is_empty() {
        // Without a manifest, a swarm may have been missed.
        Project::find_applied(global)?;
    }
    if global.json {
        let standalone_sessions = (!standalone_sessions.is_empty()).then_some(standalone_sessions);
        let instances = (!instances.is_empty()).then_some(instances);
        let recovered = Some(recovered);
        output::print_line(Done { recovered, standalone_sessions, instances, ..Done::default() });
    } else if recovered == Recovered::Nothing
        && instances.is_empty()
        && standalone_sessions.is_empty()
        && elsewhere == 0
        && !global.quiet
    {
        let message = "nothing to recover".to_owned();
        say!(
            "{}",
            match &project {
                Some(project) => applied_here::with_others(&project.swarm()?, message)?,
                None => message,
            }
        );
    }
    Ok(Status::Done.into())
}

/// Rebinds swarms that were moved here, or adopts those that were copied here; returns the number of swarms and
/// standalone sessions.
fn recover_elsewhere(
    global: &Global,
    project: Option<&Project>,
    arguments: &RecoverArguments,
) -> Result<usize, Failure> {
    let host = project::host(global)?;
    let registry = project::registry();
    let workspace = match project {
        Some(project) => project.swarm()?.workspace().to_owned(),
        None => project::around(&host, &project::directory(global)?)?,
    };
    let relation = if arguments.moved { Relation::Moved } else { Relation::Copied };
    // Also a manifest that cannot be planned has repositories; without one, none was moved.
    let manifest =
        project.filter(|project| project.has_manifest()).and_then(|project| project.manifest().ok());
    let repositories = project.zip(manifest).map(|(project, manifest)| project.repositories(&manifest));
    let repositories = repositories.unwrap_or_default();
    let mut count = relocation::recover(global, &host, &registry, &workspace, relation, &repositories)?;
    if count == 0
        && let Some(project) = project
    {
        count = relocation::rebind(global, &registry, &project.swarm()?, &repositories)?;
    }
    Ok(count)
}

/// Recovers instances of the manifest's swarm whose `run` was killed.
fn recover_instances(
    global: &Global,
    project: &Project,
    arguments: &RecoverArguments,
) -> Result<BTreeMap<String, Recovered>, Failure> {
    let swarm = project.swarm()?;
    let recovered = instances::recover(global, &swarm, &project.registry, arguments.options())?;
    collected(global, "instance", recovered)
}

/// Recovers interrupted runs of standalone sessions in this workspace.
fn recover_standalone(
    global: &Global,
    host: Host,
    workspace: &Path,
    arguments: &RecoverArguments,
) -> Result<BTreeMap<String, Recovered>, Failure> {
    let orchestrator = Orchestrator::with_registry(host, project::registry());
    let patience = global.lock_timeout.unwrap_or(state::ORPHANS_TIMEOUT);
    let found = orchestrator.recover(workspace, arguments.options(), patience);
    let found = found.map_err(|error| Failure::from_session_error(None, error))?;
    let recovered = found.into_iter().map(|Recovery { session_id: id, done, .. }| {
        let done = done.map_err(|error| Failure::from_session_error(Some(&id), error));
        (id, done)
    });
    collected(global, "session", recovered)
}

/// Prints what was recovered, and returns it by its names, or the first failure.
fn collected(
    global: &Global,
    what: &str,
    recoveries: impl IntoIterator<Item = (String, Result<Recovered, Failure>)>,
) -> Result<BTreeMap<String, Recovered>, Failure> {
    let mut done = BTreeMap::new();
    let mut failure = None;
    for (name, recovered) in recoveries {
        match recovered {
            Ok(recovered) => {
                if !global.quiet && !global.json {
                    say!("{what} {}: {}", printable(&name), printable(&recovered.to_string()));
                }
                done.insert(name, recovered);
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(done), Err)
}
