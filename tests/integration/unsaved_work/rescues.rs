//! Tests of `--rescue`: work that would be lost is saved before the release, and the printed command restores it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::sandbox::{Inventory, Outcome, Sandbox, assert_same, send, wait_until, walk};

const TWO: &str = "[session.coder]\ncount = 2\nresources = [\"git-worktree\", \"port-range\"]\n";

/// Runs the printed commands, and returns the new worktrees by the session in their names.
fn bring_back(sandbox: &Sandbox, printed: &str) -> BTreeMap<String, PathBuf> {
    sandbox.git(&["gc", "--quiet", "--prune=now"]);
    for command in printed.lines() {
        let program = format!("{} -C {} ", env!("CARGO_BIN_EXE_seedbed"), sandbox.repository.display());
        let command = &command.replace("seedbed rescue ", &format!("{program} rescue "));
        let outcome = sandbox.program("sh", &sandbox.top).args(["-c", command]).output().unwrap();
        assert!(outcome.status.success(), "{command}\n{}", String::from_utf8_lossy(&outcome.stderr));
    }
    let listed = sandbox.git(&["worktree", "list", "--porcelain"]);
    let places = listed.lines().filter_map(|line| line.strip_prefix("worktree "));
    places
        .filter_map(|place| {
            let (session, _hash_and_time) =
                place.split_once("-rescued-")?.1.rsplit_once('Z')?.0.rsplit_once("-20")?;
            let (session, _hash) = session.rsplit_once('-')?;
            Some((session.to_owned(), PathBuf::from(place)))
        })
        .collect()
}

/// Returns the inventory of a worktree without the files that depend on its path.
fn files(sandbox: &Sandbox, directory: &Path) -> Inventory {
    let mut found = Inventory::new();
    walk(directory, Path::new(""), &mut found);
    found.retain(|path, _| path != ".git" && !path.starts_with(".agent-context"));
    found.insert("git status".to_owned(), sandbox.git_in(directory, &["status", "--porcelain=v2"]));
    found.insert("git HEAD".to_owned(), sandbox.git_in(directory, &["rev-parse", "HEAD"]));
    found
}

/// Leaves a commit, staged and unstaged changes, and untracked files in a session.
fn work(sandbox: &Sandbox, directory: &Path) {
    fs::write(directory.join("README.md"), "committed\n").unwrap();
    sandbox.git_in(directory, &["commit", "--quiet", "--all", "--message", "work"]);
    fs::write(directory.join("app/main.txt"), "staged\n").unwrap();
    sandbox.git_in(directory, &["add", "app/main.txt"]);
    fs::write(directory.join("app/main.txt"), "changed\n").unwrap();
    fs::write(directory.join("it's new"), "new\n").unwrap();
}

fn rescues(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.git(&["for-each-ref", "--format=%(refname)", "refs/seedbed/rescue"]);
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn destroying_rescues_what_it_would_lose_and_nothing_else() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder-1");
    work(&sandbox, &directory);
    let before = files(&sandbox, &directory);
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69));
    refused.says(&["--rescue", "--discard"]);

    // Even a quiet run prints the command that restores the work.
    let outcome = sandbox.ok(&["destroy", "--rescue", "--quiet"]);
    let refs = rescues(&sandbox);
    assert_eq!(refs.len(), 1);
    assert!(refs[0].starts_with("refs/seedbed/rescue/shop/coder-1/@"), "{refs:?}");
    assert!(!directory.exists() && !sandbox.repository.join(".ai_ops").exists());
    let places = bring_back(&sandbox, &outcome.stdout);
    assert_eq!(places.len(), 1);
    assert_eq!(files(&sandbox, &places["shop-coder-1"]), before);
}

#[test]
fn events_tell_the_ref_and_the_command() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    sandbox.ok(&["apply"]);
    work(&sandbox, &sandbox.directory("coder-0"));
    let outcome = sandbox.ok(&["destroy", "--rescue", "--json"]);
    let events: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rescued: Vec<_> = events.iter().filter(|event| event["event"] == "rescued").collect();
    assert_eq!(rescued.len(), 1, "{events:?}");
    assert_eq!(rescued[0]["session"], "coder-0");
    assert_eq!(rescued[0]["missing"], serde_json::json!([]));
    assert_eq!(rescued[0]["reference"], rescues(&sandbox)[0].as_str());
    let places = bring_back(&sandbox, rescued[0]["command"].as_str().unwrap());
    assert!(places["shop-coder-0"].join("it's new").is_file());
}

