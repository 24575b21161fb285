//! `apply`: applies the manifest, or a saved plan.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use seedbed::apply::{self, Context, Fetched, Occupant, PlanningInput};
use seedbed::fleet::PlannedCommit;
use seedbed::host::absolute;
use seedbed::host::text::{printable, shell_quoted};
use seedbed::manifest::Manifest;
use seedbed::observe;
use seedbed::plan::{Action, Plan, PlannedRepository, SessionFinding};
use seedbed::provider::SharedResults;
use seedbed::report::error;
use seedbed::report::event::Done;
use seedbed::review::{self, Review};
use seedbed::state::{LockedSwarm, Record};

use super::exit::{Failure, Status};
use super::fleet::forgotten;
use super::lock::{recover, with_lock};
use super::overrides::Overrides;
use super::project::{Project, directory};
use super::release_options::{StopProcesses, UnsavedWork, options};
use super::repeated_steps::RepeatedSteps;
use super::{Global, applied_here, output, plan, plan_file, terminal};

/// Interval of checks for a Ctrl-C while an answer is awaited.
const ANSWER_POLL: Duration = Duration::from_millis(50);

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Plan that `seedbed plan -o` saved: apply exactly this plan, or refuse it as stale
    plan: Option<PathBuf>,
    /// Apply only a plan with this digest: `sha256:` and 64 digits, as `seedbed plan` prints it
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    expect: Option<String>,
    /// First fetch the base refs that follow a remote: `origin/main`, `pull/123`
    #[arg(long, conflicts_with = "plan")]
    fetch: bool,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    unsaved: UnsavedWork,
    #[command(flatten)]
    stop: StopProcesses,
    #[command(flatten)]
    again: RepeatedSteps,
    /// If a `setup` fails, keep the sessions, marked as broken, for the next `apply`; what the run replaces or destroys
    /// is not restored
    #[arg(long)]
    keep_failed: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    // The plan is read before signals are caught and before the lock, because it may come from a pipe.
    let directory = directory(global)?;
    if arguments.plan.is_some() && !arguments.again.is_empty() {
        let message = "`--setup` and `--refresh` are part of a saved plan\nhelp: make it with `seedbed plan -o FILE --setup`";
        return Err(Failure::new(error::USAGE, message));
    }
    if arguments.plan.is_some() {
        arguments.overrides.refuse_with_saved_plan()?;
    }
    let read = |path: &PathBuf| plan_file::read(&directory.join(path));
    let saved = arguments.plan.as_ref().map(read).transpose()?;
    let project = Project::find_with(global, &arguments.overrides.set)?;
    // A diagnostic of the manifest is reported before the command waits for anything.
    let manifest = project.manifest()?;
    applied_here::note_others(global, &project.swarm()?)?;
    let mut fetched = None;
    let mut attempt = |agreed: Option<&str>| {
        with_lock(global, &project, "apply", |context| {
            let options = options(arguments.unsaved, arguments.stop);
            recover(global, context, options)?;
            let mut options = options;
            options.keep_failed = arguments.keep_failed;
            let approval = Approval { expected: arguments.expect.as_deref(), agreed };
            let Some((plan, path)) = saved.clone().zip(arguments.plan.as_ref()) else {
                refuse_part(context.swarm)?;
                let fetched = match &fetched {
                    Some(fetched) => fetched,
                    None => {
                        &*fetched.insert(plan::fetched(&project, context.swarm, &manifest, arguments.fetch)?)
                    }
                };
                let steps = Steps { again: &arguments.again, fetched };
                return Stop::question(apply_manifest(
                    global, &project, context, &manifest, steps, approval, options,
                ));
            };
            check_digest(&plan, approval.expected, context.swarm.applied()?.as_ref())?;
            let saved = SavedPlan { path, commits: &[] };
            let (plan, record) = checked(&project, context.swarm, &manifest, plan, saved)?;
            let questions = [
                consent_to_repositories(global, &plan)?,
                consent(global, context, &plan, record.as_ref(), options, true)?,
            ];
            if let Some(question) = approval.open(&plan, questions) {
                return Ok(Err(question));
            }
            apply::apply(context, &plan, record.as_ref(), options)?;
            Ok(Ok(plan))
        })
    };
    // No lock is held while a question is open. The answer is about one plan: another one is a new question.
    let mut agreed = None;
    let plan = loop {
        match attempt(agreed.as_deref())? {
            Ok(plan) => break plan,
            Err(question) => agreed = Some(question.ask(global)?),
        }
    };
    if global.json {
        output::print_line(Done::applied(&plan));
    } else if !global.quiet {
        output::print(&output::session_table(&project.registry, plan.sessions()));
        say!("{}", outcome(&plan));
        if let Some(line) = plan::setup_not_run(&plan) {
            say!("{line}");
        }
    }
    Ok(Status::Done.into())
}

