//! Identity of each session: its names and its number.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::{AppliedPlan, Session};
use crate::manifest::{self, Manifest};
use crate::name::{HashDigits, Slug, scoped_name};

/// Names and number of one session.
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) scoped_name: String,
    pub(super) index: u32,
    pub(super) slug: Slug,
    pub(super) replica: Option<u32>,
}

/// Returns the applied state of each session, in the manifest's order; `None` for a session that is not active.
pub(super) fn active<'s>(manifest: &Manifest, applied: Option<&'s AppliedPlan>) -> Vec<Option<&'s Session>> {
    let by_path: HashMap<&str, &Session> = applied
        .iter()
        .flat_map(|applied| &applied.plan.sessions)
        .map(|session| (session.path.as_str(), session))
        .collect();
    manifest.sessions.iter().map(|session| by_path.get(session.path.as_str()).copied()).collect()
}

/// Returns the identity of each session, in the manifest's order.
///
/// `active` is the applied state of each session. `family` are the numbers of sessions outside of this plan that keep
/// their numbers.
pub(super) fn identities(
    manifest: &Manifest,
    active: &[Option<&Session>],
    family: impl IntoIterator<Item = u32>,
) -> Vec<Identity> {
    let ids: Vec<_> = manifest.sessions.par_iter().map(|session| session.path.id(&manifest.swarm)).collect();
    let scoped_names = scoped_names(&ids, |at| active[at].map(|session| session.scoped_name.as_str()));
    let indices =
        indices(ids.len(), family.into_iter().collect(), |at| active[at].map(|session| session.index));
    let slugs = slugs(manifest, |at| active[at].map(|session| &session.slug));
    let each = ids.into_iter().zip(scoped_names).zip(indices).zip(slugs).zip(&manifest.sessions);
    each.map(|((((id, scoped_name), index), slug), session)| {
        let replica = session.replica;
        Identity { id, scoped_name, index, slug, replica }
    })
    .collect()
}

/// Returns the short slug of each session, or the slug with a hash if two sessions have the same short slug.
///
/// An active session keeps its slug.
fn slugs<'s>(manifest: &Manifest, active: impl Fn(usize) -> Option<&'s Slug> + Sync) -> Vec<Slug> {
    let sessions = &manifest.sessions;
    let first = |(at, session): (usize, &manifest::Session)| {
        active(at).cloned().unwrap_or_else(|| Slug::short(&session.path))
    };
    let mut slugs: Vec<Slug> = sessions.par_iter().enumerate().map(first).collect();
    let mut seen = HashSet::with_capacity(slugs.len());
    let met: HashSet<Slug> = slugs.iter().filter(|slug| !seen.insert(*slug)).cloned().collect();
    for (at, slug) in slugs.iter_mut().enumerate() {
        if active(at).is_none() && met.contains(slug) {
            *slug = Slug::with_hash(&sessions[at].path);
        }
    }
    slugs
}

/// Returns names with eight digits of hash, or sixteen for ids that share the first eight; an active session keeps its
/// name.
fn scoped_names<'s>(ids: &[String], active: impl Fn(usize) -> Option<&'s str> + Sync) -> Vec<String> {
    let first = |(at, id): (usize, &String)| {
        active(at).map_or_else(|| scoped_name(id, HashDigits::Eight), str::to_owned)
    };
    let mut names: Vec<String> = ids.par_iter().enumerate().map(first).collect();
    let folded: Vec<String> = names.par_iter().map(|name| name.to_lowercase()).collect();
    let mut seen = HashSet::with_capacity(folded.len());
    let met: HashSet<&String> = folded.iter().filter(|name| !seen.insert(*name)).collect();
    for (at, name) in names.iter_mut().enumerate() {
        if active(at).is_none() && met.contains(&folded[at]) {
            *name = scoped_name(&ids[at], HashDigits::Sixteen);
        }
    }
    names
}

/// Returns the numbers of all sessions: an active session keeps its number; the others get the lowest free numbers, in
/// canonical order.
fn indices(count: usize, family: HashSet<u32>, active: impl Fn(usize) -> Option<u32>) -> Vec<u32> {
    let mut used = family;
    used.extend((0..count).filter_map(&active));
    let mut free = (0..).filter(|index| !used.contains(index));
    (0..count).map(|at| active(at).or_else(|| free.next()).unwrap_or(u32::MAX)).collect()
}
