//! Chooses blocks. Pure.
//!
//! A block is `u32_be(sha256(session id)[0..4]) mod block-count`, or the next free one, as in the reference
//! implementation. But a block is free only if each of its ports is. A file's name does not decide, so that blocks of
//! different geometry never overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::check::{self, count, diagnostic};
use super::{Block, KIND, Options, Share};
use crate::manifest::rule;
use crate::manifest::{self, Diagnostic, Diagnostics, Location};
use crate::name::{PortBlock, hash_u32};
use crate::observe::{Directory, Observation, PortOwner};
use crate::provider::{
    Allocation, Allocator, OptionsCache, Parent, Planned, Request, allocation_fields, contains_workspace,
};

/// Maximum number of passed-over blocks in an allocation's notes; a crowded host would fill pages.
const NOTED: usize = 4;

/// Options of a block of its own, which do not apply to a share.
const GEOMETRY: [&str; 5] =
    ["base-port", "block-size", "block-count", "primary-port-offset", "lock-directory"];

/// Planner of the blocks of one plan.
pub(super) struct Ports<'o> {
    observation: &'o Observation,
    options: OptionsCache<Options>,
    /// Planned blocks, by first port. They never overlap, except for shares, which lie inside their parents' blocks.
    planned: BTreeMap<u16, (PortBlock, String)>,
    /// Blocks that other owners or provisioned children use, by first port, from the observation.
    in_use: Vec<(PortBlock, String)>,
    /// Highest last port of `in_use` so far, by position. A search stops when no earlier block can reach the wanted one.
    reach: Vec<u16>,
    /// Blocks of children that programs have provisioned from sessions of this swarm: shares of the blocks of these
    /// sessions.
    childrens: Vec<PortBlock>,
    /// Ports that processes of any owner serve.
    served: Vec<PortBlock>,
    /// Blocks of active sessions that are kept.
    kept: BTreeSet<Owner>,
    /// Number of shares, and positions of the allocated ones, for each block whose shares are kept.
    shares: BTreeMap<Owner, (u32, BTreeSet<u32>)>,
}

/// Id of the session that owns a block, and name of the resource in the session.
type Owner = (String, String);

impl<'o> Ports<'o> {
    pub(super) fn new(observation: &'o Observation) -> Self {
        let is_childs = |port_owner: &PortOwner| {
            observation.owner.is_some()
                && owner(port_owner) == observation.owner.as_deref()
                && session(port_owner).is_some_and(|session| observation.relatives.contains_key(session))
        };
        let childrens = observation.ports_in_use.iter().filter(|ports| is_childs(&ports.owner));
        let childrens = childrens.map(|ports| ports.block).collect();
        let sockets =
            observation.ports_in_use.iter().filter(|ports| matches!(ports.owner, PortOwner::Socket { .. }));
        let served = sockets.map(|ports| ports.block).collect();
        let mut in_use: Vec<_> = observation
            .ports_in_use
            .iter()
            .filter(|ports| {
                observation.owner.is_none()
                    || owner(&ports.owner) != observation.owner.as_deref()
                    || is_childs(&ports.owner)
            })
            .map(|ports| (ports.block, use_of(ports.block, &ports.owner)))
            .collect();
        in_use.sort();
        let reach = in_use
            .iter()
            .scan(0, |reach, (block, _)| {
                *reach = block.end().max(*reach);
                Some(*reach)
            })
            .collect();
        Self {
            observation,
            options: OptionsCache::default(),
            in_use,
            reach,
            planned: BTreeMap::new(),
            childrens,
            served,
            kept: BTreeSet::new(),
            shares: BTreeMap::new(),
        }
    }

    /// Returns all users of a port of `block`.
    fn users(&self, block: PortBlock) -> Vec<&str> {
        let overlaps = |(other, _): &&(PortBlock, String)| other.overlaps(block);
        self.in_use.iter().filter(overlaps).map(|(_, by)| by.as_str()).collect()
    }

    /// Returns the user of a port of `block`; `None` if the block is free.
    fn user(&self, block: PortBlock) -> Option<&str> {
        if let Some((_, (other, session))) = self.planned.range(..=block.end()).next_back()
            && other.overlaps(block)
        {
            return Some(session);
        }
        let behind = self.in_use.partition_point(|(other, _)| other.start() <= block.end());
        (0..behind)
            .rev()
            .take_while(|&at| self.reach[at] >= block.start())
            .find(|&at| self.in_use[at].0.overlaps(block))
            .map(|at| self.in_use[at].1.as_str())
    }

