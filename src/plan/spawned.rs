//! Spawned sessions: added to an applied swarm, beside the manifest.
//!
//! The applied plan keeps the table of each. A plan of the manifest contains them as if the manifest declared them, so
//! that planning has one path for all sessions. A session is spawned against the applied plan, not against the manifest:
//! nothing else of the swarm changes then, even if the manifest has changed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::read::DEPTH_MAX;
use super::spawn_error::SpawnError;
use super::{AppliedPlan, Plan, Session};
use crate::manifest::diagnostic::Step;
use crate::manifest::{
    self, Declaration, Diagnostic, From, Inherited, Location, Manifest, Options, Program, Request,
    SessionText, Spawned, rule,
};
use crate::name::{SessionPath, is_name, nearest};
use crate::observe::Observation;
use crate::provider::{Allocation, Registry, directory, existing_directory, git_worktree, port_range};

/// Session to add to an applied swarm.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Spawn {
    /// Path of the session above the new one; `None` for a session at the top of the tree.
    pub parent: Option<SessionPath>,
    /// Name of the new session.
    pub name: String,
    /// Session table to make the session from: the path of a session of the manifest or of the swarm, or the path of a
    /// table with `count`. `None` for a share of everything that the parent has, and at the top for the kinds that
    /// `[defaults]` names.
    pub template: Option<String>,
    /// Directory of another tool in which the session works, relative to the workspace root; `None` for a directory of its
    /// own.
    pub adopt: Option<PathBuf>,
    /// Base refs of the worktrees of the session, by name of the resource. Others have that of the template.
    pub base_refs: BTreeMap<String, String>,
}

/// Returns the manifest with the spawned sessions of the applied swarm, as planning sees it. Pure.
///
/// A spawned session is part of it as long as its parent is. A session that the manifest declares too is the manifest's.
pub fn with_spawned<'m>(manifest: &'m Manifest, applied: Option<&AppliedPlan>) -> Cow<'m, Manifest> {
    let mut manifest = Cow::Borrowed(manifest);
    for session in applied.iter().flat_map(|applied| &applied.plan.sessions) {
        let Some(spawned) = &session.spawned else { continue };
        let position = |path: &SessionPath| manifest.sessions.iter().position(|other| other.path == *path);
        let parent = session.parent.as_ref().map(position);
        if position(&session.path).is_some() || parent == Some(None) {
            continue;
        }
        let added = manifest::Session {
            path: session.path.clone(),
            parent: parent.flatten(),
            replica: session.replica,
            share: None,
            shard: None,
            declaration: Arc::new(spawned.declaration(&session.path)),
            spawned: Some(Arc::new(spawned.clone())),
        };
        insert(manifest.to_mut(), added);
    }
    manifest
}

/// Inserts a session behind the other sessions below its parent, and returns its position.
fn insert(manifest: &mut Manifest, session: manifest::Session) -> usize {
    let sessions = &mut manifest.sessions;
    let at = match session.parent {
        None => sessions.len(),
        Some(parent) => {
            let top = &sessions[parent].path;
            parent + sessions[parent..].iter().take_while(|other| other.path.is_at_or_below(top)).count()
        }
    };
    for parent in sessions.iter_mut().filter_map(|session| session.parent.as_mut()) {
        *parent += usize::from(*parent >= at);
    }
    sessions.insert(at, session);
    at
}

/// Names the spawned session in each diagnostic about one, and the command that releases it if it is active: the manifest
/// does not have its table.
pub(super) fn name_spawned(
    manifest: &Manifest,
    applied: Option<&AppliedPlan>,
    diagnostics: &mut [Diagnostic],
) {
    for session in manifest.sessions.iter().filter(|session| session.spawned.is_some()) {
        let table = &session.declaration.location.steps;
        for diagnostic in diagnostics.iter_mut().filter(|found| found.location.steps.starts_with(table)) {
            diagnostic.message = format!("spawned session `{}`: {}", session.path, diagnostic.message);
            if applied.is_some_and(|applied| applied.plan.session(&session.path).is_some()) {
                let release = format!("`seedbed release {}` releases the session", session.path);
                let help = diagnostic.help.take();
                let help = help.map_or_else(|| release.clone(), |help| format!("{help}; {release}"));
                diagnostic.help = Some(help.into());
            }
        }
    }
}

