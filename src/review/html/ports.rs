//! Picture of the host's ports, with a table: the blocks of this plan, and other blocks near them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use minijinja::{Value, context};

use super::{Anchors, verb};
use crate::host::text::thousands;
use crate::name::PortBlock;
use crate::observe::{Observation, PortOwner};
use crate::plan::Action;
use crate::review::Review;

/// Possible numbers of ports in one strip of the picture: the smallest is used that needs at most [`STRIPS`] strips.
const SCALES: [u32; 6] = [256, 512, 1024, 2048, 4096, 8192];
const STRIPS: usize = 24;
/// Maximum number of blocks in one strip that are drawn separately; with more, adjacent blocks are drawn as one.
const CROWD: usize = 48;
/// Maximum depth at which shares of shares are drawn.
const LANES: usize = 3;
/// Maximum number of rows with which the table is open at first.
const OPEN: usize = 40;
/// Maximum number of rows of the table.
const ROWS: usize = 2000;
/// Height of a block, and of a share below it, in pixels.
const HEIGHT: usize = 22;
const SHARE: usize = 20;
/// Top of the line under the ports for outgoing connections, in pixels.
const LINE: usize = HEIGHT - 3;
/// Number of ports, including port 0.
const PORTS: u32 = 65_536;

/// Block of the plan.
struct Planned<'p> {
    block: PortBlock,
    /// Depth of the block: 0 for a block of the session itself, else the number of shares that contain it.
    lane: usize,
    action: Action,
    session: &'p str,
}

/// Ports of another owner.
struct Other {
    block: PortBlock,
    what: String,
    socket: bool,
}

/// Returns the values of the section; `None` if the plan has no ports.
pub(super) fn ports(review: &Review<'_>, anchors: &Anchors<'_>) -> Option<Value> {
    let mut planned = planned(review);
    if planned.is_empty() {
        return None;
    }
    let released =
        review.observation.map(|observation| released(review, observation, &planned)).unwrap_or_default();
    planned.extend(released);
    let others = review.observation.map(others).unwrap_or_default();
    let ephemeral = review.observation.and_then(|observation| observation.ephemeral);
    let picture = Picture { planned: &planned, others: &others, ephemeral };
    let actions: BTreeSet<Action> = planned.iter().map(|planned| planned.action).collect();
    let rows = picture.rows(anchors);
    let (count, more) = (rows.len(), rows.len().saturating_sub(ROWS));
    Some(context! {
        actions => actions.into_iter().map(verb).collect::<Vec<_>>(),
        has_others => others.iter().any(|other| !other.socket),
        has_sockets => others.iter().any(|other| other.socket),
        ephemeral => ephemeral.map(|block| block.to_string()),
        strips => std::iter::once(picture.overview()).chain(picture.strips()).collect::<Vec<_>>(),
        is_from_file => review.observation.is_none(),
        is_open => count <= OPEN,
        count => thousands(count),
        rows => rows.into_iter().take(ROWS).collect::<Vec<_>>(),
        more => (more > 0).then(|| thousands(more)),
    })
}

fn planned<'p>(review: &Review<'p>) -> Vec<Planned<'p>> {
    let Review { plan, registry, .. } = *review;
    let mut lanes: HashMap<&str, usize> = HashMap::new();
    let mut planned = Vec::new();
    for (session, change) in plan.sessions.iter().zip(&plan.changes) {
        for allocation in &session.allocations {
            let Some(block) = registry.get(&allocation.kind).and_then(|kind| kind.ports(allocation)) else {
                continue;
            };
            let above = session.parent.as_ref().and_then(|parent| lanes.get(parent.as_str()));
            let lane = if allocation.within_parent { above.map_or(0, |lane| lane + 1).min(LANES) } else { 0 };
            lanes.insert(session.path.as_str(), lane);
            planned.push(Planned { block, lane, action: change.action, session: session.path.as_str() });
        }
    }
    planned
}

