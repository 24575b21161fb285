//! Applied swarms, for the commands that inspect one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use globset::GlobBuilder;
use seedbed::apply;
use seedbed::fleet::directory::IndexedSession;
use seedbed::host::text::printable;
use seedbed::name::{SessionPath, nearest};
use seedbed::plan::Session;
use seedbed::provider::Registry;
use seedbed::report::error;
use seedbed::state::{self, Record, Swarm};

use super::exit::Failure;
use super::{applied_here, output, project, relocation, unfinished_runs};

/// Returns the record of the swarm; an error if the swarm is not applied.
pub(super) fn record(swarm: &Swarm<'_>, name: &str) -> Result<Record, Failure> {
    if let Some(record) = swarm.applied()? {
        return Ok(record);
    }
    relocation::refuse_strays(swarm, &project::registry())?;
    let found = swarm.found()?;
    let unfinished =
        found.map(|found| unfinished_runs::explained(&found, swarm)).transpose()?.unwrap_or_default();
    Err(Failure::new(
        error::SWARM_NOT_APPLIED,
        if unfinished.is_empty() {
            let message = format!("the swarm of {name} is not applied here\nhelp: run `seedbed apply`");
            applied_here::with_others(swarm, message)?
        } else {
            let details = unfinished.join("\n  ");
            format!("the swarm of {name} is not applied here\n  {details}\nhelp: run `seedbed recover`")
        },
    ))
}

/// Applied swarm, with the children that programs have provisioned from its sessions.
pub(super) struct Family<'h> {
    pub(super) swarm: Swarm<'h>,
    pub(super) record: Record,
    /// Children, parents before their own children.
    pub(super) children: Vec<(Swarm<'h>, Record)>,
}

/// Active session, with its swarm; a provisioned child has a swarm of its own.
#[derive(Clone, Copy)]
pub(super) struct Active<'f> {
    pub(super) swarm: &'f Swarm<'f>,
    pub(super) record: &'f Record,
    pub(super) session: &'f Session,
}

impl Active<'_> {
    /// Returns the session's absolute working directory; an error if it cannot be used.
    pub(super) fn directory(&self, registry: &Registry) -> Result<PathBuf, Failure> {
        let Self { swarm, record, session } = self;
        apply::directory(swarm, registry, record, session).map_err(|why| {
            let mut unusable = apply::unusable_repositories(swarm, registry, record);
            unusable.retain(|repository| repository.sessions.contains(&session.path));
            if !unusable.is_empty() {
                return Failure::Apply(apply::Error::Unusable(unusable));
            }
            let why = format!(
                "session {} has no directory to work in: {}\nhelp: `seedbed apply` creates it again, `seedbed destroy` removes it",
                printable(session.path.as_str()),
                printable(&why)
            );
            Failure::new(error::SESSION_DAMAGED, why)
        })
    }
}

impl<'h> Family<'h> {
    /// Finds the family of a swarm; an error if the swarm is not applied.
    pub(super) fn find(swarm: Swarm<'h>, name: &str) -> Result<Self, Failure> {
        let record = record(&swarm, name)?;
        let children = children(&swarm, &record)?;
        Ok(Self { swarm, record, children })
    }

    /// Returns every session, parents before children; children that programs have provisioned come first.
    pub(super) fn sessions(&self) -> Vec<Active<'_>> {
        let mut sessions = Vec::with_capacity(self.record.plan.sessions().len());
        for session in self.record.plan.sessions() {
            sessions.push(Active { swarm: &self.swarm, record: &self.record, session });
            self.add_children_of(&session.id, &mut sessions);
        }
        sessions
    }

    fn add_children_of<'f>(&'f self, id: &str, sessions: &mut Vec<Active<'f>>) {
        for (swarm, record) in &self.children {
            if record.ancestors.first().is_some_and(|parent| parent == id) {
                for session in record.plan.sessions().iter().filter(|session| session.id != id) {
                    sessions.push(Active { swarm, record, session });
                    self.add_children_of(&session.id, sessions);
                }
            }
        }
    }

    /// Returns the sessions that the user calls by these names, each once, in the order of [`Family::sessions`]; without
    /// a name, all.
    pub(super) fn requested(&self, names: &[String]) -> Result<Vec<Active<'_>>, Failure> {
        let mut sessions = self.sessions();
        if !names.is_empty() {
            let mut ids = BTreeSet::new();
            for name in names {
                ids.extend(self.called(name)?.into_iter().map(|active| active.session.id.as_str()));
            }
            sessions.retain(|active| ids.contains(active.session.id.as_str()));
        }
        Ok(sessions)
    }

    /// Returns the sessions that the user calls `name`, as [`sessions`] finds them, or the child with this id.
    pub(super) fn called(&self, name: &str) -> Result<Vec<Active<'_>>, Failure> {
        match sessions(&self.record, name) {
            Ok(called) => {
                let own = |session| Active { swarm: &self.swarm, record: &self.record, session };
                Ok(called.into_iter().map(own).collect())
            }
            Err(failure) => self.session(name).map(|active| vec![active]).map_err(|_| failure),
        }
    }

    /// Returns the session that the user calls `name`, as [`session`] finds it, or the child with this id.
    pub(super) fn session(&self, name: &str) -> Result<Active<'_>, Failure> {
        match session(&self.record, name) {
            Ok(session) => Ok(Active { swarm: &self.swarm, record: &self.record, session }),
            Err(failure) => {
                let mut sessions = self.sessions().into_iter();
                sessions.find(|active| active.session.id == name).ok_or(failure)
            }
        }
    }
}

