//! `list`: shows every swarm on this host.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use seedbed::apply;
use seedbed::host::text::printable;
use seedbed::host::{Host, absolute, clock};
use seedbed::name::{PortBlock, SessionPath};
use seedbed::plan::Session;
use seedbed::provider::Registry;
use seedbed::report::{
    DiskUsage, List, ListedChild, ListedRepository, ListedSwarm, Ports, Recorded, SCHEMA_VERSION,
};
use seedbed::state::{self, Record, RecordedSwarm};

use super::exit::{Failure, Status};
use super::{Global, output, project, unfinished_runs};

/// Maximum number of blocks of ports that a line names; more are only counted.
const BLOCKS_SHOWN: usize = 3;

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Measure the disk space of each swarm, and find the time of its last change
    #[arg(long)]
    sizes: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let host = project::host(global)?;
    let registry = Registry::built_in();
    let swarms = with_children(state::swarms(&host)?, state::sessions(&host)?);
    if global.json {
        let context = Context { host: &host, registry: &registry, sizes: arguments.sizes };
        let swarms = swarms.iter().map(|(found, children)| listed(found, children, &context)).collect();
        output::print_json_pretty(&List { schema_version: SCHEMA_VERSION, swarms });
        return Ok(Status::Done.into());
    }
    if swarms.is_empty() {
        if !global.quiet {
            say!("no swarm is applied on this host");
        }
        return Ok(Status::Done.into());
    }
    let head = ["SWARM", "WORKSPACE", "SESSIONS", "PORTS", "SINCE", "STATE"].map(str::to_owned);
    let rows = swarms.iter().flat_map(|(found, children)| {
        let children = children.iter().map(|child| {
            let mut row = row(child, &registry);
            row[0] = format!("└ {}", child.name());
            row
        });
        let repositories = repositories(found, &registry);
        let repositories = repositories.iter().map(repository_row).collect::<Vec<_>>();
        std::iter::once(row(found, &registry)).chain(repositories).chain(children)
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    if arguments.sizes {
        let head = ["SIZE", "LAST CHANGE"].map(str::to_owned);
        let sizes = swarms.iter().flat_map(|(found, children)| {
            let of_repositories = repositories(found, &registry).into_iter().map(|_| sizes(None));
            let own = std::iter::once(sizes(usage(found, &host, &registry)));
            own.chain(of_repositories)
                .chain(children.iter().map(|child| sizes(usage(child, &host, &registry))))
                .collect::<Vec<_>>()
        });
        let sizes = std::iter::once(head).chain(sizes);
        let rows: Vec<[String; 8]> = rows.into_iter().zip(sizes).map(with_sizes).collect();
        output::print(&output::table(&rows));
    } else {
        output::print(&output::table(&rows));
    }
    let is_gone = |(found, _): &&(RecordedSwarm, Vec<RecordedSwarm>)| workspace_exists(found) == Some(false);
    if let Some((gone, _)) = swarms.iter().find(is_gone) {
        let name = printable(if swarms.iter().filter(|(found, _)| found.name() == gone.name()).count() > 1 {
            &gone.key
        } else {
            gone.name()
        });
        say!(
            "a workspace is missing\nhelp: if it was moved, run `seedbed recover --moved` there; if it was deleted, run \
             `seedbed destroy {name} --gone`"
        );
    }
    for found in swarms.iter().flat_map(|(found, children)| std::iter::once(found).chain(children)) {
        for error in &found.unreadable {
            say!("error: {}", printable(&error.to_string()));
        }
    }
    Ok(Status::Done.into())
}

/// Groups each swarm with its descendants: children that programs have provisioned, and children of these children.
fn with_children(
    swarms: Vec<RecordedSwarm>,
    sessions: Vec<RecordedSwarm>,
) -> Vec<(RecordedSwarm, Vec<RecordedSwarm>)> {
    let owner = |found: &RecordedSwarm| found.record().map(|record| record.owner.clone());
    let mut with_children: Vec<_> = swarms.into_iter().map(|swarm| (swarm, Vec::new())).collect();
    for session in sessions {
        let of = with_children
            .iter_mut()
            .find(|(swarm, _)| owner(swarm).is_some() && owner(swarm) == owner(&session));
        if let Some((_, children)) = of {
            children.push(session);
        }
    }
    with_children
}

/// Returns the disk space of all sessions of a swarm, and the last of their changes; `None` if it has no record.
fn usage(found: &RecordedSwarm, host: &Host, registry: &Registry) -> Option<DiskUsage> {
    let (swarm, record) = (found.swarm(host)?, found.record()?);
    let usage = apply::usage(&swarm, registry, record);
    let is_known = usage.values().all(|usage| usage.unreadable.is_none());
    let changed = usage.values().filter_map(|usage| usage.changed).max().filter(|_| is_known);
    let bytes = usage.values().map(|usage| usage.bytes).sum();
    Some(DiskUsage { bytes, changed: changed.map(clock::rfc3339) })
}

fn sizes(usage: Option<DiskUsage>) -> [String; 2] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let size = usage.as_ref().map(|usage| output::size(usage.bytes));
    [or_dash(size), or_dash(usage.and_then(|usage| usage.changed))]
}

