//! Finds commits that only the worktree's admin directory keeps from being garbage-collected.

use std::collections::BTreeSet;
use std::ffi::OsString;

use crate::host::git::{Git, is_object_id};
use crate::host::process;
use crate::provider::git_worktree::paths::{Content, WorktreePaths};
use crate::provider::git_worktree::{Worktree, branch};
use crate::provider::{Error, Task, UnsavedWork};

/// Prefixes of the refs that belong to one admin directory.
const OWN: [&str; 3] = ["refs/worktree", "refs/bisect", "refs/rewritten"];

/// Files of an admin directory that name a commit that was replaced by a rewriting command.
const REWRITTEN: [&str; 1] = ["ORIG_HEAD"];

/// Size limit of the log of HEAD, in bytes.
const LOG_MAX: usize = 256 << 20;

/// Commits that an admin directory names.
#[derive(Debug)]
pub(in super::super) struct Tips {
    /// Commit of HEAD; an error if HEAD names none, as on a branch that has no commit or was deleted.
    pub(in super::super) head: Result<String, process::Error>,
    /// Refs of the admin directory, each with its object.
    pub(in super::super) own: Vec<(String, String)>,
    /// Commits from which a checkout moved HEAD away, or that HEAD named when its branch was deleted.
    pub(in super::super) left: BTreeSet<String>,
    /// All commits that HEAD has ever named.
    pub(in super::super) logged: BTreeSet<String>,
}

/// Commit of a worktree's HEAD, and its tree.
#[derive(Debug)]
pub(super) struct Head {
    commit: String,
    pub(super) tree: String,
}

impl Head {
    /// Reads both with one process; an error if HEAD names no commit.
    pub(super) fn read(task: &Task<'_>, paths: &WorktreePaths) -> Result<Self, Error> {
        let admin = paths.admin_directory_path();
        let git = Git::open(task.host, &admin, None).holding(task.lock);
        let printed = git.line(["rev-parse", "HEAD^{commit}", "HEAD^{tree}"])?;
        match printed.split_once('\n') {
            Some((commit, tree)) if is_object_id(commit) && is_object_id(tree) => {
                Ok(Self { commit: commit.to_owned(), tree: tree.to_owned() })
            }
            _ => Err(Error::Refused(format!("HEAD of {} cannot be read", paths.home.display()))),
        }
    }
}

impl Tips {
    /// Reads the commits. `head` is the commit of HEAD, if it was read already.
    pub(in super::super) fn read(
        task: &Task<'_>,
        paths: &WorktreePaths,
        head: Option<String>,
    ) -> Result<Self, Error> {
        let admin = paths.admin_directory_path();
        let git = &Git::open(task.host, &admin, None).holding(task.lock);
        let head = match head {
            Some(head) => Ok(head),
            None => match git.line(["rev-parse", "--verify", "--end-of-options", "HEAD^{commit}"]) {
                Err(error) if !error.is_answer() => return Err(error.into()),
                head => head,
            },
        };
        // A switch to a branch without commits is not logged.
        let mut is_left = head.is_err();
        let (left, logged) = (BTreeSet::new(), BTreeSet::new());
        let mut tips = Self { head, own: own_refs(git, paths)?, left, logged };
        // The newest entry comes first: the commit of the next entry is the one that HEAD left.
        for Logged { object, leaves } in reflog(git, paths)? {
            match object {
                Some(object) => {
                    if is_left {
                        tips.left.insert(object.clone());
                    }
                    tips.logged.insert(object);
                    is_left = leaves;
                }
                // The branch of HEAD was deleted.
                None => is_left = true,
            }
        }
        for name in REWRITTEN {
            if let Content::Bytes(bytes) = paths.read_admin_file(name)? {
                let object = String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned();
                tips.logged.extend(is_object_id(&object).then_some(object));
            }
        }
        Ok(tips)
    }
}

/// Returns whether the refs of the worktree are files, not in a table.
fn has_ref_files(paths: &WorktreePaths) -> Result<bool, Error> {
    Ok(matches!(paths.read_admin_file("HEAD")?, Content::Bytes(head) if !head.ends_with(b"/.invalid\n")))
}

/// Returns the refs that belong to the admin directory, each with its object. Most have none, and then Git does not run.
fn own_refs(git: &Git<'_>, paths: &WorktreePaths) -> Result<Vec<(String, String)>, Error> {
    let is_empty = match paths.common.directory(&paths.admin_directory.join("refs")) {
        Ok(Some(directory)) => directory.names()?.is_empty(),
        Ok(None) => true,
        Err(_) => false,
    };
    if is_empty && has_ref_files(paths)? {
        return Ok(Vec::new());
    }
    let mut args = vec!["for-each-ref", "--format=%(objectname) %(refname)"];
    args.extend(OWN);
    let listed = git.line(args)?;
    Ok(listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(object, name)| (object.to_owned(), name.to_owned()))
        .collect())
}

/// Entry in the log of HEAD.
struct Logged {
    /// Commit that HEAD named from then on; `None` after the branch of HEAD was deleted.
    object: Option<String>,
    /// `true` if a checkout moved HEAD.
    leaves: bool,
}

impl Logged {
    fn new(object: &str, message: &str) -> Self {
        let is_commit = object.bytes().any(|digit| digit != b'0');
        Self {
            object: is_commit.then(|| object.to_owned()),
            leaves: message.starts_with("checkout: moving from "),
        }
    }
}

