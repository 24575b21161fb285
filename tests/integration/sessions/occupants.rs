//! Tests of processes that use what is released: they are named and the release is refused before it begins, or they
//! are ended on the user's request.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::cli::shells::installed;
use crate::faults::one_in;
use crate::library_sandbox::close;
use crate::sandbox::{Outcome, Sandbox, assert_same, ports, sessions, wait_until};

/// Process that ends with the test.
struct Worker(Child);

impl Worker {
    fn new(command: &mut Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Starts a shell that runs `script` in `directory`, where `$ready` is a file to create once the script has reached
    /// its place. Waits for a shell that sleeps then until it sleeps.
    fn shell(sandbox: &Sandbox, directory: &Path, script: &str) -> Self {
        let ready = sandbox.top.join("ready");
        let _ = fs::remove_file(&ready);
        let mut command = sandbox.program("sh", directory);
        let worker = Self::new(command.args(["-c", script]).env("ready", &ready));
        wait_until("the worker is ready", || ready.exists());
        if script.ends_with("exec sleep 1000") {
            let command = format!("/proc/{}/cmdline", worker.0.id());
            wait_until("the worker sleeps", || {
                fs::read(&command).is_ok_and(|line| line.starts_with(b"sleep"))
            });
        }
        worker
    }

    fn sleeping_in(sandbox: &Sandbox, directory: &Path) -> Self {
        Self::shell(sandbox, directory, "touch $ready; exec sleep 1000")
    }

    fn pid(&self) -> String {
        format!("pid {}", self.0.id())
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

const TWO: &str = "[session.a]\ncount = 2\nresources = [\"git-worktree\", \"port-range\"]\n";

fn applied(manifest: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(manifest);
    sandbox.ok(&["apply"]);
    sandbox
}

/// Returns a sandbox for each layout and checkout, each with a session inside another session's directory.
fn everywhere() -> Vec<Sandbox> {
    let manifest = |options: &str| {
        format!(
            "[defaults.git-worktree]\n{options}\n[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n\
             [session.a.child.b]\nresources = [\"git-worktree\", \"port-range\"]\n"
        )
    };
    let options = one_in(2, ["layout = \"nested\"", "checkout = \"git\"", "checkout = \"overlay\""]);
    let sandboxes = options.into_iter().filter_map(|options| {
        let sandbox = Sandbox::new();
        sandbox.manifest(&manifest(options));
        (options != "checkout = \"overlay\"" || sandbox.can_mount()).then_some(sandbox)
    });
    sandboxes.collect()
}

#[test]
#[ignore = "`every_case` runs it"]
fn destroy_names_every_process_at_work_and_releases_nothing_in_every_case() {
    for sandbox in everywhere() {
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        let (a, b) = (sandbox.directory("a"), sandbox.directory("a/b"));
        let plan = sandbox.plan();
        let (port, _) = ports(sessions(&plan).find(|session| session["path"] == "a/b").unwrap());
        let in_directory = Worker::sleeping_in(&sandbox, &a.join("app"));
        let script = format!("exec 7<{}; touch $ready; exec sleep 1000", b.join("README.md").display());
        let with_file = Worker::shell(&sandbox, &sandbox.top, &script);
        let listener = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
        let mut command = sandbox.program("sleep", &sandbox.top);
        let listening = Worker::new(command.arg("1000").stdin(Stdio::from(OwnedFd::from(listener))));
        drop(command);
        let says = [
            format!("a: {} (`sleep 1000`) works in {}", in_directory.pid(), a.join("app").display()),
            format!("a/b: {} (`sleep 1000`) has {} open", with_file.pid(), b.join("README.md").display()),
            format!("a/b: {} (`sleep 1000`) listens on tcp 127.0.0.1:{port}", listening.pid()),
        ];
        let says: Vec<&str> = says.iter().map(String::as_str).collect();
        sandbox.unchanged(|| {
            let refused = sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&says);
            refused.says(&["processes use what would be released", "--stop"]);
            let json = sandbox.seedbed(&["destroy", "--json"]).expect(69);
            let last: Value = serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
            assert_eq!(last["occupants"].as_array().unwrap().len(), 3, "{last}");
            assert_eq!(last["occupants"][0]["pid"], in_directory.0.id());
            assert_eq!(last["occupants"][0]["uses"][0]["how"], "workingDirectory");
            let dry = sandbox.seedbed(&["destroy", "--dry-run"]).expect(69).stdout;
            assert!(says.iter().all(|said| dry.contains(&said[said.find(": ").unwrap() + 2..])), "{dry}");
            let dry = sandbox.seedbed(&["destroy", "--dry-run", "--json"]).expect(69).json();
            assert_eq!((&dry["refused"], dry["occupants"].as_array().unwrap().len()), (&true.into(), 3));
        });
        drop((in_directory, with_file, listening));
        sandbox.ok(&["destroy"]);
        assert_same(&before, &sandbox.inventory());
    }
}

#[test]
fn a_session_beside_those_that_are_released_may_be_at_work() {
    let sandbox = applied(TWO);
    let _worker = Worker::sleeping_in(&sandbox, &sandbox.directory("a-0"));
    sandbox.ok(&["destroy", "a-1"]);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "a-0"]).expect(69));
}

