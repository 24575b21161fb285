//! Observation of the host, as one value: the only input of planning beside the manifest.
//!
//! Observing changes nothing, and costs a handful of Git processes for any number of queries. Parallel processes read
//! the version, the repository, all refs with the top of their trees, and the branches if requested. Further processes
//! run only if an answer is still open: an unknown ref, a repository of an unusual format, deeper paths, or existing
//! branches that may be wanted. The same host gives the same value.
//!
//! One query runs a program of the manifest, [`Query::Program`]. The program is required to change nothing, and
//! is not run if a manifest is only checked.

mod base_age;
mod branches;
mod commits;
mod directories;
mod overlays;
mod ports;
mod programs;
mod repositories;
mod repository;
#[cfg(test)]
mod sandbox;
mod trees;
pub(crate) mod untracked;
mod workspace_file;
pub(crate) mod worktree_include;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use base_age::{Age, BaseAge, RemoteBranch, base_ages};
pub use branches::BranchNames;
pub use workspace_file::WorkspaceFile;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::host::git::checkouts::Checkout;
use crate::host::seeds::{self, Seed};
use crate::host::{
    Host, files, process,
    text::{printable, shell_quoted},
};
use crate::name::{ItemKey, PortBlock};

/// Answers `queries` about the host and the workspace, an absolute path.
///
/// Problems of the workspace's repository, refs and paths are facts in the [`Observation`], so that planning can report
/// all of them at once. An error means that the host could not be observed: then nothing is known.
pub fn observe(host: &Host, workspace: &Path, queries: &BTreeSet<Query>) -> Result<Observation, Error> {
    files::Root::open(workspace).map_err(Error::Workspace)?;

    let mut observation = Observation { workspace: workspace.to_owned(), ..Observation::default() };
    let mut requests: BTreeMap<&str, repositories::Requests<'_>> = BTreeMap::new();
    for query in queries {
        match query {
            Query::Repository { name, root } => requests.entry(name).or_default().root = Some(root),
            Query::Commit { repository, base_ref } => {
                requests.entry(repository).or_default().refs.entry(base_ref).or_default();
            }
            Query::Tree { repository, base_ref, path, required } => {
                let refs = &mut requests.entry(repository).or_default().refs;
                *refs.entry(base_ref).or_default().entry(path).or_default() |= required;
            }
            Query::Branch { repository, base_ref, names } => {
                let of_repository = requests.entry(repository).or_default();
                of_repository.refs.entry(base_ref).or_default();
                of_repository.branches.entry(base_ref).or_default().insert(names);
            }
            Query::BaseAge { repository, base_ref } => {
                requests.entry(repository).or_default().ages.insert(base_ref);
            }
            Query::Directory { path } => {
                observation.directories.insert(path.clone(), directories::observe(workspace, path));
            }
            Query::Locks { directory } => {
                let listed = directories::observe(workspace, directory);
                observation.ports_in_use.extend(ports::locks(workspace, directory, &listed));
                observation.directories.insert(directory.clone(), listed);
            }
            Query::Untracked { repository, glob } => {
                requests.entry(repository).or_default().globs.insert(glob);
            }
            Query::File { path, limit } => {
                let file = workspace_file::read(workspace, path, *limit);
                observation.files.insert((path.clone(), *limit), file);
            }
            Query::Blob { repository, base_ref, path } => {
                let of_repository = requests.entry(repository).or_default();
                of_repository.refs.entry(base_ref).or_default().entry(path).or_default();
                of_repository.blobs.insert(path);
            }
            Query::Seeds => observation.seeds = seeds::all(host),
            Query::Overlays => observation.overlays = Some(overlays::probe(host)),
            Query::Program { kind, command, timeout, request } => {
                let answer = programs::run(host, workspace, command, *timeout, request)?;
                observation.programs.get_or_insert_default().insert(kind.clone(), answer);
            }
            Query::Items => observation.items_in_use = ports::items(host).map_err(Error::Registry)?,
            Query::Ports => {
                observation.ports_in_use.extend(ports::leases(host).map_err(Error::Registry)?);
                observation.ports_in_use.extend(ports::served(host));
                observation.ephemeral = ports::ephemeral();
            }
        }
    }
    observation.ports_in_use.sort();
    observation.ports_in_use.dedup();
    observation.items_in_use.sort();
    observation.repositories = repositories::observe(host, workspace, &requests)?;
    Ok(observation)
}

