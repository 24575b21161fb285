//! Tests that a run that updates active sessions in place is all or nothing, for a kill and for an error at any point.

use std::fs;

use super::errors::{With, cases, fail, succeeded};
use super::{check_all, crash, sandbox, some_of, traced, twice};
use crate::sandbox::{Sandbox, assert_same};

const BEFORE: &str = r#"
[session.a]
resources = [{ kind = "git-worktree", branch = "agents/a", link = ["cache"] }, { kind = "port-range", names = ["http"] }]
[session.b]
resources = [{ kind = "git-worktree", target-path = "app" }]
"#;

/// Same sessions with more copies, a link that becomes a copy, another name of a port, and a relative `.git` file.
const AFTER: &str = r#"
[session.a]
resources = [{ kind = "git-worktree", branch = "agents/a", copy = [".env", "cache", "deep"], relative = true }, { kind = "port-range", names = ["http", "db"] }]
[session.b]
resources = [{ kind = "git-worktree", target-path = "app", copy = ["app/.env"], link = ["cache"] }]
"#;

const UPDATE: [&str; 3] = ["apply", "--jobs", "1"];

/// Applies [`BEFORE`] with work in each session.
fn apply_before(sandbox: &Sandbox) {
    sandbox.write("deep/er/file", "deep\n");
    sandbox.write(".git/info/exclude", "/seedbed.toml\n/cache\n/deep\n");
    sandbox.manifest(BEFORE);
    sandbox.ok(&["apply"]);
    for directory in sandbox.directories() {
        fs::write(directory.join("untracked"), "untracked\n").unwrap();
    }
    sandbox.manifest(AFTER);
}

/// Returns whether a run reaches the point because it updates something, or changes its record.
fn is_of_updates(point: &str) -> bool {
    ["update.", "revert.", "bring.", "files.", "pointer.", "run.", "apply."]
        .iter()
        .any(|start| point.starts_with(start))
}

#[test]
fn update_killed_anywhere_is_undone() {
    let lab = sandbox(BEFORE);
    apply_before(&lab);
    let run = traced(&lab, &UPDATE, None);
    let points = twice(&succeeded(&run)).into_iter().filter(|point| is_of_updates(point)).collect();
    check_all(BEFORE, &some_of(points), |sandbox, point| {
        let _ = fs::remove_dir_all(sandbox.state());
        apply_before(sandbox);
        let before = sandbox.inventory();
        crash(sandbox, &UPDATE, point);
        sandbox.ok(&["recover"]);
        if sandbox.seedbed(&["plan", "--detailed-exitcode"]).code != 0 {
            assert_same(&before, &sandbox.inventory());
            sandbox.ok(&UPDATE);
        }
        sandbox.ok(&["destroy", "--discard"]);
    });
}

#[test]
fn recovery_of_an_update_resumes_when_killed_anywhere() {
    let lab = sandbox(BEFORE);
    apply_before(&lab);
    crash(&lab, &UPDATE, "apply.told#1");
    let recover = traced(&lab, &["recover"], None);
    let points = twice(&succeeded(&recover));
    check_all(BEFORE, &some_of(points), |sandbox, point| {
        let _ = fs::remove_dir_all(sandbox.state());
        apply_before(sandbox);
        let before = sandbox.inventory();
        crash(sandbox, &UPDATE, "apply.told#1");
        crash(sandbox, &["recover"], point);
        sandbox.ok(&["recover"]);
        assert_same(&before, &sandbox.inventory());
        sandbox.ok(&["destroy", "--discard"]);
    });
}

#[test]
fn update_that_fails_anywhere_is_undone() {
    let lab = sandbox(BEFORE);
    apply_before(&lab);
    let mut cases = cases(&succeeded(&traced(&lab, &UPDATE, None)), With::One);
    // A plan treats what it cannot read as broken, and replaces it.
    cases.retain(|case| is_of_updates(case) && !case.starts_with("files.read"));
    check_all(BEFORE, &some_of(cases), |sandbox, case| {
        let _ = fs::remove_dir_all(sandbox.state());
        apply_before(sandbox);
        let before = sandbox.inventory();
        match fail(sandbox, &UPDATE, case).code {
            0 => drop(sandbox.ok(&["plan", "--detailed-exitcode"])),
            1 | 69 => assert_same(&before, &sandbox.inventory()),
            code => panic!("exit code {code}"),
        }
        sandbox.ok(&["destroy", "--discard"]);
    });
}

#[test]
fn earlier_update_remains_when_the_next_is_rolled_back() {
    let sandbox = sandbox("[session.a]\nresources = [\"git-worktree\"]\n");
    sandbox.ok(&["apply"]);
    let manifest = |options: &str| {
        sandbox.manifest(&format!("[session.a]\nresources = [{{ kind = \"git-worktree\", {options} }}]\n"));
    };
    manifest("copy = [\"cache\"]");
    sandbox.ok(&["apply"]);
    manifest("copy = [\"cache\", \".env\"]");
    crash(&sandbox, &["apply"], "run.intended#1");
    sandbox.ok(&["recover"]);
    let directory = sandbox.directory("a");
    assert_eq!(fs::read_to_string(directory.join("cache/large.bin")).unwrap(), "large\n");
    assert!(!directory.join(".env").exists());
}
