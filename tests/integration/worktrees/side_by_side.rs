//! Tests of sessions with worktrees of two repositories, in states in which one worktree alone is tested elsewhere:
//! mounts, rescues, moved workspaces, and garbage collection while the worktrees are aside.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::{Inventory, Outcome, Sandbox, assert_same};

/// A session with two mounts, and one with a mount beside a checkout. Without mounts, all are checkouts.
const BESIDE: &str = r#"
[repository.web]
root = "../web"
[session.both]
resources = [{ kind = "git-worktree", name = "api", checkout = "overlay" }, { kind = "git-worktree", name = "web", repository = "web", checkout = "overlay" }]
[session.one]
resources = [{ kind = "git-worktree", name = "api", branch = "agents/one" }, { kind = "git-worktree", name = "web", repository = "web", checkout = "overlay" }]
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::in_memory();
    sandbox.other_repository("web");
    sandbox.manifest(BESIDE);
    if !sandbox.can_mount() {
        sandbox.manifest(&BESIDE.replace(", checkout = \"overlay\"", ""));
    }
    sandbox
}

/// Returns the files of work, one in each worktree.
fn files(sandbox: &Sandbox) -> Vec<PathBuf> {
    let of =
        |session: &str| ["api", "web"].map(|name| sandbox.directory_of(session).join(name).join("new.txt"));
    ["both", "one"].into_iter().flat_map(of).collect()
}

fn has_work(files: &[PathBuf]) -> bool {
    files.iter().all(|file| fs::read_to_string(file).is_ok_and(|text| text == file.to_str().unwrap()))
}

fn without_objects(mut inventory: Inventory) -> Inventory {
    inventory.retain(|path, _| !path.contains(".git/objects/") && !path.ends_with("refs/seedbed"));
    inventory
}

#[test]
fn worktrees_of_two_repositories_are_repaired_rescued_and_moved_together() {
    let sandbox = sandbox();
    let before = sandbox.inventory();
    sandbox.ok(&["apply"]);
    let files = files(&sandbox);
    for file in &files {
        fs::write(file, file.to_str().unwrap()).unwrap();
    }
    // After a reboot.
    sandbox.unmount_all();
    sandbox.ok(&["status", "--repair"]);
    sandbox.ok(&["status", "--detailed-exitcode"]);
    assert!(has_work(&files));
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69));
    assert_eq!(refused.stderr.matches("1 untracked").count(), 4, "{refused:?}");
    // The workspace is moved beside the other repository, and back.
    let elsewhere = sandbox.top.join("elsewhere");
    for (from, to) in [(&sandbox.repository, &elsewhere), (&elsewhere, &sandbox.repository)] {
        sandbox.unmount_all();
        fs::rename(from, to).unwrap();
        sandbox.seedbed_in(to, &["apply"]).expect(69);
        sandbox.seedbed_in(to, &["recover", "--moved"]).expect(0);
        sandbox.seedbed_in(to, &["status", "--detailed-exitcode"]).expect(0);
    }
    assert!(has_work(&files));
    sandbox.ok(&["destroy", "--rescue"]);
    sandbox.ok(&["apply"]);
    let rescues = sandbox.ok(&["rescue", "list", "--json"]).json();
    for rescue in rescues["rescues"].as_array().unwrap() {
        let name = rescue["name"].as_str().unwrap();
        let session = name.split('/').nth(1).unwrap();
        sandbox.ok(&["rescue", "restore", name, "--into", session]);
        sandbox.ok(&["rescue", "drop", name, "--yes"]);
    }
    assert!(has_work(&files), "{rescues}");
    sandbox.ok(&["destroy", "--discard", "--yes"]);
    assert_eq!(sandbox.mounts(), Vec::<PathBuf>::new());
    // Objects of the rescues stay until the next `git gc`.
    assert_same(&without_objects(before), &without_objects(sandbox.inventory()));
}

#[test]
fn objects_of_two_repositories_survive_garbage_collection_while_worktrees_are_aside() {
    let sandbox = sandbox();
    sandbox.ok(&["apply"]);
    let web = sandbox.top.join("web");
    let worktrees: Vec<_> = files(&sandbox).iter().map(|file| file.parent().unwrap().to_owned()).collect();
    let mut objects = Vec::new();
    for worktree in &worktrees {
        sandbox.git_in(
            worktree,
            &["commit", "--quiet", "--allow-empty", "--message", worktree.to_str().unwrap()],
        );
        fs::write(worktree.join("staged.txt"), worktree.to_str().unwrap()).unwrap();
        sandbox.git_in(worktree, &["add", "staged.txt"]);
        for name in ["HEAD", ":staged.txt"] {
            objects.push((worktree.ends_with("web"), sandbox.git_in(worktree, &["rev-parse", name])));
        }
    }
    let mut command = sandbox.command(&["destroy", "--rescue"]);
    command.env("SEEDBED_FAILPOINT", "run.set-aside=crash");
    Outcome::of(command.output().unwrap()).expect(137);
    for repository in [&sandbox.repository, &web] {
        sandbox.git_in(repository, &["worktree", "prune", "--expire=now"]);
        sandbox.git_in(repository, &["gc", "--quiet", "--prune=now"]);
    }
    let recovered = sandbox.ok(&["recover"]);
    assert_eq!(recovered.stderr.matches("rescued to").count(), 4, "{recovered:?}");
    for (is_web, object) in objects {
        let repository: &Path = if is_web { &web } else { &sandbox.repository };
        sandbox.git_in(repository, &["cat-file", "-e", object.trim()]);
    }
    let listed: Value = sandbox.ok(&["list", "--json"]).json();
    assert!(!listed.to_string().contains("\"shop\""), "{listed}");
}