/// Returns the full name of a branch, under which [`RepositoryObservation::trees`] lists paths at its tip.
pub fn branch_ref(name: &str) -> String {
    format!("refs/heads/{name}")
}

/// Reason for which the host could not be observed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The workspace is not a directory that can be opened.
    #[error("cannot use the workspace: {0}")]
    Workspace(#[source] files::Error),
    /// The host's leases cannot be read.
    #[error("cannot read the registry of leases: {0}")]
    Registry(#[source] files::Error),
    /// Git gave no answer: it was interrupted, hangs, or fails in a repository that it reported as valid.
    #[error(transparent)]
    Git(#[from] process::Error),
    /// The run was interrupted while a program was running.
    #[error(transparent)]
    Interrupted(process::Error),
    /// The repository's own files cannot be read.
    #[error("cannot read the repository: {0}")]
    Repository(#[source] files::Error),
}

/// One fact of the host that planning needs. Providers derive queries only from the manifest's options.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Query {
    /// Repository beside the workspace's own. Questions about a repository that is not the workspace's own are only
    /// answered together with this one.
    Repository {
        /// Name of the repository, not empty.
        name: String,
        /// Top of the repository's work tree, or the bare repository: relative to the workspace root, or absolute.
        root: PathBuf,
    },
    /// Commit that a ref names.
    Commit {
        /// Name of the repository; [`WORKSPACE_REPOSITORY`] for the workspace's own.
        repository: String,
        /// The ref as written in the manifest.
        base_ref: String,
    },
    /// Type of a path in the commit that a ref names; implies [`Query::Commit`].
    Tree {
        /// Name of the repository; [`WORKSPACE_REPOSITORY`] for the workspace's own.
        repository: String,
        /// The ref as written in the manifest.
        base_ref: String,
        /// Slash-separated path, relative to the root of the tree, normalised, never empty.
        path: String,
        /// `true` if the path is required. If a required path is missing, similar paths are searched, which needs a
        /// walk through every directory of the tree.
        required: bool,
    },
    /// Object id of a file in the commit that a ref names, and in the branches that contain it; implies [`Query::Tree`].
    Blob {
        /// Name of the repository; [`WORKSPACE_REPOSITORY`] for the workspace's own.
        repository: String,
        /// The ref as written in the manifest.
        base_ref: String,
        /// Slash-separated path, relative to the root of the tree, normalised, never empty.
        path: String,
    },
    /// Seeds of this host.
    Seeds,
    /// Branches of the repository, and the distance of wanted branches from a commit; implies [`Query::Commit`].
    ///
    /// Paths that are requested at the commit are also observed in the branches that contain it.
    Branch {
        /// Name of the repository; [`WORKSPACE_REPOSITORY`] for the workspace's own.
        repository: String,
        /// The ref as written in the manifest.
        base_ref: String,
        /// Names of branches that may be wanted.
        names: BranchNames,
    },
    /// Age of the branch that a ref is: the time since its commit and since its last fetch.
    BaseAge {
        /// Name of the repository; [`WORKSPACE_REPOSITORY`] for the workspace's own.
        repository: String,
        /// The ref as written in the manifest.
        base_ref: String,
    },
    /// Type of a path of the workspace and, for a directory, the names in it.
    Directory {
        /// Path relative to the workspace root, or absolute.
        path: PathBuf,
    },
    /// Ports that the lock files in a directory of the workspace reserve (`START-END.lock`, as in the reference
    /// implementation).
    Locks {
        /// Path relative to the workspace root, or absolute.
        directory: PathBuf,
    },
    /// Untracked files of the workspace that a glob matches; of another repository, those of its work tree. The glob
    /// `@worktreeinclude` matches the ignored files that the patterns of `.worktreeinclude` match.
    Untracked {
        /// Name of the repository; [`WORKSPACE_REPOSITORY`] for the workspace's own.
        repository: String,
        /// Glob relative to the workspace, or to the top of the work tree; neither absolute nor with `..`.
        glob: String,
    },
    /// Items of pools that are leased on this host.
    Items,
    /// Content of a text file of the workspace, in UTF-8 without NUL. No link is followed.
    File {
        /// Path relative to the workspace root.
        path: PathBuf,
        /// Maximum size of the file, in bytes.
        limit: usize,
    },
    /// Ports of this host that are leased or listened on.
    Ports,
    /// Support for overlays with their layers in the state directory.
    ///
    /// The test mounts one in its own directory there, and leaves nothing.
    Overlays,
    /// Answer of the program of an external kind to a request to plan. This query runs the program.
    Program {
        /// Name of the kind.
        kind: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// Limit of time, in seconds.
        timeout: u32,
        /// Standard input of the program: JSON, see [`protocol`](crate::provider::external::protocol).
        request: String,
    },
}

/// Every external fact that a plan depends on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Observation {
    /// Absolute path of the workspace root, without links.
    pub workspace: PathBuf,
    /// Ownership marker of the planned swarm, if it is already applied: its own allocations are no conflict.
    pub owner: Option<String>,
    /// Numbers of the active sessions, by id, that share the ownership marker and are not planned. Allocations of these
    /// sessions are conflicts.
    ///
    /// For a swarm, these are the children that programs have provisioned from its sessions.
    pub relatives: BTreeMap<String, u32>,
    /// Allocations of external kinds of the sessions in `relatives`, parents before their children. No other session gets
    /// the same values.
    pub relative_allocations: Vec<RelativeAllocation>,
    /// Requested facts about each repository, by its name. The workspace's own is [`WORKSPACE_REPOSITORY`].
    pub repositories: BTreeMap<String, RepositoryObservation>,
    /// For each requested path, also of lock directories, its type.
    pub directories: BTreeMap<PathBuf, Directory>,
    /// Each requested file of the workspace, by its path and the limit of its size.
    #[serde(with = "pairs")]
    #[schemars(with = "Vec<((PathBuf, usize), WorkspaceFile)>")]
    pub files: BTreeMap<(PathBuf, usize), WorkspaceFile>,
    /// Ports in use, in the order of their first port. The same block may occur more than once, each time with another
    /// owner.
    pub ports_in_use: Vec<PortsInUse>,
    /// Leased items of pools, in order. The same item may occur more than once, each time with another session.
    pub items_in_use: Vec<ItemInUse>,
    /// Complete seeds of this host; empty if not requested.
    pub seeds: Vec<Seed>,
    /// `Ok` if overlays can be mounted, else the reason, one line; `None` if not requested.
    pub overlays: Option<Result<(), String>>,
    /// Output of the program of each external kind, or the reason for which it gave no answer; `None` if no program was
    /// run. A document does not have it.
    #[serde(skip)]
    pub programs: Option<BTreeMap<String, Result<Vec<u8>, String>>>,
    /// Ports that this host gives to outgoing connections; `None` if unknown.
    pub ephemeral: Option<PortBlock>,
}

impl Observation {
    /// Returns the observation of a workspace without any other fact.
    pub fn new(workspace: PathBuf) -> Self {
        Self { workspace, ..Self::default() }
    }

    /// Returns the facts about a repository; none for one that no query was about.
    pub fn repository(&self, name: &str) -> &RepositoryObservation {
        static NOTHING: RepositoryObservation = RepositoryObservation::new();
        self.repositories.get(name).unwrap_or(&NOTHING)
    }

    /// Returns the text of a requested file, or the reason, one line, for which it cannot be used; `None` if it was not
    /// requested.
    pub fn file(&self, path: &Path, limit: usize) -> Option<Result<&str, String>> {
        let shown = printable(&path.to_string_lossy());
        Some(match self.files.get(&(path.to_owned(), limit))? {
            WorkspaceFile::Text(text) => Ok(text),
            WorkspaceFile::Missing => Err(format!("the workspace has no file `{shown}`")),
            WorkspaceFile::Unusable(why) => Err(format!("`{shown}` {why}")),
        })
    }

    /// Returns the words with which a user's command for a repository begins: `git` in the workspace's own, where the user
    /// is, and `git -C ROOT` in another.
    pub fn git_command(&self, repository: &str) -> String {
        match &self.repository(repository).repository {
            Some(Ok(found)) if repository != WORKSPACE_REPOSITORY => {
                format!("git -C {}", shell_quoted(&found.root.to_string_lossy()))
            }
            _ => "git".to_owned(),
        }
    }

    /// Returns the facts about a repository, to add some.
    pub fn repository_mut(&mut self, name: &str) -> &mut RepositoryObservation {
        self.repositories.entry(name.to_owned()).or_default()
    }
}

/// Name of the repository around the workspace in observations and queries. The names of other repositories are not
/// empty.
pub const WORKSPACE_REPOSITORY: &str = "";

/// Requested facts about one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RepositoryObservation {
    /// The repository, or the reason, one line, for which it cannot be used; `None` if no query was about it.
    pub repository: Option<Result<Repository, String>>,
    /// Commit of each requested ref; empty if there is no repository.
    pub commits: BTreeMap<String, Result<Commit, UnknownRef>>,
    /// Age of each ref whose age was requested and that is a branch.
    pub ages: BTreeMap<String, Age>,
    /// Distance of each branch from the commit of each ref, for all branches that a query about the ref covers.
    #[serde(with = "pairs")]
    #[schemars(with = "Vec<((String, String), Distance)>")]
    pub distances: BTreeMap<(String, String), Distance>,
    /// Type of each requested path at each ref; nothing for a ref that names no commit. Branches that contain a ref's
    /// commit are listed too, by [`branch_ref`].
    #[serde(with = "pairs")]
    #[schemars(with = "Vec<((String, String), TreeEntry)>")]
    pub trees: BTreeMap<(String, String), TreeEntry>,
    /// Object id of each requested file, by the commit and the path.
    #[serde(with = "pairs")]
    #[schemars(with = "Vec<((Commit, String), String)>")]
    pub blobs: BTreeMap<(Commit, String), String>,
    /// For each requested glob, the untracked files that it matches, or the reason, one line, for which they cannot be
    /// listed.
    pub untracked: BTreeMap<String, Result<Untracked, String>>,
    /// The file `.worktreeinclude` of the workspace, or of the work tree; `None` if not requested.
    pub worktree_include: Option<WorkspaceFile>,
}