/// Returns a row with its size before the state, which is the longest cell.
fn with_sizes(
    ([name, workspace, sessions, ports, since, state], [size, changed]): ([String; 6], [String; 2]),
) -> [String; 8] {
    [name, workspace, sessions, ports, size, changed, since, state]
}

/// Values that describe each swarm.
struct Context<'a> {
    host: &'a Host,
    registry: &'a Registry,
    sizes: bool,
}

fn listed(found: &RecordedSwarm, children: &[RecordedSwarm], context: &Context<'_>) -> ListedSwarm {
    let record = found.record();
    let sessions = record.into_iter().flat_map(|record| record.plan.sessions());
    ListedSwarm {
        swarm: found.name().to_owned(),
        sessions: sessions.map(|session| session.path.clone()).collect(),
        repositories: repositories(found, context.registry),
        not_set_up: record.into_iter().flat_map(|record| record.not_set_up.keys().cloned()).collect(),
        expired: expired(found),
        recorded: recorded(found, context),
        children: children.iter().map(|child| listed_child(child, context)).collect(),
    }
}

fn listed_child(found: &RecordedSwarm, context: &Context<'_>) -> ListedChild {
    let record = found.record();
    ListedChild {
        id: found.name().to_owned(),
        child_of: record.and_then(|record| record.ancestors.first()).cloned(),
        child_index: record.and_then(|record| record.child).map(|child| child.index),
        recorded: recorded(found, context),
    }
}

fn row(found: &RecordedSwarm, registry: &Registry) -> [String; 6] {
    let sessions = found.record().map(|record| record.plan.sessions().len());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        found.name().to_owned(),
        or_dash(found.workspace().map(|workspace| workspace.to_string_lossy().into_owned())),
        or_dash(sessions.map(|sessions| sessions.to_string())),
        or_dash(found.record().and_then(|record| shown_ports(registry, record))),
        or_dash(found.since.clone()),
        states(found).join("; "),
    ]
}

/// Returns the repositories beside the workspace's own, each with the sessions that have worktrees of it.
fn repositories(found: &RecordedSwarm, registry: &Registry) -> Vec<ListedRepository> {
    let Some(record) = found.record() else { return Vec::new() };
    let has_worktree = |session: &Session, name: &str| {
        session.allocations.iter().any(|held| {
            let of = registry.get(&held.kind).and_then(|kind| kind.repository(held));
            of.is_some_and(|(of, _)| of == name)
        })
    };
    let listed = record.plan.repositories().iter().map(|repository| {
        let sessions = record.plan.sessions().iter();
        let sessions = sessions.filter(|session| has_worktree(session, &repository.name));
        let root = absolute(&record.workspace, &repository.root);
        ListedRepository {
            name: repository.name.clone(),
            exists: !state::is_gone(&root),
            root,
            sessions: sessions.map(|session| session.path.clone()).collect(),
        }
    });
    listed.collect()
}

