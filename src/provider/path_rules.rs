//! Checks for paths that no allocation may have.

use std::path::{Component, Path, PathBuf};

use crate::host::text::printable;
use crate::manifest::{Diagnostic, Location, rule};
use crate::observe::{Directory, Observation};

/// Returns whether `path` of a plan is the workspace itself or a directory above it.
pub(crate) fn contains_workspace(workspace: &Path, path: &Path) -> bool {
    workspace.starts_with(crate::host::absolute(workspace, path))
}

/// Returns whether a path of a plan leads into a git directory.
pub(crate) fn is_in_git_directory(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git"))
}

/// Checks a `root-directory`, in which things such as worktrees (`what`) are created. `example` is a good value.
pub(crate) fn check_root(
    observation: &Observation,
    root: &Path,
    location: &Location,
    (what, example): (&str, &str),
) -> Result<(), Diagnostic> {
    let diagnostic = |message: String, label: &str| {
        Diagnostic::new(rule::ROOT_DIRECTORY, location.key("root-directory"), message, label)
    };
    if contains_workspace(&observation.workspace, root) {
        let message = format!("{what} need a directory of their own, which Git can ignore");
        let help = format!("name one below the workspace, such as `{example}`, or beside it");
        return Err(diagnostic(message, "is the workspace or above it").with_help(help));
    }
    if is_in_git_directory(root) {
        let message = format!("`{}` is in a Git directory", printable(&root.to_string_lossy()));
        let help = format!("name a directory beside it, such as `{example}`");
        return Err(diagnostic(message, "is Git's own, or a repository's").with_help(help));
    }
    let mut way_back = root.components().skip_while(|part| *part == Component::ParentDir);
    if way_back.any(|part| part == Component::ParentDir) {
        let message = format!("`{}` has `..` after a name", printable(&root.to_string_lossy()));
        return Err(diagnostic(message, "has `..` in the middle").with_help("write the resolved path"));
    }
    let leads = |component: &Path, is: &str| {
        let message = format!(
            "`{}` is {is}: {what} would be created somewhere else",
            printable(&component.to_string_lossy())
        );
        Err(diagnostic(message, "leads there").with_help("remove it, or name another `root-directory`"))
    };
    match observation.directories.get(root) {
        Some(Directory::Link(component)) => leads(component, "a symbolic link"),
        Some(Directory::NotADirectory(component)) => leads(component, "not a directory"),
        Some(Directory::Unreadable(why)) => {
            Err(diagnostic(format!("`{}` cannot be read: {why}", root.display()), "here"))
        }
        Some(Directory::Missing | Directory::Listed(_)) | None => Ok(()),
    }
}

/// Returns the relative path that leads from one absolute path without links to another: `.`, `..`, `../web`.
pub fn way(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(shared)).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}

/// Returns whether [`way`] can return a path: it leads up, and then down.
pub(crate) fn is_way(path: &Path) -> bool {
    let mut down = path.components().skip_while(|part| matches!(part, Component::ParentDir));
    path == Path::new(".") || down.all(|part| matches!(part, Component::Normal(_)))
}