/// Refuses to apply the whole manifest on a host that has a part of a fleet.
fn refuse_part(swarm: &LockedSwarm<'_>) -> Result<(), Failure> {
    let Some(part) = swarm.applied_part()? else { return Ok(()) };
    if forgotten::is_forgotten(&part) {
        return Err(Failure::new(
            error::FLEET_PART,
            format!("{}\n{}", forgotten::message(&part), forgotten::HELP),
        ));
    }
    let directory = shell_quoted(&printable(&part.directory.to_string_lossy()));
    let message = format!(
        "the swarm is the part of host {} of a fleet\nhelp: run `seedbed fleet apply {directory}`, or `seedbed destroy` first",
        printable(&part.host)
    );
    Err(Failure::new(error::FLEET_PART, message))
}

/// Steps of a run beside those of the plan.
#[derive(Clone, Copy)]
pub(super) struct Steps<'s> {
    /// Steps that are repeated in active sessions.
    pub(super) again: &'s RepeatedSteps,
    /// Base refs that were fetched before.
    pub(super) fetched: &'s Fetched,
}

/// Approval of a plan.
#[derive(Clone, Copy, Default)]
pub(super) struct Approval<'a> {
    /// Digest that the plan has to have.
    expected: Option<&'a str>,
    /// Digest of the plan to which the user has agreed.
    agreed: Option<&'a str>,
}

impl Approval<'_> {
    /// Returns the questions that are still to be asked before the plan is applied.
    fn open(self, plan: &Plan, questions: impl IntoIterator<Item = Option<String>>) -> Option<Question> {
        let digest = plan.approval();
        let texts: Vec<_> = questions.into_iter().flatten().collect();
        (!texts.is_empty() && self.agreed != Some(&*digest)).then_some(Question { texts, digest })
    }
}

/// Questions to the user about one plan.
pub(super) struct Question {
    texts: Vec<String>,
    /// Digest that approves the plan.
    digest: String,
}

impl Question {
    /// Asks the user, and returns the digest of the plan to which the user agrees.
    fn ask(self, global: &Global) -> Result<String, Failure> {
        self.texts.iter().try_for_each(|text| ask(global, text))?;
        Ok(self.digest)
    }
}

/// Reason for which a manifest is not applied.
pub(super) enum Stop {
    /// The user has to agree first.
    Question(Question),
    /// The run has failed.
    Failure(Failure),
}