#[test]
fn applying_rescues_what_it_replaces_and_destroys() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    sandbox.ok(&["apply"]);
    let (one, other) = (sandbox.directory("coder-0"), sandbox.directory("coder-1"));
    work(&sandbox, &one);
    work(&sandbox, &other);
    let before = files(&sandbox, &one);
    sandbox.manifest(
        "[session.coder]\ncount = 1\nresources = [{ kind = \"git-worktree\", target-path = \"app\" }, \"port-range\"]\n",
    );
    sandbox.unchanged(|| sandbox.seedbed(&["apply", "--yes"]).expect(69));
    let outcome = sandbox.ok(&["apply", "--yes", "--rescue"]);
    let commands: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("seedbed ")).collect();
    let places = bring_back(&sandbox, &commands.join("\n"));
    assert_eq!(places.keys().collect::<Vec<_>>(), ["shop-coder-0", "shop-coder-1"]);
    assert_eq!(files(&sandbox, &places["shop-coder-0"]), before);
}

#[test]
fn session_whose_work_cannot_be_rescued_is_not_released() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder-1");
    work(&sandbox, &directory);
    // A filter that fails, for instance because its program is missing.
    fs::write(directory.join(".gitattributes"), "*.big filter=broken\n").unwrap();
    fs::write(directory.join("some.big"), "big\n").unwrap();
    sandbox.git(&["config", "filter.broken.clean", "false"]);
    sandbox.git(&["config", "filter.broken.required", "true"]);
    let inventory = |sandbox: &Sandbox| {
        let mut inventory = sandbox.inventory();
        inventory.retain(|path, _| !path.starts_with("repository/.git/objects"));
        inventory
    };
    let before = inventory(&sandbox);
    let refused = sandbox.seedbed(&["destroy", "--rescue"]).expect(69);
    refused.says(&["coder-1: rescue git-worktree: ", "nothing was released"]);
    assert_same(&before, &inventory(&sandbox));
}

#[test]
fn a_rescue_that_is_killed_leaves_nothing_once_it_is_recovered() {
    let sandbox = Sandbox::new();
    sandbox.manifest(TWO);
    sandbox.ok(&["apply"]);
    let directory = sandbox.directory("coder-1");
    work(&sandbox, &directory);
    fs::write(directory.join(".gitattributes"), "*.slow filter=slow\n").unwrap();
    fs::write(directory.join("some.slow"), "slow\n").unwrap();
    let top = sandbox.top.display();
    let clean =
        format!("touch {top}/begun; while test -d {top} && ! test -e {top}/go; do sleep 0.05; done; cat");
    sandbox.git(&["config", "filter.slow.clean", &clean]);
    let kept = || {
        let mut inventory = sandbox.inventory();
        inventory
            .retain(|path, _| !path.starts_with("repository/.git/objects") && !path.ends_with(".holder"));
        inventory
    };
    let run = sandbox.start(&["destroy", "--rescue"]);
    wait_until("files are added", || sandbox.top.join("begun").exists());
    send(Signal::KILL, &run);
    Outcome::of(run.wait_with_output().unwrap()).expect(137);
    assert!(kept().keys().any(|path| path.contains("/.rescue-")), "killed in the middle");
    fs::write(sandbox.top.join("go"), "").unwrap();
    // git holds the lock until it ends.
    sandbox.ok(&["recover", "--lock-timeout", "100"]).says(&["finished an interrupted destroy"]);
    assert_eq!(rescues(&sandbox).len(), 1);
    assert!(!kept().keys().any(|path| path.contains("seedbed-") || path.contains(".ai_ops")), "{:?}", kept());
}