#[test]
#[ignore = "`every_case` runs it"]
fn apply_plans_and_refuses_what_it_would_replace_or_destroy_under_a_process_in_every_case() {
    let sandbox = applied(TWO);
    sandbox.git(&["branch", "old"]);
    let worker = Worker::sleeping_in(&sandbox, &sandbox.directory("a-1"));
    let pid = worker.pid();
    let changed = TWO.replace("\"git-worktree\"", "{ kind = \"git-worktree\", target-path = \"app\" }");
    let fewer = TWO.replace("count = 2", "count = 1");
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    // Without replicas the one that is left has another name: both of these go.
    for manifest in [&changed, &fewer] {
        sandbox.manifest(manifest);
        sandbox.unchanged(|| {
            let plan = sandbox.plan();
            assert_eq!(plan["occupants"][0]["session"], "a-1", "{}", plan["occupants"]);
            assert_eq!(plan["occupants"][0]["pid"], worker.0.id());
            assert_eq!(plan["occupants"][0]["role"], "refuses");
            let text = sandbox.ok(&["plan"]);
            let said = [&text.stdout[..], &text.stderr].concat();
            assert!(said.contains(&pid) && said.contains("apply with `--stop`"), "{said}");
            sandbox.seedbed(&["apply", "--yes"]).expect(69).says(&[&pid, "a-1: "]);
            let json = sandbox.seedbed(&["apply", "--yes", "--json"]).expect(69);
            let last: Value = serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
            assert_eq!(last["occupants"][0]["pid"], worker.0.id());
        });
    }
    let mut worker = worker;
    sandbox.ok(&["apply", "--yes", "--stop"]).says(&[&format!("a-1: ended {pid} (`sleep 1000`)")]);
    assert!(worker.has_ended());
    assert!(sandbox.plan().get("occupants").is_none());
}

#[test]
fn a_saved_plan_is_refused_for_the_processes_of_now() {
    let sandbox = applied(TWO);
    let directory = sandbox.directory("a-1");
    sandbox.manifest("[session.b]\nresources = []\n");
    sandbox.ok(&["plan", "-o", "plan.json"]);
    let worker = Worker::sleeping_in(&sandbox, &directory);
    sandbox.unchanged(|| sandbox.seedbed(&["apply", "plan.json", "--yes"]).expect(69).says(&[&worker.pid()]));
    drop(worker);
    sandbox.ok(&["apply", "plan.json", "--yes"]);
}

