//! Tests of commands that run in sessions, and of the information that sessions get.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::sandbox::{Sandbox, sessions};

const TREE: &str = r#"
[session.lead]
resources = ["git-worktree", { kind = "port-range", names = ["http"], reserve = 1, block-size = 16 }]
env = { ROLE = "lead" }
prompt = ["You coordinate."]
[session.lead.child.coder]
count = 2
resources = ["git-worktree", { kind = "port-range", names = [] }]
"#;

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    sandbox.ok(&["apply"]);
    sandbox
}

#[test]
fn a_command_runs_in_its_session() {
    let sandbox = applied();
    let script = "pwd -P; echo $ROLE $AGENT_SESSION_ID $AGENT_PORT_HTTP $AGENT_PORT_PRIMARY; cat \"$AGENT_DISCOVERY_FILE\"";
    let outcome = sandbox.ok(&["exec", "lead", "--", "sh", "-c", script]);
    let mut lines = outcome.stdout.lines();
    assert_eq!(lines.next().unwrap(), sandbox.directory("lead").to_str().unwrap());
    let words: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert_eq!(words[..2], ["lead", "shop/lead"]);
    assert_eq!(words[2], words[3]);
    let found: serde_json::Value = serde_json::from_str(&lines.collect::<String>()).unwrap();
    assert_eq!(found["sessionId"], "shop/lead");
    // By name where only one has it, and from anywhere below.
    let below = sandbox.repository.join("app");
    let outcome = sandbox.seedbed_in(&below, &["exec", "coder-1", "--", "pwd"]).expect(0);
    assert_eq!(outcome.stdout.trim_end(), sandbox.directory("lead/coder-1").to_str().unwrap());
}

#[test]
fn commands_in_a_session_use_the_manifest_that_it_was_applied_from() {
    let sandbox = applied();
    let other =
        sandbox.manifest_text("[session.alone]\nresources = [\"git-worktree\"]\n").replace("shop", "other");
    sandbox.write("other.toml", &other);
    let other = ["-f", "other.toml"];
    sandbox.ok(&[&other[..], &["apply"]].concat());
    let status = sandbox.ok(&[&other[..], &["status", "--json"]].concat()).json();
    let found = sessions(&status).next().unwrap()["workingDirectory"].as_str().unwrap();
    let alone = sandbox.repository.join(found);
    let status = sandbox.seedbed_in(&alone, &["status", "--json"]).expect(0).json();
    assert_eq!(sessions(&status).next().unwrap()["session"], "alone");
    let kid = sandbox.seedbed_in(&alone, &["spawn", "kid", "--json"]).expect(0).json();
    assert_eq!(kid["sessionId"], "other/alone/kid");
    sandbox.seedbed_in(&alone, &["destroy", "--yes"]).expect(0);
    assert!(sandbox.directory("lead").is_dir());
}

#[test]
fn the_exit_code_of_a_command_passes_through() {
    let sandbox = applied();
    let code = |script: &str| sandbox.seedbed(&["exec", "lead", "--", "sh", "-c", script]).code;
    assert_eq!([code("exit 0"), code("exit 7"), code("exit 255")], [0, 7, 255]);
    assert_eq!(code("kill -TERM $$"), 128 + 15);
    sandbox.seedbed(&["exec", "lead", "--", "no-such-program"]).expect(127).says(&["no-such-program"]);
    sandbox.seedbed(&["exec", "lead", "--", "./README.md"]).expect(126).says(&["README.md"]);
    sandbox.seedbed(&["exec", "leda", "--", "true"]).expect(125).says(&["did you mean `lead`?"]);
}

#[test]
fn exec_prefixes_each_line_with_its_session() {
    let sandbox = applied();
    let script = "echo one; echo two >&2; test $AGENT_SESSION_INDEX != 1 || exit 9";
    let outcome = sandbox.seedbed(&["exec", "--all", "--", "sh", "-c", script]).expect(9);
    assert_eq!(sorted_lines(&outcome.stdout), ["lead/coder-0: one", "lead/coder-1: one", "lead: one"]);
    assert_eq!(
        sorted_lines(&outcome.stderr),
        [
            "failed in 1 of 3 sessions: lead/coder-0 (exit code 9)",
            "lead/coder-0: two",
            "lead/coder-1: two",
            "lead: two"
        ]
    );
    let two = sandbox.ok(&["exec", "lead", "coder-1", "--", "echo", "x"]);
    assert_eq!(sorted_lines(&two.stdout), ["lead/coder-1: x", "lead: x"]);
}

