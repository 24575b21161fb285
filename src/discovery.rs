//! What a session is told: the snapshot in its discovery file, its environment, its prompt.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::host::absolute;
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::host::text::printable;
use crate::manifest::CommandLine;
use crate::name::SessionPath;
use crate::plan::{DISCOVERY_FILE, Session};
use crate::provider::markers::{filled, filled_value};
use crate::provider::{Planner, Registry};
use crate::state::{Locked, Record, Swarm};

/// Hides a discovery file from git, and nothing beside it: the notes of an agent are work like any other file.
const IGNORE: &str = ".gitignore";

/// The beginning of that file. It hides the file itself, and what a killed process left half-written; each discovery file
/// in the directory has a line of its own below.
const IGNORE_HEAD: &str =
    "# written by seedbed: hides its own files, and no others\n/.gitignore\n/.*.seedbed-*\n";

/// The whole of that file as versions wrote it that hid the directory.
const IGNORE_ALL: &[u8] = b"*\n";

/// The most that is read of that file, in bytes.
const IGNORE_MAX: usize = 4096;

/// Version of the discovery file's format.
pub const SCHEMA_VERSION: u32 = 1;

/// What one session owns: the seed's `DiscoverySnapshot`, key for key, and its place in the swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:discovery:1"))]
#[non_exhaustive]
pub struct Snapshot {
    /// Version of this file's format, [`SCHEMA_VERSION`]; a snapshot of the reference implementation has none.
    #[serde(default = "schema_version")]
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// `SWARM/PATH`, or what the caller of the library named it.
    pub session_id: String,
    /// The workspace root, absolute.
    pub workspace_root: PathBuf,
    /// Where the session works, absolute.
    pub working_directory: PathBuf,
    /// What it holds, in the order it was provisioned.
    pub hard_constraints: Vec<HardConstraint>,
    /// What it is told.
    pub soft_constraints: SoftConstraints,
    /// Its place in its swarm; absent for a session that was provisioned on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swarm: Option<Place>,
}

fn schema_version() -> u32 {
    SCHEMA_VERSION
}

/// One allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HardConstraint {
    /// The kind of the resource.
    pub kind: String,
    /// What was allocated; paths are absolute.
    pub allocation: Map<String, Value>,
}

/// What the allocations and the manifest contribute to a session's context.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SoftConstraints {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Sections of the prompt.
    pub prompt_sections: Vec<String>,
    /// Anything else.
    pub metadata: Map<String, Value>,
}

/// A session's place in its swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Place {
    /// The swarm's name.
    pub name: String,
    /// The digest of the plan that last changed this session.
    pub plan_digest: String,
    /// The session's path in the tree.
    pub path: SessionPath,
    /// The session above it.
    pub parent: Option<SessionPath>,
    /// The sessions right below it.
    pub children: Vec<SessionPath>,
    /// Its number in the swarm.
    pub index: u32,
    /// Why its `setup` has not succeeded, where a failed `apply --keep-failed` left it; absent where it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
}

/// The snapshot of a session of a record in the workspace at `workspace`.
pub fn snapshot(record: &Record, session: &Session, registry: &Registry, workspace: &Path) -> Snapshot {
    let plan = &record.plan;
    let hard_constraints = session.allocations.iter().map(|allocation| {
        let paths = registry.get(&allocation.kind).map(Planner::path_fields).unwrap_or_default();
        let fields = allocation.allocation.iter().map(|(key, value)| {
            let path = value.as_str().filter(|_| paths.contains(&key.as_str()));
            let value = match path {
                Some(path) => Value::from(absolute(workspace, Path::new(path)).to_string_lossy()),
                None => filled_value(value, workspace),
            };
            (key.clone(), value)
        });
        HardConstraint { kind: allocation.kind.clone(), allocation: fields.collect() }
    });
    Snapshot {
        schema_version: SCHEMA_VERSION,
        session_id: session.id.clone(),
        workspace_root: workspace.to_owned(),
        working_directory: absolute(workspace, &session.working_directory),
        hard_constraints: hard_constraints.collect(),
        soft_constraints: SoftConstraints {
            env: session.env.iter().map(|(name, value)| (name.clone(), filled(value, workspace))).collect(),
            prompt_sections: session.prompt_sections.iter().map(|text| filled(text, workspace)).collect(),
            metadata: session
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), filled_value(value, workspace)))
                .collect(),
        },
        swarm: (!plan.swarm.is_empty()).then(|| Place {
            name: plan.swarm.clone(),
            plan_digest: plan.digest.clone(),
            path: session.path.clone(),
            parent: session.parent.clone(),
            children: session.children.clone(),
            index: session.index,
            setup: record.not_set_up.get(&session.path).map(|it| it.why.clone()),
        }),
    }
}

