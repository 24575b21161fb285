//! `plan`: shows the changes that `apply` would make.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use rayon::prelude::*;
use seedbed::apply::{self, Fetched, PlanningInput};
use seedbed::host::text::{printable, shell_quoted};
use seedbed::manifest::Manifest;
use seedbed::name::SessionPath;
use seedbed::plan::{Action, AppliedPlan, Behind, Change, DamageKind, Plan, Session, SessionFinding};
use seedbed::provider::git_worktree::{self, Progress, Worktree};
use seedbed::provider::{Allocation, Registry, SharedResults};
use seedbed::report::error;
use seedbed::review::Review;
use seedbed::state::{Record, Swarm, Unsaved};

use super::exit::{self, Failure, Status, at_work};
use super::overrides::{self, Overrides};
use super::plan_format::{Format, choose};
use super::project::Project;
use super::repeated_steps::RepeatedSteps;
use super::suggestion::pasteable;
use super::{Global, applied_here, output, output_file, relocation, signals};

mod base_notes;

use self::base_notes::base_notes;

/// Text in each saved plan.
const PLAN_FILE_MARK: &str = "\"digest\":";

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Save the plan in this file, for `seedbed apply FILE`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Exit with 2 if the plan has changes
    #[arg(long)]
    detailed_exitcode: bool,
    /// First fetch the base refs that follow a remote: `origin/main`, `pull/123`
    #[arg(long)]
    fetch: bool,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    again: RepeatedSteps,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let format = choose(global, arguments.format, Format::Json)?;
    let project = Project::find_with(global, &arguments.overrides.set)?;
    let manifest = project.manifest()?;
    let swarm = project.swarm()?;
    settled(&swarm)?;
    applied_here::note_others(global, &swarm)?;
    let fetched = fetched(&project, &swarm, &manifest, arguments.fetch)?;
    let (plan, input, kept) = make(&project, &swarm, &manifest, &arguments.again, &fetched)?;
    let behind = behind(&swarm, &plan, &input);
    let plan = plan.with_behind(behind);
    global.unless_interrupted()?;
    if let Some(path) = &arguments.output {
        let path = super::project::directory(global)?.join(path);
        let file = output_file::create(&path, PLAN_FILE_MARK)?;
        output::write_plan(file, &plan).map_err(|error| output_file::unwritten(&path, &error))?;
    }
    let mut notices = notices(&project.registry, &plan, &input);
    notices.extend(plan.repository_notices(&input.observation));
    notices.splice(0..0, refusals(&plan));
    notices.extend(absent(&input));
    notices.extend(setup_not_run(&plan));
    notices.extend(overrides::note(&plan, input.record.as_ref()));
    notices.extend(kept.iter().map(not_refreshed));
    notices.extend(left_by_updates(&project, &swarm, &plan, input.record.as_ref()));
    notices.extend(outdated(&project, &swarm, &plan, input.record.as_ref()));
    notices.extend(lacking(&plan));
    notices.extend(base_notes(&swarm, &plan, &fetched, global.verbose));
    let notices: Vec<_> = notices.iter().map(|notice| pasteable(notice)).collect();
    let review = Review::new(&plan)
        .with_registry(&project.registry)
        .with_notices(&notices)
        .with_observation(&input.observation);
    signals::while_computing(&global.cancel, || format.show(global, &review, global.verbose));
    if let Some(path) = arguments.output.as_ref().filter(|_| !global.quiet && !global.json) {
        say!(
            "plan saved; apply exactly this plan with `seedbed apply {}`",
            shell_quoted(&printable(&path.to_string_lossy()))
        );
    }
    let changes = arguments.detailed_exitcode && plan.has_changes();
    output::leave_to_system((manifest, plan, input));
    Ok(if changes { Status::Changes } else { Status::Done }.into())
}

