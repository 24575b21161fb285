//! Plans of all shards of a fleet: each host's part is an ordinary plan.
//!
//! Every shard is allocated like a swarm of its own, against its own host. Then all sessions are rendered together, so that
//! templates can name the hosts, paths and ports of every shard.

use std::borrow::Cow;
use std::collections::HashMap;

use rayon::prelude::*;

use super::allocate::Allocated;
use super::template_scope::ShardHost;
use super::{
    AppliedPlan, Plan, Session, dedupe, external_options, files, placement, render, repositories, spawned,
    template_files, unusable_workspace,
};
use crate::manifest::{Diagnostic, Diagnostics, Location, Manifest, rule};
use crate::observe::Observation;
use crate::provider::Registry;

/// Host of one shard, as planning sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Shard<'s> {
    /// Name under which other hosts reach this one.
    pub host: &'s str,
    /// Observation of the host.
    pub observation: Cow<'s, Observation>,
    /// Part of the swarm that is applied on the host; `None` if there is none.
    pub applied: Option<&'s AppliedPlan>,
}

impl<'s> Shard<'s> {
    /// Creates the shard of a host.
    pub fn new(host: &'s str, observation: &'s Observation, applied: Option<&'s AppliedPlan>) -> Self {
        Self { host, observation: Cow::Borrowed(observation), applied }
    }
}

/// Returns the manifest of each shard: its sessions, and everything else of `manifest`. Pure.
///
/// Sessions that are active on a shard stay there; see the documentation of fleets for the rule. `applied` has an entry for
/// each shard.
pub fn shard_manifests(manifest: &Manifest, applied: &[Option<&AppliedPlan>]) -> Vec<Manifest> {
    let mut active: HashMap<&str, usize> = HashMap::new();
    for (shard, applied) in applied.iter().enumerate() {
        let sessions = applied.iter().flat_map(|applied| &applied.plan.sessions);
        for session in sessions.filter(|session| session.parent.is_none()) {
            active.entry(session.path.as_str()).or_insert(shard);
        }
    }
    let shards = applied.len();
    let tops = placement::shards_of_tops(manifest, shards, |path| active.get(path).copied());
    let mut manifests = vec![manifest.without_sessions(); shards];
    let ends = tops.iter().skip(1).map(|(at, _)| *at).chain([manifest.sessions.len()]);
    for ((begin, shard), end) in tops.iter().copied().zip(ends) {
        let sessions = &mut manifests[shard].sessions;
        let offset = sessions.len();
        sessions.extend(manifest.sessions[begin..end].iter().map(|session| {
            let mut session = session.clone();
            session.parent = session.parent.map(|parent| parent - begin + offset);
            session
        }));
    }
    manifests
}

