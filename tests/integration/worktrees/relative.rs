//! Tests of `relative = true`: the worktree's `.git` file has a relative path, in every state of its session.

use std::fs;
use std::path::{Path, PathBuf};

use crate::faults::crash;
use crate::sandbox::{Sandbox, assert_same};

/// Returns a manifest of a session with a worktree with these options.
fn manifest(options: &str) -> String {
    format!("[session.a]\nresources = [{{ kind = \"git-worktree\", branch = \"agents/a\", {options} }}]\n")
}

/// Creates a sandbox with an applied session, in a workspace with a space in its name.
fn applied(options: &str) -> Sandbox {
    let mut sandbox = Sandbox::in_memory();
    let repository = sandbox.top.join("work space");
    fs::rename(&sandbox.repository, &repository).unwrap();
    sandbox.repository = repository;
    sandbox.manifest(&manifest(options));
    sandbox.ok(&["apply"]);
    sandbox
}

/// Returns the path in the `.git` file of the session's worktree, and the admin directory that it leads to.
#[track_caller]
fn pointer(sandbox: &Sandbox) -> (PathBuf, PathBuf) {
    let worktree = sandbox.directory("a");
    let text = fs::read_to_string(worktree.join(".git")).unwrap();
    let path = PathBuf::from(text.strip_prefix("gitdir: ").unwrap().trim_end());
    let admin = fs::canonicalize(worktree.join(&path)).unwrap();
    assert_eq!(admin.parent().unwrap(), sandbox.repository.join(".git/worktrees"));
    (path, admin)
}

/// Expects that the `.git` file has a relative path, that all of Git's other paths are absolute, and that Git works.
#[track_caller]
fn assert_relative(sandbox: &Sandbox) {
    let (path, admin) = pointer(sandbox);
    let worktree = sandbox.directory("a");
    let name = admin.file_name().unwrap();
    assert_eq!(path, Path::new("../../../.git/worktrees").join(name));
    let gitdir = fs::read_to_string(admin.join("gitdir")).unwrap();
    assert_eq!(gitdir, format!("{}/.git\n", worktree.display()));
    sandbox.git_in(&worktree, &["commit", "--quiet", "--allow-empty", "-m", "work"]);
    let config = fs::read_to_string(sandbox.repository.join(".git/config")).unwrap();
    assert!(!config.to_lowercase().contains("relativeworktrees"), "{config}");
    sandbox.git(&["worktree", "prune"]);
    assert!(sandbox.git(&["worktree", "list", "--porcelain"]).contains(worktree.to_str().unwrap()));
    let status = sandbox.ok(&["status"]).stdout;
    assert!(status.contains("healthy"), "{status}");
}

#[test]
fn relative_worktree_works_through_its_whole_life() {
    let sandbox = applied("relative = true");
    assert_relative(&sandbox);
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    let worktree = sandbox.directory("a");
    fs::write(worktree.join("README.md"), "unsaved\n").unwrap();
    sandbox.seedbed(&["destroy"]).expect(69);
    assert_relative(&sandbox);
    let printed = sandbox.ok(&["destroy", "--rescue"]).stdout;
    assert!(!sandbox.repository.join(".git/worktrees").exists());
    let name = printed.trim_end().strip_prefix("seedbed rescue restore ").unwrap();
    sandbox.ok(&["apply"]);
    sandbox.ok(&["rescue", "restore", name, "--into", "a"]);
    assert_eq!(fs::read_to_string(worktree.join("README.md")).unwrap(), "unsaved\n");
    assert_relative(&sandbox);
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!worktree.exists() && !sandbox.repository.join(".git/worktrees").exists());
}

#[test]
fn worktree_that_git_registers_has_a_relative_file_too() {
    let sandbox = applied("relative = true");
    sandbox.ok(&["destroy"]);
    sandbox.git(&["config", "core.sharedRepository", "group"]);
    // Git 2.48 and later would set an extension of the repository.
    sandbox.git(&["config", "worktree.useRelativePaths", "true"]);
    sandbox.ok(&["apply"]);
    assert_relative(&sandbox);
    sandbox.ok(&["destroy", "--discard"]);
    let before = sandbox.inventory_without_records();
    crash(&sandbox, &["apply"], "pointer.write#1");
    sandbox.ok(&["recover"]);
    assert_same(&before, &sandbox.inventory_without_records());
}