/// Returns the blocks that this swarm has leased and that the plan releases.
fn released<'p>(
    review: &Review<'p>,
    observation: &'p Observation,
    planned: &[Planned<'p>],
) -> Vec<Planned<'p>> {
    let kept: HashSet<PortBlock> = planned.iter().map(|planned| planned.block).collect();
    let prefix = format!("{}/", review.plan.swarm);
    let own = observation.ports_in_use.iter().filter_map(|used| match &used.owner {
        PortOwner::Lease { session, owner } if observation.owner.as_ref() == Some(owner) => {
            Some((used.block, session))
        }
        _ => None,
    });
    own.filter(|(block, _)| !kept.contains(block))
        .map(|(block, session)| Planned {
            block,
            lane: usize::from(kept.iter().any(|kept| kept.contains(block))),
            action: Action::Destroy,
            session: session.strip_prefix(&prefix).unwrap_or(session),
        })
        .collect()
}

/// Returns the blocks that are in use outside of this swarm: leases of other swarms, lock files, sockets.
fn others(observation: &Observation) -> Vec<Other> {
    let own = |owner: &str| observation.owner.as_deref() == Some(owner);
    let leased: HashSet<(PortBlock, &str)> = observation
        .ports_in_use
        .iter()
        .filter_map(|used| match &used.owner {
            PortOwner::Lease { session, .. } => Some((used.block, session.as_str())),
            _ => None,
        })
        .collect();
    let mut others = Vec::new();
    for used in &observation.ports_in_use {
        let (what, socket) = match &used.owner {
            PortOwner::Lease { owner, .. } if own(owner) => continue,
            PortOwner::Lease { session, .. } => (format!("leased to {session}"), false),
            PortOwner::LockFile { owner: Some(owner), .. } if own(owner) => continue,
            PortOwner::LockFile { session: Some(session), .. } if leased.contains(&(used.block, session)) => {
                continue;
            }
            PortOwner::LockFile { name, session, .. } => {
                let whose = session.as_ref().map_or(String::new(), |session| format!(" of {session}"));
                (format!("lock file {name}{whose}"), false)
            }
            PortOwner::Socket { protocol } => (format!("{protocol}, in use by a process"), true),
        };
        others.push(Other { block: used.block, what, socket });
    }
    others
}

struct Picture<'a> {
    planned: &'a [Planned<'a>],
    others: &'a [Other],
    ephemeral: Option<PortBlock>,
}

