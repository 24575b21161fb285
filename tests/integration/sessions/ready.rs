//! Tests of `ready`: servers that come late, never, or die, and who waits for them.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::export::Tmux;
use crate::cli::shells::installed;
use crate::faults::{crash, traced};
use crate::sandbox::{Outcome, Sandbox, assert_same, send, sessions, wait_until};

/// Server that begins to listen on a port (first argument) after some seconds (second argument), and ends with exit code 7
/// after some more (third argument), if any.
const SERVER: &str = r#"
import socket, sys, time
time.sleep(float(sys.argv[2]))
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("serving", flush=True)
time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 600)
sys.exit(7)
"#;

/// Line of `setup` that leaves a server running which begins to listen after some seconds.
fn served_after(seconds: &str) -> String {
    format!("python3 server.py {{{{ port.http }}}} {seconds} >server.log 2>&1 &")
}

fn with_server() -> Option<Sandbox> {
    if !installed("python3") {
        eprintln!("NOT TESTED: python3 is not installed");
        return None;
    }
    let sandbox = Sandbox::new();
    sandbox.write("server.py", SERVER);
    sandbox.commit("server");
    Some(sandbox)
}

/// Writes a manifest with a session `web` that has a worktree, a port called `http`, and these keys.
fn manifest(sandbox: &Sandbox, keys: &str) {
    sandbox.manifest(&format!(
        "[session.web]\nresources = [\"git-worktree\", {{ kind = \"port-range\", names = [\"http\"] }}]\n{keys}"
    ));
}

fn is_served(sandbox: &Sandbox) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", u16::try_from(port(sandbox)).unwrap())).is_ok()
}

fn port(sandbox: &Sandbox) -> u64 {
    let plan = sandbox.plan();
    let web = sessions(&plan).find(|session| session["path"] == "web").unwrap();
    web["allocations"][1]["allocation"]["names"]["http"].as_u64().unwrap()
}

#[test]
fn apply_waits_for_a_late_server_and_not_again_for_an_unchanged_session() {
    let Some(sandbox) = with_server() else { return };
    let setup = format!("setup = [{:?}]\n", served_after("0.6"));
    let keys = |ready: &str| format!("{setup}ready = [{ready}]\n");
    manifest(&sandbox, &keys("{ port = \"http\" }, { command = \"echo checked >>checks.log\" }"));
    sandbox.ok(&["apply"]);
    assert!(is_served(&sandbox), "apply ends once the port is served");
    let checks = || fs::read_to_string(sandbox.directory("web").join("checks.log")).unwrap();
    assert_eq!(checks(), "checked\n");
    sandbox.ok(&["apply"]);
    manifest(
        &sandbox,
        &(keys("{ port = \"http\" }, { command = \"echo checked >>checks.log\" }") + "prompt = [\"P\"]\n"),
    );
    sandbox.ok(&["apply"]);
    assert_eq!(checks(), "checked\n", "what was not set up is not waited for");

    // A condition that changes is waited for, although nothing is set up.
    manifest(
        &sandbox,
        &keys("{ port = \"http\" }, { command = \"echo again >>checks.log\", within = \"2m\" }"),
    );
    let plan = sandbox.ok(&["plan"]).stdout;
    assert!(plan.contains("ready condition 2: "), "{plan}");
    assert!(plan.contains("1 to update"), "{plan}");
    sandbox.ok(&["apply"]);
    assert_eq!(checks(), "checked\nagain\n");
    manifest(&sandbox, &keys("{ command = \"echo no; false\", within = \"50ms\" }"));
    let failed = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
    failed.says(&["web: ready: ", "echo no; false", "was not ready within 50ms", "apply --setup"]);
    sandbox.ok(&["destroy", "--stop"]);
}