impl Stop {
    /// Separates a question from failures.
    fn question(done: Result<Plan, Self>) -> Result<Result<Plan, Question>, Failure> {
        match done {
            Ok(plan) => Ok(Ok(plan)),
            Err(Self::Question(question)) => Ok(Err(question)),
            Err(Self::Failure(failure)) => Err(failure),
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<apply::Error> for Stop {
    fn from(error: apply::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<Stop> for Failure {
    /// Returns the failure of a command that asks nothing.
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failure(failure) => failure,
            Stop::Question(question) => Self::new(error::CONSENT_REQUIRED, question.texts.join("\n")),
        }
    }
}

/// Plans and applies; plans again if another run has taken the planned resources first.
pub(super) fn apply_manifest(
    global: &Global,
    project: &Project,
    context: &Context<'_>,
    manifest: &Manifest,
    steps: Steps<'_>,
    approval: Approval<'_>,
    options: apply::Options,
) -> Result<Plan, Stop> {
    let mut is_first = true;
    let make = || {
        let (plan, input, not_refreshed) =
            plan::make(project, context.swarm, manifest, steps.again, steps.fetched)?;
        for SessionFinding { session, description, .. } in not_refreshed.into_iter().filter(|_| is_first) {
            (context.events)(&apply::Event::NotRefreshed { session, description });
        }
        is_first = false;
        Ok((plan, input))
    };
    let check = |plan: &Plan, input: &PlanningInput| {
        let record = input.record.as_ref();
        check_digest(plan, approval.expected, record)?;
        let question = consent(global, context, plan, record, options, global.verbose)?;
        approval.open(plan, [question]).map_or(Ok(()), |question| Err(Stop::Question(question)))
    };
    apply::apply_until_free(context, options, make, check, |why| {
        if !global.quiet && !global.json {
            say!("the plan is stale ({}); planning again", printable(why));
        }
    })
}

/// Parses a digest as [`Plan::digest`] has it.
pub(super) fn digest(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() == 64 && digits.bytes().all(is_digit) {
        return Ok(text.to_owned());
    }
    Err("a digest is `sha256:` and 64 digits of 0-9 and a-f".to_owned())
}

/// Refuses a plan that does not have the expected digest, and shows what it would change.
///
/// A digest does not reveal the plan that it was made from. Only if that plan is applied, the changes are the differences.
fn check_digest(plan: &Plan, expected: Option<&str>, applied: Option<&Record>) -> Result<(), Failure> {
    let Some(expected) = expected.filter(|expected| *expected != plan.approval()) else { return Ok(()) };
    let is_applied = applied.is_some_and(|record| record.plan.digest() == expected);
    let why = if plan.digest() == expected {
        "it also releases resources of this host, which have to be reviewed here"
    } else if is_applied {
        "the expected plan is applied, and the manifest or the host has changed since then"
    } else {
        "the manifest or the host has changed since the expected plan was made, or it was made elsewhere"
    };
    let shown = Review::new(plan).text(review::text::Style::default());
    let message = format!(
        "the plan has another digest than the expected {expected}: {why}; nothing was changed\n\n{shown}\nhelp: review this plan, and \
         pass its digest: --expect {}",
        plan.approval()
    );
    Err(Failure::new(error::PLAN_UNEXPECTED, message))
}

/// Facts about a saved plan beside its content.
#[derive(Clone, Copy)]
pub(super) struct SavedPlan<'p> {
    /// Path of its file.
    pub(super) path: &'p Path,
    /// Commits that refs have for this plan, instead of those that they name on this host.
    pub(super) commits: &'p [PlannedCommit],
}

/// Returns a saved plan, if it is not stale.
pub(super) fn checked(
    project: &Project,
    swarm: &LockedSwarm<'_>,
    manifest: &Manifest,
    plan: Plan,
    saved: SavedPlan<'_>,
) -> Result<(Plan, Option<Record>), Failure> {
    let path = saved.path;
    if manifest.swarm != plan.swarm() {
        return Err(Failure::new(
            error::PLAN_FILE_FOREIGN,
            format!(
                "{} is a plan for swarm `{}`, and the manifest declares `{}`\nhelp: name its manifest with `-f FILE`",
                path.display(),
                plan.swarm(),
                manifest.swarm
            ),
        ));
    }
    let declared = project.repositories(manifest);
    let is_declared = |repository: &PlannedRepository| {
        declared.get(&repository.name) == Some(&absolute(swarm.workspace(), &repository.root))
    };
    if let Some(other) = plan.repositories().iter().find(|repository| !is_declared(repository)) {
        return Err(Failure::new(
            error::PLAN_FILE_FOREIGN,
            format!(
                "{} is a plan for the repository `{}` at {}, which the manifest does not declare there\nhelp: make a new plan: \
                 `seedbed plan -o FILE`",
                path.display(),
                printable(&other.name),
                printable(&other.root.to_string_lossy())
            ),
        ));
    }
    let record = swarm.applied()?;
    let queries = apply::queries(&plan, &project.registry);
    let mut observation =
        observe::observe(&project.host, swarm.workspace(), &queries).map_err(Failure::Observe)?;
    for PlannedCommit { repository, base_ref, commit, .. } in saved.commits {
        if let Some(observed) = observation.repository_mut(repository).commits.get_mut(base_ref) {
            *observed = Ok(commit.clone());
        }
    }
    if let Some(record) = &record {
        apply::against(&mut observation, &project.host, record)?;
    }
    let shared_results = SharedResults::default();
    let applied =
        record.as_ref().map(|record| apply::applied_plan(swarm, &project.registry, record, &shared_results));
    let stale = apply::stale_reasons(&plan, &project.registry, &observation, applied.as_ref());
    if !stale.is_empty() {
        return Err(apply::Error::Stale(stale).into());
    }
    let before = record.as_ref();
    let plan = plan::inspect_releases(project, swarm, before, applied.as_ref(), &shared_results, plan)?;
    Ok((plan, record))
}

/// Returns the question to ask before a saved plan changes repositories beside the workspace's own; `None` if it changes
/// none.
fn consent_to_repositories(global: &Global, plan: &Plan) -> Result<Option<String>, Failure> {
    if plan.repositories().is_empty() || !plan.has_changes() || global.yes {
        return Ok(None);
    }
    let named = plan.repositories().iter().map(|repository| {
        format!("{} ({})", printable(&repository.name), printable(&repository.root.to_string_lossy()))
    });
    let named = named.collect::<Vec<_>>().join(", ");
    if has_terminal() {
        return Ok(Some(format!("Apply the plan in these other repositories too: {named}?")));
    }
    Err(Failure::new(
        error::CONSENT_REQUIRED,
        format!("the plan changes other repositories: {named}\nhelp: review it, then confirm with `--yes`"),
    ))
}

/// Returns the question to ask before existing allocations are removed; `None` if none is.
///
/// A plan that would be refused afterwards is refused before the question. `full` shows all data and commands of the
/// plan.
fn consent(
    global: &Global,
    context: &Context<'_>,
    plan: &Plan,
    applied: Option<&Record>,
    options: apply::Options,
    full: bool,
) -> Result<Option<String>, Failure> {
    if !plan.unsaved_work().is_empty() || plan.occupants().iter().any(Occupant::is_refusal) {
        apply::check_releases(context, plan, applied, options)?;
    }
    let goes: Vec<_> = plan
        .changes()
        .iter()
        .filter(|change| {
            matches!(change.action, Action::Destroy | Action::Replace) && !change.release.is_empty()
        })
        .map(|change| change.session.as_str())
        .collect();
    if goes.is_empty() || global.yes {
        return Ok(None);
    }
    if !has_terminal() {
        return Err(Failure::new(
            error::CONSENT_REQUIRED,
            format!(
                "{} would be destroyed or replaced\nhelp: review `seedbed plan`, then confirm with `--yes`",
                goes.join(", ")
            ),
        ));
    }
    let style = terminal::style(global, &std::io::stderr()).with_full(full);
    let shown = Review::new(plan).with_notices(&plan::refusals(plan)).text(style);
    Ok(Some(format!("{shown}\nDestroy or replace {}?", goes.join(", "))))
}

/// Asks the user on the terminal; any answer except yes refuses the command.
pub(super) fn ask(global: &Global, question: &str) -> Result<(), Failure> {
    output::print_error(&format!("{question} [y/N] "));
    let mut answer = String::new();
    wait_for_an_answer(global)?;
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(error::DECLINED, "nothing was changed"))
}

/// Returns whether the user can be asked.
pub(super) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Waits for input, or for a Ctrl-C: a read would continue after a Ctrl-C.
fn wait_for_an_answer(global: &Global) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    let tick = Timespec { tv_sec: 0, tv_nsec: ANSWER_POLL.subsec_nanos().into() };
    loop {
        global.unless_interrupted()?;
        // If `poll` fails, the read reports the error.
        if !matches!(poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&tick)), Ok(0) | Err(Errno::INTR)) {
            return Ok(());
        }
    }
}

fn outcome(plan: &Plan) -> String {
    if plan.has_changes() {
        format!("swarm {} is applied: {}", plan.swarm(), review::outcome(plan))
    } else {
        format!("swarm {} is applied; nothing to do", plan.swarm())
    }
}
