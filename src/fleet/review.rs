//! Renderings of the plan of a fleet for review. Pure.
//!
//! Shards whose parts differ only in their sessions, hosts and numbers are shown as one entry, so that the plan of a thousand
//! shards is a page.

mod html;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Delivery, FleetPlan, PlannedShard};
use crate::host::text::{printable, size, thousands};
use crate::name::PortBlock;
use crate::plan::{Action, Plan};
use crate::provider::Registry;
use crate::review::markdown::code;
use crate::review::{self, Review};

/// Number of names that a list shows at each end before the rest is counted.
const NAMES: usize = 3;

/// Maximum number of rows of the Markdown table.
const ROWS: usize = 200;

/// Maximum number of notices.
const NOTICES: usize = 20;

/// Shards that are shown together.
struct Entry<'f> {
    shards: Vec<&'f PlannedShard>,
    /// Lowest and highest port of the shards; `None` without any.
    ports: Option<(u16, u16)>,
}

/// Facts that are equal for all shards of an entry: workspace, number of sessions, actions.
type Key<'f> = (&'f str, u32, String);

/// Returns the plan of a fleet as text. With `full`, each shard has an entry of its own, with the plan of its host.
pub fn text(fleet: &FleetPlan, registry: &Registry, full: bool) -> String {
    let mut page = format!("fleet of swarm {}: {}\n", printable(&fleet.swarm), summary(fleet));
    let _ = writeln!(page, "plan {}\n", printable(&fleet.digest));
    let changes = changes(fleet);
    for change in changes.iter().take(ROWS) {
        let _ = writeln!(page, "{}", line(change));
    }
    if !changes.is_empty() {
        page.push('\n');
    }
    let entries = entries(fleet, registry, full);
    for entry in &entries {
        let first = entry.shards[0];
        let _ = writeln!(page, "{}: {}", heading(entry), sessions(entry));
        let _ = writeln!(page, "    workspace     {}", printable(&first.workspace.to_string_lossy()));
        if let Some((start, end)) = entry.ports {
            let _ = writeln!(page, "    ports         {start}-{end}");
        }
        match &first.plan {
            Some(plan) if full => {
                let tree = Review::new(plan)
                    .with_registry(registry)
                    .text(review::text::Style::default().with_full(true));
                page.extend(
                    tree.lines().skip(2).map(|line| format!("    {line}").trim_end().to_owned() + "\n"),
                );
            }
            Some(plan) if entry.shards.len() == 1 => {
                let _ = writeln!(page, "    sessions      {}", tops(plan));
            }
            _ => {}
        }
    }
    if entries.len() < fleet.shards.len() {
        page.push_str("\nShards that differ only in names and numbers are shown as one; -v shows each.\n");
    }
    for notice in notices(fleet) {
        let _ = writeln!(page, "\nnote: {notice}");
    }
    page
}

/// Returns the plan of a fleet as one self-contained HTML page: changes of active sessions first, then all shards, folded.
pub fn html(fleet: &FleetPlan, registry: &Registry) -> String {
    html::html(fleet, registry)
}

/// Returns the plan of a fleet as Markdown for a comment on a pull request; rows that do not fit are counted.
pub fn markdown(fleet: &FleetPlan, registry: &Registry) -> String {
    let mut page = format!("### Fleet of {}: {}\n\n", code(&fleet.swarm), summary(fleet));
    let changes = changes(fleet);
    for change in changes.iter().take(NOTICES) {
        let _ = writeln!(page, "- {}", code(&line(change)));
    }
    match changes.len().saturating_sub(NOTICES) {
        0 if changes.is_empty() => {}
        0 => page.push('\n'),
        more => {
            let _ = writeln!(page, "- {} more kinds of changes\n", thousands(more));
        }
    }
    page.push_str("| shards | hosts | sessions | ports | workspace |\n|---|---|---|---|---|\n");
    let entries = entries(fleet, registry, false);
    for entry in entries.iter().take(ROWS) {
        let ports = entry.ports.map_or_else(|| "-".to_owned(), |(start, end)| format!("{start}-{end}"));
        let workspace = code(&entry.shards[0].workspace.to_string_lossy());
        let (shards, hosts) = (numbers(entry), code(&hosts(entry)));
        let _ = writeln!(page, "| {shards} | {hosts} | {} | {ports} | {workspace} |", sessions(entry));
    }
    if entries.len() > ROWS {
        let _ = writeln!(page, "\n{} more rows are left out.", thousands(entries.len() - ROWS));
    }
    for notice in notices(fleet) {
        let _ = writeln!(page, "\n> {}", code(&notice));
    }
    let _ = writeln!(page, "\n<sub>plan {}</sub>", code(&fleet.digest));
    page
}