/// Finds replicas of the manifest that have the number of a spawned session of their table, whose values would then be the
/// same.
pub(super) fn numbers_in_use(manifest: &Manifest) -> Vec<Diagnostic> {
    let number = |session: &manifest::Session| Some((session.parent, table_path(session), session.replica?));
    let spawned = manifest.sessions.iter().filter(|session| session.spawned.is_some());
    let spawned: BTreeMap<_, _> =
        spawned.filter_map(|session| Some((number(session)?, &session.path))).collect();
    let declared = manifest.sessions.iter().filter(|session| session.spawned.is_none());
    let in_use = declared.filter_map(|session| {
        let key = number(session)?;
        let other = spawned.get(&key)?;
        let message =
            format!("`{}` would have number {}, which spawned session `{other}` has", session.path, key.2);
        let location = session.declaration.location.key("count");
        let help = format!("release it with `seedbed release {other}`, or keep `count` at {}", key.2);
        Some(Diagnostic::new(rule::REPLICA_NUMBER, location, message, "includes this number").with_help(help))
    });
    if spawned.is_empty() { Vec::new() } else { in_use.collect() }
}

/// Returns the manifest of the applied swarm with one more session, and with the sessions below its template. Pure.
///
/// [`plan_spawned`] plans it.
pub fn spawn(
    manifest: &Manifest,
    registry: &Registry,
    applied: Option<&AppliedPlan>,
    request: &Spawn,
) -> Result<Manifest, SpawnError> {
    let declared = with_spawned(manifest, applied);
    let mut all = manifest_of(manifest, registry, applied.map(|applied| &applied.plan));
    let parent = match &request.parent {
        None => None,
        Some(path) => {
            let position = all.sessions.iter().position(|session| session.path == *path);
            Some(position.ok_or_else(|| SpawnError::Parent(path.clone()))?)
        }
    };
    let path = path_of(request, &declared, &all)?;
    let template = request.template.as_ref().map(|name| find_template(&declared, name)).transpose()?;
    let table = template.map(|at| table_path(&declared.sessions[at]));
    let above =
        parent.map(|parent| all.sessions[parent].declaration.resources.as_deref().unwrap_or_default());
    let mut declaration = if let Some(at) = template {
        pooled(&declared.sessions[at].declaration, manifest)
    } else {
        let parent = declared.sessions.iter().find(|session| Some(&session.path) == request.parent.as_ref());
        default_declaration(above, parent.map(|session| &*session.declaration), manifest)
    };
    if let Some(path) = &request.adopt {
        adopt(&mut declaration, path, parent.is_none(), manifest);
    }
    check_shares(&declaration, request, table.as_ref(), above)?;
    set_base_refs(&mut declaration, &request.base_refs);
    let replica = template.and_then(|at| declared.sessions[at].replica);
    let replica = replica.and_then(|_| Some(free_number(&path, table.as_ref()?, [&declared, &all])));
    let top = insert(&mut all, spawned(path, parent, replica, table, &declaration));
    let Some(template) = template else { return Ok(all) };
    // The children that the manifest declares come along; spawned ones do not.
    let mut positions = BTreeMap::from([(template, top)]);
    for (at, session) in declared.sessions.iter().enumerate().skip(template + 1) {
        let parent = session.parent.and_then(|parent| positions.get(&parent).copied());
        let Some(parent) = parent.filter(|_| session.spawned.is_none()) else { continue };
        let path = all.sessions[parent].path.child(session.path.name());
        let declaration = pooled(&session.declaration, manifest);
        let table = Some(table_path(session));
        positions
            .insert(at, insert(&mut all, spawned(path, Some(parent), session.replica, table, &declaration)));
    }
    Ok(all)
}

/// Returns the session of a manifest that is spawned with this content.
fn spawned(
    path: SessionPath,
    parent: Option<usize>,
    replica: Option<u32>,
    template: Option<SessionPath>,
    declaration: &Declaration,
) -> manifest::Session {
    let spawned = Spawned::new(template, declaration);
    let declaration = Arc::new(spawned.declaration(&path));
    let spawned = Some(Arc::new(spawned));
    manifest::Session { path, parent, replica, share: None, shard: None, declaration, spawned }
}

