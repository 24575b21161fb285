//! Tests of a `run` that is killed while its command runs: a later run removes what it left, and every command reports
//! that.

use std::fs;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::faults::{assert_put_back, check_all, crash, one_in, sandbox as faulty, traced, twice};
use crate::sandbox::{Outcome, Sandbox, send, wait_until};

const MANIFEST: &str = "[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n";

/// Starts a `run` whose command waits, and returns the run and the id of the command.
fn started(sandbox: &Sandbox, options: &[&str]) -> (Child, Pid) {
    let started = sandbox.top.join("started");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; echo work > work.txt; exec sleep 1000 > {0}.out 2>&1",
        started.display()
    );
    let run = sandbox.start(&[&["run", "--in-place"], options, &["--", "sh", "-c", &script]].concat());
    wait_until("the command runs", || started.exists());
    let pid = fs::read_to_string(&started).unwrap().trim().parse().unwrap();
    fs::remove_file(started).unwrap();
    (run, Pid::from_raw(pid).unwrap())
}

fn end(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
    let process = format!("/proc/{}/fd/0", pid.as_raw_nonzero());
    wait_until("the command has ended", || !fs::exists(&process).unwrap_or(true));
}

fn kill(run: Child) {
    send(Signal::KILL, &run);
    Outcome::of(run.wait_with_output().unwrap()).expect(137);
}

fn killed(sandbox: &Sandbox) {
    let (run, command) = started(sandbox, &[]);
    kill(run);
    end(command);
}

#[test]
fn a_run_that_lives_locks_every_other_out_and_is_named() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    let (run, command) = started(&sandbox, &[]);
    let pid = run.id().to_string();
    sandbox.seedbed(&["run", "--in-place", "--", "true"]).expect(75).says(&["is locked by pid", &pid]);
    sandbox.ok(&["status"]).says(&["the command of a run is in progress by pid", &pid]);
    sandbox.ok(&["plan"]);
    end(command);
    Outcome::of(run.wait_with_output().unwrap()).expect(137);
    sandbox.ok(&["destroy"]).says(&["nothing is applied"]);
}

#[test]
fn a_killed_run_is_not_removed_while_its_command_lives() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    let before = sandbox.inventory();
    let (run, command) = started(&sandbox, &[]);
    kill(run);
    let pid = format!("pid {}", command.as_raw_nonzero());
    for args in [&["run", "--in-place", "--", "true"][..], &["recover"], &["destroy", "--discard"]] {
        let args = [args, &["--lock-timeout", "0"][..]].concat();
        // The options of a command are no words of `run`'s.
        let args: Vec<&str> = if args[0] == "run" {
            vec!["run", "--in-place", "--lock-timeout", "0", "--", "true"]
        } else {
            args
        };
        sandbox.seedbed(&args).expect(75).says(&[
            "programs that an ended run left running",
            &pid,
            "sleep 1000",
        ]);
    }
    end(command);
    sandbox.ok(&["run", "--in-place", "--", "true"]).says(&["removed the swarm of a killed `run`"]);
    assert_put_back(&before, &sandbox);
}

#[test]
fn a_killed_run_is_named_by_every_command_and_removed_by_recover() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    let before = sandbox.inventory();
    killed(&sandbox);
    let line = "the command of a run by pid ";
    sandbox.ok(&["status"]).says(&[line, "`seedbed recover` removes 1 session (a)"]);
    let status: Value = sandbox.ok(&["status", "--json"]).json();
    assert_eq!(status["interrupted"], true);
    let listed = sandbox.ok(&["list"]).stdout;
    assert!(listed.contains(line), "{listed}");
    let found = sandbox.ok(&["doctor"]).stdout;
    assert!(found.contains("interrupted-run: a run of swarm shop"), "{found}");
    sandbox.seedbed(&["plan"]).expect(75).says(&["was interrupted", "seedbed recover"]);
    let events = sandbox.ok(&["recover", "--json"]).stdout;
    let done: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(done["recovered"], "removed");
    assert_put_back(&before, &sandbox);
}

#[test]
fn work_of_a_killed_command_is_rescued_if_requested() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    killed(&sandbox);
    sandbox.ok(&["recover", "--rescue"]).says(&["refs/seedbed/rescue/shop/a/"]);
    let rescued = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    assert_eq!(sandbox.git(&["show", &format!("{rescued}:work.txt")]), "work");
    sandbox.ok(&["destroy"]).says(&["nothing is applied"]);
}

#[test]
fn a_killed_run_that_was_to_keep_its_swarm_has_kept_it() {
    let sandbox = Sandbox::new();
    sandbox.manifest(MANIFEST);
    let (run, command) = started(&sandbox, &["--keep"]);
    kill(run);
    end(command);
    sandbox.ok(&["recover"]).says(&["nothing to recover"]);
    sandbox.seedbed(&["destroy"]).expect(69).says(&["1 untracked"]);
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn a_run_killed_anywhere_leaves_nothing_that_the_next_does_not_remove() {
    let lab = faulty(MANIFEST);
    let run = traced(&lab, &["run", "--in-place", "--", "true"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    let mut points = twice(&run.counts());
    points.retain(|point| ["apply.", "destroy.", "state."].iter().any(|part| point.starts_with(part)));
    check_all(MANIFEST, &one_in(4, points), |sandbox, point| {
        let before = sandbox.inventory();
        crash(sandbox, &["run", "--in-place", "--", "true"], point);
        sandbox.ok(&["run", "--in-place", "--", "true"]);
        assert_put_back(&before, sandbox);
    });
}
