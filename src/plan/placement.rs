//! Placement of the sessions at the top of the tree on the shards of a fleet. Pure.
//!
//! A session that is active on a shard stays there, because a move would release its worktree. So new sessions never move
//! active ones. The rest follows from paths alone:
//!
//! - The weight of a session is 1 and the number of sessions below it.
//! - The share of a shard is `floor(T / N)`, for `N` shards and sessions of weight `T` in all. `T mod N` shards, the first
//!   that need it, have a share of one more.
//! - The hash of a path gives an endless sequence of shards. Sessions are placed by falling weight, then by path, each on the
//!   first shard of its sequence whose share has room for it. After [`PROBES`] shards without room, it is placed on the least
//!   loaded shard.
//!
//! The least loaded shard has at most `(T - w) / N` before a session of weight `w` is placed. So no shard has more than
//! `ceil(T / N) + W - 1`, for a largest weight `W`, unless chosen shards and active sessions fill it. With equal sessions
//! without children, the largest and the smallest shard differ by at most 1.
//!
//! Another shard at the end of the fleet changes the first choice of one session in `N + 1` (jump consistent hash, Lamping and
//! Veach 2014). Another session changes no first choice.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::manifest::Manifest;
use crate::name::sha256_hex;

/// Number of shards of its sequence that a session tries.
const PROBES: u64 = 32;

/// Returns the shard of each session at the top of the tree, by its position in the manifest, in order.
///
/// `active` is the shard on which the session of a path is active, `None` for a new one.
pub(super) fn shards_of_tops(
    manifest: &Manifest,
    shards: usize,
    active: impl Fn(&str) -> Option<usize>,
) -> Vec<(usize, usize)> {
    let sessions = &manifest.sessions;
    let mut tops: Vec<(usize, usize)> = Vec::new();
    for (at, session) in sessions.iter().enumerate() {
        match tops.last_mut() {
            Some((_, weight)) if session.parent.is_some() => *weight += 1,
            _ => tops.push((at, 1)),
        }
    }
    let mut loads = Loads::new(shards, sessions.len());
    let mut placed = Vec::with_capacity(tops.len());
    let mut free = Vec::new();
    for (at, weight) in tops {
        let path = sessions[at].path.as_str();
        let chosen = sessions[at].shard.map(|shard| shard as usize).filter(|shard| *shard < shards);
        match chosen.or_else(|| active(path)) {
            Some(shard) => {
                loads.add(shard, weight);
                placed.push((at, shard));
            }
            None => free.push((Reverse(weight), path, at)),
        }
    }
    free.sort_unstable();
    for (Reverse(weight), path, at) in free {
        let seed = u64::from_str_radix(&sha256_hex(path.as_bytes())[..16], 16).unwrap_or_default();
        let mut sequence = (0..PROBES).map(|probe| jump(mixed(seed.wrapping_add(probe)), shards));
        let room = sequence.find(|shard| loads.has_room(*shard, weight));
        let shard = room.unwrap_or_else(|| loads.least());
        loads.add(shard, weight);
        placed.push((at, shard));
    }
    placed.sort_unstable();
    placed
}

/// Number of sessions on each shard.
struct Loads {
    of_shards: Vec<usize>,
    /// Loads with their shards, the least loaded first.
    order: BTreeSet<(usize, usize)>,
    /// Share of most shards.
    share: usize,
    /// Number of shards that may have one more, and do not have it yet.
    larger: usize,
}

impl Loads {
    fn new(shards: usize, sessions: usize) -> Self {
        Self {
            of_shards: vec![0; shards],
            order: (0..shards).map(|shard| (0, shard)).collect(),
            share: sessions / shards,
            larger: sessions % shards,
        }
    }

    fn add(&mut self, shard: usize, weight: usize) {
        let load = &mut self.of_shards[shard];
        self.order.remove(&(*load, shard));
        let was_larger = *load > self.share;
        *load += weight;
        if !was_larger && *load > self.share {
            self.larger = self.larger.saturating_sub(1);
        }
        self.order.insert((*load, shard));
    }

