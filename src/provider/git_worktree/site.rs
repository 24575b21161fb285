//! Where a worktree and its entry lie on this host, found by reading files: a torn entry makes git itself die.

#![expect(clippy::disallowed_methods, reason = "finds the repository by looking at the disk")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::Worktree;
use super::layout::{self, NESTED};
use crate::host::files::{self, Root};
use crate::provider::{Error, Location, Task, again_while_missing};

/// The most that is read of any file of an entry, in bytes; git's own hold one line.
const LINE_MAX: usize = 64 * 1024;

/// Where a worktree and its entry lie.
#[derive(Debug)]
pub(super) struct Site {
    /// The common git directory, canonical, as git writes it into the files of an entry.
    pub(super) common: Root,
    /// The workspace, canonical.
    pub(super) workspace: PathBuf,
    /// The top of the repository's work tree, canonical; for a bare repository the repository itself.
    pub(super) repo_root: PathBuf,
    /// The innermost work tree around the worktree, or what stands for it: everything of the worktree is reached from
    /// there without following links, and git sees there what is not hidden.
    pub(super) base: Root,
    /// The directory that the worktree lies in, relative to `base`.
    pub(super) parent: PathBuf,
    /// The worktree's name in `parent`.
    pub(super) name: OsString,
    /// The worktree, absolute.
    pub(super) worktree: PathBuf,
    /// The entry, relative to `common`.
    pub(super) entry: PathBuf,
    /// The worktree's path at [`Location::Home`], absolute, by which messages call it and its entry knows it.
    pub(super) home: PathBuf,
    /// The name of its entry at [`Location::Home`].
    entry_name: String,
}

impl Site {
    /// Finds the site of a task. The workspace and the repository have to exist, the worktree and its entry do not.
    pub(super) fn of(task: &Task<'_>, worktree: &Worktree) -> Result<Self, Error> {
        Self::at(task.location, task, worktree)
    }

    /// The same at another location than the task's.
    pub(super) fn at(location: Location, task: &Task<'_>, worktree: &Worktree) -> Result<Self, Error> {
        let workspace = canonical(task.workspace)?;
        let (above, below) = anchor(&workspace, &worktree.worktree_path);
        let home = above.join(&below);
        let below = below_at(location, task, worktree, &below);
        let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
            return Err(Error::Refused(format!("{} cannot be a worktree", worktree.worktree_path.display())));
        };
        if worktree.entry.is_empty()
            || worktree.entry.contains(['/', '\0'])
            || worktree.entry.starts_with('.')
        {
            return Err(Error::Refused(format!("{:?} cannot name a worktree", worktree.entry)));
        }
        let (base, parent) = innermost(Root::open(&above)?, parent)?;
        let (root_above, root_below) = anchor(&workspace, &worktree.repo_root);
        let repo_root = canonical(&root_above.join(root_below))?;
        Ok(Self {
            common: Root::open(&common_dir(&repo_root)?)?,
            repo_root,
            base,
            parent,
            name: name.to_owned(),
            worktree: above.join(&below),
            entry: entry_at(location, task, worktree),
            home,
            entry_name: worktree.entry.clone(),
            workspace,
        })
    }

    /// The entry, absolute.
    pub(super) fn entry_path(&self) -> PathBuf {
        self.common.path().join(&self.entry)
    }

    /// The entry's path at [`Location::Home`], absolute, by which the worktree's `.git` file knows it.
    pub(super) fn home_entry_path(&self) -> PathBuf {
        self.common.path().join(self.home_entry())
    }

    /// The same relative to the common git directory.
    pub(super) fn home_entry(&self) -> PathBuf {
        Path::new("worktrees").join(&self.entry_name)
    }

    /// What the entry's `gitdir` says: where the worktree's `.git` file lies.
    pub(super) fn gitdir_line(&self) -> Vec<u8> {
        line(b"", &self.home.join(".git"))
    }

    /// What the worktree's `.git` file says: where the entry lies.
    pub(super) fn dot_git_line(&self) -> Vec<u8> {
        line(b"gitdir: ", &self.home_entry_path())
    }

    /// The worktree's directory; `None` where there is none.
    pub(super) fn directory(&self) -> Result<Option<Root>, Error> {
        Ok(self.base.directory(&self.parent.join(&self.name))?)
    }

    /// The worktree's directory, which has to be there.
    pub(super) fn standing(&self) -> Result<Root, Error> {
        self.directory()?.ok_or_else(|| Error::Refused(format!("{} is gone", self.worktree.display())))
    }

    /// Reads a file of the entry.
    pub(super) fn read_entry(&self, name: &str) -> Result<Content, Error> {
        read(&self.common, &self.entry.join(name))
    }
}

/// Opens the common git directory of the repository that a worktree is of.
pub(super) fn common_of(workspace: &Path, worktree: &Worktree) -> Result<Root, Error> {
    let workspace = canonical(workspace)?;
    let (above, below) = anchor(&workspace, &worktree.repo_root);
    Ok(Root::open(&common_dir(&canonical(&above.join(below))?)?)?)
}

/// The path of a worktree at a location, by that at [`Location::Home`], relative to the same directory.
pub(super) fn below_at(location: Location, task: &Task<'_>, worktree: &Worktree, below: &Path) -> PathBuf {
    match location {
        Location::Home => below.to_owned(),
        Location::Aside => outermost(below).with_file_name(layout::aside_name(task, worktree)),
    }
}

/// The path of the admin directory at a location, relative to the common git directory.
pub(super) fn entry_at(location: Location, task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    match location {
        Location::Home => Path::new("worktrees").join(&worktree.entry),
        Location::Aside => layout::aside_entry(task, worktree),
    }
}

