//! Tests of sessions with worktrees of two repositories, of which the workspace, the other one, or both are moved or copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::copied;
use crate::sandbox::{Inventory, Sandbox, assert_same};

const SESSIONS: &str = r#"
[repository.web]
root = "../web"
[session.both]
resources = [{ kind = "git-worktree", name = "api" }, { kind = "git-worktree", name = "web", repository = "web", branch = "agents/both", link = ["cache"] }, "port-range"]
[session.web]
resources = [{ kind = "git-worktree", repository = "web" }]
"#;

/// Applied swarm with a commit, a staged file and a new file in each of its worktrees.
struct Lab {
    sandbox: Sandbox,
    web: PathBuf,
    /// Worktrees, relative to the workspace.
    worktrees: [PathBuf; 3],
}

impl Lab {
    /// Worktrees of the other repository are registered by `git worktree add`, those of the workspace's own are not.
    fn new() -> Self {
        let sandbox = Sandbox::in_memory();
        let web = sandbox.other_repository("web");
        sandbox.git_in(&web, &["config", "core.sharedRepository", "group"]);
        fs::write(web.join(".git/info/exclude"), "/cache\n").unwrap();
        let missing = ["the repository `web` has no file `cache`", "create it in the repository `web`"];
        sandbox.manifest(SESSIONS);
        sandbox.seedbed(&["plan"]).expect(65).says(&missing);
        fs::create_dir(web.join("cache")).unwrap();
        fs::write(web.join("cache/large.bin"), "large\n").unwrap();
        let planned = sandbox.ok(&["plan"]).stdout;
        assert!(planned.contains("`git worktree add` registers"), "{planned}");
        sandbox.ok(&["apply"]);
        let below = |session: &str| {
            sandbox.directory_of(session).strip_prefix(&sandbox.repository).unwrap().to_owned()
        };
        let worktrees = [below("both").join("api"), below("both").join("web"), below("web")];
        for worktree in worktrees.each_ref().map(|below| sandbox.repository.join(below)) {
            sandbox.git_in(&worktree, &["commit", "--quiet", "--allow-empty", "--message=work"]);
            fs::write(worktree.join("staged.txt"), "staged\n").unwrap();
            sandbox.git_in(&worktree, &["add", "staged.txt"]);
            fs::write(worktree.join("new.txt"), "new\n").unwrap();
        }
        Self { sandbox, web, worktrees }
    }

    /// Expects the work in worktrees of a workspace, of which those of the other repository are registered in `web`.
    #[track_caller]
    fn assert_has_work(&self, workspace: &Path, web: &Path, worktrees: &[PathBuf]) {
        for below in worktrees {
            let worktree = workspace.join(below);
            let status = self.sandbox.git_in(&worktree, &["status", "--porcelain"]);
            assert_eq!(status, "A  staged.txt\n?? new.txt", "{}", worktree.display());
            assert_eq!(self.sandbox.git_in(&worktree, &["log", "-1", "--format=%s"]), "work");
            let common =
                self.sandbox.git_in(&worktree, &["rev-parse", "--path-format=absolute", "--git-common-dir"]);
            let is_own = below.ends_with("api");
            assert_eq!(Path::new(&common), if is_own { workspace } else { web }.join(".git"));
        }
    }

    /// Returns the inventory of both repositories.
    fn repositories(&self) -> Inventory {
        let mut found = self.sandbox.inventory();
        found.retain(|path, _| !path.starts_with("state/"));
        found
    }

    /// Runs `recover` with an option, killed at each of these points first.
    #[track_caller]
    fn recover(&self, workspace: &Path, option: &str, points: &[&str]) -> String {
        for point in points {
            let mut killed = self.sandbox.command(&["recover", option]);
            killed.current_dir(workspace).env("SEEDBED_FAILPOINT", format!("{point}=crash"));
            assert!(!killed.output().unwrap().status.success(), "{point}");
        }
        let recovered = self.sandbox.seedbed_in(workspace, &["recover", option]).expect(0);
        self.sandbox.seedbed_in(workspace, &["status", "--detailed-exitcode"]).expect(0);
        recovered.stderr
    }

