//! Writes the index and the files as trees.

#![expect(clippy::disallowed_methods, reason = "works in a scratch directory of its own")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Work;
use crate::provider::Error;
use crate::provider::git_worktree::paths::{Content, io, read};
use crate::provider::git_worktree::unsaved::ListedFile;
use crate::provider::git_worktree::untracked::CopiedFiles;
use crate::provider::git_worktree::{files, index};

/// Copy of the session's index.
pub(super) const INDEX: &str = "index";

/// Index to which the files are added.
pub(super) const FILES: &str = "files";

/// Index whose tree represents the session's index.
const STAGED: &str = "staged";

/// Index of the sides of unmerged files.
const SIDES: &str = "sides";

/// Copies the session's index to [`INDEX`], and writes its tree, in which unmerged files have our side. If Git cannot
/// read the index, that of HEAD replaces it.
pub(super) fn index(work: &mut Work<'_>) -> Result<String, Error> {
    let path = work.scratch.join(INDEX);
    let found = work.paths.common.read(&work.paths.admin_directory.join("index"), index::MAX);
    let readable = match found {
        Ok(Some(bytes)) => {
            fs::write(&path, bytes).map_err(io("write", &path))?;
            // The index must be one file that needs no other. If Git cannot convert the index, Git cannot use it at
            // all.
            let whole = work.exact(["update-index", "--no-split-index", "--no-untracked-cache"]);
            work.git(INDEX).run(whole).is_ok() && work.git(INDEX).run(["ls-files", "--stage", "-z"]).is_ok()
        }
        Ok(None) | Err(_) => false,
    };
    if !readable {
        work.missing.push(
            "its index does not exist or cannot be read: staged changes cannot be distinguished from others"
                .to_owned(),
        );
        let lock = work.scratch.join(format!("{INDEX}.lock"));
        for path in [&path, &lock] {
            if path.exists() {
                fs::remove_file(path).map_err(io("remove", path))?;
            }
        }
        work.git(INDEX).run(work.exact(["read-tree", &work.head]))?;
    }
    copy(work, INDEX, STAGED)?;
    let mut ours = Vec::new();
    let zero = "0".repeat(work.head.len());
    for (path, sides) in unmerged(work)? {
        ours.extend([b"0 ", zero.as_bytes(), b"\t", path.as_slice(), b"\0"].concat());
        if let Some((mode, object)) = sides.get("2") {
            ours.extend([mode.as_bytes(), b" ", object.as_bytes(), b"\t", path.as_slice(), b"\0"].concat());
        }
    }
    if !ours.is_empty() {
        work.git(STAGED).run_with_input(work.exact(["update-index", "-z", "--index-info"]), ours)?;
    }
    Ok(work.git(STAGED).line(work.exact(["write-tree"]))?)
}

