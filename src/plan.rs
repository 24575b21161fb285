//! Planner: (manifest, [`Observation`], applied swarm) to [`Plan`]. Pure: no I/O, no clock, no choice left to the
//! executor.
//!
//! Planning has two passes. The first decides every allocation in canonical order; existing allocations are decided
//! first, so that a kept allocation never moves. The second renders templates in parallel. Any session may name the
//! paths and ports of any other session, because the first pass has decided all of them. Variables that templates of other
//! sessions use are rendered before those templates.

mod allocate;
mod applied;
mod contributions;
mod template_variables;
mod resolve_variables;
mod repositories;
mod requests;
mod conditions;
mod diff;
mod document;
mod dedupe;
mod session_identity;
mod template_scope;
mod program_queries;
mod read;
mod render;
mod placement;
mod shards;
mod external_options;
mod files;
mod findings;
mod spawn_error;
mod spawned;
mod template_files;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use applied::{AppliedPlan, Damage, DamageKind};
pub use diff::{Action, Again, Change, DISCOVERY, Field, SETUP, WORKING_DIRECTORY};
pub use findings::{Behind, FindingKind, Occupant, Role, SessionFinding};
pub use read::Unreadable;
pub use shards::{Shard, plan_shards, shard_manifests};
pub use spawn_error::SpawnError;
pub use spawned::{Spawn, plan_spawned, spawn, with_spawned};

use crate::manifest::{
    After, CommandLine, Diagnostic, Diagnostics, Lifetime, Location, Manifest, Ready, SessionFile,
    SessionText, Spawned, rule,
};
use crate::name::{HashDigits, SessionPath, Slug, scoped_name};
use crate::observe::{Observation, Query};
use crate::provider::{Allocation, DISCOVERY_DIRECTORY, Registry, external};

/// Version of the plan document's format.
pub const SCHEMA_VERSION: u32 = 1;

pub use crate::provider::DISCOVERY_FILE;

/// All allocations of all sessions, in canonical order, and the changes that lead from the applied swarm to them.
///
/// Equal manifests, commits and occupied ports give equal bytes in every clone on every machine. Paths are
/// relative to the workspace root, and `{{ workspace.root }}` is its placeholder in strings.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:plan:1"))]
#[non_exhaustive]
pub struct Plan {
    /// Version of the format of this document, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub(crate) schema_version: u32,
    /// Name of the swarm; empty in the plan of a standalone session, whose path is its id.
    pub(crate) swarm: String,
    /// `sha256:` and the hash of the planned sessions, their repositories and overrides: of everything here except `digest`, `applied`, `changes`,
    /// `again`, `unsavedWork`, `occupants` and `behind`.
    pub(crate) digest: String,
    /// Digest of the applied plan that `changes` start from; `null` if no swarm is applied.
    pub(crate) applied: Option<String>,
    /// Repositories that sessions have worktrees of, by name, except the workspace's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) repositories: Vec<PlannedRepository>,
    /// Values of the manifest that were changed for this plan, each as `PATH=VALUE`; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) overrides: Vec<String>,
    /// Sessions, parents before children.
    pub(crate) sessions: Vec<Session>,
    /// Changes, one for each session of the plan, and one for each active session that the plan removes.
    pub(crate) changes: Vec<Change>,
    /// Steps that are repeated in active sessions; empty unless the caller requested some.
    #[serde(default, skip_serializing_if = "Again::is_empty")]
    pub(crate) again: Again,
    /// Unsaved work that applying this plan would lose, as found when the plan was made. Applying checks again, and
    /// refuses to lose work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unsaved_work: Vec<SessionFinding>,
    /// Processes that use allocations that applying this plan would release, as found when the plan was made. Applying
    /// checks again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) occupants: Vec<Occupant>,
    /// Worktrees of kept sessions whose base has new commits, as found when the plan was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) behind: Vec<Behind>,
}

/// Repository beside the workspace's own that sessions have worktrees of. Paths are relative to the workspace root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct PlannedRepository {
    /// Name in the manifest.
    pub name: String,
    /// Top of the repository's work tree, or the bare repository.
    pub root: PathBuf,
    /// Common Git directory. Two repositories with the same one are one repository.
    pub common_directory: PathBuf,
}

