//! Tests of many runs at once on one swarm and on one range of ports, and of everything done twice.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use super::{PAIR, TREE, crash, one_in, sandbox};
use crate::sandbox::{Outcome, Sandbox, assert_same, ports, sessions};

const RUNS: usize = 16;

#[test]
fn sixteen_runs_on_one_swarm_wait_for_one_another() {
    let sandbox = sandbox(PAIR);
    let before = sandbox.inventory();
    let start = |args: &[&str]| {
        let args = [args, &["--lock-timeout", "300"]].concat();
        let mut command = sandbox.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for args in [&["apply"][..], &["destroy"]] {
        let runs: Vec<_> = (0..RUNS).map(|_| start(args)).collect();
        let ended: Vec<_> =
            runs.into_iter().map(|run| Outcome::of(run.wait_with_output().unwrap()).expect(0)).collect();
        let did = |outcome: &&Outcome| !outcome.stderr.contains("nothing");
        let acted = ended
            .iter()
            .filter(|run| run.stderr.contains("2 create") || run.stderr.contains("2 sessions released"));
        assert_eq!(acted.count(), 1, "{:?}", ended.iter().filter(did).collect::<Vec<_>>());
    }
    // Either of the two, in any order: the result is one of the two, complete.
    let runs: Vec<_> =
        (0..RUNS).map(|run| start(if run % 2 == 0 { &["apply"] } else { &["destroy"] })).collect();
    for run in runs {
        Outcome::of(run.wait_with_output().unwrap()).expect(0);
    }
    sandbox.ok(&["recover"]).says(&["nothing to recover"]);
    sandbox.ok(&["destroy"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
#[ignore = "`every_case` runs it"]
fn sixteen_runs_that_want_the_same_ports_share_none_in_every_case() {
    let sandbox = sandbox("");
    let manifest = sandbox.manifest_text("[session.a]\ncount = 3\nresources = [\"port-range\"]\n");
    let workspaces: Vec<_> = (0..RUNS).map(|run| sandbox.top.join(format!("workspace-{run}"))).collect();
    for (at, workspace) in workspaces.iter().enumerate() {
        fs::create_dir(workspace).unwrap();
        // Blocks of every other one are of another size, and overlap two of the rest.
        let manifest = if at % 2 == 0 {
            manifest.clone()
        } else {
            manifest.replace("block-size = 4\nblock-count = 128", "block-size = 6\nblock-count = 85")
        };
        fs::write(workspace.join("seedbed.toml"), manifest).unwrap();
    }
    for round in one_in(2, [1, 0, 2]) {
        let runs: Vec<_> = workspaces
            .iter()
            .map(|workspace| {
                let mut apply = sandbox.command(&["apply"]);
                // A lock file of a process that was killed in the middle of a run is in the way of some runs.
                if round == 1 {
                    fs::create_dir_all(workspace.join(".ai_ops/locks/ports")).unwrap();
                    fs::write(
                        workspace.join(format!(".ai_ops/locks/ports/{0}-{0}.lock", sandbox.base_port)),
                        "",
                    )
                    .unwrap();
                }
                apply.current_dir(workspace).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for (run, workspace) in runs.into_iter().zip(&workspaces) {
            let outcome = Outcome::of(run.wait_with_output().unwrap());
            if outcome.code != 0 {
                // A run that was overtaken too often is rolled back, and can be tried again.
                assert_eq!(outcome.code, 1, "{outcome:?}");
                sandbox.seedbed_in(workspace, &["apply"]).expect(0);
            }
        }
        let mut held = BTreeSet::new();
        for workspace in &workspaces {
            let plan = sandbox.plan_in(workspace);
            for (start, end) in sessions(&plan).map(ports) {
                for port in start..=end {
                    assert!(held.insert(port), "port {port} was granted twice");
                }
            }
            sandbox.seedbed_in(workspace, &["destroy"]).expect(0);
        }
        assert_eq!(held.len(), 8 * 3 * 4 + 8 * 3 * 6);
    }
}

/// Suite D: a completed step is not repeated, and a rolled-back step is not rolled back again.
#[test]
fn every_command_can_be_repeated() {
    let sandbox = sandbox(TREE);
    let twice = |args: &[&str], said: &str| {
        sandbox.unchanged(|| {
            for _ in 0..2 {
                sandbox.ok(args).says(&[said]);
            }
        });
    };
    let before = sandbox.inventory();
    twice(&["destroy"], "nothing is applied");
    twice(&["recover"], "nothing to recover");
    sandbox.ok(&["apply"]);
    twice(&["apply"], "nothing to do");
    twice(&["recover"], "nothing to recover");
    sandbox.ok(&["destroy", "lead/coder-1"]);
    twice(&["recover"], "nothing to recover");
    sandbox.ok(&["apply"]);
    sandbox.ok(&["destroy"]);
    twice(&["destroy"], "nothing is applied");
    crash(&sandbox, &["apply"], "apply.told#1");
    sandbox.ok(&["recover"]);
    twice(&["recover"], "nothing to recover");
    sandbox.ok(&["apply"]);
    crash(&sandbox, &["destroy"], "run.released#1");
    sandbox.ok(&["recover"]);
    twice(&["destroy"], "nothing is applied");
    assert_same(&before, &sandbox.inventory());
}

/// Manual changes to an applied swarm, and their names in `status`.
const BY_HAND: [(&str, &str); 11] = [
    ("chmod 000 \"$worktree\"", ""),
    ("rm -rf \"$worktree\"", "does not exist"),
    ("git worktree remove --force --force \"$worktree\"", "does not exist"),
    ("git -C \"$worktree\" clean -ffdxq", "resources.json does not exist"),
    ("git clean -ffdxq --exclude seedbed.toml --exclude cache --exclude .env", "does not exist"),
    ("mv \"$worktree\" \"$worktree-moved\"", "does not exist"),
    ("git worktree unlock \"$worktree\" && git worktree move \"$worktree\" \"$worktree-moved\"", ""),
    ("rm -rf .ai_ops", "does not exist"),
    ("rm \"$worktree/.git\" && git init -q \"$worktree\"", "its .git is not a file"),
    ("echo 'gitdir: /etc' >\"$worktree/.git\"", "its .git contains gitdir: /etc"),
    ("rm -rf \"$(git rev-parse --git-common-dir)/worktrees/$(basename \"$worktree\")\"", "does not exist"),
];

#[test]
fn manual_changes_are_reported_and_repaired() {
    for (script, said) in one_in(5, BY_HAND) {
        let sandbox = sandbox(PAIR);
        sandbox.write("mine/untracked.log", "mine\n");
        sandbox.ok(&["apply"]);
        let clean = |sandbox: &Sandbox| {
            for directory in sandbox.directories() {
                sandbox.assert_clean(&directory);
            }
        };
        clean(&sandbox);
        let other = sandbox.directory("linked");
        let worktree = sandbox.directory("lead").parent().unwrap().to_owned();
        fs::write(other.join("work.log"), "work\n").unwrap();
        let mut by_hand = sandbox.program("sh", &sandbox.repository);
        let by_hand = by_hand.args(["-c", script]).env("worktree", &worktree).status().unwrap();
        assert!(by_hand.success(), "{script}");
        let spared = other.join("work.log").exists();
        let moved = std::path::PathBuf::from(format!("{}-moved", worktree.display()));
        if !said.is_empty() {
            let status = sandbox.seedbed(&["status", "--json"]).expect(0);
            assert!(status.stdout.contains(said), "{script}: {}", status.stdout);
        }
        // Work that cannot be inspected cannot be called saved: it then has to be discarded explicitly.
        let repaired = sandbox.seedbed(&["apply", "--yes"]);
        if repaired.code != 0 {
            assert!(matches!(repaired.code, 65 | 69), "{script}: {repaired:?}");
            let again = sandbox.seedbed(&["apply", "--yes", "--discard"]);
            if again.code != 0 {
                // Another owner's files are at our paths: they are not ours to remove.
                assert_eq!(again.code, 1, "{script}: {again:?}");
                if moved.exists() {
                    sandbox.git(&["worktree", "move", moved.to_str().unwrap(), worktree.to_str().unwrap()]);
                } else {
                    fs::rename(&worktree, &moved).unwrap();
                }
                sandbox.ok(&["apply", "--yes", "--discard"]);
            }
        }
        clean(&sandbox);
        sandbox.ok(&["plan", "--detailed-exitcode"]);
        assert_eq!(other.join("work.log").exists(), spared, "{script}");
        let _ = fs::remove_dir_all(&moved);
        sandbox.ok(&["destroy", "--discard"]);
        if !script.starts_with("git clean") {
            assert_eq!(fs::read_to_string(sandbox.repository.join("mine/untracked.log")).unwrap(), "mine\n");
        }
        assert_eq!(sandbox.git(&["worktree", "list"]).lines().count(), 1);
        assert!(!sandbox.repository.join(".ai_ops").exists(), "{script}");
    }
}
