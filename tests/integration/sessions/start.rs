//! Tests of `seedbed start` and `seedbed logs`, and of the limits of commands: real processes that end, fail, hang,
//! flood, and leave others behind.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::faults::crash;
use crate::sandbox::{Sandbox, send, wait_until};

fn applied(sessions: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(sessions);
    sandbox.ok(&["apply"]);
    sandbox
}

/// Returns a session table with a worktree and this line of a shell as its command.
fn session(name: &str, line: &str) -> String {
    format!("[session.{name}]\nresources = [\"git-worktree\"]\ncommand = {line:?}\n")
}

/// Returns the last runs of the sessions, by path.
fn last_runs(sandbox: &Sandbox) -> Vec<(String, Value)> {
    let status = sandbox.ok(&["status", "--json"]).json();
    let of = |session: &Value| (session["session"].as_str().unwrap().to_owned(), session["lastRun"].clone());
    status["sessions"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn commands_run_in_their_sessions_with_logs_and_a_summary() {
    let sandbox = applied(
        &[
            session("fail", "echo failing; exit 3"),
            session("ok", "echo out; echo err >&2; git commit -q --allow-empty -m work"),
            "[session.plain]\nresources = []\n".to_owned(),
        ]
        .concat(),
    );
    let outcome = sandbox.seedbed(&["start", "--all"]).expect(3);
    for line in ["fail: failing\n", "ok: out\n"] {
        assert!(outcome.stdout.contains(line), "{outcome:?}");
    }
    let table: Vec<Vec<&str>> = outcome
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("SESSION"))
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(table[0], ["SESSION", "RESULT", "TIME", "COMMITS", "LINES"]);
    assert_eq!((&table[1][..2], &table[1][3..]), (&["fail", "exit code 3"][..], &["0", "1"][..]));
    assert_eq!((&table[2][..2], &table[2][3..]), (&["ok", "done"][..], &["1", "2"][..]));
    assert_eq!(table.len(), 3, "a session without a command is not started: {table:?}");

    assert_eq!(sandbox.ok(&["logs", "ok"]).stdout, "out\nerr\n");
    assert_eq!(sandbox.ok(&["logs"]).stdout, "fail: failing\nok: out\nok: err\n");
    sandbox.seedbed(&["logs", "plain"]).expect(64).says(&["no log in these sessions", "[log-missing]"]);
    sandbox.seedbed(&["start", "plain"]).expect(64).says(&["session plain has no `command`", "seedbed exec"]);
    let runs = last_runs(&sandbox);
    let codes: Vec<_> = runs.iter().map(|(path, run)| (path.as_str(), &run["exitCode"])).collect();
    assert_eq!(codes, [("fail", &json!(3)), ("ok", &json!(0)), ("plain", &Value::Null)]);
    assert_eq!(runs[1].1["command"][2], "echo out; echo err >&2; git commit -q --allow-empty -m work");

    let events = sandbox.ok(&["start", "ok", "--json"]).stdout;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let exited = events.iter().find(|event| event["event"] == "exited").unwrap();
    assert_eq!((&exited["session"], &exited["exitCode"]), (&json!("ok"), &json!(0)));
    assert_eq!(fs::read_to_string(exited["log"].as_str().unwrap()).unwrap(), "out\nerr\n");
    assert_eq!(events.last().unwrap()["exitCode"], 0);

    let grouped = sandbox.ok(&["start", "ok", "--show", "grouped"]).stdout;
    assert_eq!(grouped, "== ok\nout\nerr\n");
    assert_eq!(sandbox.ok(&["start", "ok", "--show", "none"]).stdout, "");
    for _ in 0..10 {
        sandbox.ok(&["start", "ok", "--quiet"]);
    }
    let logs = || {
        fs::read_dir(sandbox.state().join("logs")).unwrap().flat_map(|swarm| {
            fs::read_dir(swarm.unwrap().path())
                .unwrap()
                .map(|log| log.unwrap().file_name().into_string().unwrap())
        })
    };
    assert_eq!(logs().filter(|name| name.contains("-ok-") && name.contains(".run-")).count(), 10);
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!sandbox.state().join("logs").exists() || logs().count() == 0);
}

#[test]
fn a_command_sees_the_composed_prompt_and_a_change_of_it_replaces_nothing() {
    let table = "[session.a]\nresources = [\"git-worktree\"]\nprompt = [\"Be {{ session.name }}.\"]\n";
    let with = |command: &str| format!("{table}command = {command}\n");
    let sandbox = applied(&with("[\"printf\", \"%s\", \"{{ prompt }}\"]"));
    let printed = sandbox.ok(&["start", "--show", "grouped"]).stdout;
    let prompt = sandbox.ok(&["prompt", "a", ""]).stdout;
    assert_eq!(printed, format!("== a\n{}", prompt.trim_end()));
    let directory = sandbox.directory("a");
    fs::write(directory.join("work"), "").unwrap();
    sandbox.manifest(&with("\"echo two\""));
    let plan = sandbox.seedbed(&["plan", "--detailed-exitcode"]).expect(2);
    assert!(plan.stdout.contains("command") && plan.stdout.contains("1 to update"), "{}", plan.stdout);
    sandbox.ok(&["apply"]);
    assert_eq!(sandbox.ok(&["start", "--show", "grouped"]).stdout, "== a\ntwo\n");
    assert!(directory.join("work").exists());

    sandbox.manifest(&format!("{table}env = {{ A = \"{{{{ prompt }}}}\" }}\n"));
    sandbox.seedbed(&["plan"]).expect(65).says(&["prompt"]);
    sandbox.manifest(&with("[\"a\", 1]"));
    sandbox.seedbed(&["validate"]).expect(65).says(&["an entry of `command` must be a string"]);
}

