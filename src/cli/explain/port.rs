//! Owner of a port.

use std::collections::BTreeSet;
use std::path::PathBuf;

use seedbed::host::{leases, listeners};
use seedbed::name::PortBlock;
use seedbed::observe::{self, Holder, Observation, Question};
use seedbed::plan::Session;
use seedbed::provider::Allocation;
use seedbed::provider::port_range::{self, Block, Options};

use super::super::exit::Failure;
use super::answer::{Answer, owner_of};
use super::rule;
use super::sources::{LocatedPlan, Sources, state_words};

pub(super) fn explain(sources: &mut Sources<'_>, port: u16) -> Result<Answer, Failure> {
    let observation = observe(sources)?;
    let mut explanation = match sources.find(|located| owner(located, port)) {
        Some((at, session)) => {
            let located = &sources.plans()[at];
            owned(sources, located, &located.plan.sessions[session], port)
        }
        None => unowned(sources, port, &observation)?,
    };
    let single = PortBlock::single(port);
    explanation.document.port = Some(port);
    explanation.document.ephemeral =
        observation.ephemeral.zip(single).map(|(range, port)| range.contains(port));
    explanation.document.listeners = single.map(listeners::on).unwrap_or_default();
    explanation.has_ports = true;
    Ok(explanation)
}

/// Returns the session with the smallest block that contains the port: a share comes before the block it is cut from.
fn owner(located: &LocatedPlan, port: u16) -> Option<usize> {
    let port = PortBlock::single(port)?;
    let blocks = located.plan.sessions.iter().enumerate().flat_map(|(at, session)| {
        let ports = blocks(session).filter_map(|(_, block)| block.ports());
        ports.filter(move |ports| ports.contains(port)).map(move |ports| (ports.size(), at))
    });
    blocks.min_by_key(|(size, at)| (*size, std::cmp::Reverse(*at))).map(|(_, at)| at)
}

/// Returns the blocks of a session, each with its allocation.
fn blocks(session: &Session) -> impl Iterator<Item = (&Allocation, Block)> {
    session.allocations_of(port_range::KIND).filter_map(|held| Some((held, Block::of(held)?)))
}

fn owned(sources: &Sources<'_>, located: &LocatedPlan, session: &Session, port: u16) -> Answer {
    let contains = |block: &Block| {
        let ports = block.ports().zip(PortBlock::single(port));
        ports.is_some_and(|(ports, port)| ports.contains(port))
    };
    let Some((allocation, block)) = blocks(session).find(|(_, block)| contains(block)) else {
        return Answer::new(format!("port {port} is of {}", session.id));
    };
    let what = rule::of_port(session, &block, port);
    let mut explanation =
        Answer::new(format!("port {port} is of {} {}: {what}", session.id, state_words(located.state)));
    explanation.document.owner = Some(owner_of(located, session));
    explanation.document.rules = rule::of_block(located, session, allocation, &block);
    let named = block.named_ports();
    let name = named.iter().find(|(_, named)| *named == u64::from(port)).map(|(name, _)| *name);
    explanation.add_excerpt(sources.request_excerpt(located, session, allocation.name(), name));
    explanation
}

fn unowned(sources: &Sources<'_>, port: u16, observation: &Observation) -> Result<Answer, Failure> {
    let mut explanation = Answer::new(format!("no session on this host has port {port}"));
    explanation.document.rules = geometries(sources).iter().map(|geometry| geometry.place_of(port)).collect();
    let single = PortBlock::single(port);
    let holds = |block: PortBlock| single.is_some_and(|port| block.contains(port));
    for lease in leases::all(sources.host)? {
        if PortBlock::new(lease.start_port.into(), lease.end_port.into()).is_some_and(holds) {
            let (start, end) = (lease.start_port, lease.end_port);
            let workspace = lease.workspace.display();
            explanation
                .document
                .held
                .push(format!("the lease of {start}-{end} to {} of {workspace}", lease.session));
        }
    }
    for taken in observation.taken.iter().filter(|taken| holds(taken.block)) {
        match &taken.by {
            Holder::LockFile { name, session, .. } => {
                let of =
                    session.as_ref().map_or_else(String::new, |session| format!(", of session {session}"));
                explanation.document.held.push(format!("the lock file {name}{of}"));
            }
            Holder::Lease { session, owner } if owner.is_empty() => {
                explanation.document.held.push(format!("the lease of {} to {session}", taken.block));
            }
            _ => {}
        }
    }
    Ok(explanation)
}

