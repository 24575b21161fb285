//! Destroying never loses work: whatever is saved nowhere else refuses it, and nothing is touched then.

use std::fs;
use std::path::Path;

use crate::sandbox::Sandbox;

fn stands() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.coder]\ncount = 3\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    sandbox
}

/// Has `work` done in one session, and expects that destroying is refused for the reason `said`, until it is given up.
#[track_caller]
fn check_refused(work: impl FnOnce(&Sandbox, &Path), said: &str) {
    let sandbox = stands();
    let directories = sandbox.directories();
    work(&sandbox, &directories[1]);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69));
    refused.says(&["coder-1: ", said, "--discard"]);
    sandbox.unchanged(|| sandbox.seedbed(&["destroy", "coder-1"]).expect(69));
    sandbox.ok(&["destroy", "coder-0"]);
    sandbox.ok(&["destroy", "--discard"]);
    assert!(directories.iter().all(|directory| !directory.exists()));
}

fn commit(sandbox: &Sandbox, directory: &Path) {
    fs::write(directory.join("new.txt"), "work\n").unwrap();
    sandbox.git_in(directory, &["add", "new.txt"]);
    sandbox.git_in(directory, &["commit", "--quiet", "--message", "work"]);
}

#[test]
fn a_modified_file_is_not_lost() {
    check_refused(
        |_, directory| fs::write(directory.join("README.md"), "changed\n").unwrap(),
        "uncommitted changes: 1 modified",
    );
}

#[test]
fn an_untracked_file_is_not_lost() {
    check_refused(
        |_, directory| fs::write(directory.join("new.txt"), "new\n").unwrap(),
        "uncommitted changes: 1 untracked",
    );
}

#[test]
fn a_staged_file_is_not_lost() {
    check_refused(
        |sandbox, directory| {
            fs::write(directory.join("new.txt"), "new\n").unwrap();
            sandbox.git_in(directory, &["add", "new.txt"]);
        },
        "uncommitted changes: 1 staged",
    );
}

#[test]
fn a_commit_that_no_ref_reaches_is_not_lost() {
    check_refused(commit, "1 commit that no ref reaches");
}

#[test]
fn an_unfinished_merge_is_not_lost() {
    check_refused(
        |sandbox, directory| {
            sandbox.git(&["branch", "other"]);
            fs::write(directory.join("new.txt"), "ours\n").unwrap();
            sandbox.git_in(directory, &["add", "new.txt"]);
            sandbox.git_in(directory, &["commit", "--quiet", "--message", "ours"]);
            sandbox.git_in(directory, &["branch", "ours"]);
            sandbox.git_in(directory, &["checkout", "--quiet", "--detach", "other"]);
            sandbox.git_in(directory, &["merge", "--no-ff", "--no-commit", "ours"]);
        },
        "in the middle of a merge",
    );
}

#[test]
fn files_that_git_cannot_see_any_more_are_not_lost() {
    check_refused(
        |sandbox, directory| {
            fs::write(directory.join("new.txt"), "new\n").unwrap();
            let dot_git = fs::read_to_string(directory.join(".git")).unwrap();
            let entry = dot_git.trim_end().strip_prefix("gitdir: ").unwrap();
            assert!(Path::new(entry).starts_with(&sandbox.repository));
            fs::write(Path::new(entry).join("index"), "torn").unwrap();
        },
        "cannot be counted",
    );
}

#[test]
fn a_commit_that_a_branch_reaches_is_no_loss() {
    let sandbox = stands();
    let directory = sandbox.directory("coder-1");
    commit(&sandbox, &directory);
    sandbox.git_in(&directory, &["branch", "kept"]);
    let commit = sandbox.git_in(&directory, &["rev-parse", "HEAD"]);
    sandbox.ok(&["destroy"]);
    assert_eq!(sandbox.git(&["rev-parse", "kept"]), commit);
}

#[test]
fn ignored_files_are_no_loss() {
    let sandbox = stands();
    fs::write(sandbox.directory("coder-1").join("build.log"), "noise\n").unwrap();
    sandbox.ok(&["destroy"]);
}
