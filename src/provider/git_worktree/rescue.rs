//! Saves the unsaved work of a worktree under `refs/seedbed/rescue/SWARM/PATH/@TIME`, before the worktree is released.
//!
//! A rescue is one ref to a small family of commits, much like a stash of Git. The ref's own commit has the files as
//! they were, including untracked files and without ignored files. Its parents are
//!
//! 1. HEAD, whether or not a ref reaches it;
//! 2. the index, as a commit on top of HEAD; unmerged files have our side;
//! 3. files from the admin directory: the index itself (with stages, intents to add, bits), and the state of a merge,
//!    rebase or bisection in progress;
//! 4. if there are any: the other commits that only the admin directory named, in its reflog, in its own refs or in an
//!    operation in progress. The tree of this commit has the sides of unmerged files.
//!
//! Nothing in the worktree or its admin directory is changed: a rescue is prepared in a separate index. Each file that
//! differs from HEAD is then checked out of the rescue, in a scratch directory, and compared with the file in the
//! worktree. If filters or line ends would change the file, its own bytes are saved. Objects and the ref are synced
//! before this returns, as far as Git can.

mod capture;
mod command;
mod admin_directory;
mod name;
mod restore;
mod restore_into;
mod saved;
mod verify;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use name::collected_reference;
pub use restore::restore;
pub use restore_into::{Restored, restore_into};
pub use saved::{SavedWork, common_directory, delete, list, short_name};

use super::checkout_config::EXACT;
use super::paths::{DirectoryPaths, WorktreePaths, canonical};
use super::unsaved::{self, Tips};
use super::{Worktree, overlay, reserved_names};
use crate::host::clock;
use crate::host::git::Git;
use crate::host::text::shell_quoted;
use crate::name::sha256_hex;
use crate::provider::{Error, Location, Rescue, Task};

/// Maximum number of attempts to find a name that no other rescue of the same second has.
const TRIES: u32 = 100;

/// Settings of a rescue beside [`EXACT`]: everything is synced, and an index stays one file.
const DURABLE: [&str; 5] = [
    "core.fsync=all",
    "core.fsyncMethod=batch",
    "core.safecrlf=false",
    "core.symlinks=true",
    "core.splitIndex=false",
];

/// Saves everything, or fails. Work that was saved before and has not changed since is not saved again.
pub(super) fn rescue(task: &Task<'_>, worktree: &Worktree) -> Result<Rescue, Error> {
    let paths = WorktreePaths::new(task, worktree)?;
    if overlay::is_unmounted(worktree, &paths)? {
        let path = paths.home.display();
        return Err(Error::Refused(format!("{path} is not mounted; `seedbed apply` mounts it again")));
    }
    let scratch = Scratch::create(task, worktree, &paths)?;
    let mut work = Work::find(task, worktree, &paths, &scratch)?;
    let index = capture::index(&mut work)?;
    let (mut files, mut converted) = (index.clone(), BTreeSet::new());
    if work.directory.is_some() {
        capture::working_tree(&work)?;
        converted = verify::verify(&work)?;
        files = work.git(capture::FILES).line(work.exact(["write-tree"]))?;
    }
    if converted.len() > command::CONVERTED_MAX {
        let (count, first) = (converted.len(), command::CONVERTED_MAX);
        work.missing.push(format!(
            "{count} files come back with their line ends or contents converted, all but the first {first}, where plain git \
             brings them back; `seedbed rescue restore` writes their bytes"
        ));
    }
    let state = admin_directory::save(&work)?;
    let (sides, others) = (capture::sides(&work)?, work.others(&state)?);
    let content =
        [&[&files, &work.head, &index, &state.tree, &sides][..], &others.iter().collect::<Vec<_>>()];
    let fingerprint =
        sha256_hex(content.concat().iter().fold(String::new(), |text, id| text + id + "\n").as_bytes());
    let resource = worktree.is_one_of_several().then(|| task.allocation.name());
    let prefix = name::worktree_prefix(&name::prefix(task.session), resource);
    let sparse = state.is_sparse;
    let rescue_at = |reference: String| Rescue {
        command: command::bring_back(&paths, task.session, &reference, sparse, &converted),
        reference,
        missing: work.missing.clone(),
    };
    if let Some(reference) = existing(&work, &prefix, &fingerprint, [&files, &index, &state.tree])? {
        work.check_whole(&reference)?;
        return Ok(rescue_at(reference));
    }

    let parents = parents(&work, &index, &state.tree, sides, others)?;
    let time: String = clock::now().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    for attempt in 1..=TRIES {
        let rescue = rescue_at(name::reference(&prefix, &time, attempt));
        let message = message(task.session, &rescue, &fingerprint, &converted);
        let commit = work.commit(&files, &parents, &message)?;
        if work.create_ref(&rescue.reference, &commit)? {
            let checked = work.check_whole(&rescue.reference);
            if checked.is_err() {
                work.remove_ref(&rescue.reference, &commit)?;
            }
            return checked.map(|()| rescue);
        }
    }
    Err(Error::Refused(format!("{prefix} has {TRIES} rescues of this second; wait for the next one")))
}

