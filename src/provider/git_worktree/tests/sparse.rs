use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::super::populate::populate_one;
use super::super::register::register;
use super::super::sparse::{CONFIG, patterns};
use super::Lab;
use crate::provider::git_worktree::Worktree;

fn sparse(lab: &Lab, name: &str, target: &str) -> Worktree {
    Worktree { target_path: Some(target.into()), ..lab.worktree(name) }
}

#[test]
fn patterns_are_gits_byte_for_byte() {
    let targets = [
        "a",
        "a/b c/d",
        "st*r/q?x/[z]",
        "back\\slash/y",
        "!bang/#h",
        "b]r",
        "üml/ä",
        "q\"uote",
        "tab\tx",
        "-f",
    ];
    let files: Vec<String> = targets.iter().map(|target| format!("{target}/in/file")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), "x")).collect();
    let lab = Lab::with_files(&files);
    for target in targets {
        lab.git(&["worktree", "add", "-q", "--detach", "--no-checkout", "../gits"]);
        let gits = fs::canonicalize(lab.repo.join("../gits")).unwrap();
        lab.git_in(&gits, &["sparse-checkout", "set", "--cone", "--skip-checks", "--", target]);
        let admin = lab.repo.join(".git/worktrees/gits");
        let written = fs::read_to_string(admin.join("info/sparse-checkout")).unwrap();
        assert_eq!(patterns(target).unwrap(), written, "{target}");
        assert_eq!(CONFIG, fs::read_to_string(admin.join("config.worktree")).unwrap());
        lab.git(&["worktree", "remove", "-f", "../gits"]);
    }
    patterns("line\nbreak").unwrap_err();
}

#[test]
fn sparse_worktree_has_only_its_target() {
    // Git itself would trim the blanks at the ends of names.
    for target in ["packages/app", "tr ", " lead", "st*r/[z]", "a \\b"] {
        let (inside, beside) = (format!("{target}/in/file"), "beside/file");
        let lab = Lab::with_files(&[(&inside, "x"), (beside, "y"), ("top", "z")]);
        let before = lab.inventory();
        let worktree = sparse(&lab, "w", target);
        lab.make(&worktree);
        assert!(lab.path(&worktree).join(&inside).exists(), "{target:?}");
        assert!(lab.path(&worktree).join("top").exists());
        assert!(!lab.path(&worktree).join("beside").exists());
        assert_eq!(lab.status(&worktree), "");
        lab.release(&worktree);
        assert_eq!(lab.inventory(), before);
    }
    let lab = Lab::new();
    let worktree = sparse(&lab, "w", "not/there");
    register(&lab.task(), &worktree).unwrap();
    populate_one(&lab.task(), &worktree).unwrap_err();
}

#[test]
fn the_config_is_restored_with_the_last_of_many() {
    let lab = Lab::new();
    let config = lab.repo.join(".git/config");
    // No line break at the end, and a mode of its own: both have to survive.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}# odd   layout\n[alias]\n\tx = log")).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    let before = lab.inventory();
    let worktrees: Vec<Worktree> = (0..16).map(|n| sparse(&lab, &format!("w{n}"), "packages/app")).collect();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for worktree in &worktrees {
                scope.spawn(|| {
                    lab.make(worktree);
                    assert!(!lab.path(worktree).join("other").exists());
                    assert_eq!(lab.status(worktree), "");
                    lab.release(worktree);
                });
            }
        });
        assert_eq!(lab.inventory(), before);
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o640);
    }
}

#[test]
fn a_config_that_changed_since_keeps_the_change() {
    let lab = Lab::new();
    let (one, two) = (sparse(&lab, "one", "other"), sparse(&lab, "two", "packages"));
    lab.make(&one);
    lab.git(&["config", "branch.main.description", "changed"]);
    lab.make(&two);
    lab.release(&one);
    assert_eq!(lab.status(&two), "");
    assert_eq!(lab.git(&["config", "extensions.worktreeConfig"]).trim(), "true");
    lab.release(&two);
    assert!(!lab.try_git(&lab.repo, &["config", "extensions.worktreeConfig"]).status.success());
    assert_eq!(lab.git(&["config", "branch.main.description"]).trim(), "changed");
}

#[test]
fn worktree_config_stays_on_if_it_was_on_or_is_in_use() {
    let lab = Lab::new();
    lab.git(&["config", "extensions.worktreeConfig", "true"]);
    let before = lab.inventory();
    let worktree = sparse(&lab, "w", "other");
    lab.make(&worktree);
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);

    let lab = Lab::new();
    lab.make(&worktree_of(&lab));
    lab.git(&["worktree", "add", "-q", "--detach", "../foreign"]);
    lab.git_in(&lab.repo.join("../foreign"), &["sparse-checkout", "set", "packages"]);
    lab.release(&worktree_of(&lab));
    assert_eq!(lab.git(&["config", "extensions.worktreeConfig"]).trim(), "true");
    assert!(!lab.repo.join("../foreign/other").exists());
}

fn worktree_of(lab: &Lab) -> Worktree {
    sparse(lab, "w", "other")
}

#[test]
fn own_stale_lock_is_removed_and_no_other() {
    let lab = Lab::new();
    let worktree = sparse(&lab, "w", "other");
    let before = lab.inventory();
    let config = lab.repo.join(".git/config");
    lab.make(&worktree);
    // As if killed between creating and renaming the lock, both when the setting is added and when it is removed.
    fs::copy(&config, lab.repo.join(".git/config.lock")).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);

    lab.make(&worktree);
    fs::write(lab.repo.join(".git/config.lock"), "").unwrap();
    let error = super::super::release::release(&lab.task(), &worktree).unwrap_err().to_string();
    assert!(error.contains("is being changed by another program"), "{error}");
    fs::remove_file(lab.repo.join(".git/config.lock")).unwrap();
    lab.release(&worktree);
    assert_eq!(lab.inventory(), before);
}

#[test]
fn a_bare_repository_and_core_worktree_are_refused() {
    for (name, value) in [("core.bare", "true"), ("core.worktree", "..")] {
        let lab = Lab::new();
        lab.git(&["config", name, value]);
        let before = lab.inventory();
        let worktree = sparse(&lab, "w", "other");
        let error = register(&lab.task(), &worktree).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        lab.release(&worktree);
        assert_eq!(lab.inventory(), before);
    }
}
