//! Tests of repeated steps in active sessions: `setup`, copies of workspace files.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::sandbox::Sandbox;

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn setup_of_an_active_session_runs_when_requested() {
    let sandbox = Sandbox::new();
    let log = sandbox.top.join("log");
    let manifest = |setup: &str| {
        sandbox.manifest(&format!(
            "[session.a]\ncount = 2\nresources = [\"git-worktree\"]\n{setup}[session.b]\nresources = [\"git-worktree\"]\n"
        ));
    };
    let setup = format!("setup = ['echo $AGENT_SESSION_ID >> {}']\n", log.display());
    manifest("");
    sandbox.ok(&["apply"]);
    manifest(&setup);
    let note = "not run in active sessions; to run it: `seedbed apply --setup a-0 a-1`";
    assert!(sandbox.ok(&["plan"]).stdout.contains(note));
    sandbox.ok(&["apply"]).says(&["2 updated", note]);
    assert_eq!(lines(&log), [] as [&str; 0]);
    sandbox.ok(&["apply", "--setup", "a-1"]).says(&["1 updated"]);
    assert_eq!(lines(&log), ["shop/a-1"]);
    // A `setup` that the same run adds counts too.
    manifest("");
    sandbox.ok(&["apply"]);
    manifest(&setup);
    sandbox.ok(&["apply", "--setup"]);
    assert_eq!(lines(&log).len(), 3);
    fs::write(&log, "shop/a-1\n").unwrap();
    // As a plan that was reviewed, of all that have any; nothing else is done again.
    let plan = sandbox.ok(&["plan", "--setup", "-o", "saved"]).stdout;
    assert!(plan.contains("because its setup is to run again"), "{plan}");
    sandbox.ok(&["apply", "saved"]);
    assert_eq!(lines(&log).len(), 3);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    sandbox.seedbed(&["apply", "saved", "--setup"]).expect(64);
    sandbox.seedbed(&["apply", "--setup", "c"]).expect(64).says(&["no session `c` is active"]);
    // An active session is not released because its setup fails.
    manifest(&setup.replace("echo", "exit 3; echo"));
    sandbox.seedbed(&["apply", "--setup"]).expect(1).says(&["a-0: setup: "]);
    manifest(&setup);
    sandbox.unchanged(|| sandbox.ok(&["apply"]).says(&["nothing to do"]));
    let applied = {
        manifest(&setup.replace("echo", "echo again"));
        sandbox.ok(&["apply", "--json"]).stdout
    };
    let done: serde_json::Value = serde_json::from_str(applied.lines().last().unwrap()).unwrap();
    assert_eq!(done["setupNotRun"], json!(["a-0", "a-1"]));
}

#[test]
fn commands_in_notes_name_every_session() {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", ".env\n");
    sandbox.commit("ignores");
    sandbox.write(".env", "A=1\n");
    sandbox
        .manifest("[session.a]\ncount = 6\nresources = [{ kind = \"git-worktree\", copy = [\".env\"] }]\n");
    sandbox.ok(&["apply"]);
    sandbox.write(".env", "A=22\n");
    sandbox.commit("moves on");
    let plan = sandbox.ok(&["plan"]).stdout;
    let all = "a-0 a-1 a-2 a-3 a-4 a-5";
    for part in [
        &format!("--refresh {all}`\n"),
        "that 6 sessions lack;",
        &format!("seedbed exec {all} -- git rebase"),
    ] {
        assert!(plan.contains(part), "{plan}");
    }
}

#[test]
fn copies_are_refreshed_where_their_sessions_have_not_changed_them() {
    let sandbox = Sandbox::new();
    sandbox.write(".gitignore", ".env*\n");
    sandbox.commit("ignores");
    sandbox.write(".env", "A=1\n");
    let manifest =
        "[session.a]\ncount = 3\nresources = [{ kind = \"git-worktree\", copy = [\".env*\", \".env\"] }]\n";
    sandbox.manifest(manifest);
    sandbox.ok(&["apply"]);
    let env = |at: usize| sandbox.directory(&format!("a-{at}")).join(".env");
    let paths = [env(0), env(1), env(2)];
    let text = |at: usize| fs::read_to_string(&paths[at]).unwrap();
    assert!(!sandbox.ok(&["plan"]).stdout.contains("--refresh"));
    sandbox.write(".env", "A=22\n");
    sandbox.write(".env.local", "B=1\n");
    fs::write(&paths[1], "A=mine\n").unwrap();
    let plan = sandbox.ok(&["plan"]).stdout;
    let note = "`.env` has changed in the workspace since it was copied; to copy it again: `seedbed apply --refresh a-0 a-2`";
    assert!(plan.contains(note), "{plan}");
    let status = sandbox.ok(&["status"]).stdout;
    assert!(status.contains("since it was copied: `seedbed apply --refresh a-0`"), "{status}");
    let outdated = &sandbox.ok(&["status", "--json"]).json()["sessions"][1]["outdated"];
    assert_eq!(*outdated, json!([]));
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    assert_eq!(text(0), "A=1\n");
    sandbox.ok(&["apply", "--refresh", "a-0", "a-1"]).says(&["a-1: not refreshed: `.env` was changed"]);
    assert_eq!([text(0), text(1), text(2)], ["A=22\n", "A=mine\n", "A=1\n"]);
    assert_eq!(fs::read_to_string(paths[0].with_file_name(".env.local")).unwrap(), "B=1\n");
    sandbox.ok(&["apply", "--refresh"]);
    assert_eq!([text(0), text(1), text(2)], ["A=22\n", "A=mine\n", "A=22\n"]);
    assert!(!sandbox.ok(&["plan"]).stdout.contains("--refresh"));
    // A copy outlasts its source, and the others are refreshed.
    fs::remove_file(sandbox.repository.join(".env")).unwrap();
    let missing = ["a-0: not refreshed: `.env` is no untracked file of the workspace any more"];
    sandbox.ok(&["apply", "--refresh"]).says(&missing);
    sandbox.write(".env.local", "B=2\n");
    sandbox.ok(&["apply", "--refresh"]).says(&missing);
    assert_eq!(fs::read_to_string(paths[0].with_file_name(".env.local")).unwrap(), "B=2\n");
    assert_eq!(text(0), "A=22\n");
    sandbox.assert_clean(&sandbox.directory("a-0"));
    sandbox.ok(&["destroy"]);
}