#[test]
#[ignore = "`every_case` runs it"]
fn commands_that_hang_flood_leave_and_die_are_ended_and_told_in_every_case() {
    let sandbox = applied(
        &[
            session("flood", "head -c 60000000 /dev/zero | tr '\\\\0' '\\\\n'"),
            session("hang", "echo begin; exec sleep 1000"),
            session("late", "while true; do echo; sleep 0.2; done"),
            session("leave", "sleep 1001 & echo left; exit 0"),
            session("signal", "kill -KILL $$"),
            session("missing", "exit 5"),
        ]
        .concat(),
    );
    let mut child = sandbox.start(&["start", "--stall", "2s", "--timeout", "5s", "--show", "none"]);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peaks = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = peaks.map_or(peak, |peak| peak.trim().parse().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137), "the largest code is that of the signal");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(peak > 0 && peak < 60_000, "{peak} kB of memory for 60 MB of output");
    let result = |session: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{session} "))).unwrap_or_default();
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).nth(1).unwrap_or_default().to_owned()
    };
    let results = ["flood", "hang", "late", "leave", "signal", "missing"].map(result);
    assert_eq!(results, ["done", "no output", "timeout", "done", "SIGKILL", "exit code 5"], "{text}");
    assert!(text.contains("[command-stalled]") && text.contains("[command-timeout]"), "{text}");
    for sleep in ["1000", "1001"] {
        assert!(!is_running(&sandbox, &["sleep", sleep]), "sleep {sleep} was left");
    }
    sandbox.ok(&["destroy", "--discard"]);
}

/// Returns whether a process of the sandbox has these words as its command line.
fn is_running(sandbox: &Sandbox, words: &[&str]) -> bool {
    let wanted = words.join("\0") + "\0";
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|process| {
        let path = process.path();
        fs::read(path.join("cmdline")).is_ok_and(|line| line == wanted.as_bytes())
            && fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&sandbox.top))
    })
}

#[test]
fn the_first_failure_ends_the_others_if_requested() {
    let sandbox = applied(&[session("bad", "sleep 0.3; exit 4"), session("long", "sleep 1002")].concat());
    let outcome = sandbox.seedbed(&["start", "--fail-fast"]).expect(4);
    assert!(
        outcome.stderr.contains("long: ended, because the command of another session failed"),
        "{outcome:?}"
    );
    assert!(!is_running(&sandbox, &["sleep", "1002"]));
    let outcome =
        sandbox.seedbed(&["exec", "--all", "--timeout", "300ms", "--", "sh", "-c", "sleep 1003"]).expect(124);
    assert!(
        outcome.stderr.contains("failed in 2 of 2 sessions: bad (timeout), long (timeout)"),
        "{outcome:?}"
    );
    sandbox.seedbed(&["exec", "bad", "--stall", "300ms", "--", "sleep", "1004"]).expect(124);
}

#[test]
fn an_interrupted_start_ends_every_process_and_names_the_sessions() {
    let sandbox =
        applied(&[session("a", "echo up; sleep 1005 & sleep 1006"), session("b", "exit 0")].concat());
    let child = sandbox.start(&["start"]);
    wait_until("both sleep", || ["1005", "1006"].iter().all(|time| is_running(&sandbox, &["sleep", time])));
    sandbox.ok(&["exec", "a", "--timeout", "1m", "--", "echo", "other"]);
    assert_eq!(sandbox.ok(&["logs", "a"]).stdout, "up\n", "a command that runs has precedence");
    sandbox.seedbed(&["start", "a"]).expect(69).says(&["a command runs in session a already"]);
    let following = sandbox.start(&["logs", "a", "--follow"]);
    send(Signal::INT, &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("ended the commands of a\n"), "{text}");
    assert!(text.contains("\na        interrupted  ") && text.contains("\nb        done "), "{text}");
    assert!(["1005", "1006"].iter().all(|time| !is_running(&sandbox, &["sleep", time])));
    assert!(
        following.wait_with_output().unwrap().status.success(),
        "it follows until the end of the command"
    );
    assert_eq!(last_runs(&sandbox)[0].1["command"][0], "echo", "the record of a later run stays");
}

