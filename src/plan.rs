//! (Manifest, [`Observation`], what stands) to [`Plan`]. Pure: no I/O, no clock, no choice left to the executor.
//!
//! Two passes. The first decides every allocation, in canonical order, what stands first, so that nothing kept ever
//! moves. The second renders templates, in parallel: any session may name any other's paths and ports, because all
//! are known by then.

mod allocate;
mod demand;
mod difference;
mod document;
mod faults;
mod identity;
mod names;
mod programs;
mod read;
mod render;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use difference::{Action, Again, Change, DISCOVERY, Field, SETUP};
pub use read::Unreadable;

use crate::host::occupants::Use;
use crate::host::text::printable_command;
use crate::manifest::{CommandLine, Diagnostics, Fault, Manifest, Place, rule};
use crate::name::{HashDigits, SessionPath, Slug, scoped_name};
use crate::observe::{Observation, Question};
use crate::provider::{Allocation, DISCOVERY_DIRECTORY, Registry};

/// The version of the plan document's format.
pub const SCHEMA_VERSION: u32 = 1;

pub use crate::provider::DISCOVERY_FILE;

/// All allocations of all sessions, in canonical order, and what has to be done to get there.
///
/// The same manifest, commits and occupied ports give the same bytes in every clone on every machine: paths are
/// relative to the workspace root, and `{{ workspace.root }}` stands for it in strings.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("$id" = "urn:seedbed:plan:1"))]
#[non_exhaustive]
pub struct Plan {
    /// Version of this document's format, [`SCHEMA_VERSION`].
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// The swarm's name; empty where this is the plan of one session on its own, whose path is its id.
    pub swarm: String,
    /// `sha256:` and the hash of what the sessions will be: everything here but `digest`, `standing`, `changes`,
    /// `again`, `losses`, `occupants` and `behind`.
    pub digest: String,
    /// The digest of the standing plan that `changes` start from; `null` where nothing stands.
    pub standing: Option<String>,
    /// The sessions, parents before children.
    pub sessions: Vec<Session>,
    /// One entry for each session, and for each that stands and will not any more.
    pub changes: Vec<Change>,
    /// What is done again in sessions that stand; empty unless the caller asked for it.
    #[serde(default, skip_serializing_if = "Again::is_empty")]
    pub again: Again,
    /// The work that applying this would lose, as it was when the plan was made, and is refused for; applying looks again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Processes that use what applying this would release, as they were when the plan was made; applying looks again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub occupants: Vec<Occupant>,
    /// Sessions that stay and whose base has moved on, as it was when the plan was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Behind>,
}

/// A session whose base has commits that its worktree lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Behind {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// The base ref of its worktree.
    pub base_ref: String,
    /// The commit that the base ref names.
    pub base: String,
    /// The number of commits that `base` has and the worktree's HEAD does not.
    pub commits: u64,
}

impl Behind {
    /// Returns a session whose worktree lacks `commits` commits of `base`, which `base_ref` names.
    pub fn new(session: SessionPath, base_ref: String, base: String, commits: u64) -> Self {
        Self { session, base_ref, base, commits }
    }
}

/// A process that uses what a release would remove: a directory that it works in, a port that it listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Occupant {
    /// Path of the session in the tree.
    pub session: SessionPath,
    /// Number of the process; `null` for a socket whose process cannot be found, such as another user's.
    pub pid: Option<u32>,
    /// Program and arguments, a blank between them; empty where `pid` is `null`.
    pub command: String,
    /// The ways in which it uses the session, at least one; of many files only the first few.
    pub uses: Vec<Use>,
    /// The part that the process plays in the release.
    pub role: Role,
}

/// The part that a process plays in the release of a session that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// The release is refused while the process uses the session.
    Refuses,
    /// It is the process that asks for the release, or one that this process descends from. It is never ended; the
    /// command line asks for `--yes`.
    Caller,
    /// It is a caller in a directory that is a mount, which cannot be unmounted under it: the release is refused.
    PinningCaller,
    /// The session's `setup` left it running, and its `teardown` is there to end it. If it does not, the release is refused
    /// after the teardown.
    LeftByCommand,
}

impl Occupant {
    /// Returns whether the release of the session is refused because of it.
    pub fn is_refusal(&self) -> bool {
        matches!(self.role, Role::Refuses | Role::PinningCaller)
    }

    /// The process and what it uses, on one line; paths are not escaped.
    pub fn described(&self) -> String {
        let uses: Vec<_> = self.uses.iter().map(Use::described).collect();
        let uses = uses.join(", ");
        let Some(pid) = self.pid else { return format!("a process that cannot be inspected {uses}") };
        let note = match self.role {
            Role::Refuses => "",
            Role::Caller => " (seedbed was called from it)",
            Role::PinningCaller => {
                " (seedbed was called from it; an overlay is not unmounted under it: leave it first)"
            }
            Role::LeftByCommand => " (left running by setup, for teardown to end)",
        };
        format!("pid {pid} (`{}`) {uses}{note}", printable_command(&self.command))
    }
}