    fn options(&mut self, request: &Request<'_>, is_share: bool) -> Result<Rc<Options>, Diagnostics> {
        let options = self.options.read(request.options).map_err(|error| {
            vec![diagnostic(
                rule::BROKEN_KIND,
                request.location,
                &format!("the options of `{KIND}` cannot be read: {error}"),
                "here",
                "",
            )]
        })?;
        let diagnostics = check::diagnostics(&options, request.location, is_share);
        if diagnostics.is_empty() { Ok(options) } else { Err(diagnostics.into()) }
    }

    fn check_lock_directory(&self, options: &Options, location: &Location) -> Result<(), Diagnostics> {
        let location = || location.key("lock-directory");
        if contains_workspace(&self.observation.workspace, &options.lock_directory) {
            return Err(vec![diagnostic(
                rule::LOCK_DIRECTORY,
                &location(),
                "lock files need a directory of their own, which Git can ignore",
                "is the workspace or above it",
                "name one below the workspace, such as `.ai_ops/locks/ports`",
            )]
            .into());
        }
        let (component, what) = match self.observation.directories.get(&options.lock_directory) {
            Some(Directory::Link(component)) => (component, "a symbolic link"),
            Some(Directory::NotADirectory(component)) => (component, "not a directory"),
            _ => return Ok(()),
        };
        Err(vec![diagnostic(
            rule::LOCK_DIRECTORY,
            &location(),
            &format!("`{}` is {what}: lock files would be written somewhere else", component.display()),
            "leads there",
            "remove it, or name another `lock-directory`",
        )]
        .into())
    }
}

impl Allocator for Ports<'_> {
    fn keep(&mut self, session: &str, parent: Option<&str>, allocation: &Allocation) {
        let Some(block) = Block::from_allocation(allocation) else { return };
        let Some(ports) = block.ports() else { return };
        self.kept.insert((session.to_owned(), allocation.name().to_owned()));
        match (block.share, parent) {
            (Some(share), Some(parent)) => {
                let entry = self
                    .shares
                    .entry((parent.to_owned(), allocation.name().to_owned()))
                    .or_insert((share.of, BTreeSet::new()));
                entry.1.insert(share.index);
            }
            _ => {
                self.planned.insert(ports.start(), (ports, session.to_owned()));
            }
        }
    }

    fn free(&mut self, _allocation: &Allocation) {
        // Blocks of the swarm itself are not in `in_use`.
    }

    fn update(
        &mut self,
        request: &Request<'_>,
        allocation: &Allocation,
    ) -> Option<Result<Map<String, Value>, Diagnostics>> {
        let block = Block::from_allocation(allocation)?;
        let ports = block.ports()?;
        let options = match self.options(request, block.share.is_some()) {
            Ok(options) => options,
            Err(found) => return Some(Err(found)),
        };
        let is_divided = request.shares > 0 || self.childrens.iter().any(|share| share.overlaps(ports));
        if is_divided && reserve(&options) != block.reserve {
            return None;
        }
        let is_same_range = options.base_port == block.base_port
            && options.block_size == block.block_size
            && block.block_index < options.blocks();
        let (locks, primary, count) = match block.share {
            Some(_) => (block.lock_path.parent()?, block.primary_port, block.block_count),
            None if is_same_range => {
                let primary = block.start_port + options.primary_port_offset;
                (&*options.lock_directory, primary, options.blocks())
            }
            None => return None,
        };
        let Block { base_port: base, block_index: index, share, .. } = block;
        let cut = Cut { ports, base, count, index, share, locks };
        Some(self::allocation(request, &options, &cut, primary, Vec::new()).map(|planned| planned.allocation))
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Planned, Diagnostics> {
        let options = self.options(request, false)?;
        self.check_lock_directory(&options, request.location)?;
        let count = options.blocks();
        let preferred = hash_u32(request.session) % count;
        let mut notes = Vec::new();
        let mut passed = 0_usize;
        for offset in 0..count {
            let index = (preferred + offset) % count;
            let start = options.base_port + index * options.block_size;
            let Some(ports) = PortBlock::new(start, start + options.block_size - 1) else { continue };
            if let Some(by) = self.user(ports) {
                passed += 1;
                if passed <= NOTED {
                    notes.push(format!("block {index} ({ports}) passed over: {by}"));
                }
                continue;
            }
            if passed > NOTED {
                notes.push(format!("{} more blocks passed over", passed - NOTED));
            }
            self.planned.insert(ports.start(), (ports, format!("planned for {}", request.session)));
            let locks = &options.lock_directory;
            let block = Cut { ports, base: options.base_port, count, index, share: None, locks };
            return allocation(request, &options, &block, start + options.primary_port_offset, notes);
        }
        let passed_over = notes.join("; ");
        Err(vec![diagnostic(
            rule::NO_FREE_BLOCK,
            &request.location.key("block-count"),
            &format!(
                "no block of {} ports is free for session `{}`: {passed_over}",
                options.block_size, request.session
            ),
            &format!("all {count} blocks from {} are in use", options.base_port),
            "raise `block-count`, lower `block-size`, move `base-port`, or destroy swarms that are no longer needed",
        )].into())
    }

    fn sub_allocate(&mut self, request: &Request<'_>, parent: &Parent<'_>) -> Result<Planned, Diagnostics> {
        reject_geometry(request)?;
        let block = Block::from_allocation(parent.allocation).ok_or_else(|| unreadable_parent(request))?;
        let rest = PortBlock::new(block.start_port + block.reserve, block.end_port);
        let Some(share) = self.free_share(request, parent, rest) else {
            return self.instead_of_a_share(request, parent);
        };
        let ports = rest.and_then(|rest| share_of(rest, share));
        let ports = ports.ok_or_else(|| no_port_to_share(request, parent, &block, share))?;
        if block.has_name_within(ports) {
            return self.instead_of_a_share(request, parent);
        }
        let options = self.options(request, true)?;
        let locks = block.lock_path.parent().unwrap_or(Path::new(""));
        let entry = self.shares.entry(owner_of(parent)).or_insert((share.of, BTreeSet::new()));
        entry.1.insert(share.index);
        let start = u32::from(ports.start());
        let primary = block.primary_port.clamp(start, u32::from(ports.end()));
        let cut = Cut { ports, base: start, count: 1, index: 0, share: Some(share), locks };
        allocation(request, &options, &cut, primary, Vec::new())
    }
}

