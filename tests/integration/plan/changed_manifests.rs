//! Tests of a manifest that changes while its swarm is applied: unchanged sessions are not moved, and removals need
//! consent.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::sandbox::{Sandbox, sessions};

/// Writes a manifest with a lead whose coders share its ports, and with pool sessions.
fn manifest(sandbox: &Sandbox, coders: u32, testers: u32) {
    sandbox.manifest(&format!(
        r#"
[session.lead]
resources = ["git-worktree", {{ kind = "port-range", block-size = 64, names = ["http"], slots = 8 }}]
[session.lead.child.coder]
count = {coders}
resources = ["git-worktree", {{ kind = "port-range", names = [] }}]
[session.tester]
count = {testers}
resources = ["git-worktree", "port-range"]
"#
    ));
}

/// Returns the allocations of every session, from its discovery file.
fn held(sandbox: &Sandbox) -> BTreeMap<String, Value> {
    let files = sandbox.directories();
    let files = files.iter().map(|directory| directory.join(".agent-context/resources.json"));
    files
        .map(|file| serde_json::from_str::<Value>(&fs::read_to_string(file).unwrap()).unwrap())
        .map(|found| (found["swarm"]["path"].as_str().unwrap().to_owned(), found["hardConstraints"].clone()))
        .collect()
}

fn actions(plan: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let changes = plan["changes"].as_array().unwrap().iter();
    changes.map(|change| (text(&change["session"]), text(&change["action"]))).collect()
}

#[test]
fn a_raised_count_creates_the_new_sessions_and_moves_no_other() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, 2, 3);
    sandbox.ok(&["apply"]);
    let before = held(&sandbox);
    let marker = sandbox.directory("tester-1").join("marker.log");
    fs::write(&marker, "a session is at work\n").unwrap();

    manifest(&sandbox, 4, 6);
    let actions = actions(&sandbox.plan());
    let created: Vec<_> =
        actions.iter().filter(|(_, action)| *action == "create").map(|(path, _)| path).collect();
    assert_eq!(created, ["lead/coder-2", "lead/coder-3", "tester-3", "tester-4", "tester-5"]);
    // The discovery file of the lead names more children; nothing else of the lead changes.
    assert_eq!(actions["lead"], "update");
    assert!(["lead/coder-0", "lead/coder-1", "tester-0"].iter().all(|path| actions[*path] == "keep"));

    sandbox.ok(&["apply"]);
    let after = held(&sandbox);
    assert_eq!(after.len(), 11);
    for (path, held) in &before {
        assert_eq!(&after[path], held, "{path}");
    }
    assert!(marker.is_file());
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn raised_count_moves_no_other_session_without_slots() {
    let sandbox = Sandbox::new();
    let write = |count| {
        sandbox.manifest(&format!(
            "[session.lead]\nresources = [{{ kind = \"port-range\", block-size = 16 }}, \"git-worktree\"]\n\
             [session.lead.child.coder]\ncount = {count}\n"
        ));
    };
    write(2);
    sandbox.ok(&["apply"]);
    let before = held(&sandbox);
    write(3);
    sandbox.ok(&["apply"]);
    let after = held(&sandbox);
    for (path, held) in &before {
        assert_eq!(&after[path], held, "{path}");
    }
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn a_lowered_count_needs_consent() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, 3, 3);
    sandbox.ok(&["apply"]);
    let before = held(&sandbox);
    manifest(&sandbox, 1, 2);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(69));
    refused.says(&["lead/coder-1", "lead/coder-2", "tester-2", "--yes"]);

    let gone = [sandbox.repository.join(directory_of(&before["tester-2"]))];
    sandbox.ok(&["apply", "--yes"]);
    assert!(gone.iter().all(|directory| !directory.exists()));
    let after = held(&sandbox);
    assert_eq!(after.keys().collect::<Vec<_>>(), ["lead", "lead/coder-0", "tester-0", "tester-1"]);
    for (path, held) in &after {
        assert_eq!(&before[path], held, "{path}");
    }
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    let listed = sandbox.git(&["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 5, "{listed}");
}

fn directory_of(held: &Value) -> &str {
    held.as_array().unwrap().iter().find_map(|held| held["allocation"]["worktreePath"].as_str()).unwrap()
}

#[test]
fn changed_context_of_a_kept_session_is_shown_field_by_field() {
    let sandbox = Sandbox::new();
    let write = |env: &str, prompt: &str, metadata: &str, setup: &str, child: &str| {
        sandbox.manifest(&format!(
            "[session.a]\nenv = {{ {env} }}\nprompt = [{prompt}]\nmetadata = {{ {metadata} }}\nsetup = [{setup}]\n{child}"
        ));
    };
    write(
        "PORT = '1', OLD = 'x', SAME = '='",
        "'You lead.'",
        "team = 'one'",
        "'true'",
        "[session.a.child.b]\n",
    );
    sandbox.ok(&["apply"]);
    write("PORT = '2', NEW = 'y', SAME = '='", "'You follow.', 'More.'", "team = 'two'", "['true', 'x']", "");
    let lines = [
        "env PORT: 1 -> 2",
        "env OLD: x -> not set",
        "env NEW: not set -> y",
        "prompt section 1: You lead. -> You follow.",
        "prompt section 2: not set -> More.",
        "metadata team: one -> two",
        "setup command 1: true -> [\"true\",\"x\"]",
        "child a/b is removed",
    ];
    let text = sandbox.ok(&["plan"]).stdout;
    for line in lines {
        assert!(text.contains(line), "not said: {line}\n{text}");
    }
    assert!(!text.contains("SAME"), "{text}");
    let plan = sandbox.plan();
    let change = plan["changes"].as_array().unwrap().iter().find(|change| change["session"] == "a").unwrap();
    assert_eq!(change["action"], "update");
    let field = |name: &str| {
        let fields = change["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("{name}: {fields:?}"))
    };
    assert_eq!(field("env PORT"), &serde_json::json!({ "name": "env PORT", "from": "1", "to": "2" }));
    assert_eq!(field("env OLD")["to"], Value::Null);
    assert_eq!(field("setup command 1")["to"], serde_json::json!(["true", "x"]));
    assert_eq!(change["fields"].as_array().unwrap().len(), lines.len());
}

#[test]
fn refusal_is_marked_in_the_plan_and_precedes_the_question() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, 1, 3);
    sandbox.ok(&["apply"]);
    fs::write(sandbox.directory("tester-2").join("work.txt"), "unsaved\n").unwrap();
    // It stays, so that nothing of it would be lost.
    fs::write(sandbox.directory("tester-0").join("work.txt"), "unsaved\n").unwrap();
    manifest(&sandbox, 1, 1);
    let shown = sandbox.unchanged(|| sandbox.ok(&["plan"]).stdout);
    assert!(shown.contains("apply refuses this: tester-2 has unsaved work: "), "{shown}");
    assert!(shown.contains("--discard") && !shown.contains("tester-0 has unsaved"), "{shown}");
    let plan = sandbox.plan();
    let losses = plan["unsavedWork"].as_array().unwrap();
    assert!(!losses.is_empty() && losses.iter().all(|loss| loss["session"] == "tester-2"), "{losses:?}");
    sandbox.ok(&["plan", "-o", "../plan.json"]);
    for apply in [&["apply"][..], &["apply", "../plan.json"]] {
        let refused = sandbox.unchanged(|| sandbox.seedbed(apply).expect(69));
        assert!(!refused.stderr.contains("confirm with `--yes`"), "{}", refused.stderr);
        refused.says(&["tester-2: ", "--discard"]);
    }
    sandbox.ok(&["apply", "--yes", "--discard", "../plan.json"]);
    assert!(sandbox.plan().get("unsavedWork").is_none());
}

