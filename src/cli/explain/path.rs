//! Owner of a path.
#![expect(clippy::disallowed_methods, reason = "resolves the links of the path that the user names")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use seedbed::host::{Host, absolute};
use seedbed::name::PortBlock;
use seedbed::plan::Session;
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::provider::port_range::{self, Block};
use seedbed::provider::{Allocation, Registry};

use super::answer::{Answer, owner_of};
use super::rule;
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
pub(super) fn explain(sources: &mut Sources<'_>, asked: &str) -> Option<Answer> {
    let path = absolute(sources.directory, Path::new(asked));
    let resolved = resolved(&path);
    let Sources { host, registry, .. } = *sources;
    let within = |located: &LocatedPlan, path| innermost(host, registry, located, path);
    let innermost = |located: &LocatedPlan| within(located, &resolved).or_else(|| within(located, &path));
    let mut explanation = if let Some((at, (session, owned_path))) = sources.find(innermost) {
        let located = &sources.plans()[at];
        owned(sources, located, &located.plan.sessions[session], owned_path, &resolved)
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
    let sessions = located.plan.sessions.iter().enumerate();
    let owned_paths = sessions.flat_map(|(at, session)| {
        let around = owned_paths(host, registry, located, session)
            .into_iter()
            .filter(|owned_path| path.starts_with(&owned_path.path));
        let lease = lease_file(host, session, path);
        around.chain(lease).map(move |owned_path| (at, owned_path))
    });
    owned_paths.max_by_key(|(at, owned_path)| (owned_path.path.components().count(), std::cmp::Reverse(*at)))
}

/// Returns all items of a session with a path of their own.
fn owned_paths(host: &Host, registry: &Registry, located: &LocatedPlan, session: &Session) -> Vec<OwnedPath> {
    let mut owned_paths = Vec::new();
    let at = |path: &Path| absolute(&located.workspace, path);
    let mut add =
        |path: PathBuf, what, resource, rules| owned_paths.push(OwnedPath { path, what, resource, rules });
    for held in session.allocations_of(git_worktree::KIND) {
        let Some(worktree) = Worktree::of(held) else { continue };
        let resource = Some(held.name().to_owned());
        let rules = rule::of_worktree(session, &worktree);
        add(at(&worktree.worktree_path), "worktree", resource.clone(), rules.clone());
        let entry = at(&worktree.repo_root).join(".git/worktrees").join(&worktree.entry);
        let rule = "what git knows of the worktree, called after the session's scoped name".to_owned();
        add(entry, "admin directory", resource.clone(), vec![rule]);
        if session.working_directory != worktree.worktree_path {
            add(at(&session.working_directory), "working directory", resource, rules);
        }
    }
    for held in session.allocations.iter().filter(|held| held.kind != git_worktree::KIND) {
        let Some(kind) = registry.get(&held.kind) else { continue };
        if let (Some(path), Some(what)) = (kind.directory(held), kind.template_name()) {
            let rules = kind.summary(held, false).into_iter().collect();
            add(at(&path), what, Some(held.name().to_owned()), rules);
        }
    }
    if let Some(file) = &session.discovery_file {
        let rule = "it is in `.agent-context` of the working directory, hidden from Git".to_owned();
        let directory = at(file).parent().map(Path::to_owned).unwrap_or_default();
        add(directory, "discovery file", None, vec![rule]);
    }
    for held in session.allocations_of(port_range::KIND) {
        let Some(block) = Block::of(held) else { continue };
        let rules = vec![format!(
            "it keeps other tools off ports {}-{}: `lock-directory`, and the block's first and last port",
            block.start_port, block.end_port
        )];
        add(at(&block.lock_path), "lock file", Some(held.name().to_owned()), rules);
    }
    let copies = host.state.join(&located.directory).join("sessions").join(&session.scoped_name);
    let rule =
        "the state directory keeps a copy, from which a lost discovery file is written again".to_owned();
    add(copies, "copy of the discovery file", None, vec![rule]);
    for step in ["setup", "teardown"] {
        let name = format!("{}.{step}.log", session.scoped_name);
        let rule = format!("what the commands of `{step}` printed");
        add(host.state.join("logs").join(&located.key).join(name), "log", None, vec![rule]);
    }
    owned_paths
}

/// Returns the file of the host's registry that leases the session's ports, if `path` is that file.
fn lease_file(host: &Host, session: &Session, path: &Path) -> Option<OwnedPath> {
    let name = path.strip_prefix(host.state.join("ports")).ok()?.to_str()?;
    let (start, end) = name.split_once('.')?.0.split_once('-')?;
    let leased = PortBlock::new(start.parse().ok()?, end.parse().ok()?)?;
    let is_leased = |held: &&Allocation| Block::of(held).and_then(|block| block.ports()) == Some(leased);
    let held = session.allocations_of(port_range::KIND).find(is_leased)?;
    let rule = format!("it leases ports {leased} to the session, for every workspace of this host");
    Some(OwnedPath {
        path: path.to_owned(),
        what: "lease",
        resource: Some(held.name().to_owned()),
        rules: vec![rule],
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
        let new = located.plan.sessions.iter().filter(|session| seen.insert((&located.key, &session.id)));
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
        let (workspace, swarm) = (located.workspace.display(), &located.plan.swarm);
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