impl Ports<'_> {
    /// Returns the share that a new child takes of `rest`: its own position, or the first free one if that is owned or
    /// served. Returns `None` if no share is left.
    fn free_share(
        &self,
        request: &Request<'_>,
        parent: &Parent<'_>,
        rest: Option<PortBlock>,
    ) -> Option<Share> {
        // The number of children that will be spawned is unknown: a block that exists is divided for them only by `slots`.
        let is_divisible = !request.spawned || !self.kept.contains(&owner_of(parent));
        let of = slots(parent).unwrap_or(if is_divisible { parent.count } else { 0 });
        let none = BTreeSet::new();
        let (of, used) = self.shares.get(&owner_of(parent)).map_or((of, &none), |(of, used)| (*of, used));
        // A new block is probed as a whole when it is chosen. In a block that exists already, each new share is probed.
        let served: &[PortBlock] = if self.kept.contains(&owner_of(parent)) { &self.served } else { &[] };
        let is_in_use = |index| {
            let ports = rest.and_then(|rest| share_of(rest, Share { index, of }));
            let mut in_use = self.childrens.iter().chain(served);
            ports.is_some_and(|ports| in_use.any(|in_use| in_use.overlaps(ports)))
        };
        let free = |index: &u32| !used.contains(index) && !is_in_use(*index);
        let index = Some(parent.index).filter(|index| *index < of).filter(free);
        index.or_else(|| (0..of).find(free)).map(|index| Share { index, of })
    }

    /// Plans a block of its own for a child whose parent's block is divided up already: an active session is never
    /// moved.
    fn instead_of_a_share(
        &mut self,
        request: &Request<'_>,
        parent: &Parent<'_>,
    ) -> Result<Planned, Diagnostics> {
        let applied = self.kept.contains(&owner_of(parent));
        if applied && request.spawned && slots(parent).is_some() {
            return Err(vec![diagnostic(
                rule::SLOTS,
                request.location,
                &format!("every share of the ports of `{}` is in use", parent.session),
                "finds no share left",
                "release a session below the parent, or use a template that asks with `from = \"pool\"`",
            )]
            .into());
        }
        if !applied {
            return Err(vec![diagnostic(
                rule::SLOTS,
                request.location,
                &format!("`{}` has fewer `slots` than children that take a share", parent.session),
                "finds no share left",
                "raise the parent's `slots`, or ask with `from = \"pool\"`",
            )]
            .into());
        }
        // The parent's geometry is used: the share would have been cut from such a block.
        let mut options = manifest::Options::clone(request.options);
        for key in ["base-port", "block-size", "block-count"] {
            if let Some(value) = parent.allocation.options.get(key) {
                options.insert(key.to_owned(), value.clone());
            }
        }
        let mut planned = self.allocate(&Request { options: &Arc::new(options), ..*request })?;
        planned.notes.insert(
            0,
            format!(
                "every share of the ports of {} is owned by an active session: a block of its own",
                parent.session
            ),
        );
        Ok(planned)
    }
}

