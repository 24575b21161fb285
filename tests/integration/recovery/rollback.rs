//! Tests of a failing step in a run that is all or nothing: the report, and the rollback.

use std::fs;

use rustix::process::Signal;

use crate::sandbox::{Sandbox, send, wait_until};

/// Twenty-four sessions. The last one's setup fails after it has printed the cause on both streams, in words that its
/// command does not contain.
const LAST_FAILS: &str = r#"
[session.coder]
count = 24
resources = ["git-worktree", "port-range"]
setup = ["echo made > made.txt", 'if [ "$AGENT_SESSION_INDEX" = 23 ]; then echo compiling; echo "no such package: $((6 * 7))" >&2; exit 7; fi']
"#;

#[test]
fn a_setup_that_fails_in_the_last_session_takes_all_back() {
    let sandbox = Sandbox::new();
    sandbox.manifest(LAST_FAILS);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
    outcome.says(&["coder-23: setup: ", "exit status: 7", "no such package: 42", "was rolled back"]);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn a_failed_setup_leaves_its_log() {
    let sandbox = Sandbox::new();
    sandbox.manifest(LAST_FAILS);
    let outcome = sandbox.seedbed(&["apply"]).expect(1);
    let log = outcome.stderr.lines().find_map(|line| line.split_once("log: ")).expect("the log is named").1;
    assert_eq!(fs::read_to_string(log).unwrap(), "compiling\nno such package: 42\n");
}

#[test]
fn standard_output_of_a_failing_command_is_reported() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [\"git-worktree\"]\nsetup = [\"echo test result: $((6 * 7)); exit 1\"]\n",
    );
    sandbox.seedbed(&["apply"]).expect(1).says(&["a: setup: ", "test result: 42"]);
}

#[test]
fn a_failure_is_one_document_as_json() {
    let sandbox = Sandbox::new();
    sandbox.manifest(LAST_FAILS);
    let outcome = sandbox.seedbed(&["apply", "--json"]).expect(1);
    let last: serde_json::Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["exitCode"], 1);
    assert_eq!(last["failures"][0]["session"], "coder-23");
    assert_eq!(last["failures"][0]["step"], "setup");
    assert_eq!(last["leftovers"], serde_json::json!([]));
}

#[test]
fn failure_of_a_growing_run_leaves_the_applied_swarm() {
    let sandbox = Sandbox::new();
    let manifest = |count: u32, fails: &str| {
        sandbox.manifest(&format!(
            "[session.lead]\nresources = [\"git-worktree\", \"port-range\"]\n\
             [session.coder]\nresources = [\"git-worktree\", \"port-range\"]\ncount = {count}\nsetup = ['{fails}']\n"
        ));
    };
    let setup = r#"case "$AGENT_SESSION_ID" in */coder-5) exit 1;; esac"#;
    manifest(2, setup);
    sandbox.ok(&["apply"]);
    manifest(6, setup);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
    outcome.says(&["coder-5: setup: "]);
    manifest(2, setup);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn next_apply_after_a_failure_succeeds() {
    let sandbox = Sandbox::new();
    sandbox.manifest(LAST_FAILS);
    sandbox.seedbed(&["apply"]).expect(1);
    sandbox.manifest(&LAST_FAILS.replace("exit 7", "exit 0"));
    sandbox.ok(&["apply"]);
    assert_eq!(fs::read_to_string(sandbox.directory("coder-23").join("made.txt")).unwrap(), "made\n");
}

#[test]
fn a_failure_leaves_the_files_of_the_user() {
    let sandbox = Sandbox::new();
    sandbox.write("untracked.txt", "mine\n");
    sandbox.write("app/main.txt", "changed\n");
    sandbox.manifest(LAST_FAILS);
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
}

#[test]
fn recovery_ends_the_programs_that_setup_left_in_active_sessions() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [\"git-worktree\"]\n\
         setup = [\"if [ -e again ]; then sleep 1062; else sleep 1061 > /dev/null 2>&1 & fi\"]\n",
    );
    sandbox.ok(&["apply"]);
    let worktree = sandbox.directory("a");
    let is_running = |time: &str| {
        let line = format!("sleep\0{time}\0");
        fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|process| {
            fs::read_to_string(process.path().join("cmdline")).is_ok_and(|found| found == line)
                && fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == worktree)
        })
    };
    fs::write(worktree.join("again"), "").unwrap();
    let mut apply = sandbox.start(&["apply", "--setup"]);
    wait_until("setup runs", || is_running("1062"));
    send(Signal::KILL, &apply);
    apply.wait().unwrap();
    sandbox.ok(&["recover"]).says(&["a: ended pid", "sleep 1062"]);
    assert!(!is_running("1062"));
    assert!(is_running("1061"), "an earlier run has started it");
    sandbox.ok(&["destroy", "--discard", "--stop"]);
}
