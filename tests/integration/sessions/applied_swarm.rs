//! Tests of an applied swarm: its sessions have what they need, applying it again does nothing, and destroying it
//! leaves no trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::Value;

use crate::sandbox::{Sandbox, assert_same, ports, sessions};

const TREE: &str = r#"
[session.lead]
resources = ["git-worktree", { kind = "port-range", block-size = 16, names = ["http", "db"] }]
env = { ROLE = "lead", DATABASE_URL = "postgres://localhost:{{ port.db }}/app" }
prompt = ["The coders listen on {{ sessions['lead/coder-0'].port.start }} and up."]
[session.lead.child.coder]
resources = ["git-worktree", { kind = "port-range", names = [] }]
count = 3
env = { LEAD = "http://localhost:{{ parent.port.http }}", ROOT = "{{ workspace.root }}" }
[session.reader]
resources = []
"#;

fn discovery(directory: &std::path::Path) -> Value {
    let text = fs::read_to_string(directory.join(".agent-context/resources.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_session_finds_its_commit_and_what_it_owns() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let head = sandbox.git(&["rev-parse", "HEAD"]);
    let plan = sandbox.plan();
    sandbox.ok(&["apply"]);

    sandbox.assert_clean(&sandbox.repository);
    for session in sessions(&plan).filter(|session| session["path"] != "reader") {
        let directory = sandbox.repository.join(session["workingDirectory"].as_str().unwrap());
        assert_eq!(sandbox.git_in(&directory, &["rev-parse", "HEAD"]), head);
        sandbox.assert_clean(&directory);
        let found = discovery(&directory);
        assert_eq!(found["sessionId"], session["id"]);
        assert_eq!(found["workspaceRoot"], sandbox.repository.to_str().unwrap());
        assert_eq!(found["workingDirectory"], directory.to_str().unwrap());
        assert_eq!(found["swarm"]["planDigest"], plan["digest"]);
        assert_eq!(found["swarm"]["manifest"], sandbox.repository.join("seedbed.toml").to_str().unwrap());
        assert_eq!(found["swarm"]["stateDirectory"], sandbox.state().to_str().unwrap());
        let env = &found["softConstraints"]["env"];
        assert_eq!(env["AGENT_WORKTREE_PATH"], directory.to_str().unwrap());
        assert_eq!(env["AGENT_REPO_ROOT"], sandbox.repository.to_str().unwrap());
        assert_eq!(env["AGENT_PORT_RANGE_START"], ports(session).0.to_string());
        assert_eq!(env["AGENT_PORT_RANGE_END"], ports(session).1.to_string());
    }
    let planned: BTreeMap<_, _> =
        sessions(&plan).map(|session| (session["path"].as_str().unwrap(), session)).collect();
    let (lead, _) = ports(planned["lead"]);
    let (coder, _) = ports(planned["lead/coder-0"]);
    let found = discovery(&sandbox.directory("lead"));
    let told = &found["softConstraints"];
    assert_eq!(told["env"]["DATABASE_URL"], format!("postgres://localhost:{}/app", lead + 1));
    assert_eq!(told["env"]["AGENT_PORT_DB"], (lead + 1).to_string());
    let section = format!("The coders listen on {coder} and up.");
    assert!(told["promptSections"].as_array().unwrap().contains(&Value::from(section)));
    let found = discovery(&sandbox.directory("lead/coder-2"));
    assert_eq!(found["softConstraints"]["env"]["LEAD"], format!("http://localhost:{lead}"));
    assert_eq!(found["softConstraints"]["env"]["ROOT"], sandbox.repository.to_str().unwrap());
    assert_eq!(found["swarm"]["parent"], "lead");
}

#[test]
fn a_session_without_a_directory_finds_its_file_in_the_state_directory() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    sandbox.ok(&["apply"]);
    let env = sandbox.ok(&["env", "reader", "--format", "json"]).json()["environment"].take();
    let file = PathBuf::from(env["AGENT_DISCOVERY_FILE"].as_str().unwrap());
    assert!(file.starts_with(sandbox.state()));
    let found: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(found["sessionId"], "shop/reader");
}

#[test]
fn applying_again_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    sandbox.ok(&["apply"]);
    let modified = || -> Vec<SystemTime> {
        let files = sandbox.directories();
        let files = files.iter().map(|directory| directory.join(".agent-context/resources.json"));
        files.filter_map(|file| fs::metadata(file).ok()).map(|file| file.modified().unwrap()).collect()
    };
    let before = modified();
    assert_eq!(before.len(), 4);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    sandbox.unchanged(|| sandbox.ok(&["apply"]).says(&["nothing to do"]));
    assert_eq!(modified(), before);
}

