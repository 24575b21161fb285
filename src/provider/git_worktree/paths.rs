//! Finds a worktree and its admin directory on this host by reading files, because Git itself fails on a torn admin
//! directory.

#![expect(clippy::disallowed_methods, reason = "finds the repository by looking at the disk")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::Worktree;
use super::reserved_names::{self, NESTED};
use crate::host::failpoint::crashpoint;
use crate::host::files::{self, Root};
use crate::provider::{Error, Location, Task, retry_while_missing, way};

/// Size limit of any file of an admin directory, in bytes; Git's own have one line.
const LINE_MAX: usize = 64 * 1024;

/// Location of a worktree and its admin directory.
#[derive(Debug)]
pub(super) struct WorktreePaths {
    /// Common git directory, canonical, as Git writes it into the files of an admin directory.
    pub(super) common: Root,
    /// Workspace, canonical.
    pub(super) workspace: PathBuf,
    /// Top of the repository's work tree, canonical; for a bare repository the repository itself.
    pub(super) repo_root: PathBuf,
    /// Directory whose untracked files are copied and linked, canonical: the workspace, or the top of another
    /// repository's work tree.
    pub(super) source: PathBuf,
    /// Innermost work tree around the worktree, or a directory in its place. Everything of the worktree is reached from
    /// there without following links, and Git sees everything there that is not hidden.
    pub(super) base: Root,
    /// Directory that contains the worktree, relative to `base`.
    pub(super) parent: PathBuf,
    /// Directory for temporary directories, relative to `base`: `parent`, or the directory around the session's own.
    pub(super) around: PathBuf,
    /// Name of the worktree in `parent`.
    pub(super) name: OsString,
    /// Absolute path of the worktree.
    pub(super) worktree: PathBuf,
    /// Admin directory, relative to `common`.
    pub(super) admin_directory: PathBuf,
    /// Absolute path of the worktree at [`Location::Home`], which messages and the admin directory use.
    pub(super) home: PathBuf,
    /// Name of the admin directory at [`Location::Home`].
    admin_name: String,
    /// `true` if the worktree's `.git` file is to have a relative path.
    relative: bool,
}

impl WorktreePaths {
    /// Finds the site of a task. The workspace and the repository have to exist, the worktree and its admin directory
    /// do not.
    pub(super) fn new(task: &Task<'_>, worktree: &Worktree) -> Result<Self, Error> {
        Self::at(task.location, task, worktree)
    }

    /// Finds the site at another location than the task's.
    pub(super) fn at(location: Location, task: &Task<'_>, worktree: &Worktree) -> Result<Self, Error> {
        let workspace = canonical(task.workspace)?;
        let DirectoryPaths { base, parent, around, name, worktree: path, home } =
            DirectoryPaths::at(location, task, worktree, &workspace)?;
        let repo_root = repo_root(&workspace, worktree)?;
        let source = if worktree.repository.is_some() { &repo_root } else { &workspace }.clone();
        Ok(Self {
            common: Root::open(&common_dir(&repo_root)?)?,
            repo_root,
            source,
            base,
            parent,
            around,
            name,
            worktree: path,
            admin_directory: admin_directory_at(location, task, worktree),
            home,
            admin_name: worktree.admin_directory.clone(),
            relative: worktree.relative,
            workspace,
        })
    }

    /// Returns the absolute path of the admin directory.
    pub(super) fn admin_directory_path(&self) -> PathBuf {
        self.common.path().join(&self.admin_directory)
    }

    /// Returns the absolute path of the admin directory at [`Location::Home`], which the worktree's `.git` file names.
    pub(super) fn home_admin_directory_path(&self) -> PathBuf {
        self.common.path().join(self.home_admin_directory())
    }

    /// Returns the path of the admin directory at [`Location::Home`], relative to the common git directory.
    pub(super) fn home_admin_directory(&self) -> PathBuf {
        Path::new("worktrees").join(&self.admin_name)
    }

    /// Returns the content of `gitdir` in the admin directory: the path of the worktree's `.git` file.
    pub(super) fn gitdir_line(&self) -> Vec<u8> {
        line(b"", &self.home.join(".git"))
    }

    /// Returns the path at which `git worktree add` creates the worktree, relative to `base`; `None` if that is its
    /// home. Git calls the admin directory after the directory that it creates.
    pub(super) fn staging(&self) -> Option<PathBuf> {
        let is_other = self.home.file_name() != Some(OsStr::new(&self.admin_name));
        is_other.then(|| self.around.join(&self.admin_name))
    }

