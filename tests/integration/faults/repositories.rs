//! Tests of kills and errors of runs in three repositories. The inventories of all are as before.

use super::{assert_put_back, failing, some_of, traced, twice};
use crate::sandbox::{Sandbox, assert_same};

/// A session in each of three repositories, and one in all of them.
const THREE: &str = r#"
[repository.web]
root = "../web"
[repository.docs]
root = "../docs"
[session.api]
resources = [{ kind = "git-worktree", branch = "agents/one" }, "port-range"]
[session.web]
resources = [{ kind = "git-worktree", repository = "web", branch = "agents/one", copy = ["secret.log"] }]
[session.writer]
resources = [{ kind = "git-worktree", repository = "docs", target-path = "app" }]
setup = ["true"]
[session.all]
resources = [{ kind = "git-worktree", name = "api" }, { kind = "git-worktree", name = "web", repository = "web", branch = "agents/all" }, { kind = "git-worktree", name = "docs", repository = "docs" }]
"#;

/// A session in two of them.
const BOTH: &str = r#"
[session.both]
resources = [{ kind = "git-worktree", name = "api" }, { kind = "git-worktree", name = "web", repository = "web", branch = "agents/both" }, "port-range"]
"#;

/// An overlay of another repository.
const MOUNTED: &str = r#"
[session.mounted]
resources = [{ kind = "git-worktree", repository = "web", checkout = "overlay" }]
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::in_memory();
    for name in ["web", "docs"] {
        let other = sandbox.other_repository(name);
        std::fs::write(other.join("secret.log"), name).unwrap();
        if name == "docs" {
            // Worktrees of such a repository are registered by `git worktree add`.
            sandbox.git_in(&other, &["config", "core.sharedRepository", "group"]);
        }
    }
    sandbox.manifest(THREE);
    sandbox
}

/// Kills `args` at `point`. A run that does not reach the point ends as usual: repositories are prepared in parallel, and
/// one may find a directory that another has just created.
fn crash_if_reached(sandbox: &Sandbox, args: &[&str], point: &str) {
    let run = traced(sandbox, args, Some(&format!("{point}=crash")));
    if run.outcome.code != 0 {
        run.crashed_at(point);
    }
}

#[test]
fn run_in_three_repositories_is_rolled_back_or_finished_when_it_is_killed() {
    let sandbox = sandbox();
    let before = sandbox.inventory();
    let apply = traced(&sandbox, &["apply"], None);
    assert_eq!(apply.outcome.code, 0, "{:?}", apply.outcome);
    let destroy = traced(&sandbox, &["destroy"], None);
    assert_eq!(destroy.outcome.code, 0, "{:?}", destroy.outcome);
    assert_put_back(&before, &sandbox);
    for point in some_of(twice(&apply.counts())) {
        crash_if_reached(&sandbox, &["apply"], &point);
        sandbox.ok(&["recover"]);
        sandbox.ok(&["destroy"]);
        assert_put_back(&before, &sandbox);
    }
    for point in some_of(twice(&destroy.counts())) {
        sandbox.ok(&["apply"]);
        crash_if_reached(&sandbox, &["destroy"], &point);
        sandbox.ok(&["recover"]);
        sandbox.ok(&["destroy"]);
        assert_put_back(&before, &sandbox);
    }
}

#[test]
fn run_in_three_repositories_is_rolled_back_when_a_step_fails() {
    let sandbox = sandbox();
    let before = sandbox.inventory();
    let mut counts = traced(&sandbox, &["apply"], None).counts();
    sandbox.ok(&["destroy"]);
    let failing = failing();
    counts.retain(|point, _| failing.contains(point));
    for point in some_of(twice(&counts)) {
        let run = traced(&sandbox, &["apply"], Some(&format!("{point}=enospc")));
        // Some steps are done in another way.
        if run.outcome.code == 0 {
            sandbox.ok(&["destroy"]);
        }
        assert_put_back(&before, &sandbox);
    }
}

