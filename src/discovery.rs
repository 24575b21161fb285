//! Context of a session: the snapshot in its discovery file, its environment, its prompt.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
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
pub use crate::plan::compose_prompt;
use crate::plan::{DISCOVERY_FILE, Damage, DamageKind, Session};
use crate::provider::placeholders::{resolve, resolve_value};
use crate::provider::{IGNORE, IGNORE_HEAD, IGNORE_MAX, Planner, Registry};
use crate::state::{LockedSwarm, Record, Swarm};

/// Complete content of the file that hides discovery files in versions that hid the whole directory.
const IGNORE_ALL: &[u8] = b"*\n";
/// Number of bytes by which the file of an earlier plan may be longer than that of this plan: each command has the path of
/// the manifest.
const LONGER_MAX: usize = 64 << 10;

/// Version of the format of discovery files.
pub const SCHEMA_VERSION: u32 = 1;

/// Allocations and context of one session: the `DiscoverySnapshot` of the reference implementation, key for key, and
/// the position in the swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("$id" = "urn:seedbed:discovery:1"))]
#[non_exhaustive]
pub struct Snapshot {
    /// Version of the format of this file, [`SCHEMA_VERSION`]; a snapshot of the reference implementation has none.
    #[serde(default = "schema_version")]
    #[schemars(extend("const" = SCHEMA_VERSION))]
    pub schema_version: u32,
    /// Id of the session: `SWARM/PATH`, or the name that the caller of the library gave.
    pub session_id: String,
    /// Absolute path of the workspace root.
    pub workspace_root: PathBuf,
    /// Absolute path of the directory in which the session works.
    pub working_directory: PathBuf,
    /// Allocations of the session, in the order of provisioning.
    pub hard_constraints: Vec<HardConstraint>,
    /// Context of the session.
    pub soft_constraints: SoftConstraints,
    /// Position of the session in its swarm; absent for a standalone session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swarm: Option<SwarmPosition>,
}

fn schema_version() -> u32 {
    SCHEMA_VERSION
}

/// One allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HardConstraint {
    /// Kind of the resource.
    pub kind: String,
    /// Name of the resource; absent if the resource has the name of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Allocated values; paths are absolute.
    pub allocation: Map<String, Value>,
}

/// Contributions of the allocations and the manifest to a session's context.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SoftConstraints {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Sections of the prompt.
    pub prompt_sections: Vec<String>,
    /// Any other values.
    pub metadata: Map<String, Value>,
}

/// Position of a session in its swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SwarmPosition {
    /// Name of the swarm.
    pub name: String,
    /// Name of the swarm in the manifest, if `seedbed run` created this one beside it; absent if the names are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_of: Option<String>,
    /// Digest of the plan that last changed this session.
    pub plan_digest: String,
    /// Path of the session in the tree.
    pub path: SessionPath,
    /// Path of the parent session; `null` for a session at the top.
    pub parent: Option<SessionPath>,
    /// Paths of the child sessions.
    pub children: Vec<SessionPath>,
    /// Number of the session in the swarm.
    pub index: u32,
    /// Absolute path of the manifest; absent if a program has applied the swarm without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Absolute path of the directory with the records of the swarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_directory: Option<PathBuf>,
    /// Commands that the reader of the file may run, by name: the program and its arguments. `spawn` and `release` add a
    /// session below this one and release it; their last argument, a name, is to be added. The others change nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<String, Vec<String>>,
    /// Reason for which `setup` of the session has not succeeded, after a failed `apply --keep-failed`; absent if the
    /// setup succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
}