    /// Expects that a destroy leaves nothing except the branch with a commit.
    #[track_caller]
    fn assert_destroyed(&self, workspace: &Path, web: &Path) {
        self.sandbox.seedbed_in(workspace, &["destroy", "--discard", "--yes"]).expect(0);
        for repository in [workspace, web] {
            for left in [".ai_ops", ".git/worktrees", ".git/seedbed"] {
                assert!(!repository.join(left).exists(), "{left} is left in {}", repository.display());
            }
        }
        let branches = |repository: &Path| self.sandbox.git_in(repository, &["branch", "--list", "agents/*"]);
        assert_eq!((branches(workspace).trim(), branches(web).trim()), ("", "agents/both"));
    }
}

const ADOPTIONS: [&str; 5] =
    ["copied.allocation#2", "adopt.worktree#1", "adopt.admin#2", "copied.adopted#1", "copied.discovery#1"];

/// The path of the other repository leads from both workspaces to the same repository.
#[test]
fn copy_of_a_workspace_alone_leaves_worktrees_of_another_repository_to_the_original() {
    let lab = Lab::new();
    let sandbox = &lab.sandbox;
    for killed in [false, true] {
        if killed {
            let mut killed = sandbox.command(&["destroy", "--discard", "--yes"]);
            killed.env("SEEDBED_FAILPOINT", "run.set-aside=crash");
            assert!(!killed.output().unwrap().status.success());
            let clone = sandbox.clone_to("clone");
            sandbox.seedbed_in(&clone, &["status"]).expect(64);
            fs::remove_dir_all(clone).unwrap();
        }
        let copy = copied(sandbox);
        let before = lab.repositories();
        sandbox.seedbed_in(&copy, &["status"]).expect(69).says(&["seedbed recover --copied"]);
        let points = ["copied.allocation#2", "adopt.worktree#1", "adopt.admin#1", "copied.adopted#1"];
        for point in points.into_iter().filter(|_| killed) {
            let mut killed = sandbox.command(&["recover", "--copied"]);
            killed.current_dir(&copy).env("SEEDBED_FAILPOINT", format!("{point}=crash"));
            killed.output().unwrap();
        }
        let adopted = sandbox.seedbed_in(&copy, &["recover", "--copied"]).expect(0).stderr;
        lab.assert_has_work(&copy, &lab.web, &lab.worktrees[..1]);
        // The files of the others are in the copy, and belong to no session there.
        let named = adopted.split("changes the original's worktree: move ").skip(1);
        let named: Vec<_> = named.map(|rest| PathBuf::from(rest.split(" away").next().unwrap())).collect();
        assert_eq!(named.len(), 2, "{adopted}");
        for directory in named {
            assert!(directory.starts_with(&copy));
            fs::remove_dir_all(directory).unwrap();
        }
        sandbox.seedbed_in(&copy, &["destroy", "--discard", "--yes"]).expect(0);
        assert!(!copy.join(".git/worktrees").exists());
        assert_same(&before, &lab.repositories());
        fs::remove_dir_all(copy).unwrap();
    }
    sandbox.ok(&["recover", "--discard"]);
    lab.assert_destroyed(&sandbox.repository, &lab.web);
}

#[test]
fn copies_of_both_repositories_have_worktrees_of_their_own() {
    let lab = Lab::new();
    let sandbox = &lab.sandbox;
    let set = sandbox.top.join("set");
    fs::create_dir(&set).unwrap();
    let copied = Command::new("cp").arg("-a").args([&sandbox.repository, &lab.web, &set]).status().unwrap();
    assert!(copied.success());
    let (workspace, web) = (set.join("repository"), set.join("web"));
    let before = lab.repositories();
    let adopted = lab.recover(&workspace, "--copied", &ADOPTIONS);
    assert!(!adopted.contains("the original's"), "{adopted}");
    lab.assert_has_work(&workspace, &web, &lab.worktrees);
    sandbox.seedbed_in(&workspace, &["apply"]).expect(0);
    lab.assert_destroyed(&workspace, &web);
    assert_same(&before, &lab.repositories());
    lab.assert_has_work(&sandbox.repository, &lab.web, &lab.worktrees);
}

