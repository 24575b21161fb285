//! Picture of the host's ports, with a table: the blocks of this plan, and other blocks near them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use super::{Anchors, escape, verb};
use crate::host::text::thousands;
use crate::name::PortBlock;
use crate::observe::{Holder, Observation};
use crate::plan::Action;
use crate::provider::port_range::{Block, runs};
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

/// Writes the section; empty if the plan has no ports.
pub(super) fn ports(review: &Review<'_>, anchors: &Anchors<'_>) -> String {
    let mut planned = planned(review);
    if planned.is_empty() {
        return String::new();
    }
    let gone = review.observation.map(|observation| gone(review, observation, &planned)).unwrap_or_default();
    planned.extend(gone);
    let others = review.observation.map(others).unwrap_or_default();
    let ephemeral = review.observation.and_then(|observation| observation.ephemeral);
    let picture = Picture { planned: &planned, others: &others, ephemeral };
    let mut section =
        "<section aria-labelledby=\"ports\">\n<h2 id=\"ports\">Ports</h2>\n<div class=\"map\">\n".to_owned();
    picture.legend(&mut section);
    section.push_str("<figure aria-label=\"The picture says what the table below says.\">\n");
    picture.overview(&mut section);
    picture.strips(&mut section);
    section.push_str("</figure>\n</div>\n");
    if review.observation.is_none() {
        section.push_str(
            "<p class=\"more\">This plan was read from a file: what else is on the host is not shown.</p>\n",
        );
    }
    picture.table(&mut section, anchors);
    section.push_str("</section>\n");
    section
}

fn planned<'p>(review: &Review<'p>) -> Vec<Planned<'p>> {
    let plan = review.plan;
    let mut lanes: HashMap<&str, usize> = HashMap::new();
    let mut planned = Vec::new();
    for (session, change) in plan.sessions.iter().zip(&plan.changes) {
        for held in &session.allocations {
            let Some(block) = Block::of(held).and_then(|block| block.ports()) else { continue };
            let above = session.parent.as_ref().and_then(|parent| lanes.get(parent.as_str()));
            let lane = if held.within_parent { above.map_or(0, |lane| lane + 1).min(LANES) } else { 0 };
            lanes.insert(session.path.as_str(), lane);
            planned.push(Planned { block, lane, action: change.action, session: session.path.as_str() });
        }
    }
    planned
}

/// Returns the blocks that this swarm has leased and that the plan releases.
fn gone<'p>(review: &Review<'p>, observation: &'p Observation, planned: &[Planned<'p>]) -> Vec<Planned<'p>> {
    let stays: HashSet<PortBlock> = planned.iter().map(|planned| planned.block).collect();
    let prefix = format!("{}/", review.plan.swarm);
    let own = observation.taken.iter().filter_map(|taken| match &taken.by {
        Holder::Lease { session, owner } if observation.owner.as_ref() == Some(owner) => {
            Some((taken.block, session))
        }
        _ => None,
    });
    own.filter(|(block, _)| !stays.contains(block))
        .map(|(block, session)| Planned {
            block,
            lane: usize::from(stays.iter().any(|stays| stays.contains(block))),
            action: Action::Destroy,
            session: session.strip_prefix(&prefix).unwrap_or(session),
        })
        .collect()
}

/// Returns the blocks that are in use outside of this swarm: leases of other swarms, lock files, sockets.
fn others(observation: &Observation) -> Vec<Other> {
    let own = |owner: &str| observation.owner.as_deref() == Some(owner);
    let leased: HashSet<(PortBlock, &str)> = observation
        .taken
        .iter()
        .filter_map(|taken| match &taken.by {
            Holder::Lease { session, .. } => Some((taken.block, session.as_str())),
            _ => None,
        })
        .collect();
    let mut others = Vec::new();
    for taken in &observation.taken {
        let (what, socket) = match &taken.by {
            Holder::Lease { owner, .. } if own(owner) => continue,
            Holder::Lease { session, .. } => (format!("leased to {session}"), false),
            Holder::LockFile { owner: Some(owner), .. } if own(owner) => continue,
            Holder::LockFile { session: Some(session), .. } if leased.contains(&(taken.block, session)) => {
                continue;
            }
            Holder::LockFile { name, session, .. } => {
                let whose = session.as_ref().map_or(String::new(), |session| format!(" of {session}"));
                (format!("lock file {name}{whose}"), false)
            }
            Holder::Socket { protocol } => (format!("{protocol}, in use by a process"), true),
        };
        others.push(Other { block: taken.block, what, socket });
    }
    others
}