/// Fetches the base refs that follow a remote, if requested. Planning comes later: it is a function of what it observes.
pub(super) fn fetched(
    project: &Project,
    swarm: &Swarm<'_>,
    manifest: &Manifest,
    is_requested: bool,
) -> Result<Fetched, Failure> {
    if !is_requested {
        return Ok(Fetched::default());
    }
    let failed = |error: git_worktree::FetchError| {
        let help = "help: check the network and the remote, or plan without `--fetch`";
        Failure::new(error::FETCH_FAILED, format!("{error}\nnothing was planned\n{help}"))
    };
    apply::fetch(swarm, &project.registry, manifest).map_err(failed)
}

/// Observes the host and plans; every diagnostic, of any stage, is about the manifest. Also returns the files that are not
/// refreshed because their sessions have changed them, of sessions in which there is nothing else to refresh.
pub(super) fn make(
    project: &Project,
    swarm: &Swarm<'_>,
    manifest: &Manifest,
    again: &RepeatedSteps,
    fetched: &Fetched,
) -> Result<(Plan, PlanningInput, Vec<SessionFinding>), Failure> {
    relocation::refuse_strays(swarm, &project.registry)?;
    let mut input = apply::planning_input(swarm, &project.registry, manifest)?;
    fetched.add_to(&mut input.observation);
    if let Some(record) = &input.record {
        apply::require_same_repositories(swarm, &project.registry, record)?;
    }
    let planned = planned(project, manifest, input);
    if let Err(Failure::Manifest(_)) = &planned {
        for line in causes(swarm, &project.registry)? {
            say!("{line}");
        }
    }
    let (mut plan, input) = planned?;
    if let Some(record) = &input.record {
        apply::require_repositories(swarm, &project.registry, record, &plan)?;
    }
    let mut again = again.sessions(input.record.as_ref(), &plan)?;
    let mut not_refreshed = Vec::new();
    if let Some(record) = input.record.as_ref().filter(|_| !again.refresh.is_empty()) {
        (again.refresh, not_refreshed) = apply::refreshable(swarm, &project.registry, record, &again.refresh);
    }
    if !again.is_empty() {
        plan.do_again(again, &project.registry, input.applied.as_ref());
    }
    let PlanningInput { record, applied, shared_results, .. } = &input;
    let plan = inspect_releases(project, swarm, record.as_ref(), applied.as_ref(), shared_results, plan)?;
    Ok((plan, input, not_refreshed))
}

/// Describes the sessions in which a part that another tool made is missing: applying leaves them as they are.
fn absent(input: &PlanningInput) -> Vec<String> {
    let broken = input.applied.iter().flat_map(|applied| &applied.broken);
    let absent = broken.filter(|(_, damage)| damage.kind == DamageKind::Absent);
    absent.map(|((session, _), damage)| format!("{session} stays as it is: {}", damage.why)).collect()
}

/// Returns notes about what may be the cause of diagnostics, and the remedies: repositories of the applied swarm that
/// cannot be used, and runs that were given up.
fn causes(swarm: &Swarm<'_>, registry: &Registry) -> Result<Vec<String>, Failure> {
    let record = swarm.applied()?;
    let unusable = record.map(|record| apply::unusable_repositories(swarm, registry, &record));
    let unusable = unusable.unwrap_or_default();
    let mut lines: Vec<_> = unusable.iter().map(|one| format!("note: {}", exit::unusable(one))).collect();
    if !unusable.is_empty() {
        lines.push(pasteable(&exit::repository_remedy(&unusable)));
    }
    if swarm.has_given_up()? {
        lines.push(pasteable(
            "note: a run of this swarm was given up, and what it has left may be in the way: `seedbed recover` releases it",
        ));
    }
    Ok(lines)
}

/// Describes a file that is not refreshed, although a refresh of its session is requested.
pub(super) fn not_refreshed(file: &SessionFinding) -> String {
    format!("{}: not refreshed: {}", file.session, file.description)
}

/// Plans without running any program that the manifest names: a user who checks a manifest may not have reviewed it
/// yet.
///
/// Allocations of external kinds remain unknown, so the plan cannot be applied.
pub(super) fn make_without_programs(
    project: &Project,
    swarm: &Swarm<'_>,
    manifest: &Manifest,
) -> Result<(Plan, PlanningInput), Failure> {
    relocation::refuse_strays(swarm, &project.registry)?;
    let input = apply::planning_input_without_programs(swarm, &project.registry, manifest)?;
    planned(project, manifest, input)
}

