//! Files of sessions: the resources they lie in, and what may be at their paths already.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::Session;
use super::requests::AllRequests;
use super::template_files::TEMPLATE_FILE_MAX;
use crate::manifest::diagnostic::Step;
use crate::manifest::{Declaration, Diagnostic, FILES, Manifest, SessionFile, path_fault, rule};
use crate::observe::{Observation, Query};
use crate::provider::{Allocation, Planner, Registry};

/// Returns the observations that the files of sessions require.
pub(super) fn queries(manifest: &Manifest, registry: &Registry, requests: &AllRequests<'_>) -> Vec<Query> {
    let mut queries = Vec::new();
    let mut last: Option<*const Declaration> = None;
    for (session, requests) in manifest.sessions.iter().zip(&requests.each) {
        let files = &session.declaration.text.files;
        // The replicas of a table follow each other.
        let table = Arc::as_ptr(&session.declaration);
        if files.is_empty() || last.replace(table) == Some(table) {
            continue;
        }
        let template_files = files.values().filter_map(|file| file.template_file.clone());
        let template_files = template_files.filter(|path| path_fault(path).is_none());
        queries
            .extend(template_files.map(|path| Query::File { path: path.into(), limit: TEMPLATE_FILE_MAX }));
        for path in files.keys().filter(|path| path_fault(path).is_none()) {
            for wanted in &requests.requests {
                let Some(kind) = registry.get(wanted.kind) else { continue };
                // With several worktrees, the first name is that of the resource.
                let below = path.strip_prefix(wanted.name).and_then(|below| below.strip_prefix('/'));
                let path = below.filter(|_| wanted.several).unwrap_or(path);
                queries.extend(kind.file_queries(&wanted.options.all, path));
            }
        }
    }
    queries
}

/// Returns the files of a session that lie in an allocation, by path relative to the allocation's directory.
pub(super) fn of_allocation<'s>(
    registry: &Registry,
    session: &'s Session,
    allocation: &Allocation,
) -> BTreeMap<PathBuf, &'s SessionFile> {
    let kind = registry.get(&allocation.kind).filter(|kind| kind.takes_files());
    let Some(directory) = kind.and_then(|kind| kind.directory(allocation)) else { return BTreeMap::new() };
    let files = session.files.iter().filter_map(|(path, file)| {
        let path = session.working_directory.join(path);
        Some((path.strip_prefix(&directory).ok()?.to_owned(), file))
    });
    files.collect()
}

/// Returns the diagnostics of the files of all sessions.
pub(super) fn diagnostics(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    sessions: &[Session],
) -> Vec<Diagnostic> {
    let with_files = manifest.sessions.par_iter().zip(sessions);
    let with_files = with_files.filter(|(_, session)| !session.files.is_empty());
    let found = with_files.flat_map_iter(|(declared, session)| {
        of_session(&declared.declaration, registry, observation, session)
    });
    found.collect()
}

fn of_session(
    declaration: &Declaration,
    registry: &Registry,
    observation: &Observation,
    session: &Session,
) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    for (path, file) in &session.files {
        let lower = path.to_lowercase();
        let above = lower.match_indices('/').map(|(end, _)| &lower[..end]);
        let other = above.chain([lower.as_str()]).find_map(|part| folded.get(part).copied());
        let found = match other {
            Some(other) => Some(Fault {
                message: format!("`{path}` and `{other}` cannot both be files of a session"),
                label: "already in use".to_owned(),
                help: "not every file system distinguishes case, and no file is a directory".to_owned(),
            }),
            None => fault(registry, observation, session, path, file),
        };
        folded.entry(lower).or_insert(path);
        diagnostics.extend(found.map(|Fault { message, label, help }| {
            let location = declaration.locate(FILES, Some(Step::key(path))).the_key();
            Diagnostic::new(rule::SESSION_FILE, location, message, label).with_help(help)
        }));
    }
    diagnostics
}

/// Reason for which a session cannot have a file.
struct Fault {
    message: String,
    label: String,
    help: String,
}

/// Returns the reason for which a session cannot have a file at a path; `None` if it can.
fn fault(
    registry: &Registry,
    observation: &Observation,
    session: &Session,
    path: &str,
    file: &SessionFile,
) -> Option<Fault> {
    let full = session.working_directory.join(path);
    let owner = session.allocations.iter().find_map(|allocation| {
        let kind = registry.get(&allocation.kind).filter(|kind| kind.takes_files())?;
        let below = full.strip_prefix(kind.directory(allocation)?).ok()?.to_str()?.to_owned();
        (!below.is_empty()).then_some((kind, allocation, below))
    });
    let Some((kind, allocation, below)) = owner else {
        let (message, label) =
            (format!("`{path}` lies in no worktree of session `{}`", session.path), "nowhere to write it");
        return Some(Fault { message, label: label.to_owned(), help: remedy(registry, session) });
    };
    let (message, help) = kind.file_fault(allocation, observation, &below, file.comment.is_some())?;
    Some(Fault { message, label: "cannot be written".to_owned(), help })
}

/// Returns the remedy for a path that lies in no worktree of a session.
fn remedy(registry: &Registry, session: &Session) -> String {
    let takes_files =
        |allocation: &&Allocation| registry.get(&allocation.kind).is_some_and(Planner::takes_files);
    let names: Vec<_> = session.allocations.iter().filter(takes_files).map(Allocation::name).collect();
    match names.first() {
        Some(first) if names.len() > 1 => format!("begin the path with the name of a worktree: `{first}/…`"),
        Some(_) => "choose the worktree as `directory` of the session".to_owned(),
        None => "request a `git-worktree`, or remove the file".to_owned(),
    }
}

/// Returns a file of a session that planning cannot have given to it.
pub(super) fn unplanned<'s>(session: &'s Session, registry: &Registry) -> Option<&'s str> {
    let placed = |path: &str| {
        let full = session.working_directory.join(path);
        session.allocations.iter().any(|allocation| {
            let kind = registry.get(&allocation.kind).filter(|kind| kind.takes_files());
            kind.and_then(|kind| kind.directory(allocation))
                .is_some_and(|directory| full.starts_with(&directory) && full != directory)
        })
    };
    let mut paths = session.files.keys().map(String::as_str);
    paths.find(|path| path_fault(path).is_some() || !placed(path))
}