/// Returns the parents of a rescue's commit: HEAD, the index, the admin directory and, if there are any, the sides of
/// an unfinished merge together with other commits.
fn parents(
    work: &Work<'_>,
    index: &str,
    state: &str,
    sides: String,
    others: BTreeSet<String>,
) -> Result<Vec<String>, Error> {
    let subject = |what: &str| format!("{}: {what}\n", work.task.session);
    let mut parents = vec![work.head.clone()];
    parents.push(work.commit(index, std::slice::from_ref(&work.head), &subject("index of its worktree"))?);
    parents.push(work.commit(state, &[], &subject("admin directory of its worktree"))?);
    if !others.is_empty() || !sides.is_empty() {
        let sides = if sides.is_empty() { capture::empty_tree(work)? } else { sides };
        let others: Vec<String> = others.into_iter().collect();
        parents.push(work.commit(&sides, &others, &subject("other commits of its worktree"))?);
    }
    Ok(parents)
}

/// Returns the message of a rescue's commit. It has the command that restores the rescue, the hash of its content, and
/// the files that are written byte by byte.
fn message(session: &str, rescue: &Rescue, fingerprint: &str, converted: &BTreeSet<PathBuf>) -> String {
    let short = shell_quoted(short_name(&rescue.reference).unwrap_or(&rescue.reference));
    let mut message = format!(
        "{session}{}\n\nBring it back with\n\n    seedbed rescue restore {short}\n\nor, without seedbed, with\n\n    \
         {}\n\n{}{fingerprint}\n",
        name::SUBJECT,
        rescue.command,
        name::FINGERPRINT
    );
    for path in converted {
        let _ = writeln!(message, "{}", name::exact_line(path));
    }
    message
}

/// Returns a rescue of this session with this very content: its message has the hash, and it has these trees on top of
/// HEAD.
fn existing(
    work: &Work<'_>,
    prefix: &str,
    fingerprint: &str,
    trees: [&str; 3],
) -> Result<Option<String>, Error> {
    let git = Git::open(work.task.host, work.paths.common.path(), None).holding(work.task.lock);
    let listed = git.line([
        "for-each-ref",
        "--format=%(refname) %(contents:lines=1)%(contents:body)%00",
        &format!("{prefix}*"),
    ])?;
    let line = format!("{}{fingerprint}", name::FINGERPRINT);
    for rescue in listed.split('\0').map(str::trim_start) {
        let Some(reference) = rescue.split_whitespace().next() else { continue };
        if !rescue.lines().any(|found| found == line) {
            continue;
        }
        let [files, index, state] = ["", "^2", "^3"].map(|of| format!("{reference}{of}^{{tree}}"));
        let found = git.output(["rev-parse", &files, &index, &state, &format!("{reference}^1")])?;
        let expected = trees.into_iter().chain([work.head.as_str()]);
        if String::from_utf8_lossy(&found.stdout).lines().eq(expected) {
            return Ok(Some(reference.to_owned()));
        }
    }
    Ok(None)
}