/// Work that a release would lose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Loss {
    /// The session's path.
    pub session: SessionPath,
    /// What, one line.
    pub what: String,
    /// Whether it is unknown what would be lost, or whether anything would: what the lease needs to be inspected does not
    /// answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

impl Loss {
    /// Returns work of a session that is known to be lost, described in one line.
    pub fn new(session: SessionPath, what: String) -> Self {
        Self { session, what, unknown: false }
    }
}

/// Everything that one session gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Session {
    /// `SWARM/PATH`.
    pub id: String,
    /// Its place in the tree.
    pub path: SessionPath,
    /// Its id as a file name, unique in the plan.
    pub scoped_name: String,
    /// Its number in the swarm, from 0, dense when the swarm was first applied; a standing session keeps its number.
    pub index: u32,
    /// Its number among the replicas of its table, from 0; `null` where the table has no `count`.
    pub replica: Option<u32>,
    /// Its path as one DNS label, unique in the swarm; a standing session keeps its slug.
    pub slug: Slug,
    /// The session above it.
    pub parent: Option<SessionPath>,
    /// The sessions right below it.
    pub children: Vec<SessionPath>,
    /// Where it works, relative to the workspace root.
    pub working_directory: PathBuf,
    /// Its discovery file, relative to the workspace root; `null` for a session without a directory of its own, which
    /// finds it in the state directory.
    pub discovery_file: Option<PathBuf>,
    /// What it holds.
    pub allocations: Vec<Allocation>,
    /// Its environment, but for `AGENT_DISCOVERY_FILE`.
    pub env: BTreeMap<String, String>,
    /// The sections of its prompt.
    pub prompt_sections: Vec<String>,
    /// Anything else.
    pub metadata: Map<String, Value>,
    /// Commands run in its working directory once it is provisioned.
    pub setup: Vec<CommandLine>,
    /// Commands run there before it is released.
    pub teardown: Vec<CommandLine>,
}

/// A swarm that stands already.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Standing {
    /// The plan that made it what it is.
    pub plan: Plan,
    /// What of it is gone or broken, by session and kind.
    pub broken: BTreeMap<(SessionPath, String), Damage>,
}

impl Standing {
    /// Returns an applied swarm of which nothing is gone or broken.
    pub fn new(plan: Plan) -> Self {
        Self { plan, broken: BTreeMap::new() }
    }
}

/// What is wrong with an allocation that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// What, one line.
    pub why: String,
    /// Whether it can be mended where it stands, without releasing it first.
    pub mendable: bool,
    /// Whether nobody can say what is wrong, or whether anything is: what it needs to be inspected does not answer.
    pub unknown: bool,
}

impl Damage {
    /// Returns the damage of an allocation that has to be made again, described in one line.
    pub fn new(why: String) -> Self {
        Self { why, mendable: false, unknown: false }
    }

    /// Returns whether the lease has to be made again.
    pub fn is_lost(&self) -> bool {
        !self.mendable && !self.unknown
    }
}

/// What has to be observed before this manifest can be planned, all but what [`programs`] asks.
pub fn questions(manifest: &Manifest, registry: &Registry) -> BTreeSet<Question> {
    let demands = demand::demands(manifest, registry);
    demands
        .options
        .iter()
        .filter_map(|(kind, options)| registry.get(kind).map(|provider| provider.questions(&options.all)))
        .flatten()
        .collect()
}

/// What the programs of external kinds have to be asked, once all that [`questions`] asks has been observed: their options
/// are templates of what the other kinds give.
pub fn programs(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    standing: Option<&Standing>,
) -> BTreeSet<Question> {
    programs::programs(manifest, registry, observation, standing).into_iter().collect()
}

/// Decides everything. Every fault that can be known is returned, not only the first, and of replicas one for all.
///
/// Of a manifest that is not [whole](Manifest::whole) there is no plan; the error then holds what is wrong with the rest
/// of it, and may be empty.
pub fn plan(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    standing: Option<&Standing>,
) -> Result<Plan, Diagnostics> {
    let mut plan = Plan {
        schema_version: SCHEMA_VERSION,
        swarm: manifest.swarm.clone(),
        digest: String::new(),
        standing: standing.map(|standing| standing.plan.digest.clone()),
        sessions: sessions(manifest, registry, observation, standing)?,
        changes: Vec::new(),
        again: Again::default(),
        losses: Vec::new(),
        occupants: Vec::new(),
        behind: Vec::new(),
    };
    plan.digest = plan.computed_digest();
    plan.changes = plan.changes_from(registry, standing);
    Ok(plan)
}

