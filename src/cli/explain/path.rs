//! Owner of a path.
#![expect(clippy::disallowed_methods, reason = "resolves the links of the path that the user names")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use seedbed::host::{Host, absolute};
use seedbed::name::PortBlock;
use seedbed::plan::Session;
use seedbed::provider::Registry;
use seedbed::provider::git_worktree::{self, Worktree};
use seedbed::provider::port_range::{self, Block};

use super::known::{Known, Side, said};
use super::rule;
use super::shown::{Explained, owner_of};

/// Maximum number of items below a path that are named; the rest is only counted.
const NAMED_MAX: usize = 8;

/// Item of a session with a path of its own.
struct Thing {
    path: PathBuf,
    /// Role of the item in the session, e.g. `worktree`.
    what: &'static str,
    /// Kind of resource that the item belongs to.
    kind: Option<String>,
    rules: Vec<String>,
}

/// Explains a path; `None` if no session owns the path and it does not exist.
pub(super) fn explain(known: &mut Known<'_>, asked: &str) -> Option<Explained> {
    let path = absolute(known.directory, Path::new(asked));
    let resolved = resolved(&path);
    let Known { host, registry, .. } = *known;
    let within = |side: &Side, path| innermost(host, registry, side, path);
    let innermost = |side: &Side| within(side, &resolved).or_else(|| within(side, &path));
    let mut explanation = if let Some((at, (session, thing))) = known.find(innermost) {
        let side = &known.sides()[at];
        owned(known, side, &side.plan.sessions[session], thing, &resolved)
    } else {
        let below = below(known, &resolved);
        if below.is_empty() && std::fs::symlink_metadata(&path).is_err() {
            return None;
        }
        nobodys(known, &resolved, below)
    };
    explanation.said.path = Some(resolved);
    Some(explanation)
}

/// Returns the path with links resolved, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let real = path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
    let Some((above, real)) = real else { return path.to_owned() };
    path.strip_prefix(above).map_or_else(|_| path.to_owned(), |rest| absolute(&real, rest))
}

/// Returns the innermost item that contains the path.
fn innermost(host: &Host, registry: &Registry, side: &Side, path: &Path) -> Option<(usize, Thing)> {
    let sessions = side.plan.sessions.iter().enumerate();
    let things = sessions.flat_map(|(at, session)| {
        let around =
            things(host, registry, side, session).into_iter().filter(|thing| path.starts_with(&thing.path));
        let lease = lease_file(host, session, path);
        around.chain(lease).map(move |thing| (at, thing))
    });
    things.max_by_key(|(at, thing)| (thing.path.components().count(), std::cmp::Reverse(*at)))
}

/// Returns all items of a session with a path of their own.
fn things(host: &Host, registry: &Registry, side: &Side, session: &Session) -> Vec<Thing> {
    let mut things = Vec::new();
    let at = |path: &Path| absolute(&side.workspace, path);
    let mut add = |path: PathBuf, what, kind, rules| things.push(Thing { path, what, kind, rules });
    let worktree = session.allocation(git_worktree::KIND).and_then(Worktree::of);
    if let Some(worktree) = &worktree {
        let kind = Some(git_worktree::KIND.to_owned());
        let rules = rule::of_worktree(session, worktree);
        add(at(&worktree.worktree_path), "worktree", kind.clone(), rules.clone());
        let entry = at(&worktree.repo_root).join(".git/worktrees").join(&worktree.entry);
        let rule = "what git knows of the worktree, called after the session's scoped name".to_owned();
        add(entry, "git entry", kind.clone(), vec![rule]);
        if session.working_directory != worktree.worktree_path {
            add(at(&session.working_directory), "working directory", kind, rules);
        }
    }
    for held in session.allocations.iter().filter(|held| held.kind != git_worktree::KIND) {
        let Some(kind) = registry.get(&held.kind) else { continue };
        if let (Some(path), Some(what)) = (kind.directory(held), kind.template_name()) {
            let rules = kind.summary(held, false).into_iter().collect();
            add(at(&path), what, Some(held.kind.clone()), rules);
        }
    }
    if let Some(file) = &session.discovery_file {
        let rule = "it lies in `.agent-context` where the session works, hidden from git".to_owned();
        let directory = at(file).parent().map(Path::to_owned).unwrap_or_default();
        add(directory, "discovery file", None, vec![rule]);
    }
    if let Some(block) = session.allocation(port_range::KIND).and_then(Block::of) {
        let rules = vec![format!(
            "it keeps other tools off ports {}-{}: `lock-directory`, and the block's first and last port",
            block.start_port, block.end_port
        )];
        add(at(&block.lock_path), "lock file", Some(port_range::KIND.to_owned()), rules);
    }
    let copies = host.state.join(&side.directory).join("sessions").join(&session.scoped_name);
    let rule =
        "the state directory keeps a copy, from which a lost discovery file is written again".to_owned();
    add(copies, "copy of the discovery file", None, vec![rule]);
    for step in ["setup", "teardown"] {
        let name = format!("{}.{step}.log", session.scoped_name);
        let rule = format!("what the commands of `{step}` printed");
        add(host.state.join("logs").join(&side.key).join(name), "log", None, vec![rule]);
    }
    things
}

