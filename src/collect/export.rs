//! Writes the commits of sessions, and files of their worktrees, to a directory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rayon::prelude::*;
use rustix::fs::FileType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, Outcome, Source, Work};
use crate::host::files::Root;
use crate::host::files::copies::Files;
use crate::host::git::Git;
use crate::host::{Host, absolute, clock};
use crate::name::SessionPath;
use crate::provider::git_worktree::{self, Worktree};

/// Files that [`export`] wrote for one worktree. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Exported {
    /// Bundle of the commits, which `git fetch` reads; `null` if the worktree has none.
    pub bundle: Option<PathBuf>,
    /// Patch of the commits, which `git am` reads (with `--empty=keep` if one is empty); of a history with merges, one for
    /// `git apply`. `null` if the worktree has no commits.
    pub patch: Option<PathBuf>,
    /// Copies of files in the worktree.
    pub artifacts: Vec<PathBuf>,
}

/// Writes the results of worktrees into `directory`, an absolute path: below a directory for each session, whose name is
/// the session's path with `+` for `/`. There, each of several worktrees of a session has a directory with the name of
/// the resource. `results` are those that [`collect`](super::collect) returned for `sources`.
///
/// `artifacts` are globs for files in the worktrees, such as `target/*.log`. Symbolic links are copied as links, and
/// none is followed.
///
/// # Errors
///
/// `directory` is not empty, a glob is wrong, or something cannot be read or written.
/// Files that were written stay.
pub fn export(
    host: &Host,
    workspace: &Path,
    sources: &[Source<'_>],
    results: &[Outcome],
    artifacts: &[String],
    directory: &Path,
) -> Result<Vec<Exported>, Error> {
    let globs = globs(artifacts)?;
    let target = Root::create(directory)?;
    if !target.names()?.is_empty() {
        return Err(Error::NotEmpty(directory.to_owned()));
    }
    let mut numbers: BTreeMap<&SessionPath, usize> = BTreeMap::new();
    for source in sources {
        *numbers.entry(source.session).or_default() += 1;
    }
    let one = |(source, result): (&Source<'_>, &Outcome)| {
        let mut name = PathBuf::from(result.session.as_str().replace('/', "+"));
        if numbers[source.session] > 1 {
            name.push(source.resource);
        }
        let to = target.create_directories(&name)?;
        let (bundle, patch) = match &result.work {
            Some(work) if !work.commits.is_empty() => {
                let (bundle, patch) = commits(host, workspace, source, result, work, &to)?;
                (Some(bundle), Some(patch))
            }
            _ => (None, None),
        };
        let worktree = absolute(workspace, &source.worktree.worktree_path);
        let artifacts =
            if globs.is_empty() { Vec::new() } else { copy(&source.worktree, &worktree, &globs, &to)? };
        Ok(Exported { bundle, patch, artifacts })
    };
    sources.par_iter().zip(results).map(one).collect()
}

/// Writes the bundle and the patch of a worktree.
fn commits(
    host: &Host,
    workspace: &Path,
    source: &Source<'_>,
    result: &Outcome,
    work: &Work,
    to: &Root,
) -> Result<(PathBuf, PathBuf), Error> {
    let (bundle, patch) = (to.path().join("commits.bundle"), to.path().join("commits.patch"));
    let Work { head, merge_base, .. } = work;
    let admin = git_worktree::admin_directory(workspace, &source.worktree)?;
    let git = Git::open(host, &admin, None);
    // A bundle names refs. HEAD is the worktree's own.
    let not = format!("^{merge_base}");
    let branch = result.branch.as_ref().map(|branch| format!("refs/heads/{branch}"));
    let refs = ["HEAD"].into_iter().chain(branch.as_deref()).chain([not.as_str()]);
    let arguments = ["bundle", "create", "--quiet"].map(OsStr::new).into_iter();
    git.run(arguments.chain([bundle.as_os_str()]).chain(refs.map(OsStr::new)))?;

    let (range, output) = (format!("{merge_base}..{head}"), output(&patch));
    let merges = git.line(["rev-list", "--count", "--merges", range.as_str(), "--"])?;
    // Each option overrides a setting of the user that `git am` could not read.
    let command: &[&str] = if merges == "0" {
        &[
            "format-patch",
            "--no-attach",
            "--no-thread",
            "--no-cover-letter",
            "--no-base",
            "--no-signoff",
            "--no-add-header",
            "--subject-prefix=PATCH",
        ]
    } else {
        &["diff"]
    };
    let options = [
        "--binary",
        "--full-index",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--src-prefix=a/",
        "--dst-prefix=b/",
        "--submodule=short",
        "--unified=3",
    ];
    let arguments = command.iter().copied().chain(options).map(OsStr::new);
    git.run(arguments.chain([output.as_os_str(), OsStr::new(&range), OsStr::new("--")]))?;
    Ok((bundle, patch))
}

fn output(path: &Path) -> OsString {
    let mut option = OsString::from("--output=");
    option.push(path);
    option
}

fn globs(patterns: &[String]) -> Result<GlobSet, Error> {
    let mut globs = GlobSetBuilder::new();
    for pattern in patterns {
        globs.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
    }
    Ok(globs.build()?)
}

/// Copies the files of a worktree that the globs match to `artifacts` below `to`, and returns the copies. Discovery files
/// describe the session on this host, and are not copied.
fn copy(allocation: &Worktree, worktree: &Path, globs: &GlobSet, to: &Root) -> Result<Vec<PathBuf>, Error> {
    let now = i64::try_from(clock::seconds()).unwrap_or(i64::MAX);
    let top = Root::open(worktree)?;
    let mut copied = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        // Another process may remove a listed directory.
        let Some(from) = top.directory(&below)? else { continue };
        let names = from.names()?;
        let is_type = |name: &OsStr, wanted| from.file_type(name) == Some(wanted);
        let directories = names.iter().filter(|name| *name != ".git" && is_type(name, FileType::Directory));
        left.extend(directories.map(|name| below.join(name)));
        let matched = names.iter().filter(|name| {
            let path = below.join(name);
            globs.is_match(&path) && !git_worktree::is_discovery(allocation, &path)
        });
        for name in matched {
            let is_file = is_type(name, FileType::RegularFile);
            if !is_file && !is_type(name, FileType::Symlink) {
                continue;
            }
            let mut files = Files::new(&from, now);
            if is_file {
                files.file(name, |_| true)?;
            } else {
                files.link(name, |_| true)?;
            }
            let target = to.create_directories(&Path::new("artifacts").join(&below))?;
            files.write(&target)?;
            copied.push(target.path().join(name));
        }
    }
    copied.sort();
    Ok(copied)
}
