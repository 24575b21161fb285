//! Tests in which every step with an outside effect fails in turn: the error is clear, and everything is rolled back.
//!
//! Here each step fails with one of the errors, the next step with another; the soak uses every error for each step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    PAIR, Traced, assert_put_back, check_all, crash, failing, is_of_overlays, sandbox, some_of, traced,
    with_overlays,
};
use crate::sandbox::{Outcome, Sandbox, assert_same};

const ERRORS: [(&str, &str); 3] =
    [("eio", "Input/output error"), ("enospc", "No space left on device"), ("eacces", "Permission denied")];

/// Maximum number of times that a point is made to fail; points that are reached more often are in a loop over files.
const TIMES: u64 = 8;

/// Errors that a step fails with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    /// One error, a different one for each step.
    One,
    /// Every error in turn.
    All,
}

impl With {
    fn chosen(self, cases: Vec<String>) -> Vec<String> {
        if self == Self::All { cases } else { some_of(cases) }
    }
}

/// Returns each point that can fail, at up to [`TIMES`] of its occurrences, evenly spread.
pub(crate) fn cases(counts: &BTreeMap<String, u64>, with: With) -> Vec<String> {
    let failing = failing();
    let mut next = (0..).map(|case: usize| &ERRORS[case % ERRORS.len()..][..1]);
    let mut cases = Vec::new();
    for (name, count) in counts.iter().filter(|(name, _)| failing.contains(*name)) {
        let times = (*count).min(TIMES);
        for time in 0..times {
            let errors = if with == With::All { &ERRORS[..] } else { next.next().unwrap() };
            let at = time * count / times + 1;
            cases.extend(errors.iter().map(|(error, _)| format!("{name}#{at}={error}")));
        }
    }
    cases
}

pub(crate) fn succeeded(run: &Traced) -> BTreeMap<String, u64> {
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    run.counts()
}

/// Runs a command with one step failing. Expects that the step failed, and that the failure was reported if it had an
/// effect.
#[track_caller]
pub(crate) fn fail(sandbox: &Sandbox, args: &[&str], case: &str) -> Outcome {
    let run = traced(sandbox, args, Some(case));
    let (point, error) = case.split_once('=').unwrap();
    let failed = format!("{error} {}", point.trim_end_matches('+'));
    assert!(run.trace.contains(&failed), "{case} was not reached");
    let said = ERRORS.iter().find(|(name, _)| *name == error).unwrap().1;
    let lines = run.outcome.stderr.lines().count();
    // A message about a line of the manifest is broken into lines.
    let words: String = run.outcome.stderr.split_whitespace().filter(|word| *word != "│").collect();
    let said = said.replace(' ', "");
    assert!(run.outcome.code == 0 || words.contains(&said), "{case}: {:?}", run.outcome);
    assert!(lines < 20 && !run.outcome.stderr.contains("panicked"), "{case}: {:?}", run.outcome);
    run.outcome
}

/// Fails the steps of `apply` that are `wanted`.
pub(super) fn check_apply(manifest: &str, with: With, wanted: impl Fn(&str) -> bool) {
    let lab = sandbox(manifest);
    let counts = succeeded(&traced(&lab, &["apply", "--jobs", "1"], None));
    let tried = AtomicUsize::new(0);
    let mut cases = cases(&counts, with);
    cases.retain(|case| wanted(case));
    check_all(manifest, &with.chosen(cases), |sandbox, case| {
        let _ = std::fs::remove_dir_all(sandbox.state());
        let before = sandbox.inventory();
        match fail(sandbox, &["apply", "--jobs", "1"], case).code {
            // It was not needed, or done in another way.
            0 => drop(sandbox.ok(&["plan", "--detailed-exitcode"])),
            1 | 65 => assert_put_back(&before, sandbox),
            code => panic!("exit code {code}"),
        }
        if tried.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
            sandbox.ok(&["apply"]);
        }
        sandbox.ok(&["destroy"]);
        assert_put_back(&before, sandbox);
    });
}