/// Rejects options that only a block of its own has.
fn reject_geometry(request: &Request<'_>) -> Result<(), Diagnostics> {
    let meaningless = GEOMETRY.iter().filter(|key| request.own.contains_key(**key)).map(|key| {
        diagnostic(
            rule::OPTION_OF_A_BLOCK,
            &request.location.key(key).the_key(),
            &format!("`{key}` means nothing for a share of the parent's ports"),
            "is decided by the parent's block",
            "remove it, or request a block of its own with `from = \"pool\"`",
        )
    });
    let meaningless: Vec<_> = meaningless.collect();
    if meaningless.is_empty() { Ok(()) } else { Err(meaningless.into()) }
}

fn unreadable_parent(request: &Request<'_>) -> Vec<Diagnostic> {
    let message = "the parent's ports cannot be read from its allocation";
    vec![diagnostic(rule::BROKEN_KIND, request.location, message, "here", "")]
}

fn no_port_to_share(
    request: &Request<'_>,
    parent: &Parent<'_>,
    block: &Block,
    share: Share,
) -> Vec<Diagnostic> {
    let (session, ports) = (parent.session, count(block.block_size, "port"));
    let shares = count(share.of, "share");
    let message = match block.reserve {
        0 => format!("the {ports} of `{session}` cannot be divided into {shares}"),
        reserve => format!(
            "`{session}` keeps {reserve} of its {ports}, and the rest cannot be divided into {shares}"
        ),
    };
    vec![diagnostic(
        rule::NO_PORT_TO_SHARE,
        request.location,
        &message,
        "finds no port in its share",
        "raise the parent's `block-size`, lower its `reserve` or `slots`, or ask with `from = \"pool\"`",
    )]
}

/// Returns the number of shares that the parent declares for its block; `None` without `slots`.
fn slots(parent: &Parent<'_>) -> Option<u32> {
    let slots = parent.allocation.options.get("slots").and_then(Value::as_u64);
    slots.and_then(|slots| u32::try_from(slots).ok())
}

/// Returns the key of the block from which a share is taken.
fn owner_of(parent: &Parent<'_>) -> Owner {
    (parent.session.to_owned(), parent.allocation.name().to_owned())
}

/// A block as it was cut.
struct Cut<'a> {
    ports: PortBlock,
    base: u32,
    count: u32,
    index: u32,
    share: Option<Share>,
    /// Directory of its lock file.
    locks: &'a Path,
}

/// Returns the share's ports: `floor(size / of)` each, and the rest for the last, as in `buildChildResourceRequests` of
/// the reference implementation. Returns `None` if no port is left.
pub(super) fn share_of(rest: PortBlock, share: Share) -> Option<PortBlock> {
    let each = rest.size() / share.of;
    let start = u32::from(rest.start()) + each * share.index;
    let end =
        if share.index + 1 == share.of { u32::from(rest.end()) } else { (start + each).checked_sub(1)? };
    if each == 0 { None } else { PortBlock::new(start, end) }
}

/// Returns the number of ports at the start of its block that a session with children keeps.
fn reserve(options: &Options) -> u32 {
    options.reserve.unwrap_or_else(|| u32::try_from(options.names.len()).unwrap_or(u32::MAX))
}

fn allocation(
    request: &Request<'_>,
    options: &Options,
    cut: &Cut<'_>,
    primary: u32,
    notes: Vec<String>,
) -> Result<Planned, Diagnostics> {
    let names = named_ports(request, options, cut.ports, primary)?;
    let (start, end) = (u32::from(cut.ports.start()), u32::from(cut.ports.end()));
    let block = Block {
        base_port: cut.base,
        block_size: cut.ports.size(),
        block_count: cut.count,
        block_index: cut.index,
        start_port: start,
        end_port: end,
        primary_port: primary,
        lock_path: cut.locks.join(format!("{}.lock", cut.ports)),
        reserve: reserve(options),
        names,
        share: cut.share,
    };
    Ok(Planned {
        allocation: allocation_fields(&block),
        within_parent: block.share.is_some(),
        notes,
        external: None,
    })
}