/// Returns the snapshot of a session of a record in the workspace at `workspace`. `state` is the state directory.
pub fn snapshot(
    record: &Record,
    session: &Session,
    registry: &Registry,
    workspace: &Path,
    state: &Path,
) -> Snapshot {
    let plan = &record.plan;
    let instance = record.instance_of.as_ref().map(|_| plan.swarm.as_str());
    let manifest = record.manifest.as_ref().map(|manifest| absolute(workspace, manifest));
    let requested = session.allocations.iter().filter(|allocation| !registry.is_implied(&allocation.kind));
    let hard_constraints = requested.map(|allocation| {
        let paths = registry.get(&allocation.kind).map(Planner::path_fields).unwrap_or_default();
        let fields = allocation.allocation.iter().map(|(key, value)| {
            let path = value.as_str().filter(|_| paths.contains(&key.as_str()));
            let value = match path {
                Some(path) => Value::from(absolute(workspace, Path::new(path)).to_string_lossy()),
                None => resolve_value(value, workspace),
            };
            (key.clone(), value)
        });
        let (kind, name) = (allocation.kind.clone(), allocation.name.clone());
        HardConstraint { kind, name, allocation: fields.collect() }
    });
    Snapshot {
        schema_version: SCHEMA_VERSION,
        session_id: session.id.clone(),
        workspace_root: workspace.to_owned(),
        working_directory: absolute(workspace, &session.working_directory),
        hard_constraints: hard_constraints.collect(),
        soft_constraints: SoftConstraints {
            env: session.env.iter().map(|(name, value)| (name.clone(), resolve(value, workspace))).collect(),
            prompt_sections: session.prompt_sections.iter().map(|text| resolve(text, workspace)).collect(),
            metadata: session
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), resolve_value(value, workspace)))
                .collect(),
        },
        swarm: (!plan.swarm.is_empty()).then(|| SwarmPosition {
            name: plan.swarm.clone(),
            instance_of: record.instance_of.clone(),
            plan_digest: plan.digest.clone(),
            path: session.path.clone(),
            parent: session.parent.clone(),
            children: session.children.clone(),
            index: session.index,
            setup: record.not_set_up.get(&session.path).map(|it| it.why.clone()),
            state_directory: Some(state.to_owned()),
            commands: commands(manifest.as_deref(), instance, &session.path),
            manifest,
        }),
    }
}

/// Returns the commands that inspect a session and its swarm, or add sessions below it, by name. Without a manifest, there
/// are none. `instance` is the name of a swarm that differs from the one in the manifest.
fn commands(
    manifest: Option<&Path>,
    instance: Option<&str>,
    session: &SessionPath,
) -> BTreeMap<String, Vec<String>> {
    let Some(manifest) = manifest else { return BTreeMap::new() };
    let (manifest, path) = (manifest.to_string_lossy(), session.as_str());
    let commands: [(&str, &[&str]); 8] = [
        ("collect", &["collect", path, "--json"]),
        ("explain", &["explain", path, "--json"]),
        ("logs", &["logs", path]),
        ("prompt", &["prompt", path, "--json"]),
        ("release", &["release"]),
        ("spawn", &["spawn", "--json", "--parent", path]),
        ("status", &["status", "--json"]),
        ("whoami", &["whoami", "--json"]),
    ];
    let command = |(name, words): (&str, &[&str])| {
        let chosen = instance.into_iter().flat_map(|name| ["--swarm", name]);
        let words = ["seedbed", "-f", &manifest].into_iter().chain(chosen).chain(words.iter().copied());
        (name.to_owned(), words.map(str::to_owned).collect())
    };
    commands.into_iter().map(command).collect()
}

impl Snapshot {
    /// Returns the bytes of the discovery file: indented JSON and a line feed, as in the reference implementation.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Returns the first allocation of this kind.
    pub fn allocation(&self, kind: &str) -> Option<&Map<String, Value>> {
        self.hard_constraints
            .iter()
            .find(|constraint| constraint.kind == kind)
            .map(|constraint| &constraint.allocation)
    }
}

/// Returns the absolute path of a session's discovery file.
pub fn file(swarm: &Swarm<'_>, session: &Session) -> PathBuf {
    match &session.discovery_file {
        Some(path) => absolute(swarm.workspace(), path),
        None => swarm.discovery_file(&session.scoped_name),
    }
}