/// Returns the lines in sorted order, because sessions end in any order.
fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_command_reads_the_callers_input() {
    let sandbox = applied();
    let mut cat = sandbox.command(&["exec", "lead", "--", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(b"hello").unwrap();
    assert_eq!(cat.wait_with_output().unwrap().stdout, b"hello");
}

#[test]
fn a_run_ends_with_the_commands_code_and_nothing_standing() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let run =
        |script: &str| sandbox.unchanged(|| sandbox.seedbed(&["run", "--quiet", "--", "sh", "-c", script]));
    let outcome = run("pwd -P; echo dirty > README.md; echo new > new.txt; exit 3").expect(3);
    assert!(outcome.stdout.contains("/.ai_ops/worktrees/shop-run-"), "{}", outcome.stdout);
    run("exit 0").expect(0);
    run("kill -KILL $$").expect(137);
    let outcome = sandbox.unchanged(|| sandbox.seedbed(&["run", "--", "no-such-program"]));
    outcome.expect(127);
    let args = ["run", "--session", "lead/coder-1", "--", "sh", "-c", "echo $AGENT_SESSION_ID"];
    let outcome = sandbox.unchanged(|| sandbox.ok(&args));
    assert!(
        outcome.stdout.starts_with("shop-run-") && outcome.stdout.ends_with("/lead/coder-1\n"),
        "{}",
        outcome.stdout
    );
    let unknown = ["run", "--session", "leda", "--", "true"];
    sandbox.unchanged(|| sandbox.seedbed(&unknown).expect(64).says(&["did you mean `lead`?"]));
}

#[test]
fn a_run_leaves_an_applied_swarm_alone() {
    let sandbox = applied();
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["run", "--in-place", "--", "true"]).expect(69));
    refused.says(&["is applied already", "seedbed exec"]);
}

#[test]
fn a_run_with_several_sessions_at_the_top_asks_which() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = []\n[session.b]\nresources = []\n");
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["run", "--", "true"]).expect(64));
    refused.says(&["--session", "a, b"]);
}

#[test]
fn a_prompt_comes_after_what_the_session_has_to_know() {
    let sandbox = applied();
    let file = sandbox.directory("lead").join(".agent-context/resources.json");
    let found: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let sections = found["softConstraints"]["promptSections"].as_array().unwrap();
    // The seed's `composePrompt`.
    let mut lines = vec!["Runtime resource constraints are already enforced by the orchestrator:".to_owned()];
    lines.extend(sections.iter().map(|section| format!("- {}", section.as_str().unwrap())));
    lines.extend([String::new(), "Fix the bug.".to_owned()]);
    let expected = lines.join("\n") + "\n";
    assert!(expected.contains("- You coordinate.\n"));
    assert_eq!(sandbox.ok(&["prompt", "lead", "Fix the bug."]).stdout, expected);
    let mut piped = sandbox.command(&["prompt", "lead"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"Fix the bug.").unwrap();
    assert_eq!(String::from_utf8(piped.wait_with_output().unwrap().stdout).unwrap(), expected);
}

#[test]
fn a_session_knows_who_it_is_from_any_of_its_directories() {
    let sandbox = applied();
    let directory = sandbox.directory("lead/coder-1").join("app/lib");
    let file = directory.join("../../.agent-context/resources.json");
    let expected: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let outcome = sandbox.seedbed_in(&directory, &["whoami", "--json"]).expect(0);
    assert_eq!(outcome.json(), expected);
    let outcome = sandbox.seedbed_in(&directory, &["whoami"]).expect(0);
    assert!(outcome.stdout.contains("shop/lead/coder-1"), "{}", outcome.stdout);
    sandbox.ok(&["exec", "--all", "--quiet", "--", "true"]);
    let commands = expected["swarm"]["commands"].as_object().unwrap();
    assert!(commands.len() >= 8, "{commands:?}");
    let changes = ["spawn", "release"];
    let run = |name: &str, words: &serde_json::Value| {
        let words: Vec<_> = words.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(words[0], "seedbed", "{name}");
        let name = changes.contains(&name).then_some("helper");
        let words: Vec<_> = words[1..].iter().copied().chain(name).collect();
        sandbox.seedbed_in(&directory, &words).expect(0)
    };
    for (name, words) in commands.iter().filter(|(name, _)| !changes.contains(&name.as_str())) {
        sandbox.unchanged(|| run(name, words));
    }
    assert_eq!(run("spawn", &commands["spawn"]).json()["sessionId"], "shop/lead/coder-1/helper");
    run("release", &commands["release"]);
    assert!(!sandbox.ok(&["status"]).stdout.contains("helper"));
    sandbox.seedbed(&["whoami"]).expect(64).says(&["is in no session"]);
}

#[test]
fn status_lists_allocations_and_unsaved_work_of_every_session() {
    let sandbox = applied();
    let directory = sandbox.directory("lead/coder-0");
    fs::write(directory.join("new.txt"), "new\n").unwrap();
    let (start, _) = crate::sandbox::ports(sessions(&sandbox.plan()).nth(1).unwrap());
    let _listener = std::net::TcpListener::bind(("127.0.0.1", u16::try_from(start).unwrap())).unwrap();
    let status = sandbox.ok(&["status", "--json"]).json();
    assert_eq!(status["schemaVersion"], 1);
    assert_eq!(status["interrupted"], false);
    let found: Vec<_> = sessions(&status).collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[1]["session"], "lead/coder-0");
    assert_eq!(found[1]["listening"], serde_json::json!([start]));
    assert!(found[1]["unsaved"][0].as_str().unwrap().contains("1 untracked"));
    assert_eq!(found[2]["unsaved"], serde_json::json!([]));
    let text = sandbox.ok(&["status"]).stdout;
    assert!(text.contains("1 untracked") && text.contains(&format!("primary={start} (listens)")), "{text}");
}