fn planned(
    project: &Project,
    manifest: &Manifest,
    input: PlanningInput,
) -> Result<(Plan, PlanningInput), Failure> {
    Ok((project.plan(manifest, &input)?, input))
}

/// Adds the reasons for which applying the plan would be refused without further options: unsaved work, and processes.
pub(super) fn inspect_releases(
    project: &Project,
    swarm: &Swarm<'_>,
    applied: Option<&Record>,
    broken: Option<&AppliedPlan>,
    shared_results: &SharedResults,
    plan: Plan,
) -> Result<Plan, Failure> {
    let Some(applied) = applied else { return Ok(plan) };
    let stake = apply::impact_of_plan(swarm, &project.registry, applied, &plan, shared_results)?;
    let mut findings = stake.refused(Unsaved::Keep);
    // The need to repair a kept session is unknown too.
    let is_kept = |finding: &SessionFinding| {
        findings.iter().all(|known| known.session != finding.session || !known.is_unknown())
    };
    let unknown: Vec<_> = apply::unknown(broken).filter(is_kept).collect();
    findings.extend(unknown);
    let occupants = apply::occupancy_in(swarm, &project.registry, applied, &plan).occupants;
    Ok(plan.with_refusals(findings, occupants))
}

/// Returns the unsaved work that a plan would lose, and the processes that use its releases, one line each, for
/// reviewers.
pub(super) fn refusals(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<_> = plan
        .unsaved_work()
        .iter()
        .map(|finding| {
            let has = if finding.is_unknown() { "" } else { " has unsaved work" };
            format!("apply refuses this: {}{has}: {}", finding.session, finding.description)
        })
        .collect();
    if plan.unsaved_work().iter().any(|finding| !finding.is_unknown()) {
        lines.push("commit that work to a branch, or apply with `--rescue` or `--discard`".to_owned());
    }
    let (refusals, others): (Vec<_>, Vec<_>) = plan.occupants().iter().partition(|one| one.is_refusal());
    lines.extend(refusals.iter().map(|one| format!("apply refuses this: {}", at_work(one))));
    if !refusals.is_empty() {
        lines.push("end these processes, or apply with `--stop`".to_owned());
    }
    lines.extend(others.into_iter().map(at_work));
    lines
}

/// Returns the paths of sessions as arguments of a command: all of them, so that the command can be pasted.
fn named<'s>(sessions: impl Iterator<Item = &'s SessionPath>) -> String {
    sessions.map(SessionPath::as_str).collect::<Vec<_>>().join(" ")
}

/// Maximum number of sessions that a sentence names.
const NAMED: usize = 4;

/// Returns the paths of sessions for a sentence: all of them, or their number.
fn mentioned(sessions: &[&SessionPath]) -> String {
    match sessions.len() {
        0..=NAMED => sessions.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(", "),
        many => format!("{many} sessions"),
    }
}

/// Names the sessions whose `setup` has changed and does not run, with the command that runs it.
pub(super) fn setup_not_run(plan: &Plan) -> Option<String> {
    let sessions = named(plan.setup_not_run());
    (!sessions.is_empty()).then(|| {
        format!(
            "a changed setup is not run in active sessions; to run it: `seedbed apply --setup {sessions}`"
        )
    })
}

/// Names the files of active sessions that the plan leaves as they are, although it updates what brings them.
fn left_by_updates(
    project: &Project,
    swarm: &Swarm<'_>,
    plan: &Plan,
    record: Option<&Record>,
) -> Vec<String> {
    let left = record.map(|record| apply::left_by_updates(swarm, &project.registry, record, plan));
    left.into_iter().flatten().map(|left| format!("{}: {}", left.session, left.description)).collect()
}

/// Returns the changes of the sessions that are kept, by session.
fn staying(plan: &Plan) -> BTreeMap<&SessionPath, &Change> {
    let stays = |change: &&Change| change.action != Action::Destroy && change.release.is_empty();
    plan.changes().iter().filter(stays).map(|change| (&change.session, change)).collect()
}

