//! Tests of `exec` in many sessions, of the events of `exec` and `run`, and of output that cannot be written.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fixtures::repository;
use crate::sandbox::{Outcome, Sandbox, send};

/// Six sessions without a directory of their own, in three tables.
const SIX: &str =
    "[session.lead]\n[session.lead.child.coder]\ncount = 3\n[session.coder-x]\n[session.solo]\n";

fn applied() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(SIX);
    sandbox.ok(&["apply", "--quiet"]);
    sandbox
}

/// Script that prints as soon as `$1` commands have begun, in the directory `$2`.
const TOGETHER: &str =
    "touch $2/$AGENT_SESSION_SLUG; while test $(ls $2 | wc -l) -lt $1; do sleep 0.01; done; echo met";

#[test]
fn exec_runs_in_all_sessions_at_once_on_any_number_of_cores() {
    let sandbox = applied();
    let met = sandbox.top.join("met");
    std::fs::create_dir(&met).unwrap();
    let outcome =
        sandbox.ok(&["exec", "--all", "--", "sh", "-c", TOGETHER, "sh", "6", met.to_str().unwrap()]);
    assert_eq!((outcome.stdout.lines().count(), outcome.stderr.as_str()), (6, ""));
}

#[test]
fn exec_names_waiting_sessions_when_jobs_are_limited() {
    let sandbox = applied();
    let outcome = sandbox.ok(&["exec", "--all", "--jobs", "2", "--", "true"]);
    let waiting =
        "2 of 6 sessions run at once (--jobs 2); waiting: lead/coder-0, lead/coder-1, lead/coder-2, solo\n";
    assert_eq!(outcome.stderr, waiting);
    let limited = "ulimit -n 80; exec \"$0\" exec --all -- true";
    let mut shell = sandbox.program("sh", &sandbox.repository);
    let outcome = Outcome::of(shell.args(["-c", limited, env!("CARGO_BIN_EXE_seedbed")]).output().unwrap());
    outcome.expect(0).says(&["3 of 6 sessions run at once (the limit of open files"]);
}

#[test]
fn exec_ends_with_who_failed_and_how() {
    let sandbox = applied();
    let script = "case $AGENT_SESSION_SLUG in solo) exit 3 ;; lead) kill -KILL $$ ;; esac";
    let outcome = sandbox.seedbed(&["exec", "--all", "--", "sh", "-c", script]).expect(137);
    assert_eq!(outcome.stderr, "failed in 2 of 6 sessions: lead (SIGKILL), solo (exit code 3)\n");
    let outcome = sandbox.seedbed(&["exec", "coder", "--", "no-such-program"]).expect(127);
    outcome.says(&[
        "lead/coder-1: cannot run `no-such-program`",
        "failed in 3 of 3 sessions",
        "(cannot be run)",
    ]);
}

#[test]
fn exec_takes_names_of_replicas_and_globs() {
    let sandbox = applied();
    let check = |names: &[&str], expected: &[&str]| {
        let args = [&["exec", "--json"], names, &["--", "true"]].concat();
        let outcome = sandbox.ok(&args);
        let events = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut ran: Vec<String> = events
            .filter(|event| event["event"] == "exited")
            .map(|event| event["session"].as_str().unwrap().to_owned())
            .collect();
        ran.sort();
        assert_eq!(ran, expected, "{names:?}");
    };
    let replicas = &["lead/coder-0", "lead/coder-1", "lead/coder-2"];
    check(&["coder"], replicas);
    check(&["lead/coder"], replicas);
    check(&["lead/*"], replicas);
    check(&["coder-*"], &["coder-x", "lead/coder-0", "lead/coder-1", "lead/coder-2"]);
    check(&["coder-[01]", "coder-1", "solo"], &["lead/coder-0", "lead/coder-1", "solo"]);
    check(&["coder-2"], &["lead/coder-2"]);
    check(&["*"], &["coder-x", "lead", "lead/coder-0", "lead/coder-1", "lead/coder-2", "solo"]);
    for unknown in ["code", "lead/nothing*", "coder-", "[", "lead-0"] {
        sandbox.seedbed(&["exec", unknown, "--", "true"]).expect(125);
    }
}

