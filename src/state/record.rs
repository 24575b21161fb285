//! Records: what a run writes down before it changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::{Error, FleetPart};
use crate::host::clock;
use crate::host::files::{self, Root};
use crate::manifest::Lifetime;
use crate::name::SessionPath;
use crate::plan::{Plan, Session};
use crate::provider::Identity;

/// Version of the format of record files.
pub const SCHEMA_VERSION: u32 = 3;

/// Largest record that is read, in bytes; a plan of 100,000 sessions has about 300 MB.
pub(super) const RECORD_MAX: usize = 2 << 30;

/// A plan that is applied, or is about to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Record {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Ownership marker: 32 random hexadecimal digits, created when the swarm is first applied.
    pub owner: String,
    /// Absolute path of the workspace root.
    pub workspace: PathBuf,
    /// Path of the manifest, relative to the workspace root if it is inside; `None` without a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Time at which the swarm was first applied, in UTC as RFC 3339, for messages. `None` in a record of an earlier
    /// version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Times at which sessions were created, in UTC as RFC 3339, by path; without those that were created when the swarm
    /// was first applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub created: BTreeMap<SessionPath, String>,
    /// Ids of the sessions above a standalone session, nearest first, which have the same ownership marker. In a swarm,
    /// the plan lists the ancestors instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// Position among the children, for a child that a program provisioned from another session's snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildOf>,
    /// `true` if `seedbed run` created the swarm for one command. Default: `false`.
    ///
    /// The swarm is removed with everything in it when the command has ended. A later run that finds the swarm removes
    /// it too: the run of the command owns the lock as long as the command lives.
    #[serde(default, skip_serializing_if = "is_false")]
    pub temporary: bool,
    /// Name of the swarm in the manifest, if `seedbed run` created this one beside it, as an instance; `None` for a swarm
    /// that has the name of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_of: Option<String>,
    /// Files that are saved before the swarm is removed; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// Run over the hosts of a fleet that this record is a part of; `None` for a swarm on one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetPart>,
    /// `true` if everything of the run is made and only the decision of its fleet decides whether it is committed. Of no
    /// meaning in the record of a committed run. Default: `false`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prepared: bool,
    /// Sessions whose `setup` has not succeeded, which a failed run left with [`keep_failed`](crate::apply::Options).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_set_up: BTreeMap<SessionPath, NotSetUp>,
    /// Resources that are given up because their repository cannot be used, by session; empty except in
    /// [`Release::before`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forgotten: BTreeMap<SessionPath, Vec<String>>,
    /// Identities that the repositories of the sessions had when the run began, by root relative to the workspace root
    /// or absolute; `.` is the workspace's own. Without an identity, any repository at the root is that of the swarm.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repositories: BTreeMap<PathBuf, Identity>,
    /// The plan; without sessions if everything is released.
    pub plan: Plan,
    /// Allocations that the run of this record releases; `None` after their release, and for a run that releases
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Box<Release>>,
}

impl Record {
    /// Returns whether a resource of a session is given up together with its repository.
    pub(crate) fn is_forgotten(&self, session: &SessionPath, resource: &str) -> bool {
        self.forgotten.get(session).is_some_and(|names| names.iter().any(|name| name == resource))
    }
}

/// Expiry of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expiry {
    /// Lifetime of the session.
    pub after: Lifetime,
    /// Time of the expiry, in seconds since 1970; `None` if it is unknown when the session was created.
    pub at: Option<u64>,
}

impl Expiry {
    /// Returns whether the session has expired at `now`, in seconds since 1970.
    pub fn is_past(&self, now: u64) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
}

impl Record {
    /// Returns the times at which the sessions of `plan` were created if this record is applied and the others are created
    /// at `now`.
    pub(crate) fn created_with(&self, plan: &Plan, now: &str) -> BTreeMap<SessionPath, String> {
        let active: BTreeSet<_> = self.plan.sessions.iter().map(|session| &session.path).collect();
        let created = plan.sessions.iter().filter_map(|session| {
            let path = &session.path;
            let time = if active.contains(path) { self.created.get(path)?.as_str() } else { now };
            Some((path.clone(), time.to_owned()))
        });
        created.collect()
    }

    /// Returns the expiry of a session of the plan; `None` if it never expires.
    pub fn expiry(&self, session: &Session) -> Option<Expiry> {
        let after = session.expires.clone()?;
        let created = self.created.get(&session.path).or(self.since.as_ref());
        let created = created.and_then(|created| clock::parse(created));
        Some(Expiry { at: created.map(|created| created.saturating_add(after.seconds())), after })
    }

