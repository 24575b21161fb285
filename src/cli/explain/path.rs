//! Owner of a path.
#![expect(clippy::disallowed_methods, reason = "resolves the links of the path that the user names")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use seedbed::host::leases;
use seedbed::host::{Host, absolute};
use seedbed::plan::Session;
use seedbed::provider::{self, Allocation, Registry};

use super::answer::{Answer, owner_of};
use super::sources::{LocatedPlan, Sources, state_words};

/// Maximum number of items below a path that are named; the rest is only counted.
const NAMED_MAX: usize = 8;

/// Item of a session with a path of its own.
struct OwnedPath {
    path: PathBuf,
    /// Role of the item in the session, e.g. `worktree`.
    what: &'static str,
    /// Name of the resource that the item belongs to.
    resource: Option<String>,
    rules: Vec<String>,
}

/// Explains a path; `None` if no session owns the path and it does not exist.
pub(super) fn explain(sources: &mut Sources<'_>, text: &str) -> Option<Answer> {
    let path = absolute(sources.directory, Path::new(text));
    let resolved = resolved(&path);
    let Sources { host, registry, .. } = *sources;
    let within = |located: &LocatedPlan, path| innermost(host, registry, located, path);
    let innermost = |located: &LocatedPlan| within(located, &resolved).or_else(|| within(located, &path));
    let mut explanation = if let Some((at, (session, owned_path))) = sources.find(innermost) {
        let located = &sources.plans()[at];
        owned(sources, located, &located.plan.sessions()[session], owned_path, &resolved)
    } else {
        let below = below(sources, &resolved);
        if below.is_empty() && std::fs::symlink_metadata(&path).is_err() {
            return None;
        }
        unowned(sources, &resolved, below)
    };
    explanation.document.path = Some(resolved);
    Some(explanation)
}

/// Returns the path with links resolved, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let real = path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
    let Some((above, real)) = real else { return path.to_owned() };
    path.strip_prefix(above).map_or_else(|_| path.to_owned(), |rest| absolute(&real, rest))
}

/// Returns the innermost item that contains the path.
fn innermost(
    host: &Host,
    registry: &Registry,
    located: &LocatedPlan,
    path: &Path,
) -> Option<(usize, OwnedPath)> {
    let sessions = located.plan.sessions().iter().enumerate();
    let owned_paths = sessions.flat_map(|(at, session)| {
        let around = owned_paths(host, registry, located, session)
            .into_iter()
            .filter(|owned_path| path.starts_with(&owned_path.path));
        let lease = lease_file(host, registry, session, path);
        around.chain(lease).map(move |owned_path| (at, owned_path))
    });
    owned_paths.max_by_key(|(at, owned_path)| (owned_path.path.components().count(), std::cmp::Reverse(*at)))
}

/// Returns all items of a session with a path of their own.
fn owned_paths(host: &Host, registry: &Registry, located: &LocatedPlan, session: &Session) -> Vec<OwnedPath> {
    // Claims, such as ports, have nothing in the directories of the session.
    let is_claim = |allocation: &&Allocation| {
        registry.get(&allocation.kind).is_some_and(|kind| kind.is_claim(allocation))
    };
    let (claims, others): (Vec<_>, Vec<_>) = session.allocations.iter().partition(is_claim);
    let of_allocations = |allocations: Vec<&Allocation>| {
        allocations
            .into_iter()
            .flat_map(|allocation| of_allocation(registry, located, session, allocation))
            .collect()
    };
    let mut owned_paths: Vec<OwnedPath> = of_allocations(others);
    let owned_path =
        |path: PathBuf, what, rule: String| OwnedPath { path, what, resource: None, rules: vec![rule] };
    if let Some(file) = &session.discovery_file {
        let rule = "it is in `.agent-context` of the working directory, hidden from Git".to_owned();
        let directory = absolute(&located.workspace, file).parent().map(Path::to_owned);
        owned_paths.push(owned_path(directory.unwrap_or_default(), "discovery file", rule));
    }
    owned_paths.append(&mut of_allocations(claims));
    let copies = host.state.join(&located.directory).join("sessions").join(&session.scoped_name);
    let rule =
        "the state directory keeps a copy, from which a lost discovery file is written again".to_owned();
    owned_paths.push(owned_path(copies, "copy of the discovery file", rule));
    for step in ["setup", "teardown"] {
        let name = format!("{}.{step}.log", session.scoped_name);
        let rule = format!("what the commands of `{step}` printed");
        owned_paths.push(owned_path(host.state.join("logs").join(&located.key).join(name), "log", rule));
    }
    owned_paths
}