/// Finds what [`plan`] would, without a plan to show for it.
pub fn check(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    standing: Option<&Standing>,
) -> Result<(), Diagnostics> {
    let sessions = sessions(manifest, registry, observation, standing)?;
    // To free them takes a while, too.
    sessions.into_par_iter().for_each(drop);
    Ok(())
}

/// Everything that every session gets.
fn sessions(
    manifest: &Manifest,
    registry: &Registry,
    observation: &Observation,
    standing: Option<&Standing>,
) -> Result<Vec<Session>, Vec<Fault>> {
    // Records, discovery files and environments hold it, and are text.
    if observation.workspace.to_str().is_none() {
        let place = Place::default().key("workspace").key("root");
        let message = "the workspace's path is not UTF-8, and sessions could not be told it";
        let fault = Fault::new(rule::WORKSPACE_ROOT, place, message, "leads to it");
        return Err(vec![fault.with_help("rename the directory above it whose name is not UTF-8")]);
    }
    // This thread goes on where it is: what it has freed while the manifest was read, no other one could take.
    let mut compiled = render::Compiled::default();
    let allocated = rayon::in_place_scope(|scope| {
        scope.spawn(|_| compiled = render::compile(manifest));
        resolve::allocate(manifest, registry, observation, standing)
    });
    match render::render(manifest, registry, allocated, compiled) {
        Ok(sessions) if manifest.whole => Ok(sessions),
        rendered => Err(faults::told(rendered.err().unwrap_or_default(), manifest.whole)),
    }
}

impl Plan {
    /// The digest that this plan's content has, which is that of the JSON array of the format's version, the swarm and the
    /// sessions; another than `digest` means that the document was edited.
    pub fn computed_digest(&self) -> String {
        // A plan has no map with other keys than strings and no path that is not UTF-8, so that all of it is JSON.
        document::digest(self).unwrap_or_default()
    }

    /// Writes this document as JSON, indented, with a line feed behind it; `to` should be buffered.
    pub fn write(&self, mut to: impl Write + Send) -> io::Result<()> {
        document::write(self, &mut to)
    }

    /// Does these things again in sessions that stand.
    pub fn do_again(&mut self, again: Again, registry: &Registry, standing: Option<&Standing>) {
        self.again = again;
        self.changes = self.changes_from(registry, standing);
    }

    /// The sessions whose `setup` differs from what it was and is not run, because they stand.
    pub fn setup_not_run(&self) -> impl Iterator<Item = &SessionPath> {
        let changes = self.sessions.iter().zip(&self.changes);
        let is_left = |(session, change): &(&Session, &Change)| {
            !session.setup.is_empty() && !change.runs_setup() && change.changes_setup()
        };
        changes.filter(is_left).map(|(session, _)| &session.path)
    }

    /// What has to be done to get here from what stands.
    pub fn changes_from(&self, registry: &Registry, standing: Option<&Standing>) -> Vec<Change> {
        difference::changes(self, registry, standing)
    }

    /// A session whose names and places are not those that planning gives: a plan file is nobody's word for where
    /// things may be written.
    fn misplaced(&self, registry: &Registry) -> Option<&Session> {
        self.sessions.iter().find(|session| {
            let held =
                || session.allocations.iter().filter_map(|held| Some((registry.get(&held.kind)?, held)));
            let directory =
                held().rev().find_map(|(provider, held)| provider.context(held).working_directory);
            let named = [HashDigits::Eight, HashDigits::Sixteen]
                .map(|digits| scoped_name(&session.id, digits))
                .contains(&session.scoped_name);
            let placed = session.discovery_file == directory.as_deref().map(discovery_file)
                && session.working_directory == directory.unwrap_or_else(|| PathBuf::from("."));
            let held_well = held().all(|(provider, held)| provider.is_in_place(held, &session.scoped_name));
            session.id != session.path.id(&self.swarm) || !named || !placed || !held_well
        })
    }

    /// The session at `path`.
    pub fn session(&self, path: &SessionPath) -> Option<&Session> {
        self.sessions.iter().find(|session| session.path == *path)
    }

    /// Tells whether applying this changes anything.
    pub fn has_changes(&self) -> bool {
        self.changes.iter().any(|change| change.action != Action::Keep)
    }
}

/// Where a session that works in `directory` finds its discovery file.
fn discovery_file(directory: &Path) -> PathBuf {
    directory.join(DISCOVERY_DIRECTORY).join(DISCOVERY_FILE)
}

impl Session {
    /// Its allocation of this kind.
    pub fn allocation(&self, kind: &str) -> Option<&Allocation> {
        self.allocations.iter().find(|allocation| allocation.kind == kind)
    }
}
