//! Tests of `status`: its report of sessions, as text and as JSON, and its cost.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::fixtures::repository;
use crate::sandbox::{Outcome, Sandbox, wait_until};

const MANIFEST: &str = "[session.a]\nresources = [{ kind = \"git-worktree\", base-ref = \"main\", branch = \"agents/a\" }, { kind = \"port-range\", names = [\"http\", \"db\"] }]\n[session.b]\nresources = [{ kind = \"git-worktree\", base-ref = \"main\" }]\n[session.c]\n";

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    sandbox.ok(&["apply", "--quiet"]);
    sandbox
}

/// Returns the document, checked against the committed schema.
fn document(outcome: &Outcome) -> Value {
    let schema = fs::read(repository("schemas/status.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let document = outcome.json();
    let faults: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    document
}

fn commit(sandbox: &Sandbox, session: &str, message: &str) {
    let directory = sandbox.directory(session);
    for (key, value) in [("user.name", "agent"), ("user.email", "agent@example.org")] {
        sandbox.git_in(&directory, &["config", key, value]);
    }
    sandbox.git_in(&directory, &["commit", "--quiet", "--allow-empty", "--message", message]);
}

#[test]
fn plan_names_sessions_whose_base_has_moved_on() {
    let sandbox = applied();
    let behind = || sandbox.plan()["behind"].clone();
    assert_eq!(behind(), Value::Null);
    commit(&sandbox, "a", "one");
    assert_eq!(behind(), Value::Null, "a commit of the session is none of the base");
    for message in ["the base moves on", "and on"] {
        sandbox.write("more", message);
        sandbox.commit(message);
    }
    let base = sandbox.git(&["rev-parse", "main"]);
    let lacks = |session: &str| json!({ "session": session, "resource": "git-worktree", "baseRef": "main", "base": base, "commits": 2 });
    assert_eq!(behind(), json!([lacks("a"), lacks("b")]));
    let text = sandbox.ok(&["plan"]).stdout;
    let note =
        "main has 2 commits that a, b lack; to bring them up to date: `seedbed exec a b -- git rebase main`";
    assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(note), "{text}");
    sandbox.ok(&["exec", "a", "b", "--", "git", "rebase", "--quiet", "main"]);
    assert_eq!(behind(), Value::Null, "the command brings both up to date");
}

#[test]
fn status_counts_commits_on_either_side_of_the_base() {
    let sandbox = applied();
    let commits = |document: &Value, at: usize| {
        let commits = &document["sessions"][at]["worktree"]["progress"];
        (commits["branch"].clone(), commits["ahead"].as_u64().unwrap(), commits["behind"].as_u64().unwrap())
    };
    let fresh = document(&sandbox.ok(&["status", "--json"]));
    assert_eq!(commits(&fresh, 0), (json!("agents/a"), 0, 0));
    assert_eq!(commits(&fresh, 1), (Value::Null, 0, 0));
    assert_eq!(fresh["sessions"][2]["worktree"], Value::Null);

    commit(&sandbox, "a", "one");
    commit(&sandbox, "a", "two ünd mehr, more than what fits into the table");
    commit(&sandbox, "b", "three");
    sandbox.write("more", "");
    sandbox.commit("the base moves on");
    let moved = document(&sandbox.ok(&["status", "--json"]));
    assert_eq!(commits(&moved, 0), (json!("agents/a"), 2, 1));
    assert_eq!(commits(&moved, 1), (Value::Null, 1, 1));
    let last = &moved["sessions"][0]["worktree"]["progress"];
    assert_eq!(last["subject"], "two ünd mehr, more than what fits into the table");
    assert_eq!(last["head"].as_str().unwrap(), sandbox.git(&["rev-parse", "agents/a"]));
    assert_eq!(last["base"].as_str().unwrap(), sandbox.git(&["rev-parse", "main"]));
    let text = sandbox.ok(&["status"]).stdout;
    for part in
        ["agents/a, 2 ahead, 1 behind", "detached, 1 ahead, 1 behind", " two ünd mehr, more than what f…"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let remedy = "main has 1 commit that this branch lacks: `seedbed exec b -- git rebase main`";
    assert!(text.contains(remedy), "{text}");
    sandbox.ok(&["exec", "b", "--", "git", "rebase", "--quiet", "main"]);
    assert_eq!(commits(&document(&sandbox.ok(&["status", "--json"])), 1), (Value::Null, 1, 0));

    // Before what it was made from, where the graph between them does not tell.
    sandbox.ok(&["exec", "a", "--", "git", "reset", "--quiet", "--hard", "main"]);
    sandbox.ok(&["exec", "a", "--", "git", "checkout", "--quiet", "--detach", "main~1"]);
    assert_eq!(commits(&document(&sandbox.ok(&["status", "--json"])), 0), (Value::Null, 0, 1));
    sandbox.ok(&["exec", "a", "--", "git", "checkout", "--quiet", "--orphan", "alone"]);
    let orphan = document(&sandbox.ok(&["status", "--json"]));
    assert_eq!(orphan["sessions"][0]["worktree"]["progress"], Value::Null);
    assert_eq!(orphan["sessions"][0]["worktree"]["error"], "refs/heads/alone names no commit");
}

#[test]
fn status_lists_listening_ports_and_ignored_files() {
    let sandbox = applied();
    let fresh = document(&sandbox.ok(&["status", "--json"]));
    let port = |at: usize| fresh["sessions"][0]["ports"][at]["port"].as_u64().unwrap();
    let http =
        u16::try_from(if fresh["sessions"][0]["ports"][0]["name"] == "http" { port(0) } else { port(1) });
    let http = http.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", http)).unwrap();
    let directory = sandbox.directory("a");
    for name in ["1.log", "2.log", "3.log"] {
        fs::write(directory.join(name), "").unwrap();
    }
    let text = sandbox.ok(&["status"]).stdout;
    assert!(text.contains(&format!("http={http} (listens)")), "{text}");
    assert!(text.contains("clean, 3 ignored") && !text.contains("1.log"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
    let verbose = sandbox.ok(&["status", "-v"]).stdout;
    for part in ["1.log", directory.to_str().unwrap(), "last commit: "] {
        assert!(verbose.contains(part), "{part}: {verbose}");
    }
    let document = document(&sandbox.ok(&["status", "--json"]));
    let a = &document["sessions"][0];
    assert!(
        a["ports"].as_array().unwrap().contains(&json!({ "name": "http", "port": http, "listens": true }))
    );
    assert_eq!(a["workingDirectory"], directory.to_str().unwrap());
    assert_eq!(a["environment"]["AGENT_PORT_HTTP"], http.to_string());
    assert_eq!(a["environment"], sandbox.ok(&["env", "a", "--json"]).json()["environment"]);
    drop(listener);
}

#[test]
fn status_exits_with_2_for_drift_on_request() {
    let sandbox = applied();
    sandbox.ok(&["status", "--detailed-exitcode"]);
    fs::write(sandbox.directory("a").join("work"), "").unwrap();
    sandbox.ok(&["status", "--detailed-exitcode"]);
    fs::remove_file(sandbox.directory("b").join(".agent-context/resources.json")).unwrap();
    sandbox.ok(&["status"]);
    let drift = sandbox.seedbed(&["status", "--detailed-exitcode", "--json"]).expect(2);
    assert_eq!(document(&drift)["sessions"][1]["drift"].as_array().unwrap().len(), 1);
    sandbox.ok(&["status", "--repair", "--detailed-exitcode"]);
}

#[test]
fn status_names_phase_time_and_process_of_a_run() {
    let sandbox = applied();
    let top = sandbox.top.display();
    sandbox.manifest(&format!(
        "{MANIFEST}[session.d]\nresources = [\"port-range\"]\nsetup = ['touch {top}/started; while test -d {top} && ! test -e {top}/go; do sleep 0.02; done']\n"
    ));
    let run = sandbox.start(&["apply"]);
    wait_until("the setup runs", || sandbox.top.join("started").exists());
    let outcome = sandbox.ok(&["status", "--json"]);
    let text = sandbox.ok(&["status", "--detailed-exitcode"]).stderr;
    fs::write(sandbox.top.join("go"), "").unwrap();
    let pid = run.id();
    Outcome::of(run.wait_with_output().unwrap()).expect(0);
    let running = &document(&outcome)["run"];
    assert_eq!(running["phase"], "setUp");
    assert!(running["phaseSince"].as_str().unwrap().ends_with('Z'));
    assert!(
        running["holder"].as_str().unwrap().starts_with(&format!("by pid {pid} (`apply`) since ")),
        "{running}"
    );
    assert!(
        text.contains(&format!("by pid {pid}")) && text.contains("in the phase `setUp` since "),
        "{text}"
    );
    assert_eq!(document(&sandbox.ok(&["status", "--json"]))["run"], Value::Null);
}

/// Git is started the same number of times for any number of worktrees.
#[test]
fn status_of_untouched_worktrees_starts_as_many_gits_for_one_as_for_many() {
    let sandbox = Sandbox::new();
    let count = |sessions: usize| {
        sandbox.manifest(&format!("[session.a]\ncount = {sessions}\nresources = [\"git-worktree\"]\n"));
        sandbox.ok(&["apply", "--quiet", "--yes"]);
        let bin = sandbox.top.join(format!("bin-{sessions}"));
        let log = bin.join("log");
        fs::create_dir(&bin).unwrap();
        let script = format!("#!/bin/sh\necho x >>{}\nPATH=$REAL exec git \"$@\"\n", log.display());
        fs::write(bin.join("git"), script).unwrap();
        fs::set_permissions(bin.join("git"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = sandbox.command(&["status"]);
        command.env("PATH", format!("{}:{path}", bin.display())).env("REAL", path);
        Outcome::of(command.output().unwrap()).expect(0);
        fs::read_to_string(log).unwrap().lines().count()
    };
    assert_eq!(count(2), count(12));
}

#[test]
fn status_lists_a_port_under_the_child_that_owns_it_alone() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.lead]\nresources = [\"port-range\"]\n[session.lead.child.coder]\n");
    sandbox.ok(&["apply", "--quiet"]);
    let document = sandbox.ok(&["status", "--json"]).json();
    let port = document["sessions"][1]["ports"][0]["port"].as_u64().unwrap();
    let _server = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    let document = self::document(&sandbox.ok(&["status", "--json"]));
    assert_eq!(document["sessions"][0]["listening"], json!([]), "{document}");
    assert_eq!(document["sessions"][1]["listening"], json!([port]), "{document}");
    let text = sandbox.ok(&["status"]).stdout;
    assert!(!text.contains("too"), "{text}");
}

#[test]
fn status_calls_no_missing_worktree_clean() {
    let sandbox = applied();
    fs::remove_dir_all(sandbox.directory("a")).unwrap();
    let text = sandbox.ok(&["status"]).stdout;
    let row = text.lines().find(|line| line.starts_with("a ")).unwrap();
    assert!(row.contains("unknown") && !row.contains("clean"), "{text}");
}

#[test]
fn plan_calls_no_branch_of_an_active_session_new() {
    let sandbox = applied();
    sandbox.manifest(&MANIFEST.replace("[session.b]", "env = { A = \"1\" }\n[session.b]"));
    let text = sandbox.ok(&["plan"]).stdout;
    assert!(text.contains("agents/a from main") && !text.contains("(new)"), "{text}");
}
