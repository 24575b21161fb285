//! Tests that rolling back an interrupted apply loses no work that was done since in its sessions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::sandbox::{Outcome, Sandbox, assert_same, send, wait_until};

const TWO: &str = "[session.coder]\ncount = 2\nresources = [\"git-worktree\", \"port-range\"]\n\
                   setup = [\"echo made > made.txt; echo changed >> README.md; echo more > app/more.txt\"]\n";

/// Kills an apply at a failpoint; returns the worktrees that the apply had created, in order.
#[track_caller]
fn killed(sandbox: &Sandbox, point: &str) -> Vec<PathBuf> {
    let mut apply = sandbox.command(&["apply"]);
    apply.env("SEEDBED_FAILPOINT", format!("{point}=crash"));
    Outcome::of(apply.output().unwrap()).expect(137);
    worktrees(sandbox)
}

fn worktrees(sandbox: &Sandbox) -> Vec<PathBuf> {
    let Ok(worktrees) = fs::read_dir(sandbox.repository.join(".ai_ops/worktrees")) else { return Vec::new() };
    let mut worktrees: Vec<PathBuf> =
        worktrees.map(|entry| entry.unwrap().path()).filter(|path| path.join(".git").exists()).collect();
    worktrees.sort();
    worktrees
}

fn sandbox(manifest: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest(manifest);
    sandbox
}

/// Runs `work` in a worktree of a killed apply. Expects that no command loses the work, that it can be rescued, and
/// that it can be discarded. `rescued` is the expected content of the rescue: a path, and its content.
#[track_caller]
fn check_kept(point: &str, work: impl Fn(&Sandbox, &Path), said: &str, rescued: (&str, &str)) {
    let sandbox = sandbox(TWO);
    let before = sandbox.inventory();
    let worktrees = killed(&sandbox, point);
    work(&sandbox, &worktrees[1]);
    // The first command of them sweeps what the killed run left beside its records.
    sandbox.seedbed(&["recover"]).expect(69);
    for command in ["recover", "apply", "destroy"] {
        let refused = sandbox.unchanged(|| sandbox.seedbed(&[command]).expect(69));
        refused.says(&["coder-1: ", said, "--rescue", "--discard"]);
    }
    sandbox.unchanged(|| sandbox.seedbed(&["status"])).says(&["interrupted", "coder-1: ", said]);
    sandbox.ok(&["destroy", "--rescue"]).says(&["rolled back", "refs/seedbed/rescue/"]);
    let name = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    assert!(name.starts_with("refs/seedbed/rescue/shop/coder-1/"), "{name}");
    assert_eq!(sandbox.git(&["show", &format!("{name}:{}", rescued.0)]), rescued.1);
    sandbox.git(&["update-ref", "-d", &name]);
    fs::remove_dir(sandbox.repository.join(".git/refs/seedbed")).unwrap();

    let worktrees = killed(&sandbox, point);
    work(&sandbox, &worktrees[0]);
    sandbox.ok(&["recover", "--discard"]).says(&["rolled back"]);
    sandbox.git(&["prune", "--expire=now"]);
    assert_same(&before, &sandbox.inventory());
}

fn commit(sandbox: &Sandbox, worktree: &Path) {
    fs::write(worktree.join("new.txt"), "work\n").unwrap();
    sandbox.git_in(worktree, &["add", "new.txt"]);
    sandbox.git_in(worktree, &["commit", "--quiet", "--message", "work"]);
}

#[test]
fn a_commit_in_what_a_killed_apply_made_is_not_lost() {
    check_kept("apply.told", commit, "1 commit that no ref reaches", ("new.txt", "work"));
}

#[test]
fn an_untracked_file_in_what_a_killed_apply_made_is_not_lost() {
    let write = |_: &Sandbox, worktree: &Path| fs::write(worktree.join("new.txt"), "new\n").unwrap();
    check_kept("apply.told", write, "uncommitted changes: 1 untracked", ("new.txt", "new"));
}

