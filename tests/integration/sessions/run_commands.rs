//! Tests of `run --all`, and of the artifacts that a `run` saves: however it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::faults::{assert_put_back, crash, sandbox as faulty, traced};
use crate::sandbox::{Outcome, Sandbox, send, wait_until};

const TREE: &str = "[session.lead]\nresources = [\"git-worktree\", { kind = \"port-range\", names = [\"app\"], block-size = 4 }]\n\
                    [session.lead.child.coder]\ncount = 2\n[session.docs]\nresources = [\"git-worktree\"]\n";

const ONE: &str = "[session.a]\nresources = [\"git-worktree\"]\n";

/// Writes a report, files of other names, and links that lead out of the session.
const REPORTS: &str = "mkdir -p reports/deep logs .git-not; echo $AGENT_SESSION_ID > reports/deep/junit.xml; echo x > reports/x.txt; \
                       echo log > logs/app.log; ln -s /etc/passwd reports/passwd.xml; ln -s .. reports/up";

/// Options that save the reports and the logs in `out`.
const COLLECT: [&str; 6] = ["--artifacts", "out", "--collect", "reports/**/*.xml", "--collect", "logs"];

fn with<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["run"], options, &COLLECT[..], &["--"], command].concat()
}

/// Returns the files below `out`, which is removed.
fn saved(sandbox: &Sandbox) -> Vec<String> {
    let out = sandbox.repository.join("out");
    let mut files = Vec::new();
    let mut directories = vec![out.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(&out).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let _ = fs::remove_dir_all(out);
    files.sort();
    files
}

const OF_A: [&str; 2] = ["a/logs/app.log", "a/reports/deep/junit.xml"];

#[test]
fn run_in_all_sessions_runs_in_each_and_exits_with_the_largest_code() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let script = "echo \"$AGENT_SESSION_ID in $(pwd -P)\"; case $AGENT_SESSION_ID in */coder-1) exit 7;; */docs) exit 3;; esac";
    let outcome =
        sandbox.unchanged(|| sandbox.seedbed(&["run", "--all", "--", "sh", "-c", script]).expect(7));
    let mut lines: Vec<_> = outcome.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 4, "{}", outcome.stdout);
    for (line, session) in lines.iter().zip(["docs", "lead/coder-0", "lead/coder-1", "lead"]) {
        assert!(line.contains(&format!("/{session} in /")), "{line}: {session}");
    }
    outcome.says(&["failed in 2 of 4 sessions", "docs (exit code 3)", "lead/coder-1 (exit code 7)"]);
    let json = sandbox
        .unchanged(|| sandbox.seedbed(&["run", "--all", "--json", "--", "sh", "-c", script]).expect(7));
    let events: Vec<Value> = json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().filter(|event| event["event"] == "exited").count(), 4);
    let done = events.last().unwrap();
    assert_eq!((&done["event"], &done["exitCode"]), (&json!("done"), &json!(7)));
    assert!(done["swarm"].as_str().unwrap().starts_with("shop-run-"), "{done}");
    sandbox.unchanged(|| sandbox.ok(&["run", "--all", "--in-place", "--", "true"]));
    sandbox
        .seedbed(&["run", "--", "true"])
        .expect(64)
        .says(&["`--session`: docs, lead; or all with `--all`"]);
    sandbox.seedbed(&["run", "--all", "--session", "docs", "--", "true"]).expect(64);
}

#[test]
fn run_ends_commands_by_the_limits_of_exec() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let script = "case $AGENT_SESSION_ID in */docs) exit 3;; esac; exec sleep 1000";
    sandbox.unchanged(|| {
        sandbox.seedbed(&["run", "--all", "--fail-fast", "--", "sh", "-c", script]).expect(3);
        let limited = ["run", "--session", "docs", "--timeout", "0.3", "--", "sleep", "1000"];
        sandbox.seedbed(&limited).expect(124).says(&["command-timeout"]);
    });
}