/// Complete data of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Session {
    /// Id of the session, `SWARM/PATH`.
    pub id: String,
    /// Path of the session in the tree.
    pub path: SessionPath,
    /// Id as a file name, unique in the plan.
    pub scoped_name: String,
    /// Number in the swarm, from 0. Numbers have no gaps when a swarm is first applied; an active session keeps its
    /// number.
    pub index: u32,
    /// Number among the replicas of the session's table, from 0; `null` if the table has no `count`.
    pub replica: Option<u32>,
    /// Path as one DNS label, unique in the swarm; an active session keeps its slug.
    pub slug: Slug,
    /// Path of the parent; `null` at the top of the tree.
    pub parent: Option<SessionPath>,
    /// Paths of the direct children.
    pub children: Vec<SessionPath>,
    /// Working directory, relative to the workspace root.
    pub working_directory: PathBuf,
    /// Name of the resource in whose directory the session works; absent if the session chooses none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Time after which the session has expired; absent if it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Lifetime>,
    /// Path of the discovery file, relative to the workspace root.
    ///
    /// `null` for a session without a directory of its own; its discovery file is in the state directory.
    pub discovery_file: Option<PathBuf>,
    /// Allocations of the session.
    pub allocations: Vec<Allocation>,
    /// Environment, except `AGENT_DISCOVERY_FILE`.
    pub env: BTreeMap<String, String>,
    /// Sections of the prompt.
    pub prompt_sections: Vec<String>,
    /// Additional data from the manifest and the kinds.
    pub metadata: Map<String, Value>,
    /// Files in the working directory, by path relative to it; absent without any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, SessionFile>,
    /// Commands to run in the working directory after provisioning.
    pub setup: Vec<CommandLine>,
    /// Conditions under which the session is ready; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ready: Vec<Ready>,
    /// Commands to run in the working directory before release.
    pub teardown: Vec<CommandLine>,
    /// Command that works in the session, which `seedbed start` runs in the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// Table of a session that `seedbed spawn` added beside the manifest; absent for a session that the manifest declares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawned: Option<Spawned>,
}

impl Session {
    /// Returns whether something brings the session up after its resources are provisioned: commands, or conditions that
    /// are waited for.
    pub(crate) fn has_setup(&self) -> bool {
        !self.setup.is_empty() || self.ready.iter().any(|condition| condition.after != Some(After::Command))
    }

    /// Returns everything that the session is given besides its allocations.
    pub fn text(&self) -> SessionText<'_> {
        SessionText {
            env: Cow::Borrowed(&self.env),
            prompt: Cow::Borrowed(&self.prompt_sections),
            metadata: Cow::Borrowed(&self.metadata),
            files: Cow::Borrowed(&self.files),
            setup: Cow::Borrowed(&self.setup),
            ready: Cow::Borrowed(&self.ready),
            teardown: Cow::Borrowed(&self.teardown),
            command: self.command.as_ref().map(Cow::Borrowed),
        }
    }
}

/// Returns the prompt after the sections: `composePrompt` of the reference implementation, word for word.
pub fn compose_prompt<'s>(sections: impl IntoIterator<Item = &'s str>, prompt: &str) -> String {
    let mut lines = vec!["Runtime resource constraints are already enforced by the orchestrator:".to_owned()];
    lines.extend(sections.into_iter().map(|section| format!("- {section}")));
    if lines.len() == 1 {
        return prompt.to_owned();
    }
    lines.extend([String::new(), prompt.to_owned()]);
    lines.join("\n")
}

/// Returns the observations that planning this manifest requires, except those that [`programs`] returns.
///
/// For an applied swarm, this is called with the manifest that [`with_spawned`] returns.
pub fn queries(manifest: &Manifest, registry: &Registry) -> BTreeSet<Query> {
    let all_requests = requests::all_requests(manifest, registry);
    let of_kinds = all_requests
        .options
        .iter()
        .filter_map(|(kind, options)| registry.get(kind).map(|provider| provider.queries(&options.all)))
        .flatten();
    let of_files = files::queries(manifest, registry, &all_requests);
    let schemas = manifest.providers.values().filter_map(|program| program.schema.clone());
    let schemas = schemas.map(|path| Query::File { path, limit: external::SCHEMA_MAX });
    of_kinds.chain(schemas).chain(repositories::queries(manifest)).chain(of_files).collect()
}

