//! Types of paths of the workspace, without following links.
#![expect(clippy::disallowed_methods, reason = "looks at files of the host")]

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Directory;
use crate::host::text::printable;
use crate::host::{absolute, files};

/// Returns the type of `path`, relative to the workspace or absolute.
///
/// Below the workspace no component may be a link: a commit or an agent may have put it there. Outside of the workspace
/// the user chose the path, which may have links above its last component.
pub(super) fn observe(workspace: &Path, path: &Path) -> Directory {
    let Located { base, below } = locate(workspace, path);
    let top = absolute(workspace, Path::new(""));
    let relative = |at: &Path| match at.strip_prefix(&top) {
        Ok(relative) if path.is_relative() => relative.to_owned(),
        _ => at.to_owned(),
    };
    if let Err(error) = fs::read_dir(&base) {
        return unopened(&base, &error);
    }
    let mut at = base;
    for component in below.components() {
        at.push(component);
        match fs::symlink_metadata(&at) {
            Ok(entry) if entry.is_symlink() => return Directory::Link(relative(&at)),
            Ok(entry) if !entry.is_dir() => return Directory::NotADirectory(relative(&at)),
            Ok(_) => {}
            Err(error) => return unopened(&at, &error),
        }
    }
    match open(workspace, path).and_then(|root| root.map(|root| root.names()).transpose()) {
        Ok(Some(names)) => {
            Directory::Listed(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
        }
        Ok(None) => Directory::Missing,
        Err(error) => Directory::Unreadable(error.to_string()),
    }
}

/// Opens the directory at `path` under the same rules; `None` if it does not exist.
pub(super) fn open(workspace: &Path, path: &Path) -> Result<Option<files::Root>, files::Error> {
    let Located { base, below } = locate(workspace, path);
    let root = files::Root::open(&base)?;
    if below.as_os_str().is_empty() { Ok(Some(root)) } else { root.directory(&below) }
}

fn unopened(path: &Path, error: &io::Error) -> Directory {
    let in_the_way = || path.ancestors().find(|at| fs::metadata(at).is_ok_and(|entry| !entry.is_dir()));
    match error.kind() {
        ErrorKind::NotFound => Directory::Missing,
        ErrorKind::NotADirectory => Directory::NotADirectory(in_the_way().unwrap_or(path).to_owned()),
        _ => Directory::Unreadable(printable(&format!("cannot open {}: {error}", path.display()))),
    }
}

/// A path, split at the directory below which links are not followed.
struct Located {
    base: PathBuf,
    below: PathBuf,
}

fn locate(workspace: &Path, path: &Path) -> Located {
    let (workspace, absolute) = (absolute(workspace, Path::new("")), absolute(workspace, path));
    if let Ok(below) = absolute.strip_prefix(&workspace) {
        return Located { below: below.to_owned(), base: workspace };
    }
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Located { base: parent.to_owned(), below: name.into() },
        _ => Located { base: absolute, below: PathBuf::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sandbox::Sandbox;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn listed(names: &[&str]) -> Directory {
        Directory::Listed(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn every_type_of_path_is_recognised() {
        let sandbox = Sandbox::new();
        let workspace = &sandbox.workspace;
        let outside = sandbox.directory.path().join("outside");
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::create_dir_all(workspace.join("a/b")).unwrap();
        fs::write(workspace.join("a/file"), "").unwrap();
        sandbox.fifo("a/fifo");
        symlink(&outside, workspace.join("a/link")).unwrap();
        symlink("nowhere", workspace.join("a/dangling")).unwrap();

        let check =
            |path: &str, expected| assert_eq!(observe(workspace, Path::new(path)), expected, "{path}");
        check("a", listed(&["b", "dangling", "fifo", "file", "link"]));
        check("./a/../a/b/", listed(&[]));
        check("", listed(&["a"]));
        check(".", listed(&["a"]));
        check("a/none/deeper", Directory::Missing);
        check("a/link", Directory::Link("a/link".into()));
        check("a/link/sub", Directory::Link("a/link".into()));
        check("a/dangling", Directory::Link("a/dangling".into()));
        check("a/file", Directory::NotADirectory("a/file".into()));
        check("a/file/deeper", Directory::NotADirectory("a/file".into()));
        check("a/fifo", Directory::NotADirectory("a/fifo".into()));
        check("../outside", listed(&["sub"]));

        let absolute = |relative: &str| workspace.join(relative);
        assert_eq!(observe(workspace, &absolute("a/b")), listed(&[]));
        assert_eq!(observe(workspace, &absolute("a/link/sub")), Directory::Link(absolute("a/link")));
    }

    #[test]
    fn outside_of_the_workspace_only_the_last_component_must_not_be_a_link() {
        let sandbox = Sandbox::new();
        let workspace = &sandbox.workspace;
        let outside = sandbox.directory.path().join("outside");
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        let alias = sandbox.directory.path().join("alias");
        symlink(&outside, &alias).unwrap();

        assert_eq!(observe(workspace, &alias.join("sub")), listed(&[]));
        assert_eq!(observe(workspace, &alias), Directory::Link(alias.clone()));
        assert_eq!(observe(workspace, &outside.join("none/none")), Directory::Missing);
        assert_eq!(observe(workspace, &outside.join("file")), Directory::NotADirectory(outside.join("file")));
        assert_eq!(
            observe(workspace, &outside.join("file/a/b")),
            Directory::NotADirectory(outside.join("file"))
        );
        assert!(matches!(observe(workspace, Path::new("/")), Directory::Listed(_)));
    }

    #[test]
    fn unreadable_directory_is_reported() {
        let sandbox = Sandbox::new();
        let closed = sandbox.workspace.join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        // Root can read the directory nevertheless.
        if fs::read_dir(&closed).is_err() {
            assert!(matches!(observe(&sandbox.workspace, Path::new("closed")), Directory::Unreadable(_)));
        }
    }
}
