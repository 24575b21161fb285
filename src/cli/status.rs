//! `status`: shows the allocations, unsaved work, commits and listening ports of every session.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use seedbed::apply::{self, Repair, SessionFinding, UnusableRepository};
use seedbed::discovery;
use seedbed::host::text::printable;
use seedbed::host::{absolute, clock};
use seedbed::name::SessionPath;
use seedbed::observe::{self, PortOwner, Query};
use seedbed::plan::{DamageKind, Session};
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::provider::{Allocation, Registry};
use seedbed::report::status::{
    ActiveRun, Commits, ExpiryStatus, PortStatus, Repairs, SessionStatus, SwarmStatus, Work, WorktreeStatus,
};
use seedbed::report::{DiskUsage, SCHEMA_VERSION};
use seedbed::state::{Record, RecordedSwarm, Swarm};

use super::exit::{self, Failure, Status};
use super::fleet::forgotten;
use super::last_runs::last_runs;
use super::lock::with_lock;
use super::lookup::{Active, Family};
use super::project::Project;
use super::suggestion::pasteable;
use super::{Global, lookup, output, unfinished_runs};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Repair discovery files, locks of worktrees and leases of ports; exit with 1 if other damage remains, which `seedbed
    /// apply` repairs
    #[arg(long)]
    repair: bool,
    /// Measure the disk space of each session, and find the time of its last change
    #[arg(long)]
    sizes: bool,
    /// Exit with 2 if a session differs from what was applied, or a run was interrupted
    #[arg(long)]
    detailed_exitcode: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let project = Project::find_applied(global)?;
    let family = Family::find(project.swarm()?, project.name())?;
    forgotten::note(global, &family.swarm)?;
    let Family { swarm, record, children } = &family;
    let found = swarm.found()?;
    let unfinished =
        found.as_ref().map(|found| unfinished_runs::explained(found, swarm)).transpose()?.unwrap_or_default();
    let repair = if arguments.repair { Some(repair(global, &project)?) } else { None };
    let whole = |repair: &Repair| repair.left.is_empty() && repair.failures.is_empty();
    let served = served(swarm)?;
    let mut inspected = Inspected::default();
    inspected.add(&project, swarm, record)?;
    for (swarm, record) in children {
        inspected.add(&project, swarm, record)?;
    }
    let mut usage = if arguments.sizes { usage(&project, &family) } else { BTreeMap::new() };
    let active = family.sessions();
    let mut progress = progress(swarm, &active);
    let mut last_runs = last_runs(&active);
    let holders = holders(&project.registry, &active, &served);
    let now = clock::seconds();
    let sessions = active.iter().map(|active @ Active { swarm, record, session }| {
        let drift = inspected.drift.remove(&session.id).unwrap_or_default();
        let unsaved = inspected.unsaved.remove(&session.id).unwrap_or_default();
        let also_removed = inspected.also_removed.remove(&session.id).unwrap_or_default();
        let has_directory = drift.is_empty() || active.directory(&project.registry).is_ok();
        let mut worktrees = progress.remove(&session.id).unwrap_or_default().into_iter();
        SessionStatus {
            session: session.path.clone(),
            id: session.id.clone(),
            child_of: record.ancestors.first().cloned(),
            index: session.index,
            replica: session.replica,
            spawned: session.spawned.is_some(),
            working_directory: absolute(swarm.workspace(), &session.working_directory),
            discovery_file: discovery::file(swarm, session),
            drift,
            work: match (unsaved.is_empty(), has_directory) {
                (false, _) => Work::Unsaved,
                (true, true) => Work::Clean,
                (true, false) => Work::Unknown,
            },
            unsaved,
            ignored: also_removed.iter().map(|line| ignored(line)).sum(),
            also_removed,
            outdated: inspected.outdated.remove(&session.id).unwrap_or_default(),
            worktree: worktrees.next(),
            other_worktrees: worktrees.collect(),
            ports: ports(&project.registry, session, &served),
            listening: listening(session, &holders),
            resources: resources(&project.registry, session),
            environment: discovery::environment(swarm, session),
            expiry: record.expiry(session).map(|expiry| ExpiryStatus {
                at: expiry.at.map(clock::rfc3339),
                expired: expiry.is_past(now),
                after: expiry.after,
            }),
            usage: usage.remove(&session.id),
            last_run: last_runs.remove(&session.id),
        }
    });
    let sessions: Vec<_> = sessions.collect();
    global.unless_interrupted()?;
    let is_interrupted = found.as_ref().is_some_and(RecordedSwarm::is_interrupted);
    let has_drift = is_interrupted || sessions.iter().any(|session| !session.drift.is_empty());
    let status = match &repair {
        Some(repair) if !whole(repair) => Status::Failed,
        _ if arguments.detailed_exitcode && has_drift => Status::Changes,
        _ => Status::Done,
    };
    if global.json {
        output::print_json_pretty(&SwarmStatus {
            schema_version: SCHEMA_VERSION,
            swarm: record.plan.swarm().to_owned(),
            workspace: record.workspace.clone(),
            plan: record.plan.digest().to_owned(),
            interrupted: !unfinished.is_empty(),
            run: found.filter(|found| found.is_running(swarm.host())).and_then(|found| {
                let (phase, phase_since) = found.phase.unzip();
                Some(ActiveRun { holder: found.holder?, phase, phase_since })
            }),
            unfinished,
            sessions,
            repair: repair.map(|Repair { repaired, left, failures, .. }| Repairs {
                repaired,
                left,
                failures,
            }),
        });
        return Ok(status.into());
    }
    for line in &unfinished {
        say!("{}", printable(line));
    }
    output::print(&text::text(&sessions, &inspected.broken, global.verbose));
    if !global.quiet {
        print_unusable(&apply::unusable_repositories(swarm, &project.registry, record));
    }
    Ok(status.into())
}

