//! Tests that a caller's Git variables have no effect: seedbed is started from hooks, which inherit them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::sandbox::{Inventory, Outcome, Sandbox, assert_same, walk};

const TREE: &str = r#"
[session.lead]
resources = ["git-worktree", "port-range"]
[session.sparse]
resources = [{ kind = "git-worktree", target-path = "app", branch = "agents/sparse" }]
setup = ["git rev-parse --show-toplevel > where.log", "git status --porcelain >> where.log"]
"#;

fn inventory(directory: &Path) -> Inventory {
    let mut found = Inventory::new();
    walk(directory, Path::new(""), &mut found);
    found
}

#[track_caller]
fn assert_stands(sandbox: &Sandbox) {
    let head = sandbox.git(&["rev-parse", "HEAD"]);
    for directory in sandbox.directories() {
        sandbox.assert_clean(&directory);
        assert!(directory.starts_with(sandbox.repository.join(".ai_ops/worktrees")));
        assert_eq!(sandbox.git_in(&directory, &["rev-parse", "HEAD"]), head);
    }
}

#[test]
fn inherited_variables_of_git_lead_nowhere_else() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let other = sandbox.clone_to("other");
    sandbox.git_in(&other, &["status"]);
    let git = other.join(".git");
    let before = inventory(&other);
    let run = |args: &[&str]| {
        let mut command = sandbox.command(args);
        command
            .env("GIT_DIR", &git)
            .env("GIT_INDEX_FILE", git.join("index"))
            .env("GIT_WORK_TREE", &other)
            .env("GIT_COMMON_DIR", &git)
            .env("GIT_OBJECT_DIRECTORY", git.join("objects"))
            .env("GIT_PREFIX", "app/")
            .env("GIT_NAMESPACE", "elsewhere")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "core.bare")
            .env("GIT_CONFIG_VALUE_0", "true");
        Outcome::of(command.output().unwrap()).expect(0)
    };
    sandbox.unchanged(|| {
        run(&["apply"]);
        assert_same(&before, &inventory(&other));
        assert_stands(&sandbox);
        let sparse = sandbox.directory("sparse");
        let top = sparse.parent().unwrap().to_str().unwrap();
        assert_eq!(fs::read_to_string(sparse.join("where.log")).unwrap(), format!("{top}\n"));
        let inside = run(&["exec", "lead", "--", "git", "rev-parse", "--show-toplevel"]);
        assert_eq!(inside.stdout.trim_end(), sandbox.directory("lead").to_str().unwrap());
        run(&["status"]);
        run(&["destroy"]);
    });
    assert_same(&before, &inventory(&other));
}

/// Writes a repository hook of this name that runs `apply`.
fn apply_from(sandbox: &Sandbox, hook: &str) {
    sandbox.manifest(TREE);
    let hook = sandbox.repository.join(".git/hooks").join(hook);
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\nexec '{}' apply\n", env!("CARGO_BIN_EXE_seedbed"))).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_post_checkout_hook_can_apply() {
    let sandbox = Sandbox::new();
    apply_from(&sandbox, "post-checkout");
    sandbox.git(&["checkout", "--quiet", "-b", "other"]);
    sandbox.assert_clean(&sandbox.repository);
    assert_stands(&sandbox);
}

#[test]
fn a_rebase_can_apply_at_every_commit() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TREE);
    let first = sandbox.git(&["rev-parse", "HEAD"]);
    for name in ["second", "third"] {
        sandbox.write(&format!("{name}.txt"), name);
        sandbox.commit(name);
    }
    let last = sandbox.git(&["rev-parse", "HEAD"]);
    let seedbed = env!("CARGO_BIN_EXE_seedbed");
    // No ref reaches the commit that is being rebased yet, so that a worktree at this commit is not removed
    // unrequested.
    let cycle =
        format!("'{seedbed}' apply && '{seedbed}' plan --detailed-exitcode && '{seedbed}' destroy --discard");
    sandbox.git(&["rebase", "--quiet", "--force-rebase", "--exec", &cycle, &first]);
    sandbox.assert_clean(&sandbox.repository);
    assert_eq!(sandbox.git(&["diff", "--stat", &last, "HEAD"]), "");
    assert_eq!(sandbox.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn a_pre_commit_hook_can_apply() {
    let sandbox = Sandbox::new();
    apply_from(&sandbox, "pre-commit");
    let parent = sandbox.git(&["rev-parse", "HEAD"]);
    sandbox.write("new.txt", "staged\n");
    sandbox.git(&["add", "new.txt"]);
    sandbox.git(&["commit", "--quiet", "--message", "by way of the hook", "new.txt"]);
    sandbox.assert_clean(&sandbox.repository);
    for directory in sandbox.directories() {
        sandbox.assert_clean(&directory);
        assert_eq!(sandbox.git_in(&directory, &["rev-parse", "HEAD"]), parent);
    }
    let committed = sandbox.git(&["show", "--format=", "--name-only", "HEAD"]);
    assert_eq!(committed, "new.txt");
}

#[test]
fn hooks_and_filters_of_the_repository_run_only_if_requested() {
    let sandbox = Sandbox::new();
    let ran = sandbox.top.join("ran");
    for hook in ["post-checkout", "post-index-change", "reference-transaction"] {
        let path = sandbox.repository.join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\necho {hook} >> '{}'\n", ran.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let trap = format!("echo fsmonitor >> '{}'", ran.display());
    sandbox.git(&["config", "core.fsmonitor", &trap]);
    let manifest = |hooks: bool| {
        sandbox.manifest(&format!(
            "[session.a]\nresources = [{{ kind = \"git-worktree\", branch = \"agents/a\", git-hooks = {hooks} }}]\n"
        ));
    };
    manifest(false);
    sandbox.ok(&["apply"]);
    sandbox.ok(&["status"]);
    sandbox.ok(&["destroy"]);
    assert!(!ran.exists(), "ran: {}", fs::read_to_string(&ran).unwrap());
    manifest(true);
    sandbox.ok(&["apply"]);
    assert_eq!(fs::read_to_string(&ran).unwrap().matches("post-checkout").count(), 1);
}
