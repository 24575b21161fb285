//! Sandbox for tests of observations: its own directory, a host, and a Git without the settings of the user and the
//! machine.
#![expect(clippy::disallowed_methods, reason = "tests set the host up")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Observation, Query, RepositoryObservation, WORKSPACE_REPOSITORY, observe};
use crate::host::Host;

pub(crate) struct Sandbox {
    pub(crate) directory: TempDir,
    pub(crate) workspace: PathBuf,
    pub(crate) host: Host,
}

impl Sandbox {
    /// Creates a workspace that is an empty directory.
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let top = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("workspace")).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let environment = vec![("PATH".into(), path), ("HOME".into(), top.clone().into())];
        let host = Host { jobs: 2.try_into().unwrap(), ..Host::new(environment, top.join("state")) };
        Self { workspace: top.join("workspace"), directory, host }
    }

    /// Creates a workspace that is a repository without commits.
    pub(crate) fn repository(options: &[&str]) -> Self {
        let sandbox = Self::new();
        sandbox.git(&[&["init", "--quiet", "--initial-branch=main"], options].concat());
        sandbox
    }

    /// Creates a workspace that is a repository with one commit of these files.
    pub(crate) fn with_files(files: &[&str]) -> Self {
        let sandbox = Self::repository(&[]);
        for file in files {
            sandbox.write(file, file);
        }
        sandbox.commit();
        sandbox
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.workspace, args)
    }

    pub(crate) fn git_in(&self, directory: &Path, args: &[&str]) -> String {
        let (status, printed) = self.try_git(directory, args);
        assert!(status, "git {args:?}: {printed}");
        printed
    }

    /// Returns whether Git succeeded, and its output.
    pub(crate) fn try_git(&self, directory: &Path, args: &[&str]) -> (bool, String) {
        let settings = ["user.name=a", "user.email=a@b", "init.defaultBranch=main", "commit.gpgSign=false"];
        let mut git = Command::new("git");
        git.current_dir(directory).env_clear().envs(self.host.environment.iter().cloned());
        git.env("GIT_CONFIG_NOSYSTEM", "1");
        for setting in settings {
            git.args(["-c", setting]);
        }
        let output = git.args(args).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).trim_end().to_owned())
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.workspace.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Commits everything in the workspace, and returns the commit.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn fifo(&self, path: &str) {
        let status = Command::new("mkfifo").arg(self.workspace.join(path)).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn observe(&self, queries: impl IntoIterator<Item = Query>) -> Observation {
        self.observe_in(&self.workspace, queries)
    }

    pub(crate) fn observe_in(
        &self,
        workspace: &Path,
        queries: impl IntoIterator<Item = Query>,
    ) -> Observation {
        observe(&self.host, workspace, &queries.into_iter().collect()).unwrap()
    }
}

impl Sandbox {
    /// Observes the workspace's own repository.
    pub(crate) fn observe_repository(
        &self,
        queries: impl IntoIterator<Item = Query>,
    ) -> RepositoryObservation {
        self.observe_repository_in(&self.workspace, queries)
    }

    pub(crate) fn observe_repository_in(
        &self,
        workspace: &Path,
        queries: impl IntoIterator<Item = Query>,
    ) -> RepositoryObservation {
        self.observe_in(workspace, queries).repository(WORKSPACE_REPOSITORY).clone()
    }
}

/// Returns the name of the workspace's own repository.
pub(crate) fn own() -> String {
    WORKSPACE_REPOSITORY.to_owned()
}

/// Returns a query about a path at a ref.
pub(crate) fn tree(base_ref: &str, path: &str) -> Query {
    Query::Tree { repository: own(), base_ref: base_ref.to_owned(), path: path.to_owned(), required: true }
}

/// Returns a query about the commit of a ref.
pub(crate) fn commit(base_ref: &str) -> Query {
    Query::Commit { repository: own(), base_ref: base_ref.to_owned() }
}

/// Returns everything below a directory with its content: equal before and after if nothing was changed.
pub(crate) fn inventory(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
                found.insert(entry.path(), None);
            } else {
                found.insert(entry.path(), Some(std::fs::read(entry.path()).unwrap_or_default()));
            }
        }
    }
    found
}