#[test]
fn apply_rolls_everything_back_if_a_server_never_comes() {
    let Some(sandbox) = with_server() else { return };
    let setup = format!("setup = [\"echo installing\", {:?}]\n", served_after("60"));
    manifest(&sandbox, &(setup + "ready = [{ port = \"http\", within = \"300ms\" }]\n[session.other]\n"));
    let port = port(&sandbox);
    let failed = sandbox.unchanged(|| {
        let begun = Instant::now();
        let failed = sandbox.seedbed(&["apply"]).expect(1);
        assert!(begun.elapsed() >= Duration::from_millis(300));
        failed
    });
    failed.says(&[
        "web: ready: ",
        &format!("port http ({port}) was not ready within 300ms: no process listens on it"),
        "last lines of the log:\n    installing\n",
        "complete log: ",
    ]);
    wait_until("the server of the failed run has ended", || processes(&sandbox, "server.py").is_empty());

    // Kept, the session is waited for again by the next apply, after another setup.
    let kept = sandbox.seedbed(&["apply", "--keep-failed"]).expect(1);
    kept.says(&["web: ready: ", "the sessions were kept, marked as broken"]);
    let status = sandbox.ok(&["status"]).stdout;
    assert!(status.contains("setup: failed: port http"), "{status}");
    sandbox.seedbed(&["apply"]).expect(1).says(&["web: ready: "]);
    sandbox.ok(&["destroy", "--stop", "--discard"]);
}

#[test]
fn conditions_without_a_setup_are_waited_for_until_they_hold() {
    let sandbox = Sandbox::new();
    let flag = sandbox.top.join("flag");
    sandbox.manifest(&format!(
        "[session.a]\nresources = [\"git-worktree\"]\nready = [{{ command = [\"test\", \"-e\", {flag:?}], within = \"80ms\" }}]\n"
    ));
    sandbox
        .seedbed(&["apply", "--keep-failed"])
        .expect(1)
        .says(&["a: ready: `test -e ", " was not ready within 80ms: exit status: 1"]);
    assert!(sandbox.ok(&["status"]).stdout.contains("setup: failed: "));
    sandbox.seedbed(&["apply"]).expect(1).says(&["a: ready: "]);
    fs::write(&flag, "").unwrap();
    sandbox.ok(&["apply"]);
    assert!(!sandbox.ok(&["status"]).stdout.contains("setup: failed"));
    sandbox.ok(&["destroy"]);
}

/// Returns the commands of processes in the sandbox that contain a text.
fn processes(sandbox: &Sandbox, text: &str) -> Vec<String> {
    let top = sandbox.top.to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let commands = all.filter_map(|entry| {
        let cwd = fs::read_link(entry.path().join("cwd")).ok()?;
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        (cwd.to_str()?.starts_with(top) && command.contains(text)).then_some(command)
    });
    commands.collect()
}

#[test]
fn a_wait_that_is_killed_or_interrupted_leaves_nothing() {
    let Some(sandbox) = with_server() else { return };
    let asked = sandbox.top.join("asked");
    let setup = format!("setup = [{:?}]\n", served_after("60"));
    manifest(
        &sandbox,
        &(setup
            + &format!("ready = [{{ command = 'touch {}; exit 1', within = \"5m\" }}]\n", asked.display())),
    );
    let before = sandbox.inventory();
    for signal in [Signal::INT, Signal::KILL] {
        let run = sandbox.start(&["apply"]);
        wait_until("apply waits", || asked.exists());
        send(signal, &run);
        let outcome = Outcome::of(run.wait_with_output().unwrap());
        if signal == Signal::KILL {
            sandbox.ok(&["recover"]);
        } else {
            assert_eq!(outcome.code, 130, "{outcome:?}");
        }
        wait_until("the server has ended", || processes(&sandbox, "server.py").is_empty());
        assert_same(&before, &sandbox.inventory());
        fs::remove_file(&asked).unwrap();
    }
    // At each of its points.
    manifest(&sandbox, "setup = [\"true\"]\nready = [{ command = \"true\" }]\n");
    for point in ["apply.waiting#1", "ready.check#1"] {
        crash(&sandbox, &["apply"], point);
        sandbox.ok(&["recover"]);
    }
    assert!(traced(&sandbox, &["apply"], None).counts().contains_key("ready.check"));
    sandbox.ok(&["destroy"]);
}