#[test]
fn a_changed_prompt_rewrites_discovery_files_and_nothing_else() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    sandbox.ok(&["apply"]);
    let mut before = sandbox.inventory();
    sandbox.manifest(&TREE.replace("ROLE = \"lead\"", "ROLE = \"head\""));
    sandbox.ok(&["apply"]);
    let mut after = sandbox.inventory();
    let rewritten = |path: &str| {
        path.ends_with("/resources.json")
            || path.ends_with("/applied.json")
            || path.ends_with("/seedbed.toml")
    };
    before.retain(|path, _| !rewritten(path));
    after.retain(|path, _| !rewritten(path));
    assert_same(&before, &after);
    assert_eq!(discovery(&sandbox.directory("lead"))["softConstraints"]["env"]["ROLE"], "head");
    sandbox.ok(&["plan", "--detailed-exitcode"]);
}

/// Applies and destroys, and expects every byte to be unchanged.
#[track_caller]
fn check_no_trace(sandbox: &Sandbox, manifest: &str) {
    sandbox.manifest(manifest);
    let config = fs::read(sandbox.repository.join(".git/config")).unwrap();
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        for directory in sandbox.directories() {
            sandbox.assert_clean(&directory);
        }
        sandbox.assert_clean(&sandbox.repository);
        sandbox.ok(&["destroy"]);
    });
    assert_eq!(fs::read(sandbox.repository.join(".git/config")).unwrap(), config);
    assert!(!sandbox.repository.join(".ai_ops").exists());
}

#[test]
fn destroying_leaves_no_trace() {
    check_no_trace(&Sandbox::new(), TREE);
}

#[test]
fn destroying_sparse_sessions_leaves_no_trace() {
    let sandbox = Sandbox::new();
    let manifest = r#"
[session.a]
resources = [{ kind = "git-worktree", target-path = "app/lib" }, "port-range"]
[session.b]
resources = [{ kind = "git-worktree", target-path = "tools" }]
[session.whole]
resources = ["git-worktree"]
"#;
    sandbox.manifest(manifest);
    let plan = sandbox.ok(&["plan"]);
    assert!(plan.stdout.contains("extensions.worktreeConfig"), "{}", plan.stdout);
    check_no_trace(&sandbox, manifest);

    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a");
    assert!(directory.ends_with("app/lib") && directory.join("deep.txt").is_file());
    assert!(!directory.join("../../tools").exists());
    assert!(directory.join(".agent-context/resources.json").is_file());
    // The setting is removed with the last session that needs it.
    sandbox.ok(&["destroy", "a"]);
    assert_eq!(sandbox.git(&["config", "extensions.worktreeConfig"]), "true");
    sandbox.ok(&["destroy", "b"]);
    assert!(!fs::read_to_string(sandbox.repository.join(".git/config")).unwrap().contains("worktreeConfig"));
}