#[test]
fn removal_of_a_session_with_unsaved_work_is_refused() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, 1, 3);
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("tester-2");
    fs::write(directory.join("work.txt"), "unsaved\n").unwrap();
    manifest(&sandbox, 1, 2);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes"]).expect(69));
    refused.says(&["tester-2: ", "1 untracked", "--discard"]);
    sandbox.ok(&["apply", "--yes", "--discard"]);
    assert!(!directory.exists());
}

#[test]
fn missing_worktree_is_created_again_at_its_path() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, 1, 2);
    sandbox.ok(&["apply"]);
    let before = held(&sandbox);
    let directory = sandbox.directory("tester-1");
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(actions(&sandbox.plan())["tester-1"], "repair");
    sandbox.ok(&["apply", "--yes"]);
    sandbox.assert_clean(&directory);
    assert_eq!(held(&sandbox), before);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn a_discovery_file_that_was_lost_is_written_again() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, 1, 1);
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("tester-0");
    let file = directory.join(".agent-context/resources.json");
    let before = fs::read(&file).unwrap();
    sandbox.git_in(&directory, &["clean", "--quiet", "-ffdx"]);
    assert!(!file.exists());
    let status = sandbox.ok(&["status", "--json"]).json();
    let drifted = sessions(&status).find(|session| session["session"] == "tester-0").unwrap();
    assert_eq!(drifted["drift"], serde_json::json!(["discovery: resources.json does not exist"]));
    sandbox.ok(&["apply"]);
    assert_eq!(fs::read(&file).unwrap(), before);
    sandbox.assert_clean(&directory);
}

#[test]
fn a_changed_option_replaces_the_session_with_consent() {
    let sandbox = Sandbox::new();
    sandbox.commit("second");
    let write = |base: &str| {
        sandbox.manifest(&format!(
            "[session.a]\nresources = [{{ kind = \"git-worktree\", base-ref = \"{base}\" }}, \"port-range\"]\n"
        ));
    };
    write("main");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    write("main~1");
    assert_eq!(actions(&sandbox.plan())["a"], "replace");
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(69));
    sandbox.ok(&["apply", "--yes"]);
    let commit = sandbox.git(&["rev-parse", "main~1"]);
    assert_eq!(sandbox.git_in(&directory, &["rev-parse", "HEAD"]), commit);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

#[test]
fn a_branch_that_moves_on_does_not_move_sessions_that_stand() {
    let sandbox = Sandbox::new();
    manifest(&sandbox, 1, 1);
    sandbox.ok(&["apply"]);
    sandbox.commit("second");
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}
