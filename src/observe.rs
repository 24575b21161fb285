//! What the host looks like, as one value: the only thing beside the manifest that planning sees.
//!
//! Looking changes nothing, and costs a handful of git processes however much is asked: side by side one for its version,
//! one for the repository, one for all refs with the top of their trees, and one for the branches where somebody asks
//! for them. Others follow only where these leave something open: a ref that is unknown, a repository that is not of the
//! plainest format, paths that lie deeper, branches that exist and may be wanted. The same host gives the same value.
//!
//! One question has a program of the manifest run, [`Question::Program`]: it is told to change nothing, and is not asked
//! where a manifest is only checked.

mod branches;
mod commits;
mod directories;
mod overlays;
mod ports;
mod programs;
mod repository;
#[cfg(test)]
mod sandbox;
mod trees;
pub(crate) mod untracked;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;

pub use branches::Names;

use serde_json::{Map, Value};

use crate::host::git::checkouts::Checkout;
use crate::host::{Host, files, git, process};
use crate::name::PortBlock;

/// Answers `questions` about the host and the workspace, an absolute path.
///
/// What is wrong with the workspace's repository, its refs and its paths is a fact like any other and part of the
/// [`Observation`], so that planning can report all of it at once. An error means that the host could not be looked
/// at: then nothing is known.
pub fn observe(host: &Host, workspace: &Path, questions: &BTreeSet<Question>) -> Result<Observation, Error> {
    files::Root::open(workspace).map_err(Error::Workspace)?;

    let mut observation = Observation { workspace: workspace.to_owned(), ..Observation::default() };
    let mut asked = Asked::default();
    for question in questions {
        match question {
            Question::Commit { base_ref } => {
                asked.refs.entry(base_ref).or_default();
            }
            Question::Tree { base_ref, path, wanted } => {
                *asked.refs.entry(base_ref).or_default().entry(path).or_default() |= wanted;
            }
            Question::Branch { base_ref, names } => {
                asked.refs.entry(base_ref).or_default();
                asked.branches.entry(base_ref).or_default().insert(names);
            }
            Question::Directory { path } => {
                observation.directories.insert(path.clone(), directories::look(workspace, path));
            }
            Question::Locks { directory } => {
                let listed = directories::look(workspace, directory);
                observation.taken.extend(ports::locks(workspace, directory, &listed));
                observation.directories.insert(directory.clone(), listed);
            }
            Question::Untracked { glob } => {
                asked.globs.insert(glob);
            }
            Question::Overlays => observation.overlays = Some(overlays::look(host)),
            Question::Program { kind, command, timeout, request } => {
                let answer = programs::ask(host, workspace, command, *timeout, request)?;
                observation.programs.get_or_insert_default().insert(kind.clone(), answer);
            }
            Question::Ports => {
                observation.taken.extend(ports::leases(host).map_err(Error::Registry)?);
                observation.taken.extend(ports::served(host));
                observation.ephemeral = ports::ephemeral();
            }
        }
    }
    observation.taken.sort();
    observation.taken.dedup();
    if !asked.refs.is_empty() || !asked.globs.is_empty() {
        look_at_repository(host, workspace, &asked, &mut observation)?;
    }
    Ok(observation)
}

/// What is asked about the repository.
#[derive(Debug, Default)]
struct Asked<'q> {
    /// For each ref, the names of the branches that are to begin there.
    branches: BTreeMap<&'q str, BTreeSet<&'q Names>>,
    /// For each ref, the paths of its tree, and whether they are wanted there.
    refs: BTreeMap<&'q str, BTreeMap<&'q str, bool>>,
    /// Globs of untracked files.
    globs: BTreeSet<&'q String>,
}

