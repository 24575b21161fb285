//! Compares a worktree with its base: its branch, the commits on either side, the last commit.
//!
//! One Git process reads the commits of all worktrees. Another lists the commits between a base and the worktrees that
//! were made from it, if any of these has another commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::Worktree;
use super::paths::{Content, common_of, read};
use crate::host::git::Git;
use crate::host::{Host, absolute};
use crate::provider::Error;

/// Progress of one worktree relative to its base.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Branch that is checked out, without `refs/heads/`; `None` for a detached HEAD.
    pub branch: Option<String>,
    /// Commit that is checked out.
    pub head: String,
    /// Commit that the base ref names now, or the one that the worktree was made from if the ref names none.
    pub base: String,
    /// `true` if the base ref names no commit now.
    pub is_base_gone: bool,
    /// Number of commits that `head` has and `base` does not.
    pub ahead: u64,
    /// Number of commits that `base` has and `head` does not.
    pub behind: u64,
    /// First line of the message of `head`; bytes that are not UTF-8 are replaced.
    pub subject: String,
    /// Time at which `head` was committed, in seconds since 1970, UTC.
    pub committed: u64,
}

/// A commit as `cat-file` prints it.
struct Commit {
    id: String,
    subject: String,
    committed: u64,
}

/// Position of a worktree's HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers name each field")]
pub struct Head {
    /// Branch that is checked out, without `refs/heads/`; `None` for a detached HEAD.
    pub branch: Option<String>,
    /// Name by which Git finds the commit.
    pub name: String,
}

/// Returns the directory in which Git finds the repository of a worktree: the workspace, or the top of another
/// repository's work tree.
pub fn repository_directory(workspace: &Path, worktree: &Worktree) -> PathBuf {
    match &worktree.repository {
        Some(_) => absolute(workspace, &worktree.repo_root),
        None => workspace.to_owned(),
    }
}

/// Returns the positions of the worktrees of each repository, with the directory in which Git finds it.
pub(crate) fn by_repository(workspace: &Path, worktrees: &[&Worktree]) -> Vec<(PathBuf, Vec<usize>)> {
    let mut repositories: BTreeMap<PathBuf, (PathBuf, Vec<usize>)> = BTreeMap::new();
    for (at, worktree) in worktrees.iter().enumerate() {
        // The manifest may name the workspace's own repository too.
        let top = absolute(workspace, &worktree.repo_root);
        let directory = || repository_directory(workspace, worktree);
        repositories.entry(top).or_insert_with(|| (directory(), Vec::new())).1.push(at);
    }
    repositories.into_values().collect()
}

/// Returns the progress of each worktree in order, or the reason why it cannot be determined.
pub fn progress(host: &Host, workspace: &Path, worktrees: &[&Worktree]) -> Vec<Result<Progress, String>> {
    let heads = worktrees.iter().map(|worktree| head(host, workspace, worktree));
    let heads: Vec<_> = heads.map(|head| head.map_err(|error| error.to_string())).collect();
    progress_of(host, workspace, worktrees, &heads)
}

/// Returns the progress of worktrees of other hosts, whose HEADs are known and in the repositories of this host.
pub fn progress_of(
    host: &Host,
    workspace: &Path,
    worktrees: &[&Worktree],
    heads: &[Result<Head, String>],
) -> Vec<Result<Progress, String>> {
    let mut found: Vec<(usize, Result<Progress, String>)> = Vec::with_capacity(worktrees.len());
    for (directory, positions) in by_repository(workspace, worktrees) {
        let of_repository: Vec<&Worktree> = positions.iter().map(|at| worktrees[*at]).collect();
        let heads: Vec<_> = positions.iter().map(|at| heads[*at].as_ref()).collect();
        let git = Git::discover(host, &directory);
        found.extend(positions.into_iter().zip(progress_in(&git, &of_repository, &heads)));
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, progress)| progress).collect()
}

