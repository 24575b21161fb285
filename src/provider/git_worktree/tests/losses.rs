use std::fs;
use std::path::Path;

use super::super::losses::losses;
use super::Lab;
use crate::provider::git_worktree::Worktree;

/// What is lost after `act` was done in a worktree, without its path.
fn after(act: impl FnOnce(&Lab, &Worktree, &Path)) -> Vec<String> {
    let lab = Lab::new();
    let worktree = lab.worktree("w");
    lab.make(&worktree);
    let path = lab.path(&worktree);
    act(&lab, &worktree, &path);
    let before = lab.inventory();
    let losses = losses(&lab.task(), &worktree).unwrap();
    assert_eq!(lab.inventory(), before, "looking changes nothing");
    losses.into_iter().map(|line| line.replace(path.to_str().unwrap(), "W")).collect()
}

fn commit(lab: &Lab, path: &Path) {
    lab.git_in(path, &["commit", "-q", "--allow-empty", "-m", "more"]);
}

#[test]
fn nothing_is_lost() {
    assert_eq!(after(|_, _, _| {}), Vec::<String>::new());
    assert_eq!(after(|_, _, path| fs::remove_dir_all(path).unwrap()), Vec::<String>::new());
    // Ignored, reached by a branch, by a tag.
    assert_eq!(
        after(|lab, _, path| {
            fs::create_dir(path.join(".agent-context")).unwrap();
            fs::write(path.join(".agent-context/.gitignore"), "*\n").unwrap();
            commit(lab, path);
            lab.git_in(path, &["branch", "deep/er/kept"]);
        }),
        Vec::<String>::new()
    );
}

#[test]
fn uncommitted_changes() {
    let lost = after(|lab, _, path| {
        fs::write(path.join("a.txt"), "changed").unwrap();
        fs::remove_file(path.join("other/x")).unwrap();
        fs::write(path.join("staged"), "").unwrap();
        lab.git_in(path, &["add", "staged"]);
        fs::create_dir(path.join("new")).unwrap();
        for name in ["new/1", "new/2", "new/ü \n3"] {
            fs::write(path.join(name), "").unwrap();
        }
    });
    assert_eq!(lost, ["W has uncommitted changes: 2 modified, 1 staged, 3 untracked"]);
}

#[test]
fn a_sparse_worktree_misses_nothing() {
    let lab = Lab::new();
    let worktree = Worktree { target_path: Some("other".into()), ..lab.worktree("w") };
    lab.make(&worktree);
    assert_eq!(losses(&lab.task(), &worktree).unwrap(), Vec::<String>::new());
    fs::write(lab.path(&worktree).join("other/x"), "changed").unwrap();
    assert_eq!(losses(&lab.task(), &worktree).unwrap().len(), 1);
}

#[test]
fn commits_that_no_ref_reaches() {
    let lost = after(|lab, _, path| commit(lab, path));
    assert_eq!(lost, ["HEAD of W has 1 commit that no ref reaches"]);
    let lost = after(|lab, _, path| {
        commit(lab, path);
        fs::remove_dir_all(path).unwrap();
    });
    assert_eq!(lost, ["HEAD of W has 1 commit that no ref reaches"]);
    // HEAD of another worktree is no ref: it moves on.
    let lost = after(|lab, _, path| {
        commit(lab, path);
        commit(lab, path);
        let head = lab.git_in(path, &["rev-parse", "HEAD"]);
        lab.git(&["worktree", "add", "-q", "--detach", "../second", head.trim()]);
    });
    assert_eq!(lost, ["HEAD of W has 2 commits that no ref reaches"]);
}

#[test]
fn an_operation_in_progress() {
    let lost = after(|lab, _, path| {
        lab.git_in(path, &["checkout", "-q", "-b", "side"]);
        fs::write(path.join("a.txt"), "side\n").unwrap();
        lab.git_in(path, &["commit", "-q", "-am", "side"]);
        lab.git_in(path, &["checkout", "-q", "-b", "second", "main"]);
        fs::write(path.join("a.txt"), "second\n").unwrap();
        lab.git_in(path, &["commit", "-q", "-am", "second"]);
        assert!(!lab.try_git(path, &["merge", "side"]).status.success());
    });
    assert_eq!(lost, ["W has uncommitted changes: 1 modified, 1 staged", "W is in the middle of a merge"]);
    let lost = after(|lab, _, path| {
        lab.git_in(path, &["bisect", "start"]);
    });
    assert_eq!(lost, ["W is in the middle of a bisection"]);
}

#[test]
fn what_cannot_be_read_counts_as_lost() {
    let lost = after(|_, worktree, path| {
        let entry = path.join("../../../.git/worktrees").join(&worktree.entry);
        fs::write(entry.join("HEAD"), "").unwrap();
    });
    assert!(lost.iter().any(|line| line.starts_with("HEAD of W cannot be read")), "{lost:?}");
    assert!(lost.iter().any(|line| line.starts_with("the changes in W cannot be counted")), "{lost:?}");
    let lost = after(|_, worktree, path| {
        fs::remove_dir_all(path.join("../../../.git/worktrees").join(&worktree.entry)).unwrap();
    });
    assert_eq!(lost, ["W holds 3 files or directories, and its entry in the repository is gone"]);
}