/// None of the first answers needs another, and git takes longer to start than to give one: they are asked for side by
/// side, in vain where there is no repository.
fn look_at_repository(
    host: &Host,
    workspace: &Path,
    asked: &Asked<'_>,
    observation: &mut Observation,
) -> Result<(), Error> {
    let git = &git::Git::around(host, workspace);
    let early = &git.clone().of_any_version();
    let (place, branches, resolved, is_shared) = thread::scope(|scope| {
        let version = scope.spawn(|| git::version::require(host));
        let branches = (!asked.branches.is_empty()).then(|| scope.spawn(|| branches::tips(early)));
        let resolved = scope.spawn(|| commits::resolve(early, asked.refs.keys().copied()));
        let is_shared = scope.spawn(|| repository::is_shared(early));
        let place = repository::locate(early, workspace, || joined(version.join()));
        (place, branches.map(thread::ScopedJoinHandle::join), resolved.join(), is_shared.join())
    });
    let place = match place? {
        Ok(place) => place,
        Err(why) => {
            observation.repository = Some(Err(why));
            return Ok(());
        }
    };
    let tips = branches.map(joined).transpose()?;
    let settings = repository::settings(git, &place)?;
    let commits::Resolved { commits, tops } = joined(resolved)?;
    observation.trees = trees::look(git, &commits, &tops, &asked.refs)?;
    if !asked.globs.is_empty() {
        observation.untracked = untracked::look(git, workspace, &asked.globs)?;
    }
    let mut branches = BTreeMap::new();
    if let Some(tips) = tips {
        let looked = branches::look(git, &place, &commits, tips, &asked.branches)?;
        (branches, observation.apart) = (looked.branches, looked.apart);
        look_into_branches(git, asked, &branches, observation)?;
    }
    observation.repository = Some(Ok(place.repository(&settings, joined(is_shared)?, branches)?));
    observation.commits = commits;
    Ok(())
}

/// Looks the paths that are asked about at a ref up in the branches that a session may go on with there.
fn look_into_branches(
    git: &git::Git<'_>,
    asked: &Asked<'_>,
    branches: &BTreeMap<String, Branch>,
    observation: &mut Observation,
) -> Result<(), Error> {
    let mut tips = BTreeMap::new();
    let mut paths: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    for ((base_ref, name), apart) in &observation.apart {
        let (Some(branch), Some(asked)) = (branches.get(name), asked.refs.get(base_ref.as_str())) else {
            continue;
        };
        // At the very commit it was looked at already.
        if apart.contains && apart.ahead > 0 {
            let full = branch_ref(name);
            tips.insert(full.clone(), Ok(branch.tip.clone()));
            paths.entry(full).or_default().extend(asked);
        }
    }
    let paths = paths.iter().map(|(name, paths)| (name.as_str(), paths.clone())).collect();
    let trees = trees::look(git, &tips, &BTreeMap::new(), &paths)?;
    observation.trees.extend(trees);
    Ok(())
}

/// The full name of a branch, under which [`Observation::trees`] has what is in its tip.
pub fn branch_ref(name: &str) -> String {
    format!("refs/heads/{name}")
}

