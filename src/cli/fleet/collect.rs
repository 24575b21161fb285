//! `fleet collect`: brings the commits of the sessions of all hosts to this host, and shows the results.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use seedbed::collect::brought::{self, BroughtWorktree, HostWork, Received};
use seedbed::collect::{Collected, Source, WorktreeName};
use seedbed::fleet;
use seedbed::fleet::coordinator::HostProblem;
use seedbed::fleet::directory::{FleetDirectory, Index};
use seedbed::name::SessionPath;
use seedbed::plan::{Plan, Session};
use seedbed::provider::git_worktree::{Head, Worktree};
use seedbed::report::SCHEMA_VERSION;
use seedbed::report::collected::{CollectedSwarm, CollectedWorktree, MissingHost};
use seedbed::report::error;
use seedbed::state::{self, Swarm};

use super::command::requested;
use super::opened::{Fleet, FleetArguments, listed};
use crate::cli::Global;
use crate::cli::collect::{self, Format, Uncommitted};
use crate::cli::exit::{Failure, Status};
use crate::cli::last_runs::last_runs;
use crate::cli::lock::with_lock;
use crate::cli::lookup::{Active, Family};
use crate::cli::plan_format::choose;
use crate::cli::project::{self, Project};

/// Arguments of `fleet collect`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    fleet: FleetArguments,
    /// Sessions: paths, names, names of replicas without their number, or globs [default: all]
    #[arg(value_name = "SESSION")]
    sessions: Vec<String>,
    /// Compare with this ref of each repository of this host [default: the base ref of each worktree]
    #[arg(long, value_name = "REF")]
    into: Option<String>,
    /// Also keep the rescues of these hosts in the directory of the fleet
    #[arg(long)]
    rescues: bool,
    /// Format of the report
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let format = choose(global, arguments.format, Format::Json)?;
    let project = Project::find(global)?;
    let fleet = Fleet::open(global, &project, &arguments.fleet.reach, false)?;
    let index = fleet.directory.index()?.unwrap_or_else(|| Index::empty(&fleet.config.swarm, ""));
    let mut chosen = match (&index.sessions[..], arguments.rescues) {
        ([], true) => BTreeMap::new(),
        (sessions, _) => requested(sessions, &arguments.sessions, &arguments.fleet.reach.hosts)?,
    };
    if arguments.rescues && arguments.sessions.is_empty() {
        // A host may have rescues of sessions that it has no more.
        for host in &fleet.config.hosts {
            chosen.entry(host.clone()).or_default();
        }
    }
    let plans = plans(&fleet.directory, &project, &index, &chosen)?;
    let launcher = fleet.launcher(&project)?;
    let hosts = fleet.hosts(&project, launcher.as_ref());
    let request = state::new_owner()?;
    let names: Vec<String> = chosen.keys().cloned().collect();
    let endings = hosts.collect(&request, &names, arguments.rescues, arguments.fleet.timeout);
    global.unless_interrupted()?;
    let swarm = project.swarm()?;
    let manifest = project.manifest()?;
    let repositories = project.repositories(&manifest);
    let mut brought = Brought::default();
    for host in &names {
        let sessions = plans.get(host).into_iter().flat_map(Plan::sessions);
        let sources = sessions.flat_map(Source::of_session).map(|mut source| {
            let root = source.worktree.repository.as_ref().and_then(|name| repositories.get(name));
            source.worktree.repo_root = root.cloned().unwrap_or(source.worktree.repo_root);
            source
        });
        let sources: Vec<_> = sources.collect();
        let answer = fleet.directory.work(&request, host).map_err(|error| error.to_string());
        let work = match answer {
            Ok(Some(HostWork { error: Some(why), .. })) | Err(why) => Err(why),
            Ok(Some(work)) => Ok(work),
            Ok(None) => Err(match endings.get(host) {
                Some(Err(error)) => format!("it gave no results: {error}"),
                _ => "it gave no results".to_owned(),
            }),
        };
        match work {
            Ok(work) => brought.take(&project, &swarm, &fleet, &work, sources, &chosen[host])?,
            Err(why) => brought.missing.push(HostProblem::new(host, &why)),
        }
    }
    fleet.directory.remove_collected(&request)?;
    if arguments.rescues && !global.quiet && !global.json {
        fleet.say_rescues(&names)?;
    }
    brought.show(global, &project, &swarm, arguments.into.as_deref(), format)
}