#[test]
fn change_of_the_option_rewrites_only_the_file() {
    let sandbox = applied("checkout = \"git\"");
    let worktree = sandbox.directory("a");
    assert!(pointer(&sandbox).0.is_absolute());
    fs::write(worktree.join("README.md"), "unsaved\n").unwrap();
    sandbox.manifest(&manifest("relative = true"));
    sandbox.ok(&["apply"]).says(&["1 update"]);
    assert_relative(&sandbox);
    assert_eq!(fs::read_to_string(worktree.join("README.md")).unwrap(), "unsaved\n");
    sandbox.manifest(&manifest("relative = false"));
    for point in ["pointer.write#1", "apply.told#1"] {
        crash(&sandbox, &["apply"], point);
        let text = fs::read_to_string(worktree.join(".git")).unwrap();
        assert_eq!(text.starts_with("gitdir: /"), point == "apply.told#1", "{text}");
        sandbox.ok(&["recover"]);
        assert!(!pointer(&sandbox).0.is_absolute(), "{point}");
    }
    sandbox.ok(&["apply"]);
    assert!(pointer(&sandbox).0.is_absolute());
    assert_eq!(fs::read_to_string(worktree.join("README.md")).unwrap(), "unsaved\n");
}

#[test]
fn file_that_git_made_absolute_is_repaired() {
    let sandbox = applied("relative = true");
    let worktree = sandbox.directory("a");
    fs::write(worktree.join("README.md"), "unsaved\n").unwrap();
    let (_, admin) = pointer(&sandbox);
    fs::write(worktree.join(".git"), format!("gitdir: {}\n", admin.display())).unwrap();
    let status = sandbox.ok(&["status"]).stdout;
    assert!(status.contains("by an absolute path instead of a relative one"), "{status}");
    sandbox.ok(&["status", "--repair"]);
    assert_relative(&sandbox);
    assert_eq!(fs::read_to_string(worktree.join("README.md")).unwrap(), "unsaved\n");
    fs::write(worktree.join(".git"), format!("gitdir: {}\n", admin.display())).unwrap();
    sandbox.ok(&["destroy", "--discard"]);
    assert!(!worktree.exists() && !admin.exists());
}

#[test]
fn relative_worktree_works_in_a_moved_workspace_and_is_rebound() {
    let mut sandbox = applied("relative = true");
    let worktree = sandbox.directory("a");
    fs::write(worktree.join("README.md"), "unsaved\n").unwrap();
    let moved = sandbox.top.join("deeper/new place");
    fs::create_dir(sandbox.top.join("deeper")).unwrap();
    fs::rename(&sandbox.repository, &moved).unwrap();
    let below = worktree.strip_prefix(&sandbox.repository).unwrap().to_owned();
    sandbox.repository = moved;
    // Git works before seedbed has rebound the worktree.
    let changed = sandbox.git_in(&sandbox.repository.join(&below), &["status", "--porcelain"]);
    assert!(changed.contains("M README.md"), "{changed}");
    sandbox.ok(&["recover", "--moved"]);
    assert_relative(&sandbox);
    assert_eq!(fs::read_to_string(sandbox.directory("a").join("README.md")).unwrap(), "unsaved\n");
    sandbox.ok(&["destroy", "--discard"]);
}

#[test]
fn settings_for_sparse_worktrees_end_with_a_relative_one_that_was_moved() {
    let mut sandbox = Sandbox::in_memory();
    let config = || fs::read_to_string(sandbox.repository.join(".git/config")).unwrap();
    let before = config();
    sandbox.manifest(&manifest("relative = true, target-path = \"app\""));
    sandbox.ok(&["apply"]);
    assert_ne!(config(), before);
    let moved = sandbox.top.join("moved");
    fs::rename(&sandbox.repository, &moved).unwrap();
    sandbox.repository = moved;
    sandbox.ok(&["recover", "--moved"]);
    sandbox.ok(&["destroy"]);
    assert_eq!(fs::read_to_string(sandbox.repository.join(".git/config")).unwrap(), before);
}