#[test]
fn looking_at_a_swarm_that_does_not_stand_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    for args in [&["status"][..], &["env", "lead"], &["prompt", "lead"]] {
        sandbox.unchanged(|| sandbox.seedbed(args).expect(64).says(&["is not applied"]));
    }
    sandbox.seedbed(&["exec", "lead", "--", "true"]).expect(125).says(&["is not applied"]);
}

#[test]
fn a_program_of_the_worktree_runs_by_its_relative_path() {
    let sandbox = Sandbox::new();
    sandbox.write("tools/run.sh", "#!/bin/sh\necho ran in $(basename \"$PWD\")\n");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(sandbox.repository.join("tools/run.sh"), executable).unwrap();
    sandbox.commit("a script");
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\nsetup = [[\"./tools/run.sh\"]]\n");
    sandbox.ok(&["apply"]);
    // Not the workspace's own, which another session may have changed.
    sandbox.write("tools/run.sh", "#!/bin/sh\necho the wrong one\n");
    let outcome = sandbox.ok(&["exec", "a", "--", "./tools/run.sh"]);
    assert!(outcome.stdout.starts_with("ran in shop-a-"), "{}", outcome.stdout);
    let outcome = sandbox.ok(&["exec", "--all", "--", "./tools/run.sh"]);
    assert!(outcome.stdout.contains("ran in shop-a-"), "{}", outcome.stdout);
}

#[test]
fn inside_a_session_the_manifest_is_that_of_its_swarm() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.lead]\nresources = [\"git-worktree\"]\n");
    sandbox.git(&["add", "--force", "seedbed.toml"]);
    sandbox.commit("the manifest");
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("lead");
    assert!(directory.join("seedbed.toml").is_file());
    let status = sandbox.seedbed_in(&directory.join("app"), &["status", "--json"]).expect(0).json();
    assert_eq!(status["sessions"][0]["session"], "lead");
    let again = sandbox.seedbed_in(&directory, &["apply"]).expect(0);
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    assert!(!directory.join(".ai_ops").exists());
}

#[test]
fn whoami_finds_its_own_session_in_any_directory() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[session.a]\nresources = [\"git-worktree\"]\n[session.b]\nresources = [\"git-worktree\"]\n",
    );
    sandbox.ok(&["apply"]);
    let other = sandbox.directory("b");
    let whoami = |script: &str| {
        let line = format!("cd \"$1\" && {script}");
        let binary = env!("CARGO_BIN_EXE_seedbed");
        let args = ["exec", "a", "--", "sh", "-c", &line, binary, other.to_str().unwrap()];
        sandbox.ok(&args).stdout.lines().next().unwrap().to_owned()
    };
    assert_eq!(whoami("\"$0\" whoami"), "session shop/a");
    assert_eq!(whoami("\"$0\" -C . whoami"), "session shop/b");
    let gone = "AGENT_DISCOVERY_FILE=$1/gone \"$0\" whoami";
    assert_eq!(whoami(gone), "session shop/b", "the variable of a moved workspace is out of date");
}
