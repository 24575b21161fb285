//! Runs the effects against real Git, in temporary repositories.

#![expect(clippy::disallowed_methods, reason = "looks at the disk behind the code's back")]

mod copy;
mod donor;
mod landed;
mod untracked;
mod unsaved;
mod register;
mod release;
mod rescue;
mod sparse;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Registration, Worktree};
use crate::host::Host;
use crate::manifest::SessionFile;
use crate::provider::{Allocation, OnPopulated, Task};

const OWNER: &str = "0123456789abcdef0123456789abcdef";
const SESSION: &str = "swarm/lead";
static NO_FILES: BTreeMap<String, SessionFile> = BTreeMap::new();

/// Test repository with one commit, and an empty state directory.
struct Lab {
    _dir: tempfile::TempDir,
    repo: PathBuf,
    host: Host,
    commit: String,
    allocation: Allocation,
}

impl Lab {
    fn new() -> Self {
        Self::with_files(&[
            ("a.txt", "one\n"),
            ("packages/app/main.rs", "fn main() {}\n"),
            ("packages/app/src/deep.rs", "\n"),
            ("packages/side.txt", "side\n"),
            ("other/x", "x\n"),
        ])
    }

    fn with_files(files: &[(&str, &str)]) -> Self {
        Self::with_init(&[], files).unwrap()
    }

    /// Returns `None` if the installed Git does not know the options of `git init`.
    fn with_init(options: &[&str], files: &[(&str, &str)]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(dir.path()).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let environment = vec![("HOME".into(), top.join("home").into()), (OsString::from("PATH"), path)];
        let host = Host::new(environment, top.join("state"));
        let allocation = Allocation {
            name: None,
            shared: false,
            within_parent: false,
            kind: "git-worktree".into(),
            options: serde_json::Map::new(),
            allocation: serde_json::Map::new(),
            notes: Vec::new(),
            external: None,
        };
        let repo = top.join("repo");
        let mut lab = Self { _dir: dir, repo, host, commit: String::new(), allocation };
        fs::create_dir_all(top.join("home")).unwrap();
        fs::create_dir(&lab.repo).unwrap();
        let init = [&["init", "-q", "-b", "main"], options].concat();
        if !lab.try_git(&lab.repo, &init).status.success() {
            return None;
        }
        lab.git(&["config", "user.name", "A"]);
        lab.git(&["config", "user.email", "a@example.org"]);
        for (name, text) in files {
            lab.write(name, text);
        }
        lab.git(&["add", "-A"]);
        lab.git(&["commit", "-q", "-m", "one"]);
        lab.commit = lab.git(&["rev-parse", "HEAD"]).trim().to_owned();
        Some(lab)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.repo.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs Git in a directory, and returns its output even if Git fails.
    fn try_git(&self, directory: &Path, args: &[&str]) -> Output {
        Command::new("git")
            .env_clear()
            .envs(self.host.environment.iter().cloned())
            .env("LC_ALL", "C")
            .current_dir(directory)
            .stdin(Stdio::null())
            .args(args)
            .output()
            .unwrap()
    }

    fn git_in(&self, directory: &Path, args: &[&str]) -> String {
        let output = self.try_git(directory, args);
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.repo, args)
    }

    fn worktree(&self, name: &str) -> Worktree {
        Worktree {
            repository: None,
            checkout: super::Checkout::Auto,
            repo_root: ".".into(),
            worktree_root: ".ai_ops/worktrees".into(),
            worktree_path: Path::new(".ai_ops/worktrees").join(name),
            base_ref: "main".into(),
            target_path: None,
            commit: self.commit.clone(),
            existing: None,
            branch: None,
            admin_directory: name.into(),
            common_directory: ".git".into(),
            registration: Registration::Rename,
            worktree_include: Vec::new(),
            copy: Vec::new(),
            link: Vec::new(),
            seeds: Vec::new(),
            git_hooks: false,
            relative: false,
        }
    }

    fn task(&self) -> Task<'_> {
        Task {
            is_forgotten: false,
            is_discarded: false,
            location: crate::provider::Location::Home,
            host: &self.host,
            workspace: &self.repo,
            owner: OWNER,
            session: SESSION,
            ancestors: &[],
            working_directory: Path::new("."),
            allocations: std::slice::from_ref(&self.allocation),
            allocation: &self.allocation,
            files: &NO_FILES,
            lock: None,
            on_populated: OnPopulated::default(),
            shared_results: None,
        }
    }

    fn path(&self, worktree: &Worktree) -> PathBuf {
        self.repo.join(&worktree.worktree_path)
    }

    fn admin_directory(&self, worktree: &Worktree) -> PathBuf {
        self.repo.join(".git/worktrees").join(&worktree.admin_directory)
    }

    fn make(&self, worktree: &Worktree) {
        super::register::register(&self.task(), worktree).unwrap();
        super::populate::populate_one(&self.task(), worktree).unwrap();
    }

    fn release(&self, worktree: &Worktree) {
        super::release::release(&self.task(), worktree).unwrap();
    }

    fn status(&self, worktree: &Worktree) -> String {
        self.git_in(&self.path(worktree), &["status", "--porcelain"])
    }

    /// Returns every directory, and every file with its content. Objects are left out because they stay.
    fn inventory(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut ahead = vec![self.repo.clone()];
        while let Some(directory) = ahead.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&self.repo).unwrap().to_path_buf();
                if name.starts_with(".git/objects") {
                    continue;
                }
                if path.is_symlink() {
                    found.insert(
                        name,
                        Some(fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()),
                    );
                } else if path.is_dir() {
                    found.insert(name, None);
                    ahead.push(path);
                } else {
                    found.insert(name, Some(fs::read(path).unwrap()));
                }
            }
        }
        found
    }
}