impl Snapshot {
    /// The bytes of the discovery file: indented JSON and a line feed, as the seed writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The allocation of this kind.
    pub fn allocation(&self, kind: &str) -> Option<&Map<String, Value>> {
        self.hard_constraints.iter().find(|held| held.kind == kind).map(|held| &held.allocation)
    }
}

/// The prompt with the sections before it: the seed's `composePrompt`, word for word.
pub fn compose_prompt<'s>(sections: impl IntoIterator<Item = &'s str>, prompt: &str) -> String {
    let mut lines = vec!["Runtime resource constraints are already enforced by the orchestrator:".to_owned()];
    lines.extend(sections.into_iter().map(|section| format!("- {section}")));
    if lines.len() == 1 {
        return prompt.to_owned();
    }
    lines.extend([String::new(), prompt.to_owned()]);
    lines.join("\n")
}

/// Where a session's discovery file lies, absolute.
pub fn file(swarm: &Swarm<'_>, session: &Session) -> PathBuf {
    match &session.discovery_file {
        Some(path) => absolute(swarm.workspace(), path),
        None => swarm.discovery_file(&session.scoped_name),
    }
}

/// Where a session works, absolute; or why nothing can be run there. Whoever worked there may have taken the directory
/// away, or put a link in its place: what a command would do there, it would do somewhere else.
pub fn directory(swarm: &Swarm<'_>, session: &Session) -> Result<PathBuf, String> {
    let directory = absolute(swarm.workspace(), &session.working_directory);
    let opened = Root::toward(swarm.workspace(), &directory).and_then(|(root, below)| root.directory(&below));
    match opened {
        Ok(Some(_)) => Ok(directory),
        Ok(None) => Err(format!("there is no directory {}", printable(&directory.to_string_lossy()))),
        Err(error) => Err(error.to_string()),
    }
}

/// The whole environment that a session adds to its caller's.
pub fn environment(swarm: &Swarm<'_>, session: &Session) -> BTreeMap<String, String> {
    let mut env: BTreeMap<_, _> =
        session.env.iter().map(|(name, value)| (name.clone(), filled(value, swarm.workspace()))).collect();
    env.insert("AGENT_DISCOVERY_FILE".to_owned(), file(swarm, session).to_string_lossy().into_owned());
    env
}

/// A command of a session with the workspace root filled in, as a program and its arguments.
pub fn command(command: &CommandLine, workspace: &Path) -> Vec<String> {
    match command {
        CommandLine::Arguments(arguments) => {
            arguments.iter().map(|argument| filled(argument, workspace)).collect()
        }
        CommandLine::Shell(line) => vec!["sh".to_owned(), "-c".to_owned(), filled(line, workspace)],
    }
}

/// Writes a session's discovery file: the canonical copy, then the one that the session finds, each in one step.
pub fn write(swarm: &Locked<'_>, session: &Session, snapshot: &Snapshot) -> Result<(), crate::state::Error> {
    let bytes = snapshot.to_bytes();
    swarm.write_discovery(&session.scoped_name, &bytes)?;
    crashpoint!("discovery.kept");
    if let Some(path) = &session.discovery_file {
        write_in(swarm.workspace(), path, &bytes)?;
    }
    Ok(())
}

/// Writes a discovery file at `path`, in the workspace or relative to it, and hides it from git. No component
/// below the workspace may be a link.
pub(crate) fn write_in(workspace: &Path, path: &Path, bytes: &[u8]) -> Result<(), files::Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(files::Error::Outside { path: path.to_owned() });
    };
    let (root, directory) = Root::toward(workspace, directory)?;
    let directory = root.create_directories(&directory)?;
    hide(&directory, name)?;
    crashpoint!("discovery.hidden");
    directory.replace(Path::new(name), bytes)
}

