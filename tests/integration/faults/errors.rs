//! Suite B: every step that touches the outside fails in turn: a clear error, and everything is put back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{PAIR, Traced, check_all, crash, failing, sandbox, traced};
use crate::sandbox::{Sandbox, assert_same};

const ERRORS: [(&str, &str); 3] =
    [("eio", "Input/output error"), ("enospc", "No space left on device"), ("eacces", "Permission denied")];

/// How often a point is made to fail at most; those that are reached more often are so in a loop over files.
const TIMES: u64 = 8;

/// Each point that can fail, at each time it was reached up to [`TIMES`] evenly spread, with one of the errors.
fn cases(counts: &BTreeMap<String, u64>) -> Vec<String> {
    let failing = failing();
    let mut next = (0..).map(|case: usize| ERRORS[case % ERRORS.len()].0);
    let mut cases = Vec::new();
    for (name, count) in counts.iter().filter(|(name, _)| failing.contains(*name)) {
        let times = (*count).min(TIMES);
        for time in 0..times {
            cases.push(format!("{name}#{}={}", time * count / times + 1, next.next().unwrap()));
        }
    }
    cases
}

fn succeeded(run: &Traced) -> BTreeMap<String, u64> {
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    run.counts()
}

/// Runs a command with one step failing, and expects that the step failed, and if that mattered that it was said.
#[track_caller]
fn fail(sandbox: &Sandbox, args: &[&str], case: &str) -> i32 {
    let run = traced(sandbox, args, Some(case));
    let (point, error) = case.split_once('=').unwrap();
    let failed = format!("{error} {}", point.trim_end_matches('+'));
    assert!(run.trace.contains(&failed), "{case} was not reached");
    let said = ERRORS.iter().find(|(name, _)| *name == error).unwrap().1;
    let lines = run.outcome.stderr.lines().count();
    assert!(run.outcome.code == 0 || run.outcome.stderr.contains(said), "{case}: {:?}", run.outcome);
    assert!(lines < 12 && !run.outcome.stderr.contains("panicked"), "{case}: {:?}", run.outcome);
    run.outcome.code
}

#[test]
fn an_apply_whose_step_fails_puts_everything_back() {
    let lab = sandbox(PAIR);
    let counts = succeeded(&traced(&lab, &["apply", "--jobs", "1"], None));
    let tried = AtomicUsize::new(0);
    check_all(PAIR, &cases(&counts), |sandbox, case| {
        let _ = std::fs::remove_dir_all(sandbox.state());
        let before = sandbox.inventory();
        match fail(sandbox, &["apply", "--jobs", "1"], case) {
            // It was not needed, or done in another way.
            0 => drop(sandbox.ok(&["plan", "--detailed-exitcode"])),
            1 | 65 => assert_same(&before, &sandbox.inventory()),
            code => panic!("exit code {code}"),
        }
        if tried.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
            sandbox.ok(&["apply"]);
        }
        sandbox.ok(&["destroy"]);
        assert_same(&before, &sandbox.inventory());
    });
}

#[test]
fn a_destroy_whose_step_fails_is_finished_by_the_next() {
    let lab = sandbox(PAIR);
    lab.ok(&["apply"]);
    let counts = succeeded(&traced(&lab, &["destroy", "--jobs", "1"], None));
    check_all(PAIR, &cases(&counts), |sandbox, case| {
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        let stood = sandbox.inventory();
        match fail(sandbox, &["destroy", "--jobs", "1"], case) {
            0 | 73 => {}
            // A teardown that fails is told, and stops nothing.
            1 if case.starts_with("state.create-log#1") || case.starts_with("files.remove#1=") => {}
            // Nothing had begun.
            1 | 69 => assert_same(&stood, &sandbox.inventory()),
            code => panic!("exit code {code}"),
        }
        sandbox.ok(&["destroy"]);
        assert_same(&before, &sandbox.inventory());
    });
}

#[test]
fn a_recover_whose_step_fails_is_done_by_the_next() {
    let lab = sandbox(PAIR);
    crash(&lab, &["apply"], "apply.told#1");
    let counts = succeeded(&traced(&lab, &["recover"], None));
    check_all(PAIR, &cases(&counts), |sandbox, case| {
        let before = sandbox.inventory();
        crash(sandbox, &["apply"], "apply.told#1");
        let code = fail(sandbox, &["recover"], case);
        assert!(matches!(code, 0 | 1 | 73), "exit code {code}");
        sandbox.ok(&["recover"]);
        assert_same(&before, &sandbox.inventory());
    });
}