/// What a thread returned; its panic goes on in this one.
fn joined<T>(ended: thread::Result<T>) -> T {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Why the host could not be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The workspace is not a directory that can be opened.
    #[error("cannot use the workspace: {0}")]
    Workspace(#[source] files::Error),
    /// The host's port leases cannot be read.
    #[error("cannot read the port registry: {0}")]
    Registry(#[source] files::Error),
    /// git gave no answer: it was interrupted, hangs, or fails in a repository that it said was sound.
    #[error(transparent)]
    Git(#[from] process::Error),
    /// The run was interrupted while a program was asked.
    #[error(transparent)]
    Interrupted(process::Error),
    /// The repository's own files cannot be read.
    #[error("cannot read the repository: {0}")]
    Repository(#[source] files::Error),
}

/// One thing that planning needs to know of the host; providers derive them from the manifest's options alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Question {
    /// Which commit a ref names.
    Commit {
        /// The ref as the manifest writes it.
        base_ref: String,
    },
    /// What a path is in the commit that a ref names; implies [`Question::Commit`].
    Tree {
        /// The ref as the manifest writes it.
        base_ref: String,
        /// Slash-separated, relative to the root of the tree, normalised, never empty.
        path: String,
        /// Whether it should be there: then near misses are looked for where it is not, which takes a walk through
        /// every directory of the tree.
        wanted: bool,
    },
    /// Which branches the repository has, and how far those that may be wanted at a commit are from it; implies
    /// [`Question::Commit`]. Paths that are asked about at the commit are looked up in those that contain it too.
    Branch {
        /// The ref as the manifest writes it.
        base_ref: String,
        /// The names that may be wanted.
        names: Names,
    },
    /// What lies at a path of the workspace and, where it is a directory, which names are in it.
    Directory {
        /// Relative to the workspace root, or absolute.
        path: PathBuf,
    },
    /// Which ports the lock files in a directory of the workspace hold (the seed's `START-END.lock`).
    Locks {
        /// Relative to the workspace root, or absolute.
        directory: PathBuf,
    },
    /// Untracked files of the workspace that a glob matches.
    Untracked {
        /// The glob, relative to the workspace; neither absolute nor with `..`.
        glob: String,
    },
    /// Which ports of this host are leased or listened on.
    Ports,
    /// Whether overlays can be mounted with their layers in the state directory; finds out by mounting one in a
    /// directory of its own there, and leaves nothing.
    Overlays,
    /// What the program of an external kind answers when it is asked to plan. Looking at this one runs the program.
    Program {
        /// The kind.
        kind: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// How long it may take, in seconds.
        timeout: u32,
        /// What it reads on its standard input: JSON, see [`protocol`](crate::provider::external::protocol).
        request: String,
    },
}

/// Every outside fact that a plan depends on.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Observation {
    /// The workspace root, absolute, without links.
    pub workspace: PathBuf,
    /// The ownership mark of the swarm that is planned, where it stands already: what it holds is not in its way.
    pub owner: Option<String>,
    /// The living sessions that share the ownership mark and are not what is planned, by id, each with its number: for a
    /// swarm the children that programs have provisioned from its sessions. What they hold is in its way.
    pub family: BTreeMap<String, u32>,
    /// What those sessions hold of external kinds, parents before their children. No other session is given the same.
    pub held: Vec<Held>,
    /// The repository around the workspace; `None` where no question was about one.
    pub repository: Option<Result<Repository, String>>,
    /// For each ref asked about, its commit; empty where there is no repository.
    pub commits: BTreeMap<String, Result<Commit, UnknownRef>>,
    /// For each ref and each branch that a question covers there, how far the branch is from the ref's commit.
    pub apart: BTreeMap<(String, String), Apart>,
    /// For each ref and path asked about, what is there; a ref that names no commit has none. Branches that contain a
    /// ref's commit stand here too, by [`branch_ref`].
    pub trees: BTreeMap<(String, String), TreeEntry>,
    /// For each glob asked about, the untracked files of the workspace that it matches, else why they cannot be listed, one
    /// line.
    pub untracked: BTreeMap<String, Result<Untracked, String>>,
    /// For each path asked about, lock directories too, what is there.
    pub directories: BTreeMap<PathBuf, Directory>,
    /// Ports that somebody has, in the order of their first port; the same block may stand here more than once, each
    /// time by another holder.
    pub taken: Vec<Taken>,
    /// Whether overlays can be mounted, else why not, one line; `None` where nobody asked.
    pub overlays: Option<Result<(), String>>,
    /// For each external kind what its program printed, or why it gave no answer; `None` where no program was asked.
    pub programs: Option<BTreeMap<String, Result<Vec<u8>, String>>>,
    /// The ports that this host gives to outgoing connections; `None` where it does not say.
    pub ephemeral: Option<PortBlock>,
}

impl Observation {
    /// Returns the observation of a workspace of which nothing else is known yet.
    pub fn new(workspace: PathBuf) -> Self {
        Self { workspace, ..Self::default() }
    }
}

/// An allocation of an external kind that a session has which is not planned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Held {
    /// Id of the session.
    pub session: String,
    /// Number of the session.
    pub index: u32,
    /// The kind.
    pub kind: String,
    /// Id of the session whose allocation it has a share of, with the position of the share and the number of shares; `None`
    /// for an allocation of its own.
    pub share: Option<(String, u32, u32)>,
    /// The options that the allocation was planned with.
    pub options: Map<String, Value>,
    /// The allocation, as the plan of its session has it.
    pub allocation: Map<String, Value>,
}

impl Held {
    /// Returns an allocation of its own of a session with this id and number.
    pub fn new(session: String, index: u32, kind: String, allocation: Map<String, Value>) -> Self {
        Self { session, index, kind, share: None, options: Map::new(), allocation }
    }
}

/// The repository that the workspace lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repository {
    /// The top of the work tree, absolute; for a bare repository the workspace itself.
    pub root: PathBuf,
    /// The common git directory, absolute.
    pub common_dir: PathBuf,
    /// Whether it has no work tree of its own.
    pub bare: bool,
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// Whether a worktree can be registered by one rename; else `git worktree add` has to do it, and the text says
    /// why (reftable, an extension that is not known, `core.sharedRepository`, an existing `config.worktree`).
    pub registration: Result<(), String>,
    /// Whether `extensions.worktreeConfig` is on.
    pub worktree_config: bool,
    /// The branches, by their full names without `refs/heads/`; none where nobody asked.
    pub branches: BTreeMap<String, Branch>,
    /// Names of the entries under `worktrees` in the common git directory.
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Branch {
    /// The commit that it names.
    pub tip: Commit,
    /// The worktrees that have it checked out, or will return to it after a rebase or a bisection.
    pub checkouts: Vec<Checkout>,
    /// How it was created, as far as its reflog goes; `None` where it has none, or no question covers it.
    pub made: Option<Made>,
}

/// The first entry of a branch's reflog.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Made {
    /// The commit that it named then.
    pub commit: Commit,
    /// The message.
    pub message: String,
}