#[test]
fn destroy_that_gives_up_a_repository_is_finished_when_it_is_killed() {
    let sandbox = sandbox();
    sandbox.manifest(&format!("{THREE}{BOTH}{MOUNTED}"));
    if !sandbox.can_mount() {
        sandbox.manifest(&format!("{THREE}{BOTH}"));
    }
    let (web, kept) = (sandbox.top.join("web"), sandbox.top.join("kept"));
    let before = sandbox.inventory();
    let apply = || {
        sandbox.ok(&["apply"]);
        std::fs::rename(&web, &kept).unwrap();
    };
    // The repository comes back as it was before the swarm was applied.
    let clean = sandbox.top.join("clean");
    let copied = std::process::Command::new("cp").arg("-a").args([&web, &clean]).status();
    assert!(copied.unwrap().success());
    let give_up = ["destroy", "--forget", "web", "--discard"];
    let restore = || {
        std::fs::remove_dir_all(&kept).unwrap();
        let copied = std::process::Command::new("cp").arg("-a").args([&clean, &web]).status();
        assert!(copied.unwrap().success());
        assert_put_back(&before, &sandbox);
    };
    apply();
    let destroy = traced(&sandbox, &give_up, None);
    assert_eq!(destroy.outcome.code, 0, "{:?}", destroy.outcome);
    restore();
    for point in some_of(twice(&destroy.counts())) {
        apply();
        crash_if_reached(&sandbox, &give_up, &point);
        sandbox.ok(&["recover"]);
        sandbox.ok(&give_up);
        restore();
    }
    let failing = failing();
    let mut counts = destroy.counts();
    counts.retain(|point, _| failing.contains(point));
    for point in some_of(twice(&counts)) {
        apply();
        let run = traced(&sandbox, &give_up, Some(&format!("{point}=enospc")));
        if run.outcome.code != 0 {
            // Rolled back, so that everything works again once the repository is back; or left for recovery.
            if run.outcome.code != 73 {
                std::fs::rename(&kept, &web).unwrap();
                sandbox.ok(&["status", "--repair"]);
                sandbox.ok(&["status", "--detailed-exitcode"]);
                std::fs::rename(&web, &kept).unwrap();
            }
            sandbox.ok(&["recover"]);
            sandbox.seedbed(&give_up);
        }
        restore();
    }
}

/// A repository that comes back between the kill and the recovery has what was given up, or nothing was given up.
#[test]
fn repository_that_comes_back_after_a_killed_forget_is_cleared_by_the_commands_of_doctor() {
    let sandbox = sandbox();
    sandbox.manifest(&format!("{THREE}{BOTH}"));
    let (web, kept) = (sandbox.top.join("web"), sandbox.top.join("kept"));
    let of_others = || {
        let mut found = sandbox.inventory();
        found.retain(|path, _| !path.starts_with("web/.git/"));
        found
    };
    let before = of_others();
    let give_up = ["destroy", "--forget", "web", "--discard"];
    let apply = || {
        sandbox.ok(&["apply"]);
        std::fs::rename(&web, &kept).unwrap();
    };
    let clear = || {
        sandbox.ok(&["destroy", "--discard", "--yes"]);
        let found = sandbox.seedbed_in(&web, &["doctor", "--json"]).json();
        for finding in found["findings"].as_array().unwrap() {
            let remedy = finding["remedy"].as_str().unwrap();
            let Some(at) = remedy.find("git -C").filter(|_| finding["id"] == "unknown-worktree") else {
                continue;
            };
            let done = sandbox.program("sh", &sandbox.top).args(["-c", &remedy[at..]]).output().unwrap();
            assert!(done.status.success(), "{remedy}: {done:?}");
        }
        let branches = sandbox.git_in(&web, &["branch", "--list", "--format=%(refname:short)", "agents/*"]);
        for branch in branches.lines() {
            sandbox.git_in(&web, &["branch", "--quiet", "-D", branch]);
        }
        assert_same(&before, &of_others());
        assert!(!web.join(".git/worktrees").exists() && !web.join(".git/seedbed").exists());
    };
    apply();
    let destroy = traced(&sandbox, &give_up, None);
    assert_eq!(destroy.outcome.code, 0, "{:?}", destroy.outcome);
    std::fs::rename(&kept, &web).unwrap();
    clear();
    for point in some_of(twice(&destroy.counts())) {
        apply();
        crash_if_reached(&sandbox, &give_up, &point);
        std::fs::rename(&kept, &web).unwrap();
        sandbox.ok(&["recover"]);
        clear();
    }
}