/// Returns the path of the new session, if no other session has it.
fn path_of(request: &Spawn, declared: &Manifest, all: &Manifest) -> Result<SessionPath, SpawnError> {
    if !is_name(&request.name) {
        return Err(SpawnError::Name(request.name.clone()));
    }
    let path = match &request.parent {
        None => SessionPath::top(&request.name),
        Some(parent) => parent.child(&request.name),
    };
    if path.as_str().split('/').count() >= DEPTH_MAX {
        return Err(SpawnError::Depth(path));
    }
    let is_same = |session: &&manifest::Session| session.path.as_str().eq_ignore_ascii_case(path.as_str());
    if let Some(other) = all.sessions.iter().find(is_same) {
        return Err(SpawnError::Active(other.path.clone()));
    }
    match declared.sessions.iter().find(is_same) {
        Some(other) => Err(SpawnError::Declared(other.path.clone())),
        None => Ok(path),
    }
}

/// Returns the position of the session that the user calls `name`: a path, a table with `count`, or a unique name.
fn find_template(manifest: &Manifest, name: &str) -> Result<usize, SpawnError> {
    let sessions = &manifest.sessions;
    let named = |is: &dyn Fn(&manifest::Session) -> bool| sessions.iter().position(is);
    let of_table =
        |session: &manifest::Session| session.replica.is_some() && table_path(session).as_str() == name;
    if let Some(at) = named(&|session| session.path.as_str() == name).or_else(|| named(&of_table)) {
        return Ok(at);
    }
    let is_called =
        |session: &manifest::Session| session.path.name() == name || table_path(session).name() == name;
    let tables: BTreeSet<_> = sessions.iter().filter(|session| is_called(session)).map(table_path).collect();
    named(&is_called).filter(|_| tables.len() == 1).ok_or_else(|| {
        let paths: Vec<_> = sessions.iter().map(table_path).collect();
        let nearest = nearest(name, paths.iter().map(SessionPath::as_str)).map(str::to_owned);
        SpawnError::Template { name: name.to_owned(), nearest }
    })
}

/// Returns the path of the table that a session was made from: its path without the number of a replica.
fn table_path(session: &manifest::Session) -> SessionPath {
    if let Some(template) = session.spawned.as_ref().and_then(|spawned| spawned.template.clone()) {
        return template;
    }
    let path = session.path.as_str();
    let number = session.replica.map(|replica| format!("-{replica}"));
    let table = number.and_then(|number| path.strip_suffix(&number));
    table.map_or_else(|| session.path.clone(), SessionPath::from_id)
}

/// Returns the number of a new replica: the one in its name, or the lowest that no replica of the table has.
fn free_number(path: &SessionPath, table: &SessionPath, manifests: [&Manifest; 2]) -> u32 {
    let used: BTreeSet<u32> = manifests
        .iter()
        .flat_map(|manifest| &manifest.sessions)
        .filter(|session| table_path(session) == *table)
        .filter_map(|session| session.replica)
        .collect();
    let own = path.name().strip_prefix(table.name()).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
    let own = own.filter(|number| !used.contains(number));
    own.or_else(|| (0..u32::MAX).find(|number| !used.contains(number))).unwrap_or(u32::MAX)
}

/// Returns a declaration whose requests do not depend on the defaults of the manifest.
fn pooled(declaration: &Declaration, manifest: &Manifest) -> Declaration {
    let mut declaration = declaration.clone();
    for request in declaration.resources.iter_mut().flatten() {
        if request.from == From::Pool {
            let mut options = manifest.defaults.get(&request.kind).cloned().unwrap_or_default();
            options.append(&mut request.options);
            request.options = options;
        }
    }
    declaration
}

/// Returns the content of a session without a template.
///
/// A child takes a share of each resource of its parent, whose requests are given. A session at the top has a worktree,
/// and the other kinds that `[defaults]` names. The text is that of `[defaults.session]`, or of the parent's table if the
/// manifest declares it and children inherit.
fn default_declaration(
    parent: Option<&[Request]>,
    declared: Option<&Declaration>,
    manifest: &Manifest,
) -> Declaration {
    let text = manifest.default_text.as_ref().map(|defaults| match declared {
        Some(parent) if defaults.inherit => parent.text.clone(),
        _ => defaults.declaration.text.clone(),
    });
    let resources = if let Some(above) = parent {
        above.iter().map(|of| share_of(of, manifest)).collect()
    } else {
        let kinds: BTreeSet<&str> =
            manifest.defaults.keys().map(String::as_str).chain([git_worktree::KIND]).collect();
        let request = |kind: &str| Request {
            kind: kind.to_owned(),
            name: None,
            from: From::Pool,
            options: manifest.defaults.get(kind).cloned().unwrap_or_default(),
            location: Location::default(),
        };
        kinds.into_iter().map(request).collect()
    };
    let resources = Some(resources);
    Declaration {
        complete: true,
        location: Location::default(),
        resources,
        directory: None,
        expires: None,
        text: text.unwrap_or_default(),
        inherited: Inherited::default(),
    }
}

