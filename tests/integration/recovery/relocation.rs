//! Tests of repositories that are moved, copied or deleted with a swarm in them: they are recognised and rebound, and
//! no work is lost.

mod errors;
mod repositories;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use seedbed::host::Host;
use seedbed::orchestrator::Orchestrator;

use crate::faults::{
    PAIR, assert_put_back, check_all, crash, one_in, sandbox as faulty, some_of, traced, twice, with_overlays,
};
use crate::sandbox::{Inventory, Sandbox, assert_same};

const MIXED: &str = r#"
[session.lead]
resources = [{ kind = "git-worktree", branch = "agents/{{ session.name }}", layout = "nested", copy = [".env"] }, "port-range"]
[session.lead.child.coder]
count = 2
[session.sparse]
resources = [{ kind = "git-worktree", target-path = "app" }]
[session.linked]
resources = [{ kind = "git-worktree", link = ["cache"], relative = true }]
"#;

/// Applies the swarm in another directory, and moves that to the sandbox's repository.
fn moved(sandbox: &Sandbox) {
    let elsewhere = sandbox.top.join("before");
    fs::rename(&sandbox.repository, &elsewhere).unwrap();
    sandbox.seedbed_in(&elsewhere, &["apply"]).expect(0);
    fs::rename(&elsewhere, &sandbox.repository).unwrap();
}

/// Returns the working directory of a session, by its directory's name.
fn worktree(workspace: &Path, name: &str) -> PathBuf {
    let worktrees = fs::read_dir(workspace.join(".ai_ops/worktrees")).unwrap();
    let mut paths = worktrees.map(|entry| entry.unwrap().path());
    let start = format!("shop-{name}-");
    paths.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start)).unwrap()
}

/// Expects that every session is valid; indented lines describe one session.
fn assert_healthy(status: &str) {
    let mut sessions = status.lines().skip(1).filter(|line| !line.starts_with(' '));
    assert!(sessions.all(|line| line.contains(" healthy  ")), "{status}");
}

#[test]
fn a_moved_repository_is_recognised_by_every_command_and_rebound_with_its_work() {
    let sandbox = faulty(&with_overlays(MIXED));
    let before = sandbox.inventory();
    moved(&sandbox);
    let lead = worktree(&sandbox.repository, "lead");
    fs::write(lead.join("work.txt"), "work\n").unwrap();
    let told = ["was moved to", "seedbed recover --moved"];
    sandbox.unchanged(|| {
        for args in [
            &["status"][..],
            &["plan"],
            &["apply", "-y"],
            &["destroy", "--discard"],
            &["recover"],
            &["run", "--", "true"],
            &["env", "lead"],
        ] {
            sandbox.seedbed(args).expect(69).says(&told);
        }
        sandbox.seedbed_in(&lead, &["status"]).expect(69).says(&told);
        let found = sandbox.seedbed(&["doctor"]).expect(1).stdout;
        assert!(found.contains("moved-workspace") && found.contains("seedbed recover --moved"), "{found}");
        assert!(!found.contains("manifest-invalid") && !found.contains("workspace-missing"), "{found}");
        let listed = sandbox.ok(&["list"]).says(&["seedbed recover --moved", "seedbed destroy shop --gone"]);
        assert!(listed.stdout.contains("workspace missing"), "{}", listed.stdout);
    });
    let recovered = sandbox.ok(&["recover", "--moved"]).says(&["shop was rebound from", "apply --setup"]);
    assert!(!recovered.stderr.contains("nothing to recover"), "{recovered:?}");
    let status = sandbox.ok(&["status"]).stdout;
    assert_healthy(&status);
    assert!(status.contains("1 untracked"), "{status}");
    assert_eq!(sandbox.git_in(&lead, &["status", "--porcelain"]), "?? work.txt");
    assert_eq!(sandbox.git_in(&lead, &["branch", "--show-current"]), "agents/lead");
    let said = fs::read_to_string(lead.join(".agent-context/resources.json")).unwrap();
    assert!(!said.contains("/before"), "{said}");
    let linked = worktree(&sandbox.repository, "linked");
    assert_eq!(fs::read_link(linked.join("cache")).unwrap(), sandbox.repository.join("cache"));
    sandbox.ok(&["apply"]).says(&["nothing to do"]);
    sandbox.seedbed(&["destroy"]).expect(69);
    fs::remove_file(lead.join("work.txt")).unwrap();
    sandbox.ok(&["destroy"]);
    assert_put_back(&before, &sandbox);
}