/// Prints the repositories that cannot be used, and the remedy.
fn print_unusable(repositories: &[UnusableRepository]) {
    for repository in repositories {
        say!("{}", exit::unusable(repository));
    }
    if !repositories.is_empty() {
        say!("{}", pasteable(&exit::repository_remedy(repositories)));
    }
}

/// Repairs under the swarm's lock, and reports the repairs.
fn repair(global: &Global, project: &Project) -> Result<Repair, Failure> {
    let repair = with_lock(global, project, "status --repair", |context| {
        super::plan::settled_under_lock(context.swarm)?;
        let record = lookup::record(context.swarm, project.name())?;
        Ok(apply::repair(context, &record))
    })?;
    if global.json || global.quiet {
        return Ok(repair);
    }
    let say = |word: &str, SessionFinding { session, description, .. }: &SessionFinding| {
        say!("{session}: {word}: {}", printable(description));
    };
    repair.repaired.iter().for_each(|line| say("repaired", line));
    repair.left.iter().for_each(|line| say("only `seedbed apply` repairs", line));
    for apply::Failure { session, step, cause, .. } in &repair.failures {
        say!("{session}: could not repair: {step}: {}", printable(cause));
    }
    Ok(repair)
}

/// Results of the inspection of each session, by session id.
#[derive(Default)]
struct Inspected {
    drift: BTreeMap<String, Vec<String>>,
    /// Sessions whose drift is more than a discovery file of an older format.
    broken: BTreeSet<String>,
    unsaved: BTreeMap<String, Vec<String>>,
    also_removed: BTreeMap<String, Vec<String>>,
    outdated: BTreeMap<String, Vec<String>>,
}

impl Inspected {
    /// Adds the results for the sessions of one record.
    fn add(&mut self, project: &Project, swarm: &Swarm<'_>, record: &Record) -> Result<(), Failure> {
        let id = |path: &SessionPath| path.id(record.plan.swarm());
        let (broken, impact) = apply::examine(swarm, &project.registry, record)?;
        for ((path, kind), damage) in broken {
            if damage.kind != DamageKind::Older {
                self.broken.insert(id(&path));
            }
            self.drift.entry(id(&path)).or_default().push(format!("{kind}: {}", damage.why));
        }
        for SessionFinding { session, description, .. } in
            [impact.obstacles, impact.work, impact.beyond_rescue, impact.unknown].concat()
        {
            self.unsaved.entry(id(&session)).or_default().push(description);
        }
        for SessionFinding { session, description, .. } in impact.also_removed {
            self.also_removed.entry(id(&session)).or_default().push(description);
        }
        for SessionFinding { session, description, .. } in apply::outdated(swarm, &project.registry, record) {
            self.outdated.entry(id(&session)).or_default().push(description);
        }
        Ok(())
    }
}

/// Returns the disk space of all sessions, by session id.
fn usage(project: &Project, Family { swarm, record, children }: &Family<'_>) -> BTreeMap<String, DiskUsage> {
    let children = children.iter().map(|(swarm, record)| (swarm, record));
    let all = std::iter::once((swarm, record)).chain(children);
    let of_record = |(swarm, record): (&Swarm<'_>, &Record)| {
        let name = record.plan.swarm().to_owned();
        let usage = apply::usage(swarm, &project.registry, record).into_iter();
        usage.map(move |(path, usage)| (path.id(&name), DiskUsage::from(usage)))
    };
    all.flat_map(of_record).collect()
}

