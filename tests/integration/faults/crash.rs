//! Suite A: SIGKILL at every failpoint of apply, destroy and recover. One recover puts everything right.

use std::collections::BTreeSet;

use super::{PAIR, TREE, check_all, crash, listed, sandbox, traced, twice};
use crate::sandbox::{Sandbox, assert_same};

#[test]
fn an_apply_killed_anywhere_is_undone() {
    let before = sandbox(TREE);
    let run = traced(&before, &["apply", "--jobs", "2"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    check_all(TREE, &twice(&run.counts()), |sandbox, point| {
        let before = sandbox.inventory();
        let _ = std::fs::remove_dir_all(sandbox.state());
        crash(sandbox, &["apply", "--jobs", "2"], point);
        sandbox.ok(&["recover"]);
        if point == "apply.committed#1" || point.starts_with("state.unlocking") {
            sandbox.ok(&["destroy"]);
        }
        assert_same(&before, &sandbox.inventory());
    });
}

#[test]
fn a_destroy_killed_anywhere_is_finished() {
    let stands = sandbox(TREE);
    stands.ok(&["apply"]);
    let run = traced(&stands, &["destroy", "--jobs", "2"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    check_all(TREE, &twice(&run.counts()), |sandbox, point| {
        let before = sandbox.inventory();
        sandbox.ok(&["apply"]);
        crash(sandbox, &["destroy", "--jobs", "2"], point);
        sandbox.ok(&["recover"]);
        // Before its intent is written down nothing has begun.
        sandbox.ok(&["destroy"]);
        assert_same(&before, &sandbox.inventory());
    });
}

/// Kills a run, then recover at every point that it comes to.
fn check_recover(run: &'static [&'static str], at: &str) {
    let prepare = |sandbox: &Sandbox| {
        if run[0] == "destroy" {
            sandbox.ok(&["apply"]);
        }
        crash(sandbox, run, at);
    };
    let killed = sandbox(PAIR);
    prepare(&killed);
    let recover = traced(&killed, &["recover"], None);
    assert_eq!(recover.outcome.code, 0, "{:?}", recover.outcome);
    check_all(PAIR, &twice(&recover.counts()), |sandbox, point| {
        let before = sandbox.inventory();
        prepare(sandbox);
        crash(sandbox, &["recover"], point);
        sandbox.ok(&["recover"]);
        assert_same(&before, &sandbox.inventory());
    });
}

#[test]
fn a_recover_killed_anywhere_while_it_undoes_is_done_again() {
    check_recover(&["apply"], "apply.told#1");
}

#[test]
fn a_recover_killed_anywhere_while_it_finishes_is_done_again() {
    check_recover(&["destroy"], "destroy.torn-down#1");
}

#[test]
fn a_growth_killed_anywhere_leaves_what_stood() {
    let smaller = PAIR.split("[session.linked]").next().unwrap();
    let stands = sandbox(smaller);
    stands.ok(&["apply"]);
    stands.manifest(PAIR);
    let run = traced(&stands, &["apply"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    let points: Vec<String> = twice(&run.counts())
        .into_iter()
        .filter(|point| point.starts_with("apply.") || point.contains("discovery"))
        .collect();
    check_all(smaller, &points, |sandbox, point| {
        sandbox.manifest(smaller);
        sandbox.ok(&["apply"]);
        let stood = sandbox.inventory();
        sandbox.manifest(PAIR);
        crash(sandbox, &["apply"], point);
        sandbox.ok(&["recover"]);
        sandbox.manifest(smaller);
        if point != "apply.committed#1" {
            assert_same(&stood, &sandbox.inventory());
        }
        sandbox.ok(&["destroy"]);
    });
}

#[test]
fn every_point_is_reached() {
    let mut reached = BTreeSet::new();
    let mut reach = |sandbox: &Sandbox, args: &[&str]| {
        let run = traced(sandbox, args, None);
        assert_eq!(run.outcome.code, 0, "{args:?}: {:?}", run.outcome);
        reached.extend(run.counts().into_keys());
    };
    let tree = sandbox(TREE);
    reach(&tree, &["apply"]);
    reach(&tree, &["destroy"]);
    crash(&tree, &["apply"], "apply.told#1");
    reach(&tree, &["recover"]);
    let other = sandbox("[session.a]\nresources = [\"git-worktree\"]\n");
    other.git(&["config", "extensions.unknownOfTests", "true"]);
    reach(&other, &["apply"]);
    assert_eq!(reached, listed());
}
