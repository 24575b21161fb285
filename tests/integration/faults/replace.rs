//! Tests that a run that replaces and destroys active sessions is all or nothing, for a kill and for an error at any
//! point.

use std::fs;

use super::errors::{With, cases, fail, succeeded};
use super::{check_all, crash, sandbox, some_of, traced, twice, with_overlays};
use crate::sandbox::{Inventory, Sandbox, assert_same};

/// Sessions with everything that can be moved aside.
const BEFORE: &str = r#"
[session.lead]
resources = [{ kind = "git-worktree", target-path = "app", branch = "agents/{{ session.name }}", base-ref = "old" }, { kind = "port-range", block-size = 8, names = ["http"] }]
setup = ["echo made > made.log"]
teardown = ["rm made.log"]
[session.lead.child.coder]
resources = [{ kind = "git-worktree", layout = "nested" }, "port-range"]
[session.gone]
resources = [{ kind = "git-worktree", branch = "agents/gone" }, "port-range"]
"#;

/// Returns a manifest that replaces, destroys and creates: another base, another block, other sessions.
fn after(before: &str) -> String {
    let kept = before.split("[session.gone]").next().unwrap();
    let mounted = before.split_once("[session.mounted]").map_or(String::new(), |(_, mounted)| {
        format!("[session.mounted]{}", mounted.replace("branch", "base-ref = \"old\", branch"))
    });
    let replaced = kept.replace("\"old\"", "\"main\"").replace("block-size = 8", "block-size = 4");
    format!(
        "{replaced}[session.new]\nresources = [{{ kind = \"git-worktree\", branch = \"agents/gone\" }}, \"port-range\"]\n{mounted}"
    )
}

/// Applies [`BEFORE`] and leaves work and ignored files in every session.
fn stand(sandbox: &Sandbox, before: &str) {
    if !sandbox.repository.join("second").exists() {
        sandbox.git(&["branch", "old"]);
        sandbox.write("second", "second\n");
        sandbox.commit("second");
    }
    sandbox.manifest(before);
    sandbox.ok(&["apply"]);
    for directory in sandbox.directories() {
        fs::write(directory.join("ignored.log"), "ignored\n").unwrap();
        fs::write(directory.join("untracked"), "untracked\n").unwrap();
    }
    sandbox.manifest(&after(before));
}

/// Arguments of the run that is killed or fails; unsaved work is discarded, if there is any.
const REPLACE: [&str; 5] = ["apply", "--yes", "--discard", "--jobs", "1"];

/// Expects the same swarm as before; two runs of `setup` write the same files at different times.
fn assert_stands(stood: &Inventory, sandbox: &Sandbox) {
    assert_same(stood, &sandbox.inventory());
    assert_eq!(sandbox.mounts().len(), sandbox.directories().iter().filter(|it| is_mounted(it)).count());
}

fn is_mounted(directory: &std::path::Path) -> bool {
    directory.to_str().unwrap().contains("shop-mounted")
}

#[test]
fn replacement_killed_anywhere_brings_back_the_applied_swarm() {
    let before = format!("{BEFORE}{}", with_overlays(""));
    let lab = sandbox(&before);
    stand(&lab, &before);
    let run = traced(&lab, &REPLACE, None);
    let points: Vec<_> = twice(&succeeded(&run)).into_iter().filter(|point| is_of_leaving(point)).collect();
    check_all(&before, &some_of(points), |sandbox, point| {
        let _ = fs::remove_dir_all(sandbox.state());
        stand(sandbox, &before);
        let stood = sandbox.inventory();
        crash(sandbox, &REPLACE, point);
        sandbox.ok(&["recover"]);
        // After a commit, there is nothing to do any more.
        if sandbox.seedbed(&["plan", "--detailed-exitcode"]).code != 0 {
            assert_stands(&stood, sandbox);
        }
        sandbox.ok(&["destroy", "--discard"]);
        assert!(sandbox.mounts().is_empty());
        assert!(
            !sandbox.repository.join(".ai_ops").exists() && !sandbox.repository.join(".git/seedbed").exists()
        );
    });
}

/// Returns whether a run reaches the point only if it replaces something; any apply reaches the other points.
fn is_of_leaving(point: &str) -> bool {
    [
        "run.",
        "leave.",
        "aside.",
        "lease.",
        "overlay.renamed",
        "release.",
        "apply.step",
        "apply.report",
        "apply.told",
    ]
    .iter()
    .any(|start| point.starts_with(start))
}

#[test]
#[ignore = "`every_case` runs it"]
fn a_recovery_killed_anywhere_while_it_brings_back_is_done_again() {
    let before = format!("{BEFORE}{}", with_overlays(""));
    let lab = sandbox(&before);
    stand(&lab, &before);
    crash(&lab, &REPLACE, "apply.told#1");
    let points = twice(&succeeded(&traced(&lab, &["recover"], None)));
    check_all(&before, &some_of(points), |sandbox, point| {
        let _ = fs::remove_dir_all(sandbox.state());
        stand(sandbox, &before);
        let stood = sandbox.inventory();
        crash(sandbox, &REPLACE, "apply.told#1");
        crash(sandbox, &["recover"], point);
        sandbox.ok(&["recover"]);
        assert_stands(&stood, sandbox);
        sandbox.ok(&["destroy", "--discard"]);
    });
}

#[test]
fn replacement_whose_step_fails_brings_back_the_applied_swarm() {
    let lab = sandbox(BEFORE);
    stand(&lab, BEFORE);
    let cases = cases(&succeeded(&traced(&lab, &REPLACE, None)), With::One);
    check_all(BEFORE, &some_of(cases), |sandbox, case| {
        let _ = fs::remove_dir_all(sandbox.state());
        stand(sandbox, BEFORE);
        let stood = sandbox.inventory();
        let outcome = fail(sandbox, &REPLACE, case);
        match outcome.code {
            // A teardown that fails is reported (72), and stops nothing.
            0 | 72 => {}
            // Committed, and something of the old is left.
            73 => drop(sandbox.ok(&["recover"])),
            1 | 65 | 69 => assert_stands(&stood, sandbox),
            code => panic!("exit code {code}"),
        }
        sandbox.ok(&["destroy", "--discard"]);
        assert!(
            !sandbox.repository.join(".ai_ops").exists() && !sandbox.repository.join(".git/seedbed").exists()
        );
    });
}