/// Kills a destroy before it moves anything aside.
fn killed_destroy(how: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let top = sandbox.top.display();
    sandbox.manifest(&format!(
        "{TWO}teardown = ['test -e {top}/begun && exit 0; touch {top}/begun; while test -d {top}; do sleep 0.1; done']\n"
    ));
    sandbox.ok(&["apply"]);
    work(&sandbox, &sandbox.directory("coder-1"));
    let run = sandbox.start(&["destroy", how]);
    wait_until("the slow teardown runs", || sandbox.top.join("begun").exists());
    send(Signal::KILL, &run);
    Outcome::of(run.wait_with_output().unwrap()).expect(137);
    sandbox
}

#[test]
fn a_killed_rescue_is_recovered_without_a_loss() {
    let sandbox = killed_destroy("--rescue");
    let directory = sandbox.repository.join(".ai_ops/worktrees");
    let outcome = sandbox
        .ok(&["recover"])
        .says(&["finished an interrupted destroy", "refs/seedbed/rescue/shop/coder-1/@"]);
    assert_eq!(rescues(&sandbox).len(), 1);
    assert!(!directory.exists());
    let places = bring_back(&sandbox, &outcome.stdout);
    assert!(places["shop-coder-1"].join("it's new").is_file());
}

#[test]
fn work_that_is_done_after_a_killed_rescue_is_rescued_too() {
    let sandbox = killed_destroy("--rescue");
    let directories = sandbox.repository.join(".ai_ops/worktrees");
    for entry in fs::read_dir(&directories).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::write(path.join("later"), "later\n").unwrap();
        }
    }
    let outcome = sandbox.ok(&["recover"]);
    assert_eq!(rescues(&sandbox).len(), 2);
    let places = bring_back(&sandbox, &outcome.stdout);
    for session in ["shop-coder-0", "shop-coder-1"] {
        assert_eq!(fs::read_to_string(places[session].join("later")).unwrap(), "later\n");
    }
    assert!(places["shop-coder-1"].join("it's new").is_file());
}

#[test]
fn a_killed_discard_is_recovered_as_one_and_can_still_be_rescued() {
    let sandbox = killed_destroy("--discard");
    sandbox.ok(&["recover"]);
    assert_eq!(rescues(&sandbox), Vec::<String>::new());
    for command in ["destroy", "recover"] {
        let sandbox = killed_destroy("--discard");
        sandbox.ok(&[command, "--rescue"]);
        assert_eq!(rescues(&sandbox).len(), 1);
    }
}

#[test]
fn commits_of_a_worktree_whose_branch_is_gone_or_has_no_commit_are_rescued() {
    let sandbox = Sandbox::new();
    let table = "resources = [{ kind = \"git-worktree\", branch = \"agents/{{ session.name }}\" }]\n";
    sandbox.manifest(&["a", "b", "c", "d"].map(|name| format!("[session.{name}]\n{table}")).concat());
    sandbox.ok(&["apply"]);
    let commits = ["a", "b", "c", "d"].map(|name| {
        let directory = sandbox.directory(name);
        if !["c", "d"].contains(&name) {
            sandbox.git_in(&directory, &["switch", "--quiet", "--detach"]);
        }
        sandbox.git_in(&directory, &["commit", "--quiet", "--allow-empty", "--message", name]);
        let commit = sandbox.git_in(&directory, &["rev-parse", "HEAD"]);
        match name {
            "c" => sandbox.git(&["update-ref", "-d", "refs/heads/agents/c"]),
            // Git logs this in the log of the worktree's HEAD.
            "d" => sandbox.git_in(&directory, &["update-ref", "-d", "refs/heads/agents/d"]),
            _ => sandbox.git_in(&directory, &["switch", "--quiet", "--orphan", &format!("pages-{name}")]),
        };
        commit
    });
    // The commits outlast the directory of their worktree.
    fs::remove_dir_all(sandbox.directory("b")).unwrap();
    let refused = sandbox.unchanged(|| sandbox.seedbed(&["destroy"]).expect(69));
    let says = ["a", "b", "c", "d"].map(|session| format!("\n  {session}: 1 commit that no ref reaches"));
    refused.says(&says.each_ref().map(String::as_str));
    sandbox.ok(&["destroy", "--rescue"]);
    sandbox.git(&["gc", "--quiet", "--prune=now"]);
    for commit in commits {
        assert_eq!(sandbox.git(&["rev-list", "--max-count=1", &commit, "--not", "--all"]), "", "{commit}");
    }
}