#[test]
fn reader_that_has_stopped_delays_no_limit_and_loses_no_output() {
    let sandbox = applied(&session("a", "seq 200000; sleep 1008"));
    let mut child = sandbox.command(&["start", "--timeout", "500ms", "--quiet"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the limit ends the command", || last_runs(&sandbox)[0].1["exitCode"] == 124);
    assert!(child.try_wait().unwrap().is_none(), "the output does not fit into the pipe");
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(124));
    let lines = printed.lines().zip(1..).filter(|(line, number)| *line == format!("a: {number}"));
    assert_eq!(lines.count(), 200_000, "{} bytes", printed.len());
    sandbox.seedbed(&["start", "--timeout", "0"]).expect(64).says(&["a limit of 0 ends every command"]);
}

#[test]
fn summary_counts_commits_since_the_start_and_a_line_without_an_end() {
    let commit = "git commit -q --allow-empty -m";
    let line =
        format!("git reset -q --hard HEAD~1; {commit} two; {commit} three; echo a; printf b >&2; printf c");
    let sandbox = applied(&session("a", &line));
    sandbox.git_in(&sandbox.directory("a"), &["commit", "-q", "--allow-empty", "-m", "one"]);
    let table = sandbox.ok(&["start"]).stderr;
    let row = table.lines().find(|line| line.starts_with("a ")).unwrap();
    assert_eq!(row.split_whitespace().rev().take(2).collect::<Vec<_>>(), ["3", "2"], "{table}");
    let events = sandbox.ok(&["logs", "a", "--json"]).stdout;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0], json!({ "schemaVersion": 1, "event": "logged", "session": "a", "text": "a" }));
    assert_eq!(events.last().unwrap()["event"], "done");
}

#[test]
fn of_two_starts_at_the_same_time_one_runs_the_command() {
    let sandbox = applied(&session("a", "echo >> ../ran; while [ ! -e ../go ]; do sleep 0.02; done"));
    let starts: Vec<_> = (0..4).map(|_| sandbox.start(&["start", "a"])).collect();
    let all = sandbox.directory("a").join("..");
    // The others end at once; the one that runs waits.
    let mut left = starts;
    while left.len() > 1 {
        let at = left.iter_mut().position(|start| start.try_wait().unwrap().is_some());
        match at {
            Some(at) => {
                let ended = left.remove(at).wait_with_output().unwrap();
                let text = String::from_utf8_lossy(&ended.stderr);
                assert!(!ended.status.success() && text.contains("command-running"), "{text}");
            }
            None => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
    fs::write(all.join("go"), "").unwrap();
    let ended = left.remove(0).wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(fs::read_to_string(all.join("ran")).unwrap(), "\n");
}

#[test]
fn start_is_refused_while_a_command_of_a_killed_start_runs() {
    let sandbox = applied(&session("a", "sleep 1007"));
    let mut child = sandbox.start(&["start"]);
    wait_until("it sleeps", || is_running(&sandbox, &["sleep", "1007"]));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let run = last_runs(&sandbox)[0].1.clone();
    assert!(
        run["ended"].is_null() && run["error"].as_str().unwrap().contains("; still runs as pid "),
        "{run}"
    );
    assert_eq!(sandbox.ok(&["collect", "--json"]).json()["worktrees"][0]["lastRun"], run);
    sandbox.seedbed(&["destroy"]).expect(69).says(&["sleep 1007"]);
    assert_eq!(
        sandbox.ok(&["logs", "a", "--follow"]).stdout,
        "",
        "nothing is followed that has lost its run"
    );
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["start", "--timeout", "200ms"]).expect(69));
    let refused =
        refused.says(&["processes of an earlier `start` or of an export still run", "\n  a: ", "sleep 1007"]);
    sandbox.ok(&["exec", "a", "--", "true"]);
    let remedy = refused.stderr.split('`').find(|part| part.starts_with("kill ")).unwrap();
    assert!(sandbox.program("sh", &sandbox.repository).args(["-c", remedy]).status().unwrap().success());
    wait_until("the remedy works", || !is_running(&sandbox, &["sleep", "1007"]));
    sandbox.seedbed(&["start", "--timeout", "200ms"]).expect(124);
    let run = last_runs(&sandbox)[0].1.clone();
    assert_eq!(run["exitCode"], 124);
    for command in [&["status"][..], &["collect"], &["collect", "--format", "markdown"]] {
        let text = sandbox.ok(command).stdout;
        assert!(text.contains("last command: ended after 200ms"), "{run}\n{text}");
    }
    sandbox.ok(&["destroy"]);
}

#[test]
fn temporary_files_of_a_killed_exec_are_removed_by_the_next_run() {
    let sandbox = applied(&[session("a", "true"), session("b", "true")].concat());
    let temporary = || {
        let logs = fs::read_dir(sandbox.state().join("logs")).unwrap();
        let names = logs.flat_map(|swarm| fs::read_dir(swarm.unwrap().path()).unwrap());
        names
            .filter(|name| name.as_ref().unwrap().file_name().to_str().unwrap().contains(".seedbed-"))
            .count()
    };
    for next in [&["start", "a", "--quiet"][..], &["destroy"]] {
        crash(&sandbox, &["exec", "--all", "--", "true"], "files.sync#1");
        assert!(temporary() > 0);
        sandbox.ok(next);
        assert_eq!(temporary(), 0, "{next:?}");
    }
}