#[test]
fn artifacts_of_each_session_are_saved_and_links_are_not_followed() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let args = with(&["--all"], &["sh", "-c", REPORTS]);
    let before = sandbox.inventory();
    sandbox.ok(&args).says(&["saved 8 artifacts in "]);
    let junit =
        fs::read_to_string(sandbox.repository.join("out/lead/coder-1/reports/deep/junit.xml")).unwrap();
    assert!(junit.starts_with("shop-run-") && junit.ends_with("/lead/coder-1\n"), "{junit}");
    let sessions = ["docs", "lead", "lead/coder-0", "lead/coder-1"];
    let mut expected: Vec<_> = sessions
        .iter()
        .flat_map(|session| {
            ["logs/app.log", "reports/deep/junit.xml"].map(|file| format!("{session}/{file}"))
        })
        .collect();
    expected.sort();
    assert_eq!(saved(&sandbox), expected);
    assert_put_back(&before, &sandbox);
    // Nothing that matches is no error.
    sandbox.ok(&with(&["--session", "docs"], &["true"]));
    assert!(saved(&sandbox).is_empty());
}

#[test]
fn artifacts_replace_files_and_keep_their_permissions() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let out = sandbox.repository.join("out/a/logs/app.log");
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    fs::write(&out, "of an earlier run, and longer").unwrap();
    // A large file, and a program.
    let script = "mkdir logs; head -c 20000000 /dev/zero > logs/large; echo log > logs/app.log; chmod 755 logs/app.log";
    sandbox.ok(&with(&[], &["sh", "-c", script]));
    assert_eq!(fs::read_to_string(&out).unwrap(), "log\n");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(out.with_file_name("large")).unwrap().len(), 20_000_000);
}

#[test]
fn artifacts_are_saved_after_a_failure() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let before = sandbox.inventory();
    let failing = format!("{REPORTS}; exit 3");
    for options in [&[][..], &["--json"], &["--in-place"]] {
        sandbox.seedbed(&with(options, &["sh", "-c", &failing])).expect(3);
        assert_eq!(saved(&sandbox), OF_A, "{options:?}");
    }
    assert_put_back(&before, &sandbox);
    // With `--keep` too.
    sandbox.ok(&with(&["--keep", "--in-place"], &["sh", "-c", REPORTS]));
    assert_eq!(saved(&sandbox), OF_A);
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn artifacts_are_saved_after_ctrl_c() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let before = sandbox.inventory();
    let started = sandbox.top.join("started");
    let script = format!("{REPORTS}; touch {0}; while test -e {0}; do sleep 0.1; done", started.display());
    let mut command = sandbox.command(&with(&[], &["sh", "-c", &script]));
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = command.spawn().unwrap();
    wait_until("the command runs", || started.exists());
    kill_process_group(Pid::from_child(&run), Signal::INT).unwrap();
    Outcome::of(run.wait_with_output().unwrap()).expect(130);
    assert_eq!(saved(&sandbox), OF_A);
    assert_put_back(&before, &sandbox);
}

#[test]
fn artifacts_of_a_killed_run_are_saved_by_the_next_one() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    let before = sandbox.inventory();
    let started = sandbox.top.join("started");
    // Its directory is that of the first run, wherever the next one is started.
    let script = format!("exec > /dev/null 2>&1; {REPORTS}; touch {0}; exec sleep 1000", started.display());
    for next in [&["run", "--", "true"][..], &["recover"]] {
        let _ = fs::remove_file(&started);
        let mut command = sandbox.command(&with(&[], &["sh", "-c", &script]));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut run = command.spawn().unwrap();
        wait_until("the command runs", || started.exists());
        send(Signal::KILL, &run);
        let _ = kill_process_group(Pid::from_child(&run), Signal::KILL);
        run.wait().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!sandbox.repository.join("out").exists());
        sandbox
            .seedbed_in(&sandbox.repository.join("app"), next)
            .expect(0)
            .says(&["removed the swarm of a killed `run`"]);
        assert_eq!(saved(&sandbox), OF_A, "{next:?}");
        assert_put_back(&before, &sandbox);
    }
}