/// Returns the copies in kept sessions whose source files in the workspace have changed, with the command that copies
/// them again.
fn outdated(project: &Project, swarm: &Swarm<'_>, plan: &Plan, record: Option<&Record>) -> Vec<String> {
    let Some(record) = record else { return Vec::new() };
    let staying = staying(plan);
    let mut outdated: BTreeMap<String, Vec<SessionPath>> = BTreeMap::new();
    for SessionFinding { session, description, .. } in apply::outdated(swarm, &project.registry, record) {
        if staying.get(&session).is_some_and(|change| !change.refresh) {
            outdated.entry(description).or_default().push(session);
        }
    }
    let lines = outdated.into_iter();
    lines
        .map(|(what, sessions)| {
            format!("{what}; to copy it again: `seedbed apply --refresh {}`", named(sessions.iter()))
        })
        .collect()
}

/// Returns the worktrees of kept sessions whose base has new commits.
///
/// Git runs only if a base ref names another commit than a worktree was created from: once for all heads, and once for
/// each base.
fn behind(swarm: &Swarm<'_>, plan: &Plan, input: &PlanningInput) -> Vec<Behind> {
    let Some(record) = &input.record else { return Vec::new() };
    let staying = staying(plan);
    let has_moved = |worktree: &Worktree| {
        let base = input.observation.repository(worktree.repository_name()).commits.get(&worktree.base_ref);
        base.is_some_and(|base| base.as_ref().is_ok_and(|base| *base != worktree.commit))
    };
    let staying = record.plan.sessions().iter().filter(|session| staying.contains_key(&session.path));
    let worktrees = staying.flat_map(|session| {
        session.allocations_of(git_worktree::KIND).filter_map(|allocation| {
            let worktree = Worktree::from_allocation(allocation).filter(&has_moved)?;
            Some(((&session.path, allocation.name()), worktree))
        })
    });
    let (names, worktrees): (Vec<_>, Vec<_>) = worktrees.unzip();
    if worktrees.is_empty() {
        return Vec::new();
    }
    let found =
        git_worktree::progress(swarm.host(), swarm.workspace(), &worktrees.iter().collect::<Vec<_>>());
    let found = names.into_iter().zip(&worktrees).zip(found);
    found
        .filter_map(|(((session, resource), worktree), progress)| {
            // `status` reports the reason why the commits of a worktree cannot be read.
            let Progress { base, behind, .. } = progress.ok().filter(|progress| progress.behind > 0)?;
            let base_ref = worktree.base_ref.clone();
            Some(Behind::new(session.clone(), resource.to_owned(), base_ref, base, behind))
        })
        .collect()
}

/// Names the worktrees whose base has new commits, with the command that rebases them.
fn lacking(plan: &Plan) -> Vec<String> {
    let mut groups: BTreeMap<(String, &str, u64, RebaseIn), Vec<&SessionPath>> = BTreeMap::new();
    for Behind { session, resource, base_ref, base, commits, .. } in plan.behind() {
        let Some(found) = plan.session(session) else { continue };
        let Some(worktree) = found.allocation(resource).and_then(Worktree::from_allocation) else { continue };
        let place = RebaseIn::new(found, resource, &worktree);
        let to = rebase_target(base_ref, base);
        groups.entry((to, base_ref, *commits, place)).or_default().push(session);
    }
    let groups = groups.into_iter();
    groups
        .map(|((to, base_ref, commits, RebaseIn { repository, worktree }), sessions)| {
            let commits = output::count(commits, "commit");
            let (lack, them) = if sessions.len() == 1 { ("lacks", "it") } else { ("lack", "them") };
            let (mentioned, names) = (mentioned(&sessions), named(sessions.into_iter()));
            let of = repository.map_or_else(String::new, |repository| format!(" of {repository}"));
            let (which, git) = match worktree {
                None => (String::new(), "git".to_owned()),
                Some((name, path)) => (format!(" in {name}"), format!("git -C {}", shell_quoted(&path))),
            };
            format!(
                "{base_ref}{of} has {commits} that {mentioned} {lack}{which}; to bring {them} up to date: `seedbed exec \
                 {names} -- {git} rebase {to}`"
            )
        })
        .collect()
}