fn repository_row(repository: &ListedRepository) -> [String; 6] {
    let state = if repository.exists { "repository" } else { "repository missing" };
    let (root, sessions) = (repository.root.to_string_lossy().into_owned(), repository.sessions.len());
    let none = || "-".to_owned();
    [format!("├ {}", repository.name), root, sessions.to_string(), none(), none(), state.to_owned()]
}

/// Returns the states of a swarm, in the order of its life.
fn states(found: &RecordedSwarm) -> Vec<String> {
    let mut states = Vec::new();
    if found.applied.is_some() {
        states.push("applied".to_owned());
    }
    match found.record().map_or(0, |record| record.not_set_up.len()) {
        0 => {}
        1 => states.push("broken: the setup of 1 session failed or was not run".to_owned()),
        sessions => states.push(format!("broken: the setup of {sessions} sessions failed or was not run")),
    }
    match expired(found).len() {
        0 => {}
        sessions => states.push(format!("{} expired", output::count(sessions, "session"))),
    }
    states.extend(unfinished_runs::described(found));
    if !found.unreadable.is_empty() {
        states.push("has a record that cannot be read".to_owned());
    }
    if workspace_exists(found) == Some(false) {
        states.push("workspace missing".to_owned());
    }
    states
}

fn expired(found: &RecordedSwarm) -> Vec<SessionPath> {
    let expired = found.applied.iter().flat_map(|record| record.expired(clock::seconds()));
    expired.map(|session| session.path.clone()).collect()
}

fn workspace_exists(found: &RecordedSwarm) -> Option<bool> {
    found.workspace().map(|workspace| !state::is_gone(workspace))
}

/// Returns the blocks that are not shares of other blocks.
fn ports(registry: &Registry, record: &Record) -> Vec<PortBlock> {
    let allocations = record.plan.sessions().iter().flat_map(|session| &session.allocations);
    let own = allocations.filter(|allocation| !allocation.within_parent);
    let mut blocks: Vec<_> =
        own.filter_map(|allocation| registry.get(&allocation.kind)?.ports(allocation)).collect();
    blocks.sort();
    blocks
}

fn shown_ports(registry: &Registry, record: &Record) -> Option<String> {
    let blocks = ports(registry, record);
    let mut shown: Vec<_> = blocks.iter().take(BLOCKS_SHOWN).map(PortBlock::to_string).collect();
    if blocks.len() > BLOCKS_SHOWN {
        shown.push(format!("and {} more", blocks.len() - BLOCKS_SHOWN));
    }
    (!shown.is_empty()).then(|| shown.join(" "))
}

fn recorded(found: &RecordedSwarm, Context { host, registry, sizes }: &Context<'_>) -> Recorded {
    let ports = found.record().map(|record| ports(registry, record)).unwrap_or_default();
    Recorded {
        key: found.key.clone(),
        workspace: found.workspace().map(Path::to_owned),
        workspace_exists: workspace_exists(found),
        applied: found.applied.is_some(),
        since: found.since.clone(),
        plan: found.applied.as_ref().map(|record| record.plan.digest().to_owned()),
        interrupted: found.is_unfinished(),
        running: found.is_running(host),
        unfinished: unfinished_runs::described(found),
        holder: found.holder.clone(),
        unreadable: found.unreadable.iter().map(ToString::to_string).collect(),
        usage: sizes.then(|| usage(found, host, registry)).flatten(),
        ports: ports.iter().map(|block| Ports { start_port: block.start(), end_port: block.end() }).collect(),
    }
}