/// Returns the plans of the hosts of sessions, which are those that the index was made from.
fn plans(
    directory: &FleetDirectory,
    project: &Project,
    index: &Index,
    hosts: &BTreeMap<String, Vec<SessionPath>>,
) -> Result<BTreeMap<String, Plan>, Failure> {
    let with_sessions = || hosts.iter().filter(|(_, sessions)| !sessions.is_empty()).map(|(host, _)| host);
    if with_sessions().next().is_none() {
        return Ok(BTreeMap::new());
    }
    let saved = directory.plan_directory(&index.run)?;
    let invalid = |error: fleet::SavedError| Failure::new(error::PLAN_FILE_INVALID, error.to_string());
    let plan = fleet::load(&saved).map_err(invalid)?;
    let shards = plan.shards.iter().filter(|shard| hosts.contains_key(&shard.host));
    let load = |shard| fleet::load_shard(&saved, shard, &project.registry).map_err(invalid);
    let plans = shards.map(|shard| Ok((shard.host.clone(), load(shard)?)));
    let plans: BTreeMap<_, _> = plans.collect::<Result<_, Failure>>()?;
    match with_sessions().find(|host| !plans.contains_key(*host)) {
        None => Ok(plans),
        Some(host) => {
            let why = format!("the plan of run {} has no part for host {host}", index.run);
            Err(Failure::new(error::PLAN_FILE_INVALID, why))
        }
    }
}

/// Results that hosts have brought: the worktrees of the chosen sessions, in the order of hosts and plans.
#[derive(Default)]
struct Brought {
    sessions: Vec<(SessionPath, String, Worktree)>,
    heads: Vec<Result<Head, String>>,
    reported: Vec<Option<BroughtWorktree>>,
    received: Vec<Option<Received>>,
    /// Hosts whose results are missing, or could not be taken.
    missing: Vec<HostProblem>,
}

impl Brought {
    /// Takes the commits of a host into the repositories of this one.
    fn take(
        &mut self,
        project: &Project,
        swarm: &Swarm<'_>,
        fleet: &Fleet,
        work: &HostWork,
        sources: Vec<Source<'_>>,
        chosen: &[SessionPath],
    ) -> Result<(), Failure> {
        let from = fleet.directory.collected(&work.request, &work.host)?;
        let received =
            brought::receive(&project.host, swarm.workspace(), &fleet.config.swarm, &sources, work, &from);
        let mut why_not = None;
        for (source, received) in sources.into_iter().zip(received) {
            if let Some(Err(why)) = &received {
                why_not.get_or_insert_with(|| why.clone());
            }
            if !chosen.contains(source.session) {
                continue;
            }
            let reported = work.worktrees.iter().find(|worktree| {
                (&worktree.session, worktree.resource.as_str()) == (source.session, source.resource)
            });
            let head = match (&received, reported.and_then(|worktree| worktree.head.clone())) {
                (Some(Ok(_)), Some(name)) => {
                    Ok(Head { branch: reported.and_then(|worktree| worktree.branch.clone()), name })
                }
                (Some(Err(why)), _) => Err(why.clone()),
                _ => Err(format!("the session is not active on host {}", work.host)),
            };
            self.sessions.push((source.session.clone(), source.resource.to_owned(), source.worktree));
            self.heads.push(head);
            self.reported.push(reported.cloned());
            self.received.push(received.and_then(Result::ok));
        }
        self.missing.extend(why_not.map(|why| HostProblem::new(&work.host, &why)));
        Ok(())
    }

    /// Shows the results, as `collect` does.
    fn show(
        self,
        global: &Global,
        project: &Project,
        swarm: &Swarm<'_>,
        into: Option<&str>,
        format: Format,
    ) -> Result<ExitCode, Failure> {
        let sources = self.sessions.iter().map(|(session, resource, worktree)| Source {
            session,
            resource,
            worktree: worktree.clone(),
        });
        let sources: Vec<_> = sources.collect();
        let (host, workspace) = (swarm.host(), swarm.workspace());
        let collected = seedbed::collect::collect_brought(host, workspace, &sources, &self.heads, into);
        let collected: Collected = collected.map_err(Failure::from_error)?;
        let is_in_workspace = global.directory.is_none() && project::directory(global)? == workspace;
        let names: BTreeMap<WorktreeName, String> = collected
            .results
            .iter()
            .zip(&self.received)
            .filter_map(|(outcome, received)| Some((outcome.name(), received.as_ref()?.reference.clone())))
            .collect();
        let merge_commands =
            collect::merges::commands(host, workspace, is_in_workspace, &sources, (&collected, &names))?;
        let name = project.swarm()?.name().to_owned();
        let worktrees = collected.results.into_iter().zip(self.reported).zip(self.received);
        let worktrees = worktrees.map(|((outcome, reported), received)| {
            let (unsaved, unsaved_unknown, last_run) = reported
                .map(|reported| (reported.unsaved, reported.unsaved_unknown, reported.last_run))
                .unwrap_or_default();
            let id = format!("{name}/{}", outcome.session);
            CollectedWorktree { id, outcome, unsaved, unsaved_unknown, last_run, exported: None, received }
        });
        let missing_hosts = self
            .missing
            .iter()
            .map(|problem| MissingHost { host: problem.host.clone(), error: problem.why.clone() });
        let document = CollectedSwarm {
            schema_version: SCHEMA_VERSION,
            swarm: name.clone(),
            workspace: workspace.to_owned(),
            worktrees: worktrees.collect(),
            overlaps: collected.overlaps,
            conflicts: collected.conflicts,
            conflicts_unknown: collected.conflicts_unknown,
            merge_commands,
            missing_hosts: missing_hosts.collect(),
        };
        collect::print(&document, format, global.verbose);
        if self.missing.is_empty() {
            return Ok(Status::Done.into());
        }
        let help = "help: once these hosts can be reached, run `seedbed fleet collect DIR` again";
        say!("error: {}\n{help}", listed("the results of hosts are missing", &self.missing));
        Ok(ExitCode::from(error::FLEET_DEGRADED.exit_code))
    }
}