/// Returns the items of one allocation, as its kind describes them.
fn of_allocation(
    registry: &Registry,
    located: &LocatedPlan,
    session: &Session,
    allocation: &Allocation,
) -> Vec<OwnedPath> {
    let Some((kind, planned)) = located.planned(registry, session, allocation) else { return Vec::new() };
    let owned_path = |provider::OwnedPath { path, role, rules, .. }| OwnedPath {
        path: absolute(&located.workspace, &path),
        what: role,
        resource: Some(allocation.name().to_owned()),
        rules,
    };
    kind.owned_paths(&planned).into_iter().map(owned_path).collect()
}

/// Returns the file of the host's registry that leases a resource of the session, if `path` is that file.
fn lease_file(host: &Host, registry: &Registry, session: &Session, path: &Path) -> Option<OwnedPath> {
    let name = path.strip_prefix(host.state.join("leases")).ok()?.to_str()?;
    let key = leases::key_of(name)?;
    let leased = |allocation: &Allocation| {
        let leased = registry.get(&allocation.kind)?.leased(allocation);
        Some((allocation.name().to_owned(), leased.into_iter().find(|leased| leased.key() == key)?))
    };
    let (resource, leased) = session.allocations.iter().find_map(leased)?;
    Some(OwnedPath {
        path: path.to_owned(),
        what: "lease",
        resource: Some(resource),
        rules: vec![format!("it leases {leased} to the session, for every workspace of this host")],
    })
}

fn owned(
    sources: &Sources<'_>,
    located: &LocatedPlan,
    session: &Session,
    owned_path: OwnedPath,
    path: &Path,
) -> Answer {
    let itself = if owned_path.path == path { "is" } else { "is in" };
    let summary = format!(
        "{} {itself} the {} of {} {}",
        path.display(),
        owned_path.what,
        session.id,
        state_words(located.state)
    );
    let mut explanation = Answer::new(summary);
    explanation.document.owner = Some(owner_of(located, session));
    explanation.document.rules = owned_path.rules;
    explanation.add_excerpt(match owned_path.resource.as_deref() {
        Some(resource) => sources.request_excerpt(located, session, resource, None),
        None => sources.declaration_excerpt(located, session),
    });
    explanation
}

/// Returns the items below a path without an owner, one line per session.
fn below(sources: &Sources<'_>, path: &Path) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut below = Vec::new();
    for located in sources.plans() {
        // A planned session that is active as well is listed once.
        let new = located.plan.sessions().iter().filter(|session| seen.insert((&located.key, &session.id)));
        for session in new {
            let owned_paths = owned_paths(sources.host, sources.registry, located, session).into_iter();
            let inside: Vec<_> = owned_paths
                .filter(|owned_path| owned_path.path.starts_with(path))
                .map(|owned_path| owned_path.what)
                .collect();
            if !inside.is_empty() {
                below.push(format!("{} of {} {}", inside.join(", "), session.id, state_words(located.state)));
            }
        }
    }
    below
}

fn unowned(sources: &Sources<'_>, path: &Path, below: Vec<String>) -> Answer {
    let mut explanation = Answer::new(format!("{} belongs to no session", path.display()));
    let around = sources.plans().iter().find(|located| path.starts_with(&located.workspace));
    if let Some(located) = around.filter(|_| below.is_empty()) {
        let (workspace, swarm) = (located.workspace.display(), located.plan.swarm());
        explanation
            .document
            .rules
            .push(format!("it is in {workspace}, the workspace of swarm {swarm}, which does not manage it"));
    }
    let more = below.len().saturating_sub(NAMED_MAX);
    explanation
        .document
        .rules
        .extend(below.into_iter().take(NAMED_MAX).map(|owned_path| format!("below it: {owned_path}")));
    if more > 0 {
        explanation.document.rules.push(format!("and of {more} more"));
    }
    explanation
}