/// Returns the active children that programs have provisioned from sessions of a swarm.
pub(super) fn children<'h>(swarm: &Swarm<'h>, record: &Record) -> Result<Vec<(Swarm<'h>, Record)>, Failure> {
    let found = state::children(swarm.host(), record)?;
    Ok(found.into_iter().filter_map(|found| Some((found.swarm(swarm.host())?, found.applied?))).collect())
}

/// Finds the session that the user calls `name`: by its path, its id, or its name if the name is unique.
pub(super) fn session<'r>(record: &'r Record, name: &str) -> Result<&'r Session, Failure> {
    one_of(record.plan.sessions(), name)
}

/// Finds the sessions that the user calls `name`.
///
/// These are the result of [`session`], else the replicas of a table with this name, or the sessions whose path or name
/// matches a glob.
pub(super) fn sessions<'r>(record: &'r Record, name: &str) -> Result<Vec<&'r Session>, Failure> {
    some_of(record.plan.sessions(), name)
}

/// A session that the user can name.
pub(super) trait Named {
    /// Returns the path in the tree.
    fn path(&self) -> &SessionPath;
    /// Returns the id.
    fn id(&self) -> &str;
    /// Returns the number of the replica; `None` for a session of a table without `count`.
    fn replica(&self) -> Option<u32>;
}

impl Named for Session {
    fn path(&self) -> &SessionPath {
        &self.path
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn replica(&self) -> Option<u32> {
        self.replica
    }
}

impl Named for IndexedSession {
    fn path(&self) -> &SessionPath {
        &self.session
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn replica(&self) -> Option<u32> {
        self.replica
    }
}

/// Finds one of the sessions as [`session`] does.
fn one_of<'s, S: Named>(sessions: &'s [S], name: &str) -> Result<&'s S, Failure> {
    if let Some(session) =
        sessions.iter().find(|session| session.path().as_str() == name || session.id() == name)
    {
        return Ok(session);
    }
    let called: Vec<_> = sessions.iter().filter(|session| session.path().name() == name).collect();
    match called[..] {
        [session] => Ok(session),
        [one, other, ..] => Err(ambiguous(name, [one.path(), other.path()], called.len())),
        [] => {
            let replicas: Vec<_> = sessions.iter().filter(|session| is_replica_of(*session, name)).collect();
            if let [one, ..] = replicas[..] {
                let count = output::count(replicas.len(), "replica");
                let text =
                    format!("`{name}` names {count}\nhelp: name one of them, such as `{}`", one.path());
                return Err(Failure::new(error::SESSION_AMBIGUOUS, text));
            }
            let why = unknown(sessions.iter().map(Named::path), name);
            Err(Failure::new(error::SESSION_UNKNOWN, why))
        }
    }
}

/// Returns the failure of a name that `number` sessions have, the first two of which are named.
pub(super) fn ambiguous(name: &str, first: [&SessionPath; 2], number: usize) -> Failure {
    let [one, other] = first;
    let more = if number > 2 { ", …" } else { "" };
    let text = format!("more than one session is named `{name}`: {one}, {other}{more}\nhelp: use the path");
    Failure::new(error::SESSION_AMBIGUOUS, text)
}

/// Finds some of the sessions as [`sessions`] does.
pub(super) fn some_of<'s, S: Named>(sessions: &'s [S], name: &str) -> Result<Vec<&'s S>, Failure> {
    let unfound = match one_of(sessions, name) {
        Ok(session) => return Ok(vec![session]),
        Err(failure) => failure,
    };
    let matches: Box<dyn Fn(&S) -> bool> = if name.contains(['*', '?', '[', '{']) {
        let glob = GlobBuilder::new(name).literal_separator(true).build();
        let glob =
            glob.map_err(|error| Failure::new(error::SESSION_PATTERN, error.to_string()))?.compile_matcher();
        let by_path = name.contains('/');
        Box::new(move |session| {
            glob.is_match(if by_path { session.path().as_str() } else { session.path().name() })
        })
    } else {
        Box::new(|session| is_replica_of(session, name))
    };
    let found: Vec<_> = sessions.iter().filter(|session| matches(session)).collect();
    if found.is_empty() { Err(unfound) } else { Ok(found) }
}

/// Returns whether a session is a replica of the table with this name or path.
pub(super) fn is_replica_of(session: &impl Named, table: &str) -> bool {
    table_of(session).is_some_and(|path| path == table || path.rsplit('/').next() == Some(table))
}

/// Returns the path of a replica without its number; `None` for a session of a table without `count`.
pub(super) fn table_of(session: &impl Named) -> Option<&str> {
    session.path().as_str().strip_suffix(&format!("-{}", session.replica()?))
}

fn unknown<'p>(paths: impl Iterator<Item = &'p SessionPath>, name: &str) -> String {
    match nearest(name, paths.map(SessionPath::as_str)) {
        Some(path) => format!("no session `{name}` is active\nhelp: did you mean `{path}`?"),
        None => format!("no session `{name}` is active\nhelp: `seedbed status` lists the active sessions"),
    }
}