impl RepositoryObservation {
    /// Returns an observation without any fact.
    pub const fn new() -> Self {
        Self {
            repository: None,
            commits: BTreeMap::new(),
            ages: BTreeMap::new(),
            distances: BTreeMap::new(),
            trees: BTreeMap::new(),
            blobs: BTreeMap::new(),
            untracked: BTreeMap::new(),
            worktree_include: None,
        }
    }
}

/// An allocation of an external kind that belongs to a session which is not planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RelativeAllocation {
    /// Id of the session.
    pub session: String,
    /// Number of the session.
    pub index: u32,
    /// Name of the kind.
    pub kind: String,
    /// Name of the resource; `None` if the resource has the name of its kind.
    pub name: Option<String>,
    /// Id of the session whose allocation is shared, with the position of the share and the number of shares; `None`
    /// for an allocation that is no share.
    pub share: Option<(String, u32, u32)>,
    /// Options with which the allocation was planned.
    pub options: Map<String, Value>,
    /// The allocation, as in the plan of its session.
    pub allocation: Map<String, Value>,
}

impl RelativeAllocation {
    /// Returns an allocation that is no share, of a session with this id and number.
    pub fn new(session: String, index: u32, kind: String, allocation: Map<String, Value>) -> Self {
        Self { session, index, kind, name: None, share: None, options: Map::new(), allocation }
    }
}