/// Brings the commits of the sessions of this host, and its rescues if they are requested. `prepare` is done first.
pub(super) fn phase(
    global: &Global,
    project: &Project,
    directory: &FleetDirectory,
    (host, request, with_rescues): (&str, &str, bool),
    prepare: impl FnOnce() -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let brought = prepare().and_then(|()| bring(global, project, directory, (host, request, with_rescues)));
    let error = brought.as_ref().err().map(Failure::summary);
    let work = match &brought {
        Ok(work) => work.clone(),
        Err(_) => HostWork::new(request, host, error),
    };
    directory.write_work(&work)?;
    brought.map(|_| Status::Done.into())
}

fn bring(
    global: &Global,
    project: &Project,
    directory: &FleetDirectory,
    (host, request, with_rescues): (&str, &str, bool),
) -> Result<HostWork, Failure> {
    if with_rescues {
        with_lock(global, project, "fleet", |context| {
            let applied = context.swarm.applied()?;
            let sessions = applied.iter().flat_map(|record| record.plan.sessions());
            bring_rescues(project, directory, (host, request), sessions)
        })?;
    }
    let mut work = HostWork::new(request, host, None);
    let index = directory.index()?;
    let sessions = index.iter().flat_map(|index| &index.sessions).filter(|session| session.host == host);
    let planned: Vec<_> = sessions.map(|session| &session.session).collect();
    if planned.is_empty() {
        return Ok(work);
    }
    let family = Family::find(project.swarm()?, project.name())?;
    let (swarm, record) = (&family.swarm, &family.record);
    let sessions = record.plan.sessions().iter().filter(|session| planned.contains(&&session.path));
    let (active, sources): (Vec<Active<'_>>, Vec<Source<'_>>) = sessions
        .flat_map(|session| {
            Source::of_session(session).map(move |source| (Active { swarm, record, session }, source))
        })
        .unzip();
    let to = directory.collected(request, host)?;
    let (heads, bundles) =
        brought::bring(swarm.host(), swarm.workspace(), record.plan.swarm(), &sources, &to)
            .map_err(Failure::from_error)?;
    work.bundles = bundles;
    let mut unsaved = collect::unsaved(project, &active)?;
    let last_runs = last_runs(&active);
    let worktrees = active.iter().zip(&sources).zip(heads).map(|((active, source), head)| {
        let id = &active.session.id;
        let Uncommitted { unsaved, unknown } =
            unsaved.remove(&(id.clone(), source.resource.to_owned())).unwrap_or_default();
        let error = head.as_ref().err().cloned();
        let (branch, head) = head.ok().map_or((None, None), |head| (head.branch, Some(head.name)));
        BroughtWorktree {
            session: source.session.clone(),
            resource: source.resource.to_owned(),
            branch,
            head,
            error,
            unsaved,
            unsaved_unknown: unknown,
            last_run: last_runs.get(id).cloned(),
        }
    });
    work.worktrees = worktrees.collect();
    Ok(work)
}

/// Keeps the rescues of this host in the directory of the fleet.
pub(super) fn bring_rescues<'s>(
    project: &Project,
    directory: &FleetDirectory,
    names: (&str, &str),
    sessions: impl Iterator<Item = &'s Session>,
) -> Result<(), Failure> {
    let worktrees: Vec<Worktree> =
        sessions.flat_map(Source::of_session).map(|source| source.worktree).collect();
    let swarm = project.swarm()?;
    let of_swarm = (swarm.workspace(), swarm.name());
    Ok(directory.bring_rescues(&project.host, names, of_swarm, &worktrees)?)
}