struct Picture<'a> {
    planned: &'a [Planned<'a>],
    others: &'a [Other],
    ephemeral: Option<PortBlock>,
}

impl Picture<'_> {
    fn legend(&self, section: &mut String) {
        let swatch =
            |inner: &str| format!("<svg width=\"22\" height=\"14\" aria-hidden=\"true\">{inner}</svg>");
        section.push_str(
            "<svg width=\"0\" height=\"0\" aria-hidden=\"true\"><defs><pattern id=\"hatch\" width=\"6\" height=\"6\" \
             patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <line class=\"hatching\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\"/></pattern></defs></svg>\n<ul class=\"legend\">\n",
        );
        let actions: BTreeSet<Action> = self.planned.iter().map(|planned| planned.action).collect();
        for action in actions {
            let name = verb(action);
            let block = swatch("<g class=\"block\"><rect width=\"22\" height=\"14\"/></g>");
            let _ = writeln!(section, "<li class=\"{name}\">{block} of this plan, {name}</li>");
        }
        if self.others.iter().any(|other| !other.socket) {
            let _ = writeln!(
                section,
                "<li>{} taken by others</li>",
                swatch("<rect class=\"others\" width=\"22\" height=\"14\"/>")
            );
        }
        if self.others.iter().any(|other| other.socket) {
            let _ = writeln!(
                section,
                "<li>{} in use by a process</li>",
                swatch("<path class=\"socket\" d=\"M7 0h8l-4 7z\"/>")
            );
        }
        if let Some(ephemeral) = self.ephemeral {
            let _ = writeln!(
                section,
                "<li>{} {ephemeral}, given to outgoing connections</li>",
                swatch("<rect class=\"ephemeral\" y=\"10\" width=\"22\" height=\"4\"/>")
            );
        }
        section.push_str("</ul>\n");
    }

    /// Draws all ports of the host on one strip.
    fn overview(&self, section: &mut String) {
        let whole = Strip { first: 0, ports: PORTS };
        let _ = write!(
            section,
            "<div class=\"strip\"><span>1</span><svg width=\"100%\" height=\"{HEIGHT}\" aria-hidden=\"true\">"
        );
        section.push_str("<rect class=\"track\" width=\"100%\" height=\"100%\"/>");
        for run in runs(self.others.iter().map(|other| other.block).collect()) {
            let _ = write!(section, "<rect class=\"others\" {} height=\"100%\"/>", whole.place(run));
        }
        for (action, blocks) in self.by_action(|planned| planned.lane == 0) {
            for run in runs(blocks) {
                let _ = write!(
                    section,
                    "<svg class=\"block {}\" {} height=\"100%\"><title>{run}</title><rect width=\"100%\" height=\"100%\"/></svg>",
                    verb(action),
                    whole.place(run)
                );
            }
        }
        self.underline(section, whole, HEIGHT);
        section.push_str("</svg><span>65535</span></div>\n");
    }

    /// Draws each part of the host's ports that the plan uses, on one strip each.
    fn strips(&self, section: &mut String) {
        let own = || self.planned.iter().filter(|planned| planned.lane == 0);
        let touched = |scale: u32| -> BTreeSet<u32> {
            let strips = |block: PortBlock| u32::from(block.start()) / scale..=u32::from(block.end()) / scale;
            own()
                .flat_map(|planned| {
                    let (start, end) = (u32::from(planned.block.start()), u32::from(planned.block.end()));
                    // A block close to a planned block is its neighbour, even on the next strip.
                    let around = PortBlock::new(
                        start.saturating_sub(scale / 8).max(1),
                        (end + scale / 8).min(PORTS - 1),
                    );
                    let beside = self
                        .others
                        .iter()
                        .filter(move |other| around.is_some_and(|around| around.overlaps(other.block)));
                    let beside = beside.flat_map(move |other| strips(other.block)).filter(move |strip| {
                        strip.abs_diff(start / scale) <= 1 || strip.abs_diff(end / scale) <= 1
                    });
                    strips(planned.block).chain(beside)
                })
                .collect()
        };
        let scale = SCALES.into_iter().find(|scale| touched(*scale).len() <= STRIPS).unwrap_or(SCALES[5]);
        let mut next = None;
        for at in touched(scale) {
            let strip = Strip { first: at * scale, ports: scale };
            let skipped = next.map_or(0, |next| strip.first - next);
            if skipped > 0 {
                let _ = writeln!(
                    section,
                    "<p class=\"gap\">{} ports without a block of this plan</p>",
                    thousands(skipped as usize)
                );
            }
            next = Some(strip.first + scale);
            self.strip(section, strip);
        }
    }

    fn strip(&self, section: &mut String, strip: Strip) {
        let here = self.planned.iter().filter(|planned| strip.shows(planned.block));
        let height = HEIGHT + SHARE * here.map(|planned| planned.lane).max().unwrap_or_default();
        let _ = write!(
            section,
            "<div class=\"strip\"><span>{}</span><svg width=\"100%\" height=\"{height}\" aria-hidden=\"true\">\
             <rect class=\"track\" width=\"100%\" height=\"{HEIGHT}\"/>",
            strip.first.max(1)
        );
        let here: Vec<&Other> = self.others.iter().filter(|other| strip.shows(other.block)).collect();
        for other in here.iter().filter(|other| !other.socket) {
            let _ = write!(
                section,
                "<rect class=\"others\" {} height=\"{HEIGHT}\"><title>{} {}</title></rect>",
                strip.place(other.block),
                other.block,
                escape(&other.what)
            );
        }
        for lane in 0..=LANES {
            self.lane(section, strip, lane);
        }
        for other in here.iter().filter(|other| other.socket) {
            let port = other.block.start();
            let _ = write!(
                section,
                "<svg x=\"{:.3}%\" overflow=\"visible\"><path class=\"socket\" d=\"M-4 0h8l-4 7z\"><title>{port} {}</title></path></svg>",
                strip.percent(f64::from(port) + 0.5 - f64::from(strip.first)),
                escape(&other.what)
            );
        }
        self.underline(section, strip, HEIGHT);
        let _ =
            writeln!(section, "</svg><span>{}</span></div>", (strip.first + strip.ports - 1).min(PORTS - 1));
    }

    /// Draws the plan's blocks of one depth on one strip.
    fn lane(&self, section: &mut String, strip: Strip, lane: usize) {
        let (y, height, class) =
            if lane == 0 { (0, HEIGHT, "") } else { (HEIGHT + (lane - 1) * SHARE + 2, SHARE - 2, " share") };
        let shown = |planned: &Planned<'_>| planned.lane == lane && strip.shows(planned.block);
        let mut draw = |action: Action, block: PortBlock, title: &str, name: &str| {
            let text = if strip.has_room(block, name) {
                format!("<text x=\"5\" y=\"{}\">{}</text>", height - 5, escape(name))
            } else {
                String::new()
            };
            let _ = write!(
                section,
                "<svg class=\"block {}{class}\" {} y=\"{y}\" height=\"{height}\"><title>{}</title>\
                 <rect width=\"100%\" height=\"100%\"/>{text}</svg>",
                verb(action),
                strip.place(block),
                escape(title)
            );
        };
        if self.planned.iter().filter(|planned| shown(planned)).count() > CROWD {
            for (action, blocks) in self.by_action(shown) {
                for run in runs(blocks) {
                    draw(action, run, &run.to_string(), "");
                }
            }
            return;
        }
        for planned in self.planned.iter().filter(|planned| shown(planned)) {
            draw(
                planned.action,
                planned.block,
                &format!("{} {}", planned.block, planned.session),
                planned.session,
            );
        }
    }

    fn by_action(&self, wanted: impl Fn(&Planned<'_>) -> bool) -> BTreeMap<Action, Vec<PortBlock>> {
        let mut blocks: BTreeMap<Action, Vec<PortBlock>> = BTreeMap::new();
        for planned in self.planned.iter().filter(|planned| wanted(planned)) {
            blocks.entry(planned.action).or_default().push(planned.block);
        }
        blocks
    }

    /// Underlines the ports for outgoing connections.
    fn underline(&self, section: &mut String, strip: Strip, height: usize) {
        if let Some(ephemeral) = self.ephemeral.filter(|ephemeral| strip.shows(*ephemeral)) {
            let _ = write!(
                section,
                "<rect class=\"ephemeral\" {} y=\"{}\" height=\"3\"/>",
                strip.place(ephemeral),
                height - 3
            );
        }
    }

    /// Writes the content of the picture as a table, in the order of the ports.
    fn table(&self, section: &mut String, anchors: &Anchors<'_>) {
        let mut rows: Vec<(PortBlock, usize, String)> = self
            .planned
            .iter()
            .map(|planned| {
                let anchor = anchors.get(planned.session).map_or("sessions", String::as_str);
                let name = verb(planned.action);
                let what = format!(
                    "<a href=\"#{anchor}\">{}</a> <span class=\"verb {name}\">{name}</span>",
                    escape(planned.session)
                );
                (planned.block, planned.lane, what)
            })
            .collect();
        rows.extend(self.others.iter().map(|other| (other.block, 0, escape(&other.what))));
        rows.extend(
            self.ephemeral.map(|ephemeral| (ephemeral, 0, "given to outgoing connections".to_owned())),
        );
        rows.sort_by_key(|(block, lane, _)| (block.start(), *lane, std::cmp::Reverse(block.end())));
        let _ = write!(
            section,
            "<details class=\"order\"{}>\n<summary>All of them in order, {}</summary>\n<table>\n<thead><tr>\
             <th scope=\"col\" class=\"ports\">Ports</th><th scope=\"col\">Whose</th></tr></thead>\n<tbody>\n",
            if rows.len() <= OPEN { " open" } else { "" },
            thousands(rows.len())
        );
        for (block, lane, what) in rows.iter().take(ROWS) {
            let ports = if block.size() == 1 { block.start().to_string() } else { block.to_string() };
            let share = if *lane > 0 { "a share: " } else { "" };
            let _ = writeln!(section, "<tr><td class=\"ports\">{ports}</td><td>{share}{what}</td></tr>");
        }
        section.push_str("</tbody>\n</table>\n");
        if rows.len() > ROWS {
            let more = thousands(rows.len() - ROWS);
            let _ = writeln!(
                section,
                "<p class=\"more\">{more} more; the sessions above say which ports each has.</p>"
            );
        }
        section.push_str("</details>\n");
    }
}