#[test]
fn an_edit_in_what_a_killed_apply_made_is_not_lost() {
    let edit = |_: &Sandbox, worktree: &Path| fs::write(worktree.join("README.md"), "edited\n").unwrap();
    check_kept("apply.told", edit, "uncommitted changes: 1 modified", ("README.md", "edited"));
}

#[test]
fn an_edit_of_what_setup_wrote_is_not_lost() {
    let edit = |_: &Sandbox, worktree: &Path| fs::write(worktree.join("made.txt"), "edited\n").unwrap();
    check_kept("apply.told", edit, "uncommitted changes: 1 untracked", ("made.txt", "edited"));
}

#[test]
fn work_before_setup_is_not_lost() {
    let edit = |_: &Sandbox, worktree: &Path| fs::write(worktree.join("README.md"), "edited\n").unwrap();
    check_kept("apply.step#4", edit, "uncommitted changes: 1 modified", ("README.md", "edited"));
    check_kept("apply.setting-up", edit, "uncommitted changes: 1 modified", ("README.md", "edited"));
}

#[test]
fn work_in_a_worktree_without_files_is_not_lost() {
    let write = |_: &Sandbox, worktree: &Path| {
        // Git was writing this one.
        fs::write(worktree.join("README.md"), "# sh").unwrap();
        fs::write(worktree.join("new.txt"), "new\n").unwrap();
    };
    check_kept("apply.step#3", write, "has 1 file of another program: new.txt", ("new.txt", "new"));
}

#[test]
fn work_that_was_staged_in_a_worktree_without_files_is_not_lost() {
    let stage = |sandbox: &Sandbox, worktree: &Path| {
        fs::write(worktree.join("new.txt"), "new\n").unwrap();
        fs::write(worktree.join("README.md"), "edited\n").unwrap();
        sandbox.git_in(worktree, &["add", "new.txt", "README.md"]);
    };
    check_kept("apply.step#3", stage, "uncommitted changes: 2 staged", ("README.md", "edited"));
}

#[test]
fn files_of_a_killed_apply_are_no_work() {
    for point in
        ["apply.step#2", "apply.step#3", "apply.step#4", "apply.setting-up", "apply.report", "apply.told"]
    {
        let sandbox = sandbox(TWO);
        let before = sandbox.inventory();
        let worktrees = killed(&sandbox, point);
        if point == "apply.step#3" {
            fs::write(worktrees[0].join("README.md"), "# sh").unwrap();
        }
        if point == "apply.told" {
            assert_eq!(fs::read_to_string(worktrees[0].join("made.txt")).unwrap(), "made\n");
            // Git refreshes the index, which is no work.
            sandbox.git_in(&worktrees[0], &["status"]);
        }
        sandbox.ok(&["recover"]).says(&["rolled back"]);
        assert_same(&before, &sandbox.inventory());
    }
}