/// Observes the leases, lock files and sockets of this host, and its ephemeral range.
fn observe(sources: &Sources<'_>) -> Result<Observation, Failure> {
    let mut questions = BTreeSet::from([Question::Ports]);
    let workspace = sources.workspace();
    if workspace.is_some() {
        questions
            .extend(lock_directories(sources).into_iter().map(|directory| Question::Locks { directory }));
    }
    let workspace = workspace.unwrap_or_else(|| sources.directory.to_owned());
    observe::observe(sources.host, &workspace, &questions).map_err(Failure::Observe)
}

/// Range from which the blocks of this manifest are cut.
#[derive(PartialEq)]
struct Geometry {
    base: u32,
    size: u32,
    count: u32,
    whose: String,
}

impl Geometry {
    fn place_of(&self, port: u16) -> String {
        let last = self.base + self.size * self.count - 1;
        let range = format!(
            "{}-{last}, from which {} cuts {} blocks of {} ports",
            self.base, self.whose, self.count, self.size
        );
        match u32::from(port).checked_sub(self.base).map(|offset| offset / self.size) {
            Some(index) if index < self.count => {
                let start = self.base + index * self.size;
                format!("it is in block {index}, {start}-{}, of {range}", start + self.size - 1)
            }
            _ => format!("it is outside {range}"),
        }
    }
}

/// Returns the distinct ranges: of the defaults, then of blocks in the plans of this swarm with other ranges.
fn geometries(sources: &Sources<'_>) -> Vec<Geometry> {
    let defaults = options(sources);
    let geometry = |base, size, count, whose: String| Geometry { base, size, count, whose };
    let own = defaults.iter().map(|options| {
        geometry(
            options.base_port,
            options.block_size,
            options.blocks(),
            "the manifest by default".to_owned(),
        )
    });
    let plans =
        sources.plans().iter().filter(|located| located.own).flat_map(|located| &located.plan.sessions);
    let blocks = plans.flat_map(|session| blocks(session).map(move |(_, block)| (session, block)));
    let cut = blocks.filter(|(_, block)| block.share.is_none()).map(|(session, block)| {
        geometry(block.base_port, block.block_size, block.block_count, session.id.clone())
    });
    let mut distinct: Vec<Geometry> = Vec::new();
    for one in own.chain(cut).filter(|one| one.size > 0 && one.count > 0) {
        let same =
            |other: &Geometry| (other.base, other.size, other.count) == (one.base, one.size, one.count);
        if !distinct.iter().any(same) {
            distinct.push(one);
        }
    }
    distinct
}

/// Returns the default options of `port-range`; `None` without a manifest.
fn options(sources: &Sources<'_>) -> Option<Options> {
    let document = sources.manifest()?.defaults.get(port_range::KIND).cloned().unwrap_or_default();
    serde_json::from_value(document.into()).ok()
}

fn lock_directories(sources: &Sources<'_>) -> BTreeSet<PathBuf> {
    let own = sources.plans().iter().filter(|located| located.own).flat_map(|located| &located.plan.sessions);
    let blocks = own.flat_map(blocks);
    let used = blocks.filter_map(|(_, block)| Some(block.lock_path.parent()?.to_owned()));
    used.chain(options(sources).map(|options| options.lock_directory)).collect()
}