/// Fails the steps of `destroy` that are `wanted`.
pub(super) fn check_destroy(manifest: &str, with: With, wanted: impl Fn(&str) -> bool) {
    let lab = sandbox(manifest);
    lab.ok(&["apply"]);
    let counts = succeeded(&traced(&lab, &["destroy", "--jobs", "1"], None));
    let mut cases = cases(&counts, with);
    cases.retain(|case| wanted(case));
    check_all(manifest, &with.chosen(cases), |sandbox, case| {
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        let stood = sandbox.inventory();
        let outcome = fail(sandbox, &["destroy", "--jobs", "1"], case);
        match outcome.code {
            // A teardown that fails is reported (72), and stops nothing.
            0 | 72 | 73 => {}
            // Nothing had begun.
            1 | 69 => assert_same(&stood, &sandbox.inventory()),
            code => panic!("exit code {code}"),
        }
        sandbox.ok(&["destroy"]);
        // A worktree whose HEAD cannot be read may have the branch checked out.
        let kept = |line: &str| Some(line.split_once(": branch ")?.1.split_once(" is kept")?.0.to_owned());
        for branch in outcome.stderr.lines().filter_map(kept) {
            sandbox.git(&["branch", "--quiet", "-D", &branch]);
        }
        assert_put_back(&before, sandbox);
    });
}

/// Fails the steps of `recover` that are `wanted`.
pub(super) fn check_recover(manifest: &str, with: With, wanted: impl Fn(&str) -> bool) {
    let lab = sandbox(manifest);
    crash(&lab, &["apply", "--jobs", "1"], "apply.told#1");
    let counts = succeeded(&traced(&lab, &["recover", "--jobs", "1"], None));
    let mut cases = cases(&counts, with);
    cases.retain(|case| wanted(case));
    check_all(manifest, &with.chosen(cases), |sandbox, case| {
        let before = sandbox.inventory();
        crash(sandbox, &["apply", "--jobs", "1"], "apply.told#1");
        let code = fail(sandbox, &["recover", "--jobs", "1"], case).code;
        // A run whose work cannot be checked is not rolled back: 69.
        assert!(matches!(code, 0 | 1 | 69 | 73), "exit code {code}");
        sandbox.ok(&["recover"]);
        assert_put_back(&before, sandbox);
    });
}

#[test]
fn apply_whose_step_fails_is_rolled_back() {
    check_apply(PAIR, With::One, |_| true);
}

#[test]
fn a_destroy_whose_step_fails_is_finished_by_the_next() {
    check_destroy(PAIR, With::One, |_| true);
}

#[test]
fn a_recover_whose_step_fails_is_done_by_the_next() {
    check_recover(PAIR, With::One, |_| true);
}

/// Fails the steps that only copies and mounts have.
pub(super) fn check_layers(with: With) {
    let layers = with_overlays("[session.copied]\ncount = 3\nresources = [\"git-worktree\"]\n");
    check_apply(&layers, with, |case| case.starts_with("cop") || is_of_overlays(case));
    if layers.contains("overlay") {
        check_destroy(&layers, with, is_of_overlays);
        check_recover(&layers, with, is_of_overlays);
    }
}

#[test]
fn failed_copy_or_mount_is_rolled_back() {
    check_layers(With::One);
}

/// A panic in a kind is a failure of that step: the rest is rolled back, and the exit code reports a bug.
#[test]
fn panic_in_a_kind_is_rolled_back_like_any_failure() {
    let sandbox = sandbox(PAIR);
    sandbox.unchanged(|| {
        for point in ["lease.granted#1", "register.placed#1", "register.renamed#2"] {
            let run = traced(&sandbox, &["apply"], Some(&format!("{point}=panic")));
            assert!(run.trace.contains(&format!("panic {point}")), "{point} was not reached");
            run.outcome.expect(70).says(&["a bug: it panicked", "was rolled back"]);
        }
    });
    sandbox.seedbed(&["apply"]).expect(0);
    traced(&sandbox, &["destroy"], Some("release.aside#1=panic"))
        .outcome
        .expect(73)
        .says(&["a bug: it panicked"]);
    sandbox.seedbed(&["recover"]).expect(0);
    sandbox.seedbed(&["recover"]).expect(0).says(&["nothing to recover"]);
}