#[test]
fn start_waits_for_its_command_and_ends_one_that_is_not_ready() {
    let Some(sandbox) = with_server() else { return };
    let keys = |command: &str, within: &str| {
        format!("command = {command:?}\nready = [{{ port = \"http\", within = \"{within}\" }}]\n")
    };
    let apply = |command: &str, within: &str| {
        manifest(&sandbox, &keys(command, within));
        sandbox.ok(&["apply"]);
    };
    apply("exec python3 server.py {{ port.http }} 0.3 0.5", "30s");
    let late = sandbox.seedbed(&["start"]).expect(7);
    assert!(late.stderr.contains("web: ready after "), "{late:?}");
    let events = sandbox.seedbed(&["start", "--json"]).expect(7).stdout;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ready = events.iter().find(|event| event["event"] == "commandReady").unwrap();
    assert!(ready["session"] == json!("web") && ready["milliseconds"].as_u64().unwrap() >= 300, "{ready}");

    apply("echo starting; exec sleep 600", "400ms");
    let begun = Instant::now();
    let never = sandbox.seedbed(&["start"]).expect(124);
    assert!(begun.elapsed() < Duration::from_mins(1));
    let port = port(&sandbox);
    never.says(&[
        &format!("web: port http ({port}) was not ready within 400ms: no process listens on it"),
        "[command-not-ready]\n  last lines of the log:\n    starting\n",
        "not ready",
    ]);
    assert!(processes(&sandbox, "sleep").is_empty(), "the command was ended");

    apply("echo broken >&2; exit 3", "5m");
    let died = sandbox.seedbed(&["start"]).expect(3);
    died.says(&[
        &format!("web: the command ended before port http ({port}) was ready (exit status: 3)"),
        "    broken\n",
    ]);
    apply("true", "5m");
    sandbox.seedbed(&["start"]).expect(124).says(&["(exit status: 0)", "[command-not-ready]"]);
}

#[test]
fn start_refuses_a_port_that_is_served_before_the_command() {
    let Some(sandbox) = with_server() else { return };
    manifest(&sandbox, "command = \"touch started\"\nready = [{ port = \"http\", within = \"5m\" }]\n");
    sandbox.ok(&["apply"]);
    let port = port(&sandbox).to_string();
    let directory = sandbox.directory("web");
    let mut server =
        Command::new("python3").args(["server.py", &port, "0"]).current_dir(&directory).spawn().unwrap();
    wait_until("the server runs", || is_served(&sandbox));
    let refused = sandbox.seedbed(&["start"]).expect(1);
    refused.says(&[
        &format!("port http ({port}) of session web is served already by pid {}", server.id()),
        "[ports-in-use]",
    ]);
    assert!(!directory.join("started").exists());
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn server_of_another_session_does_not_make_a_session_ready() {
    let Some(sandbox) = with_server() else { return };
    let resources = "resources = [\"git-worktree\", { kind = \"port-range\", names = [\"http\"] }]\n";
    let other = "python3 server.py {{ sessions.web.port.http }} 0 >server.log 2>&1 &";
    sandbox.manifest(&format!(
        "[session.other]\n{resources}setup = [{other:?}]\n\
         [session.web]\n{resources}ready = [{{ port = \"http\", within = \"2s\" }}]\n"
    ));
    let failed = sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1));
    failed.says(&["web: ready: ", "of shop/other listens on it"]);
}