/// Returns the progress of worktrees of one repository.
fn progress_in(
    git: &Git<'_>,
    worktrees: &[&Worktree],
    heads: &[Result<&Head, &String>],
) -> Vec<Result<Progress, String>> {
    let mut names: BTreeSet<&str> = heads.iter().flatten().map(|head| head.name.as_str()).collect();
    names.extend(worktrees.iter().map(|worktree| worktree.base_ref.as_str()));
    let commits = match commits(git, names) {
        Ok(commits) => commits,
        Err(error) => return worktrees.iter().map(|_| Err(error.to_string())).collect(),
    };
    let found = worktrees.iter().zip(heads).map(|(worktree, head)| {
        let head = head.map_err(Clone::clone)?;
        let commit = commits.get(head.name.as_str());
        let commit = commit.ok_or_else(|| format!("{} names no commit", head.name))?;
        let base = commits.get(worktree.base_ref.as_str()).map(|commit| &commit.id);
        Ok(Progress {
            branch: head.branch.clone(),
            head: commit.id.clone(),
            base: base.unwrap_or(&worktree.commit).clone(),
            is_base_gone: base.is_none(),
            ahead: 0,
            behind: 0,
            subject: commit.subject.clone(),
            committed: commit.committed,
        })
    });
    let mut found: Vec<Result<Progress, String>> = found.collect();
    count(git, worktrees, &mut found);
    found
}

/// Returns the admin directory of a worktree, absolute.
///
/// # Errors
///
/// The repository cannot be found.
pub fn admin_directory(workspace: &Path, worktree: &Worktree) -> Result<PathBuf, Error> {
    Ok(common_of(workspace, worktree)?.path().join("worktrees").join(&worktree.admin_directory))
}

/// Reads the HEAD of a worktree from its admin directory, because an agent can change the path in the worktree's
/// `.git`.
fn head(host: &Host, workspace: &Path, worktree: &Worktree) -> Result<Head, Error> {
    let common = common_of(workspace, worktree)?;
    let admin = Path::new("worktrees").join(&worktree.admin_directory);
    let unreadable =
        || Error::Refused(format!("HEAD of {} cannot be read", worktree.worktree_path.display()));
    let Content::Bytes(bytes) = read(&common, &admin.join("HEAD"))? else { return Err(unreadable()) };
    let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
    let text = text.trim_end();
    if text == "ref: refs/heads/.invalid" {
        // With reftables, HEAD is in the table too.
        let admin = common.path().join(admin);
        let git = Git::open(host, &admin, None);
        let name = git.line(["rev-parse", "--verify", "--end-of-options", "HEAD^{commit}"])?;
        let branch = git.line(["symbolic-ref", "--short", "--quiet", "HEAD"]).ok();
        return Ok(Head { branch, name });
    }
    match text.strip_prefix("ref: ") {
        Some(name) if !name.contains(char::is_control) => Ok(Head {
            branch: Some(name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()),
            name: name.to_owned(),
        }),
        None if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(Head { branch: None, name: text.to_owned() })
        }
        _ => Err(unreadable()),
    }
}