/// Lets a session work in a directory of another tool, instead of in its own. At the top it has ports, too.
fn adopt(declaration: &mut Declaration, path: &Path, is_top: bool, manifest: &Manifest) {
    let requests = declaration.resources.get_or_insert_default();
    requests.retain(|request| {
        ![git_worktree::KIND, directory::KIND, existing_directory::KIND].contains(&&*request.kind)
    });
    let request = |kind: &str, options: Options| Request {
        kind: kind.to_owned(),
        name: None,
        from: From::Pool,
        options,
        location: Location::default(),
    };
    if is_top && requests.is_empty() {
        let defaults = manifest.defaults.get(port_range::KIND).cloned().unwrap_or_default();
        requests.push(request(port_range::KIND, defaults));
    }
    let path = Options::from_iter([("path".to_owned(), path.to_string_lossy().into())]);
    requests.insert(0, request(existing_directory::KIND, path));
    declaration.directory = None;
}

/// Returns the request of a child for a share of a resource of its parent.
///
/// A child inherits the branch of a worktree, and two worktrees cannot have one branch. A directory of another tool cannot
/// be shared: the child has a worktree instead.
fn share_of(of: &Request, manifest: &Manifest) -> Request {
    if of.kind == existing_directory::KIND {
        let options = manifest.defaults.get(git_worktree::KIND).cloned().unwrap_or_default();
        let (kind, location) = (git_worktree::KIND.to_owned(), Location::default());
        return Request { kind, name: None, from: From::Pool, options, location };
    }
    let mut options = Options::new();
    let branch = of.options.get("branch").and_then(Value::as_str);
    if let Some(branch) = branch.filter(|branch| of.kind == git_worktree::KIND && !branch.contains("{{")) {
        options.insert("branch".to_owned(), format!("{branch}-{{{{ session.name }}}}").into());
    }
    let (kind, name) = (of.kind.clone(), of.name.clone());
    Request { kind, name, from: From::Parent, options, location: Location::default() }
}

/// Checks that the parent has each resource that the session takes a share of.
fn check_shares(
    declaration: &Declaration,
    request: &Spawn,
    table: Option<&SessionPath>,
    above: Option<&[Request]>,
) -> Result<(), SpawnError> {
    let mut shares = declaration.resources.iter().flatten().filter(|request| request.from == From::Parent);
    let Some(parent) = &request.parent else {
        let is_child = shares.next().is_some() || declaration.resources.is_none();
        return match table.filter(|_| is_child) {
            Some(table) => Err(SpawnError::Top(table.clone())),
            None => Ok(()),
        };
    };
    let above = above.unwrap_or_default();
    let has = |share: &&Request| above.iter().any(|of| of.kind == share.kind && of.name() == share.name());
    match shares.find(|share| !has(share)) {
        None => Ok(()),
        Some(share) => {
            let (kind, resource) = (share.kind.clone(), share.name().to_owned());
            Err(SpawnError::NothingToShare { parent: parent.clone(), kind, resource })
        }
    }
}

/// Sets the base refs of worktrees, by name of the resource.
fn set_base_refs(declaration: &mut Declaration, base_refs: &BTreeMap<String, String>) {
    for request in declaration.resources.iter_mut().flatten() {
        if let Some(base) = base_refs.get(request.name()).filter(|_| request.kind == git_worktree::KIND) {
            request.options.insert("base-ref".to_owned(), base.as_str().into());
        }
    }
}