/// Returns the absolute directory of a session, or the reason for which nothing can be run there.
///
/// An agent may have removed the directory, or replaced it with a link: a command would then work somewhere else.
pub fn directory(swarm: &Swarm<'_>, session: &Session) -> Result<PathBuf, String> {
    let directory = absolute(swarm.workspace(), &session.working_directory);
    let opened = Root::toward(swarm.workspace(), &directory).and_then(|(root, below)| root.directory(&below));
    match opened {
        Ok(Some(_)) => Ok(directory),
        Ok(None) => Err(format!("there is no directory {}", printable(&directory.to_string_lossy()))),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns all variables that a session adds to its caller's environment.
pub fn environment(swarm: &Swarm<'_>, session: &Session) -> BTreeMap<String, String> {
    let mut env: BTreeMap<_, _> =
        session.env.iter().map(|(name, value)| (name.clone(), resolve(value, swarm.workspace()))).collect();
    env.insert("AGENT_DISCOVERY_FILE".to_owned(), file(swarm, session).to_string_lossy().into_owned());
    env
}

/// Returns the environment of a session's commands in its directory: the caller's, without the variables that bind Git
/// to another repository, then the session's variables, which take precedence.
pub fn command_environment(
    swarm: &Swarm<'_>,
    session: &Session,
    directory: &Path,
) -> impl Iterator<Item = (OsString, OsString)> {
    let own = environment(swarm, session);
    let own = own.into_iter().map(|(name, value)| (name.into(), value.into()));
    swarm.host().environment_in(directory).chain(own)
}

/// Returns a command of a session as a program and its arguments, with the workspace root filled in.
pub fn command(command: &CommandLine, workspace: &Path) -> Vec<String> {
    match command {
        CommandLine::Arguments(arguments) => {
            arguments.iter().map(|argument| resolve(argument, workspace)).collect()
        }
        CommandLine::Shell(line) => vec!["sh".to_owned(), "-c".to_owned(), resolve(line, workspace)],
    }
}

/// Writes a session's discovery file: the canonical copy, then the one that the session finds, each in one step. The
/// latter is not written if the directory of the session does not exist.
pub fn write(
    swarm: &LockedSwarm<'_>,
    session: &Session,
    snapshot: &Snapshot,
) -> Result<(), crate::state::Error> {
    let bytes = snapshot.to_bytes();
    swarm.write_discovery(&session.scoped_name, &bytes)?;
    crashpoint!("discovery.kept");
    if let Some(path) = &session.discovery_file {
        let (root, directory) = Root::toward(swarm.workspace(), &session.working_directory)?;
        // A discovery file alone in a lost worktree would make its repair look like a loss of all other files.
        if root.directory(&directory)?.is_some() {
            write_in(swarm.workspace(), path, &bytes)?;
        }
    }
    Ok(())
}

/// Writes a discovery file at `path`, in the workspace or relative to it, and hides it from Git.
///
/// No component below the workspace may be a link.
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

/// Removes the discovery file that [`write`] has written at `path`, with the directory that it is alone in.
pub(crate) fn remove(workspace: &Path, path: &Path) -> Result<(), files::Error> {
    let (root, path) = Root::toward(workspace, path)?;
    let Some(directory) = path.parent().map(|above| root.directory(above)).transpose()?.flatten() else {
        return Ok(());
    };
    // Without the file that hides it, the discovery file may be another program's.
    if directory.read(Path::new(IGNORE), IGNORE_MAX)?.as_deref() != Some(&hiding(OsStr::new(DISCOVERY_FILE)))
    {
        return Ok(());
    }
    directory.remove_file(Path::new(DISCOVERY_FILE))?;
    if directory.names()?.iter().eq([IGNORE]) {
        directory.remove_file(Path::new(IGNORE))?;
        root.remove_directory(path.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

/// Hides a discovery file from Git. Other discovery files in the same directory stay hidden.
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

/// Returns whether a directory is empty, or one that [`write_in`] wrote to.
pub(crate) fn is_own_directory(directory: &Root) -> Result<bool, files::Error> {
    let found = directory.read(Path::new(IGNORE), IGNORE_MAX).ok().flatten().unwrap_or_default();
    let is_own = found == IGNORE_ALL || found.starts_with(IGNORE_HEAD.as_bytes());
    Ok(is_own || directory.names()?.is_empty())
}

/// Restores a session's discovery file, and the file that hides it from Git, from the canonical copy.
///
/// If the copy is missing or has other values, restores them from `expected`.
pub fn restore(
    swarm: &LockedSwarm<'_>,
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

/// Returns the damage of a session's discovery file, or of the file that hides it from Git; `None` if there is none.
pub fn inspect(swarm: &Swarm<'_>, session: &Session, expected: &Snapshot) -> Option<Damage> {
    let path = session.discovery_file.clone().unwrap_or_else(|| swarm.discovery_file(&session.scoped_name));
    let read = |path: &Path, limit| {
        Root::toward(swarm.workspace(), path).and_then(|(root, path)| root.read(&path, limit))
    };
    let damage = |why: String| Damage::new(DamageKind::Repairable, why);
    let wanted = expected.to_bytes();
    let mut is_older = false;
    let mut is_right = |found: &[u8]| {
        let is_same = found == wanted || is_of_an_earlier_plan(found, expected);
        is_older = !is_same && is_of_older_format(found, expected);
        is_same || is_older
    };
    let fault = |name: &str,
                 read: Result<Option<Vec<u8>>, files::Error>,
                 is_right: &mut dyn FnMut(&[u8]) -> bool| match read {
        Ok(Some(found)) if is_right(&found) => None,
        Ok(Some(_)) | Err(files::Error::TooLarge { .. }) => Some(format!("{name} is not what was written")),
        Ok(None) => Some(format!("{name} does not exist")),
        Err(error) => Some(error.to_string()),
    };
    let of_file = fault(DISCOVERY_FILE, read(&path, wanted.len() + LONGER_MAX), &mut is_right);
    let of_gitignore = || {
        let ignore = session.discovery_file.as_ref()?.with_file_name(IGNORE);
        fault(&format!("{IGNORE} beside {DISCOVERY_FILE}"), read(&ignore, IGNORE_MAX), &mut |found| {
            found == hiding(OsStr::new(DISCOVERY_FILE)) || is_older && found == IGNORE_ALL
        })
    };
    // An older format is no reason to hide damage.
    of_file.or_else(of_gitignore).map(damage).or_else(|| {
        let why = format!("{DISCOVERY_FILE} has an older format; `seedbed apply` rewrites it");
        is_older.then(|| Damage::new(DamageKind::Older, why))
    })
}

/// Returns whether bytes are a discovery file with the values of `expected` that an earlier version of seedbed wrote:
/// without the version of the format.
fn is_of_older_format(found: &[u8], expected: &Snapshot) -> bool {
    let is_older =
        serde_json::from_slice::<Value>(found).is_ok_and(|found| found.get("schemaVersion").is_none());
    let read = || serde_json::from_slice::<Snapshot>(found).ok();
    is_older && read().is_some_and(|snapshot| is_told_by(&snapshot.to_bytes(), expected))
}

/// Returns whether bytes are a discovery file with the values of `expected`.
fn is_told_by(found: &[u8], expected: &Snapshot) -> bool {
    found == expected.to_bytes() || is_of_an_earlier_plan(found, expected)
}

/// Returns whether bytes are the file of an earlier plan: a session that a plan keeps keeps its file, which names the
/// plan that last changed it, and the manifest of that plan.
fn is_of_an_earlier_plan(found: &[u8], expected: &Snapshot) -> bool {
    let earlier = serde_json::from_slice::<Snapshot>(found).ok().and_then(|snapshot| snapshot.swarm);
    let mut expected = expected.clone();
    if let (Some(place), Some(earlier)) = (&mut expected.swarm, earlier) {
        place.plan_digest = earlier.plan_digest;
        let instance = place.instance_of.as_ref().map(|_| place.name.as_str());
        place.commands = commands(earlier.manifest.as_deref(), instance, &place.path);
        place.manifest = earlier.manifest;
    }
    expected.to_bytes() == found
}