/// Returns the file of the host's registry that leases the session's ports, if `path` is that file.
fn lease_file(host: &Host, session: &Session, path: &Path) -> Option<Thing> {
    let name = path.strip_prefix(host.state.join("ports")).ok()?.to_str()?;
    let (start, end) = name.split_once('.')?.0.split_once('-')?;
    let leased = PortBlock::new(start.parse().ok()?, end.parse().ok()?)?;
    let block = Block::of(session.allocation(port_range::KIND)?)?;
    let rule = format!("it leases ports {leased} to the session, for every workspace of this host");
    (block.ports()? == leased).then(|| Thing {
        path: path.to_owned(),
        what: "lease",
        kind: Some(port_range::KIND.to_owned()),
        rules: vec![rule],
    })
}

fn owned(known: &Known<'_>, side: &Side, session: &Session, thing: Thing, path: &Path) -> Explained {
    let itself = if thing.path == path { "is" } else { "lies in" };
    let summary =
        format!("{} {itself} the {} of {} {}", path.display(), thing.what, session.id, said(side.state));
    let mut explanation = Explained::new(summary);
    explanation.said.owner = Some(owner_of(side, session));
    explanation.said.rules = thing.rules;
    explanation.shows(match thing.kind.as_deref() {
        Some(kind) => known.asked(side, session, kind, None),
        None => known.declared(side, session),
    });
    explanation
}

/// Returns the items below a path without an owner, one line per session.
fn below(known: &Known<'_>, path: &Path) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut below = Vec::new();
    for side in known.sides() {
        // A planned session that is active as well is listed once.
        let new = side.plan.sessions.iter().filter(|session| seen.insert((&side.key, &session.id)));
        for session in new {
            let things = things(known.host, known.registry, side, session).into_iter();
            let inside: Vec<_> =
                things.filter(|thing| thing.path.starts_with(path)).map(|thing| thing.what).collect();
            if !inside.is_empty() {
                below.push(format!("{} of {} {}", inside.join(", "), session.id, said(side.state)));
            }
        }
    }
    below
}

fn nobodys(known: &Known<'_>, path: &Path, below: Vec<String>) -> Explained {
    let mut explanation = Explained::new(format!("{} belongs to no session", path.display()));
    let around = known.sides().iter().find(|side| path.starts_with(&side.workspace));
    if let Some(side) = around.filter(|_| below.is_empty()) {
        let (workspace, swarm) = (side.workspace.display(), &side.plan.swarm);
        explanation
            .said
            .rules
            .push(format!("it lies in {workspace}, the workspace of swarm {swarm}, which leaves it alone"));
    }
    let more = below.len().saturating_sub(NAMED_MAX);
    explanation
        .said
        .rules
        .extend(below.into_iter().take(NAMED_MAX).map(|thing| format!("below it: {thing}")));
    if more > 0 {
        explanation.said.rules.push(format!("and of {more} more"));
    }
    explanation
}