#[test]
fn artifacts_are_complete_after_a_kill_at_each_step() {
    let lab = faulty(ONE);
    let args = with(&[], &["sh", "-c", REPORTS]);
    let run = traced(&lab, &args, None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    let counts = run.counts();
    assert_eq!(counts["artifacts.save"], 2);
    for point in
        ["apply.report#1", "artifacts.save#1", "artifacts.save#2", "artifacts.saved#1", "copies.place#1"]
    {
        let sandbox = faulty(ONE);
        let before = sandbox.inventory();
        crash(&sandbox, &args, point);
        sandbox.ok(&["run", "--", "true"]);
        let expected: &[&str] = if point.starts_with("apply.") { &[] } else { &OF_A };
        assert_eq!(saved(&sandbox), expected, "{point}");
        assert_put_back(&before, &sandbox);
    }
}

#[test]
fn artifacts_that_cannot_be_saved_are_an_error_that_hides_no_code() {
    let sandbox = faulty(ONE);
    let before = sandbox.inventory();
    let run = |code: i32, options: &[&str]| {
        let script = format!("{REPORTS}; exit {code}");
        traced(&sandbox, &with(options, &["sh", "-c", &script]), Some("artifacts.save#1=enospc")).outcome
    };
    run(0, &[]).expect(74).says(&["a: cannot copy ", "No space left", "[artifacts-unsaved]"]);
    // The other files are saved.
    assert_eq!(saved(&sandbox).len(), 1);
    run(3, &[]).expect(3).says(&["a: cannot copy ", "[artifacts-unsaved]"]);
    let failed = run(0, &["--json"]).expect(74).stdout;
    let failed: Value = serde_json::from_str(failed.lines().last().unwrap()).unwrap();
    assert_eq!((&failed["event"], &failed["id"]), (&json!("failed"), &json!("artifacts-unsaved")));
    let events = run(3, &["--json"]).expect(3).stdout;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = events.iter().find(|event| event["event"] == "artifactsSaved").unwrap();
    assert_eq!((&event["files"], event["failures"].as_array().unwrap().len()), (&json!(1), 1), "{event}");
    saved(&sandbox);
    // A file where the directory should be, and a link below it.
    fs::write(sandbox.repository.join("out"), "").unwrap();
    sandbox.seedbed(&with(&[], &["sh", "-c", REPORTS])).expect(74);
    fs::remove_file(sandbox.repository.join("out")).unwrap();
    let outside = sandbox.top.join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir(sandbox.repository.join("out")).unwrap();
    std::os::unix::fs::symlink(&outside, sandbox.repository.join("out/a")).unwrap();
    sandbox.seedbed(&with(&[], &["sh", "-c", REPORTS])).expect(74);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    saved(&sandbox);
    assert_put_back(&before, &sandbox);
}

#[test]
fn options_of_artifacts_are_checked_before_anything_is_created() {
    let sandbox = Sandbox::new();
    sandbox.manifest(ONE);
    sandbox.unchanged(|| {
        for (options, message) in [
            (&["--artifacts", "out"][..], "--collect"),
            (&["--collect", "x"], "--artifacts"),
            (&["--artifacts", "out", "--collect", "../x"], "below the directory of the session"),
            (&["--artifacts", "out", "--collect", "["], "unclosed"),
        ] {
            sandbox.seedbed(&[&["run"], options, &["--", "true"]].concat()).expect(64).says(&[message]);
        }
    });
}

#[test]
fn session_without_a_directory_of_its_own_has_no_artifacts() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    sandbox.write("logs/app.log", "of the workspace");
    sandbox.ok(&with(&[], &["true"]));
    assert_eq!(saved(&sandbox), Vec::<String>::new());
}