impl Picture<'_> {
    /// Returns all ports of the host on one strip.
    fn overview(&self) -> Value {
        let whole = Strip { first: 0, ports: PORTS };
        let others = PortBlock::merged(self.others.iter().map(|other| other.block).collect()).into_iter();
        let mut blocks = Vec::new();
        for (action, own) in self.by_action(|planned| planned.lane == 0) {
            blocks.extend(PortBlock::merged(own).into_iter().map(|run| {
                context! { class => verb(action), at => whole.span(run), height => "100%", title => run.to_string() }
            }));
        }
        context! {
            first => 1,
            last => PORTS - 1,
            height => HEIGHT,
            track => "100%",
            line => LINE,
            others => others.map(|run| context! { at => whole.span(run) }).collect::<Vec<_>>(),
            blocks,
            sockets => Vec::<Value>::new(),
            ephemeral => self.ephemeral.map(|ephemeral| whole.span(ephemeral)),
        }
    }

    /// Returns each part of the host's ports that the plan uses, on one strip each.
    fn strips(&self) -> Vec<Value> {
        let scale = SCALES.into_iter().find(|scale| self.touched(*scale).len() <= STRIPS);
        let scale = scale.unwrap_or(SCALES[SCALES.len() - 1]);
        let mut next = None;
        let strip = |at: u32| {
            let strip = Strip { first: at * scale, ports: scale };
            let skipped = next.map_or(0, |next| strip.first - next);
            next = Some(strip.first + scale);
            self.strip(strip, skipped)
        };
        self.touched(scale).into_iter().map(strip).collect()
    }

    /// Returns the numbers of the strips of `scale` ports that have a block of the plan or a neighbour of one.
    fn touched(&self, scale: u32) -> BTreeSet<u32> {
        let strips = |block: PortBlock| u32::from(block.start()) / scale..=u32::from(block.end()) / scale;
        let own = self.planned.iter().filter(|planned| planned.lane == 0);
        let of_block = |planned: &Planned<'_>| {
            let (start, end) = (u32::from(planned.block.start()), u32::from(planned.block.end()));
            // A block close to a planned block is its neighbour, even on the next strip.
            let around =
                PortBlock::new(start.saturating_sub(scale / 8).max(1), (end + scale / 8).min(PORTS - 1));
            let beside =
                self.others.iter().filter(|other| around.is_some_and(|around| around.overlaps(other.block)));
            let is_near =
                |strip: &u32| strip.abs_diff(start / scale) <= 1 || strip.abs_diff(end / scale) <= 1;
            let beside = beside.flat_map(|other| strips(other.block)).filter(is_near);
            strips(planned.block).chain(beside).collect::<Vec<_>>()
        };
        own.flat_map(of_block).collect()
    }

    fn strip(&self, strip: Strip, skipped: u32) -> Value {
        let here = self.planned.iter().filter(|planned| strip.shows(planned.block));
        let lanes = here.map(|planned| planned.lane).max().unwrap_or_default();
        let (sockets, others): (Vec<_>, Vec<_>) =
            self.others.iter().filter(|other| strip.shows(other.block)).partition(|other| other.socket);
        let other = |other: &&Other| {
            context! { at => strip.span(other.block), title => format!("{} {}", other.block, other.what) }
        };
        let socket = |other: &&Other| {
            let port = other.block.start();
            let x = strip.percent(f64::from(port) + 0.5 - f64::from(strip.first));
            context! { x => format!("{x:.3}"), title => format!("{port} {}", other.what) }
        };
        context! {
            skipped => (skipped > 0).then(|| thousands(skipped as usize)),
            first => strip.first.max(1),
            last => (strip.first + strip.ports - 1).min(PORTS - 1),
            height => HEIGHT + SHARE * lanes,
            track => HEIGHT,
            line => LINE,
            others => others.iter().map(other).collect::<Vec<_>>(),
            blocks => (0..=LANES).flat_map(|lane| self.lane(strip, lane)).collect::<Vec<_>>(),
            sockets => sockets.iter().map(socket).collect::<Vec<_>>(),
            ephemeral => self.ephemeral.filter(|block| strip.shows(*block)).map(|block| strip.span(block)),
        }
    }

    /// Returns the plan's blocks of one depth on one strip.
    fn lane(&self, strip: Strip, lane: usize) -> Vec<Value> {
        let (y, height, class) =
            if lane == 0 { (0, HEIGHT, "") } else { (HEIGHT + (lane - 1) * SHARE + 2, SHARE - 2, " share") };
        let shown = |planned: &Planned<'_>| planned.lane == lane && strip.shows(planned.block);
        let draw = |action: Action, block: PortBlock, title: String, name: &str| {
            let class = format!("{}{class}", verb(action));
            let name = Some(name).filter(|name| strip.has_room(block, name));
            context! { class, at => strip.span(block), y, height, title, name }
        };
        if self.planned.iter().filter(|planned| shown(planned)).count() > CROWD {
            let runs_of =
                |(action, blocks)| PortBlock::merged(blocks).into_iter().map(move |run| (action, run));
            let crowd = self.by_action(shown).into_iter().flat_map(runs_of);
            return crowd.map(|(action, run)| draw(action, run, run.to_string(), "")).collect();
        }
        let one = |planned: &Planned<'_>| {
            let title = format!("{} {}", planned.block, planned.session);
            draw(planned.action, planned.block, title, planned.session)
        };
        self.planned.iter().filter(|planned| shown(planned)).map(one).collect()
    }

    fn by_action(&self, wanted: impl Fn(&Planned<'_>) -> bool) -> BTreeMap<Action, Vec<PortBlock>> {
        let mut blocks: BTreeMap<Action, Vec<PortBlock>> = BTreeMap::new();
        for planned in self.planned.iter().filter(|planned| wanted(planned)) {
            blocks.entry(planned.action).or_default().push(planned.block);
        }
        blocks
    }

    /// Returns the content of the picture as rows of a table, in the order of the ports.
    fn rows(&self, anchors: &Anchors<'_>) -> Vec<Value> {
        let own = self.planned.iter().map(|planned| {
            let anchor = anchors.get(planned.session).map_or("sessions", String::as_str);
            let (what, action) = (planned.session, verb(planned.action));
            (planned.block, planned.lane, context! { anchor, what, action })
        });
        let others =
            self.others.iter().map(|other| (other.block, 0, context! { what => other.what.as_str() }));
        let what = "given to outgoing connections";
        let ephemeral = self.ephemeral.map(|ephemeral| (ephemeral, 0, context! { what }));
        let mut rows: Vec<_> = own.chain(others).chain(ephemeral).collect();
        rows.sort_by_key(|(block, lane, _)| (block.start(), *lane, std::cmp::Reverse(block.end())));
        let row = |(block, lane, row): (PortBlock, usize, Value)| {
            let ports = if block.size() == 1 { block.start().to_string() } else { block.to_string() };
            context! { ports, is_share => lane > 0, ..row }
        };
        rows.into_iter().map(row).collect()
    }
}

