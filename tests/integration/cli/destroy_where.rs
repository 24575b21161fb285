//! Tests of `destroy --where`: what cannot be determined is never a reason to release.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

const SESSIONS: &str = "[defaults.git-worktree]\nbranch = \"agents/{{ session.name }}\"\n\
                        [session.a]\nresources = [\"git-worktree\"]\n[session.b]\nresources = [\"git-worktree\"]\n\
                        [session.b.child.c]\nresources = [\"git-worktree\"]\n[session.plain]\nresources = []\n";

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(SESSIONS);
    sandbox.ok(&["apply"]);
    sandbox
}

fn commit(sandbox: &Sandbox, session: &str) {
    let directory = sandbox.directory(session);
    sandbox.git_in(&directory, &["commit", "--quiet", "--allow-empty", "--message", session]);
}

/// Returns the sessions that a dry run would release, and the reasons for the others.
fn selected(sandbox: &Sandbox, conditions: &str) -> (Vec<String>, Vec<(String, String)>) {
    let args = ["destroy", "--dry-run", "--json", "--where", conditions];
    let document = sandbox.unchanged(|| sandbox.ok(&args)).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sessions = document["sessions"].as_array().unwrap().iter().map(text).collect();
    let unmatched = document["unmatched"].as_array().cloned().unwrap_or_default();
    let unmatched =
        unmatched.iter().map(|loss| (text(&loss["session"]), text(&loss["description"]))).collect();
    (sessions, unmatched)
}

fn paths(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(session, _)| session.as_str()).collect()
}

#[test]
fn destroy_where_landed_releases_only_sessions_whose_commits_are_known_to_have_landed() {
    let sandbox = applied();
    for session in ["a", "b/c"] {
        commit(&sandbox, session);
    }
    let (sessions, unmatched) = selected(&sandbox, "landed=main");
    assert_eq!((sessions, paths(&unmatched)), (vec![], vec!["a", "b", "b/c", "plain"]));
    assert_eq!(unmatched[0].1, "1 commit has not landed in main");
    assert_eq!(unmatched[1].1, "it has no commit that can have landed");
    assert_eq!(unmatched[3].1, "it has no worktree, so nothing of it can have landed");
    assert_eq!(sandbox.ok(&["destroy", "--where", "landed=main"]).stdout, "");

    sandbox.git(&["merge", "--quiet", "--no-ff", "--no-edit", "agents/a", "agents/c"]);
    let (sessions, unmatched) = selected(&sandbox, "landed=main,clean");
    assert_eq!((sessions, paths(&unmatched)), (vec!["a".into(), "b/c".into()], vec!["b", "plain"]));
    fs::write(sandbox.directory("a").join("work"), "").unwrap();
    assert_eq!(selected(&sandbox, "landed=main,clean").0, ["b/c"]);
    assert_eq!(selected(&sandbox, "landed,clean").0, ["b/c"], "HEAD of the repository is main");
    fs::remove_file(sandbox.directory("a").join("work")).unwrap();
    let admin = sandbox.git_in(&sandbox.directory("b/c"), &["rev-parse", "--absolute-git-dir"]);
    let aside = sandbox.top.join("admin");
    fs::rename(admin.trim(), &aside).unwrap();
    let (sessions, unmatched) = selected(&sandbox, "landed=main");
    assert_eq!(sessions, ["a"], "what cannot be read has not landed");
    assert!(unmatched[1].1.starts_with("it is unknown what has landed: "), "{unmatched:?}");
    fs::rename(&aside, admin.trim()).unwrap();

    let [a, b, c] = ["a", "b", "b/c"].map(|session| sandbox.directory(session));
    fs::write(a.join("work"), "").unwrap();
    let done = sandbox.ok(&["destroy", "--where", "landed=main,clean", "--json", "--yes"]).stdout;
    let done: Value = serde_json::from_str(done.lines().last().unwrap()).unwrap();
    assert_eq!((&done["released"], &done["left"]), (&json!(1), &json!(3)));
    assert!(a.join("work").exists() && b.exists() && !c.exists());
    sandbox
        .seedbed(&["destroy", "--where", "landed=nothing"])
        .expect(64)
        .says(&["`nothing` names no commit"]);
    sandbox.seedbed(&["destroy", "--where", "old"]).expect(64).says(&["`old` is no condition"]);
}

/// Gives all files below a directory an old time.
fn age(sandbox: &Sandbox, directory: &Path) {
    let script = "find \"$1\" -exec touch --no-dereference --date=2020-01-01 {} +";
    let aged = sandbox.program("sh", directory).args(["-c", script, "sh"]).arg(directory).status().unwrap();
    assert!(aged.success());
}

#[test]
fn destroy_where_idle_needs_every_file_and_process_to_be_known() {
    let sandbox = Sandbox::new().without_root();
    sandbox.manifest(SESSIONS);
    sandbox.ok(&["apply"]);
    assert_eq!(selected(&sandbox, "idle=1h").0, [""; 0]);
    for session in ["a", "b", "b/c"] {
        let directory = sandbox.directory(session);
        let admin = sandbox.git_in(&directory, &["rev-parse", "--absolute-git-dir"]);
        age(&sandbox, &directory);
        age(&sandbox, Path::new(admin.trim()));
    }
    let (sessions, unmatched) = selected(&sandbox, "idle=1h");
    assert_eq!(sessions, ["a", "b", "b/c"]);
    assert_eq!(unmatched[0].1, "it is unknown when it changed: it has no directory");
    fs::write(sandbox.directory("b/c").join("new"), "").unwrap();
    assert_eq!(selected(&sandbox, "idle=1h").0, ["a"], "a parent is kept with its child");

    let mut child =
        sandbox.program("sleep", &sandbox.directory("a")).arg("1009").stdout(Stdio::null()).spawn().unwrap();
    for conditions in ["idle=1h,no-process", "idle=1h"] {
        assert_eq!(selected(&sandbox, conditions).0, [""; 0], "{conditions}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(selected(&sandbox, "idle=1h,no-process").0, ["a"]);
    let hidden = sandbox.directory("a").join("app");
    sandbox.program("chmod", &sandbox.top).arg("000").arg(&hidden).status().unwrap();
    let (sessions, unmatched) = selected(&sandbox, "idle=1h");
    assert_eq!(sessions, [""; 0]);
    assert!(unmatched[0].1.ends_with("app cannot be read"), "{unmatched:?}");
    sandbox.program("chmod", &sandbox.top).arg("755").arg(&hidden).status().unwrap();

    let status = sandbox.ok(&["status", "--sizes", "--json"]).json();
    let a = &status["sessions"][0];
    assert_eq!(a["usage"]["changed"], "2020-01-01T00:00:00Z");
    assert!(a["usage"]["bytes"].as_u64().unwrap() > 4096, "{a}");
    assert_eq!(status["sessions"][3]["usage"], json!({ "bytes": 0, "changed": null }));
    assert!(
        sandbox.ok(&["status", "--sizes"]).stdout.contains("KiB on disk, last change 2020-01-01T00:00:00Z")
    );
    let listed = sandbox.ok(&["list", "--sizes"]).stdout;
    assert!(listed.contains("SIZE") && listed.contains("KiB"), "{listed}");
}