/// A repository: the one that contains the workspace, or another one that the manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Repository {
    /// Absolute path of the top of the work tree; for a bare repository, of the workspace itself.
    pub root: PathBuf,
    /// Absolute path of the common Git directory.
    pub common_dir: PathBuf,
    /// `true` if the repository has no work tree of its own.
    pub bare: bool,
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// `Ok` if a worktree can be registered by one rename. If not, `git worktree add` has to do it, and the text gives
    /// the reason.
    ///
    /// Reasons are reftable, an unknown extension, `core.sharedRepository`, and an existing `config.worktree`.
    pub registration: Result<(), String>,
    /// Value of `extensions.worktreeConfig`.
    pub worktree_config: bool,
    /// Branches, by their full names without `refs/heads/`; none if not requested.
    pub branches: BTreeMap<String, Branch>,
    /// Names of the admin directories under `worktrees` in the common Git directory.
    pub worktrees: BTreeSet<String>,
}

impl Repository {
    /// Returns a repository with a work tree, SHA-1 object ids and nothing unusual, without branches and worktrees.
    pub fn new(root: PathBuf, common_dir: PathBuf) -> Self {
        Self {
            root,
            common_dir,
            bare: false,
            object_format: "sha1".to_owned(),
            registration: Ok(()),
            worktree_config: false,
            branches: BTreeMap::new(),
            worktrees: BTreeSet::new(),
        }
    }
}

