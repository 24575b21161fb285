//! Tests of branches that have landed: only a branch of an earlier run is moved, and only forward.

use super::super::Existing;
use super::super::register::register;
use super::{Lab, OWNER, SESSION};
use crate::provider::git_worktree::Worktree;

/// Creates the branch `agents/one` as an earlier run does, and a later commit; returns a worktree at that commit.
fn landed(lab: &Lab) -> Worktree {
    let message = format!("seedbed {SESSION} {}", OWNER.replace(|c: char| c.is_ascii_digit(), "e"));
    lab.git(&["update-ref", "--create-reflog", "-m", &message, "refs/heads/agents/one", &lab.commit]);
    lab.git(&["commit", "--quiet", "--allow-empty", "--message=next"]);
    let base = lab.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let existing = Existing { base: base.clone(), ahead: 0, moved_from: Some(lab.commit.clone()) };
    Worktree {
        branch: Some("agents/one".to_owned()),
        commit: base,
        existing: Some(existing),
        ..lab.worktree("one")
    }
}

#[test]
fn branch_is_not_moved_if_a_commit_would_be_lost_or_it_is_not_of_a_run() {
    let lab = Lab::new();
    let worktree = landed(&lab);
    let tip = |lab: &Lab| lab.git(&["rev-parse", "agents/one"]).trim().to_owned();
    let refused = |worktree: &Worktree, why: &str| {
        let before = tip(&lab);
        let error = register(&lab.task(), worktree).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(tip(&lab), before);
    };
    lab.git(&["worktree", "add", "--quiet", "../elsewhere", "agents/one"]);
    refused(&worktree, "a worktree has it checked out");
    let elsewhere = lab.repo.join("../elsewhere");
    lab.git_in(&elsewhere, &["commit", "--quiet", "--allow-empty", "--message=work"]);
    lab.git(&["worktree", "remove", "../elsewhere"]);
    // A plan that was written by hand.
    let existing = Existing { moved_from: Some(tip(&lab)), ..worktree.existing.clone().unwrap() };
    refused(&Worktree { existing: Some(existing), ..worktree.clone() }, "it has commits that would be lost");
    refused(&worktree, "has moved from");
    lab.git(&["branch", "--quiet", "-D", "agents/one"]);
    lab.git(&["branch", "agents/one", &lab.commit]);
    refused(&worktree, "no run of seedbed has created it");
}

#[test]
fn rolled_back_branch_stays_if_another_process_has_moved_it() {
    let lab = Lab::new();
    let worktree = landed(&lab);
    let before = lab.inventory();
    lab.make(&worktree);
    assert_eq!(lab.git(&["rev-parse", "agents/one"]).trim(), worktree.commit);
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
    // Again, as after a kill; then with a user who has moved the branch to the same commit.
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
    lab.git(&["branch", "--quiet", "--force", "agents/one", &worktree.commit]);
    lab.release(&worktree);
    assert_eq!(lab.git(&["rev-parse", "agents/one"]).trim(), worktree.commit);
}