/// Plans all shards: the plan of each is what its host applies. Pure.
///
/// Numbers of sessions begin at 0 on each host. Sessions that are spawned on a host belong to its plan. The error contains every
/// diagnostic that can be known; equal diagnostics of several shards appear once.
pub fn plan_shards(
    manifest: &Manifest,
    registry: &Registry,
    shards: &[Shard<'_>],
) -> Result<Vec<Plan>, Diagnostics> {
    let mut refused = external_requests(manifest, registry);
    refused.extend(shards.iter().filter_map(|shard| unusable_workspace(&shard.observation)));
    if shards.is_empty() {
        let message = "the fleet has no shards".to_owned();
        let location = Location::default().key("fleet");
        refused.push(Diagnostic::new(rule::FLEET_HOSTS, location, message, "no host takes a session"));
    }
    if !refused.is_empty() {
        return Err(dedupe::deduplicated(refused, true).into());
    }
    let applied: Vec<_> = shards.iter().map(|shard| shard.applied).collect();
    let manifests = shard_manifests(manifest, &applied);
    let parts: Vec<Part<'_>> =
        manifests.par_iter().zip(shards).map(|(manifest, shard)| Part::new(manifest, shard)).collect();
    let (combined, hosts) = combined(manifest, &parts);
    let mut diagnostics = Vec::new();
    let mut all = Allocated::default();
    let allocated: Vec<_> = parts.par_iter().map(|part| part.allocate(registry)).collect();
    for part in allocated {
        all.append(part);
    }
    diagnostics.extend(parts.iter().flat_map(Part::diagnostics));
    let compiled = render::compile(&combined);
    let mut sessions = match render::render(&combined, registry, all, compiled, hosts) {
        Ok(sessions) => sessions.into_iter(),
        Err(found) => {
            diagnostics.extend(found);
            return Err(dedupe::deduplicated(diagnostics, manifest.has_every_request).into());
        }
    };
    let parts: Vec<(Part<'_>, Vec<Session>)> = parts
        .into_iter()
        .map(|part| {
            let own = sessions.by_ref().take(part.manifest.sessions.len()).collect();
            (part, own)
        })
        .collect();
    let of_files = parts.par_iter().flat_map_iter(|(part, sessions)| {
        files::diagnostics(&part.manifest, registry, &part.shard.observation, sessions)
    });
    diagnostics.extend(of_files.collect::<Vec<_>>());
    if !manifest.complete || !diagnostics.is_empty() {
        return Err(dedupe::deduplicated(diagnostics, manifest.has_every_request).into());
    }
    let plans = parts.into_par_iter().map(|(part, sessions)| {
        let shard = part.shard;
        Plan::assembled(manifest, registry, &shard.observation, shard.applied, sessions)
    });
    Ok(plans.collect())
}

/// Part of the manifest on one shard.
struct Part<'s> {
    /// Sessions of the shard, those that are spawned there too.
    manifest: Cow<'s, Manifest>,
    shard: &'s Shard<'s>,
    /// Diagnostics of template files.
    unreadable: Vec<Diagnostic>,
}

impl<'s> Part<'s> {
    fn new(manifest: &'s Manifest, shard: &'s Shard<'s>) -> Self {
        let manifest = spawned::with_spawned(manifest, shard.applied);
        let (filled, unreadable) = template_files::with_content(&manifest, &shard.observation);
        let filled = match filled {
            Cow::Owned(filled) => Some(filled),
            Cow::Borrowed(_) => None,
        };
        Self { manifest: filled.map_or(manifest, Cow::Owned), shard, unreadable }
    }

    fn allocate(&self, registry: &Registry) -> Allocated {
        external_options::allocate(&self.manifest, registry, &self.shard.observation, self.shard.applied)
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut found =
            repositories::diagnostics(&self.manifest, &self.shard.observation, self.shard.applied);
        found.extend(spawned::numbers_in_use(&self.manifest));
        found.extend(self.unreadable.iter().cloned());
        spawned::name_spawned(&self.manifest, self.shard.applied, &mut found);
        // Hosts differ, and the manifest is one.
        for diagnostic in &mut found {
            diagnostic.message = format!("host {}: {}", self.shard.host, diagnostic.message);
        }
        found
    }
}

/// Returns the manifest of all parts, one after another, and the host of each of its sessions.
fn combined(manifest: &Manifest, parts: &[Part<'_>]) -> (Manifest, Vec<ShardHost>) {
    let mut all = manifest.without_sessions();
    let mut hosts = Vec::with_capacity(parts.len());
    for part in parts {
        let offset = all.sessions.len();
        let moved = part.manifest.sessions.iter().cloned().map(|mut session| {
            session.parent = session.parent.map(|parent| parent + offset);
            session
        });
        all.sessions.extend(moved);
        let workspace = part.shard.observation.workspace.clone();
        hosts.push(ShardHost { name: part.shard.host.to_owned(), workspace, end: all.sessions.len() });
    }
    (all, hosts)
}

/// Returns the diagnostics of requests for external kinds: their programs plan on the host, which does not know the other
/// hosts.
fn external_requests(manifest: &Manifest, registry: &Registry) -> Vec<Diagnostic> {
    let requests =
        manifest.sessions.iter().flat_map(|session| session.declaration.resources.iter().flatten());
    let external = requests.filter(|request| !registry.is_registered(&request.kind));
    let diagnostic = |kind: &str, location: Location| {
        let message = format!("`{}` is an external kind, which a fleet cannot plan", kind.escape_debug());
        let help = "leave these sessions to a manifest of one host";
        Diagnostic::new(rule::FLEET_KIND, location, message, "planned by a program").with_help(help)
    };
    external.map(|request| diagnostic(&request.kind, request.location.clone())).collect()
}