/// A directory of temporary indexes and copies beside the worktree, on the same file system. It is removed when this
/// value is dropped, or after a crash by the next recovery.
struct Scratch<'s> {
    paths: &'s WorktreePaths,
    name: PathBuf,
    path: PathBuf,
}

/// Removes the scratch directories of rescues that were killed. The repository may be gone: other repositories of the
/// swarm had work to rescue.
pub(super) fn sweep(task: &Task<'_>, worktree: &Worktree) -> Result<(), Error> {
    let workspace = canonical(task.workspace)?;
    for location in [Location::Home, Location::Aside] {
        let paths = DirectoryPaths::at(location, task, worktree, &workspace)?;
        paths.base.remove_all(&paths.around.join(reserved_names::scratch(task, worktree)))?;
        paths.base.remove_hidden(&paths.around)?;
        if overlay::is_wanted(worktree)
            && let Some(directory) = paths.directory()?
        {
            directory.remove_all(Path::new(restore_into::IN_MOUNT))?;
        }
    }
    Ok(())
}

impl<'s> Scratch<'s> {
    fn create(task: &Task<'_>, worktree: &Worktree, paths: &'s WorktreePaths) -> Result<Self, Error> {
        let name = reserved_names::scratch(task, worktree);
        let parent = paths.base.create_hidden(&paths.around)?;
        parent.remove_all(&name)?;
        let path = parent.create_directories(&name)?.path().to_owned();
        Ok(Self { paths, name, path })
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        // Files that cannot be removed here are removed with the worktree.
        let _ = self.paths.base.remove_all(&self.paths.around.join(&self.name));
        let _ = self.paths.base.remove_hidden(&self.paths.around);
    }
}

/// Inputs of a rescue.
struct Work<'a> {
    task: &'a Task<'a>,
    worktree: &'a Worktree,
    paths: &'a WorktreePaths,
    /// Directory for everything temporary.
    scratch: PathBuf,
    /// Admin directory of the worktree, or the repository if Git cannot use the admin directory.
    git_dir: PathBuf,
    /// Directory of the worktree; `None` if it does not exist.
    directory: Option<PathBuf>,
    /// Commit that HEAD names, or the commit that the worktree was made from if HEAD names none.
    head: String,
    /// `None` if Git cannot use the admin directory.
    tips: Option<Tips>,
    /// Things that restoring does not bring back as they were, one line each.
    missing: Vec<String>,
}

impl<'a> Work<'a> {
    fn find(
        task: &'a Task<'a>,
        worktree: &'a Worktree,
        paths: &'a WorktreePaths,
        scratch: &Scratch<'_>,
    ) -> Result<Self, Error> {
        let admin = paths.admin_directory_path();
        let usable = paths.common.directory(&paths.admin_directory)?.is_some()
            && Git::open(task.host, &admin, None).output(["rev-parse", "--git-dir"])?.status.success();
        let mut work = Self {
            task,
            worktree,
            paths,
            scratch: scratch.path.clone(),
            directory: paths.directory()?.map(|directory| directory.path().to_owned()),
            head: worktree.commit.clone(),
            tips: None,
            git_dir: if usable { admin } else { paths.common.path().to_owned() },
            missing: Vec::new(),
        };
        if !usable {
            work.missing.push(
                "its admin directory is torn or missing: commits that it made, and operations under way, are \
                 not known"
                    .to_owned(),
            );
            return Ok(work);
        }
        let tips = Tips::read(task, paths, None)?;
        match &tips.head {
            Ok(head) => work.head.clone_from(head),
            Err(error) => {
                let commit = &worktree.commit;
                work.missing.push(format!("HEAD names no commit ({error}); the rescue is based on {commit}"));
            }
        }
        work.tips = Some(tips);
        Ok(work)
    }