/// How far a branch is from a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Apart {
    /// The number of commits that it reaches and the commit does not.
    pub ahead: usize,
    /// Whether it reaches the commit.
    pub contains: bool,
}

/// A commit's object id, 40 or 64 hexadecimal digits.
pub type Commit = String;

/// A ref that names no commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownRef {
    /// What git says of it, one line.
    pub reason: String,
    /// Branches, tags and remote branches of the repository with a similar name, nearest first, at most three.
    pub near: Vec<String>,
}

/// What a path is in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeEntry {
    /// Nothing; with directories of the same commit that have a similar path, nearest first, at most three.
    Missing {
        /// The near misses; none for a path that nobody wants there.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Untracked {
    /// These, none for a glob with a wildcard.
    Files {
        /// Their number.
        files: u64,
        /// The sum of their sizes.
        bytes: u64,
    },
    /// None: the glob is a path that Git tracks.
    Tracked,
    /// None: the glob is a path without an untracked file.
    Missing,
}

/// What lies at a path of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Directory {
    /// Nothing: it, or a directory above it, does not exist.
    Missing,
    /// A directory, with the names in it.
    Listed(BTreeSet<String>),
    /// This component of the path, relative to the workspace or absolute as asked, is a symbolic link.
    Link(PathBuf),
    /// This component of the path is something else that is not a directory.
    NotADirectory(PathBuf),
    /// It could not be read.
    Unreadable(String),
}

/// Ports that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Taken {
    /// Which.
    pub block: PortBlock,
    /// By whom.
    pub by: Holder,
}

impl Taken {
    /// Returns ports and their holder.
    pub fn new(block: PortBlock, by: Holder) -> Self {
        Self { block, by }
    }
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Holder {
    /// A session of some swarm of this host, by the host-wide registry.
    Lease {
        /// The session's id; for one of another user only that user.
        session: String,
        /// The ownership mark of its swarm; empty for one of another user.
        owner: String,
    },
    /// A lock file in the lock directory of the workspace.
    LockFile {
        /// Its name.
        name: String,
        /// The session that it says it is for, where it can be read.
        session: Option<String>,
        /// The ownership mark, where seedbed wrote it.
        owner: Option<String>,
    },
    /// A process that listens, or for UDP is bound.
    Socket {
        /// `tcp` or `udp`.
        protocol: &'static str,
    },
}