/// Returns the entries of the log of HEAD, the newest first. Git reads the log only if it is large or has another form
/// than a file of complete lines.
fn reflog(git: &Git<'_>, paths: &WorktreePaths) -> Result<Vec<Logged>, Error> {
    let has_files = has_ref_files(paths)?;
    let lines = match paths.read_admin_file("logs/HEAD")? {
        Content::Bytes(log) if has_files => log_lines(&log),
        Content::Missing if has_files => Some(Vec::new()),
        _ => None,
    };
    if let Some(lines) = lines {
        return Ok(lines);
    }
    match git.run(["reflog", "show", "--format=%H %gs", "HEAD", "--"]) {
        Ok(log) => {
            let log = String::from_utf8_lossy(&log);
            let lines = log.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
            Ok(lines.map(|(object, message)| Logged::new(object, message)).collect())
        }
        // Git shows no log of a HEAD that names no commit, and the file may be torn.
        Err(error) if error.is_answer() && has_files => {
            let log = paths.common.read(&paths.admin_directory.join("logs/HEAD"), LOG_MAX)?;
            Ok(log.unwrap_or_default().rsplit(|byte| *byte == b'\n').filter_map(log_line).collect())
        }
        Err(error) => Err(error.into()),
    }
}

/// Parses all lines of a log, the newest first; `None` if any has another form.
fn log_lines(log: &[u8]) -> Option<Vec<Logged>> {
    log.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').map(log_line).collect()
}

/// Parses `OLD NEW NAME <EMAIL> TIME ZONE`, a tab and the message.
fn log_line(line: &[u8]) -> Option<Logged> {
    let line = String::from_utf8_lossy(line);
    let (fields, message) = line.split_once('\t').unwrap_or((&line, ""));
    let mut fields = fields.split(' ');
    let (old, new) = (fields.next()?, fields.next()?);
    (is_object_id(old) && is_object_id(new)).then(|| Logged::new(new, message))
}

/// Adds the commits that would be lost. `head` is the commit of HEAD, if it was read already. An error also if HEAD names
/// no commit; the other commits are added nevertheless.
pub(super) fn add(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    head: Option<Head>,
    unsaved_work: &mut UnsavedWork,
) -> Result<(), Error> {
    if paths.common.directory(&paths.admin_directory)?.is_none() {
        return Ok(());
    }
    let tips = Tips::read(task, paths, head.map(|head| head.commit))?;
    add_lost(task, worktree, paths, &tips, unsaved_work)?;
    Ok(tips.head.map(drop)?)
}

/// Adds the commits that would be lost of those that the admin directory names.
fn add_lost(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    tips: &Tips,
    unsaved_work: &mut UnsavedWork,
) -> Result<(), Error> {
    let path = paths.home.display();
    let all = tips.own.iter().map(|(object, _)| object).chain(&tips.left).chain(&tips.logged);
    let all: BTreeSet<&str> = all.chain(&tips.head).map(String::as_str).collect();
    let all = lost(task, worktree, paths, &all, None, &[])?;
    if all.is_empty() {
        return Ok(());
    }
    // Each commit is reported once, with the first tip that reaches it.
    let mut reported: BTreeSet<String> = BTreeSet::new();
    let mut count = |tips: BTreeSet<&str>| -> Result<Option<String>, Error> {
        let before = reported.len();
        reported.extend(lost(task, worktree, paths, &tips, None, &[])?);
        Ok(counted(reported.len() - before))
    };
    if let Some(commits) = count(tips.head.iter().map(String::as_str).collect())? {
        unsaved_work.work.push(format!("HEAD of {path} has {commits} that no ref reaches"));
    }
    for (object, name) in &tips.own {
        if let Some(commits) = count(BTreeSet::from([object.as_str()]))? {
            unsaved_work.work.push(format!("{name} of {path} has {commits} that no other ref reaches"));
        }
    }
    if let Some(commits) = count(tips.left.iter().map(String::as_str).collect())? {
        unsaved_work.work.push(format!("{commits} that no ref reaches: a checkout left them in {path}"));
    }
    if let Some(commits) = counted(all.len() - reported.len()) {
        unsaved_work
            .ignored
            .push(format!("only the reflog of {path} has {commits}, rewritten or reset away"));
    }
    Ok(())
}

/// Returns the number of commits in words; `None` for 0.
fn counted(commits: usize) -> Option<String> {
    match commits {
        0 => None,
        1 => Some("1 commit".to_owned()),
        _ => Some(format!("{commits} commits")),
    }
}

/// Returns the commits that `tips` reach and that nothing else keeps: neither `but` nor a ref that outlasts the
/// worktree. Refs that match a pattern of `not_even` keep nothing.
pub(in super::super) fn lost(
    task: &Task<'_>,
    worktree: &Worktree,
    paths: &WorktreePaths,
    tips: &BTreeSet<&str>,
    but: Option<&str>,
    not_even: &[&str],
) -> Result<BTreeSet<String>, Error> {
    let mut args: Vec<OsString> = ["rev-list", "--ignore-missing", "--stdin", "--not"].map(Into::into).into();
    args.extend(but.map(Into::into));
    args.extend(branch::FLEETING.iter().chain(not_even).map(|name| format!("--exclude={name}").into()));
    if let Some(branch) = &worktree.branch {
        let name = format!("refs/heads/{branch}");
        // The branch is deleted with the worktree.
        if branch::is_pristine(task, worktree, paths, &name)? {
            args.push(format!("--exclude={name}").into());
        }
    }
    args.push("--glob=refs/*".into());
    let input = tips.iter().fold(String::new(), |text, tip| text + tip + "\n");
    let listed = Git::open(task.host, paths.common.path(), None).run_with_input(args, input.into_bytes())?;
    Ok(String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect())
}