#[test]
fn a_recovery_of_what_was_moved_is_done_again_wherever_it_is_killed() {
    let manifest = with_overlays(PAIR);
    let lab = faulty(&manifest);
    moved(&lab);
    let run = traced(&lab, &["recover", "--moved"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    let mut points = twice(&run.counts());
    points.retain(|point| {
        let parts = ["moved.", "rebind.", "mounts.", "state.", "files.replace"];
        parts.iter().any(|part| point.starts_with(part))
    });
    let mut points = some_of(points);
    // The `.git` file in the directory below a mount, which a temporary file beside it would keep from being mounted.
    let written = run.trace.iter().position(|point| point == "rebind.worktree#1").unwrap();
    points.extend(run.trace[..written].iter().rfind(|point| point.starts_with("files.replace#")).cloned());
    check_all(&manifest, &points, |sandbox, point| {
        let before = sandbox.inventory();
        moved(sandbox);
        crash(sandbox, &["recover", "--moved"], point);
        sandbox.ok(&["recover", "--moved"]);
        let status = sandbox.ok(&["status"]).stdout;
        assert_healthy(&status);
        sandbox.ok(&["destroy"]);
        assert_put_back(&before, sandbox);
    });
}

#[test]
fn workspace_that_was_moved_back_is_unchanged() {
    let sandbox = faulty(MIXED);
    sandbox.ok(&["apply"]);
    let stood = sandbox.inventory();
    let away = sandbox.top.join("away");
    fs::rename(&sandbox.repository, &away).unwrap();
    // Half of it is rebound, and then it is moved back.
    let mut killed = sandbox.command(&["recover", "--moved"]);
    killed.current_dir(&away).env("SEEDBED_FAILPOINT", "rebind.admin#2=crash");
    assert!(!killed.output().unwrap().status.success());
    fs::rename(&away, &sandbox.repository).unwrap();
    sandbox.ok(&["recover", "--moved"]);
    assert_same(&stood, &sandbox.inventory());
    fs::rename(&sandbox.repository, &away).unwrap();
    sandbox.seedbed_in(&away, &["recover", "--moved"]).expect(0);
    fs::rename(&away, &sandbox.repository).unwrap();
    sandbox.ok(&["recover", "--moved"]);
    let status = sandbox.ok(&["status"]).stdout;
    assert_healthy(&status);
    sandbox.ok(&["destroy"]);
}

#[test]
fn an_interrupted_run_is_recovered_after_a_move() {
    let sandbox = faulty(MIXED);
    let before = sandbox.inventory();
    let runs = [
        ("apply", "apply.told#1"),
        ("destroy", "aside.directory-moved#2"),
        ("destroy", "lease.aside#2"),
        ("destroy", "run.given-way#1"),
        ("destroy", "release.directory-gone#1"),
    ];
    for (run, point) in one_in(2, runs) {
        let elsewhere = sandbox.top.join("before");
        fs::rename(&sandbox.repository, &elsewhere).unwrap();
        if run == "destroy" {
            sandbox.seedbed_in(&elsewhere, &["apply"]).expect(0);
        }
        let mut killed = sandbox.command(&[run]);
        killed.current_dir(&elsewhere).env("SEEDBED_FAILPOINT", format!("{point}=crash"));
        assert!(!killed.output().unwrap().status.success());
        fs::rename(&elsewhere, &sandbox.repository).unwrap();
        let moved = sandbox.seedbed(&["recover", "--moved"]);
        assert_eq!(moved.code, 0, "{point}: {moved:?}");
        sandbox.ok(&["recover"]);
        assert_put_back(&before, &sandbox);
    }
}

#[test]
fn a_copy_is_recognised_and_made_another_swarm_while_nothing_of_the_original_is_touched() {
    let sandbox = faulty(&with_overlays(MIXED));
    sandbox.ok(&["apply"]);
    let copy = copied(&sandbox);
    let lead = worktree(&copy, "lead");
    fs::write(lead.join("work.txt"), "work\n").unwrap();
    let original = |sandbox: &Sandbox| {
        let mut found = sandbox.inventory();
        // The state directory has the records of the copy.
        found.retain(|path, _| !path.starts_with("state/"));
        found
    };
    let before = original(&sandbox);
    let told = ["is a copy of", "seedbed recover --copied"];
    for args in [&["status"][..], &["plan"], &["apply", "-y"], &["destroy", "--discard"]] {
        sandbox.seedbed_in(&copy, args).expect(69).says(&told);
        sandbox.seedbed_in(&lead, args).expect(69).says(&told);
    }
    let found = sandbox.seedbed_in(&copy, &["doctor"]).expect(1).stdout;
    assert!(found.contains("copied-workspace"), "{found}");
    sandbox.seedbed_in(&copy, &["recover", "--moved"]).expect(69);
    for point in
        ["copied.allocation#2", "adopt.worktree#1", "adopt.admin#2", "copied.adopted#1", "copied.discovery#2"]
    {
        let mut killed = sandbox.command(&["recover", "--copied"]);
        killed.current_dir(&copy).env("SEEDBED_FAILPOINT", format!("{point}=crash"));
        killed.output().unwrap();
    }
    sandbox.seedbed_in(&copy, &["recover", "--copied"]).expect(0);
    assert_same(&before, &original(&sandbox));
    assert_eq!(sandbox.git_in(&lead, &["status", "--porcelain"]), "?? work.txt");
    sandbox.git_in(&lead, &["add", "work.txt"]);
    sandbox.git_in(&lead, &["commit", "--quiet", "-m", "work"]);
    sandbox.ok(&["status"]);
    assert_same(&before, &original(&sandbox));
    let status = sandbox.seedbed_in(&copy, &["status"]).expect(0).stdout;
    assert_healthy(&status);
    // Only what a copy cannot have is provisioned.
    for change in sandbox.plan_in(&copy)["changes"].as_array().unwrap() {
        assert!(change["action"] != "replace" && change["release"] == serde_json::json!([]), "{change}");
    }
    sandbox.seedbed_in(&copy, &["apply"]).expect(0);
    assert_eq!(sandbox.git_in(&lead, &["log", "-1", "--format=%s"]), "work");
    sandbox.seedbed_in(&copy, &["apply"]).expect(0).says(&["nothing to do"]);
    sandbox.seedbed_in(&copy, &["destroy", "--discard"]).expect(0);
    assert_same(&before, &original(&sandbox));
    let status = sandbox.ok(&["status"]).stdout;
    assert_healthy(&status);
    sandbox.ok(&["destroy"]);
}

/// Copies the sandbox's repository, unchanged, to `copy`.
fn copied(sandbox: &Sandbox) -> PathBuf {
    let copy = sandbox.top.join("copy");
    let copied = Command::new("cp").arg("-a").args([&sandbox.repository, &copy]).status().unwrap();
    assert!(copied.success());
    copy
}

#[test]
fn copy_made_in_the_middle_of_a_run_gets_home_what_the_run_had_moved_aside() {
    let sandbox = faulty(PAIR);
    for point in ["aside.directory-moved#1", "aside.admin-moved#2", "run.given-way#1"] {
        sandbox.ok(&["apply"]);
        fs::write(worktree(&sandbox.repository, "lead").join("work"), "work\n").unwrap();
        crash(&sandbox, &["destroy", "--discard"], point);
        let copy = copied(&sandbox);
        let original = || -> Inventory {
            sandbox.inventory().into_iter().filter(|(path, _)| !path.starts_with("state/")).collect()
        };
        let before = original();
        // A kill during the move back is repaired.
        let mut killed = sandbox.command(&["recover", "--copied"]);
        killed.current_dir(&copy).env("SEEDBED_FAILPOINT", "aside.admin-back#1=crash");
        killed.output().unwrap();
        sandbox.seedbed_in(&copy, &["recover", "--copied"]).expect(0);
        let lead = worktree(&copy, "lead");
        assert!(lead.join("work").is_file(), "{point}");
        assert_eq!(sandbox.git_in(&lead, &["branch", "--show-current"]), "agents/lead");
        assert_healthy(&sandbox.seedbed_in(&copy, &["status"]).expect(0).stdout);
        assert_same(&before, &original());
        sandbox.seedbed_in(&copy, &["destroy", "--discard"]).expect(0);
        assert!(!copy.join(".git/worktrees").exists() && !copy.join(".git/seedbed").exists(), "{point}");
        fs::remove_dir_all(copy).unwrap();
        sandbox.ok(&["recover"]);
    }
}

#[test]
fn copy_made_while_a_run_replaced_a_worktree_keeps_the_one_that_the_user_leaves() {
    let sandbox = faulty(PAIR);
    sandbox.ok(&["apply"]);
    fs::write(worktree(&sandbox.repository, "lead").join("old"), "old\n").unwrap();
    sandbox.manifest(&PAIR.replace("target-path = \"app\"", "target-path = \"tools\""));
    crash(&sandbox, &["apply", "--yes", "--discard"], "run.committed#1");
    let copy = copied(&sandbox);
    let refused = sandbox.seedbed_in(&copy, &["recover", "--copied"]).expect(1);
    let paths = |from: &str| -> Vec<PathBuf> {
        let rest = refused.stderr.split(from).nth(1).expect("the refusal names the paths");
        let end = rest.find(" out of").or_else(|| rest.find(" to keep")).unwrap();
        rest[..end].split(" and ").map(PathBuf::from).collect()
    };
    for path in paths("here: move ") {
        assert!(path.starts_with(&copy), "{}", refused.stderr);
        fs::rename(&path, sandbox.top.join(path.file_name().unwrap())).unwrap_or_else(|_| {
            fs::rename(&path, sandbox.top.join("entry")).unwrap();
        });
    }
    sandbox.seedbed_in(&copy, &["recover", "--copied"]).expect(0);
    assert!(worktree(&copy, "lead").join("old").is_file());
}

/// A path out of the workspace, or an absolute one, leads from the copy to the original's worktree.
#[test]
fn copy_takes_in_no_worktree_that_lies_outside_of_it() {
    for root in ["../worktrees", "ABSOLUTE"] {
        let sandbox = faulty("");
        let root = root.replace("ABSOLUTE", sandbox.repository.join(".ai_ops/worktrees").to_str().unwrap());
        sandbox.manifest(&format!(
            "[session.a]\nresources = [{{ kind = \"git-worktree\", root-directory = \"{root}\" }}, \"port-range\"]\n"
        ));
        sandbox.ok(&["apply"]);
        let outside = sandbox.directory_of("a");
        let before = fs::read(outside.join(".git")).unwrap();
        let copy = copied(&sandbox);
        sandbox.seedbed_in(&copy, &["recover", "--copied"]).expect(0);
        assert_eq!(fs::read(outside.join(".git")).unwrap(), before);
        sandbox.seedbed_in(&copy, &["destroy", "--discard"]);
        assert!(outside.join("README.md").is_file());
        assert_healthy(&sandbox.ok(&["status"]).stdout);
        sandbox.ok(&["destroy"]);
    }
}

#[test]
fn child_of_the_library_moves_and_is_copied_with_its_workspace() {
    let sandbox = faulty(PAIR);
    sandbox.ok(&["apply"]);
    let lead = sandbox.ok(&["exec", "linked", "--", "cat", ".agent-context/resources.json"]).stdout;
    let environment = ["PATH", "HOME"].map(|name| (name.into(), std::env::var_os(name).unwrap()));
    let orchestrator = Orchestrator::new(Host::new(environment.to_vec(), sandbox.state()));
    let child = orchestrator.provision_child(&serde_json::from_str(&lead).unwrap(), "child", 0, 2).unwrap();
    let below = child.snapshot().working_directory.strip_prefix(&sandbox.repository).unwrap().to_owned();
    let away = sandbox.top.join("away");
    let common = |repository: &Path| {
        let args = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
        let found = sandbox.git_in(&repository.join(&below), &args);
        assert_eq!(Path::new(&found), repository.join(".git"));
    };
    for (from, to) in [(&sandbox.repository, &away), (&away, &sandbox.repository)] {
        fs::rename(from, to).unwrap();
        sandbox.seedbed_in(to, &["recover", "--moved"]).expect(0);
        common(to);
    }
    let copy = copied(&sandbox);
    sandbox.seedbed_in(&copy, &["recover", "--copied"]).expect(0);
    common(&copy);
    common(&sandbox.repository);
    sandbox.seedbed_in(&copy, &["destroy", "--discard"]).expect(0);
    assert_healthy(&sandbox.ok(&["status"]).stdout);
    sandbox.ok(&["destroy"]);
}

#[test]
fn other_workspaces_of_one_repository_are_neither_moved_nor_copied() {
    let sandbox = faulty("[session.a]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    let below = sandbox.repository.join("app");
    fs::copy(sandbox.repository.join("seedbed.toml"), below.join("seedbed.toml")).unwrap();
    sandbox.seedbed_in(&below, &["status"]).expect(64).says(&["is not applied here"]);
    let found = sandbox.seedbed_in(&below, &["doctor"]).stdout;
    assert!(!found.contains("moved-workspace") && !found.contains("copied-workspace"), "{found}");
    let clone = sandbox.clone_to("clone");
    sandbox.seedbed_in(&clone, &["status"]).expect(64).says(&["is not applied here"]);
    // The old name of a moved repository may be a link to it.
    fs::rename(&sandbox.repository, sandbox.top.join("real")).unwrap();
    std::os::unix::fs::symlink(sandbox.top.join("real"), &sandbox.repository).unwrap();
    sandbox.seedbed(&["status"]).expect(69).says(&["seedbed recover --moved"]);
    sandbox.ok(&["recover", "--moved"]);
    sandbox.ok(&["destroy"]);
}

#[test]
fn records_of_a_deleted_workspace_are_removed_from_any_directory() {
    let manifest = with_overlays(PAIR);
    let lab = faulty(&manifest);
    let nothing = |sandbox: &Sandbox| {
        let mut found = sandbox.inventory();
        found.retain(|path, _| path.starts_with("state/"));
        assert!(found.is_empty(), "{found:?}");
        assert!(
            !sandbox.state().join("logs").exists()
                || fs::read_dir(sandbox.state().join("logs")).unwrap().next().is_none()
        );
    };
    let gone = |sandbox: &Sandbox| {
        let workspace = sandbox.top.join("workspace");
        fs::rename(&sandbox.repository, &workspace).unwrap();
        sandbox.seedbed_in(&workspace, &["apply"]).expect(0);
        sandbox
            .seedbed_in(&sandbox.top, &["destroy", "shop", "--gone"])
            .expect(69)
            .says(&["exists", "destroy --swarm shop"]);
        sandbox.unmount_all();
        let copied = Command::new("cp").arg("-a").args([&workspace, &sandbox.repository]).status().unwrap();
        assert!(copied.success());
        fs::remove_dir_all(workspace).unwrap();
        let _ = fs::remove_dir_all(sandbox.repository.join(".ai_ops"));
        let _ = fs::remove_dir_all(sandbox.repository.join(".git/worktrees"));
    };
    gone(&lab);
    lab.seedbed_in(&lab.top, &["destroy", "other", "--gone"]).expect(64).says(&["seedbed list"]);
    let run = traced(&lab, &["destroy", "shop", "--gone"], None);
    assert_eq!(run.outcome.code, 0, "{:?}", run.outcome);
    nothing(&lab);
    let mut points = twice(&run.counts());
    points.retain(|point| ["gone.", "overlay.", "state."].iter().any(|part| point.starts_with(part)));
    check_all(&manifest, &some_of(points), |sandbox, point| {
        gone(sandbox);
        crash(sandbox, &["destroy", "shop", "--gone"], point);
        let again = sandbox.seedbed(&["destroy", "shop", "--gone"]);
        assert!(again.code == 0 || again.stderr.contains("no swarm of this host"), "{again:?}");
        for branch in sandbox.git(&["branch", "--list", "--format=%(refname:short)", "agents/*"]).lines() {
            sandbox.git(&["branch", "-D", "--quiet", branch]);
        }
        nothing(sandbox);
    });
}

#[test]
fn swarm_whose_repository_was_moved_away_and_replaced_is_not_forgotten() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.coder]\nresources = [\"git-worktree\", \"port-range\"]\n");
    sandbox.ok(&["apply"]);
    sandbox.ok(&["status"]);
    let moved = sandbox.top.join("moved");
    fs::rename(&sandbox.repository, &moved).unwrap();
    fs::create_dir(&sandbox.repository).unwrap();
    fs::copy(moved.join("seedbed.toml"), sandbox.repository.join("seedbed.toml")).unwrap();
    sandbox.git(&["init", "--quiet"]);
    fs::copy(moved.join(".git/config"), sandbox.repository.join(".git/config")).unwrap();
    sandbox.commit("another repository");
    for args in [&["destroy"][..], &["destroy", "--dry-run"], &["apply"]] {
        let refused = sandbox.unchanged(|| sandbox.seedbed(args).expect(69));
        refused.says(&["[workspace-moved]", "recover --moved", "--gone`"]);
    }
    for args in [&["destroy", "--dry-run"][..], &["destroy", "shop", "--gone"]] {
        sandbox.seedbed_in(&moved, args).expect(69).says(&["[workspace-moved]", "recover --moved"]);
    }
    sandbox.seedbed_in(&moved, &["recover", "--moved"]).expect(0);
    sandbox.seedbed_in(&moved, &["status"]).expect(0);
    sandbox.seedbed_in(&moved, &["destroy"]).expect(0);
}

#[test]
fn deleted_workspaces_of_one_name_are_distinguished() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [\"port-range\"]\n");
    let clones = ["one", "two"].map(|name| sandbox.clone_to(name));
    for clone in &clones {
        sandbox.seedbed_in(clone, &["apply"]).expect(0);
        fs::remove_dir_all(clone).unwrap();
    }
    let refused =
        sandbox.seedbed(&["destroy", "shop", "--gone"]).expect(64).says(&["more than one", "/one", "/two"]);
    let key = refused
        .stderr
        .lines()
        .find(|line| line.ends_with("/one"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    sandbox.ok(&["destroy", key, "--gone"]);
    sandbox.ok(&["destroy", clones[1].to_str().unwrap(), "--gone"]);
    assert_eq!(sandbox.ok(&["list"]).stdout, "");
}

#[test]
fn overlay_work_of_a_deleted_workspace_is_discarded_only_on_request() {
    let sandbox = Sandbox::new();
    sandbox.manifest("[session.a]\nresources = [{ kind = \"git-worktree\", checkout = \"overlay\" }]\n");
    if !sandbox.can_mount() {
        return;
    }
    let clone = sandbox.clone_to("clone");
    sandbox.seedbed_in(&clone, &["apply"]).expect(0);
    fs::write(worktree(&clone, "a").join("work.txt"), "work\n").unwrap();
    sandbox.unmount_all();
    fs::remove_dir_all(&clone).unwrap();
    sandbox.unchanged(|| {
        sandbox
            .seedbed(&["destroy", "shop", "--gone"])
            .expect(69)
            .says(&["files that were written in the worktree"]);
        sandbox
            .seedbed(&["destroy", "shop", "--gone", "--rescue"])
            .expect(64)
            .says(&["copy the files that you need"]);
    });
    sandbox.ok(&["destroy", "shop", "--gone", "--discard"]);
    assert_eq!(sandbox.ok(&["list"]).stdout, "");
}
