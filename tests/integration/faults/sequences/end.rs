//! Ends a sequence, after which nothing is left.

use std::collections::BTreeSet;
use std::fs;

use rustix::mount::{UnmountFlags, unmount};

use super::sequence::Sequence;
use super::tokens::{Safety, repositories};
use crate::sandbox::Sandbox;

impl Sequence<'_> {
    /// Removes what lies inside of sessions and is not the swarm's.
    pub(super) fn clear_the_way(&mut self) {
        for mount in std::mem::take(&mut self.mounts) {
            let _ = unmount(&mount, UnmountFlags::empty());
        }
        for inner in self.inner.clone() {
            if inner.exists() {
                let inner = inner.to_str().unwrap();
                let outcome = self.sandbox.seedbed(&["destroy", "--discard", "-f", inner]);
                assert_eq!(outcome.code, 0, "{outcome:?}");
            }
        }
        for linked in self.linked.clone() {
            if linked.exists() {
                let path = linked.to_str().unwrap();
                self.sandbox.git_in(&linked, &["worktree", "remove", "--force", "--force", path]);
            }
        }
        self.forgive(|written| written.safety == Safety::Nested);
    }

    /// Ends the swarm, and checks that nothing is left except branches with commits, stashes and rescue refs.
    #[track_caller]
    pub(super) fn end(&mut self, before: &Before) {
        self.end_processes();
        self.clear_the_way();
        self.shape.fails = false;
        self.manifest();
        let recovered = self.ask_with(&["recover", "--rescue"], None, None) == 0;
        // A directory that was not mounted may contain more.
        self.ask_with(&["status", "--repair"], None, None);
        self.clear_the_way();
        let rescued = recovered && self.ask_with(&["destroy", "--rescue"], None, None) == 0;
        if !rescued {
            let code = self.ask_with(&["recover", "--discard"], None, None);
            assert_eq!(code, 0, "recover --discard");
            let code = self.ask_with(&["destroy", "--discard"], None, None);
            assert_eq!(code, 0, "destroy --discard");
        }
        self.clear_given_up();
        for outside in std::mem::take(&mut self.outside) {
            let _ = fs::remove_dir_all(outside);
        }
        let _ = fs::rename(self.sandbox.top.join("docs"), self.sandbox.top.join("web"));
        let sandbox = self.sandbox;
        assert!(sandbox.mounts().is_empty(), "still mounted: {:?}", sandbox.mounts());
        let after = Before::new(sandbox);
        // By steps, to `main`.
        let is_committed = |path: &str| path.ends_with("main.txt") || path.contains("/committed-");
        let lines = |files: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
            files.difference(other).filter(|path| !is_committed(path)).cloned().collect()
        };
        assert_eq!(lines(&after.files, &before.files), Vec::<String>::new(), "left");
        assert_eq!(lines(&before.files, &after.files), Vec::<String>::new(), "gone");
        assert_eq!(after.configs, before.configs, "configurations");
        let is_kept = |name: &str| {
            ["refs/heads/agents/", "refs/seedbed/rescue/", "refs/stash"]
                .iter()
                .any(|kept| name.starts_with(kept))
        };
        let more: Vec<_> = after.refs.difference(&before.refs).filter(|name| !is_kept(name)).collect();
        assert!(more.is_empty(), "{more:?}");
        for repository in repositories(sandbox) {
            for left in [".git/seedbed", ".git/worktrees"] {
                assert!(!repository.join(left).exists(), "{left} is left in {}", repository.display());
            }
            sandbox.git_in(&repository, &["fsck", "--no-progress"]);
            assert_eq!(sandbox.git_in(&repository, &["worktree", "list"]).lines().count(), 1);
        }
    }
}

/// Files, refs and configurations of both repositories before the first step.
pub(super) struct Before {
    files: BTreeSet<String>,
    refs: BTreeSet<String>,
    configs: Vec<Vec<u8>>,
}

impl Before {
    pub(super) fn new(sandbox: &Sandbox) -> Self {
        let files = sandbox.inventory().into_keys().filter(|path| !path.contains("/.git/"));
        let mut found = Self { files: files.collect(), refs: BTreeSet::new(), configs: Vec::new() };
        for repository in repositories(sandbox) {
            let refs = sandbox.git_in(&repository, &["for-each-ref", "--format=%(refname)"]);
            found.refs.extend(refs.lines().map(str::to_owned));
            found.configs.push(fs::read(repository.join(".git/config")).unwrap());
        }
        found
    }
}