/// Part of the host's ports, as wide as the page.
#[derive(Clone, Copy)]
struct Strip {
    first: u32,
    ports: u32,
}

/// Left end and width of a block on a strip, in percent of the strip.
#[derive(Debug, PartialEq)]
struct Span {
    x: String,
    width: String,
}

impl From<Span> for Value {
    fn from(Span { x, width }: Span) -> Self {
        context! { x, width }
    }
}

impl Strip {
    fn shows(self, block: PortBlock) -> bool {
        u32::from(block.start()) < self.first + self.ports && self.first <= u32::from(block.end())
    }

    /// Returns the position of a block on the strip, cut at the ends of the strip; always wide enough to be visible.
    fn span(self, block: PortBlock) -> Span {
        const SEEN: f64 = 0.15;
        let begin = u32::from(block.start()).max(self.first) - self.first;
        let end = (u32::from(block.end()) + 1).min(self.first + self.ports) - self.first;
        let (x, width) = (self.percent(f64::from(begin)), self.percent(f64::from(end - begin)));
        Span { x: format!("{x:.3}"), width: format!("{:.3}", width.max(SEEN)) }
    }

    /// Returns whether a block is wide enough for its session's name, on a page of the usual width.
    ///
    /// A narrower page cuts names that do not fit.
    fn has_room(self, block: PortBlock, name: &str) -> bool {
        const CHARACTERS_A_PERCENT: f64 = 1.1;
        let width = self.percent(f64::from(block.size())) * CHARACTERS_A_PERCENT;
        !name.is_empty() && u32::try_from(name.len()).is_ok_and(|length| f64::from(length) + 2.0 <= width)
    }

    fn percent(self, ports: f64) -> f64 {
        ports * 100.0 / f64::from(self.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_position_on_a_strip() {
        let strip = Strip { first: 1024, ports: 256 };
        let block = |start, end| PortBlock::new(start, end).unwrap();
        let check = |span: Span, x: &str, width: &str| {
            assert_eq!(span, Span { x: x.to_owned(), width: width.to_owned() });
        };
        check(strip.span(block(1024, 1279)), "0.000", "100.000");
        check(strip.span(block(1088, 1151)), "25.000", "25.000");
        check(strip.span(block(1000, 2000)), "0.000", "100.000");
        check(Strip { first: 0, ports: PORTS }.span(block(8080, 8080)), "12.329", "0.150");
        assert!(
            strip.shows(block(1279, 1300)) && !strip.shows(block(1280, 1300)) && !strip.shows(block(1, 1023))
        );
    }
}