    /// Returns the sessions that have expired at `now`, in seconds since 1970.
    pub fn expired(&self, now: u64) -> impl Iterator<Item = &Session> {
        let is_expired = move |session: &&Session| self.expiry(session).is_some_and(|it| it.is_past(now));
        self.plan.sessions.iter().filter(is_expired)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Files of sessions that outlast their swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Artifacts {
    /// Absolute path of the directory to copy them to.
    pub directory: PathBuf,
    /// Globs of the files, relative to the directory of each session.
    pub globs: Vec<String>,
}

impl Artifacts {
    /// Creates the artifacts that match `globs`, for a directory with this absolute path.
    pub fn new(directory: &Path, globs: Vec<String>) -> Self {
        Self { directory: directory.to_owned(), globs }
    }
}

/// A session whose `setup` has not succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct NotSetUp {
    /// `true` if the setup commands of the session have begun; `false` if the commands of another session failed first.
    pub begun: bool,
    /// Reason, one line that reads after "setup": `failed: …`.
    pub why: String,
}

/// Position of a child among the children of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ChildOf {
    /// Position, from 0; no other active child of the same parent has this position.
    pub index: u32,
    /// Number of shares into which the parent was divided for this child, at least 1.
    pub count: u32,
}

/// Allocations that a run releases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Release {
    /// Record that was applied before the run.
    pub before: Record,
    /// Kinds that are released, by session of `before`, in the order of their release.
    pub kinds: BTreeMap<SessionPath, Vec<String>>,
    /// Handling of unsaved work.
    pub unsaved: Unsaved,
    /// Action of recovery before the run is committed.
    pub recovery: Recovery,
}

/// Action of recovery on a run that was interrupted before it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Recovery {
    /// Recovery rolls back the run: what was moved aside is brought back.
    RollBack,
    /// Recovery finishes the run, a `destroy`, unless unsaved work has appeared meanwhile.
    Finish,
}

/// Progress of a run that is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The run moves aside what it releases, or brings it back; nothing is provisioned.
    SettingAside,
    /// Asides of the run are complete, and its new allocations may exist.
    Provisioning,
}

impl Stage {
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::SettingAside => "releasing.json",
            Self::Provisioning => "intent.json",
        }
    }
}

/// File of the record of the last committed run.
pub(super) const COMMITTED: &str = "applied.json";

/// A rescue in progress. The applied plan determines which files the rescue may have left.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rescuing {
    /// Version of the format of this file.
    pub(super) schema_version: u32,
}

/// Repositories in which refs keep commits for a run over several hosts, until the run is decided.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Keeping {
    /// Version of the format of this file.
    pub(super) schema_version: u32,
    /// Absolute paths of the common Git directories.
    pub(super) repositories: BTreeSet<PathBuf>,
}

/// Handling of unsaved work that a release would lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "unsaved work refuses a release, is saved or is discarded")]
pub enum Unsaved {
    /// Unsaved work refuses the release.
    #[default]
    Keep,
    /// Unsaved work is saved first, so that it survives the release.
    Rescue,
    /// Unsaved work is discarded.
    Discard,
}

/// Record without its plan, of which only the number of sessions is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartRecord {
    #[serde(default)]
    pub(super) fleet: Option<FleetPart>,
    pub(super) plan: Sessions,
}

/// Sessions of a plan, each of which is skipped.
#[derive(Deserialize)]
pub(super) struct Sessions {
    pub(super) sessions: Vec<IgnoredAny>,
}

/// Reads a record; `None` if it does not exist.
pub(super) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: Option<u32>,
    }
    let directory = match Root::open(directory) {
        Ok(directory) => directory,
        // A lock file has no records below it.
        Err(files::Error::Io { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(bytes) = directory.read(Path::new(name), RECORD_MAX)? else { return Ok(None) };
    let path = directory.path().join(name);
    let version = serde_json::from_slice::<Version>(&bytes).ok().and_then(|version| version.schema_version);
    if version.is_some_and(|version| version != SCHEMA_VERSION) {
        let why = "another version of seedbed wrote it; use that version to destroy the swarm".to_owned();
        return Err(Error::Unreadable { path, why });
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Unreadable { path, why: error.to_string() })
}
