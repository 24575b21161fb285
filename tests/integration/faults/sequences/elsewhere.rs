//! Steps that move, copy or delete repositories, also in the middle of a run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::between::copy;
use super::sequence::{Sequence, is_documented, settled};
use super::tokens::{Safety, scan};
use crate::faults::traced_in;
use crate::sandbox::{Inventory, assert_same};

impl Sequence<'_> {
    /// Runs seedbed in `directory`, perhaps with a kill or an error first, and again without. Returns the last exit code.
    fn ask_in(&mut self, directory: &Path, args: &[&str]) -> i32 {
        if let Some(fault) = self.fault() {
            let outcome = traced_in(self.sandbox, directory, args, Some(&fault)).outcome;
            self.note(format!("{} {fault} elsewhere -> {}", args.join(" "), outcome.code));
            assert!(is_documented(outcome.code, Some(&fault)), "{outcome:?}");
        }
        let outcome = self.sandbox.seedbed_in(directory, args);
        self.note(format!("{} elsewhere -> {}", args.join(" "), outcome.code));
        self.show(&outcome);
        assert!(is_documented(outcome.code, None), "{outcome:?}");
        outcome.code
    }

    /// Works in a copy of the repository: the original is not touched, and nothing is lost in the copy.
    pub(super) fn copy_repository(&mut self) {
        if !self.sandbox.mounts().is_empty() || !self.inner.is_empty() {
            return;
        }
        // Without the other repository, the copy shares it with the original.
        let alone =
            self.sandbox.seedbed(&["status"]).code == 0 && !self.is_interrupted() && self.random.percent(40);
        self.note(format!("copy the repository, alone: {alone}"));
        let set = self.sandbox.top.join("copy-of-both");
        let copied = if alone { self.sandbox.top.join("copy-of-repository") } else { set.join("repository") };
        if !alone {
            fs::create_dir(&set).unwrap();
            copy(self.sandbox, &self.web(), &set.join(self.web().file_name().unwrap()));
        }
        copy(self.sandbox, &self.sandbox.repository, &copied);
        let before = self.sandbox.inventory();
        let in_copy = || {
            let mut tokens = BTreeSet::new();
            scan(&copied, &mut tokens);
            tokens
        };
        let written = in_copy();
        if !alone {
            self.ask_in(&copied, &["apply", "--yes"]);
        }
        let adopted = self.ask_in(&copied, &["recover", "--copied"]);
        // Sessions that an interrupted run has created may have work.
        let is_adopted = matches!(adopted, 0 | 64) || adopted == 69 && self.is_interrupted();
        assert!(is_adopted, "recover --copied");
        let lost: Vec<_> = written.difference(&in_copy()).cloned().collect();
        assert!(lost.is_empty(), "lost in the copy: {lost:?}");
        if !alone {
            self.ask_in(&copied, &["apply", "--yes"]);
        }
        // Copied directories of worktrees that remain the original's are in the way.
        let destroyed = self.ask_in(&copied, &["destroy", "--discard"]);
        assert!(alone || destroyed != 1, "destroy in a copy");
        let of_repository = |inventory: Inventory| -> Inventory {
            inventory.into_iter().filter(|(path, _)| !path.starts_with("state/")).collect()
        };
        assert_same(&of_repository(before), &of_repository(self.sandbox.inventory()));
        fs::remove_dir_all(if alone { &copied } else { &set }).unwrap();
        if destroyed == 1 {
            let top = self.sandbox.top.clone();
            self.ask_in(&top, &["destroy", copied.to_str().unwrap(), "--gone", "--discard"]);
        }
    }

    /// Returns the path of the other repository.
    pub(super) fn web(&self) -> PathBuf {
        self.sandbox.repository.parent().unwrap().join(self.shape.web.trim_start_matches("../"))
    }

    /// Reads the commits of `main`, which another program has changed.
    pub(super) fn read_main(&mut self) {
        self.main = self.sandbox.git(&["rev-parse", "main"]);
        self.main_of_web = self.sandbox.git_in(&self.web(), &["rev-parse", "main"]);
    }

    /// Moves the other repository alone, and rebinds its worktrees.
    pub(super) fn move_other(&mut self) {
        if self.is_interrupted() || !self.inner.is_empty() || !self.linked.is_empty() {
            return;
        }
        let from = self.web();
        self.shape.web = if self.shape.web == "../web" { "../docs" } else { "../web" };
        fs::rename(from, self.web()).unwrap();
        self.note(format!("move the other repository to {}", self.shape.web));
        self.manifest();
        let is_applied = self.sandbox.seedbed(&["status"]).code == 0;
        let repository = self.sandbox.repository.clone();
        let code = self.ask_in(&repository, &["recover", "--moved"]);
        assert!(code == 0 || code == 64 && !is_applied, "recover --moved");
    }

    /// Gives up what is in the other repository, which comes back, perhaps in the middle of the run.
    pub(super) fn forget(&mut self) {
        if self.is_interrupted() || !self.inner.is_empty() || !self.linked.is_empty() {
            return;
        }
        let (web, away) = (self.web(), self.sandbox.top.join("web-away"));
        fs::rename(&web, &away).unwrap();
        let mut args = vec!["destroy", "--yes", "--forget", "web"];
        args.extend(self.flag());
        args.extend(self.stop());
        self.ask(&args, None);
        fs::rename(&away, &web).unwrap();
        self.given_up = true;
        self.clear_given_up();
    }

    /// Removes what was given up in the other repository, by the commands that `doctor` and the documentation name.
    pub(super) fn clear_given_up(&mut self) {
        if !self.given_up || self.is_interrupted() {
            return;
        }
        self.given_up = false;
        let found = self.sandbox.seedbed_in(&self.web(), &["doctor", "--json"]).json();
        let found =
            found["findings"].as_array().unwrap().iter().filter(|one| one["id"] == "unknown-worktree");
        for remedy in found.map(|one| one["remedy"].as_str().unwrap()) {
            let command = &remedy[remedy.find("git -C").unwrap()..];
            self.note(command.to_owned());
            let mut shell = self.sandbox.program("sh", &self.sandbox.top);
            let done = shell.args(["-c", command]).output().unwrap();
            assert!(done.status.success(), "{command}: {done:?}");
        }
        // No record knows the setting any more. It may also be unset.
        let unset = ["config", "--unset-all", "extensions.worktreeConfig"];
        let _ = self.sandbox.program("git", &self.web()).args(unset).output().unwrap();
        self.forgive(|written| written.session.ends_with("/@web") && written.safety == Safety::Unsaved);
    }

    /// Moves the repository away and back, and rebinds it at each place, which recovers what is interrupted.
    pub(super) fn move_repository(&mut self) {
        let is_bound = !self.sandbox.mounts().is_empty()
            || !self.inner.is_empty()
            || !self.linked.is_empty()
            || !self.processes.is_empty();
        if is_bound {
            return;
        }
        self.note("move the repository".to_owned());
        let interrupted = self.is_interrupted();
        let away = self.sandbox.top.join("moved-repository");
        let is_applied = self.sandbox.seedbed(&["status"]).code == 0;
        for (from, to) in [(&self.sandbox.repository, &away), (&away, &self.sandbox.repository)] {
            fs::rename(from, to).unwrap();
            let code = self.ask_in(to, &["recover", "--moved"]);
            let expected = code == 0 || code == 64 && !is_applied || code == 69 && interrupted;
            assert!(expected, "recover --moved");
        }
        if interrupted {
            self.forgive_release(self.discards, |_| true);
            self.discards &= self.is_interrupted();
        } else {
            assert_eq!(self.sandbox.seedbed(&["status"]).code == 0, is_applied, "status");
        }
    }

    /// Deletes a clone with its swarm, also in the middle of a run, and then the swarm's state.
    pub(super) fn delete_repository(&mut self) {
        self.note("delete a clone".to_owned());
        let state = |inventory: Inventory| -> Inventory {
            settled(inventory).into_iter().filter(|(path, _)| path.starts_with("state/")).collect()
        };
        let before = state(self.sandbox.inventory());
        // A worktree in a repository that remains would remain there.
        self.sandbox.manifest(&self.shape.without_web().manifest());
        let clone = self.sandbox.clone_to("copy-deleted");
        self.sandbox.git_in(&clone, &["branch", "--quiet", "old", "origin/old"]);
        self.sandbox.seedbed_in(&clone, &["apply", "--yes"]);
        let mut shape = self.shape.clone();
        shape.vary(&mut self.random);
        let shape = shape.without_web();
        fs::write(clone.join("seedbed.toml"), self.sandbox.manifest_text(&shape.manifest())).unwrap();
        let args = ["apply", "--yes", "--discard"];
        let fault = self.fault();
        let code = traced_in(self.sandbox, &clone, &args, fault.as_deref()).outcome.code;
        self.note(format!("{} {} in it -> {code}", args.join(" "), fault.unwrap_or_default()));
        for mount in self.sandbox.mounts().iter().filter(|mount| mount.starts_with(&clone)) {
            unmount(mount, UnmountFlags::empty()).unwrap();
        }
        fs::remove_dir_all(&clone).unwrap();
        let top = self.sandbox.top.clone();
        let code = self.ask_in(&top, &["destroy", clone.to_str().unwrap(), "--gone", "--discard"]);
        assert!(matches!(code, 0 | 64), "destroy --gone");
        assert_same(&before, &state(self.sandbox.inventory()));
    }
}