#[test]
fn files_that_setup_writes_after_the_kill_are_no_work() {
    let sandbox = sandbox(
        "[session.coder]\nresources = [\"git-worktree\"]\n\
         setup = [\"echo > made.txt; sleep 0.8; echo changed >> README.md; echo > late.txt; sleep 60\"]\n",
    );
    let before = sandbox.inventory();
    let mut apply = sandbox.command(&["apply"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let has = |name: &str| worktrees(&sandbox).iter().any(|top| top.join(name).exists());
    wait_until("setup is at work", || has("made.txt"));
    send(Signal::KILL, &apply);
    apply.wait().unwrap();
    wait_until("setup goes on", || has("late.txt"));
    sandbox.ok(&["recover"]).says(&["rolled back"]);
    assert_same(&before, &sandbox.inventory());
}

#[test]
fn work_after_a_setup_that_was_killed_is_not_lost() {
    let sandbox = sandbox(
        "[session.coder]\nresources = [\"git-worktree\"]\n\
         setup = [\"echo made > made.txt; sleep 0.7; echo changed >> README.md; kill -9 $PPID; exit 0\"]\n",
    );
    sandbox.seedbed(&["apply"]).expect(137);
    sandbox.ok(&["recover"]).says(&["rolled back"]);
    sandbox.seedbed(&["apply"]).expect(137);
    thread::sleep(Duration::from_millis(700));
    let worktree = &worktrees(&sandbox)[0];
    fs::write(worktree.join("new.txt"), "new\n").unwrap();
    sandbox.seedbed(&["recover"]).expect(69).says(&["uncommitted changes: 1 untracked"]);
    sandbox.ok(&["recover", "--discard"]);
    assert!(!worktree.exists());
}

#[test]
fn directory_with_files_older_than_the_run_is_not_lost() {
    let sandbox = sandbox(
        "[session.coder]\nresources = [\"git-worktree\", \"directory\"]\n\
         setup = [\"mv ../../../older .; mv ../../../old ../../directories/*/\"]\n",
    );
    sandbox.write("older/file", "older\n");
    sandbox.write("old/file", "older\n");
    killed(&sandbox, "apply.told");
    sandbox.seedbed(&["recover"]).expect(69).says(&["changes: 1 untracked", "1 file that was written"]);
}

#[test]
fn directory_that_is_moved_into_a_session_after_the_run_is_not_lost() {
    // Its file is as old as the run.
    let sandbox = sandbox(
        "[session.coder]\nresources = [\"git-worktree\", \"directory\"]\n\
         setup = [\"mkdir ../moved; echo > ../moved/file; echo > made.txt\"]\n",
    );
    let worktree = killed(&sandbox, "apply.told").remove(0);
    let moved = worktree.with_file_name("moved");
    let scratch = sandbox.repository.join(".ai_ops/directories").join(worktree.file_name().unwrap());
    for (top, work) in [(worktree, "changes: 1 untracked"), (scratch, "1 file that was written")] {
        fs::rename(&moved, top.join("moved")).unwrap();
        sandbox.seedbed(&["recover"]).expect(69).says(&[work]);
        fs::rename(top.join("moved"), &moved).unwrap();
    }
    sandbox.ok(&["recover"]).says(&["rolled back"]);
    assert!(moved.join("file").exists());
}

#[test]
fn work_is_not_lost_if_the_clock_was_set_back_since_the_run() {
    let sandbox = sandbox("[session.coder]\nresources = [\"git-worktree\"]\n");
    let worktree = killed(&sandbox, "apply.told").remove(0);
    let mut swarms = fs::read_dir(sandbox.state().join("swarms")).unwrap();
    let swarm = swarms.find_map(|entry| Some(entry.unwrap().path()).filter(|path| path.is_dir())).unwrap();
    let day = |line: &str| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if words[0] != "begun" {
            words[1] = (words[1].parse::<u64>().unwrap() + 86_400_000_000_000).to_string();
        }
        words.join(" ") + "\n"
    };
    let journal = fs::read_to_string(swarm.join("journal")).unwrap();
    fs::write(swarm.join("journal"), journal.lines().map(day).collect::<String>()).unwrap();
    fs::write(worktree.join("new.txt"), "new\n").unwrap();
    sandbox.seedbed(&["recover"]).expect(69).says(&["uncommitted changes: 1 untracked"]);
    fs::remove_file(worktree.join("new.txt")).unwrap();
    sandbox.ok(&["recover"]).says(&["rolled back"]);
}

#[test]
fn work_in_an_overlay_of_a_killed_apply_is_not_lost_after_a_reboot() {
    let sandbox = sandbox(
        "[session.coder]\nresources = [{ kind = \"git-worktree\", checkout = \"overlay\" }]\n\
         setup = [\"echo made > made.txt\"]\n",
    );
    if !sandbox.can_mount() {
        return;
    }
    for has_work in [false, true] {
        let worktrees = killed(&sandbox, "apply.told");
        if has_work {
            fs::write(worktrees[0].join("new.txt"), "new\n").unwrap();
        }
        sandbox.unmount_all();
        if has_work {
            sandbox.seedbed(&["recover"]).expect(69).says(&["uncommitted changes: 1 untracked"]);
            sandbox.ok(&["recover", "--rescue"]).says(&["refs/seedbed/rescue/"]);
        } else {
            sandbox.ok(&["recover"]);
        }
        assert!(!worktrees[0].exists() && sandbox.mounts().is_empty());
    }
}