/// Returns the queries for the programs of external kinds.
///
/// The observations of [`queries`] must be complete first: options of external kinds are templates that use the
/// results of the other kinds.
pub fn programs(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> BTreeSet<Query> {
    let manifest = &*spawned::with_spawned(manifest, applied);
    program_queries::programs(manifest, registry, observation, applied).into_iter().collect()
}

/// Plans all sessions: those of the manifest, and the spawned sessions of the applied swarm whose parent stays.
///
/// A spawned session that the manifest declares by now is planned as the manifest declares it. The error contains every diagnostic that can be known, not only the first; equal diagnostics of replicas appear
/// once. There is no plan for a manifest that is not [complete](Manifest::complete). The error then contains the diagnostics
/// of the remaining parts, and may be empty.
pub fn plan(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Result<Plan, Diagnostics> {
    let sessions = sessions(manifest, registry, observation, applied)?;
    Ok(Plan::assembled(manifest, registry, observation, applied, sessions))
}

/// Finds the diagnostics that [`plan`] would find, without producing a plan.
pub fn check(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Result<(), Diagnostics> {
    let sessions = sessions(manifest, registry, observation, applied)?;
    // Freeing the sessions takes a while, too.
    sessions.into_par_iter().for_each(drop);
    Ok(())
}

/// Returns the complete sessions of the plan.
fn sessions(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    applied: Option<&AppliedPlan>,
) -> Result<Vec<Session>, Vec<Diagnostic>> {
    let manifest = &*spawned::with_spawned(manifest, applied);
    let (manifest, unreadable) = template_files::with_content(manifest, observation);
    let manifest = &*manifest;
    if let Some(diagnostic) = unusable_workspace(observation) {
        return Err(vec![diagnostic]);
    }
    // This thread continues in place: only this thread can reuse the memory that it freed while it read the manifest.
    let mut compiled = render::Compiled::default();
    let allocated = rayon::in_place_scope(|scope| {
        scope.spawn(|_| compiled = render::compile(manifest));
        external_options::allocate(manifest, registry, observation, applied)
    });
    let mut unusable = repositories::diagnostics(manifest, observation, applied);
    unusable.extend(spawned::numbers_in_use(manifest));
    unusable.extend(unreadable);
    match render::render(manifest, registry, allocated, compiled, Vec::new()) {
        Ok(sessions) if manifest.complete && unusable.is_empty() => {
            match files::diagnostics(manifest, registry, observation, &sessions) {
                wrong if wrong.is_empty() => Ok(sessions),
                wrong => Err(dedupe::deduplicated(wrong, true)),
            }
        }
        rendered => {
            let mut diagnostics = match rendered {
                Ok(sessions) => files::diagnostics(manifest, registry, observation, &sessions),
                Err(diagnostics) => diagnostics,
            };
            diagnostics.extend(unusable);
            // A rejected part of the manifest may have declared the repository.
            diagnostics.retain(|diagnostic| manifest.complete || diagnostic.rule != rule::REPOSITORY);
            spawned::name_spawned(manifest, applied, &mut diagnostics);
            Err(dedupe::deduplicated(diagnostics, manifest.has_every_request))
        }
    }
}

/// Returns the diagnostic of a workspace whose path is no text: records, discovery files and environments contain the path.
fn unusable_workspace(observation: &Observation) -> Option<Diagnostic> {
    if observation.workspace.to_str().is_some() {
        return None;
    }
    let location = Location::default().key("workspace").key("root");
    let message = "the path of the workspace is not UTF-8, so it cannot be passed to sessions";
    let diagnostic = Diagnostic::new(rule::WORKSPACE_ROOT, location, message, "leads to it");
    Some(diagnostic.with_help("rename the directory above it whose name is not UTF-8"))
}

impl Plan {
    /// Creates the plan of complete sessions.
    fn assembled(
        manifest: &Manifest,
        registry: &Registry,
        observation: &Observation,
        applied: Option<&AppliedPlan>,
        sessions: Vec<Session>,
    ) -> Self {
        let mut plan = Self {
            schema_version: SCHEMA_VERSION,
            swarm: manifest.swarm.clone(),
            digest: String::new(),
            applied: applied.map(|applied| applied.plan.digest.clone()),
            repositories: repositories::planned(&sessions, registry, observation),
            overrides: manifest.overrides.clone(),
            sessions,
            changes: Vec::new(),
            again: Again::default(),
            unsaved_work: Vec::new(),
            occupants: Vec::new(),
            behind: Vec::new(),
        };
        plan.digest = plan.computed_digest();
        plan.changes = plan.changes_from(registry, applied);
        plan
    }

    /// Returns the name of the swarm; empty in the plan of a standalone session.
    pub fn swarm(&self) -> &str {
        &self.swarm
    }

    /// Returns the digest of the planned sessions: `sha256:` and the hash.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the digest of the applied plan that the changes start from; `None` if no swarm is applied.
    pub fn applied(&self) -> Option<&str> {
        self.applied.as_deref()
    }

    /// Returns the sessions, parents before children.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Returns the changes, in the order of the sessions, and then those of active sessions that the plan removes.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the values of the manifest that were changed for this plan, each as `PATH=VALUE`.
    pub fn overrides(&self) -> &[String] {
        &self.overrides
    }

    /// Returns the steps that are repeated in active sessions.
    pub fn again(&self) -> &Again {
        &self.again
    }

    /// Returns the unsaved work that applying this plan would lose, as found when the plan was made.
    pub fn unsaved_work(&self) -> &[SessionFinding] {
        &self.unsaved_work
    }

    /// Returns the processes that use what applying this plan would release, as found when the plan was made.
    pub fn occupants(&self) -> &[Occupant] {
        &self.occupants
    }

    /// Returns the kept sessions whose base has new commits, as found when the plan was made.
    pub fn behind(&self) -> &[Behind] {
        &self.behind
    }

    /// Adds findings for a reviewer, which the digest leaves out: unsaved work, and processes that use releases.
    #[must_use]
    pub fn with_refusals(self, unsaved_work: Vec<SessionFinding>, occupants: Vec<Occupant>) -> Self {
        Self { unsaved_work, occupants, ..self }
    }

    /// Adds the kept sessions whose base has new commits, which the digest leaves out.
    #[must_use]
    pub fn with_behind(self, behind: Vec<Behind>) -> Self {
        Self { behind, ..self }
    }

    /// Returns the digest of this plan's content: the hash of the JSON array of the format's version, the swarm and the
    /// sessions.
    ///
    /// A result other than `digest` means that the document was edited.
    pub fn computed_digest(&self) -> String {
        // A plan's maps have only string keys and its paths are UTF-8, so the whole plan can be written as JSON.
        document::digest(self).unwrap_or_default()
    }

    /// Returns the digest with which a reviewer approves this plan, `sha256:` and 64 digits.
    ///
    /// It is the digest of the plan if applying it releases nothing. Otherwise it also covers the sessions and resources
    /// that are released, which depend on what is applied on the host.
    pub fn approval(&self) -> String {
        document::approval(self)
    }

    /// Writes this document as indented JSON, followed by a line feed; `to` should be buffered.
    pub fn write(&self, mut to: impl Write + Send) -> io::Result<()> {
        document::write(self, &mut to)
    }

    /// Repeats these steps in active sessions.
    pub fn do_again(&mut self, again: Again, registry: &Registry, applied: Option<&AppliedPlan>) {
        self.again = again;
        self.changes = self.changes_from(registry, applied);
    }

    /// Returns the active sessions whose `setup` has changed and does not run, because nothing of them is provisioned.
    pub fn setup_not_run(&self) -> impl Iterator<Item = &SessionPath> {
        let changes = self.sessions.iter().zip(&self.changes);
        let is_left = |(session, change): &(&Session, &Change)| {
            !session.setup.is_empty() && !change.runs_setup() && change.changes_setup()
        };
        changes.filter(is_left).map(|(session, _)| &session.path)
    }

    /// Returns the changes that lead from the applied swarm to this plan.
    pub fn changes_from(&self, registry: &Registry, applied: Option<&AppliedPlan>) -> Vec<Change> {
        diff::changes(self, registry, applied)
    }

    /// Finds a session whose names or paths are not the computed ones.
    ///
    /// Plan files are untrusted, and must not decide the paths that seedbed writes to.
    fn misplaced(&self, registry: &Registry) -> Option<&Session> {
        self.sessions.iter().find(|session| {
            let directory = contributions::working_directory(session, registry);
            let named = [HashDigits::Eight, HashDigits::Sixteen]
                .map(|digits| scoped_name(&session.id, digits))
                .contains(&session.scoped_name);
            let placed = session.discovery_file == directory.as_deref().map(discovery_file)
                && session.working_directory == directory.unwrap_or_else(|| PathBuf::from("."));
            let are_allocations_placed = session.allocations.iter().all(|allocation| {
                let kind = registry.get(&allocation.kind);
                kind.is_none_or(|kind| kind.is_in_place(allocation, &session.scoped_name))
            });
            session.id != session.path.id(&self.swarm) || !named || !placed || !are_allocations_placed
        })
    }

    /// Returns the session at `path`.
    pub fn session(&self, path: &SessionPath) -> Option<&Session> {
        self.sessions.iter().find(|session| session.path == *path)
    }

    /// Returns whether applying this plan changes anything.
    pub fn has_changes(&self) -> bool {
        self.changes.iter().any(|change| change.action != Action::Keep)
    }
}

/// Returns the path of the discovery file of a session that works in `directory`.
fn discovery_file(directory: &Path) -> PathBuf {
    directory.join(DISCOVERY_DIRECTORY).join(DISCOVERY_FILE)
}

impl Session {
    /// Returns the allocation of the session's resource of this name.
    pub fn allocation(&self, name: &str) -> Option<&Allocation> {
        self.allocations.iter().find(|allocation| allocation.name() == name)
    }

    /// Returns the session's allocations of this kind.
    pub fn allocations_of<'s>(&'s self, kind: &'s str) -> impl Iterator<Item = &'s Allocation> {
        self.allocations.iter().filter(move |allocation| allocation.kind == kind)
    }
}
