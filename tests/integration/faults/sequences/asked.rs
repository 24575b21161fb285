//! Steps of a sequence that run commands of seedbed.

use serde_json::Value;

use super::sequence::Sequence;
use crate::sandbox::assert_same;

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
        if self.ask(&args, None) != 0 {
            return;
        }
        self.sandbox.ok(&["plan", "--detailed-exitcode"]);
        if refreshes {
            // Nothing that could be copied again is left.
            self.sandbox.ok(&["plan", "--refresh", "--detailed-exitcode"]);
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
        let outcome = self.sandbox.seedbed(&["exec", "--all", "--", "touch", "ran.log"]);
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

    /// Runs a command in a swarm of its own, where none is applied.
    pub(super) fn run(&mut self) {
        if self.sandbox.seedbed(&["status"]).code == 0 || self.is_interrupted() {
            return;
        }
        self.manifest();
        // The file is removed with the swarm; the commit remains if the session has a branch.
        let commit = "echo x > ran.log; git commit --quiet --allow-empty --message=run";
        let code = self.ask(&["run", "--session", "lead", "--", "sh", "-c", commit], None);
        if code == 0 {
            assert_eq!(self.sandbox.seedbed(&["status"]).code, 64, "the swarm of a run is active");
        }
    }
}