/// Assigns ports to the names, from the primary upward, wrapping at the end of the session's own ports.
fn named_ports(
    request: &Request<'_>,
    options: &Options,
    ports: PortBlock,
    primary: u32,
) -> Result<Map<String, Value>, Diagnostics> {
    let named = u32::try_from(options.names.len()).unwrap_or(u32::MAX);
    let start = u32::from(ports.start());
    let own = if request.shares == 0 { ports.size() } else { reserve(options).min(ports.size()) };
    if named > own {
        return Err(vec![diagnostic(
            rule::PORT_NAMES_DO_NOT_FIT,
            &request.location.key("names"),
            &format!(
                "{} do not fit into the {} of session `{}`",
                count(named, "name"),
                count(own, "port"),
                request.session
            ),
            &count(named, "name"),
            if request.shares == 0 {
                "use fewer names or more ports: raise `block-size`, or for a share that of its parent"
            } else {
                "raise `reserve`, which is what the session keeps when its children divide the rest"
            },
        )]
        .into());
    }
    let offset = primary - start;
    if named > 0 && offset >= own {
        return Err(vec![diagnostic(
            rule::PRIMARY_PORT,
            &request.location.key("primary-port-offset"),
            &format!(
                "the primary port of session `{}` is beyond the {} that it keeps",
                request.session,
                count(own, "port")
            ),
            "beyond `reserve`",
            "lower `primary-port-offset` or raise `reserve`",
        )]
        .into());
    }
    Ok(options
        .names
        .iter()
        .zip(0..named)
        .map(|(name, at)| (name.clone(), json!(start + (offset + at) % own)))
        .collect())
}

/// Returns the notices for reviewers about a block on this host.
pub(super) fn notices(allocation: &Allocation, observation: &Observation) -> Vec<String> {
    let ports = Block::from_allocation(allocation)
        .filter(|block| block.share.is_none())
        .and_then(|block| block.ports());
    match (ports, observation.ephemeral) {
        (Some(ports), Some(ephemeral)) if ports.overlaps(ephemeral) => vec![format!(
            "ports {ports} lie in this host's ephemeral range ({ephemeral}): an outgoing connection may already sit \
             on one of them; a `base-port` such as 16000 lies outside"
        )],
        _ => Vec::new(),
    }
}

/// Returns the reasons why the ports of a planned block are no longer free.
pub(super) fn stale(
    allocation: &Allocation,
    replaced: Option<&Allocation>,
    observation: &Observation,
) -> Vec<String> {
    // A share lies in its parent's block, which is checked separately.
    let ports = Block::from_allocation(allocation)
        .filter(|block| block.share.is_none())
        .and_then(|block| block.ports());
    let Some(ports) = ports else { return Vec::new() };
    // The session itself may listen on these ports, which is no conflict.
    if replaced
        .and_then(Block::from_allocation)
        .and_then(|block| block.ports())
        .is_some_and(|old| old.overlaps(ports))
    {
        return Vec::new();
    }
    let others = Ports::new(observation);
    let users = others.users(ports).into_iter();
    users.map(|by| format!("ports {ports} are not free any more: {by}")).collect()
}

/// Returns the ownership marker of the swarm that the ports belong to.
fn owner(port_owner: &PortOwner) -> Option<&str> {
    match port_owner {
        PortOwner::Lease { owner, .. } => Some(owner),
        PortOwner::LockFile { owner, .. } => owner.as_deref(),
        PortOwner::Socket { .. } => None,
    }
}

/// Returns the session that the ports are allocated to.
fn session(port_owner: &PortOwner) -> Option<&str> {
    match port_owner {
        PortOwner::Lease { session, .. } => Some(session),
        PortOwner::LockFile { session, .. } => session.as_deref(),
        PortOwner::Socket { .. } => None,
    }
}

/// Describes the use of a block.
fn use_of(block: PortBlock, port_owner: &PortOwner) -> String {
    match port_owner {
        PortOwner::Lease { session, .. } => format!("{block} leased to {session}"),
        PortOwner::LockFile { name, session: Some(session), .. } => format!("lock file {name} of {session}"),
        PortOwner::LockFile { name, session: None, .. } => format!("lock file {name}"),
        PortOwner::Socket { protocol } => format!("{protocol} port {} is in use", block.start()),
    }
}
