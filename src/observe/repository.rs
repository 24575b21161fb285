//! Repository around a directory.

#![expect(clippy::disallowed_methods, reason = "compares directories")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Branch, Error, Repository};
use crate::host::absolute;
use crate::host::files::Root;
use crate::host::git::Git;
use crate::host::git::config::{self, Settings};
use crate::host::process;
use crate::host::text::printable;

/// Extensions of the repository format that do not affect the registration of a worktree.
///
/// Any other extension may: `relativeWorktrees`, for example, requires relative paths in `gitdir` and `.git`.
const HARMLESS: [&str; 6] =
    ["objectformat", "worktreeconfig", "noop", "noop-v1", "preciousobjects", "partialclone"];

/// Setting of the permissions that Git gives its own files and directories.
const SHARED: &str = "core.sharedrepository";

/// Pattern of the settings that are read from the repository's own file, as Git reads them.
const SETTINGS: &str = r"^(extensions\.|core\.bare$)";

/// Largest configuration of a repository that is read, in bytes.
const CONFIG_MAX: usize = 1 << 20;

/// Location of the repository that Git finds.
pub(super) struct LocatedRepository {
    root: PathBuf,
    common_dir: PathBuf,
    bare: bool,
    object_format: String,
}

impl LocatedRepository {
    /// Returns the absolute path of the common Git directory.
    pub(super) fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// Returns whether the repository has no work tree of its own.
    pub(super) fn is_bare(&self) -> bool {
        self.bare
    }

    /// Returns the location, if `directory`, without links, is the top of the work tree or the bare repository.
    pub(super) fn at_top(self, directory: &Path) -> Result<Self, String> {
        let is_top = if self.bare { &self.common_dir } else { &self.root } == directory;
        if is_top {
            return Ok(self);
        }
        let (directory, root) = (directory.display(), self.root.display());
        Err(printable(&format!(
            "{directory} is a directory in the repository {root}, and not a repository itself"
        )))
    }

    /// Returns the repository, with its own settings and branches.
    pub(super) fn repository(
        self,
        settings: &Settings,
        is_shared: bool,
        branches: BTreeMap<String, Branch>,
    ) -> Result<Repository, Error> {
        let common = Root::open(&self.common_dir).map_err(Error::Repository)?;
        let names = common.names().map_err(Error::Repository)?;
        let worktrees = match common.directory(Path::new("worktrees")).map_err(Error::Repository)? {
            Some(worktrees) => worktrees.names().map_err(Error::Repository)?,
            None => BTreeSet::new(),
        };
        Ok(Repository {
            registration: registration(settings, is_shared, names.contains(OsStr::new("config.worktree"))),
            bare: self.bare || config::is_on(settings, "core.bare"),
            worktree_config: config::is_on(settings, "extensions.worktreeconfig"),
            branches,
            worktrees: worktrees.iter().map(|name| name.to_string_lossy().into_owned()).collect(),
            root: self.root,
            common_dir: self.common_dir,
            object_format: self.object_format,
        })
    }
}

/// Returns the directory at `root`, which is relative to the workspace or absolute, without links. The error is the
/// reason, one line and safe to print, for which it cannot be used.
pub(super) fn directory(workspace: &Path, root: &Path) -> Result<PathBuf, String> {
    let shown = printable(&absolute(workspace, root).to_string_lossy());
    match std::fs::canonicalize(workspace.join(root)) {
        Ok(found) if !found.is_dir() => Err(format!("{shown} is not a directory")),
        Ok(found) if found.to_str().is_none() => Err(format!("the path of {shown} is not UTF-8")),
        Ok(found) => Ok(found),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("{shown} does not exist")),
        Err(error) => Err(format!("{shown} cannot be used: {error}")),
    }
}

/// Finds the repository that contains `workspace`, or returns the reason, one line and safe to print, for which none
/// can be used.
///
/// `version` returns whether this Git can be used.
pub(super) fn locate(
    git: &Git<'_>,
    workspace: &Path,
    version: impl FnOnce() -> Result<(), process::Error>,
) -> Result<Result<LocatedRepository, String>, Error> {
    Ok(find(git, workspace, version)?.map_err(|reason| printable(&reason)))
}

fn find(
    git: &Git<'_>,
    workspace: &Path,
    version: impl FnOnce() -> Result<(), process::Error>,
) -> Result<Result<LocatedRepository, String>, Error> {
    // The top level is last: if there is none, Git prints the rest and then fails.
    let output = git.output([
        "rev-parse",
        "--is-bare-repository",
        "--show-object-format",
        "--path-format=absolute",
        "--git-common-dir",
        "--show-toplevel",
    ]);
    let output = match version().and(output) {
        Err(process::Error::Start { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Err("git is not installed, or not in PATH: install git 2.36 or later".to_owned()));
        }
        Err(error @ (process::Error::TooOld { .. } | process::Error::Obstructed { .. })) => {
            return Ok(Err(error.to_string()));
        }
        other => other?,
    };
    let text = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let path = |line: &[u8]| PathBuf::from(OsStr::from_bytes(line));
    Ok(match lines[..] {
        [b"false", _, common_dir, root]
            if output.status.success() && !leads_to(&path(root), &path(common_dir)) =>
        {
            let (root, common_dir) = (path(root), path(common_dir));
            Err(format!(
                "the work tree of {} is {}, which does not lead back there: look at `git config --show-origin \
                 core.worktree`, and unset it",
                common_dir.display(),
                root.display()
            ))
        }
        [bare, format, common_dir, root] if output.status.success() => Ok(LocatedRepository {
            root: path(root),
            common_dir: path(common_dir),
            bare: bare == b"true",
            object_format: String::from_utf8_lossy(format).into_owned(),
        }),
        [b"true", format, common_dir] => Ok(LocatedRepository {
            root: workspace.to_owned(),
            common_dir: path(common_dir),
            bare: true,
            object_format: String::from_utf8_lossy(format).into_owned(),
        }),
        [b"false", _, _] => {
            Err(format!("{} is inside a Git directory, not in a work tree", workspace.display()))
        }
        _ if output.status.success() => {
            Err(format!("the path of the repository around {} contains a line break", workspace.display()))
        }
        _ => Err(refusal(workspace, &String::from_utf8_lossy(&output.stderr))),
    })
}

