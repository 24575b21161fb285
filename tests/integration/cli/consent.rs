//! Tests of the question that `apply` asks on a terminal.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use super::shells::installed;
use crate::sandbox::{Sandbox, wait_until};

/// The lock is free while the question is open, and the answer is about the plan that was shown.
#[test]
fn a_question_holds_no_lock_and_is_asked_again_for_another_plan() {
    if !installed("script") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = []\n[session.b]\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    sandbox.manifest("[session.a]\nresources = []\n");
    let log = sandbox.top.join("terminal");
    let command = format!("{} apply", env!("CARGO_BIN_EXE_seedbed"));
    let mut terminal = sandbox.program("script", &sandbox.repository);
    terminal.args(["--quiet", "--flush", "--return", "--command", &command]).arg(&log);
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut answers = terminal.stdin.take().unwrap();
    let asked = |count: usize| {
        wait_until("the question is asked", || {
            fs::read(&log).is_ok_and(|text| String::from_utf8_lossy(&text).matches("[y/N]").count() == count)
        });
    };
    asked(1);
    // Another command changes the swarm, and the plan with it.
    sandbox.ok(&["--lock-timeout", "0", "spawn", "x", "--template", "a"]);
    answers.write_all(b"y\n").unwrap();
    asked(2);
    answers.write_all(b"y\n").unwrap();
    let status = terminal.wait().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(&log).unwrap());
    let status = sandbox.ok(&["status", "--json"]).json();
    let sessions: Vec<_> =
        status["sessions"].as_array().unwrap().iter().map(|one| one["session"].clone()).collect();
    assert_eq!(sessions, ["a", "x"]);
    sandbox.ok(&["destroy"]);
}