/// Worktree in which a suggested rebase runs.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RebaseIn {
    /// Name of the repository; `None` for the workspace's own.
    repository: Option<String>,
    /// Name of the worktree, and its path from the working directory of the session; `None` if it is the only worktree,
    /// and so the working directory.
    worktree: Option<(String, String)>,
}

impl RebaseIn {
    fn new(session: &Session, resource: &str, worktree: &Worktree) -> Self {
        let is_only = session.allocations_of(git_worktree::KIND).nth(1).is_none();
        let below = worktree.worktree_path.strip_prefix(&session.working_directory);
        // A working directory that is chosen by `directory` may lie elsewhere.
        let path = match below {
            Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
            Ok(below) => below.to_string_lossy().into_owned(),
            Err(_) => {
                let up = session.working_directory.components().map(|_| "..").collect::<Vec<_>>().join("/");
                format!("{up}/{}", worktree.worktree_path.to_string_lossy())
            }
        };
        let name = (!is_only).then(|| (resource.to_owned(), path));
        Self { repository: worktree.repository.clone(), worktree: name }
    }
}

/// Returns the argument of `git rebase` in a worktree; there, `HEAD` would be the worktree's own.
pub(super) fn rebase_target(base_ref: &str, base: &str) -> String {
    if base_ref == "HEAD" { base.chars().take(12).collect() } else { shell_quoted(base_ref) }
}

/// Checks that no run is in progress or interrupted: a plan would conflict with a partly applied swarm.
pub(super) fn settled(swarm: &Swarm<'_>) -> Result<(), Failure> {
    if !is_unsettled(swarm)? {
        return Ok(());
    }
    let Some(found) = swarm.found()? else { return Ok(()) };
    if found.is_interrupted() {
        return Err(interrupted(swarm));
    }
    if found.run.is_none() {
        return Ok(());
    }
    let by = found.holder.map(|holder| format!(" {holder}")).unwrap_or_default();
    let text = format!("a run of swarm `{}` is in progress{by}\nhelp: wait for it to end", swarm.name());
    Err(Failure::new(error::RUN_IN_PROGRESS, text))
}

/// Checks under the lock of the swarm that no run was interrupted.
pub(super) fn settled_under_lock(swarm: &Swarm<'_>) -> Result<(), Failure> {
    if is_unsettled(swarm)? { Err(interrupted(swarm)) } else { Ok(()) }
}

/// Returns whether a run is in progress or was interrupted, also a `run` while its command runs.
fn is_unsettled(swarm: &Swarm<'_>) -> Result<bool, Failure> {
    Ok(swarm.is_unfinished()? || swarm.applied()?.is_some_and(|record| record.temporary))
}

fn interrupted(swarm: &Swarm<'_>) -> Failure {
    let name = swarm.name();
    let help = "help: run `seedbed recover`, which finishes it or rolls it back";
    let text = format!("a run of swarm `{name}` was interrupted\n{help}");
    Failure::new(error::RUN_INTERRUPTED, text)
}

/// Returns facts about this host and repository, each once.
pub(super) fn notices(registry: &Registry, plan: &Plan, input: &PlanningInput) -> Vec<String> {
    let of_session = |(session, change): (&Session, &Change)| {
        let is_new = |allocation: &&Allocation| {
            let mut names = change.provision.iter().chain(&change.update);
            names.any(|name| name == allocation.name())
        };
        let provisioned = session.allocations.iter().filter(is_new);
        let notices = provisioned.filter_map(|allocation| {
            Some(registry.get(&allocation.kind)?.notices(allocation, &input.observation))
        });
        notices.flatten().collect::<Vec<_>>()
    };
    let each_once = |mut notices: Vec<String>, more: Vec<String>| {
        for notice in more {
            if !notices.contains(&notice) {
                notices.push(notice);
            }
        }
        notices
    };
    plan.sessions().par_iter().zip(plan.changes()).map(of_session).reduce(Vec::new, each_once)
}