/// Returns a manifest that requests exactly the allocations of the applied plan.
///
/// Of the other content of a session, it has only the variables, which templates of other sessions may use.
fn manifest_of(manifest: &Manifest, registry: &Registry, applied: Option<&Plan>) -> Manifest {
    let mut all = Manifest {
        complete: true,
        has_every_request: manifest.has_every_request,
        swarm: manifest.swarm.clone(),
        instance_of: manifest.instance_of.clone(),
        workspace_root: manifest.workspace_root.clone(),
        repositories: manifest.repositories.clone(),
        fleet: manifest.fleet,
        directory: manifest.directory.clone(),
        overrides: applied.map(|applied| applied.overrides.clone()).unwrap_or_default(),
        defaults: manifest.defaults.clone(),
        default_text: manifest.default_text.clone(),
        providers: manifest.providers.clone(),
        sessions: Vec::new(),
    };
    // The options of applied sessions are complete, except for those that a kind leaves out by default.
    for (kind, options) in &mut all.defaults {
        let complete = registry.get(kind).map(|kind| kind.options(&Options::new(), None, &Options::new()));
        options.retain(|key, _| complete.as_ref().is_none_or(|complete| complete.contains_key(key)));
    }
    let Some(applied) = applied else { return all };
    let mut positions = BTreeMap::new();
    for session in &applied.sessions {
        for held in &session.allocations {
            if let Some(program) = &held.external {
                let (timeout, claim) = (program.timeout, program.claim);
                let program = Program { timeout, claim, ..Program::new(program.command.clone()) };
                all.providers.insert(held.kind.clone(), program);
            }
        }
        positions.insert(&session.path, all.sessions.len());
        let parent = session.parent.as_ref().and_then(|parent| positions.get(parent).copied());
        all.sessions.push(declared(session, parent, registry));
    }
    all
}

/// Returns the session of a manifest that requests the allocations of an active session.
fn declared(session: &Session, parent: Option<usize>, registry: &Registry) -> manifest::Session {
    let none = Options::new();
    let request = |held: &Allocation| {
        // A child would inherit each option that it lacks.
        let kind = registry.get(&held.kind);
        let mut options = kind.map(|kind| kind.options(&none, None, &none)).unwrap_or_default();
        options.extend(held.options.clone());
        let from = if held.shared { From::Parent } else { From::Pool };
        Request {
            kind: held.kind.clone(),
            name: held.name.clone(),
            from,
            options,
            location: Location::default(),
        }
    };
    let requested = session.allocations.iter().filter(|held| !registry.is_implied(&held.kind));
    let env = session.env.iter().map(|(name, value)| (name.clone(), literal(value)));
    let text = SessionText { env: Cow::Owned(env.collect()), ..SessionText::default() };
    let declaration = Declaration {
        complete: true,
        location: Location::default(),
        resources: Some(requested.map(request).collect()),
        directory: session.directory.clone(),
        expires: session.expires.clone(),
        text,
        inherited: Inherited::default(),
    };
    let (path, replica) = (session.path.clone(), session.replica);
    manifest::Session {
        path,
        parent,
        replica,
        share: None,
        shard: None,
        declaration: Arc::new(declaration),
        spawned: None,
    }
}

/// Returns a template that renders to this text.
fn literal(text: &str) -> String {
    let is_template = ["{{", "{%", "{#"].iter().any(|open| text.contains(open));
    if is_template { text.replace('{', "{{ '{' }}") } else { text.to_owned() }
}

/// Plans a manifest that [`spawn`] returned: the applied sessions as they are, and the new ones. Pure.
pub fn plan_spawned(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Result<Plan, SpawnError> {
    let mut plan = super::plan(manifest, registry, observation, applied).map_err(|diagnostics| {
        // The active sessions are kept as they are, so that a diagnostic of a session is about a new one.
        let is_of_session = |diagnostic: &Diagnostic| {
            diagnostic.location.steps.first().is_some_and(|step| *step == Step::key("session"))
        };
        let of_sessions = diagnostics.iter().all(is_of_session);
        if of_sessions { SpawnError::Unplannable(diagnostics) } else { SpawnError::Diagnostics(diagnostics) }
    })?;
    for session in &mut plan.sessions {
        let Some(active) = applied.and_then(|applied| applied.plan.session(&session.path)) else { continue };
        if active.allocations != session.allocations {
            return Err(SpawnError::Changed(session.path.clone()));
        }
        let children = std::mem::take(&mut session.children);
        *session = Session { children, ..active.clone() };
    }
    plan.digest = plan.computed_digest();
    plan.changes = plan.changes_from(registry, applied);
    Ok(plan)
}
