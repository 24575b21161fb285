//! Results that the hosts of a fleet bring to its coordinator: the commits of worktrees, and what no commit has.
//!
//! ```text
//! DIR/collected/REQUEST/HOST/answer.json   results of a host
//! DIR/collected/REQUEST/HOST/N.bundle      commits of its worktrees of one repository
//! ```
//!
//! The answer is written last and names the bundles, so that no bundle is read that is not complete. Nothing else in a bundle
//! is used than the commits of worktrees that are planned for the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, Source, WorktreeName};
use crate::fleet::SCHEMA_VERSION;
use crate::fleet::directory::{DirectoryError, FleetDirectory};
use crate::host::Host;
use crate::host::failpoint::crashpoint;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::host::git::bundle::{BundleError, BundledCommit};
use crate::name::SessionPath;
use crate::provider::git_worktree::rescue::collected_reference;
use crate::provider::git_worktree::{self, Head, Worktree};
use crate::state::SessionRun;

/// Attempts to move refs that another collection moves at the same time, and the pause between two.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// HEAD of each worktree, or the reason for which it is unknown.
pub type Heads = Vec<Result<Head, String>>;

/// Results of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct HostWork {
    /// Version of the format of this file.
    pub schema_version: u32,
    /// Name of the request.
    pub request: String,
    /// Name of the host.
    pub host: String,
    /// Worktrees of its sessions.
    pub worktrees: Vec<BroughtWorktree>,
    /// Bundles beside this file; a repository without new commits has none.
    pub bundles: Vec<BroughtBundle>,
    /// Reason for which the host brings nothing; `None` if there is none.
    pub error: Option<String>,
}

/// Worktree in [`HostWork`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "callers name each field")]
pub struct BroughtWorktree {
    /// Path of the session.
    pub session: SessionPath,
    /// Name of the worktree among the resources of the session.
    pub resource: String,
    /// Branch that is checked out, without `refs/heads/`; `None` for a detached HEAD.
    pub branch: Option<String>,
    /// Commit that is checked out; `None` if it is unknown.
    pub head: Option<String>,
    /// Reason for which the commit is unknown.
    pub error: Option<String>,
    /// Work that no commit has, one line each.
    pub unsaved: Vec<String>,
    /// Reasons for which it is unknown whether there is such work.
    pub unsaved_unknown: Vec<String>,
    /// Last command that `start` or `exec` ran in the session.
    pub last_run: Option<SessionRun>,
}

/// Bundle in [`HostWork`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BroughtBundle {
    /// Name of the repository in the manifest; `None` for the workspace's own.
    pub repository: Option<String>,
    /// Number in the name of the file.
    pub number: usize,
}

/// Commit of a worktree that is in the repository of the coordinator now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Received {
    /// Host of the session.
    pub host: String,
    /// Full name of the ref that has the commit.
    pub reference: String,
    /// Commit that the ref had before, if the new one does not contain it; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
}

impl HostWork {
    /// Creates the results of a host that brings nothing.
    pub fn new(request: &str, host: &str, error: Option<String>) -> Self {
        let (request, host) = (request.to_owned(), host.to_owned());
        let (worktrees, bundles) = (Vec::new(), Vec::new());
        Self { schema_version: SCHEMA_VERSION, request, host, worktrees, bundles, error }
    }
}