    /// Returns Git with an index of this name in the scratch directory, and with the worktree if it exists.
    fn git(&self, index: &str) -> Git<'_> {
        Git::open(self.task.host, &self.git_dir, self.directory.as_deref())
            .holding(self.task.lock)
            .with_variable("GIT_INDEX_FILE", self.scratch.join(index))
    }

    /// Returns a Git command with [`EXACT`] and [`DURABLE`] before it.
    #[expect(clippy::unused_self, reason = "reads as a part of the call that it is in")]
    fn exact<'s>(&self, command: impl IntoIterator<Item = &'s str>) -> Vec<&'s str> {
        EXACT.into_iter().chain(DURABLE).flat_map(|setting| ["-c", setting]).chain(command).collect()
    }

    /// Returns the commits that only the admin directory names, and those that an operation in progress needs.
    fn others(&self, state: &admin_directory::State) -> Result<BTreeSet<String>, Error> {
        let Some(tips) = &self.tips else { return Ok(BTreeSet::new()) };
        let own = tips.own.iter().map(|(object, _)| object);
        let all = own.chain(&tips.left).chain(&tips.logged).chain(&state.named);
        let all: BTreeSet<&str> = all.map(String::as_str).collect();
        // An earlier rescue may be deleted, so this rescue must not depend on it.
        let lost = unsaved::lost(self.task, self.worktree, self.paths, &all, Some(&self.head), &[name::ALL])?;
        let others = all.into_iter().filter(|tip| lost.contains(*tip) || state.needed.contains(*tip));
        Ok(others.map(str::to_owned).collect())
    }

    fn commit(&self, tree: &str, parents: &[String], message: &str) -> Result<String, Error> {
        let mut args: Vec<&str> = self.exact(["commit-tree", tree]);
        args.extend(parents.iter().flat_map(|parent| ["-p", parent.as_str()]));
        let mut git = Git::open(self.task.host, self.paths.common.path(), None);
        for role in ["AUTHOR", "COMMITTER"] {
            git = git.with_variable(&format!("GIT_{role}_NAME"), "seedbed");
            git = git.with_variable(&format!("GIT_{role}_EMAIL"), "seedbed@localhost");
        }
        let commit = git.run_with_input(args, message.as_bytes().to_vec())?;
        Ok(String::from_utf8_lossy(&commit).trim_end().to_owned())
    }

    /// Checks that every object exists that the rescue has and no other ref reaches. Before the ref existed, a `git gc
    /// --prune=now` of another process could remove such objects. A second rescue writes the missing objects again.
    fn check_whole(&self, reference: &str) -> Result<(), Error> {
        let git = Git::open(self.task.host, self.paths.common.path(), None).holding(self.task.lock);
        let all = format!("--exclude={}", name::ALL);
        let args = [
            "rev-list",
            "--objects",
            "--quiet",
            reference,
            "--not",
            &self.worktree.commit,
            &all,
            "--glob=refs/*",
        ];
        let checked = git.run(args);
        checked.map(drop).map_err(|error| {
            Error::Refused(format!(
                "{reference} cannot be verified ({error}): if Git names a torn ref, remove the file of that ref \
                 below {}; if objects were removed meanwhile, as by `git gc --prune=now`, try again",
                self.paths.common.path().display()
            ))
        })
    }

    fn remove_ref(&self, name: &str, commit: &str) -> Result<(), Error> {
        let git = Git::open(self.task.host, self.paths.common.path(), None).holding(self.task.lock);
        git.run_beside_others(&["update-ref", "-d", name, commit])?;
        Ok(())
    }

    /// Creates a ref; `false` if the name already exists.
    fn create_ref(&self, name: &str, commit: &str) -> Result<bool, Error> {
        let git = Git::open(self.task.host, self.paths.common.path(), None).holding(self.task.lock);
        let zero = "0".repeat(commit.len());
        match git.run_beside_others(&self.exact(["update-ref", name, commit, &zero])) {
            Ok(_) => Ok(true),
            Err(error) => {
                let existing = git.output(["rev-parse", "--verify", "--quiet", "--end-of-options", name])?;
                if existing.status.success() { Ok(false) } else { Err(error.into()) }
            }
        }
    }
}