/// Returns the numbers of shards, sessions and spares, and of the sessions per planned action.
fn summary(fleet: &FleetPlan) -> String {
    let plans = || fleet.shards.iter().filter_map(|shard| shard.plan.as_ref());
    let mut actions: BTreeMap<Action, usize> = BTreeMap::new();
    for change in plans().flat_map(Plan::changes) {
        *actions.entry(change.action).or_default() += 1;
    }
    let actions: Vec<_> = actions
        .iter()
        .map(|(action, count)| format!("{} to {}", thousands(*count), review::verb(*action)))
        .collect();
    let actions = if actions.is_empty() { "no sessions".to_owned() } else { actions.join(", ") };
    let spares = match fleet.spares.len() {
        0 => String::new(),
        many => format!(" and {}", counted(many, "spare")),
    };
    format!(
        "{}{spares}, {}: {actions}",
        counted(fleet.shards.len(), "shard"),
        counted(fleet.sessions(), "session")
    )
}

fn counted(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// Returns the entries, in the order of their first shards.
fn entries<'f>(fleet: &'f FleetPlan, registry: &Registry, full: bool) -> Vec<Entry<'f>> {
    let mut entries: Vec<Entry<'f>> = Vec::new();
    let mut positions: BTreeMap<Key<'f>, usize> = BTreeMap::new();
    for shard in &fleet.shards {
        let actions = shard.plan.as_ref().map(review::summary).unwrap_or_default();
        let key = (shard.workspace.to_str().unwrap_or_default(), shard.sessions, actions);
        let at = *positions.entry(key).or_insert(entries.len());
        let ports = ports(shard, registry);
        match entries.get_mut(at) {
            Some(entry) if !full => {
                entry.shards.push(shard);
                entry.ports = match (entry.ports, ports) {
                    (Some((start, end)), Some((low, high))) => Some((start.min(low), end.max(high))),
                    (one, other) => one.or(other),
                };
            }
            _ => entries.push(Entry { shards: vec![shard], ports }),
        }
    }
    // Shards with changes that may lose something come first, so that they are never left out.
    entries.sort_by_key(|entry| Reverse(worst(entry.shards[0]).filter(|action| *action > Action::Keep)));
    entries
}

/// Returns the action of a shard that may lose most; `None` without sessions.
fn worst(shard: &PlannedShard) -> Option<Action> {
    shard.plan.iter().flat_map(Plan::changes).map(|change| change.action).max()
}

/// Shard and path of a session.
type ShardSession<'f> = (&'f PlannedShard, &'f str);

/// Changes of active sessions with one action for the same reasons.
struct Folded<'f> {
    action: Action,
    reasons: &'f [String],
    sessions: Vec<ShardSession<'f>>,
}

impl Folded<'_> {
    /// Returns the number of hosts.
    fn hosts(&self) -> usize {
        self.sessions.iter().map(|(shard, _)| shard.shard).collect::<BTreeSet<_>>().len()
    }
}

/// Returns the changes of active sessions, equal ones as one, those first that may lose something.
fn changes(fleet: &FleetPlan) -> Vec<Folded<'_>> {
    let mut folded: BTreeMap<(Reverse<Action>, &[String]), Vec<ShardSession<'_>>> = BTreeMap::new();
    for shard in &fleet.shards {
        for change in shard.plan.iter().flat_map(Plan::changes) {
            if !matches!(change.action, Action::Create | Action::Keep) {
                let key = (Reverse(change.action), change.reasons.as_slice());
                folded.entry(key).or_default().push((shard, change.session.as_str()));
            }
        }
    }
    let folded = folded.into_iter();
    folded.map(|((Reverse(action), reasons), sessions)| Folded { action, reasons, sessions }).collect()
}

/// Returns a line about changes: their number, some sessions, and the reasons.
fn line(change: &Folded<'_>) -> String {
    let names: Vec<_> =
        change.sessions.iter().map(|(shard, path)| format!("{path} on {}", printable(&shard.host))).collect();
    let (sessions, hosts) = (counted(names.len(), "session"), counted(change.hosts(), "host"));
    let reasons = printable(&change.reasons.join("; "));
    format!(
        "{} {} {sessions} on {hosts}: {} ({reasons})",
        review::sign(change.action),
        review::verb(change.action),
        shortened(&names)
    )
}