#[test]
fn start_in_tmux_waits_and_keeps_the_windows_of_commands_that_are_not_ready() {
    let Some(sandbox) = with_server() else { return };
    let Some(tmux) = Tmux::of(&sandbox) else { return };
    let keys =
        |command: &str| format!("command = {command:?}\nready = [{{ port = \"http\", within = \"20s\" }}]\n");
    manifest(&sandbox, &keys("exec python3 server.py {{ port.http }} 0.5"));
    sandbox.ok(&["apply"]);
    let start =
        || Outcome::of(sandbox.command(&["start", "--tmux"]).env("SHELL", "/bin/false").output().unwrap());
    start().expect(0).says(&["opened 1 window in tmux session"]);
    assert!(is_served(&sandbox), "start waits");
    sandbox.ok(&["destroy", "--stop", "--discard"]);

    manifest(&sandbox, &keys("echo broken; exit 5"));
    sandbox.ok(&["apply"]);
    let begun = Instant::now();
    start().expect(124).says(&["web: the command ended before port http", "(exit code 5)", "    broken\n"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "the end of the command ends the wait");
    assert_eq!(tmux.windows(), "web 1\n");
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn conditions_are_inherited_like_setup_and_an_own_port_replaces_the_inherited_one() {
    let sandbox = Sandbox::new();
    sandbox.manifest(
        "[defaults.session]\nready = [{ port = \"http\" }, { command = \"true\" }]\n\
         [session.a]\nresources = [{ kind = \"port-range\", names = [\"http\"] }]\n\
         ready = [{ port = \"http\", within = \"2m\" }]\n\
         [session.b]\ndefaults = false\n\
         [session.c]\nresources = [{ kind = \"port-range\", names = [\"http\"] }]\ncommand = \"true\"\n",
    );
    let plan = sandbox.plan();
    let ready = |at: usize| plan["sessions"][at]["ready"].clone();
    let number = plan["sessions"][0]["allocations"][0]["allocation"]["names"]["http"].clone();
    assert_eq!(
        ready(0),
        json!([
            { "probe": { "command": { "shell": "true" } }, "within": "30s", "after": "setup" },
            { "probe": { "port": { "name": "http", "number": number } }, "within": "2m", "after": "setup" },
        ])
    );
    assert_eq!(ready(1), Value::Null);
    assert_eq!((&ready(2)[0]["within"], &ready(2)[1]["after"]), (&json!("30s"), &json!("command")));
}

#[test]
fn conditions_that_cannot_hold_are_diagnostics_at_their_place() {
    let sandbox = Sandbox::new();
    manifest(
        &sandbox,
        "ready = [{ port = \"htp\" }, { within = \"3s\" }, { port = \"http\", command = \"true\" }, { command = \"true\", after = \"command\" }, { port = \"http\", within = \"3h\" }]\n",
    );
    let found = |sandbox: &Sandbox| {
        let report = sandbox.seedbed(&["validate", "--format", "json"]).expect(65).json();
        let diagnostics = report["diagnostics"].as_array().unwrap().clone();
        diagnostics
            .into_iter()
            .map(|one| (one["message"].as_str().unwrap().to_owned(), one))
            .collect::<Vec<_>>()
    };
    let all = found(&sandbox);
    let messages: Vec<_> = all.iter().map(|(message, _)| message.as_str()).collect();
    assert!(messages.contains(&"the condition has neither `port` nor `command`"), "{messages:?}");
    assert!(messages.contains(&"the condition has both `port` and `command`"), "{messages:?}");
    assert!(
        messages.iter().any(|message| message.contains("`3h`, which is not a length of a wait")),
        "{messages:?}"
    );
    manifest(&sandbox, "ready = [{ port = \"htp\" }, { command = \"true\", after = \"command\" }]\n");
    let before = sandbox.inventory();
    sandbox.seedbed(&["apply"]).expect(65).says(&[
        "the session has no port `htp`",
        "did you mean `http`?",
        "the session has no `command` to wait after",
        "nothing starts",
    ]);
    assert_same(&before, &sandbox.inventory());
    let report = sandbox.seedbed(&["validate"]).expect(65);
    report.says(&["port = \"htp\"", "did you mean `http`?"]);
}