/// The processes are one that ends on SIGTERM, one that does not, a stopped one, and their children.
#[test]
fn stop_ends_what_is_at_work_and_everything_below_it() {
    let sandbox = applied(TWO);
    let (first, second) = (sandbox.directory("a-0"), sandbox.directory("a-1"));
    let below = sandbox.top.join("below");
    let script = format!(
        "trap '' TERM; (cd /; exec sleep 1000) & echo $! > {0}.new; mv {0}.new {0}; touch $ready; while :; do sleep 0.05; done",
        below.display()
    );
    let mut stubborn = Worker::shell(&sandbox, &first, &script);
    let mut stopped = Worker::sleeping_in(&sandbox, &second);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&stopped.0),
        rustix::process::Signal::STOP,
    )
    .unwrap();
    let beside = Worker::sleeping_in(&sandbox, &sandbox.top);
    let (killed, ended) = (stubborn.pid(), stopped.pid());
    let said = sandbox.ok(&["destroy", "--stop=0.3"]);
    said.says(&[&format!("a-0: killed {killed} (`sh -c "), &format!("a-1: ended {ended} (`sleep 1000`)")]);
    assert!(stubborn.has_ended() && stopped.has_ended());
    assert!(!is_running(&fs::read_to_string(below).unwrap()), "what it has started has ended too");
    assert!(is_running(&beside.0.id().to_string()));
    sandbox.ok(&["destroy"]).says(&["nothing is applied"]);
}

#[test]
fn stop_reports_each_process_as_an_event() {
    let sandbox = applied(TWO);
    let worker = Worker::sleeping_in(&sandbox, &sandbox.directory("a-1"));
    let dry = sandbox.ok(&["destroy", "--stop", "--dry-run"]).stdout;
    assert!(dry.contains(&format!("would be ended: {}", worker.pid())), "{dry}");
    assert!(is_running(&worker.0.id().to_string()));
    let lines = sandbox.ok(&["destroy", "--stop", "--json"]).stdout;
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stopped = events.iter().find(|event| event["event"] == "stopped").expect("the event");
    assert_eq!((&stopped["pid"], &stopped["killed"]), (&worker.0.id().into(), &false.into()));
    assert_eq!((&stopped["session"], &stopped["command"]), (&"a-1".into(), &"sleep 1000".into()));
    let release = events.iter().position(|event| event["event"] == "released").unwrap();
    assert!(events.iter().position(|event| event["event"] == "stopped").unwrap() < release);
}

/// Both are named at once, by session, so that one more command with both options is enough.
#[test]
#[ignore = "`every_case` runs it"]
fn one_refusal_names_processes_and_unsaved_work_in_every_case() {
    let sandbox = applied(TWO);
    let (first, second) = (sandbox.directory("a-0"), sandbox.directory("a-1"));
    let worker = Worker::sleeping_in(&sandbox, &first);
    fs::write(first.join("new.txt"), "work\n").unwrap();
    fs::write(second.join("README.md"), "work\n").unwrap();
    let named = |outcome: Outcome| {
        let text = outcome.expect(69).says(&[
            "processes use what would be released, and work would be lost; nothing was released",
            "let seedbed end them with `--stop`",
            "save it with `--rescue`",
        ]);
        let lines: Vec<_> = text.stderr.lines().filter(|line| line.starts_with("  a-")).collect();
        let [process, untracked, modified] = lines[..] else { panic!("{}", text.stderr) };
        assert!(process.starts_with(&format!("  a-0: {} ", worker.pid())), "{process}");
        assert!(untracked.starts_with("  a-0: ") && untracked.ends_with("1 untracked"), "{untracked}");
        assert!(modified.starts_with("  a-1: ") && modified.ends_with("1 modified"), "{modified}");
    };
    let in_json = |args: &[&str]| {
        let json = sandbox.seedbed(args).expect(69);
        let last: Value = serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(last["id"], "processes-at-work");
        assert_eq!(last["occupants"][0]["pid"], worker.0.id());
        let sessions: Vec<_> =
            last["unsavedWork"].as_array().unwrap().iter().map(|loss| &loss["session"]).collect();
        assert_eq!(sessions, ["a-0", "a-1"], "{last}");
    };
    sandbox.unchanged(|| {
        named(sandbox.seedbed(&["destroy"]));
        in_json(&["destroy", "--json"]);
        // What one option decides is not named again.
        let stopped = sandbox.seedbed(&["destroy", "--stop"]).expect(69);
        let stopped = stopped.says(&["refused, because work would be lost"]).stderr;
        assert!(!stopped.contains("pid ") && !stopped.contains("--stop"), "{stopped}");
        let discarded = sandbox.seedbed(&["destroy", "--discard"]).expect(69).says(&[&worker.pid()]).stderr;
        assert!(!discarded.contains("untracked") && !discarded.contains("--rescue"), "{discarded}");
    });
    sandbox.manifest(&TWO.replace("\"git-worktree\"", "{ kind = \"git-worktree\", target-path = \"app\" }"));
    sandbox.unchanged(|| {
        named(sandbox.seedbed(&["apply", "--yes"]));
        in_json(&["apply", "--yes", "--json"]);
    });
    sandbox.ok(&["destroy", "--stop", "--rescue"]).says(&["a-0: ended pid", "a-0: rescued", "a-1: rescued"]);
}