/// A branch of the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Branch {
    /// Commit that the branch names.
    pub tip: Commit,
    /// Worktrees that have the branch checked out, or will return to it after a rebase or a bisection.
    pub checkouts: Vec<Checkout>,
    /// First entry of the branch's reflog; `None` if it has none, or no query covers the branch.
    pub first_log_entry: Option<FirstLogEntry>,
}

/// The first entry of a branch's reflog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FirstLogEntry {
    /// Commit that the branch named then.
    pub commit: Commit,
    /// Message of the entry.
    pub message: String,
}

/// Distance of a branch from a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Distance {
    /// Number of commits that only the branch reaches.
    pub ahead: usize,
    /// `true` if the branch contains the commit.
    pub contains: bool,
}

/// Object id of a commit, 40 or 64 hexadecimal digits.
pub type Commit = String;

/// A ref that names no commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct UnknownRef {
    /// Git's message about the ref, one line.
    pub reason: String,
    /// Branches, tags and remote branches of the repository with a similar name, nearest first, at most three.
    pub near: Vec<String>,
}

/// Type of a path in a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum TreeEntry {
    /// The path does not exist; the field lists similar paths.
    Missing {
        /// Directories of the same commit with a similar path, nearest first, at most three; none for a path that is
        /// not required.
        near: Vec<String>,
    },
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A submodule.
    Submodule,
}

/// Untracked files of the workspace that a glob matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Untracked {
    /// Matched files; none for a glob with a wildcard.
    Files {
        /// Number of files.
        files: u64,
        /// Sum of their sizes in bytes.
        bytes: u64,
    },
    /// No files: the glob is a path that Git tracks.
    Tracked,
    /// No files: the glob is a path without an untracked file.
    Missing,
}

/// Type of a path of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Directory {
    /// The path, or a directory above it, does not exist.
    Missing,
    /// A directory, with the names in it.
    Listed(BTreeSet<String>),
    /// This component of the path, relative to the workspace or absolute as requested, is a symbolic link.
    Link(PathBuf),
    /// This component of the path is something else that is not a directory.
    NotADirectory(PathBuf),
    /// The path could not be read.
    Unreadable(String),
}

/// Ports in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PortsInUse {
    /// Ports.
    pub block: PortBlock,
    /// Owner of the ports.
    pub owner: PortOwner,
}

impl PortsInUse {
    /// Returns ports and their owner.
    pub fn new(block: PortBlock, owner: PortOwner) -> Self {
        Self { block, owner }
    }
}

/// An item of a pool that a session of this host has leased.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ItemInUse {
    /// Key of the item.
    pub key: ItemKey,
    /// Id of the session; for another user's session, only the user.
    pub session: String,
    /// Ownership marker of the session's swarm; empty for another user's session.
    pub owner: String,
}

impl ItemInUse {
    /// Returns an item, and the session that has leased it.
    pub fn new(key: ItemKey, session: String, owner: String) -> Self {
        Self { key, session, owner }
    }
}

/// Owner of a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum PortOwner {
    /// A session of some swarm of this host, according to the host-wide registry.
    Lease {
        /// Id of the session; for another user's session, only the user.
        session: String,
        /// Ownership marker of the session's swarm; empty for another user's session.
        owner: String,
    },
    /// A lock file in the lock directory of the workspace.
    LockFile {
        /// Name of the lock file.
        name: String,
        /// Session that the lock file names, if it can be read.
        session: Option<String>,
        /// Ownership marker, if seedbed wrote the lock file.
        owner: Option<String>,
    },
    /// A process that listens on the port (TCP) or is bound to it (UDP).
    Socket {
        /// `tcp` or `udp`.
        #[serde(deserialize_with = "protocol")]
        protocol: String,
    },
}

/// Reads the protocol of a socket.
fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let protocol = String::deserialize(deserializer)?;
    if ["tcp", "udp"].contains(&protocol.as_str()) {
        return Ok(protocol);
    }
    Err(serde::de::Error::custom("a protocol is `tcp` or `udp`"))
}

/// Form of a map in JSON whose keys are no strings: the list of its entries.
mod pairs {
    use super::{BTreeMap, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