/// Writes the commits of worktrees of this host into bundles in `to`. Returns the HEAD of each worktree too.
pub fn bring(
    host: &Host,
    workspace: &Path,
    swarm: &str,
    sources: &[Source<'_>],
    to: &Root,
) -> Result<(Heads, Vec<BroughtBundle>), Error> {
    let worktrees: Vec<&Worktree> = sources.iter().map(|source| &source.worktree).collect();
    let progress = git_worktree::progress(host, workspace, &worktrees);
    let mut bundles = Vec::new();
    for (number, (directory, positions)) in
        git_worktree::by_repository(workspace, &worktrees).into_iter().enumerate()
    {
        let commits = positions.iter().filter_map(|at| {
            let id = progress[*at].as_ref().ok()?.head.clone();
            Some(BundledCommit { name: reference(swarm, &sources[*at]), id })
        });
        let commits: Vec<_> = commits.collect();
        if commits.is_empty() {
            continue;
        }
        let known: BTreeSet<String> = positions.iter().map(|at| worktrees[*at].commit.clone()).collect();
        let file = to.open_or_create(&bundle_file(number))?;
        if Git::discover(host, &directory).write_bundle(&commits, &known, &file)? {
            let repository = positions.first().and_then(|at| worktrees[*at].repository.clone());
            bundles.push(BroughtBundle { repository, number });
            crashpoint!("fleet.bundled");
        } else {
            to.remove_file(&bundle_file(number))?;
        }
    }
    let head = |found: Result<git_worktree::Progress, String>| {
        found.map(|progress| Head { branch: progress.branch, name: progress.head })
    };
    Ok((progress.into_iter().map(head).collect(), bundles))
}

/// Takes the commits that a host has brought into the repositories of this host, each at a ref of its own. `sources` are the
/// worktrees that are planned for that host. Returns the result of each; a worktree that the host did not report has none.
pub fn receive(
    host: &Host,
    workspace: &Path,
    swarm: &str,
    sources: &[Source<'_>],
    work: &HostWork,
    from: &Root,
) -> Vec<Option<Result<Received, String>>> {
    let mut received: Vec<Option<Result<Received, String>>> = sources.iter().map(|_| None).collect();
    let reported: BTreeMap<WorktreeName, &BroughtWorktree> = work
        .worktrees
        .iter()
        .map(|worktree| {
            let (session, resource) = (worktree.session.clone(), worktree.resource.clone());
            (WorktreeName { session, resource }, worktree)
        })
        .collect();
    let worktrees: Vec<&Worktree> = sources.iter().map(|source| &source.worktree).collect();
    for (directory, positions) in git_worktree::by_repository(workspace, &worktrees) {
        let mut commits = Vec::new();
        for at in positions {
            let Some(worktree) = reported.get(&sources[at].name()) else { continue };
            match &worktree.head {
                Some(id) => {
                    let name = reference(swarm, &sources[at]);
                    commits.push((at, BundledCommit { name, id: id.clone() }));
                }
                None => received[at] = Some(Err(worktree.error.clone().unwrap_or_default())),
            }
        }
        let Some((first, _)) = commits.first() else { continue };
        let repository = &worktrees[*first].repository;
        let bundle = work.bundles.iter().find(|bundle| bundle.repository == *repository);
        let file = bundle.map(|bundle| from.path().join(bundle_file(bundle.number)));
        let git = Git::discover(host, &directory);
        let expected: Vec<_> = commits.iter().map(|(_, commit)| commit.clone()).collect();
        match take(&git, from, file.as_deref(), &expected) {
            Ok(moved) => {
                for ((at, commit), moved_from) in commits.into_iter().zip(moved) {
                    let (host, reference) = (work.host.clone(), commit.name);
                    received[at] = Some(Ok(Received { host, reference, moved_from }));
                }
            }
            Err(error) => {
                let why = format!("the commits of host {} cannot be taken: {error}", work.host);
                for (at, _) in commits {
                    received[at] = Some(Err(why.clone()));
                }
            }
        }
    }
    received
}

/// Takes the commits of a bundle into a repository, and sets their refs. Returns the commit that each ref had before, if the
/// new one does not contain it.
fn take(
    git: &Git<'_>,
    from: &Root,
    file: Option<&Path>,
    commits: &[BundledCommit],
) -> Result<Vec<Option<String>>, BundleError> {
    match file.and_then(Path::file_name) {
        Some(name) => {
            let file = from
                .open_or_create(Path::new(name))
                .map_err(|error| BundleError::Other(error.to_string()))?;
            git.read_bundle(&file, &commits.iter().cloned().collect())?;
        }
        None => git.check_connected(commits.iter().map(|commit| commit.id.as_str()))?,
    }
    crashpoint!("fleet.taken");
    let mut tries = 0;
    loop {
        tries += 1;
        let before = existing_refs(git)?;
        let changed = commits.iter().filter(|commit| before.get(&commit.name) != Some(&commit.id));
        let update = |BundledCommit { name, id }: &BundledCommit| {
            let old = before.get(name).cloned().unwrap_or_else(|| "0".repeat(id.len()));
            format!("update {name}\0{id}\0{old}\0")
        };
        let input: String = changed.map(update).collect();
        let updated = git.run_with_input(["update-ref", "--no-deref", "-z", "--stdin"], input.into_bytes());
        match updated {
            Ok(_) => {
                return commits.iter().map(|commit| moved_from(git, &before, commit)).collect();
            }
            // Another collection has moved a ref, or moves it now.
            Err(error) if tries < TRIES && error.is_answer() => thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

fn moved_from(
    git: &Git<'_>,
    before: &BTreeMap<String, String>,
    BundledCommit { name, id }: &BundledCommit,
) -> Result<Option<String>, BundleError> {
    let Some(old) = before.get(name).filter(|old| *old != id) else { return Ok(None) };
    let contained = git.output(["merge-base", "--is-ancestor", old, id])?;
    Ok((!contained.status.success()).then(|| old.clone()))
}

/// Returns the commits of all refs of collected commits, by name.
fn existing_refs(git: &Git<'_>) -> Result<BTreeMap<String, String>, BundleError> {
    let printed =
        git.line(["for-each-ref", "--format=%(objectname) %(refname)", "refs/seedbed/collected/"])?;
    let refs = printed.lines().filter_map(|line| line.split_once(' '));
    Ok(refs.map(|(id, name)| (name.to_owned(), id.to_owned())).collect())
}

fn reference(swarm: &str, source: &Source<'_>) -> String {
    collected_reference(&format!("{swarm}/{}", source.session), source.resource)
}

fn bundle_file(number: usize) -> PathBuf {
    PathBuf::from(format!("{number}.bundle"))
}

impl FleetDirectory {
    /// Creates the directory for the results of a host, and returns it.
    pub fn collected(&self, request: &str, host: &str) -> Result<Root, DirectoryError> {
        Ok(self.root.create_directories(&collected(request).join(host))?)
    }

    /// Writes the results of a host, whose bundles are complete.
    pub fn write_work(&self, work: &HostWork) -> Result<(), DirectoryError> {
        crashpoint!("fleet.collecting");
        self.write(&collected(&work.request).join(&work.host).join("answer.json"), work)
    }

    /// Returns the results of a host; `None` if it has written none.
    pub fn work(&self, request: &str, host: &str) -> Result<Option<HostWork>, DirectoryError> {
        let work: Option<HostWork> = self.read(&collected(request).join(host).join("answer.json"))?;
        let is_answer = |work: &HostWork| {
            work.schema_version == SCHEMA_VERSION && work.request == request && work.host == host
        };
        Ok(work.filter(is_answer))
    }

    /// Removes the results of a request.
    pub fn remove_collected(&self, request: &str) -> Result<(), DirectoryError> {
        Ok(self.root.remove_all(&collected(request))?)
    }
}

fn collected(request: &str) -> PathBuf {
    Path::new("collected").join(request)
}