/// Hides a discovery file from git. Others that were written to the same directory stay hidden.
fn hide(directory: &Root, name: &OsStr) -> Result<(), files::Error> {
    let ignore = Path::new(IGNORE);
    let found = directory.read(ignore, IGNORE_MAX).ok().flatten().unwrap_or_default();
    let wanted = hiding(name);
    let line = &wanted[IGNORE_HEAD.len()..];
    let is_shared = name != DISCOVERY_FILE && found.starts_with(IGNORE_HEAD.as_bytes());
    if found == wanted || is_shared && found.split_inclusive(|byte| *byte == b'\n').any(|it| it == line) {
        return Ok(());
    }
    let content = if is_shared { [found.as_slice(), line].concat() } else { wanted };
    directory.replace(ignore, &content)
}

/// Returns the content of a `.gitignore` that hides one discovery file, and itself.
pub(crate) fn hiding(name: &OsStr) -> Vec<u8> {
    let mut content = format!("{IGNORE_HEAD}/").into_bytes();
    for byte in name.as_bytes() {
        if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'-' | b'_') {
            content.push(b'\\');
        }
        content.push(*byte);
    }
    content.push(b'\n');
    content
}

/// Tells whether a directory is empty, or one that [`write_in`] wrote to.
pub(crate) fn is_own_directory(directory: &Root) -> Result<bool, files::Error> {
    let found = directory.read(Path::new(IGNORE), IGNORE_MAX).ok().flatten().unwrap_or_default();
    let is_own = found == IGNORE_ALL || found.starts_with(IGNORE_HEAD.as_bytes());
    Ok(is_own || directory.names()?.is_empty())
}

/// Puts a session's discovery file back, and what hides it from git, from the canonical copy; where that is gone too, or
/// tells something else, from `expected`.
pub fn restore(
    swarm: &Locked<'_>,
    session: &Session,
    expected: &Snapshot,
) -> Result<(), crate::state::Error> {
    let canonical = swarm.discovery(&session.scoped_name).ok().flatten();
    match (canonical, &session.discovery_file) {
        (Some(bytes), Some(path)) if is_told_by(&bytes, expected) => {
            Ok(write_in(swarm.workspace(), path, &bytes)?)
        }
        _ => write(swarm, session, expected),
    }
}

/// What is wrong with a session's discovery file, or with what hides it from git; `None` where nothing is.
pub fn inspect(swarm: &Swarm<'_>, session: &Session, expected: &Snapshot) -> Option<String> {
    let path = session.discovery_file.clone().unwrap_or_else(|| swarm.discovery_file(&session.scoped_name));
    let read = |path: &Path, limit| {
        Root::toward(swarm.workspace(), path).and_then(|(root, path)| root.read(&path, limit))
    };
    let fault = |name: &str,
                 read: Result<Option<Vec<u8>>, files::Error>,
                 is_right: &dyn Fn(&[u8]) -> bool| match read {
        Ok(Some(found)) if is_right(&found) => None,
        Ok(Some(_)) | Err(files::Error::TooLarge { .. }) => Some(format!("{name} is not what was written")),
        Ok(None) => Some(format!("{name} is gone")),
        Err(error) => Some(error.to_string()),
    };
    let limit = expected.to_bytes().len() + 1;
    let of_file = fault(DISCOVERY_FILE, read(&path, limit), &|found| is_told_by(found, expected));
    let of_gitignore = || {
        let ignore = session.discovery_file.as_ref()?.with_file_name(IGNORE);
        fault(&format!("{IGNORE} beside {DISCOVERY_FILE}"), read(&ignore, IGNORE_MAX), &|found| {
            found == hiding(OsStr::new(DISCOVERY_FILE))
        })
    };
    of_file.or_else(of_gitignore)
}

/// Tells whether bytes are a discovery file that says what `expected` does.
fn is_told_by(found: &[u8], expected: &Snapshot) -> bool {
    found == expected.to_bytes() || is_of_an_earlier_plan(found, expected)
}

/// A session that a plan keeps keeps its file, which names the plan that last changed it.
fn is_of_an_earlier_plan(found: &[u8], expected: &Snapshot) -> bool {
    let earlier = serde_json::from_slice::<Snapshot>(found).ok().and_then(|snapshot| snapshot.swarm);
    let mut expected = expected.clone();
    if let (Some(place), Some(earlier)) = (&mut expected.swarm, earlier) {
        place.plan_digest = earlier.plan_digest;
    }
    expected.to_bytes() == found
}