/// Part of the host's ports, as wide as the page.
#[derive(Clone, Copy)]
struct Strip {
    first: u32,
    ports: u32,
}

impl Strip {
    fn shows(self, block: PortBlock) -> bool {
        u32::from(block.start()) < self.first + self.ports && self.first <= u32::from(block.end())
    }

    /// Returns the position of a block on the strip, cut at the ends of the strip; always wide enough to be visible.
    fn place(self, block: PortBlock) -> String {
        const SEEN: f64 = 0.15;
        let begin = u32::from(block.start()).max(self.first) - self.first;
        let end = (u32::from(block.end()) + 1).min(self.first + self.ports) - self.first;
        let (x, width) = (self.percent(f64::from(begin)), self.percent(f64::from(end - begin)));
        format!("x=\"{x:.3}%\" width=\"{:.3}%\"", width.max(SEEN))
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
    fn where_blocks_lie_on_a_strip() {
        let strip = Strip { first: 1024, ports: 256 };
        let block = |start, end| PortBlock::new(start, end).unwrap();
        assert_eq!(strip.place(block(1024, 1279)), "x=\"0.000%\" width=\"100.000%\"");
        assert_eq!(strip.place(block(1088, 1151)), "x=\"25.000%\" width=\"25.000%\"");
        assert_eq!(strip.place(block(1000, 2000)), "x=\"0.000%\" width=\"100.000%\"");
        assert_eq!(
            Strip { first: 0, ports: PORTS }.place(block(8080, 8080)),
            "x=\"12.329%\" width=\"0.150%\""
        );
        assert!(
            strip.shows(block(1279, 1300)) && !strip.shows(block(1280, 1300)) && !strip.shows(block(1, 1023))
        );
    }
}