    /// Returns whether `gitdir` of the admin directory names the worktree at its home, or where Git created it.
    pub(super) fn is_gitdir(&self, bytes: &[u8]) -> bool {
        let staging = || Some(line(b"", &self.base.path().join(self.staging()?).join(".git")));
        bytes == self.gitdir_line() || staging().is_some_and(|staging| bytes == staging)
    }

    /// Returns the planned content of the worktree's `.git` file: the path of the admin directory.
    pub(super) fn dot_git_line(&self) -> Vec<u8> {
        self.dot_git_lines()[usize::from(self.relative)].clone()
    }

    /// Returns whether the content of a `.git` file names the admin directory, by its absolute or its relative path.
    pub(super) fn is_dot_git(&self, bytes: &[u8]) -> bool {
        self.dot_git_lines().iter().any(|line| bytes == line)
    }

    /// Returns the contents of a `.git` file with the absolute and with the relative path.
    ///
    /// Both ends are canonical. A worktree that is aside keeps the content that it had at home.
    fn dot_git_lines(&self) -> [Vec<u8>; 2] {
        let admin = self.home_admin_directory_path();
        [&admin, &way(&self.home, &admin)].map(|path| line(b"gitdir: ", path))
    }

    /// Opens the worktree's directory; `None` if it does not exist.
    pub(super) fn directory(&self) -> Result<Option<Root>, Error> {
        Ok(self.base.directory(&self.parent.join(&self.name))?)
    }

    /// Opens the worktree's directory, which has to exist.
    pub(super) fn open(&self) -> Result<Root, Error> {
        self.directory()?.ok_or_else(|| Error::Refused(format!("{} does not exist", self.worktree.display())))
    }

    /// Reads a file of the admin directory.
    pub(super) fn read_admin_file(&self, name: &str) -> Result<Content, Error> {
        read(&self.common, &self.admin_directory.join(name))
    }
}

/// Location of a worktree's directory, which is found without its repository. The fields are those of [`WorktreePaths`].
#[derive(Debug)]
pub(super) struct DirectoryPaths {
    pub(super) base: Root,
    pub(super) parent: PathBuf,
    pub(super) around: PathBuf,
    pub(super) name: OsString,
    pub(super) worktree: PathBuf,
    pub(super) home: PathBuf,
}

impl DirectoryPaths {
    /// Finds the directory at a location. `workspace` is the canonical path of the workspace.
    pub(super) fn at(
        location: Location,
        task: &Task<'_>,
        worktree: &Worktree,
        workspace: &Path,
    ) -> Result<Self, Error> {
        let (above, below) = anchor(workspace, &worktree.worktree_path);
        let home = above.join(&below);
        let below = below_at(location, task, worktree, &below);
        let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
            return Err(Error::Refused(format!("{} cannot be a worktree", worktree.worktree_path.display())));
        };
        if worktree.admin_directory.is_empty()
            || worktree.admin_directory.contains(['/', '\0'])
            || worktree.admin_directory.starts_with('.')
        {
            return Err(Error::Refused(format!("{:?} cannot name a worktree", worktree.admin_directory)));
        }
        // A session's own directory is no work tree, even if the session has created a repository there.
        let own = worktree.session_directory().filter(|_| location == Location::Home);
        let own = own.and_then(|_| parent.file_name());
        let around = if own.is_some() { parent.parent().unwrap_or(parent) } else { parent };
        let (base, around) = innermost(Root::open(&above)?, around)?;
        let parent = own.map_or_else(|| around.clone(), |own| around.join(own));
        Ok(Self { base, parent, around, name: name.to_owned(), worktree: above.join(&below), home })
    }

    /// Opens the directory; `None` if it does not exist.
    pub(super) fn directory(&self) -> Result<Option<Root>, Error> {
        Ok(self.base.directory(&self.parent.join(&self.name))?)
    }
}

/// Opens the common git directory of a worktree's repository.
pub(super) fn common_of(workspace: &Path, worktree: &Worktree) -> Result<Root, Error> {
    Ok(Root::open(&common_dir(&repo_root(&canonical(workspace)?, worktree)?)?)?)
}

/// Returns the canonical top of the worktree's repository, which has to exist.
fn repo_root(workspace: &Path, worktree: &Worktree) -> Result<PathBuf, Error> {
    let (above, below) = anchor(workspace, &worktree.repo_root);
    let root = above.join(below);
    match fs::canonicalize(&root) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::Refused(format!("{} does not exist", root.display())))
        }
        found => found.map_err(io("find", &root)),
    }
}

/// Returns the path of a worktree at a location. `below` is the path at [`Location::Home`], relative to the same
/// directory.
pub(super) fn below_at(location: Location, task: &Task<'_>, worktree: &Worktree, below: &Path) -> PathBuf {
    match location {
        Location::Home => below.to_owned(),
        Location::Aside => {
            let outermost = outermost(below, worktree.session_directory().is_some());
            outermost.with_file_name(reserved_names::aside_name(task, worktree))
        }
    }
}