#[test]
fn exec_shows_each_line_as_it_comes() {
    let sandbox = applied();
    let mut command =
        sandbox.command(&["exec", "lead", "solo", "--", "sh", "-c", "echo up; exec sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()];
    seen.sort();
    assert_eq!(seen, ["lead: up", "solo: up"]);
    send(Signal::TERM, &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Returns the lines of an outcome, each checked against the committed schema.
fn events(outcome: &Outcome) -> Vec<Value> {
    let schema = std::fs::read(repository("schemas/events.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let faults: Vec<_> = validator.iter_errors(&line).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{line}: {faults:?}");
        line
    };
    outcome.stdout.lines().map(read).collect()
}

const PRINTS: &str = "echo out; echo err >&2; printf tail; exit 4";

/// Returns the events of a command that runs `PRINTS` in this session, in order of the text.
fn printed(session: &str) -> Vec<Value> {
    let line = |stream: &str, text: &str| json!({ "schemaVersion": 1, "event": "output", "session": session, "stream": stream, "text": text });
    vec![line("stderr", "err"), line("stdout", "out"), line("stdout", "tail")]
}

#[test]
fn exec_with_json_prints_events_and_done() {
    let sandbox = applied();
    for (args, sessions) in [
        (&["exec", "solo", "--json"][..], &["solo"][..]),
        (&["exec", "solo", "lead", "--json"], &["lead", "solo"]),
    ] {
        let outcome = sandbox.seedbed(&[args, &["--", "sh", "-c", PRINTS]].concat()).expect(4);
        assert_eq!(outcome.stderr, "");
        let events = events(&outcome);
        assert_eq!(events.last().unwrap(), &json!({ "event": "done", "schemaVersion": 1, "exitCode": 4 }));
        for session in sessions {
            let mut of_session: Vec<_> =
                events.iter().filter(|event| event["session"] == *session).cloned().collect();
            let exited = of_session.pop().unwrap();
            assert_eq!((&exited["event"], &exited["exitCode"]), (&json!("exited"), &json!(4)));
            of_session.sort_by_key(ToString::to_string);
            assert_eq!(of_session, printed(session));
        }
    }
    let failed = events(&sandbox.seedbed(&["exec", "sola", "--json", "--", "true"]).expect(125));
    assert_eq!((&failed[0]["event"], &failed[0]["exitCode"]), (&json!("failed"), &json!(125)));
}

#[test]
fn run_with_json_prints_lines_of_json_to_its_done() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    let outcome =
        sandbox.unchanged(|| sandbox.seedbed(&["run", "--json", "--", "sh", "-c", PRINTS]).expect(4));
    let events = events(&outcome);
    let done = events.last().unwrap();
    assert_eq!((&done["event"], &done["exitCode"]), (&json!("done"), &json!(4)));
    assert!(done["plan"].as_str().unwrap().starts_with("sha256:"));
    let mut output: Vec<_> = events.iter().filter(|event| event["event"] == "output").cloned().collect();
    output.sort_by_key(ToString::to_string);
    assert_eq!(output, printed("a"));
    let at = |what: &str| events.iter().position(|event| event["event"] == what).unwrap();
    assert!(at("provisioned") < at("output") && at("output") < at("exited"), "{events:?}");
}

#[test]
fn a_dry_run_with_json_fits_the_schema() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\"]\n");
    let dry = |code: i32, more: &[&str]| {
        let outcome = sandbox.seedbed(&[&["destroy", "--dry-run", "--json"], more].concat()).expect(code);
        events(&outcome).remove(0)
    };
    assert_eq!(dry(0, &[])["sessions"], json!([]));
    sandbox.ok(&["apply"]);
    std::fs::write(sandbox.directory("a").join("work"), "").unwrap();
    std::fs::write(sandbox.directory("a").join("x.log"), "").unwrap();
    let refused = dry(69, &[]);
    assert_eq!((&refused["refused"], &refused["unsavedWork"][0]["session"]), (&json!(true), &json!("a")));
    assert_eq!(dry(0, &["--rescue"])["rescued"][0]["session"], "a");
    assert_eq!(dry(0, &["--discard"])["alsoRemoved"][0]["session"], "a");
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let sandbox = applied();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for args in [
        &["--help"][..],
        &["--version"],
        &["plan"],
        &["plan", "--json"],
        &["plan", "--format", "html"],
        &["plan", "--detailed-exitcode", "--json"],
        &["validate"],
        &["apply"],
        &["apply", "--json"],
        &["status"],
        &["status", "--json"],
        &["list"],
        &["env", "solo"],
        &["prompt", "solo", "x"],
        &["explain", "solo"],
        &["doctor", "--json"],
        &["schema"],
        &["man"],
        &["completions", "bash"],
        &["exec", "--all", "--", "echo", "x"],
        &["exec", "solo", "--json", "--", "true"],
        &["destroy", "--dry-run"],
        &["destroy", "--json"],
    ] {
        let outcome =
            Outcome::of(sandbox.command(args).stdout(full()).stderr(Stdio::piped()).output().unwrap());
        assert_eq!(outcome.code, 74, "{args:?}: {}", outcome.stderr);
        outcome.says(&["cannot write to standard output: No space left on device"]);
    }
}

#[test]
fn closed_reader_is_no_failure() {
    let sandbox = applied();
    for args in [&["plan", "--json"][..], &["schema"], &["--help"], &["exec", "--all", "--", "echo", "x"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let outcome =
            Outcome::of(sandbox.command(args).stdout(writer).stderr(Stdio::piped()).output().unwrap());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
    }
}