/// What was found at the place of a small file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing.
    Missing,
    /// A file without a byte, as a crash leaves it.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A directory, a link, something huge: whatever git never puts there.
    Irregular,
}

/// Reads a small file without falling over what else may stand in its place.
pub(super) fn read(root: &Root, relative: &Path) -> Result<Content, Error> {
    match root.read(relative, LINE_MAX) {
        Ok(None) => Ok(Content::Missing),
        Ok(Some(bytes)) if bytes.is_empty() => Ok(Content::Empty),
        Ok(Some(bytes)) => Ok(Content::Bytes(bytes)),
        Err(files::Error::Link { .. } | files::Error::Irregular { .. } | files::Error::TooLarge { .. }) => {
            Ok(Content::Irregular)
        }
        Err(error) => Err(error.into()),
    }
}

/// Renames a directory, making the one that it goes into; `false` where `from` does not exist.
pub(super) fn move_directory(root: &Root, from: &Path, to: &Path) -> Result<bool, Error> {
    again_while_missing(|| {
        if root.directory(from)?.is_none() {
            return Ok(false);
        }
        if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            root.create_directories(parent)?;
        }
        if root.rename(from, to)? {
            return Ok(true);
        }
        let source = std::io::Error::from(ErrorKind::NotFound);
        Err(io("rename", &root.path().join(from))(source))
    })
}

/// Renames a worktree's directory from one site of it to another; `false` where there is none.
pub(super) fn move_worktree(from: &Site, to: &Site) -> Result<bool, Error> {
    if from.directory()?.is_none() {
        return Ok(false);
    }
    again_while_missing(|| {
        let target = to.base.create_hidden(&to.parent)?;
        Ok(from.base.rename_into(&from.parent.join(&from.name), &target, Path::new(&to.name))?)
    })
}

/// Wraps what the system says of a path.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| files::Error::Io { action, path: path.to_path_buf(), source }.into()
}

/// Divides a planned path into a directory to open, links followed, and the rest, which is reached without.
///
/// What is absolute and outside the workspace is reached from `/`: a link on the way is refused, since it may have been
/// planted in the worktree of a parent session.
pub(super) fn anchor(workspace: &Path, planned: &Path) -> (PathBuf, PathBuf) {
    if let Ok(below) = planned.strip_prefix(workspace) {
        return (workspace.to_path_buf(), below.to_path_buf());
    }
    if let Ok(below) = planned.strip_prefix("/") {
        return (PathBuf::from("/"), below.to_path_buf());
    }
    let mut above = workspace.to_path_buf();
    let mut rest = planned.components();
    loop {
        let here = rest.clone();
        match rest.next() {
            Some(Component::CurDir) => {}
            Some(Component::ParentDir) => {
                above.pop();
            }
            _ => return (above, here.as_path().to_path_buf()),
        }
    }
}

/// The worktree that a planned path lies in, as that of a nested child does in its parent's; else the path itself. It is
/// told by the path alone: when it is asked, the worktree may have been moved.
fn outermost(path: &Path) -> PathBuf {
    let names: Vec<_> = path.components().collect();
    let nested: Vec<_> = Path::new(NESTED).components().collect();
    let at = names.windows(nested.len()).position(|window| window == nested).filter(|at| *at > 0);
    at.map_or_else(|| path.to_path_buf(), |at| names[..at].iter().collect())
}

/// Moves down into the last directory on the way that is a work tree of its own: that of a parent session, which does
/// not know what an outer `.gitignore` hides.
fn innermost(base: Root, relative: &Path) -> Result<(Root, PathBuf), Error> {
    let mut found = (base, relative.to_path_buf());
    let mut components = relative.components();
    let mut way = PathBuf::new();
    while let Some(component) = components.next() {
        way.push(component);
        let Some(directory) = found.0.directory(&way)? else { break };
        if read(&directory, Path::new(".git"))? != Content::Missing {
            found = (directory, components.as_path().to_path_buf());
            way.clear();
        }
    }
    Ok(found)
}

pub(super) fn common_dir(repo_root: &Path) -> Result<PathBuf, Error> {
    let dot_git = repo_root.join(".git");
    let git_dir = match fs::metadata(&dot_git) {
        Ok(found) if found.is_dir() => dot_git,
        Ok(_) => {
            let bytes = read_file(&dot_git)?.unwrap_or_default();
            match bytes.strip_prefix(b"gitdir: ") {
                Some(path) => repo_root.join(as_path(path)),
                None => return Err(no_repository(repo_root)),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => repo_root.to_path_buf(),
        Err(error) => return Err(io("look at", &dot_git)(error)),
    };
    let pointer = git_dir.join("commondir");
    let common = match read_file(&pointer)? {
        Some(bytes) => git_dir.join(as_path(&bytes)),
        None => git_dir,
    };
    if common.join("objects").is_dir() { canonical(&common) } else { Err(no_repository(repo_root)) }
}

/// Reads a file, a link to it followed; `None` where there is none. What is no file would perhaps be waited for.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => fs::read(path).map(Some).map_err(io("read", path)),
        Ok(_) => Err(Error::Refused(format!("{} is not a file: remove it", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("look at", path)(error)),
    }
}

fn no_repository(path: &Path) -> Error {
    Error::Refused(format!("{} is not a git repository", path.display()))
}

pub(super) fn canonical(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(io("find", path))
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes.strip_suffix(b"\n").unwrap_or(bytes)))
}

fn line(head: &[u8], path: &Path) -> Vec<u8> {
    [head, path.as_os_str().as_bytes(), b"\n"].concat()
}
