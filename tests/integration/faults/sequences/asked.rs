//! Steps of a sequence that run commands of seedbed.

use std::fs;

use serde_json::Value;

use super::sequence::Sequence;
use super::tokens::Safety;
use crate::sandbox::{Inventory, assert_same};

impl Sequence<'_> {
    pub(super) fn apply(&mut self) {
        if self.random.percent(60) {
            self.shape.vary(&mut self.random);
        }
        self.manifest();
        let mut args = vec!["apply", "--yes"];
        args.extend(self.flag());
        args.extend(self.stop());
        let refreshes = self.random.percent(25);
        args.extend(refreshes.then_some("--refresh"));
        let set = if self.random.percent(15) { self.shape.set(&mut self.random) } else { None };
        args.extend(set.as_deref());
        if self.ask(&args, None) != 0 {
            return;
        }
        let mut plan = vec!["plan", "--detailed-exitcode"];
        plan.extend(set.as_deref());
        self.sandbox.ok(&plan);
        if refreshes {
            // Nothing that could be copied again is left.
            plan.push("--refresh");
            self.sandbox.ok(&plan);
        }
        let status = self.sandbox.ok(&["status", "--json"]).json();
        // The program of a child repairs it.
        let own = |session: &&Value| session["childOf"].is_null();
        for session in status["sessions"].as_array().unwrap().iter().filter(own) {
            let drift = session["drift"].as_array().unwrap();
            assert!(drift.is_empty(), "apply left {session:#}");
        }
    }

    pub(super) fn destroy(&mut self, session: Option<&str>) {
        let mut args = vec!["destroy"];
        args.extend(session);
        args.extend(self.flag());
        args.extend(self.stop());
        self.ask(&args, session);
    }

    /// Releases the sessions that meet conditions, without any option for unsaved work.
    pub(super) fn destroy_where(&mut self) {
        let conditions = self.random.pick(&["clean", "landed=main", "clean,no-process", "expired"]).unwrap();
        self.ask(&["destroy", "--yes", "--where", conditions], None);
    }

    /// Adds a session beside the manifest: at the top, below another, from a template, or for a directory of another
    /// tool, which stays as it is.
    pub(super) fn spawn(&mut self) {
        let number = self.steps.len();
        let name = format!("extra-{number}");
        let directory = self.sandbox.top.join(format!("adopted-{number}"));
        let mut args = vec!["spawn", &*name];
        match self.random.below(5) {
            0 => {}
            1 => args.extend(["--parent", "lead"]),
            2 => args.extend(["--template", "coder"]),
            3 => args.extend(["--template", "pair"]),
            _ => {
                fs::create_dir(&directory).unwrap();
                let token = self.token("", Safety::Always);
                fs::write(directory.join("file"), token).unwrap();
                self.outside.push(directory.clone());
                args.extend(["--adopt", directory.to_str().unwrap()]);
            }
        }
        self.ask(&args, None);
    }

    /// Releases one of the sessions that were spawned.
    pub(super) fn release(&mut self) {
        let status = self.sandbox.seedbed(&["status", "--json"]);
        if status.code != 0 {
            return;
        }
        let status = status.json();
        let spawned = status["sessions"].as_array().unwrap().iter().filter(|one| one["spawned"] == true);
        let spawned: Vec<_> = spawned.map(|one| one["session"].as_str().unwrap()).collect();
        let Some(name) = self.random.pick(&spawned) else { return };
        let mut args = vec!["release", name];
        args.extend(self.flag());
        args.extend(self.stop());
        self.ask(&args, Some(name));
    }

    pub(super) fn dry_run(&self) {
        if self.is_interrupted() {
            return;
        }
        let before = self.sandbox.inventory();
        let outcome = self.sandbox.seedbed(&["destroy", "--dry-run"]);
        assert!(matches!(outcome.code, 0 | 69), "{outcome:?}");
        assert_same(&before, &self.sandbox.inventory());
    }

    pub(super) fn recover(&mut self) {
        let mut args = vec!["recover"];
        args.extend(self.flag());
        args.extend(self.stop());
        self.ask(&args, None);
    }

    pub(super) fn exec(&mut self) {
        // The directory of a session with several worktrees is in none of them.
        let touch = "touch \"${AGENT_WORKTREE_PATH:-.}/ran.log\"";
        let outcome = self.sandbox.seedbed(&["exec", "--all", "--", "sh", "-c", touch]);
        self.note(format!("exec --all -> {}", outcome.code));
        assert!(matches!(outcome.code, 0 | 125), "{outcome:?}");
    }

    pub(super) fn start(&mut self) {
        let outcome = self.sandbox.seedbed(&["start"]);
        self.note(format!("start -> {}", outcome.code));
        assert!(matches!(outcome.code, 0 | 64 | 65 | 69 | 75 | 125), "{outcome:?}");
    }

    /// Reports the results, which changes nothing.
    pub(super) fn collect(&mut self) {
        let before = self.sandbox.inventory();
        let outcome = self.sandbox.seedbed(&["collect"]);
        self.note(format!("collect -> {}", outcome.code));
        assert!(matches!(outcome.code, 0 | 2 | 64 | 65 | 69 | 75), "{outcome:?}");
        assert_same(&before, &self.sandbox.inventory());
    }

    /// Runs a command in the swarm, where none is applied, or else in an instance beside it.
    pub(super) fn run(&mut self) {
        if self.sandbox.seedbed(&["status"]).code == 0 || self.is_interrupted() {
            return self.run_instance();
        }
        self.manifest();
        // The file is removed with the swarm; the commit remains if the session has a branch.
        let commit = "echo x > ran.log; git commit --quiet --allow-empty --message=run";
        let code = self.ask(&["run", "--in-place", "--session", "lead", "--", "sh", "-c", commit], None);
        if code == 0 {
            assert_eq!(self.sandbox.seedbed(&["status"]).code, 64, "the swarm of a run is active");
        }
    }

    /// Runs a command in an instance, which leaves nothing and changes nothing else. It may remove empty directories that a
    /// killed run has left.
    fn run_instance(&mut self) {
        let before = without_empty_directories(self.sandbox.inventory());
        let outcome =
            self.sandbox.seedbed(&["run", "--session", "lead", "--", "sh", "-c", "echo x > ran.log"]);
        self.note(format!("run of an instance -> {}", outcome.code));
        assert!(matches!(outcome.code, 0 | 64 | 65 | 69), "{outcome:?}");
        let after = without_empty_directories(self.sandbox.inventory());
        assert_same(&before, &after);
    }
}

/// Returns an inventory without directories in which there are only directories.
fn without_empty_directories(inventory: Inventory) -> Inventory {
    let is_directory = |what: &String| what.ends_with("directory");
    let files: Vec<String> =
        inventory.iter().filter(|(_, what)| !is_directory(what)).map(|(path, _)| path.clone()).collect();
    let has_file = |path: &String| {
        let below = format!("{path}/");
        files.iter().any(|file| file.starts_with(&below))
    };
    inventory.into_iter().filter(|(path, what)| !is_directory(what) || has_file(path)).collect()
}
