//! HTML page of the plan of a fleet, with the style and the script of the page of one plan.

use minijinja::{Error, Value, context};

use super::{Entry, PlannedShard, changes, counted, entries, hosts, numbers, shortened, worst};
use crate::fleet::FleetPlan;
use crate::host::text::thousands;
use crate::plan::{Action, Plan};
use crate::provider::Registry;
use crate::review::html::{SCRIPT, STYLE, environment, escape, policy};
use crate::review::{self, ACTIONS, sign, verb};

const PAGE: &str = include_str!("page.html.j2");

/// Maximum number of sessions that the page lists: a browser needs a second to search them.
const ROWS: usize = 100_000;

/// Returns the page.
pub(super) fn html(fleet: &FleetPlan, registry: &Registry) -> String {
    // The template is part of the program; tests render every part of it.
    render(fleet, registry).unwrap_or_else(|error| escape(&error.to_string()))
}

fn render(fleet: &FleetPlan, registry: &Registry) -> Result<String, Error> {
    let mut rows = ROWS;
    let entries = entries(fleet, registry, false);
    let groups: Vec<_> = entries.iter().map(|entry| group(entry, registry, &mut rows)).collect();
    let page = environment().render_str(
        PAGE,
        context! {
            policy => policy(),
            style => STYLE,
            script => SCRIPT,
            swarm => fleet.swarm.as_str(),
            counts => counts(fleet),
            shards => thousands(fleet.shards.len()),
            sessions => thousands(fleet.sessions()),
            spares => (!fleet.spares.is_empty()).then(|| shortened(&fleet.spares)),
            digest => fleet.digest.as_str(),
            notices => super::notices(fleet),
            changes => changed(fleet),
            groups,
        },
    )?;
    Ok(page + "\n")
}

/// Returns the number of sessions of each action.
fn counts(fleet: &FleetPlan) -> Vec<Value> {
    let actions = || fleet.shards.iter().filter_map(|shard| shard.plan.as_ref()).flat_map(Plan::changes);
    let count = |action| actions().filter(|change| change.action == action).count();
    let counts = ACTIONS.into_iter().map(|action| (action, count(action))).filter(|(_, count)| *count > 0);
    counts
        .map(|(action, count)| {
            context! { action => verb(action), sign => sign(action), count => thousands(count) }
        })
        .collect()
}

/// Returns the changes of active sessions, equal ones as one.
fn changed(fleet: &FleetPlan) -> Vec<Value> {
    let row = |change: super::Folded<'_>| {
        let anchors = change.sessions.iter().take(super::NAMES).map(|(shard, path)| {
            context! { shard => shard.shard, session => *path, host => shard.host.as_str() }
        });
        context! {
            action => verb(change.action),
            sign => sign(change.action),
            count => counted(change.sessions.len(), "session"),
            hosts => counted(change.hosts(), "host"),
            sessions => anchors.collect::<Vec<_>>(),
            more => change.sessions.len().saturating_sub(super::NAMES),
            reasons => change.reasons.to_vec(),
        }
    };
    changes(fleet).into_iter().map(row).collect()
}

/// Returns the values of shards that are shown together.
fn group(entry: &Entry<'_>, registry: &Registry, rows: &mut usize) -> Value {
    let first = entry.shards[0];
    let action = worst(first).unwrap_or(Action::Keep);
    let shards: Vec<_> = entry.shards.iter().map(|shard| self::shard(shard, registry, rows)).collect();
    context! {
        action => verb(action),
        sign => sign(action),
        name => format!("shards {}", numbers(entry)),
        hosts => hosts(entry),
        gist => super::sessions(entry),
        ports => entry.ports.map(|(start, end)| format!("{start}-{end}")),
        workspace => first.workspace.to_string_lossy(),
        is_folded => shards.len() > 1,
        is_open => shards.len() <= super::NAMES,
        shards,
    }
}

fn shard(shard: &PlannedShard, registry: &Registry, rows: &mut usize) -> Value {
    let action = worst(shard).unwrap_or(Action::Keep);
    let plan = shard.plan.as_ref();
    let sessions = plan.map(|plan| plan.sessions().iter().zip(plan.changes()).take(*rows));
    let listed: Vec<_> = sessions
        .into_iter()
        .flatten()
        .map(|(session, change)| {
            context! {
                action => verb(change.action),
                sign => sign(change.action),
                session => session.path.as_str(),
                ports => review::ports(registry, session),
            }
        })
        .collect();
    *rows -= listed.len();
    context! {
        number => shard.shard,
        host => shard.host.as_str(),
        action => verb(action),
        sign => sign(action),
        gist => plan.map(review::summary),
        count => shard.sessions,
        more => shard.sessions as usize - listed.len().min(shard.sessions as usize),
        sessions => listed,
    }
}