/// Reads the commits of these names, by name; names without a commit are left out.
fn commits<'n>(git: &Git<'_>, names: BTreeSet<&'n str>) -> Result<HashMap<&'n str, Commit>, Error> {
    let names: Vec<&str> = names.into_iter().filter(|name| !name.contains('\n')).collect();
    let input = names.iter().fold(String::new(), |input, name| input + name + "^{commit}\n");
    let printed = git.run_with_input(["cat-file", "--batch"], input.into_bytes())?;
    let mut commits = HashMap::with_capacity(names.len());
    let mut rest = printed.as_slice();
    for name in names {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
        let header = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let mut words = header.split(' ');
        let (Some(id), Some("commit"), Some(size)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some(size) = size.parse::<usize>().ok().filter(|size| *size < rest.len()) else { break };
        commits.insert(name, commit(id, &rest[..size]));
        rest = &rest[size + 1..];
    }
    Ok(commits)
}

fn commit(id: &str, object: &[u8]) -> Commit {
    let object = String::from_utf8_lossy(object);
    let (headers, message) = object.split_once("\n\n").unwrap_or((&object, ""));
    let line = headers.lines().find_map(|line| line.strip_prefix("committer "));
    let committed = line.and_then(|line| line.rsplit(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let subject = message.trim_start().lines().next().unwrap_or_default().to_owned();
    Commit { id: id.to_owned(), subject, committed }
}

/// Counts the commits on either side, with one Git process for all worktrees made from one commit of one base.
fn count(git: &Git<'_>, worktrees: &[&Worktree], found: &mut [Result<Progress, String>]) {
    let mut groups: BTreeMap<(String, &str), Vec<usize>> = BTreeMap::new();
    for (at, (worktree, progress)) in worktrees.iter().zip(found.iter()).enumerate() {
        if let Ok(progress) = progress
            && progress.head != progress.base
        {
            groups.entry((progress.base.clone(), &worktree.commit)).or_default().push(at);
        }
    }
    for ((base, made_from), members) in groups {
        let heads = members.iter().filter_map(|at| found[*at].as_ref().ok());
        let heads: BTreeSet<String> = heads.map(|progress| progress.head.clone()).collect();
        let graph = Graph::read(git, &base, made_from, &heads);
        for at in members {
            let counted = match &found[at] {
                Ok(progress) => match graph.as_ref().and_then(|graph| graph.sides(&progress.head)) {
                    Some(sides) => Ok(sides),
                    None => one_by_one(git, &progress.head, &base),
                },
                Err(_) => continue,
            };
            match (counted, &mut found[at]) {
                (Ok((ahead, behind)), Ok(progress)) => (progress.ahead, progress.behind) = (ahead, behind),
                (Err(error), progress) => *progress = Err(error.to_string()),
                _ => {}
            }
        }
    }
}

fn one_by_one(git: &Git<'_>, head: &str, base: &str) -> Result<(u64, u64), Error> {
    let range = format!("{head}...{base}");
    let counted =
        git.line(["rev-list", "--left-right", "--count", "--end-of-options", range.as_str(), "--"])?;
    let sides =
        counted.split_once('\t').and_then(|(left, right)| Some((left.parse().ok()?, right.parse().ok()?)));
    sides.ok_or_else(|| Error::Refused(format!("git counts `{counted}` commits")))
}

/// Commits of a base and of worktrees that the commit does not have from which the worktrees were made.
struct Graph<'g> {
    parents: HashMap<String, Vec<String>>,
    made_from: &'g str,
    /// Commits that the base reaches.
    base: HashSet<String>,
}

impl<'g> Graph<'g> {
    /// Returns `None` if the base does not have the commit that the worktrees were made from, or if that commit does
    /// not exist.
    fn read(git: &Git<'_>, base: &str, made_from: &'g str, heads: &BTreeSet<String>) -> Option<Self> {
        let input = heads.iter().map(String::as_str).chain([base]).collect::<Vec<_>>().join("\n");
        let input = format!("{input}\n^{made_from}\n");
        let printed = git.run_with_input(["rev-list", "--parents", "--stdin"], input.into_bytes()).ok()?;
        let mut parents = HashMap::new();
        for line in String::from_utf8_lossy(&printed).lines() {
            let mut ids = line.split(' ').map(str::to_owned);
            parents.insert(ids.next()?, ids.collect());
        }
        let mut graph = Self { parents, made_from, base: HashSet::new() };
        graph.base = graph.reached(base)?;
        Some(graph)
    }

    /// Returns the number of commits that the head has and the base does not, and the reverse. Returns `None` if the
    /// head does not have the commit that the worktree was made from: the common commits may lie before it.
    fn sides(&self, head: &str) -> Option<(u64, u64)> {
        let reached = self.reached(head)?;
        let ahead = reached.difference(&self.base).count();
        let behind = self.base.difference(&reached).count();
        Some((ahead as u64, behind as u64))
    }

    /// Returns the commits of the graph that a commit reaches; `None` if they do not lead to `made_from`.
    fn reached(&self, from: &str) -> Option<HashSet<String>> {
        let mut reached = HashSet::new();
        let mut leads_there = false;
        let mut left = vec![from];
        while let Some(id) = left.pop() {
            leads_there |= id == self.made_from;
            if let Some(parents) = self.parents.get(id)
                && reached.insert(id.to_owned())
            {
                left.extend(parents.iter().map(String::as_str));
            }
        }
        leads_there.then_some(reached)
    }
}