/// Returns the lowest and the highest port of a shard.
fn ports(shard: &PlannedShard, registry: &Registry) -> Option<(u16, u16)> {
    let allocations = shard.plan.iter().flat_map(Plan::sessions).flat_map(|session| &session.allocations);
    let blocks = allocations.filter_map(|held| registry.get(&held.kind)?.ports(held));
    let blocks: BTreeSet<PortBlock> = blocks.collect();
    Some((blocks.first()?.start(), blocks.iter().map(|block| block.end()).max()?))
}

fn heading(entry: &Entry<'_>) -> String {
    let noun = if entry.shards.len() == 1 { "shard" } else { "shards" };
    format!("{noun} {} on {}", numbers(entry), hosts(entry))
}

/// Returns the numbers of the entry's shards, runs of them as `FIRST-LAST`.
fn numbers(entry: &Entry<'_>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for shard in &entry.shards {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == shard.shard => *last = shard.shard,
            _ => runs.push((shard.shard, shard.shard)),
        }
    }
    let runs = runs
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    shortened(&runs.collect::<Vec<_>>())
}

fn hosts(entry: &Entry<'_>) -> String {
    shortened(&entry.shards.iter().map(|shard| printable(&shard.host)).collect::<Vec<_>>())
}

fn sessions(entry: &Entry<'_>) -> String {
    let first = entry.shards[0];
    let each = if entry.shards.len() == 1 { "" } else { " each" };
    let actions = first.plan.as_ref().map(|plan| format!(": {}", review::summary(plan))).unwrap_or_default();
    format!("{}{each}{actions}", counted(first.sessions as usize, "session"))
}

/// Returns the sessions of a plan that have no parent.
fn tops(plan: &Plan) -> String {
    let tops = plan.sessions().iter().filter(|session| session.parent.is_none());
    let tops: Vec<_> = tops.map(|session| session.path.to_string()).collect();
    if tops.is_empty() { "none".to_owned() } else { shortened(&tops) }
}

/// Returns a list of names; the middle of a long one is counted.
fn shortened(names: &[String]) -> String {
    if names.len() <= 2 * NAMES + 1 {
        return names.join(", ");
    }
    let left = names.len() - 2 * NAMES;
    format!(
        "{}, … {} more …, {}",
        names[..NAMES].join(", "),
        thousands(left),
        names[names.len() - NAMES..].join(", ")
    )
}

/// Describes the commits that hosts get, and those that they lack and cannot get.
fn notices(fleet: &FleetPlan) -> Vec<String> {
    let all =
        fleet.shards.iter().flat_map(|shard| shard.deliveries.iter().map(move |delivery| (shard, delivery)));
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (shard, delivery) in all {
        let what = match refusal(delivery) {
            Some(why) => format!("cannot be applied: {why}"),
            None => delivered(delivery),
        };
        hosts.entry(what).or_default().push(printable(&shard.host));
    }
    let line = |(what, hosts): (String, Vec<String>)| {
        let verb = match (what.starts_with("cannot"), hosts.len()) {
            (true, _) => "",
            (false, 1) => "gets ",
            (false, _) => "get ",
        };
        format!("{} {verb}{what}", shortened(&hosts))
    };
    hosts.into_iter().map(line).take(NOTICES).collect()
}

/// Returns the commits that a host gets, with their number and size.
pub fn delivered(delivery: &Delivery) -> String {
    format!("{} of {} ({})", commits(delivery), repository(delivery), size(delivery.bytes))
}

/// Returns the reason for which a host cannot get commits, with the commits; `None` if it can.
pub fn refusal(delivery: &Delivery) -> Option<String> {
    let why = printable(delivery.refused.as_ref()?);
    let tips = delivery.tips.iter().map(|tip| tip.get(..12).unwrap_or(tip)).collect::<Vec<_>>().join(", ");
    Some(format!("it lacks {tips} of {}: {why}", repository(delivery)))
}

fn commits(delivery: &Delivery) -> String {
    let count = usize::try_from(delivery.commits).unwrap_or(usize::MAX);
    let all = if delivery.beyond.is_empty() { "all " } else { "" };
    format!("{all}{}", counted(count, "commit"))
}

fn repository(delivery: &Delivery) -> String {
    match delivery.repository.as_str() {
        "" => "the workspace".to_owned(),
        name => format!("repository {}", printable(name)),
    }
}