#[test]
fn worktrees_follow_another_repository_to_its_new_root() {
    let lab = Lab::new();
    let sandbox = &lab.sandbox;
    let moved = sandbox.top.join("docs");
    fs::rename(&lab.web, &moved).unwrap();
    let unusable = ["the repository `web` (../web) cannot be used", "seedbed recover --moved"];
    sandbox.unchanged(|| sandbox.seedbed(&["recover", "--moved"]).expect(69).says(&unusable));
    let text = sandbox.manifest_text(SESSIONS);
    sandbox.write("seedbed.toml", &text.replace("../web", "../docs"));
    sandbox.unchanged(|| {
        for command in ["plan", "apply", "validate", "destroy"] {
            sandbox.seedbed(&[command]).expect(69).says(&unusable);
        }
    });
    // A repository without the swarm's worktrees is not the one that was moved.
    sandbox.write("seedbed.toml", &text.replace("../web", "../wrong"));
    sandbox.git(&["clone", "--quiet", ".", "../wrong"]);
    sandbox.unchanged(|| sandbox.seedbed(&["recover", "--moved"]).expect(69).says(&unusable));
    fs::remove_dir_all(sandbox.top.join("wrong")).unwrap();
    sandbox.write("seedbed.toml", &text.replace("../web", "../docs"));
    let rebound = lab.recover(
        &sandbox.repository,
        "--moved",
        &["moved.allocation#2", "rebind.worktree#1", "rebind.admin#1"],
    );
    assert!(rebound.contains("`web` were rebound to ../docs"), "{rebound}");
    lab.assert_has_work(&sandbox.repository, &moved, &lab.worktrees);
    sandbox.ok(&["apply"]).says(&["2 updated"]);
    sandbox.ok(&["plan", "--detailed-exitcode"]);
    let listed = sandbox.ok(&["list", "--json"]).json();
    let expected =
        serde_json::json!([{ "name": "web", "root": moved, "exists": true, "sessions": ["both", "web"] }]);
    assert_eq!(listed["swarms"][0]["repositories"], expected);
    let listed = sandbox.ok(&["list"]).stdout;
    assert!(listed.contains(&format!("├ web  {}", moved.display())), "{listed}");
    // After a kill, the old root is needed.
    let mut killed = sandbox.command(&["destroy", "--discard", "--yes"]);
    killed.env("SEEDBED_FAILPOINT", "run.set-aside=crash");
    assert!(!killed.output().unwrap().status.success());
    fs::rename(&moved, &lab.web).unwrap();
    sandbox.write("seedbed.toml", &text);
    sandbox.seedbed(&["recover", "--moved"]).expect(69).says(&["the repository `web` (../docs)"]);
    fs::rename(&lab.web, &moved).unwrap();
    sandbox.ok(&["recover", "--discard"]);
    lab.assert_destroyed(&sandbox.repository, &moved);
}

#[test]
fn workspace_and_another_repository_are_moved_to_unrelated_paths() {
    let lab = Lab::new();
    let sandbox = &lab.sandbox;
    let (deep, moved) = (sandbox.top.join("deep"), sandbox.top.join("docs"));
    fs::create_dir(&deep).unwrap();
    let workspace = deep.join("repository");
    fs::rename(&sandbox.repository, &workspace).unwrap();
    fs::rename(&lab.web, &moved).unwrap();
    sandbox.seedbed_in(&workspace, &["recover", "--moved"]).expect(69).says(&["the repository `web`"]);
    let text = sandbox.manifest_text(SESSIONS).replace("../web", "../../docs");
    fs::write(workspace.join("seedbed.toml"), text).unwrap();
    lab.recover(&workspace, "--moved", &["rebind.worktree#2", "moved.record#1", "moved.renamed#1"]);
    lab.assert_has_work(&workspace, &moved, &lab.worktrees);
    sandbox.seedbed_in(&workspace, &["apply"]).expect(0);
    lab.assert_destroyed(&workspace, &moved);
}
