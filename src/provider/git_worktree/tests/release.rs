use std::fs;
use std::path::Path;

use super::super::inspect::inspect;
use super::super::reserved_names;
use super::Lab;
use crate::provider::Condition;
use crate::provider::git_worktree::{Registration, Worktree};

#[test]
fn release_restores_the_repository_each_time() {
    let lab = Lab::new();
    let before = lab.inventory();
    for registration in [Registration::Rename, Registration::Git] {
        let worktree = Worktree { registration, branch: Some("agents/one".into()), ..lab.worktree("w") };
        lab.release(&worktree);
        lab.make(&worktree);
        lab.release(&worktree);
        assert_eq!(lab.inventory(), before);
        lab.release(&worktree);
        assert_eq!(lab.inventory(), before);
        lab.make(&worktree);
        lab.release(&worktree);
        assert_eq!(lab.inventory(), before);
    }
}

#[test]
fn torn_worktree_is_released() {
    let lab = Lab::new();
    let before = lab.inventory();
    for registration in [Registration::Rename, Registration::Git] {
        let worktree = Worktree { registration, ..lab.worktree("w") };
        for name in ["commondir", "gitdir", "HEAD", "index", "locked", "seedbed", ".git"] {
            for garbage in [None, Some(""), Some("\u{1}garbage \u{2}"), Some("/")] {
                lab.make(&worktree);
                let home = if name == ".git" { lab.path(&worktree) } else { lab.admin_directory(&worktree) };
                tear(&home.join(name), garbage);
                if name != "seedbed" && name != "index" {
                    let condition = inspect(&lab.task(), &worktree).unwrap();
                    assert!(!matches!(condition, Condition::Healthy), "{name} {garbage:?}");
                }
                lab.release(&worktree);
                assert_eq!(lab.inventory(), before, "{name} {garbage:?}");
            }
        }
        // A power loss leaves all files empty.
        lab.make(&worktree);
        for name in ["commondir", "gitdir", "HEAD", "index", "locked", "seedbed"] {
            tear(&lab.admin_directory(&worktree).join(name), Some(""));
        }
        tear(&lab.path(&worktree).join(".git"), Some(""));
        lab.release(&worktree);
        assert_eq!(lab.inventory(), before);
    }
}

fn tear(path: &Path, garbage: Option<&str>) {
    match garbage {
        Some(text) => fs::write(path, text).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn half_made_worktree_is_released() {
    let lab = Lab::new();
    let before = lab.inventory();
    let worktree = lab.worktree("w");
    let aside = lab.repo.join(".git").join(reserved_names::building(&lab.task(), &worktree));
    let trash = lab.repo.join(format!(".ai_ops/worktrees/.trash-{}-w", super::OWNER));

    // Killed while the admin directory was built.
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("locked"), "").unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);

    // Killed between creating the directory and renaming the admin directory.
    lab.make(&worktree);
    fs::create_dir_all(aside.parent().unwrap()).unwrap();
    fs::rename(lab.admin_directory(&worktree), &aside).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);

    // Killed in the middle of a rescue.
    lab.make(&worktree);
    let scratch = lab.repo.join(".ai_ops/worktrees").join(reserved_names::scratch(&lab.task(), &worktree));
    fs::create_dir_all(scratch.join("check/packages")).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);

    // Killed during the deletion by a release, and created again since.
    lab.make(&worktree);
    fs::rename(lab.path(&worktree), &trash).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
    lab.make(&worktree);
    fs::create_dir_all(trash.join("packages")).unwrap();
    fs::create_dir_all(&aside).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);

    // `rm -rf` by hand of the directory, and then of the admin directory.
    lab.make(&worktree);
    fs::remove_dir_all(lab.path(&worktree)).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
    lab.make(&worktree);
    fs::remove_dir_all(lab.admin_directory(&worktree)).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
}

#[test]
fn torn_admin_directory_of_another_worktree_is_ignored() {
    let lab = Lab::new();
    let worktree = Worktree { branch: Some("one".into()), ..lab.worktree("w") };
    lab.git(&["worktree", "add", "-q", "--detach", "../foreign"]);
    fs::write(lab.repo.join(".git/worktrees/foreign/commondir"), "").unwrap();
    let before = lab.inventory();
    lab.make(&worktree);
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
}

#[test]
fn a_branch_that_gained_a_commit_is_kept() {
    let lab = Lab::new();
    let worktree = Worktree { branch: Some("one".into()), ..lab.worktree("w") };
    lab.make(&worktree);
    lab.git_in(&lab.path(&worktree), &["commit", "-q", "--allow-empty", "-m", "two"]);
    let tip = lab.git(&["rev-parse", "one"]);
    lab.release(&worktree);
    assert_eq!(lab.git(&["rev-parse", "one"]), tip);
    assert!(!lab.repo.join(".git/worktrees").exists());
}

#[test]
fn branch_that_is_checked_out_elsewhere_is_kept() {
    let lab = Lab::new();
    let worktree = Worktree { branch: Some("one".into()), ..lab.worktree("w") };
    lab.make(&worktree);
    lab.git_in(&lab.path(&worktree), &["checkout", "-q", "--detach"]);
    lab.git(&["checkout", "-q", "one"]);
    lab.release(&worktree);
    assert_eq!(lab.git(&["rev-parse", "one"]).trim(), lab.commit);
}

#[test]
fn a_repository_planted_in_its_place_is_not_removed() {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    fs::remove_file(path.join(".git")).unwrap();
    lab.git_in(&path, &["init", "-q"]);
    let before = lab.inventory();
    super::super::release::release(&lab.task(), &worktree).unwrap_err();
    assert_eq!(lab.inventory(), before);
}