/// Adds to [`FILES`] everything that is on the disk and that Git does not ignore.
pub(super) fn working_tree(work: &Work<'_>) -> Result<(), Error> {
    copy(work, INDEX, FILES)?;
    let git = work.git(FILES);
    let listed = git.run(["ls-files", "-v", "--stage", "-z"])?;
    let (mut assumed, mut skipped) = (Vec::new(), Vec::new());
    for file in listed.split(|byte| *byte == 0).filter_map(ListedFile::parse).filter(|file| file.hidden) {
        let line = [file.path.as_os_str().as_bytes(), b"\0"].concat();
        assumed.extend_from_slice(&line);
        // Files that a sparse checkout leaves out are not deleted.
        if fs::symlink_metadata(work.paths.worktree.join(file.path)).is_ok() {
            skipped.extend_from_slice(&line);
        }
    }
    for (option, file_paths) in [("--no-assume-unchanged", assumed), ("--no-skip-worktree", skipped)] {
        if !file_paths.is_empty() {
            git.run_with_input(work.exact(["update-index", option, "-z", "--stdin"]), file_paths)?;
        }
    }
    let sparse = read(&work.paths.common, &work.paths.admin_directory.join("info/sparse-checkout"))?;
    // Without this option Git adds nothing outside of a sparse checkout. Git before 2.34 does not have the option.
    let outside = if sparse == Content::Missing { None } else { Some("--sparse") };
    let all = || ["add", "--all"].into_iter().chain(outside);
    let seeded =
        work.worktree.seeded().map(|directory| format!(":(top,exclude,literal){}", directory.display()));
    let seeded: Vec<_> = seeded.collect();
    if seeded.is_empty() {
        git.run(work.exact(all()))?;
    } else {
        // Dependencies are not work, except for files that the session tracks there.
        git.run(work.exact(["add", "--update"].into_iter().chain(outside)))?;
        git.run(work.exact(all().chain(["--", ":/"]).chain(seeded.iter().map(String::as_str))))?;
    }
    let copied_files = CopiedFiles::new(work.worktree, work.paths);
    let edited = files::edited(work.task, work.paths, |path| copied_files.is_untouched(path))?;
    if !edited.is_empty() {
        let names: Vec<_> = edited.iter().map(|path| path.to_string_lossy()).collect();
        let force = ["--literal-pathspecs", "add", "--force"].into_iter().chain(outside).chain(["--"]);
        git.run(work.exact(force.chain(names.iter().map(|name| &**name))))?;
    }
    let listed = git.run(["ls-files", "-v", "--stage", "-z"])?;
    let repositories = listed.split(|byte| *byte == 0).filter_map(ListedFile::parse).filter(|file| {
        file.mode == "160000"
            && fs::symlink_metadata(work.paths.worktree.join(file.path).join(".git")).is_ok()
    });
    let repositories: Vec<_> = repositories.map(|file| file.path.to_string_lossy().into_owned()).collect();
    if !repositories.is_empty() {
        return Err(Error::Refused(format!(
            "{} contains repositories of their own ({}), which Git cannot put into a commit; move them away",
            work.paths.home.display(),
            repositories.join(", ")
        )));
    }
    Ok(())
}

/// Returns a tree of the sides of unmerged files, as `1/PATH` (the common ancestor), `2/PATH` (ours) and `3/PATH`
/// (theirs). The text is empty if everything is merged.
pub(super) fn sides(work: &Work<'_>) -> Result<String, Error> {
    let mut lines = Vec::new();
    for (path, sides) in unmerged(work)? {
        for (stage, (mode, object)) in sides {
            let line = format!("{mode} {object}\t{stage}/");
            lines.extend([line.as_bytes(), path.as_slice(), b"\0"].concat());
        }
    }
    if lines.is_empty() {
        return Ok(String::new());
    }
    tree_of(work, SIDES, lines)
}

/// Returns the empty tree.
pub(super) fn empty_tree(work: &Work<'_>) -> Result<String, Error> {
    let tree = work.git(SIDES).run_with_input(work.exact(["mktree"]), Vec::new())?;
    Ok(String::from_utf8_lossy(&tree).trim_end().to_owned())
}

/// Writes a tree from lines of `MODE OBJECT`, a tab and the path, each ended by NUL. It uses an index of the given
/// name.
pub(super) fn tree_of(work: &Work<'_>, index: &str, lines: Vec<u8>) -> Result<String, Error> {
    let git = work.git(index);
    git.run_with_input(work.exact(["update-index", "-z", "--index-info"]), lines)?;
    Ok(git.line(work.exact(["write-tree"]))?)
}

/// Modes and objects of unmerged files, by path and stage.
type Unmerged = BTreeMap<Vec<u8>, BTreeMap<String, (String, String)>>;

fn unmerged(work: &Work<'_>) -> Result<Unmerged, Error> {
    let listed = work.git(INDEX).run(["ls-files", "--unmerged", "-z"])?;
    let mut unmerged = Unmerged::new();
    for line in listed.split(|byte| *byte == 0) {
        let Some(tab) = line.iter().position(|byte| *byte == b'\t') else { continue };
        let words = String::from_utf8_lossy(&line[..tab]).into_owned();
        if let [mode, object, stage] = words.split(' ').collect::<Vec<_>>()[..] {
            let sides = unmerged.entry(line[tab + 1..].to_vec()).or_default();
            sides.insert(stage.to_owned(), (mode.to_owned(), object.to_owned()));
        }
    }
    Ok(unmerged)
}

fn copy(work: &Work<'_>, from: &str, to: &str) -> Result<(), Error> {
    let (from, to) = (work.scratch.join(from), work.scratch.join(to));
    fs::copy(&from, &to).map(drop).map_err(io("copy", &from))
}

/// Returns a path as Git prints it between NULs.
pub(super) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