/// With every layout except `nested`, which is chosen for children that are to be inside.
#[test]
fn changes_in_a_parent_reach_no_child() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n[session.a.child.b]\ncount = 2\n",
    );
    sandbox.ok(&["apply"]);
    let (parent, child) = (sandbox.directory("a"), sandbox.directory("a/b-1"));
    fs::write(child.join("work"), "not committed\n").unwrap();
    fs::write(parent.join("work"), "not committed\n").unwrap();
    for args in [&["stash", "--include-untracked"][..], &["add", "--all"], &["clean", "--quiet", "-ffdx"]] {
        sandbox.git_in(&parent, args);
    }
    sandbox.assert_clean(&parent);
    sandbox.git(&["worktree", "remove", "--force", "--force", parent.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(child.join("work")).unwrap(), "not committed\n");
    assert!(child.join(".agent-context/resources.json").exists());
    // Nor is a parent released without its children.
    sandbox.seedbed(&["destroy", "a"]).expect(69).says(&["a/b-1: "]);
    assert!(child.join("work").exists());
}

#[test]
fn destroying_sessions_with_branches_leaves_no_trace() {
    let manifest = r#"
[session.coder]
count = 3
resources = [{ kind = "git-worktree", branch = "agents/deep/{{ session.name }}" }]
"#;
    check_no_trace(&Sandbox::new(), manifest);
}

#[test]
fn destroying_nested_sessions_leaves_no_trace() {
    let manifest = r#"
[defaults.git-worktree]
layout = "nested"
[session.lead]
resources = ["git-worktree"]
[session.lead.child.coder]
count = 2
[session.lead.child.coder.child.helper]
"#;
    check_no_trace(&Sandbox::new(), manifest);
}

#[test]
fn a_worktree_root_outside_ai_ops_leaves_no_trace() {
    let manifest = r#"
[session.coder]
count = 2
resources = [{ kind = "git-worktree", root-directory = "deep/er/trees" }, { kind = "port-range", lock-directory = "deep/locks" }]
"#;
    check_no_trace(&Sandbox::new(), manifest);
}

#[test]
fn earlier_files_of_directories_stay() {
    let sandbox = Sandbox::new();
    sandbox.write(".git/info/exclude", "/seedbed.toml\n/.ai_ops\n");
    sandbox.write(".ai_ops/notes.txt", "mine\n");
    sandbox.manifest(TREE);
    sandbox.unchanged(|| {
        sandbox.ok(&["apply"]);
        sandbox.ok(&["destroy"]);
    });
}

#[test]
fn a_branch_that_gained_a_commit_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        r#"
[session.coder]
count = 2
resources = [{ kind = "git-worktree", branch = "agents/{{ session.name }}" }]
"#,
    );
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder-1");
    fs::write(directory.join("new.txt"), "work\n").unwrap();
    sandbox.git_in(&directory, &["add", "--all"]);
    sandbox.git_in(&directory, &["commit", "--quiet", "--message", "work"]);
    let commit = sandbox.git_in(&directory, &["rev-parse", "HEAD"]);
    sandbox.ok(&["destroy"]);
    let branches = sandbox.git(&["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/agents"]);
    assert_eq!(branches, format!("refs/heads/agents/coder-1 {commit}"));
}

#[test]
fn destroying_one_session_leaves_the_others() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    sandbox.ok(&["apply"]);
    let kept = sandbox.directory("lead/coder-0");
    let gone = sandbox.directory("lead/coder-1");
    sandbox.ok(&["destroy", "lead/coder-1"]);
    assert!(kept.is_dir() && !gone.exists());
    let status = sandbox.ok(&["status", "--json"]).json();
    let paths: Vec<_> = sessions(&status).map(|session| session["session"].as_str().unwrap()).collect();
    assert_eq!(paths, ["lead", "lead/coder-0", "lead/coder-2", "reader"]);
    assert!(sessions(&status).all(|session| session["drift"] == serde_json::json!([])), "{status:#}");
    let children = &discovery(&sandbox.directory("lead"))["swarm"]["children"];
    assert_eq!(children, &serde_json::json!(["lead/coder-0", "lead/coder-2"]));
    // The release of a parent releases everything below it.
    sandbox.ok(&["destroy", "lead"]);
    assert!(!kept.exists());
    sandbox.ok(&["destroy"]);
    sandbox.ok(&["destroy"]).says(&["nothing is applied"]);
}