/// The ports of the host on which something listens.
fn served(swarm: &Swarm<'_>) -> Result<BTreeSet<u16>, Failure> {
    let observation = observe::observe(swarm.host(), swarm.workspace(), &BTreeSet::from([Query::Ports]))
        .map_err(Failure::Observe)?;
    let sockets =
        observation.ports_in_use.iter().filter(|used| matches!(used.owner, PortOwner::Socket { .. }));
    Ok(sockets.map(|used| used.block.start()).collect())
}

/// Returns the worktrees of the sessions, by session id.
fn progress(swarm: &Swarm<'_>, sessions: &[Active<'_>]) -> BTreeMap<String, Vec<WorktreeStatus>> {
    let of_session = |active: &Active<'_>| {
        let session = active.session;
        let worktrees = session.allocations_of(git_worktree::KIND);
        let worktrees = worktrees.filter_map(|allocation| {
            Some((session.id.clone(), allocation.name().to_owned(), Worktree::from_allocation(allocation)?))
        });
        worktrees.collect::<Vec<_>>()
    };
    let worktrees: Vec<_> = sessions.iter().flat_map(of_session).collect();
    let listed: Vec<&Worktree> = worktrees.iter().map(|(_, _, worktree)| worktree).collect();
    let progress = git_worktree::progress(swarm.host(), swarm.workspace(), &listed);
    let mut by_session: BTreeMap<String, Vec<WorktreeStatus>> = BTreeMap::new();
    for ((id, name, worktree), progress) in worktrees.into_iter().zip(progress) {
        let (progress, error) = match progress {
            Ok(progress) => (Some(progress), None),
            Err(error) => (None, Some(error)),
        };
        let status = WorktreeStatus {
            name,
            path: absolute(swarm.workspace(), &worktree.worktree_path),
            repository: worktree.repository,
            base_ref: worktree.base_ref,
            made_from: worktree.commit,
            progress: progress.map(|progress| Commits {
                branch: progress.branch,
                head: progress.head,
                base: progress.base,
                ahead: progress.ahead,
                behind: progress.behind,
                subject: progress.subject,
                committed: clock::rfc3339(progress.committed),
            }),
            error,
        };
        by_session.entry(id).or_default().push(status);
    }
    by_session
}

/// Returns the named ports of a session, as its kinds name them.
fn ports(registry: &Registry, session: &Session, served: &BTreeSet<u16>) -> Vec<PortStatus> {
    let of_allocation = |allocation: &Allocation| {
        registry.get(&allocation.kind).map(|kind| kind.named_ports(allocation)).unwrap_or_default()
    };
    let named = session.allocations.iter().flat_map(of_allocation);
    named.map(|(name, port)| PortStatus { name, port, listens: served.contains(&port) }).collect()
}

/// Describes the resources of a session that have neither ports nor commits, by kind.
fn resources(registry: &Registry, session: &Session) -> BTreeMap<String, String> {
    let others = session.allocations.iter().filter(|allocation| allocation.kind != git_worktree::KIND);
    let described = others.filter_map(|allocation| {
        let kind = registry.get(&allocation.kind).filter(|kind| kind.ports(allocation).is_none())?;
        let fields = || serde_json::to_string(&allocation.allocation).unwrap_or_default();
        Some((allocation.name().to_owned(), kind.summary(allocation, false).unwrap_or_else(fields)))
    });
    described.collect()
}

/// Returns the session that owns each port on which a program listens.
///
/// If a child has a share of the parent's block, the child owns the port; the child is listed after the parent.
fn holders<'f>(
    registry: &Registry,
    sessions: &[Active<'f>],
    served: &BTreeSet<u16>,
) -> BTreeMap<u16, &'f str> {
    let mut holders = BTreeMap::new();
    for Active { session, .. } in sessions {
        let allocations = session.allocations.iter();
        let blocks = allocations.filter_map(|allocation| registry.get(&allocation.kind)?.ports(allocation));
        let ports = blocks.flat_map(|block| served.range(block.start()..=block.end()));
        holders.extend(ports.map(|port| (*port, session.id.as_str())));
    }
    holders
}

fn listening(session: &Session, holders: &BTreeMap<u16, &str>) -> Vec<u16> {
    let ports = holders.iter().filter(|(_, holder)| **holder == session.id);
    ports.map(|(port, _)| *port).collect()
}

/// Returns how many ignored files a line counts.
fn ignored(line: &str) -> usize {
    let before = line.split_once(" ignored files").map(|(before, _)| before);
    before.and_then(|before| before.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}