/// Returns the path of the admin directory at a location, relative to the common git directory.
pub(super) fn admin_directory_at(location: Location, task: &Task<'_>, worktree: &Worktree) -> PathBuf {
    match location {
        Location::Home => Path::new("worktrees").join(&worktree.admin_directory),
        Location::Aside => reserved_names::aside_admin_directory(task, worktree),
    }
}

/// Content found at the path of a small file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing.
    Missing,
    /// An empty file, as a crash may leave it.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A directory, a link or a huge file, which Git never creates there.
    Irregular,
}

/// Reads a small file, and reports any other kind of object in its place as [`Content::Irregular`].
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

/// Renames a directory after creating the directory above `to`; `false` if `from` does not exist.
pub(super) fn move_directory(root: &Root, from: &Path, to: &Path) -> Result<bool, Error> {
    retry_while_missing(|| {
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

/// Renames `from` to `trash`, which may contain leftovers of an earlier release, and removes it there.
pub(super) fn remove_out_of_sight(root: &Root, from: &Path, trash: &Path) -> Result<(), Error> {
    root.remove_all_in_parallel(trash)?;
    move_directory(root, from, trash)?;
    crashpoint!("release.aside");
    Ok(root.remove_all_in_parallel(trash)?)
}

/// Renames a worktree's directory from one of its sites to another; `false` if the directory does not exist.
pub(super) fn move_worktree(from: &WorktreePaths, to: &WorktreePaths) -> Result<bool, Error> {
    move_out((&from.base, from.parent.join(&from.name)), &to.base, &to.parent, &to.name)
}

/// Renames a directory to `name` in the directory `parent` of `base`, which is created and hidden from Git; `false` if
/// the directory does not exist.
pub(super) fn move_out(
    (root, path): (&Root, PathBuf),
    base: &Root,
    parent: &Path,
    name: &OsStr,
) -> Result<bool, Error> {
    if root.directory(&path)?.is_none() {
        return Ok(false);
    }
    retry_while_missing(|| {
        let target = base.create_hidden(parent)?;
        Ok(root.rename_into(&path, &target, Path::new(name))?)
    })
}

/// Returns the path of the workspace in the repository, and so in every worktree; empty if it is the repository's top.
pub(super) fn within(paths: &WorktreePaths) -> &Path {
    paths.source.strip_prefix(&paths.repo_root).unwrap_or(Path::new(""))
}

/// Returns the directory and the name of a path.
pub(super) fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
}

/// Wraps an error of the system with its path.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| files::Error::Io { action, path: path.to_path_buf(), source }.into()
}

/// Splits a planned path into a directory to open, following links, and the rest, which is reached without following
/// links.
///
/// An absolute path outside the workspace is reached from `/`. A link in it is refused, since the worktree of a parent
/// session may contain planted links.
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

/// Returns the outermost directory of a session that contains a planned path: the worktree itself, its session's own
/// directory (`is_in_own`), or for the worktree of a nested child that of the session above. Only the path decides,
/// because the worktree may have been moved.
fn outermost(path: &Path, is_in_own: bool) -> PathBuf {
    let names: Vec<_> = path.components().collect();
    let nested: Vec<_> = Path::new(NESTED).components().collect();
    let at = names.windows(nested.len()).position(|window| window == nested).filter(|at| *at > 0);
    let Some(at) = at else {
        return path.parent().filter(|_| is_in_own).unwrap_or(path).to_path_buf();
    };
    // The name of the parent's own directory follows, which is also above its worktree if it has several.
    let (above, scoped_name) = (&names[..at], names.get(at + nested.len()));
    let is_in_own = above.last() != scoped_name && above.iter().nth_back(1) == scoped_name;
    above[..at - usize::from(is_in_own && at > 1)].iter().collect()
}

/// Opens the last directory of a path that is a work tree of its own. Such a work tree belongs to a parent session, and
/// does not use an outer `.gitignore`.
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
        Err(error) => return Err(io("inspect", &dot_git)(error)),
    };
    let pointer = git_dir.join("commondir");
    let common = match read_file(&pointer)? {
        Some(bytes) => git_dir.join(as_path(&bytes)),
        None => git_dir,
    };
    if common.join("objects").is_dir() { canonical(&common) } else { Err(no_repository(repo_root)) }
}

/// Reads a file, following a link; `None` if it does not exist. Other kinds are refused because reading them might
/// block.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => fs::read(path).map(Some).map_err(io("read", path)),
        Ok(_) => Err(Error::Refused(format!("{} is not a file: remove it", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("inspect", path)(error)),
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
