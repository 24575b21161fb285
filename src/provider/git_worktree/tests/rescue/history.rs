//! Rescues commits and operations in progress.

use std::fs;
use std::path::Path;

use super::super::Lab;
use super::{bring_back, round_trip};
use crate::provider::git_worktree::Worktree;
use crate::provider::git_worktree::rescue::rescue;
use crate::provider::git_worktree::unsaved::unsaved_work;

#[test]
fn commits_and_where_they_were() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    let mut commits = Vec::new();
    let (rescued, place) = round_trip(&lab, &worktree, |path| {
        let mut commit = |message: &str| {
            lab.git_in(path, &["commit", "-q", "--allow-empty", "-m", message]);
            commits.push(lab.git_in(path, &["rev-parse", "HEAD"]).trim().to_owned());
        };
        commit("left behind");
        lab.git_in(path, &["checkout", "-q", "--detach", "main"]);
        commit("of its own ref");
        lab.git_in(path, &["update-ref", "refs/worktree/kept", "HEAD"]);
        commit("reset away");
        lab.git_in(path, &["reset", "-q", "--hard", "main"]);
        commit("HEAD");
    });
    for commit in &commits {
        lab.git(&["merge-base", "--is-ancestor", commit, &rescued.reference]);
    }
    assert_eq!(lab.git(&["rev-parse", &format!("{}^", rescued.reference)]).trim(), commits[3]);
    assert_eq!(lab.git_in(&place, &["rev-parse", "refs/worktree/kept"]).trim(), commits[1]);
}

/// Makes two branches that change one file, with the worktree on one of them.
fn diverged(lab: &Lab, path: &Path) {
    lab.git_in(path, &["checkout", "-q", "-b", "theirs"]);
    fs::write(path.join("a.txt"), "theirs\n").unwrap();
    fs::write(path.join("new.txt"), "theirs\n").unwrap();
    lab.git_in(path, &["add", "--all"]);
    lab.git_in(path, &["commit", "-q", "-m", "theirs"]);
    lab.git_in(path, &["checkout", "-q", "-b", "ours", "main"]);
    fs::write(path.join("a.txt"), "ours\n").unwrap();
    lab.git_in(path, &["rm", "-q", "other/x"]);
    lab.git_in(path, &["commit", "-q", "-a", "-m", "ours"]);
}

#[test]
fn restored_merge_continues() {
    let lab = Lab::new();
    let (_, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        diverged(&lab, path);
        assert!(!lab.try_git(path, &["merge", "theirs"]).status.success());
        fs::write(path.join("a.txt"), "half resolved\n").unwrap();
    });
    fs::write(place.join("a.txt"), "resolved\n").unwrap();
    lab.git_in(&place, &["add", "a.txt"]);
    lab.git_in(&place, &["commit", "-q", "--no-edit"]);
    assert_eq!(lab.git_in(&place, &["log", "-1", "--format=%P"]).split_whitespace().count(), 2);
}

#[test]
fn restored_rebase_continues() {
    let lab = Lab::new();
    let (_, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        diverged(&lab, path);
        lab.git_in(path, &["checkout", "-q", "--detach"]);
        lab.git_in(path, &["branch", "-q", "-D", "ours"]);
        fs::write(path.join("second"), "").unwrap();
        lab.git_in(path, &["add", "second"]);
        lab.git_in(path, &["commit", "-q", "-m", "second"]);
        assert!(!lab.try_git(path, &["rebase", "theirs"]).status.success());
    });
    fs::write(place.join("a.txt"), "resolved\n").unwrap();
    lab.git_in(&place, &["add", "a.txt"]);
    lab.git_in(&place, &["-c", "core.editor=true", "rebase", "--continue"]);
    assert_eq!(lab.git_in(&place, &["log", "--format=%s"]), "second\nours\ntheirs\none\n");
}

#[test]
fn a_cherry_pick_and_a_bisection_go_on_where_they_stopped() {
    let lab = Lab::new();
    let (_, place) = round_trip(&lab, &lab.worktree("w"), |path| {
        diverged(&lab, path);
        assert!(!lab.try_git(path, &["cherry-pick", "theirs"]).status.success());
    });
    fs::write(place.join("a.txt"), "resolved\n").unwrap();
    lab.git_in(&place, &["add", "a.txt"]);
    lab.git_in(&place, &["-c", "core.editor=true", "cherry-pick", "--continue"]);
    assert_eq!(lab.git_in(&place, &["log", "--format=%s"]), "theirs\nours\none\n");

    let lab = Lab::new();
    for number in 0..8 {
        lab.git(&["commit", "-q", "--allow-empty", "-m", &number.to_string()]);
    }
    let worktree =
        Worktree { commit: lab.git(&["rev-parse", "HEAD"]).trim().to_owned(), ..lab.worktree("w") };
    let (_, place) = round_trip(&lab, &worktree, |path| {
        lab.git_in(path, &["bisect", "start", "HEAD", "HEAD~8"]);
        lab.git_in(path, &["bisect", "bad"]);
    });
    lab.git_in(&place, &["bisect", "bad"]);
    let found = lab.git_in(&place, &["bisect", "bad"]);
    assert!(found.contains("is the first bad commit"), "{found}");
}

#[test]
fn commits_of_a_missing_directory_are_unsaved_work() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::write(path.join("a.txt"), "work\n").unwrap();
    lab.git_in(&path, &["commit", "-q", "-a", "-m", "work"]);
    let commit = lab.git_in(&path, &["rev-parse", "HEAD"]);
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(unsaved_work(&lab.task(), &worktree).unwrap().work.len(), 1);
    let rescued = rescue(&lab.task(), &worktree).unwrap();
    let place = bring_back(&lab, &worktree, &rescued);
    assert_eq!(lab.git_in(&place, &["rev-parse", "HEAD"]), commit);
    assert_eq!(lab.git_in(&place, &["status", "--porcelain"]), "");
}