/// Neither `recover` nor its way out (`--give-up`) is refused in two rounds.
#[test]
fn one_refusal_of_recovery_names_processes_and_unsaved_work() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    let before = sandbox.inventory();
    let mut apply = sandbox.command(&["apply"]);
    Outcome::of(apply.env("SEEDBED_FAILPOINT", "apply.told=crash").output().unwrap()).expect(137);
    let worktree = sandbox.repository.join(".ai_ops/worktrees");
    let worktrees = fs::read_dir(worktree).unwrap().map(|entry| entry.unwrap().path());
    let worktree = worktrees.filter(|path| path.join(".git").exists()).max().unwrap();
    fs::write(worktree.join("new.txt"), "work\n").unwrap();
    let worker = Worker::sleeping_in(&sandbox, &worktree);
    let says = [&worker.pid()[..], "1 untracked", "--stop", "--rescue", "recovering it would remove work"];
    sandbox.seedbed(&["recover"]).expect(69).says(&says);
    for command in [&["recover"][..], &["apply"], &["destroy"], &["recover", "--give-up"]] {
        sandbox.unchanged(|| sandbox.seedbed(command).expect(69).says(&says));
    }
    sandbox.ok(&["recover", "--stop", "--discard"]);
    assert_same(&before, &sandbox.inventory());
}

/// A killed `destroy` may have moved some of the worktrees aside: those have no process and no work at their location.
#[test]
fn one_refusal_names_both_in_what_a_killed_destroy_left() {
    for (point, home) in [("run.intended", 2), ("aside.admin-moved", 1)] {
        let sandbox = applied(TWO);
        let directories = [sandbox.directory("a-0"), sandbox.directory("a-1")];
        let mut destroy = sandbox.command(&["destroy", "--jobs", "1"]);
        let killed = destroy.env("SEEDBED_FAILPOINT", format!("{point}=crash")).output().unwrap();
        Outcome::of(killed).expect(137);
        let left: Vec<_> = directories.iter().filter(|directory| directory.exists()).collect();
        assert_eq!(left.len(), home, "{point}");
        fs::write(left[0].join("new.txt"), "work\n").unwrap();
        let worker = Worker::sleeping_in(&sandbox, left[0]);
        let refused = sandbox.seedbed(&["recover"]).expect(69);
        let lines = refused.stderr.lines().filter(|line| line.starts_with("  a-")).count();
        assert_eq!(lines, 2, "{}", refused.stderr);
        refused.says(&[&worker.pid(), "1 untracked", "--stop", "--rescue"]);
        sandbox.ok(&["recover", "--stop", "--rescue"]).says(&["ended pid", "rescued", "finished"]);
    }
}

#[test]
fn refused_run_ends_no_process() {
    let sandbox = applied(TWO);
    let directory = sandbox.directory("a-1");
    fs::write(directory.join("new.txt"), "work\n").unwrap();
    let mut worker = Worker::sleeping_in(&sandbox, &directory);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "--stop"]).expect(69).says(&["1 untracked"]));
    assert!(!worker.has_ended());
    sandbox.ok(&["destroy", "--stop", "--discard"]);
    assert!(worker.has_ended());
}

