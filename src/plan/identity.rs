//! What each session is called and numbered.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::{Session, names};
use crate::manifest::Manifest;
use crate::name::{HashDigits, scoped_name};

/// What one session is called and numbered.
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) scoped_name: String,
    pub(super) index: u32,
    /// `session.*` of templates.
    pub(super) session: minijinja::Value,
}

/// The identity of each session, in the manifest's order; `stood` is what stands of each.
pub(super) fn identities(manifest: &Manifest, stood: &[Option<&Session>]) -> Vec<Identity> {
    let ids: Vec<_> = manifest.sessions.par_iter().map(|session| session.path.id(&manifest.swarm)).collect();
    let scoped_names = scoped_names(&ids, |at| stood[at].map(|session| session.scoped_name.as_str()));
    let indices = indices(ids.len(), |at| stood[at].map(|session| session.index));
    ids.into_par_iter()
        .zip(scoped_names)
        .zip(indices)
        .zip(&manifest.sessions)
        .map(|(((id, scoped_name), index), session)| {
            let session = names::of_session(&session.path, &id, index);
            Identity { id, scoped_name, index, session }
        })
        .collect()
}

/// Eight digits of hash, sixteen for ids whose eight meet; a standing session keeps its name.
fn scoped_names<'s>(ids: &[String], stood: impl Fn(usize) -> Option<&'s str>) -> Vec<String> {
    let mut names: Vec<String> = ids.par_iter().map(|id| scoped_name(id, HashDigits::Eight)).collect();
    let mut count: HashMap<String, u32> = HashMap::new();
    for (at, name) in names.iter_mut().enumerate() {
        if let Some(standing) = stood(at) {
            standing.clone_into(name);
        }
        *count.entry(name.to_lowercase()).or_default() += 1;
    }
    for (at, name) in names.iter_mut().enumerate() {
        if stood(at).is_none() && count[&name.to_lowercase()] > 1 {
            *name = scoped_name(&ids[at], HashDigits::Sixteen);
        }
    }
    names
}

/// A standing session keeps its number; the others take the lowest that are free, in canonical order.
fn indices(count: usize, stood: impl Fn(usize) -> Option<u32>) -> Vec<u32> {
    let held: HashSet<u32> = (0..count).filter_map(&stood).collect();
    let mut free = (0..).filter(|index| !held.contains(index));
    (0..count).map(|at| stood(at).or_else(|| free.next()).unwrap_or(u32::MAX)).collect()
}