/// Returns whether the `.git` of a work tree is the repository with this common directory, or a file that names it.
///
/// A setting (`core.worktree`) can name a work tree without a way back to the repository.
fn leads_to(root: &Path, common_dir: &Path) -> bool {
    let dot_git = root.join(".git");
    let line = |directory: &Path, name: &str, head: &[u8]| {
        let bytes = Root::open(directory).ok()?.read(Path::new(name), CONFIG_MAX).ok()??;
        Some(directory.join(OsStr::from_bytes(bytes.strip_prefix(head)?.trim_ascii_end())))
    };
    let git_dir = line(root, ".git", b"gitdir: ").unwrap_or(dot_git);
    let common = line(&git_dir, "commondir", b"").unwrap_or(git_dir);
    let found = std::fs::canonicalize(common);
    found.is_ok_and(|found| std::fs::canonicalize(common_dir).is_ok_and(|common_dir| found == common_dir))
}

/// Returns the reason for which Git finds no repository. Known messages of Git are reworded.
fn refusal(workspace: &Path, stderr: &str) -> String {
    let workspace = workspace.display();
    if stderr.contains("dubious ownership") {
        let remedy = stderr.lines().map(str::trim).find(|line| line.starts_with("git config"));
        let remedy = remedy.unwrap_or("git config --global --add safe.directory DIRECTORY");
        format!("the repository around {workspace} belongs to another user; if you trust it, run `{remedy}`")
    } else if stderr.contains("not a git repository") {
        format!(
            "{workspace} is not in a git repository: run `git init` there, or name a repository as `root`"
        )
    } else {
        let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let text = lines.join(" ");
        format!(
            "git cannot use the repository around {workspace}: {}",
            text.strip_prefix("fatal: ").unwrap_or(&text)
        )
    }
}

/// Returns the repository's own settings that are needed here.
///
/// A configuration without these settings, as most are, needs no Git process.
pub(super) fn settings(git: &Git<'_>, place: &LocatedRepository) -> Result<Settings, Error> {
    let common = Root::open(&place.common_dir).map_err(Error::Repository)?;
    // A configuration that cannot be read as a file is left to Git.
    if let Ok(Some(text)) = common.read(Path::new("config"), CONFIG_MAX)
        && is_plain(&text)
    {
        return Ok(Settings::new());
    }
    let output = git.output(["config", "--local", "--null", "--get-regexp", SETTINGS])?;
    Ok(config::parse(&output.stdout))
}

/// Returns whether a configuration has no extensions and is not of a bare repository.
///
/// The names of sections and keys have no escapes. A value that happens to contain such a name costs a Git process.
fn is_plain(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    let has = |line: &[u8], word: &[u8]| line.windows(word.len()).any(|window| window == word);
    text.split(|byte| *byte == b'\n').all(|line| {
        !has(line, b"extensions") && (!has(line, b"bare") || line.trim_ascii() == b"bare = false")
    })
}

fn registration(settings: &Settings, is_shared: bool, has_worktree_config: bool) -> Result<(), String> {
    for (name, value) in settings {
        let Some(extension) = name.strip_prefix("extensions.") else { continue };
        let value = value.as_deref().unwrap_or("true");
        if extension == "refstorage" && value != "files" {
            return Err(format!("its refs are kept in the format `{value}`"));
        }
        if extension != "refstorage" && !HARMLESS.contains(&extension) {
            return Err(format!("it uses the extension `{extension}`, which seedbed does not know"));
        }
    }
    if is_shared {
        return Err("`core.sharedRepository` sets permissions that only Git gives".to_owned());
    }
    if has_worktree_config {
        return Err("it has a `config.worktree`, which `git worktree add` carries over".to_owned());
    }
    Ok(())
}

/// Returns whether Git gives its files other permissions than the umask, by any of its configuration files.
///
/// The user's configuration and included files count too. A value that is no switch is the name or the octal number of
/// permissions, or Git refuses it.
pub(super) fn is_shared(git: &Git<'_>) -> Result<bool, Error> {
    const UMASK: [&str; 6] = ["umask", "false", "no", "off", "0", ""];
    let output = git.output(["config", "--null", "--get-regexp", r"^core\.sharedrepository$"])?;
    Ok(config::parse(&output.stdout).get(SHARED).is_some_and(|value| {
        !value.as_ref().is_some_and(|value| UMASK.contains(&value.to_ascii_lowercase().as_str()))
    }))
}

#[cfg(test)]
mod tests;