#[test]
fn from_inside_a_session_a_destroy_wants_yes() {
    let sandbox = applied(TWO);
    let directory = sandbox.directory("a-0");
    let manifest = sandbox.repository.join("seedbed.toml");
    let args = |more: &[&str]| {
        [&["destroy", "-f", manifest.to_str().unwrap()][..], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let run = |more: &[&str]| {
        Outcome::of(sandbox.command(&[]).args(args(more)).current_dir(&directory).output().unwrap())
    };
    sandbox.unchanged(|| {
        run(&[]).expect(69).says(&[
            "runs inside a session that would be released",
            "--yes",
            "seedbed was called from it",
        ]);
    });
    // A shell that works there, and calls it from elsewhere, is inside too.
    let binary = env!("CARGO_BIN_EXE_seedbed");
    let script = format!("(cd /; {binary} \"$@\"); code=$?; exit $code");
    sandbox.unchanged(|| {
        let mut shell = sandbox.program("sh", &directory);
        let outcome = Outcome::of(shell.args(["-c", &script, "sh"]).args(args(&[])).output().unwrap());
        outcome.expect(69).says(&["runs inside a session that would be released", "(`sh -c"]);
    });
    // Others are no part of it.
    let outcome = sandbox.command(&[]).args(args(&["a-1"])).current_dir(&directory).output().unwrap();
    Outcome::of(outcome).expect(0);
    let mut shell = sandbox.program("sh", &directory);
    let script = format!("(cd /; {binary} \"$@\"); echo $? still here");
    let outcome =
        Outcome::of(shell.args(["-c", &script, "sh"]).args(args(&["--yes", "--stop"])).output().unwrap());
    assert!(outcome.expect(0).stdout.ends_with("0 still here\n"), "its own callers are never ended");
    assert!(!directory.exists());
}

#[test]
fn an_overlay_is_not_released_from_inside() {
    let sandbox = Sandbox::new();
    sandbox.manifest(&TWO.replace("\"git-worktree\"", "{ kind = \"git-worktree\", checkout = \"overlay\" }"));
    if !sandbox.can_mount() {
        return;
    }
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a-0");
    let manifest = sandbox.repository.join("seedbed.toml");
    let args = ["destroy", "-f", manifest.to_str().unwrap(), "--yes", "--stop"];
    sandbox.unchanged(|| {
        sandbox.seedbed_in(&directory, &args).expect(69).says(&["a-0: ", "leave it first"]);
    });
    sandbox.ok(&["destroy"]);
}

#[test]
fn destroy_asks_on_a_terminal() {
    if !installed("script") {
        return;
    }
    let sandbox = applied(TWO);
    let answer = |answer: &str, code: i32| {
        let mut script = sandbox.program("script", &sandbox.repository);
        let command = format!("{} destroy", env!("CARGO_BIN_EXE_seedbed"));
        let script =
            script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        std::io::Write::write_all(script.stdin.as_mut().unwrap(), answer.as_bytes()).unwrap();
        let outcome = Outcome::of(script.wait_with_output().unwrap()).expect(code);
        assert!(outcome.stdout.contains("Destroy a-0, a-1? [y/N]"), "{}", outcome.stdout);
    };
    sandbox.unchanged(|| answer("n\n", 69));
    answer("y\n", 0);
    sandbox.ok(&["destroy"]).says(&["nothing is applied"]);
}

#[test]
fn a_run_is_not_ended_under_what_its_command_left() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    let before = sandbox.inventory();
    let pid = sandbox.top.join("pid");
    let script = format!("sleep 1000 >/dev/null 2>&1 & echo $! > {}", pid.display());
    let refused = sandbox.seedbed(&["run", "--in-place", "--", "sh", "-c", &script]).expect(69);
    let left = fs::read_to_string(&pid).unwrap();
    refused.says(&[&format!("pid {} (`sleep 1000`) works in", left.trim()), "--stop"]);
    assert!(is_running(&left) && fs::exists(format!("/proc/{}/cwd/README.md", left.trim())).unwrap());
    sandbox.seedbed(&["destroy"]).expect(69);
    sandbox.ok(&["destroy", "--stop"]);
    assert!(!is_running(&left));
    sandbox.ok(&["run", "--stop", "--", "sh", "-c", &script]).says(&["a: ended pid"]);
    assert!(!is_running(&fs::read_to_string(&pid).unwrap()));
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn recover_does_not_undo_under_a_process() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    let before = sandbox.inventory();
    let mut apply = sandbox.command(&["apply"]);
    Outcome::of(apply.env("SEEDBED_FAILPOINT", "apply.told=crash").output().unwrap()).expect(137);
    let worktrees = fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")).unwrap();
    let mut worktrees: Vec<PathBuf> =
        worktrees.map(|entry| entry.unwrap().path()).filter(|path| path.join(".git").exists()).collect();
    worktrees.sort();
    let mut worker = Worker::sleeping_in(&sandbox, &worktrees[1]);
    // The first one of them sweeps what the killed run left beside its records.
    sandbox.seedbed(&["recover"]).expect(69);
    for command in ["recover", "apply", "destroy"] {
        sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(69).says(&[&worker.pid(), "works in"]));
    }
    sandbox.ok(&["recover", "--stop"]).says(&["a-1: ended pid", "rolled back"]);
    assert!(worker.has_ended());
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn recover_does_not_finish_a_destroy_under_a_process() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("a-1");
    let mut destroy = sandbox.command(&["destroy"]);
    Outcome::of(destroy.env("SEEDBED_FAILPOINT", "run.intended=crash").output().unwrap()).expect(137);
    let worker = Worker::sleeping_in(&sandbox, &directory);
    sandbox.seedbed(&["recover"]).expect(69).says(&[&worker.pid()]);
    sandbox.unchanged(|| sandbox.seedbed(&["recover"]).expect(69).says(&[&worker.pid()]));
    drop(worker);
    sandbox.ok(&["recover"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn recover_does_not_release_what_is_aside_under_a_process() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let mut destroy = sandbox.command(&["destroy"]);
    Outcome::of(destroy.env("SEEDBED_FAILPOINT", "run.committed=crash").output().unwrap()).expect(137);
    let aside = fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")).unwrap();
    let mut aside: Vec<PathBuf> =
        aside.map(|entry| entry.unwrap().path()).filter(|path| path.join(".git").exists()).collect();
    aside.sort();
    let mut worker = Worker::sleeping_in(&sandbox, &aside[1]);
    sandbox.seedbed(&["recover"]).expect(69);
    for command in ["recover", "apply", "destroy"] {
        sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(69).says(&[&worker.pid(), "works in"]));
    }
    sandbox.ok(&["recover", "--stop"]).says(&["a-1: ended pid", "finished"]);
    assert!(worker.has_ended());
    assert_same(&before, &sandbox.inventory());
}

/// Writes a manifest whose `setup` leaves a process in the session, with its process id in `$top/pid`.
fn with_a_server(sandbox: &Sandbox, rest: &str) {
    let top = sandbox.top.display();
    sandbox.manifest(&format!(
        "[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n\
         setup = ['kill -0 $(cat {top}/pid) 2>/dev/null || {{ sleep 1000 >/dev/null 2>&1 & echo $! > {top}/pid; }}'{rest}\n"
    ));
}

#[test]
fn teardown_is_expected_to_end_processes_of_setup() {
    let sandbox = Sandbox::new();
    let (pid, go) = (sandbox.top.join("pid"), sandbox.top.join("go"));
    with_a_server(
        &sandbox,
        &format!("]\nteardown = ['test -e {} && kill $(cat {}) || true']", go.display(), pid.display()),
    );
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let server = fs::read_to_string(&pid).unwrap();
    let dry = sandbox.ok(&["destroy", "--dry-run"]).stdout;
    assert!(
        dry.contains(&format!("pid {} ", server.trim())) && dry.contains("left running by setup"),
        "{dry}"
    );
    // The teardown leaves it running: nothing is released, and what was torn down is set up again.
    sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69).says(&[server.trim(), "works in"]));
    sandbox.ok(&["status"]);
    // Another process is no business of the teardown's, which does not even run.
    fs::write(&go, "").unwrap();
    let worker = Worker::sleeping_in(&sandbox, &sandbox.directory("a"));
    sandbox.seedbed(&["destroy"]).expect(69).says(&[&worker.pid()]);
    assert!(is_running(&server));
    drop(worker);
    sandbox.ok(&["destroy"]);
    assert!(!is_running(&server));
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn process_of_setup_refuses_a_release_unless_a_teardown_has_run() {
    let sandbox = Sandbox::new();
    with_a_server(&sandbox, "]");
    let server = || fs::read_to_string(sandbox.top.join("pid")).unwrap();
    sandbox.ok(&["apply"]);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69).says(&[server().trim()]));
    sandbox.ok(&["destroy", "--stop"]);
    assert!(!is_running(&server()));
    fs::remove_file(sandbox.top.join("pid")).unwrap();
    with_a_server(&sandbox, "]\nteardown = ['true']");
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy", "--stop"]).says(&[&format!("a: ended pid {}", server().trim())]);
    assert!(!is_running(&server()));
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn a_run_that_fails_ends_what_its_own_setup_left() {
    let sandbox = Sandbox::new();
    with_a_server(&sandbox, ", 'exit 1']");
    sandbox.unchanged(|| sandbox.seedbed(&["apply"]).expect(1).says(&["a: ended pid"]));
    assert!(!is_running(&fs::read_to_string(sandbox.top.join("pid")).unwrap()));
}