    fn has_room(&self, shard: usize, weight: usize) -> bool {
        let load = self.of_shards[shard] + weight;
        load <= self.share || (self.larger > 0 && load == self.share + 1)
    }

    fn least(&self) -> usize {
        self.order.first().map_or(0, |(_, shard)| *shard)
    }
}

/// Returns a number in which each bit depends on each bit of `key`: the finalizer of `SplitMix64`.
fn mixed(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// Returns the shard of a key: jump consistent hash.
fn jump(mut key: u64, shards: usize) -> usize {
    let (mut shard, mut next) = (0_u64, 0_u64);
    while next < shards as u64 {
        shard = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // A number of shards has far less than 32 bits.
        next = ((shard + 1) << 31) / ((key >> 33) + 1);
    }
    usize::try_from(shard).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;
    use crate::manifest;
    use crate::provider::Registry;

    fn placed(text: &str, shards: usize, active: &HashMap<String, usize>) -> BTreeMap<String, usize> {
        let text = format!("version = 1\nswarm = \"s\"\n{text}");
        let manifest = manifest::parse(&text, &Registry::built_in().kinds()).unwrap();
        let placed = shards_of_tops(&manifest, shards, |path| active.get(path).copied());
        placed.into_iter().map(|(at, shard)| (manifest.sessions[at].path.to_string(), shard)).collect()
    }

    fn loads(placed: &BTreeMap<String, usize>, shards: usize) -> Vec<usize> {
        (0..shards).map(|shard| placed.values().filter(|of| **of == shard).count()).collect()
    }

    #[test]
    fn equal_sessions_are_spread_evenly() {
        for (sessions, shards) in [(1_usize, 1), (10, 4), (7, 3), (12, 8), (100, 7), (1000, 64)] {
            let placed = placed(&format!("[session.a]\ncount = {sessions}\n"), shards, &HashMap::new());
            let loads = loads(&placed, shards);
            let ends = (loads.iter().min().copied(), loads.iter().max().copied());
            let expected = (Some(sessions / shards), Some(sessions.div_ceil(shards)));
            assert_eq!(ends, expected, "{sessions} on {shards}");
        }
    }

    #[test]
    fn no_shard_has_more_than_its_share_and_one_session() {
        let tables = (1..=40).map(|at| format!("[session.t{at}.child.c]\ncount = {at}\n"));
        let placed = placed(&tables.collect::<String>(), 6, &HashMap::new());
        let weight = |path: &str| path[1..].parse::<usize>().unwrap() + 1;
        let total: usize = placed.keys().map(|path| weight(path)).sum();
        for shard in 0..6 {
            let load: usize =
                placed.iter().filter(|(_, of)| **of == shard).map(|(path, _)| weight(path)).sum();
            assert!(load < total.div_ceil(6) + 41, "{load}");
        }
    }

    #[test]
    fn another_session_moves_few_others() {
        let mut moves = 0;
        for sessions in 40..140 {
            let before = placed(&format!("[session.a]\ncount = {sessions}\n"), 8, &HashMap::new());
            let after =
                placed(&format!("[session.b]\n[session.a]\ncount = {sessions}\n"), 8, &HashMap::new());
            moves += before.iter().filter(|(path, shard)| after[*path] != **shard).count();
        }
        assert!(moves < 300, "{moves} moves for 100 new sessions");
    }

    #[test]
    fn active_sessions_stay_and_chosen_shards_are_kept() {
        let active = HashMap::from([("a-0".to_owned(), 2), ("a-1".to_owned(), 2), ("a-2".to_owned(), 2)]);
        let placed = placed("[session.b]\nshard = 3\n[session.a]\ncount = 8\n", 4, &active);
        assert_eq!((placed["a-0"], placed["a-1"], placed["a-2"], placed["b"]), (2, 2, 2, 3));
    }
}