/// Other programs inspect worktrees all the time; a program that does so for a moment does not use the session.
#[test]
fn a_look_in_passing_refuses_nothing() {
    let sandbox = applied(TWO);
    let directory = sandbox.directory("a-0");
    let script = "touch $ready; while :; do git -C $directory status >/dev/null 2>&1; done";
    let script = script.replace("$directory", directory.to_str().unwrap());
    let _looking = Worker::shell(&sandbox, &sandbox.top, &script);
    sandbox.ok(&["destroy"]);
}

/// Root may inspect the processes of all users: the run is another user's.
#[test]
fn a_process_of_another_user_is_counted_and_its_port_refuses() {
    if !rustix::process::getuid().is_root() || !installed("setpriv") {
        return eprintln!("NOT TESTED: only root can become another user");
    }
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    let other = |args: &[&str]| {
        let mut command = sandbox.program("setpriv", &sandbox.repository);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_seedbed")]);
        Outcome::of(command.args(args).output().unwrap())
    };
    let owned = sandbox.program("chown", &sandbox.top).args(["-R", "65534:65534", "."]).status().unwrap();
    assert!(owned.success());
    let applied = other(&["apply"]);
    if applied.stderr.contains("Permission denied") {
        return eprintln!("NOT TESTED: the program is out of another user's reach: {}", applied.stderr);
    }
    applied.expect(0);
    let (port, _) = ports(
        &serde_json::from_str::<Value>(&other(&["plan", "--json"]).expect(0).stdout).unwrap()["sessions"][0],
    );
    let dry = other(&["destroy", "--dry-run", "--json"]).expect(0).json();
    assert!(dry["uninspected"].as_u64().unwrap() > 0, "{dry}");
    let listener = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    let refused = other(&["destroy"]).expect(69);
    refused.says(&[
        &format!("a: a process that cannot be inspected listens on tcp 127.0.0.1:{port}"),
        "the files and ports in use are unknown",
    ]);
    let refused = other(&["destroy", "--stop=0.1"]).expect(69);
    refused.says(&["cannot be inspected"]);
    close(listener);
    other(&["destroy", "--verbose"]).expect(0).says(&["cannot be inspected by this user"]);
}
